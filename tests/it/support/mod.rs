//! A daemon to test, and clients of its three doors.

#[allow(dead_code, reason = "not every test binary mounts a disk")]
pub(crate) mod disk;
pub(crate) mod follow;
#[allow(dead_code, reason = "some of it is for the unit tests of `auth`")]
pub(crate) mod forge;
pub(crate) mod http;
pub(crate) mod kafka;
pub(crate) mod plain;
pub(crate) mod raw;
pub(crate) mod socket;

use serde_json::{Value, json};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use taskwire::{auth, clock::Clock, task::UserId};
use tempfile::TempDir;

/// How long any single fact may take to become true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const SECRET: &str = "integration-secret-integration-secret";

/// A running daemon in a directory of its own; killed when dropped.
pub(crate) struct TestDaemon {
    dir: TempDir,
    how: How,
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) kafka: SocketAddr,
}

/// How it is started, each time.
struct How {
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    wrapper: Vec<String>,
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|&item| item.to_owned()).collect()
}

impl TestDaemon {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        Self::start_in(flags, &[]).await
    }

    /// With variables of its environment; an empty one is taken away.
    pub(crate) async fn start_in(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables = variables.iter().map(pair).collect();
        let how = How { flags: owned(flags), variables, wrapper: Vec::new() };
        let mut daemon = Self::spawned(TempDir::new().expect("a temporary directory"), how);
        daemon.wait_until_ready().await;
        daemon
    }

    /// The same under another program, whose child or parent it is: its pid must be the daemon's.
    pub(crate) async fn start_under(dir: TempDir, wrapper: &[&str], flags: &[&str]) -> Self {
        let mut daemon = Self::launch_in(dir, wrapper, flags);
        daemon.wait_until_ready().await;
        daemon
    }

    /// The same on a directory that may hold `data`, and without waiting.
    pub(crate) fn launch_in(dir: TempDir, wrapper: &[&str], flags: &[&str]) -> Self {
        let how = How { flags: owned(flags), variables: Vec::new(), wrapper: owned(wrapper) };
        Self::spawned(dir, how)
    }

    fn spawned(dir: TempDir, how: How) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let child = spawn(dir.path(), &how, (any, any));
        Self { dir, how, child, http: any, kafka: any }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it can be waited for");
        drop(fs::remove_file(self.data_dir().join("endpoints.json"))); // stale after a kill
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.ended()
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(Instant::now() < end, "the daemon does not stop\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Starts it again on the same directory and ports.
    pub(crate) async fn restart(&mut self) {
        self.launch();
        self.wait_until_ready().await;
    }

    /// Starts it again and does not wait.
    pub(crate) fn launch(&mut self) {
        let addresses = (self.http, self.kafka);
        self.child = spawn(self.dir.path(), &self.how, addresses);
    }

    pub(crate) async fn kill_and_restart(&mut self) {
        self.kill();
        self.restart().await;
    }

    pub(crate) fn token(&self, user: &str) -> String {
        let user = UserId::new(user).expect("a user id");
        auth::sign(SECRET.as_bytes(), auth::Grant::new(&user, 3600), &Clock::system())
    }

    /// The daemon's own words.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits for a 200 of `/readyz`; fails with its words if it ends before.
    pub(crate) async fn wait_until_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.try_ended() {
                panic!("the daemon ended with {status}\n{}", self.log());
            }
            if self.answers("/readyz").await == Some(200) {
                return;
            }
            assert!(Instant::now() < end, "the daemon is not ready\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How it ended, if it has.
    pub(crate) fn try_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be waited for")
    }

    /// The status of a GET without a token; `None` while it does not listen.
    pub(crate) async fn answers(&mut self, path: &str) -> Option<u16> {
        (self.http, self.kafka) = endpoints(&self.data_dir(), self.pid())?;
        http::try_get(self.http, path).await
    }
}

impl Drop for TestDaemon {
    #[allow(clippy::print_stderr, reason = "a failed test shows the daemon's words")]
    fn drop(&mut self) {
        drop(self.child.kill()); // it may have ended already
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}", self.log());
        }
    }
}

/// The binary under test.
pub(crate) fn taskwire() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskwire"));
    for (name, _) in std::env::vars() {
        if name.starts_with("TASKWIRE_") {
            command.env_remove(name);
        }
    }
    command.env("TASKWIRE_JWT_SECRET", SECRET);
    command
}

fn spawn(dir: &Path, how: &How, (http, kafka): (SocketAddr, SocketAddr)) -> Child {
    let log = fs::File::options().create(true).append(true).open(dir.join("log")).expect("a log");
    let mut command = taskwire();
    for (name, value) in &how.variables {
        if value.is_empty() {
            command.env_remove(name);
        } else {
            command.env(name, value);
        }
    }
    under(&how.wrapper, command)
        .arg("serve")
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--http-listen", &http.to_string(), "--kafka-listen", &kafka.to_string()])
        .args(&how.flags)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("the binary runs")
}

/// The same command as the last arguments of another.
fn under(wrapper: &[String], inner: Command) -> Command {
    let Some((program, arguments)) = wrapper.split_first() else {
        return inner;
    };
    let mut command = Command::new(program);
    command.args(arguments).arg(inner.get_program());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The addresses that the daemon `pid` wrote.
fn endpoints(data_dir: &Path, pid: u32) -> Option<(SocketAddr, SocketAddr)> {
    let text = fs::read_to_string(data_dir.join("endpoints.json")).ok()?;
    let value: Value = serde_json::from_str(&text).ok()?;
    let address = |key: &str| value[key].get(0)?.as_str()?.parse().ok();
    (value["pid"] == pid).then(|| Some((address("http")?, address("kafka")?)))?
}

/// A `task_created` in the seed's form.
pub(crate) fn created(id: &str, user: &str, title: &str) -> Value {
    json!({"type": "task_created", "data": {"id": id, "title": title, "user_id": user}})
}

/// The same with an event id.
pub(crate) fn with_event_id(mut event: Value, event_id: &str) -> Value {
    event["event_id"] = json!(event_id);
    event
}

/// Waits until `fact` gives a value.
pub(crate) async fn eventually<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut fact: F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = fact().await {
            return value;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Memory of a process.
pub(crate) fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}
