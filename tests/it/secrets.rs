//! Tokens, secrets and the text of tasks stand in no log and in no error.

use crate::support::{
    SECRET, TestDaemon, created, eventually,
    plain::{ask, escaped, shake},
};
use bytes::Bytes;
use serde_json::{Value, json};

/// Put wherever a client can put text; looked for wherever the daemon puts some.
const MARKERS: [&str; 4] = ["Mark3r-token", "Mark3r-title", "Mark3r-field", "Mark3r-event"];

const TOKEN: &str = MARKERS[0];
const TITLE: &str = MARKERS[1];
const FIELD: &str = MARKERS[2];
const EVENT: &str = MARKERS[3];

#[tokio::test]
async fn tokens_and_the_text_of_tasks_are_in_no_log_and_no_error() {
    let daemon = TestDaemon::start_with(&["--log", "trace"]).await;
    let good = daemon.token("ada");
    bad_tokens(&daemon).await;
    good_tokens(&daemon, &good).await;
    bodies(&daemon).await;
    queries_and_headers(&daemon, &good).await;
    records(&daemon).await;
    let log = daemon.log();
    assert!(log.contains("\"TRACE\"") && log.len() > 10_000, "it was asked to say all");
    for marker in MARKERS.into_iter().chain([good.as_str(), SECRET]) {
        let line = log.lines().find(|line| line.contains(marker));
        assert_eq!(line, None, "the log holds {marker}");
    }
    for part in good.split('.') {
        assert!(!log.contains(part), "the log holds a part of a token");
    }
}

/// No answer that is an error may hold a marker.
#[track_caller]
fn check(what: &str, status: u16, text: &str) {
    assert!((400..500).contains(&status), "{what}: {status} {text}");
    for marker in MARKERS {
        assert!(!text.contains(marker), "{what}: the answer holds {marker}: {text}");
    }
}

async fn bad_tokens(daemon: &TestDaemon) {
    for token in [TOKEN.to_owned(), format!("{TOKEN}.{TOKEN}.{TOKEN}"), format!("e30.{TOKEN}.x")] {
        for scheme in ["Bearer", "Basic", "Mark3r-token"] {
            let value = format!("{scheme} {token}");
            let headers = [("host", "localhost"), ("authorization", &value)];
            let answer = ask(daemon.http, "GET /api/tasks", &headers, "").await;
            check("REST", answer.status, &(answer.head + &answer.body));
            let answer = shake(daemon.http, "/ws/tasks", &headers[1..]).await;
            check("header", answer.status, &(answer.head + &answer.body));
        }
        let answer = shake(daemon.http, &format!("/ws/tasks?token={token}"), &[]).await;
        check("query", answer.status, &(answer.head + &answer.body));
        let items = format!("taskwire.v1, taskwire.bearer.{token}");
        let answer = shake(daemon.http, "/ws/tasks", &[("sec-websocket-protocol", &items)]).await;
        check("subprotocol", answer.status, &(answer.head + &answer.body));
        let mut socket = daemon.try_socket("").await.expect("an upgrade");
        socket.send(&json!({"type": "auth", "data": {"token": token}}).to_string()).await;
        assert_eq!(socket.close_code().await, Some(4401));
        let mut socket = daemon.try_socket("").await.expect("an upgrade");
        socket.send(&format!("{{\"type\":\"auth\",\"data\":\"{token}\"")).await;
        assert!(matches!(socket.close_code().await, Some(4400..=4401)));
    }
}

async fn good_tokens(daemon: &TestDaemon, good: &str) {
    let mut sockets = vec![daemon.try_socket(&format!("token={good}")).await.expect("an upgrade")];
    let mut by_frame = daemon.try_socket("").await.expect("an upgrade");
    by_frame.send(&json!({"type": "auth", "data": {"token": good}}).to_string()).await;
    sockets.push(by_frame);
    for socket in &mut sockets {
        socket.drain().await;
        socket.send(TITLE).await;
        socket.send(&format!("{{\"type\":\"{FIELD}\",\"data\":\"{TITLE}\"}}")).await;
        assert_eq!(socket.close_code().await, Some(4400));
    }
    let items = format!("taskwire.v1, taskwire.bearer.{good}");
    let answer = shake(daemon.http, "/ws/tasks", &[("sec-websocket-protocol", &items)]).await;
    assert_eq!(answer.status, 101);
    assert!(!answer.head.contains(good));
}

async fn bodies(daemon: &TestDaemon) {
    let ada = daemon.user("ada");
    let task = ada.post("/api/tasks", &json!({"title": TITLE, "description": TITLE})).await.json();
    let id = task["id"].as_str().expect("an id").to_owned();
    let many: Vec<String> = (0..40).map(|number| format!("{FIELD}-{number}")).collect();
    let labels = json!({ "title": TITLE, "labels": many });
    for body in [
        json!({"title": TITLE, "priority": FIELD}),
        json!({"title": TITLE, "due_date": FIELD}),
        json!({"title": TITLE, "completed": FIELD}),
        json!({"title": [TITLE]}),
        json!({"title": TITLE.repeat(100)}),
        json!({"title": TITLE, "user_id": FIELD}),
        json!({"title": TITLE, "user_id": {"x": FIELD}}),
        json!({"title": TITLE, "id": FIELD}),
        json!({"title": TITLE, "version": FIELD}),
        json!({"title": TITLE, "description": {"x": FIELD}}),
        labels,
        json!([TITLE]),
        json!(TITLE),
    ] {
        let answer = ada.post("/api/tasks", &body).await;
        check("POST", answer.status, &String::from_utf8_lossy(&answer.bytes));
        for method in [hyper::Method::PATCH, hyper::Method::PUT] {
            let path = format!("/api/tasks/{id}");
            let answer = ada.write(method, &path, &body).await;
            if answer.status != 200 {
                check("PATCH or PUT", answer.status, &String::from_utf8_lossy(&answer.bytes));
            }
        }
    }
    let bearer = format!("Bearer {}", daemon.token("ada"));
    for body in [
        format!("{{\"title\":\"{TITLE}\""),
        format!("{{\"title\":{TITLE}}}"),
        format!("{}\"{TITLE}\"", "[".repeat(100)),
        TITLE.to_owned(),
    ] {
        for kind in ["application/json", "text/plain", FIELD] {
            let headers =
                [("host", "localhost"), ("authorization", &bearer), ("content-type", kind)];
            let answer = ask(daemon.http, "POST /api/tasks", &headers, &body).await;
            check("a broken body", answer.status, &(answer.head + &answer.body));
        }
    }
}

async fn queries_and_headers(daemon: &TestDaemon, good: &str) {
    let bearer = format!("Bearer {good}");
    let usual = [("host", "localhost"), ("authorization", bearer.as_str())];
    let text = escaped(TITLE);
    for query in [
        format!("priority={text}"),
        format!("due_before={text}"),
        format!("cursor={text}"),
        format!("limit={text}"),
        format!("sort={text}"),
        format!("completed={text}"),
        format!("q={}", text.repeat(30)),
        format!("token={text}&{text}=1"),
        format!("nonsense={text}"),
    ] {
        let answer = ask(daemon.http, &format!("GET /api/tasks?{query}"), &usual, "").await;
        check(&query, answer.status, &(answer.head + &answer.body));
    }
    // A path is logged: it names a route and an id.
    let path = "GET /api/tasks/none";
    for name in ["if-match", "if-none-match", "range", "accept", "x-token", "cookie"] {
        let answer = ask(daemon.http, path, &[&usual[..], &[(name, TITLE)]].concat(), "").await;
        check(name, answer.status, &(answer.head + &answer.body));
    }
    let key = TITLE.repeat(30);
    let headers = [&usual[..], &[("idempotency-key", key.as_str())]].concat();
    let answer = ask(daemon.http, "POST /api/tasks", &headers, "{\"title\":\"x\"}").await;
    check("a long key", answer.status, &(answer.head + &answer.body));
    let answer = shake(daemon.http, &format!("/ws/tasks?from={text}"), &usual[1..]).await;
    check("from", answer.status, &(answer.head + &answer.body));
    let answer = ask(daemon.http, &format!("GET /none?{TOKEN}"), &usual[..1], "").await;
    assert_eq!(answer.status, 404);
}

async fn records(daemon: &TestDaemon) {
    let poison = [
        EVENT.to_owned(),
        format!("{{\"type\":\"task_created\",\"data\":{{\"title\":\"{EVENT}\""),
        json!({"type": "task_created", "data": {"id": "p1", "title": EVENT}}).to_string(),
        json!({"type": "task_created", "data": {"id": "p2", "title": [EVENT], "user_id": "ada"}})
            .to_string(),
        json!({"type": "task_updated", "data": {"id": "e1", "title": EVENT, "user_id": "bob"}})
            .to_string(),
        json!({"type": "task_priority_changed", "data": {"id": "e1", "priority": EVENT}})
            .to_string(),
        json!({"type": EVENT, "data": {"user_id": {"x": EVENT}}}).to_string(),
        json!({"type": EVENT, "data": EVENT}).to_string(),
        json!({"type": EVENT, "data": {"user_id": "ada", "text": EVENT}}).to_string(),
        json!({"type": EVENT, "data": {"text": EVENT}}).to_string(),
        json!({"specversion": EVENT, "type": "task_created", "data": EVENT}).to_string(),
        json!({"type": "task_created", "event_id": [EVENT], "data": {"id": "p3"}}).to_string(),
        json!({"type": "task_due_soon", "data": {"id": "p4", "due_date": EVENT}}).to_string(),
    ];
    daemon.produce(&[created("e1", "ada", EVENT)]).await;
    daemon.user("ada").task("e1").await;
    let values: Vec<Bytes> = poison.iter().map(|text| Bytes::from(text.clone())).collect();
    daemon.kafka_client().await.produce("task-events", &values).await;
    // The same id, and another creation.
    daemon.produce(&[created("e1", "ada", "another"), created("last", "ada", EVENT)]).await;
    daemon.user("ada").task("last").await;
    let dead = eventually("dead letters", async || {
        let dead = daemon.kafka_client().await.fetch_all("task-events.dlq").await;
        (dead.len() >= 8).then_some(dead)
    })
    .await;
    for letter in &dead {
        let reasons = letter.headers.iter().filter(|(name, _)| name.contains("reason"));
        for (_, reason) in reasons {
            let reason = String::from_utf8_lossy(reason.as_ref().expect("a reason")).into_owned();
            assert!(!reason.contains(EVENT), "{reason}");
        }
    }
    let stats: Value = daemon.with_token(None).get("/ws/stats").await.json();
    assert!(!stats.to_string().contains(EVENT));
    let metrics = daemon.with_token(None).get("/metrics").await.bytes;
    assert!(!String::from_utf8_lossy(&metrics).contains(EVENT));
}
