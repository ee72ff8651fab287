//! Records against kafka-protocol's own encoder and decoder, and codecs against their crates.

use super::*;
use allocation_counter::measure;
use kafka_protocol::{
    protocol::StrBytes,
    records::{
        Compression, Record as KafkaRecord, RecordBatchDecoder, RecordBatchEncoder,
        RecordEncodeOptions, TimestampType,
    },
};
use proptest::{collection::vec, option, prelude::*};
use std::io::Write;

const MAX: usize = 1 << 20;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn new_record() -> impl Strategy<Value = NewRecord> {
    let bytes = || vec(any::<u8>(), 0..80).prop_map(Bytes::from);
    let header = ("[a-z]{0,9}".prop_map(Bytes::from), option::of(bytes()));
    (0_i64..1 << 45, option::of(bytes()), option::of(bytes()), vec(header, 0..4)).prop_map(
        |(timestamp_ms, key, value, headers)| NewRecord { timestamp_ms, key, value, headers },
    )
}

/// What should come out for records that went in.
fn expected(records: &[NewRecord], base_offset: i64) -> Vec<Record> {
    (base_offset..)
        .zip(records)
        .map(|(offset, record)| Record {
            offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        })
        .collect()
}

fn decode(batch: &Bytes, header: &BatchHeader, max: usize) -> Outcome {
    Ok(Records::open(batch, header, max)?.collect())
}

fn decode_stamped(batch: ProducedBatch, base_offset: i64) -> Result<Vec<Record>, RecordError> {
    let (header, bytes) = batch.stamp(base_offset, 3);
    decode(&bytes, &header, MAX)
}

/// A batch as kafka-protocol's encoder writes it. Its headers are a map: duplicates are dropped.
fn kafka_encode(records: &[NewRecord], codec: Compression) -> Bytes {
    let records: Vec<KafkaRecord> = (0..)
        .zip(records)
        .map(|(index, record)| KafkaRecord {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(index),
            sequence: index,
            timestamp: record.timestamp_ms,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| (StrBytes::try_from(name.clone()).unwrap(), value.clone()))
                .collect(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: codec };
    RecordBatchEncoder::encode_with_custom_compression(
        &mut bytes,
        &records,
        &options,
        Some(|records: &mut BytesMut, out: &mut BytesMut, codec| {
            kafka_compress(records, out, codec);
            Ok(())
        }),
    )
    .unwrap();
    bytes.freeze()
}

/// Compresses by the codec crates alone, in the framing that librdkafka or Java use.
fn kafka_compress(bytes: &BytesMut, out: &mut BytesMut, codec: Compression) {
    match codec {
        Compression::None => out.put_slice(bytes),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out.writer(), Default::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap();
        }
        // librdkafka sends raw snappy, without frames.
        Compression::Snappy => {
            out.put_slice(&snap::raw::Encoder::new().compress_vec(bytes).unwrap());
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(out.writer());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap();
        }
        Compression::Zstd => out.put_slice(&zstd::bulk::compress(bytes, 3).unwrap()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_encoded_comes_back_by_every_codec(records in vec(new_record(), 1..30)) {
        for codec in CODECS {
            let batch = encode_compressed(&records, codec);
            prop_assert_eq!(batch.header().codec(), Some(codec));
            prop_assert_eq!(decode_stamped(batch, 1_000), Ok(expected(&records, 1_000)));
        }
    }

    #[test]
    fn kafka_protocol_reads_what_we_encode(records in vec(new_record(), 1..30)) {
        let (_, mut bytes) = encode(&records).stamp(77, -1);
        let theirs = RecordBatchDecoder::decode(&mut bytes).unwrap().records;
        prop_assert_eq!(theirs.len(), records.len());
        for (theirs, (ours, offset)) in theirs.iter().zip(records.iter().zip(77..)) {
            prop_assert_eq!(
                (theirs.offset, theirs.timestamp, &theirs.key, &theirs.value),
                (offset, ours.timestamp_ms, &ours.key, &ours.value)
            );
            for (name, value) in &theirs.headers {
                let last = ours.headers.iter().rfind(|(ours, _)| *ours == name.as_bytes());
                prop_assert_eq!(Some(value), last.map(|(_, value)| value));
            }
        }
    }

    #[test]
    fn we_read_what_kafka_protocol_encodes(mut records in vec(new_record(), 1..30)) {
        for record in &mut records {
            let names: std::collections::HashSet<_> =
                record.headers.iter().map(|(name, _)| name.clone()).collect();
            if names.len() < record.headers.len() {
                record.headers.clear();
            }
        }
        for codec in [
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ] {
            let bytes = kafka_encode(&records, codec);
            let batch = ProducedBatch::check(&bytes).unwrap();
            prop_assert_eq!(decode_stamped(batch, 5), Ok(expected(&records, 5)));
        }
    }

    #[test]
    fn damaged_records_never_panic_and_take_bounded_memory(
        records in vec(new_record(), 1..6),
        codec in 0..CODECS.len(),
        flips in vec((any::<prop::sample::Index>(), 1_u8..), 1..4),
    ) {
        let (_, bytes) = encode_compressed(&records, CODECS[codec]).stamp(0, 0);
        let mut bytes = bytes.to_vec();
        for (index, flip) in flips {
            let at = 21 + index.index(bytes.len() - 21);
            bytes[at] ^= flip;
        }
        if let Ok(header) = BatchHeader::parse(&bytes) {
            let bytes = Bytes::from(bytes);
            let taken = measure(|| drop(decode(&bytes, &header, MAX)));
            // A record of 7 bytes takes 104, and LZ4 takes two blocks of 4 MiB by a claim alone.
            let bound = match header.codec() {
                Some(Codec::None) | None => 16 * bytes.len() + (4 << 10),
                Some(_) => 16 * MAX + (9 << 20),
            };
            prop_assert!(taken.bytes_max <= u64::try_from(bound).unwrap(), "{:?}", taken);
        }
    }
}

fn one(value: &'static [u8]) -> NewRecord {
    NewRecord { value: Some(Bytes::from_static(value)), ..NewRecord::default() }
}

/// The batch's payload changed by `edit`, with the header kept.
fn edited(records: &[NewRecord], edit: impl FnOnce(&mut BatchHeader, &mut Vec<u8>)) -> Outcome {
    let (mut header, bytes) = encode(records).stamp(0, 0);
    let mut bytes = bytes.to_vec();
    edit(&mut header, &mut bytes);
    header.size_bytes = bytes.len();
    decode(&bytes.into(), &header, MAX)
}

type Outcome = Result<Vec<Record>, RecordError>;

#[test]
fn a_record_count_that_is_not_that_of_the_records_is_malformed() {
    let records = [one(b"a"), one(b"b")];
    for count in [-1, 0, 1, 3, i32::MAX] {
        let outcome = edited(&records, |header, _| header.record_count = count);
        assert_eq!(outcome, Err(RecordError::Malformed), "count: {count}");
    }
    let outcome = edited(&records, |_, bytes| bytes.push(0));
    assert_eq!(outcome, Err(RecordError::Malformed));
}

#[test]
fn offsets_must_rise_and_stay_within_the_batch() {
    // Each record is: length, attributes, timestamp delta, offset delta, ...
    let second_delta = HEADER_BYTES + 8 + 3;
    let outcome = |zigzag: u8| {
        edited(&[one(b"a"), one(b"b")], |_, bytes| bytes[second_delta] = zigzag)
            .map(|records| records[1].offset)
    };
    assert_eq!(outcome(2), Ok(1));
    for zigzag in [0, 1, 4] {
        assert_eq!(outcome(zigzag), Err(RecordError::Malformed), "{zigzag}");
    }
    let compacted = edited(&[one(b"a"), one(b"b")], |header, bytes| {
        header.last_offset_delta = 9;
        bytes[second_delta] = 2 * 7;
    });
    assert_eq!(compacted.unwrap()[1].offset, 7);
}

#[test]
fn a_header_count_beyond_the_record_is_malformed() {
    let outcome = edited(&[one(b"a")], |_, bytes| {
        let count = bytes.len() - 1;
        bytes[count] = 0x7e;
    });
    assert_eq!(outcome, Err(RecordError::Malformed));
}

#[test]
fn more_headers_than_a_record_may_have_are_malformed() {
    let with = |count: usize| {
        let headers = vec![(Bytes::new(), Some(Bytes::new())); count];
        decode_stamped(encode(&[NewRecord { headers, ..NewRecord::default() }]), 0)
    };
    assert_eq!(with(HEADERS_MAX).unwrap()[0].headers.len(), HEADERS_MAX);
    assert_eq!(with(HEADERS_MAX + 1), Err(RecordError::Malformed));
}

#[test]
fn a_million_tiny_records_take_the_memory_of_one() {
    let count = 1_000_000;
    let (header, bytes) =
        encode_compressed(&vec![NewRecord::default(); count], Codec::Zstd).stamp(0, 0);
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    let mut counted = 0;
    let taken = measure(|| counted = Records::open(&bytes, &header, 64 << 20).unwrap().count());
    assert_eq!(counted, count);
    // What they unfold to, in a list that doubles, and the window of the codec.
    assert!(taken.bytes_max < 48 << 20, "{taken:?}");
}

#[test]
fn the_append_time_replaces_every_timestamp() {
    let record = NewRecord { timestamp_ms: 5, ..one(b"a") };
    let outcome = edited(&[record], |header, _| {
        header.attributes |= 0x08;
        header.max_timestamp = 1_700_000_000_000;
    });
    assert_eq!(outcome.unwrap()[0].timestamp_ms, 1_700_000_000_000);
}

#[test]
fn duplicate_header_names_are_kept_in_order() {
    let headers = vec![("h".into(), Some("1".into())), ("h".into(), Some("2".into()))];
    let record = NewRecord { headers, ..NewRecord::default() };
    let decoded = decode_stamped(encode(std::slice::from_ref(&record)), 0).unwrap();
    assert_eq!(decoded, expected(&[record], 0));
}

#[test]
fn what_unfolds_beyond_the_bound_is_too_large() {
    let zeros = NewRecord { value: Some(Bytes::from(vec![0; 100_000])), ..NewRecord::default() };
    for codec in CODECS.into_iter().skip(1) {
        let (header, bytes) = encode_compressed(std::slice::from_ref(&zeros), codec).stamp(0, 0);
        assert!(bytes.len() < 20_000, "{codec:?}: {}", bytes.len());
        assert!(decode(&bytes, &header, 100_100).is_ok(), "{codec:?}");
        let outcome = decode(&bytes, &header, 99_999);
        assert_eq!(outcome, Err(RecordError::TooLarge { max: 99_999 }), "{codec:?}");
    }
}

#[test]
fn a_snappy_length_that_its_bytes_cannot_yield_is_refused_before_memory_is_taken() {
    // Claims 64 MiB in a block of six bytes, raw and in Xerial framing.
    let block = b"\x80\x80\x80\x20\0a";
    let framed = [&b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x06"[..], block].concat();
    for payload in [&block[..], &framed] {
        let outcome = edited(&[one(b"a")], |header, bytes| {
            header.attributes = Codec::Snappy.bits();
            bytes.truncate(HEADER_BYTES);
            bytes.extend_from_slice(payload);
        });
        assert_eq!(outcome, Err(RecordError::Compression));
    }
}
