//! `/api/admin/dead-letters` and `/api/admin/waiting`.

use super::{
    super::{
        State, body,
        extract::{Headers, query_pairs},
        list,
        problem::{Code, Problem},
        stats::document,
    },
    Admin,
};
use crate::{
    apply::{
        WAITING_BYTES_MAX, WAITING_MAX,
        letter::Letter,
        letters::{BulkPlace, LetterId, LettersError, Redriven},
    },
    position::{Offset, RecordPosition},
    store::{
        Outcome,
        letter::{LetterFilter, LetterState, StoredLetter},
    },
    task::{event::EventId, time, transition::Reason},
};
use axum::{
    body::Body,
    extract::{FromRequestParts, Path, State as AxumState},
    http::{Response, StatusCode, Uri, header, request::Parts},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::time::timeout;

/// Letters of a page that names no limit.
const LIMIT_DEFAULT: usize = 200;
/// Waiting events that are listed; of more, only the count is told.
const WAITING_LISTED_MAX: usize = 1_000;
/// Types of a mended value, which is taken as it is.
const VALUE: &[&str] = &["application/octet-stream", "application/json"];

/// The letter that the path names.
pub(super) struct LetterPath(LetterId);

impl FromRequestParts<Arc<State>> for LetterPath {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<State>,
    ) -> Result<Self, Self::Rejection> {
        let path = Path::<String>::from_request_parts(parts, state).await.ok();
        let id = path.and_then(|Path(text)| text.parse().ok());
        id.map(Self).ok_or(Problem::new(Code::LetterNotFound))
    }
}

/// `GET /api/admin/dead-letters`: a JSON array, oldest first; the next page is in `Link`.
pub(super) async fn list(
    AxumState(state): AxumState<Arc<State>>,
    _: Admin,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(&uri, true)?;
    let letters = state.parts.applied.letters();
    let page = letters.list(&query.filter, query.after, query.limit).await?;
    let letters = page.letters.iter().map(|(at, letter)| (at, summary(&id_of(at), letter)));
    let damaged = page.damaged.iter().map(|(at, why)| (at, damaged_summary(&id_of(at), why)));
    let mut items: Vec<_> = letters.chain(damaged).collect();
    items.sort_unstable_by_key(|(place, _)| *place);
    let items: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
    let mut response = document(StatusCode::OK, &items.into());
    if let Some(next) = &page.next {
        response.headers_mut().insert(header::LINK, list::next_link(&uri, &id_of(next)));
    }
    Ok(response)
}

/// `GET /api/admin/dead-letters/{id}`: all that is known of it, the record's bytes among it.
pub(super) async fn show(
    AxumState(state): AxumState<Arc<State>>,
    _: Admin,
    LetterPath(id): LetterPath,
) -> Result<Response<Body>, Problem> {
    let (stored, letter) = state.parts.applied.letters().show(id).await?;
    let mut shown = summary(&id.to_string(), &stored);
    if let Value::Object(shown) = &mut shown {
        add_record(shown, &letter);
    }
    Ok(document(StatusCode::OK, &shown))
}

/// `POST /api/admin/dead-letters/{id}/redrive`: a body is the mended value.
pub(super) async fn redrive(
    AxumState(state): AxumState<Arc<State>>,
    _: Admin,
    LetterPath(id): LetterPath,
    Headers(headers): Headers,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let value = body::read(&headers, body, VALUE, &state.options.limits).await?;
    let mended = (!value.is_empty()).then_some(value);
    let redriven = state.parts.applied.letters().redrive(id, mended).await?;
    let Redriven { record, event_id, mut outcome } = redriven;
    // Whether it fits this time is worth a moment.
    let outcome = timeout(state.options.write_timeout, outcome.outcome()).await.ok().flatten();
    let answer = json!({
        "id": id.to_string(),
        "state": LetterState::Redriven.as_str(),
        "record": record.to_string(),
        "event_id": event_id.as_str(),
        "outcome": outcome.as_ref().map(outcome_name),
        "reason": outcome.as_ref().and_then(reason_of).map(Reason::as_str),
    });
    Ok(document(StatusCode::OK, &answer))
}

/// `POST /api/admin/dead-letters/redrive?all=true|reason=R`: open letters, oldest first, a bounded
/// number a request; `next` is the cursor to go on with.
pub(super) async fn redrive_all(
    AxumState(state): AxumState<Arc<State>>,
    _: Admin,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(&uri, false)?;
    let now_ms = state.parts.clock.now_ms();
    let start = BulkPlace { after: None, until_ms: now_ms };
    if !query.is_all && query.filter.reason.is_none() {
        return Err(Problem::with_detail(Code::InvalidParameter, "give all=true or a reason"));
    }
    let letters = state.parts.applied.letters();
    let from = query.from.unwrap_or(start);
    let done = letters.redrive_all(query.filter.reason, from, now_ms).await?;
    let answer = json!({
        "redriven": done.redriven,
        "skipped": done.skipped,
        "next": done.next.map(|place| place.to_string()),
    });
    Ok(document(StatusCode::OK, &answer))
}

/// `POST /api/admin/dead-letters/{id}/dismiss`
pub(super) async fn dismiss(
    AxumState(state): AxumState<Arc<State>>,
    _: Admin,
    LetterPath(id): LetterPath,
) -> Result<Response<Body>, Problem> {
    state.parts.applied.letters().dismiss(id).await?;
    let answer = json!({ "id": id.to_string(), "state": LetterState::Dismissed.as_str() });
    Ok(document(StatusCode::OK, &answer))
}

/// `GET /api/admin/waiting`: events that wait for their task, oldest first.
pub(super) async fn waiting(
    AxumState(state): AxumState<Arc<State>>,
    _: Admin,
) -> Result<Response<Body>, Problem> {
    let stats = state.parts.store.stats();
    let events = state.parts.store.waiting_before(i64::MAX, WAITING_LISTED_MAX).await?;
    let events: Vec<Value> = events
        .iter()
        .map(|event| {
            let (place, offset) = (&event.source.0, event.source.1);
            json!({
                "task_id": event.task_id.as_str(),
                "source": { "topic": place.topic.as_str(), "partition": place.partition.get(),
                    "offset": offset.get() },
                "since": (event.since_ms > 0).then(|| time::to_text(event.since_ms)),
                "bytes": event.record.len(),
            })
        })
        .collect();
    let answer = json!({
        "count": stats.waiting,
        "bytes": stats.waiting_bytes,
        "count_max": WAITING_MAX,
        "bytes_max": WAITING_BYTES_MAX,
        "seconds_max": state.parts.applied.waiting_timeout().as_secs(),
        "events": events,
    });
    Ok(document(StatusCode::OK, &answer))
}

/// What a list or a bulk redrive is asked for.
struct Query {
    filter: LetterFilter,
    after: Option<LetterId>,
    /// Of a bulk redrive.
    from: Option<BulkPlace>,
    limit: usize,
    is_all: bool,
}

impl Query {
    fn parse(uri: &Uri, is_list: bool) -> Result<Self, Problem> {
        let (filter, limit) = (LetterFilter::default(), LIMIT_DEFAULT);
        let mut query = Self { filter, after: None, from: None, limit, is_all: false };
        for (name, value) in query_pairs(uri)? {
            match name.as_str() {
                "reason" => {
                    let unknown = || Problem::parameter("reason", "a reason code of a dead letter");
                    query.filter.reason = Some(Reason::parse(&value).ok_or_else(unknown)?);
                }
                "cursor" => {
                    let bad = |_| Problem::new(Code::InvalidCursor);
                    if is_list {
                        query.after = Some(value.parse().map_err(bad)?);
                    } else {
                        query.from = Some(value.parse().map_err(bad)?);
                    }
                }
                "state" if is_list => {
                    let unknown = || Problem::parameter("state", "open, redriven or dismissed");
                    query.filter.state = Some(LetterState::parse(&value).ok_or_else(unknown)?);
                }
                "limit" if is_list => query.limit = list::limit(&value)?,
                "all" if !is_list && value == "true" => query.is_all = true,
                "all" if !is_list => return Err(Problem::parameter("all", "true, or left out")),
                // Who asks (development mode); read with the token.
                "user" => (),
                _ => return Err(list::unknown(&name)),
            }
        }
        Ok(query)
    }
}

fn id_of(place: &RecordPosition) -> String {
    LetterId { partition: place.partition, offset: place.offset }.to_string()
}

fn summary(id: &str, letter: &StoredLetter) -> Value {
    json!({
        "id": id,
        "state": letter.state.as_str(),
        "reason": letter.reason.as_str(),
        "detail": letter.detail,
        "event_id": letter.event_id.as_ref().map(EventId::as_str),
        "source": {
            "topic": letter.source.topic.as_str(),
            "partition": letter.source.partition.get(),
            "offset": letter.source.offset.get(),
            "end": letter.end.map(Offset::get),
        },
        "at": time::to_text(letter.at_ms),
        "value_bytes": letter.value_bytes,
    })
}

/// A letter whose row cannot be read: where it is, and why.
fn damaged_summary(id: &str, why: &str) -> Value {
    json!({
        "id": id,
        "state": "damaged",
        "reason": null,
        "detail": why,
        "event_id": null,
        "source": null,
        "at": null,
        "value_bytes": null,
    })
}

/// The record's bytes: `name` where they are text, `name_base64` where they are not.
fn add_record(shown: &mut Map<String, Value>, letter: &Letter) {
    let timestamp = letter.timestamp_ms.map(time::to_text);
    shown.insert("timestamp".to_owned(), timestamp.into());
    shown.insert("timestamp_ms".to_owned(), letter.timestamp_ms.into());
    add_bytes(shown, "key", letter.key.as_ref());
    add_bytes(shown, "value", letter.value.as_ref());
    let headers = letter.headers.iter().map(|(name, value)| {
        let mut header = Map::new();
        add_bytes(&mut header, "name", Some(name));
        add_bytes(&mut header, "value", value.as_ref());
        Value::Object(header)
    });
    shown.insert("headers".to_owned(), headers.collect());
}

fn add_bytes(shown: &mut Map<String, Value>, name: &str, bytes: Option<&Bytes>) {
    match bytes.map(|bytes| (bytes, str::from_utf8(bytes))) {
        None => shown.insert(name.to_owned(), Value::Null),
        Some((_, Ok(text))) => shown.insert(name.to_owned(), text.into()),
        Some((bytes, Err(_))) => {
            shown.insert(format!("{name}_base64"), BASE64_STANDARD.encode(bytes).into())
        }
    };
}

const fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Applied { .. } => "applied",
        Outcome::VersionMismatch => "refused",
        Outcome::DeadLetter(_) => "dead_letter",
        Outcome::Waiting => "waiting",
    }
}

const fn reason_of(outcome: &Outcome) -> Option<Reason> {
    match outcome {
        Outcome::DeadLetter(reason) => Some(*reason),
        _ => None,
    }
}

impl From<LettersError> for Problem {
    fn from(error: LettersError) -> Self {
        match error {
            LettersError::NotFound => Self::new(Code::LetterNotFound),
            LettersError::Redriven => Self::new(Code::LetterRedriven),
            LettersError::NotNoted => Self::new(Code::Unavailable),
            LettersError::Store(error) => error.into(),
            LettersError::Feed(error) => error.into(),
            error @ LettersError::NotARecord(_) => {
                Self::with_detail(Code::LetterWithoutRecord, error.to_string())
            }
        }
    }
}
