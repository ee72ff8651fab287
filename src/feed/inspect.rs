//! What administrators are shown of the log: topics, groups, records. It changes nothing.

pub use crate::broker::view::{GroupView, MemberView, PartitionView, TopicView};

use super::{EventLog, FeedBatch, FeedError, embedded::Embedded};
use crate::{
    broker::Broker,
    clock::Clock,
    position::{Offset, Partition, TopicName},
};
use futures_util::future::BoxFuture;
use tracing::warn;

/// The log as administrators look at it.
pub trait Inspect: Send + Sync + 'static {
    /// Every topic by name.
    fn topics(&self) -> Vec<TopicView>;

    /// The first `max` groups by their ids, and whether there are more.
    fn groups(&self, max: usize) -> BoxFuture<'_, Result<(Vec<GroupView>, bool), FeedError>>;

    /// The first record at or after a time; `None` past the last.
    fn offset_for_time<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
        timestamp_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Offset>, FeedError>>;

    /// As [`EventLog::read`], and beside it: nothing that apply has begun to read is lost by it.
    fn read<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<FeedBatch, FeedError>>;
}

/// Looks at the embedded broker.
pub struct Inspector {
    broker: Broker,
    reads: Embedded,
}

impl Inspector {
    /// Of this broker.
    pub fn new(broker: Broker, clock: Clock) -> Self {
        Self { reads: Embedded::new(broker.clone(), clock, 1), broker }
    }
}

impl Inspect for Inspector {
    fn topics(&self) -> Vec<TopicView> {
        self.broker.topic_views()
    }

    fn groups(&self, max: usize) -> BoxFuture<'_, Result<(Vec<GroupView>, bool), FeedError>> {
        Box::pin(
            async move { self.broker.group_views(max).await.map_err(|_| FeedError::Unavailable) },
        )
    }

    fn offset_for_time<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
        timestamp_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Offset>, FeedError>> {
        Box::pin(async move {
            let found = self.broker.offset_for_time(topic, partition, timestamp_ms).await;
            found.map_err(|error| {
                warn!(%topic, %partition, %error, "a record could not be looked up by its time");
                FeedError::Unavailable
            })
        })
    }

    fn read<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<FeedBatch, FeedError>> {
        self.reads.read(topic, partition, from, bytes_max)
    }
}
