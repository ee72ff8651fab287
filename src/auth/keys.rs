//! The keys of a JWKS, kept fresh by one worker.
//!
//! Invariant: a source that fails, or gives a document that is not good, changes no key: the last
//! good set stays. Reading the set takes no lock. A token asks for nothing itself: one that names
//! an unknown key wakes the worker, which asks an URL at most once per [`Timing::cooldown`] for
//! all of them.

use super::{
    AuthError,
    claims::Claims,
    fetch::{self, FetchError},
    jwks::{self, DOCUMENT_BYTES_MAX, DocumentError},
    key::{self, Key},
    source::{JwksSource, JwksUrl},
};
use crate::{causes::chain, metrics::Metrics, shutdown::Shutdown};
use arc_swap::ArcSwap;
use jsonwebtoken::Header;
use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

/// When the source is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Time between two looks at a file.
    pub(super) poll: Duration,
    /// Shortest and longest time between two answers of a URL, whatever `Cache-Control` says.
    pub(super) refresh: (Duration, Duration),
    /// The time where an answer says nothing.
    pub(super) refresh_default: Duration,
    /// Time after a URL that failed.
    pub(super) retry: Duration,
    /// Time between two answers that tokens with unknown keys asked for.
    pub(super) cooldown: Duration,
}

pub(super) const TIMING: Timing = Timing {
    poll: Duration::from_secs(1),
    refresh: (Duration::from_secs(60), Duration::from_secs(3_600)),
    refresh_default: Duration::from_secs(300),
    retry: Duration::from_secs(10),
    cooldown: Duration::from_secs(30),
};

/// A file that was changed so short a time ago may change again within its time stamp.
const SETTLING: Duration = Duration::from_secs(2);

/// Why the keys could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The URL gives no document.
    #[error("cannot fetch {url}")]
    Fetch {
        /// The URL, without its query.
        url: String,
        /// Why.
        source: FetchError,
    },
    /// The document is not good.
    #[error("{place} gives no keys")]
    Document {
        /// The path, or the URL without its query.
        place: String,
        /// Why.
        source: DocumentError,
    },
}

/// The keys and their source.
pub(super) struct KeyRing {
    source: JwksSource,
    timing: Timing,
    keys: ArcSwap<Vec<Key>>,
    /// A token named a key that is not there.
    wanted: Notify,
    is_stale: AtomicBool,
    metrics: Arc<Metrics>,
}

/// What tells one state of a file from another: time of change and length.
type Stamp = (SystemTime, u64);

impl KeyRing {
    pub(super) fn new(source: JwksSource, timing: Timing, metrics: Arc<Metrics>) -> Self {
        let (keys, wanted) = (ArcSwap::from_pointee(Vec::new()), Notify::new());
        Self { source, timing, keys, wanted, is_stale: AtomicBool::new(false), metrics }
    }

    /// The claims, if one of the keys has signed them.
    pub(super) fn open(&self, header: &Header, token: &str) -> Result<Claims, AuthError> {
        let keys = self.keys.load();
        if keys.is_empty() {
            return Err(AuthError::NoKeys);
        }
        key::open_with(&keys, header, token).unwrap_or_else(|| {
            self.wanted.notify_one();
            Err(AuthError::Invalid("no key of ours fits its header"))
        })
    }

    /// The last attempt to read the source failed.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Relaxed)
    }

    /// Reads the source for the first time.
    ///
    /// # Errors
    /// The file is not there or not good. A URL that fails is warned about, and asked again.
    pub(super) async fn load(&self) -> Result<(), JwksError> {
        match &self.source {
            JwksSource::File(path) => {
                let (bytes, _) = read_file(path.clone()).await?;
                self.take(&bytes)
            }
            JwksSource::Url(url) => {
                self.refresh_url(url).await;
                Ok(())
            }
        }
    }

    /// Keeps the keys fresh until the stop begins.
    pub(super) async fn keep(&self, shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.begun() => (),
            () = async { match &self.source {
                JwksSource::File(path) => self.watch(path).await,
                JwksSource::Url(url) => self.follow(url).await,
            } } => (),
        }
    }

    async fn watch(&self, path: &Path) {
        let mut known = None;
        loop {
            sleep_until(Instant::now() + self.timing.poll).await;
            let stamp = tokio::fs::metadata(path).await.and_then(|file| stamp_of(&file)).ok();
            if stamp.is_some() && stamp == known && !self.is_stale() {
                continue;
            }
            let read = read_file(path.to_owned()).await;
            known = read.as_ref().ok().and_then(|(_, stamp)| *stamp);
            self.settle(read.and_then(|(bytes, _)| self.take(&bytes)));
        }
    }

    async fn follow(&self, url: &JwksUrl) {
        let mut due = Instant::now() + self.pause(None);
        let mut askable = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(due) => (),
                () = async {
                    self.wanted.notified().await;
                    sleep_until(askable).await;
                } => askable = Instant::now() + self.timing.cooldown,
            }
            due = Instant::now() + self.refresh_url(url).await;
        }
    }

    /// Asks the URL once; returns the time until it is to be asked again.
    async fn refresh_url(&self, url: &JwksUrl) -> Duration {
        let fetched = fetch::fetch(url).await.map_err(|source| {
            let url = url.to_string();
            JwksError::Fetch { url, source }
        });
        let max_age = fetched.as_ref().ok().and_then(|fetched| fetched.max_age);
        self.settle(fetched.and_then(|fetched| self.take(&fetched.body)));
        self.pause(max_age)
    }

    fn pause(&self, max_age: Option<Duration>) -> Duration {
        if self.is_stale() {
            return self.timing.retry;
        }
        let (shortest, longest) = self.timing.refresh;
        max_age.unwrap_or(self.timing.refresh_default).clamp(shortest, longest)
    }

    /// Takes the keys of a document.
    fn take(&self, bytes: &[u8]) -> Result<(), JwksError> {
        let document = jwks::parse(bytes).map_err(|source| {
            let place = self.source.to_string();
            JwksError::Document { place, source }
        })?;
        let names: Vec<_> = document.keys.iter().map(Key::name).collect();
        let is_new = self.keys.load().iter().map(Key::name).ne(names.iter().copied());
        if is_new || self.is_stale() {
            info!(keys = document.keys.len(), source = %self.source, "took the keys of the JWKS");
            for (index, why) in document.skipped.iter().filter(|(_, why)| *why != jwks::OTHER_USE) {
                warn!(index, source = %self.source, "passed over a key of the JWKS: {why}");
            }
        }
        if is_new && key::has_untried(&document.keys) {
            let (source, tries) = (&self.source, key::TRIES_MAX);
            warn!(%source, tries, "a token without kid is not tried with all keys of the JWKS");
        }
        self.metrics.auth_keys.set(i64::try_from(document.keys.len()).unwrap_or(i64::MAX));
        self.keys.store(Arc::new(document.keys));
        self.is_stale.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Tells of a failure once, and of its end ([`KeyRing::take`]).
    fn settle(&self, read: Result<(), JwksError>) {
        self.metrics.auth_key_refreshes.inc();
        let Err(error) = read else { return };
        self.metrics.auth_key_refresh_failures.inc();
        if !self.is_stale.swap(true, Ordering::Relaxed) {
            let keys = self.keys.load().len();
            warn!(error = chain(&error), keys, "the JWKS cannot be refreshed; its last keys stay");
        }
    }
}

fn stamp_of(file: &std::fs::Metadata) -> io::Result<Stamp> {
    Ok((file.modified()?, file.len()))
}

/// Reads a file, at most a byte more than the bound; the stamp is left out while it may lie.
async fn read_file(path: PathBuf) -> Result<(Vec<u8>, Option<Stamp>), JwksError> {
    let of_error = path.clone();
    let refused = |source| JwksError::Read { path: of_error, source };
    match tokio::task::spawn_blocking(move || read_blocking(&path)).await {
        Ok(read) => read.map_err(refused),
        Err(error) => Err(refused(io::Error::other(error))),
    }
}

fn read_blocking(path: &Path) -> io::Result<(Vec<u8>, Option<Stamp>)> {
    let file = std::fs::File::open(path)?;
    let stamp = stamp_of(&file.metadata()?)?;
    let age = SystemTime::now().duration_since(stamp.0).unwrap_or_default();
    let mut bytes = Vec::new();
    let bound = u64::try_from(DOCUMENT_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(bound).read_to_end(&mut bytes)?;
    Ok((bytes, (age > SETTLING).then_some(stamp)))
}

/// Checks a file as the start of the daemon would.
///
/// # Errors
/// It cannot be read, or is not good.
pub fn check_file(path: &Path) -> Result<(), JwksError> {
    let refused = |source| JwksError::Read { path: path.to_owned(), source };
    let (bytes, _) = read_blocking(path).map_err(refused)?;
    let place = path.display().to_string();
    jwks::parse(&bytes).map(drop).map_err(|source| JwksError::Document { place, source })
}
