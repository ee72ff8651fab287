//! `POST /api/admin/backup`: a backup of the running daemon, into a directory of its machine.

use super::{
    super::{
        State, body,
        problem::{Code, Problem},
        stats::document,
    },
    LocalAdmin,
};
use axum::{
    body::Body,
    extract::State as AxumState,
    http::{HeaderMap, Response, StatusCode},
};
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::{path::PathBuf, sync::Arc};

/// Makes a backup in a directory, and describes it; or says in one line why not. Its reader is the
/// local administrator, so the line may name paths.
pub type MakeBackup =
    Arc<dyn Fn(PathBuf) -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;

/// `{"dir": "/absolute/path"}`. It goes on to its end whether or not the caller waits for it.
pub(super) async fn make(
    AxumState(state): AxumState<Arc<State>>,
    _: LocalAdmin,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let body = body::read(&headers, body, body::JSON, &state.options.limits).await?;
    let body: Value = serde_json::from_slice(&body).map_err(|_| Problem::new(Code::InvalidJson))?;
    let dir = body["dir"].as_str().map(PathBuf::from).filter(|dir| dir.is_absolute());
    let dir = dir.ok_or_else(|| {
        Problem::with_detail(Code::InvalidField, "`dir` must be an absolute path of a directory")
    })?;
    let permit = Arc::clone(&state.backups).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::new(Code::BackupRunning))?;
    let making = (state.parts.backup)(dir);
    let made = tokio::spawn(async move {
        let made = making.await;
        drop(permit);
        made
    });
    match made.await {
        Ok(Ok(made)) => Ok(document(StatusCode::OK, &made)),
        Ok(Err(reason)) => Err(Problem::with_detail(Code::BackupFailed, reason)),
        Err(_) => Err(Problem::new(Code::Internal)),
    }
}
