//! A disk in memory whose power can be cut, and whose steps can fail.
//!
//! It is as cruel as POSIX allows. Of a file, only what was synced is sure; the rest may
//! be lost, kept, cut or replaced by zeros. Of a directory, each change of a name since
//! its last sync is kept or lost by itself; a rename is two of them, so that a power cut
//! may leave both names or none. Only what has one name in one directory is in order.
//! What could not be synced once is lost, whatever a later sync says.
//!
//! [`states`] draws from what a power cut can leave; [`trial`] puts an operation to it.

pub(crate) mod below;
pub(crate) mod sight;
mod state;
pub(crate) mod states;
pub(crate) mod trial;

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use self::state::{Directory, Ino, Node, State, errno, set};
use super::{Disk, DiskFile, Status, parent};
use crate::store::blob::file_clock;

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

/// A simulated disk; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

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

impl Disk for SimulatedDisk {
    /// Files here have other times, but never two states with one.
    fn stamp(&self) -> Option<(i64, i64)> {
        Some(file_clock())
    }

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
