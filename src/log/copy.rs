//! A copy of an open log up to one offset, for a backup. Appends and reads go on meanwhile.

use super::{
    checked::TEMPORARY,
    reader::LogReader,
    segment::{LOG, SEAL, name, parse_name},
    snapshot::PRODUCERS,
};
use crate::{
    disk::{
        dir::{Dir, File},
        unsynced::SYNC_FAILED,
    },
    position::Offset,
};
use std::{io, ops::Range};

/// Bytes that are copied at a time, unless one batch is larger.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes of a batch up to its last offset delta, and the place of each field.
const FRONT_BYTES: usize = 27;
const BASE_OFFSET: Range<usize> = 0..8;
const LENGTH: Range<usize> = 8..12;
const LAST_DELTA: Range<usize> = 23..27;
/// Bytes that a batch's length does not count.
const LENGTH_PREFIX_BYTES: usize = 12;

impl LogReader {
    /// Copies all below `end`, a high watermark of this log, into an empty directory: full segments
    /// as they are, the one that `end` lies in up to there, and the small files. Nothing is synced.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// As the disk says. `NotFound` where retention took a segment meanwhile: begin anew.
    /// `InvalidData` where the segment that `end` lies in is damaged.
    pub fn copy_below(&self, end: Offset, target: &dyn Dir) -> io::Result<()> {
        let dir = self.dir();
        let (names, end) = (dir.list()?, end.get());
        let mut bases: Vec<i64> = names.iter().filter_map(|name| parse_name(name, LOG)).collect();
        bases.sort_unstable();
        bases.retain(|base| *base <= end);
        let open = bases.pop();
        for base in bases {
            copy(dir, target, &name(base, LOG))?;
            let seal = name(base, SEAL);
            if names.contains(&seal) {
                copy(dir, target, &seal)?;
            }
        }
        if let Some(base) = open {
            copy_front(dir, target, base..end)?;
        }
        for name in names.iter().filter(|name| is_small(name, end)) {
            copy(dir, target, name)?;
        }
        Ok(())
    }
}

/// Whether it is a small file that holds for what lies below `end`.
fn is_small(name: &str, end: i64) -> bool {
    let is_segment = [LOG, SEAL].iter().any(|kind| parse_name(name, kind).is_some());
    // Bytes that were cut or damaged are kept for a person, and only in the place where it was.
    let is_kept = name.contains(".log.");
    let is_covered = parse_name(name, PRODUCERS).is_none_or(|offset| offset <= end);
    let is_marker = name == SYNC_FAILED;
    !is_segment && !is_kept && !is_marker && !name.ends_with(TEMPORARY) && is_covered
}

fn copy(from: &dyn Dir, to: &dyn Dir, name: &str) -> io::Result<()> {
    let (source, target) = (from.open(name)?, to.create(name)?);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut position = 0;
    loop {
        let read = source.read_at(&mut buffer, position)?;
        if read == 0 {
            return Ok(());
        }
        target.write_all_at(&[&buffer[..read]], position)?;
        position += u64::try_from(read).map_err(io::Error::other)?;
    }
}

/// Copies the batches of a segment whose offsets lie in the range, which begins with its base.
fn copy_front(from: &dyn Dir, to: &dyn Dir, offsets: Range<i64>) -> io::Result<()> {
    let name = name(offsets.start, LOG);
    let (source, target) = (from.open(&name)?, to.create(&name)?);
    let (mut position, mut next) = (0, offsets.start);
    let mut buffer = vec![0; CHUNK_BYTES];
    while next < offsets.end {
        let read = source.read_at(&mut buffer, position)?;
        let (whole, after) = whole_batches(&buffer[..read], next..offsets.end)
            .ok_or_else(|| damaged(&name, next))?;
        if whole == 0 {
            let needed = batch_bytes(&*source, position)?.filter(|bytes| *bytes > buffer.len());
            buffer.resize(needed.ok_or_else(|| damaged(&name, next))?, 0);
            continue;
        }
        target.write_all_at(&[&buffer[..whole]], position)?;
        position += u64::try_from(whole).map_err(io::Error::other)?;
        next = after;
    }
    Ok(())
}

/// Bytes of the whole batches at the front, and the offset after them; `None` where one is not the
/// next.
fn whole_batches(bytes: &[u8], offsets: Range<i64>) -> Option<(usize, i64)> {
    let (mut whole, mut next) = (0, offsets.start);
    while next < offsets.end {
        let rest = &bytes[whole..];
        let Some(size) = size_of(rest).filter(|size| *size <= rest.len()) else { break };
        let base = i64::from_be_bytes(rest[BASE_OFFSET].try_into().ok()?);
        let delta = i32::from_be_bytes(rest[LAST_DELTA].try_into().ok()?);
        if base != next || delta < 0 {
            return None;
        }
        next = base.checked_add(i64::from(delta))?.checked_add(1)?;
        whole += size;
    }
    Some((whole, next))
}

/// Bytes of the batch at the front, if enough of it is there to tell.
fn size_of(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < FRONT_BYTES {
        return None;
    }
    let length = i32::from_be_bytes(bytes[LENGTH].try_into().ok()?);
    usize::try_from(length).ok()?.checked_add(LENGTH_PREFIX_BYTES)
}

/// Bytes of the batch at `position`, if the file has so many from there on.
fn batch_bytes(file: &dyn File, position: u64) -> io::Result<Option<usize>> {
    let mut front = [0; FRONT_BYTES];
    let read = file.read_at(&mut front, position)?;
    let left = usize::try_from(file.size()?.saturating_sub(position)).unwrap_or(usize::MAX);
    Ok(size_of(&front[..read]).filter(|size| *size <= left))
}

fn damaged(name: &str, offset: i64) -> io::Error {
    let text = format!("{name} is damaged at offset {offset}; `taskwire verify` tells more");
    io::Error::new(io::ErrorKind::InvalidData, text)
}
