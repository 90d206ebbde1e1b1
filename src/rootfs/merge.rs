//! Merges the trees of layers, directory by directory.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::Error;
use super::relocate::{Conflict, relocate};
use super::resolve::Lower;
use super::whiteout::{Meaning, meaning};
use super::{Name, NodeId, Origin, Record, Rootfs};
use crate::layer::tree::{self, Kind, Tree};

/// How often symlinks in lower layers may send entries elsewhere, and those again. Each
/// round moves all that it finds; images need one or two.
const MAX_ROUNDS: u64 = 64;

/// How many nodes the layers of an image may have together. The largest real images have
/// some two million; each costs about a hundred bytes of memory.
const MAX_NODES: u64 = 16_000_000;

/// Applies layers to an empty directory, the base layer first.
pub(super) fn merge(mut layers: Vec<Arc<Tree>>) -> Result<Rootfs, Error> {
    check_size(layers.iter().map(|tree| tree.len() as u64).sum())?;
    for _ in 0..MAX_ROUNDS {
        let mut merge = Merge::new(&layers);
        merge.run()?;
        if merge.conflicts.is_empty() {
            let Merge { names, records, .. } = merge;
            return Ok(Rootfs {
                layers,
                names,
                records,
            });
        }
        let conflicts = merge.conflicts;
        relocate(&mut layers, conflicts)?;
    }
    Err(Error::Limit {
        what: "rounds of following symlinks",
        max: MAX_ROUNDS,
    })
}

/// Refuses layers that have too many nodes together, so that this can be found out
/// before all of them are loaded.
///
/// # Errors
/// [`Error::Limit`].
pub fn check_size(nodes: u64) -> Result<(), Error> {
    if nodes > MAX_NODES {
        return Err(Error::Limit {
            what: "files and directories in all layers",
            max: MAX_NODES,
        });
    }
    Ok(())
}

/// One layer as it is.
pub(super) fn copy(tree: Arc<Tree>) -> Rootfs {
    let count = narrow(tree.len());
    let mut names = Vec::new();
    let mut records = Vec::with_capacity(tree.len());
    for node in (0..count).map(tree::NodeId) {
        let range = tree.names(node);
        records.push(Record {
            origin: Origin { layer: 0, node },
            first: range.start,
            count: range.end - range.start,
            links: tree.node(node).links,
        });
        names.extend(range.map(|number| Name {
            layer: 0,
            number,
            node: NodeId(tree.name(number).1.0),
        }));
    }
    Rootfs {
        layers: vec![tree],
        names,
        records,
    }
}

/// A name that a layer has in a directory.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    text: &'a [u8],
    layer: u32,
    number: u32,
    node: tree::NodeId,
}

/// What hides a name: the highest layer that has a whiteout of it.
#[derive(Debug, Clone, Copy)]
struct Hiding<'a> {
    text: &'a [u8],
    layer: u32,
}

struct Merge<'a> {
    layers: &'a [Arc<Tree>],
    names: Vec<Name>,
    records: Vec<Record>,
    /// The directories to come, with what the layers have of each, the lowest first.
    todo: Vec<(NodeId, Vec<Origin>)>,
    /// Where hard links to lower layers end.
    ends: HashMap<Origin, Origin>,
    /// The nodes of files that may have several names, as soon as they have one.
    shared: HashMap<Origin, Option<NodeId>>,
    conflicts: Vec<Conflict>,
    /// The directory of each directory and its name there, for paths in messages.
    parents: HashMap<NodeId, (NodeId, Name)>,
}

impl<'a> Merge<'a> {
    fn new(layers: &'a [Arc<Tree>]) -> Self {
        Self {
            layers,
            names: Vec::new(),
            records: Vec::new(),
            todo: Vec::new(),
            ends: HashMap::new(),
            shared: HashMap::new(),
            conflicts: Vec::new(),
            parents: HashMap::new(),
        }
    }

    fn run(&mut self) -> Result<(), Error> {
        let root = |layer| Origin {
            layer: narrow(layer),
            node: tree::NodeId::ROOT,
        };
        let roots: Vec<Origin> = (0..self.layers.len()).map(root).collect();
        self.records.push(Record {
            origin: roots.last().copied().unwrap_or(root(0)),
            first: 0,
            count: 0,
            links: 2,
        });
        if roots.is_empty() {
            return Ok(());
        }
        self.resolve_outer();
        self.todo.push((NodeId::ROOT, roots));
        while let Some((directory, origins)) = self.todo.pop() {
            self.directory(directory, &origins)?;
        }
        Ok(())
    }

    fn tree(&self, layer: u32) -> &'a Tree {
        &self.layers[layer as usize]
    }

    /// Merges what the layers have in one directory.
    fn directory(&mut self, directory: NodeId, origins: &[Origin]) -> Result<(), Error> {
        let (candidates, hidings) = self.gather(directory, origins)?;
        let first = self.names.len();
        let mut hidings = hidings.as_slice();
        for group in candidates.chunk_by(|a, b| a.text == b.text) {
            let text = group[0].text;
            while let [first, rest @ ..] = hidings
                && first.text < text
            {
                hidings = rest;
            }
            let hidden = hidings.iter().take_while(|hiding| hiding.text == text);
            let hidden = hidden.map(|hiding| hiding.layer).max();
            let lowest = group.partition_point(|one| hidden.is_some_and(|by| one.layer < by));
            self.name(directory, &group[lowest..])?;
        }
        let record = &mut self.records[directory.0 as usize];
        record.first = narrow(first);
        record.count = narrow(self.names.len() - first);
        Ok(())
    }

    /// All names of one directory, sorted by their bytes and then by layer, and what is to
    /// be hidden of them.
    fn gather(
        &self,
        directory: NodeId,
        origins: &[Origin],
    ) -> Result<(Vec<Candidate<'a>>, Vec<Hiding<'a>>), Error> {
        let mut candidates = Vec::new();
        let mut hidings = Vec::new();
        for origin in origins {
            let tree = self.tree(origin.layer);
            let below = candidates.len();
            let mut hides_all = false;
            for number in tree.names(origin.node) {
                let (text, node) = tree.name(number);
                let candidate = Candidate {
                    text,
                    layer: origin.layer,
                    number,
                    node,
                };
                match self.meaning(directory, &candidate)? {
                    Meaning::Plain => candidates.push(candidate),
                    Meaning::Hides(text) => hidings.push(Hiding {
                        text,
                        layer: origin.layer,
                    }),
                    Meaning::HidesAll => hides_all = true,
                    Meaning::Leftover => {}
                }
            }
            if hides_all {
                candidates.drain(..below);
            }
        }
        // Each layer's names are in order already, which a stable sort makes use of.
        if origins.len() > 1 {
            candidates.sort_by_key(|candidate| candidate.text);
            hidings.sort_by_key(|hiding| hiding.text);
        }
        Ok((candidates, hidings))
    }

    fn meaning(&self, directory: NodeId, name: &Candidate<'a>) -> Result<Meaning<'a>, Error> {
        if !name.text.starts_with(b".wh.") {
            return Ok(Meaning::Plain);
        }
        let kind = self.tree(name.layer).node(name.node).kind;
        meaning(name.text, kind).map_err(|fault| Error::Whiteout {
            layer: name.layer as usize,
            path: self.path(directory, name.text),
            fault,
        })
    }

    /// Shows one name, for which the layers have `group`, the lowest first.
    fn name(&mut self, directory: NodeId, group: &[Candidate<'a>]) -> Result<(), Error> {
        let Some((top, below)) = group.split_last() else {
            return Ok(());
        };
        let kind = |one: &Candidate<'_>| self.tree(one.layer).node(one.node).kind;
        let node = match kind(top) {
            Kind::Directory => {
                let is_directory = |one: &&Candidate<'_>| kind(one) == Kind::Directory;
                let count = below.iter().rev().take_while(is_directory).count();
                let covered = &below[..below.len() - count];
                let parts = &group[below.len() - count..];
                self.note_conflicts(directory, covered.last(), parts);
                self.open(directory, parts)
            }
            Kind::Outer { .. } => {
                let link = origin(top);
                self.leaf(self.ends.get(&link).copied().unwrap_or(link))
            }
            _ => self.leaf(origin(top)),
        };
        self.names.push(Name {
            layer: top.layer,
            number: top.number,
            node,
        });
        Ok(())
    }

    /// Notes the lowest of `parts` as far as they are there only because of what is in
    /// them, if they lie over a symlink.
    fn note_conflicts(
        &mut self,
        directory: NodeId,
        covered: Option<&Candidate<'a>>,
        parts: &[Candidate<'a>],
    ) {
        let kind = |one: &Candidate<'_>| self.tree(one.layer).node(one.node).kind;
        if !covered.is_some_and(|covered| matches!(kind(covered), Kind::Symlink { .. })) {
            return;
        }
        let implied = |part: &&Candidate<'_>| !self.tree(part.layer).node(part.node).named;
        let conflict = |part: &Candidate<'_>| Conflict {
            layer: part.layer as usize,
            path: self.path(directory, part.text),
        };
        let found: Vec<_> = parts.iter().take_while(implied).map(conflict).collect();
        self.conflicts.extend(found);
    }

    /// A directory made of `parts`, the lowest first.
    fn open(&mut self, directory: NodeId, parts: &[Candidate<'a>]) -> NodeId {
        let named = |one: &&Candidate<'_>| self.tree(one.layer).node(one.node).named;
        let named = parts.iter().rev().find(named);
        let shown = named.unwrap_or(&parts[parts.len() - 1]);
        let node = self.push(origin(shown), 2);
        self.records[directory.0 as usize].links += 1;
        let name = Name {
            layer: shown.layer,
            number: shown.number,
            node,
        };
        self.parents.insert(node, (directory, name));
        self.todo.push((node, parts.iter().map(origin).collect()));
        node
    }

    /// What is no directory, with one more name.
    fn leaf(&mut self, origin: Origin) -> NodeId {
        let links = self.tree(origin.layer).node(origin.node).links;
        let known = match self.shared.get(&origin) {
            Some(known) => *known,
            None if links > 1 => None,
            None => return self.push(origin, 1),
        };
        if let Some(node) = known {
            self.records[node.0 as usize].links += 1;
            return node;
        }
        let node = self.push(origin, 1);
        self.shared.insert(origin, Some(node));
        node
    }

    fn push(&mut self, origin: Origin, links: u32) -> NodeId {
        let id = NodeId(narrow(self.records.len()));
        self.records.push(Record {
            origin,
            first: 0,
            count: 0,
            links,
        });
        id
    }

    /// The path of a name in `directory`.
    fn path(&self, directory: NodeId, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut here = directory;
        while let Some((parent, name)) = self.parents.get(&here) {
            names.push(self.tree(name.layer).name(name.number).0);
            here = *parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Finds out which files the hard links to lower layers lead to. What leads nowhere
    /// stays a link.
    fn resolve_outer(&mut self) {
        for layer in 0..narrow(self.layers.len()) {
            let tree = self.tree(layer);
            for node in (0..narrow(tree.len())).map(tree::NodeId) {
                if let Kind::Outer { target } = tree.node(node).kind {
                    self.resolve_link(Origin { layer, node }, target);
                }
            }
        }
    }

    fn resolve_link(&mut self, link: Origin, target: &[u8]) {
        let lower = Lower(&self.layers[..link.layer as usize]);
        if let Ok(Some(end)) = lower.find(target) {
            // The file there may itself be a link to a layer still lower.
            let end = self.ends.get(&end).copied().unwrap_or(end);
            self.ends.insert(link, end);
            self.shared.insert(end, None);
        }
    }
}

fn origin(candidate: &Candidate<'_>) -> Origin {
    Origin {
        layer: candidate.layer,
        node: candidate.node,
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("names are counted, and nodes are no more than names")
}
