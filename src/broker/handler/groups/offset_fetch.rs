//! OffsetFetch 1-8: of some partitions or of all, from version 8 on of several groups. Where
//! nothing is committed the offset is -1, without an error, also for topics and groups that do not
//! exist. There are no open transactions in offsets, so `require_stable` changes nothing.

use super::text;
use crate::{
    broker::{coordinator::Coordinator, meta::CommittedOffset},
    position::{Partition, TopicName, TopicPartition},
    wire::{
        ErrorCode,
        messages::{
            OffsetFetchRequest, OffsetFetchResponse, TopicName as WireTopicName,
            offset_fetch_request::OffsetFetchRequestGroup,
            offset_fetch_response::{
                OffsetFetchResponseGroup, OffsetFetchResponsePartition,
                OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
            },
        },
    },
};
use std::collections::{BTreeMap, HashSet};

const VERSION_BATCHED: i16 = 8;
const NOTHING_COMMITTED: i64 = -1;

/// Topics with their partitions, in the order of the request, each once: a long list of the same
/// partition would multiply its metadata.
type Asked = Vec<(WireTopicName, Vec<i32>)>;
type Found = Vec<(WireTopicName, Vec<(i32, Option<CommittedOffset>)>)>;

pub(super) async fn handle(
    coordinator: &Coordinator,
    version: i16,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if version >= VERSION_BATCHED {
        let mut seen = HashSet::new();
        let mut groups = Vec::new();
        for group in request.groups {
            // Once each: a long list of the same group would multiply what it holds.
            if seen.insert(group.group_id.clone()) {
                groups.push(group_response(coordinator, group).await);
            }
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let asked = request
        .topics
        .map(|topics| once_each(topics.into_iter().map(|t| (t.name, t.partition_indexes))));
    match fetch(coordinator, request.group_id.as_str(), asked).await {
        Err(error) => OffsetFetchResponse::default().with_error_code(error.code()),
        Ok(found) => {
            let topics = found.into_iter().map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(partition);
                OffsetFetchResponseTopic::default()
                    .with_name(name)
                    .with_partitions(partitions.collect())
            });
            OffsetFetchResponse::default().with_topics(topics.collect())
        }
    }
}

async fn group_response(
    coordinator: &Coordinator,
    group: OffsetFetchRequestGroup,
) -> OffsetFetchResponseGroup {
    let asked = group
        .topics
        .map(|topics| once_each(topics.into_iter().map(|t| (t.name, t.partition_indexes))));
    let response = OffsetFetchResponseGroup::default();
    let response = match fetch(coordinator, group.group_id.as_str(), asked).await {
        Err(error) => response.with_error_code(error.code()),
        Ok(found) => {
            let topics = found.into_iter().map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(batched_partition);
                OffsetFetchResponseTopics::default()
                    .with_name(name)
                    .with_partitions(partitions.collect())
            });
            response.with_topics(topics.collect())
        }
    };
    response.with_group_id(group.group_id)
}

fn once_each(asked: impl Iterator<Item = (WireTopicName, Vec<i32>)>) -> Asked {
    let mut named = HashSet::new();
    let once = |(topic, mut partitions): (WireTopicName, Vec<i32>)| {
        partitions.retain(|partition| named.insert((topic.clone(), *partition)));
        (topic, partitions)
    };
    asked.map(once).collect()
}

async fn fetch(
    coordinator: &Coordinator,
    group: &str,
    asked: Option<Asked>,
) -> Result<Found, ErrorCode> {
    let Some(asked) = asked else {
        let all = coordinator.fetch(group, None).await?;
        let mut by_topic: BTreeMap<TopicName, Vec<(i32, Option<CommittedOffset>)>> =
            BTreeMap::new();
        for (at, committed) in all {
            by_topic.entry(at.topic).or_default().push((at.partition.get(), committed));
        }
        let found = by_topic.into_iter();
        let wire_name = |name: &TopicName| WireTopicName(text(name.as_str()));
        return Ok(found.map(|(name, partitions)| (wire_name(&name), partitions)).collect());
    };
    let places = asked.iter().flat_map(|(name, partitions)| {
        partitions.iter().filter_map(|partition| place(name, *partition))
    });
    let committed = coordinator.fetch(group, Some(places.collect())).await?;
    let committed: BTreeMap<_, _> = committed.into_iter().collect();
    let found = asked.into_iter().map(|(name, partitions)| {
        let look_up = |index: i32| committed.get(&place(&name, index)?).cloned().flatten();
        let partitions = partitions.into_iter().map(|index| (index, look_up(index))).collect();
        (name.clone(), partitions)
    });
    Ok(found.collect())
}

fn place(topic: &WireTopicName, partition: i32) -> Option<TopicPartition> {
    let (topic, partition) = (TopicName::new(topic.as_str())?, Partition::new(partition)?);
    Some(TopicPartition { topic, partition })
}

fn partition((index, committed): (i32, Option<CommittedOffset>)) -> OffsetFetchResponsePartition {
    let response = OffsetFetchResponsePartition::default().with_partition_index(index);
    match committed {
        None => response
            .with_committed_offset(NOTHING_COMMITTED)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(text(""))),
        Some(committed) => response
            .with_committed_offset(committed.offset.get())
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(text(&committed.metadata))),
    }
}

fn batched_partition(found: (i32, Option<CommittedOffset>)) -> OffsetFetchResponsePartitions {
    let plain = partition(found);
    OffsetFetchResponsePartitions::default()
        .with_partition_index(plain.partition_index)
        .with_committed_offset(plain.committed_offset)
        .with_committed_leader_epoch(plain.committed_leader_epoch)
        .with_metadata(plain.metadata)
}
