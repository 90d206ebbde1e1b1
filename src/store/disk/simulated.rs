//! A disk in memory whose power can be cut, and whose steps can fail.
//!
//! It is as cruel as POSIX allows. Of a file, only what was synced is sure; the rest may
//! be lost, kept, cut or replaced by zeros. Of a directory, each change of a name since
//! its last sync is kept or lost by itself; a rename is two of them, so that a power cut
//! may leave both names or none. Only what has one name in one directory is in order.
//! What could not be synced once is lost, whatever a later sync says.
//!
//! [`states`] draws from what a power cut can leave; [`trial`] puts an operation to it.

pub(crate) mod states;
pub(crate) mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::{Disk, DiskFile, Status, parent};
use crate::store::blob::Identity;

type Ino = u64;

/// What happens when the step with a certain number is about to be taken.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trouble {
    /// Nothing, ever.
    None,
    /// The power is cut: that step and all later ones fail.
    PowerCut(usize),
    /// That step fails with this errno, the later ones are taken.
    Failure(usize, i32),
    /// That call fails with this errno, be it a step or one that only looks.
    FailedCall(usize, i32),
}

/// What becomes of a file's content that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsynced {
    Lost,
    Kept,
    Half,
    Zeros,
    /// Of its pieces those are kept whose bit is set, the others are as they were.
    Torn(u64),
}

/// How large the pieces are of which some are kept: small, as the files of the tests are.
const PIECE: usize = 16;

/// A simulated disk; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug, Clone)]
struct State {
    files: BTreeMap<Ino, Content>,
    directories: BTreeMap<String, Directory>,
    locked: BTreeSet<Ino>,
    next: Ino,
    /// How many steps were taken.
    steps: usize,
    /// How many calls were made, the steps among them.
    calls: usize,
    trouble: Trouble,
    /// What another program puts at a path when a step is about to be taken.
    meddling: Option<(usize, String, Vec<u8>)>,
    has_unnamed_files: bool,
    has_exchange: bool,
    /// Whether syncing does what it says: a test of the tests.
    is_honest: bool,
}

#[derive(Debug, Clone)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    is_synced: bool,
    /// Whether a sync has failed: the kernel tells of lost bytes only once.
    is_lost: bool,
    mode: u32,
    version: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(Ino),
    Directory,
}

#[derive(Debug, Clone, Default)]
struct Directory {
    names: BTreeMap<String, Node>,
    synced: BTreeMap<String, Node>,
    /// The changes since the last sync: a name, and what it stands for then.
    changes: Vec<(String, Option<Node>)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            directories: BTreeMap::from([(".".to_owned(), Directory::default())]),
            locked: BTreeSet::new(),
            next: 1,
            steps: 0,
            calls: 0,
            trouble: Trouble::None,
            meddling: None,
            has_unnamed_files: true,
            has_exchange: true,
            is_honest: true,
        }
    }
}

impl SimulatedDisk {
    /// A disk that has neither unnamed files nor exchanges of names, as some have not.
    pub(crate) fn plain() -> Self {
        let disk = Self::default();
        disk.0.lock().has_unnamed_files = false;
        disk.0.lock().has_exchange = false;
        disk
    }

    /// From now on, syncs do nothing.
    pub(crate) fn lie(&self) {
        self.0.lock().is_honest = false;
    }

    /// A disk of its own that is in the same state.
    pub(crate) fn duplicate(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }

    /// Starts to count steps and calls anew, with this trouble ahead.
    pub(crate) fn expect(&self, trouble: Trouble) {
        let mut state = self.0.lock();
        (state.steps, state.calls) = (0, 0);
        state.trouble = trouble;
    }

    /// When the step with this number is about to be taken, another program replaces what
    /// is at `path`.
    pub(crate) fn meddle(&self, at: usize, path: &str, bytes: &[u8]) {
        self.0.lock().meddling = Some((at, path.to_owned(), bytes.to_vec()));
    }

    /// How many steps were taken since [`Self::expect`].
    pub(crate) fn steps(&self) -> usize {
        self.0.lock().steps
    }

    /// How many calls were made since [`Self::expect`].
    pub(crate) fn calls(&self) -> usize {
        self.0.lock().calls
    }

    /// The paths of all files.
    pub(crate) fn paths(&self) -> Vec<String> {
        let state = self.0.lock();
        let mut paths = Vec::new();
        for (above, directory) in &state.directories {
            let files = directory.names.iter();
            let files = files.filter(|(_, node)| matches!(node, Node::File(_)));
            paths.extend(files.map(|(name, _)| match above.as_str() {
                "." => name.clone(),
                above => format!("{above}/{name}"),
            }));
        }
        paths
    }

    /// A number that tells two disks apart by what their names say.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for path in self.paths() {
            let state = self.0.lock();
            path.hash(&mut hasher);
            if let Ok(Node::File(ino)) = state.node(&path) {
                let content = state.files.get(&ino);
                content.map(|content| &content.bytes).hash(&mut hasher);
            }
        }
        self.0
            .lock()
            .directories
            .keys()
            .for_each(|path| path.hash(&mut hasher));
        hasher.finish()
    }

    /// How many choices a power cut has now: changes of names, and files not synced.
    pub(crate) fn choices(&self) -> (usize, usize) {
        let state = self.0.lock();
        let changes = state.directories.values().map(|d| d.changes.len()).sum();
        (changes, state.unsynced().len())
    }

    /// The disk after a power cut: of the changes of names those are kept whose bit in
    /// `kept` is set, and the content of the unsynced files becomes what `contents` says.
    pub(crate) fn after_power_cut(&self, kept: u64, contents: &[Unsynced]) -> Self {
        let mut state = self.0.lock().clone();
        for (ino, unsynced) in state.unsynced().into_iter().zip(contents) {
            state.file(ino).lose(*unsynced);
        }
        let mut number = 0;
        for directory in state.directories.values_mut() {
            directory.names = directory.synced.clone();
            for (name, node) in std::mem::take(&mut directory.changes) {
                if kept & (1 << number) != 0 {
                    set(&mut directory.names, &name, node);
                }
                number += 1;
            }
            directory.synced = directory.names.clone();
        }
        state.forget_unreachable();
        state.locked.clear();
        state.trouble = Trouble::None;
        Self(Arc::new(Mutex::new(state)))
    }

    /// Puts a file there as another program would, without any sync.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        super::make_directories(self, parent(path))?;
        let mut state = self.0.lock();
        let ino = state.new_file();
        state.file(ino).bytes = bytes.to_vec();
        state.set(path, Some(Node::File(ino)))
    }

    /// Makes all that is there durable.
    pub(crate) fn settle(&self) {
        let mut state = self.0.lock();
        for file in state.files.values_mut() {
            (file.is_synced, file.is_lost) = (true, false);
            file.synced.clone_from(&file.bytes);
        }
        for directory in state.directories.values_mut() {
            directory.synced.clone_from(&directory.names);
            directory.changes.clear();
        }
    }

    pub(crate) fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        super::read_all(&*self.open(path)?, u64::MAX)
    }

    fn handle(&self, ino: Ino) -> Box<dyn DiskFile> {
        Box::new(SimulatedFile {
            disk: self.clone(),
            ino,
            holds_lock: Mutex::new(false),
        })
    }

    /// Looks, unless there is trouble with it.
    fn look(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.0.lock();
        state.call()?;
        Ok(state)
    }

    /// Takes a step, unless there is trouble with it.
    fn step<T>(&self, take: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock();
        let step = state.steps;
        state.steps += 1;
        state.call()?;
        if let Some((_, path, bytes)) = state.meddling.take_if(|(at, ..)| *at == step) {
            let ino = state.new_file();
            state.file(ino).bytes = bytes;
            state.set(&path, Some(Node::File(ino)))?;
        }
        match state.trouble {
            Trouble::PowerCut(at) if step >= at => Err(io::Error::other("the power is cut")),
            Trouble::Failure(at, errno) if step == at => Err(io::Error::from_raw_os_error(errno)),
            _ => take(&mut state),
        }
    }
}

impl Content {
    fn lose(&mut self, unsynced: Unsynced) {
        match unsynced {
            Unsynced::Lost => self.bytes.clone_from(&self.synced),
            Unsynced::Kept => {}
            Unsynced::Half => self.bytes.truncate(self.bytes.len() / 2),
            Unsynced::Zeros => self.bytes.fill(0),
            Unsynced::Torn(kept) => self.tear(kept),
        }
        self.synced.clone_from(&self.bytes);
        (self.is_synced, self.is_lost) = (true, false);
        self.version += 1;
    }

    fn tear(&mut self, kept: u64) {
        let old = self.synced.iter().copied().chain(std::iter::repeat(0));
        for (at, (byte, old)) in self.bytes.iter_mut().zip(old).enumerate() {
            if kept & (1 << (at / PIECE % 64)) == 0 {
                *byte = old;
            }
        }
    }

    fn sync(&mut self) {
        if !self.is_lost {
            self.synced.clone_from(&self.bytes);
            self.is_synced = true;
        }
    }
}

impl State {
    /// Counts a call, which may be the one that fails.
    fn call(&mut self) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        match self.trouble {
            Trouble::FailedCall(at, errno) if call == at => {
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => Ok(()),
        }
    }

    fn unsynced(&self) -> Vec<Ino> {
        let unsynced = self.files.iter().filter(|(_, file)| !file.is_synced);
        unsynced.map(|(ino, _)| *ino).collect()
    }

    fn new_file(&mut self) -> Ino {
        let ino = self.next;
        self.next += 1;
        let content = Content {
            bytes: Vec::new(),
            synced: Vec::new(),
            is_synced: false,
            is_lost: false,
            mode: 0o644,
            version: 0,
        };
        self.files.insert(ino, content);
        ino
    }

    fn file(&mut self, ino: Ino) -> &mut Content {
        self.files.get_mut(&ino).expect("an open file is kept")
    }

    fn node(&self, path: &str) -> io::Result<Node> {
        if path == "." {
            return Ok(Node::Directory);
        }
        let directory = self.directories.get(parent(path));
        let node = directory.and_then(|directory| directory.names.get(name(path)));
        node.copied().ok_or_else(|| errno(libc::ENOENT))
    }

    fn set(&mut self, path: &str, node: Option<Node>) -> io::Result<()> {
        let directory = self.directories.get_mut(parent(path));
        let directory = directory.ok_or_else(|| errno(libc::ENOENT))?;
        set(&mut directory.names, name(path), node);
        directory.changes.push((name(path).to_owned(), node));
        Ok(())
    }

    fn add(&mut self, path: &str, node: Node) -> io::Result<()> {
        match self.node(path) {
            Ok(_) => Err(errno(libc::EEXIST)),
            Err(_) => self.set(path, Some(node)),
        }
    }

    fn status(&self, node: Node) -> Status {
        let (inode, content) = match node {
            Node::File(ino) => (ino, self.files.get(&ino)),
            Node::Directory => (0, None),
        };
        Status {
            identity: Identity {
                device: 1,
                inode,
                size: content.map_or(0, |content| content.bytes.len() as u64),
                mtime: (content.map_or(0, |content| content.version), 0),
                ctime: (0, 0),
            },
            is_file: content.is_some(),
            owner: (0, 0),
            mode: content.map_or(0o755, |content| content.mode),
        }
    }

    /// Directories whose own name was lost are gone with all that is in them.
    fn forget_unreachable(&mut self) {
        let lost: Vec<String> = self
            .directories
            .keys()
            .filter(|path| {
                let mut above = path.as_str();
                loop {
                    if self.node(above).is_err() {
                        return true;
                    }
                    if above == "." {
                        return false;
                    }
                    above = parent(above);
                }
            })
            .cloned()
            .collect();
        for path in lost {
            self.directories.remove(&path);
        }
    }
}

fn set(names: &mut BTreeMap<String, Node>, name: &str, node: Option<Node>) {
    match node {
        Some(node) => drop(names.insert(name.to_owned(), node)),
        None => drop(names.remove(name)),
    }
}

fn errno(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let node = self.look()?.node(path)?;
        match node {
            Node::File(ino) => Ok(self.handle(ino)),
            Node::Directory => Ok(self.handle(0)),
        }
    }

    fn status(&self, path: &str) -> io::Result<Status> {
        let state = self.look()?;
        let node = state.node(path)?;
        Ok(state.status(node))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let state = self.look()?;
        let directory = state.directories.get(directory);
        let directory = directory.ok_or_else(|| errno(libc::ENOENT))?;
        Ok(directory.names.keys().cloned().collect())
    }

    fn create_unnamed(&self, directory: &str) -> io::Result<Box<dyn DiskFile>> {
        let ino = self.step(|state| {
            if !state.has_unnamed_files {
                return Err(io::ErrorKind::Unsupported.into());
            }
            if !state.directories.contains_key(directory) {
                return Err(errno(libc::ENOENT));
            }
            Ok(state.new_file())
        })?;
        Ok(self.handle(ino))
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let ino = self.step(|state| {
            let ino = state.new_file();
            state.add(path, Node::File(ino)).map(|()| ino)
        })?;
        Ok(self.handle(ino))
    }

    /// The file has no name here and nothing of it is synced yet, whatever was done elsewhere.
    fn adopt(&self, file: File) -> io::Result<Box<dyn DiskFile>> {
        let size = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; size];
        file.read_exact_at(&mut bytes, 0)?;
        let mut state = self.look()?;
        if !state.has_unnamed_files {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let ino = state.new_file();
        state.file(ino).bytes = bytes;
        drop(state);
        Ok(self.handle(ino))
    }

    fn open_lock(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        match self.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(path),
            other => other,
        }
    }

    fn make_directory(&self, path: &str) -> io::Result<()> {
        self.step(|state| {
            state.add(path, Node::Directory)?;
            let directories = &mut state.directories;
            directories.insert(path.to_owned(), Directory::default());
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(|state| {
            let node = state.node(from)?;
            state.set(to, Some(node))?;
            state.set(from, None)
        })
    }

    fn exchange(&self, one: &str, other: &str) -> io::Result<()> {
        self.step(|state| {
            if !state.has_exchange {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let nodes = (state.node(one)?, state.node(other)?);
            state.set(one, Some(nodes.1))?;
            state.set(other, Some(nodes.0))
        })
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        self.step(|state| {
            state.node(path)?;
            state.set(path, None)
        })
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        self.step(|state| {
            let is_honest = state.is_honest;
            let directory = state.directories.get_mut(path);
            let directory = directory.ok_or_else(|| errno(libc::ENOENT))?;
            if is_honest {
                directory.synced.clone_from(&directory.names);
                directory.changes.clear();
            }
            Ok(())
        })
    }
}

/// An open file; number 0 is a directory, of which only the lock is of use.
#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    ino: Ino,
    holds_lock: Mutex<bool>,
}

impl DiskFile for SimulatedFile {
    fn status(&self) -> io::Result<Status> {
        let node = match self.ino {
            0 => Node::Directory,
            ino => Node::File(ino),
        };
        Ok(self.disk.look()?.status(node))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.look()?;
        let bytes = &state.file(self.ino).bytes;
        let start = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
        let len = buf.len().min(bytes.len() - start);
        buf[..len].copy_from_slice(&bytes[start..start + len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.step(|state| {
            let file = state.file(self.ino);
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let end = start + bytes.len();
            file.bytes.resize(file.bytes.len().max(end), 0);
            file.bytes[start..end].copy_from_slice(bytes);
            file.is_synced = false;
            file.version += 1;
            Ok(())
        })
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.disk.step(|state| {
            let file = state.file(self.ino);
            file.bytes
                .resize(usize::try_from(size).map_err(io::Error::other)?, 0);
            file.is_synced = false;
            file.version += 1;
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.disk.step(|state| {
            let is_honest = state.is_honest;
            let file = state.file(self.ino);
            if is_honest {
                file.sync();
            }
            Ok(())
        });
        if synced.is_err() {
            self.disk.0.lock().file(self.ino).is_lost = true;
        }
        synced
    }

    fn link(&self, path: &str) -> io::Result<()> {
        self.disk
            .step(|state| state.add(path, Node::File(self.ino)))
    }

    fn imitate(&self, model: &Status) -> io::Result<()> {
        self.disk.step(|state| {
            state.file(self.ino).mode = model.mode;
            Ok(())
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.disk.step(|state| {
            let is_free = state.locked.insert(self.ino);
            *self.holds_lock.lock() |= is_free;
            Ok(is_free)
        })
    }

    fn real(&self) -> Option<&File> {
        None
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        if *self.holds_lock.lock() {
            self.disk.0.lock().locked.remove(&self.ino);
        }
    }
}
