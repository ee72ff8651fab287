//! A connection below hyper: ends answers that the peer does not read, closes so that the last
//! answer arrives, and counts what all connections have under way.
//!
//! hyper bounds what comes in (headers by time and size; a body by its reader) and nothing of what
//! goes out: a peer that never reads would keep its answer and its connection for ever.
//!
//! Bounds: requests that have not been answered, and answers that have not been read, are at most
//! [`REQUEST_BYTES_MAX`] and [`ANSWER_BYTES_MAX`] of all connections; those of up to
//! [`FREE_BYTES`] are not counted.

use crate::budget::{Budget, Ticket};
use rustix::net::sockopt::set_socket_send_buffer_size;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

/// Most bytes of requests that have not been answered, of all connections.
const REQUEST_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// Most bytes of answers that have not been read.
const ANSWER_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// A request or an answer that is not counted: about what a connection costs anyway.
const FREE_BYTES: usize = 16 * 1_024;

/// Speed that a peer must read an answer at beyond the answer timeout, in bytes a second. Whoever
/// reads a byte now and then is as slow as one who reads nothing.
const ANSWER_BYTES_PER_S_MIN: u32 = 4 * 1_024;

/// Time in which what the peer still sends is read and thrown away.
const LINGER: Duration = Duration::from_secs(1);

/// And how much of it.
const LINGER_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// Bytes that the kernel keeps of what a peer has not taken (it takes as much again for itself).
/// Left alone it would let this grow to several MB for each reader that does not read.
pub(super) const SEND_BUFFER_BYTES: usize = 128 * 1_024;

/// A TCP stream with an end to its answers.
pub(super) struct Guarded {
    stream: TcpStream,
    answer_timeout: Duration,
    /// Set while the peer lets an answer wait.
    waits: Option<Pin<Box<Sleep>>>,
    talk: Arc<Talk>,
    closing: Option<Closing>,
    /// The kernel's buffer is that of a stream.
    has_stream_buffer: bool,
}

struct Closing {
    end: Pin<Box<Sleep>>,
    bytes_left: usize,
}

/// What all connections have under way. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Budgets {
    requests: Budget,
    answers: Budget,
}

impl Budgets {
    pub(super) fn new() -> Self {
        Self { requests: Budget::new(REQUEST_BYTES_MAX), answers: Budget::new(ANSWER_BYTES_MAX) }
    }
}

/// What one connection has under way; whoever answers its requests tells how far they are.
#[derive(Debug)]
pub(super) struct Talk {
    budgets: Budgets,
    /// Cancelled to free memory.
    cut: CancellationToken,
    held: Mutex<Held>,
    /// The answer has no end: see [`SEND_BUFFER_BYTES`].
    is_stream: AtomicBool,
}

#[derive(Debug, Default)]
struct Held {
    request_bytes: usize,
    request: Option<Ticket>,
    answer: Option<Ticket>,
    /// The last answer left some of its request unread.
    lingers: bool,
}

impl Talk {
    pub(super) fn new(budgets: Budgets, cut: CancellationToken) -> Self {
        Self { budgets, cut, held: Mutex::default(), is_stream: AtomicBool::new(false) }
    }

    /// A request has its answer, of so many bytes. It may have been left half unread.
    pub(super) fn answered(&self, bytes: usize, lingers: bool) {
        let mut held = self.held();
        *held = Held { lingers, ..Held::default() };
        if bytes > FREE_BYTES {
            held.answer.insert(self.budgets.answers.begin(self.cut.clone())).set(bytes);
        }
    }

    /// The answer goes on for as long as the client takes it.
    pub(super) fn begin_stream(&self) {
        self.is_stream.store(true, Ordering::Relaxed);
    }

    fn received(&self, bytes: usize) {
        let mut held = self.held();
        held.request_bytes += bytes;
        if held.request_bytes > FREE_BYTES {
            let bytes = held.request_bytes;
            let begin = || self.budgets.requests.begin(self.cut.clone());
            held.request.get_or_insert_with(begin).set(bytes);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guarded {
    pub(super) fn new(stream: TcpStream, answer_timeout: Duration, talk: Arc<Talk>) -> Self {
        Self { stream, answer_timeout, waits: None, talk, closing: None, has_stream_buffer: false }
    }

    /// The stream, for another protocol.
    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// Fails a connection that is cut, and makes its end a reset.
    fn check_cut(&self) -> io::Result<()> {
        if self.talk.cut.is_cancelled() {
            reset(&self.stream);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// Bounds what the kernel keeps of a stream.
    fn bound_stream(&mut self) {
        if !self.has_stream_buffer && self.talk.is_stream.load(Ordering::Relaxed) {
            self.has_stream_buffer = true;
            // Only memory is lost if the option cannot be set.
            let _ = set_socket_send_buffer_size(&self.stream, SEND_BUFFER_BYTES);
        }
    }

    /// Judges a write: one that waits has an end.
    fn judge(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.check_cut()?;
        match (&written, &mut self.waits) {
            (Poll::Ready(Ok(bytes)), Some(end)) => {
                let bytes = u32::try_from(*bytes).unwrap_or(u32::MAX);
                let more = Duration::from_secs(1)
                    .mul_f64(f64::from(bytes) / f64::from(ANSWER_BYTES_PER_S_MIN));
                let later = (end.deadline() + more).min(Instant::now() + self.answer_timeout);
                end.as_mut().reset(later);
            }
            (Poll::Pending, waits) => {
                let end = waits.get_or_insert_with(|| Box::pin(sleep(self.answer_timeout)));
                ready!(end.as_mut().poll(cx));
                reset(&self.stream);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            (Poll::Ready(_), _) => (),
        }
        written
    }

    /// Reads what the peer still sends, so that the kernel does not answer it with a reset, which
    /// would take the answer from the peer before it is read (RFC 9112, 9.6).
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4_096];
        let closing = self.closing.get_or_insert_with(|| Closing {
            end: Box::pin(sleep(LINGER)),
            bytes_left: LINGER_BYTES_MAX,
        });
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending if self.talk.held().lingers => {
                    return closing.end.as_mut().poll(cx);
                }
                Poll::Pending | Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    let read = buffer.filled().len();
                    closing.bytes_left = closing.bytes_left.saturating_sub(read);
                    if read == 0 || closing.bytes_left == 0 || closing.end.is_elapsed() {
                        return Poll::Ready(());
                    }
                    // It was sending, so more may come.
                    self.talk.held().lingers = true;
                }
            }
        }
    }
}

/// Makes the end of a stream a reset: what was not read is dropped by the kernel at once.
pub(super) fn reset(stream: &TcpStream) {
    // Without it the kernel keeps what it has for some minutes, and no more than that.
    drop(stream.set_zero_linger());
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_cut()?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.talk.received(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.bound_stream();
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.bound_stream();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(written, cx)
    }

    /// hyper flushes when it has written all that it had.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut()?;
        self.waits = None;
        self.talk.held().answer = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1_024 * 1_024;

    fn talks(count: usize) -> Vec<Talk> {
        let budgets = Budgets::new();
        (0..count).map(|_| Talk::new(budgets.clone(), CancellationToken::new())).collect()
    }

    fn cut(talks: &[Talk]) -> usize {
        talks.iter().filter(|talk| talk.cut.is_cancelled()).count()
    }

    #[test]
    fn the_longest_unread_answers_are_cut_when_there_are_too_many() {
        let talks = talks(20);
        for talk in &talks[..16] {
            talk.answered(4 * MIB, false);
        }
        assert_eq!(cut(&talks), 0);
        talks[0].held().answer = None; // it was read
        talks[16].answered(4 * MIB, false);
        assert_eq!(cut(&talks), 0);
        talks[17].answered(1, false);
        assert_eq!(cut(&talks), 0, "small ones are free");
        talks[18].answered(4 * MIB, false);
        assert!(talks[1].cut.is_cancelled() && cut(&talks) == 1);
    }

    #[test]
    fn the_longest_unfinished_requests_are_cut_when_there_are_too_many() {
        let talks = talks(66);
        for talk in &talks[..64] {
            for _ in 0..MIB / 4_096 {
                talk.received(4_096);
            }
        }
        assert_eq!(cut(&talks), 0);
        talks[0].answered(100, false);
        talks[64].received(MIB);
        assert_eq!(cut(&talks), 0);
        talks[65].received(MIB);
        assert!(talks[1].cut.is_cancelled() && cut(&talks) == 1);
    }
}
