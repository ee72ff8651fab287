//! `GET /api/admin/groups`: consumer groups, their members, and how far they are.

use super::{
    super::{State, problem::Problem, stats::document},
    Admin,
};
use crate::{
    feed::inspect::{GroupView, MemberView},
    position::Offset,
};
use axum::{
    body::Body,
    extract::State as AxumState,
    http::{Response, StatusCode},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Groups of an answer; there are few, and `has_more` tells if not.
const GROUPS_SHOWN_MAX: usize = 500;
/// Members, and partitions, that are shown of a group.
const ROWS_SHOWN_MAX: usize = 500;

/// `GET /api/admin/groups`
pub(super) async fn list(
    AxumState(state): AxumState<Arc<State>>,
    _: Admin,
) -> Result<Response<Body>, Problem> {
    let _turn = state.looks.acquire().await;
    let (groups, has_more) = state.parts.inspect.groups(GROUPS_SHOWN_MAX).await?;
    let groups: Vec<Value> = groups.iter().map(group).collect();
    Ok(document(StatusCode::OK, &json!({ "groups": groups, "has_more": has_more })))
}

fn group(group: &GroupView) -> Value {
    let lags = group.offsets.iter().filter_map(|(_, at, end)| lag(*at, *end));
    let offsets = group.offsets.iter().take(ROWS_SHOWN_MAX).map(|(place, at, end)| {
        json!({
            "topic": place.topic.as_str(),
            "partition": place.partition.get(),
            "offset": at.get(),
            "log_end": end.map(Offset::get),
            "lag": lag(*at, *end),
        })
    });
    json!({
        "group": group.group,
        "state": group.state,
        "lag": lags.sum::<i64>(),
        "member_count": group.members.len(),
        "members": group.members.iter().take(ROWS_SHOWN_MAX).map(member).collect::<Value>(),
        "offsets": offsets.collect::<Value>(),
    })
}

fn lag(at: Offset, end: Option<Offset>) -> Option<i64> {
    Some(end?.get().saturating_sub(at.get()).max(0))
}

fn member(member: &MemberView) -> Value {
    let assigned = member.assigned.iter().map(|(topic, partition)| format!("{topic}-{partition}"));
    json!({
        "member_id": member.member_id,
        "client_id": member.client_id,
        "host": member.client_host,
        "assigned": assigned.collect::<Value>(),
    })
}
