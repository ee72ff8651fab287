//! What handlers ask of a request before they look at its body.

use super::{
    State,
    problem::{Code, Problem},
};
use crate::{
    auth::{AuthError, Principal},
    position::Position,
    store::Placement,
    task::TaskId,
};
use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{HeaderMap, HeaderValue, Uri, header, request::Parts},
};
use std::{convert::Infallible, sync::Arc};
use tokio::time::timeout;

/// Who asks for tasks; refused while the store is still catching up.
pub(super) struct Caller(pub(super) Principal);

impl FromRequestParts<Arc<State>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<State>,
    ) -> Result<Self, Self::Rejection> {
        let user = dev_user(state, &parts.uri);
        let principal = authenticate(state, &parts.headers, None, user.as_deref())?;
        state.check_ready()?;
        Ok(Self(principal))
    }
}

/// Who reads tasks, once applied state includes the position of `?min_pos=`.
pub(super) struct Reader(pub(super) Principal);

impl FromRequestParts<Arc<State>> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<State>,
    ) -> Result<Self, Self::Rejection> {
        let Caller(principal) = Caller::from_request_parts(parts, state).await?;
        let pairs = query_pairs(&parts.uri)?;
        if let Some((_, text)) = pairs.iter().find(|(name, _)| name == "min_pos") {
            wait_for(state, text).await?;
        }
        Ok(Self(principal))
    }
}

/// Waits, at most the write timeout, until a position is applied.
///
/// # Errors
/// `InvalidParameter`: it is none. `Resync`: it is of another store, or did not come in time.
async fn wait_for(state: &State, text: &str) -> Result<(), Problem> {
    let position: Position =
        text.parse().map_err(|_| Problem::parameter("min_pos", "a position"))?;
    let store = &state.parts.store;
    let earliest = store.earliest();
    if position.epoch != earliest.epoch {
        return Err(Problem::new(Code::Resync));
    }
    let is_applied = || {
        // What is trimmed was applied.
        position.sequence <= earliest.sequence
            || matches!(store.place(position), Placement::After(_))
    };
    let mut progress = state.progress.clone();
    let applied = async {
        loop {
            // Seen before it is looked at, so that no change is missed.
            progress.mark_unchanged();
            if is_applied() {
                return true;
            }
            if progress.changed().await.is_err() {
                return false;
            }
        }
    };
    match timeout(state.options.write_timeout, applied).await {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Problem::new(Code::Resync)),
    }
}

/// The request's headers, taken and not copied; what comes after in a handler's
/// arguments finds none.
pub(super) struct Headers(pub(super) HeaderMap);

impl FromRequestParts<Arc<State>> for Headers {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &Arc<State>,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self(std::mem::take(&mut parts.headers)))
    }
}

/// Who a request is of: the `Authorization` header, else `query_token`, else (development mode)
/// the user of `?user=`.
pub(super) fn authenticate(
    state: &State,
    headers: &HeaderMap,
    query_token: Option<&str>,
    dev_user: Option<&str>,
) -> Result<Principal, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let token = match (values.next(), values.next()) {
        (Some(value), None) => Some(bearer(value)?),
        (None, _) => query_token,
        // Which of them a proxy has looked at, nobody knows.
        (Some(_), Some(_)) => return Err(AuthError::Invalid("two Authorization headers").into()),
    };
    let principal = state.parts.authenticator.authenticate(token, dev_user)?;
    state.usage.count_user(&principal.user_id).map_err(Problem::rate_limited)?;
    Ok(principal)
}

fn bearer(value: &HeaderValue) -> Result<&str, AuthError> {
    let refusal = AuthError::Invalid("no bearer token");
    let text = value.to_str().map_err(|_| refusal.clone())?;
    let (scheme, token) = text.trim().split_once(' ').ok_or(refusal.clone())?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refusal);
    }
    Ok(token.trim_start())
}

/// What `?user=` names; nothing unless in development mode.
pub(super) fn dev_user(state: &State, uri: &Uri) -> Option<String> {
    if !state.parts.authenticator.is_development() {
        return None;
    }
    query_pairs(uri).ok()?.into_iter().find(|(name, _)| name == "user").map(|(_, value)| value)
}

/// The query's parameters, decoded, in order.
///
/// # Errors
/// `InvalidParameter`: it is not of the form `name=value&...`.
pub(super) fn query_pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    if uri.query().is_none_or(str::is_empty) {
        return Ok(Vec::new());
    }
    Query::try_from_uri(uri)
        .map(|Query(pairs)| pairs)
        .map_err(|_| Problem::with_detail(Code::InvalidParameter, "the query cannot be read"))
}

/// The path's one parameter; empty if it cannot be read as text, which names nothing.
pub(super) struct PathText(pub(super) String);

impl FromRequestParts<Arc<State>> for PathText {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<State>,
    ) -> Result<Self, Self::Rejection> {
        let path = Path::<String>::from_request_parts(parts, state).await.ok();
        Ok(Self(path.map(|Path(text)| text).unwrap_or_default()))
    }
}

/// The task that the path names. What can be no task's id names no task.
pub(super) struct TaskPath(pub(super) TaskId);

impl FromRequestParts<Arc<State>> for TaskPath {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<State>,
    ) -> Result<Self, Self::Rejection> {
        let path = Path::<String>::from_request_parts(parts, state).await.ok();
        path.and_then(|Path(text)| TaskId::new(&text))
            .map(Self)
            .ok_or(Problem::new(Code::TaskNotFound))
    }
}

/// The versions that a conditional header names.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Versions {
    /// `*`
    Any,
    /// Entity tags of versions; a tag that is none of ours names no version.
    Listed(Vec<u64>),
}

impl Versions {
    /// Reads `If-Match` or `If-None-Match`; `None` if it is not there. A weak tag counts only in
    /// the weak comparison of `If-None-Match` (RFC 9110, 8.8.3.2).
    ///
    /// # Errors
    /// `InvalidHeader`
    pub(super) fn read(
        headers: &HeaderMap,
        name: &header::HeaderName,
    ) -> Result<Option<Self>, Problem> {
        let takes_weak = *name == header::IF_NONE_MATCH;
        let mut listed = Vec::new();
        let mut is_there = false;
        for value in headers.get_all(name) {
            is_there = true;
            let invalid = || Problem::with_detail(Code::InvalidHeader, name.to_string());
            for tag in value.to_str().map_err(|_| invalid())?.split(',').map(str::trim) {
                if tag == "*" {
                    return Ok(Some(Self::Any));
                }
                let (is_weak, quoted) = match tag.strip_prefix("W/") {
                    Some(quoted) => (true, quoted),
                    None => (false, tag),
                };
                let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                let inner = inner.ok_or_else(invalid)?;
                listed.extend(inner.parse::<u64>().ok().filter(|_| takes_weak || !is_weak));
            }
        }
        Ok(is_there.then_some(Self::Listed(listed)))
    }

    /// Whether a version is named.
    pub(super) fn contain(&self, version: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => listed.contains(&version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &header::HeaderName, value: &str, expected: Option<&Versions>) {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        assert_eq!(Versions::read(&headers, name).ok().flatten().as_ref(), expected, "{value}");
    }

    #[test]
    fn entity_tags_are_read() {
        check(&header::IF_MATCH, "\"3\"", Some(&Versions::Listed(vec![3])));
        check(&header::IF_MATCH, "\"3\", \"4\"", Some(&Versions::Listed(vec![3, 4])));
        check(&header::IF_MATCH, "*", Some(&Versions::Any));
        check(&header::IF_MATCH, "W/\"3\"", Some(&Versions::Listed(vec![])));
        check(&header::IF_NONE_MATCH, "W/\"3\"", Some(&Versions::Listed(vec![3])));
        check(&header::IF_MATCH, "\"abc\"", Some(&Versions::Listed(vec![])));
        check(&header::IF_MATCH, "3", None);
        check(&header::IF_MATCH, "", None);
        let none = Versions::read(&HeaderMap::new(), &header::IF_MATCH);
        assert_eq!(none.unwrap(), None);
    }
}
