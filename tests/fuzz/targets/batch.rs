//! A record batch as a producer sends it, and its records.

use allocation_counter::measure;
use bytes::Bytes;
use taskwire::wire::{
    batch::{self, BatchHeader, ProducedBatch},
    record::Records,
};

const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;
const HEADER_BYTES: usize = 61;

/// `data`: a batch. It is tried as it is, and with the length and CRC that fit it.
pub(super) fn run(data: &[u8]) {
    check(data);
    check(&mended(data));
}

/// The batch with the length and the CRC of its bytes, where it is long enough to have them.
pub(super) fn mended(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if bytes.len() >= HEADER_BYTES {
        let length = i32::try_from(bytes.len() - 12).expect("a small input");
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = batch::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    bytes
}

fn check(bytes: &[u8]) {
    drop(BatchHeader::parse(bytes));
    let Ok(checked) = ProducedBatch::check(bytes) else { return };
    let header = *checked.header();
    let batch = Bytes::copy_from_slice(bytes);
    let mut opened = None;
    let taken = measure(|| opened = Some(Records::open(&batch, &header, DECOMPRESSED_BYTES_MAX)));
    // A list that doubles, and what gzip takes before its first byte.
    let bound = 4 * bytes.len() + 3 * DECOMPRESSED_BYTES_MAX;
    assert!(taken.bytes_max <= u64::try_from(bound).expect("a number"), "{taken:?}");
    let Some(Ok(records)) = opened else { return };
    let (mut count, mut next) = (0, header.base_offset);
    for record in records {
        assert!(next <= record.offset, "offsets rise");
        next = record.offset + 1;
        count += 1;
    }
    assert_eq!(count, header.record_count);
    assert!(next <= header.last_offset().saturating_add(1), "within the batch");
}
