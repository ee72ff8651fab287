//! Idempotent producers of one partition: ids, epochs and the window of their last batches. Pure.
//!
//! Invariants: a batch that is in the window is never appended again; within an epoch sequences are
//! appended without a gap. Both hold across a crash, because the state is a function of the batch
//! headers in the log: a snapshot as of some offset, and every header from there on.
//!
//! Source: KIP-98; Apache Kafka, `ProducerAppendInfo`, `ProducerStateEntry`.

use crate::wire::batch::BatchHeader;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Batches of a producer that are told apart from new ones, as Kafka: a producer has at most 5
/// requests in flight.
pub const WINDOW_BATCHES: usize = 5;

/// Producers kept per partition; above it the one that was silent longest is forgotten.
pub const PRODUCERS_MAX: usize = 10_000;

/// A producer that was silent for longer is forgotten (`producer.id.expiration.ms`).
pub const EXPIRY_MS: i64 = 24 * 60 * 60 * 1000;

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Append it.
    New,
    /// It is in the log already, from this offset on.
    Duplicate {
        /// Base offset of the original.
        base_offset: i64,
    },
    /// A batch before it is missing.
    OutOfOrder,
    /// Its epoch is older than the newest known.
    Fenced,
}

/// One batch in a window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Sent {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

/// What is known of one producer.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Entry {
    epoch: i16,
    last_append_ms: i64,
    /// Oldest first; never empty.
    window: VecDeque<Sent>,
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Producers {
    entries: HashMap<i64, Entry>,
    /// (last append, id): who is forgotten first.
    by_age: BTreeMap<(i64, i64), ()>,
}

/// The state before some appends, to go back to when they fail.
#[derive(Debug, Default)]
pub struct Undo(Vec<(i64, Option<Entry>)>);

impl Producers {
    /// Judges a batch; the state is unchanged.
    pub fn check(&self, header: &BatchHeader) -> Verdict {
        if !header.is_idempotent() {
            return Verdict::New;
        }
        let Some(entry) = self.entries.get(&header.producer_id) else {
            // Nothing is known, perhaps because retention or expiry took it: any sequence is taken.
            return Verdict::New;
        };
        if header.producer_epoch < entry.epoch {
            return Verdict::Fenced;
        }
        if header.producer_epoch > entry.epoch {
            return if header.base_sequence == 0 { Verdict::New } else { Verdict::OutOfOrder };
        }
        let (first, last) = (header.base_sequence, last_sequence(header));
        let is_same = |sent: &&Sent| sent.first_sequence == first && sent.last_sequence == last;
        if let Some(original) = entry.window.iter().find(is_same) {
            return Verdict::Duplicate { base_offset: original.base_offset };
        }
        let newest = entry.window.back().map_or(i32::MAX, |sent| sent.last_sequence);
        if first == sequence_after(newest) { Verdict::New } else { Verdict::OutOfOrder }
    }

    /// Notes a batch that is (or is about to be) in the log at its base offset.
    pub fn note(&mut self, header: &BatchHeader, now_ms: i64, undo: &mut Undo) {
        if !header.is_idempotent() || header.is_control() {
            return;
        }
        let id = header.producer_id;
        let before = self.entries.get(&id).cloned();
        let mut entry = match &before {
            Some(known) if known.epoch == header.producer_epoch => known.clone(),
            _ => Entry { epoch: header.producer_epoch, last_append_ms: 0, window: VecDeque::new() },
        };
        undo.0.push((id, before));
        entry.last_append_ms = now_ms;
        entry.window.push_back(Sent {
            first_sequence: header.base_sequence,
            last_sequence: last_sequence(header),
            base_offset: header.base_offset,
        });
        if entry.window.len() > WINDOW_BATCHES {
            entry.window.pop_front();
        }
        self.put(id, Some(entry));
    }

    /// Goes back to the state before what `undo` saw.
    pub fn roll_back(&mut self, undo: Undo) {
        for (id, before) in undo.0.into_iter().rev() {
            self.put(id, before);
        }
    }

    /// Forgets producers that were silent too long, and the most silent above the bound.
    pub fn expire(&mut self, now_ms: i64) {
        while let Some((&(last_append_ms, id), ())) = self.by_age.first_key_value() {
            let is_old = now_ms.saturating_sub(last_append_ms) > EXPIRY_MS;
            if !is_old && self.entries.len() <= PRODUCERS_MAX {
                return;
            }
            self.put(id, None);
        }
    }

    /// Producers known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn put(&mut self, id: i64, entry: Option<Entry>) {
        let age = entry.as_ref().map(|entry| entry.last_append_ms);
        let old = match entry {
            Some(entry) => self.entries.insert(id, entry),
            None => self.entries.remove(&id),
        };
        if let Some(old) = old {
            self.by_age.remove(&(old.last_append_ms, id));
        }
        if let Some(age) = age {
            self.by_age.insert((age, id), ());
        }
    }

    /// The bytes of a snapshot.
    ///
    /// | bytes | field |
    /// |---|---|
    /// | 0 | form, 1 |
    /// | 1..5 | producers |
    /// | then, for each, 8 | id |
    /// | 2 | epoch |
    /// | 8 | last append, ms |
    /// | 1 | batches in the window |
    /// | then, for each, 4 + 4 + 8 | first sequence, last sequence, base offset |
    ///
    /// All big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![SNAPSHOT_FORM];
        let count = u32::try_from(self.entries.len()).expect("bounded by PRODUCERS_MAX");
        bytes.extend(count.to_be_bytes());
        for (_, id) in self.by_age.keys() {
            let entry = &self.entries[id];
            bytes.extend(id.to_be_bytes());
            bytes.extend(entry.epoch.to_be_bytes());
            bytes.extend(entry.last_append_ms.to_be_bytes());
            bytes.push(u8::try_from(entry.window.len()).expect("at most WINDOW_BATCHES"));
            for sent in &entry.window {
                bytes.extend(sent.first_sequence.to_be_bytes());
                bytes.extend(sent.last_sequence.to_be_bytes());
                bytes.extend(sent.base_offset.to_be_bytes());
            }
        }
        bytes
    }

    /// The state in a snapshot; `None` if the bytes are no snapshot.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        if take::<1>(from)? != [SNAPSHOT_FORM] {
            return None;
        }
        let mut producers = Self::default();
        for _ in 0..u32::from_be_bytes(take(from)?) {
            let id = i64::from_be_bytes(take(from)?);
            let epoch = i16::from_be_bytes(take(from)?);
            let last_append_ms = i64::from_be_bytes(take(from)?);
            let [batches] = take::<1>(from)?;
            if !(1..=WINDOW_BATCHES).contains(&usize::from(batches)) {
                return None;
            }
            let mut window = VecDeque::new();
            for _ in 0..batches {
                window.push_back(Sent {
                    first_sequence: i32::from_be_bytes(take(from)?),
                    last_sequence: i32::from_be_bytes(take(from)?),
                    base_offset: i64::from_be_bytes(take(from)?),
                });
            }
            producers.put(id, Some(Entry { epoch, last_append_ms, window }));
        }
        from.is_empty().then_some(producers)
    }
}

/// Takes the next bytes off the front.
fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*taken)
}

/// The sequence after `sequence`: after `i32::MAX` comes 0.
fn sequence_after(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}

/// Sequence of the last record.
fn last_sequence(header: &BatchHeader) -> i32 {
    let (base, delta) = (header.base_sequence, header.last_offset_delta);
    base.checked_add(delta).unwrap_or_else(|| delta - (i32::MAX - base) - 1)
}

const SNAPSHOT_FORM: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(id: i64, epoch: i16, sequence: i32, records: i32, offset: i64) -> BatchHeader {
        BatchHeader {
            base_offset: offset,
            size_bytes: 100,
            leader_epoch: 0,
            crc: 0,
            attributes: 0,
            last_offset_delta: records - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: id,
            producer_epoch: epoch,
            base_sequence: sequence,
            record_count: records,
        }
    }

    fn noted(batches: &[BatchHeader]) -> Producers {
        let mut producers = Producers::default();
        for batch in batches {
            producers.note(batch, 0, &mut Undo::default());
        }
        producers
    }

    #[track_caller]
    fn check(sent: &[(i16, i32, i32)], next: (i16, i32, i32), expected: Verdict) {
        let mut offset = 0;
        let mut batches = Vec::new();
        for &(epoch, sequence, records) in sent {
            batches.push(header(1, epoch, sequence, records, offset));
            offset += i64::from(records);
        }
        let producers = noted(&batches);
        assert_eq!(producers.check(&header(1, next.0, next.1, next.2, 0)), expected);
    }

    #[test]
    fn the_next_sequence_is_new_and_a_gap_is_not() {
        check(&[(0, 0, 3)], (0, 3, 1), Verdict::New);
        check(&[(0, 0, 3)], (0, 4, 1), Verdict::OutOfOrder);
        check(&[(0, 0, 3)], (0, 2, 1), Verdict::OutOfOrder);
        check(&[], (0, 7, 1), Verdict::New);
    }

    #[test]
    fn a_resent_batch_gets_its_first_offset() {
        let sent: Vec<_> = (0..7).map(|n| (0, n * 2, 2)).collect();
        check(&sent, (0, 12, 2), Verdict::Duplicate { base_offset: 12 });
        check(&sent, (0, 4, 2), Verdict::Duplicate { base_offset: 4 });
        check(&sent, (0, 2, 2), Verdict::OutOfOrder);
        check(&sent, (0, 12, 1), Verdict::OutOfOrder);
    }

    #[test]
    fn a_newer_epoch_begins_at_zero_and_fences_the_older() {
        check(&[(3, 0, 1)], (4, 0, 1), Verdict::New);
        check(&[(3, 0, 1)], (4, 1, 1), Verdict::OutOfOrder);
        check(&[(3, 0, 1)], (2, 1, 1), Verdict::Fenced);
        check(&[(3, 0, 1), (4, 0, 2)], (4, 2, 1), Verdict::New);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        check(&[(0, i32::MAX, 1)], (0, 0, 1), Verdict::New);
        check(&[(0, i32::MAX - 1, 4)], (0, 2, 1), Verdict::New);
        check(&[(0, i32::MAX - 1, 4)], (0, 1, 1), Verdict::OutOfOrder);
        let again = Verdict::Duplicate { base_offset: 0 };
        check(&[(0, i32::MAX - 1, 4)], (0, i32::MAX - 1, 4), again);
    }

    #[test]
    fn batches_without_a_producer_are_always_new() {
        let plain = header(-1, -1, -1, 1, 0);
        let producers = noted(&[plain, plain]);
        assert!(producers.is_empty());
        assert_eq!(producers.check(&plain), Verdict::New);
    }

    #[test]
    fn the_silent_and_the_surplus_are_forgotten() {
        let mut producers = Producers::default();
        let surplus = 10;
        for id in 0..PRODUCERS_MAX + surplus {
            let id = i64::try_from(id).unwrap();
            producers.note(&header(id, 0, 0, 1, id), id, &mut Undo::default());
        }
        producers.expire(0);
        assert_eq!(producers.len(), PRODUCERS_MAX);
        assert_eq!(producers.check(&header(9, 0, 0, 1, 0)), Verdict::New);
        producers.expire(EXPIRY_MS * 2);
        assert!(producers.is_empty());
    }

    fn batches() -> impl Strategy<Value = Vec<(i64, i16, i32, i32)>> {
        let sequence = prop_oneof![0..20, i32::MAX - 5..=i32::MAX];
        proptest::collection::vec((0_i64..4, 0_i16..3, sequence, 1..6_i32), 0..60)
    }

    proptest! {
        #[test]
        fn a_snapshot_gives_the_same_state(batches in batches()) {
            let headers: Vec<_> = batches
                .iter()
                .enumerate()
                .map(|(at, &(id, epoch, sequence, records))| {
                    header(id, epoch, sequence, records, i64::try_from(at).unwrap())
                })
                .collect();
            let producers = noted(&headers);
            prop_assert_eq!(Producers::decode(&producers.encode()), Some(producers));
        }

        #[test]
        fn rolled_back_is_as_before(kept in batches(), undone in batches()) {
            let as_header =
                |&(id, epoch, sequence, records)| header(id, epoch, sequence, records, 0);
            let mut producers = noted(&kept.iter().map(as_header).collect::<Vec<_>>());
            let before = producers.clone();
            let mut undo = Undo::default();
            for batch in &undone {
                producers.note(&as_header(batch), 5, &mut undo);
            }
            producers.roll_back(undo);
            prop_assert_eq!(producers, before);
        }

        #[test]
        fn any_bytes_decode_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Producers::decode(&bytes);
        }

        /// A producer that sends, loses answers and sends again: each batch is appended once, in
        /// order.
        #[test]
        fn resending_never_doubles_and_never_loses(
            sizes in proptest::collection::vec(1..50_i32, 1..40),
            lost in proptest::collection::vec(any::<bool>(), 200),
            start in prop_oneof![Just(0), i32::MAX - 60..=i32::MAX],
        ) {
            let mut producers = Producers::default();
            let (mut sequence, mut offset) = (start, 0_i64);
            let mut lost = lost.into_iter();
            for records in sizes {
                let batch = header(7, 0, sequence, records, offset);
                prop_assert_eq!(producers.check(&batch), Verdict::New);
                producers.note(&batch, 0, &mut Undo::default());
                while lost.next() == Some(true) {
                    let again = Verdict::Duplicate { base_offset: offset };
                    prop_assert_eq!(producers.check(&batch), again);
                }
                offset += i64::from(records);
                sequence = sequence_after(last_sequence(&batch));
            }
        }
    }
}
