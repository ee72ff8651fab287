//! The secret that tokens are signed with: configured, or made in the data directory.

use super::ConfigError;
use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Bytes that are never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes, for the part that checks or signs.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The text without the line end that editors leave.
    fn of_text(text: &[u8]) -> Option<Self> {
        let trimmed = text.trim_ascii();
        (!trimmed.is_empty()).then(|| Self(trimmed.to_vec()))
    }

    pub(super) fn of_variable(text: &str) -> Option<Self> {
        Self::of_text(text.as_bytes())
    }

    pub(super) fn of_file(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::of_text(&text).ok_or_else(|| ConfigError::EmptySecret { path: path.to_owned() })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where the development secret lies.
fn development_path(data_dir: &Path) -> PathBuf {
    data_dir.join("jwt-secret")
}

/// The development secret, which a daemon has made.
pub(super) fn existing(data_dir: &Path) -> Result<Secret, ConfigError> {
    let path = development_path(data_dir);
    match path.try_exists() {
        Ok(false) => Err(ConfigError::NoSecret { path }),
        // Whatever else is wrong with it, reading says so.
        _ => Secret::of_file(&path),
    }
}

/// The development secret, made (mode 0600) unless it is there. The directory must exist.
pub(super) fn development(data_dir: &Path) -> Result<Secret, ConfigError> {
    let path = development_path(data_dir);
    let refused = |source| ConfigError::Read { path: path.clone(), source };
    match make(&path) {
        Ok(()) => (),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
        Err(error) => return Err(refused(error)),
    }
    Secret::of_file(&path)
}

/// Written beside its place and linked there, so that no reader sees half of it.
fn make(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut random = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    linked
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_development_secret_is_made_once_and_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = development(dir.path()).expect("made");
        assert_eq!(first.expose().len(), 64);
        assert_eq!(development(dir.path()).expect("read"), first);
        let mode = fs::metadata(development_path(dir.path())).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::of_variable("s3cret\n").expect("not empty");
        assert_eq!(secret.expose(), b"s3cret");
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(Secret::of_variable(" \n"), None);
    }
}
