//! Every way to follow one's tasks: `taskwire.v1`, server-sent events and long polls.

use crate::support::{
    SECRET, TestDaemon, created,
    follow::{EventStream, Stream, Transport, is_change},
    kafka,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

const ALL: [Transport; 3] = [Transport::Socket, Transport::Events, Transport::Changes];

const EVENTS: usize = 3_000;
const RESTARTS: usize = 3;
/// A restart comes after each part but the last two.
const PART: usize = EVENTS / (RESTARTS + 2);

/// From a 200 of `/readyz` after a restart until a client that tries all the time is back.
const BACK_MAX: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_back_after_a_kill_miss_nothing_and_see_nothing_twice() {
    survives(async |daemon| daemon.kill()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_back_after_a_stop_miss_nothing_and_see_nothing_twice() {
    survives(async |daemon| {
        let status = daemon.terminate();
        assert!(status.success(), "{status}\n{}", daemon.log());
    })
    .await;
}

/// What one client has seen.
struct Told {
    ids: Vec<String>,
    /// When it was connected, or answered.
    connected: Vec<Instant>,
}

#[allow(clippy::print_stdout, reason = "its counts are looked at")]
async fn survives(end: impl AsyncFn(&mut TestDaemon)) {
    let mut daemon = TestDaemon::start().await;
    let clients = ALL.map(|transport| {
        let (http, token) = (daemon.http, daemon.token("ada"));
        tokio::spawn(follow(transport, http, token))
    });
    // No client may have all of it before it has come back from the last end.
    let (allow, allowed) = watch::channel(2 * PART);
    let producer = tokio::spawn(kafka::produce_numbered(daemon.kafka, EVENTS, allowed));
    let mut restarts = Vec::new();
    for round in 1..=RESTARTS {
        // In mid-stream: when a part of all events is applied.
        while daemon.user("ada").tasks().await.len() < PART * round {}
        end(&mut daemon).await;
        let ended = Instant::now();
        daemon.restart().await;
        restarts.push((ended, Instant::now()));
        allow.send_replace(PART * (round + 2));
    }
    producer.await.expect("the producer ends");
    let expected: Vec<String> = (0..EVENTS).map(|number| format!("t{number}")).collect();
    for (client, transport) in clients.into_iter().zip(ALL) {
        let told = client.await.expect("a client ends");
        assert_eq!(told.ids, expected, "{transport:?}: each once, and in order");
        let mut backs = Vec::new();
        for (ended, ready) in &restarts {
            let connected = told.connected.iter().find(|at| *at > ended);
            let connected = connected.expect("it came back after each");
            let back = connected.saturating_duration_since(*ready);
            assert!(back < BACK_MAX, "{transport:?}: back after {back:?}");
            backs.push(back);
        }
        println!(
            "{transport:?}: {EVENTS} changes over {} connections, 0 missed, 0 twice; back {backs:.0?} \
             after the daemon was ready",
            told.connected.len(),
        );
    }
}

/// Follows until all events came, and comes back whenever it must.
async fn follow(transport: Transport, http: SocketAddr, token: String) -> Told {
    let mut told = Told { ids: Vec::new(), connected: Vec::new() };
    let mut position = "earliest".to_owned();
    while told.ids.len() < EVENTS {
        let mut stream = match transport.open(http, &token, &position).await {
            Ok(stream) => stream,
            Err(None | Some(503)) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            Err(Some(status)) => panic!("{transport:?} was refused: {status}"),
        };
        told.connected.push(Instant::now());
        while told.ids.len() < EVENTS
            && let Some(document) = stream.next().await
        {
            assert_ne!(document["type"], "resync", "{transport:?}");
            if let Some(at) = document["pos"].as_str() {
                position = at.to_owned();
            }
            if is_change(&document) {
                told.ids.push(document["data"]["id"].as_str().expect("an id").to_owned());
            }
        }
    }
    told
}

/// A list as a client keeps it: it fails at a gap and at an overlap.
#[derive(Default)]
struct List {
    /// By task: its version and title; of a deleted one the version.
    tasks: BTreeMap<String, (u64, Option<Value>)>,
    parts: Vec<Value>,
    has_snapshot: bool,
    is_live: bool,
}

impl List {
    fn take(&mut self, document: &Value) {
        let data = &document["data"];
        match document["type"].as_str().expect("a type") {
            "hello" => (),
            "live" => self.is_live = true,
            "snapshot" => {
                assert!(!self.has_snapshot, "one snapshot");
                self.parts.extend(data["tasks"].as_array().expect("tasks").iter().cloned());
                self.has_snapshot = data["more"] == false;
                if self.has_snapshot {
                    for task in std::mem::take(&mut self.parts) {
                        self.tasks.insert(id(&task), (version(&task), Some(task)));
                    }
                }
            }
            kind => {
                assert!(self.has_snapshot, "no change comes before the tasks");
                let task = (kind != "task_deleted").then(|| data.clone());
                let before = self.tasks.insert(id(data), (version(data), task));
                let known = before.map_or(0, |(version, _)| version);
                assert_eq!(version(data), known + 1, "{kind}: neither a gap nor an overlap");
            }
        }
    }

    fn present(&self) -> Vec<&Value> {
        self.tasks.values().filter_map(|(_, task)| task.as_ref()).collect()
    }
}

fn id(task: &Value) -> String {
    task["id"].as_str().expect("an id").to_owned()
}

fn version(task: &Value) -> u64 {
    task["version"].as_u64().expect("a version")
}

/// Creates, changes and deletes for a while.
async fn write(kafka: SocketAddr, writer: usize) {
    let mut client = kafka::KafkaClient::connect(kafka).await;
    for round in 0..60 {
        let task = format!("w{writer}-{round}");
        let mut events =
            vec![created(&task, "ada", "x"), created(&task.replace('w', "b"), "bob", "x")];
        for number in 0..3 {
            let data = json!({"id": task, "title": format!("{number}")});
            events.push(json!({"type": "task_updated", "data": data}));
        }
        if round % 3 == 0 {
            events.push(json!({"type": "task_deleted", "data": {"id": task}}));
        }
        let values: Vec<String> = events.iter().map(Value::to_string).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let answer = client.try_produce("task-events", &kafka::plain_batch(&values)).await;
        assert_eq!(answer.expect("an answer").error_code, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_its_tail_have_no_gap_and_no_overlap_while_many_write() {
    let daemon = TestDaemon::start().await;
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        writers.spawn(write(daemon.kafka, writer));
    }
    let mut joins: Vec<JoinHandle<(List, Stream)>> = Vec::new();
    let token = daemon.token("ada");
    for number in 0..40 {
        let transport = [Transport::Socket, Transport::Events][number % 2];
        let mut stream = transport.open(daemon.http, &token, "snapshot").await.expect("open");
        // So that they are spread over the writes.
        let mut list = List::default();
        list.take(&stream.next().await.expect("hello"));
        joins.push(tokio::spawn(async move {
            while !list.is_live {
                list.take(&stream.next().await.expect("not the end"));
            }
            (list, stream)
        }));
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("a writer ends");
    }
    // One partition: what is answered now is applied after all the rest.
    daemon.user("ada").post("/api/tasks", &json!({"title": "the last"})).await;
    let mut expected = daemon.user("ada").tasks().await;
    expected.sort_by_key(id);
    assert_eq!(expected.len(), 6 * 40 + 1);
    for join in joins {
        let (mut list, mut stream) = join.await.expect("a client ends");
        while !list.present().iter().any(|task| task["title"] == "the last") {
            list.take(&stream.next().await.expect("not the end"));
        }
        assert_eq!(list.present(), expected.iter().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn another_users_position_gives_only_the_callers_changes() {
    let daemon = TestDaemon::start().await;
    daemon.produce(&[created("a1", "ada", "secret"), created("b1", "bob", "x")]).await;
    daemon.produce(&[created("a2", "ada", "secret"), created("b2", "bob", "x")]).await;
    daemon.user("bob").tasks_when(2).await;
    let first = daemon.socket_from("ada", "earliest").await.next().await;
    let of_ada = first["pos"].as_str().expect("a position");
    for transport in ALL {
        for from in [of_ada, "earliest"] {
            let mut stream =
                transport.open(daemon.http, &daemon.token("bob"), from).await.expect("open");
            let changes = match transport {
                Transport::Changes => {
                    vec![stream.next().await.expect("one"), stream.next().await.expect("two")]
                }
                _ => stream.up_to_live().await.into_iter().filter(is_change).collect(),
            };
            let ids: Vec<String> = changes.iter().map(|change| id(&change["data"])).collect();
            assert_eq!(ids, ["b1", "b2"], "{transport:?} from {from}");
        }
    }
    let mut snapshot = EventStream::open(
        daemon.http,
        &format!("token={}&from=snapshot&user=ada", daemon.token("bob")),
    )
    .await
    .map(Stream::Events)
    .expect("open");
    let documents = snapshot.up_to_live().await;
    assert!(!Value::from(documents).to_string().contains("secret"));
}

#[tokio::test]
async fn a_daemon_that_cannot_check_a_token_closes_with_4500() {
    // Nobody listens there.
    let flags = ["--jwt-jwks", "https://127.0.0.1:9/jwks.json"];
    let variables = [("TASKWIRE_JWT_SECRET", "")];
    let daemon = TestDaemon::start_in(&flags, &variables).await;
    let mut socket = daemon.try_socket("").await.expect("an upgrade");
    let signer = crate::support::forge::Signer::hmac(SECRET.as_bytes());
    let token = signer.token(&json!({"alg": "RS256"}), &json!({"sub": "ada"}));
    socket.send(&json!({"type": "auth", "data": {"token": token}}).to_string()).await;
    assert_eq!(socket.close_code().await, Some(4500));
}

#[tokio::test]
async fn tickets_are_in_no_log() {
    let daemon = TestDaemon::start_with(&["--log", "trace"]).await;
    let ada = daemon.user("ada");
    let answer = ada.post("/api/ws-tickets", &json!({})).await;
    assert_eq!(answer.status, 201);
    let answer = answer.json();
    let ticket = answer["ticket"].as_str().expect("a ticket");
    for _ in 0..2 {
        drop(daemon.try_socket(&format!("ticket={ticket}")).await);
        drop(EventStream::open(daemon.http, &format!("ticket={ticket}")).await);
    }
    assert!(!daemon.log().contains(ticket));
}
