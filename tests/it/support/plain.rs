//! HTTP by hand, for requests that no client would send.

use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// What came back: all of it, up to the end of the connection.
pub(crate) struct Plain {
    pub(crate) status: u16,
    /// Status line and headers, as sent.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Plain {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Headers without `date` and the position, sorted, and the body.
    pub(crate) fn fingerprint(&self) -> String {
        let passing = |line: &&str| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            name != "date" && name != "taskwire-position"
        };
        let mut lines: Vec<&str> = self.head.lines().filter(passing).collect();
        lines[1..].sort_unstable();
        format!("{}\n\n{}", lines.join("\n"), self.body)
    }
}

/// Sends a request line and headers as they are; `Connection: close` is added.
pub(crate) async fn ask(
    address: SocketAddr,
    line: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Plain {
    let mut text = format!("{line} HTTP/1.1\r\n").into_bytes();
    for (name, value) in headers {
        text.extend(format!("{name}: {value}\r\n").as_bytes());
    }
    let has = |wanted: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    if !has("connection") {
        text.extend(b"connection: close\r\n");
    }
    if !body.is_empty() && !has("content-length") {
        text.extend(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    text.extend(b"\r\n");
    text.extend(body.as_bytes());
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(&text).await.expect("sent");
    let mut answer = Vec::new();
    let mut chunk = [0; 16 * 1_024];
    let reading = async {
        loop {
            let read = stream.read(&mut chunk).await.unwrap_or(0);
            answer.extend_from_slice(&chunk[..read]);
            if read == 0 || is_whole(&answer) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(20), reading).await.expect("an answer in time");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer to {line}: {text:?}"));
    Plain { status, head: head.replace("\r\n", "\n"), body: body.to_owned() }
}

/// Whether all of an answer is there; the connection may stay open after it.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let is_empty = ["HTTP/1.1 101", "HTTP/1.1 204", "HTTP/1.1 304"];
    let is_empty = is_empty.iter().any(|status| head.starts_with(status));
    is_empty || length.is_some_and(|length| answer.len() >= head.len() + 4 + length)
}

/// A WebSocket handshake; further headers may replace its own.
pub(crate) async fn shake(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Plain {
    let host = address.to_string();
    let usual = [
        ("host", host.as_str()),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let is_kept = |(name, _): &&(&str, &str)| !headers.iter().any(|(other, _)| other == name);
    let all: Vec<_> = usual.iter().filter(is_kept).chain(headers).copied().collect();
    ask(address, &format!("GET {target}"), &all, "").await
}

/// Text as it may stand in a query.
pub(crate) fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
