//! What everyone was told against what is there.

use crate::{
    KAFKA_USER,
    consumer::{self, Committed},
    model::{Told, Topic},
    producer::{Ledger, TOPIC},
    rest::{Known, Model, known},
    socket::Seen,
    support::{TestDaemon, kafka},
};
use bytes::Bytes;
use kafka_protocol::records::Record;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// What the crew brings home.
#[derive(Default)]
pub(crate) struct Evidence {
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) rest: BTreeMap<String, Model>,
    pub(crate) committed: Committed,
    pub(crate) seen: Vec<Seen>,
}

impl Evidence {
    /// Fails where a promise is broken; else says how much was compared.
    pub(crate) async fn compare(&self, daemon: &TestDaemon) -> String {
        let mut client = daemon.kafka_client().await;
        let records = client.fetch_all(TOPIC).await;
        self.compare_topic(&records);
        let mut topic = Topic::default();
        for record in &records {
            topic.take(record.offset, record.value.as_ref().expect("a value"));
        }
        compare_letters(&client.fetch_all("task-events.dlq").await, &records, &topic.poison);
        assert_eq!(tasks(daemon, KAFKA_USER).await, topic.tasks, "tasks that came by Kafka");
        for (user, model) in &self.rest {
            assert_eq!(tasks(daemon, user).await, model.tasks, "tasks of {user}");
        }
        let found = consumer::fetch_committed(&mut client).await.expect("an answer");
        self.committed.check(found);
        for seen in &self.seen {
            match self.rest.get(&seen.user) {
                Some(model) => compare_by_task(seen, model),
                None => compare_in_order(&told(seen), &topic.told),
            }
            let user = &seen.user;
            let rest = daemon.socket_from(user, &seen.position).await.drain().await;
            assert_eq!(rest, Vec::<Value>::new(), "{user} has seen everything");
        }
        format!(
            "{} records, {} acknowledged batches, {} unanswered, {} tasks, {} duplicates, {} dead \
             letters, {} sockets, {} joins",
            records.len(),
            self.ledgers.iter().map(|ledger| ledger.acknowledged.len()).sum::<usize>(),
            self.ledgers.iter().map(|ledger| ledger.unanswered.len()).sum::<usize>(),
            topic.tasks.len() + self.rest.values().map(|model| model.tasks.len()).sum::<usize>(),
            topic.duplicates,
            topic.poison.len(),
            self.seen.iter().map(|seen| seen.sockets).sum::<usize>(),
            self.committed.joins,
        )
    }

    /// Every acknowledged record at its offset, and no value more often than it was sent.
    fn compare_topic(&self, records: &[Record]) {
        for (record, offset) in records.iter().zip(0..) {
            assert_eq!(record.offset, offset, "offsets are dense");
        }
        let mut allowed: HashMap<&Bytes, (usize, usize)> = HashMap::new();
        for ledger in &self.ledgers {
            for (base, values) in &ledger.acknowledged {
                for (value, offset) in values.iter().zip(*base..) {
                    let found = usize::try_from(offset).ok().and_then(|at| records.get(at));
                    let found = found.and_then(|record| record.value.as_ref());
                    assert_eq!(found, Some(value), "acknowledged at offset {offset}");
                    let (least, most) = allowed.entry(value).or_default();
                    (*least, *most) = (*least + 1, *most + 1);
                }
            }
            ledger.unanswered.iter().flatten().for_each(|value| {
                allowed.entry(value).or_default().1 += 1;
            });
        }
        let mut counts: HashMap<&Bytes, usize> = HashMap::new();
        for record in records {
            *counts.entry(record.value.as_ref().expect("a value")).or_default() += 1;
        }
        for (value, (least, most)) in allowed {
            let count = counts.get(value).copied().unwrap_or_default();
            assert!(least <= count && count <= most, "{value:?}: {count}, not {least} to {most}");
        }
    }
}

/// One dead letter for each bad record, with its bytes.
fn compare_letters(letters: &[Record], records: &[Record], poison: &[i64]) {
    let mut sources: Vec<i64> = Vec::new();
    for letter in letters {
        assert_eq!(kafka::header(letter, "taskwire-reason"), "invalid_json");
        let offset = kafka::header(letter, "taskwire-source-offset").parse().expect("a number");
        let source = &records[usize::try_from(offset).expect("an offset")];
        assert_eq!(letter.value, source.value, "the bytes of offset {offset}");
        sources.push(offset);
    }
    assert_eq!(sources, poison, "one dead letter for each bad record, in order");
}

/// A socket of the Kafka user: each change once, in order.
fn compare_in_order(told: &[Told], all: &[Told]) {
    for (at, (found, expected)) in told.iter().zip(all).enumerate() {
        assert_eq!(found, expected, "change {at}, after {:?}", &all[at.saturating_sub(3)..at]);
    }
    let (found, expected) = (told.len(), all.len());
    assert_eq!(found, expected, "a socket missed the last ones, or had one twice");
}

/// A socket of a REST user: each task's versions, each once and in order, and then its deletion.
fn compare_by_task(seen: &Seen, model: &Model) {
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    for (kind, id, version) in told(seen) {
        let last = versions.entry(id).or_default();
        assert_eq!(version, *last + 1, "{kind} of {}", seen.user);
        *last = version;
    }
    let live = model.tasks.iter().map(|(id, task)| (id.clone(), task.version));
    let gone = model.deleted.iter().map(|(id, version)| (id.clone(), *version));
    assert_eq!(versions, live.chain(gone).collect(), "all changes of {}", seen.user);
}

fn told(seen: &Seen) -> Vec<Told> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let told = |message: &Value| {
        let version = message["data"]["version"].as_u64().expect("a version");
        (text(&message["type"]), text(&message["data"]["id"]), version)
    };
    seen.messages.iter().map(told).collect()
}

async fn tasks(daemon: &TestDaemon, user: &str) -> BTreeMap<String, Known> {
    let tasks = daemon.user(user).tasks().await;
    tasks.iter().map(|task| (task["id"].as_str().expect("an id").to_owned(), known(task))).collect()
}
