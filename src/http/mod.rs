//! Port 8000: REST, WebSocket, stats, health and metrics.

use crate::{
    apply::Applied, auth::Authenticator, clock::Clock, feed::EventLog, hub::Hub, metrics::Metrics,
    position::TopicName, shutdown::Shutdown, store::Store,
};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// How HTTP runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The topic that REST writes are published to.
    pub topic: TopicName,
    /// Longest request body in bytes.
    pub body_bytes_max: usize,
    /// Time to send the headers of a request.
    pub header_timeout: Duration,
    /// How long a write waits for its outcome before 202.
    pub write_timeout: Duration,
    /// Most connections in all.
    pub connections_max: usize,
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
    /// What health says beside apply's progress: reasons why the daemon is not healthy.
    pub health: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
}

/// The HTTP service. Cheap to clone.
#[derive(Clone)]
pub struct Http {}

impl Http {
    /// The service over its parts.
    pub fn new(options: Options, parts: Parts) -> Self {
        let _ = (options, parts);
        todo!()
    }

    /// Accepts on a bound listener until shutdown begins; then readyz is 503, no new connections
    /// come in, requests end and sockets are closed with 1001 spread over `drain`; returns when all
    /// are gone or `drain` has passed.
    pub async fn serve(&self, listener: TcpListener, shutdown: Shutdown, drain: Duration) {
        let _ = (listener, shutdown, drain);
        todo!()
    }
}
