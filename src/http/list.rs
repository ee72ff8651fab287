//! `GET /api/tasks`: filters, pages and their cursor.
//!
//! A page is the store's JSON joined, never parsed. A cursor is opaque: where the store goes on,
//! behind a digest of user and filter, so that it fits no other list.

use super::{
    State,
    extract::{Reader, query_pairs},
    problem::{Code, Problem},
};
use crate::{
    store::{PAGE_ROWS_MAX, SortBy, TaskFilter, TaskSort},
    task::{LABEL_CHARS_MAX, Priority, UserId, time, write_json_items},
};
use aws_lc_rs::digest;
use axum::{
    body::Body,
    extract::State as AxumState,
    http::{HeaderValue, Response, Uri, header},
};
use std::{fmt::Write as _, sync::Arc};

/// Tasks of a page that names no limit.
const LIMIT_DEFAULT: usize = 200;

/// Longest text that is searched for, in characters.
const Q_CHARS_MAX: usize = 200;

/// Longest cursor in bytes of its text form.
const CURSOR_CHARS_MAX: usize = 1_024;

/// Bytes of the digest in a cursor.
const BINDING_BYTES: usize = 8;

/// `GET /api/tasks`
pub(super) async fn list(
    AxumState(state): AxumState<Arc<State>>,
    Reader(caller): Reader,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let query = ListQuery::parse(&uri)?;
    let binding = query.binding(&caller.user_id);
    let after = query.cursor.as_deref().map(|text| open_cursor(text, binding)).transpose()?;
    let page = state
        .parts
        .store
        .tasks(&caller.user_id, &query.filter, after.as_deref(), query.limit)
        .await?;
    let mut json =
        Vec::with_capacity(page.tasks.iter().map(|task| task.len() + 1).sum::<usize>() + 2);
    write_json_items(&page.tasks, &mut json);
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(next) = page.next {
        headers.insert(header::LINK, next_link(&uri, &seal_cursor(&next, binding)));
    }
    Ok(response)
}

/// What a list is asked for.
#[derive(Debug, Default)]
struct ListQuery {
    filter: TaskFilter,
    limit: usize,
    cursor: Option<String>,
}

impl ListQuery {
    fn parse(uri: &Uri) -> Result<Self, Problem> {
        let mut query = Self { limit: LIMIT_DEFAULT, ..Self::default() };
        for (name, value) in query_pairs(uri)? {
            query.put(&name, value)?;
        }
        Ok(query)
    }

    fn put(&mut self, name: &str, value: String) -> Result<(), Problem> {
        match name {
            "completed" => self.filter.completed = Some(completed(&value)?),
            "priority" => {
                let priority = Priority::parse(&value).ok_or_else(|| {
                    Problem::parameter("priority", "one of low, medium, high, urgent")
                })?;
                self.filter.priority = Some(priority);
            }
            "due_before" => self.filter.due_before = Some(instant("due_before", &value)?),
            "due_after" => self.filter.due_after = Some(instant("due_after", &value)?),
            "q" if value.chars().count() > Q_CHARS_MAX => {
                return Err(Problem::parameter("q", "at most 200 characters"));
            }
            "q" => self.filter.q = Some(value).filter(|text| !text.is_empty()),
            "label" => self.filter.label = Some(label(value)?),
            "sort" => self.filter.sort = sort(&value)?,
            "limit" => self.limit = limit(&value)?,
            "cursor" => self.cursor = Some(value),
            // Read before: when, and (development mode) whose list it is.
            "min_pos" | "user" => (),
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    /// A digest of all that decides which list this is.
    fn binding(&self, user_id: &UserId) -> [u8; BINDING_BYTES] {
        let text = format!("{user_id}\n{:?}", self.filter);
        let whole = digest::digest(&digest::SHA256, text.as_bytes());
        let mut cut = [0; BINDING_BYTES];
        cut.copy_from_slice(&whole.as_ref()[..BINDING_BYTES]);
        cut
    }
}

fn completed(value: &str) -> Result<bool, Problem> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Problem::parameter("completed", "true or false")),
    }
}

fn label(value: String) -> Result<String, Problem> {
    if (1..=LABEL_CHARS_MAX).contains(&value.chars().count()) {
        return Ok(value);
    }
    Err(Problem::parameter("label", "1 to 64 characters"))
}

/// The orders by name; `-` before it turns one.
pub(super) const ORDERS: [(&str, SortBy); 5] = [
    ("created_at", SortBy::CreatedAt),
    ("updated_at", SortBy::UpdatedAt),
    ("due_date", SortBy::DueDate),
    ("priority", SortBy::Priority),
    ("title", SortBy::Title),
];

fn sort(value: &str) -> Result<TaskSort, Problem> {
    let turned = value.strip_prefix('-');
    let named = turned.unwrap_or(value);
    let order = ORDERS.iter().find(|(name, _)| *name == named).ok_or_else(|| {
        let detail = "one of created_at, updated_at, due_date, priority, title, each also with - \
                      before it";
        Problem::parameter("sort", detail)
    })?;
    Ok(TaskSort { by: order.1, is_descending: turned.is_some() })
}

pub(super) fn instant(name: &'static str, value: &str) -> Result<i64, Problem> {
    // In a query an unescaped `+` of an offset arrives as a space.
    let parsed = time::parse(value).or_else(|| time::parse(&value.replace(' ', "+")));
    parsed.ok_or_else(|| Problem::parameter(name, "a time as in RFC 3339"))
}

pub(super) fn limit(value: &str) -> Result<usize, Problem> {
    let limit = value.parse().ok().filter(|limit| (1..=PAGE_ROWS_MAX).contains(limit));
    limit.ok_or_else(|| Problem::parameter("limit", "1 to 1000"))
}

pub(super) fn unknown(name: &str) -> Problem {
    let shown: String = name.chars().take(64).collect();
    Problem::with_detail(Code::InvalidParameter, format!("there is no parameter {shown:?}"))
}

fn seal_cursor(next: &[u8], binding: [u8; BINDING_BYTES]) -> String {
    let mut text = String::with_capacity(2 * (BINDING_BYTES + next.len()));
    for byte in binding.iter().chain(next) {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
    }
    text
}

fn open_cursor(text: &str, binding: [u8; BINDING_BYTES]) -> Result<Vec<u8>, Problem> {
    let refusal = || Problem::new(Code::InvalidCursor);
    if text.len() > CURSOR_CHARS_MAX || !text.len().is_multiple_of(2) {
        return Err(refusal());
    }
    let nibble = |byte: &u8| char::from(*byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let bytes: Option<Vec<u8>> = text
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| Some((nibble(pair.first()?)? << 4) | nibble(pair.last()?)?))
        .collect();
    let bytes = bytes.ok_or_else(refusal)?;
    let next = bytes.strip_prefix(&binding[..]).ok_or_else(refusal)?;
    Ok(next.to_vec())
}

/// The next page: this one's query with another cursor.
pub(super) fn next_link(uri: &Uri, cursor: &str) -> HeaderValue {
    let mut target = format!("<{}?", uri.path());
    for pair in uri.query().unwrap_or("").split('&') {
        if pair.is_empty() || pair.starts_with("cursor=") {
            continue;
        }
        // What `Uri` lets through but would end the link.
        let is_plain = |c: &char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"');
        target.extend(pair.chars().filter(is_plain));
        target.push('&');
    }
    let link = format!("{target}cursor={cursor}>; rel=\"next\"");
    HeaderValue::try_from(link).expect("graphic characters are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<ListQuery, &'static str> {
        let uri: Uri = format!("/api/tasks?{query}").parse().unwrap();
        ListQuery::parse(&uri).map_err(|problem| problem.code().as_str())
    }

    #[test]
    fn a_query_is_checked_parameter_by_parameter() {
        let query = parse("completed=false&priority=high&q=A%20b&limit=7&sort=created_at").unwrap();
        assert_eq!(query.filter.completed, Some(false));
        assert_eq!(query.filter.priority, Some(Priority::High));
        assert_eq!(query.filter.q.as_deref(), Some("A b"));
        assert_eq!(query.limit, 7);
        let query = parse("due_before=2026-01-01T00:00:00Z&due_after=2025-12-31T23:00:00+01:00");
        let filter = query.unwrap().filter;
        assert_eq!(filter.due_before, Some(1_767_225_600_000));
        assert_eq!(filter.due_after, Some(1_767_218_400_000));
        assert_eq!(parse("").unwrap().limit, LIMIT_DEFAULT);
        assert!(parse("limit=1000").is_ok());
        for bad in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=x",
            "limit=",
            "completed=1",
            "priority=top",
            "due_before=now",
            "due_after=",
            "sort=name",
            "sort=--title",
            "sort=",
            "label=",
            "nonsense=1",
            "complete=true",
            &format!("q={}", "x".repeat(201)),
        ] {
            assert_eq!(parse(bad).unwrap_err(), "invalid_parameter", "{bad}");
        }
    }

    #[test]
    fn a_cursor_fits_its_list_only() {
        let (alice, bob) = (UserId::new("alice").unwrap(), UserId::new("bob").unwrap());
        let query = parse("completed=true").unwrap();
        let cursor = seal_cursor(b"\x00next", query.binding(&alice));
        assert_eq!(open_cursor(&cursor, query.binding(&alice)).unwrap(), b"\x00next");
        assert!(open_cursor(&cursor, query.binding(&bob)).is_err());
        for other in ["completed=true&sort=title", "completed=true&sort=-created_at"] {
            assert!(open_cursor(&cursor, parse(other).unwrap().binding(&alice)).is_err());
        }
        assert!(open_cursor(&cursor, parse("completed=false").unwrap().binding(&alice)).is_err());
        for bad in ["", "0", "zz", "00", "\u{e4}\u{e4}", &"0".repeat(2_000)] {
            assert!(open_cursor(bad, query.binding(&alice)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_link_keeps_the_query() {
        let uri: Uri = "/api/tasks?limit=2&cursor=00&q=%3E".parse().unwrap();
        assert_eq!(next_link(&uri, "ab"), "</api/tasks?limit=2&q=%3E&cursor=ab>; rel=\"next\"");
    }
}
