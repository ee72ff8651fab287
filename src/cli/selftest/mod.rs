//! `taskwire selftest`: every flow over real sockets, against a throw-away daemon or a running one.

mod bench;
mod daemon;
mod errors;
mod events;
mod kafka;
mod rest;
mod socket;

use super::{
    Failure, output,
    running::{self, RunningArgs},
};
use crate::{
    config::{Config, Flags},
    daemon::Endpoints,
};
use bench::Bench;
use clap::Args;
use daemon::OwnDaemon;
use futures_util::future::LocalBoxFuture;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Arguments of `selftest`.
#[derive(Debug, Args)]
pub(super) struct SelftestArgs {
    /// Kafka address of a running daemon, as HOST:PORT; with neither this nor --http, a throw-away
    /// daemon is started
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// Print one JSON object a step
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: RunningArgs,
}

/// What a step comes to: nothing, or why it failed.
type Outcome = Result<(), String>;

/// Longest time of one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs every step, also after one has failed.
pub(super) async fn run(args: SelftestArgs, outer: &Flags) -> Result<(), Failure> {
    let mut report = Report { is_json: args.json, passed: 0, failed: Vec::new() };
    if args.running.http.is_some() || args.bootstrap.is_some() {
        let bench = running_bench(args, outer)?;
        flows(&bench, &mut report).await?;
    } else {
        Box::pin(with_own_daemon(&mut report)).await?;
    }
    report.finish()
}

fn running_bench(args: SelftestArgs, outer: &Flags) -> Result<Bench, Failure> {
    let (base, config) = args.running.find(outer)?;
    let announced = Endpoints::read(&config.data_dir).ok();
    let kafka = announced.and_then(|found| found.kafka.first().copied());
    let kafka = kafka.or_else(|| config.kafka_listen.first().copied());
    let bootstrap = args.bootstrap.or_else(|| Some(running::reachable(kafka?).to_string()));
    let Some(bootstrap) = bootstrap else {
        let text = "--bootstrap HOST:PORT is needed where the configuration has no Kafka port";
        return Err(Failure::Usage(text.to_owned()));
    };
    let is_development = config.is_development();
    Ok(Bench::new(base, bootstrap, config)?.in_development(is_development))
}

async fn with_own_daemon(report: &mut Report) -> Result<(), Failure> {
    let own = OwnDaemon::start().await.map_err(Failure::Failed)?;
    let bench = own.bench()?;
    flows(&bench, report).await?;
    report.step("a restart keeps every task, and the stop is clean", Box::pin(own.restart())).await
}

async fn flows(bench: &Bench, report: &mut Report) -> Result<(), Failure> {
    let steps: Vec<(&str, LocalBoxFuture<'_, Outcome>)> = vec![
        ("the daemon is alive and ready", Box::pin(bench.is_ready())),
        ("an event on the topic creates a task", Box::pin(events::create(bench))),
        ("events update, complete and delete it", Box::pin(events::lifecycle(bench))),
        ("CloudEvents are understood", Box::pin(events::cloud_events(bench))),
        ("an event sent twice is applied once", Box::pin(events::duplicates(bench))),
        ("a bad record becomes a dead letter and blocks nothing", Box::pin(events::bad(bench))),
        ("REST creates, reads and lists", Box::pin(rest::create(bench))),
        ("REST changes, completes and deletes", Box::pin(rest::lifecycle(bench))),
        ("a lost If-Match changes nothing", Box::pin(rest::if_match(bench))),
        ("a listing comes in pages", Box::pin(rest::pages(bench))),
        ("a user sees only its own tasks", Box::pin(rest::isolation(bench))),
        ("a WebSocket is told of every change", Box::pin(socket::push(bench))),
        ("a WebSocket resumes where it left", Box::pin(socket::resume(bench))),
        ("a WebSocket hears nothing of others", Box::pin(socket::isolation(bench))),
        ("wrong tokens are refused", Box::pin(errors::tokens(bench))),
        ("wrong requests are refused with their code", Box::pin(errors::requests(bench))),
        ("stats and metrics are served", Box::pin(errors::stats(bench))),
    ];
    for (name, step) in steps {
        report.step(name, step).await?;
    }
    Ok(())
}

struct Report {
    is_json: bool,
    passed: usize,
    failed: Vec<&'static str>,
}

impl Report {
    async fn step(
        &mut self,
        name: &'static str,
        step: impl Future<Output = Outcome>,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let outcome = timeout(STEP_TIMEOUT, step)
            .await
            .unwrap_or_else(|_| Err(format!("not done within {STEP_TIMEOUT:?}")));
        let ms = started.elapsed().as_millis();
        match &outcome {
            Ok(()) => self.passed += 1,
            Err(_) => self.failed.push(name),
        }
        let error = outcome.err();
        if self.is_json {
            let ms = u64::try_from(ms).unwrap_or(u64::MAX);
            return output::line(
                json!({"step": name, "ok": error.is_none(), "ms": ms, "error": error}),
            );
        }
        match error {
            None => output::line(format_args!("ok    {name} ({ms} ms)")),
            Some(error) => output::line(format_args!("FAIL  {name} ({ms} ms): {error}")),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        let (passed, failed) = (self.passed, self.failed.len());
        if self.is_json {
            output::line(json!({"passed": passed, "failed": failed}))?;
        }
        if failed > 0 {
            let names = self.failed.join("; ");
            return Err(Failure::Failed(format!(
                "{failed} of {} failed: {names}",
                passed + failed
            )));
        }
        if !self.is_json {
            output::line("ALL TESTS PASSED")?;
        }
        Ok(())
    }
}

/// The configuration of a throw-away daemon.
fn own_config(data_dir: &std::path::Path) -> Result<Config, Failure> {
    let data_dir = data_dir.to_string_lossy().into_owned();
    let flags = Flags::default()
        .with("data-dir", &[&data_dir])
        .with("http-listen", &["127.0.0.1:0"])
        .with("kafka-listen", &["127.0.0.1:0"]);
    // No environment: what is set for the real daemon must not reach this one.
    Ok(Config::resolve(&flags, Vec::new())?)
}
