//! `task_due_soon` of a real daemon: once per due date, whatever is killed when.

use crate::support::{TestDaemon, created, eventually};
use serde_json::{Value, json};
use taskwire::{clock::Clock, task::time};

const SENTINEL: &str = "the last";

/// So many ms from now, as RFC 3339.
fn from_now(ms: i64) -> String {
    let mut text = Vec::new();
    time::write(Clock::system().now_ms() + ms, &mut text);
    String::from_utf8(text).expect("ASCII")
}

fn due(id: &str, due_date: &str) -> Value {
    json!({"type": "task_created",
        "data": {"id": id, "title": id, "user_id": "ada", "due_date": due_date}})
}

/// All reminders that ada was ever sent, as id and due date.
async fn reminders(daemon: &TestDaemon) -> Vec<(String, String)> {
    let title = format!("{SENTINEL} {}", from_now(0));
    daemon.produce(&[created(&title, "ada", &title)]).await;
    let mut socket = daemon.socket_from("ada", "earliest").await;
    let mut found = Vec::new();
    loop {
        let message = socket.next().await;
        let text = |name: &str| message["data"][name].as_str().unwrap_or("").to_owned();
        if text("id") == title {
            return found;
        }
        if message["type"] == "task_due_soon" {
            found.push((text("id"), text("due_date")));
        }
    }
}

/// Waits until every id of `ids` was reminded of.
async fn all_reminded(daemon: &TestDaemon, count: usize) -> Vec<(String, String)> {
    eventually("all reminders came", async || {
        Some(reminders(daemon).await).filter(|found| found.len() >= count)
    })
    .await
}

#[tokio::test]
async fn a_due_date_reminds_once_over_kills_and_changes() {
    let mut daemon = TestDaemon::start_with(&["--due-soon", "1h"]).await;
    let (soon, later, far) = (from_now(1_000_000), from_now(2_000_000), from_now(9_000_000));
    let past = from_now(-1_000);
    let ada = daemon.user("ada");
    daemon
        .produce(&[
            due("t1", &soon),
            due("far", &far),
            due("done", &far),
            due("gone", &far),
            created("undated", "ada", "x"),
        ])
        .await;
    let over = json!({"title": "over when it was set", "due_date": past});
    assert_eq!(ada.post("/api/tasks", &over).await.status, 201);
    assert_eq!(all_reminded(&daemon, 1).await, [("t1".to_owned(), soon.clone())]);
    daemon.kill_and_restart().await;
    // Done and deleted before their dates come near; t1 is due at another time.
    let ada_again = daemon.user("ada");
    assert_eq!(ada_again.post("/api/tasks/done/complete", &json!({})).await.status, 200);
    assert_eq!(ada_again.delete("/api/tasks/gone").await.status, 204);
    for id in ["done", "gone"] {
        ada_again.patch(&format!("/api/tasks/{id}"), &json!({"due_date": soon})).await;
    }
    ada_again.patch("/api/tasks/t1", &json!({"title": "other, same date"})).await;
    ada_again.patch("/api/tasks/t1", &json!({"due_date": later})).await;
    let expected = [("t1".to_owned(), soon), ("t1".to_owned(), later)];
    assert_eq!(all_reminded(&daemon, 2).await, expected);
    assert_eq!(ada.task("t1").await["version"], 3, "a reminder makes no version");
    daemon.kill_and_restart().await;
    let status = daemon.terminate();
    assert!(status.success(), "{status}");
    daemon.restart().await;
    assert_eq!(reminders(&daemon).await, expected);
}

#[tokio::test]
async fn a_kill_while_dates_come_near_makes_no_reminder_twice_and_loses_none() {
    let mut daemon = TestDaemon::start_with(&["--due-soon", "1ms"]).await;
    let tasks: Vec<Value> =
        (0..40).map(|n| due(&format!("t{n}"), &from_now(1_000 + 50 * n))).collect();
    daemon.produce(&tasks).await;
    for round in 1..=3 {
        all_reminded(&daemon, round * 10).await;
        daemon.kill_and_restart().await;
    }
    let mut found = all_reminded(&daemon, 40).await;
    daemon.kill_and_restart().await;
    assert_eq!(reminders(&daemon).await, found);
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 40);
}

#[tokio::test]
async fn off_is_off() {
    let daemon = TestDaemon::start_with(&["--due-soon", "0"]).await;
    daemon.produce(&[due("t1", &from_now(1_500))]).await;
    let other = TestDaemon::start_with(&["--due-soon", "1h"]).await;
    other.produce(&[due("t1", &from_now(1_500))]).await;
    // The one that is on has looked in the meantime, and so has the other.
    all_reminded(&other, 1).await;
    assert_eq!(reminders(&daemon).await, []);
}
