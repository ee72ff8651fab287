//! A WebSocket that is not read harms only itself: memory is bounded, and others get theirs in time.

use crate::support::{PATIENCE, TestDaemon, created, raw::Raw, resident_kb};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const READERS: usize = 20;
const SLOW: usize = 40;
const SLOW_STREAMS: usize = 20;
const EVENTS: usize = 250;
const DESCRIPTION_BYTES: usize = 9_000;

fn event(id: &str) -> Value {
    let mut event = created(id, "ada", "big");
    event["data"]["description"] = json!("x".repeat(DESCRIPTION_BYTES));
    event
}

/// Publishes events, each when all readers have the one before; the times until the last reader has
/// it, sorted.
async fn push_times(daemon: &TestDaemon, readers: &mut [Raw], round: &str) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0..EVENTS {
        let id = format!("{round}-{number}");
        let start = Instant::now();
        daemon.produce(&[event(&id)]).await;
        for reader in &mut *readers {
            let text = reader.outcome().await;
            assert!(text.contains(&format!("\"id\":\"{id}\"")), "in order: {id}");
        }
        times.push(start.elapsed());
    }
    times.sort();
    times
}

/// Whether a socket that nobody reads is still there, and what it has is what was sent first.
async fn read_some(stream: &mut TcpStream) -> bool {
    let mut first = vec![0; 1_024];
    stream.write_all(b"").await.is_ok()
        && timeout(PATIENCE, stream.read_exact(&mut first)).await.expect("in time").is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_and_streams_that_are_not_read_cost_bounded_memory_and_delay_nobody() {
    let daemon = TestDaemon::start().await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(daemon.raw_socket("ada").await);
    }
    let calm = push_times(&daemon, &mut readers, "calm").await;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        slow.push(daemon.raw_socket("ada").await);
    }
    for _ in 0..SLOW_STREAMS {
        let mut raw = daemon.raw().await;
        let request = daemon.request_of("ada", "GET /api/events") + "\r\n";
        raw.send(request.as_bytes()).await;
        assert_eq!(raw.head().await.0, 200);
        slow.push(raw);
    }
    let before_kb = resident_kb(daemon.pid());
    let beside_slow = push_times(&daemon, &mut readers, "slow").await;
    let grown_kb = resident_kb(daemon.pid()).saturating_sub(before_kb);
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100];
    let (calm, beside_slow) = (p99(&calm), p99(&beside_slow));
    // Generous, for a machine that does other things; benches/load measures it.
    let bound = 3 * calm + Duration::from_millis(200);
    assert!(beside_slow < bound, "p99 {beside_slow:?}, calm {calm:?}");
    // What none of them has read is 135 MB; a batch of each is 64 KiB, of a stream there are three,
    // and the tasks are 2 MB.
    assert!(grown_kb < 40_000, "{grown_kb} KB for {SLOW} sockets and {SLOW_STREAMS} streams");
    for raw in &mut slow {
        assert!(read_some(&mut raw.stream).await, "patience is not over yet");
    }
}
