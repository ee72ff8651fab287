//! `taskwire backup`: of the daemon that runs on our data directory, or of the directory itself.

use super::{Failure, admin::AdminClient, blocking, output};
use crate::{
    archive::{LockError, backup},
    causes::chain,
    clock::Clock,
    config::{Config, Flags},
};
use clap::Args;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// A backup takes as long as its data is large.
const TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The directory to make; absent or empty
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print the manifest as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Makes a backup.
pub(super) async fn run(args: BackupArgs, outer: &Flags) -> Result<(), Failure> {
    let data_dir = Config::load(&args.flags.or(outer))?.data_dir;
    let dir = std::path::absolute(&args.dir)?;
    let manifest = make(&data_dir, &dir).await?;
    if args.json {
        return output::line(manifest);
    }
    let files = manifest["files"].as_array().map_or(0, Vec::len);
    let bytes: u64 = manifest["files"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|f| f["bytes"].as_u64())
        .sum();
    let (tasks, position) = (&manifest["store"]["tasks"], &manifest["store"]["position"]);
    output::line(format!(
        "{}: {tasks} tasks up to position {}, {files} files, {bytes} bytes",
        dir.display(),
        position.as_str().unwrap_or("-")
    ))
}

/// Of the directory, unless a daemon has it; then that daemon does it.
async fn make(data_dir: &Path, dir: &Path) -> Result<Value, Failure> {
    let (from, to) = (data_dir.to_owned(), dir.to_owned());
    let stopped = tokio::task::spawn_blocking(move || {
        backup::of_stopped(&from, &to, Clock::system().now_ms())
    });
    match stopped.await {
        Ok(Ok(manifest)) => blocking(move || serde_json::to_value(&manifest)).await,
        Ok(Err(backup::BackupError::Lock(LockError::InUse { .. }))) => {
            let client = AdminClient::local(data_dir).with_timeout(TIMEOUT);
            client.post("/api/admin/backup", Some(&json!({ "dir": dir }))).await
        }
        Ok(Err(error)) => Err(Failure::Failed(chain(&error))),
        Err(error) => Err(Failure::Failed(error.to_string())),
    }
}
