//! Lean clients: HTTP/1.1 with keep-alive, and the few Kafka requests that the measures send.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use std::net::SocketAddr;
use taskwire::wire::{
    messages::{
        ApiKey, MetadataRequest, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
        TopicName,
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    record::{self, NewRecord},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PRODUCE_VERSION: i16 = 9;
const METADATA_VERSION: i16 = 9;

pub(crate) struct Http {
    stream: TcpStream,
    buffer: BytesMut,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self { stream, buffer: BytesMut::with_capacity(4096) })
    }

    pub(crate) async fn get(&mut self, path: &str, token: &str) -> Answer {
        self.send("GET", path, token, "").await
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        body: &str,
    ) -> Answer {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if token.is_empty() {
            let request = format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
            self.stream.write_all(request.as_bytes()).await.expect("written");
        } else {
            self.stream.write_all(request.as_bytes()).await.expect("written");
        }
        self.receive().await
    }

    async fn receive(&mut self) -> Answer {
        loop {
            if let Some(head) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
                let status = text[9..12].parse().expect("a status");
                let length = text.split("content-length: ").nth(1).map_or(0, |rest| {
                    rest.lines().next().unwrap_or("0").trim().parse::<usize>().expect("a length")
                });
                while self.buffer.len() < head + 4 + length {
                    self.fill().await;
                }
                self.buffer.advance(head + 4);
                return Answer { status, body: self.buffer.split_to(length).freeze() };
            }
            self.fill().await;
        }
    }

    async fn fill(&mut self) {
        let read = self.stream.read_buf(&mut self.buffer).await.expect("an answer");
        assert!(read > 0, "the daemon closed the connection");
    }
}

/// A handshake of `/ws/tasks`, with no more than the daemon asks for.
pub(crate) fn upgrade(host: SocketAddr, query: &str) -> String {
    format!(
        "GET /ws/tasks?{query} HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

pub(crate) struct Kafka {
    stream: TcpStream,
    sent: i32,
    in_flight: usize,
}

impl Kafka {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the broker listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, sent: 0, in_flight: 0 }
    }

    /// Makes a topic as clients do, by asking for its metadata.
    pub(crate) async fn make_topic(&mut self, topic: &str) {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(true);
        for _ in 0..2 {
            self.write(ApiKey::Metadata, METADATA_VERSION, &request).await;
            self.read_frame().await;
        }
    }

    /// Sends one batch with acks=all without waiting for its answer.
    pub(crate) async fn send(&mut self, topic: &str, values: Vec<Bytes>, timestamp_ms: i64) {
        let records: Vec<NewRecord> = values
            .into_iter()
            .map(|value| NewRecord { timestamp_ms, value: Some(value), ..NewRecord::default() })
            .collect();
        let (_, batch) = record::encode(&records).stamp(0, -1);
        let data = PartitionProduceData::default().with_index(0).with_records(Some(batch));
        let topic = TopicProduceData::default()
            .with_name(topic_name(topic))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        self.write(ApiKey::Produce, PRODUCE_VERSION, &request).await;
        self.in_flight += 1;
    }

    /// Waits until no more than `most` batches have no answer.
    pub(crate) async fn settle(&mut self, most: usize) {
        while self.in_flight > most {
            self.acknowledged().await;
        }
    }

    async fn write<R: Encodable + HeaderVersion>(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &R,
    ) {
        self.sent += 1;
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.sent);
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header.encode(&mut frame, R::header_version(version)).expect("fits");
        request.encode(&mut frame, version).expect("fits");
        let length = i32::try_from(frame.len() - 4).expect("fits");
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await.expect("written");
    }

    /// The answer to the oldest batch that has none yet: its first offset.
    pub(crate) async fn acknowledged(&mut self) -> i64 {
        self.in_flight -= 1;
        let mut bytes = self.read_frame().await;
        let version = ProduceResponse::header_version(PRODUCE_VERSION);
        ResponseHeader::decode(&mut bytes, version).expect("a header");
        let answer = ProduceResponse::decode(&mut bytes, PRODUCE_VERSION).expect("an answer");
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, 0);
        partition.base_offset
    }

    async fn read_frame(&mut self) -> Bytes {
        let length = usize::try_from(self.stream.read_i32().await.expect("an answer"));
        let mut bytes = vec![0; length.expect("a length")];
        self.stream.read_exact(&mut bytes).await.expect("an answer");
        bytes.into()
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
