//! What was asked of a daemon and what it answered, in the order of the disk's calls.

use bytes::Bytes;
use taskwire::wire::record::NewRecord;

/// One batch that somebody sends, perhaps more than once under the same sequence.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) topic: &'static str,
    pub(crate) partition: i32,
    pub(crate) records: Vec<NewRecord>,
    /// Of an idempotent producer: (id, sequence).
    pub(crate) sequence: Option<(i64, i32)>,
}

/// Something that began or was answered.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    /// A batch is on its way.
    Sent(usize),
    /// It was acknowledged after the sync, at this offset.
    Acked(usize, i64),
    /// It was acknowledged after the write, at this offset.
    Written(usize, i64),
    /// A group commits this offset, for partition 0 of [`super::daemon::EVENTS`].
    Committing(&'static str, i64),
    /// It was answered.
    Committed(&'static str, i64),
    /// A topic is being created (or deleted).
    Changing(&'static str, bool),
    /// It was answered.
    Changed(&'static str, bool),
    /// A REST-like write was answered, after its record became the batch of this number.
    Answered(usize, taskwire::store::Outcome),
}

/// Batches by number, and facts in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub(crate) batches: Vec<Batch>,
    pub(crate) facts: Vec<Fact>,
}

impl Story {
    /// The story as it was known when the disk had this mark: facts up to and with it.
    pub(crate) fn up_to(&self, facts: usize) -> Self {
        Self { batches: self.batches.clone(), facts: self.facts[..facts].to_vec() }
    }

    pub(crate) fn is_sent(&self, batch: usize) -> bool {
        self.facts.iter().any(|fact| matches!(fact, Fact::Sent(sent) if *sent == batch))
    }

    /// The offset at which a batch was acknowledged.
    pub(crate) fn acked(&self, batch: usize) -> Option<i64> {
        self.facts.iter().find_map(|fact| match fact {
            Fact::Acked(acked, base) if *acked == batch => Some(*base),
            _ => None,
        })
    }

    pub(crate) fn written(&self, batch: usize) -> Option<i64> {
        self.facts.iter().find_map(|fact| match fact {
            Fact::Written(written, base) if *written == batch => Some(*base),
            _ => None,
        })
    }

    /// Idempotent batches that were sent and not acknowledged, in the order of their sequences.
    pub(crate) fn in_flight(&self) -> Vec<usize> {
        let sent = |batch: &usize| self.is_sent(*batch) && self.acked(*batch).is_none();
        let is_idempotent = |batch: &usize| self.batches[*batch].sequence.is_some();
        (0..self.batches.len()).filter(|batch| sent(batch) && is_idempotent(batch)).collect()
    }

    /// Every record's key names its batch and its place in it.
    pub(crate) fn key(batch: usize, index: usize) -> Bytes {
        format!("{batch}.{index}").into()
    }

    pub(crate) fn parse_key(key: &[u8]) -> Option<(usize, usize)> {
        let (batch, index) = std::str::from_utf8(key).ok()?.split_once('.')?;
        Some((batch.parse().ok()?, index.parse().ok()?))
    }
}
