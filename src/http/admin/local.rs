//! The daemon's own socket: the same router, each request marked as the local administrator's.
//!
//! Bounds: so many connections at once (more wait in the kernel's backlog), the time limits of port
//! 8000, and the drain.

use super::{
    super::{
        ACCEPT_BACK_OFF, BUFFER_BYTES_MAX, Http, complete,
        problem::{Code, Problem},
    },
    LocalPeer,
};
use crate::shutdown::Shutdown;
use axum::{
    body::Body,
    http::{Request, Response},
    response::IntoResponse,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;
use tracing::{debug, warn};

/// Most connections at once; whoever comes on top waits.
const CONNECTIONS_MAX: usize = 32;

impl Http {
    /// Serves the administrator on a bound socket until shutdown begins; returns when its requests
    /// have ended or `drain` has passed.
    pub async fn serve_local(&self, socket: UnixListener, shutdown: Shutdown, drain: Duration) {
        let (tracker, cut) = (TaskTracker::new(), CancellationToken::new());
        tokio::select! {
            () = self.accept_local(&socket, &shutdown, &tracker, &cut) => (),
            () = shutdown.begun() => (),
        }
        drop(socket);
        tracker.close();
        if timeout(drain, tracker.wait()).await.is_err() {
            warn!(connections = tracker.len(), "cut admin connections at the end of the drain");
            cut.cancel();
        }
    }

    /// Accepts for ever. Cancel safe.
    async fn accept_local(
        &self,
        socket: &UnixListener,
        shutdown: &Shutdown,
        tracker: &TaskTracker,
        cut: &CancellationToken,
    ) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut wait = ACCEPT_BACK_OFF.0;
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            match socket.accept().await {
                Ok((stream, _)) => {
                    wait = ACCEPT_BACK_OFF.0;
                    let (http, shutdown, cut) = (self.clone(), shutdown.clone(), cut.clone());
                    tracker.spawn(async move {
                        http.serve_one(stream, shutdown, cut).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, wait_ms = wait.as_millis(), "cannot accept on the admin socket");
                    sleep(wait).await;
                    wait = (wait * 2).min(ACCEPT_BACK_OFF.1);
                }
            }
        }
    }

    async fn serve_one(self, stream: UnixStream, shutdown: Shutdown, cut: CancellationToken) {
        let service = service_fn(|request| self.answer_local(request));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.state.options.limits.header_timeout)
            .max_buf_size(BUFFER_BYTES_MAX);
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = shutdown.begun() => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = serving.as_mut() => ended,
                    () = cut.cancelled() => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            debug!(%error, "an admin connection ended early");
        }
    }

    async fn answer_local(
        &self,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let position = self.state.position();
        request.extensions_mut().insert(LocalPeer);
        let mut response = if request.uri().path().starts_with("/ws/") {
            // Sockets belong to port 8000 and its limits.
            Problem::new(Code::NotFound).into_response()
        } else {
            let Ok(response) = self.router.clone().call(request).await;
            response
        };
        complete(response.headers_mut(), position, None);
        Ok(response)
    }
}
