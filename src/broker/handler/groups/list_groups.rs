//! ListGroups 0-4, filtered by state from version 4 on, whatever the case of the letters.

use super::text;
use crate::{
    broker::coordinator::Coordinator,
    wire::messages::{
        GroupId, ListGroupsRequest, ListGroupsResponse, list_groups_response::ListedGroup,
    },
};

pub(super) async fn handle(
    coordinator: &Coordinator,
    request: &ListGroupsRequest,
) -> ListGroupsResponse {
    let is_asked = |state: &str| {
        let mut asked = request.states_filter.iter();
        request.states_filter.is_empty() || asked.any(|name| name.eq_ignore_ascii_case(state))
    };
    match coordinator.list().await {
        Err(error) => ListGroupsResponse::default().with_error_code(error.code()),
        Ok(groups) => {
            let listed = groups.into_iter().filter(|group| is_asked(group.state)).map(|group| {
                ListedGroup::default()
                    .with_group_id(GroupId(text(&group.group)))
                    .with_protocol_type(text(&group.protocol_type))
                    .with_group_state(text(group.state))
            });
            ListGroupsResponse::default().with_groups(listed.collect())
        }
    }
}
