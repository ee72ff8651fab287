//! DescribeGroups 0-5. A group that does not exist is `Dead`, without an error.

use super::text;
use crate::{
    broker::{coordinator::Coordinator, group::Description},
    wire::messages::{
        DescribeGroupsRequest, DescribeGroupsResponse,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
    },
};
use std::collections::HashSet;

const VERSION_AUTHORIZED_OPERATIONS: i16 = 3;
/// Read, delete, describe: bits 3, 6 and 8, all that there is for a group.
const AUTHORIZED_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8;

pub(super) async fn handle(
    coordinator: &Coordinator,
    version: i16,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let tells_operations =
        version >= VERSION_AUTHORIZED_OPERATIONS && request.include_authorized_operations;
    let mut seen = HashSet::new();
    let mut groups = Vec::new();
    for group in request.groups {
        // Once each: a long list of the same group would multiply what it holds.
        if !seen.insert(group.clone()) {
            continue;
        }
        let mut described = match coordinator.describe(group.as_str()).await {
            Ok(description) => described_group(&description),
            Err(error) => DescribedGroup::default().with_error_code(error.code()),
        };
        if tells_operations && described.error_code == 0 {
            described.authorized_operations = AUTHORIZED_OPERATIONS;
        }
        groups.push(described.with_group_id(group));
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn described_group(description: &Description) -> DescribedGroup {
    let members = description.members.iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(member.instance_id.as_deref().map(text))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(member.metadata.clone())
            .with_member_assignment(member.assignment.clone())
    });
    DescribedGroup::default()
        .with_group_state(text(description.state.name()))
        .with_protocol_type(text(&description.protocol_type))
        .with_protocol_data(text(&description.protocol))
        .with_members(members.collect())
}
