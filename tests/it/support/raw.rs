//! A client that sends bytes as they are: what no library would let a test send.

use super::{PATIENCE, TestDaemon};
use std::{io::ErrorKind, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A handshake that is good, but for the lines that a test puts in the place of these.
pub(crate) const UPGRADE: &[&str] = &[
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// One TCP connection.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    /// Read, and not used yet.
    buffer: Vec<u8>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it listens");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends; a peer that has closed already is no failure here.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        drop(sent.expect("taken in time"));
    }

    /// Reads until `enough` finds something at the beginning; `None` at the end of the stream.
    async fn read<T>(&mut self, enough: impl Fn(&[u8]) -> Option<(T, usize)>) -> Option<T> {
        loop {
            if let Some((found, length)) = enough(&self.buffer) {
                self.buffer.drain(..length);
                return Some(found);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            if !matches!(read.expect("an answer in time"), Ok(1..)) {
                return None;
            }
        }
    }

    /// The status and head of the next answer; 0 where the connection ends without one.
    pub(crate) async fn head(&mut self) -> (u16, String) {
        let found = self.read(|bytes| {
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
            Some((String::from_utf8_lossy(&bytes[..end]).to_lowercase(), end))
        });
        let Some(head) = found.await else { return (0, String::new()) };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), head)
    }

    /// The status, and the body as far as `content-length` says.
    pub(crate) async fn answer(&mut self) -> (u16, String) {
        let (status, head) = self.head().await;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().expect("a number"));
        let body = self.read(|bytes| Some((bytes.get(..length)?.to_vec(), length))).await;
        (status, String::from_utf8_lossy(&body.unwrap_or_default()).into_owned())
    }

    /// Whether the peer has closed; throws away what it sent.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut scratch = [0; 4_096];
        loop {
            match self.stream.try_read(&mut scratch) {
                Ok(1..) => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Ok(0) | Err(_) => return true,
            }
        }
    }

    /// Waits for the end of the stream, whatever comes before it.
    pub(crate) async fn end(&mut self) {
        while self.read(|bytes| (!bytes.is_empty()).then_some(((), bytes.len()))).await.is_some() {}
    }

    /// The next frame: its first byte, and its payload.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        self.read(|bytes| {
            let (&[first, second], rest) = bytes.split_first_chunk()?;
            let (length, at) = match second {
                126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
                127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, 10),
                short => (usize::from(short), 2),
            };
            let payload = bytes.get(at..at + length)?.to_vec();
            Some(((first, payload), at + length))
        })
        .await
    }

    /// The next frame that is no ping of the server, in words: `text ...`, `pong ...`,
    /// `close 1002`, `close` without a code, or `end` of the stream.
    pub(crate) async fn outcome(&mut self) -> String {
        loop {
            let Some((first, payload)) = self.frame().await else { return "end".to_owned() };
            let text = String::from_utf8_lossy(&payload).into_owned();
            return match (first, payload.split_first_chunk::<2>()) {
                (0x81, _) => format!("text {text}"),
                (0x88, Some((code, _))) => format!("close {}", u16::from_be_bytes(*code)),
                (0x88, None) => "close".to_owned(),
                (0x89, _) => continue,
                (0x8a, _) => format!("pong {text}"),
                _ => format!("frame {first:#x}"),
            };
        }
    }
}

impl TestDaemon {
    pub(crate) async fn raw(&self) -> Raw {
        Raw::connect(self.http).await
    }

    /// The beginning of a good request of `user`: method and target, host and token.
    pub(crate) fn request_of(&self, user: &str, line: &str) -> String {
        let token = self.token(user);
        format!("{line} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n", self.http)
    }

    /// A WebSocket of `user`, open.
    pub(crate) async fn raw_socket(&self, user: &str) -> Raw {
        let mut raw = self.raw().await;
        let request = self.request_of(user, "GET /ws/tasks") + &UPGRADE.join("\r\n") + "\r\n\r\n";
        raw.send(request.as_bytes()).await;
        assert_eq!(raw.head().await.0, 101);
        raw
    }
}

/// A masked frame with the shortest form of its length.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        short @ 0..=125 => vec![u8::try_from(short).expect("short")],
        middle @ 126..=0xffff => {
            [&[126], &u16::try_from(middle).expect("16 bits").to_be_bytes()[..]].concat()
        }
        long => [&[127], &u64::try_from(long).expect("64 bits").to_be_bytes()[..]].concat(),
    };
    frame_as(first, &length, payload)
}

/// A masked frame with a length of the test's own making.
pub(crate) fn frame_as(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = [&[first], length, &MASK].concat();
    frame[1] |= 0x80;
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
