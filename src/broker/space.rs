//! Whether there is space for more, and a reserve for what was accepted already.
//!
//! A file of the reserve's size lies in the data directory. When less than that is free beside it,
//! nothing more is accepted, and the file is removed: with its bytes retention, checkpoints, offset
//! commits and the stop can finish. When there is room for the reserve again, it is made again, and
//! writes go on.
//!
//! Owner: the worker [`watch`]; everyone else reads one flag.

use crate::{
    disk::{Disk, RealDisk},
    metrics::Metrics,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How often to look. Writes go on within twice this after space is freed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Handle. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Space(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    reserve_bytes: u64,
    is_full: AtomicBool,
}

impl Space {
    /// The space of the disk that holds `data_dir`; `reserve_bytes` 0 keeps no reserve, and then
    /// only a write that fails tells that the disk is full.
    pub(super) fn new(disk: Arc<dyn Disk>, data_dir: &Path, reserve_bytes: u64) -> Self {
        let path = data_dir.join("reserve");
        Self(Arc::new(Inner { disk, path, reserve_bytes, is_full: AtomicBool::new(false) }))
    }

    /// Whether nothing more is accepted.
    pub(super) fn is_full(&self) -> bool {
        self.0.is_full.load(Ordering::Acquire)
    }

    /// Looks at the disk, and gives up or makes the reserve. Blocks on it.
    pub(super) fn look(&self, metrics: &Metrics) {
        let Inner { disk, path, reserve_bytes, is_full } = &*self.0;
        if *reserve_bytes == 0 {
            return;
        }
        let free = disk.free_bytes(path.parent().unwrap_or(path));
        metrics.disk_free_bytes.set(i64::try_from(free).unwrap_or(i64::MAX));
        let is_held = fs::metadata(path).is_ok_and(|file| file.len() == *reserve_bytes);
        let was_full = self.is_full();
        let now_full = if is_held {
            free < *reserve_bytes
        } else {
            // Room beside the reserve, and some more, so that the next look finds the same.
            let wanted = reserve_bytes.saturating_mul(2).saturating_add(SLACK_BYTES);
            free < wanted || make(path, *reserve_bytes).is_err()
        };
        if now_full {
            // Of whatever size: it may be that of another version. What cannot be removed now is
            // removed at the next look.
            drop(fs::remove_file(path));
        }
        is_full.store(now_full, Ordering::Release);
        metrics.disk_full.set(i64::from(now_full));
        if now_full && !was_full {
            tracing::warn!(free, reserve_bytes, "the disk is full, no writes are accepted");
        } else if was_full && !now_full {
            tracing::info!(free, "there is space again, writes are accepted");
        }
    }
}

/// Looks once before a start, so that a reserve which a kill left gives way to what the start has
/// to write. Blocks on the disk.
pub fn look_before_start(data_dir: &Path, reserve_bytes: u64, metrics: &Metrics) {
    Space::new(Arc::new(RealDisk), data_dir, reserve_bytes).look(metrics);
}

/// Looks again and again until `ending`.
pub(super) async fn watch(space: Space, metrics: Arc<Metrics>, ending: CancellationToken) {
    loop {
        tokio::select! {
            () = ending.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => (),
        }
        let (space, metrics) = (space.clone(), Arc::clone(&metrics));
        let looked = tokio::task::spawn_blocking(move || space.look(&metrics)).await;
        if let Err(error) = looked {
            tracing::error!(%error, "looking for space on the disk panicked");
        }
    }
}

/// Makes the reserve, with blocks of its own where the file system gives such.
fn make(path: &Path, bytes: u64) -> io::Result<()> {
    let made = fs::File::create(path).and_then(|file| {
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(&file, flags, 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => fill(&file, bytes),
            made => Ok(made?),
        }
    });
    if made.is_err() {
        drop(fs::remove_file(path)); // half a reserve is none
    }
    made
}

fn fill(mut file: &fs::File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file).map(|_| ())
}

/// How much more than needed must be free before writes go on.
const SLACK_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_made_where_there_is_room_and_given_up_where_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::new();
        let space_of = |bytes| {
            let space = Space::new(Arc::new(RealDisk), dir.path(), bytes);
            space.look(&metrics);
            space
        };
        let space = space_of(1 << 20);
        assert!(!space.is_full());
        assert_eq!(fs::metadata(dir.path().join("reserve")).unwrap().len(), 1 << 20);
        assert!(space_of(u64::MAX / 4).is_full());
        let is_held = dir.path().join("reserve").exists();
        assert!(!is_held, "one of another size is given up, too");
        assert_eq!(metrics.disk_full.get(), 1);
        space.look(&metrics);
        assert_eq!(metrics.disk_full.get(), 0);
        assert!(!space_of(0).is_full());
    }
}
