//! The root file system of an image: the trees of its layers, merged.
//!
//! ```text
//!   layer 2   etc/ ── .wh.motd                   what is seen   etc/ ── hosts   of layer 1
//!   layer 1   etc/ ── hosts         merge  ==>                          passwd  of layer 0
//!   layer 0   etc/ ── hosts, motd, passwd
//! ```
//!
//! Metadata only: every node says which layer it comes from and which node of that layer's
//! [`Tree`] it is; the bytes are read through that layer. Two tables of small records, of
//! about 32 bytes for each name beside the trees of the layers.
//!
//! How layers are put together ([`merge`]):
//!
//! - Each directory is made of all the directories that the layers have at its place, all
//!   at once. Whiteouts act on lower layers, wherever they stand in their tar.
//! - What is not a directory replaces what is below it, and is replaced by what is above.
//!   The attributes of a directory are those of the highest layer that names it.
//! - Where a layer has only entries *below* a path that is a symlink in lower layers, they
//!   are moved to where it leads ([`relocate`]), as they would be when they are extracted,
//!   and come after its other entries. A symlink that a higher layer hides leads there too.
//! - A hard link to a file that its layer does not have is one more name of the file that
//!   lower layers show there ([`resolve`]), also if its own layer hides that.
//! - A name that is no directory at first and then one, in the same layer, hides nothing of
//!   lower layers. That, and what else is not extraction in the order of the entries, are
//!   rules with names in the tests (`tests/it/rootfs/rules.rs`).
//!
//! The work is linear in the names of all layers, but for sorting and for looking paths up
//! in lower layers, which [`Limits::steps`] bounds; so do the other [`Limits`] memory.
//!
//! Spec: image-spec layer.md, "Applying Changesets".

mod error;
mod limits;
mod merge;
mod relocate;
mod resolve;
mod size;
#[cfg(test)]
mod tests;
mod whiteout;

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use error::Error;
pub use limits::Limits;
pub use size::Size;

use crate::layer::tree::{self, Tree};
use crate::tar::Content;

/// The number of a node within a root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(0);
}

/// A node of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Origin {
    layer: u32,
    node: tree::NodeId,
}

/// A name in a directory: the bytes are those of a name of a layer.
#[derive(Debug, Clone, Copy)]
struct Name {
    layer: u32,
    /// Its number in the tree of that layer.
    number: u32,
    node: NodeId,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    origin: Origin,
    /// The names in it, if it is a directory.
    first: u32,
    count: u32,
    links: u32,
}

/// See the module.
pub struct Rootfs {
    layers: Vec<Arc<Tree>>,
    names: Vec<Name>,
    records: Vec<Record>,
}

impl fmt::Debug for Rootfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rootfs")
            .field("layers", &self.layers.len())
            .field("len", &self.records.len())
            .finish_non_exhaustive()
    }
}

impl Rootfs {
    /// Applies layers to an empty directory, the base layer first.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(layers: Vec<Arc<Tree>>) -> Result<Self, Error> {
        merge::merge(layers, &Limits::default())
    }

    /// One layer as it is, with its whiteouts as the files that they are.
    #[must_use]
    pub fn of_layer(tree: Arc<Tree>) -> Self {
        merge::copy(tree)
    }

    /// How many nodes there are, the root included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How many bytes of memory it takes, with the trees of its layers.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let names = self.names.len() * size_of::<Name>();
        let own = (names + self.records.len() * size_of::<Record>()) as u64;
        let mut seen = HashSet::new();
        let layers = self.layers.iter();
        let distinct = layers.filter(|tree| seen.insert(Arc::as_ptr(tree)));
        own + distinct.map(|tree| tree.weight()).sum::<u64>()
    }

    /// The attributes of a node.
    ///
    /// # Panics
    /// If `id` is not of this root file system; so do the others.
    #[must_use]
    pub fn node(&self, id: NodeId) -> tree::Node<'_> {
        let record = self.record(id);
        tree::Node {
            links: record.links,
            ..self.tree(record.origin).node(record.origin.node)
        }
    }

    /// The number of the layer that a node comes from.
    #[must_use]
    pub fn layer(&self, id: NodeId) -> usize {
        self.record(id).origin.layer as usize
    }

    /// Where the bytes of a regular file are in its layer; `None` for other nodes.
    #[must_use]
    pub fn content(&self, id: NodeId) -> Option<Content> {
        let origin = self.record(id).origin;
        self.tree(origin).content(origin.node)
    }

    /// The extended attributes of a node, as (name, value).
    pub fn xattrs(&self, id: NodeId) -> impl Iterator<Item = (&[u8], &[u8])> {
        let origin = self.record(id).origin;
        self.tree(origin).xattrs(origin.node)
    }

    /// The names in a directory in the order of their bytes, and what they name.
    pub fn list(&self, directory: NodeId) -> impl ExactSizeIterator<Item = (&[u8], NodeId)> {
        let names = &self.names[self.names_of(directory)];
        names.iter().map(|name| (self.text(name), name.node))
    }

    /// The name at a position of that list, counted from 0.
    #[must_use]
    pub fn name_at(&self, directory: NodeId, at: usize) -> Option<(&[u8], NodeId)> {
        let name = self.names[self.names_of(directory)].get(at)?;
        Some((self.text(name), name.node))
    }

    /// What `name` in `directory` is.
    #[must_use]
    pub fn find(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let names = &self.names[self.names_of(directory)];
        let found = names.binary_search_by(|known| self.text(known).cmp(name));
        found.ok().map(|at| names[at].node)
    }

    fn record(&self, id: NodeId) -> &Record {
        &self.records[id.0 as usize]
    }

    fn tree(&self, origin: Origin) -> &Tree {
        &self.layers[origin.layer as usize]
    }

    fn names_of(&self, directory: NodeId) -> Range<usize> {
        let Record { first, count, .. } = *self.record(directory);
        first as usize..first as usize + count as usize
    }

    fn text(&self, name: &Name) -> &[u8] {
        self.layers[name.layer as usize].name(name.number).0
    }
}
