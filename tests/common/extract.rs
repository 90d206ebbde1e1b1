//! What the layers of an image mean, by naive extraction: the only definition of right.
//!
//! Layers are unpacked one after the other onto one directory, in memory, as containerd
//! and umoci do it on a disk; nothing is merged, indexed or remembered cleverly.
//!
//! - Each layer in two phases: first its whiteouts, which see only the layers below; then
//!   its entries in the order of the tar, each replacing what is in its place.
//! - Symlinks on the way to an entry are followed, and stop at the root; what is absent on
//!   the way becomes a directory with mode 0755 of 0:0. A whiteout below a file of its own
//!   layer is passed over: the file hides all that it could hide.
//! - A directory given again keeps what is in it.
//! - A hard link leads to what is at its target now, else to what was there before the
//!   layer's own whiteouts, else to what is there after the whole layer.

use std::collections::BTreeMap;

use super::stack::{Attributes, Item, Seen, SeenKind, Sight};

/// How many symlinks one path may lead through.
const MAX_FOLLOWED: usize = 255;

/// Why layers cannot be extracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A path leads through symlinks without end.
    Loop,
    /// A hard link's target leads through symlinks without end.
    LinkLoop,
    /// A hard link leads to a directory.
    DirectoryLink,
}

/// What files named like whiteouts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// What they are for.
    Act,
    /// Files like others.
    Show,
}

/// A step of an extraction, for those who ask which rules it depends on. All paths are
/// real ones: no symlinks on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next entry begins.
    Entry { item: Item },
    /// The symlink there was followed on the way to an entry; `own` if it is of the layer
    /// itself.
    Follow { at: String, own: bool },
    /// The symlink there was followed on the way to a hard link's target.
    FollowTarget { at: String },
    /// A hard link leads back to itself through others.
    Circle,
    /// All names were removed that are there or below; `moved` if a symlink led there.
    Hide { at: String, moved: bool },
    /// Something was put there, `None` for a directory that no entry names; `over` a
    /// directory or symlink of lower layers.
    Put {
        at: String,
        letter: Option<char>,
        over: bool,
    },
    /// A hard link leads there, now or before its layer; `own` if that is of the layer itself.
    Link { to: String, own: bool },
}

/// An extracted file system.
#[derive(Debug, Clone)]
pub struct Extracted {
    /// Every path and the number of its node; the root is the empty path.
    pub names: BTreeMap<String, usize>,
    pub nodes: Vec<(SeenKind, Attributes)>,
    /// What happened in the last layer.
    pub events: Vec<Event>,
    /// The first node of the last layer.
    first: usize,
}

impl Extracted {
    /// An empty directory.
    pub fn new() -> Self {
        Self {
            names: [(String::new(), 0)].into(),
            nodes: vec![(SeenKind::Directory, Attributes::implied())],
            events: Vec::new(),
            first: 0,
        }
    }

    /// Extracts the next layer.
    pub fn apply(&mut self, layer: &[Item], whiteouts: Whiteouts) -> Result<(), Refusal> {
        (self.first, self.events) = (self.nodes.len(), Vec::new());
        let below = self.clone();
        let hides = |item: &Item| whiteouts == Whiteouts::Act && hidden_by(item).is_some();
        let mut refusal = Ok(());
        if whiteouts == Whiteouts::Act {
            let hidden = layer.iter().map(|item| self.hide(&below, item));
            refusal = hidden.fold(refusal, Result::and);
        }
        for item in layer {
            self.events.push(Event::Entry { item: item.clone() });
            // The others are extracted all the same, for the events.
            refusal = refusal.and(self.extract(&below, item, hides(item)));
        }
        self.join_later();
        refusal
    }

    /// Removes what a whiteout hides.
    fn hide(&mut self, below: &Self, item: &Item) -> Result<(), Refusal> {
        let Some(hidden) = hidden_by(item) else {
            return Ok(());
        };
        let directory = below.resolve(item.split().0, &mut self.events)?;
        let at = join(&directory, hidden.unwrap_or_default());
        let moved = matches!(self.events.last(), Some(Event::Follow { .. }));
        self.events.push(Event::Hide { at, moved });
        match hidden {
            Some(name) => self.remove(&join(&directory, name)),
            None => {
                let inside = join(&directory, "");
                let keeps = |path: &String| path.is_empty() || !path.starts_with(&inside);
                self.names.retain(|path, _| keeps(path));
            }
        }
        Ok(())
    }

    fn extract(&mut self, below: &Self, item: &Item, hides: bool) -> Result<(), Refusal> {
        if hidden_by(item).is_some() && self.is_below_own_file(item.split().0) {
            return Ok(());
        }
        let directory = self.make_directory(item.split().0)?;
        let place = join(&directory, item.split().1);
        let letter = Some(item.letter);
        self.events.push(Event::Put {
            at: place.clone(),
            letter,
            over: self.leads_on_below(&place),
        });
        if hides {
            return Ok(());
        }
        self.put(below, &place, item)
    }

    fn put(&mut self, below: &Self, place: &str, item: &Item) -> Result<(), Refusal> {
        let kind = match item.letter {
            'd' => SeenKind::Directory,
            'f' => SeenKind::File(item.content.clone()),
            'l' => SeenKind::Symlink(item.target.clone()),
            'h' => match self.link_target(below, &item.target)? {
                Some(node) if self.nodes[node].0 == SeenKind::Directory => {
                    return Err(Refusal::DirectoryLink);
                }
                Some(node) => {
                    self.remove(place);
                    self.names.insert(place.to_owned(), node);
                    return Ok(());
                }
                None => SeenKind::Dangling(item.target.clone()),
            },
            letter => SeenKind::Special(letter),
        };
        let there = self.names.get(place).copied();
        match there.filter(|there| self.nodes[*there].0 == SeenKind::Directory) {
            Some(there) if kind == SeenKind::Directory => {
                self.nodes[there].1 = item.attributes.clone();
            }
            _ => self.insert(place, kind, item.attributes.clone()),
        }
        Ok(())
    }

    fn link_target(&mut self, below: &Self, target: &str) -> Result<Option<usize>, Refusal> {
        let (directory, name) = target.rsplit_once('/').unwrap_or(("", target));
        let mut followed = Vec::new();
        let found = [&*self, below].map(|state| {
            let directory = state.resolve(directory, &mut followed);
            let to = join(&directory.map_err(|_| Refusal::LinkLoop)?, name);
            let node = state.names.get(&to).copied();
            Ok((to, node))
        });
        self.note_targets(followed);
        let [now, before] = found;
        let ((now, node), (before, lower)) = (now?, before?);
        let Some(node) = node.or(lower) else {
            return Ok(None);
        };
        let own = node >= self.first;
        self.events
            .extend([now, before].map(|to| Event::Link { to, own }));
        Ok(Some(node))
    }

    fn note_targets(&mut self, followed: Vec<Event>) {
        self.events
            .extend(followed.into_iter().map(|event| match event {
                Event::Follow { at, .. } => Event::FollowTarget { at },
                event => event,
            }));
    }

    /// Follows the hard links whose targets were not there when they came.
    fn join_later(&mut self) {
        for link in self.first..self.nodes.len() {
            let SeenKind::Dangling(target) = self.nodes[link].0.clone() else {
                continue;
            };
            let (directory, name) = target.rsplit_once('/').unwrap_or(("", &target));
            let mut followed = Vec::new();
            let to = self.resolve(directory, &mut followed);
            self.note_targets(followed);
            let node = to
                .ok()
                .and_then(|to| self.names.get(&join(&to, name)).copied());
            if node == Some(link) {
                self.events.push(Event::Circle);
            }
            if let Some(node) = node.filter(|node| self.nodes[*node].0 != SeenKind::Directory) {
                let names = self.names.values_mut();
                names
                    .filter(|name| **name == link)
                    .for_each(|name| *name = node);
            }
        }
    }

    fn insert(&mut self, place: &str, kind: SeenKind, attributes: Attributes) {
        self.remove(place);
        self.names.insert(place.to_owned(), self.nodes.len());
        self.nodes.push((kind, attributes));
    }

    fn remove(&mut self, path: &str) {
        let inside = join(path, "");
        self.names
            .retain(|known, _| known != path && !known.starts_with(&inside));
    }

    /// Where a path leads when all symlinks in it are followed; what is absent stays as
    /// it is written.
    fn resolve(&self, path: &str, events: &mut Vec<Event>) -> Result<String, Refusal> {
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut here: Vec<String> = Vec::new();
        let mut followed = 0;
        while let Some(name) = rest.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    here.pop();
                    continue;
                }
                _ => here.push(name),
            }
            let at = here.join("/");
            let node = self.names.get(&at).copied().unwrap_or(0);
            if let SeenKind::Symlink(target) = &self.nodes[node].0 {
                let own = node >= self.first;
                events.push(Event::Follow { at, own });
                followed += 1;
                if followed > MAX_FOLLOWED {
                    return Err(Refusal::Loop);
                }
                here.pop();
                if target.starts_with('/') {
                    here.clear();
                }
                rest.extend(target.split('/').rev().map(str::to_owned));
            }
        }
        Ok(here.join("/"))
    }

    /// Whether a path leads through what is no directory and of the same layer.
    fn is_below_own_file(&self, path: &str) -> bool {
        let Ok(place) = self.resolve(path, &mut Vec::new()) else {
            return false;
        };
        let is_own = |prefix: &str| {
            let mut events = self.events.iter();
            events.any(|event| matches!(event, Event::Put { at, .. } if at == prefix))
        };
        let is_file = |prefix: &str| {
            let node = self.names.get(prefix);
            node.is_some_and(|node| self.nodes[*node].0 != SeenKind::Directory)
        };
        prefixes(&place).any(|prefix| is_file(prefix) && is_own(prefix))
    }

    fn make_directory(&mut self, path: &str) -> Result<String, Refusal> {
        let mut events = std::mem::take(&mut self.events);
        let place = self.resolve(path, &mut events);
        self.events = events;
        let place = place?;
        for prefix in prefixes(&place) {
            let node = self.names.get(prefix);
            if node.is_none_or(|node| self.nodes[*node].0 != SeenKind::Directory) {
                let (at, letter, over) = (prefix.to_owned(), None, false);
                self.events.push(Event::Put { at, letter, over });
                self.insert(prefix, SeenKind::Directory, Attributes::implied());
            }
        }
        Ok(place)
    }

    /// Whether lower layers have a directory or a symlink there.
    fn leads_on_below(&self, path: &str) -> bool {
        let node = self.names.get(path).filter(|node| **node < self.first);
        let kind = node.map(|node| &self.nodes[*node].0);
        matches!(kind, Some(SeenKind::Directory | SeenKind::Symlink(_)))
    }

    /// What is to be seen.
    pub fn sight(&self) -> Sight {
        let seen = |(path, node): (&String, &usize)| {
            let (kind, attributes) = self.nodes[*node].clone();
            let same = || self.names.iter().filter(|(_, other)| *other == node);
            let inside = |other: &&String| other.rsplit_once('/').map_or("", |(at, _)| at) == path;
            let is_directory = |node: &usize| self.nodes[*node].0 == SeenKind::Directory;
            let directories = self
                .names
                .iter()
                .filter(|(path, node)| !path.is_empty() && is_directory(node));
            let links = match kind {
                SeenKind::Directory => 2 + directories.filter(|(path, _)| inside(path)).count(),
                _ => same().count(),
            };
            let seen = Seen {
                kind,
                attributes,
                links: u32::try_from(links).expect("a small tree"),
                first: same().next().expect("it is one itself").0.clone(),
            };
            (path.clone(), seen)
        };
        self.names.iter().map(seen).collect()
    }
}

/// What an item hides: nothing, all, or a name.
pub fn hidden_by(item: &Item) -> Option<Option<&str>> {
    match item.split().1.strip_prefix(".wh.")? {
        ".wh..opq" => Some(None),
        name => Some(Some(name)),
    }
}

/// The directories on a path, from the highest to itself.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(at, _)| at);
    ends.chain([path.len()]).map(|end| &path[..end])
}

/// A path and a name in it.
pub fn join(directory: &str, name: &str) -> String {
    match directory {
        "" => name.to_owned(),
        directory => format!("{directory}/{name}"),
    }
}
