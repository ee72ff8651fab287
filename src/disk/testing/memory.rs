//! A file system in memory that knows of every byte and every name whether a sync made it durable,
//! and what a crash may leave of the rest.

use super::{super::dir, lock};
use crate::clock::Clock;
use std::{
    collections::BTreeMap,
    io,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex},
};

/// What one write to a disk leaves whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What a crash leaves of what no sync made durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unsynced {
    /// Everything, and it is still unsynced: the process was killed, the machine runs on.
    Kept,
    /// Nothing.
    Dropped,
    /// Of each file all but the last write, and of that some first bytes; of names nothing.
    Torn {
        /// Bytes of the last write that are there.
        bytes_kept: usize,
    },
    /// Of each file and directory what chance says: all, nothing, the first calls with the last
    /// torn at a sector, any calls, or any sectors.
    Scattered {
        /// The same seed leaves the same.
        seed: u64,
    },
}

/// The files and directories. Clones share their contents.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    image: Arc<Mutex<Image>>,
    clock: Clock,
}

/// A disk at one moment: what is seen, what is durable, and the calls between the two.
#[derive(Clone, Debug)]
pub struct Image {
    nodes: Vec<Node>,
    /// Every changing call since [`Image`] was put under a disk, if that one records.
    journal: Option<Vec<Call>>,
}

type NodeId = usize;
const ROOT: NodeId = 0;

#[derive(Clone, Debug)]
enum Node {
    Dir(Names),
    File(Content),
}

#[derive(Clone, Debug, Default)]
struct Names {
    live: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
    unsynced: Vec<Naming>,
}

/// A change of the names in one directory.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Naming {
    Put(String, NodeId),
    Move(String, String, NodeId),
    Remove(String),
}

#[derive(Clone, Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    modified_ms: i64,
}

/// A change of one file.
#[derive(Clone, Debug)]
struct Change {
    kind: ChangeKind,
    /// A sync failed after it: no later one makes it durable.
    is_lost: bool,
}

#[derive(Clone, Debug)]
enum ChangeKind {
    Write { position: usize, bytes: Arc<[u8]> },
    SetLen(usize),
}

/// One changing call, or a mark that a test set between two of them.
#[derive(Clone, Debug)]
pub struct Call(CallKind);

#[derive(Clone, Debug)]
enum CallKind {
    Create { dir: NodeId, name: String, is_dir: bool },
    Name { dir: NodeId, naming: Naming },
    SyncNames { dir: NodeId },
    Change { file: NodeId, kind: ChangeKind, at_ms: i64 },
    Sync { file: NodeId },
    Lose { file: NodeId },
    Mark(u64),
}

impl Call {
    /// The number of a mark.
    pub fn mark(&self) -> Option<u64> {
        match self.0 {
            CallKind::Mark(number) => Some(number),
            _ => None,
        }
    }

    /// Which file or directory it is about, and what it does, without the bytes.
    pub fn summary(&self) -> (usize, String) {
        match &self.0 {
            CallKind::Create { dir, name, .. } => (*dir, format!("create {name}")),
            CallKind::Name { dir, naming } => (*dir, format!("{naming:?}")),
            CallKind::SyncNames { dir } => (*dir, "sync".to_owned()),
            CallKind::Change { file, kind: ChangeKind::SetLen(len), .. } => {
                (*file, format!("set_len {len}"))
            }
            CallKind::Change { file, kind: ChangeKind::Write { position, bytes }, .. } => {
                (*file, format!("write {position}+{}", bytes.len()))
            }
            CallKind::Sync { file } => (*file, "sync".to_owned()),
            CallKind::Lose { file } => (*file, "failed sync".to_owned()),
            CallKind::Mark(number) => (usize::MAX, format!("mark {number}")),
        }
    }
}

impl Default for Image {
    fn default() -> Self {
        Self { nodes: vec![Node::Dir(Names::default())], journal: None }
    }
}

impl Image {
    /// Does a recorded call again, on a disk that is as it was before it.
    pub fn replay(&mut self, call: &Call) {
        self.run(call.0.clone());
    }

    /// What is there after a crash at this moment. What a power cut leaves is durable.
    #[must_use]
    pub fn crash(&self, unsynced: Unsynced) -> Self {
        if unsynced == Unsynced::Kept {
            return Self { nodes: self.nodes.clone(), journal: None };
        }
        let mut chance = match unsynced {
            Unsynced::Scattered { seed } => Some(Chance::new(seed)),
            _ => None,
        };
        let nodes = self.nodes.iter().map(|node| match node {
            Node::Dir(names) => Node::Dir(names.crash(chance.as_mut())),
            Node::File(content) => Node::File(content.crash(unsynced, chance.as_mut())),
        });
        Self { nodes: nodes.collect(), journal: None }
    }

    fn run(&mut self, call: CallKind) {
        match &call {
            CallKind::Create { dir, name, is_dir } => {
                let node = self.nodes.len();
                self.nodes.push(match is_dir {
                    true => Node::Dir(Names::default()),
                    false => Node::File(Content::default()),
                });
                self.names(*dir).change(Naming::Put(name.clone(), node));
            }
            CallKind::Name { dir, naming } => self.names(*dir).change(naming.clone()),
            CallKind::SyncNames { dir } => self.names(*dir).sync(),
            CallKind::Change { file, kind, at_ms } => {
                self.content(*file).change(kind.clone(), *at_ms);
            }
            CallKind::Sync { file } => self.content(*file).sync(),
            CallKind::Lose { file } => {
                self.content(*file).unsynced.iter_mut().for_each(|change| change.is_lost = true);
            }
            CallKind::Mark(_) => (),
        }
        if let Some(journal) = &mut self.journal {
            journal.push(Call(call));
        }
    }

    fn names(&mut self, dir: NodeId) -> &mut Names {
        match &mut self.nodes[dir] {
            Node::Dir(names) => names,
            Node::File(_) => unreachable!("handles know what they are of"),
        }
    }

    fn content(&mut self, file: NodeId) -> &mut Content {
        match &mut self.nodes[file] {
            Node::File(content) => content,
            Node::Dir(_) => unreachable!("handles know what they are of"),
        }
    }
}

impl Names {
    fn change(&mut self, naming: Naming) {
        naming.apply(&mut self.live);
        self.unsynced.push(naming);
    }

    fn sync(&mut self) {
        self.durable = self.live.clone();
        self.unsynced.clear();
    }

    fn crash(&self, chance: Option<&mut Chance>) -> Self {
        let mut left = self.durable.clone();
        if let Some(chance) = chance {
            let fate = chance.fate(self.unsynced.len());
            for (index, naming) in self.unsynced.iter().enumerate() {
                if fate.keeps(index, chance) {
                    naming.apply(&mut left);
                }
            }
        }
        Self { durable: left.clone(), live: left, unsynced: Vec::new() }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, NodeId>) {
        match self {
            Self::Put(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Move(from, to, node) => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
            Self::Remove(name) => drop(names.remove(name)),
        }
    }
}

impl Content {
    fn change(&mut self, kind: ChangeKind, at_ms: i64) {
        self.modified_ms = at_ms;
        kind.apply(&mut self.live, |_| true);
        self.unsynced.push(Change { kind, is_lost: false });
    }

    /// What was lost by a failed sync is gone: its pages count as written.
    fn sync(&mut self) {
        for change in self.unsynced.drain(..).filter(|change| !change.is_lost) {
            change.kind.apply(&mut self.durable, |_| true);
        }
    }

    fn crash(&self, unsynced: Unsynced, chance: Option<&mut Chance>) -> Self {
        let mut left = self.durable.clone();
        if let (Unsynced::Torn { bytes_kept }, Some((last, before))) =
            (unsynced, self.unsynced.split_last())
        {
            before.iter().for_each(|change| change.kind.apply(&mut left, |_| true));
            last.kind.apply_first(&mut left, bytes_kept);
        }
        if let Some(chance) = chance {
            let fate = chance.fate(self.unsynced.len());
            for (index, change) in self.unsynced.iter().enumerate() {
                if fate.tears(index) {
                    let sectors = chance.below(8);
                    change.kind.apply(&mut left, |sector| sector < sectors);
                } else if fate == Fate::Sectors {
                    change.kind.apply(&mut left, |_| chance.coin());
                } else if fate.keeps(index, chance) {
                    change.kind.apply(&mut left, |_| true);
                }
            }
        }
        let modified_ms = self.modified_ms;
        Self { durable: left.clone(), live: left, unsynced: Vec::new(), modified_ms }
    }
}

impl ChangeKind {
    /// Does the sectors that `keeps` wants, numbered from the first that it touches.
    fn apply(&self, to: &mut Vec<u8>, mut keeps: impl FnMut(usize) -> bool) {
        match self {
            Self::SetLen(len) => {
                if keeps(0) {
                    to.resize(*len, 0);
                }
            }
            Self::Write { position, bytes } => {
                let (mut at, mut sector) = (0, 0);
                while at < bytes.len() {
                    let to_boundary = SECTOR_BYTES - (position + at) % SECTOR_BYTES;
                    let end = bytes.len().min(at + to_boundary);
                    if keeps(sector) {
                        put(to, position + at, &bytes[at..end]);
                    }
                    (at, sector) = (end, sector + 1);
                }
            }
        }
    }

    fn apply_first(&self, to: &mut Vec<u8>, bytes_kept: usize) {
        match self {
            Self::SetLen(len) => to.resize(*len, 0),
            Self::Write { position, bytes } => {
                put(to, *position, &bytes[..bytes.len().min(bytes_kept)]);
            }
        }
    }
}

fn put(to: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    if to.len() < position + bytes.len() {
        to.resize(position + bytes.len(), 0);
    }
    to[position..position + bytes.len()].copy_from_slice(bytes);
}

/// What becomes of the unsynced calls of one file or directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    AllKept,
    AllDropped,
    /// So many first ones are kept; the next, if it is a write, is torn.
    First(usize),
    AnyCalls,
    Sectors,
}

impl Fate {
    fn keeps(self, index: usize, chance: &mut Chance) -> bool {
        match self {
            Self::AllKept => true,
            Self::AllDropped => false,
            Self::First(count) => index < count,
            Self::AnyCalls | Self::Sectors => chance.coin(),
        }
    }

    fn tears(self, index: usize) -> bool {
        matches!(self, Self::First(count) if count == index)
    }
}

/// Numbers by chance, the same for the same seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % bound).expect("below a usize")
    }

    /// One of two.
    pub const fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn fate(&mut self, calls: usize) -> Fate {
        match self.below(5) {
            0 => Fate::AllKept,
            1 => Fate::AllDropped,
            2 => Fate::First(self.below(calls + 1)),
            3 => Fate::AnyCalls,
            _ => Fate::Sectors,
        }
    }
}

impl Memory {
    pub(super) fn of(image: Image, clock: Clock) -> Self {
        Self { image: Arc::new(Mutex::new(image)), clock }
    }

    pub(super) fn record(&self) {
        lock(&self.image).journal = Some(Vec::new());
    }

    pub(super) fn journal(&self) -> Vec<Call> {
        lock(&self.image).journal.clone().unwrap_or_default()
    }

    pub(super) fn journal_len(&self) -> usize {
        lock(&self.image).journal.as_ref().map_or(0, Vec::len)
    }

    pub(super) fn mark(&self, number: u64) {
        lock(&self.image).run(CallKind::Mark(number));
    }

    pub(super) fn image(&self) -> Image {
        lock(&self.image).clone()
    }

    pub(super) fn root(&self, path: impl Into<PathBuf>) -> MemoryDir {
        MemoryDir { memory: self.clone(), node: ROOT, path: path.into() }
    }
}

/// A directory in memory. Clones share their contents.
#[derive(Clone, Debug)]
pub struct MemoryDir {
    memory: Memory,
    node: NodeId,
    path: PathBuf,
}

impl Default for MemoryDir {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDir {
    /// An empty one, on a disk of its own.
    pub fn new() -> Self {
        Memory::of(Image::default(), Clock::manual(0)).root("memory")
    }

    /// The directory as it is after the power went and came back; this one stays as it is.
    #[must_use]
    pub fn power_cut(&self, unsynced: Unsynced) -> Self {
        let memory = Memory::of(self.memory.image().crash(unsynced), self.memory.clock.clone());
        Self { memory, node: self.node, path: self.path.clone() }
    }

    /// A copy that shares nothing with this one.
    #[must_use]
    pub fn copy(&self) -> Self {
        self.power_cut(Unsynced::Kept)
    }

    /// Every file with its bytes.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let mut image = lock(&self.memory.image);
        let names = image.names(self.node).live.clone();
        let files = names.into_iter().filter_map(|(name, node)| match &image.nodes[node] {
            Node::File(content) => Some((name, content.live.clone())),
            Node::Dir(_) => None,
        });
        files.collect()
    }

    /// Gives a file, new or there already (and perhaps open), these durable bytes.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut image = lock(&self.memory.image);
        let there = image.names(self.node).live.get(name).copied();
        let node = there.unwrap_or_else(|| {
            let node = image.nodes.len();
            image.run(CallKind::Create { dir: self.node, name: name.to_owned(), is_dir: false });
            node
        });
        let durable = bytes.clone();
        *image.content(node) = Content { live: bytes, durable, ..Content::default() };
        image.names(self.node).durable.insert(name.to_owned(), node);
    }

    /// The directory of that name in this one.
    pub(super) fn child(&self, name: &str) -> io::Result<Self> {
        let node = self.find(name)?;
        let memory = self.memory.clone();
        match &lock(&self.memory.image).nodes[node] {
            Node::Dir(_) => Ok(Self { memory, node, path: self.path.join(name) }),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn make_child(&self, name: &str) {
        let call = CallKind::Create { dir: self.node, name: name.to_owned(), is_dir: true };
        lock(&self.memory.image).run(call);
    }

    /// The directory at `path`, which is absolute, in the root.
    pub(super) fn descend(&self, path: &Path) -> io::Result<Self> {
        let mut found = self.clone();
        for name in names_of(path) {
            found = found.child(&name)?;
        }
        Ok(found)
    }

    pub(super) fn open_file(&self, name: &str) -> io::Result<MemoryFile> {
        let file = self.find(name)?;
        match &lock(&self.memory.image).nodes[file] {
            Node::File(_) => Ok(MemoryFile { memory: self.memory.clone(), file }),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn create_file(&self, name: &str) -> io::Result<MemoryFile> {
        if self.find(name).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut image = lock(&self.memory.image);
        let file = image.nodes.len();
        image.run(CallKind::Create { dir: self.node, name: name.to_owned(), is_dir: false });
        Ok(MemoryFile { memory: self.memory.clone(), file })
    }

    fn find(&self, name: &str) -> io::Result<NodeId> {
        let mut image = lock(&self.memory.image);
        image.names(self.node).live.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
    }
}

/// The names on the way from the root to `path`.
pub(super) fn names_of(path: &Path) -> Vec<String> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    names.collect()
}

impl dir::Dir for MemoryDir {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.memory.image).names(self.node).live.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn dir::File>> {
        Ok(Arc::new(self.create_file(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn dir::File>> {
        Ok(Arc::new(self.open_file(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let naming = Naming::Move(from.to_owned(), to.to_owned(), self.find(from)?);
        lock(&self.memory.image).run(CallKind::Name { dir: self.node, naming });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.find(name)?;
        let naming = Naming::Remove(name.to_owned());
        lock(&self.memory.image).run(CallKind::Name { dir: self.node, naming });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        lock(&self.memory.image).run(CallKind::SyncNames { dir: self.node });
        Ok(())
    }
}

/// A file in memory.
#[derive(Clone, Debug)]
pub(super) struct MemoryFile {
    memory: Memory,
    file: NodeId,
}

impl MemoryFile {
    /// A sync fails: what is unsynced is still read, and no later sync makes it durable.
    pub(super) fn lose_unsynced(&self) {
        lock(&self.memory.image).run(CallKind::Lose { file: self.file });
    }

    fn change(&self, kind: ChangeKind) {
        let (file, at_ms) = (self.file, self.memory.clock.now_ms());
        lock(&self.memory.image).run(CallKind::Change { file, kind, at_ms });
    }
}

impl dir::File for MemoryFile {
    fn write_all_at(&self, slices: &[&[u8]], position: u64) -> io::Result<()> {
        let position = usize::try_from(position).map_err(io::Error::other)?;
        self.change(ChangeKind::Write { position, bytes: slices.concat().into() });
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let position = usize::try_from(position).map_err(io::Error::other)?;
        let mut image = lock(&self.memory.image);
        let rest = image.content(self.file).live.get(position..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        lock(&self.memory.image).run(CallKind::Sync { file: self.file });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(ChangeKind::SetLen(usize::try_from(len).map_err(io::Error::other)?));
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let length = lock(&self.memory.image).content(self.file).live.len();
        u64::try_from(length).map_err(io::Error::other)
    }

    fn modified_ms(&self) -> io::Result<i64> {
        Ok(lock(&self.memory.image).content(self.file).modified_ms)
    }
}
