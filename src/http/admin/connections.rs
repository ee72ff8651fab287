//! `/api/admin/connections`: the open sockets and streams.

use super::{
    super::{
        State,
        extract::PathText,
        problem::{Code, Problem},
        registry::Entry,
        stats::document,
    },
    Admin,
};
use crate::task::time;
use axum::{
    body::Body,
    extract::State as AxumState,
    http::{Response, StatusCode},
};
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// Connections of an answer; `total` tells how many there are.
const SHOWN_MAX: usize = 1_000;

/// `GET /api/admin/connections`: the oldest ones, oldest first.
pub(super) async fn list(AxumState(state): AxumState<Arc<State>>, _: Admin) -> Response<Body> {
    let (oldest, total) = state.registry.oldest(SHOWN_MAX);
    let head = state.parts.store.head();
    let connections = oldest.iter().map(|(id, entry)| {
        let Entry { user_id, transport, peer, since_ms, view, .. } = entry;
        let sequence = view.sequence();
        json!({
            "id": id.simple().to_string(),
            "user_id": user_id.as_str(),
            "transport": transport.name(),
            "peer": peer.to_string(),
            "since": time::to_text(*since_ms),
            "position": state.parts.store.position_of(sequence).to_string(),
            "lag": head.sequence.saturating_sub(sequence),
        })
    });
    let body = json!({ "total": total, "connections": connections.collect::<Value>() });
    document(StatusCode::OK, &body)
}

/// `POST /api/admin/connections/{id}/close`: ends it at once. A client that keeps to the rules
/// comes back.
pub(super) async fn close(
    AxumState(state): AxumState<Arc<State>>,
    _: Admin,
    PathText(id): PathText,
) -> Result<Response<Body>, Problem> {
    let id = Uuid::parse_str(&id).ok().filter(|id| state.registry.cut(*id));
    let id = id.ok_or(Problem::new(Code::ConnectionNotFound))?;
    Ok(document(StatusCode::OK, &json!({ "id": id.simple().to_string() })))
}
