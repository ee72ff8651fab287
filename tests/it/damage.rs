//! Damaged and lost pieces of a data directory, from the start's words to a person's decision.

use crate::support::{TestDaemon, created, eventually, kafka, taskwire};
use std::{fs, path::Path, process::Output};

fn log_file(data: &Path) -> std::path::PathBuf {
    data.join("log/task-events-0/00000000000000000000.log")
}

fn repair(data: &Path, args: &[&str]) -> Output {
    let mut command = taskwire();
    command.arg("repair").arg("--data-dir").arg(data).args(args);
    command.output().expect("it runs")
}

#[track_caller]
fn check(output: &Output, code: i32, words: &[&str]) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

/// A killed daemon with tasks `t0` to `t4`, the last damaged in the log; and a whole copy of its
/// data directory.
async fn damaged() -> (TestDaemon, tempfile::TempDir) {
    let mut daemon = TestDaemon::start().await;
    for number in 0..5 {
        daemon.produce(&[created(&format!("t{number}"), "ada", "x")]).await;
    }
    daemon.kill();
    let backup = tempfile::tempdir().expect("a directory");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(daemon.data_dir().join("log"))
        .arg(backup.path())
        .status();
    assert!(copied.expect("cp runs").success());
    let path = log_file(&daemon.data_dir());
    let mut bytes = fs::read(&path).expect("a segment");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&path, bytes).expect("written");
    (daemon, backup)
}

async fn health(daemon: &TestDaemon) -> String {
    let answer = daemon.with_token(None).get("/healthz").await;
    format!("{} {}", answer.status, answer.json())
}

#[tokio::test]
async fn a_flipped_byte_costs_one_batch_and_is_told_until_a_person_decides() {
    let (mut daemon, _) = damaged().await;
    daemon.restart().await;
    let told = health(&daemon).await;
    assert!(told.starts_with("200 ") && told.contains("degraded"), "{told}");
    assert!(told.contains("task-events-0: offsets 4 to 5"), "{told}");
    let next = daemon.produce(&[created("t5", "ada", "x")]).await;
    assert_eq!(next, 5, "no offset is given twice");
    daemon.user("ada").tasks_when(5).await;
    let mut client = daemon.kafka_client().await;
    assert_eq!(client.fetch("task-events", 4, 0).await.0, 2, "CORRUPT_MESSAGE");
    let letters = eventually("a letter", async || {
        let letters = client.fetch_all("task-events.dlq").await;
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    assert_eq!(letters.len(), 1);
    assert_eq!(kafka::header(&letters[0], "taskwire-source-offset"), "4");
    check(&repair(&daemon.data_dir(), &[]), 1, &["in use"]);

    assert!(daemon.terminate().success());
    let data = daemon.data_dir();
    check(&repair(&data, &[]), 0, &["task-events-0: offsets 4 to 5", "--accept", "--from"]);
    check(&repair(&data, &["--json"]), 0, &["\"from\":4", "\"to\":5"]);
    check(&repair(&data, &["nothing-0"]), 2, &["nothing-0"]);
    check(&repair(&data, &["task-events", "--accept"]), 0, &["accepted"]);
    check(&repair(&data, &[]), 0, &["no damage"]);
    daemon.restart().await;
    assert_eq!(health(&daemon).await, "200 {\"status\":\"ok\"}");
    assert_eq!(client_codes(&daemon).await, (2, 0), "it stays a hole");
}

/// Error codes of fetches at the damaged offset and behind it.
async fn client_codes(daemon: &TestDaemon) -> (i16, i16) {
    let mut client = daemon.kafka_client().await;
    (client.fetch("task-events", 4, 0).await.0, client.fetch("task-events", 5, 0).await.0)
}

#[tokio::test]
async fn a_backup_gives_the_damaged_record_back() {
    let (mut daemon, backup) = damaged().await;
    daemon.restart().await;
    daemon.produce(&[created("t5", "ada", "x")]).await;
    assert!(daemon.terminate().success());
    let from = backup.path().display().to_string();
    check(&repair(&daemon.data_dir(), &["--from", &from]), 0, &["taken from the backup"]);
    daemon.restart().await;
    assert_eq!(health(&daemon).await, "200 {\"status\":\"ok\"}");
    assert_eq!(client_codes(&daemon).await, (0, 0));
    assert_eq!(daemon.kafka_client().await.fetch_all("task-events").await.len(), 6);
}

#[tokio::test]
async fn a_lost_log_is_refused_until_it_is_given_up() {
    let (mut daemon, _) = damaged().await;
    let data = daemon.data_dir();
    fs::remove_dir_all(data.join("log")).expect("removed");
    let serve = |data: &Path| {
        let mut command = taskwire();
        command.arg("serve").arg("--data-dir").arg(data);
        command.args(["--http-listen", "127.0.0.1:0", "--kafka-listen", "127.0.0.1:0"]);
        command.output().expect("it runs")
    };
    check(&serve(&data), 1, &["task-events", "is missing", "--give-up"]);
    for place in ["task-events-0", "task-events.dlq-0"] {
        check(&repair(&data, &[place, "--give-up"]), 0, &["goes on at offset"]);
    }
    daemon.restart().await;
    assert!(daemon.produce(&[created("new", "ada", "x")]).await > 4);
    daemon.user("ada").task("new").await;
    assert!(daemon.terminate().success());
    fs::remove_file(data.join("broker.redb")).expect("removed");
    check(&serve(&data), 1, &["broker.redb is missing", "rebuild --broker"]);
}

#[tokio::test]
async fn a_torn_tail_is_cut_kept_and_told_once() {
    let mut daemon = TestDaemon::start().await;
    daemon.produce(&[created("t0", "ada", "x")]).await;
    daemon.kill();
    let path = log_file(&daemon.data_dir());
    let mut bytes = fs::read(&path).expect("a segment");
    let whole = bytes.len();
    // The beginning of the next write: the same batch again with the next offset.
    let mut next = bytes[..60].to_vec();
    next[7] = 1;
    bytes.extend(&next);
    fs::write(&path, bytes).expect("written");
    daemon.restart().await;
    let told = daemon.log();
    let told: Vec<&str> = told.lines().filter(|line| line.contains("torn tail")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let facts = [path.display().to_string(), whole.to_string(), "60".to_owned()];
    for fact in facts.iter().map(String::as_str).chain(["WARN", "task-events", "offset"]) {
        assert!(told[0].contains(fact), "no {fact} in {}", told[0]);
    }
    let kept = path.with_file_name(format!("00000000000000000000.log.cut-{whole}"));
    assert_eq!(fs::read(kept).expect("kept"), next);
    let metrics = daemon.with_token(None).get("/metrics").await;
    let metrics = String::from_utf8(metrics.bytes.to_vec()).expect("text");
    assert!(metrics.contains("taskwire_log_torn_tails_total 1"), "{metrics}");
    assert_eq!(health(&daemon).await, "200 {\"status\":\"ok\"}");
    assert_eq!(daemon.produce(&[created("t1", "ada", "x")]).await, 1);
}
