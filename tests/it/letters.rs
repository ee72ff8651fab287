//! Dead letters as an administrator meets them: by command line and REST, across kills.

use crate::{
    admin::{run, stdout},
    support::{TestDaemon, created, eventually, http::User, kafka, with_event_id},
};
use bytes::Bytes;
use hyper::{Method, Request, header::CONTENT_TYPE};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, process::Output, time::Duration};

/// Runs `taskwire dlq`.
fn dlq(daemon: &TestDaemon, arguments: &[&str]) -> Output {
    run(&daemon.data_dir(), &[&["dlq"], arguments].concat())
}

fn json_lines(output: &Output) -> Vec<Value> {
    let text = stdout(output);
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn letters(daemon: &TestDaemon) -> Vec<Value> {
    json_lines(&dlq(daemon, &["ls", "--json"]))
}

async fn letters_when(daemon: &TestDaemon, count: usize) -> Vec<Value> {
    eventually(&format!("{count} letters"), async || {
        let letters = letters(daemon);
        assert!(letters.len() <= count, "{} letters, expected {count}", letters.len());
        (letters.len() == count).then_some(letters)
    })
    .await
}

fn admin(daemon: &TestDaemon) -> User {
    let token = stdout(&run(&daemon.data_dir(), &["token", "--user", "root", "--admin"]));
    daemon.with_token(Some(token.trim()))
}

#[tokio::test]
async fn a_letter_is_listed_shown_mended_and_redriven_once() {
    let mut daemon = TestDaemon::start().await;
    let bad = r#"{"type":"task_created","event_id":"e1","data":{"id":"t1","title":"no user"}}"#;
    let mut client = daemon.kafka_client().await;
    client.produce("task-events", &[bad.into(), "second".into()]).await;
    let found = letters_when(&daemon, 2).await;
    assert_eq!((&found[0]["id"], &found[0]["state"]), (&json!("0-0"), &json!("open")));
    assert_eq!(
        (&found[0]["reason"], &found[0]["event_id"]),
        (&json!("missing_user"), &json!("e1"))
    );
    let listed = stdout(&dlq(&daemon, &["ls", "--reason", "missing_user"]));
    assert!(listed.contains("0-0") && !listed.contains("0-1"), "{listed}");
    assert_eq!(stdout(&dlq(&daemon, &["show", "0-0", "--value"])), bad);
    let shown = stdout(&dlq(&daemon, &["show", "0-0"]));
    assert!(shown.contains("missing_user") && shown.contains("task-events/0/0"), "{shown}");

    let again = stdout(&dlq(&daemon, &["redrive", "0-0"]));
    assert!(again.contains("a dead letter again: missing_user"), "{again}");
    letters_when(&daemon, 3).await;
    let mended = daemon.data_dir().join("mended.json");
    fs::write(&mended, bad.replace("no user\"", "mended\",\"user_id\":\"ada\"")).expect("written");
    for _ in 0..2 {
        let text = stdout(&dlq(&daemon, &["redrive", "0-0", "--value", &mended.to_string_lossy()]));
        assert!(text.contains("0-0 is redriven as task-events/0/") && text.ends_with("applied\n"));
        daemon.kill_and_restart().await;
    }
    let task = daemon.user("ada").task("t1").await;
    assert_eq!((&task["title"], &task["version"]), (&json!("mended"), &json!(1)));

    stdout(&dlq(&daemon, &["dismiss", "0-1"]));
    daemon.kill_and_restart().await;
    let states = |letters: Vec<Value>| -> Vec<String> {
        letters.iter().map(|letter| letter["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states(letters(&daemon)), ["redriven", "dismissed", "open"]);
    let open = json_lines(&dlq(&daemon, &["ls", "--json", "--state", "open"]));
    assert_eq!(open.len(), 1);
    let metrics = daemon.with_token(None).get("/metrics").await;
    let metrics = String::from_utf8(metrics.bytes.to_vec()).expect("text");
    assert!(metrics.contains("taskwire_dead_letters_open 1\n"), "{metrics}");
    assert_eq!(daemon.with_token(None).get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_letter_whose_row_is_damaged_is_listed_as_such_and_verify_names_it() {
    const LETTERS: redb::TableDefinition<'static, (&str, i32, i64), &[u8]> =
        redb::TableDefinition::new("letters");
    let mut daemon = TestDaemon::start().await;
    let values: Vec<Bytes> = (0..3).map(|number| format!("bad {number}").into()).collect();
    daemon.kafka_client().await.produce("task-events", &values).await;
    letters_when(&daemon, 3).await;
    assert!(daemon.terminate().success());
    let path = daemon.data_dir().join("tasks.redb");
    let database = redb::Database::open(&path).expect("opened");
    let transaction = database.begin_write().expect("begun");
    let mut table = transaction.open_table(LETTERS).expect("there");
    table.insert(("task-events.dlq", 0, 1), &b"no letter"[..]).expect("written");
    drop(table);
    transaction.commit().expect("committed");
    drop(database);
    let verified = run(&daemon.data_dir(), &["verify"]);
    let text = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(!verified.status.success() && text.contains("table letters is damaged"), "{text}");
    daemon.restart().await;
    let states = letters(&daemon).into_iter().map(|letter| letter["state"].clone());
    assert_eq!(states.collect::<Vec<_>>(), ["open", "damaged", "open"]);
    let listed = stdout(&dlq(&daemon, &["ls"]));
    let line = listed.lines().nth(2).expect("three letters").to_owned();
    assert!(line.starts_with("0-1 ") && line.contains("table letters is damaged"), "{listed}");
}

#[tokio::test]
async fn rest_does_what_the_command_line_does() {
    let daemon = TestDaemon::start().await;
    let values: Vec<Bytes> = (0..5).map(|number| format!("bad {number}").into()).collect();
    daemon.kafka_client().await.produce("task-events", &values).await;
    letters_when(&daemon, 5).await;
    let admin = admin(&daemon);
    let path = "/api/admin/dead-letters";
    for (method, path) in [
        (Method::GET, path.to_owned()),
        (Method::GET, format!("{path}/0-0")),
        (Method::POST, format!("{path}/0-0/redrive")),
        (Method::POST, format!("{path}/0-0/dismiss")),
        (Method::POST, format!("{path}/redrive?all=true")),
        (Method::GET, "/api/admin/waiting".to_owned()),
    ] {
        let send = async |user: &User| {
            let request = Request::builder().method(method.clone()).uri(&path);
            user.send(request, Bytes::new()).await
        };
        assert_eq!(send(&daemon.with_token(None)).await.status, 401, "{method} {path}");
        let refused = send(&daemon.user("ada")).await;
        assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("admin_required")));
    }
    let first = admin.get(&format!("{path}?limit=2&state=open")).await;
    assert_eq!(first.json().as_array().expect("an array").len(), 2);
    assert!(first.header("link").contains("cursor=0-1"), "{:?}", first.headers);
    for (target, status, code) in [
        (format!("{path}?state=odd"), 400, "invalid_parameter"),
        (format!("{path}?reason=odd"), 400, "invalid_parameter"),
        (format!("{path}?cursor=odd"), 400, "invalid_cursor"),
        (format!("{path}/0-99"), 404, "letter_not_found"),
        (format!("{path}/odd"), 404, "letter_not_found"),
    ] {
        let answer = admin.get(&target).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{target}");
    }
    let request = Request::post(format!("{path}/0-0/redrive"))
        .header(CONTENT_TYPE, "application/octet-stream");
    let mended = created("t", "ada", "mended").to_string();
    let answer = admin.send(request, mended.into()).await;
    assert_eq!(answer.json()["outcome"], "applied", "{:?}", answer.bytes);
    let answer = admin.post(&format!("{path}/0-1/dismiss"), &json!({})).await;
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("dismissed")));
    let answer = admin.post(&format!("{path}/0-0/dismiss"), &json!({})).await;
    assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("letter_redriven")));
    for query in ["", "?all=false", "?all=null&reason=missing_user", "?all=1"] {
        let answer = admin.post(&format!("{path}/redrive{query}"), &json!({})).await;
        assert_eq!(answer.status, 400, "{query}");
    }
    let answer = admin.post(&format!("{path}/redrive?all=true"), &json!({})).await;
    assert_eq!(answer.json(), json!({"redriven": 3, "skipped": 0, "next": null}));
    letters_when(&daemon, 8).await;
}

/// Poisoned records in mid-stream, and kills at any moment: each becomes one letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_every_poisoned_record_is_one_letter() {
    const ROUNDS: u64 = 12;
    let mut daemon = TestDaemon::start().await;
    let (mut poisoned, mut good) = (BTreeMap::new(), 0);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..ROUNDS {
        let mut client = daemon.kafka_client().await;
        for batch in 0..20 {
            let values: Vec<Bytes> = (0..10)
                .map(|number| match number % 3 {
                    0 => format!("poison {round} {batch} {number}").into(),
                    1 => format!(r#"{{"type":"task_created","data":{{"id":"{round}-{batch}"}}}}"#)
                        .into(),
                    _ => with_event_id(
                        created(&format!("{round}-{batch}-{number}"), "ada", "x"),
                        &format!("{round}-{batch}-{number}"),
                    )
                    .to_string()
                    .into(),
                })
                .collect();
            let base = client.produce("task-events", &values).await;
            for (value, offset) in values.into_iter().zip(base..) {
                let is_good = value.windows(7).any(|part| part == b"user_id");
                if is_good {
                    good += 1;
                } else {
                    poisoned.insert(offset, value);
                }
            }
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        tokio::time::sleep(Duration::from_micros(random >> 50)).await; // any moment will do
        daemon.kill();
        if round % 2 == 1 {
            daemon.launch(); // and killed while it recovers, perhaps
            tokio::time::sleep(Duration::from_micros(random >> 46)).await;
            daemon.kill();
        }
        daemon.restart().await;
    }
    daemon.user("ada").tasks_when(good).await;
    let listed = letters_when(&daemon, poisoned.len()).await;
    let records = daemon.kafka_client().await.fetch_all("task-events.dlq").await;
    assert_eq!(records.len(), poisoned.len(), "each is on the topic once");
    let mut left = poisoned.clone();
    for record in &records {
        let offset: i64 =
            kafka::header(record, "taskwire-source-offset").parse().expect("a number");
        assert_eq!(left.remove(&offset), record.value, "offset {offset}");
    }
    assert!(left.is_empty());
    let sources: BTreeMap<i64, &Value> = listed
        .iter()
        .map(|letter| (letter["source"]["offset"].as_i64().expect("a number"), letter))
        .collect();
    assert!(sources.keys().eq(poisoned.keys()), "and in the list once");
}

#[tokio::test]
async fn nobody_forges_a_letter() {
    let daemon = TestDaemon::start().await;
    let mut client = daemon.kafka_client().await;
    let forged = kafka::plain_batch(&["forged"]);
    let answer = client.try_produce("task-events.dlq", &forged).await.expect("an answer");
    assert_eq!(answer.error_code, 29, "TOPIC_AUTHORIZATION_FAILED");
    client.produce("task-events", &["real".into()]).await;
    letters_when(&daemon, 1).await;
    assert_eq!(client.fetch_all("task-events.dlq").await.len(), 1);
}
