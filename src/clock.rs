//! Wall time, real or set by a test. Timers are tokio's, which a test can pause.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type TimestampMs = i64;

/// Tells the wall time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands until [`Clock::set`] moves it.
    pub fn manual(now_ms: TimestampMs) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(now_ms))))
    }

    /// The time now; 0 if the machine's clock stands before 1970.
    pub fn now_ms(&self) -> TimestampMs {
        match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|since| i64::try_from(since.as_millis()).ok())
                .unwrap_or(0),
            Source::Manual(now_ms) => now_ms.load(Ordering::Relaxed),
        }
    }

    /// Moves a manual clock; the system's clock stays as it is.
    pub fn set(&self, now_ms: TimestampMs) {
        if let Source::Manual(now) = &self.0 {
            now.store(now_ms, Ordering::Relaxed);
        }
    }
}
