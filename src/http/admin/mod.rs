//! `/api/admin/`: who may come in, and the routes.
//!
//! Two ways in: the daemon's own socket in its data directory, which only the user that runs the
//! daemon can reach and where no token is asked for, and port 8000 with an administrator's token.
//!
//! Invariant: only [`local`] marks a request as local; nothing in a request can.

pub(super) mod backup;
mod connections;
mod groups;
mod letters;
mod local;
mod overview;
mod records;

use super::{
    State,
    extract::{self, dev_user},
    problem::{Code, Problem},
    stats::document,
};
use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, State as AxumState},
    http::{Response, StatusCode, request::Parts},
    routing::{get, post},
};
use serde_json::json;
use std::sync::Arc;

/// The routes below `/api/admin/`.
pub(super) fn routes() -> Router<Arc<State>> {
    let router = Router::new()
        .route("/api/admin/status", get(status))
        .route("/api/admin/backup", post(backup::make))
        .route("/api/admin/overview", get(overview::overview))
        .route("/api/admin/topics", get(records::topics))
        .route("/api/admin/topics/{topic}/records", get(records::records).post(records::produce))
        .route("/api/admin/connections", get(connections::list))
        .route("/api/admin/connections/{id}/close", post(connections::close))
        .route("/api/admin/groups", get(groups::list))
        .route("/api/admin/waiting", get(letters::waiting))
        .route("/api/admin/dead-letters", get(letters::list))
        .route("/api/admin/dead-letters/redrive", post(letters::redrive_all))
        .route("/api/admin/dead-letters/{id}", get(letters::show))
        .route("/api/admin/dead-letters/{id}/redrive", post(letters::redrive))
        .route("/api/admin/dead-letters/{id}/dismiss", post(letters::dismiss));
    #[cfg(test)]
    let router =
        router.route("/api/admin/local", get(async |_: LocalAdmin| StatusCode::NO_CONTENT));
    router
}

/// On requests that came by the daemon's own socket.
#[derive(Clone, Copy, Debug)]
struct LocalPeer;

/// An administrator: whoever came by the daemon's own socket, or has a token with `taskwire_admin`
/// (in development mode: user `dev`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Admin;

impl FromRequestParts<Arc<State>> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<State>,
    ) -> Result<Self, Self::Rejection> {
        if parts.extensions.get::<LocalPeer>().is_some() {
            return Ok(Self);
        }
        let user = dev_user(state, &parts.uri);
        let principal = extract::authenticate(state, &parts.headers, None, user.as_deref())?;
        if principal.is_admin { Ok(Self) } else { Err(Problem::new(Code::AdminRequired)) }
    }
}

/// Whoever came by the daemon's own socket, and nobody else: for what touches files of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalAdmin;

impl FromRequestParts<Arc<State>> for LocalAdmin {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<State>,
    ) -> Result<Self, Self::Rejection> {
        Admin::from_request_parts(parts, state).await?;
        match parts.extensions.get::<LocalPeer>() {
            Some(LocalPeer) => Ok(Self),
            None => Err(Problem::new(Code::LocalOnly)),
        }
    }
}

/// `GET /api/admin/status`: which daemon this is and where it stands.
async fn status(AxumState(state): AxumState<Arc<State>>, _: Admin) -> Response<Body> {
    let (progress, store) = (*state.progress.borrow(), state.parts.store.stats());
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "topic": state.options.topic.as_str(),
        "is_caught_up": progress.is_caught_up,
        "lag_records": progress.lag_records,
        "tasks": store.tasks,
        "events_waiting": store.waiting,
        "dead_letters_open": store.letters_open,
        "position": state.parts.store.head().to_string(),
        "health": (state.parts.health)(),
    });
    document(StatusCode::OK, &body)
}
