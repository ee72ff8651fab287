//! Heartbeat 0-4.

use super::{code, committer};
use crate::{
    broker::coordinator::Coordinator,
    wire::messages::{HeartbeatRequest, HeartbeatResponse},
};

pub(super) async fn handle(
    coordinator: &Coordinator,
    request: &HeartbeatRequest,
) -> HeartbeatResponse {
    let instance_id = request.group_instance_id.as_deref();
    let member = committer(&request.member_id, instance_id, request.generation_id);
    let result = coordinator.heartbeat(request.group_id.as_str(), member).await;
    HeartbeatResponse::default().with_error_code(code(result))
}
