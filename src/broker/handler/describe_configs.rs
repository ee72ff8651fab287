//! DescribeConfigs 1 to 4: topics and the broker; every config with its value and its source, those
//! that were never altered included.

use super::{message, text};
use crate::{
    broker::{
        Broker, NODE_ID,
        configs::{Config, Configs, Kind, TOPIC_CONFIGS},
    },
    wire::{
        ErrorCode, StrBytes,
        messages::{
            DescribeConfigsRequest, DescribeConfigsResponse,
            describe_configs_request::DescribeConfigsResource,
            describe_configs_response::{
                DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
            },
        },
    },
};
use std::collections::HashSet;

pub(in crate::broker) fn handle(
    broker: &Broker,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let with_synonyms = request.include_synonyms;
    // Once each: a long list of the same resource would multiply what is said of it.
    let mut named = HashSet::new();
    let resources = request
        .resources
        .into_iter()
        .filter(|resource| named.insert((resource.resource_type, resource.resource_name.clone())));
    let results = resources.map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match describe(broker, &resource, with_synonyms) {
            Ok(configs) => result.with_configs(configs),
            Err((code, why)) => {
                result.with_error_code(code.code()).with_error_message(message(why))
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(
    broker: &Broker,
    asked: &DescribeConfigsResource,
    with_synonyms: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, &'static str)> {
    let is_asked = |name: &str| match &asked.configuration_keys {
        Some(keys) if !keys.is_empty() => keys.iter().any(|key| key.as_str() == name),
        _ => true,
    };
    let mut described = match asked.resource_type {
        TOPIC => of_topic(broker, &asked.resource_name, with_synonyms)?,
        BROKER if asked.resource_name.is_empty() => Vec::new(),
        BROKER if *asked.resource_name == *NODE_ID.to_string() => of_broker(broker),
        BROKER => return Err((ErrorCode::InvalidRequest, "no broker of that id")),
        _ => return Err((ErrorCode::InvalidRequest, "no resource of that type")),
    };
    described.retain(|config| is_asked(&config.name));
    Ok(described)
}

fn of_topic(
    broker: &Broker,
    name: &StrBytes,
    with_synonyms: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, &'static str)> {
    let topic = broker.topics().find(name);
    let topic = topic.ok_or((ErrorCode::UnknownTopicOrPartition, "unknown topic"))?;
    let describe = |config: &Config| {
        let (value, source) = effective(broker, &topic.configs, config);
        let mut result = DescribeConfigsResourceResult::default()
            .with_name(text(config.name))
            .with_value(message(&value))
            .with_config_source(source)
            .with_config_type(config.kind.wire_type());
        if with_synonyms {
            result.synonyms = synonyms(broker, config, value, source);
        }
        result
    };
    Ok(TOPIC_CONFIGS.iter().map(describe).collect())
}

/// Where a value could come from, the one that holds first.
fn synonyms(
    broker: &Broker,
    config: &Config,
    value: String,
    source: i8,
) -> Vec<DescribeConfigsSynonym> {
    let synonym = |value: String, source: i8| {
        DescribeConfigsSynonym::default()
            .with_name(text(config.name))
            .with_value(message(value))
            .with_source(source)
    };
    let mut synonyms = vec![synonym(value, source)];
    if source == TOPIC_SOURCE {
        let (value, source) = effective(broker, &Configs::new(), config);
        synonyms.push(synonym(value, source));
    }
    synonyms
}

/// The value that holds for a topic, and its source.
pub(super) fn effective(broker: &Broker, configs: &Configs, config: &Config) -> (String, i8) {
    if let Some(value) = configs.get(config.name) {
        return (value.clone(), TOPIC_SOURCE);
    }
    if config.name == "max.message.bytes" {
        let value = broker.options().message_bytes_max.to_string();
        let source = if value == config.default { DEFAULT_SOURCE } else { STATIC_SOURCE };
        return (value, source);
    }
    (config.default.to_owned(), DEFAULT_SOURCE)
}

/// Set when the daemon starts, so read-only here.
fn of_broker(broker: &Broker) -> Vec<DescribeConfigsResourceResult> {
    let options = broker.options();
    let number = Kind::Long(0).wire_type();
    let string = Kind::OneOf(&[]).wire_type();
    let boolean = Kind::Boolean.wire_type();
    let set = [
        ("node.id", NODE_ID.to_string(), number),
        ("broker.id", NODE_ID.to_string(), number),
        ("message.max.bytes", options.message_bytes_max.to_string(), number),
        ("num.partitions", options.partitions_default.to_string(), number),
        ("max.connections", options.connections_max.to_string(), number),
    ];
    let fixed = [
        ("auto.create.topics.enable", "true", boolean),
        ("compression.type", "producer", string),
        ("default.replication.factor", "1", number),
        ("delete.topic.enable", "true", boolean),
        ("group.max.session.timeout.ms", "1800000", number),
        ("group.min.session.timeout.ms", "6000", number),
        ("log.cleanup.policy", "delete", string),
        ("log.message.timestamp.type", "CreateTime", string),
        ("log.retention.bytes", "-1", number),
        ("log.retention.ms", "604800000", number),
        ("log.segment.bytes", "67108864", number),
        ("min.insync.replicas", "1", number),
        ("offset.metadata.max.bytes", "4096", number),
        ("unclean.leader.election.enable", "false", boolean),
    ];
    let one = |name: &str, value: String, source: i8, config_type: i8| {
        DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(message(value))
            .with_read_only(true)
            .with_config_source(source)
            .with_config_type(config_type)
    };
    let set = set.into_iter().map(|(name, value, kind)| one(name, value, STATIC_SOURCE, kind));
    let fixed = fixed
        .into_iter()
        .map(|(name, value, kind)| one(name, value.to_owned(), DEFAULT_SOURCE, kind));
    set.chain(fixed).collect()
}

/// Kafka's `ConfigResource.Type`.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
/// Kafka's `ConfigSource`.
const TOPIC_SOURCE: i8 = 1;
const STATIC_SOURCE: i8 = 4;
const DEFAULT_SOURCE: i8 = 5;
