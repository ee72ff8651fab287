//! Produce 3 to 11 (advertised from 0): appends one record batch per partition.
//!
//! In two halves, so that a connection can have several requests in one group commit: [`begin`]
//! fixes the order, [`Pending::finish`] waits for the answers. `acks=0` is never answered; if such
//! a request fails the connection is closed, as Kafka does, because nothing else tells the
//! producer. Transactional batches are refused (INVALID_TXN_STATE).

use super::message;
use crate::{
    broker::{Acks, Broker, ProduceError, Produced, enqueue, partition::Enqueued, topics::Topic},
    position::Partition,
    wire::{
        ErrorCode,
        batch::{Codec, ProducedBatch},
        messages::{
            ProduceRequest, ProduceResponse, TopicName,
            produce_request::PartitionProduceData,
            produce_response::{PartitionProduceResponse, TopicProduceResponse},
        },
    },
};
use std::sync::Arc;

/// A request whose place in the order is fixed.
pub(in crate::broker) struct Pending {
    acks: Option<Acks>,
    version: i16,
    topics: Vec<(TopicName, Vec<(i32, Slot)>)>,
}

/// What became of a request.
pub(in crate::broker) enum Outcome {
    /// To be answered.
    Answer(ProduceResponse),
    /// Not to be answered.
    Silent,
    /// It cannot be answered, and failed: the connection is closed.
    Close(ErrorCode),
}

/// One partition of a request.
enum Slot {
    Waiting(Enqueued),
    Refused(Refused),
}

/// Why a batch was not taken.
struct Refused {
    code: ErrorCode,
    text: Option<String>,
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self { code, text: None }
    }
}

impl From<ProduceError> for Refused {
    fn from(error: ProduceError) -> Self {
        Self { code: ErrorCode::from(&error), text: Some(error.to_string()) }
    }
}

/// Checks every batch and puts it into the order of its partition. Waits while inboxes are full.
pub(in crate::broker) async fn begin(
    broker: &Broker,
    version: i16,
    request: ProduceRequest,
) -> Pending {
    let acks = match request.acks {
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        -1 => Some(Acks::All),
        _ => None,
    };
    let mut topics = Vec::new();
    for data in request.topic_data {
        let topic = broker.topics().find(&data.name);
        let closed = &broker.options().closed_topics;
        let is_closed = closed.iter().any(|name| name.as_str() == data.name.as_str());
        let mut slots = Vec::new();
        for partition in data.partition_data {
            let index = partition.index;
            let slot = if is_closed {
                let text = Some("only the daemon itself writes to this topic".to_owned());
                Slot::Refused(Refused { code: ErrorCode::TopicAuthorizationFailed, text })
            } else {
                match begin_one(topic.as_ref(), version, acks, partition).await {
                    Ok(enqueued) => Slot::Waiting(enqueued),
                    Err(refused) => Slot::Refused(refused),
                }
            };
            slots.push((index, slot));
        }
        topics.push((data.name, slots));
    }
    Pending { acks, version, topics }
}

async fn begin_one(
    topic: Option<&Arc<Topic>>,
    version: i16,
    acks: Option<Acks>,
    data: PartitionProduceData,
) -> Result<Enqueued, Refused> {
    let acks = acks.ok_or(ErrorCode::InvalidRequiredAcks)?;
    let unknown = ProduceError::UnknownTopicOrPartition;
    let Some(topic) = topic else { return Err(unknown.into()) };
    let Some(partition) = Partition::new(data.index) else { return Err(unknown.into()) };
    let records = data.records.filter(|records| !records.is_empty());
    let records = records.ok_or(ErrorCode::InvalidRecord)?;
    let batch = ProducedBatch::check(&records).map_err(|error| Refused {
        code: ErrorCode::from(&error),
        text: Some(error.to_string()),
    })?;
    if batch.header().is_transactional() {
        let text = Some("transactions are not supported".to_owned());
        return Err(Refused { code: ErrorCode::InvalidTxnState, text });
    }
    if version < ZSTD_VERSION && batch.header().codec() == Some(Codec::Zstd) {
        return Err(ErrorCode::UnsupportedCompressionType.into());
    }
    let max_bytes = topic.settings.message_bytes_max;
    Ok(enqueue(topic, partition, batch, acks, max_bytes).await?)
}

impl Pending {
    /// Waits for every batch.
    pub(in crate::broker) async fn finish(self) -> Outcome {
        let mut failed = None;
        let mut responses = Vec::with_capacity(self.topics.len());
        for (name, slots) in self.topics {
            let mut partitions = Vec::with_capacity(slots.len());
            for (index, slot) in slots {
                let result = match slot {
                    Slot::Waiting(enqueued) => enqueued.answer().await.map_err(Refused::from),
                    Slot::Refused(refused) => Err(refused),
                };
                failed = failed.or(result.as_ref().err().map(|refused| refused.code));
                partitions.push(partition_response(index, result, self.version));
            }
            responses.push(
                TopicProduceResponse::default()
                    .with_name(name)
                    .with_partition_responses(partitions),
            );
        }
        match (self.acks, failed) {
            (Some(Acks::None), None) => Outcome::Silent,
            (Some(Acks::None), Some(code)) => Outcome::Close(code),
            _ => Outcome::Answer(ProduceResponse::default().with_responses(responses)),
        }
    }
}

fn partition_response(
    index: i32,
    result: Result<Produced, Refused>,
    version: i16,
) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match result {
        Ok(produced) => response
            .with_base_offset(produced.base_offset.get())
            .with_log_append_time_ms(produced.append_time_ms)
            .with_log_start_offset(produced.log_start.get()),
        Err(Refused { code, text }) => response
            .with_error_code(code.code())
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1)
            .with_error_message(
                text.filter(|_| version >= ERROR_MESSAGE_VERSION).and_then(message),
            ),
    }
}

/// First version whose sender knows zstd.
const ZSTD_VERSION: i16 = 7;
/// First version with `error_message`.
const ERROR_MESSAGE_VERSION: i16 = 8;
