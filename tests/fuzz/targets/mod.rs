//! What is fuzzed: each target takes any bytes and fails where a promise is broken. Shared by the
//! fuzzer (`tests/fuzz`) and by `cargo test` (`tests/corpus.rs`), which replays the saved inputs.

mod batch;
mod event;
mod http;
mod request;
mod segment;
mod server;
mod socket;
mod token;

/// One target.
pub(crate) type Target = fn(&[u8]);

/// Every target; the names are the folders of `corpus/`.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("http_body", http::run),
    ("kafka_request", request::run),
    ("record_batch", batch::run),
    ("segment", segment::run),
    ("socket", socket::run),
    ("task_event", event::run),
    ("token", token::run),
];
