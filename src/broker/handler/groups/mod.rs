//! The APIs of consumer groups: requests become commands of the coordinator, and back.

mod delete_groups;
mod describe_groups;
mod find_coordinator;
mod heartbeat;
mod join_group;
mod leave_group;
mod list_groups;
mod offset_commit;
mod offset_fetch;
mod sync_group;

#[cfg(test)]
mod tests;

use crate::{
    broker::{
        Peer,
        coordinator::{Committer, Coordinator},
        group::Identity,
    },
    position::TopicName,
    wire::{
        ErrorCode, RequestHeader,
        messages::{RequestKind, ResponseKind},
    },
};
use std::sync::Arc;

/// Who this broker is, to its clients.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Node {
    /// The id that Metadata answers.
    pub(in crate::broker) id: i32,
    /// The address that this client is to use.
    pub(in crate::broker) host: String,
    /// Its port.
    pub(in crate::broker) port: u16,
}

/// What the handlers of this folder need of the broker.
pub(in crate::broker) struct Context<'a> {
    /// Runs the groups.
    pub(in crate::broker) coordinator: &'a Coordinator,
    /// This broker.
    pub(in crate::broker) node: Node,
    /// Partitions of a topic; 0 if there is none.
    pub(in crate::broker) partition_count: &'a (dyn Fn(&TopicName) -> u32 + Sync),
}

/// Answers the requests of this folder; `None` for any other.
pub(in crate::broker) async fn dispatch_with(
    context: &Context<'_>,
    peer: &Peer,
    header: &RequestHeader,
    body: RequestKind,
) -> Option<ResponseKind> {
    let version = header.version;
    Some(match body {
        RequestKind::FindCoordinator(request) => ResponseKind::FindCoordinator(
            find_coordinator::handle(&context.node, version, &request),
        ),
        RequestKind::JoinGroup(request) => ResponseKind::JoinGroup(
            join_group::handle(context.coordinator, peer, version, &request).await,
        ),
        RequestKind::SyncGroup(request) => {
            ResponseKind::SyncGroup(sync_group::handle(context.coordinator, &request).await)
        }
        RequestKind::Heartbeat(request) => {
            ResponseKind::Heartbeat(heartbeat::handle(context.coordinator, &request).await)
        }
        RequestKind::LeaveGroup(request) => ResponseKind::LeaveGroup(
            leave_group::handle(context.coordinator, version, request).await,
        ),
        RequestKind::OffsetCommit(request) => {
            ResponseKind::OffsetCommit(offset_commit::handle(context, request).await)
        }
        RequestKind::OffsetFetch(request) => ResponseKind::OffsetFetch(
            offset_fetch::handle(context.coordinator, version, request).await,
        ),
        RequestKind::DescribeGroups(request) => ResponseKind::DescribeGroups(
            describe_groups::handle(context.coordinator, version, request).await,
        ),
        RequestKind::ListGroups(request) => {
            ResponseKind::ListGroups(list_groups::handle(context.coordinator, &request).await)
        }
        RequestKind::DeleteGroups(request) => {
            ResponseKind::DeleteGroups(delete_groups::handle(context.coordinator, request).await)
        }
        _ => return None,
    })
}

fn code(result: Result<(), ErrorCode>) -> i16 {
    result.err().unwrap_or(ErrorCode::None).code()
}

fn identity(member_id: &str, instance_id: Option<&str>) -> Identity {
    Identity { member_id: member_id.to_owned(), instance_id: instance_id.map(Arc::from) }
}

fn committer(member_id: &str, instance_id: Option<&str>, generation: i32) -> Committer {
    Committer { identity: identity(member_id, instance_id), generation }
}

/// A text field of a response.
fn text<T: From<String>>(text: &str) -> T {
    T::from(text.to_owned())
}
