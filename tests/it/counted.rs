//! Every acknowledged record becomes exactly one change, duplicate, refusal, dead letter or waiting
//! event, or is passed over; each way once, by the real binary, and the counters add up.

use crate::{
    admin::{run, stdout},
    support::{TestDaemon, created, eventually, kafka, with_event_id},
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// How often each fate has come, as the metrics tell.
#[derive(Debug, Default, Eq, PartialEq)]
struct Counts {
    records: u64,
    changes: u64,
    duplicates: u64,
    refused: u64,
    ignored: u64,
    waiting: u64,
    letters: BTreeMap<String, u64>,
}

impl Counts {
    async fn of(daemon: &TestDaemon) -> Self {
        let answer = daemon.with_token(None).get("/metrics").await;
        let text = String::from_utf8(answer.bytes.to_vec()).expect("text");
        let mut counts = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let value = value.parse().unwrap_or(0);
            match name {
                "taskwire_apply_records_total" => counts.records = value,
                "taskwire_apply_changes_total" => counts.changes = value,
                "taskwire_apply_duplicates_total" => counts.duplicates = value,
                "taskwire_apply_refused_total" => counts.refused = value,
                "taskwire_apply_ignored_total" => counts.ignored = value,
                "taskwire_apply_waiting" => counts.waiting = value,
                _ => counts.letter(name, value),
            }
        }
        counts
    }

    fn letter(&mut self, name: &str, value: u64) {
        let reason = name.strip_prefix("taskwire_apply_dead_letters_total{reason=\"");
        if let Some(reason) = reason.and_then(|rest| rest.strip_suffix("\"}")) {
            self.letters.insert(reason.to_owned(), value);
        }
    }

    #[track_caller]
    fn check_sum(&self) {
        let Self { changes, duplicates, refused, ignored, waiting, letters, .. } = self;
        let sum =
            changes + duplicates + refused + ignored + waiting + letters.values().sum::<u64>();
        assert_eq!(self.records, sum, "{self:?}");
    }
}

/// Waits until so many records were read and what they came to is told.
async fn counted(daemon: &TestDaemon, records: u64) -> Counts {
    eventually(&format!("{records} records"), async || {
        let counts = Counts::of(daemon).await;
        assert!(counts.records <= records, "{counts:?}");
        (counts.records == records).then_some(counts)
    })
    .await
}

/// What comes to the topic.
enum Input {
    Event(Value),
    Raw(Bytes),
}

#[allow(clippy::needless_pass_by_value, reason = "a list of them reads better")]
fn event(event_type: &str, event_id: &str, data: Value) -> Input {
    Input::Event(with_event_id(json!({"type": event_type, "data": data}), event_id))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_has_one_fate_and_every_fate_is_counted() {
    use Input::{Event, Raw};
    let daemon = TestDaemon::start_with(&["--waiting-timeout", "2s"]).await;
    let mut client = daemon.kafka_client().await;
    let text = |text: &'static str| Raw(kafka::plain_batch(&[text]));
    let of_bob = json!({"id": "t", "title": "b", "user_id": "bob"});
    let cases = [
        ("change", Event(with_event_id(created("t", "ada", "a"), "e1"))),
        ("duplicate", Event(with_event_id(created("t", "ada", "a"), "e1"))),
        ("duplicate", Event(created("t", "ada", "a"))),
        (
            "refused",
            Event(json!({"type": "task_deleted", "event_id": "e2",
            "expected_version": 9, "data": {"id": "t"}})),
        ),
        ("change", event("news", "e3", json!({"user_id": "ada"}))),
        ("ignored", event("news", "e4", json!({"to": "nobody"}))),
        ("null_value", Raw(kafka::null_batch())),
        ("invalid_json", text("nonsense")),
        ("invalid_event", text(r#"{"type":"task_created","data":{"id":"x","user_id":"ada"}}"#)),
        ("missing_user", text(r#"{"type":"task_created","data":{"id":"x","title":"a"}}"#)),
        ("wrong_user", event("task_updated", "e5", of_bob)),
        ("task_conflict", Event(created("t", "ada", "another"))),
        ("event_id_reused", Event(with_event_id(created("x", "ada", "a"), "e1"))),
        ("corrupt_record", Raw(kafka::garbled_batch())),
        ("change", event("task_deleted", "e6", json!({"id": "t"}))),
        ("task_deleted", event("task_updated", "e7", json!({"id": "t", "title": "b"}))),
        ("waiting", event("task_deleted", "e8", json!({"id": "absent"}))),
    ];
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for (at, (fate, input)) in (1..).zip(cases) {
        *expected.entry(fate).or_default() += 1;
        let batch = match input {
            Event(value) => kafka::plain_batch(&[&value.to_string()]),
            Raw(batch) => batch,
        };
        let answer = client.try_produce("task-events", &batch).await.expect("an answer");
        assert_eq!(answer.error_code, 0, "{fate} is acknowledged");
        let counts = counted(&daemon, at).await;
        let of = |fate: &str| expected.get(fate).copied().unwrap_or(0);
        assert_eq!(counts.changes, of("change"), "{fate}");
        assert_eq!(counts.duplicates, of("duplicate"), "{fate}");
        assert_eq!(counts.refused, of("refused"), "{fate}");
        assert_eq!(counts.ignored, of("ignored"), "{fate}");
        for (reason, count) in &counts.letters {
            assert_eq!(*count, of(reason), "{fate}: {reason}");
        }
        counts.check_sum();
    }
    let records = expected.values().sum::<u64>();

    // By REST: a change, and a request that is repeated with its key.
    let ada = daemon.user("ada");
    assert_eq!(ada.post("/api/tasks", &json!({"title": "by REST"})).await.status, 201);
    counted(&daemon, records + 1).await.check_sum();
    let waiting = stdout(&run(&daemon.data_dir(), &["waiting"]));
    assert!(waiting.contains("1 of 10000 events wait") || waiting.contains("0 of 10000"));

    // Its task does not come in time.
    let counts = eventually("the end of the wait", async || {
        let counts = Counts::of(&daemon).await;
        counts.check_sum();
        (counts.letters["wait_expired"] == 1).then_some(counts)
    })
    .await;
    assert_eq!((counts.waiting, counts.records), (0, records + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_waiting_events_than_fit_are_dead_letters_and_counted() {
    const MORE: u64 = 3;
    let daemon = TestDaemon::start().await;
    let mut client = daemon.kafka_client().await;
    let values: Vec<Bytes> = (0..10_000 + MORE)
        .map(|number| format!(r#"{{"type":"task_deleted","data":{{"id":"{number}"}}}}"#).into())
        .collect();
    for values in values.chunks(1_000) {
        client.produce("task-events", values).await;
    }
    let counts = counted(&daemon, 10_000 + MORE).await;
    assert_eq!((counts.waiting, counts.letters["wait_overflow"]), (10_000, MORE));
    counts.check_sum();
    let waiting: Value =
        serde_json::from_str(&stdout(&run(&daemon.data_dir(), &["waiting", "--json"])))
            .expect("JSON");
    assert_eq!((&waiting["count"], &waiting["count_max"]), (&json!(10_000), &json!(10_000)));
    assert_eq!(waiting["events"].as_array().expect("an array").len(), 1_000);
}

#[tokio::test]
async fn records_that_the_log_has_lost_are_one_dead_letter() {
    let mut daemon = TestDaemon::start().await;
    let mut client = daemon.kafka_client().await;
    for number in 0..3 {
        client
            .produce(
                "task-events",
                &[created(&format!("t{number}"), "ada", "x").to_string().into()],
            )
            .await;
    }
    daemon.user("ada").tasks_when(3).await;
    assert!(daemon.terminate().success());
    // The tasks are made again from a log whose second batch is damaged.
    fs::remove_file(daemon.data_dir().join("tasks.redb")).expect("it was there");
    let segment = segment(&daemon);
    let mut bytes = fs::read(&segment).expect("readable");
    let at = bytes.windows(2).position(|part| part == b"t1").expect("it is there");
    bytes[at] ^= 1;
    fs::write(&segment, bytes).expect("written");
    daemon.restart().await;
    let tasks = daemon.user("ada").tasks_when(2).await;
    assert_eq!((&tasks[0]["id"], &tasks[1]["id"]), (&json!("t0"), &json!("t2")));
    let counts = counted(&daemon, 3).await;
    assert_eq!((counts.changes, counts.letters["hole"]), (2, 1));
    counts.check_sum();
    let letters = stdout(&run(&daemon.data_dir(), &["dlq", "ls"]));
    assert!(letters.contains("task-events/0/1..2"), "{letters}");
}

/// The one segment of the applied topic.
fn segment(daemon: &TestDaemon) -> PathBuf {
    let dir = daemon.data_dir().join("log").join("task-events-0");
    let mut files = fs::read_dir(dir).expect("a log").map(|entry| entry.expect("a file").path());
    files.find(|path| path.extension().is_some_and(|e| e == "log")).expect("a segment")
}
