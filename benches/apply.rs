//! From a record to a committed task: `cargo bench --bench apply`.
//!
//! `decode`, `plan`: one core, no I/O, items are events. `whole`: the broker's log, apply and redb
//! in one process, from the first read to the last commit.
#![allow(missing_docs, clippy::unwrap_used)]

use bytes::Bytes;
use divan::{Bencher, black_box, counter::ItemsCount};
use std::{path::Path, sync::Arc, time::Duration};
use taskwire::{
    apply::{
        self,
        plan::{Context, plan},
        reader::{Decoded, Input},
    },
    broker::{self, Broker, Durability},
    clock::Clock,
    feed::{EventLog, FeedRecord, OutboundRecord, embedded::Embedded},
    hub::{self, Hub},
    metrics::Metrics,
    position::{Offset, Partition, TopicName},
    shutdown,
    store::{
        Loaded, Store,
        redb::{self, RedbStore},
    },
    task::event,
};

const PLANNED_EVENTS: usize = 1_000;
const WHOLE_EVENTS: usize = 50_000;

fn main() {
    divan::main();
}

fn topic() -> TopicName {
    TopicName::new("task-events").unwrap()
}

/// Half creations, half completions, about 200 bytes each.
fn value(number: usize) -> String {
    let task = number / 2;
    let user = task % 100;
    if number.is_multiple_of(2) {
        format!(
            r#"{{"type":"task_created","event_id":"event-{number:08}","data":{{"id":"task-{task:08}","title":"Prepare the shipment","description":"To the customer in town","user_id":"user-{user:03}","priority":"high","due_date":"2026-12-01T10:00:00"}}}}"#
        )
    } else {
        format!(
            r#"{{"type":"task_completed","event_id":"event-{number:08}","data":{{"id":"task-{task:08}","title":"Prepare the shipment","user_id":"user-{user:03}","completed":true,"completed_at":"2026-11-01T10:00:00.123456"}}}}"#
        )
    }
}

fn record(number: usize) -> FeedRecord {
    FeedRecord {
        offset: Offset::new(i64::try_from(number).unwrap()).unwrap(),
        timestamp_ms: 1_767_261_600_000,
        key: None,
        value: Some(Bytes::from(value(number))),
        headers: Vec::new(),
    }
}

#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    let values: Vec<_> = (0..PLANNED_EVENTS).map(value).collect();
    bencher.counter(ItemsCount::new(values.len())).bench(|| {
        for value in &values {
            let event = event::decode::<&[u8]>(Some(value.as_bytes()), &[]);
            assert!(black_box(event).is_ok());
        }
    });
}

#[divan::bench]
fn plan_a_batch(bencher: Bencher<'_, '_>) {
    let inputs: Vec<_> = (0..PLANNED_EVENTS)
        .map(|number| Input::Record(Decoded::new(topic(), Partition::ZERO, record(number))))
        .collect();
    let context = Context { first_sequence: 1, now_ms: 0, is_published: &|_| false };
    bencher.counter(ItemsCount::new(inputs.len())).bench(|| {
        let planned = plan(Loaded::default(), &inputs, &context);
        assert_eq!(planned.writes.changes.len(), PLANNED_EVENTS);
        planned
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn whole(bencher: Bencher<'_, '_>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let prepared = || {
        let directory = tempfile::tempdir().unwrap();
        let world = runtime.block_on(prepare(directory.path()));
        (directory, world)
    };
    bencher.counter(ItemsCount::new(WHOLE_EVENTS)).with_inputs(prepared).bench_local_values(
        |(directory, (feed, store))| {
            runtime.block_on(async {
                let metrics = Arc::new(Metrics::new());
                let options = hub::Options {
                    recent_changes_max: 256,
                    recent_bytes_max: 64 * 1024,
                    sessions_per_user_max: 16,
                    sessions_max: 16,
                };
                let hub = Hub::new(options, Arc::clone(&store), Arc::clone(&metrics));
                let (trigger, shutdown) = shutdown::pair();
                let options = apply::Options {
                    topic: topic(),
                    starts_at_latest: false,
                    waiting_timeout: Duration::from_secs(600),
                    due_soon: None,
                    checkpoint_records: 20_000,
                    checkpoint_interval: Duration::from_secs(5),
                };
                let clock = Clock::system();
                let (_applied, worker) =
                    apply::start(options, feed, Arc::clone(&store), hub, clock, metrics, shutdown);
                trigger.fire();
                worker.await.unwrap().unwrap();
            });
            assert_eq!(store.head().sequence, u64::try_from(WHOLE_EVENTS).unwrap());
            directory
        },
    );
}

async fn prepare(directory: &Path) -> (Arc<dyn EventLog>, Arc<dyn Store>) {
    let options = broker::Options {
        data_dir: directory.to_owned(),
        durability: Durability::Commit,
        advertise: None,
        partitions_default: 1,
        message_bytes_max: 1_048_588,
        connections_max: 1,
        port: broker::limits::PortOptions::default(),
        reserved_topics: vec![topic()],
        closed_topics: Vec::new(),
        reserved_group: "taskwire".to_owned(),
    };
    let clock = Clock::system();
    let broker = Broker::start(options, clock.clone(), Arc::new(Metrics::new())).await.unwrap();
    let feed = Embedded::new(broker, clock, 1);
    feed.ensure_topic(&topic()).await.unwrap();
    let outbound = |number| OutboundRecord {
        topic: topic(),
        partition: None,
        timestamp_ms: None,
        key: None,
        value: Some(Bytes::from(value(number))),
        headers: Vec::new(),
    };
    feed.publish_all((0..WHOLE_EVENTS).map(outbound).collect()).await.unwrap();
    let options = redb::Options {
        dedup_window: (Duration::from_secs(3_600), 1_000_000),
        changes_keep: (Duration::from_secs(3_600), 1_000_000),
        cache_bytes: 64 * 1024 * 1024,
        is_log_synced: true,
    };
    let store = RedbStore::open(&directory.join("tasks.redb"), options).unwrap();
    (Arc::new(feed), Arc::new(store))
}
