//! `GET /api/admin/overview`: what the page draws. Counters only rise, so that whoever asks twice
//! has rates.

use super::{
    super::{State, stats::document},
    Admin,
};
use axum::{
    body::Body,
    extract::State as AxumState,
    http::{Response, StatusCode},
};
use serde_json::json;
use std::sync::Arc;

/// `GET /api/admin/overview`
pub(super) async fn overview(AxumState(state): AxumState<Arc<State>>, _: Admin) -> Response<Body> {
    let metrics = &state.parts.metrics;
    let (progress, store) = (*state.progress.borrow(), state.parts.store.stats());
    let hub = state.parts.hub.stats();
    let log_bytes: u64 = {
        let topics = state.parts.inspect.topics();
        topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.bytes).sum()
    };
    let body = json!({
        "at_ms": state.parts.clock.now_ms(),
        "version": env!("CARGO_PKG_VERSION"),
        "topic": state.options.topic.as_str(),
        "is_caught_up": progress.is_caught_up,
        "lag_records": progress.lag_records,
        "tasks": store.tasks,
        "changes_kept": store.changes,
        "events_waiting": store.waiting,
        "dead_letters_open": store.letters_open,
        "sockets": hub.sessions,
        "users": hub.users,
        "kafka_connections": metrics.broker_connections.get(),
        "http_connections": metrics.http_connections.get(),
        "disk_free_bytes": metrics.disk_free_bytes.get(),
        "log_bytes": log_bytes,
        "health": (state.parts.health)(),
        "delivery_seconds": { "buckets": metrics.hub_delivery.buckets() },
        "totals": {
            "records": metrics.apply_records.get(),
            "changes": metrics.apply_changes.get(),
            "messages": metrics.hub_messages.get(),
            "http_requests": metrics.http_requests.get(),
            "kafka_requests": metrics.broker_requests.get(),
            "log_appended_bytes": metrics.log_appended_bytes.get(),
        },
    });
    document(StatusCode::OK, &body)
}
