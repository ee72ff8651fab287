//! From a follower to its WebSocket, until an end.

use super::{
    Worker,
    frames::{End, Socket, taken, write},
    handshake::Mode,
    inbound::{Inbound, Said},
};
use crate::{
    auth::Principal,
    http::{
        follow::{Batch, FollowError, Follower},
        timers::{Due, Timers},
    },
    hub::message::{self, CloseCode},
};
use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use std::{convert::Infallible, pin::pin};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use tracing::error;

/// One socket, once it has a session.
struct Pump<'a> {
    worker: &'a Worker,
    socket: &'a mut Socket,
    follower: Follower,
    principal: Principal,
    timers: Timers,
}

impl Worker {
    /// Pumps until an end.
    pub(super) async fn pump(
        &self,
        socket: &mut Socket,
        follower: Follower,
        principal: Principal,
        mut inbound: Inbound<'_>,
    ) -> Result<Infallible, End> {
        let (limits, expires_at_ms) = (inbound.limits.clone(), principal.expires_at_ms);
        let timers = Timers::new(limits, expires_at_ms, Instant::now(), self.clock.now_ms());
        let mut pump = Pump { worker: self, socket, follower, principal, timers };
        let listener = &self.connection.listener;
        let mut begun = pin!(listener.shutdown.begun());
        let mut sleep = pin!(sleep_until(pump.timers.next()));
        let mut is_stopping = false;
        loop {
            tokio::select! {
                next = pump.follower.next() => pump.push(next).await?,
                frame = pump.socket.next() => {
                    pump.socket.get_mut().restart();
                    pump.hear(inbound.receive(frame)?).await?;
                    sleep.as_mut().reset(pump.timers.next());
                }
                () = &mut sleep => {
                    pump.fire().await?;
                    sleep.as_mut().reset(pump.timers.next());
                }
                () = &mut begun, if !is_stopping => {
                    is_stopping = true;
                    pump.timers.close_at = Some(Instant::now() + listener.close_delay());
                    sleep.as_mut().reset(pump.timers.next());
                }
            }
        }
    }
}

impl Pump<'_> {
    /// Writes what the follower has next.
    async fn push(&mut self, next: Result<Batch, FollowError>) -> Result<(), End> {
        match next {
            Ok(batch) => self.write(batch.documents).await?,
            Err(FollowError::Slow) => return Err(End::Close(CloseCode::Slow.into())),
            Err(error) => {
                error!(%error, "a session could not read its changes");
                return Err(End::Close(CloseCode::Internal.into()));
            }
        }
        let lag_max = self.worker.limits().lag_max;
        if lag_max.is_some_and(|max| self.follower.lag() > max) {
            return Err(End::Close(CloseCode::Slow.into()));
        }
        Ok(())
    }

    async fn write(&mut self, documents: Vec<Bytes>) -> Result<(), End> {
        write(self.socket, documents, self.timers.write_limit(Instant::now())).await?;
        self.timers.wrote(Instant::now());
        Ok(())
    }

    /// Writes what only `taskwire.v1` has.
    async fn tell(&mut self, document: Bytes) -> Result<(), End> {
        match self.worker.mode {
            Mode::Plain => Ok(()),
            Mode::V1 => self.write(vec![document]).await,
        }
    }

    async fn hear(&mut self, said: Said) -> Result<(), End> {
        match said {
            Said::Ping => {
                self.follower.ping();
                // At once where it can be: what the client sends next may be its last.
                while self.follower.owes_pong()
                    && let Some(next) = self.follower.next().now_or_never()
                {
                    self.push(next).await?;
                }
            }
            Said::Auth(auth) => {
                self.worker.renew(&mut self.principal, &auth.token)?;
                let expires_at_ms = self.principal.expires_at_ms;
                let now_ms = self.worker.clock.now_ms();
                self.timers.take_expiry(expires_at_ms, Instant::now(), now_ms);
                self.tell(message::auth_ok(expires_at_ms)).await?;
            }
            Said::Other | Said::Bad => (),
        }
        self.timers.heard();
        Ok(())
    }

    /// Does what is due.
    async fn fire(&mut self) -> Result<(), End> {
        let due = self.timers.fired(Instant::now(), self.worker.clock.now_ms());
        let due = match due {
            Ok(due) => due,
            Err(CloseCode::GoingAway) => {
                let listener = &self.worker.connection.listener;
                self.tell(message::drain(listener.reconnect_after_ms())).await?;
                return Err(End::Close(self.worker.stop_code().into()));
            }
            Err(code) => return Err(End::Close(code.into())),
        };
        let Due { ping, warning } = due;
        if let (true, Some(expires_at_ms)) = (warning, self.principal.expires_at_ms) {
            self.tell(message::token_expiring(expires_at_ms)).await?;
        }
        if ping {
            let ping = self.socket.send(Message::Ping(Bytes::new()));
            taken(self.timers.write_limit(Instant::now()), ping).await?;
        }
        Ok(())
    }
}
