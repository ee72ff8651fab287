//! The client of the stack that this replaces, as its page and its script had it: it knows no
//! subprotocol and no position. It works as it is.

use crate::support::{TestDaemon, created, with_event_id};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, handshake::client::Response},
};

/// `new WebSocket("ws://.../ws/tasks?token=...")`, and what its page does with what comes.
struct SeedClient {
    socket: WebSocketStream<TcpStream>,
    handshake: Response,
    /// The frames, as they came.
    frames: Vec<String>,
    tasks: BTreeMap<String, Value>,
}

impl SeedClient {
    async fn connect(daemon: &TestDaemon, user: &str) -> Self {
        let tcp = TcpStream::connect(daemon.http).await.expect("it listens");
        let url = format!("ws://{}/ws/tasks?token={}", daemon.http, daemon.token(user));
        let (socket, handshake) = client_async(url, tcp).await.expect("an upgrade");
        Self { socket, handshake, frames: Vec::new(), tasks: BTreeMap::new() }
    }

    /// `onmessage`, until the answer to a ping.
    async fn ping(&mut self) {
        self.socket.send(Message::text("ping")).await.expect("sent");
        loop {
            let text = match self.socket.next().await.expect("open").expect("a frame") {
                Message::Text(text) => text.to_string(),
                Message::Ping(_) => continue,
                other => panic!("{other:?}"),
            };
            self.frames.push(text.clone());
            let message: Value = serde_json::from_str(&text).expect("JSON");
            let data = &message["data"];
            let id = data["id"].as_str().unwrap_or_default().to_owned();
            match message["type"].as_str().expect("a type") {
                "pong" => return,
                "task_deleted" => drop(self.tasks.remove(&id)),
                _ => drop(self.tasks.insert(id, data.clone())),
            }
        }
    }
}

#[tokio::test]
async fn the_client_of_the_replaced_stack_works_unchanged() {
    let mut daemon = TestDaemon::start().await;
    daemon.produce(&[created("before", "ada", "x")]).await;
    daemon.user("ada").task("before").await;
    let mut client = SeedClient::connect(&daemon, "ada").await;
    assert!(client.handshake.headers().get("sec-websocket-protocol").is_none());
    client.ping().await;
    assert_eq!(client.frames, ["{\"type\":\"pong\"}"], "nothing but what it knows");
    client.frames.clear();
    daemon
        .produce(&[
            with_event_id(created("t1", "ada", "Write"), "e1"),
            created("t2", "bob", "not hers"),
            json!({"type": "task_completed", "data": {"id": "t1", "completed": true}}),
            created("t3", "ada", "gone soon"),
            json!({"type": "task_deleted", "data": {"id": "t3"}}),
        ])
        .await;
    daemon.user("ada").post("/api/tasks", &json!({"title": "by REST"})).await;
    client.ping().await;
    let tasks = daemon.user("ada").tasks().await;
    let shown: Vec<&Value> = tasks.iter().filter(|task| task["id"] != "before").collect();
    let mut known: Vec<&Value> = client.tasks.values().collect();
    known.sort_by_key(|task| task["title"] == "by REST");
    assert_eq!(known, shown);
    let types: Vec<Value> = client
        .frames
        .iter()
        .map(|frame| serde_json::from_str::<Value>(frame).expect("JSON")["type"].take())
        .collect();
    let expected =
        ["task_created", "task_completed", "task_created", "task_deleted", "task_created", "pong"];
    assert_eq!(types, expected.map(Value::from));
    // Byte for byte, but for times and the position's epoch.
    let first = &client.frames[0];
    assert!(
        first.starts_with("{\"type\":\"task_created\",\"data\":{\"id\":\"t1\",\"title\":"),
        "{first}"
    );
    assert!(first.contains(",\"event_id\":\"e1\",\"time\":\"20"), "{first}");
    assert!(first.contains("Z\",\"pos\":\"") && first.ends_with(".2\"}"), "{first}");
    daemon.signal("-TERM");
    let close = loop {
        match client.socket.next().await.expect("a close").expect("a frame") {
            Message::Close(frame) => break frame.expect("a code"),
            Message::Ping(_) => (),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u16::from(close.code), 1001);
    assert!(daemon.ended().success());
}
