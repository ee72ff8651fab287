//! `taskwire import` of a real SQLite file of the replaced stack.

use crate::support::{TestDaemon, taskwire};
use serde_json::json;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use tempfile::TempDir;

const TABLE: &str = "
    CREATE TABLE tasks (
        id INTEGER PRIMARY KEY, title VARCHAR(500) NOT NULL, description TEXT,
        user_id VARCHAR(128) NOT NULL, priority VARCHAR(16), due_date DATETIME,
        completed BOOLEAN NOT NULL, completed_at DATETIME, created_at DATETIME,
        updated_at DATETIME);
    INSERT INTO tasks VALUES
        (1, 'Say \"hi\"', 'two\nlines', 'ada', 'high', '2031-01-02 03:04:05.678900', 0, NULL,
         '2026-01-01 10:00:00.000000', '2026-01-01 10:00:00.000000'),
        (2, 'done', NULL, 'ada', NULL, NULL, 1, NULL,
         '2026-01-02 10:00:00', '2026-01-03 11:00:00'),
        (3, 'of bob', NULL, 'bob', 'low', NULL, 0, NULL, '2026-01-02 10:00:00', NULL);";

/// The command of docs/integration.md, as it stands there.
fn export(dir: &Path) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/integration.md");
    let docs = fs::read_to_string(docs).expect("the page");
    let command = docs.lines().find(|line| line.starts_with("sqlite3 todo.db ")).expect("there");
    let sqlite = |script: &str| {
        let status = Command::new("sh").args(["-c", script]).current_dir(dir).status();
        assert!(status.expect("sh runs").success(), "sqlite3 is needed (apt: sqlite3): {script}");
    };
    fs::write(dir.join("table.sql"), TABLE).expect("written");
    sqlite("sqlite3 todo.db < table.sql");
    sqlite(command);
}

fn import(daemon: &TestDaemon, file: &Path) -> Output {
    let bootstrap = daemon.kafka.to_string();
    let mut command = taskwire();
    command.arg("import").arg(file).args(["--bootstrap", &bootstrap]);
    command.output().expect("it runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_of_the_replaced_stack_is_brought_along_once() {
    let daemon = TestDaemon::start().await;
    let dir = TempDir::new().expect("a directory");
    export(dir.path());
    let (ada, bob) = (daemon.user("ada"), daemon.user("bob"));
    for _ in 0..2 {
        let output = import(&daemon, &dir.path().join("todo.jsonl"));
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, b"4 events -> task-events\n");
        assert_eq!(output.stderr, b"4 of 4 events\n");
        ada.tasks_when(2).await;
        assert_eq!(bob.tasks_when(1).await[0]["title"], "of bob");
    }
    let task = ada.task("1").await;
    assert_eq!(task["title"], "Say \"hi\"");
    assert_eq!(task["due_date"], "2031-01-02T03:04:05.678Z");
    assert_eq!(task["created_at"], "2026-01-01T10:00:00.000Z");
    assert_eq!((&task["priority"], &task["version"]), (&json!("high"), &json!(1)));
    let done = ada.task("2").await;
    assert_eq!(done["completed_at"], "2026-01-03T11:00:00.000Z");
    assert_eq!((&done["priority"], &done["version"]), (&json!("medium"), &json!(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_line_is_named_and_nothing_is_sent() {
    let daemon = TestDaemon::start().await;
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("x.jsonl");
    let good = r#"{"type":"task_created","data":{"id":"a","title":"x","user_id":"ada"}}"#;
    for (bad, expected) in [
        ("{", "line 3: not JSON"),
        (r#"{"type":"task_created","data":{"id":"b","user_id":"ada"}}"#, "line 3: title: missing"),
        (r#"{"type":"other","data":{"user_id":"ada"}}"#, "is no event of a task"),
    ] {
        fs::write(&file, format!("{good}\n\n{bad}\n")).expect("written");
        let output = import(&daemon, &file);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(expected), "{told}");
    }
    assert!(daemon.user("ada").tasks().await.is_empty());
    assert_eq!(import(&daemon, &dir.path().join("none")).status.code(), Some(2));
}
