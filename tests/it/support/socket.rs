//! A client of `/ws/tasks`.

use super::{PATIENCE, TestDaemon};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{ClientRequestBuilder, Error, Message},
};

/// One WebSocket in the seed's form.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
}

impl TestDaemon {
    pub(crate) async fn socket(&self, user: &str) -> Socket {
        let query = format!("token={}", self.token(user));
        self.try_socket(&query).await.expect("an upgrade")
    }

    pub(crate) async fn socket_from(&self, user: &str, position: &str) -> Socket {
        let query = format!("token={}&from={position}", self.token(user));
        self.try_socket(&query).await.expect("an upgrade")
    }

    /// The socket, or the status that refused it.
    pub(crate) async fn try_socket(&self, query: &str) -> Result<Socket, u16> {
        Socket::open(self.http, query).await.map_err(|status| status.expect("it answers"))
    }
}

impl Socket {
    /// The socket, or the status that refused it, or `None` if nobody answers.
    pub(crate) async fn open(http: SocketAddr, query: &str) -> Result<Self, Option<u16>> {
        let tcp = TcpStream::connect(http).await.map_err(|_| None)?;
        match client_async(format!("ws://{http}/ws/tasks?{query}"), tcp).await {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(Error::Http(response)) => Err(Some(response.status().as_u16())),
            Err(_) => Err(None),
        }
    }

    /// The same in `taskwire.v1`.
    pub(crate) async fn open_v1(http: SocketAddr, query: &str) -> Result<Self, Option<u16>> {
        let tcp = TcpStream::connect(http).await.map_err(|_| None)?;
        let request = ClientRequestBuilder::new(
            format!("ws://{http}/ws/tasks?{query}").parse().expect("an address"),
        );
        match client_async(request.with_sub_protocol("taskwire.v1"), tcp).await {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(Error::Http(response)) => Err(Some(response.status().as_u16())),
            Err(_) => Err(None),
        }
    }

    /// The next message; `None` once the peer has closed.
    pub(crate) async fn try_next(&mut self) -> Option<Value> {
        loop {
            let message = timeout(PATIENCE, self.stream.next()).await.expect("a message in time");
            match message? {
                Ok(Message::Text(text)) => {
                    return Some(serde_json::from_str(&text).expect("one JSON document"));
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => (),
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Value {
        self.try_next().await.expect("a message before the close")
    }

    /// The code that the peer closes with, after whatever it still sends.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        loop {
            match timeout(PATIENCE, self.stream.next()).await.expect("a close in time") {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => (),
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.expect("sent");
    }

    /// `ping`, and whatever comes before its answer: nothing else may be on the way afterwards.
    pub(crate) async fn drain(&mut self) -> Vec<Value> {
        self.send("ping").await;
        let mut before = Vec::new();
        loop {
            let message = self.next().await;
            if message["type"] == "pong" {
                return before;
            }
            before.push(message);
        }
    }
}
