//! The tree that users see: complete behaviour, without FUSE.
//!
//! A [`Vfs`] answers the requests of a kernel. It knows which inode numbers that kernel
//! holds ([`InodeTable`]) and which files it has open; what there is to be seen at each
//! place is said by [`Node`]s, which the views make from a snapshot of the layout.
//!
//! ```text
//!  kernel request ──► Vfs (ino, handle) ──► Node ──► views ──► layer, store
//! ```
//!
//! Invariants: content hangs on digests, so nothing the kernel was told about bytes is
//! ever taken back, and it is told no name that can change for longer than one question
//! ([`Node::name_lifetime`]). A request with [`Patience::Never`] reads no layer byte. An open
//! file keeps its bytes whatever happens to its name.
//!
//! Concurrency: all methods can be called from any thread; no lock is held while content
//! is read.
#![doc = include_str!("semantics.md")]

pub mod attr;
pub mod dropbox;
pub mod error;
mod handle;
mod inode;
pub mod key;
mod listing;
pub mod naming;
pub mod node;
mod resolve;
mod unopened;
pub mod views;
pub mod writable;
mod writing;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

pub use attr::{Attr, Device, FileKind, Lifetime, OtherTimes, Time};
use dropbox::session::Postponed;
pub use error::{Error, Fault};
pub use handle::Handle;
use handle::HandleTable;
pub use inode::{Ino, InodeTable};
pub use key::{NodeKey, TreeKey};
use listing::OpenDirectory;
pub use listing::{Child, Listing};
pub use naming::Naming;
pub use node::{Caching, Name, Node, OpenFile, Patience, Stretch};
use unopened::Unopened;
pub use unopened::{Part, Series};
pub use writable::{Caller, Room, Writable};
pub use writing::CreatedEntry;

use crate::store::BlobSource;
use crate::store::layout::Space;

/// The longest name that the kernel sends or takes, in bytes; also of an extended
/// attribute.
pub const NAME_MAX: usize = 255;

/// What the kernel learns about one name.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The inode number, on which one reference was taken.
    pub ino: Ino,
    /// The attributes.
    pub attr: Attr,
    /// How long the name may be believed.
    pub name_lifetime: Lifetime,
}

/// The file system.
#[derive(Debug)]
pub struct Vfs {
    blobs: Arc<dyn BlobSource>,
    inodes: InodeTable,
    files: HandleTable<dyn OpenFile>,
    directories: HandleTable<OpenDirectory>,
    unopened: Unopened,
    naming: OnceLock<Naming>,
    /// Who is to wait before a name is looked up.
    postponed: OnceLock<Arc<Postponed>>,
}

impl Vfs {
    /// A file system whose root is `root` and whose room is that around `blobs`.
    #[must_use]
    pub fn new(root: Arc<dyn Node>, blobs: Arc<dyn BlobSource>) -> Self {
        Self {
            blobs,
            inodes: InodeTable::new(root),
            files: HandleTable::default(),
            directories: HandleTable::default(),
            unopened: Unopened::default(),
            naming: OnceLock::new(),
            postponed: OnceLock::new(),
        }
    }

    /// Lets refs be changed from now on. Only the first `naming` counts.
    pub fn accept_names(&self, naming: Naming) {
        let (Ok(()) | Err(_)) = self.naming.set(naming);
    }

    /// The node of a number that the kernel sent.
    ///
    /// # Errors
    /// [`Error::Stale`] if the kernel has no reference to it.
    pub fn node(&self, ino: Ino) -> Result<Arc<dyn Node>, Error> {
        self.inodes.get(ino).ok_or(Error::Stale)
    }

    /// Resolves one name and takes one reference on what is there.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NameTooLong`] for names that can be nowhere.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Entry, Error> {
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        let node = self.node(parent)?.find(name)?.ok_or(Error::NotFound)?;
        self.entry(&node)
    }

    /// Lets those wait that a drop box has sent away for a moment. Only the first one
    /// counts.
    pub fn heed(&self, postponed: Arc<Postponed>) {
        let (Ok(()) | Err(_)) = self.postponed.set(postponed);
    }

    /// Whether this caller is to wait, for [`Vfs::wait_postponed`]. It may be that for the
    /// names of its rename the kernel holds their directories.
    #[must_use]
    pub fn is_postponed(&self, caller: &Caller, lookup: Option<(Ino, &[u8])>) -> bool {
        let Some(postponed) = self.postponed.get() else {
            return false;
        };
        let renames = |(parent, name)| postponed.renames(caller.pid, parent, name);
        postponed.has(caller.pid) && !lookup.is_some_and(renames)
    }

    /// Waits until this caller may go on.
    pub fn wait_postponed(&self, caller: &Caller) {
        if let Some(postponed) = self.postponed.get() {
            postponed.wait(caller.pid);
        }
    }

    /// Takes back references that [`Vfs::lookup`] or [`Vfs::entry_of`] took.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.inodes.forget(ino, count);
    }

    /// How many nodes the kernel holds references to, the root not counted.
    #[must_use]
    pub fn referenced(&self) -> usize {
        self.inodes.len()
    }

    /// The attributes of a node: exact ones with [`Patience::Wait`].
    ///
    /// # Errors
    /// [`Error::Stale`], or what the node answers.
    pub fn attr(&self, ino: Ino, patience: Patience) -> Result<Attr, Error> {
        self.node(ino)?.attr(patience)
    }

    /// Whether `attr` or `open` of this node would wait for a first pass or a hashing.
    #[must_use]
    pub fn would_wait(&self, ino: Ino) -> bool {
        self.inodes.get(ino).is_some_and(|node| node.would_wait())
    }

    /// Whether a lookup in this directory, opening it, or listing it, would wait for a first
    /// pass, or until many documents are read.
    #[must_use]
    pub fn would_wait_inside(&self, ino: Ino) -> bool {
        let node = self.inodes.get(ino);
        node.is_some_and(|node| node.would_wait_inside())
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`Error::Invalid`] for other kinds.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>, Error> {
        self.node(ino)?.read_link()
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// The verdict on its content, if it is not sound.
    pub fn open(&self, ino: Ino) -> Result<(Handle, Arc<dyn OpenFile>), Error> {
        let file = self.node(ino)?.open()?;
        Ok((self.files.insert(file.clone()), file))
    }

    /// Whether nobody opened this file since the kernel knows it; from now on somebody has.
    #[must_use]
    pub fn is_first_open(&self, ino: Ino) -> bool {
        self.inodes.open(ino)
    }

    /// Reads from an open file; fewer bytes than asked only at the end.
    ///
    /// # Errors
    /// [`Error::Stale`] for an unknown handle, or what the file answers.
    pub fn read(&self, handle: Handle, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        self.files
            .get(handle)
            .ok_or(Error::Stale)?
            .read(buf, offset)
    }

    /// Closes an open file: its last descriptor is gone.
    pub fn release(&self, handle: Handle) {
        if let Some(file) = self.files.remove(handle) {
            file.release();
        }
    }

    /// Opens a directory; says how the kernel may cache its names.
    ///
    /// # Errors
    /// [`Error::NotDirectory`] for other kinds, or what the node answers.
    pub fn open_dir(&self, ino: Ino) -> Result<(Handle, Caching), Error> {
        let directory = Arc::new(OpenDirectory::open(self.node(ino)?)?);
        let caching = directory.caching();
        Ok((self.directories.insert(directory), caching))
    }

    /// The children of an open directory, in an order that stays the same until it is
    /// read from the start again.
    ///
    /// # Errors
    /// [`Error::Stale`] for an unknown handle, or what the node answers.
    pub fn listing(&self, handle: Handle, from_start: bool) -> Result<Arc<dyn Listing>, Error> {
        let directory = self.directories.get(handle).ok_or(Error::Stale)?;
        directory.listing(from_start)
    }

    /// The children of a directory that nobody opened: from the first on, or those of a
    /// listing that was begun.
    ///
    /// # Errors
    /// [`Error::Stale`], [`Error::NotDirectory`] for other kinds, or what the node answers.
    pub fn listing_unopened(&self, ino: Ino, begun: Option<Series>) -> Result<Part, Error> {
        let (node, now) = (self.node(ino)?, Instant::now());
        match begun {
            None => self.unopened.start(ino, &*node, now),
            Some(series) => self.unopened.go_on((ino, series), &*node, now),
        }
    }

    /// Whoever began this listing has seen all of it.
    pub fn end_unopened(&self, ino: Ino, series: Series) {
        self.unopened.end(ino, series);
    }

    /// The number that a lookup of this child would give; takes no reference.
    #[must_use]
    pub fn ino_of(&self, child: &Child) -> Ino {
        Ino::of(&child.node.key())
    }

    /// One child with its attributes as far as they are known; takes one reference.
    ///
    /// # Errors
    /// What the node answers.
    pub fn entry_of(&self, child: &Child) -> Result<Entry, Error> {
        self.entry(&child.node)
    }

    /// Closes an open directory.
    pub fn release_dir(&self, handle: Handle) {
        drop(self.directories.remove(handle));
    }

    /// The names of the extended attributes of a node. One that the kernel cannot take
    /// would spoil the whole list for it, and is left out.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>, Error> {
        let mut names = self.node(ino)?.xattr_names();
        names.retain(|name| (1..=NAME_MAX).contains(&name.len()) && !name.contains(&0));
        Ok(names)
    }

    /// One extended attribute of a node.
    ///
    /// # Errors
    /// [`Error::NoAttribute`] if there is none of that name.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Error> {
        self.node(ino)?.xattr(name).ok_or(Error::NoAttribute)
    }

    /// Where data or a hole begins in an open file at or after `offset`.
    ///
    /// # Errors
    /// [`Error::Stale`] for an unknown handle, or what the file answers.
    pub fn seek(&self, handle: Handle, offset: u64, wanted: Stretch) -> Result<u64, Error> {
        let file = self.files.get(handle).ok_or(Error::Stale)?;
        file.seek(offset, wanted)
    }

    /// Whether `ino` may be run, or searched, where the kernel does not look at modes:
    /// as for root, that takes one of the bits for it, and for a directory none.
    ///
    /// # Errors
    /// [`Error::Denied`] for a file that nobody may run.
    pub fn check_run(&self, ino: Ino) -> Result<(), Error> {
        let attr = self.attr(ino, Patience::Never)?;
        if attr.kind != FileKind::Directory && attr.mode & 0o111 == 0 {
            return Err(Error::Denied);
        }
        Ok(())
    }

    /// The room on the layout's file system.
    ///
    /// # Errors
    /// What the system answers.
    pub fn space(&self) -> Result<Space, Error> {
        Ok(self.blobs.space()?)
    }

    fn entry(&self, node: &Arc<dyn Node>) -> Result<Entry, Error> {
        let attr = node.attr(Patience::Never)?;
        let ino = self.inodes.reference(node);
        Ok(Entry {
            ino,
            attr,
            name_lifetime: node.name_lifetime(),
        })
    }
}
