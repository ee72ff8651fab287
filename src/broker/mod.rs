//! The embedded Kafka broker: port 9092, and the same broker in process.
//!
//! Owners: one worker per partition ([`partition`]), one for all groups ([`coordinator`]), one for
//! `broker.redb` ([`meta`]). Connections hold handles and no state that outlives them.
//!
//! It knows no tasks.

mod budget;
pub mod configs;
pub mod connection;
pub mod coordinator;
pub mod error_code;
pub mod group;
pub mod handler;
pub mod listener;
mod maintenance;
pub mod meta;
pub mod partition;
pub mod producer;
pub mod topics;

#[cfg(test)]
mod tests;

use crate::{
    clock::Clock,
    log::{
        LogReader,
        disk::{Disk, RealDisk},
    },
    metrics::Metrics,
    position::{Offset, Partition, TopicName, TopicPartition},
    shutdown::Shutdown,
    wire::batch::ProducedBatch,
};
use coordinator::{Coordinator, ReservedProgress};
use maintenance::KeepFrom;
use meta::{Meta, MetaError};
use partition::{Enqueued, PartitionHandle};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use topics::{Topic, TopicError, Topics};

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
    Meta(#[source] MetaError),
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
pub struct Broker(Arc<Shared>);

struct Shared {
    options: Options,
    metrics: Arc<Metrics>,
    meta: Meta,
    topics: Topics,
    coordinator: Coordinator,
    reserved_progress: ReservedProgress,
    keep_from: KeepFrom,
    cluster_id: String,
    /// The owner of a partition has panicked.
    owner_died: CancellationToken,
    connections: connection::Limits,
    /// Waiting fetches are answered at once when it is cancelled.
    draining: CancellationToken,
    /// Ends the maintenance.
    ending: CancellationToken,
    _ends_with_last_clone: DropGuard,
}

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
        Self::start_on(Arc::new(RealDisk), options, clock, metrics).await
    }

    /// Like [`Broker::start`], on another disk.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_on(
        disk: Arc<dyn Disk>,
        options: Options,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let log_dir = options.data_dir.join("log");
        let (dir, path) = (log_dir.clone(), options.data_dir.join("broker.redb"));
        let opening = Arc::clone(&disk);
        let opened = tokio::task::spawn_blocking(move || {
            let created = opening.dir(&dir);
            created.map_err(|error| MetaError::Database(error.to_string()))?;
            Meta::open(&*opening, &path)
        });
        let opened = opened.await.unwrap_or(Err(MetaError::Closed));
        let (meta, last_run) = opened.map_err(StartError::Meta)?;
        let (cluster_id, owner_died) = (last_run.cluster_id.clone(), CancellationToken::new());
        let setup = topics::Setup {
            disk,
            log_dir,
            durability: options.durability,
            message_bytes_default: options.message_bytes_max,
            reserved: options.reserved_topics.clone(),
            meta: meta.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            owner_died: owner_died.clone(),
        };
        let owners = TaskTracker::new();
        let topics = Topics::start(setup, last_run, owners.clone()).await?;
        let (reserved_progress, known) = (ReservedProgress::default(), topics.clone());
        let coordinator = coordinator::start(
            coordinator::Options::new(&options.reserved_group),
            meta.clone(),
            clock.clone(),
            coordinator::Facts {
                progress: reserved_progress.clone(),
                has_partition: Arc::new(move |at| {
                    known.partition(at.topic.as_str(), at.partition).is_some()
                }),
            },
        );
        let coordinator = coordinator.map_err(StartError::Meta)?;
        let (keep_from, ending) = (KeepFrom::default(), CancellationToken::new());
        let maintained = maintenance::Parts {
            topics: topics.clone(),
            keep_from: keep_from.clone(),
            meta: meta.clone(),
        };
        owners.spawn(maintenance::run(maintained, ending.clone()));
        Ok(Self(Arc::new(Shared {
            connections: connection::Limits::new(options.connections_max),
            options,
            metrics,
            meta,
            topics,
            coordinator,
            reserved_progress,
            keep_from,
            cluster_id,
            owner_died,
            draining: CancellationToken::new(),
            _ends_with_last_clone: ending.clone().drop_guard(),
            ending,
        })))
    }

    /// Accepts connections on a bound listener until shutdown begins, then lets requests end
    /// until `drain`, and returns.
    pub async fn serve(&self, listener: TcpListener, shutdown: Shutdown, drain: Duration) {
        listener::serve(self, listener, shutdown, drain).await;
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
        let topic = self.0.topics.find_or_create(topic, partitions).await?;
        Ok(u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX))
    }

    /// Partitions of the topic; 0 if there is none.
    pub fn partition_count(&self, topic: &TopicName) -> u32 {
        let topic = self.0.topics.find(topic.as_str());
        topic.map_or(0, |topic| u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX))
    }

    /// Appends a batch as Produce does. The daemon's own topics take larger batches here than
    /// from the network: a dead letter holds the record that failed, and more.
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
        let topic = self.0.topics.find(topic.as_str());
        let topic = topic.ok_or(ProduceError::UnknownTopicOrPartition)?;
        let max_bytes = if topic.is_reserved { u32::MAX } else { topic.settings.message_bytes_max };
        let enqueued = enqueue(&topic, partition, batch, acks, max_bytes).await?;
        enqueued.answer().await
    }

    /// The read side of a partition.
    pub fn reader(&self, topic: &TopicName, partition: Partition) -> Option<LogReader> {
        let partition = self.0.topics.partition(topic.as_str(), partition)?;
        Some(partition.reader().clone())
    }

    /// Syncs a partition's log whatever the durability, so that all below its log end is durable.
    ///
    /// # Errors
    /// See [`ProduceError`].
    pub async fn sync(&self, topic: &TopicName, partition: Partition) -> Result<(), ProduceError> {
        let partition = self.0.topics.partition(topic.as_str(), partition);
        partition.ok_or(ProduceError::UnknownTopicOrPartition)?.sync().await
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
        let place = TopicPartition { topic: topic.clone(), partition };
        self.0.keep_from.set(place.clone(), durable);
        self.0.reserved_progress.report(place, processed);
    }

    /// Partitions that take no writes after a failure, with the reason (for health).
    pub fn failed_partitions(&self) -> Vec<(TopicPartition, String)> {
        let snapshot = self.0.topics.snapshot();
        let places = snapshot.all().flat_map(|topic| topic.places());
        places.filter_map(|(place, handle)| Some((place, handle.failure()?))).collect()
    }

    /// Waits until an owner has ended, which none does before [`Broker::close`]; says which. The
    /// daemon then has to end, too. Cancel safe.
    pub async fn owner_ended(&self) -> &'static str {
        tokio::select! {
            () = self.0.owner_died.cancelled() => "a partition",
            () = self.0.topics.ended() => "topics",
            () = self.0.coordinator.ended() => "group coordinator",
            () = self.0.meta.ended() => "broker.redb",
        }
    }

    /// Flushes and closes every log and `broker.redb`, leaving the clean marks. Call after
    /// [`Broker::serve`] returned.
    ///
    /// # Errors
    /// What could not be closed cleanly, by name.
    pub async fn close(self) -> Result<(), String> {
        self.0.ending.cancel();
        let snapshot = self.0.topics.snapshot();
        let closing =
            snapshot.all().flat_map(|topic| topic.places()).map(async |(place, handle)| {
                let closed = handle.close().await;
                (place, closed)
            });
        let (mut ends, mut unclean) = (Vec::new(), Vec::new());
        for (place, closed) in futures_util::future::join_all(closing).await {
            match closed {
                Ok(end) => ends.push((place, end)),
                Err(error) => unclean.push(format!("{place}: {error}")),
            }
        }
        let meta = self.0.meta.clone();
        let recorded = meta.record_ends(ends).await;
        let marked = match (recorded, unclean.is_empty()) {
            (Ok(()), true) => meta.mark_clean().await,
            (recorded, _) => recorded,
        };
        unclean.extend(marked.err().map(|error| format!("broker.redb: {error}")));
        if tokio::task::spawn_blocking(move || meta.close()).await.is_err() {
            unclean.push("broker.redb: its owner panicked".to_owned());
        }
        if unclean.is_empty() { Ok(()) } else { Err(unclean.join(", ")) }
    }

    /// Host and port that a client is told to connect to.
    pub(in crate::broker) fn peer_address(&self, peer: &Peer) -> (String, u16) {
        match &self.0.options.advertise {
            Some(address) => address.clone(),
            None => (peer.local.ip().to_canonical().to_string(), peer.local.port()),
        }
    }

    /// Deletes a topic, its files, and what groups have committed for it.
    pub(in crate::broker) async fn delete_topic(&self, topic: TopicName) -> Result<(), TopicError> {
        self.0.topics.delete(topic.clone()).await?;
        self.0.coordinator.forget_topic(&topic).await;
        Ok(())
    }

    pub(in crate::broker) fn coordinator(&self) -> &Coordinator {
        &self.0.coordinator
    }

    pub(in crate::broker) fn topics(&self) -> &Topics {
        &self.0.topics
    }

    pub(in crate::broker) fn meta(&self) -> &Meta {
        &self.0.meta
    }

    pub(in crate::broker) fn cluster_id(&self) -> &str {
        &self.0.cluster_id
    }

    pub(in crate::broker) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(in crate::broker) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Cancelled when waiting requests are to be answered at once.
    pub(in crate::broker) fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }

    pub(in crate::broker) fn limits(&self) -> &connection::Limits {
        &self.0.connections
    }
}

/// Checks what the topic's settings bound, and puts the batch into the order of its partition.
pub(in crate::broker) async fn enqueue(
    topic: &Topic,
    partition: Partition,
    batch: ProducedBatch,
    acks: Acks,
    max_bytes: u32,
) -> Result<Enqueued, ProduceError> {
    let handle: &PartitionHandle =
        topic.partition(partition).ok_or(ProduceError::UnknownTopicOrPartition)?;
    let size_bytes = batch.header().size_bytes;
    if u32::try_from(size_bytes).map_or(true, |size| size > max_bytes) {
        return Err(ProduceError::MessageTooLarge { size_bytes, max_bytes });
    }
    handle.enqueue(batch, acks).await
}

/// The id of this, the only, node.
pub(in crate::broker) const NODE_ID: i32 = 1;

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
