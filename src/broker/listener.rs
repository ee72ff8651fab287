//! Accepts connections, within the limit, and drains them at the stop.

use super::{Broker, Peer, connection};
use crate::shutdown::Shutdown;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Serves until shutdown begins, then until every connection has ended, at most `drain`.
pub(super) async fn serve(
    broker: &Broker,
    listener: TcpListener,
    shutdown: Shutdown,
    drain: Duration,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.begun() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => start(broker, &mut connections, stream, address),
                Err(error) => back_off(broker, &error).await,
            },
            ended = connections.join_next(), if !connections.is_empty() => note(ended),
        }
    }
    drop(listener);
    broker.draining().cancel();
    let drained = tokio::time::timeout(drain, async {
        while let Some(ended) = connections.join_next().await {
            note(Some(ended));
        }
    });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "connections were cut at the deadline");
        connections.shutdown().await;
    }
}

fn start(broker: &Broker, connections: &mut JoinSet<()>, stream: TcpStream, address: SocketAddr) {
    let Ok(place) = broker.limits().places.take(address.ip()) else {
        broker.metrics().broker_connections_refused.inc();
        if let Some(unsaid) = broker.limits().warnings.admit() {
            tracing::warn!(peer = %address, unsaid, "too many connections, one was refused");
        }
        return;
    };
    // Without it answers may come some milliseconds later; nothing breaks.
    drop(stream.set_nodelay(true));
    let Ok(local) = stream.local_addr() else {
        // The peer has gone already.
        return;
    };
    let peer = Peer { address, local, client_id: None };
    let broker = broker.clone();
    connections.spawn(async move {
        broker.metrics().broker_connections.inc();
        Box::pin(connection::serve(&broker, stream, peer)).await;
        broker.metrics().broker_connections.dec();
        drop(place);
    });
}

/// A connection that panicked has ended alone.
fn note(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection panicked");
    }
}

/// Waits a little after an `accept` that failed: without file descriptors it would fail again at
/// once, for as long as none is free.
async fn back_off(broker: &Broker, error: &io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    if let Some(unsaid) = broker.limits().warnings.admit() {
        tracing::warn!(%error, unsaid, "cannot accept connections");
    }
    tokio::time::sleep(ACCEPT_BACK_OFF).await;
}

const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
