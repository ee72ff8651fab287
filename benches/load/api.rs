//! REST in a closed loop: each worker sends its next request when the last is answered.

use super::{
    client::Http,
    daemon::{Daemon, own_cpu_s},
    percentiles,
};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

struct Load {
    method: &'static str,
    paths: Vec<String>,
    body: &'static str,
    expects: u16,
    token: String,
}

const NEW_TASK: &str = r#"{"title":"load","description":"created by load","priority":"high"}"#;

pub(crate) async fn post(workers: usize, seconds: u64) -> Value {
    let daemon = Daemon::start().await;
    let load = Load {
        method: "POST",
        paths: vec!["/api/tasks".to_owned()],
        body: NEW_TASK,
        expects: 201,
        token: daemon.token("ada"),
    };
    run(&daemon, load, workers, seconds).await
}

pub(crate) async fn get(workers: usize, seconds: u64) -> Value {
    let daemon = Daemon::start().await;
    let token = daemon.token("ada");
    let paths = create(&daemon, &token, 1_000).await;
    let load = Load { method: "GET", paths, body: "", expects: 200, token };
    run(&daemon, load, workers, seconds).await
}

pub(crate) async fn list(workers: usize, seconds: u64) -> Value {
    let daemon = Daemon::start().await;
    let token = daemon.token("ada");
    create(&daemon, &token, 1_000).await;
    let paths = vec!["/api/tasks?limit=1000".to_owned()];
    let load = Load { method: "GET", paths, body: "", expects: 200, token };
    run(&daemon, load, workers, seconds).await
}

async fn create(daemon: &Daemon, token: &str, count: usize) -> Vec<String> {
    let mut http = Http::connect(daemon.http).await.expect("it listens");
    let mut paths = Vec::new();
    for _ in 0..count {
        let answer = http.send("POST", "/api/tasks", token, NEW_TASK).await;
        assert_eq!(answer.status, 201);
        let task: Value = serde_json::from_slice(&answer.body).expect("JSON");
        paths.push(format!("/api/tasks/{}", task["id"].as_str().expect("an id")));
    }
    paths
}

async fn run(daemon: &Daemon, load: Load, workers: usize, seconds: u64) -> Value {
    let load = Arc::new(load);
    let (cpu, own, started) = (daemon.usage().cpu_s, own_cpu_s(), Instant::now());
    let end = started + Duration::from_secs(seconds);
    let mut workers_running = Vec::new();
    for worker in 0..workers {
        let mut http = Http::connect(daemon.http).await.expect("it listens");
        let load = load.clone();
        workers_running.push(tokio::spawn(async move {
            let (mut samples, mut at, mut bytes) = (Vec::new(), worker * 7919, 0);
            while Instant::now() < end {
                at += 1;
                let path = &load.paths[at % load.paths.len()];
                let sent = Instant::now();
                let answer = http.send(load.method, path, &load.token, load.body).await;
                assert_eq!(answer.status, load.expects);
                samples.push(sent.elapsed());
                bytes += answer.body.len();
            }
            (samples, bytes)
        }));
    }
    let (mut samples, mut bytes) = (Vec::new(), 0);
    for worker in workers_running {
        let (mut some, more) = worker.await.expect("no panic");
        samples.append(&mut some);
        bytes += more;
    }
    let (count, took, usage) = (samples.len(), started.elapsed().as_secs_f64(), daemon.usage());
    json!({
        "workers": workers, "requests_per_s": (count as f64 / took).round(),
        "mb_per_s": (bytes as f64 / took / 1e6).round(), "latency": percentiles(samples),
        "daemon_cpu_us_per_request": ((usage.cpu_s - cpu) * 1e6 / count as f64).round(),
        "harness_cpu_s": own_cpu_s() - own, "resident_kb": usage.resident_kb,
    })
}
