//! The snapshot after another one, where little has changed: the levels of the names that
//! did are made anew, and all others shared.
//!
//! It is not attempted where a name means more than one thing: short names beside full
//! ones, several entries of one name, and levels that lead to no entry. Then, and where
//! much has changed, all is made anew, which comes to the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Here, Level, Snapshot, Target, names, shown_name};
use crate::oci::index::Entry;
use crate::oci::{Algorithm, Digest};
use crate::store::View;
use crate::store::layout::refs::Lengths;
use crate::vfs::node::Name;

/// The most changes that are made one by one: each costs a part of what all cost.
const MOST: usize = 64;

/// Under what an entry is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label<'a> {
    /// Its ref name.
    Name(&'a str),
    /// The digest of one that has no name.
    Digest(&'a Digest),
}

/// What becomes of one label.
#[derive(Debug, Default)]
struct Change<'a> {
    /// How many entries it has lost.
    lost: usize,
    /// How many it has got.
    got: usize,
    /// Those that it has now.
    entries: Vec<&'a Arc<Entry>>,
}

/// The snapshot of `view`, made of the one before; `None` if that is not to be attempted.
pub(super) fn after(before: &Snapshot, view: &Arc<View>) -> Option<Snapshot> {
    if before.has_made {
        return None;
    }
    let mut root = before.root.clone();
    let epoch = before.epoch + 1;
    let (shown, gone): (Vec<_>, Vec<_>) = changes(before, view)?
        .into_iter()
        .map(|(label, change)| (label, label.path(), change.entries.last().copied()))
        .partition(|(.., entry)| entry.is_some());
    let mut paths = shown.iter().chain(&gone).map(|(_, path, _)| path);
    if paths.any(|path| before.root.has_full_names(path)) {
        return None;
    }
    for (label, path, entry) in &shown {
        if let Some(entry) = entry {
            root.put(path, label.here(entry), &before.root, epoch);
        }
    }
    // Now it is known which levels lead to something else.
    for (_, path, _) in &gone {
        root.take(path, epoch);
    }
    Some(Snapshot {
        view: view.clone(),
        root,
        epoch,
        has_made: false,
    })
}

/// What has changed, by label, if each is the label of one entry at most.
fn changes<'a>(before: &'a Snapshot, view: &'a View) -> Option<BTreeMap<Label<'a>, Change<'a>>> {
    let (gone, new) = view.changes_since(&before.view);
    if gone.len() + new.len() > MOST {
        return None;
    }
    let mut changes: BTreeMap<Label<'a>, Change<'a>> = BTreeMap::new();
    for entry in gone {
        if let Some(label) = Label::of(entry)? {
            changes.entry(label).or_default().lost += 1;
        }
    }
    for entry in new {
        if let Some(label) = Label::of(entry)? {
            changes.entry(label).or_default().got += 1;
        }
    }
    let lengths = Lengths::of(changes.keys().map(|label| label.text()));
    for entry in view.each_entry() {
        let label = match (&entry.containerd_name, shown_name(entry), &entry.descriptor) {
            // What it is called for short may be one of these.
            (Some(_), ..) => entry.ref_name.as_deref().map(Label::Name),
            (None, Some(name), _) => Some(Label::Name(name)),
            (None, None, Ok(descriptor)) => Some(Label::Digest(&descriptor.digest)),
            (None, None, Err(_)) => None,
        };
        let label = label.filter(|label| lengths.have(label.text()));
        let Some(change) = label.and_then(|label| changes.get_mut(&label)) else {
            continue;
        };
        if entry.containerd_name.is_some() {
            return None;
        }
        change.entries.push(entry);
    }
    let is_plain = |(label, change): (&Label<'_>, &Change<'_>)| {
        let now = change.entries.len();
        let then = now + change.lost - change.got;
        matches!(label, Label::Digest(_)) || now.max(then) <= 1
    };
    changes.iter().all(is_plain).then_some(changes)
}

impl<'a> Label<'a> {
    /// The label of an entry, if it is shown; the outer `None` if it may concern others.
    fn of(entry: &'a Entry) -> Option<Option<Self>> {
        if entry.containerd_name.is_some() {
            return None;
        }
        match (&entry.ref_name, &entry.descriptor) {
            // It may be the exact name of one of several.
            (Some(name), _) if name.contains('@') => None,
            (Some(name), _) => Some(Some(Self::Name(name))),
            (None, Ok(descriptor)) if descriptor.digest.algorithm() != Algorithm::Unknown => {
                Some(Some(Self::Digest(&descriptor.digest)))
            }
            (None, _) => Some(None),
        }
    }

    fn text(self) -> &'a str {
        match self {
            Self::Name(name) => name,
            Self::Digest(digest) => digest.as_str(),
        }
    }

    fn path(self) -> Vec<Name> {
        match self {
            Self::Name(name) => names::levels(name),
            Self::Digest(digest) => vec![digest.as_str().as_bytes().to_vec()],
        }
    }

    fn here(self, entry: &Arc<Entry>) -> Arc<Here> {
        let name = match self {
            Self::Name(name) => Some(name.to_owned()),
            Self::Digest(_) => None,
        };
        let target = Target::One(entry.clone());
        Arc::new(Here::Image { name, target })
    }
}

impl Level {
    /// Whether something with a full name, or a link to that, is on the way along `path`.
    fn has_full_names(&self, path: &[Name]) -> bool {
        let has_full_name = |entry: &Arc<Entry>| entry.containerd_name.is_some();
        let is_one = |level: &Self| match level.here.as_deref() {
            None => false,
            Some(Here::Link(_)) => true,
            Some(Here::Image { target, .. }) => match target {
                Target::One(entry) => has_full_name(entry),
                Target::Platforms(entries) => entries.iter().any(has_full_name),
            },
        };
        (1..=path.len())
            .map_while(|len| self.find(&path[..len]))
            .any(is_one)
    }

    /// Shows `here` at `path` from `epoch` on, unless `before` shows the same there.
    fn put(&mut self, path: &[Name], here: Arc<Here>, before: &Self, epoch: u64) {
        let mut level = self;
        for name in path {
            let new = || Self {
                here: None,
                below: BTreeMap::new(),
                epoch,
            };
            let below = level.below.entry(name.as_slice().into());
            level = Arc::make_mut(below.or_insert_with(|| Arc::new(new())));
        }
        level.here = Some(here);
        level.epoch = match before.find(path) {
            Some(before) if level.shows_the_same_as(before) => before.epoch,
            _ => epoch,
        };
    }

    /// Shows nothing at `path` any more, from `epoch` on, and takes out the levels that led
    /// to nothing else.
    fn take(&mut self, path: &[Name], epoch: u64) {
        let Some(level) = self.find(path) else { return };
        if !level.below.is_empty() {
            let level = self.at(path);
            (level.here, level.epoch) = (None, epoch);
            return;
        }
        let leads_elsewhere = |len: &usize| {
            let level = self.find(&path[..*len]);
            level.is_some_and(|level| level.here.is_some() || level.below.len() > 1)
        };
        let kept = (1..path.len()).rev().find(leads_elsewhere).unwrap_or(0);
        self.at(&path[..kept]).below.remove(path[kept].as_slice());
    }
}
