//! Tokens of a WebSocket that come neither in `Authorization` nor in the query: browsers can send
//! no header of their own, and a query ends up in logs.

use crate::{
    auth::{AuthError, Principal},
    http::Connection,
    hub::message::CloseCode,
};
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use tracing::info;

/// Time for the first frame of a socket that has no token yet.
pub(super) const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the item of `Sec-WebSocket-Protocol` begins with that holds a token.
const BEARER: &str = "taskwire.bearer.";

/// The token among the subprotocols. It is never chosen as one: that would send it back. A header
/// that cannot be read counts as a token that fails, for it may have held one.
pub(super) fn of_subprotocols(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .map(|value| value.to_str().unwrap_or(BEARER))
        .flat_map(|value| value.split(','))
        .find_map(|item| item.trim().strip_prefix(BEARER))
}

/// What an `auth` frame holds. `from` and `or` are those of the query, and count in the first frame
/// of `taskwire.v1` only, so that nowhere else anything is asked of them.
#[derive(Deserialize, Eq, PartialEq)]
#[cfg_attr(test, derive(Debug))]
pub(super) struct AuthFrame {
    pub(super) token: String,
    pub(super) from: Option<Value>,
    pub(super) or: Option<Value>,
}

/// Reads `{"type":"auth","data":{"token":"..."}}`, whatever else is in it.
pub(super) fn of_frame(text: &str) -> Option<AuthFrame> {
    #[derive(Deserialize)]
    struct Frame {
        #[serde(rename = "type")]
        kind: String,
        data: AuthFrame,
    }
    let frame: Frame = serde_json::from_str(text).ok()?;
    (frame.kind == "auth").then_some(frame.data)
}

impl Connection {
    /// Checks a token that came in a frame. A refusal is counted and logged as those of requests.
    ///
    /// # Errors
    /// How the socket is closed.
    pub(super) fn authenticate_frame(&self, token: Option<&str>) -> Result<Principal, CloseCode> {
        let state = &self.listener.state;
        let checked = token.ok_or(AuthError::Missing).and_then(|token| {
            // Never the development user: who sends a frame with a token wants to be its user.
            state.parts.authenticator.authenticate(Some(token), None)
        });
        let reason = match checked {
            Ok(principal) => {
                return match state.usage.count_user(&principal.user_id) {
                    Ok(()) => Ok(principal),
                    Err(_) => Err(CloseCode::RateLimited),
                };
            }
            Err(AuthError::NoKeys) => return Err(CloseCode::Internal),
            Err(reason) => reason,
        };
        state.parts.metrics.auth_failures.inc();
        info!(peer = %self.peer, path = "/ws/tasks", %reason, "a socket was refused");
        match state.usage.count_failure(self.peer.ip()) {
            Ok(()) => Err(CloseCode::Token),
            Err(_) => Err(CloseCode::RateLimited),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_among_subprotocols() {
        let find = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::SEC_WEBSOCKET_PROTOCOL, value.parse().unwrap());
            }
            of_subprotocols(&headers).map(str::to_owned)
        };
        assert_eq!(find(&["taskwire.v1, taskwire.bearer.a.b.c"]).as_deref(), Some("a.b.c"));
        assert_eq!(find(&["taskwire.v1", "x,taskwire.bearer.a"]).as_deref(), Some("a"));
        assert_eq!(find(&["taskwire.bearer."]).as_deref(), Some(""));
        assert_eq!(find(&["taskwire.v1, taskwire.bearer.\u{e4}"]).as_deref(), Some(""));
        assert_eq!(find(&["taskwire.v1", "bearer.a"]), None);
        assert_eq!(find(&[]), None);
    }

    #[test]
    fn a_token_is_read_from_a_frame() {
        let good = "{\"type\":\"auth\",\"data\":{\"token\":\"a\",\"x\":1},\"id\":7}";
        assert_eq!(of_frame(good).map(|frame| frame.token).as_deref(), Some("a"));
        for bad in [
            "",
            "a",
            "{\"type\":\"auth\"}",
            "{\"type\":\"auth\",\"data\":\"a\"}",
            "{\"type\":\"auth\",\"data\":{\"token\":1}}",
            "{\"type\":\"auth\",\"data\":{\"token\":\"a\",\"token\":\"b\"}}",
            "{\"type\":\"ping\",\"data\":{\"token\":\"a\"}}",
            "{\"data\":{\"token\":\"a\"}}",
        ] {
            assert_eq!(of_frame(bad), None, "{bad}");
        }
    }
}
