//! JoinGroup 0-9. Below version 4 a new member joins at once; from then on it gets its id with
//! MEMBER_ID_REQUIRED and comes back. Static members from version 5.

use super::{identity, text};
use crate::{
    broker::{
        Peer,
        coordinator::Coordinator,
        group::{
            JoinRefused, JoinReply, JoinRequest, Joined, MemberId, Protocol, SESSION_TIMEOUT_MAX,
            SESSION_TIMEOUT_MIN,
        },
    },
    wire::{
        ErrorCode,
        messages::{
            JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember,
        },
    },
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

const VERSION_REBALANCE_TIMEOUT: i16 = 1;
const VERSION_KNOWN_ID: i16 = 4;
const VERSION_STATIC: i16 = 5;
const VERSION_NULL_PROTOCOL: i16 = 7;
const VERSION_SKIP_ASSIGNMENT: i16 = 9;

/// Most protocols of one member; clients have one to three.
const PROTOCOLS_MAX: usize = 100;
/// Longest instance id in bytes, as for Kafka's clients.
const INSTANCE_ID_BYTES_MAX: usize = 249;
/// What a member id shows of the client id at most.
const MEMBER_ID_PREFIX_BYTES_MAX: usize = 255;
/// Generation in an answer that has none.
const NO_GENERATION: i32 = -1;

pub(super) async fn handle(
    coordinator: &Coordinator,
    peer: &Peer,
    version: i16,
    request: &JoinGroupRequest,
) -> JoinGroupResponse {
    let reply = match parse(peer, version, request) {
        Ok(parsed) => coordinator.join(request.group_id.as_str(), parsed).await,
        Err(error) => Err(JoinRefused { error, member_id: Arc::from(request.member_id.as_str()) }),
    };
    response(version, reply)
}

fn parse(peer: &Peer, version: i16, request: &JoinGroupRequest) -> Result<JoinRequest, ErrorCode> {
    if request.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let session_timeout = millis(request.session_timeout_ms);
    if !(SESSION_TIMEOUT_MIN..=SESSION_TIMEOUT_MAX).contains(&session_timeout) {
        return Err(ErrorCode::InvalidSessionTimeout);
    }
    let instance_id = request.group_instance_id.as_ref().map(|id| id.as_str());
    if request.protocols.len() > PROTOCOLS_MAX
        || instance_id.is_some_and(|id| id.is_empty() || id.len() > INSTANCE_ID_BYTES_MAX)
    {
        return Err(ErrorCode::InvalidRequest);
    }
    // Copies: a slice would keep the whole frame alive as long as the member lives.
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: Arc::from(protocol.name.as_str()),
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    });
    let client_id = peer.client_id.clone().unwrap_or_else(|| Arc::from(""));
    let has_rebalance_timeout = version >= VERSION_REBALANCE_TIMEOUT;
    Ok(JoinRequest {
        identity: identity(&request.member_id, instance_id),
        fresh_member_id: fresh_member_id(instance_id.unwrap_or(&client_id)),
        client_id,
        client_host: Arc::from(format!("/{}", peer.address.ip())),
        session_timeout,
        rebalance_timeout: if has_rebalance_timeout {
            millis(request.rebalance_timeout_ms)
        } else {
            session_timeout
        },
        protocol_type: Arc::from(request.protocol_type.as_str()),
        protocols: protocols.collect(),
        requires_known_id: version >= VERSION_KNOWN_ID,
        can_skip_assignment: version >= VERSION_SKIP_ASSIGNMENT,
    })
}

fn response(version: i16, reply: JoinReply) -> JoinGroupResponse {
    match reply {
        Ok(joined) => joined_response(version, &joined),
        Err(JoinRefused { error, member_id }) => JoinGroupResponse::default()
            .with_error_code(error.code())
            .with_generation_id(NO_GENERATION)
            .with_protocol_type(None)
            .with_protocol_name((version < VERSION_NULL_PROTOCOL).then(|| text("")))
            .with_member_id(text(&member_id)),
    }
}

fn joined_response(version: i16, joined: &Joined) -> JoinGroupResponse {
    let members = joined.members.iter().map(|member| {
        let instance_id = member.instance_id.as_deref().filter(|_| version >= VERSION_STATIC);
        JoinGroupResponseMember::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(instance_id.map(text))
            .with_metadata(member.metadata.clone())
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.as_deref().map(text))
        .with_protocol_name(joined.protocol.as_deref().map(text))
        .with_leader(text(&joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(&joined.member_id))
        .with_members(members.collect())
}

fn fresh_member_id(prefix: &str) -> MemberId {
    let mut end = prefix.len().min(MEMBER_ID_PREFIX_BYTES_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    Arc::from(format!("{}-{}", &prefix[..end], Uuid::new_v4()))
}

/// Milliseconds of the wire; a negative number is none at all.
fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
