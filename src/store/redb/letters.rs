//! Dead letters: a row each, and how many are open by reason.
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
    read::damaged,
    row::{Reader, reason_code, reason_of},
};
use crate::{
    position::{Offset, Partition, RecordPosition, TopicName},
    store::{
        PAGE_ROWS_MAX, StoreError, WriteSet,
        letter::{LetterFilter, LetterPage, LetterState, StoredLetter},
    },
    task::event::EventId,
};
use redb::{
    Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle, WriteTransaction,
};
use std::ops::Bound;

/// (Topic, partition, offset) of the letter -> letter.
const LETTERS: TableDefinition<'static, (&str, i32, i64), &[u8]> = TableDefinition::new("letters");
/// Reason -> open letters; no row for none.
const OPEN_LETTERS: TableDefinition<'static, &str, u64> = TableDefinition::new("open_letters");

/// Most rows that one page looks at.
const SCAN_ROWS_MAX: usize = 10_000;

/// Makes the tables where they are missing; returns how many letters are open.
pub(super) fn open(
    database: &Database,
    begin: impl FnOnce(&Database) -> Result<WriteTransaction, StoreError>,
) -> Result<u64, StoreError> {
    let tables = database.begin_read()?.list_tables()?.any(|t| t.name() == LETTERS.name());
    if !tables {
        let transaction = begin(database)?;
        transaction.open_table(LETTERS)?;
        transaction.open_table(OPEN_LETTERS)?;
        transaction.commit()?;
    }
    let snapshot = database.begin_read()?;
    let table = snapshot.open_table(OPEN_LETTERS)?;
    let mut open = 0_u64;
    for row in table.iter()? {
        open = open.saturating_add(row?.1.value());
    }
    Ok(open)
}

/// Writes the letters of a batch and what was done about older ones. A letter that is there keeps
/// its state: a replay may note it again. Returns the change of the number of open ones.
pub(super) fn write(transaction: &WriteTransaction, writes: &WriteSet) -> Result<i64, StoreError> {
    if writes.letters.is_empty() && writes.letter_states.is_empty() {
        return Ok(0);
    }
    let mut table = transaction.open_table(LETTERS)?;
    let mut open = Open { table: transaction.open_table(OPEN_LETTERS)?, change: 0 };
    for (place, letter) in &writes.letters {
        if table.get(key(place))?.is_none() {
            table.insert(key(place), &encode(letter)[..])?;
            open.count(letter, 1)?;
        }
    }
    for (place, state) in &writes.letter_states {
        let known = table.get(key(place))?.map(|row| decode(row.value()));
        let Some(known) = known else { continue };
        let known = known.ok_or(damaged("letters"))?;
        open.count(&known, -1)?;
        let letter = StoredLetter { state: *state, ..known };
        table.insert(key(place), &encode(&letter)[..])?;
        open.count(&letter, 1)?;
    }
    Ok(open.change)
}

/// The table of open letters, and what a batch changes in all.
struct Open<'a> {
    table: redb::Table<'a, &'static str, u64>,
    change: i64,
}

impl Open<'_> {
    /// Adds an open letter to its count or takes it from there; others do not count.
    fn count(&mut self, letter: &StoredLetter, change: i64) -> Result<(), StoreError> {
        if letter.state != LetterState::Open {
            return Ok(());
        }
        let reason = letter.reason.as_str();
        let before = self.table.get(reason)?.map_or(0, |count| count.value());
        match before.saturating_add_signed(change) {
            0 => drop(self.table.remove(reason)?),
            after => drop(self.table.insert(reason, after)?),
        }
        self.change += change;
        Ok(())
    }
}

pub(super) fn letter(
    shared: &Shared,
    place: &RecordPosition,
) -> Result<Option<StoredLetter>, StoreError> {
    let table = shared.snapshot()?.open_table(LETTERS)?;
    let Some(row) = table.get(key(place))? else { return Ok(None) };
    Ok(Some(decode(row.value()).ok_or(damaged("letters"))?))
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
        if page.letters.len() == limit || seen == SCAN_ROWS_MAX {
            page.next = at;
            return Ok(page);
        }
        let (found, row) = entry?;
        let (_, partition, offset) = found.value();
        let place = place(topic, partition, offset).ok_or(damaged("letters"))?;
        let letter = decode(row.value()).ok_or(damaged("letters"))?;
        (at, seen) = (Some(place.clone()), seen + 1);
        if filter.takes(&letter) {
            page.letters.push((place, letter));
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
}
