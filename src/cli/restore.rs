//! `taskwire restore`: a data directory from a backup.

use super::{Failure, blocking, output};
use crate::{
    archive::restore,
    config::{Config, Flags},
};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Restores into `--data-dir`, which is absent or empty.
pub(super) async fn run(args: RestoreArgs, outer: &Flags) -> Result<(), Failure> {
    let data_dir = Config::load(&args.flags.or(outer))?.data_dir;
    let (backup, target) = (args.dir, data_dir.clone());
    let manifest = blocking(move || restore::restore(&backup, &target)).await?;
    let (tasks, bytes) = (manifest.store.tasks, manifest.bytes_in_all());
    if args.json {
        return output::line(json!({ "data_dir": data_dir, "tasks": tasks, "bytes": bytes }));
    }
    output::line(format!("restored {tasks} tasks, {bytes} bytes, into {}", data_dir.display()))
}
