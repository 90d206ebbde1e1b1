//! What is in a session, as nodes of the tree that users see.

use std::any::Any;
use std::sync::Arc;

use rustix::fs::{Dir, OFlags};

use super::attributes;
use super::file::LentFile;
use super::inode::{Inode, system};
use super::limits::{difference, room_of};
use super::names::{self, Copied};
use super::order::Order;
use crate::vfs::attr::{Attr, FileKind, Lifetime};
use crate::vfs::error::Error;
use crate::vfs::listing::{Child, Listing};
use crate::vfs::node::{Node, NodeKey, OpenFile, Patience};
use crate::vfs::writable::{
    AttrChange, Caller, Created, NewNode, OpenMode, Removal, RenameMode, Room, Writable, XattrMode,
};

/// Why the session was not published when that was tried last.
const ERROR: &[u8] = b"user.oci.error";

/// A file, directory or anything else in a session.
#[derive(Debug, Clone)]
pub(super) struct SessionNode(pub(super) Arc<Inode>);

impl SessionNode {
    pub(super) fn shared(inode: Arc<Inode>) -> Arc<dyn Node> {
        Arc::new(Self(inode))
    }
}

impl Node for SessionNode {
    fn key(&self) -> NodeKey {
        self.0.key()
    }

    fn kind(&self) -> FileKind {
        self.0.kind()
    }

    fn room(&self) -> Room<'_> {
        Room::DropBox(self)
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        let _gate = self.0.tree().look()?;
        attributes::attr(&self.0)
    }

    fn name_lifetime(&self) -> Lifetime {
        if self.0.is_root() {
            // It may have been published, and its name be that of an image.
            Lifetime::None
        } else if self.0.lent_digest().is_some() {
            Lifetime::Briefly
        } else {
            Lifetime::Forever
        }
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<dyn Node>>, Error> {
        let _gate = self.0.tree().look()?;
        let found = self.0.tree().child(&self.0, name)?;
        Ok(found.map(SessionNode::shared))
    }

    fn listing(&self) -> Result<Arc<dyn Listing>, Error> {
        let _gate = self.0.tree().look()?;
        if self.0.is_gone() {
            return Ok(Arc::new(Vec::new()));
        }
        let directory = self.0.reopen(OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::new(directory).map_err(system)? {
            let entry = entry.map_err(system)?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => names.push(name.into()),
            }
        }
        let directory = self.0.clone();
        Ok(Arc::new(Names { directory, names }))
    }

    fn read_link(&self) -> Result<Vec<u8>, Error> {
        let _gate = self.0.tree().look()?;
        if self.0.kind() != FileKind::Symlink {
            return Err(Error::Invalid);
        }
        let handle = self.0.handle()?;
        let target = rustix::fs::readlinkat(&handle, "", Vec::new()).map_err(system)?;
        Ok(target.into_bytes())
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        match self.0.tree().look() {
            Ok(_gate) => attributes::xattr_names(&self.0),
            Err(_) => Vec::new(),
        }
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        if name == ERROR && self.0.is_root() {
            let sessions = self.0.tree().sessions()?;
            return sessions.refusal_of(self.0.tree());
        }
        let _gate = self.0.tree().look().ok()?;
        attributes::xattr(&self.0, name)
    }
}

/// The names in a directory as they were when it was listed.
#[derive(Debug)]
struct Names {
    directory: Arc<Inode>,
    names: Vec<Box<[u8]>>,
}

impl Listing for Names {
    fn child(&self, at: usize) -> Option<Child> {
        let name = self.names.get(at)?;
        let tree = self.directory.tree();
        let found = tree
            .look()
            .and_then(|_gate| tree.child(&self.directory, name));
        let node: Arc<dyn Node> = match found {
            Ok(Some(inode)) => SessionNode::shared(inode),
            Ok(None) | Err(_) => Arc::new(Removed(self.directory.key())),
        };
        Some(Child {
            name: name.to_vec(),
            node,
        })
    }
}

/// What was listed and has been removed since. It has no attributes, so that a listing
/// leaves it out.
#[derive(Debug)]
struct Removed(NodeKey);

impl Node for Removed {
    fn key(&self) -> NodeKey {
        self.0.clone()
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        Err(Error::NotFound)
    }
}

impl SessionNode {
    fn open_file(&self, caller: &Caller, how: OpenMode) -> Result<Arc<dyn OpenFile>, Error> {
        let (inode, tree) = (&self.0, self.0.tree());
        match inode.kind() {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Error::IsDirectory),
            // The kernel opens these itself.
            _ => return Err(Error::Invalid),
        }
        if !how.write && !how.truncate {
            let _gate = tree.look()?;
            return match inode.lent_digest() {
                Some(digest) => {
                    let blob = tree.lender().open_blob(&digest)?;
                    Ok(LentFile::new(inode, blob))
                }
                None => Ok(names::open_kept(inode, caller, how)?),
            };
        }
        if inode.lent_digest().is_some() {
            // Alone: two who do so at once would each make a file.
            let _gate = tree.rearrange()?;
            let copied = match how.truncate {
                true => Copied::Nothing,
                false => Copied::Whole,
            };
            names::make_private(inode, copied)?;
        }
        let _gate = tree.change()?;
        Ok(names::open_kept(inode, caller, how)?)
    }
}

/// The session node that another provider was given.
pub(super) fn inode_of(node: &dyn Writable) -> Option<&Arc<Inode>> {
    let node = node.as_any().downcast_ref::<SessionNode>()?;
    Some(&node.0)
}

impl Writable for SessionNode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn create(
        &self,
        caller: &Caller,
        name: &[u8],
        mode: u16,
        how: OpenMode,
    ) -> Result<Created, Error> {
        let created = names::create(&self.0, caller, name, mode, how);
        let (inode, file) = self.0.tree().tell(created)?;
        Ok(Created {
            node: SessionNode::shared(inode),
            file,
        })
    }

    fn open_as(&self, caller: &Caller, how: OpenMode) -> Result<Arc<dyn OpenFile>, Error> {
        let opened = self.open_file(caller, how);
        self.0.tree().tell(opened)
    }

    fn make(&self, caller: &Caller, name: &[u8], new: NewNode<'_>) -> Result<Arc<dyn Node>, Error> {
        let made = names::make(&self.0, caller, name, new);
        self.0.tree().tell(made).map(SessionNode::shared)
    }

    fn link(
        &self,
        _caller: &Caller,
        name: &[u8],
        existing: &dyn Writable,
    ) -> Result<Arc<dyn Node>, Error> {
        let existing = inode_of(existing).ok_or(Error::CrossDevice)?;
        let linked = names::link(&self.0, name, existing);
        self.0.tree().tell(linked).map(SessionNode::shared)
    }

    fn remove(&self, _caller: &Caller, name: &[u8], what: Removal) -> Result<(), Error> {
        names::remove(&self.0, name, what)
    }

    fn rename(
        &self,
        _caller: &Caller,
        name: &[u8],
        to: &dyn Writable,
        new_name: &[u8],
        how: RenameMode,
    ) -> Result<(), Error> {
        let to = inode_of(to).ok_or(Error::CrossDevice)?;
        names::rename(&self.0, name, to, new_name, how)
    }

    fn set_attr(
        &self,
        caller: &Caller,
        change: &AttrChange,
        open: Option<&dyn OpenFile>,
    ) -> Result<Attr, Error> {
        let (inode, tree) = (&self.0, self.0.tree());
        if inode.lent_digest().is_some() {
            let _gate = tree.rearrange()?;
            names::make_private(inode, Copied::Whole)?;
        }
        let _gate = tree.change()?;
        let before = change.size.map(|_| inode.stat()).transpose()?;
        // The file by which it is set may write where the modes no longer allow it.
        let open = open.filter(|open| open.is_written());
        attributes::set(inode, caller, change, open.and_then(OpenFile::backing))?;
        // Else it is counted by who writes to it.
        if let Some(before) = before
            && !inode.is_written()
        {
            let (before, after) = (room_of(&before), room_of(&inode.stat()?));
            tree.meter().change(difference(before, after), 0);
        }
        attributes::attr(inode)
    }

    fn set_xattr(
        &self,
        _caller: &Caller,
        name: &[u8],
        value: &[u8],
        how: XattrMode,
    ) -> Result<(), Error> {
        let tree = self.0.tree();
        if let Some(order) = Order::of(name) {
            if !self.0.is_root() {
                return Err(Error::NotPermitted);
            }
            let sessions = tree.sessions().ok_or(Error::ShutDown)?;
            return sessions.commit_tree(tree, value, order);
        }
        let _gate = self.0.tree().change()?;
        attributes::set_xattr(&self.0, name, value, how)
    }

    fn remove_xattr(&self, _caller: &Caller, name: &[u8]) -> Result<(), Error> {
        let _gate = self.0.tree().change()?;
        attributes::remove_xattr(&self.0, name)
    }

    fn sync(&self) -> Result<(), Error> {
        let _gate = self.0.tree().look()?;
        let directory = self.0.reopen(OFlags::RDONLY | OFlags::DIRECTORY)?;
        rustix::fs::fsync(&directory).map_err(system)
    }
}
