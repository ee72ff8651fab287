//! The daemon without its ports: broker, store, feed, hub and apply on a simulated disk.

use std::{path::Path, sync::Arc, time::Duration};
use taskwire::{
    apply::{self, Applied, ApplyError},
    broker::{self, Acks, Broker, Durability, ProduceError, Produced},
    causes::chain,
    clock::Clock,
    config::{Config, Flags},
    disk::Disk,
    disk::testing::SimDisk,
    feed::{EventLog, embedded::Embedded},
    hub::Hub,
    metrics::Metrics,
    position::{Offset, Partition, TopicName},
    shutdown::{self, Trigger},
    store::{self, Store, redb::RedbStore},
    wire::{
        RequestHeader, Response,
        batch::ProducedBatch,
        messages::{ApiKey, RequestKind, ResponseKind},
    },
};
use tokio::task::JoinHandle;

pub(crate) const EVENTS: &str = "task-events";
pub(crate) const LETTERS: &str = "task-events.dlq";
/// Wall time of the first step.
pub(crate) const START_MS: i64 = 1_800_000_000_000;
const DATA: &str = "/data";
/// Small, so that the workload runs into the bounds.
const KEPT: (Duration, u64) = (Duration::from_secs(60), 40);
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
/// The broker's own round of retention and of recording durable ends.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(30);
/// No count of waiting events.
const UNTOLD: i64 = -1;
const STILL_ROUNDS: usize = 40;
/// Real time that anything may take before the run counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn name(topic: &str) -> TopicName {
    TopicName::new(topic).expect("a valid name")
}

pub(crate) fn part(index: i32) -> Partition {
    Partition::new(index).expect("not negative")
}

/// Runs to the end on one thread, with a clock that only the run itself moves.
pub(crate) fn block_on<T>(run: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // One thread for blocking work, so that it is done in the order in which it is asked for; and
    // one that is parked.
    builder.enable_all().start_paused(true).max_blocking_threads(2);
    let runtime = builder.build().expect("a runtime");
    let (end, ended) = std::sync::mpsc::channel::<()>();
    runtime.block_on(async move {
        // While blocking work is on its way, tokio does not move a paused clock by itself.
        let parked = tokio::task::spawn_blocking(move || {
            // The sender is dropped; nothing is sent.
            let _ = ended.recv();
        });
        let done = run.await;
        drop(end);
        parked.await.expect("it only waits");
        done
    })
}

/// What a daemon runs on, and outlives it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) clock: Clock,
    pub(crate) durability: Durability,
}

/// A daemon that runs.
pub(crate) struct Daemon {
    pub(crate) world: World,
    pub(crate) broker: Broker,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) feed: Arc<dyn EventLog>,
    pub(crate) applied: Applied,
    patience: Duration,
    apply: JoinHandle<Result<(), ApplyError>>,
    trigger: Trigger,
    metrics: Arc<Metrics>,
}

impl Daemon {
    /// Starts in the order of `daemon::Daemon::start`.
    pub(crate) async fn start(world: &World) -> Result<Self, String> {
        let metrics = Arc::new(Metrics::new());
        let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
        let (clock, durability) = (world.clock.clone(), world.durability);
        let config = config();
        let options = broker::Options { durability, ..config.broker_options() };
        let broker =
            Broker::start_on(Arc::clone(&disk), options, clock.clone(), Arc::clone(&metrics)).await;
        let broker = broker.map_err(|error| chain(&error))?;
        let options = store::redb::Options {
            dedup_window: KEPT,
            changes_keep: KEPT,
            cache_bytes: 1 << 20,
            is_log_synced: durability == Durability::Commit,
        };
        let path = Path::new(DATA).join("tasks.redb");
        let opened =
            tokio::task::spawn_blocking(move || RedbStore::open_on(&disk, &path, options)).await;
        let store = opened.expect("no panic").map_err(|error| chain(&error))?;
        let store: Arc<dyn Store> = Arc::new(store.with_metrics(Arc::clone(&metrics)));
        let start = store.start().await.map_err(|error| chain(&error))?;
        for (place, processed) in &start.processed {
            let reader = broker.reader(&place.topic, place.partition);
            let end = reader.map_or(Offset::ZERO, |reader| reader.high_watermark());
            if end < processed.next {
                return Err(format!("the store is at {} of {place}, {end}", processed.next));
            }
        }
        broker.ensure_topic(&name(EVENTS), 1).await.map_err(|error| chain(&error))?;
        let feed: Arc<dyn EventLog> = Arc::new(Embedded::new(broker.clone(), clock.clone(), 1));
        let hub = Hub::new(config.hub_options(), Arc::clone(&store), Arc::clone(&metrics));
        let (trigger, shutdown) = shutdown::pair();
        let options = apply::Options {
            checkpoint_records: u64::MAX,
            checkpoint_interval: CHECKPOINT_EVERY,
            ..config.apply_options()
        };
        let (applied, apply) = apply::start(
            options,
            Arc::clone(&feed),
            Arc::clone(&store),
            hub,
            clock,
            Arc::clone(&metrics),
            shutdown,
        );
        let world = world.clone();
        Ok(Self {
            world,
            broker,
            store,
            feed,
            applied,
            patience: PATIENCE,
            apply,
            trigger,
            metrics,
        })
    }

    /// Stops in the order of `daemon::Daemon::stop`.
    pub(crate) async fn stop(self) -> Result<(), String> {
        self.trigger.fire();
        self.apply.await.expect("no panic").map_err(|error| chain(&error))?;
        self.broker.close().await?;
        self.store.close().await.map_err(|error| chain(&error))
    }

    /// For a disk that fails calls: what is stuck for a moment counts as stuck.
    pub(crate) fn impatient(mut self) -> Self {
        self.patience = Duration::from_millis(300);
        self
    }

    fn check_patience(&self, begun: std::time::Instant, what: &str) -> Result<(), String> {
        if begun.elapsed() < self.patience {
            return Ok(());
        }
        assert!(self.patience < PATIENCE, "apply is stuck: {what}");
        Err(format!("apply is stuck: {what}"))
    }

    /// Ends apply, so that nothing holds the store any more.
    pub(crate) async fn kill(self) {
        self.apply.abort();
        drop(self.apply.await);
    }

    pub(crate) async fn produce(
        &self,
        (topic, partition): (&str, i32),
        batch: ProducedBatch,
        acks: Acks,
    ) -> Result<Produced, ProduceError> {
        self.broker.produce(&name(topic), part(partition), batch, acks).await
    }

    /// One request of the Kafka port.
    pub(crate) async fn ask(&self, key: ApiKey, version: i16, body: RequestKind) -> ResponseKind {
        let header = RequestHeader { key, version, correlation_id: 1, client_id: None };
        match self.broker.answer(&header, body).await {
            Some(Response::Kafka(response)) => response,
            other => panic!("{key:?} got {other:?}"),
        }
    }

    /// Waits until apply has committed everything that the log shows. With `step`, the timers go
    /// on by as much in each round.
    ///
    /// # Errors
    /// Apply has ended.
    pub(crate) async fn quiet(&self, step: Option<Duration>) -> Result<(), String> {
        let begun = std::time::Instant::now();
        loop {
            if self.apply.is_finished() {
                return Err("apply has ended".to_owned());
            }
            let end = self.end_of(EVENTS, 0);
            let start = self.store.start().await.map_err(|error| chain(&error))?;
            let done = start.processed.iter().find(|(place, _)| place.topic.as_str() == EVENTS);
            if done.is_some_and(|(_, processed)| processed.next.get() >= end)
                && self.applied.progress().borrow().is_caught_up
            {
                return Ok(());
            }
            self.check_patience(begun, "below the log end")?;
            if let Some(step) = step {
                tokio::time::advance(step).await;
            }
            breathe().await;
        }
    }

    /// Lets so much time pass, and waits for what apply and the broker then do.
    ///
    /// # Errors
    /// Apply has ended.
    pub(crate) async fn pass(&self, time: Duration) -> Result<(), String> {
        breathe().await;
        let ms = i64::try_from(time.as_millis()).expect("short");
        self.world.clock.set(self.world.clock.now_ms() + ms);
        // Apply tells where it stands last in a tick, and a due checkpoint goes before the tick.
        self.metrics.apply_waiting.set(UNTOLD);
        tokio::time::advance(time).await;
        let begun = std::time::Instant::now();
        while self.metrics.apply_waiting.get() == UNTOLD && !self.apply.is_finished() {
            self.check_patience(begun, "in a tick")?;
            if self.patience < PATIENCE {
                tokio::time::advance(Duration::from_millis(100)).await; // It may back off.
            }
            breathe().await;
        }
        if time >= MAINTENANCE_EVERY {
            self.still().await;
        }
        if self.apply.is_finished() { Err("apply has ended".to_owned()) } else { Ok(()) }
    }

    /// Waits until the disk has been still for a while.
    async fn still(&self) {
        let (mut calls, mut rounds) = (self.world.disk.calls(), 0);
        while rounds < STILL_ROUNDS {
            breathe().await;
            let now = self.world.disk.calls();
            rounds = if now == calls { rounds + 1 } else { 0 };
            calls = now;
        }
    }

    /// Makes a checkpoint due, and waits for it.
    ///
    /// # Errors
    /// Apply has ended.
    pub(crate) async fn checkpoint(&self) -> Result<(), String> {
        self.pass(CHECKPOINT_EVERY).await
    }

    pub(crate) fn end_of(&self, topic: &str, partition: i32) -> i64 {
        let reader = self.broker.reader(&name(topic), part(partition));
        reader.map_or(0, |reader| reader.high_watermark().get())
    }
}

/// Lets other tasks run, and other threads.
async fn breathe() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    let pause = || std::thread::sleep(Duration::from_micros(50));
    tokio::task::spawn_blocking(pause).await.expect("it only sleeps");
}

/// What the daemon is told where nobody says otherwise.
fn config() -> Config {
    let flags = Flags::default().with("data-dir", &[DATA]).with("topic", &[EVENTS]);
    Config::resolve(&flags, Vec::new()).expect("a configuration")
}
