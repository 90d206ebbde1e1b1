//! Merges the trees of layers, directory by directory.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::Error;
use super::limits::Limits;
use super::relocate::{Conflict, Relocation};
use super::resolve::{Finder, Lower, Steps};
use super::size::Size;
use super::whiteout::{Meaning, meaning};
use super::{Name, NodeId, Origin, Record, Rootfs};
use crate::layer::tree::{self, Kind, Tree};
use crate::tar;

/// Applies layers to an empty directory, the base layer first.
pub(super) fn merge(mut layers: Vec<Arc<Tree>>, limits: &Limits) -> Result<Rootfs, Error> {
    if layers.is_empty() {
        // The root is always a node of some layer.
        let nothing = tree::Builder::new(&tar::Limits::default()).finish();
        layers.push(Arc::new(nothing));
    }
    let mut size = Size::new(limits);
    for tree in &layers {
        size.add(tree)?;
    }
    let steps = Steps::new(limits);
    for round in 0..limits.rounds {
        if round > 0 {
            // All is gone through again.
            steps.spend(size.entries())?;
        }
        let mut merge = Merge::new(&layers, limits, &steps);
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
        Relocation::new(limits, &steps, &mut size).run(&mut layers, conflicts)?;
    }
    Err(Error::Limit {
        what: "rounds of following symlinks",
        max: limits.rounds,
    })
}

/// Refuses `found` of something if that is more than `max`.
pub(super) fn check(what: &'static str, found: u64, max: u64) -> Result<(), Error> {
    if found > max {
        return Err(Error::Limit { what, max });
    }
    Ok(())
}

/// Refuses paths through symlinks that have so many bytes together.
pub(super) fn check_paths(bytes: u64, limits: &Limits) -> Result<(), Error> {
    let what = "bytes of paths through symlinks of lower layers";
    check(what, bytes, limits.path_bytes)
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

/// A layer that hides a name of those below it.
#[derive(Debug, Clone, Copy)]
struct Hiding<'a> {
    text: &'a [u8],
    layer: u32,
}

/// What the layers have in one directory.
#[derive(Default)]
struct Gathered<'a> {
    /// All names, sorted by their bytes and then by layer.
    candidates: Vec<Candidate<'a>>,
    /// The names that are hidden, in the same order.
    hidings: Vec<Hiding<'a>>,
    /// The layers that hide all that is below them, the lowest first.
    opaque: Vec<u32>,
}

impl Gathered<'_> {
    /// The number of the run of `hidings` and `opaque` in which `layer` stands for `text`:
    /// between layers with different numbers something hides the lower one.
    fn stage(&self, text: &[u8], layer: u32) -> (usize, usize) {
        let is_below = |hiding: &Hiding<'_>| (hiding.text, hiding.layer) <= (text, layer);
        let by_name = self.hidings.partition_point(is_below);
        (by_name, self.opaque.partition_point(|by| *by <= layer))
    }
}

/// A place in the tree, by its number: for paths.
type Place = u32;

const ROOT: Place = 0;

/// A directory to come.
struct Todo {
    /// The node that shows it; none if it is hidden, by whatever came later.
    node: Option<NodeId>,
    place: Place,
    /// How many directories it is in.
    depth: u64,
    /// What the layers have of it, the lowest first.
    origins: Vec<Origin>,
}

struct Merge<'a> {
    layers: &'a [Arc<Tree>],
    limits: &'a Limits,
    steps: &'a Steps,
    names: Vec<Name>,
    records: Vec<Record>,
    todo: Vec<Todo>,
    /// Where hard links to lower layers end.
    ends: HashMap<Origin, Origin>,
    /// The nodes of files that may have several names, as soon as they have one.
    shared: HashMap<Origin, Option<NodeId>>,
    conflicts: Vec<Conflict>,
    /// How many bytes their paths have together.
    path_bytes: u64,
    /// The directory of each place, and its name there.
    places: Vec<(Place, &'a [u8])>,
}

impl<'a> Merge<'a> {
    fn new(layers: &'a [Arc<Tree>], limits: &'a Limits, steps: &'a Steps) -> Self {
        Self {
            layers,
            limits,
            steps,
            names: Vec::new(),
            records: Vec::new(),
            todo: Vec::new(),
            ends: HashMap::new(),
            shared: HashMap::new(),
            conflicts: Vec::new(),
            path_bytes: 0,
            places: vec![(ROOT, b"")],
        }
    }

    fn run(&mut self) -> Result<(), Error> {
        let root = |layer| Origin {
            layer: narrow(layer),
            node: tree::NodeId::ROOT,
        };
        let origins: Vec<Origin> = (0..self.layers.len()).map(root).collect();
        let node = self.push(self.shown(&origins).unwrap_or(root(0)), 2);
        if origins.is_empty() {
            return Ok(());
        }
        self.resolve_outer()?;
        self.todo.push(Todo {
            node: Some(node),
            place: ROOT,
            depth: 0,
            origins,
        });
        while let Some(todo) = self.todo.pop() {
            self.directory(&todo)?;
        }
        Ok(())
    }

    fn tree(&self, layer: u32) -> &'a Tree {
        &self.layers[layer as usize]
    }

    fn node(&self, one: &Candidate<'_>) -> tree::Node<'a> {
        self.tree(one.layer).node(one.node)
    }

    /// Whose attributes a directory has: the highest that is named, else the highest.
    fn shown(&self, origins: &[Origin]) -> Option<Origin> {
        let named = |one: &&Origin| self.tree(one.layer).node(one.node).named;
        let shown = origins.iter().rev().find(named).or(origins.last());
        shown.copied()
    }

    /// Merges what the layers have in one directory.
    fn directory(&mut self, todo: &Todo) -> Result<(), Error> {
        let gathered = self.gather(todo)?;
        let names_in_it = u64::from(!gathered.candidates.is_empty());
        let depth = todo.depth + names_in_it;
        check("directories on a path", depth, self.limits.depth)?;
        let first = self.names.len();
        for group in gathered.candidates.chunk_by(|a, b| a.text == b.text) {
            self.name(todo, group, &gathered)?;
        }
        if let Some(node) = todo.node {
            let record = &mut self.records[node.0 as usize];
            record.first = narrow(first);
            record.count = narrow(self.names.len() - first);
        }
        Ok(())
    }

    fn gather(&self, todo: &Todo) -> Result<Gathered<'a>, Error> {
        let mut gathered = Gathered::default();
        for origin in &todo.origins {
            let (layer, tree) = (origin.layer, self.tree(origin.layer));
            for number in tree.names(origin.node) {
                let (text, node) = tree.name(number);
                let candidate = Candidate {
                    text,
                    layer,
                    number,
                    node,
                };
                match self.meaning(todo, &candidate)? {
                    Meaning::Plain => gathered.candidates.push(candidate),
                    Meaning::Hides(text) => gathered.hidings.push(Hiding { text, layer }),
                    Meaning::HidesAll => gathered.opaque.push(layer),
                    Meaning::Leftover => {}
                }
            }
        }
        // Each layer's names are in order already, which a stable sort makes use of.
        if todo.origins.len() > 1 {
            gathered.candidates.sort_by_key(|candidate| candidate.text);
            gathered.hidings.sort_by_key(|hiding| hiding.text);
        }
        Ok(gathered)
    }

    fn meaning(&self, todo: &Todo, name: &Candidate<'a>) -> Result<Meaning<'a>, Error> {
        if !name.text.starts_with(b".wh.") {
            return Ok(Meaning::Plain);
        }
        match meaning(name.text, self.node(name).kind) {
            Ok(meaning) => Ok(meaning),
            // It would hide nothing that is seen.
            Err(_) if todo.node.is_none() => Ok(Meaning::Leftover),
            Err(fault) => Err(Error::Whiteout {
                layer: name.layer as usize,
                path: self.path(todo.place, name.text),
                fault,
            }),
        }
    }

    /// Puts what the layers have under one name on each other, the lowest first, and shows
    /// what is there in the end.
    ///
    /// What is hidden again counts as well: an entry that went through a symlink stays
    /// where that led, whatever becomes of the symlink.
    fn name(
        &mut self,
        todo: &Todo,
        group: &[Candidate<'a>],
        gathered: &Gathered<'a>,
    ) -> Result<(), Error> {
        let stage = |layer| gathered.stage(group[0].text, layer);
        // The directories that are seen as one, and whether a symlink is there instead.
        let (mut run, mut is_link) = (0..0, false);
        for (at, one) in group.iter().enumerate() {
            if at > 0 && stage(group[at - 1].layer) != stage(one.layer) {
                self.hide(todo, &group[run]);
                (run, is_link) = (at..at, false);
            }
            let node = self.node(one);
            match node.kind {
                Kind::Directory if is_link && !node.named => self.conflict(todo, one)?,
                Kind::Directory => {
                    let start = if run.is_empty() { at } else { run.start };
                    (run, is_link) = (start..at + 1, false);
                }
                kind => {
                    self.hide(todo, &group[run]);
                    (run, is_link) = (at..at, matches!(kind, Kind::Symlink { .. }));
                }
            }
        }
        let top = group[group.len() - 1];
        if todo.node.is_none() || stage(top.layer) != stage(u32::MAX) {
            self.hide(todo, &group[run]);
        } else {
            self.show(todo, top, &group[run]);
        }
        Ok(())
    }

    /// Notes that `one` is to be moved to where a symlink leads.
    fn conflict(&mut self, todo: &Todo, one: &Candidate<'a>) -> Result<(), Error> {
        let path = self.path(todo.place, one.text);
        self.path_bytes += path.len() as u64;
        check_paths(self.path_bytes, self.limits)?;
        let layer = one.layer as usize;
        self.conflicts.push(Conflict { layer, path });
        Ok(())
    }

    /// Shows a name: `parts` as one directory, or else `top`.
    fn show(&mut self, todo: &Todo, top: Candidate<'a>, parts: &[Candidate<'a>]) {
        let node = if parts.is_empty() {
            let end = self.ends.get(&origin(&top)).copied();
            self.leaf(end.unwrap_or(origin(&top)))
        } else {
            self.open(todo, parts)
        };
        self.names.push(Name {
            layer: top.layer,
            number: top.number,
            node,
        });
    }

    /// A directory made of `parts`, the lowest first.
    fn open(&mut self, todo: &Todo, parts: &[Candidate<'a>]) -> NodeId {
        let origins: Vec<Origin> = parts.iter().map(origin).collect();
        let node = self.push(self.shown(&origins).unwrap_or(origins[0]), 2);
        if let Some(directory) = todo.node {
            self.records[directory.0 as usize].links += 1;
        }
        let place = self.enter(todo, parts[0].text);
        self.todo.push(Todo {
            node: Some(node),
            place,
            depth: todo.depth + 1,
            origins,
        });
        node
    }

    /// A directory that nobody sees. In that of one layer, nothing can be in the way.
    fn hide(&mut self, todo: &Todo, parts: &[Candidate<'a>]) {
        if parts.len() > 1 {
            let place = self.enter(todo, parts[0].text);
            self.todo.push(Todo {
                node: None,
                place,
                depth: todo.depth + 1,
                origins: parts.iter().map(origin).collect(),
            });
        }
    }

    fn enter(&mut self, todo: &Todo, name: &'a [u8]) -> Place {
        self.places.push((todo.place, name));
        narrow(self.places.len() - 1)
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

    /// The path of a name in the directory at `place`.
    fn path(&self, place: Place, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut here = place;
        while here != ROOT {
            let (directory, name) = self.places[here as usize];
            names.push(name);
            here = directory;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Finds out which files the hard links lead to that have none in their own tree. What leads nowhere
    /// stays a link.
    fn resolve_outer(&mut self) -> Result<(), Error> {
        for layer in 0..narrow(self.layers.len()) {
            let own = layer as usize;
            let finder = |count| Finder::new(self.lower(count));
            let (mut with_own, mut below) = (finder(own + 1), finder(own));
            let tree = self.tree(layer);
            for node in (0..narrow(tree.len())).map(tree::NodeId) {
                if let Kind::Outer { target } = tree.node(node).kind {
                    let found = with_own.find(target)?;
                    let end = match found.filter(|end| self.is_end(layer, *end)) {
                        Some(end) => Some(end),
                        None => below.find(target)?,
                    };
                    self.join(Origin { layer, node }, end);
                }
            }
        }
        Ok(())
    }

    /// The lowest layers, so many of them.
    fn lower(&self, count: usize) -> Lower<'a> {
        Lower::new(&self.layers[..count], self.limits, self.steps)
    }

    /// Whether a hard link of `layer` may end there: a symlink of a lower layer may lead
    /// back into the link's own.
    fn is_end(&self, layer: u32, end: Origin) -> bool {
        let kind = self.tree(end.layer).node(end.node).kind;
        end.layer < layer || !matches!(kind, Kind::Outer { .. })
    }

    fn join(&mut self, link: Origin, end: Option<Origin>) {
        if let Some(end) = end {
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
