//! A disk that is really full, and one that is small: a tmpfs.

use crate::support::{
    PATIENCE, TestDaemon, created, disk::SmallDisk, eventually, kafka, kafka::topic_name,
};
use bytes::Bytes;
use kafka_protocol::{
    messages::{
        GroupId, OffsetCommitRequest, OffsetFetchRequest,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
    },
    protocol::StrBytes,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const DISK_BYTES: u64 = 256 << 20;
const STORAGE_ERROR: i16 = 56;

/// Everything that was acknowledged.
#[derive(Default)]
struct Acknowledged {
    events: BTreeSet<String>,
    tasks: BTreeSet<String>,
    offsets: BTreeMap<String, i64>,
    tried: u32,
}

impl Acknowledged {
    /// One event by Kafka; the error code.
    async fn produce(&mut self, daemon: &TestDaemon) -> i16 {
        self.tried += 1;
        let id = format!("k{}", self.tried);
        let value: Bytes = created(&id, "ada", "x").to_string().into();
        let batch = kafka::plain_batch(&[std::str::from_utf8(&value).expect("text")]);
        let mut client = daemon.kafka_client().await;
        let answer = client.try_produce("task-events", &batch).await.expect("an answer");
        if answer.error_code == 0 {
            self.events.insert(id);
        }
        answer.error_code
    }

    /// One task by REST; the status.
    async fn post(&mut self, daemon: &TestDaemon) -> u16 {
        let answer = daemon.user("ada").post("/api/tasks", &json!({"title": "r"})).await;
        if answer.status == 201 {
            self.tasks.insert(answer.json()["id"].as_str().expect("an id").to_owned());
        }
        answer.status
    }

    /// Commits an offset of a group; the error code.
    async fn commit(&mut self, daemon: &TestDaemon, group: &str, offset: i64) -> i16 {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(StrBytes::from_string("m".repeat(4000))));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name("task-events"))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_topics(vec![topic]);
        let answer = daemon.kafka_client().await.call(8, &request).await;
        let code = answer.topics[0].partitions[0].error_code;
        if code == 0 {
            self.offsets.insert(group.to_owned(), offset);
        }
        code
    }

    /// All of it is there, each once.
    async fn check(&self, daemon: &TestDaemon) {
        let count = self.events.len() + self.tasks.len();
        let tasks = daemon.user("ada").tasks_when(count).await;
        let there: BTreeSet<String> =
            tasks.iter().map(|task| task["id"].as_str().expect("an id").to_owned()).collect();
        assert_eq!(there, &self.events | &self.tasks);
        let mut client = daemon.kafka_client().await;
        assert_eq!(client.fetch_all("task-events").await.len(), count, "each record once");
        for (group, offset) in &self.offsets {
            let topic = OffsetFetchRequestTopic::default()
                .with_name(topic_name("task-events"))
                .with_partition_indexes(vec![0]);
            let request = OffsetFetchRequest::default()
                .with_group_id(GroupId(StrBytes::from_string(group.clone())))
                .with_topics(Some(vec![topic]));
            let answer = client.call(5, &request).await;
            let found = answer.topics[0].partitions[0].committed_offset;
            assert_eq!(found, *offset, "group {group}");
        }
    }
}

async fn wait_for_health(daemon: &TestDaemon, word: &str) {
    eventually(&format!("health says {word}"), async || {
        let health = daemon.with_token(None).get("/healthz").await;
        (health.status == 200 && health.json()["status"] == word).then_some(())
    })
    .await;
}

/// Both doors take writes again within two seconds.
async fn writes_resume(daemon: &TestDaemon, acknowledged: &mut Acknowledged) {
    let freed = Instant::now();
    loop {
        let (code, status) = (acknowledged.produce(daemon).await, acknowledged.post(daemon).await);
        let committed = acknowledged.commit(daemon, "g", 3).await;
        if (code, status, committed) == (0, 201, 0) {
            break;
        }
        assert!(freed.elapsed() < PATIENCE, "{code} {status} {committed}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = freed.elapsed();
    assert!(took < Duration::from_secs(2), "writes resumed after {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_loses_nothing_and_goes_on_with_space() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let dir = TempDir::new_in(disk.path()).expect("a directory");
    let mut daemon = TestDaemon::start_under(dir, &[], &[]).await;
    let mut acknowledged = Acknowledged::default();
    let mut socket = daemon.socket("ada").await;
    for _ in 0..10 {
        assert_eq!(acknowledged.produce(&daemon).await, 0);
        assert_eq!(acknowledged.post(&daemon).await, 201);
    }
    assert_eq!(acknowledged.commit(&daemon, "g", 1).await, 0);

    // Nearly full: the reserve is given up, and what was accepted can be finished.
    disk.fill("fill", 20 << 20);
    wait_for_health(&daemon, "degraded").await;
    assert!(disk.free() > 80 << 20, "the reserve was given up: {} free", disk.free());
    for _ in 0..3 {
        assert_eq!(acknowledged.produce(&daemon).await, STORAGE_ERROR);
        assert_eq!(acknowledged.post(&daemon).await, 507);
    }
    assert_eq!(acknowledged.commit(&daemon, "g", 2).await, 0, "the reserve is for these, too");
    acknowledged.check(&daemon).await;
    assert_eq!(socket.drain().await.len(), 20, "pushes go on");
    let mut late = daemon.socket_from("ada", "earliest").await;
    for _ in 0..20 {
        late.next().await; // and replays
    }
    assert_eq!(late.drain().await.len(), 0, "each once");

    // Full to the last byte: offset commits meet the real error, inside redb.
    disk.fill("rest", 0);
    let mut refused = 0;
    for number in 0..400 {
        refused += i32::from(acknowledged.commit(&daemon, &format!("g{number}"), 7).await != 0);
    }
    assert!(refused > 0, "no commit met a full disk");
    assert_eq!(acknowledged.produce(&daemon).await, STORAGE_ERROR);
    assert_eq!(acknowledged.post(&daemon).await, 507);
    acknowledged.check(&daemon).await;

    disk.remove("rest");
    disk.remove("fill");
    writes_resume(&daemon, &mut acknowledged).await;
    wait_for_health(&daemon, "ok").await;
    acknowledged.check(&daemon).await;

    // A clean stop while it is full, and a kill.
    for is_kill in [false, true] {
        disk.fill("fill", 20 << 20);
        wait_for_health(&daemon, "degraded").await;
        assert_eq!(acknowledged.post(&daemon).await, 507);
        if is_kill {
            daemon.kill();
        } else {
            assert!(daemon.terminate().success(), "{}", daemon.log());
        }
        daemon.restart().await;
        wait_for_health(&daemon, "degraded").await;
        acknowledged.check(&daemon).await;
        disk.remove("fill");
        writes_resume(&daemon, &mut acknowledged).await;
        acknowledged.check(&daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reserve_that_a_kill_left_gives_way_to_a_start_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let dir = TempDir::new_in(disk.path()).expect("a directory");
    let mut daemon = TestDaemon::start_under(dir, &[], &[]).await;
    let mut acknowledged = Acknowledged::default();
    assert_eq!(acknowledged.produce(&daemon).await, 0);
    daemon.kill();
    disk.fill("fill", 20 << 20);
    daemon.restart().await;
    wait_for_health(&daemon, "degraded").await;
    acknowledged.check(&daemon).await;
    disk.remove("fill");
    writes_resume(&daemon, &mut acknowledged).await;
    acknowledged.check(&daemon).await;
}
