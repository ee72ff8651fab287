//! Which pages may use the daemon: judged before an upgrade and before anything is written.

use crate::support::{
    TestDaemon,
    plain::{Plain, ask, shake},
};
use tokio::task::JoinSet;

const HEADERS: &str = "access-control-allow-headers";
const ALLOWED: &str = "access-control-allow-origin";

/// Origins that are foreign to a daemon on loopback with `--allow-origin https://app.example`.
const FOREIGN: &[&str] = &[
    "null",
    "",
    "http://evil.example",
    "https://evil.example",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example.",
    "https://app.example/",
    "https://app.example/x",
    "https://sub.app.example",
    "https://app.example.evil.example",
    "https://app.exampleevil.example",
    "https://user@app.example",
    "https://app.example@evil.example",
    "https://xn--pp-yka.example",
    "https://\u{e4}pp.example",
    "https://app.example https://evil.example",
    "https://app.example, https://evil.example",
    "app.example",
    "//app.example",
    "file://",
    "chrome-extension://app.example",
    "http://localhost.evil.example",
    "http://localhost.",
    "http://localhost@evil.example",
    "http://127.0.0.1.evil.example",
    "http://127.0.0.1@evil.example",
    "http://2130706433",
    "http://0x7f.1",
    "http://0.0.0.0",
    "http://[::1].evil.example",
    "http://[::1]evil.example",
    "http://[::]",
    "http://[::1%25lo]",
    "http://10.0.0.1",
    "ws://localhost",
];

/// And those that are not.
const OURS: &[&str] = &[
    "https://app.example",
    "https://APP.example",
    "https://app.example:443",
    "http://localhost",
    "http://localhost:3000",
    "https://localhost:3000",
    "http://LOCALHOST:3000",
    "http://app.localhost:3000",
    "http://127.0.0.1:5173",
    "http://127.1.2.3",
    "http://[::1]:3000",
];

async fn daemon(is_development: bool) -> TestDaemon {
    let variables: &[(&str, &str)] =
        if is_development { &[("TASKWIRE_JWT_SECRET", "")] } else { &[] };
    TestDaemon::start_in(&["--allow-origin", "https://app.example"], variables).await
}

/// A request to `/api/tasks` from a page.
async fn from_page(daemon: &TestDaemon, method: &str, origin: &str) -> Plain {
    let (host, bearer) = (daemon.http.to_string(), format!("Bearer {}", daemon.token("ada")));
    let headers = [
        ("host", host.as_str()),
        ("origin", origin),
        ("authorization", &bearer),
        ("content-type", "application/json"),
    ];
    let body = if method == "POST" { "{\"title\":\"from a page\"}" } else { "" };
    ask(daemon.http, &format!("{method} /api/tasks"), &headers, body).await
}

async fn preflight(daemon: &TestDaemon, origin: &str) -> Plain {
    let host = daemon.http.to_string();
    let headers = [
        ("host", host.as_str()),
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    ask(daemon.http, "OPTIONS /api/tasks", &headers, "").await
}

#[tokio::test]
async fn pages_of_foreign_origins_open_no_socket_and_read_nothing() {
    let daemon = daemon(false).await;
    let target = format!("/ws/tasks?token={}", daemon.token("ada"));
    for origin in FOREIGN {
        let shaken = shake(daemon.http, &target, &[("origin", origin)]).await;
        assert_eq!(shaken.status, 403, "{origin}: {}", shaken.head);
        assert!(shaken.body.contains("origin_not_allowed"), "{origin}: {}", shaken.body);
        assert_eq!(shaken.header(ALLOWED), None, "{origin}");
        for method in ["GET", "POST"] {
            let answer = from_page(&daemon, method, origin).await;
            assert_eq!(answer.header(ALLOWED), None, "{method} {origin}");
        }
        let asked = preflight(&daemon, origin).await;
        assert_eq!(asked.header(ALLOWED), None, "{origin}");
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_may_do_all() {
    for is_development in [false, true] {
        let daemon = daemon(is_development).await;
        let target = format!("/ws/tasks?{}", if is_development { "" } else { "token=" });
        let token = if is_development { String::new() } else { daemon.token("ada") };
        let own = format!("http://{}", daemon.http);
        for origin in OURS.iter().copied().chain([own.as_str()]) {
            let shaken =
                shake(daemon.http, &format!("{target}{token}"), &[("origin", origin)]).await;
            assert_eq!(shaken.status, 101, "{origin}: {}", shaken.body);
            let asked = preflight(&daemon, origin).await;
            assert_eq!((asked.status, asked.header(ALLOWED)), (204, Some(origin)), "{origin}");
            for header in ["Authorization", "Content-Type", "If-Match", "Idempotency-Key"] {
                assert!(asked.header(HEADERS).is_some_and(|names| names.contains(header)));
            }
            assert!(asked.header("vary").is_some_and(|vary| vary.contains("origin")));
            assert_eq!(asked.header("access-control-allow-credentials"), None);
        }
        let answer = from_page(&daemon, "GET", "https://app.example").await;
        assert_eq!(answer.header(ALLOWED), Some("https://app.example"));
        assert!(answer.header("vary").is_some_and(|vary| vary.contains("origin")));
    }
}

#[tokio::test]
async fn in_development_mode_a_foreign_page_changes_nothing() {
    let daemon = daemon(true).await;
    let host = daemon.http.to_string();
    for origin in FOREIGN {
        let headers = [
            ("host", host.as_str()),
            ("origin", origin),
            // What needs no preflight: the daemon must not rely on one.
            ("content-type", "text/plain"),
        ];
        for line in ["POST /api/tasks", "DELETE /api/tasks/t1", "POST /api/tasks/t1/complete"] {
            let answer = ask(daemon.http, line, &headers, "{\"title\":\"x\"}").await;
            assert_eq!(answer.status, 403, "{line} {origin}");
        }
        assert_eq!(preflight(&daemon, origin).await.status, 403, "{origin}");
        let shaken = shake(daemon.http, "/ws/tasks", &[("origin", origin)]).await;
        assert_eq!(shaken.status, 403, "{origin}");
        let read = ask(daemon.http, "GET /api/tasks", &headers[..2], "").await;
        assert_eq!((read.header(ALLOWED), read.body.as_str()), (None, "[]"), "{origin}");
    }
}

#[tokio::test]
async fn in_development_mode_only_loopback_names_are_answered() {
    let daemon = daemon(true).await;
    let port = daemon.http.port();
    let mut asked = JoinSet::new();
    for (host, status) in [
        ("localhost".to_owned(), 200),
        (format!("localhost:{port}"), 200),
        (format!("LocalHost:{port}"), 200),
        (format!("127.0.0.1:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        ("app.example".to_owned(), 200),
        ("evil.example".to_owned(), 403),
        (format!("evil.example:{port}"), 403),
        (format!("localhost.evil.example:{port}"), 403),
        (format!("127.0.0.1.evil.example:{port}"), 403),
        (format!("[::1].evil.example:{port}"), 403),
        (format!("localhost:{port}@evil.example"), 403),
        (format!("evil.example#localhost:{port}"), 403),
        (format!("0.0.0.0:{port}"), 403),
        (format!("localhost.:{port}"), 403),
        ("\u{e4}vil.example".to_owned(), 400),
        (String::new(), 403),
    ] {
        let address = daemon.http;
        asked.spawn(async move {
            let headers = [("host", host.as_str())];
            for path in ["/api/tasks", "/", "/ws/stats", "/api/admin/status"] {
                let answer = ask(address, &format!("GET {path}"), &headers, "").await;
                assert_eq!(answer.status, status, "{path} {host}");
            }
            let shaken = shake(address, "/ws/tasks", &headers).await;
            let expected = if status == 200 { 101 } else { status };
            assert_eq!(shaken.status, expected, "{host}");
        });
    }
    while let Some(ended) = asked.join_next().await {
        ended.expect("no panic");
    }
    let twice = [("host", "localhost"), ("host", "evil.example")];
    assert_eq!(ask(daemon.http, "GET /api/tasks", &twice, "").await.status, 400);
}
