//! Where ordered events come from and go to.

pub mod embedded;
pub mod inspect;

pub use crate::wire::partitioner::partition_of_key;

use crate::position::{Offset, Partition, RecordPosition, TopicName};
use bytes::Bytes;
use futures_util::future::BoxFuture;

/// One record of the feed.
#[derive(Clone, Debug)]
pub struct FeedRecord {
    /// Its place in the partition.
    pub offset: Offset,
    /// The record's timestamp.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// What one read found.
#[derive(Clone, Debug)]
pub enum FeedItem {
    /// A record.
    Record(FeedRecord),
    /// Records of `from..to` that cannot be read: a damaged batch, or a hole. Passed after one dead
    /// letter. `bytes` is the raw batch where there is one.
    Unreadable {
        /// First offset.
        from: Offset,
        /// First offset after.
        to: Offset,
        /// Why, in one clause.
        detail: String,
        /// The raw batch.
        bytes: Option<Bytes>,
    },
}

/// Items in offset order, and where the next read goes on (control batches are passed over).
#[derive(Clone, Debug)]
pub struct FeedBatch {
    /// In order.
    pub items: Vec<FeedItem>,
    /// The next offset to read.
    pub next: Offset,
    /// Leader epoch of the last batch; -1 if none.
    pub leader_epoch: i32,
}

/// A record to publish.
#[derive(Clone, Debug)]
pub struct OutboundRecord {
    /// Where to.
    pub topic: TopicName,
    /// The partition; `None`: by the key, as Kafka's default partitioner does (murmur2).
    pub partition: Option<Partition>,
    /// The timestamp; `None`: now.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Why the feed did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The disk is full: nothing was published, try later.
    #[error("the log's disk is full")]
    Full,
    /// No writes or reads for now: the cluster is down, or the log failed.
    #[error("the log is not available")]
    Unavailable,
    /// The record is larger than the topic takes.
    #[error("the record is too large")]
    TooLarge,
    /// The offset is not in the log: trimmed, or above its end.
    #[error("offset {asked} is outside the log, {start}..{end}")]
    OutOfRange {
        /// What was asked for.
        asked: Offset,
        /// Log start.
        start: Offset,
        /// Log end.
        end: Offset,
    },
}

/// The ordered log that apply reads and REST writes publish to: the embedded broker in process, or
/// a Kafka cluster.
pub trait EventLog: Send + Sync + 'static {
    /// Creates the topic unless it is there; returns its partition count.
    fn ensure_topic<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<u32, FeedError>>;

    /// Partitions now; 0 for no topic. They can only grow.
    fn partition_count(&self, topic: &TopicName) -> u32;

    /// Publishes durably; returns the record's place.
    fn publish(&self, record: OutboundRecord) -> BoxFuture<'_, Result<RecordPosition, FeedError>>;

    /// Publishes several durably, in order per partition. After an error any of them may have been
    /// published.
    fn publish_all(
        &self,
        records: Vec<OutboundRecord>,
    ) -> BoxFuture<'_, Result<Vec<RecordPosition>, FeedError>>;

    /// Reads from `from`, about `bytes_max` bytes, at least one batch; waits until there is one.
    /// Only committed and durable records. Cancel safe. [`FeedBatch::next`] lies beyond `from`.
    fn read<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<FeedBatch, FeedError>>;

    /// Log start and end (the high watermark).
    fn bounds<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
    ) -> BoxFuture<'a, Result<(Offset, Offset), FeedError>>;

    /// Makes the log durable up to its end, whatever its durability says.
    fn sync<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
    ) -> BoxFuture<'a, Result<(), FeedError>>;

    /// Tells how far apply is, for the tools and for retention.
    fn report_progress(
        &self,
        topic: &TopicName,
        partition: Partition,
        processed: Offset,
        durable: Offset,
    );
}
