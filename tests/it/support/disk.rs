//! A small disk of its own: a tmpfs. Mounting one needs root.

use std::{fs, path::Path, process::Command};
use tempfile::TempDir;

/// A mounted tmpfs; unmounted when dropped.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where it cannot be mounted, told loudly; on a machine that checks changes that is a
    /// failure.
    #[allow(clippy::print_stderr, reason = "a test that does not run says so")]
    pub(crate) fn mount(bytes: u64) -> Option<Self> {
        let dir = TempDir::new().expect("a directory");
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path());
        let output = mount.output().expect("mount runs");
        if output.status.success() {
            return Some(Self(dir));
        }
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(std::env::var_os("CI").is_none(), "a full disk was NOT TESTED: {why}");
        eprintln!("A FULL DISK WAS NOT TESTED: mounting a tmpfs needs root: {why}");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.path()).expect("mounted");
        disk.f_bavail * disk.f_frsize
    }

    /// Fills it but for `left` bytes, with a file of its own.
    pub(crate) fn fill(&self, name: &str, left: u64) {
        let file = fs::File::create(self.path().join(name)).expect("a name needs no space");
        let bytes = self.free().saturating_sub(left);
        if bytes > 0 {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)
                .expect("so much was free");
        }
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is busy is unmounted when it no longer is.
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}
