//! The handshake of a WebSocket: what it asks for, and its answer.

use crate::{
    http::{
        follow::{FollowQuery, Start, Transport},
        problem::{Code, Problem},
    },
    hub::message::PROTOCOL,
};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Length of `Sec-WebSocket-Key`: 16 bytes in base64.
const KEY_CHARS: usize = 24;

/// How messages are framed for a client; chosen in one place, [`Mode::choose`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    /// Without a subprotocol: each text frame is one JSON document.
    Plain,
    /// `taskwire.v1`: the same, and what goes before, between and after them.
    V1,
}

impl Mode {
    /// The mode that the client asks for by `Sec-WebSocket-Protocol`. A subprotocol that we do not
    /// speak is left unanswered, as RFC 6455 has it.
    pub(super) fn choose(headers: &HeaderMap) -> Self {
        let mut asked = headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .flat_map(|value| value.to_str().unwrap_or("").split(','));
        if asked.any(|item| item.trim() == PROTOCOL) { Self::V1 } else { Self::Plain }
    }

    /// What its session goes over.
    pub(super) const fn transport(self) -> Transport {
        match self {
            Self::Plain => Transport::PlainSocket,
            Self::V1 => Transport::Socket,
        }
    }

    /// Where a session starts by `from` and `or`. What is only in `taskwire.v1` is no position
    /// without it.
    pub(super) fn start(self, from: Option<&str>, or: Option<&str>) -> Option<Start> {
        let or = or.filter(|_| self == Self::V1);
        Start::parse(from, or).filter(|start| self == Self::V1 || !start.has_snapshot())
    }

    /// Where the session starts that a query asks for.
    pub(super) fn start_of(self, query: &FollowQuery) -> Result<Start, Problem> {
        let start = self.start(query.from.as_deref(), query.or.as_deref());
        start.ok_or_else(|| match self {
            Self::Plain => Problem::parameter("from", "a position as in `pos`, or earliest"),
            Self::V1 => {
                let detail = "a position as in `pos`, earliest or snapshot; `or` is snapshot";
                Problem::parameter("from", detail)
            }
        })
    }
}

/// Checks the client's handshake (RFC 6455, 4.2.1); returns the answer to its key.
pub(super) fn check_handshake(request: &Request) -> Result<String, Problem> {
    let headers = request.headers();
    let has = |name, token: &str| {
        headers.get_all(name).iter().any(|value| {
            let items = value.to_str().unwrap_or("").split(',');
            items.map(str::trim).any(|item| item.eq_ignore_ascii_case(token))
        })
    };
    // The router gives HEAD to whoever takes GET.
    let is_upgrade = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket");
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if !is_upgrade || version.is_none_or(|version| version != "13") {
        return Err(Problem::new(Code::UpgradeRequired));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|key| is_key(key));
    let key = key.ok_or(Problem::with_detail(Code::InvalidHeader, "Sec-WebSocket-Key"))?;
    Ok(derive_accept_key(key))
}

/// Whether it is 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let digits = key.strip_suffix(b"==").unwrap_or_default();
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    digits.len() == KEY_CHARS - 2 && digits.iter().all(is_digit)
}

pub(super) fn switching_protocols(accept: &str, mode: Mode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(accept).expect("base64 is a header value");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if mode == Mode::V1 {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    response
}
