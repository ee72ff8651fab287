//! `taskwire status`: where a running daemon stands.

use super::{Failure, admin::AdminArgs, output};
use crate::config::Flags;
use clap::Args;
use serde_json::Value;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Prints it.
pub(super) async fn run(args: StatusArgs, outer: &Flags) -> Result<(), Failure> {
    let status = args.admin.client(outer)?.get("/api/admin/status").await?;
    if args.json {
        return output::line(status);
    }
    for (name, value) in status.as_object().into_iter().flatten() {
        match value {
            Value::String(text) => output::line(format!("{name}: {text}"))?,
            value => output::line(format!("{name}: {value}"))?,
        }
    }
    Ok(())
}
