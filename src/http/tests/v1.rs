//! `taskwire.v1` on `/ws/tasks`.

use super::support::{Client, Daemon, SOON, start, start_with};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

const V1: (&str, &str) = ("sec-websocket-protocol", "taskwire.v1");

/// A socket of alice's with a query of its own.
async fn open(daemon: &Daemon, query: &str) -> Client {
    let target = format!("/ws/tasks?token={}&{query}", daemon.token("alice"));
    daemon.socket_with(&target, &[V1]).await.unwrap()
}

async fn create(daemon: &Daemon, user: &str, title: &str) -> Value {
    let reply = daemon.call(user, "POST /api/tasks", &json!({"title": title}).to_string()).await;
    assert_eq!(reply.status, 201);
    reply.json()
}

/// The types of what comes up to and with one of them.
async fn types_until(socket: &mut Client, last: &str) -> Vec<String> {
    let mut types = Vec::new();
    while types.last().is_none_or(|kind| kind != last) {
        types.push(socket.json().await["type"].as_str().unwrap().to_owned());
    }
    types
}

/// The tasks of a snapshot, and its position.
async fn snapshot(socket: &mut Client) -> (Vec<Value>, String) {
    let mut tasks = Vec::new();
    loop {
        let part = socket.json().await;
        assert_eq!(part["type"], "snapshot", "{part}");
        tasks.extend(part["data"]["tasks"].as_array().unwrap().iter().cloned());
        assert!(part.to_string().len() <= 256 * 1_024);
        if part["data"]["more"] == false {
            return (tasks, part["pos"].as_str().unwrap().to_owned());
        }
    }
}

#[tokio::test]
async fn a_session_begins_with_hello_and_then_is_live() {
    let daemon = start().await;
    let mut socket = open(&daemon, "").await;
    let hello = socket.json().await;
    assert_eq!((&hello["type"], &hello["data"]["user_id"]), (&json!("hello"), &json!("alice")));
    assert_eq!(hello["data"]["protocol"], "taskwire.v1");
    assert_eq!(hello["data"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(hello["pos"], daemon.store.head().to_string());
    assert!(hello["data"]["expires_at"].as_str().unwrap().ends_with('Z'), "{hello}");
    let mut other = open(&daemon, "").await;
    assert_ne!(other.json().await["data"]["session"], hello["data"]["session"]);
    assert_eq!(socket.json().await["type"], "live");
    create(&daemon, "alice", "a").await;
    assert_eq!(socket.json().await["type"], "task_created");
    socket.send(Message::text("{\"type\":\"ping\"}")).await;
    assert_eq!(socket.json().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn a_replay_ends_in_live() {
    let daemon = start().await;
    for title in ["1", "2"] {
        create(&daemon, "alice", title).await;
        create(&daemon, "bob", title).await;
    }
    let mut socket = open(&daemon, "from=earliest").await;
    let types = types_until(&mut socket, "live").await;
    assert_eq!(types, ["hello", "task_created", "task_created", "live"]);
    for bad in ["from=nonsense", "from=earliest&or=all", "or="] {
        let target = format!("/ws/tasks?token={}&{bad}", daemon.token("alice"));
        assert_eq!(daemon.socket_with(&target, &[V1]).await.err(), Some(400), "{bad}");
        let refused = daemon.socket(&target).await.err();
        assert_eq!(refused, bad.contains("nonsense").then_some(400), "`or` is of taskwire.v1");
    }
    let target = format!("/ws/tasks?token={}&from=snapshot", daemon.token("alice"));
    assert_eq!(daemon.socket(&target).await.err(), Some(400), "only in taskwire.v1");
}

#[tokio::test]
async fn a_snapshot_has_the_tasks_in_parts_and_then_the_changes() {
    let daemon = start().await;
    let mut none = open(&daemon, "from=snapshot").await;
    assert_eq!(none.json().await["type"], "hello");
    assert_eq!(snapshot(&mut none).await.0, Vec::<Value>::new());
    assert_eq!(none.json().await["type"], "live");
    let description = "\u{20ac}".repeat(9_000);
    for index in 0..30 {
        let body = json!({"title": index.to_string(), "description": description});
        daemon.call("alice", "POST /api/tasks", &body.to_string()).await;
        create(&daemon, "bob", "b").await;
    }
    let mut socket = open(&daemon, "from=snapshot").await;
    assert_eq!(socket.json().await["type"], "hello");
    let (tasks, position) = snapshot(&mut socket).await;
    let list = daemon.call("alice", "GET /api/tasks", "").await.json();
    assert_eq!(Value::from(tasks), list);
    assert_eq!(position, daemon.store.head().to_string());
    assert_eq!(socket.json().await["type"], "live");
    create(&daemon, "alice", "next").await;
    assert_eq!(socket.json().await["data"]["title"], "next");
}

#[tokio::test]
async fn a_position_that_cannot_be_placed_gives_a_resync_and_a_snapshot_if_that_is_wanted() {
    let daemon = start().await;
    create(&daemon, "alice", "a").await;
    let head = daemon.store.head();
    let future = format!("{:x}.{}.{}", head.epoch, head.run, head.sequence + 1);
    for from in ["abc.0.1", future.as_str()] {
        let mut socket = open(&daemon, &format!("from={from}")).await;
        assert_eq!(types_until(&mut socket, "live").await, ["hello", "resync", "live"]);
        let mut socket = open(&daemon, &format!("from={from}&or=snapshot")).await;
        let types = types_until(&mut socket, "live").await;
        assert_eq!(types, ["hello", "resync", "snapshot", "snapshot", "live"]);
    }
    let mut placed = open(&daemon, &format!("from={head}&or=snapshot")).await;
    assert_eq!(types_until(&mut placed, "live").await, ["hello", "live"]);
}

#[tokio::test]
async fn the_first_frame_may_have_the_token_and_where_to_start() {
    let daemon = start().await;
    create(&daemon, "alice", "a").await;
    let auth = |more: Value| {
        let mut data = json!({"token": daemon.token("alice")});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Message::text(json!({"type": "auth", "data": data}).to_string())
    };
    for (query, more, expected) in [
        ("", json!({}), "hello live"),
        ("?from=earliest", json!({}), "hello task_created live"),
        ("?from=snapshot", json!({"from": "earliest"}), "hello task_created live"),
        ("", json!({"from": "snapshot"}), "hello snapshot snapshot live"),
        ("?from=a.0.1", json!({"or": "snapshot"}), "hello resync snapshot snapshot live"),
    ] {
        let mut socket = daemon.socket_with(&format!("/ws/tasks{query}"), &[V1]).await.unwrap();
        socket.send(auth(more.clone())).await;
        assert_eq!(types_until(&mut socket, "live").await.join(" "), expected, "{query} {more}");
    }
    for more in [json!({"from": "x"}), json!({"from": 7}), json!({"or": "x"})] {
        let mut socket = daemon.socket_with("/ws/tasks", &[V1]).await.unwrap();
        socket.send(auth(more)).await;
        assert_eq!(socket.close_code().await, 4400);
    }
    let mut socket = daemon.socket_with("/ws/tasks", &[V1]).await.unwrap();
    socket.send(Message::text("ping")).await;
    assert_eq!(socket.close_code().await, 4401);
}

#[tokio::test]
async fn a_token_that_expires_soon_is_told_and_renewed_in_band() {
    let daemon = start().await;
    let target = format!("/ws/tasks?token={}", daemon.token_for("alice", 3));
    let mut socket = daemon.socket_with(&target, &[V1]).await.unwrap();
    assert_eq!(
        types_until(&mut socket, "token_expiring").await,
        ["hello", "live", "token_expiring"]
    );
    let renewal = json!({"type": "auth", "data": {"token": daemon.token_for("alice", 2)}});
    socket.send(Message::text(renewal.to_string())).await;
    let answer = socket.json().await;
    assert_eq!(answer["type"], "auth_ok");
    assert!(answer["data"]["expires_at"].is_string(), "{answer}");
    assert_eq!(socket.json().await["type"], "token_expiring", "of the new one");
    assert_eq!(socket.close_code().await, 4401);
    let mut socket = open(&daemon, "").await;
    types_until(&mut socket, "live").await;
    let other = json!({"type": "auth", "data": {"token": daemon.token("bob")}});
    socket.send(Message::text(other.to_string())).await;
    assert_eq!(socket.close_code().await, 4401, "another user's");
}

#[tokio::test]
async fn a_stop_is_told_before_the_close() {
    let daemon = start_with(|setup| setup.drain = Duration::from_secs(2)).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let mut socket = open(&daemon, "").await;
        types_until(&mut socket, "live").await;
        sockets.push(socket);
    }
    let mut waits = daemon.socket_with("/ws/tasks", &[V1]).await.unwrap();
    daemon.stop();
    let mut after = Vec::new();
    for socket in &mut sockets {
        let drain = socket.json().await;
        assert_eq!(drain["type"], "drain");
        after.push(drain["data"]["reconnect_after_ms"].as_u64().unwrap());
        assert_eq!(socket.close_code().await, 4503);
    }
    assert_eq!(waits.close_code().await, 4503);
    after.sort_unstable();
    after.dedup();
    assert_eq!(after.len(), 5, "they do not all come at once");
}

#[tokio::test]
async fn a_subprotocol_is_answered_only_where_it_is_spoken() {
    let daemon = start().await;
    let token = daemon.token("alice");
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nhost: localhost\r\n";
    let bearer = format!("taskwire.bearer.{token}");
    for (asked, expected) in [
        (format!("taskwire.v1, {bearer}"), Some("taskwire.v1")),
        (format!("{bearer},taskwire.v1"), Some("taskwire.v1")),
        (format!("graphql, {bearer}"), None),
        (bearer, None),
    ] {
        let head =
            format!("GET /ws/tasks HTTP/1.1\r\n{upgrade}sec-websocket-protocol: {asked}\r\n");
        let mut stream = tokio::net::TcpStream::connect(daemon.address).await.unwrap();
        let mut answer = vec![0; 512];
        tokio::io::AsyncWriteExt::write_all(&mut stream, format!("{head}\r\n").as_bytes())
            .await
            .unwrap();
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut answer);
        let read = timeout(SOON, read).await.unwrap().unwrap();
        let head = String::from_utf8_lossy(&answer[..read]).to_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        let chosen = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(chosen, expected, "{asked}");
        assert!(!head.contains(&token.to_lowercase()), "a token is never sent back");
    }
}

#[tokio::test]
async fn a_session_too_far_behind_is_told_that_it_is_slow() {
    let daemon = start_with(|setup| setup.http.limits.socket.lag_max = Some(20)).await;
    let mut socket = open(&daemon, "from=earliest").await;
    types_until(&mut socket, "live").await;
    let description = "x".repeat(9_000);
    for index in 0..400 {
        let body = json!({"title": index.to_string(), "description": description});
        assert_eq!(daemon.call("alice", "POST /api/tasks", &body.to_string()).await.status, 201);
    }
    let mut titles = 0;
    loop {
        match socket.next().await {
            Message::Text(_) => titles += 1,
            Message::Close(Some(frame)) => {
                assert_eq!(u16::from(frame.code), 4508);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(titles < 400, "it was closed before it had all");
    let mut late = open(&daemon, "from=earliest").await;
    assert_eq!(types_until(&mut late, "live").await.len(), 402, "a replay is not slow");
}
