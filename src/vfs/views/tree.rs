//! The nodes of a file tree: what a layer or an image has in it.
//!
//! All that is shown is as the tar has it. A node is a number in its tree and a pointer to
//! that, because the kernel may know a million of them.

use std::sync::Arc;

use super::Views;
use super::files::Files;
use super::xattr::{PREFIX, Xattrs};
use crate::layer::LayerFile;
use crate::layer::tree::{self, Kind};
use crate::rootfs::NodeId;
use crate::vfs::attr::{Attr, Device, FileKind, Lifetime, Time};
use crate::vfs::error::Error;
use crate::vfs::node::{
    Caching, Child, Listing, Node, NodeKey, OpenFile, Patience, Stretch, TreeKey,
};

/// A file tree at its place in the mount.
#[derive(Debug)]
pub(super) struct FileTree {
    views: Arc<Views>,
    files: Arc<Files>,
    /// What regular files hang on.
    content: Arc<TreeKey>,
    /// What everything else hangs on.
    place: Arc<TreeKey>,
    /// The time of directories that no entry names.
    created: Time,
}

impl FileTree {
    /// `files` at the place that `place` is the key of.
    #[must_use]
    pub(super) fn new(
        views: &Arc<Views>,
        files: Arc<Files>,
        place: NodeKey,
        created: Option<Time>,
    ) -> Self {
        Self {
            views: views.clone(),
            content: TreeKey::new(files.content.clone()),
            place: TreeKey::new(place),
            files,
            created: created.unwrap_or_default(),
        }
    }
}

/// A node of a file tree.
#[derive(Debug, Clone)]
pub(super) struct TreeNode {
    tree: Arc<FileTree>,
    id: NodeId,
}

impl TreeNode {
    /// The directory that everything else is in.
    #[must_use]
    pub(super) fn root(tree: &Arc<FileTree>) -> Self {
        let id = NodeId::ROOT;
        Self {
            tree: tree.clone(),
            id,
        }
    }

    fn at(&self, id: NodeId) -> Self {
        let tree = self.tree.clone();
        Self { tree, id }
    }

    fn files(&self) -> &Files {
        &self.tree.files
    }

    fn record(&self) -> tree::Node<'_> {
        self.files().rootfs.node(self.id)
    }

    fn try_open(&self) -> Result<LayerFile, Error> {
        if let Some(error) = self.outer() {
            return Err(error);
        }
        let content = self.files().rootfs.content(self.id);
        let content = content.ok_or(Error::Invalid)?;
        let layer = self.files().layer_of(self.id).layer()?;
        Ok(LayerFile::new(layer, content))
    }

    /// Why it cannot be opened, if it is a hard link whose target is not in its tree.
    fn outer(&self) -> Option<Error> {
        let Kind::Outer { target } = self.record().kind else {
            return None;
        };
        let target = target.escape_ascii();
        let text = if self.files().is_rootfs {
            format!("a hard link to \"{target}\", which is no file of a lower layer")
        } else {
            format!("a hard link to \"{target}\" of a lower layer; see rootfs/")
        };
        Some(Error::malformed("TAR_LINK", text))
    }

    /// Where the node comes from. A kernel asks for it of files and directories alone.
    fn provenance(&self) -> Xattrs {
        if !self.files().is_rootfs {
            return Xattrs::default();
        }
        let layer = self.files().layer_of(self.id);
        let number = self.files().rootfs.layer(self.id);
        let xattrs = Xattrs::default().with("layer", format!("{number} {}", layer.digest()));
        match &layer.created_by {
            Some(created_by) => xattrs.with("created-by", created_by),
            None => xattrs,
        }
    }

    fn fault(&self) -> Option<Vec<u8>> {
        if let Some(fault) = self.outer().and_then(|error| error.fault()) {
            return Xattrs::default()
                .with_fault(Some(&fault))
                .get(b"user.oci.error");
        }
        let subject = self.files().layer_of(self.id).subject();
        let fault = self.tree.views.faults().find(subject);
        let xattrs = Xattrs::default().with_fault(fault.as_ref());
        xattrs.get(b"user.oci.error")
    }
}

impl Node for TreeNode {
    fn key(&self) -> NodeKey {
        let tree = match self.kind() {
            FileKind::Regular => &self.tree.content,
            _ => &self.tree.place,
        };
        NodeKey::inside(tree, self.id.0)
    }

    fn kind(&self) -> FileKind {
        match self.record().kind {
            Kind::Directory => FileKind::Directory,
            Kind::File { .. } | Kind::Outer { .. } => FileKind::Regular,
            Kind::Symlink { .. } => FileKind::Symlink,
            Kind::CharDevice(_) => FileKind::CharDevice,
            Kind::BlockDevice(_) => FileKind::BlockDevice,
            Kind::Fifo => FileKind::Fifo,
        }
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        let node = self.record();
        let (uid, gid) = self.tree.views.shown_owner(node.uid, node.gid);
        let size = match node.kind {
            Kind::File { size } => size,
            Kind::Symlink { target } => target.len() as u64,
            _ => 0,
        };
        let content = self.files().rootfs.content(self.id);
        let device = match node.kind {
            Kind::CharDevice(device) | Kind::BlockDevice(device) => Device {
                major: device.major,
                minor: device.minor,
            },
            _ => Device::default(),
        };
        let mtime = Time {
            seconds: node.mtime,
            nanoseconds: node.mtime_nanoseconds,
        };
        Ok(Attr {
            kind: self.kind(),
            mode: match node.kind {
                // Linux knows no other mode of symlinks.
                Kind::Symlink { .. } => 0o777,
                _ => node.mode,
            },
            size,
            stored: content.map_or(size, |content| content.stored_len),
            links: node.links,
            device,
            uid,
            gid,
            mtime: if node.named { mtime } else { self.tree.created },
            other_times: None,
            lifetime: Lifetime::Forever,
        })
    }

    fn would_wait(&self) -> bool {
        let is_file = matches!(self.record().kind, Kind::File { .. });
        is_file && self.files().layer_of(self.id).has_gone()
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<dyn Node>>, Error> {
        if self.kind() != FileKind::Directory {
            return Err(Error::NotDirectory);
        }
        let found = self.files().rootfs.find(self.id, name);
        Ok(found.map(|id| Arc::new(self.at(id)) as Arc<dyn Node>))
    }

    fn list(&self) -> Result<Vec<Child>, Error> {
        let listing = self.listing()?;
        Ok((0..).map_while(|at| listing.child(at)).collect())
    }

    fn listing(&self) -> Result<Arc<dyn Listing>, Error> {
        if self.kind() != FileKind::Directory {
            return Err(Error::NotDirectory);
        }
        Ok(Arc::new(Names(self.clone())))
    }

    fn list_caching(&self) -> Caching {
        Caching::Keep
    }

    fn read_link(&self) -> Result<Vec<u8>, Error> {
        match self.record().kind {
            Kind::Symlink { target } => Ok(target.to_vec()),
            _ => Err(Error::Invalid),
        }
    }

    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        match self.kind() {
            FileKind::Directory => return Err(Error::IsDirectory),
            FileKind::Regular => {}
            _ => return Err(Error::Invalid),
        }
        let subject = self.files().layer_of(self.id).subject();
        if !self.files().is_rootfs
            && let Some(error) = self.outer()
        {
            // The layer is right, as far as can be seen from it alone.
            return Err(error);
        }
        let file = self.try_open();
        let file = file.map_err(|error| self.tree.views.faults().noted(subject, error))?;
        Ok(Arc::new(OpenTreeFile {
            views: self.tree.views.clone(),
            subject: subject.clone(),
            file,
        }))
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        let xattrs = self.files().rootfs.xattrs(self.id);
        xattrs.map(|(name, _)| name.to_vec()).collect()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        if name == b"user.oci.error" {
            return self.fault();
        }
        if name.starts_with(PREFIX.as_bytes()) {
            return self.provenance().get(name);
        }
        let mut xattrs = self.files().rootfs.xattrs(self.id);
        let found = xattrs.find(|(known, _)| *known == name);
        found.map(|(_, value)| value.to_vec())
    }
}

/// The names in a directory of a file tree.
#[derive(Debug)]
struct Names(TreeNode);

impl Listing for Names {
    fn child(&self, at: usize) -> Option<Child> {
        let (name, id) = self.0.files().rootfs.name_at(self.0.id, at)?;
        Some(Child {
            name: name.to_vec(),
            node: Arc::new(self.0.at(id)),
        })
    }
}

/// A regular file of a file tree, open for reading.
#[derive(Debug)]
struct OpenTreeFile {
    views: Arc<Views>,
    subject: Arc<str>,
    file: LayerFile,
}

impl OpenFile for OpenTreeFile {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        let read = self.file.read_at(buf, offset);
        read.map_err(|error| self.views.faults().noted(&self.subject, error.into()))
    }

    fn size(&self) -> u64 {
        self.file.size()
    }

    fn seek(&self, offset: u64, wanted: Stretch) -> Result<u64, Error> {
        let found = match wanted {
            Stretch::Data => self.file.next_data(offset),
            Stretch::Hole => self.file.next_hole(offset),
        };
        found.ok_or(Error::NoData)
    }
}
