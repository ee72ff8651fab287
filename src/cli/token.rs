//! `taskwire token`: a token signed as the daemon would check it.

use super::{Failure, output};
use crate::{
    auth,
    clock::Clock,
    config::{Config, Flags, parse_duration},
    task::UserId,
};
use clap::Args;
use serde_json::json;
use std::time::Duration;

/// Arguments of `token`.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// The user that the token names
    #[arg(long)]
    user: String,
    /// How long it is valid, as 24h, 30m, 7d
    #[arg(long, default_value = "24h", value_parser = parse_duration, value_name = "DURATION")]
    ttl: Duration,
    /// Allow /api/admin
    #[arg(long)]
    admin: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Prints the token.
pub(super) fn run(args: &TokenArgs, outer: &Flags) -> Result<(), Failure> {
    let user_id = UserId::new(&args.user)
        .ok_or_else(|| Failure::Usage("--user takes 1 to 128 bytes of text".to_owned()))?;
    let config = Config::load(&args.flags.clone().or(outer))?;
    let secret = config.existing_secret()?;
    let ttl_s = args.ttl.as_secs();
    let grant = auth::Grant { is_admin: args.admin, ..config.grant(&user_id, ttl_s) };
    let token = auth::sign(secret.expose(), grant, &Clock::system());
    if args.json {
        let expires_in = ttl_s;
        let text = json!({"token": token, "user_id": args.user, "expires_in": expires_in});
        return output::line(text);
    }
    output::line(token)
}
