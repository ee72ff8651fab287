//! Peers that send too much, too little or too slowly.

use super::support::{Daemon, Reply, SOON, start, start_with};
use crate::http::Rate;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// So many at once, and then hardly any.
fn at_once(burst: u32) -> Option<Rate> {
    Rate::new(1, Duration::from_secs(3_600), burst)
}

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_connection_that_sends_no_headers_is_closed() {
    let daemon =
        start_with(|setup| setup.http.limits.header_timeout = Duration::from_millis(100)).await;
    for bytes in [&b""[..], b"GET /healthz HTTP/1.1\r\nhost: loc"] {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        drop(timeout(SOON, stream.read_to_end(&mut answer)).await.expect("closed in time"));
    }
}

#[tokio::test]
async fn connections_above_the_limit_are_refused_with_a_code() {
    let daemon = start_with(|setup| setup.http.limits.connections_max = 2).await;
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

/// A connection that seems to come from another machine.
async fn from_afar(daemon: &Daemon, last: u8) -> TcpStream {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = daemon.http.listener(false, &daemon.shutdown, SOON);
    let stream = TcpStream::connect(tcp.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = tcp.accept().await.unwrap();
    listener.take(accepted, SocketAddr::from(([192, 0, 2, last], 1_234)));
    stream
}

async fn ask(stream: &mut TcpStream, request: &str) -> Reply {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.expect("closed in time").unwrap();
    Reply::parse(&answer)
}

async fn ask_from_afar(daemon: &Daemon, last: u8, path: &str, token: &str) -> Reply {
    let mut stream = from_afar(daemon, last).await;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
         authorization: Bearer {token}\r\n\r\n"
    );
    ask(&mut stream, &request).await
}

#[tokio::test]
async fn a_user_who_asks_too_often_is_told_when_to_come_back() {
    let daemon = start_with(|setup| setup.http.limits.rate_per_user = at_once(3)).await;
    for _ in 0..3 {
        assert_eq!(daemon.call("alice", "GET /api/tasks", "").await.status, 200);
    }
    let refused = daemon.call("alice", "POST /api/tasks", r#"{"title":"a"}"#).await;
    assert_eq!(refused.outcome(), "429 rate_limited");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((3_500..=3_600).contains(&seconds), "{seconds}");
    assert_eq!(refused.header("ratelimit-policy"), "\"user\";q=3;w=10800");
    assert_eq!(refused.header("ratelimit"), format!("\"user\";r=0;t={seconds}"));
    let target = format!("/ws/tasks?token={}", daemon.token("alice"));
    assert_eq!(daemon.socket(&target).await.err(), Some(429), "an upgrade is a request");
    assert_eq!(daemon.call("bob", "GET /api/tasks", "").await.status, 200);
    assert_eq!(daemon.metrics.http_rate_limited.get(), 2);
    assert!(daemon.log.values("task-events").is_empty());
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_told_and_probes_never_are() {
    let daemon = start_with(|setup| setup.http.limits.rate_per_address = at_once(2)).await;
    for (last, path, expected) in [
        (1, "/", 200),
        (1, "/nothing", 404),
        (1, "/", 429),
        (1, "/api/tasks", 429),
        (1, "/healthz", 200),
        (1, "/readyz", 200),
        (2, "/", 200),
    ] {
        assert_eq!(ask_from_afar(&daemon, last, path, "x").await.status, expected, "{path}");
    }
    for _ in 0..10 {
        assert_eq!(daemon.request("GET /", &[], "").await.status, 200, "loopback is not limited");
    }
}

#[tokio::test]
async fn refused_tokens_are_limited_and_good_ones_are_not_held_up_by_them() {
    let daemon = start_with(|setup| {
        setup.http.limits.auth_failures_per_address = at_once(2);
    })
    .await;
    let good = daemon.token("alice");
    for (last, token, expected) in [
        (1, "bad", "401 token_invalid"),
        (1, "bad", "401 token_invalid"),
        (1, "bad", "429 rate_limited"),
        (1, good.as_str(), "200"),
        (1, "bad", "429 rate_limited"),
        (2, "bad", "401 token_invalid"),
    ] {
        let reply = ask_from_afar(&daemon, last, "/api/tasks", token).await;
        assert_eq!(reply.outcome(), expected, "{last} {token}");
    }
    assert_eq!(daemon.metrics.auth_failures.get(), 5);
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let daemon = start_with(|setup| setup.http.limits.connections_per_address_max = Some(2)).await;
    let mut held = vec![from_afar(&daemon, 1).await, from_afar(&daemon, 1).await];
    let refused = ask(&mut from_afar(&daemon, 1).await, "").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    assert_eq!(ask_from_afar(&daemon, 2, "/healthz", "x").await.status, 200);
    drop(held.pop());
    while ask_from_afar(&daemon, 1, "/healthz", "x").await.status != 200 {}
    assert!(daemon.metrics.http_connections_refused.get() >= 1);
}

#[tokio::test]
async fn a_body_that_drips_is_timed_out() {
    let daemon = start_with(|setup| setup.http.limits.body_timeout = SHORT).await;
    let bearer = format!("authorization: Bearer {}", daemon.token("alice"));
    for framing in ["content-length: 500", "transfer-encoding: chunked"] {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        let head =
            format!("POST /api/tasks HTTP/1.1\r\nhost: localhost\r\n{bearer}\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let dripping = tokio::spawn(async move {
            while writer.write_all(b"1\r\n{\r\n").await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        });
        let mut answer = Vec::new();
        drop(timeout(SOON, reader.read_to_end(&mut answer)).await.expect("closed in time"));
        assert_eq!(Reply::parse(&answer).outcome(), "408 request_timeout", "{framing}");
        timeout(SOON, dripping).await.expect("the drip ends too").unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_is_not_read_ends() {
    let daemon = start_with(|setup| setup.http.limits.answer_timeout = SHORT).await;
    let description = "x".repeat(10_000);
    for _ in 0..450 {
        let body = format!("{{\"title\":\"a\",\"description\":\"{description}\"}}");
        assert_eq!(daemon.call("alice", "POST /api/tasks", &body).await.status, 201);
    }
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let request = format!(
        "GET /api/tasks?limit=1000 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n",
        daemon.token("alice")
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    timeout(SOON, async {
        while daemon.metrics.http_requests.get() < 451 || daemon.metrics.http_connections.get() > 0
        {
            tokio::time::sleep(SHORT / 10).await;
        }
    })
    .await
    .expect("the connection is cut");
    let ended = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("in time");
    assert!(ended.is_err(), "by a reset, so that the kernel lets go of the rest, too");
    let whole = daemon.call("alice", "GET /api/tasks?limit=1000", "").await;
    let tasks = whole.json().as_array().map_or(0, Vec::len);
    assert!(whole.body.len() > 4 << 20 && tasks > 400, "whoever reads gets all of it");
    assert!(whole.body.len() < 5 << 20 && !whole.header("link").is_empty(), "in pages of 4 MiB");
}

#[tokio::test]
async fn what_is_too_long_is_told_even_while_it_is_sent() {
    let daemon = start().await;
    let token = daemon.token("alice");
    let head = |length: &str| {
        format!(
            "POST /api/tasks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             {length}\r\n\r\n"
        )
    };
    let long = vec![b' '; 3 << 20];
    let told = daemon.raw(&[head("content-length: 3145728").as_bytes(), &long].concat()).await;
    assert_eq!(told.outcome(), "413 body_too_large");
    let chunks = [b"300000\r\n".as_slice(), &long, b"\r\n0\r\n\r\n"].concat();
    let chunked = head("transfer-encoding: chunked");
    let told = daemon.raw(&[chunked.as_bytes(), &chunks].concat()).await;
    assert_eq!(told.outcome(), "413 body_too_large");
    // The longest body that is read.
    let longest = format!("{{\"title\":\"a\"{}}}", " ".repeat((1 << 20) - 13));
    let created = daemon.call("alice", "POST /api/tasks", &longest).await;
    assert_eq!((longest.len(), created.status), (1 << 20, 201));
    let longer = format!("{longest} ");
    let told = daemon.call("alice", "POST /api/tasks", &longer).await;
    assert_eq!(told.outcome(), "413 body_too_large");

    let target = |chars: usize| format!("GET /api/tasks?q={}", "x".repeat(chars));
    assert_eq!(daemon.call("alice", &target(16_000), "").await.status, 400);
    let told = daemon.call("alice", &target(17_000), "").await;
    assert_eq!(told.outcome(), "414 target_too_long");
    let large = "x".repeat(200_000);
    let told = daemon.call_with("alice", "GET /api/tasks", &[("x-large", &large)], "").await;
    assert_eq!(told.status, 431);
    let many: Vec<(&str, &str)> = (0..200).map(|_| ("x-many", "x")).collect();
    assert_eq!(daemon.call_with("alice", "GET /api/tasks", &many, "").await.status, 431);
}

#[tokio::test]
async fn unfinished_bodies_have_one_budget_and_the_slowest_pay() {
    let daemon = start().await;
    let head = format!(
        "POST /api/tasks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-length: 1048576\r\n\r\n",
        daemon.token("alice")
    );
    let most = vec![b' '; 1_000_000];
    let mut unfinished = Vec::new();
    for _ in 0..80 {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        stream.write_all(&[head.as_bytes(), &most].concat()).await.unwrap();
        unfinished.push(stream);
    }
    let ended = timeout(SOON, unfinished[0].read_to_end(&mut Vec::new())).await;
    drop(ended.expect("the first of them is cut"));
    let cut = daemon.metrics.http_connections_cut.get();
    assert!((1..40).contains(&cut), "{cut} of 80");
    let longest = format!("{{\"title\":\"a\"{}}}", " ".repeat((1 << 20) - 13));
    let created = daemon.call("alice", "POST /api/tasks", &longest).await;
    assert_eq!(created.status, 201, "who is quick is not cut");
}
