//! A client of one connection: requests out, responses in, by kafka-protocol.

use crate::{
    position,
    wire::{
        ApiKey, StrBytes,
        messages::*,
        record::{NewRecord, encode},
    },
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

pub(super) struct Client {
    pub(super) stream: TcpStream,
    correlation_id: i32,
}

/// Longer than any answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, correlation_id: 0 }
    }

    /// With a socket that takes little of what is not read.
    pub(super) async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        Self { stream: socket.connect(address).await.unwrap(), correlation_id: 0 }
    }

    pub(super) async fn ask<R: Request>(&mut self, version: i16, request: R) -> R::Response {
        let correlation_id = self.send(version, &request).await;
        self.receive::<R>(version, correlation_id).await
    }

    /// Sends without waiting; returns the correlation id.
    pub(super) async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.correlation_id += 1;
        let frame = frame(version, self.correlation_id, request);
        self.stream.write_all(&frame).await.unwrap();
        self.correlation_id
    }

    pub(super) async fn receive<R: Request>(
        &mut self,
        version: i16,
        correlation_id: i32,
    ) -> R::Response {
        let mut bytes = self.receive_frame().await.expect("an answer");
        let header_version = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut bytes, header_version).unwrap();
        assert_eq!(header.correlation_id, correlation_id, "answers come in order");
        let response = R::Response::decode(&mut bytes, version).unwrap();
        assert!(!bytes.has_remaining(), "the whole answer is decoded");
        response
    }

    /// The next frame; `None` once the broker has closed.
    pub(super) async fn receive_frame(&mut self) -> Option<Bytes> {
        timeout(ANSWER_TIMEOUT, async {
            let length = self.stream.read_i32().await.ok()?;
            let mut bytes = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut bytes).await.ok()?;
            Some(Bytes::from(bytes))
        })
        .await
        .expect("an answer in time")
    }

    pub(super) async fn create(&mut self, topic: &str, partitions: i32) {
        let request = create_topics_request::CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![request]);
        let response = self.ask(7, request).await;
        assert_eq!(response.topics[0].error_code, 0, "{response:?}");
    }

    /// Produces one batch; returns (error code, base offset).
    pub(super) async fn produce(&mut self, topic: &str, batch: Bytes) -> (i16, i64) {
        let response = self.ask(9, produce(topic, 0, -1, batch)).await;
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    /// Values from an offset on, with one fetch that does not wait.
    pub(super) async fn values(&mut self, topic: &str, from: i64) -> Vec<String> {
        let response = self.ask(12, fetch(topic, from, 0)).await;
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        values(partition.records.clone().unwrap_or_default())
    }
}

/// One request as it goes over the wire.
pub(super) fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("tests")));
    let mut body = BytesMut::new();
    header.encode(&mut body, R::header_version(version)).unwrap();
    request.encode(&mut body, version).unwrap();
    let mut bytes = BytesMut::new();
    bytes.put_i32(i32::try_from(body.len()).unwrap());
    bytes.extend_from_slice(&body);
    bytes.freeze()
}

pub(super) fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

pub(super) fn topic(topic: &str) -> position::TopicName {
    position::TopicName::new(topic).unwrap()
}

pub(super) fn produce(topic: &str, partition: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    let data = produce_request::PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch));
    let data = produce_request::TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(1000).with_topic_data(vec![data])
}

pub(super) fn fetch_partition(partition: i32, from: i64) -> fetch_request::FetchPartition {
    fetch_request::FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(from)
        .with_partition_max_bytes(1 << 20)
}

pub(super) fn fetch(topic: &str, from: i64, max_wait_ms: i32) -> FetchRequest {
    let asked = fetch_request::FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![fetch_partition(0, from)]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(10 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![asked])
}

/// A batch of these values, by no producer.
pub(super) fn batch(values: &[&str]) -> Bytes {
    let record = |value: &&str| NewRecord {
        timestamp_ms: 1_700_000_000_000,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..NewRecord::default()
    };
    encode(&values.iter().map(record).collect::<Vec<_>>()).stamp(0, -1).1
}

/// A batch of an idempotent producer.
pub(super) fn batch_of(producer: (i64, i16), sequence: i32, values: &[&str]) -> Bytes {
    let mut bytes = BytesMut::from(&batch(values)[..]);
    bytes[43..51].copy_from_slice(&producer.0.to_be_bytes());
    bytes[51..53].copy_from_slice(&producer.1.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crate::wire::batch::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

/// The values in fetched batches.
pub(super) fn values(records: Bytes) -> Vec<String> {
    let mut values = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        let header = crate::wire::batch::BatchHeader::parse(&rest).unwrap();
        let batch = rest.split_to(header.size_bytes);
        for record in crate::wire::record::Records::open(&batch, &header, 1 << 20).unwrap() {
            values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

/// Every key that this broker serves, with its versions.
pub(super) fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    let api = crate::wire::api::APIS.iter().find(|api| api.key == key).unwrap();
    api.min..=api.max
}
