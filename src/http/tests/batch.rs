//! `POST /api/tasks` of an array.

use super::support::{Daemon, LogMood, start, start_with};
use crate::http::limits::Rate;
use serde_json::{Value, json};
use std::time::Duration;

fn array(titles: &[&str]) -> Value {
    titles.iter().map(|title| json!({ "title": title })).collect()
}

async fn titles(daemon: &Daemon) -> Vec<String> {
    let reply = daemon.call("alice", "GET /api/tasks", "").await;
    let tasks = reply.json();
    let tasks = tasks.as_array().unwrap().iter();
    tasks.map(|task| task["title"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_array_makes_its_tasks_in_its_order() {
    let daemon = start().await;
    let body = json!([{"title": "a", "priority": "high"}, {"title": "b"}, {"title": "c"}]);
    let reply = daemon.call("alice", "POST /api/tasks", &body.to_string()).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let made = reply.json();
    assert_eq!(made[0]["priority"], "high");
    assert_eq!(made[2]["title"], "c");
    assert_eq!(reply.header("taskwire-position"), daemon.store.head().to_string());
    let listed = daemon.call("alice", "GET /api/tasks", "").await.json();
    assert_eq!(listed, made);
}

#[tokio::test]
async fn one_bad_task_refuses_all_and_says_where() {
    let daemon = start().await;
    let many: Value = (0..1_001).map(|_| json!({"title": "x"})).collect();
    for (body, expected) in [
        (r#"[{"title":"a"},{"title":""}]"#.to_owned(), "422 invalid_field /1/title"),
        (
            r#"[{"title":"a"},{"title":"b","labels":["x",""]}]"#.to_owned(),
            "422 invalid_field /1/labels/1",
        ),
        (r#"[{"title":"a","nope":1}]"#.to_owned(), "422 invalid_field /0/nope"),
        (r#"[{"title":"a"},1]"#.to_owned(), "422 not_an_object /1"),
        (r#"[{"title":"a","id":"mine"}]"#.to_owned(), "422 invalid_field /0/id"),
        (r#"[{"title":"a","user_id":"bob"}]"#.to_owned(), "403 other_user /0"),
        ("[]".to_owned(), "422 invalid_field"),
        (many.to_string(), "422 invalid_field"),
        (r#"[{"title":"a"}"#.to_owned(), "400 invalid_json"),
        (r#"[{"title":"a"}]]"#.to_owned(), "400 invalid_json"),
        (format!("{}{}", "[".repeat(65), "]".repeat(65)), "400 json_too_deep"),
    ] {
        let reply = daemon.call("alice", "POST /api/tasks", &body).await;
        assert_eq!(reply.outcome(), expected, "{}", &body[..body.len().min(80)]);
    }
    assert!(daemon.log.values("task-events").is_empty(), "nothing was published");
}

#[tokio::test]
async fn a_repeated_array_with_its_key_makes_its_tasks_once() {
    let daemon = start().await;
    let key = [("idempotency-key", "k")];
    let body = array(&["a", "b", "c"]).to_string();
    let first = daemon.call_with("alice", "POST /api/tasks", &key, &body).await;
    let again = daemon.call_with("alice", "POST /api/tasks", &key, &body).await;
    assert_eq!((first.status, again.status), (201, 201), "{again:?}");
    assert_eq!(first.json(), again.json());
    for other in [
        array(&["a", "b"]),
        array(&["a", "b", "c", "d"]),
        array(&["a", "x", "c"]),
        json!({"title": "a"}),
    ] {
        let reply = daemon.call_with("alice", "POST /api/tasks", &key, &other.to_string()).await;
        assert_eq!(reply.outcome(), "422 idempotency_key_reused", "{other}");
    }
    assert_eq!(titles(&daemon).await, ["a", "b", "c"]);
    let path = format!("DELETE /api/tasks/{}", first.json()[1]["id"].as_str().unwrap());
    daemon.call("alice", &path, "").await;
    let gone = daemon.call_with("alice", "POST /api/tasks", &key, &body).await;
    assert_eq!(gone.outcome(), "410 task_deleted");
}

#[tokio::test]
async fn of_two_arrays_with_one_key_one_is_made_and_nothing_of_the_other() {
    let daemon = start().await;
    let key = [("idempotency-key", "k")];
    let (one, two) = (array(&["a", "b"]).to_string(), array(&["x", "y", "z"]).to_string());
    let (first, second) = tokio::join!(
        daemon.call_with("alice", "POST /api/tasks", &key, &one),
        daemon.call_with("alice", "POST /api/tasks", &key, &two),
    );
    let (made, refused) = if first.status == 201 { (first, second) } else { (second, first) };
    assert_eq!((made.status, refused.status), (201, 422), "{refused:?}");
    assert_eq!(titles(&daemon).await.len(), made.json().as_array().unwrap().len());
}

#[tokio::test]
async fn an_array_that_is_not_decided_in_time_is_pending() {
    let daemon = start_with(|setup| setup.http.write_timeout = Duration::from_millis(50)).await;
    daemon.log.set(LogMood::Held);
    let reply = daemon.call("alice", "POST /api/tasks", &array(&["a", "b"]).to_string()).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    assert_eq!(reply.json()[1]["status"], "pending");
    let key = [("idempotency-key", "k")];
    let body = array(&["a", "b"]).to_string();
    let reply = daemon.call_with("alice", "POST /api/tasks", &key, &body).await;
    assert_eq!(reply.outcome(), "503 unavailable", "the rest was not written");
}

#[tokio::test]
async fn each_task_of_an_array_counts_as_a_request() {
    let rate = Rate::new(1, Duration::from_secs(60), 10).unwrap();
    let daemon = start_with(|setup| setup.http.limits.rate_per_user = Some(rate)).await;
    let body = array(&["x"; 11]).to_string();
    let reply = daemon.call("alice", "POST /api/tasks", &body).await;
    assert_eq!(reply.outcome(), "429 rate_limited");
}
