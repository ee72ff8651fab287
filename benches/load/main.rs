//! The whole daemon over real sockets: `cargo bench --bench load -- [MEASURE...]`.
//!
//! Starts a daemon of its own per measure in a temporary directory (`TASKWIRE_BENCH_DIR` names another
//! place), loads it from this process, and prints one JSON line per measure with the machine's load
//! beside it. The harness shares the machine with the daemon: its CPU seconds are in the line too.

#![allow(clippy::as_conversions, reason = "counts become floats for rates")]

mod api;
mod client;
mod daemon;
mod fanout;
mod feed;
mod idle;
mod slow;
mod start;

use serde_json::{Value, json};
use std::{env, fs, time::Instant};

/// Milliseconds with three digits.
fn ms(duration: std::time::Duration) -> Value {
    json!((duration.as_secs_f64() * 1e6).round() / 1e3)
}

/// p50, p99 and the largest, in ms.
fn percentiles(mut samples: Vec<std::time::Duration>) -> Value {
    samples.sort_unstable();
    let at = |share: usize| samples[(samples.len() - 1) * share / 1000];
    json!({"count": samples.len(), "p50_ms": ms(at(500)), "p99_ms": ms(at(990)), "max_ms": ms(at(1000))})
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let named: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|named| named == name);
    raise_open_files();
    for name in MEASURES {
        if !wanted(name) {
            continue;
        }
        let started = Instant::now();
        let mut result = runtime.block_on(measure(name));
        result["measure"] = json!(name);
        result["took_s"] = json!(started.elapsed().as_secs());
        result["load_average"] = json!(load_average());
        #[allow(clippy::print_stdout, reason = "the result")]
        {
            println!("{result}");
        }
    }
}

const MEASURES: &[&str] = &[
    "fdatasync",
    "ingest",
    "latency",
    "post",
    "get",
    "list",
    "start",
    "restart",
    "idle",
    "slow-reader",
    "fanout",
    "fanout-burst",
    "fanout-steady",
    "wake-few",
    "wake-among-many",
];

async fn measure(name: &str) -> Value {
    match name {
        "fdatasync" => start::fdatasync(),
        "ingest" => feed::ingest(200_000).await,
        "latency" => feed::latency(100, 20).await,
        "post" => api::post(64, 10).await,
        "get" => api::get(64, 10).await,
        "list" => api::list(8, 10).await,
        "start" => start::start().await,
        "restart" => start::restart(100_000, 1 << 30).await,
        "idle" => idle::idle(9_000).await,
        "slow-reader" => slow::slow_reader().await,
        "fanout" => fanout(1_000, 1, 500, 50).await,
        "fanout-burst" => fanout(1_000, 1, 1_000, 0).await,
        "fanout-steady" => fanout(100, 1, 20_000, 1_000).await,
        "wake-few" => fanout(1_000, 1_000, 1_000, 200).await,
        "wake-among-many" => fanout(9_000, 9_000, 1_000, 200).await,
        _ => unreachable!("only the names above are asked for"),
    }
}

async fn fanout(sockets: usize, users: usize, records: usize, rate: u32) -> Value {
    fanout::fanout(fanout::Shape { sockets, users, records, rate }).await
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

/// The idle measure needs two descriptors a socket.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit); // else fewer sockets are opened, and counted
}
