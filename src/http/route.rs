//! Method x path -> handler: the whole table.

use super::{
    State, admin, changes, events, list, page,
    problem::{Code, Problem},
    socket, stats, tasks, tickets,
};
use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Response, header},
    routing::{get, post},
};
use std::sync::Arc;

/// The description of every route; `tests/it/cross_user.rs` compares it with the router, and
/// schemathesis with the answers.
const OPENAPI: &str = include_str!("openapi.json");

/// The routes over their state.
pub(super) fn router(state: Arc<State>) -> Router {
    let task = get(tasks::read).patch(tasks::patch).put(tasks::replace).delete(tasks::delete);
    Router::new()
        .route("/api/tasks", get(list::list).post(tasks::create))
        .route("/api/tasks/{id}", task)
        .route("/api/tasks/{id}/complete", post(tasks::complete).patch(tasks::complete))
        .route("/api/changes", get(changes::poll))
        .route("/api/events", get(events::open))
        .route("/api/ws-tickets", post(tickets::create))
        .merge(admin::routes())
        .route("/ws/tasks", get(socket::open))
        .route("/ws/stats", get(stats::sockets))
        .route("/healthz", get(stats::health))
        .route("/health", get(stats::health)) // The path that probes of the replaced stack ask.
        .route("/readyz", get(stats::readiness))
        .route("/metrics", get(stats::metrics))
        .route("/openapi.json", get(openapi))
        .route("/", get(page::index))
        .route("/page/{file}", get(page::file))
        .fallback(async || Problem::new(Code::NotFound))
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed))
        .with_state(state)
}

async fn openapi() -> Response<Body> {
    let mut response = Response::new(Body::from(OPENAPI));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::transition::Reason;
    use serde_json::Value;

    #[test]
    fn the_description_names_every_reason() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let named = &document["components"]["schemas"]["Reason"]["enum"];
        let all: Vec<Value> = Reason::ALL.iter().map(|reason| reason.as_str().into()).collect();
        assert_eq!(*named, Value::from(all));
    }

    #[test]
    fn the_description_is_of_this_version_and_every_reference_has_an_end() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let references: Vec<_> = OPENAPI.split("\"$ref\": \"#").skip(1).collect();
        assert!(references.len() > 20);
        for rest in references {
            let pointer = rest.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
