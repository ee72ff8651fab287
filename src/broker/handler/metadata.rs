//! Metadata 0 to 12: the one broker, and topics; a topic that is asked for by name is made if the
//! request allows it, and is there at once (Kafka answers 5 LEADER_NOT_AVAILABLE first).

use super::{message, text};
use crate::{
    broker::{
        Broker, NODE_ID, Peer,
        topics::{Topic, TopicError},
    },
    position::TopicName,
    wire::{
        ErrorCode,
        messages::{
            BrokerId, MetadataRequest, MetadataResponse,
            metadata_request::MetadataRequestTopic,
            metadata_response::{
                MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
            },
        },
    },
};
use std::collections::HashSet;

pub(in crate::broker) async fn handle(
    broker: &Broker,
    peer: &Peer,
    version: i16,
    request: MetadataRequest,
) -> MetadataResponse {
    let with_operations = request.include_topic_authorized_operations;
    let topics = match request.topics {
        Some(asked) if version > 0 || !asked.is_empty() => {
            let may_create = request.allow_auto_topic_creation;
            let mut topics = Vec::with_capacity(asked.len().min(TOPICS_RESERVED));
            // Once each: a long list of the same topic would multiply its partitions.
            let mut named = HashSet::new();
            for topic in asked {
                if !named.insert((topic.name.clone(), topic.topic_id)) {
                    continue;
                }
                topics.push(one(broker, topic, may_create, with_operations).await);
            }
            topics
        }
        _ => broker.topics().snapshot().all().map(|topic| found(topic, with_operations)).collect(),
    };
    let (host, port) = broker.peer_address(peer);
    let node = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(text(host))
        .with_port(i32::from(port));
    let mut response = MetadataResponse::default()
        .with_brokers(vec![node])
        .with_cluster_id(message(broker.cluster_id()))
        .with_controller_id(BrokerId(NODE_ID))
        .with_topics(topics);
    if request.include_cluster_authorized_operations && (8..=10).contains(&version) {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

/// One topic that was asked for, by name or by id.
async fn one(
    broker: &Broker,
    asked: MetadataRequestTopic,
    may_create: bool,
    with_operations: bool,
) -> MetadataResponseTopic {
    let Some(name) = asked.name else {
        return match broker.topics().find_id(asked.topic_id) {
            Some(topic) => found(&topic, with_operations),
            None => MetadataResponseTopic::default()
                .with_topic_id(asked.topic_id)
                .with_error_code(ErrorCode::UnknownTopicId.code()),
        };
    };
    let refused = |code: ErrorCode| {
        MetadataResponseTopic::default().with_error_code(code.code()).with_name(Some(name.clone()))
    };
    let Some(valid) = TopicName::new(&name) else {
        return refused(ErrorCode::InvalidTopic);
    };
    let topic = match broker.topics().find(&name) {
        Some(topic) => Ok(topic),
        None if may_create => {
            let partitions = broker.options().partitions_default;
            broker.topics().find_or_create(&valid, partitions).await
        }
        None => Err(TopicError::Unknown),
    };
    match topic {
        Ok(topic) => found(&topic, with_operations),
        Err(error) => refused(ErrorCode::from(&error)),
    }
}

fn found(topic: &Topic, with_operations: bool) -> MetadataResponseTopic {
    let partition = |place: crate::position::TopicPartition, leader_epoch: i32| {
        MetadataResponsePartition::default()
            .with_partition_index(place.partition.get())
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(leader_epoch)
            .with_replica_nodes(vec![BrokerId(NODE_ID)])
            .with_isr_nodes(vec![BrokerId(NODE_ID)])
    };
    let mut response = MetadataResponseTopic::default()
        .with_name(Some(text(&topic.name).into()))
        .with_topic_id(topic.id)
        .with_partitions(
            topic.places().map(|(place, handle)| partition(place, handle.leader_epoch())).collect(),
        );
    if with_operations {
        response.topic_authorized_operations = TOPIC_OPERATIONS;
    }
    response
}

/// Every operation on a cluster, as bits by `AclOperation`: nobody is refused here.
pub(super) const CLUSTER_OPERATIONS: i32 = 0x1fa0;
/// Every operation on a topic.
const TOPIC_OPERATIONS: i32 = 0x0df8;
/// Room taken before topics are looked at.
const TOPICS_RESERVED: usize = 64;
