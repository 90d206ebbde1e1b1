//! The tree of an artifact's files: where each layer stands by its title.
//!
//! A title is cut at `/` into directories, each part written by the rules for names
//! ([`names::part`]), so that none leads out of its place. Two layers are never shown under
//! one name, and none is lost:
//!
//! 1. directories that any title goes through have their names before all files;
//! 2. then the first layer with a title has that;
//! 3. every other one gets `~` and the first twelve digits of its digest, and a longer mark
//!    where even that is taken; it is left out only where it has the same blob as what has
//!    the marked name already;
//! 4. a layer without a title is called by its number, as in `layers/`. The empty one, which
//!    says that there is none, is left out.
//!
//! Spec: image-spec annotations.md, "org.opencontainers.image.title"; manifest.md,
//! "Guidelines for Artifact Usage".

use std::collections::BTreeMap;
use std::iter;
use std::sync::Arc;

use super::names;
use crate::oci::media_type::Kind;
use crate::oci::{Descriptor, Digest, annotations};
use crate::vfs::NAME_MAX;
use crate::vfs::node::Name;

/// The most levels of one title. What is left of a longer one is the last of them, with
/// each `/` as `%2F`: titles are paths, and those of the kernel have some hundred levels at
/// most in practice.
const MAX_LEVELS: usize = 128;

/// The most directories of one artifact. A title that needs more of them is one name, with
/// each `/` as `%2F`: a manifest of a megabyte could have half a million.
const MAX_DIRECTORIES: usize = 16_384;

/// How many digits of a digest tell apart files of one title.
const HASH_LEN: usize = 12;

/// How many digits of a further digest do, where those do not.
const LONG_HASH_LEN: usize = 32;

/// One directory: what is in it, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Level(BTreeMap<Name, Shown>);

/// What has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// The layer with this number.
    File(usize),
    /// A directory that titles go through.
    Directory(Arc<Level>),
}

impl Level {
    /// The tree of `layers`.
    #[must_use]
    pub(super) fn of(layers: &[Descriptor]) -> Self {
        let (mut root, mut titled, mut untitled) = (Self::default(), Vec::new(), Vec::new());
        for (number, layer) in layers.iter().enumerate() {
            match title(layer) {
                Some(title) => titled.push((number, split(title))),
                None if layer.media_type.kind() != Kind::Empty => untitled.push(number),
                None => {}
            }
        }
        let mut room = MAX_DIRECTORIES;
        for (number, (directories, name)) in &mut titled {
            let needed = root.missing(directories);
            if needed <= room {
                room -= needed;
                root.directory(directories);
            } else {
                directories.clear();
                *name = title(&layers[*number]).map(names::part).unwrap_or_default();
            }
        }
        let mut displaced = Vec::new();
        for (number, (directories, name)) in &titled {
            let level = root.directory(directories);
            if level.0.contains_key(name) {
                displaced.push((*number, directories, name));
            } else {
                level.0.insert(name.clone(), Shown::File(*number));
            }
        }
        for (number, directories, name) in displaced {
            let names = marked(name, &layers[number]);
            root.directory(directories).place(number, layers, names);
        }
        // Two digits, three from 100 layers on.
        let width = layers.len().max(10).to_string().len();
        for number in untitled {
            let layer = &layers[number];
            let name = format!("{number:0width$}{}", layer.media_type.extension()).into_bytes();
            let marked = marked(&name, layer);
            root.place(number, layers, iter::once(name.clone()).chain(marked));
        }
        root
    }

    /// What is called so.
    pub(super) fn get(&self, name: &[u8]) -> Option<&Shown> {
        self.0.get(name)
    }

    /// What is in it, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, &Shown)> {
        self.0.iter()
    }

    /// How many directories of `path` are not there yet.
    fn missing(&self, path: &[Name]) -> usize {
        let mut level = self;
        for (at, name) in path.iter().enumerate() {
            match level.get(name) {
                Some(Shown::Directory(below)) => level = below,
                _ => return path.len() - at,
            }
        }
        0
    }

    /// The directory at `path`, made where it is not there. Files come after all
    /// directories, so that none is in the way.
    fn directory(&mut self, path: &[Name]) -> &mut Self {
        path.iter().fold(self, |level, name| {
            let make = || Shown::Directory(Arc::default());
            match level.0.entry(name.clone()).or_insert_with(make) {
                Shown::Directory(below) => Arc::make_mut(below),
                Shown::File(_) => unreachable!("directories are made before files"),
            }
        })
    }

    /// Gives layer `number` the first of `names` that is free, or that is its blob already.
    fn place(&mut self, number: usize, layers: &[Descriptor], names: impl Iterator<Item = Name>) {
        let is_same = |other: usize| {
            let (one, other) = (&layers[number], &layers[other]);
            (&one.digest, one.size) == (&other.digest, other.size)
        };
        for name in names {
            match self.0.get(&name) {
                None => {
                    self.0.insert(name, Shown::File(number));
                    return;
                }
                Some(Shown::File(other)) if is_same(*other) => return,
                Some(_) => {}
            }
        }
    }
}

/// The title of a layer; an empty one is none.
fn title(layer: &Descriptor) -> Option<&str> {
    let title = layer.annotations.get(annotations::TITLE);
    title.filter(|title| !title.is_empty())
}

/// A title as the directories on the way and the name in the last of them.
fn split(title: &str) -> (Vec<Name>, Name) {
    let mut levels: Vec<Name> = title.splitn(MAX_LEVELS, '/').map(names::part).collect();
    let name = levels.pop().unwrap_or_default();
    (levels, name)
}

/// `name` with one mark after the other, without an end: of the digest, of all that is said
/// of the blob, and with a number.
fn marked(name: &Name, layer: &Descriptor) -> impl Iterator<Item = Name> {
    let encoded = layer.digest.encoded();
    let short = encoded[..encoded.len().min(HASH_LEN)].to_owned();
    let all = format!("{}, {} bytes", layer.digest, layer.size);
    let long = Digest::of(all.as_bytes()).encoded()[..LONG_HASH_LEN].to_owned();
    let numbered = {
        let long = long.clone();
        (1_usize..).map(move |number| format!("{long}~{number}"))
    };
    let name = name.clone();
    let marks = [short, long].into_iter().chain(numbered);
    marks.map(move |mark| with_mark(&name, &mark))
}

/// `name`, cut where it has to be, with `~` and `mark` behind.
fn with_mark(name: &Name, mark: &str) -> Name {
    let room = NAME_MAX - 1 - mark.len();
    let mut marked = name[..name.len().min(room)].to_vec();
    marked.push(b'~');
    marked.extend(mark.as_bytes());
    marked
}

#[cfg(test)]
mod tests;
