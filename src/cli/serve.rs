//! `taskwire serve`: the daemon in the foreground.

use super::{Failure, logging, output, running};
use crate::{
    causes::chain,
    config::{Config, Flags},
    daemon::{self, Endpoints},
    shutdown::{self, Shutdown},
};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, IsTerminal};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// Arguments of `serve`.
#[derive(Debug, Default, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    flags: Flags,
}

/// Runs until a signal.
pub(super) async fn run(args: ServeArgs, outer: &Flags) -> Result<(), Failure> {
    let config = Config::load(&args.flags.or(outer))?;
    logging::start(&config.logging);
    for warning in config.warnings() {
        warn!("{warning}");
    }
    raise_open_files();
    let shutdown = shutdown_by_signal()?;
    let is_development = config.is_development();
    daemon::run(config, shutdown, |endpoints| greet(endpoints, is_development))
        .await
        .map_err(|failure| Failure::Failed(chain(&failure)))
}

/// SIGTERM and SIGINT begin the stop; the second one ends the process at once.
fn shutdown_by_signal() -> Result<Shutdown, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::Failed(error.to_string()));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let (trigger, shutdown) = shutdown::pair();
    tokio::spawn(async move {
        let signal = either(&mut terminate, &mut interrupt).await;
        info!(signal, "asked to stop");
        trigger.fire();
        let signal = either(&mut terminate, &mut interrupt).await;
        warn!(signal, "asked to stop again, ending at once");
        std::process::exit(1);
    });
    Ok(shutdown)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Ten thousand sockets need more than the usual soft limit of 1024 open files.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        warn!(%error, current = ?limit.current, "cannot raise the limit of open files");
    }
}

/// Tells a person at a terminal what can be done now.
fn greet(endpoints: &Endpoints, is_development: bool) {
    if !io::stdout().is_terminal() {
        return;
    }
    let http = running::base_url(endpoints);
    let kafka = match endpoints.kafka.first() {
        Some(address) => running::reachable(*address).to_string(),
        None => "off".to_owned(),
    };
    let mut text = format!(
        "\n  taskwire {}\n\n  Page, REST, WebSocket   {http}\n  Kafka                   {kafka}\n",
        env!("CARGO_PKG_VERSION")
    );
    if is_development {
        text.push_str(&format!(
            "\n  Try, in another terminal:\n\
             \x20   taskwire tail\n\
             \x20   taskwire send task_created title=\"Hello\" --user dev\n\
             \x20   curl {http}/api/tasks\n\
             \x20   curl {http}/api/tasks -H 'content-type: application/json' \
             -d '{{\"title\":\"By REST\"}}'\n\
             \n  Development mode: whoever reaches this machine's loopback is user `dev` and \
             admin, without a\n  token. Configure --jwt-secret-file FILE to ask for tokens.\n"
        ));
    }
    // A terminal that went away is no reason not to serve.
    drop(output::line(text));
}
