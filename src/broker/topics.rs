//! Topics: which there are, and their creation, change and deletion.
//!
//! Owner: one worker, which makes changes one after the other; everyone else reads an immutable
//! snapshot. On disk a partition is the directory `<topic>-<partition>` below `log/`.
//!
//! Invariant: a topic is created in `broker.redb` after its directories are there, and deleted
//! there before they go; a directory that a crash left between is moved aside, never read. A
//! deletion leaves a mark below `log/` until all directories are gone, and the next start ends it.

use super::{
    Durability, ProduceError, StartError,
    configs::{self, ConfigError, Configs, Settings},
    lost,
    meta::{LastRun, Meta, TopicRecord},
    partition::{self, Opened, PartitionHandle},
    space::Space,
};
use crate::{
    clock::Clock,
    disk::Disk,
    log::{self, LastStop, OpenError, Outage},
    metrics::Metrics,
    position::{Offset, Partition, TopicName, TopicPartition},
};
use arc_swap::ArcSwap;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Most topics.
pub const TOPICS_MAX: usize = 2_000;
/// Most partitions of all topics: each holds open files.
pub const PARTITIONS_MAX: usize = 4_000;

/// One topic at one moment.
#[derive(Debug)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// Its id, never used again.
    pub id: Uuid,
    /// Only what was set.
    pub configs: Configs,
    /// What follows from them.
    pub settings: Settings,
    /// By index.
    pub partitions: Vec<PartitionHandle>,
    /// Whether the daemon owns it.
    pub is_reserved: bool,
}

impl Topic {
    /// One partition.
    pub fn partition(&self, partition: Partition) -> Option<&PartitionHandle> {
        self.partitions.get(usize::try_from(partition.get()).ok()?)
    }

    /// The partitions with their places.
    pub fn places(&self) -> impl Iterator<Item = (TopicPartition, &PartitionHandle)> {
        self.partitions.iter().zip(0..).filter_map(|(handle, index)| {
            let partition = Partition::new(index)?;
            Some((TopicPartition { topic: self.name.clone(), partition }, handle))
        })
    }

    fn record(&self) -> TopicRecord {
        let partitions = u32::try_from(self.partitions.len()).expect("at most PARTITIONS_MAX");
        TopicRecord { id: self.id, partitions, configs: self.configs.clone() }
    }
}

/// Why a topic is not created, changed or deleted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// There is one of that name.
    #[error("topic '{0}' already exists")]
    Exists(TopicName),
    /// There is none of that name.
    #[error("unknown topic")]
    Unknown,
    /// Not a count that can be had.
    #[error("{0}")]
    Partitions(String),
    /// A config is not taken.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A topic of the daemon's own.
    #[error("the topic is owned by taskwire and cannot be deleted")]
    Reserved,
    /// As many as there can be.
    #[error("this broker holds at most {TOPICS_MAX} topics and {PARTITIONS_MAX} partitions")]
    Bound,
    /// The disk or `broker.redb` refused.
    #[error("the broker's storage failed")]
    Storage,
}

/// All topics at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

impl Snapshot {
    /// Every topic by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    fn with(&self, topic: &Arc<Topic>) -> Self {
        let (mut by_name, mut by_id) = (self.by_name.clone(), self.by_id.clone());
        by_name.insert(topic.name.as_str().to_owned(), Arc::clone(topic));
        by_id.insert(topic.id, Arc::clone(topic));
        Self { by_name, by_id }
    }

    fn without(&self, topic: &Topic) -> Self {
        let (mut by_name, mut by_id) = (self.by_name.clone(), self.by_id.clone());
        by_name.remove(topic.name.as_str());
        by_id.remove(&topic.id);
        Self { by_name, by_id }
    }

    fn partitions(&self) -> usize {
        self.by_name.values().map(|topic| topic.partitions.len()).sum()
    }
}

/// Handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Topics {
    snapshot: Arc<ArcSwap<Snapshot>>,
    inbox: mpsc::Sender<Command>,
}

/// What all partitions are opened with.
pub(super) struct Setup {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) log_dir: PathBuf,
    pub(super) durability: Durability,
    pub(super) message_bytes_default: u32,
    pub(super) reserved: Vec<TopicName>,
    pub(super) meta: Meta,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) space: Space,
    /// What others know to have been durable, beside `broker.redb`.
    pub(super) floors: HashMap<TopicPartition, Offset>,
    pub(super) common: partition::Common,
}

impl Topics {
    /// Opens every partition and starts the owners, under `keeper`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub(super) async fn start(
        setup: Setup,
        last_run: LastRun,
        keeper: TaskTracker,
    ) -> Result<Self, StartError> {
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let (inbox, commands) = mpsc::channel(INBOX_COMMANDS_MAX);
        let LastRun { leader_epoch, was_clean, outage, topics, durable_ends, .. } = last_run;
        let owner = Owner {
            setup: Arc::new(setup),
            leader_epoch,
            snapshot: Arc::clone(&snapshot),
            keeper: keeper.clone(),
        };
        owner.end_deletions(topics.clone()).await;
        let floor = |place: &TopicPartition| {
            let floors = [durable_ends.get(place), owner.setup.floors.get(place)];
            floors.into_iter().flatten().max().copied().unwrap_or_default()
        };
        for (name, record) in topics {
            let how = |place: &TopicPartition| How {
                last_stop: LastStop { was_clean, durable_floor: floor(place), leader_epoch },
                outage,
                is_new: false,
            };
            let count = record.partitions;
            let opened = owner.open(&name, 0..count, &record.configs, how).await?;
            owner.publish(&name, record.id, record.configs, owner.run(opened));
        }
        owner.tell_strays().await;
        keeper.spawn(own(owner, commands));
        Ok(Self { snapshot, inbox })
    }

    /// The topic of that name.
    pub fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.snapshot.load().by_name.get(name).cloned()
    }

    /// The topic with that id.
    pub fn find_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.snapshot.load().by_id.get(&id).cloned()
    }

    /// All topics now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The partition, if it is there.
    pub fn partition(&self, name: &str, partition: Partition) -> Option<PartitionHandle> {
        self.snapshot.load().by_name.get(name)?.partition(partition).cloned()
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn create(
        &self,
        name: TopicName,
        partitions: u32,
        configs: Configs,
    ) -> Result<Arc<Topic>, TopicError> {
        self.ask(|reply| Command::Create { name, partitions, configs, reply }).await
    }

    /// The topic of that name, made with default configs if it is not there.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn find_or_create(
        &self,
        name: &TopicName,
        partitions: u32,
    ) -> Result<Arc<Topic>, TopicError> {
        if let Some(topic) = self.find(name.as_str()) {
            return Ok(topic);
        }
        match self.create(name.clone(), partitions, Configs::new()).await {
            Err(TopicError::Exists(_)) => self.find(name.as_str()).ok_or(TopicError::Unknown),
            other => other,
        }
    }

    /// What [`Topics::create`] would say, changing nothing.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub fn check_create(
        &self,
        name: &TopicName,
        partitions: u32,
        configs: &Configs,
        is_reserved: bool,
    ) -> Result<(), TopicError> {
        check_create(&self.snapshot.load(), name, partitions, configs, is_reserved)
    }

    /// Deletes a topic and its files.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn delete(&self, name: TopicName) -> Result<(), TopicError> {
        self.ask(|reply| Command::Delete { name, reply }).await
    }

    /// Raises the number of partitions to `count`.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn grow(&self, name: TopicName, count: u32) -> Result<(), TopicError> {
        self.ask(|reply| Command::Grow { name, count, reply }).await
    }

    /// Replaces the explicit configs of a topic.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn set_configs(&self, name: TopicName, configs: Configs) -> Result<(), TopicError> {
        self.ask(|reply| Command::SetConfigs { name, configs, reply }).await
    }

    /// Waits until the owner has ended. Cancel safe.
    pub async fn ended(&self) {
        self.inbox.closed().await;
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, TopicError>>) -> Command,
    ) -> Result<T, TopicError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(command(reply)).await.map_err(|_| TopicError::Storage)?;
        answer.await.unwrap_or(Err(TopicError::Storage))
    }
}

impl From<TopicError> for ProduceError {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Unknown => Self::UnknownTopicOrPartition,
            _ => Self::Storage,
        }
    }
}

enum Command {
    Create {
        name: TopicName,
        partitions: u32,
        configs: Configs,
        reply: oneshot::Sender<Result<Arc<Topic>, TopicError>>,
    },
    Delete {
        name: TopicName,
        reply: oneshot::Sender<Result<(), TopicError>>,
    },
    Grow {
        name: TopicName,
        count: u32,
        reply: oneshot::Sender<Result<(), TopicError>>,
    },
    SetConfigs {
        name: TopicName,
        configs: Configs,
        reply: oneshot::Sender<Result<(), TopicError>>,
    },
}

fn check_create(
    snapshot: &Snapshot,
    name: &TopicName,
    partitions: u32,
    configs: &Configs,
    is_reserved: bool,
) -> Result<(), TopicError> {
    if snapshot.by_name.contains_key(name.as_str()) {
        return Err(TopicError::Exists(name.clone()));
    }
    if partitions == 0 {
        let text = "number of partitions must be larger than 0";
        return Err(TopicError::Partitions(text.to_owned()));
    }
    let partitions = usize::try_from(partitions).unwrap_or(usize::MAX);
    if snapshot.by_name.len() >= TOPICS_MAX
        || snapshot.partitions().saturating_add(partitions) > PARTITIONS_MAX
    {
        return Err(TopicError::Bound);
    }
    Ok(configs::check(configs, is_reserved)?)
}

/// The worker.
async fn own(owner: Owner, mut inbox: mpsc::Receiver<Command>) {
    while let Some(command) = inbox.recv().await {
        // A caller that has gone does not need its answer: every send may fail.
        match command {
            Command::Create { name, partitions, configs, reply } => {
                drop(reply.send(owner.create(name, partitions, configs).await));
            }
            Command::Delete { name, reply } => drop(reply.send(owner.delete(&name).await)),
            Command::Grow { name, count, reply } => {
                drop(reply.send(owner.grow(&name, count).await));
            }
            Command::SetConfigs { name, configs, reply } => {
                drop(reply.send(owner.set_configs(&name, configs).await));
            }
        }
    }
}

struct Owner {
    setup: Arc<Setup>,
    leader_epoch: i32,
    snapshot: Arc<ArcSwap<Snapshot>>,
    keeper: TaskTracker,
}

impl Owner {
    async fn create(
        &self,
        name: TopicName,
        partitions: u32,
        mut configs: Configs,
    ) -> Result<Arc<Topic>, TopicError> {
        let is_reserved = self.setup.reserved.contains(&name);
        check_create(&self.snapshot.load(), &name, partitions, &configs, is_reserved)?;
        if is_reserved {
            for (name, value) in RESERVED_CONFIGS {
                configs.insert((*name).to_owned(), (*value).to_owned());
            }
        }
        let id = Uuid::new_v4();
        self.set_aside(&name, 0..partitions).await?;
        let opened = self.open_new(&name, 0..partitions, &configs).await?;
        let record = TopicRecord { id, partitions, configs: configs.clone() };
        self.put(&name, record).await?;
        tracing::info!(topic = %name, partitions, "topic created");
        Ok(self.publish(&name, id, configs, self.run(opened)))
    }

    async fn delete(&self, name: &TopicName) -> Result<(), TopicError> {
        let topic = self.topic(name)?;
        if topic.is_reserved {
            return Err(TopicError::Reserved);
        }
        let (setup, id) = (Arc::clone(&self.setup), topic.id);
        let mark = setup.log_dir.join(format!("{name}.{id}{DELETING_SUFFIX}"));
        let marked = mark.clone();
        if let Err(error) = blocking(move || setup.disk.dir(&marked).map(drop)).await {
            // A full disk must not keep a topic from being deleted.
            tracing::warn!(topic = %name, %error, "a deletion goes on without its mark");
        }
        self.setup.meta.delete_topic(name).await.map_err(|error| storage_error(name, &error))?;
        self.snapshot.store(Arc::new(self.snapshot.load().without(&topic)));
        for partition in &topic.partitions {
            partition.abandon().await;
        }
        let setup = Arc::clone(&self.setup);
        let places: Vec<_> = topic.places().map(|(place, _)| place).collect();
        let removed = blocking(move || {
            let dir = setup.disk.dir(&setup.log_dir)?;
            // As many as can be, whatever one of them meets; the mark stays if one does.
            let removed: Vec<_> = places
                .iter()
                .map(|place| {
                    let gone = format!("{place}.{id}{DELETED_SUFFIX}");
                    dir.rename(&place.to_string(), &gone)?;
                    setup.disk.remove_dir(&setup.log_dir.join(gone))
                })
                .collect();
            removed.into_iter().collect::<std::io::Result<()>>()?;
            setup.disk.remove_dir(&mark)
        });
        if let Err(error) = removed.await {
            // The topic is gone for everyone; the files are removed at the next start.
            tracing::warn!(topic = %name, %error, "files of a deleted topic are left");
        }
        tracing::info!(topic = %name, "topic deleted");
        Ok(())
    }

    async fn grow(&self, name: &TopicName, count: u32) -> Result<(), TopicError> {
        let topic = self.topic(name)?;
        let record = topic.record();
        if count <= record.partitions {
            let text =
                format!("topic has {} partitions; the new count must be higher", record.partitions);
            return Err(TopicError::Partitions(text));
        }
        let added = usize::try_from(count - record.partitions).unwrap_or(usize::MAX);
        if self.snapshot.load().partitions().saturating_add(added) > PARTITIONS_MAX {
            return Err(TopicError::Bound);
        }
        self.set_aside(name, record.partitions..count).await?;
        let opened = self.open_new(name, record.partitions..count, &topic.configs).await?;
        self.put(name, TopicRecord { partitions: count, ..record }).await?;
        let mut partitions = topic.partitions.clone();
        partitions.extend(self.run(opened));
        self.publish(name, topic.id, topic.configs.clone(), partitions);
        Ok(())
    }

    async fn set_configs(&self, name: &TopicName, configs: Configs) -> Result<(), TopicError> {
        let topic = self.topic(name)?;
        configs::check(&configs, topic.is_reserved)?;
        self.put(name, TopicRecord { configs: configs.clone(), ..topic.record() }).await?;
        let topic = self.publish(name, topic.id, configs, topic.partitions.clone());
        for partition in &topic.partitions {
            let set = partition.set_options(topic.settings.log.clone()).await;
            set.map_err(|_| TopicError::Storage)?;
        }
        Ok(())
    }

    fn topic(&self, name: &TopicName) -> Result<Arc<Topic>, TopicError> {
        let snapshot = self.snapshot.load();
        snapshot.by_name.get(name.as_str()).cloned().ok_or(TopicError::Unknown)
    }

    async fn put(&self, name: &TopicName, record: TopicRecord) -> Result<(), TopicError> {
        let put = self.setup.meta.put_topic(name, record).await;
        put.map_err(|error| storage_error(name, &error))
    }

    /// What follows from a topic's configs, with as many partitions as there are now.
    fn settings(&self, configs: &Configs) -> Settings {
        let partitions = self.snapshot.load().partitions();
        Settings::new(configs, self.setup.message_bytes_default, partitions)
    }

    /// Makes the topic, as it is from now on, visible.
    fn publish(
        &self,
        name: &TopicName,
        id: Uuid,
        configs: Configs,
        partitions: Vec<PartitionHandle>,
    ) -> Arc<Topic> {
        let topic = Arc::new(Topic {
            name: name.clone(),
            id,
            settings: self.settings(&configs),
            configs,
            partitions,
            is_reserved: self.setup.reserved.contains(name),
        });
        self.snapshot.store(Arc::new(self.snapshot.load().with(&topic)));
        topic
    }

    /// Starts the owners of opened partitions.
    fn run(&self, opened: Vec<Opened>) -> Vec<PartitionHandle> {
        let start = |opened: Opened| {
            let (handle, worker) = opened.split();
            self.keeper.spawn(worker);
            handle
        };
        opened.into_iter().map(start).collect()
    }

    async fn open_new(
        &self,
        name: &TopicName,
        partitions: std::ops::Range<u32>,
        configs: &Configs,
    ) -> Result<Vec<Opened>, TopicError> {
        let leader_epoch = self.leader_epoch;
        let how = |_: &TopicPartition| How {
            last_stop: LastStop { was_clean: false, durable_floor: Offset::ZERO, leader_epoch },
            outage: Outage::Machine,
            is_new: true,
        };
        let opened = self.open(name, partitions, configs, how).await;
        opened.map_err(|error| storage_error(name, &error))
    }

    /// Opens partitions, some at a time.
    async fn open(
        &self,
        name: &TopicName,
        partitions: std::ops::Range<u32>,
        configs: &Configs,
        how: impl Fn(&TopicPartition) -> How,
    ) -> Result<Vec<Opened>, StartError> {
        let options = self.settings(configs).log;
        let opening = partitions.map(|index| {
            let index = i32::try_from(index).ok().and_then(Partition::new);
            let partition = index.expect("at most PARTITIONS_MAX");
            let place = TopicPartition { topic: name.clone(), partition };
            let how = how(&place);
            let (setup, options) = (Arc::clone(&self.setup), options.clone());
            blocking(move || open(&setup, place, options, &how))
        });
        stream::iter(opening).buffered(OPENING_MAX).try_collect().await
    }

    /// Moves directories of partitions that are about to be created aside: a crash left them.
    async fn set_aside(
        &self,
        name: &TopicName,
        partitions: std::ops::Range<u32>,
    ) -> Result<(), TopicError> {
        let (setup, topic) = (Arc::clone(&self.setup), name.clone());
        let known = self.topic(name).ok().map(|topic| topic.id);
        let moved = blocking(move || {
            let log_dir = setup.disk.dir(&setup.log_dir)?;
            let there = log_dir.list()?;
            let is_deleted = there.iter().filter_map(|name| parse_mark(name));
            let is_deleted = { is_deleted }.any(|(of, id)| of == topic && known != Some(id));
            for dir in partitions.map(|index| format!("{topic}-{index}")) {
                if there.contains(&dir) && (is_deleted || is_empty(&setup, &dir)?) {
                    // What a deletion left, or an attempt that found no space; tried again and
                    // again, they add up.
                    setup.disk.remove_dir(&setup.log_dir.join(dir))?;
                } else if there.contains(&dir) {
                    let aside = format!("{dir}.{}-stray", Uuid::new_v4());
                    tracing::warn!(dir, aside, "moved a stray directory aside");
                    log_dir.rename(&dir, &aside)?;
                }
            }
            Ok::<_, std::io::Error>(())
        });
        moved.await.map_err(|error| storage_error(name, &error))
    }

    /// Tells of directories that belong to no topic. They stay.
    async fn tell_strays(&self) {
        let setup = Arc::clone(&self.setup);
        let listed = blocking(move || setup.disk.dir(&setup.log_dir)?.list()).await;
        let Ok(names) = listed else { return };
        let places = names.iter().filter_map(|name| lost::parse_place(name));
        let snapshot = self.snapshot.load();
        for place in places {
            let topic = snapshot.by_name.get(place.topic.as_str());
            if topic.and_then(|topic| topic.partition(place.partition)).is_none() {
                tracing::warn!(%place, "a directory below log/ belongs to no topic");
            }
        }
    }

    /// Removes what deletions left behind.
    async fn end_deletions(&self, topics: BTreeMap<TopicName, TopicRecord>) {
        let setup = Arc::clone(&self.setup);
        let ended = blocking(move || end_deletions(&setup, &topics));
        if let Err(error) = ended.await {
            tracing::warn!(%error, "files of deleted topics are left");
        }
    }
}

/// How one partition is opened.
struct How {
    last_stop: LastStop,
    outage: Outage,
    /// It is created; else it must be there.
    is_new: bool,
}

/// Opens one partition. Blocks on the disk.
fn open(
    setup: &Setup,
    place: TopicPartition,
    options: log::Options,
    how: &How,
) -> Result<Opened, StartError> {
    let path = setup.log_dir.join(place.to_string());
    let failed = |source| {
        let error = OpenError::Io { path: path.clone(), source };
        StartError::Log(place.clone(), error)
    };
    let dir = setup.disk.dir(&path).map_err(failed)?;
    if !how.is_new && !log::has_segments(&*dir).map_err(failed)? {
        return Err(StartError::LogMissing { place, path });
    }
    // The daemon's own dead letters are of what is accepted already; a client's topic that only has
    // such a name must not eat the reserve.
    let is_own = setup.reserved.contains(&place.topic);
    let may_use_reserve = is_own && place.topic.as_str().ends_with(".dlq");
    let named = place.clone();
    let opened = partition::open(partition::Setup {
        place,
        dir,
        options,
        last_stop: how.last_stop,
        outage: how.outage,
        durability: setup.durability,
        space: setup.space.clone(),
        may_use_reserve,
        clock: setup.clock.clone(),
        metrics: Arc::clone(&setup.metrics),
        common: setup.common.clone(),
    });
    opened.map_err(|error| StartError::Log(named, error))
}

/// Whether a partition's directory holds no byte of a log.
fn is_empty(setup: &Setup, name: &str) -> std::io::Result<bool> {
    let dir = setup.disk.dir(&setup.log_dir.join(name))?;
    for name in dir.list()? {
        if dir.open(&name)?.size()? > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn end_deletions(setup: &Setup, topics: &BTreeMap<TopicName, TopicRecord>) -> std::io::Result<()> {
    let remove = |name: &str| setup.disk.remove_dir(&setup.log_dir.join(name));
    let names = setup.disk.dir(&setup.log_dir)?.list()?;
    for name in names.iter().filter(|name| name.ends_with(DELETED_SUFFIX)) {
        remove(name)?;
    }
    for (mark, (topic, id)) in names.iter().filter_map(|name| Some((name, parse_mark(name)?))) {
        let known = topics.get(&topic);
        // Where the topic is still there, the deletion was not decided: only its mark goes.
        if known.is_none_or(|known| known.id != id) {
            let partitions = known.map_or(0, |known| known.partitions);
            let is_left = |place: &TopicPartition| {
                let index = u32::try_from(place.partition.get());
                place.topic == topic && index.is_ok_and(|index| partitions <= index)
            };
            let places = names.iter().filter_map(|name| lost::parse_place(name));
            for place in places.filter(is_left) {
                tracing::info!(%place, "removes what the deletion of a topic has left");
                remove(&place.to_string())?;
            }
        }
        remove(mark)?;
    }
    Ok(())
}

/// Topic and id of the mark of a deletion.
fn parse_mark(name: &str) -> Option<(TopicName, Uuid)> {
    let (topic, id) = name.strip_suffix(DELETING_SUFFIX)?.rsplit_once('.')?;
    Some((TopicName::new(topic)?, id.parse().ok()?))
}

/// Runs on a blocking thread. A panic there is a panic here: the owner must not go on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn storage_error(name: &TopicName, error: &dyn std::error::Error) -> TopicError {
    tracing::error!(topic = %name, %error, "a topic was not changed");
    TopicError::Storage
}

/// What the daemon's own topics always have.
const RESERVED_CONFIGS: &[(&str, &str)] =
    &[("cleanup.policy", "delete"), ("retention.bytes", "-1"), ("retention.ms", "-1")];
/// No partition's directory ends with it: those end with digits.
const DELETED_SUFFIX: &str = "-delete";
/// Of the empty directory `<topic>.<id>-deleting`, the mark of a deletion under way.
const DELETING_SUFFIX: &str = "-deleting";
/// Commands that wait; senders beyond it wait outside.
const INBOX_COMMANDS_MAX: usize = 64;
/// Partitions opened at once.
const OPENING_MAX: usize = 8;
