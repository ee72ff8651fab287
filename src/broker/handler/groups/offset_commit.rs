//! OffsetCommit 2-8. The retention time of versions 2-4 is not used: the broker's own holds.
//! Partitions that do not exist and metadata that is too long are refused one by one; the rest is
//! committed as one, and answered when durable.

use super::{Context, code, committer};
use crate::{
    broker::coordinator::NewOffset,
    position::{Offset, Partition, TopicName, TopicPartition},
    wire::{
        ErrorCode,
        messages::{
            OffsetCommitRequest, OffsetCommitResponse,
            offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
            offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        },
    },
};

/// Kafka's `offset.metadata.max.bytes`.
const METADATA_BYTES_MAX: usize = 4096;

pub(super) async fn handle(
    context: &Context<'_>,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let mut accepted = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        topics.push(check_topic(context, topic, &mut accepted));
    }
    if !accepted.is_empty() {
        let member = committer(
            &request.member_id,
            request.group_instance_id.as_deref(),
            request.generation_id_or_member_epoch,
        );
        let committed = context.coordinator.commit(request.group_id.as_str(), member, accepted);
        let error = code(committed.await);
        let open = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        open.filter(|partition| partition.error_code == 0).for_each(|p| p.error_code = error);
    }
    OffsetCommitResponse::default().with_topics(topics)
}

/// The answer for a topic as far as it is known before the commit; what may be committed goes to
/// `accepted`.
fn check_topic(
    context: &Context<'_>,
    topic: &OffsetCommitRequestTopic,
    accepted: &mut Vec<(TopicPartition, NewOffset)>,
) -> OffsetCommitResponseTopic {
    let name = TopicName::new(topic.name.as_str());
    let count = name.as_ref().map_or(0, |name| (context.partition_count)(name));
    let partitions = topic.partitions.iter().map(|asked| {
        let checked = check_partition(name.as_ref(), count, asked);
        let error = checked.map(|offset| accepted.push(offset));
        OffsetCommitResponsePartition::default()
            .with_partition_index(asked.partition_index)
            .with_error_code(code(error))
    });
    let partitions = partitions.collect();
    OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
}

fn check_partition(
    topic: Option<&TopicName>,
    count: u32,
    asked: &OffsetCommitRequestPartition,
) -> Result<(TopicPartition, NewOffset), ErrorCode> {
    let exists = u32::try_from(asked.partition_index).is_ok_and(|index| index < count);
    let at = topic
        .zip(Partition::new(asked.partition_index))
        .filter(|_| exists)
        .map(|(topic, partition)| TopicPartition { topic: topic.clone(), partition })
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let metadata = asked.committed_metadata.as_deref().unwrap_or_default();
    if metadata.len() > METADATA_BYTES_MAX {
        return Err(ErrorCode::OffsetMetadataTooLarge);
    }
    let offset = Offset::new(asked.committed_offset).ok_or(ErrorCode::InvalidRequest)?;
    let (leader_epoch, metadata) = (asked.committed_leader_epoch, metadata.to_owned());
    Ok((at, NewOffset { offset, leader_epoch, metadata }))
}
