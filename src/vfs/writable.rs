//! What can be asked of nodes that can be changed.
//!
//! Most of the tree never changes by a request. What can is one of two kinds, and a node
//! says which by its [`Room`]: a level of ref names, where a change is a commit to the
//! index, or a part of the drop box, which behaves as its own provider decides
//! ([`Writable`]).

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use super::attr::{Attr, Device, FileKind, Time};
use super::error::Error;
use super::node::{Name, Node, OpenFile};
use crate::oci::Digest;

/// Where a node is, for requests that change something.
#[derive(Debug)]
pub enum Room<'a> {
    /// In an image, or something else that no request changes.
    Content,
    /// An image directory that is no ref: this manifest or index. No request changes it, but
    /// a ref can be made of it.
    Image(&'a Digest),
    /// A level of ref names.
    Refs(RefLevel<'a>),
    /// A part of the drop box, or of the referrers of an image, which take in files as that
    /// does.
    DropBox(&'a dyn Writable),
}

/// A directory level of ref names: the mount root, a part of a name, or a ref.
#[derive(Debug, Clone, Copy)]
pub struct RefLevel<'a> {
    /// The names on the way from the mount root, as they are shown.
    pub path: &'a [Name],
    /// Whether an image is shown here.
    pub is_image: bool,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Thread; 0 if it cannot be named in the namespace of the daemon.
    pub pid: u32,
}

/// The table of open files of those who ask, by a number of the kernel: threads share one,
/// processes hardly ever do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Holder(pub u64);

/// How a file is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Each write goes to the end.
    pub append: bool,
    /// What was there goes first.
    pub truncate: bool,
    /// It must not be there yet.
    pub exclusive: bool,
}

/// Something to make that is no regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewNode<'a> {
    /// A directory with these permission bits.
    Directory(u16),
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// A device, FIFO, socket, or a regular file that is not opened.
    Special(FileKind, u16, Device),
}

/// What is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Anything but a directory.
    File,
    /// An empty directory.
    Directory,
}

/// How a rename treats what has the new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// It is an error that it is there.
    NoReplace,
    /// The two change places.
    Exchange,
    /// It is replaced, and a whiteout left in the old place.
    Whiteout,
    /// There must be nothing, and a whiteout is left in the old place.
    WhiteoutNoReplace,
}

/// How an extended attribute is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrMode {
    /// Whether it is there or not.
    Set,
    /// It must not be there.
    Create,
    /// It must be there.
    Replace,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The present.
    Now,
    /// This one.
    At(Time),
}

/// Attributes to set; what is `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttrChange {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Time of the last access.
    pub atime: Option<SetTime>,
    /// Time of the last modification.
    pub mtime: Option<SetTime>,
}

/// What became of a file that was created.
#[derive(Debug)]
pub struct Created {
    /// The file's node.
    pub node: Arc<dyn Node>,
    /// The file, open.
    pub file: Arc<dyn OpenFile>,
}

/// A node of the drop box, or of a place that takes in files as that does. The defaults
/// answer as a place would where that is not done.
///
/// Who wants something is checked by the kernel, by modes, where the mount lets other users
/// in; without that there is one user.
pub trait Writable: Node {
    /// Itself, for a provider that gets two of its own nodes.
    fn as_any(&self) -> &dyn Any;

    /// Makes a regular file and opens it.
    ///
    /// # Errors
    /// [`Error::Exists`], and what else the provider says.
    fn create(
        &self,
        caller: &Caller,
        name: &[u8],
        mode: u16,
        how: OpenMode,
    ) -> Result<Created, Error> {
        let _ = (caller, name, mode, how);
        Err(Error::ReadOnly)
    }

    /// Whether `open_as` may take long at this moment.
    fn open_is_slow(&self, how: OpenMode) -> bool {
        let _ = how;
        false
    }

    /// Opens this file.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] where it can only be read; what the provider says.
    fn open_as(&self, caller: &Caller, how: OpenMode) -> Result<Arc<dyn OpenFile>, Error> {
        let _ = caller;
        if how.write || how.truncate {
            return Err(Error::ReadOnly);
        }
        self.open()
    }

    /// Makes something that is no open file.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotPermitted`], and what else the provider says.
    fn make(&self, caller: &Caller, name: &[u8], new: NewNode<'_>) -> Result<Arc<dyn Node>, Error> {
        let _ = (caller, name, new);
        Err(Error::NotPermitted)
    }

    /// Gives `existing` one more name in this directory.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::CrossDevice`], [`Error::NotPermitted`].
    fn link(
        &self,
        caller: &Caller,
        name: &[u8],
        existing: &dyn Writable,
    ) -> Result<Arc<dyn Node>, Error> {
        let _ = (caller, name, existing);
        Err(Error::NotPermitted)
    }

    /// Whether removing a name that is no directory's may take long at this moment.
    fn remove_is_slow(&self, name: &[u8]) -> bool {
        let _ = name;
        false
    }

    /// Removes a name.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what else the provider says.
    fn remove(&self, caller: &Caller, name: &[u8], what: Removal) -> Result<(), Error> {
        let _ = (caller, name, what);
        Err(Error::ReadOnly)
    }

    /// Renames what is called `name` here to `new_name` in `to`, another directory of the
    /// drop box or this one.
    ///
    /// # Errors
    /// What the provider says; [`Error::CrossDevice`] where it cannot be moved.
    fn rename(
        &self,
        caller: &Caller,
        name: &[u8],
        to: &dyn Writable,
        new_name: &[u8],
        how: RenameMode,
    ) -> Result<(), Error> {
        let _ = (caller, name, to, new_name, how);
        Err(Error::ReadOnly)
    }

    /// Publishes what is called `name` here as `new_name` at a level of ref names: the
    /// destination of a rename out of the drop box.
    ///
    /// # Errors
    /// What the provider says.
    fn publish(
        &self,
        caller: &Caller,
        name: &[u8],
        to: RefLevel<'_>,
        new_name: &[u8],
        how: RenameMode,
    ) -> Result<(), Error> {
        let _ = (caller, name, to, new_name, how);
        Err(Error::ReadOnly)
    }

    /// Sets attributes; what they are then. `open` is the file by which they are set, if
    /// it was by an open one.
    ///
    /// # Errors
    /// What the provider says.
    fn set_attr(
        &self,
        caller: &Caller,
        change: &AttrChange,
        open: Option<&dyn OpenFile>,
    ) -> Result<Attr, Error> {
        let _ = (caller, change, open);
        Err(Error::ReadOnly)
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NoAttribute`], and what the provider says.
    fn set_xattr(
        &self,
        caller: &Caller,
        name: &[u8],
        value: &[u8],
        how: XattrMode,
    ) -> Result<(), Error> {
        let _ = (caller, name, value, how);
        Err(Error::ReadOnly)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// [`Error::NoAttribute`], and what the provider says.
    fn remove_xattr(&self, caller: &Caller, name: &[u8]) -> Result<(), Error> {
        let _ = (caller, name);
        Err(Error::ReadOnly)
    }

    /// Makes the names in this directory durable.
    ///
    /// # Errors
    /// What the provider says.
    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }
}
