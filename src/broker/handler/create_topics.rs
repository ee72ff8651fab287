//! CreateTopics 2 to 7. One node, so a replication factor of 1 (or -1), and assignments that name
//! only it.

use super::{describe_configs, message, text};
use crate::{
    broker::{
        Broker, NODE_ID,
        configs::{Configs, TOPIC_CONFIGS},
        topics::TopicError,
    },
    position::TopicName,
    wire::{
        ErrorCode,
        messages::{
            CreateTopicsRequest, CreateTopicsResponse,
            create_topics_request::CreatableTopic,
            create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
        },
    },
};
use std::collections::HashMap;

pub(in crate::broker) async fn handle(
    broker: &Broker,
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut times: HashMap<String, usize> = HashMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.to_string()).or_default() += 1;
    }
    let mut results = Vec::new();
    for topic in request.topics {
        let created = if times.get(topic.name.as_str()).is_some_and(|times| *times > 1) {
            Err(Refused(ErrorCode::InvalidRequest, "the topic is named twice".to_owned()))
        } else {
            create(broker, version, &topic, request.validate_only).await
        };
        results.push(created.unwrap_or_else(|Refused(code, why)| {
            CreatableTopicResult::default()
                .with_name(topic.name)
                .with_error_code(code.code())
                .with_error_message(message(why))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_configs(Some(Vec::new()))
        }));
    }
    CreateTopicsResponse::default().with_topics(results)
}

/// A code, and why.
struct Refused(ErrorCode, String);

impl From<TopicError> for Refused {
    fn from(error: TopicError) -> Self {
        Self(ErrorCode::from(&error), error.to_string())
    }
}

async fn create(
    broker: &Broker,
    version: i16,
    asked: &CreatableTopic,
    validate_only: bool,
) -> Result<CreatableTopicResult, Refused> {
    let name = TopicName::new(&asked.name).ok_or_else(|| {
        let why = "a topic name has 1 to 249 of a-z A-Z 0-9 . _ - and is not . or ..";
        Refused(ErrorCode::InvalidTopic, why.to_owned())
    })?;
    let partitions = partitions(broker, asked)?;
    let mut configs = Configs::new();
    for config in &asked.configs {
        // A null value asks for the default.
        if let Some(value) = &config.value {
            configs.insert(config.name.to_string(), value.to_string());
        }
    }
    let is_reserved = broker.options().reserved_topics.contains(&name);
    broker.topics().check_create(&name, partitions, &configs, is_reserved)?;
    let (id, configs) = if validate_only {
        (uuid::Uuid::nil(), configs)
    } else {
        let topic = broker.topics().create(name, partitions, configs).await?;
        (topic.id, topic.configs.clone())
    };
    let mut result = CreatableTopicResult::default()
        .with_name(asked.name.clone())
        .with_num_partitions(i32::try_from(partitions).unwrap_or(i32::MAX))
        .with_replication_factor(1)
        .with_configs(Some(described(broker, &configs)));
    if version >= ID_VERSION {
        result.topic_id = id;
    }
    Ok(result)
}

/// The number of partitions that is asked for.
fn partitions(broker: &Broker, asked: &CreatableTopic) -> Result<u32, Refused> {
    if !asked.assignments.is_empty() {
        return assigned(asked);
    }
    if !matches!(asked.replication_factor, -1 | 1) {
        let why = "this broker is one node: the replication factor is 1";
        return Err(Refused(ErrorCode::InvalidReplicationFactor, why.to_owned()));
    }
    match asked.num_partitions {
        -1 => Ok(broker.options().partitions_default),
        count => u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
            let why = "the number of partitions must be larger than 0".to_owned();
            Refused(ErrorCode::InvalidPartitions, why)
        }),
    }
}

/// Partitions by an explicit assignment: 0, 1, ... each to this node alone.
fn assigned(asked: &CreatableTopic) -> Result<u32, Refused> {
    if asked.num_partitions != -1 || asked.replication_factor != -1 {
        let why = "assignments exclude a partition count and a replication factor";
        return Err(Refused(ErrorCode::InvalidRequest, why.to_owned()));
    }
    let mut indexes: Vec<i32> = asked.assignments.iter().map(|a| a.partition_index).collect();
    indexes.sort_unstable();
    let is_dense = indexes.iter().zip(0..).all(|(index, expected)| *index == expected);
    let is_here = asked.assignments.iter().all(|a| a.broker_ids.iter().all(|id| id.0 == NODE_ID));
    let is_single = asked.assignments.iter().all(|a| a.broker_ids.len() == 1);
    if is_dense && is_here && is_single {
        return Ok(u32::try_from(indexes.len()).unwrap_or(u32::MAX));
    }
    let why = format!("partitions are numbered from 0 and each lies on node {NODE_ID} alone");
    Err(Refused(ErrorCode::InvalidReplicaAssignment, why))
}

/// Every config with its value and where that comes from.
fn described(broker: &Broker, configs: &Configs) -> Vec<CreatableTopicConfigs> {
    let describe = |config| {
        let (value, source) = describe_configs::effective(broker, configs, config);
        CreatableTopicConfigs::default()
            .with_name(text(config.name))
            .with_value(message(value))
            .with_config_source(source)
    };
    TOPIC_CONFIGS.iter().map(describe).collect()
}

/// First version with the topic's id.
const ID_VERSION: i16 = 7;
