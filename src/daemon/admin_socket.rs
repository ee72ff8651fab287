//! The socket in the data directory by which commands reach this daemon.

use super::StartError;
use crate::disk::if_there;
use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};
use tokio::net::UnixListener;
use tracing::warn;

/// Longest path of a socket in bytes: `sun_path` has 108 on Linux, the last of them a zero.
const PATH_BYTES_MAX: usize = 107;
/// Where it is bound before it is renamed.
const NEW_DIR: &str = "admin.new";

/// The path of the socket in a data directory.
pub fn admin_socket(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

/// Whether a socket can have this path; if not, why, in one sentence.
///
/// # Errors
/// The path is too long.
pub fn check_admin_socket(path: &Path) -> Result<(), String> {
    let bytes = bound_path(path).as_os_str().len();
    if bytes <= PATH_BYTES_MAX {
        return Ok(());
    }
    let path = path.display();
    Err(format!("{path} is too long for a socket: use a data directory with a shorter path"))
}

/// Binds the socket with mode 0600, in place of a stale one. The caller holds the directory's lock.
/// `None`, with a warning, where the path is too long for one.
///
/// It is bound in a directory that nobody else may enter and then renamed, so that there is no
/// moment at which others could connect; the process's umask stays as it is.
///
/// # Errors
/// The data directory refuses.
pub(super) fn bind(data_dir: &Path) -> Result<Option<UnixListener>, StartError> {
    let path = admin_socket(data_dir);
    if let Err(reason) = check_admin_socket(&path) {
        warn!(reason, "no admin socket: commands reach this daemon by --http only");
        return Ok(None);
    }
    let bind = || -> io::Result<UnixListener> {
        let new = bound_path(&path);
        let beside = data_dir.join(NEW_DIR);
        if_there(fs::remove_dir_all(&beside))?;
        DirBuilder::new().mode(0o700).create(&beside)?;
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        fs::rename(&new, &path)?;
        fs::remove_dir(&beside)?;
        Ok(listener)
    };
    bind().map(Some).map_err(|source| StartError::DataDir { path, source })
}

/// Removes the socket.
pub(super) fn withdraw(data_dir: &Path) -> io::Result<()> {
    if_there(fs::remove_file(admin_socket(data_dir)))
}

/// The path at which it is bound.
fn bound_path(path: &Path) -> PathBuf {
    path.with_file_name(NEW_DIR).join("s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[tokio::test]
    async fn a_socket_is_private_and_takes_the_place_of_a_stale_one() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = admin_socket(parent.path());
        // As a kill in the middle of it leaves things.
        fs::create_dir(parent.path().join(NEW_DIR)).expect("made");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(UnixStream::connect(&path).is_err(), "nobody listens");
        let listener = bind(parent.path()).expect("bound").expect("a short path");
        UnixStream::connect(&path).expect("it listens");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!parent.path().join(NEW_DIR).exists());
        withdraw(parent.path()).expect("removed");
        withdraw(parent.path()).expect("removed already");
        assert!(!path.exists());
        drop(listener);
    }

    #[tokio::test]
    async fn a_long_path_is_told_and_does_not_stop_the_start() {
        let parent = tempfile::tempdir().expect("a directory");
        let long = parent.path().join("d".repeat(120));
        fs::create_dir(&long).expect("made");
        assert!(bind(&long).expect("no failure").is_none());
        let reason = check_admin_socket(&admin_socket(&long)).expect_err("too long");
        assert!(reason.contains("too long for a socket"), "{reason}");
    }
}
