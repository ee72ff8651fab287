//! Batches of a real client (tests/data/batches), and what a broker must refuse.

use super::*;
use crate::wire::record;
use kafka_protocol::records::RecordBatchDecoder;
use proptest::{prelude::*, sample::Index};

const FILES: [(Codec, &str); 5] = [
    (Codec::None, include_str!("../../../tests/data/batches/none.hex")),
    (Codec::Gzip, include_str!("../../../tests/data/batches/gzip.hex")),
    (Codec::Snappy, include_str!("../../../tests/data/batches/snappy.hex")),
    (Codec::Lz4, include_str!("../../../tests/data/batches/lz4.hex")),
    (Codec::Zstd, include_str!("../../../tests/data/batches/zstd.hex")),
];

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn client_batch() -> Vec<u8> {
    from_hex(FILES[0].1)
}

/// CRC-32C bit by bit, from its definition.
fn crc_by_definition(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// A client's batch with `bytes` written at `at`, and the CRC made right again.
fn edited(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = client_batch();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc_by_definition(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

#[test]
fn batches_of_a_real_client_pass_and_their_records_are_read() {
    for (codec, text) in FILES {
        let batch = ProducedBatch::check(&from_hex(text)).unwrap();
        assert_eq!(batch.header().codec(), Some(codec));
        let (header, bytes) = batch.stamp(100, 4);
        let records: Vec<_> = record::Records::open(&bytes, &header, 1 << 20).unwrap().collect();
        let of = |index: usize| &records[index];
        assert_eq!(records.len(), 3, "{codec:?}");
        assert_eq!((of(0).offset, of(2).offset), (100, 102));
        assert_eq!(of(2).timestamp_ms, 1_700_000_000_010);
        assert_eq!(of(0).key.as_deref(), Some(&b"task-0"[..]));
        assert_eq!(of(1).key, None);
        let value = r#"{"type":"task_created","data":{"id":"2"}}"#.repeat(2);
        assert_eq!(of(2).value.as_deref(), Some(value.as_bytes()));
        let name = Bytes::from("ce_id");
        let headers = [(name.clone(), Some("0".into())), (name, Some("again".into()))];
        assert_eq!(of(0).headers, headers);
        assert!(of(1).headers.is_empty());
    }
}

#[test]
fn the_fields_of_a_real_clients_batch_are_read() {
    let header = BatchHeader::parse(&client_batch()).unwrap();
    let expected = BatchHeader {
        base_offset: 0,
        size_bytes: 366,
        leader_epoch: 0,
        crc: 0xc2b2_cb34,
        attributes: 0,
        last_offset_delta: 2,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_010,
        producer_id: 4_000,
        producer_epoch: 2,
        base_sequence: 7,
        record_count: 3,
    };
    assert_eq!(header, expected);
    assert!(header.is_idempotent() && !header.is_transactional());
}

#[test]
fn stamping_keeps_the_crc_and_everything_else() {
    let sent = client_batch();
    let (header, stamped) = ProducedBatch::check(&sent).unwrap().stamp(1 << 40, 9);
    assert_eq!(&stamped[..8], (1_i64 << 40).to_be_bytes());
    assert_eq!(&stamped[8..12], &sent[8..12]);
    assert_eq!(&stamped[12..16], 9_i32.to_be_bytes());
    assert_eq!(&stamped[16..], &sent[16..]);
    assert!(check_crc(&stamped, &header));
    assert_eq!((header.base_offset, header.leader_epoch), (1 << 40, 9));
    assert_eq!(BatchHeader::parse(&stamped), Ok(header));
    assert_eq!(header.last_offset(), (1 << 40) + 2);
}

#[test]
fn what_a_broker_must_refuse_is_refused_by_its_reason() {
    #[track_caller]
    fn check(at: usize, bytes: &[u8], expected: BatchError) {
        let outcome = ProducedBatch::check(&edited(at, bytes)).map(|batch| *batch.header());
        assert_eq!(outcome, Err(expected), "{bytes:?} at {at}");
    }
    check(8, &[0xff; 4], BatchError::Field("length"));
    check(8, &48_i32.to_be_bytes(), BatchError::Field("length"));
    check(8, &353_i32.to_be_bytes(), BatchError::Field("length"));
    check(8, &355_i32.to_be_bytes(), BatchError::Truncated);
    check(16, &[1], BatchError::Magic(1));
    check(16, &[0xff], BatchError::Magic(-1));
    check(21, &5_i16.to_be_bytes(), BatchError::Field("codec"));
    check(21, &7_i16.to_be_bytes(), BatchError::Field("codec"));
    check(21, &0x20_i16.to_be_bytes(), BatchError::Field("control bit"));
    check(23, &3_i32.to_be_bytes(), BatchError::Field("last offset delta"));
    check(23, &(-1_i32).to_be_bytes(), BatchError::Field("last offset delta"));
    check(57, &0_i32.to_be_bytes(), BatchError::Field("record count"));
    check(57, &i32::MIN.to_be_bytes(), BatchError::Field("record count"));
    check(57, &4_i32.to_be_bytes(), BatchError::Field("last offset delta"));
    assert!(ProducedBatch::check(&edited(21, &0x10_i16.to_be_bytes())).is_ok(), "transactional");
    let two = client_batch().repeat(2);
    assert_eq!(ProducedBatch::check(&two).unwrap_err(), BatchError::Field("length"));
    assert_eq!(ProducedBatch::check(&[]).unwrap_err(), BatchError::Truncated);
}

proptest! {
    /// The first 17 bytes (offset, length, epoch, magic) lie outside the CRC, the rest within.
    #[test]
    fn a_flipped_byte_is_refused_unless_it_is_overwritten_anyway(at: Index, flip in 1_u8..) {
        let mut batch = client_batch();
        let at = at.index(batch.len());
        batch[at] ^= flip;
        let is_stamped = matches!(at, 0..8 | 12..16);
        prop_assert_eq!(ProducedBatch::check(&batch).is_ok(), is_stamped, "at {}", at);
    }

    #[test]
    fn every_truncation_is_refused(at: Index) {
        let batch = client_batch();
        let cut = &batch[..at.index(batch.len())];
        prop_assert_eq!(ProducedBatch::check(cut).unwrap_err(), BatchError::Truncated);
    }

    /// Header fields at random, with a CRC that is right: what passes keeps the rules, and
    /// kafka-protocol reads the same header.
    #[test]
    fn what_passes_keeps_every_rule(
        attributes in 0_i16..0x40,
        delta in -2_i32..6,
        count in -2_i32..6,
        producer in (-2_i64..3, -2_i16..3, -2_i32..3),
    ) {
        let mut fields = edited(21, &attributes.to_be_bytes());
        fields[23..27].copy_from_slice(&delta.to_be_bytes());
        fields[43..51].copy_from_slice(&producer.0.to_be_bytes());
        fields[51..53].copy_from_slice(&producer.1.to_be_bytes());
        fields[53..57].copy_from_slice(&producer.2.to_be_bytes());
        fields[57..61].copy_from_slice(&count.to_be_bytes());
        let crc = crc_by_definition(&fields[21..]);
        fields[17..21].copy_from_slice(&crc.to_be_bytes());
        let is_producer = producer.0 < 0 || producer.1 >= 0 && producer.2 >= 0;
        let is_good =
            count > 0 && delta == count - 1 && attributes & 0x27 <= 4 && is_producer;
        let outcome = ProducedBatch::check(&fields);
        prop_assert_eq!(outcome.is_ok(), is_good);
        if let Ok(batch) = outcome {
            let theirs = RecordBatchDecoder::decode_batch_info(&mut Bytes::from(fields)).unwrap();
            let ours = batch.header();
            prop_assert_eq!(theirs[0].record_count, ours.record_count);
            prop_assert_eq!(theirs[0].producer_id, ours.producer_id);
            prop_assert_eq!(theirs[0].producer_epoch, ours.producer_epoch);
            prop_assert_eq!(theirs[0].base_sequence, ours.base_sequence);
            prop_assert_eq!(theirs[0].transactional, ours.is_transactional());
            prop_assert_eq!(theirs[0].min_timestamp, ours.base_timestamp);
        }
    }

    #[test]
    fn the_crc_is_castagnolis(bytes: Vec<u8>) {
        prop_assert_eq!(crc32c(&bytes), crc_by_definition(&bytes));
    }
}

#[test]
fn the_crc_of_the_standard_check_string_is_known() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
