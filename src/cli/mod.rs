//! One file per verb. `taskwire` without a verb is `taskwire serve`.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.

mod admin;
mod backup;
mod completion;
mod config_verb;
mod dlq;
pub mod groups;
mod healthcheck;
mod http_client;
mod import;
pub mod kafka_client;
mod logging;
mod migrate;
mod output;
mod rebuild;
pub mod records;
mod repair;
mod restore;
mod running;
mod selftest;
pub mod send;
mod serve;
mod status;
mod tail;
mod token;
pub mod topics;
mod verify;
mod version;
mod waiting;
mod ws_client;

use crate::{
    causes::chain,
    config::{ConfigError, Flags},
};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use kafka_client::VerbError;
use std::io;

/// Why a verb did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Anything else, told whole.
    #[error("{0}")]
    Failed(String),
    /// Standard output is gone.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// What the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Config(_) => 78,
            Self::Failed(_) | Self::Output(_) => 1,
        }
    }
}

impl From<VerbError> for Failure {
    fn from(error: VerbError) -> Self {
        match error {
            VerbError::Usage(text) => Self::Usage(text),
            VerbError::Output(error) => Self::Output(error),
            error => Self::Failed(chain(&error)),
        }
    }
}

/// Does blocking work away from the async workers; its error is told whole.
async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| Failure::Failed(chain(&error))),
        Err(error) => Err(Failure::Failed(error.to_string())),
    }
}

/// A parsed command line.
#[derive(Debug, Parser)]
#[command(
    name = "taskwire",
    version,
    about = "Real-time tasks from Kafka events to browsers, in one daemon",
    after_help = "Without a command: serve. Settings can also come from TASKWIRE_* variables and \
                  a TOML file; `taskwire config default` prints one."
)]
pub struct Command {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon (what `taskwire` alone does)
    Serve(serve::ServeArgs),
    /// Sign a token for a user
    Token(token::TokenArgs),
    /// Send an event to the topic of any broker
    Send(send::SendArgs),
    /// Send the events of a file, one a line
    Import(import::ImportArgs),
    /// Print a user's changes as they come
    Tail(tail::TailArgs),
    /// List topics with their partitions and offsets
    Topics(topics::TopicsArgs),
    /// Print the records of a topic
    Records(records::RecordsArgs),
    /// List consumer groups with their members, committed offsets and lag
    Groups(groups::GroupsArgs),
    /// Drive every flow over real sockets, against a throw-away daemon or a running one
    Selftest(selftest::SelftestArgs),
    /// List what is damaged in the log of a stopped daemon, or do what you decide about it
    Repair(repair::RepairArgs),
    /// List, show, redrive and dismiss dead letters
    Dlq(dlq::DlqArgs),
    /// List events that wait for their tasks
    Waiting(waiting::WaitingArgs),
    /// Print where a running daemon stands
    Status(status::StatusArgs),
    /// Check or print the configuration
    Config(config_verb::ConfigArgs),
    /// Ask a running daemon whether it is ready
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Look at everything in a data directory or backup, and change nothing
    Verify(verify::VerifyArgs),
    /// Make the tasks anew from the log, with the daemon stopped
    Rebuild(rebuild::RebuildArgs),
    /// Copy a running daemon, or the directory of a stopped one, into a directory
    Backup(backup::BackupArgs),
    /// Make a data directory from a backup
    Restore(restore::RestoreArgs),
    /// Bring a data directory of an older version up to this one's formats
    Migrate(migrate::MigrateArgs),
    /// Print a script that completes commands in a shell
    Completion(completion::CompletionArgs),
    /// Print the version
    Version(version::VersionArgs),
}

impl Command {
    /// The process's arguments; wrong ones end it with exit code 2, `--help` with 0.
    pub fn from_args() -> Self {
        let matches = Self::command().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Does what was asked for.
    ///
    /// # Errors
    /// See [`Failure`]. A reader of our output that went away is no failure.
    pub async fn run(self) -> Result<(), Failure> {
        match Box::pin(self.dispatch()).await {
            Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome,
        }
    }

    async fn dispatch(self) -> Result<(), Failure> {
        let flags = self.flags;
        match self.verb {
            None => serve::run(serve::ServeArgs::default(), &flags).await,
            Some(Verb::Serve(args)) => serve::run(args, &flags).await,
            Some(Verb::Token(args)) => token::run(&args, &flags),
            Some(Verb::Send(args)) => Ok(send::run(args, &mut io::stdout()).await?),
            Some(Verb::Import(args)) => Ok(import::run(args, &mut io::stdout()).await?),
            Some(Verb::Topics(args)) => Ok(topics::run(args, &mut io::stdout()).await?),
            Some(Verb::Records(args)) => Ok(records::run(args, &mut io::stdout()).await?),
            Some(Verb::Groups(args)) => Ok(groups::run(args, &mut io::stdout()).await?),
            Some(Verb::Tail(args)) => tail::run(args, &flags).await,
            Some(Verb::Selftest(args)) => Box::pin(selftest::run(args, &flags)).await,
            Some(Verb::Repair(args)) => repair::run(&args, &flags),
            Some(Verb::Dlq(args)) => dlq::run(args, &flags).await,
            Some(Verb::Waiting(args)) => waiting::run(args, &flags).await,
            Some(Verb::Status(args)) => status::run(args, &flags).await,
            Some(Verb::Config(args)) => config_verb::run(&args, &flags),
            Some(Verb::Healthcheck(args)) => healthcheck::run(args, &flags).await,
            Some(Verb::Verify(args)) => verify::run(args, &flags).await,
            Some(Verb::Rebuild(args)) => rebuild::run(args, &flags).await,
            Some(Verb::Backup(args)) => backup::run(args, &flags).await,
            Some(Verb::Restore(args)) => restore::run(args, &flags).await,
            Some(Verb::Migrate(args)) => migrate::run(args, &flags).await,
            Some(Verb::Completion(args)) => completion::run(&args, &mut io::stdout()),
            Some(Verb::Version(args)) => version::run(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn no_verb_takes_the_settings_of_serve() {
        let command = Command::try_parse_from(["taskwire", "--topic", "t"]).expect("good");
        assert!(command.verb.is_none());
        let command = Command::try_parse_from(["taskwire", "serve", "--topic=t"]).expect("good");
        assert!(matches!(command.verb, Some(Verb::Serve(_))));
        assert!(Command::try_parse_from(["taskwire", "--topics", "t"]).is_err());
    }
}
