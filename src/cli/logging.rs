//! Log lines go to standard error: text on a terminal, JSON elsewhere.
//!
//! Invariant: nothing but our own words is logged. The subscriber is built without its bridge from
//! the `log` crate: tungstenite logs whole messages by that, tokens and tasks among them.

use crate::config::{LogFormat, Logging};
use std::io::{self, IsTerminal};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// Installs the subscriber of this process; again is the same as once.
pub(super) fn start(logging: &Logging) {
    let is_terminal = io::stderr().is_terminal();
    let is_json = match logging.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !is_terminal,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(is_terminal);
    let registry = tracing_subscriber::registry().with(EnvFilter::new(&logging.filter));
    let installed = if is_json {
        registry.with(lines.json().flatten_event(true).with_current_span(false)).try_init()
    } else {
        registry.with(lines).try_init()
    };
    // It fails only where a subscriber is installed already, which then stays.
    drop(installed);
}
