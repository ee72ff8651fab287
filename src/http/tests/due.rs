//! Reminders under a clock that jumps.

use super::support::{Daemon, start_with};
use crate::{clock::Clock, task::time};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

const START_MS: i64 = 1_700_000_000_000;
const HOUR_MS: i64 = 3_600_000;

async fn daemon() -> Daemon {
    start_with(|setup| {
        setup.clock = Clock::manual(START_MS);
        setup.due_soon = Some(Duration::from_secs(3_600));
    })
    .await
}

async fn create(daemon: &Daemon, due_ms: i64) {
    let mut due = Vec::new();
    time::write(due_ms, &mut due);
    let body = json!({"title": "x", "due_date": String::from_utf8(due).unwrap()});
    let reply = daemon.call("ada", "POST /api/tasks", &body.to_string()).await;
    assert_eq!(reply.status, 201, "{reply:?}");
}

fn reminders(daemon: &Daemon) -> Vec<Value> {
    let mut values = daemon.log.values("task-events");
    values.retain(|value| value["type"] == "task_due_soon");
    values
}

/// Waits until so many reminders are published and the store has none left to make.
async fn settled(daemon: &Daemon, count: usize, before_ms: i64) {
    let all = async {
        while reminders(daemon).len() < count
            || !daemon.store.due_before(before_ms, 1).await.unwrap().is_empty()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("reminders in time");
}

#[tokio::test]
async fn a_clock_that_jumps_reminds_of_each_date_once() {
    let daemon = daemon().await;
    for hours in 2..12 {
        create(&daemon, START_MS + hours * HOUR_MS).await;
    }
    // Forward, over all dates but the last two.
    let now_ms = START_MS + 9 * HOUR_MS - 1;
    daemon.clock.set(now_ms);
    settled(&daemon, 8, now_ms + HOUR_MS).await;
    let ids = |values: &[Value]| -> BTreeSet<String> {
        values.iter().map(|value| value["event_id"].as_str().unwrap().to_owned()).collect()
    };
    let found = reminders(&daemon);
    assert_eq!((found.len(), ids(&found).len()), (8, 8), "{found:?}");
    assert_eq!(found[0]["data"]["title"], "x");
    // Backward, and there again: those that were made are made.
    daemon.clock.set(START_MS - 5 * HOUR_MS + 1);
    create(&daemon, START_MS - 4 * HOUR_MS).await;
    settled(&daemon, 9, START_MS - 4 * HOUR_MS + 1).await;
    daemon.clock.set(now_ms + HOUR_MS);
    settled(&daemon, 10, now_ms + 2 * HOUR_MS).await;
    assert_eq!((reminders(&daemon).len(), ids(&reminders(&daemon)).len()), (10, 10));
}

#[tokio::test]
async fn what_comes_due_at_once_is_told_of_at_a_bounded_rate() {
    let daemon = daemon().await;
    let tasks: Value =
        (0..600).map(|_| json!({"title": "x", "due_date": "2023-11-15T00:00:00Z"})).collect();
    let reply = daemon.call("ada", "POST /api/tasks", &tasks.to_string()).await;
    assert_eq!(reply.status, 201);
    daemon.clock.set(START_MS + 1_000 * HOUR_MS);
    settled(&daemon, 500, 0).await;
    assert_eq!(reminders(&daemon).len(), 500, "one look");
    settled(&daemon, 600, i64::MAX).await;
    assert_eq!(reminders(&daemon).len(), 600);
}
