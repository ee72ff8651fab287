//! `GET /api/events`: server-sent events, with the documents of `taskwire.v1`.
//!
//! A worker per stream pumps from its follower into a channel of one chunk, which hyper empties as
//! the client reads. A client that does not read costs two chunks, hyper's buffer and the kernel's,
//! and its connection after the write timeout.
//!
//! Source: HTML Living Standard, 9.2 (server-sent events).

use super::{
    Connection, State,
    follow::{Batch, FollowError, FollowQuery, Follower, Start, Transport},
    limits::SocketLimits,
    problem::{Code, Problem},
    tickets::{self, QueryCredentials},
    timers::Timers,
};
use crate::{
    auth::Principal,
    hub::message::{self, CloseCode},
};
use axum::{
    Extension,
    body::Body,
    extract::State as AxumState,
    http::{HeaderMap, HeaderName, HeaderValue, Response, Uri, header},
};
use bytes::Bytes;
use futures_util::stream;
use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc::{self, Sender},
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, error};

/// Longest silence: proxies end connections that are silent for longer than they like.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Chunks between a worker and its connection; a worker that finds it full waits.
const CHUNKS_MAX: usize = 1;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How long a browser waits before it comes back, in ms.
const RETRY: &[u8] = b"retry: 1000\n\n";

/// `GET /api/events`
pub(super) async fn open(
    AxumState(state): AxumState<Arc<State>>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let query = FollowQuery::parse(&uri)?;
    let start = start_of(&query, headers.get(LAST_EVENT_ID))?;
    let credentials = QueryCredentials {
        ticket: query.ticket.as_deref(),
        token: query.token.as_deref(),
        user: query.user.as_deref(),
    };
    let principal = tickets::admit(&state, &headers, &credentials)?;
    state.check_ready()?;
    if connection.listener.shutdown.has_begun() {
        return Err(Problem::new(Code::Stopping));
    }
    let mut follower = Follower::new(&state, &principal, start, Transport::Events)?;
    follower.register(&connection);
    connection.talk.begin_stream();
    let (chunks, mut inbox) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let worker = Worker { connection: Arc::clone(&connection), chunks, principal };
    connection.listener.tracker.spawn(worker.run(follower));
    let chunks =
        stream::poll_fn(move |cx| inbox.poll_recv(cx).map(|next| next.map(Ok::<_, Infallible>)));
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would gather it.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Where the stream starts: what the browser has seen last goes before what its page asked for.
fn start_of(query: &FollowQuery, last_event_id: Option<&HeaderValue>) -> Result<Start, Problem> {
    let asked = Start::parse(query.from.as_deref(), query.or.as_deref());
    let asked = asked.ok_or_else(|| {
        Problem::parameter("from", "a position as in `pos`, earliest or snapshot")
    })?;
    let Some(seen) = last_event_id.filter(|seen| !seen.is_empty()) else { return Ok(asked) };
    let seen = seen.to_str().ok().and_then(|seen| seen.parse().ok());
    let seen = seen.ok_or(Problem::with_detail(Code::InvalidHeader, "Last-Event-ID"))?;
    Ok(asked.after(seen))
}

/// How a stream ended.
enum End {
    /// The client is gone, or has been told all that it will be.
    Done,
    /// The client takes nothing: only a reset ends it.
    Blocked,
}

/// One stream's worker.
struct Worker {
    connection: Arc<Connection>,
    chunks: Sender<Bytes>,
    principal: Principal,
}

impl Worker {
    async fn run(self, follower: Follower) {
        let cut = self.connection.cut.clone();
        if matches!(self.pump(follower).await, Err(End::Blocked)) {
            debug!(peer = %self.connection.peer, "a stream was cut");
            cut.cancel();
        }
    }

    async fn pump(&self, mut follower: Follower) -> Result<Infallible, End> {
        let listener = &self.connection.listener;
        let clock = &listener.state.parts.clock;
        let limits = self.limits();
        let lag_max = limits.lag_max;
        let expires_at_ms = self.principal.expires_at_ms;
        let mut timers = Timers::new(limits, expires_at_ms, Instant::now(), clock.now_ms());
        let mut begun = pin!(listener.shutdown.begun());
        let mut sleep = pin!(sleep_until(timers.next()));
        let mut is_stopping = false;
        self.send(Bytes::from_static(RETRY), &mut timers).await?;
        loop {
            tokio::select! {
                next = follower.next() => {
                    self.send(chunk_of(next)?, &mut timers).await?;
                    if lag_max.is_some_and(|max| follower.lag() > max) {
                        return Err(End::Done);
                    }
                }
                () = self.chunks.closed() => return Err(End::Done),
                () = &mut sleep => {
                    let due = self.due(&mut timers, clock.now_ms());
                    let (chunk, is_last) = due?;
                    self.send(chunk, &mut timers).await?;
                    if is_last {
                        return Err(End::Done);
                    }
                    sleep.as_mut().reset(timers.next());
                }
                () = &mut begun, if !is_stopping => {
                    is_stopping = true;
                    timers.close_at = Some(Instant::now() + listener.close_delay());
                    sleep.as_mut().reset(timers.next());
                }
            }
        }
    }

    /// What the timers ask for, and whether it is the last.
    fn due(&self, timers: &mut Timers, now_ms: i64) -> Result<(Bytes, bool), End> {
        let due = match timers.fired(Instant::now(), now_ms) {
            Ok(due) => due,
            Err(CloseCode::GoingAway) => {
                let drain = message::drain(self.connection.listener.reconnect_after_ms());
                return Ok((chunk(&[drain], false), true));
            }
            Err(_) => return Err(End::Done),
        };
        // Nobody answers here.
        timers.heard();
        let mut text = Vec::new();
        if let (true, Some(expires_at_ms)) = (due.warning, self.principal.expires_at_ms) {
            append(&mut text, &message::token_expiring(expires_at_ms), false);
        }
        if due.ping {
            text.extend_from_slice(b": keep-alive\n\n");
        }
        Ok((text.into(), false))
    }

    async fn send(&self, chunk: Bytes, timers: &mut Timers) -> Result<(), End> {
        if chunk.is_empty() {
            return Ok(());
        }
        match timeout_at(timers.write_limit(Instant::now()).at, self.chunks.send(chunk)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Done),
            Err(_) => Err(End::Blocked),
        }
    }

    fn limits(&self) -> SocketLimits {
        let mut limits = self.connection.listener.state.options.limits.socket.clone();
        limits.ping_interval = limits.ping_interval.min(KEEP_ALIVE);
        limits
    }
}

fn chunk_of(next: Result<Batch, FollowError>) -> Result<Bytes, End> {
    match next {
        Ok(batch) => Ok(chunk(&batch.documents, batch.is_resumable)),
        Err(FollowError::Slow) => Err(End::Done),
        Err(error) => {
            error!(%error, "a stream could not read its changes");
            Err(End::Done)
        }
    }
}

fn chunk(documents: &[Bytes], is_resumable: bool) -> Bytes {
    let bytes = documents.iter().map(|document| document.len() + 96).sum();
    let mut text = Vec::with_capacity(bytes);
    for document in documents {
        append(&mut text, document, is_resumable);
    }
    text.into()
}

/// One event: the document on a line, for it holds no line break.
fn append(text: &mut Vec<u8>, document: &[u8], is_resumable: bool) {
    if let Some(position) = message::position_of(document).filter(|_| is_resumable) {
        text.extend_from_slice(b"id: ");
        text.extend_from_slice(position.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(b"event: ");
    let kind = message::type_of(document).unwrap_or_default();
    text.extend(kind.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    text.extend_from_slice(b"\ndata: ");
    text.extend_from_slice(document);
    text.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_an_id_only_where_a_client_may_go_on() {
        let change = Bytes::from_static(br#"{"type":"a\nb","data":{},"pos":"a.0.1"}"#);
        let text = chunk(std::slice::from_ref(&change), true);
        let data = r#"{"type":"a\nb","data":{},"pos":"a.0.1"}"#;
        assert_eq!(text, format!("id: a.0.1\nevent: a b\ndata: {data}\n\n"));
        let text = chunk(&[change, message::drain(7)], false);
        let drain = r#"{"type":"drain","data":{"reconnect_after_ms":7}}"#;
        let drain = format!("event: drain\ndata: {drain}\n\n");
        assert_eq!(text, format!("event: a b\ndata: {data}\n\n{drain}"));
    }

    #[test]
    fn what_was_seen_last_goes_before_what_is_asked_for() {
        let start = |query: &str, seen: Option<&str>| {
            let uri: Uri = format!("/api/events?{query}").parse().unwrap();
            let seen = seen.map(|seen| HeaderValue::from_str(seen).unwrap());
            let start = start_of(&FollowQuery::parse(&uri).unwrap(), seen.as_ref());
            start.map_err(|problem| problem.code().as_str())
        };
        let parse = |from, or| Ok(Start::parse(from, or).unwrap());
        assert_eq!(start("", None), parse(None, None));
        assert_eq!(start("from=snapshot", Some("")), parse(Some("snapshot"), None));
        assert_eq!(start("from=earliest", Some("a.1.2")), parse(Some("a.1.2"), None));
        let resumed = parse(Some("a.1.2"), Some("snapshot"));
        assert_eq!(start("from=snapshot", Some("a.1.2")), resumed);
        assert_eq!(start("", Some("nonsense")), Err("invalid_header"));
        assert_eq!(start("from=nonsense", None), Err("invalid_parameter"));
        assert_eq!(start("or=nonsense", Some("a.1.2")), Err("invalid_parameter"));
    }
}
