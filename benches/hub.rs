//! The hub: `cargo bench --bench hub -- [--sessions N]`.
//!
//! One JSON line a measurement: publishing to users without and with sessions, delivery to many
//! sessions, and resident memory an idle session.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use futures_util::FutureExt as _;
use std::{
    env, fs,
    sync::Arc,
    time::{Duration, Instant},
};
use taskwire::{
    hub::{From, Hub, Next, Options, PublishedChange, Session},
    metrics::Metrics,
    store::{
        CommitDurability, NewChange, Store, WriteSet,
        redb::{self, RedbStore},
    },
    task::UserId,
};

const SESSIONS_DEFAULT: usize = 10_000;
const BATCH: usize = 100;
const BATCHES: usize = 500;
const MESSAGE_BYTES: usize = 450;

fn main() {
    let mut sessions = SESSIONS_DEFAULT;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--sessions" {
            sessions = arguments.next().unwrap().parse().unwrap();
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(run(sessions));
}

async fn run(count: usize) {
    let dir = tempfile::tempdir().unwrap();
    let keep = (Duration::from_secs(3_600), 1_000_000);
    let options = redb::Options {
        dedup_window: keep,
        changes_keep: keep,
        cache_bytes: 64 << 20,
        is_log_synced: true,
    };
    let store = RedbStore::open(&dir.path().join("tasks.redb"), options).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    store.start().await.unwrap();
    let options = Options {
        recent_changes_max: 256,
        recent_bytes_max: 256 * 1024,
        sessions_per_user_max: count,
        sessions_max: count * 2,
    };
    let hub = Hub::new(options, Arc::clone(&store), Arc::new(Metrics::new()));

    deliver(&hub, &store, "publish_without_sessions", count, &mut []).await;
    let before = resident_bytes();
    let mut sessions: Vec<Session> =
        (0..count).map(|number| hub.subscribe(&user(number), From::Now).unwrap().0).collect();
    let resident = resident_bytes().saturating_sub(before);
    println!(
        r#"{{"what":"idle_session","sessions":{count},"bytes_each":{}}}"#,
        resident / u64::try_from(count).unwrap()
    );
    deliver(&hub, &store, "publish_to_one_session_each", count, &mut sessions).await;
    drop(sessions);
    let mut sessions: Vec<Session> =
        (0..count).map(|_| hub.subscribe(&user(0), From::Now).unwrap().0).collect();
    deliver(&hub, &store, "publish_to_all_sessions_of_one_user", 1, &mut sessions).await;
}

fn user(number: usize) -> UserId {
    UserId::new(&format!("user-{number}")).unwrap()
}

fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}

/// Commits batches for users in turn, publishes each, and lets every session read what it got.
async fn deliver(
    hub: &Hub,
    store: &Arc<dyn Store>,
    name: &str,
    users: usize,
    sessions: &mut [Session],
) {
    let batches = if users == 1 { 5 } else { BATCHES };
    let (mut publishing, mut reading) = (Duration::ZERO, Duration::ZERO);
    let (mut published, mut read) = (0_u32, 0_usize);
    for batch in 0..batches {
        let changes = commit(&**store, batch, users).await;
        published += u32::try_from(changes.len()).unwrap();
        let begun = Instant::now();
        hub.publish(changes);
        publishing += begun.elapsed();
        let begun = Instant::now();
        let first = batch * BATCH % users;
        let reached = if users == 1 { 0..sessions.len() } else { first..first + BATCH };
        for session in sessions.get_mut(reached).unwrap_or_default() {
            while let Some(Ok(Next::Messages(messages))) = session.next().now_or_never() {
                read += messages.len();
            }
        }
        reading += begun.elapsed();
    }
    let ns_each = publishing.as_secs_f64() * 1e9 / f64::from(published);
    let read = u32::try_from(read).unwrap();
    println!(
        concat!(
            r#"{{"what":"{}","changes":{},"publish_ns_each":{:.0},"messages":{},"#,
            r#""next_ns_a_message":{:.0}}}"#
        ),
        name,
        published,
        ns_each,
        read,
        reading.as_secs_f64() * 1e9 / f64::from(read.max(1)),
    );
}

async fn commit(store: &dyn Store, batch: usize, users: usize) -> Vec<PublishedChange> {
    let message = Bytes::from(vec![b'x'; MESSAGE_BYTES]);
    let user_of = |n: usize| user((batch * BATCH + n) % users);
    let changes = (0..BATCH).map(|n| NewChange {
        user_id: user_of(n),
        message: message.clone(),
        timestamp_ms: 1,
    });
    let writes = WriteSet { changes: changes.collect(), ..WriteSet::default() };
    let first = store.commit(writes, CommitDurability::Deferred).await.unwrap();
    (0..BATCH)
        .zip(first..)
        .map(|(n, sequence)| PublishedChange {
            user_id: user_of(n),
            sequence,
            message: message.clone(),
        })
        .collect()
}
