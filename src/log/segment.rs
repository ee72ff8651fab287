//! A segment's file name, its sparse index, and the seal that remembers both when it is full.
//!
//! Payload of `<base offset, 20 digits>.seal` (in the envelope of [`super::checked`]), followed by
//! the index, which is read only when a read needs it:
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | base offset |
//! | 8..16 | end offset (after the last record) |
//! | 16..24 | bytes of the log file |
//! | 24..28 | CRC-32C of the log file |
//! | 28..36 | largest timestamp |
//! | 36..44 | append time of the first batch |
//! | 44..52 | append time of the last batch |
//! | 52..56 | index entries, 16 bytes each |
//! | 56..60 | CRC-32C of the index |
//! | 60.. | holes, 32 bytes each: from and to offset, from and to position |
//!
//! Index entry: relative offset (4), position (4), running largest timestamp (8).

use super::checked::{self, ENVELOPE_BYTES, Kind, RunningCrc};
use crate::{disk::dir::Dir, wire::batch::BatchHeader};
use std::{io, sync::Arc};

/// Bytes of log between two index entries.
pub(super) const INDEX_INTERVAL_BYTES: u64 = 4096;
/// Largest distance of an offset from its segment's base, as Kafka has it.
pub(super) const RELATIVE_OFFSET_MAX: i64 = 0x7fff_ffff;

const SEAL_FIXED_BYTES: usize = 60;
const HOLE_BYTES: usize = 32;
const ENTRY_BYTES: usize = 16;

pub(super) const LOG: &str = ".log";
pub(super) const SEAL: &str = ".seal";

/// `<offset, 20 digits><end>`
pub(super) fn name(offset: i64, end: &str) -> String {
    format!("{offset:020}{end}")
}

/// The offset in a name made by [`name`].
pub(super) fn parse_name(name: &str, end: &str) -> Option<i64> {
    let digits = name.strip_suffix(end)?;
    let is_plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| digits.parse().ok()).flatten()
}

/// Where to begin to look for an offset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct IndexEntry {
    /// Base offset of the batch at `position`, less the segment's.
    pub(super) relative_offset: u32,
    /// Its first byte.
    pub(super) position: u32,
    /// Largest timestamp of the segment up to and with this batch.
    pub(super) max_timestamp: i64,
}

/// The index of a segment, and what else grows with each batch.
#[derive(Clone, Debug)]
pub(super) struct Growth {
    pub(super) base: i64,
    pub(super) end: i64,
    pub(super) size: u64,
    pub(super) max_timestamp: i64,
    pub(super) crc: RunningCrc,
    pub(super) first_append_ms: Option<i64>,
    pub(super) last_append_ms: i64,
    pub(super) index: Vec<IndexEntry>,
    pub(super) holes: Vec<Hole>,
}

/// Bytes of a segment that are damaged, and the offsets that are lost with them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Hole {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) from_position: u64,
    pub(super) to_position: u64,
}

impl Growth {
    pub(super) fn new(base: i64) -> Self {
        Self {
            base,
            end: base,
            size: 0,
            max_timestamp: -1,
            crc: RunningCrc::new(),
            first_append_ms: None,
            last_append_ms: 0,
            index: Vec::new(),
            holes: Vec::new(),
        }
    }

    /// Takes note of a batch at the end of the file; its bytes are counted by the caller's CRC.
    pub(super) fn push(&mut self, header: &BatchHeader) {
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        let is_due = self.index.last().is_none_or(|last| {
            self.size.saturating_sub(u64::from(last.position)) >= INDEX_INTERVAL_BYTES
        });
        // A batch past what an entry can tell has none; it is found from the entry before.
        let relative_offset = u32::try_from(header.base_offset.saturating_sub(self.base));
        if let (true, Ok(relative_offset), Ok(position)) =
            (is_due, relative_offset, u32::try_from(self.size))
        {
            let max_timestamp = self.max_timestamp;
            self.index.push(IndexEntry { relative_offset, position, max_timestamp });
        }
        self.size += u64::try_from(header.size_bytes).expect("a batch length is an i32");
        self.end = header.last_offset().saturating_add(1);
    }

    /// What the seal says of it.
    pub(super) fn facts(&self) -> Sealed {
        Sealed {
            base: self.base,
            end: self.end,
            size: self.size,
            crc: self.crc.value(),
            max_timestamp: self.max_timestamp,
            first_append_ms: self.first_append_ms.unwrap_or(self.last_append_ms),
            last_append_ms: self.last_append_ms,
            index_entries: self.index.len(),
            index_crc: checked::crc(&encode_index(&self.index)),
            holes: self.holes.clone(),
        }
    }

    /// An open segment again, from what its seal said.
    pub(super) fn resume(sealed: &Sealed, index: Vec<IndexEntry>) -> Self {
        Self {
            base: sealed.base,
            end: sealed.end,
            size: sealed.size,
            max_timestamp: sealed.max_timestamp,
            crc: RunningCrc::resume(sealed.crc),
            first_append_ms: (sealed.size > 0).then_some(sealed.first_append_ms),
            last_append_ms: sealed.last_append_ms,
            index,
            holes: sealed.holes.clone(),
        }
    }

    /// Writes the seal beside the segment. It only saves time, so it need not be durable.
    pub(super) fn write_seal(&self, dir: &dyn Dir) -> io::Result<()> {
        let index = encode_index(&self.index);
        let payload = self.facts().encode();
        let wrapped = checked::wrap(Kind::Seal, &payload)?;
        checked::replace(dir, &name(self.base, SEAL), &[&wrapped, &index])
    }
}

/// A segment that takes no more batches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Sealed {
    pub(super) base: i64,
    pub(super) end: i64,
    pub(super) size: u64,
    pub(super) crc: u32,
    pub(super) max_timestamp: i64,
    pub(super) first_append_ms: i64,
    pub(super) last_append_ms: i64,
    pub(super) index_entries: usize,
    pub(super) index_crc: u32,
    pub(super) holes: Vec<Hole>,
}

impl Sealed {
    /// Reads the seal of the segment at `base`; `None` if it does not say the truth about a file
    /// of `size` bytes.
    pub(super) fn load(dir: &dyn Dir, base: i64, size: u64) -> io::Result<Option<Self>> {
        Ok(Self::load_alone(dir, base)?.filter(|sealed| sealed.size == size))
    }

    /// Reads the seal of a segment at `base`, whatever is left of the segment itself.
    pub(super) fn load_alone(dir: &dyn Dir, base: i64) -> io::Result<Option<Self>> {
        let payload = checked::read_named(dir, &name(base, SEAL), Kind::Seal)?;
        let sealed = payload.and_then(|payload| Self::decode(&payload));
        Ok(sealed.filter(|sealed| sealed.base == base && sealed.end >= base))
    }

    /// Reads the index behind the seal; `None` if it is not as it was written.
    pub(super) fn load_index(&self, dir: &dyn Dir) -> io::Result<Option<Arc<[IndexEntry]>>> {
        let file = match dir.open(&name(self.base, SEAL)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let start = ENVELOPE_BYTES + SEAL_FIXED_BYTES + self.holes.len() * HOLE_BYTES;
        let start = u64::try_from(start).map_err(io::Error::other)?;
        let length = self.index_entries.saturating_mul(ENTRY_BYTES);
        if length > checked::PAYLOAD_BYTES_MAX {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        if file.read_at(&mut bytes, start)? < length || checked::crc(&bytes) != self.index_crc {
            return Ok(None);
        }
        Ok(Some(bytes.chunks_exact(ENTRY_BYTES).filter_map(decode_entry).collect()))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEAL_FIXED_BYTES + self.holes.len() * HOLE_BYTES);
        bytes.extend_from_slice(&self.base.to_be_bytes());
        bytes.extend_from_slice(&self.end.to_be_bytes());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.crc.to_be_bytes());
        bytes.extend_from_slice(&self.max_timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.first_append_ms.to_be_bytes());
        bytes.extend_from_slice(&self.last_append_ms.to_be_bytes());
        let entries = u32::try_from(self.index_entries).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&entries.to_be_bytes());
        bytes.extend_from_slice(&self.index_crc.to_be_bytes());
        for hole in &self.holes {
            bytes.extend_from_slice(&hole.from.to_be_bytes());
            bytes.extend_from_slice(&hole.to.to_be_bytes());
            bytes.extend_from_slice(&hole.from_position.to_be_bytes());
            bytes.extend_from_slice(&hole.to_position.to_be_bytes());
        }
        bytes
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let (fixed, holes) = payload.split_at_checked(SEAL_FIXED_BYTES)?;
        Some(Self {
            base: i64::from_be_bytes(field(fixed, 0)?),
            end: i64::from_be_bytes(field(fixed, 8)?),
            size: u64::from_be_bytes(field(fixed, 16)?),
            crc: u32::from_be_bytes(field(fixed, 24)?),
            max_timestamp: i64::from_be_bytes(field(fixed, 28)?),
            first_append_ms: i64::from_be_bytes(field(fixed, 36)?),
            last_append_ms: i64::from_be_bytes(field(fixed, 44)?),
            index_entries: usize::try_from(u32::from_be_bytes(field(fixed, 52)?)).ok()?,
            index_crc: u32::from_be_bytes(field(fixed, 56)?),
            holes: holes.chunks_exact(HOLE_BYTES).map(decode_hole).collect::<Option<_>>()?,
        })
    }
}

fn decode_hole(bytes: &[u8]) -> Option<Hole> {
    Some(Hole {
        from: i64::from_be_bytes(field(bytes, 0)?),
        to: i64::from_be_bytes(field(bytes, 8)?),
        from_position: u64::from_be_bytes(field(bytes, 16)?),
        to_position: u64::from_be_bytes(field(bytes, 24)?),
    })
}

fn encode_index(index: &[IndexEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(index.len() * ENTRY_BYTES);
    for entry in index {
        bytes.extend_from_slice(&entry.relative_offset.to_be_bytes());
        bytes.extend_from_slice(&entry.position.to_be_bytes());
        bytes.extend_from_slice(&entry.max_timestamp.to_be_bytes());
    }
    bytes
}

fn decode_entry(bytes: &[u8]) -> Option<IndexEntry> {
    Some(IndexEntry {
        relative_offset: u32::from_be_bytes(field(bytes, 0)?),
        position: u32::from_be_bytes(field(bytes, 4)?),
        max_timestamp: i64::from_be_bytes(field(bytes, 8)?),
    })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Where to begin to walk for the batch that holds `offset`.
pub(super) fn seek_offset(index: &[IndexEntry], base: i64, offset: i64) -> (u64, i64) {
    let relative = offset.saturating_sub(base);
    let after = index.partition_point(|entry| i64::from(entry.relative_offset) <= relative);
    index[..after].last().map_or((0, base), |entry| start_of(entry, base))
}

/// Where to begin to walk for the first batch with a record at or after `timestamp_ms`.
pub(super) fn seek_time(index: &[IndexEntry], base: i64, timestamp_ms: i64) -> (u64, i64) {
    let after = index.partition_point(|entry| entry.max_timestamp < timestamp_ms);
    index[..after].last().map_or((0, base), |entry| start_of(entry, base))
}

fn start_of(entry: &IndexEntry, base: i64) -> (u64, i64) {
    (u64::from(entry.position), base.saturating_add(i64::from(entry.relative_offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_twenty_digits_and_nothing_else() {
        assert_eq!(name(42, LOG), "00000000000000000042.log");
        assert_eq!(parse_name("00000000000000000042.log", LOG), Some(42));
        for bad in ["42.log", "0000000000000000004x.log", "00000000000000000042.seal", ".log"] {
            assert_eq!(parse_name(bad, LOG), None, "{bad}");
        }
        assert_eq!(parse_name("99999999999999999999.log", LOG), None, "above any offset");
    }

    #[test]
    fn a_seal_survives_its_bytes() {
        let mut growth = Growth::new(7);
        growth.holes.push(Hole { from: 8, to: 9, from_position: 61, to_position: 130 });
        let sealed = growth.facts();
        assert_eq!(Sealed::decode(&sealed.encode()), Some(sealed));
    }
}
