//! Port 8000: REST, WebSocket, stats, health and metrics.
//!
//! An own accept loop owns limits and drain; inside it axum's router is a plain service.
//!
//! Invariant: a request is logged by its path at most, never with its query or headers, for those
//! may hold tokens.

mod admin;
mod batch;
mod body;
mod changes;
mod docs;
mod events;
mod extract;
mod follow;
mod guard;
mod limits;
mod list;
mod metered;
mod openapi;
mod origin;
mod page;
mod problem;
mod registry;
mod route;
mod socket;
mod stats;
mod tasks;
#[cfg(test)]
mod tests;
mod tickets;
mod timers;

pub use admin::backup::MakeBackup;
pub use limits::{Limits, Rate, SocketLimits};

use crate::{
    apply::{Applied, Progress},
    auth::{AuthError, Authenticator, Principal},
    clock::Clock,
    feed::{EventLog, inspect::Inspect},
    hub::Hub,
    metrics::Metrics,
    places::{Full, Place},
    position::TopicName,
    shutdown::Shutdown,
    store::Store,
};
use axum::{
    Router,
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
    },
    response::IntoResponse,
};
use bytes::Bytes;
use follow::SNAPSHOTS_MAX;
use futures_util::FutureExt;
use guard::{Budgets, Guarded, Talk};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use limits::Usage;
use origin::{Origin, Policy};
use problem::{Code, Problem, Refused};
use registry::Registry;
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tickets::Tickets;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;
use tracing::{debug, info, trace, warn};

/// Bytes of a connection's buffers; the head of a request must fit (431).
const BUFFER_BYTES_MAX: usize = 32 * 1_024;

/// Longest request target in bytes; the longest token and the longest filter fit.
const TARGET_BYTES_MAX: usize = 16 * 1_024;

/// Shortest and longest wait after a failed accept.
const ACCEPT_BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Most administrators that look into the log at a time.
const LOOKS_MAX: usize = 2;

/// Shortest and longest wait in milliseconds that a client is asked for when the daemon stops.
const RECONNECT_AFTER_MS: (f64, f64) = (100.0, 500.0);

/// Time for what was cut at the end of the drain to let go of its parts.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection above the limit is told before it is closed.
const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What one above the limit of its address is told.
const TOO_MANY_OF_ADDRESS: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

const POSITION_HEADER: HeaderName = HeaderName::from_static("taskwire-position");

/// How HTTP runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The topic that REST writes are published to.
    pub topic: TopicName,
    /// How long a write waits for its outcome before 202.
    pub write_timeout: Duration,
    /// What peers may take up.
    pub limits: Limits,
    /// Origins beside our own that browsers may use us from.
    pub allow_origins: Vec<String>,
    /// `/metrics` and `/ws/stats` need a token.
    pub protects_metrics: bool,
}

/// Everything that a request can reach.
#[derive(Clone)]
pub struct Parts {
    /// Checks tokens.
    pub authenticator: Authenticator,
    /// Reads.
    pub store: Arc<dyn Store>,
    /// Writes.
    pub feed: Arc<dyn EventLog>,
    /// Outcomes of writes, and readiness.
    pub applied: Applied,
    /// Sessions.
    pub hub: Hub,
    /// Time.
    pub clock: Clock,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What health says beside apply's progress.
    pub health: Arc<dyn Fn() -> Health + Send + Sync>,
    /// What administrators see of the log.
    pub inspect: Arc<dyn Inspect>,
    /// Makes a backup of this daemon.
    pub backup: MakeBackup,
}

/// Reasons why the daemon is not wholly healthy.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Health {
    /// What has failed until restart: 503.
    pub failures: Vec<String>,
    /// What is damaged, while all else goes on: 200 and `degraded`.
    pub damages: Vec<String>,
}

/// The HTTP service. Cheap to clone.
#[derive(Clone)]
pub struct Http {
    state: Arc<State>,
    router: Router,
}

impl Http {
    /// The service over its parts.
    pub fn new(options: Options, parts: Parts) -> Self {
        let state = Arc::new(State {
            progress: parts.applied.progress(),
            usage: Usage::new(&options.limits),
            budgets: Budgets::new(),
            is_stopping: AtomicBool::new(false),
            backups: Arc::new(Semaphore::new(1)),
            looks: Semaphore::new(LOOKS_MAX),
            registry: Registry::default(),
            tickets: Tickets::default(),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
            options,
            parts,
        });
        let router = route::router(Arc::clone(&state));
        Self { state, router }
    }

    /// Accepts on a bound listener until shutdown begins; then readyz is 503, no new connections
    /// come in, requests end and sockets are closed with 1001 spread over the first half of
    /// `drain`; returns when all are gone or `drain` has passed.
    pub async fn serve(&self, tcp: TcpListener, shutdown: Shutdown, drain: Duration) {
        let is_loopback = tcp.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let listener = self.listener(is_loopback, &shutdown, drain);
        tokio::select! {
            () = listener.accept(&tcp) => (),
            () = shutdown.begun() => (),
        }
        self.state.is_stopping.store(true, Ordering::Relaxed);
        drop(tcp);
        listener.drain().await;
    }

    fn listener(&self, is_loopback: bool, shutdown: &Shutdown, drain: Duration) -> Arc<Listener> {
        Arc::new(Listener {
            state: Arc::clone(&self.state),
            router: self.router.clone(),
            policy: Policy {
                allow_origins: self.state.options.allow_origins.clone(),
                is_loopback,
                is_development: self.state.parts.authenticator.is_development(),
            },
            shutdown: shutdown.clone(),
            drain,
            cut: CancellationToken::new(),
            tracker: TaskTracker::new(),
            closed: AtomicU32::new(0),
            told: AtomicU32::new(0),
        })
    }
}

/// What all handlers share.
struct State {
    options: Options,
    parts: Parts,
    progress: watch::Receiver<Progress>,
    usage: Usage,
    /// One backup at a time.
    backups: Arc<Semaphore>,
    /// Administrators who look into the log or at its groups; further ones wait.
    looks: Semaphore,
    registry: Registry,
    tickets: Tickets,
    /// See [`SNAPSHOTS_MAX`].
    snapshots: Arc<Semaphore>,
    budgets: Budgets,
    is_stopping: AtomicBool,
}

impl State {
    /// Refuses while apply has not reached the log end seen at start.
    fn check_ready(&self) -> Result<(), Problem> {
        if self.progress.borrow().is_caught_up {
            return Ok(());
        }
        Err(Problem::new(Code::CatchingUp))
    }

    /// How long a principal's token is good.
    fn time_left(&self, principal: &Principal) -> Duration {
        let left = |at_ms: i64| at_ms.saturating_sub(self.parts.clock.now_ms());
        principal.expires_at_ms.map_or(Duration::MAX, |at_ms| {
            Duration::from_millis(u64::try_from(left(at_ms)).unwrap_or(0))
        })
    }

    /// The store's head as a header: what is read after this holds at least all up to there.
    fn position(&self) -> HeaderValue {
        let text = self.parts.store.head().to_string();
        HeaderValue::from_maybe_shared(Bytes::from(text)).expect("digits and dots are plain")
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }
}

/// One bound address, and all that came in by it.
struct Listener {
    state: Arc<State>,
    router: Router,
    policy: Policy,
    shutdown: Shutdown,
    drain: Duration,
    /// Ends at once what the drain has not ended.
    cut: CancellationToken,
    tracker: TaskTracker,
    /// Sockets that were given their time to close.
    closed: AtomicU32,
    /// Clients that were told when to come back.
    told: AtomicU32,
}

/// One connection, or the WebSocket that it has become.
struct Connection {
    listener: Arc<Listener>,
    peer: SocketAddr,
    place: Mutex<Option<Place>>,
    /// What it has under way, and what cuts it.
    talk: Arc<Talk>,
    cut: CancellationToken,
}

impl Listener {
    /// Accepts for ever. Cancel safe.
    async fn accept(self: &Arc<Self>, tcp: &TcpListener) {
        let mut wait = ACCEPT_BACK_OFF.0;
        loop {
            match tcp.accept().await {
                Ok((stream, peer)) => {
                    wait = ACCEPT_BACK_OFF.0;
                    self.take(stream, peer);
                }
                Err(error) if is_of_one_peer(&error) => debug!(%error, "a peer was gone already"),
                Err(error) => {
                    // Out of file descriptors or memory: it neither kills nor spins the listener.
                    warn!(%error, wait_ms = wait.as_millis(), "cannot accept on the HTTP port");
                    sleep(wait).await;
                    wait = (wait * 2).min(ACCEPT_BACK_OFF.1);
                }
            }
        }
    }

    fn take(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let place = match self.state.usage.places.take(peer.ip()) {
            Ok(place) => place,
            Err(full) => {
                debug!(%peer, ?full, "too many HTTP connections");
                self.state.parts.metrics.http_connections_refused.inc();
                let words = match full {
                    Full::InAll => TOO_MANY_CONNECTIONS,
                    Full::OfAddress => TOO_MANY_OF_ADDRESS,
                };
                // A courtesy: what the peer does with it, or whether it fits, does not matter.
                drop(stream.try_write(words));
                return;
            }
        };
        // Only latency is lost if the option cannot be set.
        drop(stream.set_nodelay(true));
        let cut = self.cut.child_token();
        let connection = Arc::new(Connection {
            listener: Arc::clone(self),
            peer,
            place: Mutex::new(Some(place)),
            talk: Arc::new(Talk::new(self.state.budgets.clone(), cut.clone())),
            cut,
        });
        self.tracker.spawn(connection.serve(stream));
    }

    /// Waits for what is open, at most the drain time, then cuts it.
    async fn drain(&self) {
        self.tracker.close();
        if timeout(self.drain, self.tracker.wait()).await.is_ok() {
            return;
        }
        warn!(connections = self.tracker.len(), "cut HTTP connections at the end of the drain");
        self.cut.cancel();
        drop(timeout(CUT_TIMEOUT, self.tracker.wait()).await);
    }

    /// When the next socket closes after the stop has begun: spread over half of the drain, so that
    /// clients do not come back all at once, and the other half is left for their answers.
    fn close_delay(&self) -> Duration {
        self.drain.mul_f64(0.5 * spread(&self.closed))
    }

    /// When the next client that is told to come back does so.
    fn reconnect_after_ms(&self) -> u64 {
        let (least, most) = RECONNECT_AFTER_MS;
        let wait = Duration::from_secs_f64((least + spread(&self.told) * (most - least)) / 1_000.0);
        u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A number from 0 to 1, another one each time, however many there are.
fn spread(count: &AtomicU32) -> f64 {
    /// 2^32 over the golden ratio: consecutive multiples are spread evenly.
    const STEP: u32 = 0x9e37_79b9;
    let place = count.fetch_add(1, Ordering::Relaxed).wrapping_mul(STEP);
    f64::from(place) / f64::from(u32::MAX)
}

/// Errors of accept that are about the one connection that was to be accepted.
fn is_of_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl Connection {
    /// The place among all connections; a WebSocket takes it over.
    fn take_place(&self) -> Option<Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let gauge = &self.listener.state.parts.metrics.http_connections;
        gauge.inc();
        let service = service_fn(|request| Arc::clone(&self).answer(request));
        let limits = &self.listener.state.options.limits;
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(BUFFER_BYTES_MAX);
        let stream = Guarded::new(stream, limits.answer_timeout, Arc::clone(&self.talk));
        let serving = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut serving = pin!(serving);
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = self.cut.cancelled() => cut_off(serving.as_mut()),
            () = self.listener.shutdown.begun() => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = serving.as_mut() => ended,
                    () = self.cut.cancelled() => cut_off(serving.as_mut()),
                }
            }
        };
        // Here, since the connection sees the cut by itself, too, and may have ended by it.
        if self.cut.is_cancelled() {
            self.note_cut();
        }
        if let Err(error) = ended {
            debug!(peer = %self.peer, %error, "an HTTP connection ended early");
        }
        gauge.dec();
    }

    /// Answers one request: policy, route, and what every answer carries.
    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let listener = &self.listener;
        // Before anything is read: who goes on from here may see a change twice, but misses none.
        let position = listener.state.position();
        let judged = self.admit(&request);
        let has_body = has_body(request.headers());
        let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        let origin = match judged {
            Ok(Origin::Allowed) => request.headers().get(header::ORIGIN).cloned(),
            _ => None,
        };
        let mut response = match judged {
            Err(problem) => problem.into_response(),
            Ok(_) if origin::is_preflight(&method, request.headers()) => origin::preflight(),
            Ok(_) => {
                if is_session(uri.path()) {
                    request.extensions_mut().insert(Arc::clone(&self));
                }
                let Ok(response) = listener.router.clone().call(request).await;
                self.limit_failures(response)
            }
        };
        if method == Method::OPTIONS && response.status() == StatusCode::METHOD_NOT_ALLOWED {
            // Nobody handles OPTIONS, but the router has listed what the path takes.
            *response.status_mut() = StatusCode::NO_CONTENT;
            *response.body_mut() = Body::empty();
            response.headers_mut().remove(header::CONTENT_TYPE);
        }
        complete(response.headers_mut(), position, origin);
        if is_chunked && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // It may have had a length, too, which hyper passes over (RFC 9112, 6.1).
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        trace!(%method, path = uri.path(), status = response.status().as_u16(), "answered");
        self.count(&response, uri.path());
        let bytes = response.body().size_hint().upper().unwrap_or(0);
        let lingers = has_body && response.status().is_client_error();
        self.talk.answered(usize::try_from(bytes).unwrap_or(usize::MAX), lingers);
        Ok(response)
    }

    /// It was the slowest when there was no memory left for what is under way, or its stream was
    /// not read.
    fn note_cut(&self) {
        self.listener.state.parts.metrics.http_connections_cut.inc();
        debug!(peer = %self.peer, "an HTTP connection was cut");
    }

    /// Looks at a request before any of its handlers.
    fn admit(&self, request: &Request<Incoming>) -> Result<Origin, Problem> {
        let (uri, state) = (request.uri(), &self.listener.state);
        let hosts = request.headers().get_all(header::HOST).iter().count();
        if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
            return Err(Problem::with_detail(Code::InvalidHeader, "Host"));
        }
        // The rest of a target in absolute form is a scheme and a host, and is bounded by hyper.
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        if target.len() > TARGET_BYTES_MAX {
            return Err(Problem::new(Code::TargetTooLong));
        }
        if !is_probe(uri.path()) {
            state.usage.count_address(self.peer.ip()).map_err(Problem::rate_limited)?;
        }
        self.listener.policy.judge(request.method(), uri.path(), request.headers())
    }

    /// Counts a refused token against its address; too many are told to wait, and not logged.
    /// Good tokens are not held up by bad ones: an address may be that of many users.
    fn limit_failures(&self, response: Response<Body>) -> Response<Body> {
        let Some(Refused(reason)) = response.extensions().get() else { return response };
        self.listener.state.parts.metrics.auth_failures.inc();
        if matches!(reason, AuthError::Missing) {
            return response;
        }
        match self.listener.state.usage.count_failure(self.peer.ip()) {
            Ok(()) => response,
            Err(exceeded) => Problem::rate_limited(exceeded).into_response(),
        }
    }

    fn count(&self, response: &Response<Body>, path: &str) {
        let metrics = &self.listener.state.parts.metrics;
        metrics.http_requests.inc();
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            metrics.http_rate_limited.inc();
        }
        if response.status().is_server_error() {
            metrics.http_server_errors.inc();
        }
        if let Some(Refused(reason)) = response.extensions().get() {
            info!(peer = %self.peer, path, %reason, "a request was refused");
        }
    }
}

/// Lets a connection that is cut see it once more, so that it ends by a reset and the kernel drops
/// what was not taken.
fn cut_off<E>(serving: Pin<&mut impl Future<Output = Result<(), E>>>) -> Result<(), E> {
    serving.now_or_never().unwrap_or(Ok(()))
}

/// Whether a path's handler goes on after its answer has begun, or waits, and so must hear of the
/// stop.
fn is_session(path: &str) -> bool {
    path.starts_with("/ws/") || matches!(path, "/api/changes" | "/api/events")
}

/// Whether a path is asked by supervisors, who are never told to wait.
fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/health" | "/readyz")
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// Headers of every answer. A write has set its own position, which is beyond the one before it.
fn complete(headers: &mut HeaderMap, position: HeaderValue, origin: Option<HeaderValue>) {
    headers.entry(POSITION_HEADER).or_insert(position);
    if let Some(origin) = origin {
        origin::allow(headers, origin);
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}
