//! A small WebSocket client for the verbs.

use super::http_client::Base;
use futures_util::{SinkExt, StreamExt};
use http::{StatusCode, header};
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        error::Error,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

/// Longest time from the first packet to the upgrade.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A task is at most some 140 kB of JSON.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// An open WebSocket.
pub(super) struct WsClient(WebSocketStream<TcpStream>);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The daemon answered with another status than 101.
    #[error("refused with {0}")]
    Refused(StatusCode),
    /// No answer.
    #[error("{0}")]
    Failed(String),
}

/// What came.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A text frame.
    Text(String),
    /// The end, with the close code and reason where there were any.
    Closed(Option<(u16, String)>),
    /// The connection broke.
    Broken(String),
}

impl WsClient {
    /// Opens `path` (with its query) at a daemon.
    pub(super) async fn connect(
        base: &Base,
        path: &str,
        token: Option<&str>,
    ) -> Result<Self, ConnectError> {
        match timeout(CONNECT_TIMEOUT, open(base, path, token)).await {
            Ok(opened) => opened.map(Self),
            Err(_) => Err(ConnectError::Failed(format!("no answer within {CONNECT_TIMEOUT:?}"))),
        }
    }

    /// The next text or the end; pings are answered on the way. Cancel safe.
    pub(super) async fn next(&mut self) -> Incoming {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Incoming::Text(text.as_str().to_owned()),
                Some(Ok(Message::Close(frame))) => {
                    return Incoming::Closed(frame.as_ref().map(parts));
                }
                Some(Ok(_)) => (),
                Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => {
                    return Incoming::Closed(None);
                }
                Some(Err(error)) => return Incoming::Broken(error.to_string()),
            }
        }
    }

    /// Sends a text frame.
    pub(super) async fn send(&mut self, text: &str) -> Result<(), String> {
        self.0.send(Message::text(text)).await.map_err(|error| error.to_string())
    }

    /// Says goodbye; the answer is not waited for.
    pub(super) async fn close(mut self) {
        // The peer may be gone already, which is as good.
        drop(self.0.close(None).await);
    }
}

async fn open(
    base: &Base,
    path: &str,
    token: Option<&str>,
) -> Result<WebSocketStream<TcpStream>, ConnectError> {
    let failed = |error: String| ConnectError::Failed(error);
    let url = format!("ws://{}{path}", base.authority());
    let mut request = url.into_client_request().map_err(|error| failed(error.to_string()))?;
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse();
        let value = value.map_err(|_| failed("the token is no header value".to_owned()))?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let stream = TcpStream::connect(base.authority())
        .await
        .map_err(|error| failed(format!("{base}: {error}")))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .max_message_size(Some(MESSAGE_BYTES_MAX));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => Err(ConnectError::Refused(answer.status())),
        Err(error) => Err(failed(format!("{base}: {error}"))),
    }
}

fn parts(frame: &CloseFrame) -> (u16, String) {
    (frame.code.into(), frame.reason.as_str().to_owned())
}
