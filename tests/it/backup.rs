//! Backup, restore, verify and rebuild, each by the command of the real binary.

use crate::support::{TestDaemon, created, eventually, kafka::topic_name, taskwire, with_event_id};
use bytes::Bytes;
use kafka_protocol::{
    messages::{
        GroupId, OffsetCommitRequest, OffsetFetchRequest,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
    },
    protocol::StrBytes,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tempfile::TempDir;

/// Runs a command on a data directory.
fn run(verb: &[&str], data_dir: &Path) -> Output {
    taskwire().args(verb).arg("--data-dir").arg(data_dir).output().expect("it runs")
}

#[track_caller]
fn done(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Sends events one batch after the other until told to stop; counts those that were acknowledged.
async fn produce(daemon: &TestDaemon, sent: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
    let mut client = daemon.kafka_client().await;
    while !stop.load(Ordering::Relaxed) {
        let first = sent.load(Ordering::Relaxed);
        let event = |number| with_event_id(created(&format!("t{number}"), "ada", "x"), &id(number));
        let values: Vec<Bytes> = (first..first + 20).map(|n| event(n).to_string().into()).collect();
        client.produce("task-events", &values).await;
        sent.fetch_add(20, Ordering::Relaxed);
    }
}

fn id(number: usize) -> String {
    format!("e{number}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_restores_all_that_was_acknowledged_before_it() {
    let (mut daemon, parent) = (TestDaemon::start().await, TempDir::new().expect("a directory"));
    let (sent, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (copy, restored) = (parent.path().join("backup"), parent.path().join("restored"));
    let (data_dir, address) = (daemon.data_dir(), daemon.kafka);
    let backing_up = async {
        eventually("load", async || (sent.load(Ordering::Relaxed) > 500).then_some(())).await;
        let acknowledged = sent.load(Ordering::Relaxed);
        let (to, from) = (copy.clone(), data_dir.clone());
        let made = tokio::task::spawn_blocking(move || {
            run(&["backup", "--json", &to.to_string_lossy()], &from)
        });
        let made: Value = serde_json::from_str(&done(&made.await.expect("it ends"))).expect("JSON");
        stop.store(true, Ordering::Relaxed);
        (acknowledged, made)
    };
    let producing = produce(&daemon, Arc::clone(&sent), Arc::clone(&stop));
    let ((), (acknowledged, manifest)) = tokio::join!(producing, backing_up);

    done(&taskwire().arg("verify").arg(&copy).output().expect("it runs"));
    let position = |name: &str| {
        manifest["partitions"]
            .as_array()
            .and_then(|partitions| partitions.iter().find(|partition| partition["topic"] == name))
    };
    let log_end = position("task-events").expect("copied")["log_end"].as_u64().expect("a number");
    assert!(log_end >= u64::try_from(acknowledged).expect("small"), "{log_end} of {acknowledged}");
    let last = daemon.socket_from("ada", "earliest").await.next().await;
    let status = daemon.terminate();
    assert!(status.success(), "{status}");

    done(&run(&["restore", &copy.to_string_lossy()], &restored));
    done(&run(&["verify"], &restored));
    fs::rename(&data_dir, parent.path().join("old")).expect("moved aside");
    fs::rename(&restored, &data_dir).expect("in its place");
    daemon.restart().await;
    assert_eq!(daemon.kafka, address);
    let count = usize::try_from(log_end).expect("small");
    let tasks = daemon.user("ada").tasks_when(count).await;
    assert_eq!(tasks.len(), count, "each record of the copied log, once");
    let records = daemon.kafka_client().await.fetch_all("task-events").await;
    assert_eq!(records.len(), count);
    let old = last["pos"].as_str().expect("a position");
    let message = daemon.socket_from("ada", old).await.next().await;
    assert_eq!(message["type"], "resync", "a position of the old epoch");
    // A client that sends an event of before the backup again changes nothing.
    daemon.produce(&[with_event_id(created("t3", "ada", "x"), "e3")]).await;
    daemon.produce(&[created("new", "ada", "y")]).await;
    assert_eq!(daemon.user("ada").tasks_when(count + 1).await.len(), count + 1);
}

/// Commits an offset of `task-events` as a consumer that assigns itself.
async fn commit_offset(daemon: &TestDaemon, group: &'static str, offset: i64) {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("task-events"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let answer = daemon.kafka_client().await.call(7, &request).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

async fn committed_offset(daemon: &TestDaemon, group: &'static str) -> i64 {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(topic_name("task-events"))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str(group)))
        .with_topics(Some(vec![topic]));
    let answer = daemon.kafka_client().await.call(7, &request).await;
    answer.topics[0].partitions[0].committed_offset
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_resumes_from_a_restored_backup_where_it_had_committed() {
    let (mut daemon, parent) = (TestDaemon::start().await, TempDir::new().expect("a directory"));
    daemon.produce(&[created("t1", "ada", "x"), created("t2", "ada", "x")]).await;
    commit_offset(&daemon, "readers", 1).await;
    let copy = parent.path().join("backup");
    done(&run(&["backup", &copy.to_string_lossy()], &daemon.data_dir()));
    daemon.kill();
    fs::remove_dir_all(daemon.data_dir()).expect("all is lost");
    done(&run(&["restore", &copy.to_string_lossy()], &daemon.data_dir()));
    daemon.restart().await;
    assert_eq!(committed_offset(&daemon, "readers").await, 1);
    daemon.user("ada").tasks_when(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_told_verified_and_rebuilt_from_the_log() {
    let mut daemon = TestDaemon::start().await;
    let events: Vec<Value> = (0..50).map(|n| created(&format!("t{n}"), "ada", "x")).collect();
    daemon.produce(&events).await;
    daemon.produce(&[json!({"type": "task_created", "data": {"id": "bad"}})]).await;
    let before = daemon.user("ada").tasks_when(50).await;
    let in_use = refused(&run(&["verify"], &daemon.data_dir()));
    assert!(in_use.contains("is in use by process"), "{in_use}");
    let status = daemon.terminate();
    assert!(status.success(), "{status}");
    done(&run(&["verify"], &daemon.data_dir()));

    let path = daemon.data_dir().join("tasks.redb");
    let mut bytes = fs::read(&path).expect("the store");
    let text = b"\"title\":\"x\"";
    let at = bytes.windows(text.len()).position(|window| window == text).expect("a task's JSON");
    bytes[at + 9] = b'y';
    fs::write(&path, bytes).expect("damaged");
    let told = refused(&run(
        &["serve", "--http-listen", "127.0.0.1:0", "--kafka-listen", "none"],
        &daemon.data_dir(),
    ));
    assert!(told.contains("tasks.redb is damaged") && told.contains("taskwire rebuild"), "{told}");
    let found = run(&["verify", "--json"], &daemon.data_dir());
    assert!(refused(&found).contains("damages found"));
    let found: Value = serde_json::from_slice(&found.stdout).expect("JSON");
    assert_eq!(
        (&found["sound"], &found["damages"][0]["part"]),
        (&json!(false), &json!("tasks.redb"))
    );

    let rebuilt = done(&run(&["rebuild"], &daemon.data_dir()));
    assert!(rebuilt.contains("rebuilt 50 tasks"), "{rebuilt}");
    done(&run(&["verify"], &daemon.data_dir()));
    daemon.restart().await;
    assert_eq!(daemon.user("ada").tasks_when(50).await, before);
    let letters = daemon.kafka_client().await.fetch_all("task-events.dlq").await;
    assert_eq!(letters.len(), 1, "the dead letter is not written twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_broker_file_is_made_anew_from_the_directories_of_the_log() {
    let mut daemon = TestDaemon::start().await;
    daemon.produce(&[created("t1", "ada", "x")]).await;
    daemon.kafka_client().await.make_topic("other").await;
    let before = daemon.user("ada").tasks_when(1).await;
    assert!(daemon.terminate().success());
    fs::write(daemon.data_dir().join("broker.redb"), b"nothing of ours").expect("damaged");
    let told = refused(&run(
        &["serve", "--http-listen", "127.0.0.1:0", "--kafka-listen", "none"],
        &daemon.data_dir(),
    ));
    assert!(told.contains("broker.redb is damaged") && told.contains("rebuild --broker"), "{told}");
    done(&run(&["rebuild", "--broker"], &daemon.data_dir()));
    daemon.restart().await;
    assert_eq!(daemon.user("ada").tasks_when(1).await, before);
    let topics = daemon.kafka_client().await.fetch_all("other").await;
    assert!(topics.is_empty());
    daemon.produce(&[created("t2", "ada", "x")]).await;
    daemon.user("ada").tasks_when(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_made_only_by_the_socket_in_the_data_directory_and_into_an_empty_one() {
    let (daemon, parent) = (TestDaemon::start().await, TempDir::new().expect("a directory"));
    let dir = parent.path().join("backup");
    let admin = daemon.user("ada");
    let answer = admin.post("/api/admin/backup", &json!({ "dir": dir })).await;
    assert_eq!(answer.status, 403);
    assert!(!dir.exists());
    fs::create_dir(&dir).expect("made");
    fs::write(dir.join("mine"), b"precious").expect("written");
    let told = refused(&run(&["backup", &dir.to_string_lossy()], &daemon.data_dir()));
    assert!(told.contains("cannot write a backup to"), "{told}");
    assert_eq!(fs::read(dir.join("mine")).expect("still there"), b"precious");
}
