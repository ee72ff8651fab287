//! Records in: how many, how fast to the API, how fast to the owner's WebSocket.

use super::{
    client::{Http, Kafka},
    daemon::{Daemon, own_cpu_s},
    percentiles,
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_tungstenite::{client_async, tungstenite::Message};

const BATCH_RECORDS: usize = 500;
const IN_FLIGHT: usize = 5;
const USERS: usize = 10;

fn event(id: usize, user: usize) -> Bytes {
    format!(
        r#"{{"type":"task_created","data":{{"id":{id},"title":"load {id}","description":"load","user_id":"user-{user}","priority":"medium","due_date":null}}}}"#
    )
    .into()
}

fn now_ms() -> i64 {
    taskwire::clock::Clock::system().now_ms()
}

/// Produces `count` events as fast as they are acknowledged, and waits until apply has all.
pub(crate) async fn ingest(count: usize) -> Value {
    let daemon = Daemon::start().await;
    let mut kafka = Kafka::connect(daemon.kafka).await;
    let mut batches: Vec<Vec<Bytes>> = (0..count)
        .step_by(BATCH_RECORDS)
        .map(|first| (first..first + BATCH_RECORDS).map(|id| event(id, id % USERS)).collect())
        .rev()
        .collect();
    let (started, cpu, own) = (Instant::now(), daemon.usage().cpu_s, own_cpu_s());
    while let Some(batch) = batches.pop() {
        kafka.send("task-events", batch, now_ms()).await;
        kafka.settle(IN_FLIGHT - 1).await;
    }
    kafka.settle(0).await;
    let produced = started.elapsed();
    wait_for_last(&daemon, count).await;
    let visible = started.elapsed();
    let usage = daemon.usage();
    let seen = count_tasks(&daemon).await;
    json!({
        "events": count, "seen": seen,
        "produced_s": produced.as_secs_f64(), "visible_s": visible.as_secs_f64(),
        "events_per_s": (count as f64 / visible.as_secs_f64()).round(),
        "daemon_cpu_us_per_event": (usage.cpu_s - cpu) * 1e6 / count as f64,
        "harness_cpu_s": own_cpu_s() - own, "resident_kb": usage.resident_kb,
    })
}

async fn wait_for_last(daemon: &Daemon, count: usize) {
    let mut http = Http::connect(daemon.http).await.expect("it listens");
    let last = count - 1;
    let token = daemon.token(&format!("user-{}", last % USERS));
    while http.get(&format!("/api/tasks/{last}"), &token).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn count_tasks(daemon: &Daemon) -> usize {
    let mut http = Http::connect(daemon.http).await.expect("it listens");
    let text = String::from_utf8(http.get("/metrics", "").await.body.to_vec()).expect("text");
    let changes = text.lines().find_map(|line| line.strip_prefix("taskwire_apply_changes_total "));
    changes.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// `rate` records a second for `seconds`: produce call to acknowledgement, and to the owner's socket.
pub(crate) async fn latency(rate: u32, seconds: u32) -> Value {
    let daemon = Daemon::start().await;
    let total = usize::try_from(rate * seconds).expect("small");
    let url = format!("ws://{}/ws/tasks?token={}", daemon.http, daemon.token("user-0"));
    let tcp = TcpStream::connect(daemon.http).await.expect("it listens");
    let (mut socket, _) = client_async(url, tcp).await.expect("an upgrade");
    let (arrived, mut arrivals) = mpsc::channel(total);
    tokio::spawn(async move {
        while let Some(Ok(message)) = socket.next().await {
            if matches!(message, Message::Text(_)) && arrived.send(Instant::now()).await.is_err() {
                return;
            }
        }
    });
    let mut kafka = Kafka::connect(daemon.kafka).await;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let (mut acks, mut pushes) = (Vec::new(), Vec::new());
    for id in 0..total {
        ticks.tick().await;
        let sent = Instant::now();
        kafka.send("task-events", vec![event(id, 0)], now_ms()).await;
        kafka.acknowledged().await;
        acks.push(sent.elapsed());
        pushes.push(arrivals.recv().await.expect("a push") - sent);
    }
    json!({"rate": rate, "ack": percentiles(acks), "push": percentiles(pushes)})
}
