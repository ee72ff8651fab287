//! One daemon per data directory, and where it can be reached.

use super::{StartError, admin_socket};
use crate::{archive::check_finished, disk::dir::create_dir};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The data directory, held by this process until dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The lock lives as long as this handle; the kernel lets go of it when the process dies.
    _lock: File,
}

impl DataDir {
    /// Makes the directory (mode 0700) unless it is there, and takes its lock.
    ///
    /// # Errors
    /// `InUse`: a daemon, or a command that changes its files, holds it. `Unfinished`. `DataDir`.
    pub fn lock(path: &Path) -> Result<Self, StartError> {
        let failed = |source| StartError::DataDir { path: path.to_owned(), source };
        // Durably: what is synced below a directory that a power cut takes is gone with it.
        create_dir(path, 0o700).map_err(failed)?;
        check_finished(path)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            return Err(match error {
                rustix::io::Errno::WOULDBLOCK => held_by_another(path, &mut lock),
                error => failed(error.into()),
            });
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
        check_finished(path)?; // again: from now on what fills it sees the lock
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Tells the verbs where this daemon listens.
    pub(super) fn announce(&self, endpoints: &Endpoints) -> Result<(), StartError> {
        let place = self.path.join(ENDPOINTS);
        let write = || -> io::Result<()> {
            let beside = self.path.join("endpoints.json.new");
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            serde_json::to_writer(&file, endpoints)?;
            writeln!(file)?;
            fs::rename(&beside, &place)
        };
        write().map_err(|source| StartError::DataDir { path: place.clone(), source })
    }

    /// Takes the announcement and the admin socket back.
    pub(super) fn withdraw(&self) -> io::Result<()> {
        admin_socket::withdraw(&self.path)?;
        fs::remove_file(self.path.join(ENDPOINTS))
    }
}

fn held_by_another(path: &Path, lock: &mut File) -> StartError {
    let mut pid = String::new();
    // Without a readable pid the message still says what matters.
    drop(lock.read_to_string(&mut pid));
    StartError::InUse { path: path.to_owned(), pid: pid.trim().to_owned() }
}

const ENDPOINTS: &str = "endpoints.json";

/// Where a running daemon can be reached: `<data-dir>/endpoints.json`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Endpoints {
    /// The process.
    pub pid: u32,
    /// Bound addresses of HTTP.
    pub http: Vec<SocketAddr>,
    /// Bound addresses of the broker.
    pub kafka: Vec<SocketAddr>,
}

impl Endpoints {
    /// The announcement in a data directory.
    ///
    /// # Errors
    /// There is none (no daemon runs there, or it was killed), or it cannot be read.
    pub fn read(data_dir: &Path) -> io::Result<Self> {
        let text = fs::read(data_dir.join(ENDPOINTS))?;
        serde_json::from_slice(&text).map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_daemon() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("data");
        let held = DataDir::lock(&path).expect("free");
        let error = DataDir::lock(&path).expect_err("held").to_string();
        assert!(error.contains(&format!("another daemon, pid {}", std::process::id())), "{error}");
        drop(held);
        DataDir::lock(&path).expect("free again");
    }

    #[test]
    fn endpoints_are_there_between_announcement_and_withdrawal() {
        let parent = tempfile::tempdir().expect("a directory");
        let data_dir = DataDir::lock(parent.path()).expect("free");
        let address = SocketAddr::from(([127, 0, 0, 1], 8000));
        let endpoints = Endpoints { pid: 7, http: vec![address], kafka: Vec::new() };
        data_dir.announce(&endpoints).expect("written");
        assert_eq!(Endpoints::read(parent.path()).expect("there"), endpoints);
        data_dir.withdraw().expect("removed");
        assert!(Endpoints::read(parent.path()).is_err());
    }
}
