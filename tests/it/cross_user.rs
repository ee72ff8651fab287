//! What is another user's does not exist: every route, and the socket.

use crate::support::{
    SECRET, TestDaemon, created,
    forge::Signer,
    plain::{Plain, ask},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What a route is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum About {
    /// One task, which its path names.
    Task,
    /// The caller's tasks.
    Caller,
    /// The daemon, for administrators.
    Admin,
    /// Files of its machine, for whoever comes by its own socket.
    LocalAdmin,
    /// The daemon, for anybody.
    Anybody,
    /// A file of the page, the same for all.
    File,
}

/// Every method x route. A new route needs a row here, and is then tried as its kind is.
const TABLE: &[(&str, &str, About)] = &[
    ("GET", "/api/tasks", About::Caller),
    ("POST", "/api/tasks", About::Caller),
    ("GET", "/api/tasks/{id}", About::Task),
    ("PATCH", "/api/tasks/{id}", About::Task),
    ("PUT", "/api/tasks/{id}", About::Task),
    ("DELETE", "/api/tasks/{id}", About::Task),
    ("POST", "/api/tasks/{id}/complete", About::Task),
    ("PATCH", "/api/tasks/{id}/complete", About::Task),
    ("GET", "/api/admin/status", About::Admin),
    ("POST", "/api/admin/backup", About::LocalAdmin),
    ("GET", "/api/admin/overview", About::Admin),
    ("GET", "/api/admin/topics", About::Admin),
    ("GET", "/api/admin/topics/{topic}/records", About::Admin),
    ("POST", "/api/admin/topics/{topic}/records", About::Admin),
    ("GET", "/api/admin/connections", About::Admin),
    ("POST", "/api/admin/connections/{id}/close", About::Admin),
    ("GET", "/api/admin/groups", About::Admin),
    ("GET", "/api/admin/waiting", About::Admin),
    ("GET", "/api/admin/dead-letters", About::Admin),
    ("POST", "/api/admin/dead-letters/redrive", About::Admin),
    ("GET", "/api/admin/dead-letters/{id}", About::Admin),
    ("POST", "/api/admin/dead-letters/{id}/redrive", About::Admin),
    ("POST", "/api/admin/dead-letters/{id}/dismiss", About::Admin),
    ("GET", "/api/changes", About::Caller),
    ("GET", "/api/events", About::Caller),
    ("POST", "/api/ws-tickets", About::Caller),
    ("GET", "/ws/tasks", About::Caller),
    ("GET", "/ws/stats", About::Anybody),
    ("GET", "/healthz", About::Anybody),
    ("GET", "/health", About::Anybody),
    ("GET", "/readyz", About::Anybody),
    ("GET", "/metrics", About::Anybody),
    ("GET", "/openapi.json", About::Anybody),
    ("GET", "/docs", About::Anybody),
    ("GET", "/docs/script.js", About::Anybody),
    ("GET", "/docs/style.css", About::Anybody),
    ("GET", "/", About::Anybody),
    ("GET", "/page/{file}", About::File),
];

/// The paths that the source gives to the router.
fn paths_of_the_source() -> BTreeSet<String> {
    let mut pending = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")];
    let mut paths = BTreeSet::new();
    while let Some(entry) = pending.pop() {
        if entry.is_dir() {
            let inner = fs::read_dir(&entry).expect("readable");
            let is_test = |path: &PathBuf| path.ends_with("tests") || path.ends_with("tests.rs");
            pending.extend(inner.map(|e| e.expect("readable").path()).filter(|p| !is_test(p)));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).expect("text");
            for rest in text.split(".route(").skip(1) {
                let literal = rest.trim_start().strip_prefix('"').and_then(|r| r.split('"').next());
                let name = entry.display();
                paths.insert(literal.unwrap_or_else(|| panic!("{name}: no literal")).to_owned());
            }
        }
    }
    paths
}

/// The methods of a path, as the running daemon lists them.
async fn methods(daemon: &TestDaemon, path: &str) -> Vec<String> {
    let line = format!("OPTIONS {}", path.replace("{", "").replace("}", ""));
    let answer = ask(daemon.http, &line, &[("host", "localhost")], "").await;
    // A route that only the unit tests have.
    if answer.status == 404 {
        return Vec::new();
    }
    let allow = answer.header("allow").unwrap_or_else(|| panic!("{path}: {}", answer.head));
    let names = allow.split(',').map(str::trim).filter(|name| *name != "HEAD");
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_route_has_a_row_in_the_table_and_in_the_description() {
    let daemon = TestDaemon::start().await;
    let paths = paths_of_the_source();
    assert!(paths.len() > 10, "{paths:?}");
    let mut routes = BTreeSet::new();
    for path in &paths {
        for method in methods(&daemon, path).await {
            routes.insert(format!("{method} {path}"));
        }
    }
    let rows = TABLE.iter().map(|(method, path, _)| format!("{method} {path}"));
    assert_eq!(routes, rows.collect(), "left: routes; right: TABLE");
    let description = daemon.with_token(None).get("/openapi.json").await.json();
    let mut described = BTreeSet::new();
    for (path, operations) in description["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys() {
            if method != "parameters" {
                described.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    assert_eq!(routes, described, "left: routes; right: /openapi.json");
}

/// A request of a user.
async fn of(
    daemon: &TestDaemon,
    user: &str,
    line: &str,
    more: &[(&str, &str)],
    body: &str,
) -> Plain {
    let bearer = format!("Bearer {}", daemon.token(user));
    let usual = [("host", "localhost"), ("authorization", &bearer)];
    ask(daemon.http, line, &[&usual[..], more].concat(), body).await
}

/// Ada has tasks, one of them deleted; bob has one of his own.
async fn with_tasks() -> TestDaemon {
    let daemon = TestDaemon::start().await;
    let events = [
        created("ada-1", "ada", "ada's secret"),
        created("ada-2", "ada", "ada's secret"),
        created("bob-1", "bob", "bob's own"),
    ];
    daemon.produce(&events).await;
    daemon.user("ada").tasks_when(2).await;
    daemon.user("bob").tasks_when(1).await;
    assert_eq!(daemon.user("ada").delete("/api/tasks/ada-2").await.status, 204);
    daemon
}

#[tokio::test]
async fn another_users_task_is_the_same_404_as_none() {
    let daemon = with_tasks().await;
    let before = daemon.user("ada").get("/api/tasks/ada-1").await.bytes;
    let json = ("content-type", "application/json");
    let variants: &[(&[(&str, &str)], &str)] = &[
        (&[], ""),
        (&[json], "{\"title\":\"changed\"}"),
        (&[json], "{\"title\":\"changed\",\"user_id\":\"ada\"}"),
        (&[json], "{\"user_id\":\"bob\"}"),
        (&[json], "{\"id\":\"ada-1\",\"priority\":\"low\"}"),
        (&[json], "{\"completed\":true}"),
        (&[json], "not JSON"),
        (&[("content-type", "text/plain")], "x"),
        (&[json, ("if-match", "\"1\"")], "{\"title\":\"changed\"}"),
        (&[json, ("if-match", "\"7\"")], "{\"title\":\"changed\"}"),
        (&[json, ("if-match", "*")], "{\"title\":\"changed\"}"),
        (&[("if-none-match", "\"1\"")], ""),
        (&[("if-none-match", "*")], ""),
        (&[json, ("idempotency-key", "k")], "{\"title\":\"changed\"}"),
    ];
    let routes = TABLE.iter().filter(|(_, _, about)| *about == About::Task);
    for (method, path, _) in routes {
        for query in ["", "?user=ada", "?user=ada&user_id=ada"] {
            for (headers, body) in variants {
                let mut seen = Vec::new();
                for id in ["none-1", "ada-1", "ada-2"] {
                    let line = format!("{method} {}{query}", path.replace("{id}", id));
                    let answer = of(&daemon, "bob", &line, headers, body).await;
                    assert_eq!(answer.status, 404, "{line} {body}");
                    seen.push(answer.fingerprint());
                }
                assert_eq!(seen[0], seen[1], "{method} {path}{query} {headers:?} {body}");
                assert_eq!(seen[0], seen[2], "{method} {path}{query} {headers:?} {body}");
            }
        }
    }
    assert_eq!(daemon.user("ada").get("/api/tasks/ada-1").await.bytes, before);
    assert_eq!(daemon.user("ada").tasks().await.len(), 1);
    let dead = daemon.kafka_client().await.fetch_all("task-events.dlq").await;
    assert_eq!(dead.len(), 0, "a refused request publishes nothing");
}

#[tokio::test]
async fn lists_show_nothing_of_another_user() {
    let daemon = with_tasks().await;
    for n in 0..3 {
        let title = json!({"title": format!("ada's secret {n}")});
        assert_eq!(daemon.user("ada").post("/api/tasks", &title).await.status, 201);
    }
    let page = of(&daemon, "ada", "GET /api/tasks?limit=1", &[], "").await;
    let link = page.header("link").expect("a next page").to_owned();
    let cursor = link.split("cursor=").nth(1).and_then(|rest| rest.split('>').next());
    let cursor = cursor.expect("a cursor");
    for query in ["", "?user=ada", "?q=secret", "?q=secret&user=ada", "?completed=false&limit=1000"]
    {
        // Eve has never been here: what she is shown is what there is for nobody.
        let eve = of(&daemon, "eve", &format!("GET /api/tasks{query}"), &[], "").await;
        assert_eq!((eve.status, eve.body.as_str()), (200, "[]"), "{query}");
        let bob = of(&daemon, "bob", &format!("GET /api/tasks{query}"), &[], "").await;
        assert!(!bob.body.contains("ada") && bob.header("link").is_none(), "{query}: {}", bob.body);
    }
    let stolen =
        of(&daemon, "bob", &format!("GET /api/tasks?limit=1&cursor={cursor}"), &[], "").await;
    let forged = "0".repeat(cursor.len());
    let forged =
        of(&daemon, "bob", &format!("GET /api/tasks?limit=1&cursor={forged}"), &[], "").await;
    assert_eq!(stolen.status, 400);
    assert_eq!(stolen.fingerprint(), forged.fingerprint());
}

#[tokio::test]
async fn an_idempotency_key_of_another_user_is_a_new_key() {
    let daemon = with_tasks().await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "the-same")];
    let create = async |user: &str, title: &str| {
        let body = json!({ "title": title }).to_string();
        of(&daemon, user, "POST /api/tasks", &headers, &body).await
    };
    let (ada, bob) = (create("ada", "mine").await, create("bob", "mine").await);
    assert_eq!((ada.status, bob.status), (201, 201));
    assert_ne!(ada.header("location"), bob.header("location"));
    // Ada's own second body is refused; eve's is not, so the key tells her nothing of ada's.
    assert_eq!(create("ada", "other").await.status, 422);
    assert_eq!(create("eve", "other").await.status, 201);
    let body = json!({"title": "x", "user_id": "ada"}).to_string();
    let refused = of(&daemon, "bob", "POST /api/tasks?user=ada", &headers[..1], &body).await;
    let of_none = json!({"title": "x", "user_id": "nobody"}).to_string();
    let other = of(&daemon, "bob", "POST /api/tasks?user=ada", &headers[..1], &of_none).await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.fingerprint(), other.fingerprint());
    let user = json!({"title": "whose?"}).to_string();
    let own = of(&daemon, "bob", "POST /api/tasks?user=ada", &headers[..1], &user).await;
    let task: Value = serde_json::from_str(&own.body).expect("a task");
    assert_eq!(task["user_id"], "bob");
}

#[tokio::test]
async fn a_socket_shows_nothing_of_another_user() {
    let daemon = with_tasks().await;
    let mut of_ada = daemon.socket_from("ada", "earliest").await;
    let position = of_ada.next().await["pos"].as_str().expect("a position").to_owned();
    let token = daemon.token("bob");
    let mut sockets = Vec::new();
    for query in ["", "&from=earliest", &format!("&from={position}"), "&user=ada&from=earliest"] {
        sockets
            .push(daemon.try_socket(&format!("token={token}{query}")).await.expect("an upgrade"));
    }
    daemon.produce(&[created("ada-3", "ada", "another secret")]).await;
    daemon.produce(&[json!({"type": "note", "data": {"user_id": "ada", "text": "secret"}})]).await;
    daemon.user("ada").task("ada-3").await;
    daemon.user("bob").post("/api/tasks", &json!({"title": "the last"})).await;
    for mut socket in sockets {
        loop {
            let message = socket.next().await;
            assert_eq!(message["data"]["user_id"], "bob", "{message}");
            if message["data"]["title"] == "the last" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_is_for_anybody_says_the_same_to_all_and_names_nobody() {
    let daemon = with_tasks().await;
    let _socket = daemon.socket("ada").await;
    for (method, path, about) in TABLE {
        if *about != About::Anybody {
            continue;
        }
        let line = format!("{method} {path}?user=ada");
        let as_bob = of(&daemon, "bob", &line, &[], "").await;
        let as_nobody = ask(daemon.http, &line, &[("host", "localhost")], "").await;
        assert_eq!((as_bob.status, as_nobody.status), (200, 200), "{line}");
        let is_page = *path == "/" || *path == "/openapi.json";
        for word in ["ada", "bob", "secret"] {
            assert!(is_page || !as_bob.body.contains(word), "{line}: {}", as_bob.body);
        }
        if *path != "/metrics" {
            assert_eq!(as_bob.fingerprint(), as_nobody.fingerprint(), "{line}");
        }
    }
}

#[tokio::test]
async fn admin_routes_need_an_admin_claim() {
    let daemon = with_tasks().await;
    let signer = Signer::hmac(SECRET.as_bytes());
    let token = |claim: Value| {
        let claims = json!({"sub": "dev", "exp": 4_102_444_800_u64, "taskwire_admin": claim});
        format!("Bearer {}", signer.token(&signer.header(), &claims))
    };
    let is_admin = |about: &About| matches!(about, About::Admin | About::LocalAdmin);
    for (method, path, about) in TABLE.iter().filter(|(_, _, about)| is_admin(about)) {
        for query in ["", "?user=dev", "?admin=true"] {
            let line = format!("{method} {}{query}", path.replace("{", "").replace("}", ""));
            let with = async |bearer: &str| {
                let headers = [("host", "localhost"), ("authorization", bearer)];
                ask(daemon.http, &line, &headers, "").await.status
            };
            assert_eq!(ask(daemon.http, &line, &[("host", "x")], "").await.status, 401, "{line}");
            assert_eq!(with(&token(json!(false))).await, 403, "{line}");
            for wrong in [json!("true"), json!(1), json!(["true"])] {
                assert_eq!(with(&token(wrong)).await, 401, "{line}");
            }
            let of_admin = with(&token(json!(true))).await;
            assert_ne!(of_admin, 401, "{line}");
            assert_eq!(of_admin == 403, *about == About::LocalAdmin, "{line}: {of_admin}");
        }
    }
}
