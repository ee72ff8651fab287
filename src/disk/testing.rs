//! Disks for tests: in memory, with calls that fail on demand, and crashes.
//!
//! Compiled always, because integration tests, simulations and benches use them too.

mod memory;

pub use memory::{Call, Chance, Image, MemoryDir, Unsynced};

use super::{
    DatabaseFile, Disk,
    dir::{Dir, File},
};
use crate::clock::Clock;
use memory::{Memory, MemoryFile};
use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It fails, with nothing done.
    Error(io::ErrorKind),
    /// A write does only its first bytes, and fails; any other call just fails.
    ShortWrite {
        /// Bytes written.
        bytes: usize,
        /// What it fails with.
        kind: io::ErrorKind,
    },
    /// The power goes: this call and all after it fail, with nothing done.
    PowerOff,
}

/// A directory whose changing calls (create, rename, remove, sync, write, cut) are counted, and
/// fail where a test wants them to. Reads fail only without power.
#[derive(Clone, Debug)]
pub struct FaultyDir {
    inner: Arc<MemoryDir>,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    calls: u64,
    faults: BTreeMap<u64, Fault>,
    is_full: bool,
    is_off: bool,
    syncs: u64,
    /// Of files and directories.
    syncs_tried: u64,
    failing_sync: Option<u64>,
    failed: Vec<String>,
}

impl FaultyDir {
    /// No faults yet.
    pub fn new(inner: Arc<MemoryDir>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// Changing calls so far.
    pub fn calls(&self) -> u64 {
        lock(&self.plan).calls
    }

    /// Syncs of files so far, failed ones too.
    pub fn file_syncs(&self) -> u64 {
        lock(&self.plan).syncs
    }

    /// Lets the changing call number `call` (the first is 0) meet `fault`.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        lock(&self.plan).faults.insert(call, fault);
    }

    /// Lets the next changing call meet `fault`.
    pub fn fail_next(&self, fault: Fault) {
        let mut plan = lock(&self.plan);
        let call = plan.calls;
        plan.faults.insert(call, fault);
    }

    /// Whether every write and create finds no space.
    pub fn set_full(&self, is_full: bool) {
        lock(&self.plan).is_full = is_full;
    }
}

impl Plan {
    /// Counts a changing call; its fault, if it has one.
    fn meet(&mut self, what: &str, name: &str) -> Option<Fault> {
        let call = self.calls;
        self.calls += 1;
        if self.is_off {
            return Some(Fault::PowerOff);
        }
        let mut fault = self.faults.remove(&call);
        if what == "sync" {
            if self.failing_sync == Some(self.syncs_tried) {
                fault = Some(Fault::Error(io::ErrorKind::Other));
            }
            self.syncs_tried += 1;
        }
        self.is_off = fault == Some(Fault::PowerOff);
        if fault.is_some() {
            self.failed.push(format!("{what} {name}"));
        }
        fault
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Error(kind) | Self::ShortWrite { kind, .. } => kind.into(),
            Self::PowerOff => io::Error::other("the power is off"),
        }
    }
}

/// Counts a changing call that does not take space, and lets it fail.
fn meet(plan: &Mutex<Plan>, what: &str, name: &str) -> io::Result<()> {
    lock(plan).meet(what, name).map_or(Ok(()), |fault| Err(fault.error()))
}

fn meet_reading(plan: &Mutex<Plan>) -> io::Result<()> {
    if lock(plan).is_off { Err(Fault::PowerOff.error()) } else { Ok(()) }
}

impl FaultyDir {
    fn wrap(&self, name: &str, inner: MemoryFile) -> Arc<dyn File> {
        let name = self.inner.path().join(name).to_string_lossy().into_owned();
        Arc::new(FaultyFile { name, inner, plan: Arc::clone(&self.plan) })
    }
}

impl Dir for FaultyDir {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        meet_reading(&self.plan)?;
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        meet(&self.plan, "create", name)?;
        if lock(&self.plan).is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.create_file(name).map(|file| self.wrap(name, file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        meet_reading(&self.plan)?;
        self.inner.open_file(name).map(|file| self.wrap(name, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        meet(&self.plan, "rename", from)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        meet(&self.plan, "remove", name)?;
        self.inner.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        meet(&self.plan, "sync", &self.inner.path().to_string_lossy())?;
        self.inner.sync()
    }
}

#[derive(Debug)]
struct FaultyFile {
    name: String,
    inner: MemoryFile,
    plan: Arc<Mutex<Plan>>,
}

impl File for FaultyFile {
    fn write_all_at(&self, slices: &[&[u8]], position: u64) -> io::Result<()> {
        let (fault, is_full) = {
            let mut plan = lock(&self.plan);
            (plan.meet("write", &self.name), plan.is_full)
        };
        let fault = fault.or_else(|| {
            let half = slices.iter().map(|slice| slice.len()).sum::<usize>() / 2;
            is_full.then_some(Fault::ShortWrite { bytes: half, kind: io::ErrorKind::StorageFull })
        });
        match fault {
            None => self.inner.write_all_at(slices, position),
            Some(fault) => {
                if let Fault::ShortWrite { bytes, .. } = fault {
                    let all = slices.concat();
                    self.inner.write_all_at(&[&all[..bytes.min(all.len())]], position)?;
                }
                Err(fault.error())
            }
        }
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        meet_reading(&self.plan)?;
        self.inner.read_at(buffer, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        lock(&self.plan).syncs += 1;
        match meet(&self.plan, "sync", &self.name) {
            Ok(()) => self.inner.sync_data(),
            Err(error) => {
                self.inner.lose_unsynced();
                Err(error)
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        meet(&self.plan, "set_len", &self.name)?;
        if lock(&self.plan).is_full && len > self.inner.size()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        meet_reading(&self.plan)?;
        self.inner.size()
    }

    fn modified_ms(&self) -> io::Result<i64> {
        self.inner.modified_ms()
    }
}

/// A disk in memory under a whole daemon. Counts changing calls over all files, lets them fail, and
/// records them, so that what a crash leaves at any moment can be made afterwards. Clones share it.
#[derive(Clone, Debug)]
pub struct SimDisk {
    memory: Memory,
    plan: Arc<Mutex<Plan>>,
}

impl SimDisk {
    /// A disk that holds what `image` shows, and notes times by `clock`.
    pub fn new(image: Image, clock: Clock) -> Self {
        Self { memory: Memory::of(image, clock), plan: Arc::default() }
    }

    /// Records changing calls from now on.
    pub fn record(&self) {
        self.memory.record();
    }

    /// What was recorded.
    pub fn journal(&self) -> Vec<Call> {
        self.memory.journal()
    }

    /// How much was recorded.
    pub fn journal_len(&self) -> usize {
        self.memory.journal_len()
    }

    /// Puts a mark between two calls.
    pub fn mark(&self, number: u64) {
        self.memory.mark(number);
    }

    /// The disk as it is now.
    pub fn image(&self) -> Image {
        self.memory.image()
    }

    /// Changing calls so far, failed ones too.
    pub fn calls(&self) -> u64 {
        lock(&self.plan).calls
    }

    /// See [`FaultyDir::fail_at`].
    pub fn fail_at(&self, call: u64, fault: Fault) {
        lock(&self.plan).faults.insert(call, fault);
    }

    /// Lets the sync number `sync` of a file or directory (the first is 0) fail. What the file had
    /// unsynced is still read then, and no later sync makes it durable.
    pub fn fail_sync_at(&self, sync: u64) {
        lock(&self.plan).failing_sync = Some(sync);
    }

    /// Syncs so far, failed ones too.
    pub fn syncs_tried(&self) -> u64 {
        lock(&self.plan).syncs_tried
    }

    /// See [`FaultyDir::set_full`].
    pub fn set_full(&self, is_full: bool) {
        lock(&self.plan).is_full = is_full;
    }

    /// The calls that met a fault: what, and on which file or directory.
    pub fn failed(&self) -> Vec<String> {
        lock(&self.plan).failed.clone()
    }

    fn faulty(&self, dir: MemoryDir) -> FaultyDir {
        FaultyDir { inner: Arc::new(dir), plan: Arc::clone(&self.plan) }
    }

    fn root(&self) -> MemoryDir {
        self.memory.root("/")
    }

    /// The directory that holds `path`, and the name of `path` in it.
    fn parent(&self, path: &Path) -> io::Result<(FaultyDir, String)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.root().descend(parent)?;
        Ok((self.faulty(dir), name.to_string_lossy().into_owned()))
    }
}

impl Disk for SimDisk {
    fn dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        meet_reading(&self.plan)?;
        let mut dir = self.root();
        for name in memory::names_of(path) {
            let child = match dir.child(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    meet(&self.plan, "create", &name)?;
                    dir.make_child(&name);
                    let parent = self.faulty(dir.clone());
                    parent.sync().inspect_err(|_| drop(parent.remove(&name)))?;
                    dir.child(&name)
                }
                child => child,
            };
            dir = child?;
        }
        Ok(Arc::new(self.faulty(dir)))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        parent.remove(&name)
    }

    fn database(&self, path: &Path, is_new: bool) -> io::Result<DatabaseFile> {
        let (parent, name) = self.parent(path)?;
        let file = match parent.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_new => {
                parent.create(&name)?
            }
            opened => opened?,
        };
        if is_new {
            file.set_len(0)?;
        }
        Ok(DatabaseFile::on(file))
    }

    fn free_bytes(&self, _path: &Path) -> u64 {
        if lock(&self.plan).is_full { 0 } else { u64::MAX }
    }
}
