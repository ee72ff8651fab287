//! Disks for tests: one in memory that can lose its power, and one that fails on demand.
//!
//! Compiled always, because integration tests, simulations and benches use them too.

use super::dir::{Dir, File};
use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory in memory. Knows of every byte and name whether a sync made it durable. Clones
/// share their contents.
#[derive(Clone, Debug, Default)]
pub struct MemoryDir {
    names: Arc<Mutex<Names>>,
}

#[derive(Debug, Default)]
struct Names {
    live: BTreeMap<String, MemoryFile>,
    durable: BTreeMap<String, MemoryFile>,
}

#[derive(Clone, Debug, Default)]
struct MemoryFile(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// What a power cut leaves of the writes that no sync made durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unsynced {
    /// Nothing.
    Dropped,
    /// All but the last write, and of that some first bytes.
    Torn {
        /// Bytes of the last write that are there.
        bytes_kept: usize,
    },
}

impl MemoryDir {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk as it is after the power went and came back; this one stays as it is.
    pub fn power_cut(&self, unsynced: Unsynced) -> Self {
        let names = lock(&self.names);
        let after: BTreeMap<String, MemoryFile> = names
            .durable
            .iter()
            .map(|(name, file)| (name.clone(), file.power_cut(unsynced)))
            .collect();
        Self { names: Arc::new(Mutex::new(Names { live: after.clone(), durable: after })) }
    }

    /// A copy that shares nothing with this one.
    pub fn copy(&self) -> Self {
        let copy = Self::new();
        for (name, bytes) in self.contents() {
            copy.put(&name, bytes);
        }
        copy
    }

    /// Every file with its bytes.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let names = lock(&self.names);
        names.live.iter().map(|(name, file)| (name.clone(), lock(&file.0).live.clone())).collect()
    }

    /// Gives a file, new or there already (and perhaps open), these durable bytes.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut names = lock(&self.names);
        let file = names.live.entry(name.to_owned()).or_default().clone();
        *lock(&file.0) = Content { live: bytes.clone(), durable: bytes, unsynced: Vec::new() };
        names.durable.insert(name.to_owned(), file);
    }
}

impl Dir for MemoryDir {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.names).live.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut names = lock(&self.names);
        if names.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = MemoryFile::default();
        names.live.insert(name.to_owned(), file.clone());
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        match lock(&self.names).live.get(name) {
            Some(file) => Ok(Arc::new(file.clone())),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = lock(&self.names);
        let file = names.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.live.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match lock(&self.names).live.remove(name) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut names = lock(&self.names);
        names.durable = names.live.clone();
        Ok(())
    }
}

impl MemoryFile {
    fn power_cut(&self, unsynced: Unsynced) -> Self {
        let content = lock(&self.0);
        let mut left = content.durable.clone();
        if let Unsynced::Torn { bytes_kept } = unsynced
            && let Some((last, before)) = content.unsynced.split_last()
        {
            before.iter().for_each(|change| change.apply(&mut left, usize::MAX));
            last.apply(&mut left, bytes_kept);
        }
        let content = Content { live: left.clone(), durable: left, unsynced: Vec::new() };
        Self(Arc::new(Mutex::new(content)))
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>, bytes_kept: usize) {
        match self {
            Self::SetLen(len) => to.resize(*len, 0),
            Self::Write { position, bytes } => {
                let kept = &bytes[..bytes.len().min(bytes_kept)];
                if to.len() < position + kept.len() {
                    to.resize(position + kept.len(), 0);
                }
                to[*position..position + kept.len()].copy_from_slice(kept);
            }
        }
    }
}

impl Content {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.live, usize::MAX);
        self.unsynced.push(change);
    }
}

impl File for MemoryFile {
    fn write_all_at(&self, slices: &[&[u8]], position: u64) -> io::Result<()> {
        let position = usize::try_from(position).map_err(io::Error::other)?;
        lock(&self.0).change(Change::Write { position, bytes: slices.concat() });
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let position = usize::try_from(position).map_err(io::Error::other)?;
        let content = lock(&self.0);
        let rest = content.live.get(position..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        let content = &mut *lock(&self.0);
        for change in content.unsynced.drain(..) {
            change.apply(&mut content.durable, usize::MAX);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        lock(&self.0).change(Change::SetLen(len));
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        u64::try_from(lock(&self.0).live.len()).map_err(io::Error::other)
    }

    fn modified_ms(&self) -> io::Result<i64> {
        Ok(0)
    }
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
    inner: Arc<dyn Dir>,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    calls: u64,
    faults: BTreeMap<u64, Fault>,
    is_full: bool,
    is_off: bool,
    syncs: u64,
}

impl FaultyDir {
    /// No faults yet.
    pub fn new(inner: Arc<dyn Dir>) -> Self {
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
    fn meet(&mut self) -> Option<Fault> {
        let call = self.calls;
        self.calls += 1;
        if self.is_off {
            return Some(Fault::PowerOff);
        }
        let fault = self.faults.remove(&call);
        self.is_off = fault == Some(Fault::PowerOff);
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
fn meet(plan: &Mutex<Plan>) -> io::Result<()> {
    lock(plan).meet().map_or(Ok(()), |fault| Err(fault.error()))
}

fn meet_reading(plan: &Mutex<Plan>) -> io::Result<()> {
    if lock(plan).is_off { Err(Fault::PowerOff.error()) } else { Ok(()) }
}

impl FaultyDir {
    fn wrap(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(FaultyFile { inner, plan: Arc::clone(&self.plan) })
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
        meet(&self.plan)?;
        if lock(&self.plan).is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.create(name).map(|file| self.wrap(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        meet_reading(&self.plan)?;
        self.inner.open(name).map(|file| self.wrap(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        meet(&self.plan)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        meet(&self.plan)?;
        self.inner.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        meet(&self.plan)?;
        self.inner.sync()
    }
}

#[derive(Debug)]
struct FaultyFile {
    inner: Arc<dyn File>,
    plan: Arc<Mutex<Plan>>,
}

impl File for FaultyFile {
    fn write_all_at(&self, slices: &[&[u8]], position: u64) -> io::Result<()> {
        let (fault, is_full) = {
            let mut plan = lock(&self.plan);
            (plan.meet(), plan.is_full)
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
        meet(&self.plan)?;
        self.inner.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        meet(&self.plan)?;
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
