//! `/api/tasks`: every write goes through the log and comes back.

use crate::support::{TestDaemon, created, eventually, http::Answer};
use hyper::{Method, Request, body::Bytes};
use serde_json::{Value, json};

#[track_caller]
fn problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{:?}", answer.bytes);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.json()["code"], code);
}

#[tokio::test]
async fn a_task_lives_and_ends_over_rest() {
    let daemon = TestDaemon::start().await;
    let ada = daemon.user("ada");
    let made = ada.post("/api/tasks", &json!({"title": "write", "priority": "high"})).await;
    assert_eq!(made.status, 201, "{:?}", made.bytes);
    let task = made.json();
    let path = format!("/api/tasks/{}", task["id"].as_str().expect("a string"));
    assert_eq!(made.header("location"), path);
    assert!(!made.header("taskwire-position").is_empty());
    for (field, value) in [
        ("title", json!("write")),
        ("description", Value::Null),
        ("user_id", json!("ada")),
        ("priority", json!("high")),
        ("completed", json!(false)),
        ("completed_at", Value::Null),
        ("version", json!(1)),
        ("labels", json!([])),
    ] {
        assert_eq!(task[field], value, "{field}");
    }

    let patch = json!({"description": "a book", "due_date": "2027-01-01T00:00:00Z"});
    let patched = ada.patch(&path, &patch).await;
    assert_eq!(patched.status, 200, "{:?}", patched.bytes);
    assert_eq!(patched.json()["description"], "a book");
    assert_eq!(patched.json()["version"], 2);
    assert_eq!(patched.header("etag"), "\"2\"");

    let completed = ada.post(&format!("{path}/complete"), &json!({})).await;
    assert_eq!((completed.status, &completed.json()["completed"]), (200, &json!(true)));
    assert!(completed.json()["completed_at"].is_string());
    let again = ada.post(&format!("{path}/complete"), &json!({})).await;
    assert_eq!((again.status, &again.json()["version"]), (200, &completed.json()["version"]));

    let put = ada.write(Method::PUT, &path, &json!({"title": "rewritten"})).await;
    assert_eq!(put.status, 200, "{:?}", put.bytes);
    assert_eq!(put.json()["description"], Value::Null);
    assert_eq!(put.json()["completed"], false);

    assert_eq!(ada.delete(&path).await.status, 204);
    assert_eq!(ada.get(&path).await.status, 404);
    assert_eq!(ada.delete(&path).await.status, 404);
    assert_eq!(ada.write(Method::PUT, &path, &json!({"title": "no"})).await.status, 404);
    assert!(ada.tasks().await.is_empty());
}

#[tokio::test]
async fn every_write_is_an_event_on_the_topic() {
    let daemon = TestDaemon::start().await;
    let ada = daemon.user("ada");
    let id = ada.post("/api/tasks", &json!({"title": "a"})).await.json()["id"].clone();
    let path = format!("/api/tasks/{}", id.as_str().expect("a string"));
    ada.patch(&path, &json!({"priority": "urgent"})).await;
    ada.patch(&path, &json!({"completed": true})).await;
    ada.patch(&path, &json!({"title": "b"})).await;
    ada.delete(&path).await;
    let records = daemon.kafka_client().await.fetch_all("task-events").await;
    let types: Vec<String> = records
        .iter()
        .map(|record| {
            let value = record.value.as_ref().expect("a value");
            let event: Value = serde_json::from_slice(value).expect("JSON");
            assert_eq!(event["data"]["id"], id);
            event["type"].as_str().expect("a type").to_owned()
        })
        .collect();
    let expected =
        ["task_created", "task_priority_changed", "task_completed", "task_updated", "task_deleted"];
    assert_eq!(types, expected);
}

#[tokio::test]
async fn users_never_see_each_other() {
    let daemon = TestDaemon::start().await;
    let (ada, bob) = (daemon.user("ada"), daemon.user("bob"));
    let made = ada.post("/api/tasks", &json!({"title": "mine"})).await.json();
    let path = format!("/api/tasks/{}", made["id"].as_str().expect("a string"));
    let none = bob.get("/api/tasks/no-such-task").await;
    for answer in [
        bob.get(&path).await,
        bob.delete(&path).await,
        bob.patch(&path, &json!({"title": "his"})).await,
        bob.write(Method::PUT, &path, &json!({"title": "his"})).await,
        bob.post(&format!("{path}/complete"), &json!({})).await,
    ] {
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json()["code"], none.json()["code"], "the same 404 as none");
    }
    assert!(bob.tasks().await.is_empty());
    assert_eq!(ada.get(&path).await.json(), made);
    let forged = bob.post("/api/tasks", &json!({"title": "x", "user_id": "ada"})).await;
    assert_eq!(forged.status, 403);
    assert_eq!(ada.tasks().await.len(), 1);
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let daemon = TestDaemon::start().await;
    let events: Vec<Value> = (0..450)
        .map(|number| {
            let mut event = created(&format!("t{number:03}"), "ada", &format!("Title {number}"));
            event["data"]["priority"] = json!(if number % 3 == 0 { "high" } else { "low" });
            event
        })
        .collect();
    daemon.produce(&events).await;
    let ada = daemon.user("ada");
    let all = ada.tasks_when(450).await;
    let ids: Vec<&str> = all.iter().map(|task| task["id"].as_str().expect("an id")).collect();
    assert!(ids.iter().enumerate().all(|(at, id)| **id == format!("t{at:03}")), "in order");

    let first = ada.get("/api/tasks").await;
    assert_eq!(first.json().as_array().expect("an array").len(), 200);
    assert!(first.header("link").contains("rel=\"next\""));
    assert_eq!(
        ada.get("/api/tasks?priority=high&limit=1000")
            .await
            .json()
            .as_array()
            .expect("array")
            .len(),
        150
    );
    assert_eq!(
        ada.get("/api/tasks?q=title%2044&limit=1000").await.json().as_array().expect("array").len(),
        11
    );
    assert_eq!(ada.get("/api/tasks?completed=true").await.json(), json!([]));
    for (query, status) in [
        ("limit=1001", 400),
        ("limit=0", 400),
        ("limit=x", 400),
        ("cursor=garbage", 400),
        ("priority=none", 400),
        ("unknown=1", 400),
    ] {
        assert_eq!(ada.get(&format!("/api/tasks?{query}")).await.status, status, "{query}");
    }
}

#[tokio::test]
async fn a_lost_race_is_412_and_a_repeated_post_is_one_task() {
    let daemon = TestDaemon::start().await;
    let ada = daemon.user("ada");
    let id = ada.post("/api/tasks", &json!({"title": "a"})).await.json()["id"].clone();
    let path = format!("/api/tasks/{}", id.as_str().expect("a string"));
    let patch = |etag: &'static str| {
        let request = Request::patch(path.clone()).header("if-match", etag);
        ada.send(
            request.header("content-type", "application/json"),
            Bytes::from(r#"{"title":"b"}"#),
        )
    };
    assert_eq!(patch("\"1\"").await.status, 200);
    problem(&patch("\"1\"").await, 412, "version_mismatch");
    let fresh = ada.send(Request::get(&path).header("if-none-match", "\"2\""), Bytes::new()).await;
    assert_eq!(fresh.status, 304);

    let post = |body: &'static str| {
        let request = Request::post("/api/tasks").header("idempotency-key", "key-1");
        ada.send(request.header("content-type", "application/json"), Bytes::from(body))
    };
    let first = post(r#"{"title":"once"}"#).await;
    let second = post(r#"{"title":"once"}"#).await;
    assert_eq!((first.status, second.status), (201, 201), "{:?}", second.bytes);
    assert_eq!(first.json(), second.json());
    assert_eq!(post(r#"{"title":"other"}"#).await.status, 422);
    assert_eq!(ada.tasks().await.len(), 2);
}

#[tokio::test]
async fn bad_bodies_are_4xx_with_a_pointer() {
    let daemon = TestDaemon::start().await;
    let ada = daemon.user("ada");
    for (body, pointer) in [
        (json!({}), "/title"),
        (json!({"title": ""}), "/title"),
        (json!({"title": 7}), "/title"),
        (json!({"title": "x".repeat(501)}), "/title"),
        (json!({"title": "a", "priority": "none"}), "/priority"),
        (json!({"title": "a", "due_date": "soon"}), "/due_date"),
        (json!({"title": "a", "description": "x".repeat(10_001)}), "/description"),
        (json!({"title": "a", "colour": "red"}), "/colour"),
        (json!({"title": "a", "labels": [1]}), "/labels"),
    ] {
        let answer = ada.post("/api/tasks", &body).await;
        assert_eq!(answer.status, 422, "{body} {:?}", answer.bytes);
        assert_eq!(answer.json()["pointer"], pointer, "{:?}", answer.bytes);
    }
    for (body, status) in [
        ("not json".to_owned(), 400),
        ("[]".to_owned(), 422),
        (String::new(), 400),
        (format!("{}1{}", "[".repeat(65), "]".repeat(65)), 400),
        (format!("{{\"title\":\"{}\"}}", "x".repeat(1 << 20)), 413),
    ] {
        let request = Request::post("/api/tasks").header("content-type", "application/json");
        let answer = ada.send(request, body.clone().into()).await;
        assert_eq!(answer.status, status, "{} bytes: {:?}", body.len(), answer.bytes);
    }
    assert!(ada.tasks().await.is_empty());
}

#[tokio::test]
async fn a_wrong_token_is_401_and_stands_in_no_log() {
    let daemon = TestDaemon::start().await;
    let forged = format!("{}x", daemon.token("ada"));
    for token in [None, Some("garbage"), Some(forged.as_str())] {
        let answer = daemon.with_token(token).get("/api/tasks").await;
        problem(&answer, 401, if token.is_none() { "token_missing" } else { "token_invalid" });
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    let refused = daemon.try_socket(&format!("token={forged}")).await.map(|_| ());
    assert_eq!(refused, Err(401));
    assert!(!daemon.log().contains(&forged), "the token stands in the log");
    assert_eq!(daemon.with_token(None).get("/healthz").await.status, 200);
    assert_eq!(daemon.with_token(None).get("/metrics").await.status, 200);
    let unknown = daemon.user("ada").get("/api/nothing").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.header("content-type"), "application/problem+json");
}

#[tokio::test]
async fn commits_of_the_store_are_counted() {
    let daemon = TestDaemon::start().await;
    let anyone = daemon.with_token(None);
    let commits = async || {
        let text = String::from_utf8(anyone.get("/metrics").await.bytes.to_vec()).expect("text");
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix("taskwire_store_commits_total "));
        value.expect("the sample").parse::<u64>().expect("a count")
    };
    let before = commits().await;
    daemon.produce(&[created("t1", "ada", "counted")]).await;
    daemon.user("ada").task("t1").await;
    eventually("another commit", async || (commits().await > before).then_some(())).await;
}
