//! One file, directory or anything else of a session, and where it is.
//!
//! A session may hold a million files, and the kernel may know all of them, so none costs
//! a descriptor: a file is found by its directory and its name in that, which renames keep
//! right. Only a file that has lost the name by which it was known while somebody has it
//! open, or while it has other names, is held by a descriptor until it is found again.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};

use super::limits;
use super::tree::Tree;
use crate::oci::Digest;
use crate::vfs::attr::{Attr, FileKind};
use crate::vfs::error::Error;
use crate::vfs::key::NodeKey;
use crate::vfs::node::Name;

/// Opens anything to be named, without reading or writing it, and never through a link.
pub(super) const NAMED: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Something in a session. All names of a file lead to one of these.
#[derive(Debug)]
pub(super) struct Inode {
    tree: Arc<Tree>,
    key: NodeKey,
    kind: FileKind,
    generation: u64,
    /// The inode number on the disk; 0 for a blob that is lent.
    number: AtomicU64,
    place: Mutex<Place>,
    /// How many times it is open.
    opens: AtomicUsize,
    /// How many times it is open to be written to.
    writers: AtomicUsize,
    /// How much room it took when that was counted last, while it is written to.
    counted: Mutex<Option<u64>>,
}

/// Where something is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// It is the session's own directory.
    Root,
    /// In a directory.
    Named(Arc<Inode>, Name),
    /// A blob of the layout that is shown here.
    Lent(Arc<Inode>, Name, Digest),
    /// It has lost the name that was known.
    Held(Arc<OwnedFd>),
    /// It was removed, and looked like this.
    Gone(Box<Attr>),
}

impl Inode {
    pub(super) fn new(
        tree: &Arc<Tree>,
        (number, generation): (u64, u64),
        kind: FileKind,
        place: Place,
    ) -> Self {
        Self::with_key(
            tree,
            NodeKey::kept(tree.number(), number, generation),
            (number, generation),
            kind,
            place,
        )
    }

    /// A blob of the layout, as it is shown in a directory.
    pub(super) fn lent(tree: &Arc<Tree>, parent: &Arc<Self>, name: &[u8], digest: Digest) -> Self {
        let shows = format!("{} {digest}", tree.number());
        let place = Place::Lent(parent.clone(), name.to_vec(), digest);
        let key = NodeKey::content("lent", shows);
        Self::with_key(tree, key, (0, 0), FileKind::Regular, place)
    }

    fn with_key(
        tree: &Arc<Tree>,
        key: NodeKey,
        (number, generation): (u64, u64),
        kind: FileKind,
        place: Place,
    ) -> Self {
        Self {
            tree: tree.clone(),
            key,
            kind,
            generation,
            number: AtomicU64::new(number),
            place: Mutex::new(place),
            opens: AtomicUsize::new(0),
            writers: AtomicUsize::new(0),
            counted: Mutex::default(),
        }
    }

    pub(super) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    pub(super) fn key(&self) -> NodeKey {
        self.key.clone()
    }

    pub(super) fn kind(&self) -> FileKind {
        self.kind
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    pub(super) fn place(&self) -> Place {
        self.place.lock().clone()
    }

    pub(super) fn is_root(&self) -> bool {
        matches!(*self.place.lock(), Place::Root)
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(*self.place.lock(), Place::Gone(_))
    }

    /// The blob that this is, if it is one that is lent.
    pub(super) fn lent_digest(&self) -> Option<Digest> {
        match &*self.place.lock() {
            Place::Lent(_, _, digest) => Some(digest.clone()),
            _ => None,
        }
    }

    /// Whether this is the name by which it is known.
    pub(super) fn is_at(&self, parent: &Arc<Self>, name: &[u8]) -> bool {
        match &*self.place.lock() {
            Place::Named(known, known_name) | Place::Lent(known, known_name, _) => {
                Arc::ptr_eq(known, parent) && known_name == name
            }
            _ => false,
        }
    }

    /// Notes where it is now.
    pub(super) fn put(&self, place: Place) {
        let former = std::mem::replace(&mut *self.place.lock(), place);
        // May be the last one who knows a directory; the lock is free by now.
        drop(former);
    }

    /// A lent blob has become a file of the session's own.
    pub(super) fn become_private(&self, number: u64, parent: &Arc<Self>, name: &[u8]) {
        self.number.store(number, Ordering::Release);
        self.put(Place::Named(parent.clone(), name.to_vec()));
    }

    /// A file of the session's own has become a blob that is lent.
    pub(super) fn become_lent(&self, parent: &Arc<Self>, name: &[u8], digest: Digest) {
        self.number.store(0, Ordering::Release);
        self.put(Place::Lent(parent.clone(), name.to_vec(), digest));
    }

    pub(super) fn is_open(&self) -> bool {
        self.opens.load(Ordering::Acquire) > 0
    }

    pub(super) fn is_written(&self) -> bool {
        self.writers.load(Ordering::Acquire) > 0
    }

    /// What is counted of it; locked while it is opened to be written to.
    pub(super) fn counted(&self) -> MutexGuard<'_, Option<u64>> {
        self.counted.lock()
    }

    /// Counts the room that it takes by now, in an open file that writes to it.
    pub(super) fn count_room(&self, file: &File) {
        let mut counted = self.counted.lock();
        if let (Some(before), Ok(metadata)) = (*counted, file.metadata()) {
            let now = limits::room(&metadata);
            self.tree.meter().change(limits::difference(before, now), 0);
            *counted = Some(now);
        }
    }

    /// Counts it no more; how much room was counted, if it is written to.
    pub(super) fn stop_counting(&self) -> Option<u64> {
        self.counted.lock().take()
    }

    /// Counts one more open, one that writes or not.
    pub(super) fn count_open(&self, writes: bool) {
        self.opens.fetch_add(1, Ordering::AcqRel);
        if writes && self.writers.fetch_add(1, Ordering::AcqRel) == 0 {
            self.tree.add_writer(self.number());
        }
    }

    /// Counts one open less. After the last one that writes, the file is looked at by who
    /// hashes.
    pub(super) fn count_close(self: &Arc<Self>, writes: bool) {
        self.opens.fetch_sub(1, Ordering::AcqRel);
        if writes && self.writers.fetch_sub(1, Ordering::AcqRel) == 1 {
            // In this order: there is no moment at which it seems to be settled.
            self.tree.suspect(self);
            self.tree.remove_writer(self.number());
            self.tree.hasher().add(self);
        }
    }

    /// The path from the session's directory, for messages.
    pub(super) fn path(&self) -> String {
        let mut names = Vec::new();
        let mut place = self.place();
        while let Place::Named(parent, name) | Place::Lent(parent, name, _) = place {
            names.push(String::from_utf8_lossy(&name).into_owned());
            place = parent.place();
        }
        names.reverse();
        names.join("/")
    }

    /// What the disk says of it.
    ///
    /// # Errors
    /// [`Error::Stale`] if somebody else has changed the session's directory.
    pub(super) fn stat(&self) -> Result<Stat, Error> {
        match self.place() {
            Place::Root => Ok(rustix::fs::fstat(self.tree.root_fd()).map_err(system)?),
            Place::Held(fd) => Ok(rustix::fs::fstat(&fd).map_err(system)?),
            Place::Named(parent, name) => {
                let directory = parent.directory()?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                let stat = rustix::fs::statat(&directory, &*name, flags).map_err(system)?;
                self.check(&stat)?;
                Ok(stat)
            }
            Place::Lent(..) | Place::Gone(_) => Err(Error::Stale),
        }
    }

    fn check(&self, stat: &Stat) -> Result<(), Error> {
        match stat.st_ino == self.number() && stat.st_dev == self.tree.device() {
            true => Ok(()),
            false => Err(Error::Stale),
        }
    }

    /// A descriptor that names it and can do nothing else.
    ///
    /// # Errors
    /// As [`Inode::stat`].
    pub(super) fn handle(&self) -> Result<Arc<OwnedFd>, Error> {
        match self.place() {
            Place::Root => Ok(self.tree.root_fd().clone()),
            Place::Held(fd) => Ok(fd),
            Place::Named(parent, name) => Ok(Arc::new(self.open_named(&parent, &name, NAMED)?)),
            Place::Lent(..) | Place::Gone(_) => Err(Error::Stale),
        }
    }

    /// Opens it anew with these flags.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn reopen(&self, flags: OFlags) -> Result<OwnedFd, Error> {
        // What is opened is known to be a file or a directory, which do not block.
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        match self.place() {
            Place::Root => {
                rustix::fs::openat(self.tree.root_fd(), ".", flags, Mode::empty()).map_err(system)
            }
            Place::Held(fd) => {
                rustix::fs::open(proc_path(&fd), flags, Mode::empty()).map_err(system)
            }
            Place::Named(parent, name) => self.open_named(&parent, &name, flags | OFlags::NOFOLLOW),
            Place::Lent(..) | Place::Gone(_) => Err(Error::Stale),
        }
    }

    fn open_named(&self, parent: &Arc<Self>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Error> {
        let directory = parent.directory()?;
        let fd = rustix::fs::openat(&directory, name, flags, Mode::empty()).map_err(system)?;
        self.check(&rustix::fs::fstat(&fd).map_err(system)?)?;
        Ok(fd)
    }

    /// A descriptor of this directory, by which what is in it can be named. Those used
    /// last are kept.
    ///
    /// # Errors
    /// As [`Inode::stat`].
    pub(super) fn directory(&self) -> Result<Arc<OwnedFd>, Error> {
        // From here up to one that is kept, or the root; then down again.
        let mut names: Vec<(u64, Name)> = Vec::new();
        let (mut number, mut place) = (self.number(), self.place());
        let mut fd = loop {
            if let Some(fd) = self.tree.kept_directory(number) {
                break fd;
            }
            match place {
                Place::Root => break self.tree.root_fd().clone(),
                Place::Held(fd) => break fd,
                Place::Named(parent, name) => {
                    names.push((number, name));
                    number = parent.number();
                    place = parent.place();
                }
                Place::Lent(..) | Place::Gone(_) => return Err(Error::Stale),
            }
        };
        let flags = NAMED | OFlags::DIRECTORY;
        while let Some((number, name)) = names.pop() {
            let next = rustix::fs::openat(&fd, &*name, flags, Mode::empty()).map_err(system)?;
            let stat = rustix::fs::fstat(&next).map_err(system)?;
            if stat.st_ino != number || stat.st_dev != self.tree.device() {
                return Err(Error::Stale);
            }
            fd = Arc::new(next);
            self.tree.keep_directory(number, &fd);
        }
        Ok(fd)
    }
}

/// Chains of directories can be longer than a thread's stack is deep: those that only this
/// one still knows are dropped one after the other.
impl Drop for Inode {
    fn drop(&mut self) {
        self.tree.forget(self);
        let mut place = std::mem::replace(self.place.get_mut(), Place::Root);
        while let Place::Named(parent, _) | Place::Lent(parent, _, _) = place {
            let Some(mut parent) = Arc::into_inner(parent) else {
                return;
            };
            // What is dropped at the end of this turn has no directory any more.
            place = std::mem::replace(parent.place.get_mut(), Place::Root);
        }
    }
}

/// What the file system below said, as it is passed on.
pub(super) fn system(errno: rustix::io::Errno) -> Error {
    Error::System(errno.raw_os_error())
}

/// The path that leads to what a descriptor names, for calls that take nothing else.
pub(super) fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
