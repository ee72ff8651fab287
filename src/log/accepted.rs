//! Holes that a person has accepted: they stay holes, and are no longer a reason to worry.
//!
//! Payload of the file `accepted`: 16 bytes for each, first offset lost (8) and next offset that is
//! there (8).

use super::checked::{self, Kind};
use crate::disk::dir::Dir;
use std::io;

pub(super) const NAME: &str = "accepted";
const ENTRY_BYTES: usize = 16;
/// Ranges that are kept; more are refused, and a log with so many holes is beyond this kind of
/// help.
const ENTRIES_MAX: usize = 10_000;

/// Ranges of offsets.
#[derive(Clone, Debug, Default)]
pub(super) struct Accepted {
    ranges: Vec<(i64, i64)>,
}

impl Accepted {
    /// Those on disk; none if the file is absent or damaged: holes are told of again then.
    pub(super) fn load(dir: &dyn Dir) -> io::Result<Self> {
        let payload = checked::read_named(dir, NAME, Kind::Accepted)?.unwrap_or_default();
        let ranges = payload
            .chunks_exact(ENTRY_BYTES)
            .filter_map(|entry| {
                let (from, to) = entry.split_first_chunk::<8>()?;
                Some((i64::from_be_bytes(*from), i64::from_be_bytes(to.try_into().ok()?)))
            })
            .collect();
        Ok(Self { ranges })
    }

    /// Whether every offset of `from..to` is accepted.
    pub(super) fn covers(&self, from: i64, to: i64) -> bool {
        let mut reached = from;
        // Ranges are few and in no order: each pass gets past at least one of them, or is the last.
        while reached < to {
            let next = self.ranges.iter().filter(|(start, _)| *start <= reached);
            match next.map(|(_, end)| *end).max() {
                Some(end) if end > reached => reached = end,
                _ => return false,
            }
        }
        true
    }

    /// Adds a range, durably.
    pub(super) fn add(&mut self, dir: &dyn Dir, from: i64, to: i64) -> io::Result<()> {
        if self.covers(from, to) {
            return Ok(());
        }
        if self.ranges.len() >= ENTRIES_MAX {
            return Err(io::Error::other("too many accepted holes"));
        }
        self.ranges.push((from, to));
        let mut payload = Vec::with_capacity(self.ranges.len() * ENTRY_BYTES);
        for (from, to) in &self.ranges {
            payload.extend_from_slice(&from.to_be_bytes());
            payload.extend_from_slice(&to.to_be_bytes());
        }
        checked::replace(dir, NAME, &[&checked::wrap(Kind::Accepted, &payload)?])?;
        dir.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_meet_cover_what_spans_them() {
        let accepted = Accepted { ranges: vec![(5, 7), (1, 5), (9, 10)] };
        assert!(accepted.covers(1, 7) && accepted.covers(9, 10) && accepted.covers(6, 7));
        assert!(!accepted.covers(1, 8) && !accepted.covers(0, 2) && !accepted.covers(6, 10));
    }
}
