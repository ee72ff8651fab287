//! Compares what a daemon has with what it was told and what it said.

use super::{
    daemon::{Daemon, EVENTS, LETTERS, name, part},
    model::{Change, Fate, Model, Task},
    story::{Fact, Story},
    workload::{GROUPS, OTHER, Player, USERS},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use taskwire::{
    broker::Durability,
    feed::{FeedItem, FeedRecord},
    store::{Outcome, TaskFilter},
    task::UserId,
};

/// What must hold of what was acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kept {
    /// All of it.
    All,
    /// And what was only written.
    WrittenToo,
    /// Any of it may be lost, and what is left is as it was.
    Perhaps,
}

/// A log from its start to its end.
#[derive(Debug, Default)]
struct Log {
    records: Vec<FeedRecord>,
    /// Offsets that cannot be read.
    holes: Vec<(i64, i64)>,
}

async fn read(daemon: &Daemon, topic: &str, partition: i32) -> Log {
    let (topic, partition) = (name(topic), part(partition));
    let mut log = Log::default();
    let Ok((start, end)) = daemon.feed.bounds(&topic, partition).await else { return log };
    let mut next = start;
    while next < end {
        let read = daemon.feed.read(&topic, partition, next, 1 << 20).await.expect("it is read");
        for item in read.items {
            match item {
                FeedItem::Record(record) => log.records.push(record),
                FeedItem::Unreadable { from, to, .. } => log.holes.push((from.get(), to.get())),
            }
        }
        next = read.next;
    }
    log
}

/// Every promise about a daemon that has caught up.
pub(crate) async fn all(daemon: &Daemon, player: &Player<'_>, kept: Kept) {
    let story = player.story.borrow().clone();
    let log = read(daemon, EVENTS, 0).await;
    check_log(&log, &story, EVENTS, 0, kept);
    let letters = read(daemon, LETTERS, 0).await;
    assert!(kept == Kept::Perhaps || letters.holes.is_empty(), "holes in the dead letters");
    let (letters, stale) = split(letters, &log);
    check_stale(&stale, &story, kept);
    let expired = expired(&letters);
    let mut model = Model::default();
    for record in &log.records {
        model.apply(record.offset.get(), record.value.as_deref(), &expired);
    }
    check_letters(&letters, &log, &model);
    check_tasks(daemon, &model).await;
    check_changes(daemon, &model).await;
    assert_eq!(
        daemon.store.stats().waiting,
        u64::try_from(model.waiting()).expect("as the daemon and the workload write it"),
        "waiting"
    );
    if kept != Kept::Perhaps {
        check_answers(&story, &model);
    }
    check_groups(player, &story).await;
    check_topic(daemon, &story, kept).await;
}

/// Whole batches, each once, as they were sent, those acknowledged at their offsets.
fn check_log(log: &Log, story: &Story, topic: &str, partition: i32, kept: Kept) {
    assert!(kept == Kept::Perhaps || log.holes.is_empty(), "holes in {topic}: {:?}", log.holes);
    let mut bases: BTreeMap<usize, i64> = BTreeMap::new();
    let mut records = log.records.iter();
    while let Some(first) = records.next() {
        let offset = first.offset.get();
        let key = first.key.as_deref().and_then(Story::parse_key);
        let Some((batch, 0)) = key else { panic!("{topic} {offset}: no batch begins: {first:?}") };
        let sent = &story.batches[batch];
        assert!(story.is_sent(batch), "batch {batch} at {offset} was never sent");
        assert_eq!((sent.topic, sent.partition), (topic, partition), "batch {batch}");
        let again = bases.insert(batch, offset);
        assert_eq!(again, None, "batch {batch} is at {offset} a second time");
        let mut record = first;
        for (index, expected) in sent.records.iter().enumerate() {
            if index > 0 {
                record = records.next().unwrap_or_else(|| panic!("batch {batch} is not whole"));
            }
            assert_eq!(record.key, expected.key, "batch {batch}, record {index}");
            assert_eq!(record.value, expected.value, "batch {batch}, record {index}");
            assert_eq!(record.timestamp_ms, expected.timestamp_ms, "batch {batch}");
        }
    }
    for batch in 0..story.batches.len() {
        if (story.batches[batch].topic, story.batches[batch].partition) != (topic, partition) {
            continue;
        }
        let found = bases.get(&batch).copied();
        if let Some(base) = story.acked(batch)
            && (kept != Kept::Perhaps || found.is_some())
        {
            assert_eq!(found, Some(base), "acknowledged batch {batch} of {topic}");
        }
        if let (Some(base), Kept::WrittenToo) = (story.written(batch), kept) {
            assert_eq!(found, Some(base), "written batch {batch} of {topic}");
        }
    }
}

fn header<'a>(letter: &'a FeedRecord, name: &str) -> &'a str {
    let found = letter.headers.iter().find(|(known, _)| known == name.as_bytes());
    let value = found.and_then(|(_, value)| value.as_deref());
    std::str::from_utf8(value.expect("a letter has it")).expect("text")
}

fn source(letter: &FeedRecord) -> i64 {
    header(letter, "taskwire-source-offset").parse().expect("a number")
}

/// Letters of the records that are in the log, and the others.
fn split(letters: Log, log: &Log) -> (Vec<FeedRecord>, Vec<FeedRecord>) {
    let is_there = |letter: &FeedRecord| {
        let offset = source(letter);
        let record = log.records.iter().find(|record| record.offset.get() == offset);
        let is_hole = header(letter, "taskwire-reason") == "hole";
        match record {
            Some(record) => record.key == letter.key && record.value == letter.value,
            None => is_hole && log.holes.iter().any(|(from, _)| *from == offset),
        }
    };
    letters.records.into_iter().partition(is_there)
}

/// A letter of a record that is lost can only be there where records may be lost.
fn check_stale(stale: &[FeedRecord], story: &Story, kept: Kept) {
    for letter in stale {
        assert!(kept == Kept::Perhaps, "a letter of no record: {letter:?}");
        let Some((batch, index)) = letter.key.as_deref().and_then(Story::parse_key) else {
            assert_eq!(header(letter, "taskwire-reason"), "hole", "{letter:?}");
            continue;
        };
        assert_eq!(letter.value, story.batches[batch].records[index].value, "{letter:?}");
    }
}

fn expired(letters: &[FeedRecord]) -> BTreeSet<i64> {
    let is_expired = |l: &&FeedRecord| header(l, "taskwire-reason") == "wait_expired";
    letters.iter().filter(is_expired).map(source).collect()
}

/// One letter for each record that cannot be applied, with its reason, and no other.
fn check_letters(letters: &[FeedRecord], log: &Log, model: &Model) {
    let mut found = BTreeMap::new();
    for letter in letters {
        let (offset, reason) = (source(letter), header(letter, "taskwire-reason"));
        assert_eq!(header(letter, "taskwire-source-topic"), EVENTS);
        let again = found.insert(offset, reason);
        assert_eq!(again, None, "a second letter ({reason}) for offset {offset}");
    }
    let mut expected = model.letters();
    expected.extend(log.holes.iter().map(|(from, _)| (*from, "hole")));
    assert_eq!(found, expected, "dead letters");
}

async fn check_tasks(daemon: &Daemon, model: &Model) {
    let mut count = 0;
    for user in USERS {
        let user_id = UserId::new(user).expect("valid");
        let filter = TaskFilter::default();
        let page = daemon.store.tasks(&user_id, &filter, None, 1000).await.expect("it is read");
        assert!(page.next.is_none(), "one page holds them");
        let tasks = page.tasks.iter().map(|json| {
            let json: Value = serde_json::from_slice(json).expect("JSON");
            let task = Task {
                user: json["user_id"]
                    .as_str()
                    .expect("as the daemon and the workload write it")
                    .to_owned(),
                title: json["title"]
                    .as_str()
                    .expect("as the daemon and the workload write it")
                    .to_owned(),
                completed: json["completed"]
                    .as_bool()
                    .expect("as the daemon and the workload write it"),
                version: json["version"].as_u64().expect("as the daemon and the workload write it"),
            };
            (json["id"].as_str().expect("as the daemon and the workload write it").to_owned(), task)
        });
        let tasks: BTreeMap<String, Task> = tasks.collect();
        assert_eq!(tasks, model.tasks(user), "tasks of {user}");
        count += u64::try_from(tasks.len()).expect("as the daemon and the workload write it");
    }
    assert_eq!(daemon.store.stats().tasks, count, "tasks in all");
}

/// The changes that are kept are the last of the model's, each user's in order, without a gap.
async fn check_changes(daemon: &Daemon, model: &Model) {
    let head = daemon.store.head().sequence;
    assert_eq!(
        head,
        u64::try_from(model.changes.len()).expect("as the daemon and the workload write it"),
        "changes"
    );
    let earliest = daemon.store.earliest().sequence;
    let mut found = BTreeMap::new();
    for user in USERS {
        let user_id = UserId::new(user).expect("valid");
        let page = daemon
            .store
            .changes(&user_id, earliest, 1000, usize::MAX)
            .await
            .expect("as the daemon and the workload write it");
        for change in page.changes {
            let text = [&change.message[..], b"}"].concat();
            let json: Value = serde_json::from_slice(&text).expect("JSON but for its end");
            let change_of = Change {
                user: user.to_owned(),
                kind: json["type"]
                    .as_str()
                    .expect("as the daemon and the workload write it")
                    .to_owned(),
                event: json["event_id"]
                    .as_str()
                    .expect("as the daemon and the workload write it")
                    .to_owned(),
                version: json["data"]["version"].as_u64(),
            };
            assert!(found.insert(change.sequence, change_of).is_none());
        }
    }
    let kept = model.changes.iter().zip(1_u64..).filter(|(_, sequence)| *sequence > earliest);
    let kept: BTreeMap<u64, Change> = kept.map(|(c, sequence)| (sequence, c.clone())).collect();
    assert_eq!(found, kept, "changes after {earliest}");
}

/// What a REST write was answered is what its record came to.
fn check_answers(story: &Story, model: &Model) {
    for fact in &story.facts {
        let Fact::Answered(batch, outcome) = fact else { continue };
        let Some(base) = story.acked(*batch) else { panic!("{batch} was answered unacknowledged") };
        match (outcome, &model.fates[&base]) {
            (Outcome::Applied { sequence }, Fate::Change(planned)) => {
                assert_eq!(sequence, planned, "batch {batch}");
            }
            (Outcome::Applied { .. }, Fate::Duplicate)
            | (Outcome::VersionMismatch, Fate::Refused)
            | (Outcome::DeadLetter(_), Fate::Letter(_)) => (),
            other => panic!("batch {batch} was answered and came to {other:?}"),
        }
    }
}

/// A group is where it last committed, or where a commit without an answer was to bring it.
async fn check_groups(player: &Player<'_>, story: &Story) {
    for group in GROUPS {
        let found = player.committed(group).await;
        let mut allowed = BTreeSet::from([-1]);
        for fact in &story.facts {
            match fact {
                Fact::Committing(of, offset) if *of == group => drop(allowed.insert(*offset)),
                Fact::Committed(of, offset) if *of == group => allowed = BTreeSet::from([*offset]),
                _ => (),
            }
        }
        assert!(allowed.contains(&found), "group {group} is at {found}, not one of {allowed:?}");
    }
}

/// The topic is there as it was left last, and its log holds only what this one was sent.
async fn check_topic(daemon: &Daemon, story: &Story, kept: Kept) {
    let changes = story.facts.iter().enumerate().filter_map(|(at, fact)| match fact {
        Fact::Changing(OTHER, is_there) => Some((at, *is_there, false)),
        Fact::Changed(OTHER, is_there) => Some((at, *is_there, true)),
        _ => None,
    });
    let changes: Vec<_> = changes.collect();
    let is_there = daemon.broker.partition_count(&name(OTHER)) > 0;
    match changes.last() {
        None => assert!(!is_there, "a topic that nobody created"),
        Some((_, expected, true)) => assert_eq!(is_there, *expected, "topic {OTHER}"),
        Some(_) => return, // Either way; the log is looked at when it is settled.
    }
    let Some((since, true, true)) = changes.last() else { return };
    let facts = story.facts[*since..].to_vec();
    let of_this = Story { batches: story.batches.clone(), facts };
    for partition in [0, 1] {
        let log = read(daemon, OTHER, partition).await;
        check_log(&log, &of_this, OTHER, partition, kept);
    }
}

/// What a durability promises of a crash.
pub(crate) fn kept(durability: Durability, is_kill: bool) -> Kept {
    match (durability, is_kill) {
        (_, true) => Kept::WrittenToo,
        (Durability::Commit, false) => Kept::All,
        (_, false) => Kept::Perhaps,
    }
}
