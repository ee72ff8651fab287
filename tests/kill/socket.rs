//! A WebSocket that resumes with its last position, whatever ended it.

use crate::{Shared, random::Random, support::socket::Socket};
use serde_json::Value;
use std::time::Duration;

/// What one follower was told, over all its sockets.
pub(crate) struct Seen {
    pub(crate) user: String,
    pub(crate) messages: Vec<Value>,
    /// Where it could go on.
    pub(crate) position: String,
    /// How many sockets it took.
    pub(crate) sockets: usize,
}

/// Follows `user`; with `hopping` it also leaves by itself now and then.
pub(crate) async fn follow(
    user: &str,
    token: String,
    shared: Shared,
    mut hopping: Option<Random>,
) -> Seen {
    let position = "earliest".to_owned();
    let mut seen = Seen { user: user.to_owned(), messages: Vec::new(), position, sockets: 0 };
    loop {
        let query = format!("token={token}&from={}", seen.position);
        let mut socket = match Socket::open(shared.http, &query).await {
            Ok(socket) => socket,
            Err(None | Some(503)) => {
                tokio::time::sleep(Duration::from_millis(3)).await;
                continue;
            }
            Err(Some(status)) => panic!("the socket was refused: {status}"),
        };
        seen.sockets += 1;
        let mut left = hopping.as_mut().map_or(u64::MAX, |random| random.below(300));
        while left > 0 {
            left -= 1;
            tokio::select! {
                () = shared.readers.cancelled() => {
                    let rest = socket.drain().await;
                    rest.into_iter().for_each(|message| seen.take(message));
                    return seen;
                }
                message = socket.try_next() => match message {
                    Some(message) => seen.take(message),
                    None => break,
                }
            }
        }
    }
}

impl Seen {
    fn take(&mut self, message: Value) {
        assert_ne!(message["type"], "resync", "a position that this store gave");
        self.position = message["pos"].as_str().expect("a position").to_owned();
        self.messages.push(message);
    }
}
