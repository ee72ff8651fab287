//! Dead letters: a row each.
//!
//! A value of `letters` (integers are little endian):
//!
//! | bytes | field |
//! |---|---|
//! | 1 | form, 1 |
//! | 1 | state: 0 open, 1 redriven, 2 dismissed |
//! | 1 | reason |
//! | 8 | noted at, ms since 1970 |
//! | 4, 8, 8 | source: partition, offset, end of a range (-1: none) |
//! | 8 | bytes of the value |
//! | 1 + n | source: topic |
//! | 2 + n | event id; no bytes: none |
//! | rest | detail |

use super::{
    Shared,
    row::{Reader, reason_code, reason_of},
    sum::{self, damaged},
};
use crate::{
    position::{Offset, Partition, RecordPosition, TopicName},
    redb_file,
    store::{
        PAGE_ROWS_MAX, StoreError, WriteSet,
        letter::{LetterFilter, LetterPage, LetterState, LetterTrim, StoredLetter},
    },
    task::event::EventId,
};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use std::ops::Bound;
use tracing::warn;

/// (Topic, partition, offset) of the letter -> letter.
pub(super) const LETTERS: TableDefinition<'static, (&str, i32, i64), &[u8]> =
    TableDefinition::new(TABLE);
const TABLE: &str = "letters";
/// A key as a value of its own: topic, partition, offset.
pub(super) type Place = (String, i32, i64);
/// Rows that one trim looks at (some 2 ms).
const TRIM_ROWS_MAX: usize = 2_000;
/// Most rows that one page looks at.
const SCAN_ROWS_MAX: usize = 10_000;

/// Makes the table where it is missing.
pub(super) fn make_table(
    database: &Database,
    begin: impl FnOnce(&Database) -> Result<WriteTransaction, StoreError>,
) -> Result<(), StoreError> {
    if !redb_file::has_table(&database.begin_read()?, LETTERS)? {
        let transaction = begin(database)?;
        transaction.open_table(LETTERS)?;
        transaction.commit()?;
    }
    Ok(())
}

/// How many letters are open, by reading all.
pub(super) fn count_open(database: &Database) -> Result<u64, StoreError> {
    // A damaged row is told of by whoever needs it.
    count(&database.begin_read()?.open_table(LETTERS)?, |_| Ok(()))
}

/// How many letters are open; each damaged row goes to `note`.
fn count(
    table: &impl ReadableTable<(&'static str, i32, i64), &'static [u8]>,
    mut note: impl FnMut(StoreError) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let mut open = 0;
    for entry in table.iter()? {
        let (key, row) = entry?;
        match sum::open(TABLE, key.value(), row.value(), decode) {
            Ok(letter) => open += u64::from(letter.state == LetterState::Open),
            Err(error) => note(error)?,
        }
    }
    Ok(open)
}

/// Places, sources and reasons of all letters, in one line each.
#[cfg(test)]
pub(super) fn dump(snapshot: &ReadTransaction) -> Vec<String> {
    let table = snapshot.open_table(LETTERS).expect("there");
    let mut lines = Vec::new();
    for row in table.iter().expect("readable") {
        let (key, row) = row.expect("readable");
        let letter = sum::open(TABLE, key.value(), row.value(), decode).expect("sound");
        lines.push(format!("letter {:?} {:?} {:?}", key.value(), letter.source, letter.reason));
    }
    lines
}

/// Reads every letter; each damaged one goes to `note`. Returns how many are open.
pub(super) fn verify(
    snapshot: &ReadTransaction,
    note: impl FnMut(StoreError) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    if !redb_file::has_table(snapshot, LETTERS)? {
        return Ok(0);
    }
    count(&snapshot.open_table(LETTERS)?, note)
}

/// Writes the letters of a batch and what was done about older ones. A letter that is there keeps
/// its state: a replay may note it again. Returns how many are open more (or less) than before.
pub(super) fn write(transaction: &WriteTransaction, writes: &WriteSet) -> Result<i64, StoreError> {
    if writes.letters.is_empty() && writes.letter_states.is_empty() {
        return Ok(0);
    }
    let mut table = transaction.open_table(LETTERS)?;
    let mut change = 0;
    for (place, letter) in &writes.letters {
        if table.get(key(place))?.is_none() {
            table.insert(key(place), &seal(place, letter)[..])?;
            change += i64::from(letter.state == LetterState::Open);
        }
    }
    for (place, state) in &writes.letter_states {
        let known =
            table.get(key(place))?.map(|row| sum::open(TABLE, key(place), row.value(), decode));
        let Some(known) = known.transpose()? else { continue };
        let state = known.state.then(*state);
        change += i64::from(state == LetterState::Open);
        change -= i64::from(known.state == LetterState::Open);
        let letter = StoredLetter { state, ..known };
        table.insert(key(place), &seal(place, &letter)[..])?;
    }
    Ok(change)
}

/// Looks at the rows after `after`, as many as a trim may, and removes those that are kept no
/// longer; begins anew at the end. Of `open` letters, returns how many are left.
pub(super) fn trim(
    transaction: &WriteTransaction,
    trim: &LetterTrim,
    after: &mut Option<Place>,
    open: Option<u64>,
) -> Result<Option<u64>, StoreError> {
    let mut table = transaction.open_table(LETTERS)?;
    let first = match after {
        Some((topic, partition, offset)) => Bound::Excluded((topic.as_str(), *partition, *offset)),
        None => Bound::Unbounded,
    };
    let (mut last, mut gone, mut seen) = (None, Vec::new(), 0);
    let (mut open_gone, mut has_damage) = (0, false);
    for entry in table.range::<(&str, i32, i64)>((first, Bound::Unbounded))?.take(TRIM_ROWS_MAX) {
        let (found, row) = entry?;
        let (topic, partition, offset) = found.value();
        let letter = sum::open(TABLE, found.value(), row.value(), decode).ok();
        let place = (topic.to_owned(), partition, offset);
        if trim.takes(found.value(), letter.as_ref()) {
            has_damage |= letter.is_none();
            open_gone += u64::from(letter.is_some_and(|letter| letter.state == LetterState::Open));
            gone.push(place.clone());
        }
        (last, seen) = (Some(place), seen + 1);
    }
    for (topic, partition, offset) in &gone {
        table.remove((topic.as_str(), *partition, *offset))?;
    }
    if open_gone > 0 {
        warn!(letters = open_gone, "open dead letters went with the records that retention took");
    }
    *after = last.filter(|_| seen == TRIM_ROWS_MAX);
    if has_damage {
        // What they were counted as is not known.
        return Ok(Some(count(&table, |_| Ok(()))?));
    }
    Ok(open.map(|open| open.saturating_sub(open_gone)))
}

fn seal(place: &RecordPosition, letter: &StoredLetter) -> Vec<u8> {
    sum::seal(TABLE, key(place), encode(letter))
}

pub(super) fn letter(
    shared: &Shared,
    place: &RecordPosition,
) -> Result<Option<StoredLetter>, StoreError> {
    let table = shared.snapshot()?.open_table(LETTERS)?;
    let Some(row) = table.get(key(place))? else { return Ok(None) };
    sum::open(TABLE, key(place), row.value(), decode).map(Some)
}

/// Letters of one topic after a place.
pub(super) fn letters(
    shared: &Shared,
    topic: &TopicName,
    filter: &LetterFilter,
    after: Option<&RecordPosition>,
    limit: usize,
) -> Result<LetterPage, StoreError> {
    let snapshot = shared.snapshot()?;
    let (table, limit) = (snapshot.open_table(LETTERS)?, limit.min(PAGE_ROWS_MAX));
    let first = match after {
        Some(place) => Bound::Excluded(key(place)),
        None => Bound::Included((topic.as_str(), 0, 0)),
    };
    let last = Bound::Included((topic.as_str(), i32::MAX, i64::MAX));
    let (mut page, mut seen, mut at) = (LetterPage::default(), 0, None);
    for entry in table.range::<(&str, i32, i64)>((first, last))? {
        if page.letters.len() + page.damaged.len() == limit || seen == SCAN_ROWS_MAX {
            page.next = at;
            return Ok(page);
        }
        let (found, row) = entry?;
        let found = found.value();
        let place = place(topic, found.1, found.2).ok_or_else(|| damaged(TABLE, found))?;
        (at, seen) = (Some(place.clone()), seen + 1);
        match shared.damages.note(sum::open(TABLE, found, row.value(), decode)) {
            Ok(letter) if filter.takes(&letter) => page.letters.push((place, letter)),
            Ok(_) => (),
            Err(error) => page.damaged.push((place, error.to_string())),
        }
    }
    Ok(page)
}

fn key(place: &RecordPosition) -> (&str, i32, i64) {
    (place.topic.as_str(), place.partition.get(), place.offset.get())
}

fn place(topic: &TopicName, partition: i32, offset: i64) -> Option<RecordPosition> {
    let (partition, offset) = (Partition::new(partition)?, Offset::new(offset)?);
    Some(RecordPosition { topic: topic.clone(), partition, offset })
}

/// What every row begins with.
const FORM: u8 = 1;

fn encode(letter: &StoredLetter) -> Vec<u8> {
    let event_id = letter.event_id.as_ref().map_or("", EventId::as_str);
    let topic = letter.source.topic.as_str();
    let mut row = Vec::with_capacity(letter.detail.len() + event_id.len() + topic.len() + 42);
    row.extend_from_slice(&[FORM, state_code(letter.state), reason_code(letter.reason)]);
    row.extend_from_slice(&letter.at_ms.to_le_bytes());
    row.extend_from_slice(&letter.source.partition.get().to_le_bytes());
    row.extend_from_slice(&letter.source.offset.get().to_le_bytes());
    row.extend_from_slice(&letter.end.map_or(-1, Offset::get).to_le_bytes());
    row.extend_from_slice(&letter.value_bytes.to_le_bytes());
    row.push(u8::try_from(topic.len()).expect("a topic's name has at most 249 bytes"));
    row.extend_from_slice(topic.as_bytes());
    let length = u16::try_from(event_id.len()).expect("an event id has at most 512 bytes");
    row.extend_from_slice(&length.to_le_bytes());
    row.extend_from_slice(event_id.as_bytes());
    row.extend_from_slice(letter.detail.as_bytes());
    row
}

fn decode(row: &[u8]) -> Option<StoredLetter> {
    let mut reader = Reader::of_form(row, FORM)?;
    let (state, reason) = (state_of(reader.u8()?)?, reason_of(reader.u8()?)?);
    let at_ms = reader.i64()?;
    let (partition, offset, end) = (reader.i32()?, reader.i64()?, reader.i64()?);
    let value_bytes = reader.u64()?;
    let topic_bytes = usize::from(reader.u8()?);
    let topic = TopicName::new(str::from_utf8(reader.bytes(topic_bytes)?).ok()?)?;
    let id_bytes = usize::from(reader.u16()?);
    let event_id = str::from_utf8(reader.bytes(id_bytes)?).ok()?;
    Some(StoredLetter {
        state,
        reason,
        detail: str::from_utf8(reader.rest()).ok()?.to_owned(),
        event_id: EventId::new(event_id),
        source: place(&topic, partition, offset)?,
        end: Offset::new(end),
        at_ms,
        value_bytes,
    })
}

const fn state_code(state: LetterState) -> u8 {
    match state {
        LetterState::Open => 0,
        LetterState::Redriven => 1,
        LetterState::Dismissed => 2,
    }
}

const fn state_of(code: u8) -> Option<LetterState> {
    match code {
        0 => Some(LetterState::Open),
        1 => Some(LetterState::Redriven),
        2 => Some(LetterState::Dismissed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::transition::Reason;

    #[test]
    fn a_row_gives_its_letter_back_and_a_cut_one_is_damaged() {
        let topic = TopicName::new("t").expect("a name");
        let mut letter = StoredLetter {
            state: LetterState::Dismissed,
            reason: Reason::Hole,
            detail: "why".to_owned(),
            event_id: EventId::new("e"),
            source: place(&topic, 3, 9).expect("a place"),
            end: Offset::new(12),
            at_ms: -5,
            value_bytes: 1 << 40,
        };
        assert_eq!(decode(&encode(&letter)).as_ref(), Some(&letter));
        let row = encode(&letter);
        for length in 0..row.len() - letter.detail.len() {
            assert_eq!(decode(&row[..length]), None, "{length} bytes");
        }
        (letter.event_id, letter.end, letter.detail) = (None, None, String::new());
        assert_eq!(decode(&encode(&letter)), Some(letter));
    }

    #[tokio::test]
    async fn letters_are_trimmed_with_their_topic_and_ended_ones_by_age_and_stay_counted() {
        use crate::{
            position::TopicPartition,
            store::{CommitDurability, Store, contract::Windows, redb::RedbStore},
        };
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tasks.redb");
        let topic = TopicName::new("t.dlq").expect("a name");
        let at = |offset| place(&topic, 0, offset).expect("a place");
        let letter = |at_ms, state| StoredLetter {
            state,
            reason: Reason::InvalidJson,
            detail: String::new(),
            event_id: None,
            source: at(7),
            end: None,
            at_ms,
            value_bytes: 2,
        };
        let count = i64::try_from(2 * TRIM_ROWS_MAX).expect("small");
        let ended = [LetterState::Redriven, LetterState::Dismissed];
        let mut letters: Vec<_> =
            (0..count).map(|n| (at(n), letter(n, LetterState::Open))).collect();
        letters.extend((0..4).map(|n| (at(count + n), letter(n, ended[usize::from(n % 2 == 0)]))));
        let open = || {
            let options = super::super::tests::options(Windows::WIDE);
            RedbStore::open(&path, options).expect("opened")
        };
        let store = open();
        store.start().await.expect("started");
        let writes = WriteSet { letters, ..WriteSet::default() };
        store.commit(writes, CommitDurability::Immediate).await.expect("committed");
        let start = Offset::new(count - 3).expect("an offset");
        let dlq = TopicPartition { topic: topic.clone(), partition: Partition::ZERO };
        let trim = LetterTrim { log_starts: vec![(dlq, start)], ended_since_ms: 2 };
        for _ in 0..4 {
            let writes = WriteSet { letter_trim: Some(trim.clone()), ..WriteSet::default() };
            store.commit(writes, CommitDurability::Immediate).await.expect("committed");
        }
        let page = store.letters(&topic, &LetterFilter::default(), None, 1_000).await;
        let left: Vec<_> =
            page.expect("read").letters.into_iter().map(|(p, _)| p.offset.get()).collect();
        let (first, last) = (count - 3, count + 2);
        assert_eq!(left, [first, first + 1, first + 2, last, last + 1]);
        assert_eq!(store.stats().letters_open, 3);
        store.close().await.expect("closed");
        drop(store);
        let report = super::super::verify::verify(&path).expect("verified");
        assert_eq!(report.damages, Vec::<String>::new());

        // A row that cannot be read costs nothing at a start: the count was kept.
        let database = Database::open(&path).expect("opened");
        let transaction = database.begin_write().expect("begun");
        let mut table = transaction.open_table(LETTERS).expect("there");
        table.insert(key(&at(first)), &b"no row"[..]).expect("written");
        drop(table);
        transaction.commit().expect("committed");
        drop(database);
        let store = open();
        assert_eq!(store.stats().letters_open, 3);
        store.start().await.expect("started");
        let dlq = TopicPartition { topic: topic.clone(), partition: Partition::ZERO };
        let start = start.advance(1).expect("an offset");
        let trim = LetterTrim { log_starts: vec![(dlq, start)], ended_since_ms: 2 };
        let writes = WriteSet { letter_trim: Some(trim), ..WriteSet::default() };
        store.commit(writes, CommitDurability::Immediate).await.expect("committed");
        assert_eq!(store.stats().letters_open, 2, "counted anew where a damaged one went");
    }

    #[tokio::test]
    async fn letters_and_their_states_are_kept_and_a_replay_changes_none() {
        use crate::store::{CommitDurability, Store, redb::RedbStore};
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tasks.redb");
        let topic = TopicName::new("t.dlq").expect("a name");
        let at = |offset| place(&topic, 0, offset).expect("a place");
        let letter = |reason| StoredLetter {
            state: LetterState::Open,
            reason,
            detail: String::new(),
            event_id: None,
            source: at(7),
            end: None,
            at_ms: 1,
            value_bytes: 2,
        };
        let reasons = [Reason::InvalidJson, Reason::Hole, Reason::InvalidJson];
        let added: Vec<_> = (0..).zip(reasons).map(|(n, r)| (at(n), letter(r))).collect();
        let states = vec![
            (at(0), LetterState::Redriven),
            (at(0), LetterState::Dismissed),
            (at(99), LetterState::Dismissed),
        ];
        let (letters, letter_states) = (added.clone(), states);
        let store = RedbStore::open(
            &path,
            super::super::tests::options(crate::store::contract::Windows::WIDE),
        )
        .expect("opened");
        store.start().await.expect("started");
        let writes = WriteSet { letters, letter_states, ..WriteSet::default() };
        store.commit(writes, CommitDurability::Immediate).await.expect("committed");
        assert_eq!(store.stats().letters_open, 2);
        drop(store);

        let store = RedbStore::open(
            &path,
            super::super::tests::options(crate::store::contract::Windows::WIDE),
        )
        .expect("opened");
        store.start().await.expect("started");
        assert_eq!(store.stats().letters_open, 2, "counted again");
        let writes = WriteSet { letters: added, ..WriteSet::default() };
        store.commit(writes, CommitDurability::Deferred).await.expect("committed");
        assert_eq!(store.stats().letters_open, 2);
        let first = store.letter(&at(0)).await.expect("read").expect("there");
        assert_eq!(first.state, LetterState::Redriven);
        assert_eq!(store.letter(&at(99)).await.expect("read"), None);

        let filter = LetterFilter { reason: Some(Reason::InvalidJson), state: None };
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = store.letters(&topic, &filter, after.as_ref(), 1).await.expect("read");
            found.extend(page.letters.into_iter().map(|(place, _)| place.offset.get()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, [0, 2]);
        let other = TopicName::new("other.dlq").expect("a name");
        let page = store.letters(&other, &LetterFilter::default(), None, 9).await.expect("read");
        assert!(page.letters.is_empty() && page.next.is_none());
    }
}
