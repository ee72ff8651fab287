//! `taskwire migrate`: brings the files of an older version up, as a start does.

use super::{Failure, blocking, output};
use crate::{
    archive::{BROKER_FILE, Held, LockError, LogFormatError, TASKS_FILE, check_log_format},
    config::{Config, Flags},
    store::{StoreError, redb},
};
use clap::Args;
use std::path::{Path, PathBuf};

/// Arguments of `migrate`.
#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    flags: Flags,
}

/// Why nothing was migrated.
#[derive(Debug, thiserror::Error)]
enum MigrateError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    LogFormat(#[from] LogFormatError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{} has no tasks.redb and no broker.redb", .0.display())]
    Nothing(PathBuf),
}

/// Migrates.
pub(super) async fn run(args: MigrateArgs, outer: &Flags) -> Result<(), Failure> {
    let data_dir = Config::load(&args.flags.or(outer))?.data_dir;
    let text = match blocking(move || migrate(&data_dir)).await? {
        Some(from) => format!(
            "tasks.redb was of format {from} and is now of format {}; the old file is \
             tasks.redb.format-{from}",
            redb::FORMAT
        ),
        None => "nothing to migrate: every format is this version's".to_owned(),
    };
    output::line(text)
}

/// `log/` and `broker.redb` have had one format so far.
fn migrate(data_dir: &Path) -> Result<Option<u32>, MigrateError> {
    let _held = Held::take(data_dir)?;
    check_log_format(data_dir)?;
    let path = data_dir.join(TASKS_FILE);
    if path.exists() {
        return Ok(redb::migrate_file(&path)?);
    }
    if data_dir.join(BROKER_FILE).exists() {
        return Ok(None);
    }
    Err(MigrateError::Nothing(data_dir.to_owned()))
}
