//! The messages that are not changes, and the close codes: one table.
//!
//! Invariant: a change's final form is made here and nowhere else, once per change and not once per
//! session.

use crate::position::Position;
use bytes::Bytes;
use std::io::Write as _;

/// Bytes that a position adds to a message: its key, three numbers at their longest, the brace.
const POSITION_BYTES_MAX: usize = 8 + 16 + 1 + 10 + 1 + 20 + 2;

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

fn append_position(text: &mut Vec<u8>, position: Position) {
    write!(text, r#","pos":"{position}"}}"#).expect("writing to memory does not fail");
}

/// Why a WebSocket is closed by us, beside what the WebSocket protocol itself asks for.
///
/// 4400 to 4499: the client must not come back unchanged. 4500 to 4599 and 1001: it comes back with
/// its position.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CloseCode {
    /// The daemon stops (sockets without a subprotocol).
    GoingAway,
    /// Against the rules that the WebSocket protocol leaves to us, binary frames for one.
    PolicyViolation,
    /// A frame or message over our bound.
    MessageTooBig,
    /// A frame that is none of ours.
    BadFrame,
    /// No token, a bad one, or one that has expired.
    Token,
    /// An origin that is not allowed.
    Origin,
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
            Self::PolicyViolation => (1008, "not allowed"),
            Self::MessageTooBig => (1009, "message too big"),
            Self::BadFrame => (4400, "bad frame"),
            Self::Token => (4401, "token missing, wrong or expired"),
            Self::Origin => (4403, "origin not allowed"),
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
