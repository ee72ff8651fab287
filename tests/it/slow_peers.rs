//! Peers that send, read or say nothing, slowly, by the hundred: they end, and nobody else notices.

use crate::support::{
    PATIENCE, TestDaemon, created,
    raw::{Raw, UPGRADE},
    resident_kb,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::{
    task::JoinSet,
    time::{interval, sleep, timeout},
};

/// Time-outs of seconds are for people; the rules are the same in tenths.
const FLAGS: &[&str] = &[
    "--http-header-timeout",
    "1s",
    "--http-body-timeout",
    "1s",
    "--http-answer-timeout",
    "1s",
    "--drain-timeout",
    "2s",
];

const OF_EACH_KIND: usize = 50;

/// How a peer is slow.
#[derive(Clone, Copy, Debug)]
enum Slow {
    /// Sends its headers byte by byte.
    Head,
    /// Sends its body byte by byte.
    Body,
    /// Asks for much and reads nothing.
    Reader,
    /// Says nothing.
    Silent,
}

const KINDS: [Slow; 4] = [Slow::Head, Slow::Body, Slow::Reader, Slow::Silent];

/// One slow connection, which does what it does until the daemon ends it.
async fn be_slow(kind: Slow, mut raw: Raw, request: String) {
    let drip = match kind {
        Slow::Silent => return raw.end().await,
        Slow::Reader => {
            // More than the kernel takes without a reader.
            raw.send(request.repeat(3).as_bytes()).await;
            // Only the end of the connection can be seen without reading.
            return until_cut(&raw).await;
        }
        Slow::Head => request,
        Slow::Body => {
            let head = request + "content-length: 1000000\r\n\r\n";
            raw.send(head.as_bytes()).await;
            " ".repeat(1_000)
        }
    };
    let mut ticks = interval(Duration::from_millis(50));
    for byte in drip.bytes().cycle() {
        ticks.tick().await;
        raw.send(&[byte]).await;
        if raw.is_closed().await {
            return;
        }
    }
}

/// Waits until the kernel knows of a reset.
async fn until_cut(raw: &Raw) {
    while raw.stream.take_error().expect("a socket").is_none() {
        sleep(Duration::from_millis(20)).await;
    }
}

async fn start_slow(daemon: &TestDaemon) -> JoinSet<()> {
    let mut slow = JoinSet::new();
    for kind in KINDS {
        for _ in 0..OF_EACH_KIND {
            let line = match kind {
                Slow::Head => "GET /api/tasks",
                Slow::Body => "POST /api/tasks",
                Slow::Reader | Slow::Silent => "GET /api/tasks?limit=1000",
            };
            let mut request = daemon.request_of("ada", line);
            if matches!(kind, Slow::Reader) {
                request += "\r\n";
            }
            slow.spawn(be_slow(kind, daemon.raw().await, request));
        }
    }
    slow
}

/// Tasks that make one list larger than what the kernel keeps for a reader.
async fn fill(daemon: &TestDaemon) {
    let description = "x".repeat(10_000);
    let events: Vec<Value> = (0..800)
        .map(|number| {
            let mut event = created(&format!("big-{number}"), "ada", "big");
            event["data"]["description"] = json!(description);
            event
        })
        .collect();
    for events in events.chunks(50) {
        daemon.produce(events).await;
    }
    daemon.user("ada").task("big-799").await;
}

/// The time of each of `count` requests, sorted.
async fn request_times(daemon: &TestDaemon, count: usize) -> Vec<Duration> {
    let bob = daemon.user("bob");
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        assert_eq!(bob.get("/api/tasks").await.status, 200);
        times.push(start.elapsed());
    }
    times.sort();
    times
}

async fn connections(daemon: &TestDaemon) -> u64 {
    let metrics = daemon.with_token(None).get("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.bytes).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("taskwire_http_connections "));
    line.expect("the metric").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_slow_peers_end_and_delay_nobody() {
    let daemon = TestDaemon::start_with(FLAGS).await;
    fill(&daemon).await;
    let calm = request_times(&daemon, 300).await;
    let before_kb = resident_kb(daemon.pid());
    let mut slow = start_slow(&daemon).await;
    let with_slow = request_times(&daemon, 300).await;
    let grown_kb = resident_kb(daemon.pid()).saturating_sub(before_kb);
    timeout(PATIENCE, async { while slow.join_next().await.is_some() {} })
        .await
        .expect("every slow connection is ended");
    assert_eq!(connections(&daemon).await, 1, "only the one that asks");
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100];
    let (calm, with_slow) = (p99(&calm), p99(&with_slow));
    // Generous, for a machine that does other things; benches/load measures it.
    let bound = 5 * calm + Duration::from_millis(150);
    assert!(with_slow < bound, "p99 {with_slow:?}, calm {calm:?}");
    // 64 MiB of requests and of answers, and what connections cost.
    assert!(grown_kb < 180_000, "{grown_kb} KB for 200 connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_slow_peers_do_not_hold_up_the_stop() {
    let flags = [&["--http-answer-timeout", "1h", "--http-body-timeout", "1h"][..]].concat();
    let flags = [&flags[..], &["--http-header-timeout", "1h", "--drain-timeout", "2s"]].concat();
    let mut daemon = TestDaemon::start_with(&flags).await;
    fill(&daemon).await;
    let slow = start_slow(&daemon).await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut raw = daemon.raw().await;
        let request = daemon.request_of("ada", "GET /ws/tasks?from=earliest");
        raw.send((request + &UPGRADE.join("\r\n") + "\r\n\r\n").as_bytes()).await;
        assert_eq!(raw.head().await.0, 101);
        sockets.push(raw);
    }
    let start = Instant::now();
    assert!(daemon.terminate().success(), "a clean stop");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}, with a drain of 2 s");
    drop((slow, sockets));
}
