//! Which leader epoch began at which offset: the authority for bytes 12..16 of every batch, which
//! lie outside its CRC.
//!
//! Payload of the file `epochs`: entries of 12 bytes, epoch (4) and first offset (8), both rising.

use super::checked::{self, Kind};
use crate::disk::dir::Dir;
use std::io;

pub(super) const NAME: &str = "epochs";
const ENTRY_BYTES: usize = 12;

/// Epochs by their first offset, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Epochs {
    entries: Vec<(i32, i64)>,
}

impl Epochs {
    /// Those on disk; none if the file is absent or damaged, and then nothing is checked by them.
    pub(super) fn load(dir: &dyn Dir) -> io::Result<Self> {
        let payload = checked::read_named(dir, NAME, Kind::Epochs)?.unwrap_or_default();
        let entries = payload
            .chunks_exact(ENTRY_BYTES)
            .filter_map(|entry| {
                let (epoch, start) = entry.split_first_chunk::<4>()?;
                Some((i32::from_be_bytes(*epoch), i64::from_be_bytes(start.try_into().ok()?)))
            })
            .collect();
        Ok(Self { entries })
    }

    /// The epoch that a batch at `offset` must carry; `None` if that is not known.
    pub(super) fn expected(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        self.entries[..after].last().map(|(epoch, _)| *epoch)
    }

    /// The newest.
    pub(super) fn last(&self) -> Option<i32> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// Forgets epochs that began above `end`: their batches are gone.
    pub(super) fn truncate(&mut self, end: i64) {
        self.entries.retain(|(_, start)| *start <= end);
    }

    /// These and `epoch` from `start` on.
    pub(super) fn with(&self, epoch: i32, start: i64) -> Self {
        let mut entries = self.entries.clone();
        entries.retain(|(_, other)| *other < start);
        entries.push((epoch, start));
        Self { entries }
    }

    /// Writes them, durably.
    pub(super) fn store(&self, dir: &dyn Dir) -> io::Result<()> {
        let mut payload = Vec::with_capacity(self.entries.len() * ENTRY_BYTES);
        for (epoch, start) in &self.entries {
            payload.extend_from_slice(&epoch.to_be_bytes());
            payload.extend_from_slice(&start.to_be_bytes());
        }
        checked::replace(dir, NAME, &[&checked::wrap(Kind::Epochs, &payload)?])?;
        dir.sync()
    }
}
