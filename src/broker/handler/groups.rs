//! The group APIs.

use crate::{
    broker::{Broker, Peer},
    wire::{
        RequestHeader,
        messages::{RequestKind, ResponseKind},
    },
};

/// Answers a request of the group APIs; `None` if the key is not one of them.
pub(in crate::broker) async fn dispatch(
    broker: &Broker,
    peer: &Peer,
    header: &RequestHeader,
    body: RequestKind,
) -> Option<ResponseKind> {
    let _ = (broker, peer, header, body);
    None
}
