//! The Fetch response, encoded here and not by kafka-protocol so that records are never copied:
//! each partition's chunks of whole record batches go to the socket as the log gave them.
//!
//! Source: Kafka protocol guide, "Fetch API", versions 4 to 12.

use super::{ErrorCode, api::set_length, messages::TopicName};
use bytes::{BufMut, Bytes, BytesMut};

/// First version with compact lengths and tagged fields.
const FLEXIBLE_VERSION: i16 = 12;
/// No tagged fields.
const NO_TAGGED_FIELDS: u8 = 0;
/// No replica that would be better to read from.
const NO_PREFERRED_READ_REPLICA: i32 = -1;

/// What a fetch is answered.
#[derive(Clone, Debug, Default)]
pub struct FetchResponse {
    /// How long the client was held back by a quota.
    pub throttle_time_ms: i32,
    /// Error of the whole fetch (from version 7), such as an unknown fetch session.
    pub error_code: i16,
    /// Fetch session, 0 for none.
    pub session_id: i32,
    /// Topics in the order of the request.
    pub topics: Vec<FetchTopic>,
}

/// One topic.
#[derive(Clone, Debug, Default)]
pub struct FetchTopic {
    /// Its name.
    pub name: TopicName,
    /// Its partitions.
    pub partitions: Vec<FetchPartition>,
}

/// One partition.
#[derive(Clone, Debug)]
pub struct FetchPartition {
    /// Its index.
    pub index: i32,
    /// 0, or why there is nothing.
    pub error_code: i16,
    /// The durable end, -1 with an error.
    pub high_watermark: i64,
    /// End of what read_committed may see, -1 with an error.
    pub last_stable_offset: i64,
    /// Oldest offset, -1 with an error.
    pub log_start_offset: i64,
    /// Aborted transactions among the records. `None` for read_uncommitted, a list (mostly empty)
    /// for read_committed, as Kafka does.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// Whole record batches.
    pub records: Vec<Bytes>,
}

/// A transaction whose records read_committed leaves out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// Its first offset.
    pub first_offset: i64,
}

impl FetchPartition {
    /// A partition that only carries an error.
    pub fn error(index: i32, code: ErrorCode) -> Self {
        Self {
            index,
            error_code: code.code(),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: None,
            records: Vec::new(),
        }
    }

    /// Bytes of its records.
    pub fn records_bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }
}

impl FetchResponse {
    /// The chunks to write, from the length prefix on. `head` holds room for the length prefix and
    /// the response header.
    pub(super) fn encode(self, version: i16, head: BytesMut) -> Vec<Bytes> {
        let mut encoder = Encoder { version, fields: head, records: Vec::new(), records_bytes: 0 };
        encoder.response(self);
        encoder.into_chunks()
    }
}

/// Writes every field into one buffer and remembers where the records go.
struct Encoder {
    version: i16,
    fields: BytesMut,
    /// Chunks, and after how many bytes of `fields` each run of them goes.
    records: Vec<(usize, Vec<Bytes>)>,
    records_bytes: usize,
}

impl Encoder {
    fn response(&mut self, response: FetchResponse) {
        self.fields.put_i32(response.throttle_time_ms);
        if self.version >= 7 {
            self.fields.put_i16(response.error_code);
            self.fields.put_i32(response.session_id);
        }
        self.count(response.topics.len());
        for topic in response.topics {
            self.text(&topic.name);
            self.count(topic.partitions.len());
            for partition in topic.partitions {
                self.partition(partition);
            }
            self.tagged_fields();
        }
        self.tagged_fields();
    }

    fn partition(&mut self, partition: FetchPartition) {
        self.fields.put_i32(partition.index);
        self.fields.put_i16(partition.error_code);
        self.fields.put_i64(partition.high_watermark);
        self.fields.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            self.fields.put_i64(partition.log_start_offset);
        }
        self.aborted_transactions(partition.aborted_transactions.as_deref());
        if self.version >= 11 {
            self.fields.put_i32(NO_PREFERRED_READ_REPLICA);
        }
        let bytes = partition.records_bytes();
        self.count(bytes);
        if bytes > 0 {
            self.records.push((self.fields.len(), partition.records));
            self.records_bytes += bytes;
        }
        self.tagged_fields();
    }

    fn aborted_transactions(&mut self, aborted: Option<&[AbortedTransaction]>) {
        let Some(aborted) = aborted else {
            return self.null();
        };
        self.count(aborted.len());
        for transaction in aborted {
            self.fields.put_i64(transaction.producer_id);
            self.fields.put_i64(transaction.first_offset);
            self.tagged_fields();
        }
    }

    fn is_flexible(&self) -> bool {
        self.version >= FLEXIBLE_VERSION
    }

    /// Length of bytes, or count of an array.
    fn count(&mut self, count: usize) {
        let count = u32::try_from(count).expect("a response is below 2 GiB");
        if self.is_flexible() {
            put_unsigned_varint(&mut self.fields, count + 1);
        } else {
            self.fields.put_u32(count);
        }
    }

    /// A null array.
    fn null(&mut self) {
        if self.is_flexible() {
            self.fields.put_u8(0);
        } else {
            self.fields.put_i32(-1);
        }
    }

    fn text(&mut self, text: &str) {
        if self.is_flexible() {
            self.count(text.len());
        } else {
            // A name came in by the same two bytes.
            self.fields.put_i16(i16::try_from(text.len()).expect("a topic name is short"));
        }
        self.fields.put_slice(text.as_bytes());
    }

    fn tagged_fields(&mut self) {
        if self.is_flexible() {
            self.fields.put_u8(NO_TAGGED_FIELDS);
        }
    }

    fn into_chunks(mut self) -> Vec<Bytes> {
        set_length(&mut self.fields, self.records_bytes);
        let mut fields = self.fields.freeze();
        let mut chunks = Vec::with_capacity(2 * self.records.len() + 1);
        let mut written = 0;
        for (position, records) in self.records {
            chunks.push(fields.split_to(position - written));
            written = position;
            chunks.extend(records.into_iter().filter(|chunk| !chunk.is_empty()));
        }
        if !fields.is_empty() {
            chunks.push(fields);
        }
        chunks
    }
}

fn put_unsigned_varint(bytes: &mut BytesMut, mut value: u32) {
    while let [low, ..] = value.to_le_bytes()
        && value >= 0x80
    {
        bytes.put_u8(low | 0x80);
        value >>= 7;
    }
    let [low, ..] = value.to_le_bytes();
    bytes.put_u8(low);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        ApiKey, RequestHeader, encode_response,
        messages::{self, ProducerId, ResponseKind, fetch_response as kafka},
    };
    use kafka_protocol::protocol::StrBytes;

    fn name(name: &'static str) -> TopicName {
        TopicName(StrBytes::from_static_str(name))
    }

    fn partition(index: i32, records: &[&'static [u8]]) -> FetchPartition {
        FetchPartition {
            index,
            error_code: 0,
            high_watermark: 1 << 40,
            last_stable_offset: 70,
            log_start_offset: 3,
            aborted_transactions: Some(vec![]),
            records: records.iter().copied().map(Bytes::from_static).collect(),
        }
    }

    /// Records in several chunks, none, an error, aborted transactions, null and empty.
    fn response() -> FetchResponse {
        let aborted = vec![
            AbortedTransaction { producer_id: 9, first_offset: 4 },
            AbortedTransaction { producer_id: 10, first_offset: 5 },
        ];
        FetchResponse {
            throttle_time_ms: 12,
            error_code: 0,
            session_id: 5,
            topics: vec![
                FetchTopic {
                    name: name("task-events"),
                    partitions: vec![
                        partition(0, &[b"first chunk", b"", &[7; 300]]),
                        partition(1, &[]),
                        FetchPartition::error(2, ErrorCode::OffsetOutOfRange),
                        FetchPartition {
                            aborted_transactions: Some(aborted),
                            ..partition(3, &[b"x"])
                        },
                    ],
                },
                FetchTopic { name: name("b"), partitions: vec![partition(0, &[b"last"])] },
                FetchTopic { name: name(""), partitions: vec![] },
            ],
        }
    }

    fn to_kafka(response: &FetchResponse, version: i16) -> ResponseKind {
        let partition = |partition: &FetchPartition| {
            let aborted = partition.aborted_transactions.as_ref().map(|aborted| {
                let transaction = |aborted: &AbortedTransaction| {
                    kafka::AbortedTransaction::default()
                        .with_producer_id(ProducerId(aborted.producer_id))
                        .with_first_offset(aborted.first_offset)
                };
                aborted.iter().map(transaction).collect()
            });
            kafka::PartitionData::default()
                .with_partition_index(partition.index)
                .with_error_code(partition.error_code)
                .with_high_watermark(partition.high_watermark)
                .with_last_stable_offset(partition.last_stable_offset)
                .with_log_start_offset(partition.log_start_offset)
                .with_aborted_transactions(aborted)
                .with_records(Some(partition.records.concat().into()))
        };
        let topic = |topic: &FetchTopic| {
            kafka::FetchableTopicResponse::default()
                .with_topic(topic.name.clone())
                .with_partitions(topic.partitions.iter().map(partition).collect())
        };
        messages::FetchResponse::default()
            .with_throttle_time_ms(response.throttle_time_ms)
            .with_error_code(response.error_code)
            .with_session_id(if version >= 7 { response.session_id } else { 0 })
            .with_responses(response.topics.iter().map(topic).collect())
            .into()
    }

    #[test]
    fn every_version_is_byte_for_byte_what_kafka_protocol_encodes() {
        for version in 4..=12 {
            let header =
                RequestHeader { key: ApiKey::Fetch, version, correlation_id: 7, client_id: None };
            for response in [response(), FetchResponse::default()] {
                let theirs = encode_response(&header, to_kafka(&response, version)).unwrap();
                let ours = encode_response(&header, response).unwrap();
                assert_eq!(ours.concat(), theirs.concat(), "version {version}");
            }
        }
    }

    #[test]
    fn records_are_not_copied() {
        let response = response();
        let records = response.topics[0].partitions[0].records.clone();
        let header =
            RequestHeader { key: ApiKey::Fetch, version: 12, correlation_id: 7, client_id: None };
        let chunks = encode_response(&header, response).unwrap();
        for records in [&records[0], &records[2]] {
            assert!(chunks.iter().any(|chunk| chunk.as_ptr() == records.as_ptr()));
        }
        assert!(chunks.iter().all(|chunk| !chunk.is_empty()));
    }
}
