//! CreatePartitions 0 to 3: more partitions for a topic; never fewer.

use super::message;
use crate::{
    broker::{Broker, NODE_ID, topics::TopicError},
    position::TopicName,
    wire::{
        ErrorCode,
        messages::{
            CreatePartitionsRequest, CreatePartitionsResponse,
            create_partitions_request::CreatePartitionsTopic,
            create_partitions_response::CreatePartitionsTopicResult,
        },
    },
};

pub(in crate::broker) async fn handle(
    broker: &Broker,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::new();
    for topic in request.topics {
        let grown = grow(broker, &topic, request.validate_only).await;
        let mut result = CreatePartitionsTopicResult::default().with_name(topic.name);
        if let Err((code, why)) = grown {
            result = result.with_error_code(code.code()).with_error_message(message(why));
        }
        results.push(result);
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn grow(
    broker: &Broker,
    asked: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), (ErrorCode, String)> {
    let refused = |error: TopicError| (ErrorCode::from(&error), error.to_string());
    let topic = broker.topics().find(&asked.name);
    let topic = topic.ok_or_else(|| refused(TopicError::Unknown))?;
    let now = topic.partitions.len();
    let count = usize::try_from(asked.count).unwrap_or(0);
    if count <= now {
        let why = format!("the topic has {now} partitions; the new count must be higher");
        return Err(refused(TopicError::Partitions(why)));
    }
    if let Some(assignments) = &asked.assignments {
        let is_here = |ids: &[crate::wire::messages::BrokerId]| {
            ids.len() == 1 && ids.iter().all(|id| id.0 == NODE_ID)
        };
        let is_valid = assignments.len() == count - now
            && assignments.iter().all(|assignment| is_here(&assignment.broker_ids));
        if !is_valid {
            let why = format!("each new partition is assigned, to node {NODE_ID} alone");
            return Err((ErrorCode::InvalidReplicaAssignment, why));
        }
    }
    if validate_only {
        return Ok(());
    }
    let name: TopicName = topic.name.clone();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    broker.topics().grow(name, count).await.map_err(refused)
}
