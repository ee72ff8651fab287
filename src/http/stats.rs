//! `/healthz`, `/readyz`, `/metrics`, `/ws/stats`.

use super::{Health, State, extract, follow::Transport, problem::Problem};
use axum::{
    body::Body,
    extract::State as AxumState,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use serde_json::{Value, json};
use std::sync::Arc;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /healthz`: 200 `ok`, 200 `degraded` where something is damaged and all else goes on, or 503
/// `failed`; the latter two with the reasons.
pub(super) async fn health(AxumState(state): AxumState<Arc<State>>) -> Response<Body> {
    let Health { failures, damages } = (state.parts.health)();
    let (status, word) = match (failures.is_empty(), damages.is_empty()) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
        (true, false) => (StatusCode::OK, "degraded"),
        (true, true) => (StatusCode::OK, "ok"),
    };
    let mut body = json!({ "status": word });
    let reasons: Vec<String> = failures.into_iter().chain(damages).collect();
    if !reasons.is_empty() {
        body["reasons"] = json!(reasons);
    }
    // Nothing that a restart would mend: it would only lose the keys that are left.
    if state.parts.authenticator.has_stale_keys() {
        body["notes"] = json!(["the keys of --jwt-jwks cannot be refreshed"]);
    }
    document(status, &body)
}

/// `GET /readyz`: 200 once apply has reached the log end seen at start, until the stop begins.
pub(super) async fn readiness(AxumState(state): AxumState<Arc<State>>) -> Response<Body> {
    let lag_records = state.progress.borrow().lag_records;
    let (status, word) = match state.check_ready() {
        _ if state.is_stopping() => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        Ok(()) => (StatusCode::OK, "ready"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "catching_up"),
    };
    document(status, &json!({ "status": word, "lag_records": lag_records }))
}

/// `GET /metrics` (OpenMetrics)
pub(super) async fn metrics(
    AxumState(state): AxumState<Arc<State>>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    check_protection(&state, &headers)?;
    let mut response = Response::new(Body::from(state.parts.metrics.render()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
    Ok(response)
}

/// `GET /ws/stats`: counts only.
pub(super) async fn sockets(
    AxumState(state): AxumState<Arc<State>>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    check_protection(&state, &headers)?;
    let (hub, store) = (state.parts.hub.stats(), state.parts.store.stats());
    let body = json!({
        "total_connections": Transport::Socket.sessions(&state),
        "user_connections": hub.users,
        "event_streams": Transport::Events.sessions(&state),
        "long_polls": Transport::Changes.sessions(&state),
        "tasks": store.tasks,
        "changes_kept": store.changes,
        "events_waiting": store.waiting,
        "lag_records": state.progress.borrow().lag_records,
        "position": state.parts.store.head().to_string(),
    });
    Ok(document(StatusCode::OK, &body))
}

fn check_protection(state: &State, headers: &HeaderMap) -> Result<(), Problem> {
    if state.options.protects_metrics {
        extract::authenticate(state, headers, None, None)?;
    }
    Ok(())
}

/// A JSON answer that nobody keeps.
pub(super) fn document(status: StatusCode, body: &Value) -> Response<Body> {
    document_of(status, body.to_string().into_bytes())
}

/// The same, of JSON text.
pub(super) fn document_of(status: StatusCode, json: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
