//! IncrementalAlterConfigs 0 to 1: set, delete, append to or subtract from configs of topics. The
//! broker's own are set when the daemon starts.

use super::{
    describe_configs::{BROKER, TOPIC},
    message,
};
use crate::{
    broker::{
        Broker,
        configs::{self, Configs, Kind},
        topics::TopicError,
    },
    wire::{
        ErrorCode,
        messages::{
            IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
            incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
            incremental_alter_configs_response::AlterConfigsResourceResponse,
        },
    },
};
use std::collections::HashSet;

pub(in crate::broker) async fn handle(
    broker: &Broker,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::new();
    let mut named = HashSet::new();
    for resource in request.resources {
        // Each is a durable write.
        let is_named_once = named.insert((resource.resource_type, resource.resource_name.clone()));
        let altered = if is_named_once {
            alter(broker, &resource, request.validate_only).await
        } else {
            Err((ErrorCode::InvalidRequest, "the resource is named twice".to_owned()))
        };
        let mut response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name);
        if let Err((code, why)) = altered {
            response = response.with_error_code(code.code()).with_error_message(message(why));
        }
        responses.push(response);
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

type Refused = (ErrorCode, String);

async fn alter(
    broker: &Broker,
    asked: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refused> {
    match asked.resource_type {
        TOPIC => (),
        BROKER => {
            let why = "the broker's configs are set when it starts".to_owned();
            return Err((ErrorCode::PolicyViolation, why));
        }
        _ => return Err((ErrorCode::InvalidRequest, "no resource of that type".to_owned())),
    }
    let refused = |error: TopicError| (ErrorCode::from(&error), error.to_string());
    let topic = broker.topics().find(&asked.resource_name);
    let topic = topic.ok_or_else(|| refused(TopicError::Unknown))?;
    let mut configs = topic.configs.clone();
    for change in &asked.configs {
        apply(&mut configs, change)?;
    }
    configs::check(&configs, topic.is_reserved).map_err(|error| refused(error.into()))?;
    if validate_only {
        return Ok(());
    }
    broker.topics().set_configs(topic.name.clone(), configs).await.map_err(refused)
}

/// Makes one change; the result is checked by the caller.
fn apply(configs: &mut Configs, change: &AlterableConfig) -> Result<(), Refused> {
    let name = change.name.to_string();
    let value = || -> Result<String, Refused> {
        let why = || (ErrorCode::InvalidRequest, format!("null value not supported for {name}"));
        let value = change.value.as_ref().ok_or_else(why)?;
        configs::check_length(&name, value).map_err(|e| (ErrorCode::from(&e), e.to_string()))?;
        Ok(value.to_string())
    };
    match change.config_operation {
        SET => drop(configs.insert(name.clone(), value()?)),
        DELETE => drop(configs.remove(&name)),
        APPEND | SUBTRACT => {
            let list = items(configs, &name)?;
            let named = split(&value()?);
            let kept = list.into_iter().filter(|item| !named.contains(item));
            let mut list: Vec<String> = kept.collect();
            if change.config_operation == APPEND {
                list.extend(named);
            }
            configs.insert(name.clone(), list.join(","));
        }
        _ => return Err((ErrorCode::InvalidRequest, "unknown operation".to_owned())),
    }
    Ok(())
}

/// The items of a list config as it is now.
fn items(configs: &Configs, name: &str) -> Result<Vec<String>, Refused> {
    let config = configs::find(name);
    let is_list = |kind: Kind| matches!(kind, Kind::ListOf(_) | Kind::List);
    let config = config.filter(|config| is_list(config.kind)).ok_or_else(|| {
        let why = format!("{name} is no list: append and subtract are not allowed");
        (ErrorCode::InvalidConfig, why)
    })?;
    Ok(split(configs.get(name).map_or(config.default, String::as_str)))
}

fn split(list: &str) -> Vec<String> {
    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(ToOwned::to_owned).collect()
}

/// Kafka's `AlterConfigOp.OpType`.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;
