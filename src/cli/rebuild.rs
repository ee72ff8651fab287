//! `taskwire rebuild`: the tasks anew from the log, or from a backup and the log after it.

use super::{Failure, logging, output};
use crate::{
    causes::chain,
    clock::Clock,
    config::{Config, Flags},
    daemon::rebuild,
};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `rebuild`.
#[derive(Debug, Args)]
pub(super) struct RebuildArgs {
    /// Begin with the tasks of this backup, and apply the log after it
    #[arg(long, value_name = "DIR")]
    backup: Option<PathBuf>,
    /// Make broker.redb anew, too, from the names of the log's directories: committed offsets and
    /// settings of topics are lost
    #[arg(long)]
    broker: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Rebuilds.
pub(super) async fn run(args: RebuildArgs, outer: &Flags) -> Result<(), Failure> {
    let config = Config::load(&args.flags.or(outer))?;
    logging::start(&config.logging);
    let options = rebuild::Options { backup: args.backup, makes_broker: args.broker };
    let made = Box::pin(rebuild::rebuild(config, options, Clock::system())).await;
    let made = made.map_err(|error| Failure::Failed(chain(&error)))?;
    if args.json {
        return output::line(json!({
            "tasks": made.tasks, "changes": made.changes, "waiting": made.waiting,
            "kept": made.kept,
        }));
    }
    let (tasks, changes, waiting) = (made.tasks, made.changes, made.waiting);
    output::line(format!("rebuilt {tasks} tasks, {changes} changes, {waiting} waiting events"))?;
    for kept in &made.kept {
        output::line(format!("the old file is {}", kept.display()))?;
    }
    Ok(())
}
