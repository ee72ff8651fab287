//! `/ws/tasks`: the upgrade, and the pump from a session's cursor to its WebSocket.
//!
//! One worker per socket, without a queue: it waits for changes, frames, timers and the stop, and
//! writes what the session hands over before it asks for more. A reader that does not read costs
//! the bytes of one such batch and of the kernel's buffer, and its socket after the write timeout.

use super::{
    Connection, State,
    extract::{authenticate, query_pairs},
    guard::{self, Guarded},
    limits::{Bucket, SocketLimits},
    metered::{self, Metered},
    problem::{Code, Problem},
    socket_token::{self, TOKEN_TIMEOUT},
};
use crate::{
    auth::Principal,
    clock::Clock,
    hub::{
        From as StartAt, Next, Session, SubscribeError,
        message::{self, CloseCode},
    },
};
use axum::{
    Extension,
    body::Body,
    extract::{Request, State as AxumState},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, Version, header},
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_socket_send_buffer_size;
use serde::Deserialize;
use std::{borrow::Cow, convert::Infallible, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, error::Elapsed, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as SocketError, Message, Utf8Bytes,
        error::ProtocolError,
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

/// Bytes that the kernel keeps of what a peer has not taken (it takes as much again for itself).
/// Left alone it would let this grow to several MB for each reader that does not read.
const SEND_BUFFER_BYTES: usize = 128 * 1_024;

/// Longest message from a client in bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1_024;

/// Most text pings that wait for their answer; further ones share the last.
const PONGS_MAX: usize = 64;
/// Most raw bytes between two frames that are seen here. A message may come in fragments, and the
/// protocol does not say in how many; those without a byte in them would never end.
const RAW_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// Length of `Sec-WebSocket-Key`: 16 bytes in base64.
const KEY_CHARS: usize = 24;

type Socket = WebSocketStream<Metered>;

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
    let token = socket_token::of_subprotocols(headers).or(query.token.as_deref());
    let has_token = token.is_some() || headers.contains_key(header::AUTHORIZATION);
    let principal = if has_token || state.parts.authenticator.is_development() {
        Some(authenticate(&state, headers, token, query.user.as_deref())?)
    } else {
        None
    };
    state.check_ready()?;
    if connection.listener.shutdown.has_begun() {
        return Err(Problem::new(Code::Stopping));
    }
    let mode = Mode::choose(headers);
    let opening = match principal {
        // Before the 101, so that nothing is missed between the client's `onopen` and the session.
        Some(principal) => Opening::of(&state, principal, query.start_at),
        None => Opening::AwaitsToken(query.start_at),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let worker =
        Worker { clock: state.parts.clock.clone(), connection: Arc::clone(&connection), mode };
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
    // The router gives HEAD to whoever takes GET.
    let is_upgrade = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket");
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if !is_upgrade || version.is_none_or(|version| version != "13") {
        return Err(Problem::new(Code::UpgradeRequired));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|key| is_key(key));
    let key = key.ok_or(Problem::with_detail(Code::InvalidHeader, "Sec-WebSocket-Key"))?;
    Ok(derive_accept_key(key))
}

/// Whether it is 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let digits = key.strip_suffix(b"==").unwrap_or_default();
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    digits.len() == KEY_CHARS - 2 && digits.iter().all(is_digit)
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
    Session {
        principal: Principal,
        session: Session,
        must_resync: bool,
    },
    /// No token came with the handshake: it must come in the first frame.
    AwaitsToken(StartAt),
    Refused(CloseCode),
}

impl Opening {
    fn of(state: &State, principal: Principal, start_at: StartAt) -> Self {
        match state.parts.hub.subscribe(&principal.user_id, start_at) {
            Ok((session, must_resync)) => Self::Session { principal, session, must_resync },
            Err(SubscribeError::TooMany) => Self::Refused(CloseCode::TooManySessions),
        }
    }
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
    mode: Mode,
}

impl Worker {
    async fn run(self, upgrade: OnUpgrade, opening: Opening) {
        // The connection's place is the socket's from here on, and is free when this ends.
        let _place = self.connection.take_place();
        let Some(mut socket) = raw_socket(upgrade).await else { return };
        let close_timeout = self.limits().close_timeout;
        let cut = self.connection.listener.cut.clone();
        let end = tokio::select! {
            Err(end) = self.serve(&mut socket, opening) => end,
            () = cut.cancelled() => End::Blocked,
        };
        match end {
            End::Blocked => {
                debug!(peer = %self.connection.peer, "a socket was cut");
                guard::reset(socket.get_ref().stream());
            }
            End::Gone => finish(&mut socket, None, close_timeout).await,
            End::Close(closing) => finish(&mut socket, Some(closing), close_timeout).await,
        }
    }

    fn limits(&self) -> &SocketLimits {
        &self.connection.listener.state.options.limits.socket
    }

    async fn serve(&self, socket: &mut Socket, opening: Opening) -> Result<Infallible, End> {
        let Mode::Plain = self.mode;
        let limits = self.limits().clone();
        let mut inbound =
            Inbound { limits: &limits, start: Instant::now(), bucket: Bucket::default() };
        let opening = match opening {
            Opening::AwaitsToken(start_at) => {
                let principal = self.admit(socket, &mut inbound).await?;
                Opening::of(&self.connection.listener.state, principal, start_at)
            }
            opening => opening,
        };
        let (principal, mut session) = match opening {
            Opening::Session { principal, session, must_resync } => {
                if must_resync {
                    let message = message::resync(session.position());
                    let deadline = Instant::now() + limits.write_timeout;
                    write(socket, vec![message], deadline).await?;
                }
                (principal, session)
            }
            Opening::Refused(code) => return Err(End::Close(code.into())),
            Opening::AwaitsToken(_) => return Err(End::Close(CloseCode::Internal.into())),
        };
        self.pump(socket, &mut session, principal, inbound).await
    }

    /// Waits for the token of a socket that came without one; its first frame must be that.
    async fn admit(
        &self,
        socket: &mut Socket,
        inbound: &mut Inbound<'_>,
    ) -> Result<Principal, End> {
        let deadline = Instant::now() + TOKEN_TIMEOUT;
        let shutdown = self.connection.listener.shutdown.clone();
        loop {
            let frame = tokio::select! {
                frame = timeout_at(deadline, socket.next()) => frame,
                () = shutdown.begun() => return Err(End::Close(CloseCode::GoingAway.into())),
            };
            let is_control = matches!(&frame, Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))));
            socket.get_mut().restart();
            let said = match frame {
                Ok(frame) => inbound.receive(frame)?,
                Err(Elapsed { .. }) => Said::Other,
            };
            let token = match said {
                _ if is_control => continue,
                Said::Auth(token) => Some(token),
                Said::Ping | Said::Other | Said::Bad => None,
            };
            let checked = self.connection.authenticate_frame(token.as_deref());
            return checked.map_err(|code| End::Close(code.into()));
        }
    }

    /// Takes another token of the same user, so that the socket may live until that expires.
    fn renew(&self, principal: &mut Principal, token: &str) -> Result<(), End> {
        let renewed = self.connection.authenticate_frame(Some(token));
        let renewed = renewed.map_err(|code| End::Close(code.into()))?;
        if renewed.user_id != principal.user_id {
            return Err(End::Close(CloseCode::Token.into()));
        }
        *principal = renewed;
        Ok(())
    }

    /// Pumps until an end.
    async fn pump(
        &self,
        socket: &mut Socket,
        session: &mut Session,
        mut principal: Principal,
        mut inbound: Inbound<'_>,
    ) -> Result<Infallible, End> {
        let shutdown = self.connection.listener.shutdown.clone();
        let (limits, expires_at_ms) = (inbound.limits.clone(), principal.expires_at_ms);
        let mut timers = Timers::new(limits, expires_at_ms, Instant::now(), self.clock.now_ms());
        let mut begun = pin!(shutdown.begun());
        let mut sleep = pin!(tokio::time::sleep_until(timers.next()));
        let mut is_stopping = false;
        // Each comes after all that was published before its ping.
        let mut pongs = Vec::new();
        loop {
            tokio::select! {
                next = session.next() => match next {
                    Ok(next) => {
                        let messages = match next {
                            Next::Messages(messages) => messages,
                            Next::Mark => std::mem::take(&mut pongs),
                        };
                        write(socket, messages, timers.write_deadline(Instant::now())).await?;
                        timers.wrote(Instant::now());
                    }
                    Err(error) => {
                        error!(%error, "a session could not read its changes");
                        return Err(End::Close(CloseCode::Internal.into()));
                    }
                },
                frame = socket.next() => {
                    socket.get_mut().restart();
                    match inbound.receive(frame)? {
                        Said::Ping => {
                            if pongs.len() < PONGS_MAX {
                                pongs.push(Bytes::from_static(message::PONG.as_bytes()));
                            }
                            session.mark();
                        }
                        Said::Auth(token) => {
                            self.renew(&mut principal, &token)?;
                            timers.expires_at_ms = principal.expires_at_ms;
                            timers.arm_expiry(Instant::now(), self.clock.now_ms());
                            sleep.as_mut().reset(timers.next());
                        }
                        Said::Other | Said::Bad => (),
                    }
                    timers.heard();
                }
                () = &mut sleep => {
                    let due = timers.fired(Instant::now(), self.clock.now_ms());
                    if due.map_err(|code| End::Close(code.into()))? {
                        let ping = socket.send(Message::Ping(Bytes::new()));
                        taken(timers.write_deadline(Instant::now()), ping).await?;
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
}

/// Writes messages with as few system calls as they take.
async fn write(socket: &mut Socket, messages: Vec<Bytes>, deadline: Instant) -> Result<(), End> {
    let writing = async {
        for message in messages {
            // As a frame, for the text is ours and need not be checked for UTF-8 again.
            let frame = Frame::message(message, OpCode::Data(Data::Text), true);
            socket.feed(Message::Frame(frame)).await?;
        }
        socket.flush().await
    };
    taken(deadline, writing).await
}

/// Waits for a write to be taken.
async fn taken(
    deadline: Instant,
    writing: impl Future<Output = Result<(), SocketError>>,
) -> Result<(), End> {
    match timeout_at(deadline, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(SocketError::WriteBufferFull(_))) => Err(End::Close(CloseCode::Internal.into())),
        Ok(Err(_)) => Err(End::Gone),
        Err(Elapsed { .. }) => Err(End::Blocked),
    }
}

/// What a client says.
#[derive(Eq, PartialEq)]
#[cfg_attr(test, derive(Debug))]
enum Said {
    /// `ping`, as text or as JSON.
    Ping,
    /// A token, good or not.
    Auth(String),
    /// Nothing that is for us.
    Other,
    /// What looks like a message of the protocol, and is none.
    Bad,
}

impl Said {
    /// Text that is no JSON object is a page's own business; an object is a message to us.
    fn parse(text: &str) -> Self {
        #[derive(Deserialize)]
        struct ClientMessage<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
        }
        let text = text.trim();
        if text == "ping" {
            return Self::Ping;
        }
        if !text.starts_with('{') {
            return Self::Other;
        }
        match serde_json::from_str::<ClientMessage<'_>>(text) {
            Ok(message) if message.kind == "ping" => Self::Ping,
            Ok(message) if message.kind == "auth" => {
                socket_token::of_frame(text).map_or(Self::Bad, Self::Auth)
            }
            _ => Self::Bad,
        }
    }
}

/// What comes from the peer, counted.
struct Inbound<'a> {
    limits: &'a SocketLimits,
    start: Instant,
    bucket: Bucket,
}

impl Inbound<'_> {
    /// Looks at one frame of the peer.
    fn receive(&mut self, frame: Option<Result<Message, SocketError>>) -> Result<Said, End> {
        match frame {
            None | Some(Ok(Message::Close(_))) => Err(End::Gone),
            Some(Ok(_)) if !self.is_within_rate() => Err(End::Close(CloseCode::RateLimited.into())),
            Some(Ok(Message::Text(text))) => match Said::parse(text.as_str()) {
                Said::Bad => Err(End::Close(CloseCode::BadFrame.into())),
                said => Ok(said),
            },
            Some(Ok(Message::Binary(_))) => Err(End::Close(CloseCode::BadFrame.into())),
            // Pings are answered by the protocol.
            Some(Ok(_)) => Ok(Said::Other),
            Some(Err(error)) => Err(end_of(&error)),
        }
    }

    fn is_within_rate(&mut self) -> bool {
        let elapsed = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.limits.rate.is_none_or(|rate| rate.take(&mut self.bucket, elapsed).is_ok())
    }
}

/// How a socket ends whose peer broke the rules.
fn end_of(error: &SocketError) -> End {
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
async fn raw_socket(upgrade: OnUpgrade) -> Option<Socket> {
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
async fn finish(socket: &mut Socket, closing: Option<Closing>, limit: Duration) {
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

/// When the pump has to do something by itself.
struct Timers {
    limits: SocketLimits,
    ping_at: Instant,
    /// Set while a ping is unanswered.
    pong_by: Option<Instant>,
    expires_at_ms: Option<i64>,
    expiry_check_at: Option<Instant>,
    /// Set once the daemon stops.
    close_at: Option<Instant>,
}

impl Timers {
    fn new(limits: SocketLimits, expires_at_ms: Option<i64>, now: Instant, now_ms: i64) -> Self {
        let mut timers = Self {
            ping_at: now + limits.ping_interval,
            limits,
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

    /// How long a write that begins now may take: no token is outlived by more than its close.
    fn write_deadline(&self, now: Instant) -> Instant {
        let latest = now + self.limits.write_timeout;
        self.expiry_check_at.map_or(latest, |at| latest.min(at + self.limits.close_timeout))
    }

    /// A frame came in.
    fn heard(&mut self) {
        self.pong_by = None;
    }

    /// A write was taken; while it was blocked, nothing was read, so the pong may be waiting.
    fn wrote(&mut self, now: Instant) {
        if self.pong_by.is_some_and(|by| by <= now) {
            self.pong_by = Some(now + self.limits.pong_timeout);
        }
    }

    /// What is due: `true` is a ping.
    fn fired(&mut self, now: Instant, now_ms: i64) -> Result<bool, CloseCode> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.close_at) {
            return Err(CloseCode::GoingAway);
        }
        // Whatever is due, and a ping is soon: the wall clock may have been set on, or the machine
        // have slept, which the other clock does not tell.
        if self.expires_at_ms.is_some_and(|at| at <= now_ms) {
            return Err(CloseCode::Token);
        }
        self.arm_expiry(now, now_ms);
        if is_due(self.pong_by) {
            return Err(CloseCode::NoPong);
        }
        if self.ping_at > now {
            return Ok(false);
        }
        self.ping_at = now + self.limits.ping_interval;
        self.pong_by.get_or_insert(now + self.limits.pong_timeout);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const PING_INTERVAL: Duration = Duration::from_secs(30);
    const PONG_TIMEOUT: Duration = Duration::from_secs(20);

    fn timers_of(expires_at_ms: Option<i64>, now: Instant, now_ms: i64) -> Timers {
        let limits = crate::http::tests::support::limits().socket;
        Timers::new(limits, expires_at_ms, now, now_ms)
    }

    #[test]
    fn a_peer_that_does_not_answer_a_ping_is_closed() {
        let start = Instant::now();
        let mut timers = timers_of(None, start, 0);
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
        let mut timers = timers_of(None, start, 0);
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
        let mut timers = timers_of(Some(2_000), start, 1_000);
        assert_eq!(timers.next(), start + S);
        assert_eq!(timers.fired(start + S, 1_500), Ok(false), "the wall clock was set back");
        assert_eq!(timers.fired(start + 2 * S, 2_000), Err(CloseCode::Token));
        let mut timers = timers_of(Some(3_600_000), start, 0);
        let pinged = start + PING_INTERVAL;
        assert_eq!(timers.fired(pinged, 3_600_000), Err(CloseCode::Token), "it was set on");
        let far = timers_of(Some(i64::MAX), start, i64::MIN);
        assert_eq!(far.expiry_check_at, Some(start + EXPIRY_CHECK_MAX));
    }

    #[test]
    fn no_write_outlives_the_token_by_more_than_the_close() {
        let start = Instant::now();
        assert_eq!(timers_of(None, start, 0).write_deadline(start), start + 60 * S);
        assert_eq!(timers_of(Some(2_000), start, 1_000).write_deadline(start), start + 6 * S);
        assert_eq!(timers_of(Some(90_000), start, 0).write_deadline(start), start + 60 * S);
    }

    #[test]
    fn what_looks_like_a_message_has_to_be_one() {
        for (text, expected) in [
            ("ping", Said::Ping),
            (" ping\n", Said::Ping),
            ("{\"type\":\"ping\"}", Said::Ping),
            ("{ \"at\": 1, \"type\": \"p\\u0069ng\" }", Said::Ping),
            ("{\"type\":\"auth\",\"data\":{\"token\":\"x\"}}", Said::Auth("x".to_owned())),
            ("{\"type\":\"auth\"}", Said::Bad),
            ("", Said::Other),
            ("hello", Said::Other),
            ("[1]", Said::Other),
            ("{", Said::Bad),
            ("{}", Said::Bad),
            ("{\"type\":1}", Said::Bad),
            ("{\"type\":\"ping\",\"type\":\"ping\"}", Said::Bad),
            ("{\"type\":\"ping\"}{", Said::Bad),
            ("{\"type\":\"what\"}", Said::Bad),
        ] {
            assert_eq!(Said::parse(text), expected, "{text}");
        }
        let deep = format!("{{\"x\":{}}}", "[".repeat(60_000));
        assert_eq!(Said::parse(&deep), Said::Bad);
    }

    #[tokio::test]
    async fn a_write_that_is_not_taken_ends_its_socket() {
        let soon = Instant::now() + Duration::from_millis(10);
        let blocked = taken(soon, std::future::pending()).await;
        assert!(matches!(blocked, Err(End::Blocked)));
        assert!(taken(soon, async { Ok(()) }).await.is_ok());
    }
}
