//! `taskwire waiting`: events that wait for their tasks.

use super::{Failure, admin::AdminArgs, output};
use crate::config::Flags;
use clap::Args;

/// Arguments of `waiting`.
#[derive(Debug, Args)]
pub(super) struct WaitingArgs {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Prints them, and how much more may wait.
pub(super) async fn run(args: WaitingArgs, outer: &Flags) -> Result<(), Failure> {
    let waiting = args.admin.client(outer)?.get("/api/admin/waiting").await?;
    if args.json {
        return output::line(waiting);
    }
    let of = |name: &str| waiting[name].as_u64().unwrap_or(0);
    output::line(format!(
        "{} of {} events wait, {} of {} bytes, each for at most {} s",
        of("count"),
        of("count_max"),
        of("bytes"),
        of("bytes_max"),
        of("seconds_max")
    ))?;
    for event in waiting["events"].as_array().into_iter().flatten() {
        let source = &event["source"];
        output::line(format!(
            "{:<24} {}/{}/{} {} bytes, for task {:?}",
            event["since"].as_str().unwrap_or("over"),
            source["topic"].as_str().unwrap_or("-"),
            source["partition"],
            source["offset"],
            event["bytes"],
            event["task_id"].as_str().unwrap_or("-"),
        ))?;
    }
    Ok(())
}
