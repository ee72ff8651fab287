//! The first record of a batch at or after a time.

use crate::wire::{
    batch::{BatchHeader, Codec, HEADER_BYTES},
    record::Records,
};
use bytes::Bytes;

/// Bytes that the records of one batch may unfold to when they are looked through.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// Offset and timestamp of the first record of `batch` (its CRC is right) at or after
/// `timestamp_ms` and `from`. Records that cannot be read count as of the batch's own times.
pub(super) fn first_at(
    batch: &[u8],
    header: &BatchHeader,
    timestamp_ms: i64,
    from: i64,
) -> Option<(i64, i64)> {
    let is_found = |(offset, timestamp): &(i64, i64)| *timestamp >= timestamp_ms && *offset >= from;
    let whole = (header.base_offset.max(from), header.max_timestamp);
    if header.is_log_append_time() {
        return Some(whole).filter(is_found).filter(|_| from <= header.last_offset());
    }
    if header.codec() == Some(Codec::None) {
        return records(batch.get(HEADER_BYTES..)?, header).find(is_found);
    }
    match Records::open(&Bytes::copy_from_slice(batch), header, DECOMPRESSED_BYTES_MAX) {
        Ok(mut records) => {
            records.by_ref().map(|record| (record.offset, record.timestamp_ms)).find(is_found)
        }
        Err(_) => Some(whole).filter(is_found).filter(|_| from <= header.last_offset()),
    }
}

/// Offset and timestamp of each uncompressed record, up to the first that is malformed.
fn records(bytes: &[u8], header: &BatchHeader) -> impl Iterator<Item = (i64, i64)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(varint(&mut rest)?).ok()?;
        let (mut record, after) = rest.split_at_checked(length)?;
        rest = after;
        record = record.get(1..)?; // attributes, none of which is in use
        let timestamp_delta = varint(&mut record)?;
        let offset_delta = varint(&mut record)?;
        Some((
            header.base_offset.checked_add(offset_delta)?,
            header.base_timestamp.checked_add(timestamp_delta)?,
        ))
    })
}

/// Bytes of the longest varint.
const VARINT_BYTES_MAX: u32 = 10;

/// A zigzag varint from the front of `bytes`.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value: u64 = 0;
    for place in 0..VARINT_BYTES_MAX {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(place * 7)?;
        if byte & 0x80 == 0 {
            let half = i64::try_from(value >> 1).ok()?;
            return Some(if value & 1 == 0 { half } else { !half });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Option<i64>) {
        assert_eq!(varint(&mut &*bytes), expected, "{bytes:x?}");
    }

    #[test]
    fn varints_are_zigzag() {
        // From the protocol buffers encoding guide.
        check(&[0], Some(0));
        check(&[1], Some(-1));
        check(&[2], Some(1));
        check(&[0xac, 0x02], Some(150));
        check(&[0xfe, 0xff, 0xff, 0xff, 0x0f], Some(0x7fff_ffff));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Some(i64::MIN));
        check(&[0x80], None);
        check(&[0xff; 11], None);
    }
}
