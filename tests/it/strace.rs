//! The order of system calls, as strace sees it on the real binary: written, synced, and only then
//! answered. A test that has no strace fails.

use crate::support::{TestDaemon, created, eventually, kafka::KafkaClient};
use kafka_protocol::{
    messages::{
        GroupId, OffsetCommitRequest,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    },
    protocol::StrBytes,
};
use serde_json::json;
use std::{path::PathBuf, process::Command};
use tempfile::TempDir;

const WRITES: [&str; 3] = ["pwrite64(", "pwritev(", "pwritev2("];
const SYNCS: [&str; 2] = ["fdatasync(", "fsync("];
const SENDS: [&str; 4] = ["sendto(", "sendmsg(", "write(", "writev("];
const RECEIVES: [&str; 3] = ["recvfrom(", "recvmsg(", "read("];
const LOG: &str = "/log/task-events-0/00000000000000000000.log>";
const META: &str = "/broker.redb>";

#[tokio::test]
async fn a_produce_is_answered_after_its_sync() {
    let calls = traced(&[], produce).await;
    assert_eq!(order(&calls, LOG), Ok(()));
}

#[tokio::test]
async fn an_offset_commit_is_answered_after_its_sync() {
    let calls = traced(&[], async |daemon| {
        let mut client = daemon.kafka_client().await;
        commit_offset(&mut client).await;
        format!("->{}]", client.local())
    })
    .await;
    assert_eq!(order(&calls, META), Ok(()));
}

#[tokio::test]
async fn a_rest_write_is_answered_after_its_sync() {
    let calls = traced(&[], async |daemon| {
        let answer = daemon.user("ada").post("/api/tasks", &json!({"title": "x"})).await;
        assert_eq!(answer.status, 201);
        "HTTP/1.1 201".to_owned()
    })
    .await;
    assert_eq!(order(&calls, LOG), Ok(()));
}

#[tokio::test]
async fn the_name_of_a_new_data_directory_is_durable_before_an_answer() {
    let (calls, answer, parent) = whole_trace(&[], produce).await;
    let parent = format!("<{}>", parent.display());
    let is_sync = |call: &Call| is(call, &SYNCS) && call.text.contains(&parent);
    let synced = calls.iter().position(|call| call.ends && is_sync(call) && is_success(call));
    let is_answer = |call: &Call| is(call, &SENDS) && call.text.contains(&answer);
    let answered = calls.iter().position(is_answer).expect("the answer");
    assert!(synced.is_some_and(|synced| synced < answered), "{parent} is not synced");
}

/// What the tests above would say of a daemon that leaves the sync out.
#[tokio::test]
async fn without_the_promise_the_missing_sync_is_found() {
    let calls = traced(&["--durability", "os"], produce).await;
    assert_eq!(order(&calls, LOG), Err("no sync between the write and the answer"));
}

async fn produce(daemon: &TestDaemon) -> String {
    let mut client = daemon.kafka_client().await;
    client.produce("task-events", &[created("t", "ada", "x").to_string().into()]).await;
    format!("->{}]", client.local())
}

async fn commit_offset(client: &mut KafkaClient) {
    let partition =
        OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(0);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(crate::support::kafka::topic_name("task-events"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("traced")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let answer = client.call(5, &request).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

/// One line of the trace. A call that another interrupts has two: where it begins, where it ends.
struct Call {
    text: String,
    begins: bool,
    ends: bool,
}

/// The calls from the receipt of the request up to the answer. `action` sends one request and gives
/// what tells the answer's line.
async fn traced(flags: &[&str], action: impl AsyncFnOnce(&TestDaemon) -> String) -> Vec<Call> {
    let (calls, answer, _) = whole_trace(flags, action).await;
    request_of(&calls, &answer)
}

/// All calls of a daemon's life, what tells the answer's line, and the directory above its data.
async fn whole_trace(
    flags: &[&str],
    action: impl AsyncFnOnce(&TestDaemon) -> String,
) -> (Vec<Call>, String, PathBuf) {
    let found = Command::new("strace").arg("-V").output();
    assert!(found.is_ok_and(|output| output.status.success()), "strace is not installed");
    let dir = TempDir::new().expect("a temporary directory");
    let (parent, trace) = (dir.path().to_owned(), dir.path().join("trace"));
    let names: Vec<&str> = [&WRITES[..], &SYNCS, &SENDS, &RECEIVES].concat();
    let filter = format!("trace={}", names.join(",").replace('(', ""));
    let file = trace.display().to_string();
    // -D: the daemon stays our child, and strace becomes its grandchild.
    let strace = ["strace", "-D", "-f", "-yy", "-s", "32", "-e", &filter, "-o", &file];
    let mut daemon = TestDaemon::start_under(dir, &strace, flags).await;
    let answer = action(&daemon).await;
    assert!(daemon.terminate().success());
    let pid = daemon.pid().to_string();
    let text = eventually("the end of the trace", async || {
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        let is_end = |line: &str| line.starts_with(&pid) && line.contains(" +++ exited");
        text.lines().any(is_end).then_some(text)
    })
    .await;
    (calls(&text), answer, parent)
}

/// Each line with its whole text: `<... NAME resumed>` gets the beginning of its call.
fn calls(trace: &str) -> Vec<Call> {
    let mut begun = std::collections::HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(start) = text.strip_suffix("<unfinished ...>") {
            begun.insert(thread, start.to_owned());
            calls.push(Call { text: start.to_owned(), begins: true, ends: false });
        } else if text.starts_with("<... ") {
            let start = begun.remove(thread).unwrap_or_default();
            let end = text.split_once("resumed>").map_or("", |(_, end)| end);
            calls.push(Call { text: format!("{start}{end}"), begins: false, ends: true });
        } else {
            calls.push(Call { text: text.to_owned(), begins: true, ends: true });
        }
    }
    calls
}

/// From the last receipt on the answer's connection to the answer.
fn request_of(calls: &[Call], answer: &str) -> Vec<Call> {
    let is_answer = |call: &Call| is(call, &SENDS) && call.text.contains(answer);
    let end = calls.iter().rposition(|call| call.begins && is_answer(call)).expect("the answer");
    let (_, connection) = calls[end].text.split_once('<').expect("a file descriptor");
    let (connection, _) = connection.split_once(">,").expect("a connection");
    let is_receipt = |call: &Call| {
        is(call, &RECEIVES) && call.text.contains(connection) && !call.text.contains(" = -1 ")
    };
    let begin = calls[..end].iter().rposition(|call| call.ends && is_receipt(call));
    let part = &calls[begin.expect("the request") + 1..end];
    part.iter()
        .map(|call| Call { text: call.text.clone(), begins: call.begins, ends: call.ends })
        .collect()
}

fn is(call: &Call, names: &[&str]) -> bool {
    names.iter().any(|name| call.text.starts_with(name))
}

/// Whether `file` was written, and then synced with success, before the answer.
fn order(calls: &[Call], file: &str) -> Result<(), &'static str> {
    let of_file = |call: &Call| call.text.contains(file);
    let written = calls.iter().position(|call| call.ends && is(call, &WRITES) && of_file(call));
    let after = &calls[written.ok_or("not written before the answer")? + 1..];
    let syncs: Vec<&Call> = after.iter().filter(|call| is(call, &SYNCS) && of_file(call)).collect();
    let begun = syncs.iter().position(|call| call.begins);
    let ended = syncs.iter().rposition(|call| call.ends && is_success(call));
    match begun.zip(ended) {
        Some((begun, ended)) if begun <= ended => Ok(()),
        _ => Err("no sync between the write and the answer"),
    }
}

fn is_success(call: &Call) -> bool {
    call.text.trim_end().ends_with("= 0")
}
