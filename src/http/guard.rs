//! A connection below hyper: ends answers that the peer does not read, and closes so that the last
//! answer arrives.
//!
//! hyper bounds what comes in (headers by time and size; a body by its reader) and nothing of what
//! goes out: a peer that never reads would keep its answer and its connection for ever.

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// Speed that a peer must read an answer at beyond the answer timeout, in bytes a second. Whoever
/// reads a byte now and then is as slow as one who reads nothing.
const ANSWER_BYTES_PER_S_MIN: u32 = 4 * 1_024;

/// Time in which what the peer still sends is read and thrown away.
const LINGER: Duration = Duration::from_secs(1);

/// And how much of it.
const LINGER_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// A TCP stream with an end to its answers.
pub(super) struct Guarded {
    stream: TokioIo<TcpStream>,
    answer_timeout: Duration,
    /// Set while the peer lets an answer wait.
    waits: Option<Pin<Box<Sleep>>>,
    lingers: Lingers,
    closing: Option<Closing>,
}

/// Tells a connection that its last answer left some of the request unread.
#[derive(Clone, Debug, Default)]
pub(super) struct Lingers(Arc<AtomicBool>);

struct Closing {
    end: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl Lingers {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Guarded {
    pub(super) fn new(stream: TcpStream, answer_timeout: Duration, lingers: Lingers) -> Self {
        let stream = TokioIo::new(stream);
        Self { stream, answer_timeout, waits: None, lingers, closing: None }
    }

    /// The stream, for another protocol.
    pub(super) fn into_inner(self) -> TcpStream {
        self.stream.into_inner()
    }

    /// Judges a write: one that waits has an end.
    fn judge(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
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
                reset(self.stream.inner());
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
            match Pin::new(self.stream.inner_mut()).poll_read(cx, &mut buffer) {
                Poll::Pending if self.lingers.0.load(Ordering::Relaxed) => {
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
                    self.lingers.set();
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

impl Read for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
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
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(written, cx)
    }

    /// hyper flushes when it has written all that it had.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waits = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}
