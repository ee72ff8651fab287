//! `GET /api/events`, and tickets.

use super::support::{Daemon, SOON, start, start_with};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// One event as a browser would see it.
#[derive(Debug, Default)]
struct Event {
    id: Option<String>,
    kind: String,
    data: Value,
}

/// A client of a stream; the chunks of its body are taken apart.
struct Stream {
    tcp: TcpStream,
    raw: Vec<u8>,
    text: String,
}

/// A stream, or the status that refused it.
async fn open(daemon: &Daemon, target: &str, headers: &[(&str, &str)]) -> Result<Stream, u16> {
    let mut tcp = TcpStream::connect(daemon.address).await.unwrap();
    let mut request = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    tcp.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, tcp.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    if status != 200 {
        return Err(status);
    }
    assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
    assert!(head.contains("cache-control: no-store\r\n"), "{head}");
    Ok(Stream { tcp, raw: Vec::new(), text: String::new() })
}

async fn of_alice(daemon: &Daemon, query: &str) -> Stream {
    let target = format!("/api/events?token={}&{query}", daemon.token("alice"));
    open(daemon, &target, &[]).await.unwrap()
}

impl Stream {
    /// The next block of lines; `None` at the end of the body.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block = self.text[..end].to_owned();
                self.text.drain(..end + 2);
                return Some(block);
            }
            if !self.chunk().await {
                return None;
            }
        }
    }

    /// Reads one chunk; `false` for the last.
    async fn chunk(&mut self) -> bool {
        loop {
            let line_end = self.raw.windows(2).position(|pair| pair == b"\r\n");
            if let Some(line_end) = line_end {
                let size = std::str::from_utf8(&self.raw[..line_end]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                let whole = line_end + 2 + size + 2;
                if self.raw.len() >= whole {
                    let chunk = &self.raw[line_end + 2..line_end + 2 + size];
                    self.text.push_str(std::str::from_utf8(chunk).unwrap());
                    self.raw.drain(..whole);
                    return size > 0;
                }
            }
            let read = self.tcp.read_buf(&mut self.raw);
            if timeout(SOON, read).await.expect("in time").unwrap_or(0) == 0 {
                return false;
            }
        }
    }

    /// The next event, whatever silence is between; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let mut event = Event::default();
            for line in block.lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => event.id = Some(id.to_owned()),
                    Some(("event", kind)) => event.kind = kind.to_owned(),
                    Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                    Some(("retry" | "", _)) => (),
                    other => panic!("{other:?}"),
                }
            }
            if !event.kind.is_empty() {
                assert_eq!(event.data["type"], event.kind.as_str());
                return Some(event);
            }
        }
    }

    /// The events up to and with one of a kind.
    async fn until(&mut self, last: &str) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        while events.last().is_none_or(|event| event.kind != last) {
            events.push(self.next().await.expect("not the end"));
        }
        events
    }
}

fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

async fn create(daemon: &Daemon, user: &str, title: &str) {
    let reply = daemon.call(user, "POST /api/tasks", &json!({"title": title}).to_string()).await;
    assert_eq!(reply.status, 201);
}

#[tokio::test]
async fn a_stream_tells_changes_and_goes_on_after_the_last_id() {
    let daemon = start().await;
    let mut stream = of_alice(&daemon, "").await;
    assert_eq!(stream.block().await.as_deref(), Some("retry: 1000"));
    assert_eq!(kinds(&stream.until("live").await), ["hello", "live"]);
    create(&daemon, "alice", "1").await;
    create(&daemon, "bob", "b").await;
    let event = stream.next().await.unwrap();
    let last = event.id.unwrap();
    assert_eq!(
        (&event.data["data"]["title"], event.data["pos"].as_str()),
        (&json!("1"), Some(&*last))
    );
    drop(stream);
    for title in ["2", "3"] {
        create(&daemon, "alice", title).await;
    }
    let bearer = format!("Bearer {}", daemon.token("alice"));
    let headers = [("authorization", bearer.as_str()), ("last-event-id", &last)];
    let mut stream = open(&daemon, "/api/events?from=earliest", &headers).await.unwrap();
    let events = stream.until("live").await;
    let titles: Vec<&str> =
        events.iter().filter_map(|event| event.data["data"]["title"].as_str()).collect();
    assert_eq!(titles, ["2", "3"], "Last-Event-ID goes before `from`");
    let mut lost = of_alice(&daemon, "from=abc.0.1").await;
    assert_eq!(kinds(&lost.until("live").await), ["hello", "resync", "live"]);
    for (target, extra, expected) in [
        ("/api/events?from=nonsense", ("x", "y"), 400),
        ("/api/events?or=all", ("x", "y"), 400),
        ("/api/events", ("last-event-id", "nonsense"), 400),
    ] {
        let headers = [("authorization", bearer.as_str()), extra];
        assert_eq!(open(&daemon, target, &headers).await.err(), Some(expected), "{target}");
    }
    for target in ["/api/events", "/api/events?token=nonsense", "/api/events?ticket=nonsense"] {
        assert_eq!(open(&daemon, target, &[]).await.err(), Some(401), "{target}");
    }
}

#[tokio::test]
async fn an_interrupted_snapshot_starts_anew() {
    let daemon = start().await;
    for title in ["1", "2"] {
        create(&daemon, "alice", title).await;
    }
    let mut stream = of_alice(&daemon, "from=snapshot").await;
    let events = stream.until("live").await;
    assert_eq!(kinds(&events), ["hello", "snapshot", "snapshot", "live"]);
    let ids: Vec<bool> = events.iter().map(|event| event.id.is_some()).collect();
    assert_eq!(ids, [false, false, true, true], "only from its last part on there is an id");
    assert_eq!(events[1].data["data"]["tasks"].as_array().unwrap().len(), 2);
    assert_eq!(events[1].data["pos"], events[2].data["pos"]);
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_is_warned_before() {
    let daemon = start_with(|setup| {
        setup.http.limits.socket.ping_interval = Duration::from_millis(100);
    })
    .await;
    let target = format!("/api/events?token={}", daemon.token_for("alice", 2));
    let mut stream = open(&daemon, &target, &[]).await.unwrap();
    let mut comments = 0;
    let mut has_warning = false;
    while let Some(block) = stream.block().await {
        comments += usize::from(block == ": keep-alive");
        has_warning |= block.starts_with("event: token_expiring\n");
    }
    assert!(comments >= 5 && has_warning, "{comments} {has_warning}");
}

#[tokio::test]
async fn a_stop_is_told_to_streams_and_ends_polls() {
    let daemon = start_with(|setup| setup.drain = Duration::from_secs(2)).await;
    let mut streams = [of_alice(&daemon, "").await, of_alice(&daemon, "").await];
    for stream in &mut streams {
        stream.until("live").await;
    }
    let bearer = format!("Bearer {}", daemon.token("alice"));
    let poll = format!("GET /api/changes?since={}&wait=30", daemon.store.head());
    let headers = [("authorization", bearer.as_str())];
    let stop = async {
        while daemon.request("GET /ws/stats", &[], "").await.json()["long_polls"] != 1 {}
        daemon.stop();
    };
    let (reply, ()) = tokio::join!(daemon.request(&poll, &headers, ""), stop);
    assert_eq!((reply.status, &reply.json()["changes"]), (200, &json!([])));
    for stream in &mut streams {
        let drain = stream.next().await.unwrap();
        assert_eq!((drain.kind.as_str(), drain.id), ("drain", None));
        assert!(drain.data["data"]["reconnect_after_ms"].is_u64());
        assert!(stream.next().await.is_none(), "and then it ends");
    }
    daemon.stopped().await;
}

#[tokio::test]
async fn sessions_of_all_kinds_are_counted_and_bounded() {
    let daemon = start_with(|setup| setup.sessions_per_user_max = 2).await;
    let _socket = daemon.socket_of("alice").await;
    let mut stream = of_alice(&daemon, "").await;
    stream.until("live").await;
    let stats = daemon.request("GET /ws/stats", &[], "").await.json();
    let counts = ["total_connections", "user_connections", "event_streams", "long_polls"];
    assert_eq!(counts.map(|name| stats[name].as_u64().unwrap()), [1, 1, 1, 0]);
    let target = format!("/api/events?token={}", daemon.token("alice"));
    assert_eq!(open(&daemon, &target, &[]).await.err(), Some(429));
    let reply = daemon.call("alice", "GET /api/changes?since=earliest", "").await;
    assert_eq!(reply.outcome(), "429 too_many_sessions");
    drop(stream);
    timeout(SOON, async {
        while daemon.metrics.hub_sessions.get() != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("a client that is gone is noticed");
    assert_eq!(daemon.call("alice", "GET /api/changes?since=earliest", "").await.status, 200);
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_cut_and_delays_nobody() {
    let daemon = start_with(|setup| {
        setup.http.limits.socket.write_timeout = Duration::from_millis(300);
    })
    .await;
    let mut slow = of_alice(&daemon, "").await;
    slow.until("live").await;
    let mut quick = of_alice(&daemon, "").await;
    quick.until("live").await;
    let description = "x".repeat(9_000);
    let writes = async {
        for index in 0..300 {
            let body = json!({"title": index.to_string(), "description": description});
            let reply = daemon.call("alice", "POST /api/tasks", &body.to_string()).await;
            assert_eq!(reply.status, 201);
        }
    };
    let reads = async {
        for index in 0..300 {
            let event = quick.next().await.unwrap();
            assert_eq!(event.data["data"]["title"], index.to_string());
        }
    };
    tokio::join!(writes, reads);
    timeout(SOON, async {
        while daemon.metrics.hub_sessions.get() != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is cut");
    let end = timeout(SOON, slow.tcp.read_to_end(&mut Vec::new())).await.expect("it ends");
    assert!(end.is_err(), "by a reset");
}

#[tokio::test]
async fn a_ticket_opens_one_socket_or_stream_of_its_token() {
    let daemon = start().await;
    let ticket = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let reply = daemon.request("POST /api/ws-tickets", &[("authorization", &bearer)], "").await;
        assert_eq!(reply.status, 201, "{reply:?}");
        assert_eq!(reply.header("cache-control"), "no-store");
        assert!(reply.json()["expires_at"].is_string());
        reply.json()["ticket"].as_str().unwrap().to_owned()
    };
    let first = ticket(&daemon.token("alice")).await;
    let target = format!("/ws/tasks?ticket={first}&token=nonsense&user=bob");
    let mut socket = daemon.socket(&target).await.unwrap();
    create(&daemon, "bob", "b").await;
    create(&daemon, "alice", "a").await;
    assert_eq!(socket.json().await["data"]["title"], "a");
    assert_eq!(daemon.socket(&target).await.err(), Some(401), "once");
    let target = format!("/api/events?ticket={first}");
    assert_eq!(open(&daemon, &target, &[]).await.err(), Some(401), "anywhere");
    let second = ticket(&daemon.token("alice")).await;
    let mut stream = open(&daemon, &format!("/api/events?ticket={second}"), &[]).await.unwrap();
    assert_eq!(stream.next().await.unwrap().data["data"]["user_id"], "alice");
    // The token is good for some seconds after its end, and no session is.
    let short = ticket(&daemon.token_for("alice", 1)).await;
    let mut socket = daemon.socket(&format!("/ws/tasks?ticket={short}")).await.unwrap();
    assert_eq!(socket.close_code().await, 4401, "it has the expiry of its token");
    let unused = ticket(&daemon.token("alice")).await;
    let bearer = format!("Bearer {}", daemon.token("bob"));
    let headers = [("authorization", bearer.as_str())];
    let target = format!("/api/events?ticket={unused}");
    let mut stream = open(&daemon, &target, &headers).await.unwrap();
    assert_eq!(stream.next().await.unwrap().data["data"]["user_id"], "bob", "the header first");
    assert!(open(&daemon, &target, &[]).await.is_ok(), "and the ticket was not looked at");
    for _ in 0..100 {
        ticket(&daemon.token("carol")).await;
    }
    let reply = daemon.call("carol", "POST /api/ws-tickets", "").await;
    assert_eq!(reply.outcome(), "429 too_many_tickets");
    assert_eq!(daemon.request("POST /api/ws-tickets", &[], "").await.status, 401);
}
