//! One byte of the data directory is changed, in many places in turn: the real binary starts or says
//! why not, and never serves what was not written.
//!
//! `TASKWIRE_FLIPS=2000 TASKWIRE_FLIP_SEED=7 cargo test --test it flips` tries more places.

use crate::support::{
    TestDaemon, created,
    kafka::{self, KafkaClient, topic_name},
};
use bytes::Bytes;
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
    },
    protocol::StrBytes,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env, fs,
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const TOPICS: [&str; 3] = ["flips", "task-events", "task-events.dlq"];
/// Places tried by each of the tests below.
const FLIPS: usize = 50;
/// Time for a start, or for the words why not.
const START_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_byte_of_the_log_is_never_served_as_written() {
    try_all(|name| name.starts_with("log/")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_byte_of_the_store_is_never_served_as_written() {
    try_all(|name| name == "tasks.redb").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_byte_of_the_brokers_state_is_never_served_as_written() {
    try_all(|name| name == "broker.redb").await;
}

/// A data directory, and everything that it must still give.
struct Golden {
    dir: TempDir,
    /// Every record's value, by topic and offset.
    records: BTreeMap<&'static str, Vec<Option<Bytes>>>,
    /// The offsets of each batch of `flips`.
    batches: Vec<Range<usize>>,
    tasks: Vec<Value>,
}

/// One byte.
struct Place {
    file: String,
    position: usize,
    mask: u8,
}

async fn try_all(takes: impl Fn(&str) -> bool) {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let count = number("TASKWIRE_FLIPS").map_or(FLIPS, |count| count.try_into().expect("small"));
    let mut seed = number("TASKWIRE_FLIP_SEED").unwrap_or(1);
    let goldens = [golden(true).await, golden(false).await];
    let mut complaints = Vec::new();
    for index in 0..count {
        let golden = &goldens[index % 2];
        let place = place(&golden.dir.path().join("data"), &takes, &mut seed);
        if let Err(complaint) = try_one(golden, &place).await {
            let Place { file, position, mask } = place;
            let base = ["clean stop", "kill"][index % 2];
            complaints.push(format!("{file} byte {position} ^ {mask:#04x} ({base}): {complaint}"));
        }
    }
    assert!(complaints.is_empty(), "{} of {count}:\n{}", complaints.len(), complaints.join("\n"));
}

/// Some segments, tasks, dead letters, a producer and a committed offset; stopped cleanly or killed.
async fn golden(is_clean: bool) -> Golden {
    let mut daemon = TestDaemon::start().await;
    let mut client = daemon.kafka_client().await;
    make_topic(&mut client).await;
    let mut producer = client.init_producer().await;
    let mut batches = Vec::new();
    for number in 0..24 {
        let values: Vec<Bytes> =
            (0..3).map(|record| format!("{number}-{record}-{}", "x".repeat(150)).into()).collect();
        let answer = client.try_produce("flips", &kafka::batch(&values, producer)).await;
        assert_eq!(answer.expect("an answer").error_code, 0);
        producer.sequence += 3;
        batches.push(number * 3..number * 3 + 3);
    }
    for number in 0..20 {
        daemon.produce(&[created(&format!("t{number}"), "ada", "a title to be kept")]).await;
    }
    client.try_produce("task-events", &kafka::plain_batch(&["poison", "poison too"])).await;
    commit_offset(&mut client).await;
    daemon.produce(&[created("last", "ada", "the last")]).await;
    daemon.user("ada").task("last").await;
    let tasks = daemon.user("ada").tasks().await;
    let mut records = BTreeMap::new();
    for topic in TOPICS {
        let found = client.fetch_all(topic).await;
        records.insert(topic, found.into_iter().map(|record| record.value).collect());
    }
    if is_clean {
        assert!(daemon.terminate().success());
    } else {
        daemon.kill();
    }
    Golden { dir: copy(&daemon.data_dir()), records, batches, tasks }
}

async fn make_topic(client: &mut KafkaClient) {
    let config = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("segment.bytes"))
        .with_value(Some(StrBytes::from_static_str("4096")));
    let topic = CreatableTopic::default()
        .with_name(topic_name("flips"))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![config]);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
    assert_eq!(client.call(5, &request).await.topics[0].error_code, 0);
}

const COMMITTED: i64 = 17;

async fn commit_offset(client: &mut KafkaClient) {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(COMMITTED);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("flips"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("flips")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    assert_eq!(client.call(5, &request).await.topics[0].partitions[0].error_code, 0);
}

/// A new directory with a copy of `data` in it.
fn copy(data: &Path) -> TempDir {
    let dir = TempDir::new().expect("a temporary directory");
    for name in files(data) {
        let target = dir.path().join("data").join(&name);
        fs::create_dir_all(target.parent().expect("below data")).expect("made");
        fs::copy(data.join(&name), target).expect("copied");
    }
    dir
}

/// Every file below, by its path from there, sorted.
fn files(data: &Path) -> Vec<String> {
    let (mut found, mut pending) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(data.join(&dir)).expect("readable") {
            let entry = entry.expect("readable");
            let path = dir.join(entry.file_name());
            if entry.path().is_dir() {
                pending.push(path);
            } else if entry.path().is_file() {
                found.push(path.display().to_string()); // and not the command socket
            }
        }
    }
    found.sort();
    found
}

/// The next place of the seed: a byte of a block of 64 that holds more than zeros.
fn place(data: &Path, takes: &impl Fn(&str) -> bool, seed: &mut u64) -> Place {
    let mut next = |below: usize| {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*seed >> 33).expect("31 bits") % below
    };
    let names: Vec<String> = files(data).into_iter().filter(|name| takes(name)).collect();
    loop {
        let file = names[next(names.len())].clone();
        let bytes = fs::read(data.join(&file)).expect("readable");
        if bytes.is_empty() {
            continue;
        }
        for _ in 0..1_000 {
            let position = next(bytes.len());
            let block = position & !63;
            if bytes[block..bytes.len().min(block + 64)].iter().any(|byte| *byte != 0) {
                return Place { file, position, mask: 1 << next(8) };
            }
        }
    }
}

async fn try_one(golden: &Golden, place: &Place) -> Result<(), String> {
    let dir = copy(&golden.dir.path().join("data"));
    let path = dir.path().join("data").join(&place.file);
    let mut bytes = fs::read(&path).expect("readable");
    bytes[place.position] ^= place.mask;
    fs::write(&path, bytes).expect("written");
    let mut daemon = TestDaemon::launch_in(dir, &[], &[]);
    let end = Instant::now() + START_MAX;
    let is_healthy = loop {
        if let Some(status) = daemon.try_ended() {
            return check_refusal(status.code(), &daemon.log(), &place.file);
        }
        match daemon.answers("/healthz").await {
            Some(200) if daemon.answers("/readyz").await == Some(200) => break true,
            // What has failed may keep apply from its end: that is told, too.
            Some(503) => break false,
            _ => (),
        }
        if end < Instant::now() {
            return Err(format!("neither ready nor ended\n{}", daemon.log()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let harm = compare(golden, &daemon).await?;
    let health = daemon.with_token(None).get("/healthz").await.json();
    if harm > 0 && is_healthy && health["status"] == "ok" {
        return Err(format!("{harm} records or answers are missing, and /healthz says ok"));
    }
    check_words(&daemon.log())
}

fn check_words(log: &str) -> Result<(), String> {
    for word in ["panicked", "internal error", "unreachable code"] {
        if let Some(line) = log.lines().find(|line| line.contains(word)) {
            return Err(format!("it says: {line}"));
        }
    }
    Ok(())
}

/// A daemon that does not start says which file or topic it is about.
fn check_refusal(code: Option<i32>, log: &str, file: &str) -> Result<(), String> {
    check_words(log)?;
    let last = log.lines().last().unwrap_or_default();
    let mut names = file.rsplit('/');
    let (name, parent) = (names.next().unwrap_or_default(), names.next().unwrap_or(file));
    let names_it = last.contains(name) || last.contains(parent);
    if !matches!(code, Some(1 | 78)) || !last.starts_with("taskwire: ") || !names_it {
        return Err(format!("ended with {code:?}: {last}"));
    }
    Ok(())
}

/// Compares everything; how much is missing, or what is wrong.
async fn compare(golden: &Golden, daemon: &TestDaemon) -> Result<usize, String> {
    let mut harm = 0;
    let mut events_missing = 0;
    for (topic, expected) in &golden.records {
        let missing = missing_records(daemon, topic, expected).await?;
        harm += missing.len();
        let is_one_batch =
            golden.batches.iter().any(|batch| missing.iter().all(|offset| batch.contains(offset)));
        match *topic {
            "flips" if !is_one_batch => return Err(format!("{topic}: {missing:?} are missing")),
            "task-events" => events_missing = missing.len(),
            _ => (),
        }
    }
    let answer = daemon.user("ada").get("/api/tasks?limit=1000").await;
    match answer.status {
        200 => check_tasks(&golden.tasks, &answer.json(), events_missing)?,
        500..600 => harm += 1,
        status => return Err(format!("/api/tasks answered {status}")),
    }
    harm += committed(daemon).await?;
    let mut client = daemon.kafka_client().await;
    let new = client.try_produce("flips", &kafka::plain_batch(&["new"])).await;
    let new = new.ok_or("no answer to a produce")?;
    let end = i64::try_from(golden.records["flips"].len()).expect("small");
    match new.error_code {
        0 if new.base_offset >= end => Ok(harm),
        0 => Err(format!("offset {} was given again", new.base_offset)),
        _ => Ok(harm + 1),
    }
}

/// All tasks, but for those whose event is damaged before the store had made it durable.
fn check_tasks(golden: &[Value], found: &Value, events_missing: usize) -> Result<(), String> {
    let found = found.as_array().ok_or("no array of tasks")?;
    let is_known = found.iter().all(|task| golden.contains(task));
    if !is_known || found.len() + events_missing < golden.len() {
        return Err(format!("wrong tasks: {found:?}"));
    }
    Ok(())
}

async fn missing_records(
    daemon: &TestDaemon,
    topic: &str,
    expected: &[Option<Bytes>],
) -> Result<Vec<usize>, String> {
    let mut client = daemon.kafka_client().await;
    let (mut missing, mut next) = (Vec::new(), 0);
    while next < expected.len() {
        let from = i64::try_from(next).expect("small");
        let fetched = client.try_fetch(topic, from, 0).await;
        let (_, _, records) = fetched.ok_or(format!("{topic}: no answer to a fetch"))?;
        if records.first().is_none_or(|record| record.offset != from) {
            missing.push(next);
            next += 1;
            continue;
        }
        for record in records {
            if usize::try_from(record.offset) != Ok(next) {
                break;
            }
            match expected.get(next) {
                Some(value) if *value == record.value => (),
                Some(_) => return Err(format!("{topic}: wrong bytes at offset {next}")),
                // Another dead letter, for a hole.
                None => break,
            }
            next += 1;
        }
    }
    Ok(missing)
}

/// 1 if the broker says that it cannot tell the committed offset.
async fn committed(daemon: &TestDaemon) -> Result<usize, String> {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(topic_name("flips"))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("flips")))
        .with_topics(Some(vec![topic]));
    let answer = daemon.kafka_client().await.try_call(5, &request).await;
    let answer = answer.ok_or("no answer to OffsetFetch")?;
    let partition = &answer.topics[0].partitions[0];
    match (answer.error_code.max(partition.error_code), partition.committed_offset) {
        (0, COMMITTED) => Ok(0),
        (0, found) => Err(format!("committed offset {found}, not {COMMITTED}")),
        _ => Ok(1),
    }
}
