//! SyncGroup 0-5.

use super::{identity, text};
use crate::{
    broker::{coordinator::Coordinator, group::SyncRequest},
    wire::messages::{SyncGroupRequest, SyncGroupResponse},
};
use bytes::Bytes;
use std::sync::Arc;

pub(super) async fn handle(
    coordinator: &Coordinator,
    request: &SyncGroupRequest,
) -> SyncGroupResponse {
    // Copies: a slice would keep the whole frame alive as long as the generation lives.
    let assignments = request.assignments.iter().map(|assignment| {
        let bytes = Bytes::copy_from_slice(&assignment.assignment);
        (assignment.member_id.to_string(), bytes)
    });
    let parsed = SyncRequest {
        identity: identity(&request.member_id, request.group_instance_id.as_deref()),
        generation: request.generation_id,
        protocol_type: request.protocol_type.as_deref().map(Arc::from),
        protocol: request.protocol_name.as_deref().map(Arc::from),
        assignments: assignments.collect(),
    };
    match coordinator.sync(request.group_id.as_str(), parsed).await {
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(synced.protocol_type.as_deref().map(text))
            .with_protocol_name(synced.protocol.as_deref().map(text))
            .with_assignment(synced.assignment),
        Err(error) => SyncGroupResponse::default()
            .with_error_code(error.code())
            .with_protocol_type(None)
            .with_protocol_name(None),
    }
}
