//! `/ws/tasks`.

use super::support::{SOON, start, start_with};
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn changes_reach_their_user_and_nobody_else() {
    let daemon = start().await;
    let (mut alice, mut bob) = (daemon.socket_of("alice").await, daemon.socket_of("bob").await);
    let created = daemon.call("alice", "POST /api/tasks", r#"{"title":"a"}"#).await;
    let task = created.json();
    let message = alice.json().await;
    assert_eq!(message["type"], "task_created");
    assert_eq!(message["data"], task);
    assert!(message["pos"].is_string() && message["event_id"].is_string(), "{message}");
    assert!(message["time"].is_string(), "{message}");
    let path = created.header("location").to_owned();
    daemon.call("alice", &format!("PATCH {path}"), r#"{"priority":"high"}"#).await;
    assert_eq!(alice.json().await["type"], "task_priority_changed");
    daemon.call("alice", &format!("DELETE {path}"), "").await;
    let deleted = alice.json().await;
    let expected = json!({"id": task["id"], "user_id": "alice", "version": 3});
    assert_eq!((&deleted["type"], &deleted["data"]), (&json!("task_deleted"), &expected));
    daemon.call("bob", "POST /api/tasks", r#"{"title":"b"}"#).await;
    assert_eq!(bob.json().await["data"]["title"], "b", "his own is his first");
    let stats = daemon.request("GET /ws/stats", &[], "").await.json();
    assert_eq!((&stats["total_connections"], &stats["user_connections"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn ping_is_answered_and_other_text_is_passed_over() {
    let daemon = start().await;
    let mut socket = daemon.socket_of("alice").await;
    for text in ["nonsense", "", "[1,2]", "ping"] {
        socket.send(Message::text(text)).await;
    }
    assert_eq!(socket.json().await, json!({"type": "pong"}));
    socket.send(Message::Ping("x".into())).await;
    assert_eq!(socket.next().await, Message::Pong("x".into()));
    socket.send(Message::text("{\"type\":\"ping\"}")).await;
    assert_eq!(socket.json().await, json!({"type": "pong"}));
    socket.send(Message::Close(None)).await;
    assert_eq!(socket.next().await, Message::Close(None));
}

#[tokio::test]
async fn a_socket_resumes_where_it_was() {
    let daemon = start().await;
    let token = daemon.token("alice");
    let mut first = daemon.socket_of("alice").await;
    daemon.call("alice", "POST /api/tasks", r#"{"title":"1"}"#).await;
    let seen = first.json().await["pos"].as_str().unwrap().to_owned();
    drop(first);
    for title in ["2", "3"] {
        daemon.call("alice", "POST /api/tasks", &json!({"title": title}).to_string()).await;
        daemon.call("bob", "POST /api/tasks", &json!({"title": title}).to_string()).await;
    }
    for (from, expected) in [(seen.as_str(), "23"), ("earliest", "123")] {
        let target = format!("/ws/tasks?token={token}&from={from}");
        let mut socket = daemon.socket(&target).await.unwrap();
        let mut titles = String::new();
        while titles.len() < expected.len() {
            titles.push_str(socket.json().await["data"]["title"].as_str().unwrap());
        }
        assert_eq!(titles, expected, "{from}");
    }
    let target = format!("/ws/tasks?token={token}&from=abc.0.1");
    let mut lost = daemon.socket(&target).await.unwrap();
    let message = lost.json().await;
    assert_eq!(message["type"], "resync");
    assert_eq!(message["pos"], daemon.store.head().to_string());
    daemon.call("alice", "POST /api/tasks", r#"{"title":"4"}"#).await;
    assert_eq!(lost.json().await["data"]["title"], "4");
    for bad in ["nonsense", "", "1.2", "-1.0.0"] {
        let target = format!("/ws/tasks?token={token}&from={bad}");
        assert_eq!(daemon.socket(&target).await.err(), Some(400), "{bad}");
    }
}

#[tokio::test]
async fn the_handshake_is_checked() {
    let daemon = start().await;
    let token = daemon.token("alice");
    let good = format!("/ws/tasks?token={token}");
    assert_eq!(daemon.socket("/ws/tasks?token=nonsense").await.err(), Some(401));
    assert_eq!(daemon.socket("/ws/tasks?token=").await.err(), Some(401));
    assert_eq!(daemon.socket("/ws/tasks?user=dev&token=x").await.err(), Some(401));
    let bearer = format!("Bearer {token}");
    let by_header = daemon.socket_with("/ws/tasks", &[("authorization", &bearer)]).await;
    assert!(by_header.is_ok());
    let bad = [("authorization", "Bearer nonsense")];
    assert_eq!(daemon.socket_with(&good, &bad).await.err(), Some(401), "the header goes first");
    let evil = [("origin", "http://evil.example")];
    assert_eq!(daemon.socket_with(&good, &evil).await.err(), Some(403));
    assert!(daemon.socket_with(&good, &[("origin", "http://localhost:5173")]).await.is_ok());
    let base = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let version = ("sec-websocket-version", "13");
    for (headers, expected) in [
        (vec![base[0], base[1], key, ("sec-websocket-version", "8")], "426 upgrade_required"),
        (vec![base[0], base[1], key], "426 upgrade_required"),
        (vec![base[0], key, version], "426 upgrade_required"),
        (vec![base[0], base[1], version], "400 invalid_header"),
        (vec![base[0], base[1], version, ("sec-websocket-key", "short")], "400 invalid_header"),
    ] {
        let reply = daemon.request(&format!("GET {good}"), &headers, "").await;
        assert_eq!(reply.outcome(), expected, "{headers:?}");
    }
    let all = [base[0], base[1], key, version];
    assert_eq!(daemon.request(&format!("HEAD {good}"), &all, "").await.status, 426);
    let reply = daemon.request(&format!("GET {good}"), &[base[0], base[1], key], "").await;
    assert_eq!(reply.header("sec-websocket-version"), "13");
}

#[tokio::test]
async fn development_mode_names_a_user() {
    let daemon = start_with(|setup| setup.is_development = true).await;
    let mut dev = daemon.socket("/ws/tasks").await.unwrap();
    let mut bob = daemon.socket("/ws/tasks?user=bob").await.unwrap();
    assert_eq!(daemon.socket("/ws/tasks?token=nonsense&user=bob").await.err(), Some(401));
    daemon.request("POST /api/tasks?user=bob", &[], r#"{"title":"b"}"#).await;
    daemon.request("POST /api/tasks", &[], r#"{"title":"d"}"#).await;
    assert_eq!(bob.json().await["data"]["title"], "b");
    assert_eq!(dev.json().await["data"]["title"], "d");
}

#[tokio::test]
async fn a_socket_closes_when_its_token_expires() {
    let daemon = start().await;
    let token = daemon.token_for("alice", 1);
    let mut socket = daemon.socket(&format!("/ws/tasks?token={token}")).await.unwrap();
    assert_eq!(socket.close_code().await, 4401);
}

#[tokio::test]
async fn sockets_above_the_limit_are_told_not_to_come_back() {
    let daemon = start_with(|setup| setup.sessions_per_user_max = 1).await;
    let first = daemon.socket_of("alice").await;
    let mut second = daemon.socket_of("alice").await;
    assert_eq!(second.close_code().await, 4409);
    daemon.socket_of("bob").await;
    drop(first);
}

#[tokio::test]
async fn bad_frames_close_with_their_code() {
    let daemon = start().await;
    let mut socket = daemon.socket_of("alice").await;
    socket.send(Message::text("x".repeat(64 * 1_024 + 1))).await;
    assert_eq!(socket.close_code().await, 1009);
    let mut socket = daemon.socket_of("alice").await;
    // Text of one byte that is no UTF-8, under the mask 0.
    socket.0.get_mut().write_all(&[0x81, 0x81, 0, 0, 0, 0, 0xff]).await.unwrap();
    assert_eq!(socket.close_code().await, 1007);
    let mut socket = daemon.socket_of("alice").await;
    // Not masked.
    socket.0.get_mut().write_all(&[0x81, 0x01, b'x']).await.unwrap();
    assert_eq!(socket.close_code().await, 1002);
}

#[tokio::test]
async fn a_stop_closes_sockets_and_lets_requests_end() {
    let daemon = start_with(|setup| setup.drain = Duration::from_secs(2)).await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(daemon.socket_of("alice").await);
    }
    let mut idle = TcpStream::connect(daemon.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 16];
    idle.read_exact(&mut first).await.unwrap();
    daemon.stop();
    for socket in &mut sockets {
        assert_eq!(socket.close_code().await, 1001);
    }
    let mut rest = Vec::new();
    timeout(SOON, idle.read_to_end(&mut rest)).await.unwrap().unwrap();
    let address = daemon.address;
    daemon.stopped().await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn a_slow_reader_delays_nobody() {
    let daemon = start().await;
    let slow = daemon.socket_of("alice").await;
    let mut quick = daemon.socket_of("alice").await;
    let description = "x".repeat(9_000);
    // More than the kernel keeps for the slow one.
    for index in 0..600 {
        let body = json!({"title": index.to_string(), "description": description});
        let reply = daemon.call("alice", "POST /api/tasks", &body.to_string()).await;
        assert_eq!(reply.status, 201);
        assert_eq!(quick.json().await["data"]["title"], index.to_string());
    }
    let mut slow = slow;
    for index in 0..600 {
        assert_eq!(slow.json().await["data"]["title"], index.to_string(), "in order, once");
    }
}
