//! The daemon's own group as Kafka's tools see it: stable, with one member that has every
//! partition.

use super::{FetchedOffsets, ListedGroup};
use crate::{
    broker::{
        group::{DescribedMember, Description, State},
        meta::CommittedOffset,
    },
    clock::TimestampMs,
    position::{Offset, TopicPartition},
};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

const PROTOCOL_TYPE: &str = "consumer";
const PROTOCOL: &str = "range";
const CLIENT_ID: &str = "taskwire";
const CLIENT_HOST: &str = "/127.0.0.1";
/// Version of the subscription and assignment layouts below.
const CONSUMER_PROTOCOL_VERSION: i16 = 0;

type Progress = BTreeMap<TopicPartition, Offset>;

pub(super) fn list(group: &str) -> ListedGroup {
    ListedGroup {
        group: group.to_owned(),
        protocol_type: PROTOCOL_TYPE.to_owned(),
        state: State::Stable.name(),
    }
}

pub(super) fn describe(group: &str, progress: &Progress) -> Description {
    let by_topic = by_topic(progress);
    let member = DescribedMember {
        member_id: format!("{CLIENT_ID}-{group}"),
        client_id: CLIENT_ID.to_owned(),
        client_host: CLIENT_HOST.to_owned(),
        metadata: subscription(&by_topic),
        assignment: assignment(&by_topic),
        ..DescribedMember::default()
    };
    Description {
        state: State::Stable,
        protocol_type: PROTOCOL_TYPE.to_owned(),
        protocol: PROTOCOL.to_owned(),
        members: vec![member],
    }
}

pub(super) fn fetch(
    partitions: Option<Vec<TopicPartition>>,
    progress: &Progress,
    now_ms: TimestampMs,
) -> FetchedOffsets {
    let partitions = partitions.unwrap_or_else(|| progress.keys().cloned().collect());
    let committed = |at: &TopicPartition| {
        let offset = *progress.get(at)?;
        let metadata = String::new();
        Some(CommittedOffset { offset, leader_epoch: -1, metadata, committed_at_ms: now_ms })
    };
    partitions.into_iter().map(|at| (at.clone(), committed(&at))).collect()
}

fn by_topic(progress: &Progress) -> BTreeMap<&str, Vec<i32>> {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for at in progress.keys() {
        by_topic.entry(at.topic.as_str()).or_default().push(at.partition.get());
    }
    by_topic
}

/// `version: int16, topics: [string], user data: null`
///
/// Source: Kafka, ConsumerProtocolSubscription version 0.
fn subscription(by_topic: &BTreeMap<&str, Vec<i32>>) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(CONSUMER_PROTOCOL_VERSION);
    bytes.put_i32(count(by_topic.len()));
    for topic in by_topic.keys() {
        put_string(&mut bytes, topic);
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

/// `version: int16, topics: [topic: string, partitions: [int32]], user data: null`
///
/// Source: Kafka, ConsumerProtocolAssignment version 0.
fn assignment(by_topic: &BTreeMap<&str, Vec<i32>>) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(CONSUMER_PROTOCOL_VERSION);
    bytes.put_i32(count(by_topic.len()));
    for (topic, partitions) in by_topic {
        put_string(&mut bytes, topic);
        bytes.put_i32(count(partitions.len()));
        for partition in partitions {
            bytes.put_i32(*partition);
        }
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

fn put_string(bytes: &mut BytesMut, text: &str) {
    bytes.put_i16(i16::try_from(text.len()).expect("a topic name has at most 249 bytes"));
    bytes.put_slice(text.as_bytes());
}

fn count(length: usize) -> i32 {
    i32::try_from(length).expect("partitions are counted by int32")
}
