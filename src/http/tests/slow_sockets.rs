//! WebSockets whose peers say nothing, or read nothing.

use super::support::{Daemon, SOON, start_with};
use crate::http::SocketLimits;
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

const SHORT: Duration = Duration::from_millis(200);

async fn start(change: impl FnOnce(&mut SocketLimits)) -> Daemon {
    start_with(|setup| change(&mut setup.http.limits.socket)).await
}

/// A socket whose client does nothing by itself, as a library would.
async fn raw(daemon: &Daemon, token: &str) -> TcpStream {
    let socket = daemon.socket(&format!("/ws/tasks?token={token}")).await.unwrap();
    socket.0.into_inner()
}

/// Many changes of alice's, more than the kernel keeps for who does not read.
async fn flood(daemon: &Daemon) {
    let description = "x".repeat(9_000);
    for _ in 0..200 {
        let body = json!({"title": "big", "description": description});
        let reply = daemon.call("alice", "POST /api/tasks", &body.to_string()).await;
        assert_eq!(reply.status, 201);
    }
}

/// Waits until so many sessions are open.
async fn sessions(daemon: &Daemon, count: i64) {
    let reached = timeout(SOON, async {
        while daemon.metrics.hub_sessions.get() != count {
            tokio::time::sleep(SHORT / 20).await;
        }
    });
    reached.await.expect("in time");
}

async fn is_reset(mut stream: TcpStream) -> bool {
    timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("it ends").is_err()
}

#[tokio::test]
async fn a_silent_peer_is_told_that_its_pong_is_missing_and_then_reset() {
    let daemon = start(|limits| {
        limits.ping_interval = SHORT;
        limits.pong_timeout = SHORT;
        limits.close_timeout = SHORT;
    })
    .await;
    let mut silent = raw(&daemon, &daemon.token("alice")).await;
    let mut frames = [0; 6];
    timeout(SOON, silent.read_exact(&mut frames)).await.expect("in time").unwrap();
    let [high, low] = 4512_u16.to_be_bytes();
    assert_eq!(frames[..2], [0x89, 0], "a ping");
    assert_eq!((frames[2], &frames[4..]), (0x88, &[high, low][..]), "and then a close");
    sessions(&daemon, 0).await;
    assert!(is_reset(silent).await, "since it does not answer that either");

    let mut answers = raw(&daemon, &daemon.token("alice")).await;
    for _ in 0..5 {
        let mut ping = [0; 2];
        timeout(SOON, answers.read_exact(&mut ping)).await.expect("in time").unwrap();
        assert_eq!(ping, [0x89, 0]);
        answers.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_reset_and_others_are_not() {
    let daemon = start(|limits| limits.write_timeout = SHORT).await;
    let token = daemon.token("alice");
    let (blocked, mut reads) = (raw(&daemon, &token).await, raw(&daemon, &token).await);
    let reading = tokio::spawn(async move {
        let mut scratch = vec![0; 64 * 1_024];
        let mut bytes = 0;
        while bytes < 200 * 9_000 {
            bytes += reads.read(&mut scratch).await.unwrap();
        }
        reads
    });
    flood(&daemon).await;
    sessions(&daemon, 1).await;
    assert!(is_reset(blocked).await);
    drop(timeout(SOON, reading).await.expect("all of it").unwrap());
}

#[tokio::test]
async fn a_peer_that_reads_again_in_time_is_told_that_it_was_slow() {
    let daemon = start(|limits| {
        limits.write_timeout = SHORT;
        limits.close_timeout = SOON;
    })
    .await;
    let mut slow = daemon.socket_of("alice").await;
    flood(&daemon).await;
    sessions(&daemon, 0).await;
    let code = loop {
        match slow.next().await {
            Message::Text(_) => (),
            Message::Close(Some(frame)) => break u16::from(frame.code),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 4508);
}

#[tokio::test]
async fn no_peer_outlives_its_token_by_reading_nothing() {
    let daemon = start(|limits| limits.close_timeout = SHORT).await;
    let token = daemon.token_for("alice", 4);
    let blocked = raw(&daemon, &token).await;
    flood(&daemon).await;
    // The write timeout is a minute, and this waits for a third of it.
    sessions(&daemon, 0).await;
    assert!(is_reset(blocked).await, "4401 would not get through");
}

#[tokio::test]
async fn an_expired_token_is_told_and_then_reset() {
    let daemon = start(|limits| limits.close_timeout = SHORT).await;
    let mut silent = raw(&daemon, &daemon.token_for("alice", 1)).await;
    let mut close = [0; 4];
    timeout(SOON, silent.read_exact(&mut close)).await.expect("in time").unwrap();
    assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 4401));
    assert!(is_reset(silent).await, "it does not answer the close");
    sessions(&daemon, 0).await;
}
