//! `GET /api/changes`.

use super::support::{Daemon, start};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn create(daemon: &Daemon, user: &str, title: &str) {
    let reply = daemon.call(user, "POST /api/tasks", &json!({"title": title}).to_string()).await;
    assert_eq!(reply.status, 201);
}

async fn poll(daemon: &Daemon, user: &str, query: &str) -> Value {
    let reply = daemon.call(user, &format!("GET /api/changes?{query}"), "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), "application/json");
    reply.json()
}

fn titles(answer: &Value) -> Vec<&str> {
    let changes = answer["changes"].as_array().unwrap();
    changes.iter().map(|change| change["data"]["title"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn changes_come_in_pages_of_the_callers_own() {
    let daemon = start().await;
    let empty = poll(&daemon, "alice", "since=earliest").await;
    assert_eq!((titles(&empty).len(), &empty["more"]), (0, &json!(false)));
    for title in ["1", "2", "3", "4", "5"] {
        create(&daemon, "alice", title).await;
        create(&daemon, "bob", "b").await;
    }
    let mut since = "earliest".to_owned();
    for expected in [&["1", "2"][..], &["3", "4"], &["5"], &[]] {
        let answer = poll(&daemon, "alice", &format!("since={since}&limit=2")).await;
        assert_eq!(titles(&answer), expected);
        if expected.len() == 2 {
            assert_eq!(answer["more"], true);
        }
        since = answer["pos"].as_str().unwrap().to_owned();
    }
    assert_eq!(since, daemon.store.head().to_string(), "others' changes are passed over");
    let whole = poll(&daemon, "alice", "since=earliest").await;
    assert_eq!((titles(&whole).len(), &whole["more"]), (5, &json!(false)));
    let of_bob = whole["changes"][0]["pos"].as_str().unwrap();
    let answer = poll(&daemon, "bob", &format!("since={of_bob}")).await;
    assert_eq!(titles(&answer), ["b"; 5], "another's position gives only one's own");
}

#[tokio::test]
async fn a_poll_waits_for_a_change_and_no_longer_than_it_may() {
    let daemon = start().await;
    let start = Instant::now();
    let since = format!("since={}&wait=1", daemon.store.head());
    let answer = poll(&daemon, "alice", &since).await;
    assert!(titles(&answer).is_empty() && start.elapsed() >= Duration::from_secs(1));
    let line = format!("since={}&wait=30", daemon.store.head());
    let write = async {
        while daemon.metrics.hub_sessions.get() == 0 {
            tokio::task::yield_now().await;
        }
        create(&daemon, "bob", "b").await;
        create(&daemon, "alice", "a").await;
    };
    let (answer, ()) = tokio::join!(poll(&daemon, "alice", &line), write);
    assert_eq!(titles(&answer), ["a"]);
    let start = Instant::now();
    let bearer = format!("Bearer {}", daemon.token_for("alice", 1));
    let line = format!("GET /api/changes?since={}&wait=30", daemon.store.head());
    let reply = daemon.request(&line, &[("authorization", &bearer)], "").await;
    assert_eq!(reply.status, 200);
    assert!(start.elapsed() < Duration::from_secs(15), "it ends with its token");
}

#[tokio::test]
async fn a_position_that_cannot_be_placed_is_gone_and_garbage_is_refused() {
    let daemon = start().await;
    create(&daemon, "alice", "a").await;
    let head = daemon.store.head();
    let future = format!("{:x}.{}.{}", head.epoch, head.run, head.sequence + 1);
    for since in ["abc.0.1", future.as_str()] {
        let reply = daemon.call("alice", &format!("GET /api/changes?since={since}"), "").await;
        assert_eq!(reply.outcome(), "410 resync");
        assert_eq!(reply.json()["pos"], head.to_string());
    }
    for query in ["since=nonsense", "since=", "wait=1", "since=earliest&wait=31"] {
        let reply = daemon.call("alice", &format!("GET /api/changes?{query}"), "").await;
        assert_eq!(reply.outcome(), "400 invalid_parameter", "{query}");
    }
}
