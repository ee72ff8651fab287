//! Builds every part in order, and owns the stop order and its deadline. The only module that
//! knows all parts.
//!
//! Start: ports -> data directory -> log -> store -> feed, hub -> apply -> accept. Ready when apply
//! has reached the log end seen at start. Stop runs in the direction of the data: listeners and
//! sessions, then apply, then the broker, then the store.
//!
//! Invariant: an owner worker that ends unexpectedly ends the daemon with its reason; one bad
//! connection ends that connection only.

mod admin_socket;
mod bind;
mod lock;
pub mod rebuild;
#[cfg(test)]
mod rebuild_tests;

pub use admin_socket::{admin_socket, check_admin_socket};
pub use lock::{DataDir, Endpoints};

use crate::{
    apply::{self, Applied, ApplyError},
    archive::{self, LogFormatError, Unfinished, backup},
    auth::{Authenticator, JwksError},
    broker::{self, Broker},
    causes::chain,
    clock::Clock,
    config::{self, Config, ConfigError},
    feed::{EventLog, embedded::Embedded, inspect::Inspector},
    http::{self, Health, Http},
    hub::Hub,
    metrics::Metrics,
    position::TopicPartition,
    shutdown::{self, Shutdown, Trigger},
    store::{Processed, Store, StoreError, redb::RedbStore},
    systemd,
};
use std::{
    collections::HashMap, fmt, future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener},
    task::{Id, JoinError, JoinHandle, JoinSet},
    time::{Instant, timeout_at},
};
use tracing::{error, info, warn};

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A port is in use.
    #[error("address {address} is taken by another process; stop that, or change {flag}")]
    AddressTaken {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        flag: &'static str,
    },
    /// An address cannot be bound.
    #[error("cannot listen on {address} ({flag})")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        flag: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Another daemon has the data directory.
    #[error("{} is in use by another daemon, pid {pid}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process.
        pid: String,
    },
    /// The data directory is not whole.
    #[error(transparent)]
    Unfinished(#[from] Unfinished),
    /// The data directory refuses.
    #[error("cannot use {}", path.display())]
    DataDir {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The secret cannot be made or read.
    #[error(transparent)]
    Secret(#[from] ConfigError),
    /// The JWKS file cannot be read, or is not good.
    #[error("there are no keys to check tokens with")]
    Keys(#[from] JwksError),
    /// The log's files are of another format.
    #[error(transparent)]
    LogFormat(#[from] LogFormatError),
    /// The broker.
    #[error("the broker does not start")]
    Broker(#[from] broker::StartError),
    /// The topic cannot be created.
    #[error("cannot create topic {topic}")]
    Topic {
        /// The topic.
        topic: String,
        /// Why.
        source: broker::ProduceError,
    },
    /// The store.
    #[error("the store does not start")]
    Store(#[from] StoreError),
    /// The log lost what the store has processed.
    #[error(
        "the store has processed {place} up to offset {processed}, but its log ends at {log_end}: \
         log/ and broker.redb are of another data directory, or gone. Put them back (from a backup \
         of the whole data directory), or move tasks.redb away to build the tasks again from the \
         log that is left"
    )]
    StoreAhead {
        /// The partition.
        place: TopicPartition,
        /// The store's next offset.
        processed: i64,
        /// Where the log ends.
        log_end: i64,
    },
}

/// Why a running daemon ends with a failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Apply ended by itself.
    #[error("apply ended")]
    Apply(#[source] ApplyError),
    /// A worker ended that should run until the stop.
    #[error("{0} ended unexpectedly")]
    Worker(String),
    /// A part could not be closed cleanly.
    #[error("{part} was not closed cleanly: {reason}")]
    Unclean {
        /// The part.
        part: &'static str,
        /// Why.
        reason: String,
    },
    /// The deadline of the stop passed.
    #[error("the stop took longer than {deadline:?}; left: {}", left.join(", "))]
    Deadline {
        /// The deadline.
        deadline: Duration,
        /// What was not done.
        left: Vec<String>,
    },
}

/// A started daemon. Dropped without [`Daemon::stop`], it ends as a kill would end it.
pub struct Daemon {
    http: Vec<SocketAddr>,
    kafka: Vec<SocketAddr>,
    edges: Edges,
    applied: Applied,
    apply: Option<JoinHandle<Result<(), ApplyError>>>,
    apply_trigger: Trigger,
    broker: Broker,
    store: Arc<dyn Store>,
    data_dir: DataDir,
    stop_timeout: Duration,
}

impl Daemon {
    /// Starts every part in order; returns when both ports accept. Readiness comes later: see
    /// [`Daemon::ready`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        let http_listeners = bind::bind_all(&config.http_listen, "--http-listen")?;
        let kafka_listeners = bind::bind_all(&config.kafka_listen, "--kafka-listen")?;
        let data_dir = DataDir::lock(&config.data_dir)?;
        let auth_options = config.auth_options()?;
        let metrics = Arc::new(Metrics::new());
        let authenticator = Authenticator::new(auth_options, clock.clone(), Arc::clone(&metrics));
        Box::pin(authenticator.load_keys()).await?; // boxed: TLS is large, and done once

        archive::tell_log_format(&config.data_dir)?;
        // The store first: what it has processed is a floor of the logs.
        let (store, processed) = open_store(&config, Arc::clone(&metrics)).await?;
        let floors = processed.iter().map(|(place, processed)| (place.clone(), processed.next));
        let start = broker::Start {
            floors: floors.collect(),
            reserve_bytes: config::RESERVE_BYTES,
            ..broker::Start::default()
        };
        let broker = config.broker_options();
        let broker = Broker::start_with(broker, start, clock.clone(), Arc::clone(&metrics));
        let broker = Box::pin(broker).await?; // boxed: large, and done once
        ensure_applied_topic(&config, &broker, &processed).await?;
        let feed: Arc<dyn EventLog> = Arc::new(Embedded::new(broker.clone(), clock.clone(), 1));
        let hub = Hub::new(config.hub_options(), Arc::clone(&store), Arc::clone(&metrics));

        let (apply_trigger, apply_shutdown) = shutdown::pair();
        let (applied, apply) = apply::start(
            config.apply_options(),
            Arc::clone(&feed),
            Arc::clone(&store),
            hub.clone(),
            clock.clone(),
            Arc::clone(&metrics),
            apply_shutdown,
        );
        let clock_of_backups = clock.clone();
        let inspect = Arc::new(Inspector::new(broker.clone(), clock.clone()));
        let parts = http::Parts {
            authenticator: authenticator.clone(),
            store: Arc::clone(&store),
            feed,
            applied: applied.clone(),
            hub,
            clock,
            metrics,
            health: health_of(&broker, &store),
            inspect,
            backup: backup_of(&broker, &store, clock_of_backups),
        };
        let http = Http::new(config.http_options(), parts);

        let mut edges = Edges::new(config.drain_timeout.min(config.stop_timeout));
        edges.keep_keys(authenticator);
        if let Some(socket) = admin_socket::bind(&config.data_dir)? {
            edges.serve_admin(&http, socket);
        }
        let http_addresses = edges.serve_http(&http, http_listeners);
        let kafka_addresses = edges.serve_kafka(&broker, kafka_listeners);
        let daemon = Self {
            http: http_addresses,
            kafka: kafka_addresses,
            edges,
            applied,
            apply: Some(apply),
            apply_trigger,
            broker,
            store,
            data_dir,
            stop_timeout: config.stop_timeout,
        };
        daemon.data_dir.announce(&daemon.endpoints())?;
        Ok(daemon)
    }

    /// Where it listens.
    pub fn endpoints(&self) -> Endpoints {
        Endpoints { pid: std::process::id(), http: self.http.clone(), kafka: self.kafka.clone() }
    }

    /// Waits until apply has reached the log end seen at start. Cancel safe.
    ///
    /// # Errors
    /// An owner ended before: see [`Daemon::failed`].
    pub async fn ready(&mut self) -> Result<(), Failure> {
        let mut progress = self.applied.progress();
        tokio::select! {
            // Where it fails, apply is gone, and the reason is on its handle.
            reached = progress.wait_for(|progress| progress.is_caught_up) => if reached.is_ok() {
                return Ok(());
            },
            failure = self.failed() => return Err(failure),
        }
        Err(self.failed().await)
    }

    /// Waits for an owner worker that ends by itself, which it never should. Cancel safe.
    pub async fn failed(&mut self) -> Failure {
        let apply = async {
            match self.apply.as_mut() {
                Some(apply) => apply.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The broker's owners first: apply and the listeners end of a dead one, too, and the
            // cause is to be told, not what followed of it.
            biased;
            owner = self.broker.owner_ended() => Failure::Worker(format!("the owner of {owner}")),
            ended = apply => {
                self.apply = None;
                apply_failure(ended)
            }
            name = self.edges.ended() => Failure::Worker(name),
        }
    }

    /// Tells systemd of readiness and life, until the stop begins or an owner fails.
    async fn supervise(&mut self, shutdown: &Shutdown) -> Result<(), Failure> {
        let applied = self.applied.clone();
        let mut beat = tokio::time::interval(systemd::heartbeat_interval());
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::select! {
            () = shutdown.begun() => return Ok(()),
            readiness = self.ready() => readiness?,
            () = async { loop {
                beat.tick().await;
                systemd::catching_up(applied.progress().borrow().lag_records);
            } } => (),
        }
        info!("ready");
        systemd::ready();
        tokio::select! {
            () = shutdown.begun() => Ok(()),
            failure = self.failed() => Err(failure),
            () = async { loop {
                beat.tick().await;
                systemd::alive(applied.progress().borrow().lag_records);
            } } => Ok(()),
        }
    }

    /// Stops in the direction of the data. Everything acknowledged is on disk when this returns
    /// `Ok`, and the next start needs no recovery.
    ///
    /// # Errors
    /// The deadline passed, or a part did not close cleanly. Nothing acknowledged is lost then
    /// either; the next start recovers.
    pub async fn stop(mut self) -> Result<(), Failure> {
        let deadline = Deadline::after(self.stop_timeout);
        self.edges.trigger.fire();
        let edges_left = deadline.meet(self.edges.all_ended()).await;
        if edges_left.is_none() {
            let mut left = self.edges.names();
            left.extend(["apply", "broker", "store"].map(str::to_owned));
            return Err(deadline.missed(left));
        }

        self.apply_trigger.fire();
        let mut outcome = Ok(());
        if let Some(apply) = self.apply.take() {
            match deadline.meet(apply).await {
                Some(Ok(Ok(()))) => (),
                Some(ended) => outcome = Err(apply_failure(ended)),
                None => return Err(deadline.missed_from("apply")),
            }
        }
        let is_log_closed = match deadline.meet(self.broker.close()).await {
            Some(Ok(())) => true,
            Some(Err(reason)) => {
                outcome = outcome.and(unclean("broker", reason));
                false
            }
            None => return Err(deadline.missed_from("broker")),
        };
        // Where the log may lack what the store has applied, the store stays as a kill leaves it.
        if is_log_closed {
            match deadline.meet(self.store.close()).await {
                Some(Ok(())) => (),
                Some(Err(error)) => outcome = outcome.and(unclean("store", chain(&error))),
                None => return Err(deadline.missed_from("store")),
            }
        }
        if let Err(error) = self.data_dir.withdraw() {
            warn!(%error, "endpoints.json or admin.sock is left behind");
        }
        outcome
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon").field("http", &self.http).field("kafka", &self.kafka).finish()
    }
}

/// Runs a daemon from start to stop; `on_started` is told when both ports accept.
///
/// # Errors
/// See [`Failure`]. A daemon whose owner failed is stopped as far as it can be, and the first
/// failure is returned.
pub async fn run(
    config: Config,
    shutdown: Shutdown,
    on_started: impl FnOnce(&Endpoints),
) -> Result<(), Failure> {
    let mut daemon = Daemon::start(config, Clock::system()).await?;
    let endpoints = daemon.endpoints();
    info!(http = ?endpoints.http, kafka = ?endpoints.kafka, pid = endpoints.pid, "accepting");
    on_started(&endpoints);
    let lived = daemon.supervise(&shutdown).await;
    if let Err(failure) = &lived {
        error!(error = chain(failure), "stopping after a failure");
    }
    systemd::stopping();
    info!("stopping");
    let stopped = daemon.stop().await;
    if lived.is_ok() && stopped.is_ok() {
        info!("stopped");
    }
    lived.and(stopped)
}

/// The workers that accept: one per bound address.
struct Edges {
    workers: JoinSet<()>,
    names: HashMap<Id, String>,
    trigger: Trigger,
    shutdown: Shutdown,
    drain: Duration,
}

impl Edges {
    fn new(drain: Duration) -> Self {
        let (trigger, shutdown) = shutdown::pair();
        Self { workers: JoinSet::new(), names: HashMap::new(), trigger, shutdown, drain }
    }

    fn serve_http(&mut self, http: &Http, listeners: Vec<TcpListener>) -> Vec<SocketAddr> {
        self.serve("HTTP", listeners, |listener, shutdown, drain| {
            let http = http.clone();
            async move { http.serve(listener, shutdown, drain).await }
        })
    }

    fn keep_keys(&mut self, authenticator: Authenticator) {
        let shutdown = self.shutdown.clone();
        let worker = async move { authenticator.keep_keys(shutdown).await };
        let id = self.workers.spawn(worker).id();
        self.names.insert(id, "the refresh of the JWKS".to_owned());
    }

    fn serve_admin(&mut self, http: &Http, socket: UnixListener) {
        let (http, shutdown, drain) = (http.clone(), self.shutdown.clone(), self.drain);
        let worker = async move { http.serve_local(socket, shutdown, drain).await };
        let id = self.workers.spawn(worker).id();
        self.names.insert(id, "the admin socket".to_owned());
    }

    fn serve_kafka(&mut self, broker: &Broker, listeners: Vec<TcpListener>) -> Vec<SocketAddr> {
        self.serve("Kafka", listeners, |listener, shutdown, drain| {
            let broker = broker.clone();
            async move { broker.serve(listener, shutdown, drain).await }
        })
    }

    fn serve<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        what: &str,
        listeners: Vec<TcpListener>,
        worker: impl Fn(TcpListener, Shutdown, Duration) -> F,
    ) -> Vec<SocketAddr> {
        let mut addresses = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let Ok(address) = listener.local_addr() else { continue };
            let worker = worker(listener, self.shutdown.clone(), self.drain);
            let id = self.workers.spawn(worker).id();
            self.names.insert(id, format!("the {what} listener {address}"));
            addresses.push(address);
        }
        addresses
    }

    /// The name of the next worker that ends; never if there is none. Cancel safe.
    async fn ended(&mut self) -> String {
        let id = match self.workers.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
            None => std::future::pending().await,
        };
        self.names.remove(&id).unwrap_or_else(|| "a listener".to_owned())
    }

    async fn all_ended(&mut self) {
        while !self.workers.is_empty() {
            self.ended().await;
        }
    }

    fn names(&self) -> Vec<String> {
        self.names.values().cloned().collect()
    }
}

struct Deadline {
    at: Instant,
    span: Duration,
}

impl Deadline {
    fn after(span: Duration) -> Self {
        Self { at: Instant::now() + span, span }
    }

    async fn meet<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.at, work).await.ok()
    }

    fn missed(&self, left: Vec<String>) -> Failure {
        Failure::Deadline { deadline: self.span, left }
    }

    /// This part, and those that come after it in the order of the stop.
    fn missed_from(&self, part: &str) -> Failure {
        let order = ["apply", "broker", "store"];
        self.missed(order.into_iter().skip_while(|name| *name != part).map(str::to_owned).collect())
    }
}

/// Opens the store; tells what it has processed.
async fn open_store(
    config: &Config,
    metrics: Arc<Metrics>,
) -> Result<(Arc<dyn Store>, HashMap<TopicPartition, Processed>), StartError> {
    let path = config.data_dir.join(archive::TASKS_FILE);
    let options = config.store_options();
    let (data_dir, measured) = (config.data_dir.clone(), Arc::clone(&metrics));
    let opened = tokio::task::spawn_blocking(move || {
        broker::look_before_start(&data_dir, config::RESERVE_BYTES, &measured);
        RedbStore::open(&path, options)
    });
    let opened = opened.await;
    let store: Arc<dyn Store> = Arc::new(opened.map_err(panicked)??.with_metrics(metrics));
    let start = store.start().await?;
    info!(was_clean = start.was_clean, tasks = store.stats().tasks, "the store is open");
    Ok((store, start.processed))
}

/// Makes sure that the applied topic is there. One that the store knows and the broker does not is
/// lost: made anew it would give its offsets a second time.
async fn ensure_applied_topic(
    config: &Config,
    broker: &Broker,
    processed: &HashMap<TopicPartition, Processed>,
) -> Result<(), StartError> {
    let topic = &config.topic;
    for (place, processed) in processed.iter().filter(|(place, _)| place.topic == *topic) {
        refuse_store_ahead(broker, place, *processed)?;
    }
    let ensured = broker.ensure_topic(topic, PARTITIONS).await;
    ensured.map_err(|source| StartError::Topic { topic: topic.to_string(), source })?;
    Ok(())
}

/// Partitions of the applied topic unless it is there with more.
const PARTITIONS: u32 = 1;

fn refuse_store_ahead(
    broker: &Broker,
    place: &TopicPartition,
    processed: Processed,
) -> Result<(), StartError> {
    let log_end = broker
        .reader(&place.topic, place.partition)
        .map_or(0, |reader| reader.high_watermark().get());
    if processed.next.get() <= log_end {
        return Ok(());
    }
    Err(StartError::StoreAhead { place: place.clone(), processed: processed.next.get(), log_end })
}

fn panicked(error: JoinError) -> StoreError {
    StoreError::Database(Box::new(error))
}

fn health_of(broker: &Broker, store: &Arc<dyn Store>) -> Arc<dyn Fn() -> Health + Send + Sync> {
    let (broker, store) = (broker.clone(), Arc::clone(store));
    Arc::new(move || {
        let mut damages = broker.damages();
        let rows = store.damaged_rows();
        if rows > 0 {
            damages.push(format!("tasks.redb: {rows} damaged rows; run `taskwire verify`"));
        }
        Health { failures: broker.failures(), damages }
    })
}

/// Makes backups of these.
fn backup_of(broker: &Broker, store: &Arc<dyn Store>, clock: Clock) -> http::MakeBackup {
    let (broker, store) = (broker.clone(), Arc::clone(store));
    Arc::new(move |dir| {
        let (broker, store, now_ms) = (broker.clone(), Arc::clone(&store), clock.now_ms());
        Box::pin(async move {
            let made = backup::of_running(broker, &*store, dir.clone(), now_ms).await;
            let described = match made {
                Ok(made) => serde_json::to_value(&made).map_err(|error| error.to_string()),
                Err(error) => Err(chain(&error)),
            };
            match &described {
                Ok(_) => info!(dir = %dir.display(), "made a backup"),
                Err(error) => warn!(dir = %dir.display(), error, "made no backup"),
            }
            described
        })
    })
}

fn apply_failure(ended: Result<Result<(), ApplyError>, JoinError>) -> Failure {
    match ended {
        Ok(Ok(())) => Failure::Worker("apply".to_owned()),
        Ok(Err(error)) => Failure::Apply(error),
        Err(error) => Failure::Worker(format!("apply ({error})")),
    }
}

fn unclean(part: &'static str, reason: String) -> Result<(), Failure> {
    Err(Failure::Unclean { part, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Flags, store};
    use std::path::Path;

    /// A daemon on an empty directory that has caught up, and its store's options.
    async fn started(dir: &Path) -> (Daemon, store::redb::Options) {
        let flags = Flags::default()
            .with("data-dir", &[&dir.to_string_lossy()])
            .with("http-listen", &["127.0.0.1:0"])
            .with("kafka-listen", &["127.0.0.1:0"]);
        let config = Config::resolve(&flags, Vec::new()).expect("a configuration");
        let options = config.store_options();
        let mut daemon = Daemon::start(config, Clock::system()).await.expect("it starts");
        daemon.ready().await.expect("an empty log is caught up with");
        (daemon, options)
    }

    #[tokio::test]
    async fn a_dead_owner_of_the_broker_ends_the_daemon() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut daemon, _) = started(dir.path()).await;
        let (_trigger, shutdown) = shutdown::pair();
        // Owners end only with their broker, so its end stands for the death of one.
        let broker = daemon.broker.clone();
        let ending = async { tokio::join!(daemon.supervise(&shutdown), broker.close()) };
        let ended = tokio::time::timeout(Duration::from_secs(20), ending).await;
        let (lived, closed) = ended.expect("in time");
        closed.expect("closed");
        let failure = lived.expect_err("supervision ends with the owner").to_string();
        assert!(failure.starts_with("the owner of "), "{failure}");
    }

    #[tokio::test]
    async fn a_log_that_did_not_close_leaves_the_store_behind_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (daemon, options) = started(dir.path()).await;
        // Closed already, so that its own close fails as on a broken disk.
        daemon.broker.clone().close().await.expect("closed");
        daemon.stop().await.expect_err("the broker cannot close");
        let store =
            RedbStore::open(&dir.path().join(archive::TASKS_FILE), options).expect("free again");
        let start = store.start().await.expect("started");
        assert!(!start.was_clean, "it may not be durable beyond the log");
    }
}
