//! `taskwire version`.

use super::{Failure, output};
use clap::Args;
use serde_json::json;

/// Arguments of `version`.
#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Prints it.
pub(super) fn run(args: &VersionArgs) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if args.json {
        return output::line(json!({"name": "taskwire", "version": version}));
    }
    output::line(format_args!("taskwire {version}"))
}
