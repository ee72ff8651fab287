//! RFC 6455 as a hostile client knows it: what is sent, and what comes of it.

use crate::support::{
    TestDaemon, created,
    raw::{UPGRADE, frame, frame_as},
};
use tokio::io::AsyncWriteExt;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// First fragments, and what goes on with and ends them.
const TEXT_BEGIN: u8 = 0x01;
const GO_ON: u8 = 0x00;
const LAST: u8 = 0x80;

const ANSWERED: &str = "text {\"type\":\"pong\"}";

/// `ping` with white space up to a length.
fn ping_of(length: usize) -> Vec<u8> {
    [b"ping", &vec![b' '; length - 4][..]].concat()
}

/// Sends bytes on a socket of their own; `bytes` is all that is sent.
async fn check(daemon: &TestDaemon, name: &str, bytes: &[u8], expected: &str) {
    let mut socket = daemon.raw_socket("ada").await;
    socket.send(bytes).await;
    assert_eq!(socket.outcome().await, expected, "{name}");
    if expected.starts_with("close") {
        socket.send(&frame(CLOSE, &[])).await;
        assert_eq!(socket.outcome().await, "end", "{name}: and then the connection ends");
    }
}

async fn check_all(cases: &[(&str, Vec<u8>, &str)]) {
    let daemon = TestDaemon::start().await;
    // Before it was ready, it said so by 503.
    let errors = server_errors(&daemon).await;
    for (name, bytes, expected) in cases {
        check(&daemon, name, bytes, expected).await;
    }
    let mut other = daemon.socket("ada").await;
    daemon.produce(&[created("t", "ada", "x")]).await;
    assert_eq!(other.next().await["data"]["id"], "t", "and others go on");
    assert_eq!(server_errors(&daemon).await, errors, "never 5xx");
}

async fn server_errors(daemon: &TestDaemon) -> String {
    let metrics = daemon.with_token(None).get("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.bytes).into_owned();
    let found = text.lines().find(|line| line.starts_with("taskwire_http_server_errors_total"));
    found.expect("the metric").to_owned()
}

#[tokio::test]
async fn frames_that_break_the_protocol_close_with_1002() {
    let cases = [
        ("reserved bit 1", frame(TEXT | 0x40, b"ping")),
        ("reserved bit 2", frame(TEXT | 0x20, b"ping")),
        ("reserved bit 3", frame(TEXT | 0x10, b"ping")),
        ("reserved data opcode", frame(0x83, b"ping")),
        ("reserved control opcode", frame(0x8b, b"ping")),
        ("fragmented ping", frame(PING & 0x0f, b"x")),
        ("fragmented close", frame(CLOSE & 0x0f, &1000_u16.to_be_bytes())),
        ("ping of 126 bytes", frame(PING, &[b'x'; 126])),
        ("continuation of nothing", frame(LAST, b"ping")),
        ("text within fragments", [frame(TEXT_BEGIN, b"pi"), frame(TEXT, b"ng")].concat()),
        ("not masked", vec![TEXT, 4, b'p', b'i', b'n', b'g']),
        ("not masked ping", vec![PING, 0]),
        ("close of one byte", frame(CLOSE, &[3])),
        ("close with 999", frame(CLOSE, &999_u16.to_be_bytes())),
        ("close with 1004", frame(CLOSE, &1004_u16.to_be_bytes())),
        ("close with 1005", frame(CLOSE, &1005_u16.to_be_bytes())),
        ("close with 1006", frame(CLOSE, &1006_u16.to_be_bytes())),
        ("close with 1015", frame(CLOSE, &1015_u16.to_be_bytes())),
        ("close with 5000", frame(CLOSE, &5000_u16.to_be_bytes())),
    ];
    check_all(&cases.map(|(name, bytes)| (name, bytes, "close 1002"))).await;
}

#[tokio::test]
async fn what_is_too_long_closes_with_1009() {
    let long = |length: u64| frame_as(TEXT, &[&[127], &length.to_be_bytes()[..]].concat(), b"x");
    let cases = [
        ("one byte too many", frame(TEXT, &ping_of(64 * 1024 + 1))),
        ("a length that is never sent", long(1 << 40)),
        ("the longest length", long(u64::MAX >> 1)),
        ("a negative length", long(u64::MAX)),
        (
            "too many bytes in fragments",
            [frame(TEXT_BEGIN, &ping_of(40_000)), frame(LAST, &ping_of(40_000))].concat(),
        ),
        (
            "fragments without a byte and without an end",
            [frame(TEXT_BEGIN, b""), frame(GO_ON, b"").repeat(30_000)].concat(),
        ),
    ];
    check_all(&cases.map(|(name, bytes)| (name, bytes, "close 1009"))).await;
}

#[tokio::test]
async fn text_is_utf_8_across_fragments() {
    let euro = "\u{20ac}".as_bytes();
    check_all(&[
        ("no UTF-8", frame(TEXT, &[0xff]), "close 1007"),
        ("an overlong form", frame(TEXT, &[0xc0, 0xaf]), "close 1007"),
        ("a surrogate", frame(TEXT, &[0xed, 0xa0, 0x80]), "close 1007"),
        (
            "no UTF-8 over two fragments",
            [frame(TEXT_BEGIN, &euro[..1]), frame(LAST, b"x")].concat(),
            "close 1007",
        ),
        (
            "a character over three fragments, and then a ping",
            [
                frame(TEXT_BEGIN, &euro[..1]),
                frame(GO_ON, &euro[1..2]),
                frame(LAST, &euro[2..]),
                frame(TEXT, b"ping"),
            ]
            .concat(),
            ANSWERED,
        ),
        ("a close whose reason is no UTF-8", frame(CLOSE, &[0x03, 0xe8, 0xff]), "close 1007"),
    ])
    .await;
}

#[tokio::test]
async fn messages_that_are_none_close_with_4400() {
    let deep = format!("{{\"type\":\"ping\",\"data\":{}", "[".repeat(60_000));
    let cases = [
        ("binary", frame(BINARY, b"ping")),
        ("broken JSON", frame(TEXT, b"{\"type\":")),
        ("JSON without a type", frame(TEXT, b"{}")),
        ("a type that is no text", frame(TEXT, b"{\"type\":{\"type\":1}}")),
        ("an unknown type", frame(TEXT, b"{\"type\":\"subscribe\"}")),
        ("deep JSON", frame(TEXT, deep.as_bytes())),
    ];
    check_all(&cases.map(|(name, bytes)| (name, bytes, "close 4400"))).await;
}

#[tokio::test]
async fn all_that_is_allowed_is_understood() {
    let lengths = [4, 125, 126, 127, 65_535, 65_536];
    let mut cases: Vec<_> = lengths
        .iter()
        .map(|length| ("a length", frame(TEXT, &ping_of(*length)), ANSWERED))
        .collect();
    let in_fragments =
        [frame(TEXT_BEGIN, b"pi"), frame(GO_ON, b""), frame(GO_ON, b"n"), frame(LAST, b"g")];
    cases.extend([
        ("a message in fragments", in_fragments.concat(), ANSWERED),
        (
            "a ping within fragments",
            [frame(TEXT_BEGIN, b"x"), frame(PING, b"now"), frame(LAST, b"x")].concat(),
            "pong now",
        ),
        ("a ping without payload", frame(PING, b""), "pong "),
        ("a pong that nobody asked for", [frame(PONG, b"x"), frame(PING, b"y")].concat(), "pong y"),
        ("other text", [frame(TEXT, b"hello"), frame(TEXT, b"ping")].concat(), ANSWERED),
        ("empty text", [frame(TEXT, b""), frame(TEXT, b"ping")].concat(), ANSWERED),
        // A sender must use the shortest form; to take others harms nobody.
        ("a length of 16 bits for 4", frame_as(TEXT, &[126, 0, 4], b"ping"), ANSWERED),
        (
            "a length of 64 bits for 4",
            frame_as(TEXT, &[127, 0, 0, 0, 0, 0, 0, 0, 4], b"ping"),
            ANSWERED,
        ),
        ("close", frame(CLOSE, b""), "close"),
        ("close with 1000", frame(CLOSE, &1000_u16.to_be_bytes()), "close 1000"),
        ("close with 3000", frame(CLOSE, &3000_u16.to_be_bytes()), "close 3000"),
        ("close with 4999", frame(CLOSE, &4999_u16.to_be_bytes()), "close 4999"),
        (
            "data after a close",
            [frame(CLOSE, &1000_u16.to_be_bytes()), frame(TEXT, b"ping")].concat(),
            "close 1000",
        ),
    ]);
    check_all(&cases).await;
}

#[tokio::test]
async fn a_flood_of_frames_closes_with_4429() {
    let daemon = TestDaemon::start_with(&["--socket-rate", "1/h,10"]).await;
    for (name, flood) in
        [("pings", frame(PING, b"")), ("pongs", frame(PONG, b"")), ("text", frame(TEXT, b"x"))]
    {
        let mut socket = daemon.raw_socket("ada").await;
        socket.send(&flood.repeat(10)).await;
        socket.send(&flood).await;
        let mut outcome = socket.outcome().await;
        while outcome.starts_with("pong") {
            outcome = socket.outcome().await;
        }
        assert_eq!(outcome, "close 4429", "{name}");
    }
    let mut socket = daemon.raw_socket("ada").await;
    socket.send(&frame(TEXT, b"ping").repeat(10)).await;
    for _ in 0..10 {
        assert_eq!(socket.outcome().await, ANSWERED, "as many as are allowed");
    }
}

#[tokio::test]
async fn handshakes_that_are_wrong_are_4xx() {
    let daemon = TestDaemon::start().await;
    let [connection, upgrade, version, key] = UPGRADE else { panic!("four lines") };
    for (line, headers, expected) in [
        ("GET /ws/tasks", vec![*connection, *upgrade, *version], 400),
        ("GET /ws/tasks", vec![*connection, *upgrade, *version, "sec-websocket-key: short"], 400),
        (
            "GET /ws/tasks",
            vec![*connection, *upgrade, *version, "sec-websocket-key: !!!!!!!!!!!!!!!!!!!!!!=="],
            400,
        ),
        ("GET /ws/tasks", vec![*connection, *upgrade, *key], 426),
        ("GET /ws/tasks", vec![*connection, *upgrade, *key, "sec-websocket-version: 8"], 426),
        ("GET /ws/tasks", vec![*connection, *version, *key], 426),
        ("GET /ws/tasks", vec![*upgrade, *version, *key], 426),
        ("GET /ws/tasks", vec![*connection, "upgrade: h2c", *version, *key], 426),
        ("POST /ws/tasks", UPGRADE.to_vec(), 405),
        ("PUT /ws/tasks", UPGRADE.to_vec(), 405),
        ("GET /ws/tasks?from=nonsense", UPGRADE.to_vec(), 400),
        ("GET /ws/tasks?from=%ff", UPGRADE.to_vec(), 400),
        ("GET /ws/nothing", UPGRADE.to_vec(), 404),
        ("GET /api/tasks", UPGRADE.to_vec(), 200),
    ] {
        let mut raw = daemon.raw().await;
        let request = daemon.request_of("ada", line) + &headers.join("\r\n") + "\r\n\r\n";
        raw.send(request.as_bytes()).await;
        let (status, head) = raw.head().await;
        assert_eq!(status, expected, "{line} {headers:?}\n{head}");
        assert_eq!(head.contains("sec-websocket-version: 13"), expected == 426, "{head}");
    }
    let mut old = daemon.raw().await;
    let request = daemon.request_of("ada", "GET /ws/tasks").replace("HTTP/1.1", "HTTP/1.0");
    old.send((request + &UPGRADE.join("\r\n") + "\r\n\r\n").as_bytes()).await;
    assert_eq!(old.head().await.0, 426, "HTTP/1.0");
}

#[tokio::test]
async fn what_comes_with_the_handshake_is_the_first_frame() {
    let daemon = TestDaemon::start().await;
    let request = daemon.request_of("ada", "GET /ws/tasks") + &UPGRADE.join("\r\n") + "\r\n\r\n";
    let frames = [frame(TEXT, b"ping"), frame(PING, b"x")].concat();
    // Often: which of the two is answered first was luck once.
    for _ in 0..20 {
        let mut raw = daemon.raw().await;
        raw.send(&[request.as_bytes(), &frames].concat()).await;
        assert_eq!(raw.head().await.0, 101);
        assert_eq!(raw.outcome().await, ANSWERED);
        assert_eq!(raw.outcome().await, "pong x");
    }
}

#[tokio::test]
async fn a_peer_that_half_closes_is_gone() {
    let daemon = TestDaemon::start().await;
    for bytes in [frame(TEXT, b"ping"), frame(TEXT_BEGIN, b"pi"), vec![TEXT]] {
        let mut socket = daemon.raw_socket("ada").await;
        socket.send(&bytes).await;
        socket.stream.shutdown().await.expect("half closed");
        let mut outcome = socket.outcome().await;
        if outcome == ANSWERED {
            outcome = socket.outcome().await;
        }
        assert_eq!(outcome, "end");
    }
}
