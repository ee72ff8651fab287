//! A request body, to the routes that take one: wrong input is 4xx, never 5xx.

use super::server::{Server, read_head, server};
use std::io::{Read, Write};

/// Method and path; `{id}` is a task that is there.
const ROUTES: [&str; 6] = [
    "POST /api/tasks",
    "PATCH /api/tasks/ID",
    "PUT /api/tasks/ID",
    "POST /api/tasks/ID/complete",
    "PATCH /api/tasks/ID/complete",
    "PATCH /api/tasks/none",
];
const TYPES: [&str; 4] = [
    "application/json",
    "application/merge-patch+json",
    "text/plain",
    "application/json; charset=utf-8",
];
/// The task of the routes above, made with the first request that finds it missing.
const TASK: &str = "0190a0a0-0000-7000-8000-000000000000";

/// `data`: one byte that chooses the route and the content type, then the body.
pub(super) fn run(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let route = ROUTES[usize::from(choice & 7) % ROUTES.len()].replace("ID", TASK);
    let content_type = TYPES[usize::from(choice >> 3 & 3)];
    let mut server = server();
    let head = format!(
        "{route} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\n\r\n",
        server.address,
        server.token,
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    let status = exchange(&mut server, &request);
    assert!((200..500).contains(&status), "{route} answered {status}");
}

/// Sends on the open connection, or on a new one where the daemon has closed that; the status.
fn exchange(server: &mut Server, request: &[u8]) -> u16 {
    if let Some(mut stream) = server.connection.take()
        && stream.write_all(request).is_ok()
        && let Some(status) = answer(server, stream)
    {
        return status;
    }
    let mut stream = server.connect();
    stream.write_all(request).expect("written");
    answer(server, stream).expect("an answer on a new connection")
}

/// Reads an answer; keeps the connection if it may be used again. `None` without an answer.
fn answer(server: &mut Server, mut stream: std::net::TcpStream) -> Option<u16> {
    let head = read_head(&mut stream).to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let length = field("content-length: ").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the body");
    if field("connection: ") != Some("close") {
        server.connection = Some(stream);
    }
    Some(status)
}
