//! One peer of the Kafka port: its requests are read in order and answered in order.
//!
//! Produce requests overlap: each takes its place in its partitions' order as it is read, and the
//! answers are awaited in turn, so that one connection can fill a group commit. Any other request
//! is looked at when everything before it is answered, and holds up what comes after it, as in
//! Kafka.
//!
//! Bounds: requests in flight, the frame, the time that a frame (and the first one to begin) may
//! take, the time that a peer may not read its answers, idle time. Memory beyond a little is
//! counted where all connections share it ([`super::limits`]): a request that arrives or waits, an
//! answer that is not read. A peer that breaks the protocol or takes too much loses its connection,
//! and nobody else notices.

use super::{
    Broker, Peer,
    handler::{
        self,
        produce::{self, Outcome},
    },
};
use crate::{
    budget::Ticket,
    wire::{
        ApiKey, Request, RequestError, RequestHeader, Response,
        api::{DECODED_BYTES_PER_BYTE, encode_unsupported_api_versions},
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
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Serves one peer until either side ends it.
pub(in crate::broker) async fn serve(broker: &Broker, stream: TcpStream, peer: Peer) {
    let mut connection = Connection {
        broker,
        stream,
        peer,
        buffer: BytesMut::new(),
        connected_at: Instant::now(),
        has_asked: false,
        frame_since: None,
        held_bytes: 0,
        holding: None,
        unread: None,
        is_eof: false,
        in_flight: VecDeque::new(),
        out: VecDeque::new(),
        out_bytes: 0,
        out_held_bytes: 0,
    };
    let end = connection.run().await;
    let peer = connection.peer.address;
    match end {
        Ok(()) | Err(End::Gone) => tracing::debug!(%peer, "connection closed"),
        Err(End::Io(error)) => tracing::debug!(%peer, %error, "connection lost"),
        Err(End::TimedOut(what)) => tracing::debug!(%peer, what, "connection timed out"),
        Err(End::Cut(what)) => {
            broker.metrics().broker_connections_cut.inc();
            if let Some(unsaid) = broker.limits().warnings.admit() {
                tracing::warn!(%peer, what, unsaid, "memory ran out, the slowest connection cut");
            }
        }
        Err(End::Bad(why)) => {
            broker.metrics().broker_bad_requests.inc();
            if let Some(unsaid) = broker.limits().warnings.admit() {
                tracing::warn!(%peer, why, unsaid, "connection closed by us");
            }
        }
    }
}

/// Why a connection ends before its time.
enum End {
    /// The peer has closed it while a request waited, or we stop.
    Gone,
    Io(io::Error),
    TimedOut(&'static str),
    /// It held this for longest when the memory for it was full.
    Cut(&'static str),
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
    connected_at: Instant,
    /// Whether a whole request has come.
    has_asked: bool,
    /// When the frame at the front of `buffer` began to arrive.
    frame_since: Option<Instant>,
    /// What the request in hand takes while it waits.
    held_bytes: usize,
    /// That and `buffer` in the memory of all connections, once they are large.
    holding: Option<Ticket>,
    /// `out` in the memory of all connections, once it is large.
    unread: Option<Ticket>,
    is_eof: bool,
    /// Produce requests whose answers are to come, oldest first.
    in_flight: VecDeque<InFlight>,
    /// Encoded answers that are not yet written, each with the bytes that it keeps in memory: the
    /// rest of a chunk keeps the whole chunk.
    out: VecDeque<(Bytes, usize)>,
    out_bytes: usize,
    /// What `out` keeps in memory.
    out_held_bytes: usize,
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
                    self.has_asked = true;
                    if frame.len() > FREE_BYTES {
                        // A byte behind a large frame would keep all of its memory.
                        self.buffer = BytesMut::from(&self.buffer[..]);
                    }
                    // A new age: who sends one request after the other is not slow.
                    self.holding = None;
                    self.hold(frame.len())?;
                    self.take(frame).await?;
                    self.hold(0)?;
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
        // What waits for this peer comes before the room to work, which others wait for.
        if frame.starts_with(&PRODUCE_KEY) {
            while self.in_flight.len() >= IN_FLIGHT_MAX {
                self.finish_front().await?;
            }
        } else {
            self.finish_all().await?;
            self.flush().await?;
        }
        let room = self.room_to_work(&frame).await?;
        let Request { header, body, memory_bytes } = match decode_request(frame) {
            Ok(request) => request,
            Err(RequestError::ApiVersions { correlation_id, .. }) => {
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
                let pending = Box::pin(produce::begin(self.broker, header.version, request)).await;
                let outcome = pending.finish().boxed();
                self.in_flight.push_back(InFlight { header, outcome });
            }
            body => {
                // What waits for others would keep the room from others.
                let room = room.filter(|_| Wait::of(header.key) == Wait::No);
                self.hold(if room.is_some() { 0 } else { memory_bytes })?;
                let response = self.handle(&header, body).await?;
                self.respond(&header, response)?;
            }
        }
        if self.out_bytes >= FLUSH_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Waits for room to work on a request, if it is large.
    async fn room_to_work(&mut self, frame: &Bytes) -> Result<Option<OwnedSemaphorePermit>, End> {
        if frame.len() <= FREE_BYTES {
            return Ok(None);
        }
        let copies = if frame.starts_with(&PRODUCE_KEY) { 2 } else { 1 + DECODED_BYTES_PER_BYTE };
        let room = tokio::select! {
            room = self.broker.limits().work(frame.len().saturating_mul(copies)) => room,
            () = cut(self.holding.as_ref()) => return Err(End::Cut(REQUEST)),
        };
        // From here on the room counts it.
        self.hold(0)?;
        Ok(Some(room))
    }

    /// Counts what the request in hand takes, and what has arrived behind it.
    fn hold(&mut self, bytes: usize) -> Result<(), End> {
        self.held_bytes = bytes;
        let bytes = bytes + self.buffer.len();
        if bytes <= FREE_BYTES {
            self.holding = None;
            return Ok(());
        }
        let unfinished = &self.broker.limits().unfinished;
        let ticket = self.holding.get_or_insert_with(|| unfinished.begin(CancellationToken::new()));
        ticket.set(bytes);
        if ticket.is_cut() { Err(End::Cut(REQUEST)) } else { Ok(()) }
    }

    /// Runs a handler, and reads on meanwhile to see a peer that goes away.
    async fn handle(&mut self, header: &RequestHeader, body: RequestKind) -> Result<Response, End> {
        let wait = Wait::of(header.key);
        let peer = self.peer.clone();
        let _turn = if is_heavy(header.key) {
            self.broker.limits().heavy.acquire().await.ok()
        } else {
            None
        };
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
                    self.note_read(read?)?;
                    // What may wait long would only keep the connection open for nobody.
                    if self.is_eof && wait != Wait::No {
                        return Err(End::Gone);
                    }
                }
                () = self.broker.draining().cancelled(), if wait == Wait::ForMembers => {
                    return Err(End::Gone);
                }
                () = cut(self.holding.as_ref()) => return Err(End::Cut(REQUEST)),
            }
        }
    }

    /// Writes what is ready, then waits for more to read or for the oldest answer.
    async fn wait(&mut self) -> Result<(), End> {
        self.flush().await?;
        let is_idle = self.in_flight.is_empty();
        let limits = self.broker.limits();
        let (due, what) = match self.frame_since {
            Some(since) => (since + limits.options.frame_timeout, "half a frame"),
            None if !self.has_asked => {
                (self.connected_at + limits.options.frame_timeout, "no request")
            }
            None => (Instant::now() + limits.options.idle_timeout, "idle"),
        };
        // More of a large request would only wait in memory.
        let is_held_up = self.buffer.len() > FREE_BYTES && limits.is_busy();
        let held_up_at = Instant::now();
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
        tokio::select! {
            () = cut(self.holding.as_ref()) => Err(End::Cut(REQUEST)),
            outcome = oldest => {
                self.settle(outcome)?;
                self.settle_ready()
            }
            read = read_some(&mut self.stream, &mut self.buffer), if !is_held_up => {
                self.note_read(read?)
            }
            room = limits.work(0), if is_held_up => {
                drop(room);
                // That was not the peer's fault.
                let held_up = held_up_at.elapsed();
                self.frame_since = self.frame_since.map(|since| since + held_up);
                Ok(())
            }
            () = self.broker.draining().cancelled(), if is_idle => Ok(()),
            () = tokio::time::sleep_until(due), if !is_held_up => Err(End::TimedOut(what)),
        }
    }

    fn note_read(&mut self, bytes: usize) -> Result<(), End> {
        self.is_eof = bytes == 0;
        if !self.is_eof && self.frame_since.is_none() {
            self.frame_since = Some(Instant::now());
        }
        self.hold(self.held_bytes)
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
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        self.out_bytes += bytes;
        self.out_held_bytes += bytes;
        let with_len = |chunk: Bytes| {
            let bytes = chunk.len();
            (chunk, bytes)
        };
        self.out.extend(chunks.into_iter().filter(|chunk| !chunk.is_empty()).map(with_len));
    }

    /// Writes every answer that is encoded.
    async fn flush(&mut self) -> Result<(), End> {
        let limits = self.broker.limits();
        while !self.out.is_empty() {
            if self.out_held_bytes > FREE_BYTES {
                // Renewed with every write: the one cut is who has read nothing for longest.
                let unread = self
                    .unread
                    .get_or_insert_with(|| limits.unread.begin(CancellationToken::new()));
                unread.renew(self.out_held_bytes);
            }
            let chunks = self.out.iter().take(WRITE_CHUNKS);
            let slices: Vec<IoSlice<'_>> = chunks.map(|(chunk, _)| IoSlice::new(chunk)).collect();
            let mut written = tokio::select! {
                biased;
                written = self.stream.write_vectored(&slices) => written?,
                () = cut(self.unread.as_ref()) => return Err(End::Cut(ANSWERS)),
                () = cut(self.holding.as_ref()) => return Err(End::Cut(REQUEST)),
                () = tokio::time::sleep(limits.options.idle_timeout) => {
                    return Err(End::TimedOut("the peer does not read"));
                }
            };
            if written == 0 {
                return Err(End::Gone);
            }
            self.out_bytes -= written;
            while let Some((front, held_bytes)) = self.out.front_mut() {
                let taken = written.min(front.len());
                front.advance(taken);
                written -= taken;
                if !front.is_empty() {
                    break;
                }
                self.out_held_bytes -= *held_bytes;
                self.out.pop_front();
            }
        }
        self.unread = None;
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

/// Ends when what the ticket holds is to be given up. Cancel safe.
async fn cut(ticket: Option<&Ticket>) {
    match ticket {
        Some(ticket) => ticket.cut().await,
        None => std::future::pending().await,
    }
}

/// What an API may wait for, longer than for our own work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wait {
    No,
    ForRecords,
    ForMembers,
}

impl Wait {
    fn of(key: ApiKey) -> Self {
        match key {
            ApiKey::Fetch => Self::ForRecords,
            ApiKey::JoinGroup | ApiKey::SyncGroup => Self::ForMembers,
            _ => Self::No,
        }
    }
}

/// Whether an answer gathers much while it waits for the coordinator, so that few are made at once.
/// Any other large answer is made in one go.
fn is_heavy(key: ApiKey) -> bool {
    matches!(key, ApiKey::DescribeGroups | ApiKey::OffsetFetch)
}

/// How a Produce request begins.
const PRODUCE_KEY: [u8; 2] = [0, 0];
/// What was held when memory ran out.
const REQUEST: &str = "a request that has not come whole, or that waits";
const ANSWERS: &str = "answers that are not read";
/// What a connection may hold without being counted.
const FREE_BYTES: usize = 16 << 10;
/// Produce requests of one connection that wait for their answers.
const IN_FLIGHT_MAX: usize = 64;
/// Answers are written at the latest when they are this large together.
const FLUSH_BYTES: usize = 64 << 10;
/// Chunks of one write.
const WRITE_CHUNKS: usize = 64;
/// What is read while a handler runs.
const READ_AHEAD_BYTES: usize = 64 << 10;
const READ_BYTES_MIN: usize = 8 << 10;
const READ_BYTES_MAX: usize = 256 << 10;
const HTTP_LINGER: Duration = Duration::from_secs(1);
