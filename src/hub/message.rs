//! The messages that are not changes, and the close codes: one table.
//!
//! Invariant: a change's final form is made here and nowhere else, once per change and not once per
//! session.

use crate::{
    position::Position,
    task::{UserId, time, write_json_items},
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::io::Write as _;

/// Bytes that a position adds to a message: its key, three numbers at their longest, the brace.
const POSITION_BYTES_MAX: usize = 8 + 16 + 1 + 10 + 1 + 20 + 2;

/// The name of what goes beyond bare messages.
pub const PROTOCOL: &str = "taskwire.v1";

/// The answer to the text `ping`.
pub const PONG: &str = r#"{"type":"pong"}"#;

/// A change as a socket sends it: the message as stored, with its position, closed.
pub fn with_position(message: &[u8], position: Position) -> Bytes {
    let mut text = Vec::with_capacity(message.len() + POSITION_BYTES_MAX);
    text.extend_from_slice(message);
    append_position(&mut text, position);
    text.into()
}

/// Tells a client that changes before this position are not to be had: it reads its tasks anew and
/// goes on from here.
pub fn resync(position: Position) -> Bytes {
    let mut text = br#"{"type":"resync""#.to_vec();
    append_position(&mut text, position);
    text.into()
}

/// Who is heard, and for how long: the first message of `taskwire.v1`.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    /// The token's user.
    pub user_id: &'a UserId,
    /// Names this session.
    pub session: &'a str,
    /// When the token expires, in milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
}

/// The first message of a session that starts at `position`.
pub fn hello(hello: Hello<'_>, position: Position) -> Bytes {
    let data = json!({
        "protocol": PROTOCOL,
        "user_id": hello.user_id.as_str(),
        "session": hello.session,
        "version": env!("CARGO_PKG_VERSION"),
        "expires_at": hello.expires_at_ms.map(time::to_text),
    });
    let mut text = br#"{"type":"hello","data":"#.to_vec();
    text.extend_from_slice(data.to_string().as_bytes());
    append_position(&mut text, position);
    text.into()
}

/// Tasks as they were at `position`; `has_more` tells that this is not the last part.
pub fn snapshot(tasks: &[Bytes], has_more: bool, position: Position) -> Bytes {
    let bytes = tasks.iter().map(|task| task.len() + 1).sum::<usize>();
    let mut text = Vec::with_capacity(bytes + 64 + POSITION_BYTES_MAX);
    text.extend_from_slice(br#"{"type":"snapshot","data":{"tasks":"#);
    write_json_items(tasks, &mut text);
    write!(text, r#","more":{has_more}}}"#).expect("writing to memory does not fail");
    append_position(&mut text, position);
    text.into()
}

/// All that was published when the session began has been sent.
pub fn live(position: Position) -> Bytes {
    let mut text = br#"{"type":"live""#.to_vec();
    append_position(&mut text, position);
    text.into()
}

/// The daemon stops; the client comes back after so many milliseconds.
pub fn drain(reconnect_after_ms: u64) -> Bytes {
    of_data("drain", &json!({ "reconnect_after_ms": reconnect_after_ms }))
}

/// The token expires soon.
pub fn token_expiring(expires_at_ms: i64) -> Bytes {
    of_data("token_expiring", &json!({ "expires_at": time::to_text(expires_at_ms) }))
}

/// Another token was taken.
pub fn auth_ok(expires_at_ms: Option<i64>) -> Bytes {
    of_data("auth_ok", &json!({ "expires_at": expires_at_ms.map(time::to_text) }))
}

fn of_data(kind: &str, data: &Value) -> Bytes {
    format!(r#"{{"type":"{kind}","data":{data}}}"#).into()
}

/// The position that a message ends in, as it is written there; `None` for one without.
pub fn position_of(message: &[u8]) -> Option<&str> {
    let text = message.strip_suffix(br#""}"#)?;
    let start = text.iter().rposition(|byte| *byte == b'"')?;
    let (head, position) = text.split_at_checked(start + 1)?;
    if !head.ends_with(br#","pos":""#) {
        return None;
    }
    std::str::from_utf8(position).ok()
}

/// The type that a message begins with, as JSON text; `None` for what is no message of ours.
pub fn type_of(message: &[u8]) -> Option<String> {
    let rest = message.strip_prefix(br#"{"type":"#)?;
    serde_json::Deserializer::from_slice(rest).into_iter::<String>().next()?.ok()
}

fn append_position(text: &mut Vec<u8>, position: Position) {
    write!(text, r#","pos":"{position}"}}"#).expect("writing to memory does not fail");
}

/// Why a WebSocket is closed by us, beside what the WebSocket protocol itself asks for. A page of a
/// foreign origin is refused before there is a WebSocket.
///
/// 4400 to 4499: the client must not come back unchanged. 4500 to 4599 and 1001: it comes back with
/// its position.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CloseCode {
    /// The daemon stops (sockets without a subprotocol).
    GoingAway,
    /// A frame or message over our bound.
    MessageTooBig,
    /// A frame that is none of ours.
    BadFrame,
    /// No token, a bad one, or one that has expired.
    Token,
    /// As many sessions as are allowed are open.
    TooManySessions,
    /// Frames faster than allowed.
    RateLimited,
    /// Our failure.
    Internal,
    /// The daemon stops (subprotocol `taskwire.v1`).
    Draining,
    /// The client did not read for too long.
    Slow,
    /// The client did not answer our ping.
    NoPong,
}

impl CloseCode {
    /// The whole table: code and reason. The reason is what the client is shown, under 123 bytes.
    const fn row(self) -> (u16, &'static str) {
        match self {
            Self::GoingAway => (1001, "the server stops"),
            Self::MessageTooBig => (1009, "message too big"),
            Self::BadFrame => (4400, "bad frame"),
            Self::Token => (4401, "token missing, wrong or expired"),
            Self::TooManySessions => (4409, "too many sessions"),
            Self::RateLimited => (4429, "too many frames"),
            Self::Internal => (4500, "internal error"),
            Self::Draining => (4503, "the server stops, come back with your position"),
            Self::Slow => (4508, "read too slowly"),
            Self::NoPong => (4512, "no pong"),
        }
    }

    /// The code on the wire.
    pub const fn code(self) -> u16 {
        self.row().0
    }

    /// The reason on the wire.
    pub const fn reason(self) -> &'static str {
        self.row().1
    }

    /// Whether a client should come back by itself, with its position.
    pub const fn may_reconnect(self) -> bool {
        matches!(self.code(), 1001 | 4500..=4599)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = Position { epoch: 0xab, run: 2, sequence: 30 };

    #[test]
    fn a_change_ends_in_its_position() {
        let message = with_position(br#"{"type":"x","data":{}"#, POSITION);
        assert_eq!(&message[..], br#"{"type":"x","data":{},"pos":"ab.2.30"}"#);
        assert_eq!(&resync(POSITION)[..], br#"{"type":"resync","pos":"ab.2.30"}"#);
    }

    #[test]
    fn the_messages_around_changes_are_json() {
        let user_id = UserId::new("a\"b").unwrap();
        let hello_of = |expires_at_ms| {
            let hello_to = Hello { user_id: &user_id, session: "s", expires_at_ms };
            let text = hello(hello_to, POSITION);
            serde_json::from_slice::<Value>(&text).unwrap()
        };
        let data = json!({
            "protocol": "taskwire.v1", "user_id": "a\"b", "session": "s",
            "version": env!("CARGO_PKG_VERSION"), "expires_at": "1970-01-01T00:00:01.000Z",
        });
        assert_eq!(hello_of(Some(1_000)), json!({"type": "hello", "data": data, "pos": "ab.2.30"}));
        assert_eq!(hello_of(None)["data"]["expires_at"], Value::Null);
        for (tasks, expected) in [(vec![], "[]"), (vec!["1"], "[1]"), (vec!["1", "2"], "[1,2]")] {
            let tasks: Vec<Bytes> = tasks.into_iter().map(Bytes::from).collect();
            let data = format!(r#"{{"tasks":{expected},"more":false}}"#);
            let expected = format!(r#"{{"type":"snapshot","data":{data},"pos":"ab.2.30"}}"#);
            assert_eq!(snapshot(&tasks, false, POSITION), expected);
        }
        assert_eq!(live(POSITION), r#"{"type":"live","pos":"ab.2.30"}"#);
        assert_eq!(drain(5), r#"{"type":"drain","data":{"reconnect_after_ms":5}}"#);
        let data = r#"{"expires_at":"1970-01-01T00:00:00.000Z"}"#;
        assert_eq!(token_expiring(0), format!(r#"{{"type":"token_expiring","data":{data}}}"#));
        assert_eq!(auth_ok(None), r#"{"type":"auth_ok","data":{"expires_at":null}}"#);
    }

    #[test]
    fn type_and_position_are_read_back() {
        let message = with_position(br#"{"type":"a\nb","data":{"pos":"x"}"#, POSITION);
        assert_eq!(position_of(&message), Some("ab.2.30"));
        assert_eq!(type_of(&message).as_deref(), Some("a\nb"));
        assert_eq!((position_of(PONG.as_bytes()), position_of(&drain(1))), (None, None));
        assert_eq!((position_of(b""), position_of(b"\"}"), type_of(b"{}")), (None, None, None));
    }

    #[test]
    fn the_longest_position_needs_no_second_allocation() {
        let position = Position { epoch: u64::MAX, run: u32::MAX, sequence: u64::MAX };
        let added = with_position(b"{", position).len() - 1;
        assert!(added <= POSITION_BYTES_MAX, "{added}");
    }

    #[test]
    fn close_codes_tell_whether_to_come_back() {
        assert!(CloseCode::GoingAway.may_reconnect());
        assert!(CloseCode::Draining.may_reconnect() && CloseCode::Slow.may_reconnect());
        assert!(!CloseCode::Token.may_reconnect() && !CloseCode::MessageTooBig.may_reconnect());
        assert_eq!(CloseCode::Token.code(), 4401);
    }
}
