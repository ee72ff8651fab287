//! How long until the first answer, from nothing and after a kill.

use super::{
    client::Kafka,
    daemon::{Daemon, Usage},
    ms, percentiles,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::Write,
    time::{Duration, Instant},
};

const RUNS: usize = 5;

/// The floor under every synced acknowledgement on this disk.
pub(crate) fn fdatasync() -> Value {
    let dir = match std::env::var_os("TASKWIRE_BENCH_DIR") {
        Some(place) => tempfile::TempDir::new_in(place),
        None => tempfile::TempDir::new(),
    };
    let mut file = File::create(dir.expect("a directory").path().join("sync")).expect("a file");
    let samples = (0..500)
        .map(|_| {
            file.write_all(&[7; 300]).expect("written");
            let started = Instant::now();
            file.sync_data().expect("synced");
            started.elapsed()
        })
        .collect();
    percentiles(samples)
}

/// Spawn to a 200 of `/readyz` on an empty directory, and the memory at rest.
pub(crate) async fn start() -> Value {
    let (mut samples, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let started = Instant::now();
        let daemon = Daemon::start().await;
        samples.push(started.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
        resident.push(daemon.usage().resident_kb);
    }
    resident.sort_unstable();
    json!({"ready": percentiles(samples), "idle_resident_kb": resident[RUNS / 2]})
}

/// Restart after SIGKILL with `tasks` tasks and a log of `log_bytes`.
pub(crate) async fn restart(tasks: usize, log_bytes: usize) -> Value {
    let mut daemon = Daemon::start().await;
    let mut kafka = Kafka::connect(daemon.kafka).await;
    for first in (0..tasks).step_by(500) {
        let event = |id: usize| {
            let text = format!(
                r#"{{"type":"task_created","data":{{"id":"task-{id}","title":"t","user_id":"user-{}"}}}}"#,
                id % 10
            );
            Bytes::from(text)
        };
        kafka.send("task-events", (first..first + 500).map(event).collect(), 1).await;
        kafka.acknowledged().await;
    }
    kafka.make_topic("filler").await;
    let filler = Bytes::from(vec![7; 1000]);
    let mut written = 0;
    while written < log_bytes {
        kafka.send("filler", vec![filler.clone(); 900], 1).await;
        kafka.acknowledged().await;
        written += 900_000;
    }
    let mut samples = Vec::new();
    for run in 0..RUNS {
        kafka = Kafka::connect(daemon.kafka).await;
        let event = format!(
            r#"{{"type":"task_created","data":{{"id":"again-{run}","title":"t","user_id":"u"}}}}"#
        );
        kafka.send("task-events", vec![event.into()], 1).await;
        kafka.acknowledged().await;
        daemon.kill();
        samples.push(daemon.restart().await);
    }
    let Usage { cpu_s, resident_kb } = daemon.usage();
    json!({
        "tasks": tasks, "log_bytes": written, "ready": percentiles(samples.clone()),
        "first_ms": ms(samples[0]), "cpu_s": cpu_s, "resident_kb": resident_kb,
    })
}
