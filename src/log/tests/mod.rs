//! The log through its door, on disks in memory.

mod copy;
mod crash;
mod damage;
mod everyday;

use super::{Batches, LastStop, Log, LogReader, Options, ReadError, Recovery};
use crate::{
    disk::testing::{FaultyDir, MemoryDir},
    position::Offset,
    wire::batch::{BatchHeader, ProducedBatch, crc32c},
};
use std::sync::Arc;

fn at(raw: i64) -> Offset {
    Offset::new(raw).expect("not negative")
}

/// What a batch of the tests holds.
#[derive(Clone, Debug)]
struct Shape {
    records: usize,
    value_bytes: usize,
    /// Of the first record; each further one is a millisecond later.
    timestamp_ms: i64,
    producer_id: i64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { records: 1, value_bytes: 10, timestamp_ms: 1000, producer_id: -1 }
    }
}

fn varint(value: i64, to: &mut Vec<u8>) {
    let mut zigzag = u64::from_ne_bytes(((value << 1) ^ (value >> 63)).to_ne_bytes());
    while zigzag >= 0x80 {
        to.push(u8::try_from(zigzag & 0x7f).unwrap() | 0x80);
        zigzag >>= 7;
    }
    to.push(u8::try_from(zigzag).unwrap());
}

impl Shape {
    fn bytes(&self) -> Vec<u8> {
        let count = i32::try_from(self.records).unwrap();
        let mut records = Vec::new();
        for delta in 0..i64::from(count) {
            let mut record = vec![0];
            varint(delta, &mut record);
            varint(delta, &mut record);
            varint(-1, &mut record);
            varint(i64::try_from(self.value_bytes).unwrap(), &mut record);
            record.extend((0..self.value_bytes).map(|i| u8::try_from(i % 251).unwrap()));
            varint(0, &mut record);
            varint(i64::try_from(record.len()).unwrap(), &mut records);
            records.extend(record);
        }
        let mut covered = Vec::new();
        covered.extend(0_i16.to_be_bytes());
        covered.extend((count - 1).to_be_bytes());
        covered.extend(self.timestamp_ms.to_be_bytes());
        covered.extend((self.timestamp_ms + i64::from(count) - 1).to_be_bytes());
        covered.extend(self.producer_id.to_be_bytes());
        covered.extend([0; 2]);
        covered.extend([0; 4]);
        covered.extend(count.to_be_bytes());
        covered.extend(records);
        let mut bytes = vec![0; 8];
        bytes.extend(i32::try_from(covered.len() + 9).unwrap().to_be_bytes());
        bytes.extend([0, 0, 0, 0, 2]);
        bytes.extend(crc32c(&covered).to_be_bytes());
        bytes.extend(covered);
        bytes
    }

    fn batch(&self) -> ProducedBatch {
        ProducedBatch::check(&self.bytes()).expect("a sound batch")
    }
}

const EPOCH: i32 = 5;

fn crashed(floor: i64) -> LastStop {
    LastStop { was_clean: false, durable_floor: at(floor), leader_epoch: EPOCH }
}

fn clean() -> LastStop {
    LastStop { was_clean: true, durable_floor: Offset::ZERO, leader_epoch: EPOCH }
}

fn small_segments(segment_bytes: u64) -> Options {
    Options { segment_bytes, ..Options::default() }
}

fn open_with(dir: &MemoryDir, options: Options, last_stop: LastStop) -> (Log, Recovery) {
    Log::open(Arc::new(dir.clone()), options, last_stop).expect("it opens")
}

fn faulty(dir: &MemoryDir) -> FaultyDir {
    FaultyDir::new(Arc::new(dir.clone()))
}

/// Appends one batch and flushes; its offset.
fn put(log: &mut Log, shape: &Shape) -> i64 {
    let appended = log.append(vec![shape.batch()], 5000).expect("it is appended");
    log.flush().expect("it is flushed");
    appended[0].base_offset.get()
}

/// Headers of whole batches in chunks, each checked.
fn headers(batches: &Batches) -> Vec<BatchHeader> {
    let mut headers = Vec::new();
    for chunk in &batches.chunks {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest).expect("whole batches only");
            assert!(crate::wire::batch::check_crc(rest, &header), "a damaged batch was served");
            rest = &rest[header.size_bytes..];
            headers.push(header);
        }
    }
    assert_eq!(batches.bytes, batches.chunks.iter().map(|chunk| chunk.len()).sum::<usize>());
    headers
}

/// Reads all from `from` on: bases of the batches served, and ranges reported as damaged.
fn read_all(reader: &LogReader, from: i64) -> (Vec<i64>, Vec<(i64, Option<i64>)>) {
    let (mut bases, mut damaged) = (Vec::new(), Vec::new());
    let mut from = from;
    for _ in 0..10_000 {
        match reader.read(at(from), 300) {
            Ok(batches) if batches.chunks.is_empty() => return (bases, damaged),
            Ok(batches) => {
                let headers = headers(&batches);
                assert!(headers[0].base_offset <= from && from <= headers[0].last_offset());
                bases.extend(headers.iter().map(|header| header.base_offset));
                from = headers.last().expect("at least one").last_offset() + 1;
            }
            Err(ReadError::Corrupt { offset, resume_at }) => {
                assert_eq!(offset.get(), from);
                damaged.push((from, resume_at.map(Offset::get)));
                let Some(resume_at) = resume_at else { return (bases, damaged) };
                assert!(resume_at.get() > from, "a reader must get on");
                from = resume_at.get();
            }
            Err(error) => panic!("{error:?} at {from}"),
        }
    }
    panic!("a read that does not end");
}
