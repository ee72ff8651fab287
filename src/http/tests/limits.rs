//! Peers that send too much, too little or too slowly.

use super::support::{SOON, start, start_with};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

#[tokio::test]
async fn a_connection_that_sends_no_headers_is_closed() {
    let daemon = start_with(|setup| setup.http.header_timeout = Duration::from_millis(100)).await;
    for bytes in [&b""[..], b"GET /healthz HTTP/1.1\r\nhost: loc"] {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        drop(timeout(SOON, stream.read_to_end(&mut answer)).await.expect("closed in time"));
    }
}

#[tokio::test]
async fn connections_above_the_limit_are_refused_with_a_code() {
    let daemon = start_with(|setup| setup.http.connections_max = 2).await;
    // A socket keeps its connection's place.
    let socket = daemon.socket_of("alice").await;
    let mut plain = TcpStream::connect(daemon.address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    plain.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut refused = TcpStream::connect(daemon.address).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, refused.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&answer));
    drop((socket, plain));
    loop {
        let reply = daemon.request("GET /healthz", &[], "").await;
        if reply.status == 200 {
            break;
        }
    }
}

#[tokio::test]
async fn garbage_ends_its_connection_only() {
    let daemon = start().await;
    let long = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'x'; 200_000]].concat();
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    for (bytes, expected) in [
        (&b"\x00\x01\x02\x03\r\n\r\n"[..], 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET  HTTP/1.1\r\n\r\n", 400),
        (many.as_bytes(), 431),
        (&long, 431),
    ] {
        let status = daemon.raw(bytes).await.status;
        assert!(status == expected || status == 0, "{status}, expected {expected}");
    }
    assert_eq!(daemon.request("GET /healthz", &[], "").await.status, 200);
}

#[tokio::test]
async fn a_body_that_ends_early_writes_nothing() {
    let daemon = start().await;
    let head = format!(
        "POST /api/tasks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"title\":\"x\"}}",
        daemon.token("alice")
    );
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    drop(timeout(SOON, stream.read_to_end(&mut answer)).await.expect("closed in time"));
    assert!(daemon.log.values("task-events").is_empty());
}
