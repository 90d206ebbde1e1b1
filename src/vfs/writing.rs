//! Requests that change something, each to who decides about its place.
//!
//! | place | who decides |
//! |---|---|
//! | in an image | nobody: it is never changed |
//! | a level of ref names | a commit to the index ([`super::Naming`]), where refs can be changed |
//! | the drop box | its nodes ([`Writable`]) |
//! | what is about an image | likewise; what is written there is a drop |
//!
//! A rename has two places: from the drop box to a level of ref names it publishes.

use std::sync::Arc;

use super::attr::Attr;
use super::error::Error;
use super::node::{Node, OpenFile};
use super::writable::{
    AttrChange, Caller, Created, Holder, NewNode, OpenMode, RefLevel, Removal, RenameMode, Room,
    Writable, XattrMode,
};
use super::{Entry, Handle, Ino, NAME_MAX, Naming, Vfs};

/// A file that was created, as the kernel learns of it.
#[derive(Debug)]
pub struct CreatedEntry {
    /// The name, on which one reference was taken.
    pub entry: Entry,
    /// The open file.
    pub handle: Handle,
    /// The same.
    pub file: Arc<dyn OpenFile>,
}

impl Vfs {
    /// Whether [`Vfs::open_as`] may take long at this moment for another reason than the
    /// content.
    #[must_use]
    pub fn open_is_slow(&self, ino: Ino, how: OpenMode) -> bool {
        self.node(ino).is_ok_and(|node| match node.room() {
            Room::DropBox(node) => node.open_is_slow(how),
            Room::Content | Room::Image(_) | Room::Refs(_) => false,
        })
    }

    /// Whether [`Vfs::remove`] of what is no directory may take long at this moment.
    #[must_use]
    pub fn remove_is_slow(&self, (parent, name): (Ino, &[u8])) -> bool {
        self.node(parent).is_ok_and(|node| match node.room() {
            Room::DropBox(node) => node.remove_is_slow(name),
            Room::Content | Room::Image(_) | Room::Refs(_) => false,
        })
    }

    /// Opens a regular file.
    ///
    /// # Errors
    /// As [`Vfs::open`]; [`Error::ReadOnly`] for writing where nothing is written.
    pub fn open_as(
        &self,
        caller: &Caller,
        ino: Ino,
        how: OpenMode,
    ) -> Result<(Handle, Arc<dyn OpenFile>), Error> {
        let node = self.node(ino)?;
        let file = match node.room() {
            Room::DropBox(node) => node.open_as(caller, how)?,
            Room::Content | Room::Image(_) | Room::Refs(_) if how.write || how.truncate => {
                return Err(Error::ReadOnly);
            }
            Room::Content | Room::Image(_) | Room::Refs(_) => node.open()?,
        };
        Ok((self.files.insert(file.clone()), file))
    }

    /// Makes a regular file and opens it.
    ///
    /// # Errors
    /// What the place says.
    pub fn create(
        &self,
        caller: &Caller,
        (parent, name): (Ino, &[u8]),
        mode: u16,
        how: OpenMode,
    ) -> Result<CreatedEntry, Error> {
        let parent = self.node(parent)?;
        if let Some((_, level)) = self.refs(&*parent, name)? {
            return Err(no_file(level));
        }
        let created = writable(&*parent, name)?.create(caller, name, mode, how)?;
        let Created { node, file } = created;
        let entry = self.entry(&node)?;
        let handle = self.files.insert(file.clone());
        Ok(CreatedEntry {
            entry,
            handle,
            file,
        })
    }

    /// Makes something that is no open file.
    ///
    /// # Errors
    /// What the place says.
    pub fn make(
        &self,
        caller: &Caller,
        (parent, name): (Ino, &[u8]),
        new: NewNode<'_>,
    ) -> Result<Entry, Error> {
        let parent = self.node(parent)?;
        let node = match (self.refs(&*parent, name)?, new) {
            (Some((naming, level)), NewNode::Symlink(target)) => {
                naming.link(self, level, name, target)?
            }
            (Some((naming, level)), NewNode::Directory(_)) => naming.make_level(level, name)?,
            (Some((_, level)), NewNode::Special(..)) => return Err(no_file(level)),
            (None, new) => writable(&*parent, name)?.make(caller, name, new)?,
        };
        self.entry(&node)
    }

    /// Gives a file one more name.
    ///
    /// # Errors
    /// What the place says; [`Error::CrossDevice`] for a file that is not in the drop box.
    pub fn link(
        &self,
        caller: &Caller,
        ino: Ino,
        (parent, name): (Ino, &[u8]),
    ) -> Result<Entry, Error> {
        let (existing, parent) = (self.node(ino)?, self.node(parent)?);
        let parent = writable(&*parent, name)?;
        let Room::DropBox(existing) = existing.room() else {
            return Err(Error::CrossDevice);
        };
        let node = parent.link(caller, name, existing)?;
        self.entry(&node)
    }

    /// Removes a name.
    ///
    /// # Errors
    /// What the place says.
    pub fn remove(
        &self,
        caller: &Caller,
        (parent, name): (Ino, &[u8]),
        what: Removal,
    ) -> Result<(), Error> {
        let parent = self.node(parent)?;
        match (self.refs(&*parent, name)?, what) {
            (Some((naming, level)), Removal::Directory) => naming.remove(level, name),
            (Some((_, level)), Removal::File) => Err(no_file(level)),
            (None, what) => writable(&*parent, name)?.remove(caller, name, what),
        }
    }

    /// Renames, or publishes.
    ///
    /// # Errors
    /// What the places say; [`Error::CrossDevice`] between places that have nothing to do
    /// with each other.
    pub fn rename(
        &self,
        caller: &Caller,
        (parent, name): (Ino, &[u8]),
        (new_parent, new_name): (Ino, &[u8]),
        how: RenameMode,
    ) -> Result<(), Error> {
        if new_name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        let (from, to) = (self.node(parent)?, self.node(new_parent)?);
        match (from.room(), to.room()) {
            (Room::DropBox(from), Room::DropBox(to)) => {
                from.rename(caller, name, to, new_name, how)
            }
            (Room::DropBox(from), Room::Refs(to)) => {
                let published = from.publish(caller, name, to, new_name, how);
                if let (Err(Error::Stale), Some(postponed)) = (&published, self.postponed.get()) {
                    postponed.note(caller.pid, [(parent, name), (new_parent, new_name)]);
                }
                published
            }
            (Room::Refs(from), Room::Refs(to)) => {
                let naming = self.naming.get().ok_or(Error::ReadOnly)?;
                naming.rename((from, name), (to, new_name), how)
            }
            (Room::Refs(_), Room::DropBox(_)) => Err(Error::CrossDevice),
            (Room::Content | Room::Image(_), _) | (_, Room::Content | Room::Image(_)) => {
                Err(Error::ReadOnly)
            }
        }
    }

    /// Sets attributes; what they are then.
    ///
    /// # Errors
    /// What the place says.
    pub fn set_attr(
        &self,
        caller: &Caller,
        ino: Ino,
        change: &AttrChange,
        handle: Option<Handle>,
    ) -> Result<Attr, Error> {
        let node = self.node(ino)?;
        let open = handle.and_then(|handle| self.files.get(handle));
        match node.room() {
            Room::DropBox(node) => node.set_attr(caller, change, open.as_deref()),
            Room::Content | Room::Image(_) | Room::Refs(_) => Err(Error::ReadOnly),
        }
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// What the place says.
    pub fn set_xattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        how: XattrMode,
    ) -> Result<(), Error> {
        match self.node(ino)?.room() {
            Room::DropBox(node) => node.set_xattr(caller, name, value, how),
            Room::Refs(level) => {
                let naming = self.naming.get().ok_or(Error::ReadOnly)?;
                naming.annotate(level, name, Some(value), how)
            }
            Room::Content | Room::Image(_) => Err(Error::ReadOnly),
        }
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// What the place says.
    pub fn remove_xattr(&self, caller: &Caller, ino: Ino, name: &[u8]) -> Result<(), Error> {
        match self.node(ino)?.room() {
            Room::DropBox(node) => node.remove_xattr(caller, name),
            Room::Refs(level) => {
                let naming = self.naming.get().ok_or(Error::ReadOnly)?;
                naming.annotate(level, name, None, XattrMode::Set)
            }
            Room::Content | Room::Image(_) => Err(Error::ReadOnly),
        }
    }

    /// Writes to an open file.
    ///
    /// # Errors
    /// [`Error::Stale`] for an unknown handle, or what the file answers.
    pub fn write(
        &self,
        holder: Holder,
        handle: Handle,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), Error> {
        self.file(handle)?.write_by(holder, bytes, offset)
    }

    /// Takes away what lets an open file run with the rights of its owner or group.
    ///
    /// # Errors
    /// As [`OpenFile::drop_privileges`].
    pub fn drop_privileges(&self, handle: Handle) -> Result<(), Error> {
        self.file(handle)?.drop_privileges()
    }

    /// A descriptor of an open file was closed.
    ///
    /// # Errors
    /// As [`OpenFile::flush`].
    pub fn flush(&self, holder: Holder, caller: &Caller, handle: Handle) -> Result<(), Error> {
        self.file(handle)?.flush_by(holder, caller)
    }

    /// Whether [`Vfs::flush`] may take long at this moment.
    #[must_use]
    pub fn flush_is_slow(&self, handle: Handle) -> bool {
        self.files
            .get(handle)
            .is_some_and(|file| file.flush_is_slow())
    }

    /// Makes what was written to an open file durable.
    ///
    /// # Errors
    /// As [`OpenFile::sync`].
    pub fn sync(&self, handle: Handle) -> Result<(), Error> {
        self.file(handle)?.sync()
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the place says.
    pub fn sync_dir(&self, ino: Ino) -> Result<(), Error> {
        match self.node(ino)?.room() {
            Room::DropBox(node) => node.sync(),
            Room::Content | Room::Image(_) | Room::Refs(_) => Ok(()),
        }
    }

    /// Allocates or frees room in an open file.
    ///
    /// # Errors
    /// As [`OpenFile::allocate`].
    pub fn allocate(&self, handle: Handle, offset: u64, len: u64, flags: i32) -> Result<(), Error> {
        self.file(handle)?.allocate(offset, len, flags)
    }

    /// Whether requests that change this node are answered at all: a file that nobody may
    /// write to says so to `access` too.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn is_writable(&self, ino: Ino) -> Result<bool, Error> {
        Ok(match self.node(ino)?.room() {
            Room::DropBox(_) => true,
            Room::Refs(_) => self.naming.get().is_some(),
            Room::Content | Room::Image(_) => false,
        })
    }

    /// The level of ref names in which `name` is to be made or removed, where that can be.
    fn refs<'a>(
        &self,
        parent: &'a dyn Node,
        name: &[u8],
    ) -> Result<Option<(&Naming, RefLevel<'a>)>, Error> {
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        Ok(match parent.room() {
            Room::Refs(level) => self.naming.get().map(|naming| (naming, level)),
            Room::DropBox(_) | Room::Content | Room::Image(_) => None,
        })
    }

    fn file(&self, handle: Handle) -> Result<Arc<dyn OpenFile>, Error> {
        self.files.get(handle).ok_or(Error::Stale)
    }
}

/// The part of the drop box in which `name` is to be made or removed.
fn writable<'a>(parent: &'a dyn Node, name: &[u8]) -> Result<&'a dyn Writable, Error> {
    if name.len() > NAME_MAX {
        return Err(Error::NameTooLong);
    }
    match parent.room() {
        Room::DropBox(parent) => Ok(parent),
        Room::Content | Room::Image(_) | Room::Refs(_) => Err(Error::ReadOnly),
    }
}

/// Why there is no file to be made or removed beside refs.
fn no_file(level: RefLevel<'_>) -> Error {
    match level.is_image {
        true => Error::ReadOnly,
        false => Error::NotPermitted,
    }
}
