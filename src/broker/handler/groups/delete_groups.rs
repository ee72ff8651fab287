//! DeleteGroups 0-2: empty groups, with their offsets. Answered when durable.

use super::code;
use crate::{
    broker::coordinator::Coordinator,
    wire::messages::{
        DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
    },
};

pub(super) async fn handle(
    coordinator: &Coordinator,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group in request.groups_names {
        let result = coordinator.delete(group.as_str()).await;
        let deleted = DeletableGroupResult::default().with_error_code(code(result));
        results.push(deleted.with_group_id(group));
    }
    DeleteGroupsResponse::default().with_results(results)
}
