//! What the steps share: clients, ids that no other run has, and waiting for a fact.

use super::Outcome;
use crate::{
    auth,
    cli::{
        Failure,
        http_client::{Answer, Base, HttpClient},
        ws_client::{Incoming, WsClient},
    },
    clock::Clock,
    config::{Config, Secret},
    position::TopicName,
    task::UserId,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// Longest wait for one fact.
pub(super) const FACT_TIMEOUT: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const TOKEN_TTL_S: u64 = 600;

/// A daemon under test.
pub(super) struct Bench {
    pub(super) base: Base,
    pub(super) topic: TopicName,
    pub(super) bootstrap: String,
    pub(super) is_development: bool,
    config: Config,
    secret: Secret,
    run: String,
}

impl Bench {
    /// `config` is that of the daemon.
    pub(super) fn new(base: Base, bootstrap: String, config: Config) -> Result<Self, Failure> {
        let run = Uuid::new_v4().simple().to_string();
        Ok(Self {
            base,
            topic: config.topic.clone(),
            bootstrap,
            is_development: false,
            secret: config.existing_secret()?,
            config,
            run: run[..12].to_owned(),
        })
    }

    pub(super) fn in_development(mut self, is_development: bool) -> Self {
        self.is_development = is_development;
        self
    }

    /// A user that only this run has.
    pub(super) fn user(&self, name: &str) -> String {
        format!("selftest-{}-{name}", self.run)
    }

    /// A task id that nobody else has.
    pub(super) fn id(&self) -> String {
        Uuid::new_v4().to_string()
    }

    pub(super) fn token(&self, user: &str) -> String {
        let user = UserId::new(user).expect("made by `user`: short and plain");
        let grant = self.config.grant(&user, TOKEN_TTL_S);
        auth::sign(self.secret.expose(), grant, &Clock::system())
    }

    pub(super) fn http(&self, user: &str) -> HttpClient {
        HttpClient::new(self.base.clone(), Some(self.token(user)))
    }

    /// Opens a WebSocket as a user; `query` may be empty.
    pub(super) async fn socket(&self, user: &str, query: &str) -> Result<WsClient, String> {
        let path = format!("/ws/tasks{query}");
        let opened = WsClient::connect(&self.base, &path, Some(&self.token(user))).await;
        opened.map_err(|error| format!("WebSocket: {error}"))
    }

    /// Alive at once, ready in time.
    pub(super) async fn is_ready(&self) -> Outcome {
        let http = HttpClient::new(self.base.clone(), None);
        status(&http.get("/healthz").await?, StatusCode::OK, "GET /healthz")?;
        eventually("GET /readyz answers 200", || async {
            http.get("/readyz").await.ok().filter(|answer| answer.status == StatusCode::OK)
        })
        .await
        .map(drop)
    }

    /// Sends `{"type": ..., "data": ...}` to the topic, as any Kafka producer would.
    pub(super) async fn send(&self, event_type: &str, data: Value) -> Outcome {
        let key = data["id"].as_str().unwrap_or_default().to_owned();
        let value = json!({"type": event_type, "data": data}).to_string();
        self.produce(&key, value.as_bytes(), &[]).await
    }

    /// Creates a task by REST and returns its id.
    pub(super) async fn created_by_rest(
        &self,
        http: &HttpClient,
        title: &str,
    ) -> Result<String, String> {
        let body = json!({"title": title});
        let answer = http.request(Method::POST, "/api/tasks", Some(&body), &[]).await?;
        status(&answer, StatusCode::CREATED, "POST /api/tasks")?;
        let task = answer.json();
        task["id"].as_str().map(str::to_owned).ok_or_else(|| format!("no id in {task}"))
    }

    /// The task as its owner reads it now.
    pub(super) async fn task(&self, http: &HttpClient, id: &str) -> Result<Value, String> {
        let answer = http.get(&format!("/api/tasks/{id}")).await?;
        status(&answer, StatusCode::OK, "GET /api/tasks/{id}")?;
        Ok(answer.json())
    }

    /// Waits until the task reads as wanted.
    pub(super) async fn task_when(
        &self,
        http: &HttpClient,
        id: &str,
        what: &str,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, String> {
        let is_wanted = &is_wanted;
        eventually(what, || async { self.task(http, id).await.ok().filter(|task| is_wanted(task)) })
            .await
    }
}

/// Looks until there is something to see, for [`FACT_TIMEOUT`].
pub(super) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    look: impl Fn() -> F,
) -> Result<T, String> {
    let deadline = Instant::now() + FACT_TIMEOUT;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if deadline <= Instant::now() {
            return Err(format!("waited {FACT_TIMEOUT:?} for: {what}"));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// The next message of a socket that is no answer to a ping.
pub(super) async fn message(socket: &mut WsClient) -> Result<Value, String> {
    match timeout(FACT_TIMEOUT, socket.next()).await {
        Ok(Incoming::Text(text)) => {
            serde_json::from_str(&text).map_err(|error| format!("no JSON ({error}): {text}"))
        }
        Ok(other) => Err(format!("a message was expected, came {other:?}")),
        Err(_) => Err(format!("no message within {FACT_TIMEOUT:?}")),
    }
}

/// Sends `ping` and takes messages up to its answer.
pub(super) async fn messages_to_pong(socket: &mut WsClient) -> Result<Vec<Value>, String> {
    socket.send("ping").await?;
    let mut messages = Vec::new();
    loop {
        let message = message(socket).await?;
        if message["type"] == "pong" {
            return Ok(messages);
        }
        messages.push(message);
    }
}

/// The answer has this status.
pub(super) fn status(answer: &Answer, expected: StatusCode, what: &str) -> Outcome {
    if answer.status == expected {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&answer.body);
    let body: String = body.chars().take(300).collect();
    Err(format!("{what}: expected {expected}, came {}: {body}", answer.status))
}

/// The field has this value.
pub(super) fn field(value: &Value, name: &str, expected: impl Into<Value>) -> Outcome {
    let expected = expected.into();
    if value[name] == expected {
        return Ok(());
    }
    Err(format!("{name}: expected {expected}, came {} in {value}", value[name]))
}

/// It holds.
pub(super) fn holds(fact: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if fact { Ok(()) } else { Err(otherwise()) }
}
