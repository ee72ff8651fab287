//! The one consumer of the applied topic: feed -> task -> store -> hub.
//!
//! Owner: one worker. A reader per partition decodes ahead of it; the worker plans a batch in
//! memory ([`plan`]), publishes its dead letters, commits it in one transaction, and then tells the
//! hub and whoever waits for an outcome.
//!
//! Invariant: what a batch does follows from the log alone. Wall time decides only when a waiting
//! event expires and when ids are trimmed, and both are durable before their effect is seen.
//! Invariant: the store is never durable beyond the log: every checkpoint syncs the log first.

mod back_off;
mod checkpoint;
mod due;
pub mod letter;
pub mod letters;
mod message;
mod outbox;
mod outcome;
pub mod plan;
pub mod reader;
mod waiting;
mod worker;

#[cfg(test)]
mod double;
#[cfg(test)]
mod letter_tests;
#[cfg(test)]
mod tests;

pub use outbox::partition_of;
pub use outcome::PendingOutcome;
pub use plan::{WAITING_BYTES_MAX, WAITING_MAX};

use crate::{
    clock::Clock,
    feed::{EventLog, FeedError},
    hub::Hub,
    metrics::Metrics,
    position::TopicName,
    shutdown::Shutdown,
    store::{Store, StoreError},
    task::event::{EventId, TaskEvent},
};
use letters::Letters;
use outcome::Outcomes;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use worker::{Parts, Worker};

/// How apply runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The applied topic; `<topic>.dlq` takes dead letters.
    pub topic: TopicName,
    /// A store without a position starts at the log's end instead of its start.
    pub starts_at_latest: bool,
    /// An event waits so long for its task.
    pub waiting_timeout: Duration,
    /// So long before a task is due its owner is told; `None`: never.
    pub due_soon: Option<Duration>,
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
    /// The last committed change.
    pub head: u64,
}

/// What others see of apply. Cheap to clone.
#[derive(Clone)]
pub struct Applied {
    outcomes: Arc<Outcomes>,
    progress: watch::Receiver<Progress>,
    letters: Letters,
    waiting_timeout: Duration,
}

impl Applied {
    /// Registers interest in an event's outcome; call before it is published.
    pub fn expect(&self, event_id: EventId) -> PendingOutcome {
        self.outcomes.expect(event_id, None)
    }

    /// Registers interest in the outcome of this very event, and not of another one with its id;
    /// call before it is published.
    pub fn expect_event(&self, event: &TaskEvent) -> PendingOutcome {
        match &event.event_id {
            Some(event_id) => self.outcomes.expect(event_id.clone(), Some(event.digest)),
            None => PendingOutcome::never(),
        }
    }

    /// The dead letters.
    pub const fn letters(&self) -> &Letters {
        &self.letters
    }

    /// How long an event waits for its task.
    pub const fn waiting_timeout(&self) -> Duration {
        self.waiting_timeout
    }

    /// Progress, with each change.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
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
    /// The log could not be reached while the daemon stops; otherwise apply tries again for ever.
    #[error("apply cannot end without the log")]
    Feed(#[from] FeedError),
    /// The topic's name leaves no room for `.dlq`.
    #[error("the name of topic {0} is too long for its dead-letter topic")]
    TopicName(TopicName),
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
    let publish = Box::new(move |changes| hub.publish(changes));
    run(Parts { options, feed, store, publish, clock, metrics, shutdown })
}

fn run(parts: Parts) -> (Applied, tokio::task::JoinHandle<Result<(), ApplyError>>) {
    let outcomes = Arc::new(Outcomes::default());
    let (sender, progress) = watch::channel(Progress::default());
    let (feed, store) = (Arc::clone(&parts.feed), Arc::clone(&parts.store));
    let (topic, waiting_timeout) = (parts.options.topic.clone(), parts.options.waiting_timeout);
    let worker = Worker::new(parts, Arc::clone(&outcomes), sender);
    let letters = Letters::new(feed, store, topic, Arc::clone(&outcomes), worker.commands());
    (Applied { outcomes, progress, letters, waiting_timeout }, tokio::spawn(worker.run()))
}
