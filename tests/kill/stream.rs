//! A client of `taskwire.v1`, of server-sent events or of long polls that resumes with its last
//! position, whatever ended it.

use crate::{
    Shared,
    socket::Seen,
    support::follow::{Transport, is_change},
};
use serde_json::Value;
use std::time::Duration;

/// Follows `user` until all is applied.
pub(crate) async fn follow(
    transport: Transport,
    user: &'static str,
    token: String,
    shared: Shared,
) -> Seen {
    let position = "earliest".to_owned();
    let mut seen = Seen { user: user.to_owned(), messages: Vec::new(), position, sockets: 0 };
    loop {
        let mut stream = match transport.open(shared.http, &token, &seen.position).await {
            Ok(stream) => stream,
            Err(None | Some(503)) => {
                tokio::time::sleep(Duration::from_millis(3)).await;
                continue;
            }
            Err(Some(status)) => panic!("{transport:?} was refused: {status}"),
        };
        seen.sockets += 1;
        if shared.readers.is_cancelled() {
            stream.up_to_live().await.into_iter().for_each(|document| take(&mut seen, document));
            return seen;
        }
        loop {
            tokio::select! {
                () = shared.readers.cancelled() => break,
                document = stream.next() => match document {
                    Some(document) => take(&mut seen, document),
                    None => break,
                }
            }
        }
    }
}

/// Keeps changes, and the position of whatever has one.
fn take(seen: &mut Seen, document: Value) {
    assert_ne!(document["type"], "resync", "a position that this store gave");
    if let Some(position) = document["pos"].as_str() {
        seen.position = position.to_owned();
    }
    if is_change(&document) {
        seen.messages.push(document);
    }
}
