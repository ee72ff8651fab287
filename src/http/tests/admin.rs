//! Who may come in to `/api/admin/`.

use super::support::{Daemon, Reply, SECRET, SOON, start, start_with};
use crate::{auth, shutdown, task::UserId};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::timeout,
};

fn admin_token(daemon: &Daemon) -> String {
    let user_id = UserId::new("root").unwrap();
    let grant = auth::Grant { is_admin: true, ..auth::Grant::new(&user_id, 60) };
    auth::sign(SECRET, grant, &daemon.clock)
}

async fn get(daemon: &Daemon, target: &str, token: Option<&str>) -> String {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = authorization.iter().map(|a| ("authorization", a.as_str())).collect();
    daemon.request(&format!("GET {target}"), &headers, "").await.outcome()
}

#[tokio::test]
async fn only_an_administrator_comes_in_by_port() {
    let daemon = start().await;
    let (user, admin) = (daemon.token("ada"), admin_token(&daemon));
    for (target, of_admin) in [("/api/admin/status", "200"), ("/api/admin/local", "403 local_only")]
    {
        assert_eq!(get(&daemon, target, None).await, "401 token_missing");
        assert_eq!(get(&daemon, target, Some("x")).await, "401 token_invalid");
        assert_eq!(get(&daemon, target, Some(&user)).await, "403 admin_required");
        assert_eq!(get(&daemon, target, Some(&admin)).await, of_admin);
    }
}

#[tokio::test]
async fn in_development_mode_only_dev_is_an_administrator() {
    let daemon = start_with(|setup| setup.is_development = true).await;
    assert_eq!(get(&daemon, "/api/admin/status", None).await, "200");
    assert_eq!(get(&daemon, "/api/admin/status?user=ada", None).await, "403 admin_required");
    assert_eq!(get(&daemon, "/api/admin/local", None).await, "403 local_only");
}

#[tokio::test]
async fn whoever_comes_by_the_socket_is_the_administrator() {
    let daemon = start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let socket = UnixListener::bind(&path).unwrap();
    let (trigger, shutdown) = shutdown::pair();
    let http = daemon.http.clone();
    let serving = tokio::spawn(async move {
        http.serve_local(socket, shutdown, SOON).await;
    });
    let ask = async |target: &str| -> Reply {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let text = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, stream.read_to_end(&mut answer)).await.expect("in time").unwrap();
        Reply::parse(&answer)
    };
    assert_eq!(ask("/api/admin/status").await.json()["topic"], "task-events");
    assert_eq!(ask("/api/admin/local").await.status, 204);
    // The administrator is no user.
    assert_eq!(ask("/api/tasks").await.outcome(), "401 token_missing");
    assert_eq!(ask("/ws/tasks").await.outcome(), "404 not_found");
    let idle = UnixStream::connect(&path).await.unwrap();
    trigger.fire();
    timeout(Duration::from_secs(5), serving).await.expect("an idle peer holds up no stop").unwrap();
    drop(idle);
}
