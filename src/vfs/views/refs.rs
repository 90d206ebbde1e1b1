//! Which names the mount root shows for one view of the index.
//!
//! A [`Snapshot`] is a tree of [`Level`]s made from the entries of `index.json`: names
//! are mapped by [`names`], entries of one name are brought together, full names as
//! containerd writes them go before short ones. It never changes; a new view of the
//! index gives a new snapshot.
//!
//! Where little has changed since the snapshot before, [`next`] makes only that anew.
//!
//! Invariant: a level's epoch is the number of the snapshot in which what it shows came
//! to be there. So a path that shows something else, even something it showed before,
//! has a key of its own.

mod groups;
mod next;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use groups::Groups;

use super::names;
use crate::oci::index;
use crate::store::View;
use crate::vfs::node::Name;

/// The tree of names for one view of the index.
#[derive(Debug)]
pub struct Snapshot {
    view: Arc<View>,
    root: Level,
    epoch: u64,
    /// Whether there are levels that lead to no entry.
    has_made: bool,
}

/// One directory level: perhaps an image, perhaps with further levels below. Snapshots
/// share those that are the same.
#[derive(Debug, Default, Clone)]
pub struct Level {
    /// What is shown at this very level, beside the levels below.
    pub here: Option<Arc<Here>>,
    /// The levels below, by name.
    pub below: BTreeMap<Arc<[u8]>, Arc<Level>>,
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
            let last_owned = levels.into_values().filter_map(Arc::into_inner);
            rest.extend(last_owned.map(|mut level| std::mem::take(&mut level.below)));
        }
    }
}

impl Level {
    /// Whether the same is shown at this very level.
    fn shows_the_same_as(&self, other: &Self) -> bool {
        match (&self.here, &other.here) {
            (Some(one), Some(other)) => one.shows_the_same_as(other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    fn at(&mut self, path: &[Name]) -> &mut Self {
        path.iter().fold(self, |level, name| {
            Arc::make_mut(level.below.entry(name.as_slice().into()).or_default())
        })
    }

    fn find(&self, path: &[Name]) -> Option<&Self> {
        let mut level = self;
        for name in path {
            level = level.below.get(name.as_slice())?;
        }
        Some(level)
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
        if let Some(before) = before
            && made.is_empty()
            && let Some(next) = next::after(before, &view)
        {
            return next;
        }
        Self::made_anew(view, before, made)
    }

    /// The same, whatever `before` shows already.
    fn made_anew(view: Arc<View>, before: Option<&Self>, made: &mut BTreeSet<Vec<Name>>) -> Self {
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
        Self {
            view,
            root,
            epoch,
            has_made: !made.is_empty(),
        }
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
            rest.extend(level.below.values().map(|level| &**level));
        }
        images
    }
}

/// Gives every level its epoch: that of before where it shows the same, else `epoch`.
fn date(root: &mut Level, before: Option<&Level>, epoch: u64) {
    let mut rest = vec![(root, before)];
    while let Some((level, before)) = rest.pop() {
        level.epoch = match before {
            Some(before) if level.shows_the_same_as(before) => before.epoch,
            _ => epoch,
        };
        rest.extend(level.below.iter_mut().map(|(name, child)| {
            let before = before.and_then(|before| before.below.get(name));
            (Arc::make_mut(child), before.map(|before| &**before))
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

#[cfg(test)]
mod tests;
