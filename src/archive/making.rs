//! A directory in the making: a backup, or what a restore makes.
//!
//! Invariant: under its name lies a whole directory, or none, or one with the marker in it. One
//! that is absent is made beside its name and renamed. One that is there already, perhaps as a
//! mount point, which nothing can be renamed onto, is filled where it is: the marker is durable
//! before anything else is in it, and goes when all the rest is durable.

use super::{is_beside_us, new_dir};
use crate::disk::{beside, sync_name};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The marker of a directory that is filled and not whole. Locked by who fills it.
pub const UNFINISHED_FILE: &str = "unfinished";
/// What the marker says to a person.
const TEXT: &str = "A taskwire restore or backup into this directory was not finished. Do it \
                    again: it removes what is here and begins anew.\n";

/// A directory that a restore or a backup began to fill.
#[derive(Debug, thiserror::Error)]
#[error(
    "a restore or backup into {} was not finished (it holds the file {UNFINISHED_FILE}): do it \
     again, it removes what is there and begins anew; or empty the directory",
    path.display()
)]
pub struct Unfinished {
    /// The directory.
    pub path: PathBuf,
}

/// Refuses a directory that is filled and not whole.
///
/// # Errors
/// It has the marker.
pub fn check_finished(dir: &Path) -> Result<(), Unfinished> {
    match dir.join(UNFINISHED_FILE).symlink_metadata() {
        Ok(_) => Err(Unfinished { path: dir.to_owned() }),
        Err(_) => Ok(()), // what cannot be read is told of by whoever opens the files
    }
}

/// A directory in the making. Dropped unfinished, what was made goes.
#[derive(Debug)]
pub(super) struct Making {
    name: PathBuf,
    made: PathBuf,
    /// Of one that is filled where it is.
    marker: Option<File>,
    is_whole: bool,
}

impl Making {
    /// Begins `name`, which is absent, or empty but for `lost+found`, or was begun before. An
    /// absent one is made under its name and `suffix`.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`; `ResourceBusy`: another process fills it; or as the disk says.
    pub(super) fn begin(name: &Path, suffix: &str) -> io::Result<Self> {
        let is_there = name.try_exists()?;
        let made = if is_there { name.to_owned() } else { beside(name, suffix) };
        let marker = if is_there { Some(mark(name)?) } else { None };
        let making = Self { name: name.to_owned(), made, marker, is_whole: false };
        if is_there {
            clear(name)?;
            keep_private(name)?;
        } else {
            new_dir(&making.made)?;
        }
        Ok(making)
    }

    /// Where its files go.
    pub(super) fn path(&self) -> &Path {
        &self.made
    }

    /// Makes it the whole directory of its name. All files in it have been synced.
    ///
    /// # Errors
    /// As the disk says. It is whole under its name then, or has the marker, or is gone.
    pub(super) fn finish(mut self) -> io::Result<()> {
        sync_dirs(&self.made)?;
        if self.marker.is_some() {
            // From here on nothing is taken back: without its marker, half of it would pass.
            self.is_whole = true;
            fs::remove_file(self.name.join(UNFINISHED_FILE))?;
            return File::open(&self.name)?.sync_all();
        }
        fs::rename(&self.made, &self.name)?;
        self.is_whole = true;
        sync_name(&self.name)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if self.is_whole {
            return;
        }
        // What stays is removed when it is begun again.
        drop(match &self.marker {
            None => fs::remove_dir_all(&self.made),
            Some(_) => clear(&self.made)
                .and_then(|()| File::open(&self.made)?.sync_all())
                .and_then(|()| fs::remove_file(self.made.join(UNFINISHED_FILE))),
        });
    }
}

/// Refuses what cannot be begun: a directory that is there, not begun before and not empty.
///
/// # Errors
/// `DirectoryNotEmpty`, or as the disk says.
pub(super) fn expect_free(dir: &Path) -> io::Result<()> {
    match dir.try_exists()? && check_finished(dir).is_ok() {
        true => expect_empty(dir),
        false => Ok(()),
    }
}

/// Refuses a directory that has anything in it but `lost+found`.
fn expect_empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        if !is_beside_us(&entry?) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
    }
    Ok(())
}

/// Puts the marker into an empty directory, or takes over the one that is there.
fn mark(dir: &Path) -> io::Result<File> {
    let path = dir.join(UNFINISHED_FILE);
    let is_new = !path.try_exists()?;
    if is_new {
        expect_empty(dir)?;
    }
    let mut marker = File::options().write(true).create_new(is_new).mode(0o600).open(&path)?;
    flock(&marker, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        rustix::io::Errno::WOULDBLOCK => io::ErrorKind::ResourceBusy.into(),
        error => io::Error::from(error),
    })?;
    if is_new {
        // Once more: whoever came in between, as a daemon, would lose what it wrote.
        expect_empty(dir).inspect_err(|_| drop(fs::remove_file(&path)))?;
        marker.write_all(TEXT.as_bytes())?;
    } else if path.metadata()?.ino() != marker.metadata()?.ino() {
        return Err(io::ErrorKind::ResourceBusy.into()); // finished by another just now
    }
    marker.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(marker)
}

/// Removes what an earlier attempt left.
fn clear(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if is_beside_us(&entry) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// As one that we make: only its owner reads it. One of another owner is theirs to guard.
fn keep_private(dir: &Path) -> io::Result<()> {
    match fs::set_permissions(dir, fs::Permissions::from_mode(0o700)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        set => set,
    }
}

fn sync_dirs(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && !is_beside_us(&entry) {
            sync_dirs(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_there_has_the_marker_until_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        fs::write(dir.path().join("lost+found/theirs"), b"theirs").unwrap();
        let making = Making::begin(dir.path(), ".restoring").unwrap();
        assert_eq!(making.path(), dir.path());
        let told = check_finished(dir.path()).unwrap_err().to_string();
        assert!(told.contains("do it again"), "{told}");
        let busy = Making::begin(dir.path(), ".restoring").unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        fs::write(dir.path().join("tasks.redb"), b"half").unwrap();
        std::mem::forget(making); // as a kill would leave it, but for the lock
        let path = dir.path().join(UNFINISHED_FILE);
        fs::rename(&path, dir.path().join("x")).unwrap();
        fs::copy(dir.path().join("x"), &path).unwrap(); // another inode, which nobody locks

        let making = Making::begin(dir.path(), ".restoring").unwrap();
        assert!(!dir.path().join("tasks.redb").exists(), "it begins anew");
        fs::write(dir.path().join("tasks.redb"), b"whole").unwrap();
        making.finish().unwrap();
        check_finished(dir.path()).unwrap();
        assert!(dir.path().join("lost+found/theirs").exists());
        let full = Making::begin(dir.path(), ".restoring").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(fs::read(dir.path().join("tasks.redb")).unwrap(), b"whole");
    }

    #[test]
    fn what_is_given_up_leaves_the_directory_as_it_was() {
        let parent = tempfile::tempdir().unwrap();
        let (there, absent) = (parent.path().join("there"), parent.path().join("absent"));
        fs::create_dir(&there).unwrap();
        for name in [&there, &absent] {
            let making = Making::begin(name, ".partial").unwrap();
            fs::create_dir(making.path().join("log")).unwrap();
            drop(making);
        }
        assert_eq!(fs::read_dir(&there).unwrap().count(), 0);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
