//! The broker's producer snapshots: opaque bytes that stand for every batch below an offset, in
//! `<that offset, 20 digits>.producers`, so that a start need not read those batches.

use super::{
    checked::{self, Kind},
    segment::{name, parse_name},
};
use crate::disk::dir::Dir;
use std::io;

pub(super) const PRODUCERS: &str = ".producers";
/// Kept, so that a torn tail below the newest leaves one to go back to.
const KEPT: usize = 2;

/// The newest snapshot at or below `end`; removes those above it, whose batches are gone.
pub(super) fn load(
    dir: &dyn Dir,
    names: &[String],
    end: i64,
) -> io::Result<Option<(i64, Vec<u8>)>> {
    let (kept, stale): (Vec<i64>, Vec<i64>) =
        offsets(names).into_iter().partition(|offset| *offset <= end);
    for offset in stale {
        // Its offsets will be given again, to other batches: it must not be found then.
        dir.remove(&name(offset, PRODUCERS))?;
    }
    for offset in kept.into_iter().rev() {
        if let Some(payload) = checked::read_named(dir, &name(offset, PRODUCERS), Kind::Snapshot)? {
            return Ok(Some((offset, payload)));
        }
    }
    Ok(None)
}

/// Writes the snapshot for all below `end`, and removes older ones.
pub(super) fn store(dir: &dyn Dir, end: i64, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > checked::PAYLOAD_BYTES_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let wrapped = checked::wrap(Kind::Snapshot, bytes)?;
    checked::replace(dir, &name(end, PRODUCERS), &[&wrapped])?;
    let offsets = offsets(&dir.list()?);
    for offset in offsets.iter().rev().skip(KEPT) {
        dir.remove(&name(*offset, PRODUCERS))?;
    }
    Ok(())
}

/// Offsets of the snapshots there are, in order.
fn offsets(names: &[String]) -> Vec<i64> {
    let mut offsets: Vec<i64> =
        names.iter().filter_map(|name| parse_name(name, PRODUCERS)).collect();
    offsets.sort_unstable();
    offsets
}
