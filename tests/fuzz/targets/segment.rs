//! A log directory of any content: opened, read from end to end, appended to, opened again.

use super::batch::mended;
use bytes::Bytes;
use std::sync::Arc;
use taskwire::{
    disk::testing::MemoryDir,
    log::{LastStop, Log, LogReader, Options, ReadError},
    position::Offset,
    wire::{
        batch::{self, BatchHeader},
        record::{self, NewRecord},
    },
};

/// The files that the input may give, by its first byte each.
const NAMES: [&str; 8] = [
    "00000000000000000000.log",
    "00000000000000000000.seal",
    "00000000000000000003.log",
    "00000000000000000003.seal",
    "epochs",
    "log-start",
    "00000000000000000003.producers",
    "00000000000000000006.log",
];
/// Reads of one log: more than any input has batches, holes and segments.
const READS_MAX: usize = 10_000;

/// `data`: one byte of settings (1: after a clean stop, 2: sums are mended, 4: a durable floor), then
/// files: which (1), length (2, big-endian), bytes.
pub(super) fn run(data: &[u8]) {
    let Some((settings, files)) = data.split_first() else { return };
    let dir = MemoryDir::new();
    fill(&dir, files, settings & 2 != 0);
    let last_stop = LastStop {
        was_clean: settings & 1 != 0,
        durable_floor: offset(if settings & 4 != 0 { 5 } else { 0 }),
        leader_epoch: 1,
    };
    let Ok((mut log, _)) = Log::open(Arc::new(dir.clone()), Options::default(), last_stop) else {
        return;
    };
    let read = read_all(&log.reader());
    let new = NewRecord { timestamp_ms: 1, key: None, value: Some("new".into()), headers: vec![] };
    let Ok(appended) = log.append(vec![record::encode(&[new])], 1) else { return };
    log.flush().expect("memory does not fail");
    let floor = if settings & 4 != 0 { 5 } else { 0 };
    assert!(appended[0].base_offset.get() >= floor, "no offset is given twice");
    let again = read_all(&log.reader());
    assert_eq!(again[..read.len()], read, "an append changes nothing before it");
    assert_eq!(again.len(), read.len() + 1);
    drop(log);
    let last_stop = LastStop { was_clean: false, ..last_stop };
    let (log, _) = Log::open(Arc::new(dir), Options::default(), last_stop).expect("it was open");
    assert_eq!(read_all(&log.reader()), again, "a restart changes nothing");
}

fn offset(raw: i64) -> Offset {
    Offset::new(raw).expect("not negative")
}

fn fill(dir: &MemoryDir, mut files: &[u8], mends: bool) {
    while let [name, high, low, rest @ ..] = files {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        let name = NAMES[usize::from(*name) % NAMES.len()];
        let bytes = match mends {
            true if name.ends_with(".log") => mended_batches(bytes),
            true => mended_envelope(bytes),
            false => bytes.to_vec(),
        };
        dir.put(name, bytes);
        files = rest;
    }
}

/// Each batch with the CRC that fits it, as long as lengths lead from one to the next.
fn mended_batches(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), bytes);
    while let Some(length) = rest.get(8..12) {
        let length = u32::from_be_bytes(length.try_into().expect("4 bytes"));
        let end = usize::try_from(length).map_or(usize::MAX, |length| length.saturating_add(12));
        if end > rest.len() {
            break;
        }
        out.extend(mended(&rest[..end]));
        rest = &rest[end..];
    }
    out.extend_from_slice(rest);
    out
}

/// The length and CRC of docs/disk-format.md, "Envelope".
fn mended_envelope(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    if let Some(payload) = bytes.get(14..) {
        let length = u32::try_from(payload.len()).expect("a small input");
        out[6..10].copy_from_slice(&length.to_be_bytes());
        let crc = batch::crc32c(&[&out[..10], payload].concat());
        out[10..14].copy_from_slice(&crc.to_be_bytes());
    }
    out
}

/// Every batch that is served; each must be whole, and above the one before.
fn read_all(reader: &LogReader) -> Vec<Bytes> {
    let (mut found, mut next) = (Vec::new(), reader.log_start());
    for _ in 0..READS_MAX {
        if next >= reader.high_watermark() {
            return found;
        }
        match reader.read(next, 1 << 20) {
            Ok(batches) if batches.bytes == 0 => return found,
            Ok(batches) => {
                for chunk in batches.chunks {
                    next = take(chunk, next, &mut found);
                }
            }
            Err(ReadError::Corrupt { resume_at: Some(resume_at), .. }) => {
                assert!(resume_at > next, "a hole is passed");
                next = resume_at;
            }
            Err(_) => return found,
        }
    }
    panic!("a read without end, at {next:?}");
}

fn take(mut chunk: Bytes, mut next: Offset, found: &mut Vec<Bytes>) -> Offset {
    while !chunk.is_empty() {
        let header = BatchHeader::parse(&chunk).expect("a served batch has a header");
        let batch = chunk.split_to(header.size_bytes);
        assert!(batch::check_crc(&batch, &header), "a served batch has its CRC");
        assert!(header.base_offset <= next.get(), "no gap without a word");
        assert!(next.get() <= header.last_offset(), "nothing twice");
        next = offset(header.last_offset() + 1);
        found.push(batch);
    }
    next
}
