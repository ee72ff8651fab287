//! The store through its door: `cargo bench --bench store -- [--tasks N] [--dir PATH]
//! [--backup-only]`.
//!
//! One JSON line a measurement: commits of one event and of a batch, checkpoints, reads of a task
//! and of a list, replay, loads, how long reads take while the store commits, and commits while it is
//! copied; at the end, how long an open takes that checks the file.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use std::{
    env,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use taskwire::{
    position::{Offset, Partition, TopicName, TopicPartition},
    store::{
        CommitDurability, KnownEvent, LoadKeys, NewChange, Outcome, Processed, Store, TaskFilter,
        WriteSet,
        redb::{self, Options, RedbStore},
    },
    task::{Priority, Task, TaskId, UserId, event::EventId, transition::TaskState},
};

const TASKS_DEFAULT: u64 = 100_000;
const TASKS_PER_USER: u64 = 1_000;
const BATCH: u64 = 100;
const REPEATS: u32 = 2_000;

fn main() {
    let (mut tasks, mut dir, mut is_whole) = (TASKS_DEFAULT, env::temp_dir(), true);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--tasks" => tasks = arguments.next().unwrap().parse().unwrap(),
            "--backup-only" => is_whole = false,
            "--dir" => dir = PathBuf::from(arguments.next().unwrap()),
            _ => (), // what cargo bench adds
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(run(tasks, tempfile::tempdir_in(dir).unwrap(), is_whole));
}

async fn run(tasks: u64, dir: tempfile::TempDir, is_whole: bool) {
    let window = (Duration::from_secs(168 * 3_600), 10_000_000);
    let options = Options {
        dedup_window: window,
        changes_keep: window,
        cache_bytes: 256 << 20,
        is_log_synced: true,
    };
    let path = dir.path().join("tasks.redb");
    let store = RedbStore::open(&path, options.clone()).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    store.start().await.unwrap();
    let mut events = Events { next: 0, tasks };
    for _ in 0..tasks / 1_000 {
        store.commit(events.batch(1_000), CommitDurability::Deferred).await.unwrap();
    }
    checkpoint(&*store).await;
    if is_whole {
        commits(&*store, &mut events).await;
        reads(&*store, tasks).await;
        reads_beside_commits(&store, &mut events).await;
    }
    commits_beside_a_snapshot(&store, &mut events, &dir.path().join("copy.redb")).await;
    store.close().await.unwrap();
    drop(store);
    let begun = Instant::now();
    drop(RedbStore::open(&path, options).unwrap());
    percentiles("open_and_check", 1, vec![begun.elapsed()]);
    let begun = Instant::now();
    let report = redb::verify::verify(&path).unwrap();
    assert_eq!(report.damages, Vec::<String>::new());
    percentiles("verify", 1, vec![begun.elapsed()]);
}

/// Commits of ten events alone, and while all of the store is copied for a backup.
async fn commits_beside_a_snapshot(store: &Arc<dyn Store>, events: &mut Events, copy: &Path) {
    let mut alone = Vec::new();
    for _ in 0..REPEATS {
        alone.push(paced_commit(&**store, events).await);
    }
    percentiles("commit_10_paced", 10, alone);
    let copying = tokio::spawn({
        let (store, copy) = (Arc::clone(store), copy.to_owned());
        async move {
            let begun = Instant::now();
            store.snapshot_to(&copy).await.unwrap();
            begun.elapsed()
        }
    });
    let mut beside = Vec::new();
    while !copying.is_finished() {
        beside.push(paced_commit(&**store, events).await);
    }
    percentiles("commit_10_paced_beside_a_snapshot", 10, beside);
    percentiles("snapshot", 1, vec![copying.await.unwrap()]);
}

/// The time of one commit, a little after the last one.
async fn paced_commit(store: &dyn Store, events: &mut Events) -> Duration {
    tokio::time::sleep(Duration::from_millis(2)).await;
    let writes = events.batch(10);
    let begun = Instant::now();
    store.commit(writes, CommitDurability::Deferred).await.unwrap();
    begun.elapsed()
}

/// Tasks in turn: the first round creates them, later ones change them.
struct Events {
    next: u64,
    tasks: u64,
}

impl Events {
    fn batch(&mut self, events: u64) -> WriteSet {
        let mut writes = WriteSet { processed: vec![processed(self.next)], ..WriteSet::default() };
        for _ in 0..events {
            let number = mix(self.next) % self.tasks;
            let number = if self.next < self.tasks { self.next } else { number };
            let task = task(number, self.next / self.tasks + 1);
            let mut message = br#"{"type":"task_updated","data":"#.to_vec();
            task.write_json(&mut message);
            let user_id = task.user_id.clone();
            let message = Bytes::from(message);
            writes.changes.push(NewChange { user_id, message, timestamp_ms: 1_764_000_000_000 });
            let known = KnownEvent { digest: [7; 16], outcome: Outcome::Applied { sequence: 1 } };
            writes.events.push((event_id(self.next), known, 1_764_000_000_000));
            let state = TaskState::Present { task: task.clone(), creation: [1; 16] };
            writes.tasks.retain(|(id, ..)| *id != task.id);
            writes.tasks.push((task.id.clone(), task.user_id, state));
            self.next += 1;
        }
        writes
    }
}

const fn mix(number: u64) -> u64 {
    let x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// As a UUIDv7: grows, with a random end.
fn grown_id(number: u64) -> String {
    let random = mix(number);
    format!("{number:012x}-7000-8000-{random:016x}")
}

fn event_id(number: u64) -> EventId {
    EventId::new(&grown_id(number)).unwrap()
}

fn task_id(number: u64) -> TaskId {
    TaskId::new(&grown_id(number)).unwrap()
}

fn user(number: u64, tasks: u64) -> UserId {
    UserId::new(&format!("user-{}", number % (tasks / TASKS_PER_USER).max(1))).unwrap()
}

fn task(number: u64, version: u64) -> Task {
    Task {
        id: task_id(number),
        title: "Write the report for the quarter".to_owned(),
        description: Some("With the numbers of all four regions".to_owned()),
        user_id: user(number, TASKS_DEFAULT),
        priority: Priority::High,
        due_date: Some(1_764_000_000_000),
        labels: vec!["work".to_owned()],
        completed: false,
        completed_at: None,
        created_at: 1_764_000_000_000,
        updated_at: 1_764_000_000_000,
        version,
    }
}

fn processed(next: u64) -> (TopicPartition, Processed) {
    let topic = TopicName::new("task-events").unwrap();
    let next = Offset::new(i64::try_from(next).unwrap()).unwrap();
    (TopicPartition { topic, partition: Partition::ZERO }, Processed { next, leader_epoch: 0 })
}

async fn checkpoint(store: &dyn Store) {
    store.commit(WriteSet::default(), CommitDurability::Immediate).await.unwrap();
}

fn percentiles(name: &str, per: u32, mut times: Vec<Duration>) {
    times.sort_unstable();
    let us = |at: usize| times[at].as_secs_f64() * 1e6;
    let total: Duration = times.iter().sum();
    let rate = f64::from(u32::try_from(times.len()).unwrap() * per) / total.as_secs_f64();
    println!(
        r#"{{"what":"{name}","p50_us":{:.1},"p99_us":{:.1},"max_us":{:.1},"per_s":{rate:.0}}}"#,
        us(times.len() / 2),
        us(times.len() * 99 / 100),
        us(times.len() - 1),
    );
}

async fn commits(store: &dyn Store, events: &mut Events) {
    for (name, size) in [("commit_1", 1), ("commit_10", 10), ("commit_100", BATCH)] {
        let mut times = Vec::new();
        for _ in 0..REPEATS / 2 {
            let writes = events.batch(size);
            let begun = Instant::now();
            store.commit(writes, CommitDurability::Deferred).await.unwrap();
            times.push(begun.elapsed());
        }
        percentiles(name, u32::try_from(size).unwrap(), times);
        let begun = Instant::now();
        checkpoint(store).await;
        percentiles("checkpoint_after_it", 1, vec![begun.elapsed()]);
    }
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let begun = Instant::now();
        store.commit(WriteSet::default(), CommitDurability::Deferred).await.unwrap();
        times.push(begun.elapsed());
    }
    percentiles("commit_empty", 1, times);
}

async fn reads(store: &dyn Store, tasks: u64) {
    let mut times = Vec::new();
    for n in 0..u64::from(REPEATS) * 5 {
        let number = mix(n) % tasks;
        let (user, task) = (user(number, TASKS_DEFAULT), task_id(number));
        let begun = Instant::now();
        assert!(store.task(&user, &task).await.unwrap().is_some());
        times.push(begun.elapsed());
    }
    percentiles("task", 1, times);
    for (name, limit) in [("list_200", 200), ("list_1000", 1_000)] {
        let mut times = Vec::new();
        for n in 0..u64::from(REPEATS) {
            let (user, filter) = (user(mix(n) % tasks, TASKS_DEFAULT), TaskFilter::default());
            let begun = Instant::now();
            assert_eq!(store.tasks(&user, &filter, None, limit).await.unwrap().tasks.len(), limit);
            times.push(begun.elapsed());
        }
        percentiles(name, 1, times);
    }
    let mut times = Vec::new();
    for n in 0..u64::from(REPEATS) {
        let user = user(mix(n) % tasks, TASKS_DEFAULT);
        let begun = Instant::now();
        assert_eq!(store.changes(&user, 0, 100, 1 << 20).await.unwrap().changes.len(), 100);
        times.push(begun.elapsed());
    }
    percentiles("changes_100", 100, times);
    for (name, size) in [("load_1", 1), ("load_100", BATCH)] {
        let mut times = Vec::new();
        for n in 0..u64::from(REPEATS) {
            let numbers = || (n * size..(n + 1) * size).map(|at| mix(at) % tasks);
            let keys = LoadKeys {
                tasks: numbers().map(task_id).collect(),
                events: numbers().map(|at| event_id(at + (1 << 40))).collect(),
            };
            let begun = Instant::now();
            store.load(&keys).await.unwrap();
            times.push(begun.elapsed());
        }
        percentiles(name, u32::try_from(size).unwrap(), times);
    }
}

/// Reads while another worker commits batches and takes checkpoints without a pause.
async fn reads_beside_commits(store: &Arc<dyn Store>, events: &mut Events) {
    let stop = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, stop) = (Arc::clone(store), Arc::clone(&stop));
        async move {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let number = mix(u64::try_from(times.len()).unwrap()) % TASKS_DEFAULT;
                let (user, task) = (user(number, TASKS_DEFAULT), task_id(number));
                let begun = Instant::now();
                store.task(&user, &task).await.unwrap();
                times.push(begun.elapsed());
                tokio::task::yield_now().await;
            }
            percentiles("task_beside_commits", 1, times);
        }
    });
    let mut checkpoints = Vec::new();
    for _ in 0..5 {
        for _ in 0..200 {
            store.commit(events.batch(BATCH), CommitDurability::Deferred).await.unwrap();
        }
        let begun = Instant::now();
        checkpoint(&**store).await;
        checkpoints.push(begun.elapsed());
    }
    percentiles("checkpoint_20000_events", 1, checkpoints);
    stop.store(true, Ordering::Relaxed);
    reader.await.unwrap();
}
