//! `taskwire send`: one event to the topic that is applied, of any broker.

use super::kafka_client::{KafkaClient, Topic, VerbError};
use crate::{
    clock::Clock,
    wire::{
        partitioner,
        record::{self, NewRecord},
    },
};
use bytes::Bytes;
use clap::Args;
use serde_json::{Map, Value, json};
use std::io::Write;
use uuid::Uuid;

/// Event types that are about a task that is there already.
const NEED_ID: [&str; 5] =
    ["task_completed", "task_updated", "task_deleted", "task_priority_changed", "task_due_soon"];

/// Send an event, for example: send task_created title='Buy milk' priority=high --user alice
#[derive(Args, Clone, Debug)]
pub struct SendArgs {
    /// Event type, such as task_created, task_completed, task_updated or one of your own
    #[arg(value_name = "TYPE")]
    pub event_type: String,
    /// Fields of the event's data. A value that is JSON is taken as such, else it is a string;
    /// write title='"42"' for a string of digits. A task_created without id gets a new one
    #[arg(value_name = "KEY=VALUE")]
    pub fields: Vec<String>,
    /// The task's owner (data.user_id)
    #[arg(long)]
    pub user: Option<String>,
    /// The broker
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// The topic
    #[arg(long, default_value = "task-events")]
    pub topic: String,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Sends the event and prints where it is.
///
/// # Errors
/// See [`VerbError`].
pub async fn run(args: SendArgs, out: &mut dyn Write) -> Result<(), VerbError> {
    let event = Event::of(&args)?;
    let mut client = KafkaClient::connect(&args.bootstrap).await?;
    let topic = client.topic_or_new(&args.topic).await?;
    let partition = partition_of(event.key.as_deref(), &topic);
    let record = NewRecord {
        timestamp_ms: Clock::system().now_ms(),
        key: event.key.clone().map(Bytes::from),
        value: Some(event.value.to_string().into()),
        headers: Vec::new(),
    };
    let (_, batch) = record::encode(&[record]).stamp(0, -1);
    let offset = client.produce(&topic, partition, batch).await?;
    if args.json {
        let sent = json!({
            "topic": args.topic, "partition": partition, "offset": offset,
            "event_id": event.value["event_id"], "task_id": event.key,
        });
        writeln!(out, "{sent}")?;
    } else {
        let task = event.key.map(|id| format!(" task {id}")).unwrap_or_default();
        writeln!(out, "{}{task} -> {}/{partition} offset {offset}", args.event_type, args.topic)?;
    }
    Ok(())
}

/// An event and the key of its record, the task's id.
struct Event {
    key: Option<String>,
    value: Value,
}

impl Event {
    fn of(args: &SendArgs) -> Result<Self, VerbError> {
        let mut data = Map::new();
        for field in &args.fields {
            let (name, value) =
                field.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
                    VerbError::Usage(format!(
                        "{field:?} is not KEY=VALUE, such as title='Buy milk'"
                    ))
                })?;
            data.insert(name.to_owned(), parse(value));
        }
        if let Some(user) = &args.user {
            data.insert("user_id".to_owned(), Value::from(user.as_str()));
        }
        if args.event_type == "task_created" && !data.contains_key("id") {
            data.insert("id".to_owned(), Value::from(Uuid::now_v7().to_string()));
        }
        let key = match data.get("id") {
            Some(Value::String(id)) => Some(id.clone()),
            Some(Value::Number(id)) => Some(id.to_string()),
            _ => None,
        };
        if key.is_none() && NEED_ID.contains(&args.event_type.as_str()) {
            let event_type = &args.event_type;
            return Err(VerbError::Usage(format!("{event_type} needs the task: id=...")));
        }
        let event_id = Uuid::now_v7().to_string();
        let value = json!({ "type": args.event_type, "event_id": event_id, "data": data });
        Ok(Self { key, value })
    }
}

/// JSON as such, anything else as a string. A whole number that JSON would round stays as written.
fn parse(text: &str) -> Value {
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    match serde_json::from_str(text) {
        Ok(Value::Number(number)) if is_whole && number.is_f64() => Value::from(text),
        Ok(value) => value,
        Err(_) => Value::from(text),
    }
}

/// Where Kafka's Java client would send the key; the first partition without one.
pub(super) fn partition_of(key: Option<&str>, topic: &Topic) -> i32 {
    let count = u32::try_from(topic.leaders.len().max(1)).unwrap_or(u32::MAX);
    key.map_or(0, |key| partitioner::partition_of_key(key.as_bytes(), count).get())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event_type: &str, fields: &[&str], user: Option<&str>) -> Result<Event, VerbError> {
        Event::of(&SendArgs {
            event_type: event_type.to_owned(),
            fields: fields.iter().copied().map(str::to_owned).collect(),
            user: user.map(str::to_owned),
            bootstrap: String::new(),
            topic: String::new(),
            json: false,
        })
    }

    #[test]
    fn values_are_json_where_they_can_be() {
        for (text, expected) in [
            ("Buy milk", json!("Buy milk")),
            ("42", json!(42)),
            ("\"42\"", json!("42")),
            ("007", json!("007")),
            ("true", json!(true)),
            ("null", json!(null)),
            ("[\"a\",\"b\"]", json!(["a", "b"])),
            ("{\"a\":1}", json!({"a": 1})),
            ("{not json}", json!("{not json}")),
            ("a=b", json!("a=b")),
            ("", json!("")),
            ("123456789012345678901234567890", json!("123456789012345678901234567890")),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_creation_gets_an_id_that_is_the_records_key() {
        let Event { key, value } = event("task_created", &["title=a=b"], Some("alice")).unwrap();
        assert_eq!(value["type"], "task_created");
        assert_eq!(value["data"]["title"], "a=b");
        assert_eq!(value["data"]["user_id"], "alice");
        assert_eq!(value["data"]["id"].as_str(), key.as_deref());
        for id in [&value["data"]["id"], &value["event_id"]] {
            assert_eq!(Uuid::parse_str(id.as_str().unwrap()).unwrap().get_version_num(), 7);
        }
    }

    #[test]
    fn an_id_of_digits_is_the_key_in_decimal() {
        let Event { key, value } = event("task_completed", &["id=7"], None).unwrap();
        assert_eq!((key.as_deref(), &value["data"]), (Some("7"), &json!({"id": 7})));
    }

    #[test]
    fn what_is_missing_is_told() {
        let usage = |outcome: Result<Event, VerbError>| outcome.err().unwrap().to_string();
        assert_eq!(usage(event("task_deleted", &[], None)), "task_deleted needs the task: id=...");
        assert!(usage(event("x", &["title"], None)).contains("not KEY=VALUE"));
        assert!(usage(event("x", &["=v"], None)).contains("not KEY=VALUE"));
        assert_eq!(event("my_own_type", &[], None).unwrap().key, None);
    }
}
