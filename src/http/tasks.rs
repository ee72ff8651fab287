//! `/api/tasks`: every write is an event, and is answered when apply has decided it.
//!
//! The store's snapshot gives the cheap answers (404, 403, 412); the log has the last word.

use super::{
    POSITION_HEADER, State, batch, body,
    extract::{Caller, Headers, Reader, TaskPath, Versions},
    problem::{Code, Problem},
};
use crate::{
    feed::OutboundRecord,
    store::Outcome,
    task::{
        Task, TaskId, UserId,
        event::{Action, EventBody, EventId, NewTask, TaskEvent, TaskPatch},
        field::{self, FieldError, Fields},
    },
};
use axum::{
    body::Body,
    extract::State as AxumState,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use std::{fmt::Write as _, sync::Arc};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

/// Longest `Idempotency-Key` in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The name space of the ids that derive from a user and an `Idempotency-Key`.
pub(super) const KEY_SPACE: Uuid = Uuid::from_u128(0x5f6b_1a0e_2f1c_4d58_9f0c_6b1d_7a3e_9c42);

pub(super) type Answer = Result<Response<Body>, Problem>;

/// `POST /api/tasks`
pub(super) async fn create(
    AxumState(state): AxumState<Arc<State>>,
    Caller(caller): Caller,
    Headers(headers): Headers,
    body: Body,
) -> Answer {
    let body = body::read(&headers, body, body::JSON, &state.options.limits).await?;
    let key = idempotency_key(&headers)?;
    if batch::is_array(&body) {
        return batch::create(&state, &caller.user_id, key, &body).await;
    }
    let ids = NewIds::of(key, &caller.user_id);
    let new_task = new_task(&body, ids.task_id.clone(), &caller.user_id)?;
    let event = TaskEvent::new(ids.event_id.clone(), None, EventBody::Created(new_task));
    let known = if ids.is_keyed { known_decision(&state, &event).await? } else { None };
    let decision = match known {
        Some(decision) => decision,
        None => publish(&state, &event).await?,
    };
    let location = location(&ids.task_id);
    match decision.settle(true)? {
        Settled::Applied => {
            let read = read_back(&state, &caller.user_id, &ids.task_id, StatusCode::CREATED);
            let mut response = read.await?.ok_or(Problem::new(Code::TaskDeleted))?;
            response.headers_mut().insert(header::LOCATION, location);
            Ok(response)
        }
        Settled::Undecided => Ok(undecided(&ids.task_id, location)),
    }
}

/// What a body asks to create.
pub(super) fn new_task(body: &[u8], task_id: TaskId, user_id: &UserId) -> Result<NewTask, Problem> {
    let fields = Fields::parse(body)?;
    fields.refuse_unknown()?;
    refuse_read_only(&fields)?;
    refuse_other_user(&fields, user_id)?;
    if fields.patch()?.completed_at.is_some() {
        let problem = field::Problem::Invalid("null or left out in a new task");
        return Err(FieldError::new("completed_at", problem).into());
    }
    if fields.id()?.is_some() {
        let problem = field::Problem::Invalid("left out: the server makes it");
        return Err(FieldError::new("id", problem).into());
    }
    Ok(fields.new_task(task_id, user_id.clone())?)
}

/// `GET /api/tasks/{id}`
pub(super) async fn read(
    AxumState(state): AxumState<Arc<State>>,
    Reader(caller): Reader,
    TaskPath(task_id): TaskPath,
    Headers(headers): Headers,
) -> Answer {
    let json = state.parts.store.task(&caller.user_id, &task_id).await?;
    let json = json.ok_or(Problem::new(Code::TaskNotFound))?;
    let known = Versions::read(&headers, &header::IF_NONE_MATCH)?;
    if known.is_some_and(|known| known.contain(version_of(&json))) {
        let mut response = task_response(StatusCode::NOT_MODIFIED, json);
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
        return Ok(response);
    }
    Ok(task_response(StatusCode::OK, json))
}

/// `PATCH /api/tasks/{id}` (RFC 7396)
pub(super) async fn patch(
    AxumState(state): AxumState<Arc<State>>,
    Caller(caller): Caller,
    TaskPath(task_id): TaskPath,
    Headers(headers): Headers,
    body: Body,
) -> Answer {
    let target = Target::find(&state, caller.user_id, task_id, &headers).await?;
    let body = body::read(&headers, body, body::PATCH, &state.options.limits).await?;
    let fields = Fields::parse(&body)?;
    refuse_read_only(&fields)?;
    target.check_fields(&fields)?;
    target.check_completed_at(&fields, Left::Alone)?;
    match action(&fields)? {
        Some(action) => target.change(&state, action).await,
        None => Ok(task_response(StatusCode::OK, target.json)),
    }
}

/// `PUT /api/tasks/{id}`: replaces what an owner may set, and never creates.
pub(super) async fn replace(
    AxumState(state): AxumState<Arc<State>>,
    Caller(caller): Caller,
    TaskPath(task_id): TaskPath,
    Headers(headers): Headers,
    body: Body,
) -> Answer {
    let target = Target::find(&state, caller.user_id, task_id, &headers).await?;
    let body = body::read(&headers, body, body::JSON, &state.options.limits).await?;
    let fields = Fields::parse(&body)?;
    target.check_fields(&fields)?;
    target.check_completed_at(&fields, Left::Default)?;
    let action = match action(&fields)? {
        Some(Action::Update(patch)) => Action::Update(replacement(patch)?),
        Some(action) => action,
        None => return Err(FieldError::new("title", field::Problem::Missing).into()),
    };
    target.change(&state, action).await
}

/// `POST|PATCH /api/tasks/{id}/complete`
pub(super) async fn complete(
    AxumState(state): AxumState<Arc<State>>,
    Caller(caller): Caller,
    TaskPath(task_id): TaskPath,
    Headers(headers): Headers,
) -> Answer {
    let target = Target::find(&state, caller.user_id, task_id, &headers).await?;
    let task = Task::from_json(&target.json).ok_or(Problem::new(Code::Internal))?;
    if task.completed {
        return Ok(task_response(StatusCode::OK, target.json));
    }
    target.change(&state, Action::Complete { completed_at: None }).await
}

/// `DELETE /api/tasks/{id}`
pub(super) async fn delete(
    AxumState(state): AxumState<Arc<State>>,
    Caller(caller): Caller,
    TaskPath(task_id): TaskPath,
    Headers(headers): Headers,
) -> Answer {
    let target = Target::find(&state, caller.user_id, task_id, &headers).await?;
    let event = target.event(Action::Delete);
    match publish(&state, &event).await?.settle(false)? {
        Settled::Applied => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().insert(POSITION_HEADER, state.position());
            Ok(response)
        }
        Settled::Undecided => Ok(undecided(&target.task_id, location(&target.task_id))),
    }
}

/// The caller's task that a request is about, as the store's snapshot has it.
struct Target {
    user_id: UserId,
    task_id: TaskId,
    json: Bytes,
    expected_version: Option<u64>,
}

impl Target {
    async fn find(
        state: &State,
        user_id: UserId,
        task_id: TaskId,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let json = state.parts.store.task(&user_id, &task_id).await?;
        let json = json.ok_or(Problem::new(Code::TaskNotFound))?;
        let version = version_of(&json);
        let expected_version = match Versions::read(headers, &header::IF_MATCH)? {
            None | Some(Versions::Any) => None,
            Some(listed) if listed.contain(version) => Some(version),
            Some(_) => return Err(Problem::new(Code::VersionMismatch)),
        };
        Ok(Self { user_id, task_id, json, expected_version })
    }

    /// Refuses fields that are no task's, and another id or owner.
    fn check_fields(&self, fields: &Fields<'_>) -> Result<(), Problem> {
        fields.refuse_unknown()?;
        refuse_other_user(fields, &self.user_id)?;
        if fields.id()?.is_some_and(|id| id != self.task_id) {
            let problem = field::Problem::Invalid("the id of the path");
            return Err(FieldError::new("id", problem).into());
        }
        Ok(())
    }

    /// Refuses a time of completion that the task would not have, and none where it has one.
    fn check_completed_at(&self, fields: &Fields<'_>, left: Left) -> Result<(), Problem> {
        let refuse = |expected| {
            Err(FieldError::new("completed_at", field::Problem::Invalid(expected)).into())
        };
        let named = fields.completed()?;
        let is_completed = match (named, left) {
            (Some(named), _) => named,
            (None, Left::Default) => false,
            (None, Left::Alone) => {
                Task::from_json(&self.json).ok_or(Problem::new(Code::Internal))?.completed
            }
        };
        if !is_completed && fields.patch()?.completed_at.is_some() {
            return refuse("null or left out, unless completed is true");
        }
        if is_completed && named.is_none() && fields.clears_completed_at() {
            return refuse("a time, while completed is true");
        }
        Ok(())
    }

    fn event(&self, action: Action) -> TaskEvent {
        let body = EventBody::Existing {
            id: self.task_id.clone(),
            user_id: Some(self.user_id.clone()),
            action,
        };
        TaskEvent::new(event_id(Uuid::now_v7()), self.expected_version, body)
    }

    /// Publishes a change and answers with the task after it.
    async fn change(&self, state: &State, action: Action) -> Answer {
        let event = self.event(action);
        match publish(state, &event).await?.settle(false)? {
            Settled::Applied => {
                let read = read_back(state, &self.user_id, &self.task_id, StatusCode::OK);
                read.await?.ok_or(Problem::new(Code::TaskNotFound))
            }
            Settled::Undecided => Ok(undecided(&self.task_id, location(&self.task_id))),
        }
    }
}

/// What becomes of fields that a body leaves out.
#[derive(Clone, Copy)]
enum Left {
    /// They stay (PATCH).
    Alone,
    /// They get their defaults (PUT).
    Default,
}

/// What a body asks for; `None` if it sets nothing.
fn action(fields: &Fields<'_>) -> Result<Option<Action>, Problem> {
    let patch = fields.patch()?;
    if patch == TaskPatch::default() {
        return Ok(None);
    }
    if fields.is_only_completed() && patch.completed == Some(true) {
        return Ok(Some(Action::Complete { completed_at: None }));
    }
    if let (true, Some(priority)) = (fields.is_only_priority(), patch.priority) {
        return Ok(Some(Action::ChangePriority(priority)));
    }
    Ok(Some(Action::Update(patch)))
}

/// A patch that sets every field: what the body leaves out gets its default.
fn replacement(patch: TaskPatch) -> Result<TaskPatch, Problem> {
    let title = patch.title.ok_or(FieldError::new("title", field::Problem::Missing))?;
    Ok(TaskPatch {
        title: Some(title),
        description: Some(patch.description.flatten()),
        priority: Some(patch.priority.unwrap_or_default()),
        due_date: Some(patch.due_date.flatten()),
        labels: Some(patch.labels.unwrap_or_default()),
        completed: Some(patch.completed.unwrap_or(false)),
        completed_at: patch.completed_at,
    })
}

fn refuse_read_only(fields: &Fields<'_>) -> Result<(), Problem> {
    fields.read_only.map_or(Ok(()), |name| {
        Err(FieldError::new(name, field::Problem::Invalid("left out: the server sets it")).into())
    })
}

fn refuse_other_user(fields: &Fields<'_>, user_id: &UserId) -> Result<(), Problem> {
    match fields.user_id()? {
        Some(named) if named != *user_id => Err(Problem::new(Code::OtherUser)),
        _ => Ok(()),
    }
}

/// The ids of a creation.
struct NewIds {
    task_id: TaskId,
    event_id: EventId,
    /// They derive from an `Idempotency-Key`, so that a repeat has the same ones.
    is_keyed: bool,
}

impl NewIds {
    fn of(key: Option<&[u8]>, user_id: &UserId) -> Self {
        let Some(key) = key else {
            let (task_id, event_id) = (task_id(Uuid::now_v7()), event_id(Uuid::now_v7()));
            return Self { task_id, event_id, is_keyed: false };
        };
        // No user id holds a control character, so no two (user, key) give one name.
        let derive = |kind: &[u8]| {
            let name = [kind, b"\n", user_id.as_str().as_bytes(), b"\n", key].concat();
            Uuid::new_v5(&KEY_SPACE, &name)
        };
        let (task_id, event_id) = (task_id(derive(b"task")), event_id(derive(b"event")));
        Self { task_id, event_id, is_keyed: true }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let key = headers.get("idempotency-key").map(HeaderValue::as_bytes);
    if key.is_some_and(|key| !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())) {
        let detail = "Idempotency-Key has 1 to 255 bytes";
        return Err(Problem::with_detail(Code::InvalidHeader, detail));
    }
    Ok(key)
}

pub(super) fn task_id(uuid: Uuid) -> TaskId {
    let mut buffer = Uuid::encode_buffer();
    TaskId::new(uuid.hyphenated().encode_lower(&mut buffer)).expect("36 plain characters")
}

pub(super) fn event_id(uuid: Uuid) -> EventId {
    let mut buffer = Uuid::encode_buffer();
    EventId::new(uuid.hyphenated().encode_lower(&mut buffer)).expect("36 plain characters")
}

/// What became of an event so far.
pub(super) enum Decision {
    /// Apply has decided.
    Made(Outcome),
    /// Durable, and not decided within the write timeout.
    Open,
}

/// A decision that is no refusal.
pub(super) enum Settled {
    Applied,
    Undecided,
}

impl Decision {
    pub(super) fn settle(self, is_creation: bool) -> Result<Settled, Problem> {
        match self {
            Self::Made(Outcome::Applied { .. }) => Ok(Settled::Applied),
            Self::Made(Outcome::VersionMismatch) => Err(Problem::new(Code::VersionMismatch)),
            Self::Made(Outcome::DeadLetter(reason)) => {
                Err(Problem::from_reason(reason, is_creation))
            }
            Self::Made(Outcome::Waiting) | Self::Open => Ok(Settled::Undecided),
        }
    }
}

/// What became of a keyed creation that was sent before; `None` if it was not.
pub(super) async fn known_decision(
    state: &State,
    event: &TaskEvent,
) -> Result<Option<Decision>, Problem> {
    let Some(event_id) = &event.event_id else { return Ok(None) };
    let Some(known) = state.parts.store.outcome(event_id).await? else { return Ok(None) };
    if known.digest != event.digest {
        return Err(Problem::new(Code::IdempotencyKeyReused));
    }
    Ok(Some(Decision::Made(known.outcome)))
}

/// Publishes an event and waits for apply's decision, at most the write timeout in all.
async fn publish(state: &State, event: &TaskEvent) -> Result<Decision, Problem> {
    let deadline = Instant::now() + state.options.write_timeout;
    // Before the event is published: apply may be faster than we are. Of this very event: another
    // request with the same Idempotency-Key has the same event id.
    let mut pending = state.parts.applied.expect_event(event);
    match timeout_at(deadline, state.parts.feed.publish(record(state, event))).await {
        Ok(published) => drop(published?),
        // Whether it will be durable is not known, so this is no 202.
        Err(_) => return Err(Problem::new(Code::Unavailable)),
    }
    match timeout_at(deadline, pending.outcome()).await {
        Ok(Some(outcome)) => Ok(Decision::Made(outcome)),
        Ok(None) | Err(_) => Ok(Decision::Open),
    }
}

/// The record of an event, keyed by its task.
pub(super) fn record(state: &State, event: &TaskEvent) -> OutboundRecord {
    let key = event.body.task_id().map(|id| Bytes::copy_from_slice(id.as_str().as_bytes()));
    OutboundRecord {
        topic: state.options.topic.clone(),
        partition: None,
        timestamp_ms: None,
        key,
        value: Some(Bytes::from(event.to_json())),
        headers: Vec::new(),
    }
}

/// The task after a write, at a position that holds the write; `None` if it is gone again.
async fn read_back(
    state: &State,
    user_id: &UserId,
    task_id: &TaskId,
    status: StatusCode,
) -> Result<Option<Response<Body>>, Problem> {
    let position = state.position();
    let Some(json) = state.parts.store.task(user_id, task_id).await? else { return Ok(None) };
    let mut response = task_response(status, json);
    response.headers_mut().insert(POSITION_HEADER, position);
    Ok(Some(response))
}

/// The task, with its version as entity tag.
fn task_response(status: StatusCode, json: Bytes) -> Response<Body> {
    let tag = Bytes::from(format!("\"{}\"", version_of(&json)));
    let mut response = json_response(status, json);
    response.headers_mut().insert(
        header::ETAG,
        HeaderValue::from_maybe_shared(tag).expect("digits in quotes are a header value"),
    );
    response
}

/// 202: the event is durable, and its outcome open.
fn undecided(task_id: &TaskId, location: HeaderValue) -> Response<Body> {
    let body = serde_json::json!({ "id": task_id.as_str(), "status": "pending" });
    let mut response = json_response(StatusCode::ACCEPTED, body.to_string().into());
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// A response whose body is JSON.
pub(super) fn json_response(status: StatusCode, json: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Where a task is.
fn location(task_id: &TaskId) -> HeaderValue {
    let mut path = String::from("/api/tasks/");
    for byte in task_id.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            write!(path, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    HeaderValue::from_maybe_shared(Bytes::from(path)).expect("a path of plain characters")
}

/// The version in a task's JSON: its last member (see [`Task::to_json`]).
fn version_of(json: &[u8]) -> u64 {
    let digits = json.iter().rev().skip(1).take_while(|byte| byte.is_ascii_digit());
    let mut version = 0_u64;
    let mut place = 1_u64;
    for digit in digits {
        version = version.wrapping_add(u64::from(digit - b'0').wrapping_mul(place));
        place = place.wrapping_mul(10);
    }
    version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_end() {
        for (json, version) in [
            (&br#"{"id":"a","version":1}"#[..], 1),
            (br#"{"id":"a","version":120}"#, 120),
            (br#"{"version":18446744073709551615}"#, u64::MAX),
            (b"{}", 0),
            (b"", 0),
        ] {
            assert_eq!(version_of(json), version);
        }
    }

    #[test]
    fn a_location_is_percent_encoded() {
        let id = TaskId::new("a b/\u{e4}?").unwrap();
        assert_eq!(location(&id), "/api/tasks/a%20b%2F%C3%A4%3F");
    }

    #[test]
    fn ids_derive_from_user_and_key() {
        let ids =
            |user: &str, key: &str| NewIds::of(Some(key.as_bytes()), &UserId::new(user).unwrap());
        assert_eq!(ids("a", "k").task_id, ids("a", "k").task_id);
        assert_ne!(ids("a", "k").task_id, ids("b", "k").task_id);
        assert_ne!(ids("a", "k").event_id, ids("a", "l").event_id);
    }
}
