//! The drop box as the kernel sees it: its directories, drops, and their open files.

use std::any::Any;
use std::sync::Arc;

use super::DropBox;
use super::closer::Closer;
use super::drop::Drop;
use super::place::{Place, Shelf};
use super::{session, shown};
use crate::store::ReadAt;
use crate::vfs::attr::{Attr, FileKind, Lifetime};
use crate::vfs::error::Error;
use crate::vfs::node::{Caching, Child, Node, NodeKey, OpenFile, Patience};
use crate::vfs::writable::{
    AttrChange, Caller, Created, Holder, NewNode, OpenMode, RefLevel, Removal, RenameMode, Room,
    Writable, XattrMode,
};

/// A directory: `incoming/`, `incoming/blobs/`, or the part of `referrers/TYPE/` of an image
/// that takes in drops.
#[derive(Debug)]
pub(super) struct ShelfNode {
    dropbox: Arc<DropBox>,
    shelf: Shelf,
}

impl ShelfNode {
    pub(super) fn new(dropbox: &Arc<DropBox>, shelf: Shelf) -> Self {
        let dropbox = dropbox.clone();
        Self { dropbox, shelf }
    }

    fn place(&self, name: &[u8]) -> Place {
        Place::new(&self.shelf, name)
    }

    /// Whether `name` is that of a session.
    fn is_session(&self, name: &[u8]) -> bool {
        let sessions = self.dropbox.sessions.as_ref();
        self.shelf == Shelf::Refs && sessions.is_some_and(|sessions| sessions.find(name).is_some())
    }
}

impl Node for ShelfNode {
    fn key(&self) -> NodeKey {
        let path = match &self.shelf {
            Shelf::Refs => b"incoming".to_vec(),
            Shelf::Blobs => b"incoming/blobs".to_vec(),
            // The kernel knows the directory that this is a part of.
            Shelf::Referrers(_) => self.place(b"").shown().into_bytes(),
        };
        NodeKey::place(path, String::new(), 0)
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn room(&self) -> Room<'_> {
        Room::DropBox(self)
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        let options = &self.dropbox.options;
        let changed = self.dropbox.table.changed();
        Ok(shown::directory(options.owner, options.mode, changed))
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<dyn Node>>, Error> {
        Ok(self.dropbox.find(&self.place(name)))
    }

    fn list(&self) -> Result<Vec<Child>, Error> {
        Ok(self.dropbox.list(&self.shelf))
    }
}

impl Writable for ShelfNode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn create(
        &self,
        caller: &Caller,
        name: &[u8],
        _mode: u16,
        how: OpenMode,
    ) -> Result<Created, Error> {
        self.dropbox.create(caller, self.place(name), how)
    }

    fn make(&self, caller: &Caller, name: &[u8], new: NewNode<'_>) -> Result<Arc<dyn Node>, Error> {
        self.dropbox.check_open()?;
        if self.dropbox.find(&self.place(name)).is_some() {
            return Err(Error::Exists);
        }
        match (new, &self.shelf, &self.dropbox.sessions) {
            (NewNode::Directory(mode), Shelf::Refs, Some(sessions)) => {
                sessions.make(caller, name, mode)
            }
            _ => Err(Error::NotPermitted),
        }
    }

    fn remove_is_slow(&self, name: &[u8]) -> bool {
        let found = self.dropbox.table.find(&self.place(name));
        found.is_some_and(|drop| drop.remove_is_slow())
    }

    fn remove(&self, _caller: &Caller, name: &[u8], what: Removal) -> Result<(), Error> {
        let place = self.place(name);
        match (what, &self.dropbox.sessions) {
            (Removal::Directory, Some(sessions)) if self.is_session(name) => sessions.remove(name),
            (Removal::Directory, _) => Err(match self.dropbox.find(&place) {
                None => Error::NotFound,
                Some(node) if node.kind() == FileKind::Directory => Error::NotPermitted,
                Some(_) => Error::NotDirectory,
            }),
            (Removal::File, _) => self.dropbox.remove(&place),
        }
    }

    fn rename(
        &self,
        _caller: &Caller,
        name: &[u8],
        to: &dyn Writable,
        new_name: &[u8],
        how: RenameMode,
    ) -> Result<(), Error> {
        self.dropbox.check_open()?;
        let Some(to) = to.as_any().downcast_ref::<Self>() else {
            return Err(Error::CrossDevice);
        };
        match &self.dropbox.sessions {
            Some(sessions) if self.is_session(name) => {
                if to.shelf != Shelf::Refs {
                    return Err(Error::NotPermitted);
                }
                let in_the_way = self.dropbox.table.find(&to.place(new_name));
                if in_the_way.is_some_and(|drop| drop.is_visible()) {
                    return Err(Error::NotDirectory);
                }
                sessions.rename(name, new_name, how)
            }
            _ => {
                // What was dropped for one purpose is not what it is for another.
                let is_about = |shelf: &Shelf| matches!(shelf, Shelf::Referrers(_));
                let is_moved = self.shelf != to.shelf;
                if is_moved && (is_about(&self.shelf) || is_about(&to.shelf)) {
                    return Err(Error::CrossDevice);
                }
                let (from, to) = (self.place(name), to.place(new_name));
                self.dropbox.rename(&from, &to, how)
            }
        }
    }

    fn publish(
        &self,
        caller: &Caller,
        name: &[u8],
        to: RefLevel<'_>,
        new_name: &[u8],
        how: RenameMode,
    ) -> Result<(), Error> {
        self.dropbox.check_open()?;
        match &self.dropbox.sessions {
            Some(sessions) if self.is_session(name) => {
                sessions.publish(caller, name, to, new_name, how)
            }
            _ => Err(match self.dropbox.find(&self.place(name)) {
                Some(_) => Error::NotPermitted,
                None => Error::NotFound,
            }),
        }
    }

    // `cp -a`, `rsync -a` and `tar x` set what they have found on the directory, too.
    fn set_attr(
        &self,
        _caller: &Caller,
        change: &AttrChange,
        _open: Option<&dyn OpenFile>,
    ) -> Result<Attr, Error> {
        match change.size {
            Some(_) => Err(Error::IsDirectory),
            None => self.attr(Patience::Never),
        }
    }

    fn set_xattr(
        &self,
        _caller: &Caller,
        name: &[u8],
        _value: &[u8],
        _how: XattrMode,
    ) -> Result<(), Error> {
        match session::Order::of(name) {
            // This is no session.
            Some(_) => Err(Error::NotPermitted),
            None => Ok(()),
        }
    }

    fn remove_xattr(&self, _caller: &Caller, _name: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

/// A drop.
#[derive(Debug)]
pub(super) struct DropNode(Arc<Drop>);

impl DropNode {
    pub(super) fn new(drop: Arc<Drop>) -> Self {
        Self(drop)
    }
}

impl Node for DropNode {
    fn key(&self) -> NodeKey {
        NodeKey::content("drop", self.0.number.to_string())
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn room(&self) -> Room<'_> {
        Room::DropBox(self)
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        let (size, mtime) = self.0.stat();
        Ok(shown::file(self.0.owner, size, mtime))
    }

    fn name_lifetime(&self) -> Lifetime {
        Lifetime::None
    }

    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        Ok(match self.0.content()? {
            Some(content) => Arc::new(ReceiptFile(content)),
            None => Arc::new(LiveFile(self.0.clone())),
        })
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        let names = [shown::DIGEST, shown::REF, shown::ERROR].into_iter();
        names
            .filter(|name| self.xattr(name).is_some())
            .map(<[u8]>::to_vec)
            .collect()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        let lines = |lines: Vec<String>| (!lines.is_empty()).then(|| lines.join("\n").into_bytes());
        match name {
            shown::DIGEST => lines(self.0.receipt().digests),
            shown::REF => lines(self.0.receipt().refs),
            shown::ERROR => self
                .0
                .refusal()
                .map(|refusal| shown::fault(&refusal.fault())),
            _ => None,
        }
    }
}

impl Writable for DropNode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn open_is_slow(&self, how: OpenMode) -> bool {
        how.write && self.0.is_unsettled()
    }

    fn open_as(&self, _caller: &Caller, how: OpenMode) -> Result<Arc<dyn OpenFile>, Error> {
        if !how.write {
            return self.open();
        }
        self.0.open_to_write(how.truncate)?;
        Ok(written(&self.0, how))
    }

    // These are what tools do to the files that they have made. What a drop becomes does
    // not hang on it.
    fn set_attr(
        &self,
        _caller: &Caller,
        change: &AttrChange,
        open: Option<&dyn OpenFile>,
    ) -> Result<Attr, Error> {
        if let Some(size) = change.size {
            self.0.set_size(size, open.is_none())?;
        }
        self.attr(Patience::Never)
    }

    fn set_xattr(
        &self,
        _caller: &Caller,
        name: &[u8],
        _value: &[u8],
        _how: XattrMode,
    ) -> Result<(), Error> {
        match session::Order::of(name) {
            // This is no session.
            Some(_) => Err(Error::NotPermitted),
            None => Ok(()),
        }
    }

    fn remove_xattr(&self, _caller: &Caller, _name: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

/// A drop, open for its writer.
pub(super) fn written(drop: &Arc<Drop>, how: OpenMode) -> Arc<dyn OpenFile> {
    Arc::new(WrittenFile {
        drop: drop.clone(),
        is_readable: how.read,
    })
}

#[derive(Debug)]
struct WrittenFile {
    drop: Arc<Drop>,
    is_readable: bool,
}

impl OpenFile for WrittenFile {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        match self.is_readable {
            true => self.drop.read(buf, offset),
            false => Err(Error::System(libc::EBADF)),
        }
    }

    fn size(&self) -> u64 {
        self.drop.stat().0
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.write_by(Holder::default(), bytes, offset)
    }

    fn write_by(&self, holder: Holder, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.drop.write(bytes, offset, holder)
    }

    fn is_written(&self) -> bool {
        true
    }

    fn flush(&self, caller: &Caller) -> Result<(), Error> {
        self.flush_by(Holder::default(), caller)
    }

    fn flush_by(&self, holder: Holder, caller: &Caller) -> Result<(), Error> {
        self.drop.close(holder, Closer::see(caller.pid))
    }

    fn release(&self) {
        self.drop.release();
    }

    fn flush_is_slow(&self) -> bool {
        self.drop.close_is_slow()
    }

    fn sync(&self) -> Result<(), Error> {
        self.drop.sync()
    }

    // The kernel keeps nothing of it, and so refuses shared mappings.
    fn caching(&self) -> Caching {
        Caching::Direct
    }
}

/// A drop that is still written, open for a reader.
#[derive(Debug)]
struct LiveFile(Arc<Drop>);

impl OpenFile for LiveFile {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        self.0.read(buf, offset)
    }

    fn size(&self) -> u64 {
        self.0.stat().0
    }

    fn caching(&self) -> Caching {
        Caching::Direct
    }
}

/// A receipt, open for a reader, who keeps its bytes.
#[derive(Debug)]
struct ReceiptFile(Arc<dyn ReadAt>);

impl OpenFile for ReceiptFile {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        let read = self.0.read_at(buf, offset);
        read.map_err(|error| Error::of_content(&error))
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn caching(&self) -> Caching {
        Caching::Direct
    }
}
