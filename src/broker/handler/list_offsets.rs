//! ListOffsets 1 to 7: log start (-2), high watermark (-1), largest timestamp (-3, from version 7),
//! or the first record at or after a time. A partition that is named twice is refused the second
//! time, as in Kafka: each may be a look into the log.

use super::fetch::check_epoch;
use crate::{
    broker::{Broker, partition::PartitionHandle},
    log::LogReader,
    position::Partition,
    wire::{
        ErrorCode,
        messages::{
            ListOffsetsRequest, ListOffsetsResponse,
            list_offsets_request::ListOffsetsPartition,
            list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        },
    },
};
use std::collections::HashSet;

pub(in crate::broker) async fn handle(
    broker: &Broker,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let mut topics = Vec::new();
    let mut named = HashSet::new();
    for asked in request.topics {
        let topic = broker.topics().find(&asked.name);
        let mut partitions = Vec::new();
        for partition in &asked.partitions {
            let index = Partition::new(partition.partition_index);
            let handle = topic.as_ref().zip(index).and_then(|(t, index)| t.partition(index));
            let is_named_once = named.insert((asked.name.clone(), partition.partition_index));
            partitions.push(match handle {
                _ if !is_named_once => refused(partition, ErrorCode::InvalidRequest),
                Some(handle) => one(broker, handle, version, partition).await,
                None => refused(partition, ErrorCode::UnknownTopicOrPartition),
            });
        }
        topics.push(
            ListOffsetsTopicResponse::default().with_name(asked.name).with_partitions(partitions),
        );
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn one(
    broker: &Broker,
    handle: &PartitionHandle,
    version: i16,
    asked: &ListOffsetsPartition,
) -> ListOffsetsPartitionResponse {
    if let Err(code) = check_epoch(handle, asked.current_leader_epoch) {
        return refused(asked, code);
    }
    let reader = handle.reader();
    let found = match asked.timestamp {
        LATEST => Ok(Some((reader.high_watermark(), -1))),
        EARLIEST => Ok(Some((reader.log_start(), -1))),
        MAX_TIMESTAMP if version >= MAX_TIMESTAMP_VERSION => {
            by_time(broker, reader, By::Largest).await
        }
        timestamp_ms if timestamp_ms >= 0 => {
            by_time(broker, reader, By::AtOrAfter(timestamp_ms)).await
        }
        _ => Err(ErrorCode::UnsupportedVersion),
    };
    match found {
        Err(code) => refused(asked, code),
        // No record that late: offset and timestamp -1, no error.
        Ok(None) => ListOffsetsPartitionResponse::default()
            .with_partition_index(asked.partition_index)
            .with_timestamp(-1)
            .with_offset(-1),
        Ok(Some((offset, timestamp))) => ListOffsetsPartitionResponse::default()
            .with_partition_index(asked.partition_index)
            .with_timestamp(timestamp)
            .with_offset(offset.get())
            .with_leader_epoch(if version >= EPOCH_VERSION { handle.leader_epoch() } else { -1 }),
    }
}

/// Which record is looked for.
#[derive(Clone, Copy)]
enum By {
    AtOrAfter(i64),
    Largest,
}

type Found = Option<(crate::position::Offset, i64)>;

async fn by_time(broker: &Broker, reader: &LogReader, by: By) -> Result<Found, ErrorCode> {
    let _turn = broker.limits().disk_reads.acquire().await;
    let reader = reader.clone();
    let looked_up = tokio::task::spawn_blocking(move || match by {
        By::AtOrAfter(timestamp_ms) => reader.offset_for_time(timestamp_ms),
        By::Largest => largest(&reader),
    });
    match looked_up.await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            if let Some(unsaid) = broker.limits().warnings.admit() {
                tracing::warn!(%error, unsaid, "an offset could not be looked up by time");
            }
            Err(ErrorCode::from(&error))
        }
        Err(error) => {
            tracing::error!(%error, "a look-up by time panicked");
            Err(ErrorCode::UnknownServerError)
        }
    }
}

/// The first record with the largest timestamp: a binary search, since "is there one at or after"
/// falls from yes to no at it.
fn largest(reader: &LogReader) -> Result<Found, crate::log::ReadError> {
    let Some(mut best) = reader.offset_for_time(0)? else { return Ok(None) };
    let (mut low, mut high) = (best.1, i64::MAX);
    while low < high {
        // Without overflow, and above `low`.
        let middle = low + (high - low) / 2 + (high - low) % 2;
        match reader.offset_for_time(middle)? {
            Some(found) => {
                low = found.1.max(middle);
                best = found;
            }
            None => high = middle - 1,
        }
    }
    Ok(Some(best))
}

fn refused(asked: &ListOffsetsPartition, code: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_error_code(code.code())
        .with_timestamp(-1)
        .with_offset(-1)
}

/// First version with the leader epoch.
const EPOCH_VERSION: i16 = 4;
/// First version that may ask for the largest timestamp (KIP-734).
const MAX_TIMESTAMP_VERSION: i16 = 7;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
