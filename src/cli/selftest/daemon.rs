//! A throw-away daemon in this process, in a directory of its own, on free ports.

use super::{Outcome, bench::Bench, own_config};
use crate::{
    causes::chain,
    cli::{Failure, http_client::Base},
    clock::Clock,
    config::Config,
    daemon::Daemon,
};
use std::{fs, path::PathBuf};
use uuid::Uuid;

/// The daemon and its directory, which goes when this is dropped.
pub(super) struct OwnDaemon {
    daemon: Daemon,
    config: Config,
    _dir: Scratch,
}

impl OwnDaemon {
    pub(super) async fn start() -> Result<Self, String> {
        let dir = Scratch::new()?;
        let config = own_config(&dir.0).map_err(|error| error.to_string())?;
        let daemon = start(&config).await?;
        Ok(Self { daemon, config, _dir: dir })
    }

    pub(super) fn bench(&self) -> Result<Bench, Failure> {
        bench_of(&self.daemon, &self.config)
    }

    /// Stops cleanly, starts on the same directory, and looks for the tasks.
    pub(super) async fn restart(self) -> Outcome {
        let text = |failure: Failure| failure.to_string();
        let before = self.bench().map_err(text)?;
        let user = before.user("restart");
        let http = before.http(&user);
        let id = before.created_by_rest(&http, "kept").await?;
        let Self { daemon, config, _dir } = self;
        daemon.stop().await.map_err(|failure| chain(&failure))?;

        let daemon = start(&config).await?;
        let after = bench_of(&daemon, &config).map_err(text)?;
        after.is_ready().await?;
        let found = after.task(&after.http(&user), &id).await?;
        if found["title"] != "kept" {
            return Err(format!("task {id} reads {found} after the restart"));
        }
        daemon.stop().await.map_err(|failure| chain(&failure))
    }
}

async fn start(config: &Config) -> Result<Daemon, String> {
    Box::pin(Daemon::start(config.clone(), Clock::system())).await.map_err(|error| chain(&error))
}

fn bench_of(daemon: &Daemon, config: &Config) -> Result<Bench, Failure> {
    let endpoints = daemon.endpoints();
    let base = Base::of(endpoints.http[0]);
    let bootstrap = endpoints.kafka[0].to_string();
    Ok(Bench::new(base, bootstrap, config.clone())?.in_development(true))
}

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("taskwire-selftest-{}", Uuid::new_v4()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind it is only litter in the temporary directory.
        drop(fs::remove_dir_all(&self.0));
    }
}
