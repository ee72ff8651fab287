//! A client of port 9092 on the kafka-protocol crate, so that no expected byte comes from our encoder.

use super::{TestDaemon, created, with_event_id};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, BrokerId, FetchRequest, FetchResponse, InitProducerIdRequest,
        InitProducerIdResponse, MetadataRequest, ProduceRequest, ProduceResponse, RequestHeader,
        ResponseHeader, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
    records::{
        Compression, NO_PARTITION_LEADER_EPOCH, NO_SEQUENCE, Record, RecordBatchDecoder,
        RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    },
};
use serde_json::Value;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::timeout,
};

/// Who sends a batch, for idempotent ones.
#[derive(Clone, Copy)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
}

pub(crate) const NOBODY: Producer = Producer { id: -1, epoch: -1, sequence: NO_SEQUENCE };

/// One connection.
pub(crate) struct KafkaClient {
    stream: TcpStream,
    correlation_id: i32,
}

/// The requests of the tests: which key, which answer.
pub(crate) trait Call: Encodable + HeaderVersion {
    const KEY: i16;
    type Answer: Decodable + HeaderVersion;
}

macro_rules! calls {
    ($($key:ident: $request:ty => $answer:ty;)*) => {
        $(impl Call for $request {
            #[allow(clippy::as_conversions, reason = "the discriminant is the key")]
            const KEY: i16 = ApiKey::$key as i16;
            type Answer = $answer;
        })*
    };
}

calls! {
    Produce: ProduceRequest => ProduceResponse;
    Fetch: FetchRequest => FetchResponse;
    InitProducerId: InitProducerIdRequest => InitProducerIdResponse;
    CreateTopics: kafka_protocol::messages::CreateTopicsRequest
        => kafka_protocol::messages::CreateTopicsResponse;
    ApiVersions: kafka_protocol::messages::ApiVersionsRequest
        => kafka_protocol::messages::ApiVersionsResponse;
    Metadata: MetadataRequest
        => kafka_protocol::messages::MetadataResponse;
    ListOffsets: kafka_protocol::messages::ListOffsetsRequest
        => kafka_protocol::messages::ListOffsetsResponse;
    JoinGroup: kafka_protocol::messages::JoinGroupRequest
        => kafka_protocol::messages::JoinGroupResponse;
    SyncGroup: kafka_protocol::messages::SyncGroupRequest
        => kafka_protocol::messages::SyncGroupResponse;
    OffsetCommit: kafka_protocol::messages::OffsetCommitRequest
        => kafka_protocol::messages::OffsetCommitResponse;
    OffsetFetch: kafka_protocol::messages::OffsetFetchRequest
        => kafka_protocol::messages::OffsetFetchResponse;
}

impl TestDaemon {
    pub(crate) async fn kafka_client(&self) -> KafkaClient {
        KafkaClient::connect(self.kafka).await
    }

    /// Produces events to `task-events` with acks=all; returns the first offset.
    pub(crate) async fn produce(&self, events: &[Value]) -> i64 {
        let values: Vec<Bytes> = events.iter().map(|event| event.to_string().into()).collect();
        self.kafka_client().await.produce("task-events", &values).await
    }
}

impl KafkaClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.expect("the broker listens")
    }

    pub(crate) async fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self { stream, correlation_id: 0 })
    }

    /// This end's address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("connected")
    }

    /// Sends a request and gives its answer; `None` if the connection ends first.
    pub(crate) async fn try_call<C: Call>(
        &mut self,
        version: i16,
        request: &C,
    ) -> Option<C::Answer> {
        let correlation_id = self.send(version, request).await?;
        self.receive::<C>(version, correlation_id).await
    }

    pub(crate) async fn call<C: Call>(&mut self, version: i16, request: &C) -> C::Answer {
        self.try_call(version, request).await.expect("an answer")
    }

    /// Sends a request without waiting; its correlation id, or `None` if the connection has ended.
    pub(crate) async fn send<C: Call>(&mut self, version: i16, request: &C) -> Option<i32> {
        let frame = self.frame(version, request);
        self.stream.write_all(&frame).await.ok()?;
        Some(self.correlation_id)
    }

    fn frame<C: Call>(&mut self, version: i16, request: &C) -> BytesMut {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(C::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("it")));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header.encode(&mut frame, C::header_version(version)).expect("a header");
        request.encode(&mut frame, version).expect("a request");
        let length = i32::try_from(frame.len() - 4).expect("a small frame");
        frame[..4].copy_from_slice(&length.to_be_bytes());
        frame
    }

    /// The next answer, to the request `correlation_id`.
    pub(crate) async fn receive<C: Call>(
        &mut self,
        version: i16,
        correlation_id: i32,
    ) -> Option<C::Answer> {
        let mut bytes = self.read_frame().await?;
        let header = ResponseHeader::decode(&mut bytes, C::Answer::header_version(version));
        assert_eq!(header.expect("a header").correlation_id, correlation_id);
        let answer = C::Answer::decode(&mut bytes, version).expect("an answer");
        assert_eq!(bytes.remaining(), 0, "bytes after the answer");
        Some(answer)
    }

    async fn read_frame(&mut self) -> Option<Bytes> {
        let read = async {
            let length = self.stream.read_i32().await.ok()?;
            let mut bytes = vec![0; usize::try_from(length).expect("a length")];
            self.stream.read_exact(&mut bytes).await.ok()?;
            Some(Bytes::from(bytes))
        };
        timeout(Duration::from_secs(30), read).await.expect("an answer in time")
    }

    /// Writes raw bytes and reads until the peer closes (or `None` if it does not within 5 s).
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        drop(self.stream.write_all(bytes).await); // the peer may close in the middle of it
        let mut answer = Vec::new();
        let read = self.stream.read_to_end(&mut answer);
        timeout(Duration::from_secs(5), read).await.ok().map(|_| answer)
    }

    /// Makes a topic as clients do, by asking for its metadata.
    pub(crate) async fn make_topic(&mut self, topic: &str) {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(true);
        for _ in 0..2 {
            self.call(12, &request).await;
        }
    }

    pub(crate) async fn produce(&mut self, topic: &str, values: &[Bytes]) -> i64 {
        let answer = self.try_produce(topic, &batch(values, NOBODY)).await.expect("an answer");
        assert_eq!(answer.error_code, 0, "produce to {topic}");
        answer.base_offset
    }

    pub(crate) async fn init_producer(&mut self) -> Producer {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let answer = self.call(4, &request).await;
        assert_eq!(answer.error_code, 0);
        Producer { id: answer.producer_id.0, epoch: answer.producer_epoch, sequence: 0 }
    }

    /// Produces to partition 0 with acks=all; `None` if the connection ends first.
    pub(crate) async fn try_produce(
        &mut self,
        topic: &str,
        batch: &Bytes,
    ) -> Option<PartitionProduceResponse> {
        self.try_produce_to(topic, 0, -1, batch).await
    }

    pub(crate) async fn try_produce_to(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        batch: &Bytes,
    ) -> Option<PartitionProduceResponse> {
        let request = produce_request(topic, partition, acks, batch);
        let answer = self.try_call(9, &request).await?;
        Some(answer.responses[0].partition_responses[0].clone())
    }

    /// One Fetch: the error code, the high watermark and the records.
    pub(crate) async fn fetch(
        &mut self,
        topic: &str,
        from: i64,
        wait_ms: i32,
    ) -> (i16, i64, Vec<Record>) {
        self.try_fetch(topic, from, wait_ms).await.expect("an answer")
    }

    /// The same; `None` if the connection ends first.
    pub(crate) async fn try_fetch(
        &mut self,
        topic: &str,
        from: i64,
        wait_ms: i32,
    ) -> Option<(i16, i64, Vec<Record>)> {
        let partition = FetchPartition::default()
            .with_partition(0)
            .with_fetch_offset(from)
            .with_partition_max_bytes(1 << 20);
        let topic =
            FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(16 << 20)
            .with_topics(vec![topic]);
        let answer = self.try_call(12, &request).await?;
        let partition = &answer.responses[0].partitions[0];
        let mut records = Vec::new();
        if let Some(bytes) = &partition.records {
            let mut bytes = bytes.clone();
            while bytes.has_remaining() {
                records.extend(RecordBatchDecoder::decode(&mut bytes).expect("a batch").records);
            }
        }
        records.retain(|record| record.offset >= from);
        Some((partition.error_code, partition.high_watermark, records))
    }

    /// Produces, with the first byte of another request in the same write as the last of this one.
    pub(crate) async fn produce_and_begin_another(&mut self, topic: &str, values: &[Bytes]) {
        let data =
            PartitionProduceData::default().with_index(0).with_records(Some(batch(values, NOBODY)));
        let topic = TopicProduceData::default()
            .with_name(topic_name(topic))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
        let mut frame = self.frame(9, &request);
        frame.put_u8(0);
        self.stream.write_all(&frame).await.expect("sent");
        let answer =
            self.receive::<ProduceRequest>(9, self.correlation_id).await.expect("an answer");
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }

    /// Asks for more than there is, for a long time, and does not wait for the answer.
    pub(crate) async fn begin_greedy_fetch(&mut self, topic: &str) {
        let partition =
            FetchPartition::default().with_partition(0).with_partition_max_bytes(i32::MAX);
        let topic =
            FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(i32::MAX)
            .with_min_bytes(i32::MAX)
            .with_max_bytes(i32::MAX)
            .with_topics(vec![topic]);
        self.send(12, &request).await.expect("sent");
    }

    /// Every record of partition 0 up to the high watermark.
    pub(crate) async fn fetch_all(&mut self, topic: &str) -> Vec<Record> {
        let mut all: Vec<Record> = Vec::new();
        loop {
            let from = all.last().map_or(0, |record| record.offset + 1);
            let (error, high_watermark, records) = self.fetch(topic, from, 0).await;
            assert_eq!(error, 0, "fetch from {topic}");
            all.extend(records);
            if all.last().map_or(0, |record| record.offset + 1) >= high_watermark {
                return all;
            }
        }
    }
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// A Produce (version 9) of one batch.
pub(crate) fn produce_request(
    topic: &str,
    partition: i32,
    acks: i16,
    batch: &Bytes,
) -> ProduceRequest {
    let data =
        PartitionProduceData::default().with_index(partition).with_records(Some(batch.clone()));
    let topic =
        TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![topic])
}

/// Sends the events `e0`, `e1`, ... that create ada's tasks `t0`, `t1`, ..., in batches of 10
/// through one idempotent producer, again after each lost connection; never more than `allowed`.
pub(crate) async fn produce_numbered(
    address: SocketAddr,
    count: usize,
    mut allowed: watch::Receiver<usize>,
) {
    let mut client = KafkaClient::connect(address).await;
    let mut producer = client.init_producer().await;
    let event = |number: usize| {
        with_event_id(created(&format!("t{number}"), "ada", "x"), &format!("e{number}"))
    };
    for first in (0..count).step_by(10) {
        allowed.wait_for(|allowed| first + 10 <= *allowed).await.expect("somebody allows more");
        let values: Vec<Bytes> =
            (first..first + 10).map(|number| event(number).to_string().into()).collect();
        let batch = batch(&values, producer);
        loop {
            match client.try_produce("task-events", &batch).await {
                Some(answer) if answer.error_code == 0 => break,
                Some(answer) => assert_eq!(answer.error_code, 56, "only while it stops"),
                None => (),
            }
            client = reconnect(address).await;
        }
        producer.sequence += 10;
    }
}

async fn reconnect(address: SocketAddr) -> KafkaClient {
    for _ in 0..2_000 {
        if let Some(client) = KafkaClient::try_connect(address).await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the broker does not come back");
}

/// One uncompressed batch.
pub(crate) fn batch(values: &[Bytes], producer: Producer) -> Bytes {
    let values: Vec<Option<Bytes>> = values.iter().cloned().map(Some).collect();
    batch_of(&values, producer)
}

/// One record without a value.
pub(crate) fn null_batch() -> Bytes {
    batch_of(&[None], NOBODY)
}

/// One batch that says it is compressed, with a right CRC, and is not.
pub(crate) fn garbled_batch() -> Bytes {
    let mut bytes = BytesMut::from(&plain_batch(&["x"])[..]);
    bytes[22] |= 1; // attributes: gzip
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[21..]);
    let crc = u32::try_from(crc).expect("32 bits");
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

fn batch_of(values: &[Option<Bytes>], producer: Producer) -> Bytes {
    let record = |(index, value): (usize, &Option<Bytes>)| {
        let index = i32::try_from(index).expect("few records");
        Record {
            transactional: false,
            control: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(index),
            // The encoder begins a new batch where sequence and offset drift apart.
            sequence: producer.sequence + index,
            timestamp: 1_700_000_000_000,
            key: None,
            value: value.clone(),
            headers: Default::default(),
            delete_horizon: false,
        }
    };
    let records: Vec<Record> = values.iter().enumerate().map(record).collect();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("a batch");
    bytes.freeze()
}

/// A batch without an idempotent producer.
pub(crate) fn plain_batch(values: &[&str]) -> Bytes {
    let values: Vec<Bytes> =
        values.iter().map(|value| Bytes::copy_from_slice(value.as_bytes())).collect();
    batch(&values, NOBODY)
}

/// A record's header as text.
pub(crate) fn header(record: &Record, name: &'static str) -> String {
    let value = record.headers.get(&StrBytes::from_static_str(name)).cloned().flatten();
    String::from_utf8(value.unwrap_or_default().to_vec()).expect("text")
}

/// One batch, zstd, of records that are all null and have no key: seven bytes each, unfolded.
pub(crate) fn tiny_records(count: usize) -> Bytes {
    use taskwire::wire::{
        batch::Codec,
        record::{NewRecord, encode_compressed},
    };
    encode_compressed(&vec![NewRecord::default(); count], Codec::Zstd).stamp(0, -1).1
}
