//! Method x path -> handler: the whole table.

use super::{
    State, admin, changes, docs, events, list, openapi, page,
    problem::{Code, Problem},
    socket, stats, tasks, tickets,
};
use axum::{
    Router,
    routing::{get, post},
};
use std::sync::Arc;

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
        .route("/openapi.json", get(openapi::document))
        .route("/docs", get(docs::page))
        .route("/docs/script.js", get(docs::script))
        .route("/docs/style.css", get(docs::style))
        .route("/", get(page::index))
        .route("/page/{file}", get(page::file))
        .fallback(async || Problem::new(Code::NotFound))
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed))
        .with_state(state)
}
