//! Reads one partition ahead of the worker and decodes its events, so that decoding and committing
//! run side by side.

use super::back_off::BackOff;
use crate::{
    feed::{EventLog, FeedBatch, FeedError, FeedItem, FeedRecord},
    position::{Offset, Partition, RecordPosition, TopicName},
    task::event::{self, TaskEvent, Undecodable},
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::{info, warn};

/// Bytes of one read.
pub(super) const READ_BYTES_MAX: usize = 256 * 1024;

/// What the worker applies, in offset order.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every input is a record")]
pub enum Input {
    /// A record, decoded.
    Record(Decoded),
    /// Records that cannot be read.
    Unreadable {
        /// The first of them.
        from: RecordPosition,
        /// First offset after.
        to: Offset,
        /// Why.
        detail: String,
        /// The raw batch, if there is one.
        bytes: Option<Bytes>,
    },
}

/// A record and the event in it.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Its place.
    pub position: RecordPosition,
    /// The record.
    pub record: FeedRecord,
    /// Its event.
    pub event: Result<TaskEvent, Undecodable>,
}

impl Decoded {
    /// Decodes a record of a partition.
    pub fn new(topic: TopicName, partition: Partition, record: FeedRecord) -> Self {
        let event = event::decode(record.value.as_deref(), &record.headers);
        let position = RecordPosition { topic, partition, offset: record.offset };
        Self { position, record, event }
    }
}

impl Input {
    /// First offset.
    pub(super) fn offset(&self) -> Offset {
        match self {
            Self::Record(decoded) => decoded.position.offset,
            Self::Unreadable { from, .. } => from.offset,
        }
    }
}

/// One read of one partition.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) partition: Partition,
    pub(super) inputs: Vec<Input>,
    /// Where the partition goes on.
    pub(super) next: Offset,
    pub(super) leader_epoch: i32,
}

/// Why a reader ended: the log does not have its offset.
#[derive(Debug)]
pub(super) struct Outside {
    pub(super) partition: Partition,
    pub(super) asked: Offset,
    pub(super) start: Offset,
    pub(super) end: Offset,
}

/// Reads from `next` on until the worker ends or the log does not have the offset. Errors of the
/// log are tried again for ever.
pub(super) async fn run(
    feed: Arc<dyn EventLog>,
    topic: TopicName,
    partition: Partition,
    mut next: Offset,
    worker: mpsc::Sender<Result<Incoming, Outside>>,
) {
    let mut back_off = BackOff::new();
    loop {
        let read = match feed.read(&topic, partition, next, READ_BYTES_MAX).await {
            Ok(batch) => {
                if !back_off.is_first() {
                    info!(%topic, %partition, "the log can be read again");
                    back_off = BackOff::new();
                }
                next = batch.next;
                Ok(decode(&topic, partition, batch))
            }
            Err(FeedError::OutOfRange { asked, start, end }) => {
                Err(Outside { partition, asked, start, end })
            }
            Err(error) => {
                if back_off.is_first() {
                    warn!(%topic, %partition, %error, "cannot read the log, trying again");
                }
                back_off.wait().await;
                continue;
            }
        };
        let is_last = read.is_err();
        if worker.send(read).await.is_err() || is_last {
            return;
        }
    }
}

fn decode(topic: &TopicName, partition: Partition, batch: FeedBatch) -> Incoming {
    let inputs = batch.items.into_iter().map(|item| match item {
        FeedItem::Record(record) => Input::Record(Decoded::new(topic.clone(), partition, record)),
        FeedItem::Unreadable { from, to, detail, bytes } => {
            let from = RecordPosition { topic: topic.clone(), partition, offset: from };
            Input::Unreadable { from, to, detail, bytes }
        }
    });
    let inputs = inputs.collect();
    Incoming { partition, inputs, next: batch.next, leader_epoch: batch.leader_epoch }
}
