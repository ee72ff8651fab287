//! Wrong input on port 8000 is 4xx, whatever it is: never 5xx, never a hang, never a change.

use crate::support::{TestDaemon, created, eventually};
use std::time::{Duration, Instant};

/// Longest time for one of these answers; all are decided without waiting for the peer.
const AT_ONCE: Duration = Duration::from_secs(5);

const PATHS: &[&str] = &[
    "/",
    "/api/tasks",
    "/api/tasks/t",
    "/api/tasks/t/complete",
    "/api/changes",
    "/api/events",
    "/api/ws-tickets",
    "/api/admin/status",
    "/ws/tasks",
    "/ws/stats",
    "/healthz",
    "/health",
    "/readyz",
    "/metrics",
    "/nothing",
];

const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get",
];

/// A daemon with one task of ada's, and what must not change.
struct Bench {
    daemon: TestDaemon,
    errors: u64,
}

impl Bench {
    async fn start() -> Self {
        let daemon = TestDaemon::start().await;
        daemon.produce(&[created("t", "ada", "untouched")]).await;
        daemon.user("ada").task("t").await;
        let errors = counter(&daemon, "taskwire_http_server_errors_total").await;
        Self { daemon, errors }
    }

    /// Sends bytes on a connection of their own: the status, 0 where there is none.
    async fn status(&self, bytes: &[u8]) -> u16 {
        let mut raw = self.daemon.raw().await;
        let start = Instant::now();
        raw.send(bytes).await;
        let (status, _) = raw.head().await;
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        assert!(start.elapsed() < AT_ONCE, "too slow: {shown}");
        assert!(status < 500, "{status} for {shown}");
        status
    }

    /// A request of ada's with more headers and a body.
    async fn ask(&self, line: &str, headers: &str, body: &[u8]) -> u16 {
        let head = self.daemon.request_of("ada", line) + headers + "connection: close\r\n\r\n";
        self.status(&[head.as_bytes(), body].concat()).await
    }

    async fn ask_json(&self, line: &str, body: &[u8]) -> u16 {
        let headers =
            format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        self.ask(line, &headers, body).await
    }

    /// The daemon is well, and has taken nothing of all that.
    async fn finish(self) {
        let errors = counter(&self.daemon, "taskwire_http_server_errors_total").await;
        assert_eq!(errors, self.errors, "a 5xx was counted");
        let task = self.daemon.user("ada").task("t").await;
        assert_eq!((&task["title"], &task["version"]), (&"untouched".into(), &1.into()));
        assert_eq!(self.daemon.user("ada").tasks().await.len(), 1);
    }
}

async fn counter(daemon: &TestDaemon, name: &str) -> u64 {
    let metrics = daemon.with_token(None).get("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.bytes).into_owned();
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
    line.expect("the metric").parse().expect("a number")
}

#[tokio::test]
async fn every_method_on_every_path_has_an_answer() {
    let bench = Bench::start().await;
    for path in PATHS {
        for method in METHODS {
            if matches!((*method, *path), ("DELETE", "/api/tasks/t"))
                || (matches!(*method, "POST" | "PATCH") && path.ends_with("/complete"))
            {
                continue; // these are right
            }
            let status = bench.ask(&format!("{method} {path}"), "", b"").await;
            assert!(status >= 200, "{status} for {method} {path}");
        }
    }
    bench.finish().await;
}

#[tokio::test]
async fn bodies_that_are_wrong_are_refused() {
    let bench = Bench::start().await;
    let deep = |levels: usize| {
        let text = format!("{{\"title\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
        text.into_bytes()
    };
    let mut bodies: Vec<Vec<u8>> = [
        &b""[..],
        b" ",
        b"\0",
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{\"title\":\"a\"}",
        b"null",
        b"true",
        b"1",
        b"-",
        b"\"title\"",
        b"[]",
        b"[{\"title\":\"a\"},{\"title\":\"\"}]",
        b"{",
        b"{]",
        b"{\"title\"",
        b"{\"title\":\"a\"",
        b"{\"title\":\"a\"}}",
        b"{\"title\":\"a\"} {\"title\":\"b\"}",
        b"{\"title\":\"a\",}",
        b"{'title':'a'}",
        b"{\"title\":NaN}",
        b"{\"title\":\"a\xff\"}",
        b"{\"title\":\"a\xed\xa0\x80\"}",
        b"{\"title\":\"\\ud800\"}",
        b"{\"title\":\"a\0b\"}",
        b"{\"\":1}",
        b"{\"__proto__\":{}}",
        b"{\"title\":\"a\",\"user_id\":1e999}",
        b"{\"title\":\"a\",\"due_date\":\"999999999-01-01T00:00:00Z\"}",
        b"{\"title\":\"a\",\"due_date\":\"-262144-01-01T00:00:00Z\"}",
        b"{\"title\":\"a\",\"due_date\":\"2026-13-45T99:99:99Z\"}",
        b"{\"title\":\"a\",\"due_date\":\"2026-01-01T00:00:00+99:99\"}",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    let fields =
        ["title", "description", "priority", "due_date", "labels", "completed", "user_id", "id"];
    let values = [
        "1e400",
        "-1",
        "1.5",
        "{}",
        "[[]]",
        "[1]",
        "[null]",
        "{\"a\":[]}",
        "\"\\ud800\"",
        "99999999999999999999999999999999",
    ];
    for field in fields {
        for value in values {
            bodies.push(format!("{{\"{field}\":{value}}}").into_bytes());
        }
        bodies.push(format!("{{\"{field}\":\"{}\"}}", "x".repeat(100_000)).into_bytes());
    }
    bodies.extend([deep(64), deep(10_000), deep(500_000)]);
    bodies.push(format!("{{\"title\":{}}}", "9".repeat(1_000_000)).into_bytes());
    bodies.push(format!("{{{}}}", "\"a\":1,".repeat(100_000)).into_bytes());
    let labels: Vec<String> = (0..50_000).map(|number| format!("\"{number}\"")).collect();
    bodies.push(format!("{{\"labels\":[{}]}}", labels.join(",")).into_bytes());
    for body in &bodies {
        for line in ["POST /api/tasks", "PUT /api/tasks/t", "PATCH /api/tasks/t"] {
            let status = bench.ask_json(line, body).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            // A document that says what is already so, or sets nothing, changes nothing.
            let is_no_change = status == 200 && line.starts_with("PATCH");
            assert!((400..500).contains(&status) || is_no_change, "{status} for {line} {shown}");
        }
    }
    bench.finish().await;
}

#[tokio::test]
async fn paths_and_queries_that_are_wrong_are_refused() {
    let bench = Bench::start().await;
    let long = "x".repeat(12_000);
    let mut targets: Vec<String> = [
        "/api/tasks/%00",
        "/api/tasks/%ff",
        "/api/tasks/%",
        "/api/tasks/%zz",
        "/api/tasks/%2f",
        "/api/tasks/%F0%9F%92%A9%00",
        "/api/tasks/..",
        "/api/tasks/../../etc/passwd",
        "/api/tasks/",
        "//api//tasks",
        "/api/tasks/t/complete/x",
        "/api/tasks/t/",
        "/API/TASKS",
        "/%61pi/tasks",
        "/api/tasks?limit=0",
        "/api/tasks?limit=-1",
        "/api/tasks?limit=1001",
        "/api/tasks?limit=99999999999999999999",
        "/api/tasks?limit=1e3",
        "/api/tasks?limit=",
        "/api/tasks?limit=%00",
        "/api/tasks?completed=1",
        "/api/tasks?priority=HIGH",
        "/api/tasks?due_before=yesterday",
        "/api/tasks?due_before=999999999-01-01T00:00:00Z",
        "/api/tasks?due_after=-1",
        "/api/tasks?sort=size",
        "/api/tasks?cursor=zz",
        "/api/tasks?cursor=0",
        "/api/tasks?cursor=",
        "/api/tasks?cursor=00000000000000000000000000000000",
        "/api/tasks?%",
        "/api/tasks?%ff=%ff",
        "/api/tasks?a&b=&=c",
        "/api/tasks?token=x",
        "/ws/stats?%ff",
        "*",
        "nothing",
        "http://",
        "http:///api/tasks",
        "?",
    ]
    .map(str::to_owned)
    .to_vec();
    targets.extend([
        format!("/api/tasks/{long}"),
        format!("/api/tasks?q={long}"),
        format!("/api/tasks?cursor={long}"),
        format!("/api/tasks?{}", "a=b&".repeat(3_000)),
        format!("/{}", "/a".repeat(6_000)),
    ]);
    for target in &targets {
        let status = bench.ask(&format!("GET {target}"), "", b"").await;
        let shown: String = target.chars().take(80).collect();
        let is_passed_over = matches!(target.as_str(), "/ws/stats?%ff" | "/%61pi/tasks");
        assert!((400..500).contains(&status) || is_passed_over, "{status} for {shown}");
    }
    for good in ["/api/tasks?q=%00", "/api/tasks?limit=1&limit=2", "/?", "/api/tasks?"] {
        assert_eq!(bench.ask(&format!("GET {good}"), "", b"").await, 200, "{good}");
    }
    let absolute = "GET http://localhost/api/tasks";
    assert_eq!(bench.ask(absolute, "", b"").await, 200, "the absolute form is a form (RFC 9112)");
    bench.finish().await;
}

#[tokio::test]
async fn headers_that_are_wrong_are_refused() {
    let bench = Bench::start().await;
    let body = b"{\"title\":\"a\"}";
    let key = format!("idempotency-key: {}", "k".repeat(300));
    let tags = format!("if-match: {}", "\"1\",".repeat(2_000));
    for header in [
        "content-type: text/plain",
        "content-type: application/json\u{e4}",
        "content-type:",
        "content-type: application/json, text/plain",
        "content-encoding: gzip",
        "content-encoding: identity, gzip",
        "idempotency-key:",
        key.as_str(),
    ] {
        let headers = format!("{header}\r\ncontent-length: {}\r\n", body.len());
        let status = bench.ask("POST /api/tasks", &headers, body).await;
        assert!((400..500).contains(&status), "{status} for {header}");
    }
    for header in [
        "if-match: 1",
        "if-match: \"2\"",
        "if-match: W/\"1\"",
        "if-match:",
        "if-match: \u{e4}",
        tags.as_str(),
        "if-match: \"99999999999999999999999999\"",
    ] {
        let headers = format!("{header}\r\ncontent-length: {}\r\n", body.len());
        let headers = headers + "content-type: application/json\r\n";
        let status = bench.ask("PATCH /api/tasks/t", &headers, body).await;
        assert!((400..500).contains(&status), "{status} for {header}");
    }
    for header in
        ["accept: nothing/at-all", "cookie: \u{e4}", "expect: miracles", "range: bytes=9-"]
    {
        let status = bench.ask("GET /api/tasks", &format!("{header}\r\n"), b"").await;
        assert!((200..500).contains(&status), "{status} for {header}");
    }
    let host = bench.daemon.http;
    for authorization in ["", "Bearer", "Bearer \u{e4}", "Bearer a.b.c", "Basic eDp5", "Bearer ,"] {
        let request = format!(
            "GET /api/tasks HTTP/1.1\r\nhost: {host}\r\nauthorization: {authorization}\r\n\r\n"
        );
        assert_eq!(bench.status(request.as_bytes()).await, 401, "{authorization}");
    }
    bench.finish().await;
}

#[tokio::test]
async fn requests_that_two_readers_could_take_for_different_ones_are_refused() {
    let bench = Bench::start().await;
    let head = bench.daemon.request_of("ada", "POST /api/tasks");
    let json = "content-type: application/json\r\n";
    for (name, rest, expected) in [
        ("two lengths", "content-length: 5\r\ncontent-length: 6\r\n\r\n{}   ", 400),
        ("a list of lengths", "content-length: 5, 6\r\n\r\n{}   ", 400),
        ("a signed length", "content-length: +5\r\n\r\n{}   ", 400),
        ("a negative length", "content-length: -1\r\n\r\n", 400),
        ("a length beyond 64 bits", "content-length: 99999999999999999999\r\n\r\n", 400),
        ("a long length", "content-length: 9999999999999999\r\n\r\n", 413),
        ("a folded header", "x-a: b\r\n  c\r\ncontent-length: 0\r\n\r\n", 400),
        ("space before the colon", "transfer-encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("another coding", "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("chunked, and not last", "transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
        ("a chunk size that is none", "transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n", 400),
        ("a huge chunk size", "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}", 400),
        ("a chunk longer than told", "transfer-encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", 400),
        ("a null in a header", "x-a: b\0c\r\n\r\n", 400),
        ("a header without a name", ": x\r\n\r\n", 400),
        ("a header without a colon", "nothing\r\n\r\n", 400),
    ] {
        let status = bench.status((head.clone() + json + rest).as_bytes()).await;
        assert_eq!(status, expected, "{name}");
    }
    for (name, request, expected) in [
        ("no host", "GET /api/tasks HTTP/1.1\r\n\r\n", 400),
        ("two hosts", "GET /api/tasks HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("HTTP/1.0 without a host", "GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("HTTP/0.9", "GET /\r\n\r\n", 400),
        ("HTTP/2, which is closed", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0),
        ("a TLS greeting", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03", 400),
        ("spaces in the target", "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        ("a null in the target", "GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        ("a control in the method", "G\x01T / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ] {
        assert_eq!(bench.status(request.as_bytes()).await, expected, "{name}");
    }
    bench.finish().await;
}

/// RFC 9112, 6.1: `Transfer-Encoding` wins, and the connection ends after the answer, so that what
/// another reader would take for a next request is none.
#[tokio::test]
async fn a_length_beside_chunks_hides_no_request() {
    let bench = Bench::start().await;
    let head = bench.daemon.request_of("ada", "POST /api/tasks");
    let hidden = bench.daemon.request_of("ada", "DELETE /api/tasks/t") + "\r\n";
    for framing in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    ] {
        let mut raw = bench.daemon.raw().await;
        raw.send((head.clone() + framing + &hidden).as_bytes()).await;
        let (status, _) = raw.answer().await;
        assert!((400..500).contains(&status), "{status}");
        assert_eq!(raw.answer().await.0, 0, "the connection ends");
    }
    bench.finish().await;
}

#[tokio::test]
async fn a_body_that_nobody_reads_holds_nothing_up() {
    let bench = Bench::start().await;
    for line in ["GET /api/tasks", "DELETE /api/tasks/none", "POST /api/tasks/none/complete"] {
        // The body never comes.
        let status = bench.ask(line, "content-length: 1000000\r\n", b"").await;
        assert!((200..500).contains(&status), "{status} for {line}");
    }
    eventually("the connections end", async || {
        let open = counter(&bench.daemon, "taskwire_http_connections").await;
        (open == 1).then_some(())
    })
    .await;
    bench.finish().await;
}
