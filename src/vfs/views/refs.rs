//! Which names the mount root shows for one view of the index.
//!
//! A [`Snapshot`] is a tree of [`Level`]s made from the entries of `index.json`: names
//! are mapped by [`names`], entries of one name are brought together, full names as
//! containerd writes them go before short ones. It never changes; a new view of the
//! index gives a new snapshot, and [`Snapshot::moved`] says what a kernel that saw the
//! old one must forget.
//!
//! Invariant: a level's epoch is the number of the snapshot in which what it shows came
//! to be there. So a path that shows something else, even something it showed before,
//! has a key of its own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::names;
use crate::oci::{Algorithm, index};
use crate::store::View;
use crate::vfs::Moved;
use crate::vfs::node::{Name, NodeKey};

/// The tree of names for one view of the index.
#[derive(Debug)]
pub struct Snapshot {
    view: Arc<View>,
    root: Level,
    epoch: u64,
}

/// One directory level: perhaps an image, perhaps with further levels below.
#[derive(Debug, Default)]
pub struct Level {
    /// What is shown at this very level, beside the levels below.
    pub here: Option<Arc<Here>>,
    /// The levels below, by name.
    pub below: BTreeMap<Name, Level>,
    /// The snapshot in which this level got its present meaning.
    pub epoch: u64,
}

/// What is shown at one level.
#[derive(Debug)]
pub enum Here {
    /// An image, or what else an entry of the index describes.
    Image {
        /// The raw ref name; none for an entry that has no name.
        name: Option<String>,
        /// Which entry or entries.
        target: Target,
    },
    /// A short name that leads to the full one: the target of a symbolic link.
    Link(Vec<u8>),
}

/// The entry or entries of the index behind one name.
#[derive(Debug)]
pub enum Target {
    /// One entry.
    One(Arc<index::Entry>),
    /// Several entries for different platforms, shown together as an index would be.
    Platforms(Vec<Arc<index::Entry>>),
}

impl Target {
    /// What is shown, as text: the same text is the same content.
    #[must_use]
    pub fn shows(&self) -> String {
        match self {
            Self::One(entry) => shows(entry),
            Self::Platforms(entries) => entries
                .iter()
                .map(|entry| shows(entry))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

/// The digest of an entry, or for a malformed one what is wrong with it.
fn shows(entry: &index::Entry) -> String {
    match &entry.descriptor {
        Ok(descriptor) => descriptor.digest.to_string(),
        Err(error) => format!("malformed: {error}"),
    }
}

impl Here {
    /// What is shown, as text: the same text is the same content.
    #[must_use]
    pub fn shows(&self) -> String {
        match self {
            Self::Image { target, .. } => target.shows(),
            Self::Link(target) => format!("-> {}", String::from_utf8_lossy(target)),
        }
    }

    /// Whether both show the same. An entry that both have is not looked at: that is what
    /// most are, where a commit goes from one view to the next.
    fn shows_the_same_as(&self, other: &Self) -> bool {
        let one = |here: &Self| match here {
            Self::Image {
                target: Target::One(entry),
                ..
            } => Some(Arc::as_ptr(entry)),
            _ => None,
        };
        one(self).is_some_and(|entry| one(other) == Some(entry)) || self.shows() == other.shows()
    }
}

/// A ref name can have thousands of levels, and a thread little stack: what goes through
/// all levels keeps its own list of those to come.
impl Drop for Level {
    fn drop(&mut self) {
        let mut rest = vec![std::mem::take(&mut self.below)];
        while let Some(levels) = rest.pop() {
            rest.extend(
                levels
                    .into_values()
                    .map(|mut level| std::mem::take(&mut level.below)),
            );
        }
    }
}

impl Level {
    /// What the inode number of the directory or link at `path` hangs on.
    #[must_use]
    pub fn key(&self, path: &[Name]) -> NodeKey {
        let here = self.here.as_ref();
        let shows = here.map_or_else(String::new, |here| here.shows());
        NodeKey::place(path.join(&b'/'), shows, self.epoch)
    }

    fn at(&mut self, path: &[Name]) -> &mut Self {
        path.iter().fold(self, |level, name| {
            level.below.entry(name.clone()).or_default()
        })
    }

    fn find(&self, path: &[Name]) -> Option<&Self> {
        path.iter()
            .try_fold(self, |level, name| level.below.get(name))
    }
}

impl Snapshot {
    /// The names for `view`; `before` is the snapshot that the kernel has seen until now.
    #[must_use]
    pub fn new(view: Arc<View>, before: Option<&Self>) -> Self {
        Self::with_levels(view, before, &mut BTreeSet::new())
    }

    /// The same with levels at the paths `made`, below which nothing stands yet. Those that
    /// are there without, are taken out.
    #[must_use]
    pub fn with_levels(
        view: Arc<View>,
        before: Option<&Self>,
        made: &mut BTreeSet<Vec<Name>>,
    ) -> Self {
        let mut root = Level::default();
        let groups = Groups::of(view.entries());
        groups.place(&mut root);
        groups.place_links(&mut root);
        made.retain(|path| root.find(path).is_none());
        for path in made.iter() {
            root.at(path);
        }
        let epoch = before.map_or(1, |before| before.epoch + 1);
        date(&mut root, before.map(|before| &before.root), epoch);
        root.epoch = 0;
        Self { view, root, epoch }
    }

    /// The view of the index from which this was made.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The level at `path`, if there is one.
    #[must_use]
    pub fn find(&self, path: &[Name]) -> Option<&Level> {
        self.root.find(path)
    }

    /// How many names show an image.
    #[must_use]
    pub fn images(&self) -> usize {
        let (mut images, mut rest) = (0, vec![&self.root]);
        while let Some(level) = rest.pop() {
            images += usize::from(level.here.is_some());
            rest.extend(level.below.values());
        }
        images
    }

    /// The names of this snapshot that mean something else, or nothing, in `after`.
    #[must_use]
    pub fn moved(&self, after: &Self) -> Vec<Moved> {
        compare(&self.root, &after.root)
    }
}

/// Gives every level its epoch: that of before where it shows the same, else `epoch`.
fn date(root: &mut Level, before: Option<&Level>, epoch: u64) {
    let is_same = |one: &Level, other: &Level| match (&one.here, &other.here) {
        (Some(one), Some(other)) => one.shows_the_same_as(other),
        (one, other) => one.is_none() && other.is_none(),
    };
    let mut rest = vec![(root, before)];
    while let Some((level, before)) = rest.pop() {
        level.epoch = match before {
            Some(before) if is_same(before, level) => before.epoch,
            _ => epoch,
        };
        rest.extend(level.below.iter_mut().map(|(name, child)| {
            let before = before.and_then(|before| before.below.get(name));
            (child, before)
        }));
    }
}

/// The names below `old` that mean something else, or nothing, below `new`.
fn compare(old: &Level, new: &Level) -> Vec<Moved> {
    let nothing = Level::default();
    let (mut moved, mut path) = (Vec::new(), Vec::new());
    let mut rest = vec![(old, new, old.below.iter())];
    while let Some((old, new, below)) = rest.last_mut() {
        let Some((name, was)) = below.next() else {
            rest.pop();
            path.pop();
            continue;
        };
        let is = new.below.get(name);
        if is.is_none_or(|is| is.epoch != was.epoch) {
            moved.push(Moved {
                parent: old.key(&path),
                name: name.clone(),
            });
        }
        if !was.below.is_empty() {
            path.push(name.clone());
            rest.push((was, is.unwrap_or(&nothing), was.below.iter()));
        }
    }
    moved
}

/// The entries of an index, brought together by the name under which they are shown.
struct Groups<'a> {
    entries: &'a [Arc<index::Entry>],
    named: BTreeMap<&'a str, Vec<Arc<index::Entry>>>,
}

impl<'a> Groups<'a> {
    fn of(entries: &'a [Arc<index::Entry>]) -> Self {
        let mut named: BTreeMap<&str, Vec<Arc<index::Entry>>> = BTreeMap::new();
        for entry in entries {
            if let Some(name) = shown_name(entry) {
                named.entry(name).or_default().push(entry.clone());
            }
        }
        for group in named.values_mut().filter(|group| group.len() > 1) {
            // The same content twice under one name is there once, where it stands last.
            let mut seen = HashSet::new();
            group.reverse();
            group.retain(|entry| seen.insert(shows(entry)));
            group.reverse();
        }
        Self { entries, named }
    }

    fn place(&self, root: &mut Level) {
        let unnamed = self
            .entries
            .iter()
            .filter(|entry| shown_name(entry).is_none());
        for entry in unnamed {
            let Ok(descriptor) = &entry.descriptor else {
                continue;
            };
            if descriptor.digest.algorithm() != Algorithm::Unknown {
                let path = [descriptor.digest.as_str().as_bytes().to_vec()];
                put(root, &path, None, Target::One(entry.clone()));
            }
        }
        for (name, entries) in &self.named {
            self.place_name(root, name, entries);
        }
    }

    fn place_name(&self, root: &mut Level, name: &str, entries: &[Arc<index::Entry>]) {
        let Some(last) = entries.last() else { return };
        if entries.len() > 1 && are_platforms(entries) {
            let target = Target::Platforms(entries.to_vec());
            put(root, &names::levels(name), Some(name), target);
            return;
        }
        put(
            root,
            &names::levels(name),
            Some(name),
            Target::One(last.clone()),
        );
        if entries.len() == 1 {
            return;
        }
        log::warn!(
            "REF_DUPLICATE: {} entries have the ref name {name:?}",
            entries.len()
        );
        for entry in entries {
            let Ok(descriptor) = &entry.descriptor else {
                continue;
            };
            let exact = format!("{name}@{}", descriptor.digest);
            if !self.named.contains_key(exact.as_str()) {
                put(
                    root,
                    &names::levels(&exact),
                    Some(name),
                    Target::One(entry.clone()),
                );
            }
        }
    }

    /// Short names of entries that are shown under their full name.
    fn place_links(&self, root: &mut Level) {
        let mut holders: BTreeMap<&str, Vec<&Arc<index::Entry>>> = BTreeMap::new();
        for entry in self.entries {
            if let Some(short) = &entry.ref_name {
                holders.entry(short).or_default().push(entry);
            }
        }
        let alone = holders
            .iter()
            .filter_map(|(short, entries)| match entries[..] {
                [entry] => {
                    let full = entry.containerd_name.as_ref()?;
                    Some((names::levels(short), entry, full))
                }
                _ => None,
            });
        // Deep ones first: a level that others stand below cannot be a link.
        let mut links: Vec<_> = alone.collect();
        links.sort_by_key(|(path, ..)| std::cmp::Reverse(path.len()));
        for (path, entry, full) in links {
            place_link(root, &path, entry, full);
        }
    }
}

fn place_link(root: &mut Level, path: &[Name], entry: &Arc<index::Entry>, full: &str) {
    let taken = root.find(path).is_some_and(|level| level.here.is_some());
    if taken {
        return;
    }
    let level = root.at(path);
    if level.below.is_empty() {
        let mut target = b"../".repeat(path.len() - 1);
        target.extend(names::levels(full).join(&b'/'));
        level.here = Some(Arc::new(Here::Link(target)));
    } else {
        let target = Target::One(entry.clone());
        level.here = Some(Arc::new(Here::Image {
            name: Some(full.to_owned()),
            target,
        }));
    }
}

/// The raw name under which an entry is shown: the full one, where there is one.
fn shown_name(entry: &index::Entry) -> Option<&str> {
    entry
        .containerd_name
        .as_deref()
        .or(entry.ref_name.as_deref())
}

/// Whether every entry has a platform and no two have the same.
fn are_platforms(entries: &[Arc<index::Entry>]) -> bool {
    let platform = |entry: &Arc<index::Entry>| {
        entry.descriptor.as_ref().ok().and_then(|descriptor| {
            descriptor
                .platform
                .as_ref()
                .map(|platform| platform.directory_name())
        })
    };
    let mut seen = BTreeSet::new();
    entries
        .iter()
        .all(|entry| platform(entry).is_some_and(|name| seen.insert(name)))
}

fn put(root: &mut Level, path: &[Name], name: Option<&str>, target: Target) {
    let name = name.map(str::to_owned);
    root.at(path).here = Some(Arc::new(Here::Image { name, target }));
}

#[cfg(test)]
mod tests;
