//! `/api/tasks` and its problems.

use super::support::{Daemon, LogMood, Reply, start, start_with};
use crate::{
    position::Position,
    store::{CommitDurability, WriteSet},
    task::{Priority, Task, TaskId, UserId, transition::TaskState},
};
use serde_json::{Value, json};
use std::time::Duration;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

async fn create(daemon: &Daemon, user: &str, body: &Value) -> Value {
    let reply = daemon.call(user, "POST /api/tasks", &body.to_string()).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()
}

fn titles(reply: &Reply) -> Vec<String> {
    let list = reply.json();
    let tasks = list.as_array().unwrap().iter();
    tasks.map(|task| task["title"].as_str().unwrap().replace("Task ", "")).collect()
}

fn path(task: &Value) -> String {
    format!("/api/tasks/{}", task["id"].as_str().unwrap())
}

#[tokio::test]
async fn a_write_is_read_back_at_once() {
    let daemon = start().await;
    let body = r#"{"title":"a","description":"b","priority":"high","labels":["x","y"],
        "due_date":"2026-01-01T10:00:00+01:00"}"#;
    let created = daemon.call("alice", "POST /api/tasks", body).await;
    assert_eq!(created.status, 201, "{created:?}");
    let task = created.json();
    assert_eq!(created.header("location"), path(&task));
    assert_eq!(created.header("etag"), "\"1\"");
    assert!(!created.header("taskwire-position").is_empty());
    assert_eq!(task["user_id"], "alice");
    assert_eq!(task["due_date"], "2026-01-01T09:00:00.000Z");
    assert_eq!(task["completed"], false);
    let read = daemon.call("alice", &format!("GET {}", path(&task)), "").await;
    assert_eq!((read.status, read.json()), (200, task.clone()));

    let change = r#"{"title":"c","description":null}"#;
    let patched = daemon.call("alice", &format!("PATCH {}", path(&task)), change).await;
    assert_eq!((patched.status, patched.header("etag")), (200, "\"2\""), "{patched:?}");
    assert_eq!(patched.json()["description"], Value::Null);
    assert_eq!(patched.json()["priority"], "high", "left alone");

    let whole = r#"{"title":"d","version":9,"created_at":"x"}"#;
    let replaced = daemon.call("alice", &format!("PUT {}", path(&task)), whole).await;
    assert_eq!(replaced.status, 200, "{replaced:?}");
    assert_eq!(replaced.json()["priority"], "medium", "its default");
    assert_eq!(replaced.json()["labels"], json!([]));

    for method in ["POST", "PATCH"] {
        let line = format!("{method} {}/complete", path(&task));
        let done = daemon.call("alice", &line, "").await;
        assert_eq!((done.status, done.header("etag")), (200, "\"4\""), "{done:?}");
        assert_eq!(done.json()["completed"], true);
    }
    let line = format!("DELETE {}", path(&task));
    let deleted = daemon.call("alice", &line, "").await;
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    assert_eq!(daemon.call("alice", &line, "").await.outcome(), "404 task_not_found");
}

#[tokio::test]
async fn writes_become_the_event_that_fits() {
    let daemon = start().await;
    let task = create(&daemon, "alice", &json!({"title": "a"})).await;
    for (method, body, expected) in [
        ("PATCH", r#"{"priority":"low"}"#, "task_priority_changed"),
        ("PATCH", r#"{"title":"b","priority":"high"}"#, "task_updated"),
        ("PUT", r#"{"completed":true}"#, "task_completed"),
        ("PATCH", r#"{"completed":false}"#, "task_updated"),
        ("PATCH", r#"{"completed":true}"#, "task_completed"),
        ("PUT", r#"{"title":"c"}"#, "task_updated"),
        ("PUT", r#"{"priority":"urgent"}"#, "task_priority_changed"),
    ] {
        let reply = daemon.call("alice", &format!("{method} {}", path(&task)), body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let events = daemon.log.values("task-events");
        assert_eq!(events.last().unwrap()["type"], expected, "{method} {body}");
    }
    let before = daemon.log.values("task-events").len();
    let empty = daemon.call("alice", &format!("PATCH {}", path(&task)), "{}").await;
    assert_eq!(empty.status, 200, "a patch of nothing changes nothing");
    assert_eq!(daemon.log.values("task-events").len(), before);
}

#[tokio::test]
async fn another_users_task_is_not_there() {
    let daemon = start().await;
    let task = create(&daemon, "alice", &json!({"title": "secret"})).await;
    for (method, tail, body) in [
        ("GET", "", ""),
        ("PATCH", "", r#"{"title":"x"}"#),
        ("PUT", "", r#"{"title":"x"}"#),
        ("POST", "/complete", ""),
        ("DELETE", "", ""),
    ] {
        let line = format!("{method} {}{tail}", path(&task));
        assert_eq!(daemon.call("bob", &line, body).await.outcome(), "404 task_not_found");
    }
    assert_eq!(daemon.call("bob", "GET /api/tasks", "").await.body, "[]");
    let mine = daemon.call("alice", "GET /api/tasks", "").await;
    assert_eq!(mine.json(), json!([task]));
    let named = r#"{"title":"x","user_id":"alice"}"#;
    let reply = daemon.call("bob", "POST /api/tasks", named).await;
    assert_eq!(reply.outcome(), "403 other_user");
    let line = format!("PATCH {}", path(&task));
    let reply = daemon.call("alice", &line, r#"{"user_id":"bob"}"#).await;
    assert_eq!(reply.outcome(), "403 other_user");
}

#[tokio::test]
async fn bad_bodies_are_told_where() {
    let daemon = start().await;
    let task = create(&daemon, "alice", &json!({"title": "a"})).await;
    let deep = format!("{{\"title\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    let long_title = json!({"title": "x".repeat(501)}).to_string();
    let long_text = json!({"title": "x", "description": "x".repeat(10_001)}).to_string();
    let huge_id = format!("{{\"title\":\"x\",\"id\":1{}}}", "0".repeat(30));
    for (body, expected) in [
        ("", "400 invalid_json"),
        ("{", "400 invalid_json"),
        ("nonsense", "400 invalid_json"),
        ("{} {}", "400 invalid_json"),
        (&deep, "400 json_too_deep"),
        ("7", "422 not_an_object"),
        ("\"text\"", "422 not_an_object"),
        ("{}", "422 invalid_field /title"),
        (r#"{"title":""}"#, "422 invalid_field /title"),
        (r#"{"title":null}"#, "422 invalid_field /title"),
        (r#"{"title":7}"#, "422 invalid_field /title"),
        (&long_title, "422 invalid_field /title"),
        (&long_text, "422 invalid_field /description"),
        (r#"{"title":"x","priority":"top"}"#, "422 invalid_field /priority"),
        (r#"{"title":"x","due_date":"tomorrow"}"#, "422 invalid_field /due_date"),
        (r#"{"title":"x","due_date":7}"#, "422 invalid_field /due_date"),
        (r#"{"title":"x","labels":["a",""]}"#, "422 invalid_field /labels/1"),
        (r#"{"title":"x","completed":true}"#, "422 invalid_field /completed"),
        (r#"{"title":"x","tilte":"y"}"#, "422 invalid_field /tilte"),
        (r#"{"title":"x","version":1}"#, "422 invalid_field /version"),
        (r#"{"title":"x","user_id":1.5}"#, "422 invalid_field /user_id"),
        (&huge_id, "422 invalid_field /id"),
    ] {
        let reply = daemon.call("alice", "POST /api/tasks", body).await;
        assert_eq!(reply.outcome(), expected, "{}", &body[..body.len().min(80)]);
    }
    for (method, body, expected) in [
        ("PATCH", r#"{"title":null}"#, "422 invalid_field /title"),
        ("PATCH", r#"{"completed":null}"#, "422 invalid_field /completed"),
        ("PATCH", r#"{"completed":"yes"}"#, "422 invalid_field /completed"),
        ("PATCH", r#"{"created_at":"2026-01-01"}"#, "422 invalid_field /created_at"),
        ("PATCH", r#"{"id":"other"}"#, "422 invalid_field /id"),
        ("PUT", r#"{"description":"x"}"#, "422 invalid_field /title"),
        ("PUT", "{}", "422 invalid_field /title"),
        ("PUT", "[1]", "422 not_an_object"),
    ] {
        let reply = daemon.call("alice", &format!("{method} {}", path(&task)), body).await;
        assert_eq!(reply.outcome(), expected, "{method} {body}");
    }
    let put = daemon.call("alice", "PUT /api/tasks/new", r#"{"title":"x"}"#).await;
    assert_eq!(put.outcome(), "404 task_not_found", "PUT never creates");
    assert_eq!(daemon.log.values("task-events").len(), 1, "nothing bad reached the log");
}

#[tokio::test]
async fn bodies_have_a_type_and_a_length() {
    let daemon = start().await;
    let task = create(&daemon, "alice", &json!({"title": "a"})).await;
    let text = [("content-type", "text/plain")];
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let packed = [("content-encoding", "gzip")];
    for headers in [&text, &form, &packed] {
        let reply = daemon.call_with("alice", "POST /api/tasks", headers, "{}").await;
        assert_eq!(reply.outcome(), "415 unsupported_media_type");
    }
    let merge = [("content-type", "application/merge-patch+json; charset=utf-8")];
    let line = format!("PATCH {}", path(&task));
    let reply = daemon.call_with("alice", &line, &merge, r#"{"title":"b"}"#).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let reply = daemon.call_with("alice", "POST /api/tasks", &merge, r#"{"title":"b"}"#).await;
    assert_eq!(reply.outcome(), "415 unsupported_media_type");

    let full = format!("{{\"title\":\"x\"{}}}", " ".repeat((1 << 20) - 13));
    let reply = daemon.call("alice", "POST /api/tasks", &full).await;
    assert_eq!(reply.status, 201, "1 MiB fits");
    let reply = daemon.call("alice", "POST /api/tasks", &format!("{full} ")).await;
    assert_eq!(reply.outcome(), "413 body_too_large");
    let chunk = " ".repeat(1 << 20);
    let chunked = format!(
        "POST /api/tasks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         connection: close\r\ntransfer-encoding: chunked\r\n\r\n\
         100000\r\n{chunk}\r\n1\r\n \r\n0\r\n\r\n",
        daemon.token("alice")
    );
    let reply = daemon.raw(chunked.as_bytes()).await;
    assert_eq!(reply.outcome(), "413 body_too_large");
}

#[tokio::test]
async fn versions_guard_writes_and_reads() {
    let daemon = start().await;
    let task = create(&daemon, "alice", &json!({"title": "a"})).await;
    let line = |method: &str| format!("{method} {}", path(&task));
    let change = r#"{"title":"b"}"#;
    for (method, tag, expected) in [
        ("PATCH", "\"2\"", "412 version_mismatch"),
        ("PATCH", "W/\"1\"", "412 version_mismatch"),
        ("PUT", "\"abc\"", "412 version_mismatch"),
        ("DELETE", "\"7\"", "412 version_mismatch"),
        ("PATCH", "1", "400 invalid_header"),
        ("PATCH", "\"1\"", "200"),
        ("PATCH", "\"1\"", "412 version_mismatch"),
        ("PUT", "\"1\", \"2\"", "200"),
        ("PATCH", "*", "200"),
    ] {
        let reply = daemon.call_with("alice", &line(method), &[("if-match", tag)], change).await;
        assert_eq!(reply.outcome(), expected, "{method} {tag}");
    }
    // The title was "b" already: nothing changed, and no version was made.
    let read = daemon.call("alice", &line("GET"), "").await;
    let current = read.header("etag").to_owned();
    let fresh = daemon.call_with("alice", &line("GET"), &[("if-none-match", &current)], "").await;
    assert_eq!((fresh.status, fresh.body.as_str()), (304, ""));
    assert_eq!(fresh.header("etag"), current);
    let stale = daemon.call_with("alice", &line("GET"), &[("if-none-match", "\"1\"")], "").await;
    assert_eq!(stale.status, 200);
}

#[tokio::test]
async fn a_repeated_creation_makes_one_task() {
    let daemon = start().await;
    let key = [("idempotency-key", "k1")];
    let body = r#"{"title":"once"}"#;
    let first = daemon.call_with("alice", "POST /api/tasks", &key, body).await;
    let again = daemon.call_with("alice", "POST /api/tasks", &key, body).await;
    assert_eq!((first.status, again.status), (201, 201), "{again:?}");
    assert_eq!(first.json(), again.json());
    assert_eq!(first.header("location"), again.header("location"));
    let other = daemon.call_with("alice", "POST /api/tasks", &key, r#"{"title":"twice"}"#).await;
    assert_eq!(other.outcome(), "422 idempotency_key_reused");
    let bob = daemon.call_with("bob", "POST /api/tasks", &key, body).await;
    assert_eq!(bob.status, 201, "a key is its user's");
    assert_ne!(bob.json()["id"], first.json()["id"]);
    assert_eq!(daemon.log.values("task-events").len(), 2);
    let line = format!("DELETE {}", first.header("location"));
    assert_eq!(daemon.call("alice", &line, "").await.status, 204);
    let gone = daemon.call_with("alice", "POST /api/tasks", &key, body).await;
    assert_eq!(gone.outcome(), "410 task_deleted");
    let long = "k".repeat(256);
    let long = [("idempotency-key", long.as_str())];
    let reply = daemon.call_with("alice", "POST /api/tasks", &long, body).await;
    assert_eq!(reply.outcome(), "400 invalid_header");
}

#[tokio::test]
async fn concurrent_creations_of_one_key_hear_their_own_outcomes() {
    let daemon = start().await;
    let key = [("idempotency-key", "k1")];
    let create = |body| daemon.call_with("alice", "POST /api/tasks", &key, body);
    daemon.log.set(LogMood::Held);
    let release = async {
        daemon.log.appended(2).await;
        daemon.log.set(LogMood::Good);
    };
    let (a, b, ()) = tokio::join!(create(r#"{"title":"a"}"#), create(r#"{"title":"b"}"#), release);
    let first = daemon.log.values("task-events")[0]["data"]["title"].clone();
    let (made, refused, title) = if first == "a" { (a, b, "a") } else { (b, a, "b") };
    assert_eq!((made.status, made.json()["title"].as_str()), (201, Some(title)), "{made:?}");
    assert_eq!(refused.outcome(), "422 idempotency_key_reused");
}

#[tokio::test]
async fn a_list_is_filtered_and_paged() {
    let daemon = start().await;
    for index in 0..5 {
        let priority = if index % 2 == 0 { "high" } else { "low" };
        let due = format!("2026-01-0{}T00:00:00Z", index + 1);
        let body = json!({"title": format!("Task {index}"), "priority": priority, "due_date": due});
        create(&daemon, "alice", &body).await;
    }
    for (query, expected) in [
        ("", "01234"),
        ("?priority=high", "024"),
        ("?q=TASK%203", "3"),
        ("?due_before=2026-01-03T00:00:00Z", "01"),
        ("?due_after=2026-01-03T00:00:00Z", "234"),
        ("?completed=true", ""),
        ("?completed=false&priority=low", "13"),
        ("?sort=created_at&limit=1000", "01234"),
    ] {
        let reply = daemon.call("alice", &format!("GET /api/tasks{query}"), "").await;
        assert_eq!(titles(&reply).concat(), expected, "{query}");
        assert_eq!(reply.header("link"), "", "one page");
    }
    let mut target = "/api/tasks?limit=2".to_owned();
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let reply = daemon.call("alice", &format!("GET {target}"), "").await;
        pages.push(titles(&reply).concat());
        let Some(next) = reply.headers.get("link") else { break };
        target = next.split(['<', '>']).nth(1).unwrap().to_owned();
        cursor = target.split("cursor=").nth(1).unwrap().to_owned();
    }
    assert_eq!(pages, ["01", "23", "4"]);
    for (user, query) in [
        ("bob", format!("limit=2&cursor={cursor}")),
        ("alice", format!("limit=2&priority=low&cursor={cursor}")),
        ("alice", "cursor=00".to_owned()),
        ("alice", "cursor=%F0%9F%92%A9".to_owned()),
    ] {
        let reply = daemon.call(user, &format!("GET /api/tasks?{query}"), "").await;
        assert_eq!(reply.outcome(), "400 invalid_cursor", "{query}");
    }
    for query in ["limit=0", "limit=1001", "sort=name", "completed=maybe", "wat=1"] {
        let reply = daemon.call("alice", &format!("GET /api/tasks?{query}"), "").await;
        assert_eq!(reply.outcome(), "400 invalid_parameter", "{query}");
    }
}

#[tokio::test]
async fn a_log_that_does_not_take_writes_is_told() {
    let daemon = start_with(|setup| setup.http.write_timeout = Duration::from_millis(300)).await;
    let task = create(&daemon, "alice", &json!({"title": "a"})).await;
    let line = format!("PATCH {}", path(&task));
    let body = r#"{"title":"b"}"#;
    for (mood, expected) in [
        (LogMood::Full, "507 disk_full"),
        (LogMood::Unavailable, "503 unavailable"),
        (LogMood::Stuck, "503 unavailable"),
    ] {
        daemon.log.set(mood);
        let reply = daemon.call("alice", &line, body).await;
        assert_eq!(reply.outcome(), expected);
        assert_eq!(reply.status == 503, !reply.header("retry-after").is_empty());
        let read = daemon.call("alice", &format!("GET {}", path(&task)), "").await;
        assert_eq!(read.status, 200, "reads go on");
    }
}

#[tokio::test]
async fn what_is_durable_and_undecided_is_accepted() {
    let daemon = start_with(|setup| setup.http.write_timeout = Duration::from_millis(300)).await;
    let task = create(&daemon, "alice", &json!({"title": "a"})).await;
    // The first read after a hold may have begun before it.
    daemon.log.set(LogMood::Held);
    daemon.call("alice", &format!("PATCH {}", path(&task)), r#"{"title":"b"}"#).await;
    let key = [("idempotency-key", "k")];
    let body = r#"{"title":"later"}"#;
    let reply = daemon.call_with("alice", "POST /api/tasks", &key, body).await;
    assert_eq!((reply.status, reply.json()["status"].as_str()), (202, Some("pending")));
    let location = reply.header("location").to_owned();
    let line = format!("GET {location}");
    assert_eq!(daemon.call("alice", &line, "").await.outcome(), "404 task_not_found");
    daemon.log.set(LogMood::Good);
    let again = daemon.call_with("alice", "POST /api/tasks", &key, body).await;
    assert_eq!((again.status, again.header("location")), (201, location.as_str()));
}

#[tokio::test]
async fn tokens_are_needed_and_checked() {
    let daemon = start().await;
    let bad = format!("Bearer {}x", daemon.token("alice"));
    let expired = format!("Bearer {}", daemon.token_for("alice", 0));
    for (headers, expected) in [
        (vec![], "401 token_missing"),
        (vec![("authorization", bad.as_str())], "401 token_invalid"),
        (vec![("authorization", "Basic YTpi")], "401 token_invalid"),
        (vec![("authorization", "Bearer")], "401 token_invalid"),
        (vec![("authorization", "Bearer ")], "401 token_invalid"),
    ] {
        let reply = daemon.request("GET /api/tasks?user=dev", &headers, "").await;
        assert_eq!(reply.outcome(), expected);
        assert!(reply.header("www-authenticate").starts_with("Bearer"), "{reply:?}");
    }
    let reply = daemon.request("GET /api/tasks", &[("authorization", &expired)], "").await;
    assert_eq!(reply.status, 200, "within the leeway");
    assert_eq!(daemon.metrics.auth_failures.get(), 5);
}

#[tokio::test]
async fn development_mode_needs_no_token() {
    let daemon = start_with(|setup| setup.is_development = true).await;
    let created = daemon.request("POST /api/tasks", &[], r#"{"title":"a"}"#).await;
    assert_eq!((created.status, created.json()["user_id"].as_str()), (201, Some("dev")));
    let created = daemon.request("POST /api/tasks?user=bob", &[], r#"{"title":"b"}"#).await;
    assert_eq!(created.json()["user_id"], "bob");
    let list = daemon.request("GET /api/tasks?user=bob&limit=1", &[], "").await;
    assert_eq!(list.json().as_array().unwrap().len(), 1);
    let bad = [("authorization", "Bearer nonsense")];
    let reply = daemon.request("GET /api/tasks", &bad, "").await;
    assert_eq!(reply.outcome(), "401 token_invalid", "never the development user");
    let evil = [("origin", "http://evil.example")];
    let reply = daemon.request("POST /api/tasks", &evil, r#"{"title":"x"}"#).await;
    assert_eq!(reply.outcome(), "403 origin_not_allowed");
    let reply = daemon.request("GET /api/tasks", &[("host", "evil.example")], "").await;
    assert_eq!(reply.outcome(), "403 host_not_allowed");
}

#[tokio::test]
async fn paths_and_methods_are_told() {
    let daemon = start().await;
    for (line, expected) in [
        ("GET /nothing", "404 not_found"),
        ("GET /api/tasks/", "404 not_found"),
        ("GET /api/tasks/a/b/c", "404 not_found"),
        ("GET /api/tasks/none", "404 task_not_found"),
        ("GET /api/tasks/%00", "404 task_not_found"),
        ("GET /api/tasks/%FF", "404 task_not_found"),
        ("PUT /api/tasks", "405 method_not_allowed"),
        ("DELETE /healthz", "405 method_not_allowed"),
        ("GET /ws/tasks", "426 upgrade_required"),
    ] {
        let reply = daemon.call("alice", line, "").await;
        assert_eq!(reply.outcome(), expected, "{line}");
        assert!(!reply.header("taskwire-position").is_empty(), "{line}");
        assert_eq!(reply.status == 405, !reply.header("allow").is_empty(), "{reply:?}");
    }
    let options = daemon.call("alice", "OPTIONS /api/tasks", "").await;
    assert_eq!((options.status, options.body.as_str()), (204, ""));
    assert!(options.header("allow").contains("POST"), "{options:?}");
    let head = daemon.call("alice", "HEAD /api/tasks", "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), "2");
}

#[tokio::test]
async fn allowed_pages_get_cors_headers() {
    let daemon = start().await;
    let page = ("origin", "http://localhost:3000");
    let asked = ("access-control-request-method", "PATCH");
    let preflight = daemon.request("OPTIONS /api/tasks/x", &[page, asked], "").await;
    assert_eq!(preflight.status, 204, "{preflight:?}");
    assert_eq!(preflight.header("access-control-allow-origin"), page.1);
    assert!(preflight.header("access-control-allow-methods").contains("PATCH"));
    assert!(preflight.header("access-control-allow-headers").contains("Authorization"));
    let reply = daemon.call_with("alice", "GET /api/tasks", &[page], "").await;
    assert_eq!(reply.header("access-control-allow-origin"), page.1);
    assert!(reply.header("access-control-expose-headers").contains("ETag"));
    let refused = daemon.request("GET /api/tasks", &[page], "").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("access-control-allow-origin"), page.1, "readable too");
    let evil = ("origin", "http://evil.example");
    let reply = daemon.call_with("alice", "GET /api/tasks", &[evil], "").await;
    assert_eq!(reply.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn health_and_stats_are_open() {
    let daemon = start().await;
    let health = daemon.request("GET /healthz", &[], "").await;
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"status":"ok"}"#));
    assert_eq!(daemon.request("GET /readyz", &[], "").await.status, 200);
    let metrics = daemon.request("GET /metrics", &[], "").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    assert!(metrics.body.contains("taskwire_http_requests_total 2"), "{}", metrics.body);
    let stats = daemon.request("GET /ws/stats", &[], "").await.json();
    assert_eq!((&stats["total_connections"], &stats["user_connections"]), (&json!(0), &json!(0)));
    let page = daemon.request("GET /", &[], "").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(!page.body.contains("https://"), "no request but to us");

    let degraded = start_with(|setup| {
        setup.reasons = vec!["the log takes no writes".into()];
        setup.http.protects_metrics = true;
    })
    .await;
    let health = degraded.request("GET /healthz", &[], "").await;
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("failed")));
    for path in ["/metrics", "/ws/stats"] {
        let reply = degraded.request(&format!("GET {path}"), &[], "").await;
        assert_eq!(reply.outcome(), "401 token_missing");
        assert_eq!(degraded.call("alice", &format!("GET {path}"), "").await.status, 200);
    }
}

#[tokio::test]
async fn damage_beside_which_all_goes_on_is_degraded_and_no_failure() {
    let daemon = start_with(|setup| setup.damages = vec!["offsets 3 to 4".into()]).await;
    let health = daemon.request("GET /healthz", &[], "").await;
    let expected = json!({"status": "degraded", "reasons": ["offsets 3 to 4"]});
    assert_eq!((health.status, health.json()), (200, expected));
}

#[tokio::test]
async fn task_routes_wait_for_apply_to_catch_up() {
    let daemon = start_with(|setup| {
        setup.mood = LogMood::Held;
        let data = json!({"id": "t", "title": "x", "user_id": "alice"});
        setup.earlier = vec![json!({"type": "task_created", "data": data})];
    })
    .await;
    let ready = daemon.request("GET /readyz", &[], "").await;
    assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("catching_up")));
    let reply = daemon.call("alice", "GET /api/tasks", "").await;
    assert_eq!(reply.outcome(), "503 catching_up");
    assert_eq!(daemon.request("GET /healthz", &[], "").await.status, 200);
    daemon.log.set(LogMood::Good);
    loop {
        let reply = daemon.call("alice", "GET /api/tasks/t", "").await;
        if reply.status == 200 {
            break;
        }
        assert_eq!(reply.outcome(), "503 catching_up");
    }
    assert_eq!(daemon.request("GET /readyz", &[], "").await.status, 200);
}

#[tokio::test]
async fn sorted_pages_are_joined_by_their_links() {
    let daemon = start().await;
    for (title, priority) in [("b", "low"), ("C", "urgent"), ("a", "high"), ("d", "low")] {
        create(&daemon, "alice", &json!({ "title": title, "priority": priority })).await;
    }
    for (sort, expected) in [
        ("title", "abCd"),
        ("-title", "dCba"),
        ("priority", "bdaC"),
        ("-priority", "Cadb"),
        ("updated_at", "bCad"),
        ("-created_at", "daCb"),
    ] {
        let mut found = String::new();
        let mut target = format!("/api/tasks?sort={sort}&limit=3");
        loop {
            let reply = daemon.call("alice", &format!("GET {target}"), "").await;
            assert_eq!(reply.status, 200, "{reply:?}");
            found.push_str(&titles(&reply).concat());
            let link = reply.header("link");
            let Some(next) = link.strip_prefix('<').and_then(|rest| rest.split_once('>')) else {
                break;
            };
            target = next.0.to_owned();
            let other = target.replace(&format!("sort={sort}"), "sort=due_date");
            let reply = daemon.call("alice", &format!("GET {other}"), "").await;
            assert_eq!(reply.outcome(), "400 invalid_cursor", "{other}");
        }
        assert_eq!(found, expected, "{sort}");
    }
}

#[tokio::test]
async fn so_many_tasks_are_listed_but_not_sorted() {
    let daemon = start().await;
    for first in (0..100_001).step_by(10_000) {
        let numbers = first..(first + 10_000).min(100_001);
        let tasks = numbers.map(|number| {
            let (id, user_id) = (TaskId::new(&format!("t{number}")).unwrap(), user("many"));
            let task = Task {
                id: id.clone(),
                title: "t".to_owned(),
                description: None,
                user_id: user_id.clone(),
                priority: Priority::Low,
                due_date: None,
                labels: Vec::new(),
                completed: false,
                completed_at: None,
                created_at: 0,
                updated_at: 0,
                version: 1,
            };
            (id, user_id, TaskState::Present { task, creation: [0; 16] })
        });
        let writes = WriteSet { tasks: tasks.collect(), ..WriteSet::default() };
        daemon.store.commit(writes, CommitDurability::Deferred).await.unwrap();
    }
    let reply = daemon.call("many", "GET /api/tasks?sort=title", "").await;
    assert_eq!(reply.outcome(), "400 too_many_to_sort");
    assert_eq!(daemon.call("many", "GET /api/tasks?limit=1", "").await.status, 200);
}

#[tokio::test]
async fn a_time_of_completion_goes_with_completed() {
    let daemon = start().await;
    let task = create(&daemon, "alice", &json!({"title": "a"})).await;
    let (one, two) = ("2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z");
    for (method, body, expected) in [
        ("PATCH", json!({"completed_at": one}), "422 invalid_field /completed_at"),
        (
            "PATCH",
            json!({"completed": false, "completed_at": one}),
            "422 invalid_field /completed_at",
        ),
        ("PUT", json!({"title": "a", "completed_at": one}), "422 invalid_field /completed_at"),
        ("PATCH", json!({"completed_at": null}), "200 null"),
        ("PATCH", json!({"completed": true, "completed_at": one}), one),
        ("PATCH", json!({"title": "b"}), one),
        ("PUT", json!({"title": "c", "completed": true}), one),
        ("PATCH", json!({"completed_at": two}), two),
        ("PATCH", json!({"completed_at": null}), "422 invalid_field /completed_at"),
        ("PATCH", json!({"completed": true, "completed_at": null}), two),
        ("PUT", json!({"title": "c", "completed": true, "completed_at": one}), one),
        ("PATCH", json!({"completed": false, "completed_at": null}), "200 null"),
    ] {
        let line = format!("{method} {}", path(&task));
        let reply = daemon.call("alice", &line, &body.to_string()).await;
        let found = match reply.status {
            200 => match reply.json()["completed_at"].as_str() {
                Some(time) => time.to_owned(),
                None => "200 null".to_owned(),
            },
            _ => reply.outcome(),
        };
        assert_eq!(found, expected, "{method} {body}");
    }
    let body = json!({"title": "x", "completed_at": one}).to_string();
    let reply = daemon.call("alice", "POST /api/tasks", &body).await;
    assert_eq!(reply.outcome(), "422 invalid_field /completed_at");
}

#[tokio::test]
async fn a_read_waits_for_its_position_and_no_longer_than_a_write() {
    let daemon = start_with(|setup| setup.http.write_timeout = Duration::from_millis(200)).await;
    let task = create(&daemon, "alice", &json!({"title": "a"})).await;
    let head = daemon.store.head();
    let text = |position: Position| position.to_string();
    let ahead = text(Position { sequence: head.sequence + 1, ..head });
    for (position, expected) in [
        (text(head), "200"),
        (text(Position { sequence: 0, ..head }), "200"),
        (text(Position { epoch: head.epoch ^ 1, ..head }), "410 resync"),
        (ahead.clone(), "410 resync"),
        ("x".to_owned(), "400 invalid_parameter"),
        (String::new(), "400 invalid_parameter"),
    ] {
        for target in ["/api/tasks".to_owned(), path(&task)] {
            let line = format!("GET {target}?min_pos={position}");
            let reply = daemon.call("alice", &line, "").await;
            let found = if reply.status == 200 { "200".to_owned() } else { reply.outcome() };
            assert!(found.starts_with(expected), "{line}: {found}");
        }
    }
}

#[tokio::test]
async fn a_read_that_is_early_is_answered_when_its_position_comes() {
    let daemon = start().await;
    create(&daemon, "alice", &json!({"title": "a"})).await;
    let head = daemon.store.head();
    let ahead = Position { sequence: head.sequence + 1, ..head };
    let line = format!("GET /api/tasks?min_pos={ahead}");
    let body = json!({"title": "b"});
    let (reply, _) = tokio::join!(daemon.call("alice", &line, ""), create(&daemon, "alice", &body));
    assert_eq!((reply.status, titles(&reply).concat().as_str()), (200, "ab"));
}
