//! A daemon without its Kafka port, a log in memory, and plain clients.

use crate::{
    apply,
    auth::{self, Authenticator},
    clock::Clock,
    feed::{
        EventLog, FeedBatch, FeedError, FeedItem, FeedRecord, OutboundRecord,
        inspect::{GroupView, Inspect, TopicView},
    },
    http::{Health, Http, Limits, Options, Parts, SocketLimits},
    hub::{self, Hub},
    metrics::Metrics,
    position::{Offset, Partition, RecordPosition, TopicName},
    shutdown::{self, Shutdown, Trigger},
    store::{self, Store, redb::RedbStore},
    task::UserId,
};
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::Value;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, tungstenite};

pub(super) const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// Deadline of every wait in these tests.
pub(in crate::http) const SOON: Duration = Duration::from_secs(20);

/// How the log behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LogMood {
    Good,
    Full,
    Unavailable,
    /// Takes records, and shows them to nobody.
    Held,
    /// Never answers a publish.
    Stuck,
}

/// One partition per topic, in memory.
pub(super) struct MemoryLog {
    topics: Mutex<HashMap<TopicName, Vec<FeedRecord>>>,
    mood: watch::Sender<LogMood>,
    appended: watch::Sender<u64>,
    clock: Clock,
}

impl MemoryLog {
    fn new(clock: Clock) -> Self {
        let (mood, appended) = (watch::Sender::new(LogMood::Good), watch::Sender::new(0));
        Self { topics: Mutex::default(), mood, appended, clock }
    }

    pub(super) fn set(&self, mood: LogMood) {
        self.mood.send_replace(mood);
    }

    /// The values of a topic, as JSON.
    pub(super) fn values(&self, topic: &str) -> Vec<Value> {
        let topics = self.topics.lock().unwrap();
        let records = topics.get(&TopicName::new(topic).unwrap());
        let values = records.into_iter().flatten().filter_map(|record| record.value.as_ref());
        values.map(|value| serde_json::from_slice(value).unwrap_or(Value::Null)).collect()
    }

    /// Waits until so many records have been appended since the start.
    pub(super) async fn appended(&self, count: u64) {
        let mut appended = self.appended.subscribe();
        let reached = appended.wait_for(|appended| *appended >= count);
        timeout(SOON, reached).await.unwrap().unwrap();
    }

    fn append(&self, record: OutboundRecord) -> RecordPosition {
        let mut topics = self.topics.lock().unwrap();
        let records = topics.entry(record.topic.clone()).or_default();
        let offset = Offset::new(i64::try_from(records.len()).unwrap()).unwrap();
        records.push(FeedRecord {
            offset,
            timestamp_ms: record.timestamp_ms.unwrap_or(self.clock.now_ms()),
            key: record.key,
            value: record.value,
            headers: record.headers,
        });
        drop(topics);
        self.appended.send_modify(|count| *count += 1);
        RecordPosition { topic: record.topic, partition: Partition::ZERO, offset }
    }

    fn end(&self, topic: &TopicName) -> Offset {
        let count = self.topics.lock().unwrap().get(topic).map_or(0, Vec::len);
        Offset::new(i64::try_from(count).unwrap()).unwrap()
    }

    fn records_from(&self, topic: &TopicName, from: Offset) -> Option<FeedBatch> {
        let topics = self.topics.lock().unwrap();
        let records = topics.get(topic)?;
        let items: Vec<_> =
            records.iter().skip(usize::try_from(from.get()).unwrap()).take(1_000).collect();
        let next = items.last()?.offset.next();
        let items = items.into_iter().cloned().map(FeedItem::Record).collect();
        Some(FeedBatch { items, next, leader_epoch: 0 })
    }
}

/// What it shows is tested with a whole daemon; here are only its doors.
impl Inspect for MemoryLog {
    fn topics(&self) -> Vec<TopicView> {
        Vec::new()
    }

    fn groups(&self, _max: usize) -> BoxFuture<'_, Result<(Vec<GroupView>, bool), FeedError>> {
        async { Err(FeedError::Unavailable) }.boxed()
    }

    fn offset_for_time<'a>(
        &'a self,
        _topic: &'a TopicName,
        _partition: Partition,
        _timestamp_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Offset>, FeedError>> {
        async { Ok(None) }.boxed()
    }

    fn read<'a>(
        &'a self,
        topic: &'a TopicName,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<FeedBatch, FeedError>> {
        EventLog::read(self, topic, partition, from, bytes_max)
    }
}

impl EventLog for MemoryLog {
    fn ensure_topic<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<u32, FeedError>> {
        self.topics.lock().unwrap().entry(topic.clone()).or_default();
        async { Ok(1) }.boxed()
    }

    fn partition_count(&self, _topic: &TopicName) -> u32 {
        1
    }

    fn publish(&self, record: OutboundRecord) -> BoxFuture<'_, Result<RecordPosition, FeedError>> {
        let mood = *self.mood.borrow();
        async move {
            match mood {
                LogMood::Full => Err(FeedError::Full),
                LogMood::Unavailable => Err(FeedError::Unavailable),
                LogMood::Stuck => std::future::pending().await,
                LogMood::Good | LogMood::Held => Ok(self.append(record)),
            }
        }
        .boxed()
    }

    fn publish_all(
        &self,
        records: Vec<OutboundRecord>,
    ) -> BoxFuture<'_, Result<Vec<RecordPosition>, FeedError>> {
        async move { Ok(records.into_iter().map(|record| self.append(record)).collect()) }.boxed()
    }

    fn read<'a>(
        &'a self,
        topic: &'a TopicName,
        _partition: Partition,
        from: Offset,
        _bytes_max: usize,
    ) -> BoxFuture<'a, Result<FeedBatch, FeedError>> {
        async move {
            let (mut appended, mut mood) = (self.appended.subscribe(), self.mood.subscribe());
            loop {
                mood.wait_for(|mood| *mood != LogMood::Held).await.expect("we hold the sender");
                appended.mark_unchanged();
                if let Some(batch) = self.records_from(topic, from) {
                    return Ok(batch);
                }
                appended.changed().await.expect("we hold the sender");
            }
        }
        .boxed()
    }

    fn bounds<'a>(
        &'a self,
        topic: &'a TopicName,
        _partition: Partition,
    ) -> BoxFuture<'a, Result<(Offset, Offset), FeedError>> {
        async move { Ok((Offset::ZERO, self.end(topic))) }.boxed()
    }

    fn sync<'a>(
        &'a self,
        _topic: &'a TopicName,
        _partition: Partition,
    ) -> BoxFuture<'a, Result<(), FeedError>> {
        async { Ok(()) }.boxed()
    }

    fn report_progress(&self, _: &TopicName, _: Partition, _: Offset, _: Offset) {}
}

/// What a test may change before the start.
pub(super) struct Setup {
    pub(super) http: Options,
    pub(super) is_development: bool,
    pub(super) mood: LogMood,
    pub(super) sessions_per_user_max: usize,
    pub(super) drain: Duration,
    pub(super) reasons: Vec<String>,
    pub(super) damages: Vec<String>,
    /// Records that are in the log before the start.
    pub(super) earlier: Vec<Value>,
    pub(super) clock: Clock,
    pub(super) due_soon: Option<Duration>,
}

/// The usual bounds, without rates.
pub(in crate::http) fn limits() -> Limits {
    Limits {
        body_bytes_max: 1 << 20,
        header_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(30),
        answer_timeout: Duration::from_secs(60),
        connections_max: 1_000,
        connections_per_address_max: None,
        rate_per_user: None,
        rate_per_address: None,
        auth_failures_per_address: None,
        socket: SocketLimits {
            rate: None,
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(5),
            lag_max: None,
        },
    }
}

impl Setup {
    fn usual() -> Self {
        Self {
            http: Options {
                topic: TopicName::new("task-events").unwrap(),
                write_timeout: SOON,
                limits: limits(),
                allow_origins: Vec::new(),
                protects_metrics: false,
            },
            is_development: false,
            mood: LogMood::Good,
            sessions_per_user_max: 100,
            drain: SOON,
            reasons: Vec::new(),
            damages: Vec::new(),
            earlier: Vec::new(),
            clock: Clock::system(),
            due_soon: None,
        }
    }
}

/// A running port 8000.
pub(in crate::http) struct Daemon {
    pub(in crate::http) http: Http,
    pub(super) address: SocketAddr,
    pub(super) log: Arc<MemoryLog>,
    pub(super) clock: Clock,
    pub(in crate::http) store: Arc<dyn Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
    trigger: Trigger,
    serving: JoinHandle<()>,
    _directory: TempDir,
}

pub(in crate::http) async fn start() -> Daemon {
    start_with(|_| ()).await
}

pub(super) async fn start_with(change: impl FnOnce(&mut Setup)) -> Daemon {
    let mut setup = Setup::usual();
    change(&mut setup);
    let topic = setup.http.topic.clone();
    let directory = tempfile::tempdir().unwrap();
    let clock = setup.clock.clone();
    let metrics = Arc::new(Metrics::new());
    let log = Arc::new(MemoryLog::new(clock.clone()));
    let feed: Arc<dyn EventLog> = log.clone();
    for value in &setup.earlier {
        let value = Some(Bytes::from(value.to_string()));
        let headers = Vec::new();
        let topic = topic.clone();
        let (partition, timestamp_ms, key) = (None, None, None);
        log.append(OutboundRecord { topic, partition, timestamp_ms, key, value, headers });
    }
    log.set(setup.mood);
    let store = open_store(&directory);
    let hub = Hub::new(
        hub::Options {
            recent_changes_max: 1_000,
            recent_bytes_max: 1 << 20,
            sessions_per_user_max: setup.sessions_per_user_max,
            sessions_max: 10_000,
        },
        Arc::clone(&store),
        Arc::clone(&metrics),
    );
    let (trigger, shutdown) = shutdown::pair();
    let (applied, _) = apply::start(
        apply::Options {
            topic,
            starts_at_latest: false,
            waiting_timeout: Duration::from_secs(600),
            due_soon: setup.due_soon,
            checkpoint_records: 10_000,
            checkpoint_interval: Duration::from_secs(5),
        },
        Arc::clone(&feed),
        Arc::clone(&store),
        hub.clone(),
        clock.clone(),
        Arc::clone(&metrics),
        shutdown.clone(),
    );
    let authenticator = Authenticator::new(
        auth::Options {
            secret: SECRET.to_vec(),
            jwks: None,
            is_development: setup.is_development,
            audience: None,
            issuer: None,
        },
        clock.clone(),
        Arc::clone(&metrics),
    );
    let (reasons, damages) = (setup.reasons.clone(), setup.damages.clone());
    let parts = Parts {
        authenticator,
        store: Arc::clone(&store),
        feed,
        applied: applied.clone(),
        hub,
        clock: clock.clone(),
        metrics: Arc::clone(&metrics),
        health: Arc::new(move || Health { failures: reasons.clone(), damages: damages.clone() }),
        inspect: log.clone(),
        backup: Arc::new(|_| Box::pin(async { Err("no backups here".to_owned()) })),
    };
    let http = Http::new(setup.http, parts);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let drain = setup.drain;
    let serving = {
        let (http, shutdown) = (http.clone(), shutdown.clone());
        tokio::spawn(async move { http.serve(tcp, shutdown, drain).await })
    };
    if setup.mood == LogMood::Good {
        let mut progress = applied.progress();
        let caught_up = progress.wait_for(|progress| progress.is_caught_up);
        timeout(SOON, caught_up).await.unwrap().unwrap();
    }
    let _directory = directory;
    Daemon { address, log, clock, store, metrics, http, shutdown, trigger, serving, _directory }
}

fn open_store(directory: &TempDir) -> Arc<dyn Store> {
    let options = store::redb::Options {
        dedup_window: (Duration::from_secs(3_600), 10_000),
        changes_keep: (Duration::from_secs(3_600), 10_000),
        cache_bytes: 1 << 20,
        is_log_synced: true,
    };
    Arc::new(RedbStore::open(&directory.path().join("tasks.redb"), options).unwrap())
}

impl Daemon {
    pub(super) fn token(&self, user: &str) -> String {
        self.token_for(user, 3_600)
    }

    pub(super) fn token_for(&self, user: &str, ttl_s: u64) -> String {
        let user_id = UserId::new(user).unwrap();
        auth::sign(SECRET, auth::Grant::new(&user_id, ttl_s), &self.clock)
    }

    /// Begins the stop.
    pub(super) fn stop(&self) {
        self.trigger.fire();
    }

    /// Waits for the end of the drain.
    pub(super) async fn stopped(self) {
        timeout(SOON, self.serving).await.unwrap().unwrap();
    }

    /// A request as `user`, with a JSON body if there is one.
    pub(super) async fn call(&self, user: &str, line: &str, body: &str) -> Reply {
        let authorization = format!("Bearer {}", self.token(user));
        self.request(line, &[("authorization", &authorization)], body).await
    }

    /// A request as `user` with more headers.
    pub(super) async fn call_with(
        &self,
        user: &str,
        line: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let authorization = format!("Bearer {}", self.token(user));
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend_from_slice(headers);
        self.request(line, &all, body).await
    }

    /// A request: `line` is method and target.
    pub(super) async fn request(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut text = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
        let has = |wanted: &str| headers.iter().any(|(name, _)| *name == wanted);
        if !has("host") {
            text.push_str("host: localhost\r\n");
        }
        if !body.is_empty() {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
            if !has("content-type") {
                text.push_str("content-type: application/json\r\n");
            }
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        self.raw(&[text.as_bytes(), body.as_bytes()].concat()).await
    }

    /// Raw bytes on a connection of their own, and all that comes back.
    pub(super) async fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The answer to a body that is too long comes before all of it was taken.
        drop(stream.write_all(bytes).await);
        let mut answer = Vec::new();
        drop(timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an answer in time"));
        Reply::parse(&answer)
    }

    /// Opens a WebSocket; `Err` is the status of a refusal.
    pub(super) async fn socket(&self, target: &str) -> Result<Client, u16> {
        self.socket_with(target, &[]).await
    }

    pub(super) async fn socket_with(
        &self,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Client, u16> {
        let mut request = ::http::Request::builder()
            .uri(format!("ws://localhost{target}"))
            .header("host", "localhost")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        let opened = tokio_tungstenite::client_async(request.body(()).unwrap(), stream);
        match timeout(SOON, opened).await.expect("an answer in time") {
            Ok((socket, _)) => Ok(Client(socket)),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// A WebSocket of a user.
    pub(super) async fn socket_of(&self, user: &str) -> Client {
        self.socket(&format!("/ws/tasks?token={}", self.token(user))).await.unwrap()
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return Self::default() };
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or("0");
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status.parse().unwrap(),
            headers: headers.map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect(),
            body: body.to_owned(),
        }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// `status code pointer` of a problem, `status` of anything else.
    pub(super) fn outcome(&self) -> String {
        if self.header("content-type") != "application/problem+json" {
            return self.status.to_string();
        }
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        let text = |name: &str| problem[name].as_str().unwrap_or("").to_owned();
        format!("{} {} {}", self.status, text("code"), text("pointer")).trim().to_owned()
    }
}

/// A WebSocket client.
pub(super) struct Client(pub(super) WebSocketStream<TcpStream>);

impl Client {
    pub(super) async fn send(&mut self, message: tungstenite::Message) {
        futures_util::SinkExt::send(&mut self.0, message).await.unwrap();
    }

    /// The next message that is not a ping.
    pub(super) async fn next(&mut self) -> tungstenite::Message {
        loop {
            let next = futures_util::StreamExt::next(&mut self.0);
            let message = timeout(SOON, next).await.expect("a message in time");
            match message.expect("the socket is open").expect("a good frame") {
                tungstenite::Message::Ping(_) => (),
                message => return message,
            }
        }
    }

    /// The next message, as JSON.
    pub(super) async fn json(&mut self) -> Value {
        match self.next().await {
            tungstenite::Message::Text(text) => serde_json::from_str(text.as_str()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The close code that comes next.
    pub(super) async fn close_code(&mut self) -> u16 {
        match self.next().await {
            tungstenite::Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("{other:?}"),
        }
    }
}
