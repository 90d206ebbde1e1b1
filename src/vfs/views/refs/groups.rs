//! All entries of an index, brought together by name, and put in their places.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::{Here, Level, Target, names, shown_name, shows};
use crate::oci::{Algorithm, index};
use crate::vfs::node::Name;

/// The entries of an index, brought together by the name under which they are shown.
pub(super) struct Groups<'a> {
    entries: &'a [Arc<index::Entry>],
    named: BTreeMap<&'a str, Vec<Arc<index::Entry>>>,
}

impl<'a> Groups<'a> {
    /// Brings entries together.
    pub(super) fn of(entries: &'a [Arc<index::Entry>]) -> Self {
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

    /// Adds what is shown under a name of its own.
    pub(super) fn place(&self, root: &mut Level) {
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

    /// Adds the short names of entries that are shown under their full name.
    pub(super) fn place_links(&self, root: &mut Level) {
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
