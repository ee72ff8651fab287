//! The WebSocket on its connection: what is written, and how it ends.

use crate::{
    http::{
        guard::{self, Guarded, SEND_BUFFER_BYTES},
        metered::{self, Metered},
        timers::WriteLimit,
    },
    hub::message::CloseCode,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_socket_send_buffer_size;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{error::Elapsed, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as SocketError, Message, Utf8Bytes,
        error::ProtocolError,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};
use tracing::debug;

/// Time from our 101 to the raw connection.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a socket's read buffer. It is resident while the socket is idle, and what comes in is
/// nearly always a ping of a few bytes; a longer frame gets a buffer of its own. A whole idle
/// socket was measured at 4.0 KB resident, at 9,000 of them.
const READ_BUFFER_BYTES: usize = 1_024;

/// Bytes gathered before they are written; the buffer grows only as far as it is used.
const WRITE_BUFFER_BYTES: usize = 16 * 1_024;

/// Most bytes of the write buffer: the longest message with some room.
const WRITE_BUFFER_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// Longest message from a client in bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1_024;

/// Most raw bytes between two frames that are seen here. A message may come in fragments, and the
/// protocol does not say in how many; those without a byte in them would never end.
const RAW_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

pub(super) type Socket = WebSocketStream<Metered>;

/// Code and reason of a close frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Closing(pub(super) u16, &'static str);

impl Closing {
    // What RFC 6455 itself asks for; all else is in the hub's table.
    const PROTOCOL: Self = Self(1002, "protocol error");
    const INVALID_TEXT: Self = Self(1007, "text is not UTF-8");
}

impl From<CloseCode> for Closing {
    fn from(code: CloseCode) -> Self {
        Self(code.code(), code.reason())
    }
}

/// How a pump ended.
pub(super) enum End {
    /// The peer has closed, or is gone.
    Gone,
    /// The peer takes nothing: only a reset ends it.
    Blocked,
    /// We close.
    Close(Closing),
}

/// Writes messages with as few system calls as they take.
pub(super) async fn write(
    socket: &mut Socket,
    messages: Vec<Bytes>,
    limit: WriteLimit,
) -> Result<(), End> {
    let writing = async {
        for message in messages {
            // As a frame, for the text is ours and need not be checked for UTF-8 again.
            let frame = Frame::message(message, OpCode::Data(Data::Text), true);
            socket.feed(Message::Frame(frame)).await?;
        }
        socket.flush().await
    };
    taken(limit, writing).await
}

/// Waits for a write to be taken.
pub(super) async fn taken(
    limit: WriteLimit,
    writing: impl Future<Output = Result<(), SocketError>>,
) -> Result<(), End> {
    match timeout_at(limit.at, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(SocketError::WriteBufferFull(_))) => Err(End::Close(CloseCode::Internal.into())),
        Ok(Err(_)) => Err(End::Gone),
        Err(Elapsed { .. }) if limit.is_expiry => Err(End::Blocked),
        // If what is left of it is taken at all, it is with the reason.
        Err(Elapsed { .. }) => Err(End::Close(CloseCode::Slow.into())),
    }
}

/// How a socket ends whose peer broke the rules.
pub(super) fn end_of(error: &SocketError) -> End {
    match error {
        SocketError::Capacity(_) => End::Close(CloseCode::MessageTooBig.into()),
        SocketError::Io(error) if metered::is_too_long(error) => {
            End::Close(CloseCode::MessageTooBig.into())
        }
        SocketError::Utf8(_) => End::Close(Closing::INVALID_TEXT),
        SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Gone,
        SocketError::Protocol(error) => {
            debug!(%error, "a WebSocket broke the protocol");
            End::Close(Closing::PROTOCOL)
        }
        _ => End::Gone,
    }
}

/// The connection below the upgrade. Without hyper's wrapper: its empty read buffer alone would
/// keep 8 KiB.
pub(super) async fn raw_socket(upgrade: OnUpgrade) -> Option<Socket> {
    let upgraded: Upgraded = timeout(UPGRADE_TIMEOUT, upgrade).await.ok()?.ok()?;
    let parts = upgraded.downcast::<TokioIo<Guarded>>().ok()?;
    let stream = parts.io.into_inner().into_inner();
    // Only memory is lost if the option cannot be set.
    let _ = set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
    let stream = Metered::new(stream, RAW_BYTES_MAX);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let early = parts.read_buf;
    Some(if early.is_empty() {
        WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
    } else {
        let early = early.to_vec();
        WebSocketStream::from_partially_read(stream, early, Role::Server, Some(config)).await
    })
}

/// Ends the closing handshake: ours with a reason, or the answer to the peer's. Who does not take
/// it in time is reset.
pub(super) async fn finish(socket: &mut Socket, closing: Option<Closing>, limit: Duration) {
    let handshake = async {
        let mut is_closed = closing.is_none();
        if let Some(Closing(code, reason)) = closing {
            let reason = Utf8Bytes::from_static(reason);
            let frame = CloseFrame { code: code.into(), reason };
            socket.send(Message::Close(Some(frame))).await?;
        }
        socket.get_mut().restart();
        while let Some(Ok(frame)) = socket.next().await {
            is_closed |= frame.is_close();
        }
        if !is_closed {
            // What it still sends is read, so that no reset takes our reason from it.
            let mut scratch = [0; 1_024];
            let stream = socket.get_mut().stream_mut();
            stream.shutdown().await?;
            while stream.read(&mut scratch).await? > 0 {}
        }
        Ok::<(), SocketError>(())
    };
    match timeout(limit, handshake).await {
        // The peer may be gone, which is what was wanted.
        Ok(ended) => drop(ended),
        Err(Elapsed { .. }) => guard::reset(socket.get_ref().stream()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test]
    async fn a_write_that_is_not_taken_ends_its_socket() {
        let at = Instant::now() + Duration::from_millis(10);
        let mut soon = WriteLimit { at, is_expiry: false };
        let blocked = taken(soon, std::future::pending()).await;
        assert!(matches!(blocked, Err(End::Close(Closing(4508, _)))));
        soon.is_expiry = true;
        let blocked = taken(soon, std::future::pending()).await;
        assert!(matches!(blocked, Err(End::Blocked)), "there was time for the close");
        assert!(taken(soon, async { Ok(()) }).await.is_ok());
    }
}
