//! Makes a [`Tree`] from the entries of a tar, in their order.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::error::Error;
use super::heap::{Extras, Heap};
use super::numbering::Numbering;
use super::record::{HeapPart, NO_EXTRAS, Record, Shape};
use super::{Tree, narrow};
use crate::tar::{self, Entry, Region};

/// How many symlinks one path may lead through, as in containerd and umoci.
const MAX_FOLLOWED: u32 = 255;

/// How many bytes of paths may be walked because of symlinks, in all entries of a layer:
/// an entry of real layers leads through one or two.
const MAX_DETOURS: u64 = 64 << 20;

/// The longest name, in bytes; a symlink on the way may contain longer ones.
const MAX_NAME: usize = 255;

/// The number of a node while the tree is made.
pub(super) type Draft = u32;

pub(super) const ROOT: Draft = 0;

/// The directory of names that were taken out.
pub(super) const NOWHERE: Draft = u32::MAX;

/// A name while the tree is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct DraftName {
    pub(super) directory: Draft,
    pub(super) name: HeapPart,
    pub(super) node: Draft,
}

/// How names begin that hide something of lower layers.
///
/// Spec: image-spec layer.md, "Whiteouts".
const WHITEOUT: &[u8] = b".wh.";

/// What to do about a directory that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    Make,
    /// Make it, but not in the place of what is no directory.
    MakeBeside,
    Stop,
}

/// See the module.
#[derive(Debug)]
pub struct Builder {
    max_nodes: u64,
    max_depth: u64,
    pub(super) nodes: Vec<Record>,
    pub(super) names: Vec<DraftName>,
    by_name: HashTable<u32>,
    hasher: RandomState,
    pub(super) heap: Heap,
    /// The directory of the entry before, by its path: the next one is often there too.
    pub(super) last: Option<(Vec<u8>, Draft)>,
    /// Hard links whose targets were not there.
    outer: Vec<Draft>,
    detours: u64,
    duplicates: u64,
}

impl Builder {
    /// A tree with nothing in it.
    #[must_use]
    pub fn new(limits: &tar::Limits) -> Self {
        Self {
            max_nodes: limits.entries,
            max_depth: limits.depth,
            nodes: vec![Record::IMPLIED],
            names: Vec::new(),
            by_name: HashTable::new(),
            hasher: RandomState::new(),
            heap: Heap::default(),
            last: None,
            outer: Vec::new(),
            detours: 0,
            duplicates: 0,
        }
    }

    /// How many entries took the place of an earlier one.
    #[must_use]
    pub const fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Puts the next entry of the tar in.
    ///
    /// # Errors
    /// See [`Error`]; what was put in before is as it was.
    pub fn insert(&mut self, entry: &Entry) -> Result<(), Error> {
        let at = entry.header_offset;
        let Some((directory, name)) = split(&entry.path) else {
            self.nodes[0] = self.record(entry)?;
            return Ok(());
        };
        let absent = match hides_something(name, &entry.kind) {
            true => Absent::MakeBeside,
            false => Absent::Make,
        };
        let Some(directory) = self.directory(directory, absent, at)? else {
            // umoci writes one for each name of a directory that became a file, which
            // hides all of them itself.
            return Ok(());
        };
        if let tar::Kind::HardLink { target } = &entry.kind
            && let Some(node) = self.lookup(target, at)?
        {
            if self.nodes[node as usize].is_directory() {
                return Err(Error::DirectoryLink { header_offset: at });
            }
            return self.set(directory, name, node, at);
        }
        let record = self.record(entry)?;
        if record.is_directory()
            && let Some(number) = self.find(directory, name)
        {
            let node = self.names[number as usize].node as usize;
            if self.nodes[node].is_directory() {
                self.duplicates += u64::from(self.nodes[node].named);
                self.nodes[node] = record;
                return Ok(());
            }
        }
        let node = self.push(record, at)?;
        if matches!(record.shape, Shape::Outer(_)) {
            self.outer.push(node);
        }
        self.set(directory, name, node, at)
    }

    /// The record of an entry: of a hard link, one whose target is not in this layer.
    fn record(&mut self, entry: &Entry) -> Result<Record, Error> {
        let at = entry.header_offset;
        let mut regions: Option<&[Region]> = None;
        let shape = match &entry.kind {
            tar::Kind::Directory => Shape::Directory { first: 0, count: 0 },
            tar::Kind::File(content) => {
                regions = content.regions.as_deref();
                Shape::File {
                    size: content.size,
                    data_offset: content.data_offset,
                }
            }
            tar::Kind::Symlink { target } => Shape::Symlink(self.intern(target, at)?),
            tar::Kind::HardLink { target } => Shape::Outer(self.intern(target, at)?),
            tar::Kind::CharDevice(device) => Shape::CharDevice(*device),
            tar::Kind::BlockDevice(device) => Shape::BlockDevice(*device),
            tar::Kind::Fifo => Shape::Fifo,
        };
        let extras = Extras::encode(regions, &entry.xattrs);
        let extras = match extras.as_slice() {
            [] => NO_EXTRAS,
            extras => self.intern(extras, at)?.start,
        };
        Ok(Record {
            shape,
            named: true,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            mtime_nanoseconds: entry.mtime_nanoseconds,
            links: 0,
            extras,
        })
    }

    fn intern(&mut self, piece: &[u8], header_offset: u64) -> Result<HeapPart, Error> {
        self.heap.intern(piece).ok_or(Error::Limit {
            header_offset,
            what: "bytes of metadata",
            max: u32::MAX.into(),
        })
    }

    fn push(&mut self, record: Record, header_offset: u64) -> Result<Draft, Error> {
        let id = self.nodes.len();
        let max = self.max_nodes.min(u32::MAX.into());
        if id as u64 > max {
            return Err(Error::Limit {
                header_offset,
                what: "files and directories",
                max,
            });
        }
        self.nodes.push(record);
        Ok(narrow(id))
    }

    fn hash(hasher: &RandomState, directory: Draft, name: &[u8]) -> u64 {
        hasher.hash_one((directory, name))
    }

    /// The number of `name` in `directory`.
    pub(super) fn find(&self, directory: Draft, name: &[u8]) -> Option<u32> {
        let hash = Self::hash(&self.hasher, directory, name);
        let is_it = |number: &u32| {
            let known = &self.names[*number as usize];
            known.directory == directory && self.heap.get(known.name) == name
        };
        self.by_name.find(hash, is_it).copied()
    }

    pub(super) fn child(&self, directory: Draft, name: &[u8]) -> Option<Draft> {
        let number = self.find(directory, name)?;
        Some(self.names[number as usize].node)
    }

    /// Makes `name` in `directory` a name of `node`, whatever it was.
    pub(super) fn set(
        &mut self,
        directory: Draft,
        name: &[u8],
        node: Draft,
        at: u64,
    ) -> Result<(), Error> {
        let known = self.find(directory, name);
        let is_link = matches!(self.nodes[node as usize].shape, Shape::Symlink(_));
        if known.is_some() || is_link {
            // The directory remembered may have been under this name, or its path may lead
            // through the symlink now.
            self.last = None;
        }
        if let Some(number) = known {
            self.names[number as usize].node = node;
            self.duplicates += 1;
            return Ok(());
        }
        let name = self.intern(name, at)?;
        self.put(DraftName {
            directory,
            name,
            node,
        });
        Ok(())
    }

    /// Puts a name in that is not there yet.
    pub(super) fn put(&mut self, name: DraftName) {
        let number = narrow(self.names.len());
        self.names.push(name);
        let hash = Self::hash(&self.hasher, name.directory, self.heap.get(name.name));
        let Self {
            by_name,
            names,
            hasher,
            heap,
            ..
        } = self;
        by_name.insert_unique(hash, number, |number| {
            let known = &names[*number as usize];
            Self::hash(hasher, known.directory, heap.get(known.name))
        });
    }

    /// The node at `path`, which is not followed if it is a symlink.
    pub(super) fn lookup(&mut self, path: &[u8], at: u64) -> Result<Option<Draft>, Error> {
        let Some((directory, name)) = split(path) else {
            return Ok(Some(ROOT));
        };
        let directory = self.directory(directory, Absent::Stop, at)?;
        Ok(directory.and_then(|directory| self.child(directory, name)))
    }

    /// The directory at `path`.
    pub(super) fn directory(
        &mut self,
        path: &[u8],
        absent: Absent,
        at: u64,
    ) -> Result<Option<Draft>, Error> {
        if let Some((last, node)) = &self.last
            && last == path
        {
            return Ok(Some(*node));
        }
        let directory = self.walk(path, absent, at)?;
        if let Some(node) = directory {
            self.last = Some((path.to_vec(), node));
        }
        Ok(directory)
    }

    /// Walks `path` from the root, through symlinks. What is absent is made at the end: a
    /// `..` in a symlink may take it back.
    fn walk(&mut self, path: &[u8], absent: Absent, at: u64) -> Result<Option<Draft>, Error> {
        let mut rest = path.to_vec();
        let mut done = 0;
        let mut followed = 0;
        let mut way = vec![ROOT];
        // The names behind `way` that lead to no directory, and whether the first leads to
        // something else.
        let (mut missing, mut is_taken) = (Vec::<Vec<u8>>::new(), false);
        while done < rest.len() {
            let len = rest[done..].iter().position(|byte| *byte == b'/');
            let end = len.map_or(rest.len(), |len| done + len);
            let name = &rest[done..end];
            let here = *way.last().unwrap_or(&ROOT);
            match name {
                b"" | b"." => {}
                b".." => {
                    if missing.pop().is_none() {
                        way.pop();
                    }
                }
                name if !missing.is_empty() => missing.push(name.to_vec()),
                name => match self.step(here, name) {
                    Step::Into(node) => way.push(node),
                    step @ (Step::Nowhere | Step::Taken) => {
                        is_taken = matches!(step, Step::Taken);
                        missing.push(name.to_vec());
                    }
                    Step::Follow(target) => {
                        followed += 1;
                        self.detour(followed, rest.len() - end + target.len(), at)?;
                        if target.starts_with(b"/") {
                            way.clear();
                        }
                        rest = [&target, &rest[end..]].concat();
                        done = 0;
                        continue;
                    }
                },
            }
            // With the root, as much as with a name in it.
            self.check_depth(way.len() + missing.len(), at)?;
            done = (end + 1).min(rest.len());
        }
        let end = *way.last().unwrap_or(&ROOT);
        match absent {
            Absent::MakeBeside if is_taken && !missing.is_empty() => Ok(None),
            Absent::Make | Absent::MakeBeside => self.make(end, &missing, at).map(Some),
            Absent::Stop => Ok(missing.is_empty().then_some(end)),
        }
    }

    /// Makes directories in `here`, one in the other; the first may replace a file.
    fn make(&mut self, mut here: Draft, names: &[Vec<u8>], at: u64) -> Result<Draft, Error> {
        for name in names {
            if name.len() > MAX_NAME {
                return Err(Error::SymlinkLoop { header_offset: at });
            }
            let node = self.push(Record::IMPLIED, at)?;
            self.set(here, name, node, at)?;
            here = node;
        }
        Ok(here)
    }

    fn detour(&mut self, followed: u32, len: usize, header_offset: u64) -> Result<(), Error> {
        self.detours += len as u64;
        if followed > MAX_FOLLOWED {
            return Err(Error::SymlinkLoop { header_offset });
        }
        if self.detours > MAX_DETOURS {
            return Err(Error::Limit {
                header_offset,
                what: "bytes of paths through symlinks",
                max: MAX_DETOURS,
            });
        }
        Ok(())
    }

    fn check_depth(&self, depth: usize, header_offset: u64) -> Result<(), Error> {
        if depth as u64 > self.max_depth {
            return Err(Error::Limit {
                header_offset,
                what: "directories on a path",
                max: self.max_depth,
            });
        }
        Ok(())
    }

    /// One name of a path, which is to be a directory.
    fn step(&self, here: Draft, name: &[u8]) -> Step {
        let Some(node) = self.child(here, name) else {
            return Step::Nowhere;
        };
        match self.nodes[node as usize].shape {
            Shape::Directory { .. } => Step::Into(node),
            Shape::Symlink(target) => Step::Follow(self.heap.get(target).to_vec()),
            _ => Step::Taken,
        }
    }

    /// Takes a name out.
    pub(super) fn take(&mut self, number: u32) -> DraftName {
        let taken = self.names[number as usize];
        let name = self.heap.get(taken.name);
        let hash = Self::hash(&self.hasher, taken.directory, name);
        if let Ok(entry) = self.by_name.find_entry(hash, |known| *known == number) {
            entry.remove();
        }
        self.names[number as usize].directory = NOWHERE;
        taken
    }

    /// The tree of all entries.
    #[must_use]
    pub fn finish(mut self) -> Tree {
        let joined = self.join_outer();
        Numbering::new(&self, &joined).run(self)
    }

    /// Which nodes the hard links lead to whose targets came after them.
    fn join_outer(&mut self) -> HashMap<Draft, Draft> {
        let mut joined: HashMap<Draft, Draft> = HashMap::new();
        for link in std::mem::take(&mut self.outer) {
            let mut chain = Vec::new();
            let mut end = link;
            while let Shape::Outer(target) = self.nodes[end as usize].shape
                && !joined.contains_key(&end)
            {
                let target = self.heap.get(target).to_vec();
                // Whoever comes back here goes in circles, and ends here.
                joined.insert(end, end);
                chain.push(end);
                match self.lookup(&target, 0) {
                    Ok(Some(node)) if !self.nodes[node as usize].is_directory() => end = node,
                    _ => break,
                }
            }
            let end = joined.get(&end).copied().unwrap_or(end);
            joined.extend(chain.into_iter().map(|link| (link, end)));
        }
        joined
    }
}

/// Where a name on the way leads.
enum Step {
    Into(Draft),
    Follow(Vec<u8>),
    /// To what is no directory.
    Taken,
    Nowhere,
}

/// Whether this is a whiteout as it should be. What is none, though it has such a name, is
/// refused where layers are merged.
fn hides_something(name: &[u8], kind: &tar::Kind) -> bool {
    let is_name = |hidden: &[u8]| match hidden {
        b"" | b"." | b".." => false,
        b".wh..opq" => true,
        hidden => !hidden.starts_with(WHITEOUT),
    };
    let hidden = name.strip_prefix(WHITEOUT);
    matches!(kind, tar::Kind::File(_)) && hidden.is_some_and(is_name)
}

/// The path of the directory and the name in it; `None` for the root.
pub(super) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    })
}
