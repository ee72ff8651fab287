//! The Kafka protocol alone: what one request, one batch and one answer cost. Bytes are made before
//! the clock runs.

use bytes::Bytes;
use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use taskwire::wire::{
    ApiKey, FetchResponse, RequestHeader,
    batch::{BatchHeader, Codec, ProducedBatch},
    client, decode_request, encode_response,
    fetch::{FetchPartition, FetchTopic},
    messages::{
        ProduceRequest, TopicName,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    record::{self, NewRecord, Records},
};

/// Records of one producer batch, and bytes of each value.
const RECORDS: usize = 1_000;
const VALUE_BYTES: usize = 200;
/// What one Fetch answers, in batches of this size.
const FETCH_BYTES: usize = 1 << 20;
const FETCH_BATCH_BYTES: usize = 16 << 10;
/// More than a batch here unfolds to.
const DECOMPRESSED_BYTES_MAX: usize = 16 << 20;

fn main() {
    divan::main();
}

/// An event of exactly `VALUE_BYTES`, of which some repeats and some does not, as in real ones.
fn value(index: usize) -> Bytes {
    let id = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let text = format!(
        r#"{{"type":"task_created","event_id":"{id:016x}","data":{{"id":"{index:08}","user_id":"user-{}","title":"{:x}"#,
        index % 100,
        id.rotate_left(17),
    );
    Bytes::from(format!("{text:x<width$}\"}}}}", width = VALUE_BYTES - 3))
}

/// The bytes of one batch with its header.
fn batch(codec: Codec) -> (BatchHeader, Bytes) {
    let record = |index: usize| NewRecord {
        timestamp_ms: 1_700_000_000_000,
        key: Some(Bytes::from(format!("{index:08}"))),
        value: Some(value(index)),
        headers: Vec::new(),
    };
    let records: Vec<NewRecord> = (0..RECORDS).map(record).collect();
    assert!(
        records.iter().all(|record| record.value.as_ref().map(Bytes::len) == Some(VALUE_BYTES))
    );
    record::encode_compressed(&records, codec).stamp(0, 0)
}

/// A Produce frame without its length prefix.
fn produce_frame() -> Bytes {
    let partition =
        PartitionProduceData::default().with_index(0).with_records(Some(batch(Codec::None).1));
    let topic = TopicProduceData::default()
        .with_name(TopicName("task-events".to_owned().into()))
        .with_partition_data(vec![partition]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic]);
    let framed = client::PRODUCE.encode_request(1, &request.into()).expect("a request");
    framed.slice(4..)
}

/// A frame of 1,000 records of 200 bytes; its batch is not looked into, so bytes a second would say
/// nothing. Many a sample, for the timer is coarse beside one.
#[divan::bench(sample_size = 100)]
fn decode_produce_request(bencher: Bencher<'_, '_>) {
    let frame = produce_frame();
    bencher
        .with_inputs(|| frame.clone())
        .bench_values(|frame| decode_request(frame).expect("a good request"));
}

/// Every check that needs no state, the CRC among them, and the copy into a buffer of its own.
#[divan::bench]
fn check_produced_batch(bencher: Bencher<'_, '_>) {
    let (_, bytes) = batch(Codec::None);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .counter(ItemsCount::new(RECORDS))
        .bench(|| ProducedBatch::check(divan::black_box(&bytes)).expect("a good batch"));
}

fn decode_records(bencher: Bencher<'_, '_>, codec: Codec) {
    let (header, bytes) = batch(codec);
    bencher
        .counter(BytesCount::new(RECORDS * VALUE_BYTES))
        .counter(ItemsCount::new(RECORDS))
        .bench(|| {
            let decoded = Records::open(divan::black_box(&bytes), &header, DECOMPRESSED_BYTES_MAX)
                .map(|records| records.collect::<Vec<_>>());
            decoded.expect("good records")
        });
}

#[divan::bench]
fn decode_records_none(bencher: Bencher<'_, '_>) {
    decode_records(bencher, Codec::None);
}

#[divan::bench]
fn decode_records_lz4(bencher: Bencher<'_, '_>) {
    decode_records(bencher, Codec::Lz4);
}

/// 1 MiB of records in 64 chunks, which are passed on and not copied.
#[divan::bench(sample_size = 100)]
fn encode_fetch_response(bencher: Bencher<'_, '_>) {
    let header =
        RequestHeader { key: ApiKey::Fetch, version: 12, correlation_id: 1, client_id: None };
    let chunk = Bytes::from(vec![0x61; FETCH_BATCH_BYTES]);
    let response = || {
        let partition = FetchPartition {
            index: 0,
            error_code: 0,
            high_watermark: 1_000,
            last_stable_offset: 1_000,
            log_start_offset: 0,
            aborted_transactions: None,
            records: vec![chunk.clone(); FETCH_BYTES / FETCH_BATCH_BYTES],
        };
        let name = TopicName("task-events".to_owned().into());
        let topics = vec![FetchTopic { name, partitions: vec![partition] }];
        FetchResponse { topics, ..FetchResponse::default() }
    };
    bencher
        .with_inputs(response)
        .bench_values(|response| encode_response(&header, response).expect("a good answer"));
}
