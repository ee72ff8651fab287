//! What a client says.

use super::{
    frames::{End, end_of},
    token::{self, AuthFrame},
};
use crate::{
    http::limits::{Bucket, SocketLimits},
    hub::message::CloseCode,
};
use serde::Deserialize;
use std::borrow::Cow;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

/// What a client says.
#[derive(Eq, PartialEq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Said {
    /// `ping`, as text or as JSON.
    Ping,
    /// A token, good or not.
    Auth(AuthFrame),
    /// Nothing that is for us.
    Other,
    /// What looks like a message of the protocol, and is none.
    Bad,
}

impl Said {
    /// Text that is no JSON object is a page's own business; an object is a message to us.
    fn parse(text: &str) -> Self {
        #[derive(Deserialize)]
        struct ClientMessage<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
        }
        let text = text.trim();
        if text == "ping" {
            return Self::Ping;
        }
        if !text.starts_with('{') {
            return Self::Other;
        }
        match serde_json::from_str::<ClientMessage<'_>>(text) {
            Ok(message) if message.kind == "ping" => Self::Ping,
            Ok(message) if message.kind == "auth" => {
                token::of_frame(text).map_or(Self::Bad, Self::Auth)
            }
            _ => Self::Bad,
        }
    }
}

/// What comes from the peer, counted.
pub(super) struct Inbound<'a> {
    pub(super) limits: &'a SocketLimits,
    start: Instant,
    bucket: Bucket,
}

impl<'a> Inbound<'a> {
    pub(super) fn new(limits: &'a SocketLimits) -> Self {
        Self { limits, start: Instant::now(), bucket: Bucket::default() }
    }

    /// Looks at one frame of the peer.
    pub(super) fn receive(
        &mut self,
        frame: Option<Result<Message, SocketError>>,
    ) -> Result<Said, End> {
        match frame {
            None | Some(Ok(Message::Close(_))) => Err(End::Gone),
            Some(Ok(_)) if !self.is_within_rate() => Err(End::Close(CloseCode::RateLimited.into())),
            Some(Ok(Message::Text(text))) => match Said::parse(text.as_str()) {
                Said::Bad => Err(End::Close(CloseCode::BadFrame.into())),
                said => Ok(said),
            },
            Some(Ok(Message::Binary(_))) => Err(End::Close(CloseCode::BadFrame.into())),
            // Pings are answered by the protocol.
            Some(Ok(_)) => Ok(Said::Other),
            Some(Err(error)) => Err(end_of(&error)),
        }
    }

    fn is_within_rate(&mut self) -> bool {
        let elapsed = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.limits.rate.is_none_or(|rate| rate.take(&mut self.bucket, elapsed).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_message_has_to_be_one() {
        for (text, expected) in [
            ("ping", Said::Ping),
            (" ping\n", Said::Ping),
            ("{\"type\":\"ping\"}", Said::Ping),
            ("{ \"at\": 1, \"type\": \"p\\u0069ng\" }", Said::Ping),
            (
                "{\"type\":\"auth\",\"data\":{\"token\":\"x\"}}",
                Said::Auth(AuthFrame { token: "x".to_owned(), from: None, or: None }),
            ),
            ("{\"type\":\"auth\"}", Said::Bad),
            ("", Said::Other),
            ("hello", Said::Other),
            ("[1]", Said::Other),
            ("{", Said::Bad),
            ("{}", Said::Bad),
            ("{\"type\":1}", Said::Bad),
            ("{\"type\":\"ping\",\"type\":\"ping\"}", Said::Bad),
            ("{\"type\":\"ping\"}{", Said::Bad),
            ("{\"type\":\"what\"}", Said::Bad),
        ] {
            assert_eq!(Said::parse(text), expected, "{text}");
        }
        let resumes = "{\"type\":\"auth\",\"data\":{\"token\":\"x\",\"from\":\"a.1.2\",\"or\":7}}";
        let Said::Auth(auth) = Said::parse(resumes) else { panic!("a token") };
        assert_eq!((auth.from, auth.or), (Some("a.1.2".into()), Some(7.into())));
        let deep = format!("{{\"x\":{}}}", "[".repeat(60_000));
        assert_eq!(Said::parse(&deep), Said::Bad);
    }
}
