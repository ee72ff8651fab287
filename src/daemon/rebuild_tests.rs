//! What a rebuild makes is what was there; and what backups and restores make, too.

use super::{
    Daemon,
    rebuild::{Options, RebuildError, rebuild},
};
use crate::{
    archive::{BROKER_FILE, TASKS_FILE, backup, restore, verify},
    clock::Clock,
    config::{Config, Flags},
    feed::{EventLog, OutboundRecord, embedded::Embedded},
    position::TopicName,
    store::redb::dump::dump,
};
use bytes::Bytes;
use proptest::prelude::*;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

fn config(dir: &Path) -> Config {
    let flags = Flags::default()
        .with("data-dir", &[&dir.to_string_lossy()])
        .with("http-listen", &["127.0.0.1:0"])
        .with("kafka-listen", &["127.0.0.1:0"]);
    Config::resolve(&flags, Vec::new()).expect("a configuration")
}

async fn started(dir: &Path) -> Daemon {
    let end = Instant::now() + Duration::from_secs(20);
    let mut daemon = loop {
        match Box::pin(Daemon::start(config(dir), Clock::system())).await {
            Ok(daemon) => break daemon,
            // One that was dropped, as if killed, lets go of its files when its workers have ended.
            Err(error) => assert!(Instant::now() < end, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    daemon.ready().await.unwrap();
    daemon
}

async fn publish(daemon: &Daemon, values: Vec<String>) {
    let feed = Embedded::new(daemon.broker.clone(), Clock::system(), 1);
    let record = |value: String| OutboundRecord {
        topic: TopicName::new("task-events").unwrap(),
        partition: None,
        timestamp_ms: None,
        key: None,
        value: Some(Bytes::from(value)),
        headers: Vec::new(),
    };
    feed.publish_all(values.into_iter().map(record).collect()).await.unwrap();
}

/// One step of a life of a data directory.
#[derive(Clone, Debug)]
enum Step {
    /// Events: kind, task, user, event id.
    Publish(Vec<(u8, u8, u8, u8)>),
    Kill,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let event = (0..7_u8, 0..6_u8, 0..3_u8, 0..30_u8);
    prop_oneof![
        6 => proptest::collection::vec(event, 1..12).prop_map(Step::Publish),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

/// Events that apply, repeat, conflict, wait, and are bad.
fn value((kind, task, user, id): (u8, u8, u8, u8)) -> String {
    let data = match kind {
        0 | 1 => format!(r#"{{"id":"t{task}","title":"T{id}","user_id":"u{user}"}}"#),
        2 => format!(r#"{{"id":"t{task}","title":"New {id}"}}"#),
        3 => format!(r#"{{"id":"t{task}","priority":"high"}}"#),
        4 => format!(r#"{{"id":"t{task}","completed":true}}"#),
        5 => format!(r#"{{"id":"t{task}"}}"#),
        _ => return format!("no JSON {id}"),
    };
    let kinds = [
        "task_created",
        "task_created",
        "task_updated",
        "task_priority_changed",
        "task_completed",
        "task_deleted",
    ];
    let kind = kinds[usize::from(kind)];
    format!(r#"{{"type":"{kind}","event_id":"e{id}","data":{data}}}"#)
}

fn store_of(dir: &Path) -> PathBuf {
    dir.join(TASKS_FILE)
}

/// Dead letters in the log.
fn letters(dir: &Path) -> u64 {
    let report = verify::verify(dir).unwrap();
    assert!(report.is_sound(), "{:?}", report.damages);
    report.logs["task-events.dlq-0"].records
}

async fn lives_and_is_rebuilt(steps: Vec<Step>) {
    let parent = tempfile::tempdir().unwrap();
    let (dir, copy) = (parent.path().join("data"), parent.path().join("backup"));
    let mut daemon = started(&dir).await;
    let half = steps.len() / 2;
    for (number, step) in steps.into_iter().enumerate() {
        if number == half {
            let (broker, dir) = (daemon.broker.clone(), copy.clone());
            backup::of_running(broker, &*daemon.store, dir, 1).await.unwrap();
        }
        match step {
            Step::Publish(events) => {
                publish(&daemon, events.into_iter().map(value).collect()).await;
            }
            Step::Kill => {
                // What a kill would end, too, and a drop leaves behind.
                let apply = daemon.apply.take().expect("it runs");
                apply.abort();
                drop(apply.await);
                drop(daemon);
                daemon = started(&dir).await;
            }
            Step::Stop => {
                daemon.stop().await.unwrap();
                daemon = started(&dir).await;
            }
        }
    }
    daemon.stop().await.unwrap();
    let (before, letters_before) = (dump(&store_of(&dir)), letters(&dir));
    for options in [
        Options::default(),
        Options { backup: Some(copy.clone()), ..Options::default() },
        Options { makes_broker: true, ..Options::default() },
    ] {
        let made = Box::pin(rebuild(config(&dir), options, Clock::system())).await.unwrap();
        assert!(!made.kept.is_empty());
        let after = dump(&store_of(&dir));
        let lost: Vec<_> = before.iter().filter(|row| !after.contains(row)).collect();
        let new: Vec<_> = after.iter().filter(|row| !before.contains(row)).collect();
        assert!(after == before, "lost {lost:#?}\nnew {new:#?}");
        assert_eq!(letters(&dir), letters_before, "no dead letter twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]
    #[test]
    fn a_rebuilt_store_is_the_store_that_was(steps in proptest::collection::vec(step(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(lives_and_is_rebuilt(steps));
    }
}

fn creations(range: std::ops::Range<u32>) -> Vec<String> {
    let event = |n| {
        let data = format!(r#"{{"id":"n{n}","title":"N","user_id":"u{}"}}"#, n % 3);
        format!(r#"{{"type":"task_created","event_id":"n{n}","data":{data}}}"#)
    };
    range.map(event).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_goes_on_with_another_epoch_and_old_positions_resync() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, copy) = (parent.path().join("data"), parent.path().join("backup"));
    let daemon = started(&dir).await;
    publish(&daemon, creations(0..500)).await;
    daemon.stop().await.unwrap();
    let manifest = backup::of_stopped(&dir, &copy, 1).unwrap();
    assert_eq!(manifest.store.tasks, 500);
    assert!(verify::verify(&copy).unwrap().is_sound());
    let old = manifest.store.position.parse().unwrap();

    let restored = parent.path().join("restored");
    restore::restore(&copy, &restored).unwrap();
    assert_eq!(dump(&store_of(&restored)), dump(&store_of(&dir)));
    let daemon = started(&restored).await;
    assert_eq!(daemon.store.place(old), crate::store::Placement::Resync);
    assert_eq!(daemon.store.stats().tasks, 500);
    publish(&daemon, creations(500..510)).await;
    daemon.stop().await.unwrap();
    assert!(verify::verify(&restored).unwrap().is_sound());
    let again = restore::restore(&copy, &restored).unwrap_err().to_string();
    assert!(again.contains("absent or empty"), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_damaged_file_of_a_backup_is_found_before_anything_is_restored() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, copy) = (parent.path().join("data"), parent.path().join("backup"));
    let daemon = started(&dir).await;
    publish(&daemon, creations(0..5)).await;
    daemon.stop().await.unwrap();
    let manifest = backup::of_stopped(&dir, &copy, 1).unwrap();
    let paths = manifest.files.iter().map(|file| file.path.as_str()).chain(["manifest.json"]);
    for path in paths {
        let path = copy.join(path);
        let whole = fs::read(&path).unwrap();
        if whole.is_empty() {
            continue;
        }
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x04;
        fs::write(&path, flipped).unwrap();
        let restored = parent.path().join("restored");
        restore::restore(&copy, &restored).unwrap_err();
        assert!(!restored.exists(), "{}", path.display());
        assert!(!verify::verify(&copy).unwrap().is_sound(), "{}", path.display());
        fs::write(&path, whole).unwrap();
    }
    assert!(verify::verify(&copy).unwrap().is_sound());
    let cut = copy.join("log/task-events-0/00000000000000000000.log");
    fs::remove_file(&cut).unwrap();
    restore::restore(&copy, &parent.path().join("restored")).unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_does_not_reach_back_is_not_rebuilt_from_without_a_backup() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, copy) = (parent.path().join("data"), parent.path().join("backup"));
    let daemon = started(&dir).await;
    publish(&daemon, creations(0..5)).await;
    daemon.stop().await.unwrap();
    backup::of_stopped(&dir, &copy, 1).unwrap();
    // The first segment is gone, as if retention had taken it.
    let log = dir.join("log/task-events-0");
    let daemon = started(&dir).await;
    publish(&daemon, creations(5..9)).await;
    daemon.stop().await.unwrap();
    let before = dump(&store_of(&dir));
    for entry in fs::read_dir(&log).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "log" || kind == "seal") {
            fs::remove_file(path).unwrap();
        }
    }
    let refused = Box::pin(rebuild(config(&dir), Options::default(), Clock::system())).await;
    assert!(refused.is_err(), "a log without its beginning");
    assert_eq!(dump(&store_of(&dir)), before, "the old store stays");
    let error = refused.unwrap_err();
    assert!(matches!(error, RebuildError::DamagedLog { .. }), "{error}");
    // The same where broker.redb is to be made anew.
    let broker_before = fs::read(dir.join(BROKER_FILE)).unwrap();
    let options = Options { makes_broker: true, ..Options::default() };
    let refused = Box::pin(rebuild(config(&dir), options, Clock::system())).await;
    assert!(refused.is_err(), "a log without its beginning");
    assert!(fs::read(dir.join(BROKER_FILE)).unwrap() == broker_before, "the old one stays");
    assert_eq!(dump(&store_of(&dir)), before, "the old store stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn formats_of_a_newer_version_are_refused_by_the_daemon_and_the_commands() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let daemon = started(&dir).await;
    daemon.stop().await.unwrap();
    let format = dir.join("log/format");
    assert_eq!(fs::read_to_string(&format).unwrap(), "1\n");
    fs::write(&format, "2\n").unwrap();
    let error = Box::pin(Daemon::start(config(&dir), Clock::system())).await.unwrap_err();
    assert!(error.to_string().contains("log/ has format 2"), "{error}");
    let error = verify::verify(&dir).unwrap_err().to_string();
    assert!(error.contains("log/ has format 2"), "{error}");
    let copy = parent.path().join("backup");
    let error = backup::of_stopped(&dir, &copy, 1).unwrap_err().to_string();
    assert!(error.contains("log/ has format 2"), "{error}");
    let refused = Box::pin(rebuild(config(&dir), Options::default(), Clock::system())).await;
    assert!(matches!(refused, Err(RebuildError::LogFormat(_))), "{refused:?}");

    fs::write(&format, "1\n").unwrap();
    backup::of_stopped(&dir, &copy, 1).unwrap();
    let path = copy.join("manifest.json");
    let newer = fs::read_to_string(&path).unwrap().replacen("\"format\": 1", "\"format\": 2", 1);
    fs::write(&path, newer).unwrap();
    let error = restore::restore(&copy, &parent.path().join("r")).unwrap_err().to_string();
    assert!(error.contains("the backup has format 2"), "{error}");
}
