//! Three versions of an index made one, by descriptor.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::View;
use super::draft::{Draft, Written};
use crate::oci::index::Entry;
use crate::oci::{self, json};

/// How many bytes an entry takes beside its texts, about.
const ENTRY_WEIGHT: usize = 200;

/// How many entries are looked for one by one among all others.
const FEW: usize = 16;

/// The entries of an index, without their order: what an entry says, under a key that is
/// the same however it is written.
#[derive(Debug, Clone, Default)]
pub struct EntrySet(BTreeMap<Arc<str>, Arc<EntryText>>);

/// An entry as it was written, and the name that it has.
#[derive(Debug)]
struct EntryText {
    text: String,
    name: Option<String>,
    /// The digest that it says, be it malformed.
    digest: Option<String>,
}

/// What was added to a set of entries, and what was removed.
#[derive(Debug, Clone, Default)]
pub struct Delta {
    /// What is there afterwards only.
    pub added: EntrySet,
    /// What was there before only.
    pub removed: EntrySet,
}

impl EntrySet {
    /// The entries of `draft`.
    #[must_use]
    pub fn of(draft: &Draft) -> Self {
        Self(draft.texts().zip(draft.entries()).map(keyed).collect())
    }

    /// The entries of a view.
    #[must_use]
    pub fn of_view(view: &View) -> Self {
        // A view always has a list of entries.
        Draft::of(view).map_or_else(|_| Self::default(), |draft| Self::of(&draft))
    }

    /// The entries that `other` has not.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let is_missing = |(key, _): &(&Arc<str>, &Arc<EntryText>)| !other.0.contains_key(*key);
        let missing = self.0.iter().filter(is_missing);
        Self(missing.map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// The entries that `other` has as well.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        self.without(&self.without(other))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many bytes of memory they take, about.
    fn weight(&self) -> u64 {
        let weights = self.0.iter().map(|(key, entry)| {
            let names = [&entry.name, &entry.digest].into_iter().flatten();
            let names: usize = names.map(String::len).sum();
            key.len() + entry.text.len() + names + ENTRY_WEIGHT
        });
        weights.sum::<usize>() as u64
    }

    /// The names that entries have.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        let names = self.0.values().filter_map(|entry| entry.name.as_deref());
        names.collect()
    }

    /// Whether each entry's name is one of `names`.
    #[must_use]
    pub fn are_all_named(&self, names: &BTreeSet<&str>) -> bool {
        self.named(names).len() == self.len()
    }

    /// Whether all entries have a name, and the same.
    #[must_use]
    pub fn have_one_name(&self) -> bool {
        let names = self.names();
        names.len() == 1 && self.are_all_named(&names)
    }

    /// Whether `other` is this without the entries of one name, however it writes the rest:
    /// a tool may drop what it does not understand.
    #[must_use]
    pub fn is_less_one_name(&self, other: &Self) -> bool {
        let labels = |set: &Self| -> BTreeSet<_> {
            let entries = set.0.values();
            entries
                .map(|e| (e.name.clone(), e.digest.clone()))
                .collect()
        };
        let (all, left) = (labels(self), labels(other));
        let gone: BTreeSet<_> = all.difference(&left).map(|(name, _)| name).collect();
        let is_one = gone.len() == 1 && gone.iter().all(|name| name.is_some());
        is_one && left.is_subset(&all) && left.iter().all(|(name, _)| !gone.contains(name))
    }

    /// The entries that have one of `names`.
    #[must_use]
    pub fn named(&self, names: &BTreeSet<&str>) -> Self {
        let is_one = |entry: &EntryText| entry.name.as_deref().is_some_and(|n| names.contains(n));
        let named = self.0.iter().filter(|(_, entry)| is_one(entry));
        Self(named.map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// Adds the entries of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Goes on by a change.
    pub fn advance(&mut self, delta: &Delta) {
        self.less(&delta.removed);
        self.extend(delta.added.clone());
    }

    /// Goes back to before a change.
    pub fn retreat(&mut self, delta: &Delta) {
        self.less(&delta.added);
        self.extend(delta.removed.clone());
    }

    fn less(&mut self, others: &Self) {
        for key in others.0.keys() {
            self.0.remove(key);
        }
    }
}

impl Delta {
    /// What leads from `before` to `after`.
    #[must_use]
    pub fn between(before: &EntrySet, after: &EntrySet) -> Self {
        Self {
            added: after.without(before),
            removed: before.without(after),
        }
    }

    /// What a draft that began as `before` has become: only what was changed is looked at.
    #[must_use]
    pub fn of_drafts(before: &Draft, after: &Draft) -> Self {
        let (old, new) = after.changes_since(before);
        let set = |written: Vec<Written<'_>>| EntrySet(written.into_iter().map(keyed).collect());
        let (removed, added) = (set(old), set(new));
        let mut gone = removed.without(&added);
        // Few as a rule, and then quicker than a set of all.
        let left: HashSet<&str> = match gone.len() {
            0..=FEW => HashSet::new(),
            _ => after.texts().collect(),
        };
        let is_left = |text: &str| match left.is_empty() {
            true => after.texts().any(|other| other == text),
            false => left.contains(text),
        };
        gone.0.retain(|_, entry| !is_left(&entry.text));
        Self {
            added: added.without(&removed),
            removed: gone,
        }
    }

    /// Whether nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    /// How many bytes of memory it takes, about.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.added.weight() + self.removed.weight()
    }

    /// Makes this change to `theirs`, another version that began as `base`. Where they
    /// have given a name of ours to something else since, theirs is the later and stays.
    ///
    /// # Errors
    /// If an entry's text is not JSON.
    pub fn apply(&self, base: &EntrySet, theirs: &mut Draft) -> Result<(), oci::Error> {
        let present = EntrySet::of(theirs);
        let news = present.without(base).without(&self.added);
        let names = news.names();
        let is_removed = |text: &str| self.removed.0.contains_key(canonical(text).as_str());
        let removed: Vec<usize> = theirs
            .texts()
            .enumerate()
            .filter_map(|(number, text)| is_removed(text).then_some(number))
            .collect();
        theirs.remove(&removed);
        for (key, entry) in &self.added.0 {
            if present.0.contains_key(key) {
                continue;
            }
            match &entry.name {
                Some(name) if names.contains(name.as_str()) => {
                    log::warn!("{name:?} was moved by another program at the same time");
                }
                _ => theirs.push(&entry.text)?,
            }
        }
        Ok(())
    }
}

/// The name under which an entry is shown.
#[must_use]
pub fn name(entry: &Entry) -> Option<&str> {
    let full = entry.containerd_name.as_deref();
    full.or(entry.ref_name.as_deref())
}

fn keyed((text, entry): Written<'_>) -> (Arc<str>, Arc<EntryText>) {
    let value = json::parse(text.as_bytes()).unwrap_or_default();
    let digest = value.get("digest").and_then(Value::as_str);
    let written = EntryText {
        text: text.to_owned(),
        name: name(entry).map(str::to_owned),
        digest: digest.map(str::to_owned),
    };
    (canonical(text).into(), written.into())
}

/// One text for all ways to write a value: without white space, members sorted.
fn canonical(text: &str) -> String {
    match json::parse(text.as_bytes()) {
        Ok(mut value) => {
            value.sort_all_objects();
            Value::to_string(&value)
        }
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a1` is a ref `a` to something called `1`.
    fn index(entries: &str) -> Draft {
        let entry = |word: &str| {
            let (name, digest) = word.split_at(1);
            format!(
                r#"{{"digest":"{digest}","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}}}"#
            )
        };
        let entries: Vec<String> = entries.split_whitespace().map(entry).collect();
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        );
        Draft::parse(text.as_bytes()).expect("it is an index")
    }

    #[test]
    fn three_versions() {
        let rows = [
            ("both add", "a1", "a1 b1", "a1 c1", "a1 b1 c1"),
            ("both add the same", "a1", "a1 b1", "a1 b1", "a1 b1"),
            ("ours removes", "a1 b1", "a1", "a1 b1 c1", "a1 c1"),
            ("theirs removes", "a1 b1", "a1 b1 c1", "a1", "a1 c1"),
            ("ours moves", "a1", "a2", "a1 b1", "a2 b1"),
            ("theirs moves", "a1", "a1 b1", "a2", "a2 b1"),
            ("both move: theirs is later", "a1", "a2", "a3", "a3"),
            ("both name: theirs is later", "", "a1", "a2", "a2"),
            ("nothing of ours", "a1", "a1", "b1", "b1"),
            ("from nothing", "", "a1", "", "a1"),
        ];
        for (name, base, ours, theirs, expected) in rows {
            let (base, ours) = (EntrySet::of(&index(base)), EntrySet::of(&index(ours)));
            let mut merged = index(theirs);
            Delta::between(&base, &ours)
                .apply(&base, &mut merged)
                .expect("entries are JSON");
            let (found, expected) = (EntrySet::of(&merged), EntrySet::of(&index(expected)));
            assert_eq!(
                found.0.keys().collect::<Vec<_>>(),
                expected.0.keys().collect::<Vec<_>>(),
                "{name}"
            );
            assert_eq!(merged.entries().count(), expected.len(), "{name}: twice");
        }
    }

    #[test]
    fn how_an_entry_is_written_does_not_matter() {
        let text = r#"{"schemaVersion":2,"manifests":[
            { "annotations" : {"y":"<","x":"\u0062"}, "size" : 1 },
            {"size":1,"annotations":{"x":"b","y":"\u003c"}}]}"#;
        let draft = Draft::parse(text.as_bytes()).expect("it is an index");
        assert_eq!(EntrySet::of(&draft).len(), 1);
    }
}
