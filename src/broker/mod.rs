//! The embedded Kafka broker: port 9092, and the same broker in process.
//!
//! Owners: one worker per partition ([`partition`]), one for all groups ([`coordinator`]), one for
//! `broker.redb` ([`meta`]). Connections hold handles and no state that outlives them.
//!
//! It knows no tasks.

pub mod backup;
pub mod configs;
pub mod connection;
pub mod coordinator;
pub mod error_code;
pub mod group;
pub mod handler;
pub mod limits;
pub mod listener;
mod lost;
mod maintenance;
pub mod meta;
pub mod partition;
pub mod producer;
mod space;
pub mod topics;
pub mod view;

#[cfg(test)]
mod tests;

pub use lost::{
    BROKER_FILE, LOG_DIR, give_up, log_dir, parse_place, partition_dir, partitions_on_disk,
    places_of, rebuild_meta, topics_of,
};
pub use space::look_before_start;

use crate::{
    clock::Clock,
    disk::{Disk, RealDisk},
    log::LogReader,
    metrics::Metrics,
    position::{Offset, Partition, TopicName, TopicPartition},
    shutdown::Shutdown,
    wire::{RequestHeader, Response, batch::ProducedBatch, messages::RequestKind},
};
use coordinator::{Coordinator, ReservedProgress};
use limits::PortOptions;
use maintenance::KeepFrom;
use meta::{Meta, MetaError};
use partition::{Enqueued, PartitionHandle};
use space::Space;
use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
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
    /// What else bounds the Kafka port.
    pub port: PortOptions,
    /// Topics that the daemon itself owns: created with unlimited retention, never compacted,
    /// deletion refused.
    pub reserved_topics: Vec<TopicName>,
    /// Topics that the daemon alone writes to; to others they are for reading.
    pub closed_topics: Vec<TopicName>,
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
    /// `broker.redb` is gone, and the logs are there.
    #[error(
        "{} is missing, but log/ holds {first} and {} more: put it back from a backup of the same \
         time, or run `taskwire rebuild --broker`, which makes it again from the directories \
         (committed offsets of groups and settings of topics are lost then)",
        path.display(), logs.saturating_sub(1)
    )]
    MetaMissing {
        /// Where it should be.
        path: PathBuf,
        /// Partitions that have a directory.
        logs: usize,
        /// One of them.
        first: TopicPartition,
    },
    /// A partition's log is gone whole.
    #[error(
        "the log of {place} is missing: {} holds no segment. If its disk is not mounted, mount it; \
         else put it back from a backup, or run `taskwire repair {place} --give-up`, and it goes \
         on without its records",
        path.display()
    )]
    LogMissing {
        /// The partition.
        place: TopicPartition,
        /// Its directory.
        path: PathBuf,
    },
    /// A partition's log is to be given up, and is there.
    #[error("the log of {0} is not missing")]
    NotMissing(TopicPartition),
    /// A partition's log is to be given up, and no topic has it.
    #[error("no topic has a partition {0}")]
    UnknownPartition(TopicPartition),
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
    space: Space,
    cluster_id: String,
    /// The owner of a partition has panicked.
    owner_died: CancellationToken,
    limits: limits::Limits,
    /// Waiting fetches are answered at once when it is cancelled.
    draining: CancellationToken,
    /// Ends the maintenance.
    ending: CancellationToken,
    _ends_with_last_clone: DropGuard,
}

/// What the daemon knows that `broker.redb` does not.
#[derive(Clone, Debug)]
pub struct Start {
    /// Where everything is.
    pub disk: Arc<dyn Disk>,
    /// Offsets below which logs are known to have been durable: a bad tail below one is damage.
    pub floors: HashMap<TopicPartition, Offset>,
    /// Bytes of the reserve file; 0 for none.
    pub reserve_bytes: u64,
    /// Another file in place of the data directory's `broker.redb`, which is then not looked at.
    pub meta_file: Option<PathBuf>,
}

impl Default for Start {
    fn default() -> Self {
        let disk = Arc::new(RealDisk);
        Self { disk, floors: HashMap::new(), reserve_bytes: 0, meta_file: None }
    }
}

impl Broker {
    /// [`Broker::start_with`] with nothing known.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        options: Options,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        Self::start_with(options, Start::default(), clock, metrics).await
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
        Self::start_with(options, Start { disk, ..Start::default() }, clock, metrics).await
    }

    /// Opens every log and `broker.redb`, and starts the owners. No port yet: see
    /// [`Broker::serve`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_with(
        options: Options,
        start: Start,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let Start { disk, floors, reserve_bytes, meta_file } = start;
        let space = Space::new(Arc::clone(&disk), &options.data_dir, reserve_bytes);
        let (data_dir, opening) = (options.data_dir.clone(), Arc::clone(&disk));
        let (first, measured) = (space.clone(), Arc::clone(&metrics));
        let opened = tokio::task::spawn_blocking(move || {
            let opened = open_meta(&opening, &data_dir, meta_file);
            first.look(&measured);
            opened
        });
        let opened = opened.await.unwrap_or(Err(StartError::Meta(MetaError::Closed)));
        let (meta, last_run) = opened?;
        let (cluster_id, common) = (last_run.cluster_id.clone(), partition::Common::default());
        let setup = topics::Setup {
            disk,
            log_dir: log_dir(&options.data_dir),
            durability: options.durability,
            message_bytes_default: options.message_bytes_max,
            reserved: options.reserved_topics.clone(),
            meta: meta.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            space: space.clone(),
            floors,
            common: common.clone(),
        };
        let owners = TaskTracker::new();
        let topics = match Topics::start(setup, last_run, owners.clone()).await {
            Ok(topics) => topics,
            Err(error) => {
                // So that the file is free again when this returns. A panic there is logged.
                drop(tokio::task::spawn_blocking(move || meta.close()).await);
                return Err(error);
            }
        };
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
            metrics: Arc::clone(&metrics),
        };
        owners.spawn(maintenance::run(maintained, ending.clone()));
        owners.spawn(space::watch(space.clone(), Arc::clone(&metrics), ending.clone()));
        Ok(Self(Arc::new(Shared {
            limits: limits::Limits::new(options.connections_max, options.port),
            options,
            metrics,
            meta,
            topics,
            coordinator,
            reserved_progress,
            keep_from,
            space,
            cluster_id,
            owner_died: common.owner_died,
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

    /// Answers one request as a connection does, but for Produce, which is [`Broker::produce`];
    /// `None` if no part of the broker serves its key.
    pub async fn answer(&self, header: &RequestHeader, body: RequestKind) -> Option<Response> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let peer = Peer { address: nowhere, local: nowhere, client_id: header.client_id.clone() };
        handler::answer(self, &peer, header, body).await
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

    /// What takes no writes after a failure, until restart: partitions and `broker.redb`, each with
    /// its reason.
    pub fn failures(&self) -> Vec<String> {
        let snapshot = self.0.topics.snapshot();
        let places = snapshot.all().flat_map(|topic| topic.places());
        let failed = places.filter_map(|(place, handle)| {
            handle.failure().map(|reason| format!("{place}: {reason}"))
        });
        let meta = self.0.meta.failure().map(|reason| format!("broker.redb: {reason}"));
        failed.chain(meta).collect()
    }

    /// What is damaged or for now refused, while all else goes on: records that cannot be read, a
    /// full disk.
    pub fn damages(&self) -> Vec<String> {
        let snapshot = self.0.topics.snapshot();
        let mut damages = Vec::new();
        for (place, handle) in snapshot.all().flat_map(|topic| topic.places()) {
            let holes = handle.reader().holes().into_iter();
            damages.extend(holes.map(|(from, to)| {
                format!("{place}: offsets {from} to {to} are damaged and cannot be read")
            }));
            let refused = handle.reader().refused();
            damages.extend(refused.map(|(offset, cause)| {
                format!("{place}: the disk cannot read offset {offset}: {cause}")
            }));
        }
        if self.is_full() {
            damages.push("the disk is full, no writes are accepted".to_owned());
        }
        damages
    }

    /// Whether no writes are accepted because the disk is full.
    pub fn is_full(&self) -> bool {
        self.0.space.is_full()
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
        let closing = snapshot.all().flat_map(|topic| {
            let id = topic.id;
            let close = move |(place, handle): (_, &'_ PartitionHandle)| {
                let handle = handle.clone();
                async move { (id, place, handle.close().await) }
            };
            topic.places().map(close)
        });
        let (mut ends, mut unclean) = (Vec::new(), Vec::new());
        for (id, place, closed) in futures_util::future::join_all(closing).await {
            match closed {
                Ok(end) => ends.push((id, place, end)),
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

    pub(in crate::broker) fn limits(&self) -> &limits::Limits {
        &self.0.limits
    }
}

/// Blocks on the disk.
fn open_meta(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    other: Option<PathBuf>,
) -> Result<(Meta, meta::LastRun), StartError> {
    if other.is_none() {
        lost::check_meta(data_dir)?;
    }
    disk.dir(&log_dir(data_dir))
        .map_err(|error| StartError::Meta(MetaError::Database(error.to_string())))?;
    let path = other.unwrap_or_else(|| lost::meta_path(data_dir));
    Meta::open(disk, &path).map_err(StartError::Meta)
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
