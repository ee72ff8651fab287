//! One peer of the Kafka port: its requests are read in order and answered in order.
//!
//! Produce requests overlap: each takes its place in its partitions' order as it is read, and the
//! answers are awaited in turn, so that one connection can fill a group commit. Any other request
//! is looked at when everything before it is answered, and holds up what comes after it, as in
//! Kafka.
//!
//! Bounds: requests in flight, the frame, the time that a frame may take to arrive, the time that a
//! peer may not read its answers, idle time. A peer that breaks the protocol loses its connection,
//! and nobody else notices.

use super::{
    Broker, Peer,
    handler::{
        self,
        produce::{self, Outcome},
    },
};
use crate::{
    budget::{Budget, Ticket},
    wire::{
        ApiKey, Request, RequestError, RequestHeader, Response,
        api::encode_unsupported_api_versions,
        decode_request, encode_response,
        frame::{self, FRAME_BYTES_MAX, FrameError},
        messages::{RequestKind, ResponseKind},
    },
};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{FutureExt, future::BoxFuture};
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// What all connections share.
#[derive(Debug)]
pub(in crate::broker) struct Limits {
    connections: Arc<Semaphore>,
    unfinished: Budget,
}

impl Limits {
    pub(in crate::broker) fn new(connections_max: usize) -> Self {
        let permits = connections_max.min(Semaphore::MAX_PERMITS);
        Self {
            connections: Arc::new(Semaphore::new(permits)),
            unfinished: Budget::new(UNFINISHED_BYTES_MAX),
        }
    }

    /// Room for one more connection, given back when dropped; `None` at the limit.
    pub(in crate::broker) fn take_slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }
}

/// Serves one peer until either side ends it.
pub(in crate::broker) async fn serve(broker: &Broker, stream: TcpStream, peer: Peer) {
    let mut connection = Connection {
        broker,
        stream,
        peer,
        buffer: BytesMut::new(),
        frame_since: None,
        ticket: None,
        is_eof: false,
        in_flight: VecDeque::new(),
        out: VecDeque::new(),
        out_bytes: 0,
    };
    let end = connection.run().await;
    let peer = connection.peer.address;
    match end {
        Ok(()) | Err(End::Gone) => tracing::debug!(%peer, "connection closed"),
        Err(End::Io(error)) => tracing::debug!(%peer, %error, "connection lost"),
        Err(End::TimedOut(what)) => tracing::debug!(%peer, what, "connection timed out"),
        Err(End::Bad(why)) => {
            broker.metrics().broker_bad_requests.inc();
            tracing::warn!(%peer, why, "connection closed by us");
        }
    }
}

/// Why a connection ends before its time.
enum End {
    /// The peer has closed it while a request waited, or we stop.
    Gone,
    Io(io::Error),
    TimedOut(&'static str),
    /// The peer broke the protocol, or a failure that cannot be answered.
    Bad(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct Connection<'a> {
    broker: &'a Broker,
    stream: TcpStream,
    peer: Peer,
    /// What was read and not yet taken.
    buffer: BytesMut,
    /// When the frame at the front of `buffer` began to arrive.
    frame_since: Option<Instant>,
    /// What it holds of the budget for unfinished frames, once it is large.
    ticket: Option<Ticket>,
    is_eof: bool,
    /// Produce requests whose answers are to come, oldest first.
    in_flight: VecDeque<InFlight>,
    /// Encoded answers that are not yet written.
    out: VecDeque<Bytes>,
    out_bytes: usize,
}

struct InFlight {
    header: RequestHeader,
    outcome: BoxFuture<'static, Outcome>,
}

impl Connection<'_> {
    async fn run(&mut self) -> Result<(), End> {
        loop {
            match frame::try_decode(&mut self.buffer, FRAME_BYTES_MAX) {
                Ok(Some(frame)) => {
                    self.ticket = None;
                    self.take(frame).await?;
                    // Counted from here: what a long wait of ours held up is not the peer's fault.
                    self.frame_since = (!self.buffer.is_empty()).then(Instant::now);
                }
                Ok(None) if self.is_eof || self.must_stop() => {
                    self.finish_all().await?;
                    return self.flush().await;
                }
                Ok(None) => self.wait().await?,
                Err(FrameError::Http) => {
                    self.answer_http().await?;
                    return Err(End::Bad(FrameError::Http.to_string()));
                }
                Err(error) => return Err(End::Bad(error.to_string())),
            }
        }
    }

    fn must_stop(&self) -> bool {
        self.broker.draining().is_cancelled()
    }

    /// Takes one frame: a produce request goes on its way, any other is answered.
    async fn take(&mut self, frame: Bytes) -> Result<(), End> {
        let Request { header, body } = match decode_request(frame) {
            Ok(request) => request,
            Err(RequestError::ApiVersions { correlation_id, .. }) => {
                self.finish_all().await?;
                self.push(encode_unsupported_api_versions(correlation_id));
                return Ok(());
            }
            Err(error) => return Err(End::Bad(error.to_string())),
        };
        if self.peer.client_id != header.client_id {
            self.peer.client_id.clone_from(&header.client_id);
        }
        match body {
            RequestKind::Produce(request) => {
                while self.in_flight.len() >= IN_FLIGHT_MAX {
                    self.finish_front().await?;
                }
                let pending = Box::pin(produce::begin(self.broker, header.version, request)).await;
                let outcome = pending.finish().boxed();
                self.in_flight.push_back(InFlight { header, outcome });
            }
            body => {
                self.finish_all().await?;
                self.flush().await?;
                let response = self.handle(&header, body).await?;
                self.respond(&header, response)?;
            }
        }
        if self.out_bytes >= FLUSH_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Runs a handler, and reads on meanwhile to see a peer that goes away.
    async fn handle(&mut self, header: &RequestHeader, body: RequestKind) -> Result<Response, End> {
        let (is_fetch, waits_for_members) = match header.key {
            ApiKey::Fetch => (true, false),
            ApiKey::JoinGroup | ApiKey::SyncGroup => (false, true),
            _ => (false, false),
        };
        let peer = self.peer.clone();
        let mut answer = Box::pin(handler::answer(self.broker, &peer, header, body));
        loop {
            let may_read = !self.is_eof && self.buffer.len() < READ_AHEAD_BYTES;
            tokio::select! {
                biased;
                answered = &mut answer => {
                    let unserved = || End::Bad(format!("{:?} is not served", header.key));
                    return answered.ok_or_else(unserved);
                }
                read = read_some(&mut self.stream, &mut self.buffer), if may_read => {
                    self.note_read(read?);
                    // What may wait long would only keep the connection open for nobody.
                    if self.is_eof && (is_fetch || waits_for_members) {
                        return Err(End::Gone);
                    }
                }
                () = self.broker.draining().cancelled(), if waits_for_members => {
                    return Err(End::Gone);
                }
            }
        }
    }

    /// Writes what is ready, then waits for more to read or for the oldest answer.
    async fn wait(&mut self) -> Result<(), End> {
        self.flush().await?;
        let is_idle = self.in_flight.is_empty();
        let (due, what) = match self.frame_since {
            Some(since) => (since + FRAME_TIMEOUT, "half a frame"),
            None => (Instant::now() + IDLE_TIMEOUT, "idle"),
        };
        if is_idle && self.buffer.is_empty() {
            // Nothing is held for a connection that is idle.
            self.buffer = BytesMut::new();
        }
        let oldest = async {
            match self.in_flight.front_mut() {
                Some(oldest) => (&mut oldest.outcome).await,
                None => std::future::pending().await,
            }
        };
        let cut = async {
            match &self.ticket {
                Some(ticket) => ticket.cut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cut => Err(End::TimedOut("half a frame, the oldest when memory ran out")),
            outcome = oldest => {
                self.settle(outcome)?;
                self.settle_ready()
            }
            read = read_some(&mut self.stream, &mut self.buffer) => {
                self.note_read(read?);
                Ok(())
            }
            () = self.broker.draining().cancelled(), if is_idle => Ok(()),
            () = tokio::time::sleep_until(due) => Err(End::TimedOut(what)),
        }
    }

    fn note_read(&mut self, bytes: usize) {
        self.is_eof = bytes == 0;
        if !self.is_eof && self.frame_since.is_none() {
            self.frame_since = Some(Instant::now());
        }
        if self.buffer.len() > READ_AHEAD_BYTES {
            let unfinished = &self.broker.limits().unfinished;
            self.ticket
                .get_or_insert_with(|| unfinished.begin(CancellationToken::new()))
                .set(self.buffer.len());
        }
    }

    /// Waits for the oldest produce request.
    async fn finish_front(&mut self) -> Result<(), End> {
        let Some(oldest) = self.in_flight.front_mut() else { return Ok(()) };
        let outcome = (&mut oldest.outcome).await;
        self.settle(outcome)
    }

    async fn finish_all(&mut self) -> Result<(), End> {
        while !self.in_flight.is_empty() {
            self.finish_front().await?;
        }
        Ok(())
    }

    /// Takes every further answer that is there, so that one write carries them all.
    fn settle_ready(&mut self) -> Result<(), End> {
        while let Some(oldest) = self.in_flight.front_mut() {
            let Some(outcome) = (&mut oldest.outcome).now_or_never() else { break };
            self.settle(outcome)?;
        }
        Ok(())
    }

    /// Answers the oldest produce request.
    fn settle(&mut self, outcome: Outcome) -> Result<(), End> {
        let Some(InFlight { header, .. }) = self.in_flight.pop_front() else { return Ok(()) };
        match outcome {
            Outcome::Answer(response) => {
                self.respond(&header, ResponseKind::Produce(response).into())
            }
            Outcome::Silent => {
                self.broker.metrics().broker_requests.inc();
                Ok(())
            }
            Outcome::Close(code) => {
                Err(End::Bad(format!("produce with acks 0 failed with {code:?}")))
            }
        }
    }

    fn respond(&mut self, header: &RequestHeader, response: Response) -> Result<(), End> {
        let chunks = encode_response(header, response);
        self.push(chunks.map_err(|error| End::Bad(error.to_string()))?);
        Ok(())
    }

    fn push(&mut self, chunks: Vec<Bytes>) {
        self.broker.metrics().broker_requests.inc();
        self.out_bytes += chunks.iter().map(Bytes::len).sum::<usize>();
        self.out.extend(chunks.into_iter().filter(|chunk| !chunk.is_empty()));
    }

    /// Writes every answer that is encoded.
    async fn flush(&mut self) -> Result<(), End> {
        while !self.out.is_empty() {
            let chunks = self.out.iter().take(WRITE_CHUNKS);
            let slices: Vec<IoSlice<'_>> = chunks.map(|chunk| IoSlice::new(chunk)).collect();
            let writing = self.stream.write_vectored(&slices);
            let written = tokio::time::timeout(IDLE_TIMEOUT, writing).await;
            let mut written = written.map_err(|_| End::TimedOut("the peer does not read"))??;
            if written == 0 {
                return Err(End::Gone);
            }
            self.out_bytes -= written;
            while let Some(front) = self.out.front_mut() {
                let taken = written.min(front.len());
                front.advance(taken);
                written -= taken;
                if !front.is_empty() {
                    break;
                }
                self.out.pop_front();
            }
        }
        Ok(())
    }

    /// Tells a browser or a probe what this port is.
    async fn answer_http(&mut self) -> Result<(), End> {
        let body = "This is a Kafka port; it does not speak HTTP.\n";
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(answer.as_bytes()).await?;
        self.stream.shutdown().await?;
        // A close with bytes unread would be a reset, which can overtake the answer.
        let mut bytes = 0;
        let rest = async {
            while bytes < FLUSH_BYTES {
                self.buffer.clear();
                match read_some(&mut self.stream, &mut self.buffer).await {
                    Ok(read) if read > 0 => bytes += read,
                    _ => break,
                }
            }
        };
        // The answer was given; whether the peer goes in time does not matter.
        drop(tokio::time::timeout(HTTP_LINGER, rest).await);
        Ok(())
    }
}

/// Reads what is there, with room that grows with what has come and not with what is announced.
/// Cancel safe.
async fn read_some(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
    if buffer.capacity() == 0 {
        // Memory only when there is something to read.
        stream.readable().await?;
    }
    buffer.reserve(buffer.len().clamp(READ_BYTES_MIN, READ_BYTES_MAX));
    stream.read_buf(buffer).await
}

/// Produce requests of one connection that wait for their answers.
const IN_FLIGHT_MAX: usize = 64;
/// Answers are written at the latest when they are this large together.
const FLUSH_BYTES: usize = 64 << 10;
/// Chunks of one write.
const WRITE_CHUNKS: usize = 64;
/// What is read while a handler runs, and what an unfinished frame may be without a ticket.
const READ_AHEAD_BYTES: usize = 64 << 10;
/// Bytes of unfinished frames in all connections; above it the oldest frame is cut.
const UNFINISHED_BYTES_MAX: usize = 256 << 20;
const READ_BYTES_MIN: usize = 8 << 10;
const READ_BYTES_MAX: usize = 256 << 10;
/// For one frame, from its first byte to its last.
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);
/// Kafka's `connections.max.idle.ms`; also for a peer that does not read its answers.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
const HTTP_LINGER: Duration = Duration::from_secs(1);
