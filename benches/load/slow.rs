//! What readers that do not read cost the others.

use super::{
    client::{Kafka, upgrade},
    daemon::Daemon,
    percentiles,
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet, time::interval};
use tokio_tungstenite::{client_async, tungstenite::Message};

const READERS: usize = 900;
const SLOW: usize = 100;
const ROUNDS: usize = 5;
const EVENTS: usize = 50;
/// Events before the rounds: more than the kernel keeps for a reader.
const EARLIER: usize = 400;
const EVENTS_PER_S: u32 = 10;

fn event(id: usize) -> Bytes {
    let description = "x".repeat(2_000);
    format!(
        r#"{{"type":"task_created","data":{{"id":"slow-{id}","title":"t","description":"{description}","user_id":"ada"}}}}"#
    )
    .into()
}

/// Rounds without and with sockets that are not read, in turn, in one run: the time from an event's
/// way to the log to each of the others' sockets.
pub(crate) async fn slow_reader() -> Value {
    let daemon = Daemon::start().await;
    let mut kafka = Kafka::connect(daemon.kafka).await;
    for id in 0..EARLIER {
        kafka.send("task-events", vec![event(id)], 1).await;
        kafka.acknowledged().await;
    }
    let total = 2 * ROUNDS * EVENTS;
    let sent = Arc::new(Mutex::new(Vec::with_capacity(total)));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let reader = reader(&daemon, Arc::clone(&sent), total).await;
        readers.spawn(reader);
    }
    let mut resident_kb = [0, 0];
    for round in 0..2 * ROUNDS {
        let mut slow = Vec::new();
        if round % 2 == 1 {
            for _ in 0..SLOW {
                slow.push(unread(&daemon).await);
            }
            tokio::time::sleep(Duration::from_secs(2)).await; // they fill, and block
        }
        let mut ticks = interval(Duration::from_secs(1) / EVENTS_PER_S);
        for number in 0..EVENTS {
            ticks.tick().await;
            let id = EARLIER + round * EVENTS + number;
            sent.lock().expect("no holder panics").push(Instant::now());
            kafka.send("task-events", vec![event(id)], 1).await;
            kafka.acknowledged().await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await; // the last one arrives
        let most = &mut resident_kb[round % 2];
        *most = daemon.usage().resident_kb.max(*most);
        drop(slow);
        tokio::time::sleep(Duration::from_secs(1)).await; // the daemon sees that they are gone
    }
    let mut samples = [Vec::new(), Vec::new()];
    while let Some(times) = readers.join_next().await {
        for (index, time) in times.expect("a reader").into_iter().enumerate() {
            samples[index / EVENTS % 2].push(time);
        }
    }
    let [calm, beside_slow] = samples.map(percentiles);
    let p99 = |of: &Value| of["p99_ms"].as_f64().expect("a number");
    json!({
        "readers": READERS, "slow": SLOW, "calm": calm, "beside_slow": beside_slow,
        "p99_ratio": p99(&beside_slow) / p99(&calm),
        "calm_resident_kb": resident_kb[0], "beside_slow_resident_kb": resident_kb[1],
    })
}

/// Reads `total` messages of its socket, and tells how long each was on its way.
async fn reader(
    daemon: &Daemon,
    sent: Arc<Mutex<Vec<Instant>>>,
    total: usize,
) -> impl Future<Output = Vec<Duration>> + Send + 'static {
    let url = format!("ws://{}/ws/tasks?token={}", daemon.http, daemon.token("ada"));
    let tcp = TcpStream::connect(daemon.http).await.expect("it listens");
    let (mut socket, _) = client_async(url, tcp).await.expect("an upgrade");
    async move {
        let mut times = Vec::with_capacity(total);
        while times.len() < total {
            if let Message::Text(_) = socket.next().await.expect("open").expect("a frame") {
                let at = sent.lock().expect("no holder panics")[times.len()];
                times.push(at.elapsed());
            }
        }
        times
    }
}

/// A socket that has much to read, and reads nothing.
async fn unread(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.http).await.expect("it listens");
    let query = format!("from=earliest&token={}", daemon.token("ada"));
    let request = upgrade(daemon.http, &query);
    stream.write_all(request.as_bytes()).await.expect("taken");
    stream
}
