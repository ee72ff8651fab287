//! `taskwire config`: check or print the configuration.

use super::{Failure, output};
use crate::config::{Config, Flags, default_toml};
use clap::{Args, Subcommand};
use serde_json::json;

/// Arguments of `config`.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Say whether the daemon would start with this configuration
    Check {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Print a TOML file with every setting and its default
    Default,
}

/// Checks or prints.
pub(super) fn run(args: &ConfigArgs, outer: &Flags) -> Result<(), Failure> {
    match &args.verb {
        ConfigVerb::Default => output::line(default_toml().trim_end()),
        ConfigVerb::Check { json, flags } => check(*json, &flags.clone().or(outer)),
    }
}

fn check(is_json: bool, flags: &Flags) -> Result<(), Failure> {
    let config = Config::load(flags)?;
    let warnings = config.warnings();
    if is_json {
        return output::line(json!({"ok": true, "warnings": warnings}));
    }
    for warning in warnings {
        output::line(format_args!("warning: {warning}"))?;
    }
    output::line("the configuration is good")
}
