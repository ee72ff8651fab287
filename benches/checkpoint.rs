//! What a checkpoint costs at many tasks with random ids, per table layout (docs/adr/0002).
//!
//! `cargo bench --bench checkpoint -- [--tasks N] [--layout NAME] [--dir PATH] [--cache-mb N]`
//!
//! Fills a file with tasks, then applies events in batches with non-durable commits and a durable
//! commit with quick repair every `EVENTS_PER_CHECKPOINT`, then dies without closing and measures
//! the next open. Prints one JSON line a layout. The layouts are written straight on redb, so that
//! those that were not taken can be measured again.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const TASKS_DEFAULT: u64 = 200_000;
const TASKS_PER_USER: u64 = 100;
const EVENTS_PER_CHECKPOINT: u64 = 20_000;
const EVENTS_PER_COMMIT: u64 = 100;
const CHECKPOINTS: u64 = 8;
/// One event in so many creates a task; the others change one.
const CREATE_EVERY: u64 = 4;
const JSON_BYTES: usize = 330;
/// The first is the one that the store has; the others differ from `hashed` in one thing each.
const LAYOUTS: [&str; 5] = ["taken", "ordered", "hashed", "by-id", "user-changes"];

const TASKS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("tasks");
const TASK_IDS: TableDefinition<'_, &[u8], (u64, u64)> = TableDefinition::new("task_ids");
const TASKS_BY_ID: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("tasks_by_id");
const USER_TASKS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("user_tasks");
const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");
const USER_CHANGES: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("user_changes");
const CHANGES_BY_USER: TableDefinition<'_, (u64, u64), &[u8]> =
    TableDefinition::new("changes_by_user");
const CHANGE_ORDER: TableDefinition<'_, u64, (u64, i64)> = TableDefinition::new("change_order");
const EVENTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("events");
const EVENT_ORDER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("event_order");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

#[derive(Clone)]
struct Settings {
    tasks: u64,
    layout: String,
    dir: PathBuf,
    cache_bytes: usize,
    only_run: bool,
}

fn main() {
    let settings = settings();
    if settings.only_run {
        run(&settings);
        // As a kill would: neither destructors nor a clean close.
        std::process::abort();
    }
    let layouts: Vec<&str> = match settings.layout.as_str() {
        "all" => LAYOUTS.to_vec(),
        name => vec![name],
    };
    for layout in layouts {
        let path = settings.dir.join(format!("{layout}.redb"));
        drop(fs::remove_file(&path));
        let status = Command::new(env::current_exe().unwrap())
            .args(["--only-run", "--tasks", &settings.tasks.to_string(), "--layout", layout])
            .args(["--cache-mb", &(settings.cache_bytes >> 20).to_string()])
            .arg("--dir")
            .arg(&settings.dir)
            .status()
            .unwrap();
        assert!(!status.success(), "the run ends by abort");
        let started = Instant::now();
        let database = open(&path, settings.cache_bytes);
        let reopen = started.elapsed();
        let rows = database.begin_read().unwrap().open_table(EVENTS).unwrap().len().unwrap();
        println!(
            r#"{{"layout":"{layout}","reopen_after_kill_ms":{:.1},"events_kept":{rows}}}"#,
            ms(reopen),
        );
        drop(database);
        drop(fs::remove_file(&path));
    }
}

fn settings() -> Settings {
    let mut settings = Settings {
        tasks: TASKS_DEFAULT,
        layout: "all".to_owned(),
        dir: env::temp_dir(),
        cache_bytes: 256 << 20,
        only_run: false,
    };
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value");
        match argument.as_str() {
            "--tasks" => settings.tasks = value().parse().unwrap(),
            "--layout" => settings.layout = value(),
            "--dir" => settings.dir = value().into(),
            "--cache-mb" => settings.cache_bytes = value().parse::<usize>().unwrap() << 20,
            "--only-run" => settings.only_run = true,
            _ => (), // what cargo bench adds
        }
    }
    settings
}

fn open(path: &Path, cache_bytes: usize) -> Database {
    Database::builder().set_cache_size(cache_bytes).create(path).unwrap()
}

fn run(settings: &Settings) {
    let path = settings.dir.join(format!("{}.redb", settings.layout));
    let database = open(&path, settings.cache_bytes);
    let started = Instant::now();
    fill(&database, settings);
    let filled = started.elapsed();
    let file_mb = fs::metadata(&path).unwrap().len() >> 20;
    let mut state = State::new(settings);
    let (mut checkpoints, mut commits) = (Vec::new(), Vec::new());
    let written_before = written_bytes();
    let started = Instant::now();
    for _ in 0..CHECKPOINTS {
        for _ in 0..EVENTS_PER_CHECKPOINT / EVENTS_PER_COMMIT {
            let begun = Instant::now();
            state.commit(&database, EVENTS_PER_COMMIT);
            commits.push(begun.elapsed());
        }
        let begun = Instant::now();
        checkpoint(&database);
        checkpoints.push(begun.elapsed());
    }
    let elapsed = started.elapsed();
    let written = written_bytes() - written_before;
    checkpoints.sort_unstable();
    commits.sort_unstable();
    let events = CHECKPOINTS * EVENTS_PER_CHECKPOINT;
    println!(
        concat!(
            r#"{{"layout":"{}","tasks":{},"fill_s":{:.0},"file_mb":{},"events_per_s":{:.0},"#,
            r#""checkpoint_ms_min":{:.0},"checkpoint_ms_p50":{:.0},"checkpoint_ms_max":{:.0},"#,
            r#""written_mb_per_checkpoint":{},"commit_us_p50":{:.0},"commit_us_p99":{:.0}}}"#
        ),
        settings.layout,
        settings.tasks,
        filled.as_secs_f64(),
        file_mb,
        f64::from(u32::try_from(events).unwrap()) / elapsed.as_secs_f64(),
        ms(checkpoints[0]),
        ms(checkpoints[checkpoints.len() / 2]),
        ms(checkpoints[checkpoints.len() - 1]),
        (written / CHECKPOINTS) >> 20,
        ms(commits[commits.len() / 2]) * 1e3,
        ms(commits[commits.len() * 99 / 100]) * 1e3,
    );
    for _ in 0..20 {
        state.commit(&database, EVENTS_PER_COMMIT);
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Bytes that this process handed to `write`.
fn written_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

fn checkpoint(database: &Database) {
    let mut transaction = database.begin_write().unwrap();
    transaction.set_durability(Durability::Immediate).unwrap();
    transaction.set_quick_repair(true);
    transaction.open_table(META).unwrap().insert("mark", &[1_u8][..]).unwrap();
    transaction.commit().unwrap();
}

/// A mixer with period 2^64: number -> number that looks random, without a table of ids.
const fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A random UUID's text, the same for the same task.
fn task_id(number: u64) -> String {
    let (a, b) = (mix(number), mix(number ^ 0x5555_5555_5555_5555));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        a & 0xffff,
        b & 0xfff,
        b >> 48,
        b & 0xffff_ffff_ffff
    )
}

fn user_of(task: u64, users: u64) -> u64 {
    mix(task ^ 0xaaaa) % users
}

fn json(seed: u64) -> Vec<u8> {
    let mut json = format!(r#"{{"id":"{}","title":"#, task_id(seed)).into_bytes();
    json.resize(JSON_BYTES, b'x');
    json
}

/// Tasks under their ids, with an index per user, instead of tasks under their users.
fn is_by_id(layout: &str) -> bool {
    layout == "by-id"
}

/// Event ids that grow with time under their own text, instead of under a hash.
fn has_ordered_ids(layout: &str) -> bool {
    matches!(layout, "taken" | "ordered")
}

/// A second table with event ids in the order in which they age, instead of sweeps.
fn has_event_order(layout: &str) -> bool {
    layout != "taken"
}

/// Tasks in the order of each table's keys, so that filling is not what is measured.
fn fill(database: &Database, settings: &Settings) {
    let users = settings.tasks / TASKS_PER_USER;
    let mut by_id: Vec<(u64, u64)> = (0..settings.tasks).map(|task| (mix(task), task)).collect();
    by_id.sort_unstable();
    let mut by_user: Vec<(u64, u64)> =
        (0..settings.tasks).map(|task| (user_of(task, users), task)).collect();
    by_user.sort_unstable();
    for chunk in by_id.chunks(100_000) {
        let transaction = database.begin_write().unwrap();
        if is_by_id(&settings.layout) {
            let mut table = transaction.open_table(TASKS_BY_ID).unwrap();
            for (_, task) in chunk {
                table.insert(task_id(*task).as_bytes(), &json(*task)[..]).unwrap();
            }
        } else {
            let mut table = transaction.open_table(TASK_IDS).unwrap();
            for (_, task) in chunk {
                let id = task_id(*task);
                table.insert(id.as_bytes(), (user_of(*task, users), *task)).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    for chunk in by_user.chunks(100_000) {
        let transaction = database.begin_write().unwrap();
        if is_by_id(&settings.layout) {
            let mut table = transaction.open_table(USER_TASKS).unwrap();
            for (user, task) in chunk {
                table.insert((*user, *task), task_id(*task).as_bytes()).unwrap();
            }
        } else {
            let mut table = transaction.open_table(TASKS).unwrap();
            for (user, task) in chunk {
                table.insert((*user, *task), &json(*task)[..]).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    fill_events(database, settings);
}

/// The ids of as many events as there are tasks, as they are after their creations.
fn fill_events(database: &Database, settings: &Settings) {
    let ordered = has_ordered_ids(&settings.layout);
    let mut keys: Vec<(Vec<u8>, u64)> =
        (0..settings.tasks).map(|event| (event_key(event, ordered), event)).collect();
    keys.sort_unstable();
    for chunk in keys.chunks(100_000) {
        let transaction = database.begin_write().unwrap();
        {
            let mut events = transaction.open_table(EVENTS).unwrap();
            for (key, event) in chunk {
                events.insert(&key[..], &event_value(*event)[..]).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    if !has_event_order(&settings.layout) {
        return;
    }
    for first in (0..settings.tasks).step_by(100_000) {
        let transaction = database.begin_write().unwrap();
        {
            let mut order = transaction.open_table(EVENT_ORDER).unwrap();
            for event in first..settings.tasks.min(first + 100_000) {
                order.insert(event, &event_order(event, ordered)[..]).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
}

/// 35 bytes of a UUIDv7's text, or 16 of a hash.
fn event_key(event: u64, ordered: bool) -> Vec<u8> {
    let random = mix(event ^ 0x4321);
    if ordered {
        return format!("{event:012x}-7000-8000-{random:016x}").into_bytes();
    }
    let mut key = mix(event ^ 0x1234).to_be_bytes().to_vec();
    key.extend_from_slice(&random.to_be_bytes());
    key
}

/// Digest, outcome, number, timestamp.
fn event_value(event: u64) -> [u8; 42] {
    let mut value = [1; 42];
    value[..8].copy_from_slice(&mix(event).to_le_bytes());
    value[16..24].copy_from_slice(&event.to_le_bytes());
    value
}

fn event_order(event: u64, ordered: bool) -> Vec<u8> {
    let mut value = event_key(event, ordered);
    value.extend_from_slice(&event.to_le_bytes());
    value
}

struct State {
    layout: String,
    users: u64,
    tasks: u64,
    event: u64,
    sequence: u64,
}

impl State {
    fn new(settings: &Settings) -> Self {
        Self {
            layout: settings.layout.clone(),
            users: settings.tasks / TASKS_PER_USER,
            tasks: settings.tasks,
            event: settings.tasks,
            sequence: 0,
        }
    }

    fn commit(&mut self, database: &Database, events: u64) {
        let mut transaction = database.begin_write().unwrap();
        transaction.set_durability(Durability::None).unwrap();
        for _ in 0..events {
            let task = if self.event.is_multiple_of(CREATE_EVERY) {
                self.tasks += 1;
                self.tasks - 1
            } else {
                mix(self.event) % self.tasks
            };
            self.task(&transaction, task);
            self.change(&transaction, user_of(task, self.users));
            self.event(&transaction);
        }
        transaction.open_table(META).unwrap().insert("next", &[2_u8; 48][..]).unwrap();
        transaction.commit().unwrap();
    }

    /// Reads and writes the task's row, and its index rows when it is new.
    fn task(&self, transaction: &WriteTransaction, task: u64) {
        let (id, user) = (task_id(task), user_of(task, self.users));
        let row = json(task ^ self.event);
        if is_by_id(&self.layout) {
            let mut tasks = transaction.open_table(TASKS_BY_ID).unwrap();
            let is_new = tasks.insert(id.as_bytes(), &row[..]).unwrap().is_none();
            if is_new {
                let mut index = transaction.open_table(USER_TASKS).unwrap();
                index.insert((user, task), id.as_bytes()).unwrap();
            }
            return;
        }
        let mut ids = transaction.open_table(TASK_IDS).unwrap();
        let is_new = ids.get(id.as_bytes()).unwrap().is_none();
        if is_new {
            ids.insert(id.as_bytes(), (user, task)).unwrap();
        }
        transaction.open_table(TASKS).unwrap().insert((user, task), &row[..]).unwrap();
    }

    fn change(&mut self, transaction: &WriteTransaction, user: u64) {
        self.sequence += 1;
        let message = json(self.sequence);
        if self.layout == "user-changes" {
            let mut changes = transaction.open_table(CHANGES_BY_USER).unwrap();
            changes.insert((user, self.sequence), &message[..]).unwrap();
            let mut order = transaction.open_table(CHANGE_ORDER).unwrap();
            order.insert(self.sequence, (user, 0)).unwrap();
        } else {
            let mut changes = transaction.open_table(CHANGES).unwrap();
            changes.insert(self.sequence, &message[..]).unwrap();
            let mut index = transaction.open_table(USER_CHANGES).unwrap();
            index.insert((user, self.sequence), ()).unwrap();
        }
    }

    fn event(&mut self, transaction: &WriteTransaction) {
        let ordered = has_ordered_ids(&self.layout);
        let key = event_key(self.event, ordered);
        let mut events = transaction.open_table(EVENTS).unwrap();
        events.insert(&key[..], &event_value(self.event)[..]).unwrap();
        if has_event_order(&self.layout) {
            let mut order = transaction.open_table(EVENT_ORDER).unwrap();
            order.insert(self.event, &event_order(self.event, ordered)[..]).unwrap();
        }
        self.event += 1;
    }
}
