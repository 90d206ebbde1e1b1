//! A layer's own tree: its entries as directories with names in them.
//!
//! ```text
//!   names   ┌────────────┬────────────┬─     in each directory one after the other, sorted
//!           │ "etc"    1 │ "usr"    2 │
//!   nodes   ├────────────┴───┬────────┴───┬─ directories before what is in them
//!           │ 0 dir: names 0,1 │ 1 dir: …   │
//!   heap    └────────────────┴────────────┴─ names, targets, regions, extended attributes
//! ```
//!
//! Three tables of bytes, the same in memory and in the file of a Toc, of about 70 bytes
//! for each entry; nothing is unpacked when they are loaded. [`Builder`] makes them from
//! the entries of the tar, in their order, as a runtime would extract them onto nothing:
//!
//! - of entries with the same path the last counts; a directory given twice keeps what is
//!   in it, with the attributes of the later one; a file on the way to an entry becomes a
//!   directory;
//! - a symlink on the way to an entry is followed, and cannot lead out of the layer
//!   (containerd's and umoci's reading, in which the root is the image's);
//! - a hard link is one more name of a node that came before it, else of one that comes
//!   later, else it is left as [`Kind::Outer`], for a lower layer to resolve;
//! - whiteouts are names like others here.
//!
//! Invariants: nodes are numbered so that a directory's number is below those of what is
//! in it, so there are no cycles; every node has a name, but for the root.
//!
//! Spec: image-spec layer.md, "Applying Changesets".

mod builder;
mod error;
mod heap;
mod moved;
mod numbering;
mod record;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

pub use builder::Builder;
pub use error::Error;

use crate::tar::{Content, Device, Region};
use heap::{Extras, ExtrasXattrs};
use record::{HeapPart, NAME_LEN, NO_EXTRAS, Name, RECORD_LEN, Record, Shape};

/// The number of a node within its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(0);
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its size in bytes, holes included.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it leads, as stored.
        target: &'a [u8],
    },
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A hard link whose target is not in this layer.
    Outer {
        /// The path of the target below the root.
        target: &'a [u8],
    },
}

/// A node's attributes, as the tar has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node<'a> {
    /// What it is.
    pub kind: Kind<'a>,
    /// Whether an entry names it. A directory that is there only because of what is in it
    /// has mode 0755 and is owned by 0:0.
    pub named: bool,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u16,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Time of the last change, in seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds after that.
    pub mtime_nanoseconds: u32,
    /// How many names it has; for a directory, two and the number of those in it.
    pub links: u32,
}

/// See the module.
#[derive(PartialEq, Eq)]
pub struct Tree {
    names: Vec<u8>,
    nodes: Vec<u8>,
    heap: Vec<u8>,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Bytes that make no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no tree: {0}")]
pub struct Fault(&'static str);

impl Tree {
    /// The tree of these tables.
    ///
    /// # Errors
    /// [`Fault`] if they break an invariant; so everything else here can rely on them.
    pub fn from_tables(names: Vec<u8>, nodes: Vec<u8>, heap: Vec<u8>) -> Result<Self, Fault> {
        let tree = Self { names, nodes, heap };
        tree.check()?;
        Ok(tree)
    }

    /// The tables: names, nodes, heap.
    #[must_use]
    pub fn tables(&self) -> [&[u8]; 3] {
        [&self.names, &self.nodes, &self.heap]
    }

    /// How many nodes there are, the root included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len() / RECORD_LEN
    }

    /// Whether there is nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How many names there are: a node may have several.
    #[must_use]
    pub fn count_names(&self) -> usize {
        self.names.len() / NAME_LEN
    }

    /// How many bytes of memory it takes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.tables().iter().map(|table| table.len() as u64).sum()
    }

    /// The attributes of a node.
    ///
    /// # Panics
    /// If `id` is not of this tree.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Node<'_> {
        let record = self.record(id);
        let kind = match record.shape {
            Shape::Directory { .. } => Kind::Directory,
            Shape::File { size, .. } => Kind::File { size },
            Shape::Symlink(target) => Kind::Symlink {
                target: heap::get(&self.heap, target),
            },
            Shape::CharDevice(device) => Kind::CharDevice(device),
            Shape::BlockDevice(device) => Kind::BlockDevice(device),
            Shape::Fifo => Kind::Fifo,
            Shape::Outer(target) => Kind::Outer {
                target: heap::get(&self.heap, target),
            },
        };
        Node {
            kind,
            named: record.named,
            mode: record.mode,
            uid: record.uid,
            gid: record.gid,
            mtime: record.mtime,
            mtime_nanoseconds: record.mtime_nanoseconds,
            links: record.links,
        }
    }

    /// The numbers of the names in a directory, in the order of their bytes; none for
    /// other nodes.
    #[must_use]
    pub fn names(&self, directory: NodeId) -> Range<u32> {
        match self.record(directory).shape {
            Shape::Directory { first, count } => first..first + count,
            _ => 0..0,
        }
    }

    /// A name by its number, and what it names.
    ///
    /// # Panics
    /// If there is no such name.
    #[must_use]
    pub fn name(&self, number: u32) -> (&[u8], NodeId) {
        let name = self.name_record(number);
        let part = HeapPart {
            start: name.start,
            len: name.len.into(),
        };
        (heap::get(&self.heap, part), NodeId(name.node))
    }

    /// The names in a directory and what they name.
    pub fn list(&self, directory: NodeId) -> impl ExactSizeIterator<Item = (&[u8], NodeId)> {
        let Range { start, end } = self.names(directory);
        (start as usize..end as usize).map(|number| self.name(narrow(number)))
    }

    /// What `name` in `directory` is.
    #[must_use]
    pub fn find(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let Range { mut start, mut end } = self.names(directory);
        while start < end {
            let middle = start + (end - start) / 2;
            let (found, node) = self.name(middle);
            match found.cmp(name) {
                Ordering::Less => start = middle + 1,
                Ordering::Greater => end = middle,
                Ordering::Equal => return Some(node),
            }
        }
        None
    }

    /// Where the bytes of a regular file are; `None` for other nodes.
    #[must_use]
    pub fn content(&self, id: NodeId) -> Option<Content> {
        let record = self.record(id);
        let Shape::File { size, data_offset } = record.shape else {
            return None;
        };
        let regions = self.extras(&record).and_then(|(regions, _)| regions);
        let stored_len = match &regions {
            None => size,
            Some(regions) => regions.iter().map(|region| region.len).sum(),
        };
        Some(Content {
            size,
            data_offset,
            stored_len,
            regions,
        })
    }

    /// The extended attributes of a node, as (name, value), sorted by name.
    pub fn xattrs(&self, id: NodeId) -> impl Iterator<Item = (&[u8], &[u8])> {
        let extras = self.extras(&self.record(id));
        extras.map_or(ExtrasXattrs::NONE, |(_, xattrs)| xattrs)
    }

    fn extras(&self, record: &Record) -> Option<(Option<Vec<Region>>, ExtrasXattrs<'_>)> {
        if record.extras == NO_EXTRAS {
            return None;
        }
        Extras::at(&self.heap, record.extras)?.regions()
    }

    fn is_directory(&self, id: NodeId) -> bool {
        self.record(id).is_directory()
    }

    fn record(&self, id: NodeId) -> Record {
        let (records, _) = self.nodes.as_chunks::<RECORD_LEN>();
        Record::read(&records[id.0 as usize]).expect("records are checked when a tree is made")
    }

    fn name_record(&self, number: u32) -> Name {
        let (names, _) = self.names.as_chunks::<NAME_LEN>();
        Name::read(&names[number as usize])
    }
}

/// What a tree relies on, looked at once.
impl Tree {
    fn check(&self) -> Result<(), Fault> {
        let (nodes, rest) = self.nodes.as_chunks::<RECORD_LEN>();
        let (names, more) = self.names.as_chunks::<NAME_LEN>();
        let sane = rest.is_empty() && more.is_empty() && u32::try_from(nodes.len()).is_ok();
        ensure(sane && !nodes.is_empty(), "tables are cut")?;
        let are_possible = nodes.iter().all(|bytes| Record::read(bytes).is_some());
        ensure(are_possible, "an impossible node")?;
        let mut next_name = 0;
        let mut named = vec![false; nodes.len()];
        for id in 0..nodes.len() {
            let record = self.record(NodeId(narrow(id)));
            ensure(id > 0 || record.is_directory(), "the root is no directory")?;
            self.check_extras(&record)?;
            match record.shape {
                Shape::Directory { first, count } => {
                    ensure(first == next_name, "directories do not follow each other")?;
                    let end = first.checked_add(count);
                    let end = end.filter(|end| *end as usize <= names.len());
                    next_name = end.ok_or(Fault("a directory without end"))?;
                    self.check_names(narrow(id), first..next_name, &mut named)?;
                }
                Shape::Symlink(part) | Shape::Outer(part) => self.check_part(part)?,
                _ => {}
            }
        }
        ensure(
            next_name as usize == names.len(),
            "names without a directory",
        )?;
        ensure(
            named[1..].iter().all(|named| *named),
            "a node without a name",
        )
    }

    /// Names are sorted; directories lie behind the one that they are in, and are in no
    /// other.
    fn check_names(
        &self,
        directory: u32,
        names: Range<u32>,
        named: &mut [bool],
    ) -> Result<(), Fault> {
        let mut last: &[u8] = b"";
        for number in names {
            let name = self.name_record(number);
            self.check_part(HeapPart {
                start: name.start,
                len: name.len.into(),
            })?;
            let (bytes, node) = self.name(number);
            ensure(last < bytes, "names are not sorted")?;
            last = bytes;
            let was_named = named.get_mut(node.0 as usize);
            let was_named = was_named.ok_or(Fault("a name of nothing"))?;
            let again = std::mem::replace(was_named, true);
            ensure(
                !self.is_directory(node) || (!again && node.0 > directory),
                "a directory in two places",
            )?;
        }
        Ok(())
    }

    fn check_part(&self, part: HeapPart) -> Result<(), Fault> {
        let end = u64::from(part.start) + u64::from(part.len);
        ensure(end <= self.heap.len() as u64, "beyond the heap")
    }

    fn check_extras(&self, record: &Record) -> Result<(), Fault> {
        if record.extras == NO_EXTRAS {
            return Ok(());
        }
        let extras = self.extras(record);
        ensure(
            extras.is_some_and(|(_, xattrs)| xattrs.are_whole()),
            "extras are cut",
        )
    }
}

fn ensure(holds: bool, fault: &'static str) -> Result<(), Fault> {
    holds.then_some(()).ok_or(Fault(fault))
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("a tree has fewer than 2^32 names and nodes")
}
