//! LeaveGroup 0-5: one member, or from version 3 on several, each with a result of its own.

use super::{code, identity};
use crate::{
    broker::coordinator::Coordinator,
    wire::messages::{LeaveGroupRequest, LeaveGroupResponse, leave_group_response::MemberResponse},
};

const VERSION_BATCHED: i16 = 3;

pub(super) async fn handle(
    coordinator: &Coordinator,
    version: i16,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let is_batched = version >= VERSION_BATCHED;
    let leavers = if is_batched {
        let members = request.members.iter();
        members.map(|m| identity(&m.member_id, m.group_instance_id.as_deref())).collect()
    } else {
        vec![identity(&request.member_id, None)]
    };
    match coordinator.leave(request.group_id.as_str(), leavers).await {
        Err(error) => LeaveGroupResponse::default().with_error_code(error.code()),
        Ok(results) if is_batched => {
            let members = request.members.into_iter().zip(results).map(|(member, result)| {
                MemberResponse::default()
                    .with_member_id(member.member_id)
                    .with_group_instance_id(member.group_instance_id)
                    .with_error_code(code(result))
            });
            LeaveGroupResponse::default().with_members(members.collect())
        }
        Ok(results) => {
            let result = results.into_iter().next().unwrap_or(Ok(()));
            LeaveGroupResponse::default().with_error_code(code(result))
        }
    }
}
