//! Every metric, declared once. A part counts on the handles it is given; `/metrics` renders them.
//!
//! Names are `taskwire_<noun>_<unit>[_total]`; no label that a client can grow.

mod histogram;

pub use histogram::Durations;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::fmt;

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ty = $name:literal;)*) => {
        /// All metrics of one daemon.
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $kind,)*
        }

        impl Metrics {
            /// All at zero.
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("taskwire");
                $(
                    let $field = <$kind>::default();
                    registry.register($name, concat!($($help),+).trim(), $field.clone());
                )*
                Self { registry, $($field,)* }
            }
        }
    };
}

metrics! {
    /// Open connections on the Kafka port
    broker_connections: Gauge = "broker_connections";
    /// Requests answered on the Kafka port
    broker_requests: Counter = "broker_requests";
    /// Requests on the Kafka port that were malformed or not supported
    broker_bad_requests: Counter = "broker_bad_requests";
    /// Connections on the Kafka port that were refused at a limit
    broker_connections_refused: Counter = "broker_connections_refused";
    /// Connections on the Kafka port that were cut because memory ran out
    broker_connections_cut: Counter = "broker_connections_cut";
    /// Bytes of record batches appended
    log_appended_bytes: Counter = "log_appended_bytes";
    /// Records appended
    log_appended_records: Counter = "log_appended_records";
    /// Syncs of log files
    log_syncs: Counter = "log_syncs";
    /// Torn tails cut at start
    log_torn_tails: Counter = "log_torn_tails";
    /// Ranges of offsets that are damaged and that no person has accepted
    log_holes: Gauge = "log_holes";
    /// Bytes free on the disk of the data directory
    disk_free_bytes: Gauge = "disk_free_bytes";
    /// 1 while writes are refused because the disk is full
    disk_full: Gauge = "disk_full";
    /// Partitions that take no writes after a failed write or sync
    log_failed_partitions: Gauge = "log_failed_partitions";
    /// Records read by apply
    apply_records: Counter = "apply_records";
    /// Events that changed a task or were passed on
    apply_changes: Counter = "apply_changes";
    /// Events that were duplicates
    apply_duplicates: Counter = "apply_duplicates";
    /// Events whose If-Match lost
    apply_refused: Counter = "apply_refused";
    /// Records that became dead letters, by their reason
    apply_dead_letters: Family<[(&'static str, &'static str); 1], Counter> = "apply_dead_letters";
    /// Dead letters that are neither redriven nor dismissed
    dead_letters_open: Gauge = "dead_letters_open";
    /// Events of an unknown type and without a user, passed over
    apply_ignored: Counter = "apply_ignored";
    /// Events that wait for their task
    apply_waiting: Gauge = "apply_waiting";
    /// Bytes of the events that wait for their task
    apply_waiting_bytes: Gauge = "apply_waiting_bytes";
    /// Waiting events that could not be read and were dropped
    apply_waiting_lost: Counter = "apply_waiting_lost";
    /// Records between the processed offset and the log end
    apply_lag_records: Gauge = "apply_lag_records";
    /// Commits of the store
    store_commits: Counter = "store_commits";
    /// Checkpoints of the store
    store_checkpoints: Counter = "store_checkpoints";
    /// Open sessions: WebSockets, streams and long polls
    hub_sessions: Gauge = "hub_sessions";
    /// Distinct users with an open session
    hub_users: Gauge = "hub_users";
    /// Messages written to sessions
    hub_messages: Counter = "hub_messages";
    /// Time from the publication of a change to a session that was waiting for it
    hub_delivery: Durations = "hub_delivery_seconds";
    /// Sessions that resumed from a position
    hub_resumes: Counter = "hub_resumes";
    /// Sessions that were told to resync
    hub_resyncs: Counter = "hub_resyncs";
    /// Open connections on the HTTP port
    http_connections: Gauge = "http_connections";
    /// Open sessions by what they go over: socket, events (server-sent) or changes (long poll)
    http_sessions: Family<[(&'static str, &'static str); 1], Gauge> = "http_sessions";
    /// Requests answered on the HTTP port
    http_requests: Counter = "http_requests";
    /// Requests answered with 5xx
    http_server_errors: Counter = "http_server_errors";
    /// Connections on the HTTP port that were refused because there were too many
    http_connections_refused: Counter = "http_connections_refused";
    /// Connections on the HTTP port that were cut: the slowest when memory ran out, and streams
    /// that were not read
    http_connections_cut: Counter = "http_connections_cut";
    /// Requests that were told to come back later (429)
    http_rate_limited: Counter = "http_rate_limited";
    /// Tokens refused
    auth_failures: Counter = "auth_failures";
    /// Keys of the JWKS in use
    auth_keys: Gauge = "auth_keys";
    /// Times that the JWKS was read
    auth_key_refreshes: Counter = "auth_key_refreshes";
    /// Times that the JWKS could not be read, or was not good
    auth_key_refresh_failures: Counter = "auth_key_refresh_failures";
}

impl Metrics {
    /// Counts records that became dead letters. `reason` is one of a fixed set.
    pub fn count_dead_letters(&self, reason: &'static str, count: u64) {
        self.apply_dead_letters.get_or_create(&[("reason", reason)]).inc_by(count);
    }

    /// OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
