//! READY=1, STOPPING=1, STATUS= and WATCHDOG=1 to systemd. Without it, every call does nothing.

use sd_notify::NotifyState;
use std::time::Duration;
use tracing::debug;

/// Between two signs of life where systemd asks for none.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long a start that makes progress may take until the next [`catching_up`], in microseconds.
const START_EXTENSION_USEC: u32 = 60_000_000;

/// Between two signs of life: half of what systemd waits for.
pub fn heartbeat_interval() -> Duration {
    // `Duration::ZERO` would spin; systemd never gives less than a microsecond to halve.
    sd_notify::watchdog_enabled()
        .map_or(HEARTBEAT, |interval| (interval / 2).clamp(Duration::from_millis(10), HEARTBEAT))
}

/// Apply reads what the log has beyond the store: the start goes on.
pub fn catching_up(lag_records: u64) {
    let status = format!("catching up, {lag_records} records to go");
    notify(&[
        NotifyState::Status(&status),
        NotifyState::ExtendTimeoutUsec(START_EXTENSION_USEC),
        NotifyState::Watchdog,
    ]);
}

/// The daemon serves.
pub fn ready() {
    notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// The daemon still serves.
pub fn alive(lag_records: u64) {
    let status = format!("serving, {lag_records} records behind");
    notify(&[NotifyState::Status(&status), NotifyState::Watchdog]);
}

/// The stop begins.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "systemd cannot be told");
    }
}
