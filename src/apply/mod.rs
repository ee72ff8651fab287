//! The one consumer of the applied topic: feed -> task -> store -> hub.

use crate::{
    clock::Clock,
    feed::EventLog,
    hub::Hub,
    metrics::Metrics,
    position::TopicName,
    shutdown::Shutdown,
    store::{Outcome, Store, StoreError},
    task::event::EventId,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How apply runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The applied topic; `<topic>.dlq` takes dead letters.
    pub topic: TopicName,
    /// A store without a position starts at the log's end instead of its start.
    pub starts_at_latest: bool,
    /// A checkpoint after so many records.
    pub checkpoint_records: u64,
    /// A checkpoint after so long, if anything was applied.
    pub checkpoint_interval: Duration,
}

/// Where apply stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// The log end seen at start has been reached.
    pub is_caught_up: bool,
    /// Records between the processed offset and the log end.
    pub lag_records: u64,
}

/// What others see of apply. Cheap to clone.
#[derive(Clone)]
pub struct Applied {}

impl Applied {
    /// Registers interest in an event's outcome; call before it is published.
    pub fn expect(&self, event_id: EventId) -> PendingOutcome {
        let _ = event_id;
        todo!()
    }

    /// Progress, with each change.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        todo!()
    }
}

/// An outcome that is waited for. Dropping it ends the interest.
pub struct PendingOutcome {}

impl PendingOutcome {
    /// Waits for the outcome; `None` if apply ends first. Cancel safe.
    pub async fn outcome(&mut self) -> Option<Outcome> {
        todo!()
    }
}

/// Why apply stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The store's processed offset is not in the log any more, or not yet: the log was trimmed or
    /// cut below it.
    #[error(
        "the store has processed {topic}-{partition} up to {processed}, the log has {start}..{end}"
    )]
    OutsideLog {
        /// Topic.
        topic: TopicName,
        /// Partition.
        partition: i32,
        /// The store's next offset.
        processed: i64,
        /// Log start.
        start: i64,
        /// Log end.
        end: i64,
    },
    /// The store failed.
    #[error("apply cannot go on without the store")]
    Store(#[from] StoreError),
}

/// Starts apply. The worker runs until shutdown begins, then applies what is durable in the log at
/// that moment, takes a checkpoint, and ends with `Ok`.
pub fn start(
    options: Options,
    feed: Arc<dyn EventLog>,
    store: Arc<dyn Store>,
    hub: Hub,
    clock: Clock,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) -> (Applied, tokio::task::JoinHandle<Result<(), ApplyError>>) {
    let _ = (options, feed, store, hub, clock, metrics, shutdown);
    todo!()
}
