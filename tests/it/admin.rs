//! The daemon's own socket, and the commands that use it.

use crate::support::{TestDaemon, taskwire};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output};

/// Runs a command against the daemon of a data directory.
pub(crate) fn run(data_dir: &Path, arguments: &[&str]) -> Output {
    let mut command = taskwire();
    command.args(arguments).arg("--data-dir").arg(data_dir);
    command.output().expect("the binary runs")
}

#[track_caller]
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[track_caller]
fn stderr(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn status(daemon: &TestDaemon) -> Value {
    let text = stdout(&run(&daemon.data_dir(), &["status", "--json"]));
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn commands_reach_the_daemon_by_its_private_socket() {
    let mut daemon = TestDaemon::start().await;
    let socket = daemon.data_dir().join("admin.sock");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(status(&daemon)["pid"], daemon.pid());

    daemon.kill();
    assert!(socket.exists(), "a kill leaves it behind");
    let text = stderr(&run(&daemon.data_dir(), &["status"]));
    assert!(text.contains("no daemon runs on this data directory"), "{text}");
    daemon.restart().await;
    assert_eq!(status(&daemon)["pid"], daemon.pid());

    assert!(daemon.terminate().success());
    assert!(!socket.exists(), "a stop takes it away");
    let text = stderr(&run(&daemon.data_dir(), &["status"]));
    assert!(text.contains("no daemon runs on this data directory"), "{text}");
}

#[tokio::test]
async fn by_address_an_administrators_token_is_asked_for() {
    let daemon = TestDaemon::start().await;
    let url = format!("http://{}", daemon.http);
    let of = |more: &[&str]| {
        let arguments = [&["status", "--json", "--http", &url], more].concat();
        run(&daemon.data_dir(), &arguments)
    };
    let text = stderr(&of(&[]));
    assert!(text.contains("token_missing") && text.contains("--admin"), "{text}");
    let text = stderr(&of(&["--token", &daemon.token("ada")]));
    assert!(text.contains("admin_required"), "{text}");
    let token = run(&daemon.data_dir(), &["token", "--user", "root", "--admin"]);
    let file = daemon.data_dir().join("token");
    fs::write(&file, stdout(&token)).expect("written");
    let text = stdout(&of(&["--token-file", &file.to_string_lossy()]));
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["pid"], daemon.pid());
}
