//! docs/schemas: what the daemon emits is what its schemas say, and the AsyncAPI document names
//! files that are there.

use crate::support::{TestDaemon, created, eventually};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path};
use taskwire::task::time;

fn document(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Why a value is not as a schema says; nothing if it is. A keyword that is not known here panics,
/// so that none is passed over.
fn faults(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (keyword, rule) in schema.as_object().expect("a schema") {
        let holds = match keyword.as_str() {
            "$schema" | "$id" | "title" | "description" => true,
            "$ref" => {
                let rule = document(rule.as_str().expect("a file"));
                found.extend(faults(&rule, value, at));
                true
            }
            "type" => match rule {
                Value::Array(types) => types.iter().any(|name| is_of(name, value)),
                name => is_of(name, value),
            },
            "const" => rule == value,
            "enum" => rule.as_array().expect("values").contains(value),
            "not" => !faults(rule, value, at).is_empty(),
            "oneOf" => {
                let schemas = rule.as_array().expect("schemas").iter();
                let all: Vec<_> = schemas.map(|schema| faults(schema, value, at)).collect();
                let fitting = all.iter().filter(|faults| faults.is_empty()).count();
                if fitting == 0 {
                    found.extend(all.into_iter().flatten());
                }
                fitting == 1
            }
            "format" => value.as_str().is_none_or(|text| time::parse(text).is_some()),
            "minLength" => value.as_str().is_none_or(|text| count(text) >= rule.as_u64()),
            "maxLength" => value.as_str().is_none_or(|text| count(text) <= rule.as_u64()),
            "minimum" => value.as_u64().is_none_or(|number| Some(number) >= rule.as_u64()),
            "maxItems" => value
                .as_array()
                .is_none_or(|items| u64::try_from(items.len()).ok() <= rule.as_u64()),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(faults(rule, item, &format!("{at}/{index}")));
                }
                true
            }
            "required" => rule.as_array().expect("names").iter().all(|name| {
                value
                    .as_object()
                    .is_none_or(|value| value.contains_key(name.as_str().expect("text")))
            }),
            "properties" => {
                for (name, rule) in rule.as_object().expect("properties") {
                    if let Some(member) = value.get(name) {
                        found.extend(faults(rule, member, &format!("{at}/{name}")));
                    }
                }
                true
            }
            "additionalProperties" => {
                assert_eq!(*rule, json!(false), "no other form is known here");
                let known = schema["properties"].as_object().expect("properties");
                value
                    .as_object()
                    .is_none_or(|value| value.keys().all(|name| known.contains_key(name)))
            }
            other => panic!("keyword {other:?} is not known here"),
        };
        if !holds {
            found.push(format!("{at}: {keyword} {rule}"));
        }
    }
    found
}

fn count(text: &str) -> Option<u64> {
    u64::try_from(text.chars().count()).ok()
}

fn is_of(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("a type's name") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("type {other:?} is not known here"),
    }
}

#[track_caller]
fn check(schema: &str, value: &Value) {
    let found = faults(&document(schema), value, "");
    assert_eq!(found, Vec::<String>::new(), "{schema}: {value}");
}

/// Every kind of write, and a reminder.
async fn busy() -> TestDaemon {
    let daemon = TestDaemon::start_with(&["--due-soon", "1h"]).await;
    let ada = daemon.user("ada");
    let body = json!({"title": "a", "labels": ["x"], "due_date": "2000-01-01T00:00:00Z"});
    let made = ada.post("/api/tasks", &body).await.json();
    check("task.json", &made);
    let path = format!("/api/tasks/{}", made["id"].as_str().expect("an id"));
    for change in [
        json!({"title": "b", "description": "c", "due_date": null, "labels": []}),
        json!({"priority": "urgent"}),
        json!({"completed": true}),
        json!({"completed": false, "description": null}),
        json!({"title": "d", "completed": true, "completed_at": "2026-01-01T00:00:00Z"}),
    ] {
        let answer = ada.patch(&path, &change).await;
        assert_eq!(answer.status, 200, "{change}");
        check("task.json", &answer.json());
    }
    assert_eq!(ada.delete(&path).await.status, 204);
    let mut soon = Vec::new();
    time::write(taskwire::clock::Clock::system().now_ms() + 1_000_000, &mut soon);
    let body = json!({"title": "due", "due_date": String::from_utf8(soon).expect("ASCII")});
    assert_eq!(ada.post("/api/tasks", &body).await.status, 201);
    daemon
        .produce(&[
            created("t", "ada", "by Kafka"),
            json!({"type": "task_completed", "data": {"id": "t", "completed": true}}),
            json!({"type": "task_completed", "data": {"id": "t", "completed": false}}),
            json!({"type": "of_its_own", "data": {"user_id": "ada", "x": [1]}}),
        ])
        .await;
    daemon
}

#[tokio::test]
async fn what_the_daemon_emits_is_as_its_schemas_say() {
    let daemon = busy().await;
    let mut socket = daemon.socket_from("ada", "earliest").await;
    let mut types = BTreeSet::new();
    while types.len() < 7 {
        let message = socket.next().await;
        check("message.json", &message);
        types.insert(message["type"].as_str().expect("a type").to_owned());
    }
    socket.send("ping").await;
    let pong = loop {
        let message = socket.next().await;
        if message["type"] == "pong" {
            break message;
        }
        check("message.json", &message);
    };
    check("control.json", &pong);
    let mut socket = daemon.socket_from("ada", "1.1.1").await;
    check("control.json", &socket.next().await);
    // On the topic.
    let mut kafka = daemon.kafka_client().await;
    let mut types = BTreeSet::new();
    for record in kafka.fetch_all("task-events").await {
        let value: Value = serde_json::from_slice(&record.value.expect("a value")).expect("JSON");
        let name = value["type"].as_str().expect("a type").to_owned();
        if name != "of_its_own" {
            check(&format!("{name}.json"), &value);
            types.insert(name);
        }
    }
    assert_eq!(types.len(), 6, "{types:?}");
}

#[tokio::test]
async fn what_the_schemas_refuse_the_daemon_refuses() {
    let daemon = TestDaemon::start().await;
    let bad = [
        json!({"type": "task_created", "data": {"id": "a", "user_id": "u"}}),
        json!({"type": "task_created", "data": {"id": "a", "user_id": "u", "title": ""}}),
        json!({"type": "task_created", "data": {"id": "a", "title": "x"}}),
        json!({"type": "task_priority_changed", "data": {"id": "a", "priority": "top"}}),
        json!({"type": "task_priority_changed", "data": {"id": "a"}}),
        json!({"type": "task_updated", "data": {"id": "a", "due_date": "soon"}}),
        json!({"type": "task_deleted", "data": {}}),
    ];
    for event in &bad {
        let name = format!("{}.json", event["type"].as_str().expect("a type"));
        assert!(!faults(&document(&name), event, "").is_empty(), "{event}");
    }
    daemon.produce(&bad).await;
    let mut kafka = daemon.kafka_client().await;
    eventually("all are dead letters", async || {
        let metrics = daemon.with_token(None).get("/metrics").await;
        let text = String::from_utf8_lossy(&metrics.bytes).into_owned();
        text.contains(&format!("taskwire_dead_letters_open {}", bad.len())).then_some(())
    })
    .await;
    assert_eq!(kafka.fetch_all("task-events.dlq").await.len(), bad.len());
}

#[test]
fn the_asyncapi_document_points_at_what_is_there() {
    let document_ = document("asyncapi.json");
    assert_eq!(document_["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut references = Vec::new();
    collect(&document_, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        match reference.strip_prefix('#') {
            Some(pointer) => assert!(document_.pointer(pointer).is_some(), "{reference}"),
            None => drop(document(reference.strip_prefix("./").expect("a file beside it"))),
        }
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_str() {
                    Some(text) if name == "$ref" => references.push(text.to_owned()),
                    _ => collect(member, references),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => (),
    }
}
