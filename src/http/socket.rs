//! `/ws/tasks`: the upgrade, and the pump from a session's cursor to its WebSocket.
//!
//! One worker per socket, without a queue: it waits for changes, frames, timers and the stop, and
//! writes what the session hands over before it asks for more. A reader that does not read costs
//! the bytes of one such batch, and its socket after [`WRITE_TIMEOUT`].

use super::{
    Connection, State,
    extract::{authenticate, query_pairs},
    problem::{Code, Problem},
};
use crate::{
    auth::Principal,
    clock::Clock,
    hub::{
        From as StartAt, Session, SubscribeError,
        message::{self, CloseCode},
    },
};
use axum::{
    Extension,
    body::Body,
    extract::{Request, State as AxumState},
    http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, Version, header},
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    time::{Instant, error::Elapsed, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as SocketError, Message, Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};
use tracing::{debug, error};

/// Time between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Time for any frame to come after a ping.
const PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// Time for a write to be taken by the peer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for a close frame to go out and its answer to come in.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time from our 101 to the raw connection.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time between two looks at the wall clock for the token's expiry.
const EXPIRY_CHECK_MAX: Duration = Duration::from_secs(24 * 60 * 60);

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

/// Length of `Sec-WebSocket-Key`: 16 bytes in base64.
const KEY_CHARS: usize = 24;

type Socket = WebSocketStream<TcpStream>;

/// Code and reason of a close frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Closing(u16, &'static str);

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

/// How messages are framed for a client; chosen in one place, [`Mode::choose`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    /// Without a subprotocol: each text frame is one JSON document.
    Plain,
}

impl Mode {
    /// The mode that the client asks for by `Sec-WebSocket-Protocol`. A subprotocol that we do not
    /// speak is left unanswered, as RFC 6455 has it.
    const fn choose(_headers: &HeaderMap) -> Self {
        Self::Plain
    }
}

/// `GET /ws/tasks`
pub(super) async fn open(
    AxumState(state): AxumState<Arc<State>>,
    Extension(connection): Extension<Arc<Connection>>,
    mut request: Request,
) -> Result<Response<Body>, Problem> {
    let accept = check_handshake(&request)?;
    let query = SocketQuery::parse(request.uri())?;
    let headers = request.headers();
    let principal = authenticate(&state, headers, query.token.as_deref(), query.user.as_deref())?;
    state.check_ready()?;
    if connection.listener.shutdown.has_begun() {
        return Err(Problem::new(Code::Stopping));
    }
    let mode = Mode::choose(headers);
    // Before the 101, so that nothing is missed between the client's `onopen` and the session.
    let opening = match state.parts.hub.subscribe(&principal.user_id, query.start_at) {
        Ok((session, must_resync)) => Opening::Session { session, must_resync },
        Err(SubscribeError::TooMany) => Opening::Refused(CloseCode::TooManySessions),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let worker = Worker {
        clock: state.parts.clock.clone(),
        connection: Arc::clone(&connection),
        principal,
        mode,
    };
    connection.listener.tracker.spawn(worker.run(upgrade, opening));
    Ok(switching_protocols(&accept))
}

/// Checks the client's handshake (RFC 6455, 4.2.1); returns the answer to its key.
fn check_handshake(request: &Request) -> Result<String, Problem> {
    let headers = request.headers();
    let has = |name, token: &str| {
        headers.get_all(name).iter().any(|value| {
            let items = value.to_str().unwrap_or("").split(',');
            items.map(str::trim).any(|item| item.eq_ignore_ascii_case(token))
        })
    };
    let is_upgrade = request.version() == Version::HTTP_11
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket");
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if !is_upgrade || version.is_none_or(|version| version != "13") {
        return Err(Problem::new(Code::UpgradeRequired));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|key| key.len() == KEY_CHARS && key.ends_with(b"=="));
    let key = key.ok_or(Problem::with_detail(Code::InvalidHeader, "Sec-WebSocket-Key"))?;
    Ok(derive_accept_key(key))
}

fn switching_protocols(accept: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(accept).expect("base64 is a header value");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// What the query of a WebSocket says.
struct SocketQuery {
    token: Option<String>,
    user: Option<String>,
    start_at: StartAt,
}

impl SocketQuery {
    /// Unknown parameters are passed over: a page may add its own against caches.
    fn parse(uri: &Uri) -> Result<Self, Problem> {
        let mut query = Self { token: None, user: None, start_at: StartAt::Now };
        if uri.query().is_none_or(str::is_empty) {
            return Ok(query);
        }
        for (name, value) in query_pairs(uri)? {
            match name.as_str() {
                "token" => query.token = Some(value),
                "user" => query.user = Some(value),
                "from" if value == "earliest" => query.start_at = StartAt::Earliest,
                "from" => {
                    let position = value.parse();
                    query.start_at = StartAt::After(position.map_err(|_| {
                        Problem::parameter("from", "a position as in `pos`, or earliest")
                    })?);
                }
                _ => (),
            }
        }
        Ok(query)
    }
}

/// What a socket begins with.
enum Opening {
    Session { session: Session, must_resync: bool },
    Refused(CloseCode),
}

/// How a pump ended.
enum End {
    /// The peer has closed, or is gone.
    Gone,
    /// The peer takes nothing: only a reset ends it.
    Blocked,
    /// We close.
    Close(Closing),
}

/// One socket's worker.
struct Worker {
    connection: Arc<Connection>,
    clock: Clock,
    principal: Principal,
    mode: Mode,
}

impl Worker {
    async fn run(self, upgrade: OnUpgrade, opening: Opening) {
        // The connection's place is the socket's from here on, and is free when this ends.
        let _permit = self.connection.take_permit();
        let Some(mut socket) = raw_socket(upgrade).await else { return };
        let cut = self.connection.listener.cut.clone();
        let end = match opening {
            Opening::Refused(code) => End::Close(code.into()),
            Opening::Session { session, must_resync } => tokio::select! {
                end = self.serve(&mut socket, session, must_resync) => end,
                () = cut.cancelled() => End::Blocked,
            },
        };
        match end {
            End::Blocked => debug!(user = %self.principal.user_id, "a socket was cut"),
            End::Gone => finish(&mut socket, None).await,
            End::Close(closing) => finish(&mut socket, Some(closing)).await,
        }
    }

    async fn serve(&self, socket: &mut Socket, mut session: Session, must_resync: bool) -> End {
        let Mode::Plain = self.mode;
        if must_resync {
            let message = message::resync(session.position());
            if let Err(end) = Self::write(socket, vec![message]).await {
                return end;
            }
        }
        match self.pump(socket, &mut session).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    /// Pumps until an end.
    async fn pump(
        &self,
        socket: &mut Socket,
        session: &mut Session,
    ) -> Result<std::convert::Infallible, End> {
        let shutdown = self.connection.listener.shutdown.clone();
        let now_ms = self.clock.now_ms();
        let mut timers = Timers::new(self.principal.expires_at_ms, Instant::now(), now_ms);
        let mut begun = pin!(shutdown.begun());
        let mut sleep = pin!(tokio::time::sleep_until(timers.next()));
        let mut is_stopping = false;
        loop {
            tokio::select! {
                messages = session.next() => match messages {
                    Ok(messages) => {
                        Self::write(socket, messages).await?;
                        timers.wrote(Instant::now());
                    }
                    Err(error) => {
                        error!(%error, "a session could not read its changes");
                        return Err(End::Close(CloseCode::Internal.into()));
                    }
                },
                frame = socket.next() => {
                    Self::receive(socket, frame).await?;
                    timers.heard();
                }
                () = &mut sleep => {
                    let due = timers.fired(Instant::now(), self.clock.now_ms());
                    if due.map_err(|code| End::Close(code.into()))? {
                        let ping = socket.send(Message::Ping(Bytes::new()));
                        taken(WRITE_TIMEOUT, ping).await?;
                    }
                    sleep.as_mut().reset(timers.next());
                }
                () = &mut begun, if !is_stopping => {
                    is_stopping = true;
                    timers.close_at = Some(Instant::now() + self.connection.listener.close_delay());
                    sleep.as_mut().reset(timers.next());
                }
            }
        }
    }

    /// Looks at one frame of the peer.
    async fn receive(
        socket: &mut Socket,
        frame: Option<Result<Message, SocketError>>,
    ) -> Result<(), End> {
        match frame {
            Some(Ok(Message::Text(text))) if is_ping(text.as_str()) => {
                Self::write(socket, vec![Bytes::from_static(message::PONG.as_bytes())]).await
            }
            None | Some(Ok(Message::Close(_))) => Err(End::Gone),
            // Pings are answered by the protocol; what else a client says is not for us.
            Some(Ok(_)) => Ok(()),
            Some(Err(SocketError::Capacity(_))) => Err(End::Close(CloseCode::MessageTooBig.into())),
            Some(Err(SocketError::Utf8(_))) => Err(End::Close(Closing::INVALID_TEXT)),
            Some(Err(SocketError::Protocol(error))) => {
                debug!(%error, "a WebSocket broke the protocol");
                Err(End::Close(Closing::PROTOCOL))
            }
            Some(Err(_)) => Err(End::Gone),
        }
    }

    /// Writes messages with as few system calls as they take.
    async fn write(socket: &mut Socket, messages: Vec<Bytes>) -> Result<(), End> {
        let writing = async {
            for message in messages {
                // As a frame, for the text is ours and need not be checked for UTF-8 again.
                let frame = Frame::message(message, OpCode::Data(Data::Text), true);
                socket.feed(Message::Frame(frame)).await?;
            }
            socket.flush().await
        };
        taken(WRITE_TIMEOUT, writing).await
    }
}

/// Waits for a write to be taken.
async fn taken(
    limit: Duration,
    writing: impl Future<Output = Result<(), SocketError>>,
) -> Result<(), End> {
    match timeout(limit, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(SocketError::WriteBufferFull(_))) => Err(End::Close(CloseCode::Internal.into())),
        Ok(Err(_)) => Err(End::Gone),
        Err(Elapsed { .. }) => Err(End::Blocked),
    }
}

fn is_ping(text: &str) -> bool {
    matches!(text.trim(), "ping" | "{\"type\":\"ping\"}" | "{\"type\": \"ping\"}")
}

/// The connection below the upgrade. Without hyper's wrapper: its empty read buffer alone would
/// keep 8 KiB.
async fn raw_socket(upgrade: OnUpgrade) -> Option<Socket> {
    let upgraded: Upgraded = timeout(UPGRADE_TIMEOUT, upgrade).await.ok()?.ok()?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    let stream = parts.io.into_inner();
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

/// Ends the closing handshake: ours with a reason, or the answer to the peer's.
async fn finish(socket: &mut Socket, closing: Option<Closing>) {
    let handshake = async {
        if let Some(Closing(code, reason)) = closing {
            let reason = Utf8Bytes::from_static(reason);
            let frame = CloseFrame { code: code.into(), reason };
            socket.send(Message::Close(Some(frame))).await?;
        }
        while let Some(frame) = socket.next().await {
            drop(frame?);
        }
        Ok::<(), SocketError>(())
    };
    // The peer may be gone or silent; the connection is dropped either way.
    drop(timeout(CLOSE_TIMEOUT, handshake).await);
}

/// When the pump has to do something by itself.
struct Timers {
    ping_at: Instant,
    /// Set while a ping is unanswered.
    pong_by: Option<Instant>,
    expires_at_ms: Option<i64>,
    expiry_check_at: Option<Instant>,
    /// Set once the daemon stops.
    close_at: Option<Instant>,
}

impl Timers {
    fn new(expires_at_ms: Option<i64>, now: Instant, now_ms: i64) -> Self {
        let mut timers = Self {
            ping_at: now + PING_INTERVAL,
            pong_by: None,
            expires_at_ms,
            expiry_check_at: None,
            close_at: None,
        };
        timers.arm_expiry(now, now_ms);
        timers
    }

    fn arm_expiry(&mut self, now: Instant, now_ms: i64) {
        self.expiry_check_at = self.expires_at_ms.map(|expires_at_ms| {
            let left_ms = expires_at_ms.saturating_sub(now_ms);
            let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
            now + left.min(EXPIRY_CHECK_MAX)
        });
    }

    fn next(&self) -> Instant {
        [self.pong_by, self.expiry_check_at, self.close_at]
            .into_iter()
            .flatten()
            .fold(self.ping_at, Instant::min)
    }

    /// A frame came in.
    fn heard(&mut self) {
        self.pong_by = None;
    }

    /// A write was taken; while it was blocked, nothing was read, so the pong may be waiting.
    fn wrote(&mut self, now: Instant) {
        if self.pong_by.is_some_and(|by| by <= now) {
            self.pong_by = Some(now + PONG_TIMEOUT);
        }
    }

    /// What is due: `true` is a ping.
    fn fired(&mut self, now: Instant, now_ms: i64) -> Result<bool, CloseCode> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.close_at) {
            return Err(CloseCode::GoingAway);
        }
        if is_due(self.expiry_check_at) {
            if self.expires_at_ms.is_some_and(|at| at <= now_ms) {
                return Err(CloseCode::Token);
            }
            self.arm_expiry(now, now_ms);
        }
        if is_due(self.pong_by) {
            return Err(CloseCode::NoPong);
        }
        if self.ping_at > now {
            return Ok(false);
        }
        self.ping_at = now + PING_INTERVAL;
        self.pong_by.get_or_insert(now + PONG_TIMEOUT);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_peer_that_does_not_answer_a_ping_is_closed() {
        let start = Instant::now();
        let mut timers = Timers::new(None, start, 0);
        assert_eq!(timers.next(), start + PING_INTERVAL);
        assert_eq!(timers.fired(start + PING_INTERVAL - S, 0), Ok(false));
        let pinged = start + PING_INTERVAL;
        assert_eq!(timers.fired(pinged, 0), Ok(true));
        assert_eq!(timers.next(), pinged + PONG_TIMEOUT);
        timers.heard();
        assert_eq!(timers.fired(pinged + PONG_TIMEOUT, 0), Ok(false));
        let pinged = pinged + PING_INTERVAL;
        assert_eq!(timers.fired(pinged, 0), Ok(true));
        assert_eq!(timers.fired(pinged + PONG_TIMEOUT, 0), Err(CloseCode::NoPong));
    }

    #[test]
    fn the_pong_timer_stands_while_our_write_is_blocked() {
        let start = Instant::now();
        let mut timers = Timers::new(None, start, 0);
        let pinged = start + PING_INTERVAL;
        assert_eq!(timers.fired(pinged, 0), Ok(true));
        let taken = pinged + PONG_TIMEOUT + S;
        timers.wrote(taken);
        assert_eq!(timers.fired(taken, 0), Ok(false), "not closed by the time that we waited");
        assert_eq!(timers.fired(taken + PONG_TIMEOUT, 0), Err(CloseCode::NoPong));
    }

    #[test]
    fn expiry_goes_by_the_wall_clock() {
        let start = Instant::now();
        let mut timers = Timers::new(Some(2_000), start, 1_000);
        assert_eq!(timers.next(), start + S);
        assert_eq!(timers.fired(start + S, 1_500), Ok(false), "the wall clock was set back");
        assert_eq!(timers.fired(start + 2 * S, 2_000), Err(CloseCode::Token));
        let far = Timers::new(Some(i64::MAX), start, i64::MIN);
        assert_eq!(far.expiry_check_at, Some(start + EXPIRY_CHECK_MAX));
    }

    #[tokio::test]
    async fn a_write_that_is_not_taken_ends_its_socket() {
        let blocked = taken(Duration::from_millis(10), std::future::pending()).await;
        assert!(matches!(blocked, Err(End::Blocked)));
        assert!(taken(Duration::ZERO, async { Ok(()) }).await.is_ok());
    }
}
