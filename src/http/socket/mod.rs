//! `/ws/tasks`: the upgrade, and one worker per socket.
//!
//! The worker has no queue: it waits for changes, frames, timers and the stop, and writes what its
//! follower hands over before it asks for more. A reader that does not read costs the bytes of one
//! such batch and of the kernel's buffer, and its socket after the write timeout.

mod frames;
mod handshake;
mod inbound;
mod pump;
mod token;

use self::{
    frames::{End, Socket, finish, raw_socket},
    handshake::{Mode, check_handshake, switching_protocols},
    inbound::{Inbound, Said},
    token::{AuthFrame, TOKEN_TIMEOUT},
};
use super::{
    Connection, State,
    follow::{FollowQuery, Follower, Start},
    guard,
    limits::SocketLimits,
    problem::{Code, Problem},
    tickets::{self, QueryCredentials},
};
use crate::{
    auth::Principal,
    clock::Clock,
    hub::{SubscribeError, message::CloseCode},
};
use axum::{
    Extension,
    body::Body,
    extract::{Request, State as AxumState},
    http::{Response, header},
};
use futures_util::StreamExt;
use hyper::upgrade::OnUpgrade;
use serde_json::Value;
use std::{convert::Infallible, sync::Arc};
use tokio::time::{Instant, error::Elapsed, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tracing::debug;

/// `GET /ws/tasks`
pub(super) async fn open(
    AxumState(state): AxumState<Arc<State>>,
    Extension(connection): Extension<Arc<Connection>>,
    mut request: Request,
) -> Result<Response<Body>, Problem> {
    let accept = check_handshake(&request)?;
    let query = FollowQuery::parse(request.uri())?;
    let headers = request.headers();
    let mode = Mode::choose(headers);
    let start = mode.start_of(&query)?;
    let of_subprotocols = token::of_subprotocols(headers);
    let credentials = QueryCredentials {
        ticket: query.ticket.as_deref().filter(|_| of_subprotocols.is_none()),
        token: of_subprotocols.or(query.token.as_deref()),
        user: query.user.as_deref(),
    };
    let has_token = credentials.ticket.is_some()
        || credentials.token.is_some()
        || headers.contains_key(header::AUTHORIZATION);
    let principal = if has_token || state.parts.authenticator.is_development() {
        Some(tickets::admit(&state, headers, &credentials)?)
    } else {
        None
    };
    state.check_ready()?;
    if connection.listener.shutdown.has_begun() {
        return Err(Problem::new(Code::Stopping));
    }
    let opening = match principal {
        // Before the 101, so that nothing is missed between the client's `onopen` and the session.
        Some(principal) => Opening::of(&state, principal, start, mode),
        None => Opening::AwaitsToken(start),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let worker =
        Worker { clock: state.parts.clock.clone(), connection: Arc::clone(&connection), mode };
    connection.listener.tracker.spawn(worker.run(upgrade, opening));
    Ok(switching_protocols(&accept, mode))
}

/// What a socket begins with.
enum Opening {
    Session(Principal, Box<Follower>),
    /// No token came with the handshake: it must come in the first frame.
    AwaitsToken(Start),
    Refused(CloseCode),
}

impl Opening {
    fn of(state: &Arc<State>, principal: Principal, start: Start, mode: Mode) -> Self {
        match Follower::new(state, &principal, start, mode.transport()) {
            Ok(follower) => Self::Session(principal, Box::new(follower)),
            Err(SubscribeError::TooMany) => Self::Refused(CloseCode::TooManySessions),
        }
    }
}

/// One socket's worker.
struct Worker {
    connection: Arc<Connection>,
    clock: Clock,
    mode: Mode,
}

impl Worker {
    async fn run(self, upgrade: OnUpgrade, opening: Opening) {
        // The connection's place is the socket's from here on, and is free when this ends.
        let _place = self.connection.take_place();
        let Some(mut socket) = raw_socket(upgrade).await else { return };
        let close_timeout = self.limits().close_timeout;
        let cut = self.connection.cut.clone();
        let end = tokio::select! {
            Err(end) = self.serve(&mut socket, opening) => end,
            () = cut.cancelled() => End::Blocked,
        };
        match end {
            End::Blocked => {
                debug!(peer = %self.connection.peer, "a socket was cut");
                guard::reset(socket.get_ref().stream());
            }
            End::Gone => finish(&mut socket, None, close_timeout).await,
            End::Close(closing) => finish(&mut socket, Some(closing), close_timeout).await,
        }
    }

    fn limits(&self) -> &SocketLimits {
        &self.connection.listener.state.options.limits.socket
    }

    async fn serve(&self, socket: &mut Socket, opening: Opening) -> Result<Infallible, End> {
        let limits = self.limits().clone();
        let mut inbound = Inbound::new(&limits);
        let opening = match opening {
            Opening::AwaitsToken(start) => {
                let (principal, auth) = self.admit(socket, &mut inbound).await?;
                let start = self.start_of(&auth, start)?;
                Opening::of(&self.connection.listener.state, principal, start, self.mode)
            }
            opening => opening,
        };
        match opening {
            Opening::Session(principal, mut follower) => {
                follower.register(&self.connection);
                self.pump(socket, *follower, principal, inbound).await
            }
            Opening::Refused(code) => Err(End::Close(code.into())),
            Opening::AwaitsToken(_) => Err(End::Close(CloseCode::Internal.into())),
        }
    }

    /// Waits for the token of a socket that came without one; its first frame must be that.
    async fn admit(
        &self,
        socket: &mut Socket,
        inbound: &mut Inbound<'_>,
    ) -> Result<(Principal, AuthFrame), End> {
        let deadline = Instant::now() + TOKEN_TIMEOUT;
        let shutdown = self.connection.listener.shutdown.clone();
        loop {
            let frame = tokio::select! {
                frame = timeout_at(deadline, socket.next()) => frame,
                () = shutdown.begun() => return Err(End::Close(self.stop_code().into())),
            };
            let is_control = matches!(&frame, Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))));
            socket.get_mut().restart();
            let said = match frame {
                Ok(frame) => inbound.receive(frame)?,
                Err(Elapsed { .. }) => Said::Other,
            };
            let auth = match said {
                _ if is_control => continue,
                Said::Auth(auth) => Some(auth),
                Said::Ping | Said::Other | Said::Bad => None,
            };
            let token = auth.as_ref().map(|auth| auth.token.as_str());
            let checked = self.connection.authenticate_frame(token);
            let principal = checked.map_err(|code| End::Close(code.into()))?;
            return match auth {
                Some(auth) => Ok((principal, auth)),
                None => Err(End::Close(CloseCode::Token.into())),
            };
        }
    }

    /// Where a session starts whose first frame had a token: what that says goes before the query.
    fn start_of(&self, auth: &AuthFrame, start: Start) -> Result<Start, End> {
        if self.mode == Mode::Plain || (auth.from.is_none() && auth.or.is_none()) {
            return Ok(start);
        }
        let bad = || End::Close(CloseCode::BadFrame.into());
        let text = |value: &Option<Value>| match value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(bad()),
        };
        let (from, or) = (text(&auth.from)?, text(&auth.or)?);
        let said = self.mode.start(from.as_deref(), or.as_deref()).ok_or_else(bad)?;
        Ok(said.or_else(start, from.is_some()))
    }

    /// How a socket is closed when the daemon stops.
    const fn stop_code(&self) -> CloseCode {
        match self.mode {
            Mode::Plain => CloseCode::GoingAway,
            Mode::V1 => CloseCode::Draining,
        }
    }

    /// Takes another token of the same user, so that the socket may live until that expires.
    fn renew(&self, principal: &mut Principal, token: &str) -> Result<(), End> {
        let renewed = self.connection.authenticate_frame(Some(token));
        let renewed = renewed.map_err(|code| End::Close(code.into()))?;
        if renewed.user_id != principal.user_id {
            return Err(End::Close(CloseCode::Token.into()));
        }
        *principal = renewed;
        Ok(())
    }
}
