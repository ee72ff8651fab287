//! How long to wait before something is tried again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Doubles with each failure, up to a bound.
#[derive(Debug)]
pub(super) struct BackOff(Duration);

impl BackOff {
    pub(super) const fn new() -> Self {
        Self(FIRST)
    }

    /// Whether nothing failed since the last success: the failure to be logged.
    pub(super) fn is_first(&self) -> bool {
        self.0 == FIRST
    }

    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
