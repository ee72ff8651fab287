//! `tasks.redb` made anew from the log, by the daemon's own broker and apply, without ports.

use super::{PARTITIONS, StartError, lock::DataDir};
use crate::{
    apply::{self, ApplyError},
    archive::{self, BROKER_FILE, LOG_DIR, LogFormatError, Manifest, ManifestError, TASKS_FILE},
    broker::{
        self, Broker,
        meta::{MetaError, file},
    },
    causes::chain,
    clock::Clock,
    config::Config,
    disk::{beside, dir::RealDir, if_there, sync_name},
    feed::{EventLog, embedded::Embedded},
    hub::Hub,
    log,
    metrics::Metrics,
    position::{Offset, TopicName, TopicPartition},
    shutdown,
    store::{
        Store, StoreError,
        redb::{self, RedbStore},
    },
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tracing::info;

/// Why nothing was rebuilt. The data directory is as it was, but for what a start does to a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The data directory is in use, or the disk refused.
    #[error(transparent)]
    DataDir(#[from] StartError),
    /// There is no log.
    #[error("{} has no log to rebuild from", path.display())]
    NoLog {
        /// The directory.
        path: PathBuf,
    },
    /// The log's format.
    #[error(transparent)]
    LogFormat(#[from] LogFormatError),
    /// `broker.redb`
    #[error("cannot make broker.redb")]
    Meta(#[from] MetaError),
    /// The broker does not start.
    #[error("cannot open the log")]
    Broker(#[from] broker::StartError),
    /// The topic cannot be created.
    #[error("cannot open the topic")]
    Topic(#[from] broker::ProduceError),
    /// The log has holes: tasks would be lost in silence.
    #[error(
        "the log of {place} is damaged, first: {what}; decide about it with `taskwire repair`, \
         then rebuild"
    )]
    DamagedLog {
        /// The partition, by its directory.
        place: String,
        /// The first damage.
        what: String,
    },
    /// The log does not reach back far enough.
    #[error(
        "the log of {place} begins at {log_start}, and is needed from {needed} on; {}",
        "give a backup that was made when the log still had that, with --backup DIR"
    )]
    LogTooShort {
        /// The partition.
        place: TopicPartition,
        /// Where its log begins.
        log_start: Offset,
        /// From where on it is needed.
        needed: Offset,
    },
    /// The log ends below the backup.
    #[error("the log of {place} ends at {log_end}, and the backup has applied up to {processed}")]
    LogBehindBackup {
        /// The partition.
        place: TopicPartition,
        /// Where its log ends.
        log_end: Offset,
        /// What the backup has applied.
        processed: Offset,
    },
    /// The backup.
    #[error("cannot use the backup")]
    Backup(#[from] ManifestError),
    /// The backup is of another cluster.
    #[error("the backup is of another cluster than this log")]
    OtherCluster,
    /// The new store.
    #[error("cannot write the new tasks.redb")]
    Store(#[from] StoreError),
    /// Apply failed.
    #[error("cannot apply the log")]
    Apply(#[source] ApplyError),
    /// A part ended in another way.
    #[error("{0}")]
    Ended(String),
    /// The disk refused.
    #[error("cannot put {} in place", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a rebuild starts from.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A backup: its store, and the log after it. Without one, the log from its beginning.
    pub backup: Option<PathBuf>,
    /// Makes `broker.redb` anew, too, from the names of the log's directories.
    pub makes_broker: bool,
}

/// What was made.
#[derive(Clone, Debug, Default)]
pub struct Rebuilt {
    /// Tasks present.
    pub tasks: u64,
    /// Changes kept.
    pub changes: u64,
    /// Events that wait.
    pub waiting: u64,
    /// Where the files that were replaced lie now.
    pub kept: Vec<PathBuf>,
}

/// Makes `tasks.redb` anew, with another epoch; the old one is kept beside as
/// `tasks.redb.damaged-<time>`. Dead letters that are in their topic are not written again.
///
/// # Errors
/// See [`RebuildError`].
pub async fn rebuild(
    config: Config,
    options: Options,
    clock: Clock,
) -> Result<Rebuilt, RebuildError> {
    let dir = config.data_dir.clone();
    if !dir.join(LOG_DIR).is_dir() {
        return Err(RebuildError::NoLog { path: dir });
    }
    let _held = DataDir::lock(&dir)?;
    archive::check_log_format(&dir)?;
    let mut rebuilt = Rebuilt::default();
    let new = dir.join(format!("{TASKS_FILE}.rebuilding"));
    remove(&new)?;
    let manifest = options.backup.as_deref().map(|backup| begin_at(backup, &new)).transpose()?;
    // The old files stay where they are until all has gone well.
    let made = options.makes_broker.then(|| make_broker(&dir, &clock)).transpose()?;
    if let Some(manifest) = manifest.as_ref().filter(|_| !options.makes_broker) {
        // A broker that was made anew has another id: then nothing tells.
        let cluster_id = file::read(&dir.join(BROKER_FILE))?.cluster_id;
        if cluster_id != manifest.cluster_id {
            return Err(RebuildError::OtherCluster);
        }
    }
    let (log_dir, topic) = (dir.join(LOG_DIR), config.topic.clone());
    let broker_file = made.clone().unwrap_or_else(|| dir.join(BROKER_FILE));
    let ends = file::read(&broker_file)?.durable_ends;
    let sound = tokio::task::spawn_blocking(move || expect_sound_log(&log_dir, &topic, &ends));
    sound.await.map_err(|error| RebuildError::Ended(error.to_string()))??;
    let metrics = Arc::new(Metrics::new());
    let broker_options = config.broker_options();
    let start = broker::Start { meta_file: made.clone(), ..broker::Start::default() };
    let broker =
        Broker::start_with(broker_options, start, clock.clone(), Arc::clone(&metrics)).await?;
    let outcome = async {
        broker.ensure_topic(&config.topic, PARTITIONS).await?;
        expect_whole_log(&broker, &config, manifest.as_ref())?;
        apply_log(&config, &broker, &new, (clock.clone(), metrics)).await
    };
    let outcome = outcome.await;
    broker.close().await.map_err(RebuildError::Ended)?;
    let stats = outcome?;
    (rebuilt.tasks, rebuilt.changes, rebuilt.waiting) = (stats.tasks, stats.changes, stats.waiting);
    for (made, name) in made.iter().map(|made| (made, BROKER_FILE)).chain([(&new, TASKS_FILE)]) {
        rebuilt.kept.extend(keep(&dir.join(name), &clock)?);
        put(made, &dir.join(name))?;
    }
    Ok(rebuilt)
}

/// Takes a backup's store, with a new epoch.
fn begin_at(backup: &Path, new: &Path) -> Result<Manifest, RebuildError> {
    let manifest = Manifest::read(backup)?;
    redb::copy::copy_file(&backup.join(TASKS_FILE), new)?;
    redb::copy::begin_new_life(new)?;
    Ok(manifest)
}

/// Makes a new `broker.redb` beside the old one; returns its path.
fn make_broker(dir: &Path, clock: &Clock) -> Result<PathBuf, RebuildError> {
    let made = beside(&dir.join(BROKER_FILE), ".rebuilding");
    remove(&made)?;
    let topics = broker::rebuild_meta(dir, &made, clock)?;
    info!(topics = topics.len(), "made broker.redb from the directories of the log");
    Ok(made)
}

/// Refuses a log of the applied topic with damage that nobody has decided about. Before the broker
/// opens it, which makes holes of what is missing.
fn expect_sound_log(
    log_dir: &Path,
    topic: &TopicName,
    ends: &BTreeMap<TopicPartition, Offset>,
) -> Result<(), RebuildError> {
    let failed = |source| RebuildError::Io { path: log_dir.to_owned(), source };
    for entry in fs::read_dir(log_dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let place = broker::parse_place(&name).filter(|place| place.topic == *topic);
        let Some(place) = place.filter(|_| path.is_dir()) else { continue };
        let report = log::verify(&RealDir::open(&path).map_err(failed)?).map_err(failed)?;
        if let Some(finding) = report.findings.iter().find(|finding| finding.is_damage()) {
            return Err(RebuildError::DamagedLog { place: name, what: finding.to_string() });
        }
        if let Some(end) = ends.get(&place).filter(|end| report.log_end < **end) {
            let what = format!("it ends at {}, and was durable up to {end}", report.log_end);
            return Err(RebuildError::DamagedLog { place: name, what });
        }
    }
    Ok(())
}

/// Refuses a log that lacks what has to be applied.
fn expect_whole_log(
    broker: &Broker,
    config: &Config,
    manifest: Option<&Manifest>,
) -> Result<(), RebuildError> {
    let processed: BTreeMap<_, _> = manifest.iter().flat_map(|m| m.processed()).collect();
    for index in 0..broker.partition_count(&config.topic) {
        let partition = apply::partition_of(index);
        let reader = partition.and_then(|partition| broker.reader(&config.topic, partition));
        let (Some(partition), Some(reader)) = (partition, reader) else { continue };
        let place = TopicPartition { topic: config.topic.clone(), partition };
        let needed = processed.get(&place).copied().unwrap_or(Offset::ZERO);
        let (log_start, log_end) = (reader.log_start(), reader.high_watermark());
        if needed < log_start {
            return Err(RebuildError::LogTooShort { place, log_start, needed });
        }
        if log_end < needed {
            return Err(RebuildError::LogBehindBackup { place, log_end, processed: needed });
        }
    }
    Ok(())
}

/// Runs apply over the log as it is, into the store at `path`.
async fn apply_log(
    config: &Config,
    broker: &Broker,
    path: &Path,
    (clock, metrics): (Clock, Arc<Metrics>),
) -> Result<crate::store::StoreStats, RebuildError> {
    let (path, options) = (path.to_owned(), config.store_options());
    let opened = tokio::task::spawn_blocking(move || RedbStore::open(&path, options)).await;
    let opened = opened.map_err(|error| RebuildError::Ended(error.to_string()))??;
    let store: Arc<dyn Store> = Arc::new(opened);
    let feed: Arc<dyn EventLog> = Arc::new(Embedded::new(broker.clone(), clock.clone(), 1));
    let hub = Hub::new(config.hub_options(), Arc::clone(&store), Arc::clone(&metrics));
    let (trigger, shutdown) = shutdown::pair();
    // All of the log, wherever the store that is lost began.
    // And nothing is added to it: reminders are the daemon's.
    let options =
        apply::Options { starts_at_latest: false, due_soon: None, ..config.apply_options() };
    let (applied, worker) =
        apply::start(options, feed, Arc::clone(&store), hub, clock, metrics, shutdown);
    let mut progress = applied.progress();
    // Where it fails, apply has ended, and its handle says why.
    drop(progress.wait_for(|progress| progress.is_caught_up).await);
    trigger.fire();
    match worker.await {
        Ok(ended) => ended.map_err(RebuildError::Apply)?,
        Err(error) => return Err(RebuildError::Ended(format!("apply ended: {}", chain(&error)))),
    }
    let stats = store.stats();
    store.close().await?;
    Ok(stats)
}

/// Gives a file a second name, under which it stays when another takes its first; returns that, if
/// the file is there. Never is there a moment without a file of the first name: a start would take
/// that for a new directory.
fn keep(path: &Path, clock: &Clock) -> Result<Option<PathBuf>, RebuildError> {
    let kept = beside(path, &format!(".damaged-{}", clock.now_ms()));
    match fs::hard_link(path, &kept) {
        Ok(()) => Ok(Some(kept)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RebuildError::Io { path: kept, source }),
    }
}

fn put(made: &Path, name: &Path) -> Result<(), RebuildError> {
    let put = fs::rename(made, name).and_then(|()| sync_name(name));
    put.map_err(|source| RebuildError::Io { path: name.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), RebuildError> {
    let removed = if_there(fs::remove_file(path));
    removed.map_err(|source| RebuildError::Io { path: path.to_owned(), source })
}
