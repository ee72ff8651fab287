//! Starts that must not be: a clear message and the right exit code.

use crate::support::{PATIENCE, TestDaemon, taskwire};
use std::{
    fs,
    net::TcpListener,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

fn run(args: &[&str]) -> Output {
    finish(taskwire().args(args))
}

/// The output of a command that ends by itself; killed if it does not.
fn finish(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let end = Instant::now() + PATIENCE * 3;
    while child.try_wait().expect("it can be waited for").is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(child.kill()); // it has ended, or hangs and must
    child.wait_with_output().expect("its output")
}

#[track_caller]
fn check(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

fn serve(dir: &TempDir, more: &[&str]) -> Output {
    let data = dir.path().join("data").display().to_string();
    let mut args = vec!["serve", "--data-dir", &data, "--kafka-listen", "127.0.0.1:0"];
    args.extend(
        ["--http-listen", "127.0.0.1:0"].iter().filter(|_| !more.contains(&"--http-listen")),
    );
    args.extend(more);
    run(&args)
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let dir = TempDir::new().expect("a directory");
    check(&serve(&dir, &["--http-listen", &address]), 1, &[&address, "taken"]);
}

#[tokio::test]
async fn a_data_directory_in_use_is_named() {
    let daemon = TestDaemon::start().await;
    let data = daemon.data_dir().display().to_string();
    let args = ["serve", "--data-dir", &data, "--http-listen", "127.0.0.1:0"];
    let output = run(&[&args[..], &["--kafka-listen", "127.0.0.1:0"]].concat());
    check(&output, 1, &["in use", &daemon.pid().to_string()]);
}

#[test]
fn an_unknown_key_is_told_with_the_right_one() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("taskwire.toml");
    fs::write(&file, "http-lissten = \"127.0.0.1:0\"\n").expect("written");
    let file = file.display().to_string();
    check(&run(&["config", "check", "--config", &file]), 78, &["http-lissten", "http-listen"]);
    let output = finish(taskwire().env("TASKWIRE_TOPICC", "x").args(["config", "check"]));
    check(&output, 78, &["TASKWIRE_TOPICC", "TASKWIRE_TOPIC"]);
    check(&run(&["serve", "--no-such-flag"]), 2, &["--no-such-flag"]);
    fs::write(dir.path().join("bad.toml"), "durability = \"maybe\"\n").expect("written");
    let bad = dir.path().join("bad.toml").display().to_string();
    check(&run(&["config", "check", "--config", &bad]), 78, &["durability", "commit"]);
}

#[test]
fn a_listener_off_loopback_needs_authentication() {
    let dir = TempDir::new().expect("a directory");
    let data = dir.path().join("data").display().to_string();
    let args =
        ["serve", "--data-dir", &data, "--http-listen", "0.0.0.0:0", "--kafka-listen", "none"];
    let output = finish(taskwire().env_remove("TASKWIRE_JWT_SECRET").args(args));
    check(&output, 78, &["jwt-secret"]);
}

#[tokio::test]
async fn a_log_that_ends_below_the_store_is_not_started() {
    let mut daemon = TestDaemon::start().await;
    daemon.produce(&[crate::support::created("t", "ada", "x")]).await;
    daemon.user("ada").task("t").await;
    assert!(daemon.terminate().success());
    let data = daemon.data_dir();
    fs::remove_dir_all(data.join("log")).expect("removed");
    fs::remove_file(data.join("broker.redb")).expect("removed");
    let data = data.display().to_string();
    let args = ["serve", "--data-dir", &data, "--http-listen", "127.0.0.1:0"];
    let output = run(&[&args[..], &["--kafka-listen", "127.0.0.1:0"]].concat());
    check(&output, 1, &["task-events"]);
}

#[tokio::test]
async fn tokens_are_signed_for_the_configured_audience_and_issuer() {
    let strict = ["--jwt-audience", "tasks", "--jwt-issuer", "us"];
    let daemon = TestDaemon::start_with(&strict).await;
    let data = daemon.data_dir().display().to_string();
    let here = [&["--data-dir", data.as_str()][..], &strict].concat();
    let output = run(&[&["token", "--user", "ada"][..], &here].concat());
    let token = String::from_utf8(output.stdout).expect("text");
    assert_eq!(daemon.with_token(Some(token.trim())).get("/api/tasks").await.status, 200);
    assert_eq!(daemon.user("ada").get("/api/tasks").await.status, 401, "it names no audience");
    let http = format!("http://{}", daemon.http);
    let output = run(&[&["selftest", "--http", &http][..], &here].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_selftest_passes() {
    let output = run(&["selftest"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("ALL TESTS PASSED"), "{text}");
}
