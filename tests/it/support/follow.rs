//! One client for every way to follow changes: each gives the same documents.

use super::{PATIENCE, socket::Socket};
use serde_json::Value;
use std::{collections::VecDeque, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// What a client follows over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    /// `taskwire.v1`
    Socket,
    /// Server-sent events.
    Events,
    /// Long polls.
    Changes,
}

/// A client that follows.
pub(crate) enum Stream {
    Socket(Box<Socket>),
    Events(EventStream),
    Changes(Poller),
}

impl Transport {
    /// Opens it from a position; else the status that refused it, or `None` if nobody answers.
    pub(crate) async fn open(
        self,
        http: SocketAddr,
        token: &str,
        from: &str,
    ) -> Result<Stream, Option<u16>> {
        let query = format!("token={token}&from={from}");
        match self {
            Self::Socket => Socket::open_v1(http, &query).await.map(Box::new).map(Stream::Socket),
            Self::Events => EventStream::open(http, &query).await.map(Stream::Events),
            Self::Changes => {
                let mut poller = Poller {
                    http,
                    token: token.to_owned(),
                    since: from.to_owned(),
                    ready: VecDeque::new(),
                };
                poller.poll(0).await?;
                Ok(Stream::Changes(poller))
            }
        }
    }
}

impl Stream {
    /// The next document; `None` at the end. A stop is told before it over sockets and streams.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        match self {
            Self::Socket(socket) => socket.try_next().await,
            Self::Events(events) => events.next().await,
            Self::Changes(poller) => poller.next().await,
        }
    }

    /// All up to the present, if this has just been opened.
    pub(crate) async fn up_to_live(&mut self) -> Vec<Value> {
        let mut found = Vec::new();
        if let Self::Changes(poller) = self {
            while let Ok(()) = poller.poll(0).await {
                if poller.ready.is_empty() {
                    return found;
                }
                found.extend(poller.ready.drain(..));
            }
            panic!("the poll was refused");
        }
        loop {
            let document = self.next().await.expect("not the end");
            let is_live = document["type"] == "live";
            found.push(document);
            if is_live {
                return found;
            }
        }
    }
}

/// Whether a document is a change, and not what goes around changes.
pub(crate) fn is_change(document: &Value) -> bool {
    document["event_id"].is_string()
}

/// A client of `/api/events`. It asks in HTTP/1.0, so that the body is the stream as it is.
pub(crate) struct EventStream {
    tcp: TcpStream,
    text: String,
}

impl EventStream {
    pub(crate) async fn open(http: SocketAddr, query: &str) -> Result<Self, Option<u16>> {
        let mut tcp = TcpStream::connect(http).await.map_err(|_| None)?;
        let request = format!("GET /api/events?{query} HTTP/1.0\r\nhost: {http}\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.map_err(|_| None)?;
        let mut stream = Self { tcp, text: String::new() };
        let head = stream.up_to("\r\n\r\n").await.ok_or(None)?;
        match head.split(' ').nth(1).and_then(|status| status.parse().ok()) {
            Some(200) => Ok(stream),
            status => Err(status),
        }
    }

    async fn up_to(&mut self, mark: &str) -> Option<String> {
        let mut bytes = vec![0; 16 * 1_024];
        loop {
            if let Some(end) = self.text.find(mark) {
                let found = self.text[..end].to_owned();
                self.text.drain(..end + mark.len());
                return Some(found);
            }
            let read = timeout(PATIENCE, self.tcp.read(&mut bytes)).await.expect("in time").ok()?;
            if read == 0 {
                return None;
            }
            // The text of these tests is ASCII.
            self.text.push_str(std::str::from_utf8(&bytes[..read]).expect("text"));
        }
    }

    /// The next document; its id is its position.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let block = self.up_to("\n\n").await?;
            let field = |name: &str| {
                let lines = block.lines().filter_map(|line| line.split_once(": "));
                lines.filter(|(found, _)| *found == name).map(|(_, value)| value).next()
            };
            let Some(data) = field("data") else { continue };
            let document: Value = serde_json::from_str(data).expect("one JSON document");
            assert_eq!(field("event"), document["type"].as_str());
            if let Some(id) = field("id") {
                assert_eq!(document["pos"], id);
            }
            return Some(document);
        }
    }
}

/// A client of `/api/changes`.
pub(crate) struct Poller {
    http: SocketAddr,
    token: String,
    since: String,
    ready: VecDeque<Value>,
}

impl Poller {
    /// Asks once.
    async fn poll(&mut self, wait_s: u32) -> Result<(), Option<u16>> {
        let mut tcp = TcpStream::connect(self.http).await.map_err(|_| None)?;
        let request = format!(
            "GET /api/changes?since={}&wait={wait_s} HTTP/1.0\r\nhost: {}\r\n\
             authorization: Bearer {}\r\n\r\n",
            self.since, self.http, self.token
        );
        tcp.write_all(request.as_bytes()).await.map_err(|_| None)?;
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("in time");
        read.map_err(|_| None)?;
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(None)?;
        match head.split(' ').nth(1).and_then(|status| status.parse().ok()) {
            Some(200) => (),
            status => return Err(status),
        }
        // A kill may have cut it.
        let body: Value = serde_json::from_str(body).map_err(|_| None)?;
        self.since = body["pos"].as_str().expect("a position").to_owned();
        self.ready.extend(body["changes"].as_array().expect("changes").iter().cloned());
        Ok(())
    }

    async fn next(&mut self) -> Option<Value> {
        while self.ready.is_empty() {
            self.poll(10).await.ok()?;
        }
        self.ready.pop_front()
    }
}
