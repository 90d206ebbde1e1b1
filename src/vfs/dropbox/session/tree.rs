//! The files of one session: a private directory on the layout's file system.
//!
//! ```text
//! LAYOUT/.ocifs/sessions/NAME/     0700, locked by the daemon that shows it
//! ├── tree/                        the session's own directory
//! ├── hidden/                      a file for each blob of the layout that was removed here
//! └── handed                       whose files were that are on their way into the layout
//! ```
//!
//! Invariant: only this process changes what is in `tree`, so what was learned of it stays
//! true. Where that is broken by somebody, the answer is `ESTALE`, never another file.
//!
//! Locks, in this order: the gate, the place of an inode, the tables. Requests that look a
//! name up and act on it hold the gate; those that take names away hold it alone. It is
//! taken once for each request and never while another request is waited for.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use lru::LruCache;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::Sessions;
use super::hashing::Hasher;
use super::inode::{Inode, Place, system};
use super::lender::Lender;
use super::limits::Meter;
use crate::vfs::attr::FileKind;
use crate::vfs::error::Error;

/// The session's own directory in its place on the disk.
pub(super) const TREE: &str = "tree";

/// How many directories of a session are kept open.
const DIRECTORIES: NonZeroUsize = NonZeroUsize::new(64).expect("it is not zero");

/// Numbers of the trees that this process has shown.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What may be done with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Everything.
    Open,
    /// It is being published: it is only read.
    Sealed,
    /// A file of it is the layout's too, and it is only read until the next start.
    SealedForGood,
    /// It was published or removed.
    Gone,
}

/// The files of one session.
#[derive(Debug)]
pub(super) struct Tree {
    number: u64,
    /// The directory that holds the session's own; its lock says whose it is.
    place: OwnedFd,
    root: Arc<OwnedFd>,
    root_number: u64,
    device: u64,
    gate: RwLock<Phase>,
    known: Mutex<HashMap<u64, Weak<Inode>>>,
    directories: Mutex<LruCache<u64, Arc<OwnedFd>>>,
    /// The numbers of the files that are open to be written to.
    writers: Mutex<HashMap<u64, u64>>,
    /// The numbers of the files that may still be mapped by who closed them.
    suspects: Mutex<HashMap<u64, Arc<Inode>>>,
    lender: Lender,
    hasher: Arc<Hasher>,
    sessions: Weak<Sessions>,
    meter: Meter,
    /// The limit that was told last, until one has kept to it.
    told: Mutex<Option<&'static str>>,
    /// When somebody last asked for something in it.
    used: Mutex<Instant>,
}

impl Tree {
    /// The files in `place`, a directory of the sessions; `lender` knows the layout's
    /// blobs, `meter` counts for a user what is there.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(
        place: OwnedFd,
        lender: Lender,
        hasher: Arc<Hasher>,
        sessions: Weak<Sessions>,
        meter: impl FnOnce(u32) -> Meter,
    ) -> Result<Arc<Self>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&place, TREE, flags, Mode::empty()).map_err(system)?;
        let stat = rustix::fs::fstat(&root).map_err(system)?;
        let meter = meter(stat.st_uid);
        meter.count(&root)?;
        Ok(Arc::new(Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            place,
            root: Arc::new(root),
            root_number: stat.st_ino,
            device: stat.st_dev,
            gate: RwLock::new(Phase::Open),
            known: Mutex::default(),
            directories: Mutex::new(LruCache::new(DIRECTORIES)),
            writers: Mutex::default(),
            suspects: Mutex::default(),
            lender,
            hasher,
            sessions,
            meter,
            told: Mutex::default(),
            used: Mutex::new(Instant::now()),
        }))
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn device(&self) -> u64 {
        self.device
    }

    pub(super) fn place(&self) -> &OwnedFd {
        &self.place
    }

    pub(super) fn root_fd(&self) -> &Arc<OwnedFd> {
        &self.root
    }

    /// User and group that the session's own directory belongs to.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn owner(&self) -> Result<(u32, u32), Error> {
        let stat = rustix::fs::fstat(&self.root).map_err(system)?;
        Ok((stat.st_uid, stat.st_gid))
    }

    pub(super) fn lender(&self) -> &Lender {
        &self.lender
    }

    /// The table that it is in.
    pub(super) fn sessions(&self) -> Option<Arc<Sessions>> {
        self.sessions.upgrade()
    }

    pub(super) fn hasher(&self) -> &Arc<Hasher> {
        &self.hasher
    }

    /// Counts what is in it.
    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Passes on how a request has ended. That a limit was hit is told beside the session
    /// too, once. The gate is not held.
    pub(super) fn tell<T>(self: &Arc<Self>, result: Result<T, Error>) -> Result<T, Error> {
        let code = match &result {
            Err(Error::Limit(fault)) => Some(fault.code),
            Ok(_) => None,
            Err(_) => return result,
        };
        let former = std::mem::replace(&mut *self.told.lock(), code);
        if let (Err(error), Some(sessions)) = (&result, self.sessions())
            && former != code
        {
            sessions.tell(self, error);
        }
        result
    }

    /// When somebody last asked for something in it.
    pub(super) fn used(&self) -> Instant {
        *self.used.lock()
    }

    /// Ends the session, if nobody is at work on it; whether it has ended.
    pub(super) fn give_up(&self) -> bool {
        let mut gate = self.gate.write();
        let is_idle = *gate == Phase::Open && !self.has_writers();
        if is_idle {
            *gate = Phase::Gone;
            self.meter.end();
        }
        is_idle
    }

    /// Lets a request look at names.
    ///
    /// # Errors
    /// [`Error::Stale`] when the session has gone.
    pub(super) fn look(&self) -> Result<RwLockReadGuard<'_, Phase>, Error> {
        *self.used.lock() = Instant::now();
        let gate = self.gate.read();
        match *gate {
            Phase::Gone => Err(Error::Stale),
            Phase::Open | Phase::Sealed | Phase::SealedForGood => Ok(gate),
        }
    }

    /// Lets a request change a file, or make one.
    ///
    /// # Errors
    /// [`Error::Busy`] while the session is being published; [`Error::Stale`] after.
    pub(super) fn change(&self) -> Result<RwLockReadGuard<'_, Phase>, Error> {
        *self.used.lock() = Instant::now();
        let gate = self.gate.read();
        allowed(*gate)?;
        Ok(gate)
    }

    /// Lets a request take names away.
    ///
    /// # Errors
    /// As [`Tree::change`].
    pub(super) fn rearrange(&self) -> Result<RwLockWriteGuard<'_, Phase>, Error> {
        *self.used.lock() = Instant::now();
        let gate = self.gate.write();
        allowed(*gate)?;
        Ok(gate)
    }

    pub(super) fn phase(&self) -> Phase {
        *self.gate.read()
    }

    /// Seals the session, if it is open.
    ///
    /// # Errors
    /// As [`Tree::change`].
    pub(super) fn seal(&self) -> Result<(), Error> {
        let mut gate = self.gate.write();
        allowed(*gate)?;
        *gate = Phase::Sealed;
        Ok(())
    }

    /// Opens a sealed session again, if it has not gone.
    pub(super) fn unseal(&self) {
        let mut gate = self.gate.write();
        if *gate == Phase::Sealed {
            *gate = Phase::Open;
        }
    }

    /// Lets a sealed session not be opened again.
    pub(super) fn seal_for_good(&self) {
        *self.gate.write() = Phase::SealedForGood;
    }

    /// Ends the session.
    pub(super) fn end(&self) {
        *self.gate.write() = Phase::Gone;
        self.meter.end();
    }

    /// The session's own directory.
    pub(super) fn root(self: &Arc<Self>) -> Arc<Inode> {
        self.meet(self.root_number, FileKind::Directory, || Place::Root)
    }

    /// What is called `name` in `parent`. The gate is held.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn child(
        self: &Arc<Self>,
        parent: &Arc<Inode>,
        name: &[u8],
    ) -> Result<Option<Arc<Inode>>, Error> {
        if parent.kind() != FileKind::Directory {
            return Err(Error::NotDirectory);
        }
        let directory = match parent.directory() {
            // Nothing is found in what was removed.
            Err(Error::Stale) if parent.is_gone() => return Ok(None),
            other => other?,
        };
        match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Something was mounted there by somebody else.
            Ok(stat) if stat.st_dev != self.device => Err(Error::Stale),
            Ok(stat) => Ok(Some(self.found(&stat, parent, name))),
            Err(rustix::io::Errno::NOENT) => Ok(self.lent(parent, name)),
            Err(errno) => Err(system(errno)),
        }
    }

    /// The blob of the layout that is found under this name, if any.
    pub(super) fn lent(self: &Arc<Self>, parent: &Arc<Inode>, name: &[u8]) -> Option<Arc<Inode>> {
        let digest = self.lender.find(parent, name)?;
        Some(Arc::new(Inode::lent(self, parent, name, digest)))
    }

    /// What the disk describes as `stat` under this name.
    pub(super) fn found(
        self: &Arc<Self>,
        stat: &Stat,
        parent: &Arc<Inode>,
        name: &[u8],
    ) -> Arc<Inode> {
        let place = || Place::Named(parent.clone(), name.to_vec());
        self.meet(stat.st_ino, file_kind(stat), place)
    }

    fn meet(
        self: &Arc<Self>,
        number: u64,
        kind: FileKind,
        place: impl FnOnce() -> Place,
    ) -> Arc<Inode> {
        let mut known = self.known.lock();
        let former = known.get(&number).and_then(Weak::upgrade);
        match former {
            Some(inode) if !inode.is_gone() && inode.kind() == kind => {
                drop(known);
                if !inode.is_root() {
                    inode.put(place());
                }
                inode
            }
            former => {
                let generation = former.as_ref().map_or(0, |former| former.generation() + 1);
                let inode = Arc::new(Inode::new(self, (number, generation), kind, place()));
                known.insert(number, Arc::downgrade(&inode));
                drop(known);
                // May be the last one who knows it, which takes the lock.
                drop(former);
                inode
            }
        }
    }

    /// Knows a lent blob that has become a file of its own by its new number.
    pub(super) fn adopt(&self, inode: &Arc<Inode>) {
        let former = self
            .known
            .lock()
            .insert(inode.number(), Arc::downgrade(inode));
        drop(former);
    }

    /// Knows a file no longer by its number, which is that of a blob of the layout now.
    pub(super) fn drop_known(&self, inode: &Arc<Inode>) {
        let former = self.known.lock().remove(&inode.number());
        drop(former);
    }

    /// The file with this number, if it is known.
    pub(super) fn known(&self, number: u64) -> Option<Arc<Inode>> {
        let known = self.known.lock();
        let found = known.get(&number).and_then(Weak::upgrade);
        drop(known);
        found.filter(|inode| !inode.is_gone())
    }

    /// Takes a file out of the table that nobody knows any more.
    pub(super) fn forget(&self, inode: &Inode) {
        let mut known = self.known.lock();
        let number = inode.number();
        let is_it = |known: &Weak<Inode>| std::ptr::eq(known.as_ptr(), inode);
        if known.get(&number).is_some_and(is_it) {
            known.remove(&number);
            if known.capacity() > 4096 && known.len() < known.capacity() / 16 {
                let room = known.len() * 2;
                known.shrink_to(room);
            }
        }
    }

    pub(super) fn kept_directory(&self, number: u64) -> Option<Arc<OwnedFd>> {
        self.directories.lock().get(&number).cloned()
    }

    pub(super) fn keep_directory(&self, number: u64, fd: &Arc<OwnedFd>) {
        let former = self.directories.lock().push(number, fd.clone());
        drop(former);
    }

    /// Lets go of a directory that was removed: its number may be another's soon.
    pub(super) fn drop_directory(&self, number: u64) {
        let former = self.directories.lock().pop(&number);
        drop(former);
    }

    pub(super) fn add_writer(&self, number: u64) {
        *self.writers.lock().entry(number).or_default() += 1;
    }

    pub(super) fn remove_writer(&self, number: u64) {
        let mut writers = self.writers.lock();
        if let Some(count) = writers.get_mut(&number) {
            *count -= 1;
            if *count == 0 {
                writers.remove(&number);
            }
        }
    }

    /// One of the files that are open to be written to.
    pub(super) fn a_writer(&self) -> Option<Arc<Inode>> {
        let number = *self.writers.lock().keys().next()?;
        self.known(number)
    }

    pub(super) fn has_writers(&self) -> bool {
        !self.writers.lock().is_empty()
    }

    /// Notes a file that may be mapped by somebody who has closed it.
    pub(super) fn suspect(&self, inode: &Arc<Inode>) {
        let former = self.suspects.lock().insert(inode.number(), inode.clone());
        drop(former);
    }

    pub(super) fn is_suspect(&self, inode: &Arc<Inode>) -> bool {
        self.suspects.lock().contains_key(&inode.number())
    }

    /// Lets go of all files that may still be mapped, each of which holds the tree: nobody
    /// will publish it any more.
    pub(super) fn clear_suspects(&self) {
        let suspects = std::mem::take(&mut *self.suspects.lock());
        drop(suspects);
    }

    pub(super) fn clear_suspect(&self, number: u64) {
        let former = self.suspects.lock().remove(&number);
        drop(former);
    }

    /// The files that may still be mapped.
    pub(super) fn suspects(&self) -> Vec<Arc<Inode>> {
        self.suspects.lock().values().cloned().collect()
    }
}

fn allowed(phase: Phase) -> Result<(), Error> {
    match phase {
        Phase::Open => Ok(()),
        Phase::Sealed | Phase::SealedForGood => Err(Error::Busy),
        Phase::Gone => Err(Error::Stale),
    }
}

/// The kind of file that the disk describes.
pub(super) fn file_kind(stat: &Stat) -> FileKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::RegularFile | FileType::Unknown => FileKind::Regular,
    }
}
