//! Walking a segment's batches: the chain rule, the search for the next sound batch, and the scan
//! of a whole segment.
//!
//! The chain rule: magic 2, length within the file, base offset = previous last + 1, the leader
//! epoch that was in force at that offset. The first 16 bytes of a batch lie outside its CRC; the
//! chain is what guards them.

use super::{
    checked::RunningCrc,
    epochs::Epochs,
    segment::{Growth, Hole},
};
use crate::{
    disk::dir::File,
    wire::batch::{self, BatchHeader, HEADER_BYTES},
};
use bytes::Bytes;
use std::io;

/// Bytes read at once by a scan.
const WINDOW_BYTES: usize = 1 << 20;
/// Bytes of likely batches that the searches of one walk check at most: a hostile value may look
/// like countless long batches, each of which would cost its whole CRC. Well under a second.
const SEARCH_BYTES_MAX: usize = if cfg!(test) { 64 << 20 } else { 1 << 30 };

/// Offsets that one damaged byte can have held at most: a record takes 7 bytes, and compression
/// rarely does better than 1 : 10,000. A batch further off has a damaged offset itself, and must
/// not make the log jump there.
const OFFSETS_PER_BYTE_MAX: u64 = 4096;

/// A stretch of a file in memory that follows the walk.
#[derive(Debug)]
pub(super) struct Window<'a> {
    file: &'a dyn File,
    size: u64,
    start: u64,
    buffer: Vec<u8>,
    step: usize,
    search_bytes_left: usize,
    /// Offsets at least taken by what a search passed over though it may be ours; `None` if it
    /// passed over nothing such.
    doubtful: Option<i64>,
}

impl<'a> Window<'a> {
    /// Over the first `size` bytes of `file`.
    pub(super) fn new(file: &'a dyn File, size: u64) -> Self {
        let (buffer, step, search_bytes_left) = (Vec::new(), WINDOW_BYTES, SEARCH_BYTES_MAX);
        Self { file, size, start: 0, buffer, step, search_bytes_left, doubtful: None }
    }

    /// Like [`Window::new`], reading only `step` bytes at once: for short walks.
    pub(super) fn with_step(file: &'a dyn File, size: u64, step: usize) -> Self {
        Self { step, ..Self::new(file, size) }
    }

    /// `length` bytes at `position`; `None` if the file does not have them.
    pub(super) fn bytes(&mut self, position: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let end = position.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        if end > self.size {
            return Ok(None);
        }
        if self.within(position, length).is_none() {
            let rest = usize::try_from(self.size - position).unwrap_or(usize::MAX);
            let wanted = rest.min(self.step.max(length));
            if self.buffer.capacity() < wanted {
                // Zeroed by the allocator, for large ones at no cost.
                self.buffer = vec![0; wanted];
            }
            self.buffer.resize(wanted, 0);
            self.start = position;
            let read = self.file.read_at(&mut self.buffer, position)?;
            self.buffer.truncate(read);
        }
        Ok(self.within(position, length).and_then(|at| self.buffer.get(at..at + length)))
    }

    /// What is in memory from `position` on.
    pub(super) fn into_bytes(self, position: u64) -> Bytes {
        let at = self.within(position, 0).unwrap_or(self.buffer.len());
        Bytes::from(self.buffer).slice(at..)
    }

    fn within(&self, position: u64, length: usize) -> Option<usize> {
        let at = usize::try_from(position.checked_sub(self.start)?).ok()?;
        (at.checked_add(length)? <= self.buffer.len()).then_some(at)
    }
}

/// What must be true of a batch at one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) position: u64,
    /// Base offset that the chain asks for.
    pub(super) offset: i64,
    /// Bytes of the segment.
    pub(super) size: u64,
    /// No record of the segment is at or above this.
    pub(super) limit: i64,
    pub(super) epochs: &'a Epochs,
}

impl Place<'_> {
    /// The header at the front of `bytes` if it keeps the chain rule here.
    pub(super) fn header(&self, bytes: &[u8]) -> Option<BatchHeader> {
        self.loose_header(bytes).filter(|header| header.base_offset == self.offset)
    }

    /// Like [`Place::header`], for a batch at or after the offset.
    fn loose_header(&self, bytes: &[u8]) -> Option<BatchHeader> {
        let header = BatchHeader::parse_fields(bytes).ok()?;
        let rest = self.size.checked_sub(self.position)?;
        let is_sound = u64::try_from(header.size_bytes).is_ok_and(|size| size <= rest)
            && header.base_offset >= self.offset
            && header.last_offset_delta >= 0
            && header.last_offset() < self.limit
            && self
                .epochs
                .expected(header.base_offset)
                .is_none_or(|epoch| epoch == header.leader_epoch);
        is_sound.then_some(header)
    }

    /// The place after a batch that stands here.
    pub(super) fn after(&self, header: &BatchHeader) -> Self {
        let size = u64::try_from(header.size_bytes).unwrap_or(u64::MAX);
        Self {
            position: self.position.saturating_add(size),
            offset: header.last_offset().saturating_add(1),
            ..*self
        }
    }

    /// The place where `hole` ends.
    pub(super) fn past(&self, hole: &Hole) -> Self {
        Self { position: hole.to_position, offset: hole.to, ..*self }
    }
}

/// The sound batch at `place`, its CRC checked; `None` if there is none.
pub(super) fn batch_at(
    window: &mut Window<'_>,
    place: &Place<'_>,
) -> io::Result<Option<BatchHeader>> {
    let header = window.bytes(place.position, HEADER_BYTES)?.and_then(|b| place.header(b));
    checked(window, place.position, header)
}

fn checked(
    window: &mut Window<'_>,
    position: u64,
    header: Option<BatchHeader>,
) -> io::Result<Option<BatchHeader>> {
    let Some(header) = header else { return Ok(None) };
    let bytes = window.bytes(position, header.size_bytes)?;
    Ok(bytes.is_some_and(|bytes| batch::check_crc(bytes, &header)).then_some(header))
}

/// Looks for the next sound batch after the damaged one at `damaged`: first where the damaged
/// header says that it ends, then byte by byte. `None` if there is none up to the segment's end.
///
/// A record's value may hold bytes that look like a batch, so that one which continues the chain,
/// or ends the segment, is preferred over one that stands alone.
pub(super) fn search(window: &mut Window<'_>, damaged: &Place<'_>) -> io::Result<Option<Hole>> {
    let length = fields_of(window, damaged.position)?
        .and_then(|header| u64::try_from(header.size_bytes).ok());
    if let Some(length) = length {
        let place = Place { position: damaged.position.saturating_add(length), ..*damaged };
        if let Some(header) = loose_batch_at(window, damaged, place.position)? {
            return Ok(Some(hole(damaged, place.position, header.base_offset)));
        }
    }
    let mut alone = None;
    let mut position = damaged.position + 1;
    while let Some(bytes) = window.bytes(position, HEADER_BYTES)? {
        let place = Place { position, ..*damaged };
        let is_likely = bytes[16] == 2 && place.loose_header(bytes).is_some();
        if is_likely && let Some(header) = loose_batch_at(window, damaged, place.position)? {
            let next = place.after(&header);
            let found = hole(damaged, position, header.base_offset);
            if next.position == next.size || batch_at(window, &next)?.is_some() {
                return Ok(Some(found));
            }
            alone = alone.or(Some(found));
        }
        position += 1;
    }
    Ok(alone)
}

/// A batch at `position` that may follow the damage.
fn loose_batch_at(
    window: &mut Window<'_>,
    damaged: &Place<'_>,
    position: u64,
) -> io::Result<Option<BatchHeader>> {
    let place = Place { position, ..*damaged };
    let header = window.bytes(position, HEADER_BYTES)?.and_then(|bytes| place.loose_header(bytes));
    let size = header.map_or(0, |header| header.size_bytes);
    let Some(left) = window.search_bytes_left.checked_sub(size) else {
        window.search_bytes_left = 0;
        window.doubtful = window.doubtful.or(Some(0));
        return Ok(None);
    };
    window.search_bytes_left = left;
    let Some(header) = checked(window, position, header)? else { return Ok(None) };
    let offsets = u64::try_from(header.base_offset.saturating_sub(damaged.offset));
    let offsets_max = (position - damaged.position).saturating_mul(OFFSETS_PER_BYTE_MAX);
    let is_near = offsets.is_ok_and(|offsets| offsets <= offsets_max);
    if !is_near {
        let records = i64::from(header.last_offset_delta) + 1;
        window.doubtful = Some(window.doubtful.unwrap_or(0).saturating_add(records));
    }
    Ok(is_near.then_some(header))
}

fn hole(damaged: &Place<'_>, to_position: u64, to: i64) -> Hole {
    Hole { from: damaged.offset, to, from_position: damaged.position, to_position }
}

/// What a scan found in a segment.
#[derive(Debug)]
pub(super) struct Scan {
    /// All sound batches; `size` is the end of the last.
    pub(super) growth: Growth,
    /// The bytes after the last sound batch are not known to be a torn write: a whole batch whose
    /// records are right stands there with a wrong offset or epoch, or the search for others was
    /// given up. Holds the lowest offset that can be given after it.
    pub(super) not_torn: Option<i64>,
}

/// Reads all of a segment whose records lie in `base..limit`.
pub(super) fn scan(
    file: &dyn File,
    size: u64,
    range: (i64, i64),
    epochs: &Epochs,
) -> io::Result<Scan> {
    scan_with(file, size, range, epochs, &mut |_, _, _| ())
}

/// Like [`scan`]; `visit` gets the position, the header and the bytes of each sound batch.
pub(super) fn scan_with(
    file: &dyn File,
    size: u64,
    (base, limit): (i64, i64),
    epochs: &Epochs,
    visit: &mut dyn FnMut(u64, &BatchHeader, &[u8]),
) -> io::Result<Scan> {
    let mut window = Window::new(file, size);
    let mut place = Place { position: 0, offset: base, size, limit, epochs };
    let mut growth = Growth::new(base);
    let mut not_torn = None;
    while place.position < size {
        if let Some(header) = batch_at(&mut window, &place)? {
            let bytes = window.bytes(place.position, header.size_bytes)?.unwrap_or_default();
            growth.crc.update(bytes);
            visit(place.position, &header, bytes);
            growth.push(&header);
            place = place.after(&header);
        } else if let Some(hole) = search(&mut window, &place)? {
            update_crc(&mut growth.crc, &mut window, hole.from_position..hole.to_position)?;
            growth.size = hole.to_position;
            growth.end = hole.to;
            growth.holes.push(hole);
            place = place.past(&hole);
        } else {
            let after = |taken: i64| place.offset.saturating_add(1).saturating_add(taken);
            let given_up = window.doubtful.map(after);
            not_torn = misplaced(&mut window, &place)?.or(given_up);
            break;
        }
    }
    Ok(Scan { growth, not_torn })
}

/// Takes `range` of the file into `crc`.
pub(super) fn update_crc(
    crc: &mut RunningCrc,
    window: &mut Window<'_>,
    range: std::ops::Range<u64>,
) -> io::Result<()> {
    let mut position = range.start;
    while position < range.end {
        let length = usize::try_from(range.end - position).unwrap_or(usize::MAX).min(WINDOW_BYTES);
        let Some(bytes) = window.bytes(position, length)? else { break };
        crc.update(bytes);
        position += u64::try_from(length).map_err(io::Error::other)?;
    }
    Ok(())
}

/// A whole batch whose records are right, and only what lies before its CRC is wrong: the lowest
/// offset that can be given after it.
fn misplaced(window: &mut Window<'_>, place: &Place<'_>) -> io::Result<Option<i64>> {
    let fields = window.bytes(place.position, HEADER_BYTES)?;
    let Some(stored) = fields.map(|bytes| [bytes[17], bytes[18], bytes[19], bytes[20]]) else {
        return Ok(None);
    };
    let header = fields_of(window, place.position)?;
    let by_length = checked(window, place.position, header)?.is_some();
    // Where its length or magic is wrong, it may still be what fills the file.
    let mut crc = RunningCrc::new();
    if !by_length {
        update_crc(&mut crc, window, place.position + CRC_COVERS_FROM..place.size)?;
    }
    let is_whole = by_length || crc.value().to_be_bytes() == stored;
    Ok(if is_whole { Some(claimed_end(window, place)?) } else { None })
}

/// Where the part of a batch begins that its CRC covers.
const CRC_COVERS_FROM: u64 = 21;

fn fields_of(window: &mut Window<'_>, position: u64) -> io::Result<Option<BatchHeader>> {
    let bytes = window.bytes(position, HEADER_BYTES)?;
    Ok(bytes.and_then(|bytes| BatchHeader::parse_fields(bytes).ok()))
}

/// The first offset after the damaged batch at `place` by its own words: two fields name the number
/// of its records, and the larger is believed, as far as so many bytes can hold so many.
pub(super) fn claimed_end(window: &mut Window<'_>, place: &Place<'_>) -> io::Result<i64> {
    let Some(bytes) = window.bytes(place.position, HEADER_BYTES)? else {
        return Ok(place.offset);
    };
    let delta = i32::from_be_bytes([bytes[23], bytes[24], bytes[25], bytes[26]]);
    let count = i32::from_be_bytes([bytes[57], bytes[58], bytes[59], bytes[60]]);
    let claimed = i64::from(delta.max(count.saturating_sub(1)).max(0)) + 1;
    let is_compressed = bytes[22] & COMPRESSION_BITS != 0;
    let bytes_left = place.size - place.position;
    let records_max = if is_compressed {
        bytes_left.saturating_mul(OFFSETS_PER_BYTE_MAX)
    } else {
        bytes_left / RECORD_BYTES_MIN
    };
    let claimed = claimed.min(i64::try_from(records_max).unwrap_or(i64::MAX));
    Ok(place.offset.saturating_add(claimed))
}

/// Of the attributes' second byte.
const COMPRESSION_BITS: u8 = 7;
/// The fewest bytes of a record.
const RECORD_BYTES_MIN: u64 = 7;

/// Whether the bytes from `place` to the end of the file are how a batch begins that goes on beyond
/// the end: all that a write can leave that its process did not live to finish.
pub(super) fn is_cut_short(window: &mut Window<'_>, place: &Place<'_>) -> io::Result<bool> {
    let rest = place.size.saturating_sub(place.position);
    let length = usize::try_from(rest).unwrap_or(usize::MAX).min(HEADER_BYTES);
    let Some(bytes) = window.bytes(place.position, length)? else { return Ok(false) };
    let offset = place.offset.to_be_bytes();
    let is_ours = bytes.iter().zip(offset).all(|(found, due)| *found == due);
    let int = |at: usize| bytes.get(at..)?.first_chunk().map(|four| i32::from_be_bytes(*four));
    let goes_on = int(8).is_none_or(|length| {
        let size = u64::try_from(length).ok().and_then(|l| l.checked_add(PREFIX_BYTES));
        size.is_some_and(|size| size > rest)
    });
    let epoch = place.epochs.expected(place.offset);
    let is_of_epoch = int(12).zip(epoch).is_none_or(|(found, due)| found == due);
    let is_magic = bytes.get(16).is_none_or(|magic| *magic == 2);
    Ok(is_ours && goes_on && is_of_epoch && is_magic)
}

/// Bytes before those that a batch's length counts.
const PREFIX_BYTES: u64 = 12;
