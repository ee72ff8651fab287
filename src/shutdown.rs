//! How the edges hear that the daemon stops.
//!
//! Only edges listen (listeners, sessions, the log reader); owner workers end when the last handle
//! to them is dropped, so a stop runs in the direction of the data.

use tokio_util::sync::CancellationToken;

/// Starts the stop. Dropping it does not.
#[derive(Clone, Debug, Default)]
pub struct Trigger(CancellationToken);

/// Hears that the stop has begun. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

/// A trigger and the signal that it gives.
pub fn pair() -> (Trigger, Shutdown) {
    let token = CancellationToken::new();
    (Trigger(token.clone()), Shutdown(token))
}

impl Trigger {
    /// Begins the stop; again is the same as once.
    pub fn fire(&self) {
        self.0.cancel();
    }
}

impl Shutdown {
    /// Whether the stop has begun.
    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the stop to begin. Cancel safe.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }
}
