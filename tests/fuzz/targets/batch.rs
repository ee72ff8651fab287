//! A record batch as a producer sends it, and its records.

use allocation_counter::measure;
use bytes::Bytes;
use taskwire::wire::{
    batch::{self, BatchHeader, ProducedBatch},
    record,
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
    let mut outcome = None;
    let taken = measure(|| {
        outcome = Some(record::decode(&batch, &header, DECOMPRESSED_BYTES_MAX));
    });
    // A record of 7 bytes takes 104, and LZ4 takes two blocks of 4 MiB by a claim alone.
    let bound = 16 * bytes.len() + 16 * DECOMPRESSED_BYTES_MAX + (9 << 20);
    assert!(taken.bytes_max <= u64::try_from(bound).expect("a number"), "{taken:?}");
    if let Some(Ok(records)) = outcome {
        assert_eq!(i32::try_from(records.len()), Ok(header.record_count));
        let offsets = records.windows(2).all(|pair| pair[0].offset < pair[1].offset);
        assert!(offsets, "offsets rise");
        let last = records.last().map_or(header.base_offset, |record| record.offset);
        assert!(last <= header.last_offset(), "within the batch");
    }
}
