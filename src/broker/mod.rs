//! The embedded Kafka broker: port 9092, and the same broker in process.
//!
//! Owners: one worker per partition ([`partition`]), one for all groups ([`coordinator`]), one for
//! `broker.redb` ([`meta`]). Connections hold handles and no state that outlives them.
//!
//! It knows no tasks.

pub mod connection;
pub mod coordinator;
pub mod group;
pub mod handler;
pub mod listener;
pub mod meta;
pub mod partition;
pub mod producer;
pub mod topics;

use crate::{
    clock::Clock,
    log::LogReader,
    metrics::Metrics,
    position::{Offset, Partition, TopicName, TopicPartition},
    shutdown::Shutdown,
    wire::batch::ProducedBatch,
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// When a produced batch is acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// After a sync, one for many batches.
    Commit,
    /// After the write; a sync follows at this interval.
    Interval(Duration),
    /// After the write; the operating system syncs.
    Os,
}

/// How the broker runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Holds `log/` and `broker.redb`.
    pub data_dir: PathBuf,
    /// When a batch is acknowledged.
    pub durability: Durability,
    /// What Metadata answers; `None`: the address that the client reached.
    pub advertise: Option<(String, u16)>,
    /// Partitions of topics made on first use.
    pub partitions_default: u32,
    /// Largest record batch.
    pub message_bytes_max: u32,
    /// Most connections in all.
    pub connections_max: usize,
    /// Topics that the daemon itself owns: created with unlimited retention, never compacted,
    /// deletion refused.
    pub reserved_topics: Vec<TopicName>,
    /// The daemon's own group, shown to Kafka's tools; joining, resetting or deleting is refused.
    pub reserved_group: String,
}

/// Why the broker cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// `broker.redb`
    #[error("cannot open broker.redb")]
    Meta(#[source] meta::MetaError),
    /// A partition's log.
    #[error("cannot open the log of {0}")]
    Log(TopicPartition, #[source] crate::log::OpenError),
}

/// Why a batch was not appended, for callers in process and for the Produce handler.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProduceError {
    /// No such topic or partition.
    #[error("unknown topic or partition")]
    UnknownTopicOrPartition,
    /// Larger than `max.message.bytes`.
    #[error("batch of {size_bytes} bytes, allowed are {max_bytes}")]
    MessageTooLarge {
        /// Its size.
        size_bytes: usize,
        /// The topic's limit.
        max_bytes: u32,
    },
    /// The producer's sequence has a gap.
    #[error("out of order sequence number")]
    OutOfOrderSequence,
    /// A newer producer of the same id is known.
    #[error("producer epoch is fenced")]
    InvalidProducerEpoch,
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// The log takes no writes, or the broker stops.
    #[error("the log takes no writes")]
    Storage,
}

/// What an acknowledged batch got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Produced {
    /// Offset of its first record (of the original, for a resent batch).
    pub base_offset: Offset,
    /// Append time if the topic stamps it, else -1.
    pub append_time_ms: i64,
    /// Oldest offset of the log.
    pub log_start: Offset,
}

/// What `acks` asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Acks {
    /// No answer; the result is only for metrics.
    None,
    /// After the write reached the operating system.
    Leader,
    /// After the sync.
    All,
}

/// The running broker. Cheap to clone; the last clone dropped ends its owners.
#[derive(Clone)]
pub struct Broker {}

impl Broker {
    /// Opens every log and `broker.redb`, and starts the owners. No port yet: see
    /// [`Broker::serve`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        options: Options,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let _ = (options, clock, metrics);
        todo!()
    }

    /// Accepts connections on a bound listener until shutdown begins, then lets requests end
    /// until `drain`, and returns.
    pub async fn serve(&self, listener: TcpListener, shutdown: Shutdown, drain: Duration) {
        let _ = (listener, shutdown, drain);
        todo!()
    }

    /// Creates the topic unless it is there. Returns its partition count.
    ///
    /// # Errors
    /// The disk refused.
    pub async fn ensure_topic(
        &self,
        topic: &TopicName,
        partitions: u32,
    ) -> Result<u32, ProduceError> {
        let _ = (topic, partitions);
        todo!()
    }

    /// Partitions of the topic; 0 if there is none.
    pub fn partition_count(&self, topic: &TopicName) -> u32 {
        let _ = topic;
        todo!()
    }

    /// Appends a batch as Produce does.
    ///
    /// # Errors
    /// See [`ProduceError`].
    pub async fn produce(
        &self,
        topic: &TopicName,
        partition: Partition,
        batch: ProducedBatch,
        acks: Acks,
    ) -> Result<Produced, ProduceError> {
        let _ = (topic, partition, batch, acks);
        todo!()
    }

    /// The read side of a partition.
    pub fn reader(&self, topic: &TopicName, partition: Partition) -> Option<LogReader> {
        let _ = (topic, partition);
        todo!()
    }

    /// Syncs a partition's log whatever the durability, so that all below its log end is durable.
    ///
    /// # Errors
    /// See [`ProduceError`].
    pub async fn sync(&self, topic: &TopicName, partition: Partition) -> Result<(), ProduceError> {
        let _ = (topic, partition);
        todo!()
    }

    /// Where the reserved group stands in a partition: shown as its committed offset, and retention
    /// keeps what lies at or above `durable` (what the store has durably processed).
    pub fn report_progress(
        &self,
        topic: &TopicName,
        partition: Partition,
        processed: Offset,
        durable: Offset,
    ) {
        let _ = (topic, partition, processed, durable);
        todo!()
    }

    /// Partitions that take no writes after a failure, with the reason (for health).
    pub fn failed_partitions(&self) -> Vec<(TopicPartition, String)> {
        todo!()
    }

    /// Flushes and closes every log and `broker.redb`, leaving the clean marks. Call after
    /// [`Broker::serve`] returned.
    ///
    /// # Errors
    /// What could not be closed cleanly, by name.
    pub async fn close(self) -> Result<(), String> {
        todo!()
    }
}

/// What a handler knows of the connection that asks.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: SocketAddr,
    /// The local address that it reached.
    pub local: SocketAddr,
    /// What it calls itself.
    pub client_id: Option<Arc<str>>,
}
