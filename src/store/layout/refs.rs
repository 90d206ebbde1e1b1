//! Names in an index: which entries a name means, and giving names away.
//!
//! A name is what a user sees: the full name that containerd or BuildKit gave
//! (`io.containerd.image.name`), else the ref name. Several entries may have one name;
//! what is meant then is said or refused, never guessed:
//!
//! - entries for different platforms stand together, as those of an image index would;
//! - `NAME@sha256:…` is the one of several that has this digest;
//! - `sha256:…` is the entry that has no name.

use std::collections::{BTreeMap, HashSet};

use super::index::draft::{Draft, named};
use super::index::merge;
use crate::oci::index::Entry;
use crate::oci::{self, Digest, Platform, RefName, annotations};

/// Why a name cannot be used as was asked.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No entry has the name.
    #[error("there is no ref {name:?}")]
    NotFound {
        /// The name.
        name: String,
    },
    /// Another image has the name.
    #[error("ref {name:?} exists and is {digest}")]
    Exists {
        /// The name.
        name: String,
        /// What it is, or one of it.
        digest: String,
    },
    /// Several images have the name.
    #[error("{name:?} is the name of {} images: {}", digests.len(), digests.join(", "))]
    Several {
        /// The name.
        name: String,
        /// What has it.
        digests: Vec<String>,
    },
    /// It is the short name of an entry that has a full one, and goes with that.
    #[error("{name:?} is the short name of {full_name:?}")]
    ShortName {
        /// The name.
        name: String,
        /// The name of the entry.
        full_name: String,
    },
    /// The entry is not right in itself.
    #[error("the entry of {name:?} is malformed")]
    Malformed {
        /// The name of the entry, or what stands for it.
        name: String,
        /// What is wrong with it.
        #[source]
        source: oci::Error,
    },
    /// The image that was looked at is not the one that has the name now.
    #[error("{name:?} was moved by another program at the same time")]
    Moved {
        /// The name.
        name: String,
    },
}

/// What happens to an image that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collision {
    /// It keeps it.
    Refuse,
    /// It loses it.
    Replace,
}

/// The numbers of the entries that `name` means.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Several`].
pub fn resolve(draft: &Draft, name: &str) -> Result<Vec<usize>, Refusal> {
    let not_found = || Refusal::NotFound {
        name: name.to_owned(),
    };
    let shown = shown(draft, name);
    if !shown.is_empty() {
        return unambiguous(draft, name, shown);
    }
    if let Some((name, digest)) = name.rsplit_once('@')
        && digest.parse::<Digest>().is_ok()
    {
        let found = one_of_several(draft, name, digest);
        return found.ok_or_else(not_found);
    }
    let short = short(draft, name);
    if !short.is_empty() {
        return unambiguous(draft, name, short);
    }
    let unnamed = unnamed(draft, name);
    (!unnamed.is_empty())
        .then_some(unnamed)
        .ok_or_else(not_found)
}

/// Gives `name` to the descriptors with these JSON texts, as entries at the end, or in the
/// place of those that had it. Entries that say so already stay as they are.
///
/// # Errors
/// [`Refusal::Exists`] with [`Collision::Refuse`], unless the name has these very images.
pub fn set(
    draft: &mut Draft,
    name: &RefName,
    descriptors: &[String],
    collision: Collision,
) -> Result<(), Refusal> {
    let name = name.as_str();
    let malformed = |source| Refusal::Malformed {
        name: name.to_owned(),
        source,
    };
    let mut new = Vec::new();
    for text in descriptors {
        new.push(named(text, name).map_err(malformed)?);
    }
    let holders = Holders::of(draft, name);
    let gone = put(draft, name, &holders, new, collision)?;
    draft.remove(&gone);
    Ok(())
}

/// Removes the entries that `name` means; their digests.
///
/// # Errors
/// As [`resolve`]; [`Refusal::ShortName`].
pub fn remove(draft: &mut Draft, name: &str) -> Result<Vec<String>, Refusal> {
    let numbers = owned(draft, name)?;
    let labels = numbers.iter().map(|number| label(draft, *number)).collect();
    draft.remove(&numbers);
    Ok(labels)
}

/// Gives the entries that `old` means the name `new`, both names where they have two.
///
/// # Errors
/// As [`remove`]; [`Refusal::Exists`] with [`Collision::Refuse`].
pub fn rename(
    draft: &mut Draft,
    old: &str,
    new: &RefName,
    collision: Collision,
) -> Result<(), Refusal> {
    let numbers = owned(draft, old)?;
    let own: HashSet<usize> = numbers.iter().copied().collect();
    let taken = Holders::of(draft, new.as_str()).without(&own);
    if let (Some(first), Collision::Refuse) = (taken.first(), collision) {
        return Err(exists(draft, new.as_str(), first));
    }
    taken.lose_short(draft, new.as_str())?;
    call(draft, &numbers, new.as_str())?;
    draft.remove(&taken.shown);
    Ok(())
}

/// Gives the entries that `one` means the name `other`, and the other way round.
///
/// # Errors
/// As [`remove`].
pub fn exchange(draft: &mut Draft, one: &RefName, other: &RefName) -> Result<(), Refusal> {
    let numbers = [owned(draft, one.as_str())?, owned(draft, other.as_str())?];
    call(draft, &numbers[0], other.as_str())?;
    call(draft, &numbers[1], one.as_str())
}

/// Gives entries the name `name`, both names where they have two.
fn call(draft: &mut Draft, numbers: &[usize], name: &str) -> Result<(), Refusal> {
    for number in numbers {
        let entry = draft.entry(*number);
        let has_two = entry.is_some_and(|entry| entry.containerd_name.is_some());
        let keys = [annotations::REF_NAME, annotations::CONTAINERD_NAME];
        for key in &keys[..if has_two { 2 } else { 1 }] {
            let set = draft.annotate(*number, key, Some(name));
            set.map_err(|source| Refusal::Malformed {
                name: name.to_owned(),
                source,
            })?;
        }
    }
    Ok(())
}

/// Sets an annotation of the entries that `name` means, or removes it.
///
/// # Errors
/// As [`resolve`]; [`Refusal::Malformed`].
pub fn annotate(
    draft: &mut Draft,
    name: &str,
    key: &str,
    value: Option<&str>,
) -> Result<(), Refusal> {
    for number in resolve(draft, name)? {
        let set = draft.annotate(number, key, value);
        set.map_err(|source| Refusal::Malformed {
            name: name.to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// Whether one of the entries that `name` means has an annotation.
///
/// # Errors
/// As [`resolve`].
pub fn has_annotation(draft: &Draft, name: &str, key: &str) -> Result<bool, Refusal> {
    let has = |number: &usize| {
        let descriptor = draft.entry(*number)?.descriptor.as_ref().ok()?;
        descriptor.annotations.get(key).map(|_| ())
    };
    let numbers = resolve(draft, name)?;
    Ok(numbers.iter().any(|number| has(number).is_some()))
}

/// Adds the descriptors with these JSON texts under the names that they have; those
/// without one unless an entry without name has their digest.
///
/// # Errors
/// [`Refusal::Exists`] with [`Collision::Refuse`].
pub fn merge(
    draft: &mut Draft,
    descriptors: &[String],
    collision: Collision,
) -> Result<(), Refusal> {
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut unnamed = Vec::new();
    for text in descriptors {
        let malformed = |source| Refusal::Malformed {
            name: "a new entry".to_owned(),
            source,
        };
        let value = oci::json::parse(text.as_bytes()).map_err(malformed)?;
        match merge::name(&Entry::from_json((0, &value))) {
            Some(name) => named.entry(name.to_owned()).or_default().push(text.clone()),
            None => unnamed.push(text),
        }
    }
    let holders = Holders::of_all(draft, named.keys());
    let mut gone = Vec::new();
    for (name, new) in named {
        gone.extend(put(draft, &name, &holders[&name], new, collision)?);
    }
    put_unnamed(draft, &unnamed)?;
    draft.remove(&gone);
    Ok(())
}

/// How long a few names are. Most others are not so long, and need not be fetched from
/// memory to be told from them.
#[derive(Debug)]
pub struct Lengths(Vec<usize>);

impl Lengths {
    /// Those of `names`.
    pub fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut lengths: Vec<usize> = names.map(str::len).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self(lengths)
    }

    /// Whether one of the names is as long as this one.
    #[must_use]
    pub fn have(&self, name: &str) -> bool {
        self.0.contains(&name.len())
    }
}

/// Who has a name: the numbers of entries.
#[derive(Debug, Clone, Default)]
struct Holders {
    /// Those whose name it is.
    shown: Vec<usize>,
    /// Those that have a full name beside this one.
    short: Vec<usize>,
}

impl Holders {
    fn of(draft: &Draft, name: &str) -> Self {
        Self {
            shown: shown(draft, name),
            short: short(draft, name),
        }
    }

    /// Those of each of `names`.
    fn of_all<'a>(
        draft: &Draft,
        names: impl Iterator<Item = &'a String>,
    ) -> BTreeMap<String, Self> {
        let mut all: BTreeMap<String, Self> =
            names.map(|name| (name.clone(), Self::default())).collect();
        let lengths = Lengths::of(all.keys().map(String::as_str));
        for (number, entry) in draft.entries().enumerate() {
            let own = merge::name(entry);
            let may_be = own.filter(|name| lengths.have(name));
            if let Some(holders) = may_be.and_then(|name| all.get_mut(name)) {
                holders.shown.push(number);
            }
            let short = entry.ref_name.as_deref();
            let short = short.filter(|name| lengths.have(name) && own != Some(*name));
            if let Some(holders) = short.and_then(|name| all.get_mut(name)) {
                holders.short.push(number);
            }
        }
        all
    }

    fn without(mut self, others: &HashSet<usize>) -> Self {
        for numbers in [&mut self.shown, &mut self.short] {
            numbers.retain(|number| !others.contains(number));
        }
        self
    }

    fn first(&self) -> Option<usize> {
        self.meant().first().copied()
    }

    /// What the name means: a short name only where it is nobody's own.
    fn meant(&self) -> &[usize] {
        match self.shown.as_slice() {
            [] => &self.short,
            shown => shown,
        }
    }

    /// Leaves those that have it as a short name with their full one.
    fn lose_short(&self, draft: &mut Draft, name: &str) -> Result<(), Refusal> {
        for number in &self.short {
            let unnamed = draft.annotate(*number, annotations::REF_NAME, None);
            unnamed.map_err(|source| Refusal::Malformed {
                name: name.to_owned(),
                source,
            })?;
        }
        Ok(())
    }
}

/// Puts entries that have the name `name`, however they say so, in the place of those that
/// had it; which entries are to be removed then. No number changes before.
fn put(
    draft: &mut Draft,
    name: &str,
    old: &Holders,
    new: Vec<String>,
    collision: Collision,
) -> Result<Vec<usize>, Refusal> {
    if is_same(draft, old.meant(), &new) {
        return Ok(Vec::new());
    }
    if let (Some(first), Collision::Refuse) = (old.first(), collision) {
        return Err(exists(draft, name, first));
    }
    old.lose_short(draft, name)?;
    let mut places = old.shown.iter();
    for text in new {
        let placed = match places.next() {
            Some(number) => draft.replace(*number, &text),
            None => draft.push(&text),
        };
        placed.map_err(|source| Refusal::Malformed {
            name: name.to_owned(),
            source,
        })?;
    }
    Ok(places.copied().collect())
}

fn exists(draft: &Draft, name: &str, number: usize) -> Refusal {
    Refusal::Exists {
        name: name.to_owned(),
        digest: label(draft, number),
    }
}

/// Adds entries that have no name, unless one of their digest is there.
fn put_unnamed(draft: &mut Draft, texts: &[&String]) -> Result<(), Refusal> {
    if texts.is_empty() {
        return Ok(());
    }
    let unnamed = draft.entries().filter(|entry| merge::name(entry).is_none());
    let mut present: HashSet<String> = unnamed
        .filter_map(|entry| digest_of(entry))
        .map(str::to_owned)
        .collect();
    for text in texts {
        let digest = digest_in(text);
        if digest
            .as_ref()
            .is_none_or(|digest| present.insert(digest.clone()))
        {
            draft.push(text).map_err(|source| Refusal::Malformed {
                name: digest.unwrap_or_default(),
                source,
            })?;
        }
    }
    Ok(())
}

/// The entries that `name` means and that go away with it.
fn owned(draft: &Draft, name: &str) -> Result<Vec<usize>, Refusal> {
    let numbers = resolve(draft, name)?;
    let entries = || numbers.iter().filter_map(|number| draft.entry(*number));
    let full_name = entries().find_map(|entry| {
        let full = entry.containerd_name.as_deref()?;
        (entry.ref_name.as_deref() == Some(name) && full != name).then_some(full)
    });
    match full_name {
        Some(full_name) => Err(Refusal::ShortName {
            name: name.to_owned(),
            full_name: full_name.to_owned(),
        }),
        None => Ok(numbers),
    }
}

/// The numbers of the entries that `fits` chooses.
pub(super) fn find(draft: &Draft, fits: impl Fn(&Entry) -> bool) -> Vec<usize> {
    let entries = draft.entries().enumerate();
    let fitting = entries.filter_map(|(number, entry)| fits(entry).then_some(number));
    fitting.collect()
}

/// The entries whose name it is.
fn shown(draft: &Draft, name: &str) -> Vec<usize> {
    find(draft, |entry| merge::name(entry) == Some(name))
}

/// The entries that have a full name beside this one.
fn short(draft: &Draft, name: &str) -> Vec<usize> {
    find(draft, |entry| {
        entry.ref_name.as_deref() == Some(name) && merge::name(entry) != Some(name)
    })
}

fn unnamed(draft: &Draft, digest: &str) -> Vec<usize> {
    find(draft, |entry| {
        merge::name(entry).is_none() && digest_of(entry) == Some(digest)
    })
}

fn one_of_several(draft: &Draft, name: &str, digest: &str) -> Option<Vec<usize>> {
    let mut numbers = shown(draft, name);
    numbers.retain(|number| draft.entry(*number).and_then(digest_of) == Some(digest));
    (!numbers.is_empty()).then_some(numbers)
}

/// Lets entries stand together that have one digest, or each a platform of its own.
fn unambiguous(draft: &Draft, name: &str, numbers: Vec<usize>) -> Result<Vec<usize>, Refusal> {
    let mut digests: Vec<String> = numbers.iter().map(|n| label(draft, *n)).collect();
    digests.sort_unstable();
    digests.dedup();
    let descriptor = |number: &usize| draft.entry(*number)?.descriptor.as_ref().ok();
    let platforms: Option<Vec<_>> = numbers
        .iter()
        .map(|number| descriptor(number)?.platform.as_ref())
        .collect();
    let all_differ = |platforms: Vec<&Platform>| {
        let mut seen = HashSet::new();
        platforms.into_iter().all(|platform| seen.insert(platform))
    };
    if digests.len() == 1 || platforms.is_some_and(all_differ) {
        return Ok(numbers);
    }
    Err(Refusal::Several {
        name: name.to_owned(),
        digests,
    })
}

/// Whether the entries with these numbers are for the same images as these texts.
fn is_same(draft: &Draft, numbers: &[usize], new: &[String]) -> bool {
    let mut old: Vec<String> = numbers.iter().map(|n| label(draft, *n)).collect();
    let mut new: Vec<String> = new.iter().filter_map(|text| digest_in(text)).collect();
    for digests in [&mut old, &mut new] {
        digests.sort_unstable();
        digests.dedup();
    }
    !old.is_empty() && old == new
}

fn digest_of(entry: &Entry) -> Option<&str> {
    let descriptor = entry.descriptor.as_ref().ok()?;
    Some(descriptor.digest.as_str())
}

fn digest_in(text: &str) -> Option<String> {
    let value = oci::json::parse(text.as_bytes()).ok()?;
    Some(value.get("digest")?.as_str()?.to_owned())
}

/// The digest of an entry, or that it has none.
pub(super) fn label(draft: &Draft, number: usize) -> String {
    let digest = draft.entry(number).and_then(digest_of);
    digest.unwrap_or("malformed").to_owned()
}

#[cfg(test)]
mod tests;
