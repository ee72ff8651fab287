//! Method x path -> handler: the whole table.

use super::{
    State, admin, docs, list, openapi,
    problem::{Code, Problem},
    socket, stats, tasks,
};
use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Response, header},
    routing::{get, post},
};
use std::sync::Arc;

/// The page at `/`: one file, no request but to us.
const PAGE: &str = include_str!("page.html");

/// What the page may do.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; \
    style-src 'unsafe-inline'; connect-src 'self' ws: wss:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// The routes over their state.
pub(super) fn router(state: Arc<State>) -> Router {
    let task = get(tasks::read).patch(tasks::patch).put(tasks::replace).delete(tasks::delete);
    Router::new()
        .route("/api/tasks", get(list::list).post(tasks::create))
        .route("/api/tasks/{id}", task)
        .route("/api/tasks/{id}/complete", post(tasks::complete).patch(tasks::complete))
        .merge(admin::routes())
        .route("/ws/tasks", get(socket::open))
        .route("/ws/stats", get(stats::sockets))
        .route("/healthz", get(stats::health))
        .route("/health", get(stats::health)) // The path that probes of the replaced stack ask.
        .route("/readyz", get(stats::readiness))
        .route("/metrics", get(stats::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/docs", get(docs::page))
        .route("/docs/script.js", get(docs::script))
        .route("/docs/style.css", get(docs::style))
        .route("/", get(page))
        .fallback(async || Problem::new(Code::NotFound))
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed))
        .with_state(state)
}

async fn page() -> Response<Body> {
    let mut response = Response::new(Body::from(PAGE));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
