//! `taskwire tail`: a user's changes as they come, over a WebSocket that resumes where it broke.

use super::{
    Failure,
    http_client::Base,
    output,
    running::{self, RunningArgs},
    ws_client::{ConnectError, Incoming, WsClient},
};
use crate::{config::Flags, position::Position, task::UserId};
use clap::Args;
use serde_json::Value;
use std::{
    io::{self, Write},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// Arguments of `tail`.
#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// Whose changes
    #[arg(long, default_value = "dev")]
    user: String,
    /// Token to use; without it one is signed with the secret that the daemon uses
    #[arg(long)]
    token: Option<String>,
    /// Start after this position, or `earliest`; without it, with what comes
    #[arg(long, value_name = "POS", value_parser = parse_from)]
    from: Option<String>,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print messages as they came, one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: RunningArgs,
}

/// The server pings every half minute or so; a connection that is silent for longer is dead.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// First and last wait before a reconnect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// A fresh token is signed for each connection, so it can be short.
const TOKEN_TTL_S: u64 = 3_600;

/// Prints until `--count`, the daemon refuses, or a signal.
pub(super) async fn run(args: TailArgs, outer: &Flags) -> Result<(), Failure> {
    let user_id = UserId::new(&args.user)
        .ok_or_else(|| Failure::Usage("--user takes 1 to 128 bytes of text".to_owned()))?;
    let (base, config) = args.running.find(outer)?;
    let token = move || match &args.token {
        Some(token) => Ok(token.clone()),
        None => running::sign(&config, &user_id, TOKEN_TTL_S),
    };
    let mut tail = Tail { base, position: args.from, left: args.count, is_json: args.json };
    let mut wait = BACKOFF.0;
    loop {
        let ended = tail.follow(&token()?).await?;
        match ended {
            Ended::Done => return Ok(()),
            Ended::Refused(reason) => return Err(Failure::Failed(reason)),
            Ended::Broken { reason, was_open } => {
                if was_open {
                    wait = BACKOFF.0;
                }
                note(&format!("{reason}; connecting again"));
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(BACKOFF.1);
    }
}

struct Tail {
    base: Base,
    position: Option<String>,
    left: Option<u64>,
    is_json: bool,
}

/// How one connection ended.
enum Ended {
    /// `--count` messages are printed.
    Done,
    /// Another try would be refused too.
    Refused(String),
    /// Try again from the position.
    Broken { reason: String, was_open: bool },
}

impl Tail {
    async fn follow(&mut self, token: &str) -> Result<Ended, Failure> {
        let path = match &self.position {
            Some(position) => format!("/ws/tasks?from={position}"),
            None => "/ws/tasks".to_owned(),
        };
        let mut socket = match WsClient::connect(&self.base, &path, Some(token)).await {
            Ok(socket) => socket,
            Err(ConnectError::Refused(status)) if status.is_client_error() => {
                return Ok(Ended::Refused(format!("{} refused: {status}", self.base)));
            }
            Err(error) => return Ok(broken(error.to_string(), false)),
        };
        loop {
            if self.left == Some(0) {
                socket.close().await;
                return Ok(Ended::Done);
            }
            let Ok(incoming) = timeout(SILENCE_MAX, socket.next()).await else {
                return Ok(broken(format!("nothing heard for {SILENCE_MAX:?}"), true));
            };
            match incoming {
                Incoming::Text(text) => self.show(&text)?,
                Incoming::Closed(Some((code @ 4400..=4499, reason))) => {
                    return Ok(Ended::Refused(format!("closed with {code}: {reason}")));
                }
                Incoming::Closed(Some((code, reason))) => {
                    return Ok(broken(format!("closed with {code} {reason}"), true));
                }
                Incoming::Closed(None) => return Ok(broken("closed".to_owned(), true)),
                Incoming::Broken(reason) => return Ok(broken(reason, true)),
            }
        }
    }

    fn show(&mut self, text: &str) -> Result<(), Failure> {
        let message: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        if let Some(position) = message["pos"].as_str() {
            self.position = Some(position.to_owned());
        }
        if message["type"] == "resync" {
            note("the position cannot be resumed from: changes may be missing before this point");
            return Ok(());
        }
        output::line(if self.is_json { text.to_owned() } else { readable(&message) })?;
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(())
    }
}

fn broken(reason: String, was_open: bool) -> Ended {
    Ended::Broken { reason, was_open }
}

/// `2026-01-31T12:00:00Z  task_created  <id>  "title"  high, done`
fn readable(message: &Value) -> String {
    let data = &message["data"];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut line = format!(
        "{}  {:<22}  {}",
        text(&message["time"]),
        text(&message["type"]),
        text(&data["id"])
    );
    if let Some(title) = data["title"].as_str() {
        line.push_str(&format!("  {title:?}"));
    }
    if let Some(priority) = data["priority"].as_str() {
        line.push_str(&format!("  {priority}"));
    }
    if data["completed"] == true {
        line.push_str(", done");
    }
    line
}

fn parse_from(text: &str) -> Result<String, String> {
    let is_position = text == "earliest" || text.parse::<Position>().is_ok();
    is_position.then(|| text.to_owned()).ok_or_else(|| {
        "allowed are `earliest` and the `pos` of a message, such as 1f.0.42".to_owned()
    })
}

/// A word to the person that is no data.
fn note(text: &str) {
    // With stderr closed there is nobody to tell.
    drop(writeln!(io::stderr(), "taskwire tail: {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_message_is_one_readable_line() {
        let message = json!({
            "type": "task_completed", "time": "2026-01-31T12:00:00Z", "pos": "1.0.2",
            "data": {"id": "7", "title": "a\nb", "priority": "high", "completed": true},
        });
        assert_eq!(
            readable(&message),
            "2026-01-31T12:00:00Z  task_completed          7  \"a\\nb\"  high, done"
        );
        assert_eq!(readable(&Value::Null), "-  -                       -");
    }

    #[test]
    fn only_positions_and_earliest_are_taken() {
        assert!(parse_from("earliest").is_ok());
        assert!(parse_from("1f.0.42").is_ok());
        assert!(parse_from("latest").is_err());
        assert!(parse_from("1&token=x").is_err());
    }
}
