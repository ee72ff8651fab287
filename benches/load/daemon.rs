//! A daemon to load, and what it used.

use std::{
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use taskwire::{auth, clock::Clock, task::UserId};
use tempfile::TempDir;

const SECRET: &str = "bench-secret-bench-secret-bench-secret";

pub(crate) struct Daemon {
    dir: TempDir,
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) kafka: SocketAddr,
}

/// What a process has used so far.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) resident_kb: u64,
}

impl Daemon {
    pub(crate) async fn start() -> Self {
        let dir = match env::var_os("TASKWIRE_BENCH_DIR") {
            Some(place) => TempDir::new_in(place),
            None => TempDir::new(),
        };
        let dir = dir.expect("a temporary directory");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let child = spawn(dir.path().join("data"), any, any);
        let mut daemon = Self { dir, child, http: any, kafka: any };
        daemon.wait_until_ready().await;
        daemon
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn token(&self, user: &str) -> String {
        let user = UserId::new(user).expect("a user id");
        auth::sign(SECRET.as_bytes(), auth::Grant::new(&user, 86_400), &Clock::system())
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it can be waited for");
        drop(fs::remove_file(self.data_dir().join("endpoints.json"))); // stale after a kill
    }

    /// Starts it again on the same directory; how long until it was ready.
    pub(crate) async fn restart(&mut self) -> Duration {
        let started = Instant::now();
        self.child = spawn(self.data_dir(), self.http, self.kafka);
        self.wait_until_ready().await;
        started.elapsed()
    }

    pub(crate) fn usage(&self) -> Usage {
        usage(&self.child.id().to_string())
    }

    async fn wait_until_ready(&mut self) {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            assert!(Instant::now() < end, "the daemon is not ready");
            assert!(self.child.try_wait().expect("a child").is_none(), "the daemon ended");
            if let Some((http, kafka)) = self.endpoints() {
                (self.http, self.kafka) = (http, kafka);
                if let Some(mut client) = super::client::Http::connect(http).await
                    && client.get("/readyz", "").await.status == 200
                {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn endpoints(&self) -> Option<(SocketAddr, SocketAddr)> {
        let text = fs::read_to_string(self.data_dir().join("endpoints.json")).ok()?;
        let value: serde_json::Value = serde_json::from_str(&text).ok()?;
        let address = |key: &str| value[key].get(0)?.as_str()?.parse().ok();
        if value["pid"] != self.child.id() {
            return None;
        }
        Some((address("http")?, address("kafka")?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill()); // it may have ended already
        drop(self.child.wait());
    }
}

fn spawn(data_dir: PathBuf, http: SocketAddr, kafka: SocketAddr) -> Child {
    Command::new(env!("CARGO_BIN_EXE_taskwire"))
        .arg("serve")
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--http-listen", &http.to_string(), "--kafka-listen", &kafka.to_string()])
        .args(["--http-rate-per-user", "off"]) // one user stands for many
        .env("TASKWIRE_JWT_SECRET", SECRET)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs")
}

pub(crate) fn own_cpu_s() -> f64 {
    usage("self").cpu_s
}

fn usage(pid: &str) -> Usage {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> =
        stat.rsplit_once(") ").expect("a name in brackets").1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let resident_kb = resident.split_whitespace().next().expect("a number");
    Usage {
        cpu_s: (ticks(11) + ticks(12)) / 100.0,
        resident_kb: resident_kb.parse().expect("a number"),
    }
}
