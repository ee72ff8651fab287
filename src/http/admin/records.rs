//! `/api/admin/topics` and `/api/admin/topics/{topic}/records`: what lies in the log.
//!
//! Bounds: an answer shows at most [`SHOWN_BYTES_MAX`] of records and looks at [`SCANNED_MAX`] of
//! them; `next` is where to go on. A batch of the log is unfolded whole, so only
//! [`super::super::LOOKS_MAX`] are at it at a time.

use super::{
    super::{
        State, body,
        extract::{Headers, PathText, query_pairs},
        list,
        problem::{Code, Problem},
        stats::document,
    },
    Admin,
};
use crate::{
    feed::{FeedError, FeedItem, FeedRecord, OutboundRecord, inspect::TopicView},
    position::{Offset, Partition, TopicName},
    task::time,
};
use axum::{
    body::Body,
    extract::State as AxumState,
    http::{Response, StatusCode, Uri},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Records of an answer to which no limit is named.
const LIMIT_DEFAULT: usize = 100;
/// Bytes that are shown of a key, a value or a header when no other number is named.
const FIELD_BYTES_DEFAULT: usize = 512;
/// And the most that can be asked for.
const FIELD_BYTES_MAX: usize = 4 << 20;
/// Bytes of keys, values and headers that an answer shows, beyond its first record.
const SHOWN_BYTES_MAX: usize = 4 << 20;
/// Most records that one request looks at.
const SCANNED_MAX: usize = 50_000;
/// Most time that it looks for them.
const SCAN_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest text that is looked for.
const CONTAINS_CHARS_MAX: usize = 512;
/// Bytes of the log that one read asks for.
const READ_BYTES: usize = 256 << 10;

/// `GET /api/admin/topics`: every topic with its partitions.
pub(super) async fn topics(AxumState(state): AxumState<Arc<State>>, _: Admin) -> Response<Body> {
    let topics: Vec<Value> = state.parts.inspect.topics().iter().map(topic).collect();
    document(StatusCode::OK, &topics.into())
}

fn topic(topic: &TopicView) -> Value {
    let partitions = topic.partitions.iter().zip(0_u32..).map(|(partition, index)| {
        json!({
            "partition": index,
            "log_start": partition.log_start.get(),
            "log_end": partition.log_end.get(),
            "bytes": partition.bytes,
        })
    });
    json!({
        "topic": topic.name.as_str(),
        "is_reserved": topic.is_reserved,
        "partitions": partitions.collect::<Value>(),
    })
}

/// `GET /api/admin/topics/{topic}/records`: records of one partition, in order.
pub(super) async fn records(
    AxumState(state): AxumState<Arc<State>>,
    _: Admin,
    PathText(name): PathText,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(&uri)?;
    let topic = known_topic(&state, &name)?;
    let _turn = state.looks.acquire().await;
    let (start, end) = bounds(&state, &topic, query.partition).await?;
    let from = match query.from {
        From::Last => end.get().saturating_sub(i64::try_from(query.limit).unwrap_or(i64::MAX)),
        From::At(offset) => offset,
        From::Time(ms) => {
            let found = state.parts.inspect.offset_for_time(&topic, query.partition, ms).await?;
            found.unwrap_or(end).get()
        }
    };
    let from = Offset::new(from.clamp(start.get(), end.get())).unwrap_or(start);
    let page = Page { shown: Vec::new(), shown_bytes: 0, scanned: 0, next: from };
    let page = page.fill(&state, &topic, &query, end).await?;
    let answer = json!({
        "topic": topic.as_str(),
        "partition": query.partition.get(),
        "log_start": start.get(),
        "log_end": end.get(),
        "from": from.get(),
        "next": page.next.get(),
        "records": page.shown,
    });
    Ok(document(StatusCode::OK, &answer))
}

/// `POST /api/admin/topics/{topic}/records`: one record, as a producer would send it.
pub(super) async fn produce(
    AxumState(state): AxumState<Arc<State>>,
    _: Admin,
    PathText(name): PathText,
    Headers(headers): Headers,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let topic = known_topic(&state, &name)?;
    if is_letters(&state, &topic) {
        return Err(Problem::new(Code::TopicReserved));
    }
    let body = body::read(&headers, body, body::JSON, &state.options.limits).await?;
    let new: NewRecord = serde_json::from_slice(&body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            Problem::with_detail(Code::InvalidField, "key, value, headers, partition")
        }
        _ => Problem::new(Code::InvalidJson),
    })?;
    let count = state.parts.feed.partition_count(&topic);
    let is_there = |index: &i32| u32::try_from(*index).is_ok_and(|index| index < count);
    let partition = match new.partition {
        Some(index) if !is_there(&index) => {
            return Err(Problem::with_detail(Code::InvalidField, "there is no such partition"));
        }
        index => index.and_then(Partition::new),
    };
    let headers =
        new.headers.into_iter().map(|(name, value)| (name.into(), value.map(Bytes::from)));
    let record = OutboundRecord {
        topic,
        partition,
        timestamp_ms: None,
        key: new.key.map(Bytes::from),
        value: new.value.map(Bytes::from),
        headers: headers.collect(),
    };
    let place = state.parts.feed.publish(record).await?;
    let answer = json!({
        "topic": place.topic.as_str(),
        "partition": place.partition.get(),
        "offset": place.offset.get(),
    });
    Ok(document(StatusCode::CREATED, &answer))
}

/// A record to be sent. What is left out is null; headers are pairs of a name and a value or null.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRecord {
    key: Option<String>,
    value: Option<String>,
    #[serde(default)]
    headers: Vec<(String, Option<String>)>,
    partition: Option<i32>,
}

fn known_topic(state: &State, name: &str) -> Result<TopicName, Problem> {
    TopicName::new(name)
        .filter(|topic| state.parts.feed.partition_count(topic) > 0)
        .ok_or(Problem::new(Code::TopicNotFound))
}

/// As on the Kafka port, nobody but the daemon writes dead letters.
fn is_letters(state: &State, topic: &TopicName) -> bool {
    state.options.topic.dead_letters().as_ref() == Some(topic)
}

async fn bounds(
    state: &State,
    topic: &TopicName,
    partition: Partition,
) -> Result<(Offset, Offset), Problem> {
    let count = state.parts.feed.partition_count(topic);
    if u32::try_from(partition.get()).map_or(true, |index| index >= count) {
        return Err(Problem::parameter("partition", "a partition of the topic"));
    }
    Ok(state.parts.feed.bounds(topic, partition).await?)
}

/// Where the first record is looked for.
#[derive(Clone, Copy, Debug)]
enum From {
    /// The last `limit` records.
    Last,
    At(i64),
    /// Unix time in ms.
    Time(i64),
}

struct Query {
    partition: Partition,
    from: From,
    contains: Option<String>,
    limit: usize,
    field_bytes_max: usize,
}

impl Query {
    fn parse(uri: &Uri) -> Result<Self, Problem> {
        let mut query = Self {
            partition: Partition::ZERO,
            from: From::Last,
            contains: None,
            limit: LIMIT_DEFAULT,
            field_bytes_max: FIELD_BYTES_DEFAULT,
        };
        for (name, value) in query_pairs(uri)? {
            match name.as_str() {
                "partition" => {
                    let parsed = value.parse().ok().and_then(Partition::new);
                    let bad = || Problem::parameter("partition", "a partition of the topic");
                    query.partition = parsed.ok_or_else(bad)?;
                }
                "from" => query.from = from(&value)?,
                "time" => query.from = From::Time(list::instant("time", &value)?),
                "contains" if value.chars().count() > CONTAINS_CHARS_MAX => {
                    return Err(Problem::parameter("contains", "at most 512 characters"));
                }
                "contains" => query.contains = Some(value).filter(|text| !text.is_empty()),
                "limit" => query.limit = list::limit(&value)?,
                "bytes" => {
                    let parsed = value.parse().ok().filter(|bytes| *bytes <= FIELD_BYTES_MAX);
                    let bad = || Problem::parameter("bytes", "0 to 4194304");
                    query.field_bytes_max = parsed.ok_or_else(bad)?;
                }
                // Who asks (development mode); read with the token.
                "user" => (),
                _ => return Err(list::unknown(&name)),
            }
        }
        Ok(query)
    }

    fn wants(&self, record: &FeedRecord) -> bool {
        let Some(text) = &self.contains else { return true };
        let has = |bytes: &Option<Bytes>| {
            bytes.as_ref().is_some_and(|bytes| memmem(bytes, text.as_bytes()))
        };
        has(&record.key) || has(&record.value)
    }
}

fn from(value: &str) -> Result<From, Problem> {
    Ok(match value {
        "earliest" => From::At(0),
        "latest" => From::At(i64::MAX),
        digits => {
            let offset = digits.parse().ok().filter(|offset| 0 <= *offset);
            let bad = || Problem::parameter("from", "an offset, earliest or latest");
            From::At(offset.ok_or_else(bad)?)
        }
    })
}

/// Whether `part` is somewhere in `whole`.
fn memmem(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

/// What is shown so far.
struct Page {
    shown: Vec<Value>,
    shown_bytes: usize,
    scanned: usize,
    next: Offset,
}

impl Page {
    async fn fill(
        mut self,
        state: &State,
        topic: &TopicName,
        query: &Query,
        end: Offset,
    ) -> Result<Self, Problem> {
        let deadline = Instant::now() + SCAN_TIMEOUT;
        while self.next < end && Instant::now() < deadline {
            let read = state.parts.inspect.read(topic, query.partition, self.next, READ_BYTES);
            let batch = match read.await {
                // Retention was faster.
                Err(FeedError::OutOfRange { .. }) => break,
                batch => batch?,
            };
            for item in batch.items {
                if self.is_full(query) {
                    return Ok(self);
                }
                self.take(item, query);
            }
            self.next = batch.next;
        }
        Ok(self)
    }

    fn is_full(&self, query: &Query) -> bool {
        self.shown.len() >= query.limit
            || self.shown_bytes > SHOWN_BYTES_MAX
            || self.scanned >= SCANNED_MAX
    }

    fn take(&mut self, item: FeedItem, query: &Query) {
        self.scanned += 1;
        match item {
            FeedItem::Record(record) => {
                self.next = record.offset.next();
                if query.wants(&record) {
                    self.show(&record, query.field_bytes_max);
                }
            }
            FeedItem::Unreadable { from, to, detail, .. } => {
                self.next = to;
                if query.contains.is_none() {
                    let shown =
                        json!({ "offset": from.get(), "end": to.get(), "unreadable": detail });
                    self.shown.push(shown);
                }
            }
        }
    }

    fn show(&mut self, record: &FeedRecord, bytes_max: usize) {
        let mut shown = Map::new();
        shown.insert("offset".to_owned(), record.offset.get().into());
        shown.insert("timestamp".to_owned(), time::to_text(record.timestamp_ms).into());
        self.add(&mut shown, "key", record.key.as_ref(), bytes_max);
        self.add(&mut shown, "value", record.value.as_ref(), bytes_max);
        let mut headers = Vec::with_capacity(record.headers.len());
        for (name, value) in &record.headers {
            let mut header = Map::new();
            self.add(&mut header, "name", Some(name), bytes_max);
            self.add(&mut header, "value", value.as_ref(), bytes_max);
            headers.push(Value::Object(header));
        }
        shown.insert("headers".to_owned(), headers.into());
        self.shown.push(Value::Object(shown));
    }

    /// `name` where it is text, `name_base64` where it is not, both cut; `name_bytes` is the length
    /// of the whole.
    fn add(&mut self, to: &mut Map<String, Value>, name: &str, bytes: Option<&Bytes>, max: usize) {
        let Some(bytes) = bytes else {
            to.insert(name.to_owned(), Value::Null);
            return;
        };
        let (key, value) = cut(bytes, max);
        self.shown_bytes += value.len() + name.len();
        let key = if key { name.to_owned() } else { format!("{name}_base64") };
        to.insert(key, value.into());
        to.insert(format!("{name}_bytes"), bytes.len().into());
    }
}

/// The first `max` bytes: as they are if they are text (cut between two characters), else in
/// base64.
fn cut(bytes: &[u8], max: usize) -> (bool, String) {
    let head = &bytes[..bytes.len().min(max)];
    match str::from_utf8(head) {
        Ok(text) => (true, text.to_owned()),
        // The cut may have gone through a character.
        Err(error) if error.error_len().is_none() && head.len() < bytes.len() => {
            let (text, _) = head.split_at(error.valid_up_to());
            (true, String::from_utf8_lossy(text).into_owned())
        }
        Err(_) => (false, BASE64_STANDARD.encode(head)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_the_rest_is_base64() {
        let euro = "a\u{20ac}b".as_bytes();
        assert_eq!(cut(euro, 100), (true, "a\u{20ac}b".to_owned()));
        for max in 1..4 {
            assert_eq!(cut(euro, max), (true, "a".to_owned()), "{max}");
        }
        assert_eq!(cut(euro, 0), (true, String::new()));
        assert_eq!(cut(&[0xff, 0x00], 100), (false, "/wA=".to_owned()));
        assert_eq!(cut(&euro[..2], 100), (false, "YeI=".to_owned()), "it ends in mid-character");
    }

    #[test]
    fn a_part_is_found_anywhere() {
        assert!(memmem(b"abc", b"c") && memmem(b"abc", b"abc") && !memmem(b"abc", b"abcd"));
    }
}
