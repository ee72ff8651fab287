//! `taskwire healthcheck`: readiness of a running daemon, for scripts and containers.

use super::{
    Failure, output,
    running::{self, RunningArgs},
};
use crate::config::Flags;
use clap::Args;
use serde_json::json;

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: RunningArgs,
}

/// Exit code 0 if it is ready.
pub(super) async fn run(args: HealthcheckArgs, outer: &Flags) -> Result<(), Failure> {
    let (base, _config) = args.running.find(outer)?;
    let answer = running::client(base.clone()).get("/readyz").await.map_err(Failure::Failed)?;
    let is_ready = answer.status.is_success();
    if args.json {
        output::line(json!({"ready": is_ready, "status": answer.status.as_u16()}))?;
    } else if is_ready {
        output::line("ready")?;
    }
    if is_ready {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&answer.body);
    Err(Failure::Failed(format!("{base} is not ready ({}): {}", answer.status, reason.trim())))
}
