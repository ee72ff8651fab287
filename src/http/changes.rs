//! `GET /api/changes`: a long poll, for clients that can do nothing else.
//!
//! Each request is a session of its own for as long as it waits, and counts as one.

use super::{
    Connection, State,
    extract::{Caller, query_pairs},
    follow::{Counted, Transport},
    list,
    problem::{Code, Problem},
    stats::document_of,
};
use crate::{
    hub::{From as StartAt, Next, Session, message},
    position::Position,
    task::write_json_items,
};
use axum::{
    Extension,
    body::Body,
    extract::State as AxumState,
    http::{Response, StatusCode, Uri},
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

/// Changes of an answer that is asked for no other number.
const LIMIT_DEFAULT: usize = 500;

/// Longest time that a request may wait.
const WAIT_MAX_S: u64 = 30;

/// Bytes of changes after which an answer ends, however few they are.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// `GET /api/changes`
pub(super) async fn poll(
    AxumState(state): AxumState<Arc<State>>,
    Extension(connection): Extension<Arc<Connection>>,
    Caller(caller): Caller,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let query = ChangesQuery::parse(&uri)?;
    let subscribed = state.parts.hub.subscribe(&caller.user_id, query.since);
    let (mut session, must_resync) = subscribed?;
    if must_resync {
        return Err(Problem::resync(session.position()));
    }
    let _counted = Counted::new(&state, Transport::Changes);
    let until = Instant::now() + query.wait.min(state.time_left(&caller));
    let shutdown = connection.listener.shutdown.clone();
    let mut answer = Answer { limit: query.limit, ..Answer::default() };
    tokio::select! {
        // What is there is told, even if there is no time to wait for more.
        biased;
        collected = answer.collect(&mut session) => collected?,
        () = sleep_until(until) => (),
        () = shutdown.begun() => (),
    }
    Ok(document_of(StatusCode::OK, answer.into_json(&session)))
}

/// What a request asks for.
struct ChangesQuery {
    since: StartAt,
    wait: Duration,
    limit: usize,
}

impl ChangesQuery {
    fn parse(uri: &Uri) -> Result<Self, Problem> {
        let (mut since, mut wait, mut limit) = (None, Duration::ZERO, LIMIT_DEFAULT);
        for (name, value) in query_pairs(uri)? {
            match name.as_str() {
                "since" => since = Some(parse_since(&value).ok_or_else(no_position)?),
                "wait" => {
                    let seconds = value.parse().ok().filter(|seconds| *seconds <= WAIT_MAX_S);
                    let refusal = || Problem::parameter("wait", "0 to 30 seconds");
                    wait = Duration::from_secs(seconds.ok_or_else(refusal)?);
                }
                "limit" => limit = list::limit(&value)?,
                // Whose changes they are (development mode); read with the token.
                "user" => (),
                _ => return Err(list::unknown(&name)),
            }
        }
        Ok(Self { since: since.ok_or_else(no_position)?, wait, limit })
    }
}

fn parse_since(value: &str) -> Option<StartAt> {
    match value {
        "earliest" => Some(StartAt::Earliest),
        position => position.parse().ok().map(StartAt::After),
    }
}

fn no_position() -> Problem {
    Problem::parameter("since", "a position as in `pos`, or earliest")
}

/// The changes of an answer.
#[derive(Default)]
struct Answer {
    limit: usize,
    changes: Vec<Bytes>,
    bytes: usize,
    /// There were more than it may have.
    is_cut: bool,
}

impl Answer {
    /// Takes changes until it is full, or has some and there are no more for now. Cancel safe: what
    /// was taken stays.
    async fn collect(&mut self, session: &mut Session) -> Result<(), Problem> {
        session.mark();
        let mut is_marked = true;
        loop {
            match session.next().await? {
                Next::Messages(messages) => {
                    if self.take(messages) {
                        return Ok(());
                    }
                    if !is_marked {
                        session.mark();
                        is_marked = true;
                    }
                }
                Next::Mark if self.changes.is_empty() => is_marked = false,
                Next::Mark => return Ok(()),
                Next::Resync(position) => return Err(Problem::resync(position)),
            }
        }
    }

    /// Whether it is full.
    fn take(&mut self, messages: Vec<Bytes>) -> bool {
        for message in messages {
            if self.is_full() {
                self.is_cut = true;
                break;
            }
            self.bytes += message.len();
            self.changes.push(message);
        }
        self.is_full()
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= self.limit || self.bytes >= ANSWER_BYTES_MAX
    }

    fn into_json(self, session: &Session) -> Vec<u8> {
        let here: Position = session.position();
        let last = self.changes.last().filter(|_| self.is_cut);
        let position = last.and_then(|last| message::position_of(last)).map(str::to_owned);
        let position = position.unwrap_or_else(|| here.to_string());
        let has_more = self.is_cut || (self.is_full() && session.lag() > 0);
        let mut json = Vec::with_capacity(self.bytes + self.changes.len() + 64);
        json.extend_from_slice(b"{\"changes\":");
        write_json_items(&self.changes, &mut json);
        json.extend_from_slice(format!(",\"pos\":\"{position}\",\"more\":{has_more}}}").as_bytes());
        json
    }
}

impl From<crate::hub::SubscribeError> for Problem {
    fn from(_: crate::hub::SubscribeError) -> Self {
        Self::new(Code::TooManySessions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bounded_in_number_and_in_bytes() {
        let mut answer = Answer { limit: 2, ..Answer::default() };
        assert!(!answer.take(vec![Bytes::from_static(b"{}")]));
        assert!(answer.take(vec![Bytes::from_static(b"{}"); 2]));
        assert!((answer.changes.len(), answer.is_cut) == (2, true));
        let mut answer = Answer { limit: 1_000, ..Answer::default() };
        let long = Bytes::from(vec![b' '; ANSWER_BYTES_MAX / 4]);
        assert!(answer.take(vec![long; 10]));
        assert!((answer.changes.len(), answer.is_cut) == (4, true));
    }

    #[test]
    fn a_query_is_checked_parameter_by_parameter() {
        let parse = |query: &str| {
            let uri: Uri = format!("/api/changes?{query}").parse().unwrap();
            ChangesQuery::parse(&uri).map_err(|problem| problem.code().as_str())
        };
        let query = parse("since=earliest&wait=25&limit=7&user=ada").ok().unwrap();
        assert_eq!((query.since, query.limit), (StartAt::Earliest, 7));
        assert_eq!(query.wait, Duration::from_secs(25));
        let query = parse("since=a.1.2").ok().unwrap();
        assert_eq!((query.wait, query.limit), (Duration::ZERO, LIMIT_DEFAULT));
        for bad in [
            "",
            "since=",
            "since=x",
            "since=earliest&wait=31",
            "since=earliest&wait=-1",
            "since=earliest&wait=",
            "since=earliest&limit=0",
            "since=earliest&limit=1001",
            "since=earliest&from=earliest",
        ] {
            assert_eq!(parse(bad).err(), Some("invalid_parameter"), "{bad}");
        }
    }
}
