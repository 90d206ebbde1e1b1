//! What every node of the tree can be asked, whoever provides it.

use std::fmt::Debug;
use std::fs::File;
use std::sync::Arc;

use super::attr::{Attr, FileKind};
use super::error::Error;
pub use super::key::{NodeKey, TreeKey};
pub use super::listing::{Child, Listing};
use super::writable::{Caller, Holder, Room};
use crate::export::Root;

/// A name of one directory level, as the kernel sends and gets it: bytes, never empty,
/// at most 255, without `/` and NUL.
pub type Name = Vec<u8>;

/// Whether a request may take as long as the first pass over a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Answer at once with what is known: LOOKUP and directory listings.
    Never,
    /// Wait until the exact answer is known: `stat` and `open` of a file.
    Wait,
}

/// A node of the tree: a value that says what is to be seen at one place.
///
/// Nodes have no identity beyond their [`NodeKey`] and hold no open files; making one is
/// cheap. The defaults answer as a file of another kind would.
pub trait Node: Debug + Send + Sync {
    /// What the inode number hangs on.
    fn key(&self) -> NodeKey;

    /// The kind of node.
    fn kind(&self) -> FileKind;

    /// Where it is, for requests that change something.
    fn room(&self) -> Room<'_> {
        Room::Content
    }

    /// What `stat` shows.
    ///
    /// # Errors
    /// Hardly ever: a node that cannot be read still has attributes.
    fn attr(&self, patience: Patience) -> Result<Attr, Error>;

    /// Whether `attr` and `open` would have to wait for long at this moment.
    fn would_wait(&self) -> bool {
        false
    }

    /// Whether `find` and `listing` of a directory would have to wait for long at this
    /// moment: what it holds is not known before a first pass, if the listing is kept
    /// ([`Node::list_caching`]), else before many documents are read.
    fn would_wait_inside(&self) -> bool {
        false
    }

    /// Whether symbolic links in it lead from here when they begin with `/`, and never
    /// further up: the root of a file tree, where no kernel resolves them.
    fn is_tree_root(&self) -> bool {
        false
    }

    /// Whether the name by which this node was found must be looked up anew each time,
    /// or soon, because another node may take its place.
    fn name_lifetime(&self) -> super::attr::Lifetime {
        super::attr::Lifetime::Forever
    }

    /// The child of that name, or `None`. By default the children that are listed are
    /// looked through.
    ///
    /// # Errors
    /// [`Error::NotDirectory`] where there can be no children.
    fn find(&self, name: &[u8]) -> Result<Option<Arc<dyn Node>>, Error> {
        let mut children = self.list()?.into_iter();
        Ok(children
            .find(|child| child.name == name)
            .map(|child| child.node))
    }

    /// All children that are listed, in a fixed order, without `.` and `..`.
    ///
    /// # Errors
    /// [`Error::NotDirectory`] where there can be no children.
    fn list(&self) -> Result<Vec<Child>, Error> {
        Err(Error::NotDirectory)
    }

    /// The same children as an open directory gives them out. Better than a list of all
    /// of them where they are many.
    ///
    /// # Errors
    /// As [`Node::list`].
    fn listing(&self) -> Result<Arc<dyn Listing>, Error> {
        Ok(Arc::new(self.list()?))
    }

    /// How the kernel may cache the names of a directory: for ever, if they hang on a
    /// digest. Then what is wrong with it is said when it is opened.
    fn list_caching(&self) -> Caching {
        Caching::Direct
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`Error::Invalid`] for other kinds.
    fn read_link(&self) -> Result<Vec<u8>, Error> {
        Err(Error::Invalid)
    }

    /// What an archive of this image is made of; nothing for what is no image.
    fn exported(&self) -> Option<Root> {
        None
    }

    /// Opens a regular file for reading; the verdict on its content is given here.
    ///
    /// # Errors
    /// What is wrong with the content; [`Error::IsDirectory`] for directories.
    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        Err(match self.kind() {
            FileKind::Directory => Error::IsDirectory,
            // The kernel opens what is neither file nor directory without asking.
            _ => Error::Invalid,
        })
    }

    /// The names of the extended attributes that are listed. Those that the kernel cannot
    /// take are left out on the way.
    fn xattr_names(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// The value of one extended attribute, listed or not.
    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        let _ = name;
        None
    }
}

/// A regular file that was opened. The defaults are those of one that is only read.
pub trait OpenFile: Debug + Send + Sync {
    /// Reads from `offset`; fewer bytes than asked only at the end.
    ///
    /// # Errors
    /// If the bytes are no longer what they were at `open`, or the disk fails.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error>;

    /// The size in bytes.
    fn size(&self) -> u64;

    /// Where the next byte that is data, or that is in a hole, is at or after `offset`.
    /// By default all of a file is data. The end counts as a hole.
    ///
    /// # Errors
    /// [`Error::NoData`] from the end on, and if there is nothing but holes.
    fn seek(&self, offset: u64, wanted: Stretch) -> Result<u64, Error> {
        match wanted {
            _ if offset >= self.size() => Err(Error::NoData),
            Stretch::Data => Ok(offset),
            Stretch::Hole => Ok(self.size()),
        }
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What hinders it.
    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let _ = (bytes, offset);
        Err(Error::ReadOnly)
    }

    /// The same, by one of those who may have it open.
    ///
    /// # Errors
    /// As [`OpenFile::write`].
    fn write_by(&self, holder: Holder, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let _ = holder;
        self.write(bytes, offset)
    }

    /// Whether it was opened to be written, so that closing it says something.
    fn is_written(&self) -> bool {
        false
    }

    /// A descriptor of it was closed: any of those that share this open file, the last or
    /// not. What this answers, `close` answers.
    ///
    /// # Errors
    /// The verdict on what was written.
    fn flush(&self, caller: &Caller) -> Result<(), Error> {
        let _ = caller;
        Ok(())
    }

    /// The same, by one of those who may have it open.
    ///
    /// # Errors
    /// As [`OpenFile::flush`].
    fn flush_by(&self, holder: Holder, caller: &Caller) -> Result<(), Error> {
        let _ = holder;
        self.flush(caller)
    }

    /// The last descriptor of it is closed, and nobody can be told anything any more.
    fn release(&self) {}

    /// Whether `flush` may take long at this moment.
    fn flush_is_slow(&self) -> bool {
        false
    }

    /// Takes away what lets the file run with the rights of its owner or group, because
    /// somebody writes to it who is neither.
    ///
    /// # Errors
    /// What hinders it.
    fn drop_privileges(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What hinders it.
    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Allocates or frees room in it, as `fallocate(2)` says with these flags.
    ///
    /// # Errors
    /// What hinders it; by default that it is not done.
    fn allocate(&self, offset: u64, len: u64, flags: i32) -> Result<(), Error> {
        let _ = (offset, len, flags);
        Err(Error::System(libc::EOPNOTSUPP))
    }

    /// How the kernel may cache what is read.
    fn caching(&self) -> Caching {
        Caching::Keep
    }

    /// The file whose bytes are exactly these, if the kernel may read it directly, and
    /// write it where the caching is [`Caching::Shared`].
    fn backing(&self) -> Option<&File> {
        None
    }
}

/// A part of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// Bytes that are stored.
    Data,
    /// Bytes that are not, and read as zeros.
    Hole,
}

/// How the kernel may cache the bytes of an open file, or the names of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// For ever: the content hangs on a digest.
    Keep,
    /// Not at all: the content is made at `open` and may be another each time.
    Direct,
    /// While it is open: it changes by what is written through the mount, and by that
    /// alone.
    Shared,
}

/// Bytes in memory, as an open file.
#[derive(Debug)]
pub struct InMemory {
    bytes: Arc<[u8]>,
    caching: Caching,
}

impl InMemory {
    /// An open file that holds `bytes`.
    #[must_use]
    pub fn new(bytes: Arc<[u8]>, caching: Caching) -> Self {
        Self { bytes, caching }
    }
}

impl OpenFile for InMemory {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        let len = (self.bytes.len() - start).min(buf.len());
        buf[..len].copy_from_slice(&self.bytes[start..start + len]);
        Ok(len)
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn caching(&self) -> Caching {
        self.caching
    }
}
