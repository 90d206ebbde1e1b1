//! What is right: layers as lists of entries, applied one after the other to a table of
//! paths. Slow, and short enough to be believed.

use std::collections::BTreeMap;

use ocifs::vfs::FileKind;

use crate::common::{Random, Tarball};

/// The few names there are, so that layers meet.
pub(crate) const NAMES: [&str; 4] = ["a", "b", "ab", "c"];

/// Below how many directories something can be.
const DEPTH: usize = 3;

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    Fifo,
    /// Another name of a file of the same layer, by its path.
    Link(String),
    /// A file whose name begins with `.wh.`.
    Whiteout,
}

/// A node of a tree, with attributes that are worked out of where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) entry: Entry,
    pub(crate) layer: usize,
    /// Of several names that are one file, the one that has the entry.
    pub(crate) origin: String,
}

impl Seen {
    pub(crate) fn kind(&self) -> FileKind {
        match self.entry {
            Entry::Directory => FileKind::Directory,
            Entry::Symlink(_) => FileKind::Symlink,
            Entry::Fifo => FileKind::Fifo,
            Entry::File(_) | Entry::Whiteout | Entry::Link(_) => FileKind::Regular,
        }
    }

    /// The bytes of a file.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.entry {
            Entry::File(bytes) => bytes,
            _ => b"",
        }
    }
}

/// A layer: its entries by path, in the order of the tar.
pub(crate) type Layer = BTreeMap<String, Entry>;

/// A tree by path, `""` for its root.
pub(crate) type Tree = BTreeMap<String, Seen>;

/// A layer by chance. All directories on the way to something are entries too.
pub(crate) fn random_layer(random: &mut Random) -> Layer {
    let mut layer = Layer::new();
    for _ in 0..random.within(4..25) {
        let mut path = String::new();
        for _ in 0..random.within(1..DEPTH as u64 + 1) {
            if !path.is_empty() {
                layer.entry(path.clone()).or_insert(Entry::Directory);
            }
            if !path.is_empty() && layer[&path] != Entry::Directory {
                break;
            }
            let name = *pick(random, &NAMES);
            path = join(&path, name);
        }
        // What is there stays: another entry may be a link to it.
        if !layer.contains_key(&path) {
            let entry = random_entry(random, &layer, &path);
            layer.insert(path, entry);
        }
    }
    for _ in 0..random.within(0..5) {
        let directories = layer
            .iter()
            .filter(|(_, entry)| **entry == Entry::Directory);
        let directories: Vec<String> = directories.map(|(path, _)| path.clone()).collect();
        let directory = if directories.is_empty() || random.within(0..3) == 0 {
            String::new()
        } else {
            pick(random, &directories).clone()
        };
        let name = match random.within(0..4) {
            0 => ".wh..wh..opq".to_owned(),
            _ => format!(".wh.{}", pick(random, &NAMES)),
        };
        layer.insert(join(&directory, &name), Entry::Whiteout);
    }
    layer
}

fn random_entry(random: &mut Random, layer: &Layer, path: &str) -> Entry {
    match random.within(0..10) {
        0..2 => Entry::Directory,
        2 => Entry::Symlink(pick(random, &NAMES).to_string()),
        3 => Entry::Fifo,
        4..6 => {
            // One that stands before it in the tar.
            let before = layer.range(..path.to_owned());
            let is_file = |entry: &Entry| matches!(entry, Entry::File(_));
            let files: Vec<&String> = before
                .filter(|(_, entry)| is_file(entry))
                .map(|(path, _)| path)
                .collect();
            match files.is_empty() {
                true => Entry::Fifo,
                false => Entry::Link((*pick(random, &files)).clone()),
            }
        }
        _ => {
            let len = random.within(0..3000);
            let seed = random.next();
            let mut bytes = vec![0; usize::try_from(len).expect("it is small")];
            Random::of_seed(seed).fill(&mut bytes);
            Entry::File(bytes)
        }
    }
}

/// The tar of a layer, the attributes of its entries those of [`attributes`].
pub(crate) fn tar_of(layer: &Layer, number: usize) -> Vec<u8> {
    let mut tar = Tarball::new();
    for (path, entry) in layer {
        let (mode, owner, mtime) = attributes(path, number);
        tar = tar.mode(mode.into()).owner(owner.into(), owner.into());
        tar = tar.pax("mtime", format!("{mtime}.5"));
        tar = match entry {
            Entry::Directory => tar.dir(format!("{path}/")),
            Entry::File(bytes) => tar.file(path, bytes),
            Entry::Symlink(target) => tar.symlink(path, target),
            Entry::Fifo => tar.fifo(path),
            Entry::Link(target) => tar.link(path, target),
            Entry::Whiteout => tar.file(path, ""),
        };
    }
    tar.finish()
}

/// Mode, owner and time of what has its entry at `path` in layer `number`.
pub(crate) fn attributes(path: &str, number: usize) -> (u16, u32, i64) {
    let len = u16::try_from(path.len()).expect("paths are short");
    let layer = u32::try_from(number).expect("there are few layers");
    (0o600 + len, layer, 1000 + i64::from(layer) - i64::from(len))
}

/// Layers applied to nothing, the base layer first, each with its number.
pub(crate) fn apply<'a>(layers: impl Iterator<Item = (usize, &'a Layer)>) -> Tree {
    let mut tree = Tree::new();
    for (number, layer) in layers {
        for (path, _) in layer.iter().filter(|(_, entry)| **entry == Entry::Whiteout) {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            match &name[4..] {
                ".wh..opq" => remove_below(&mut tree, directory),
                name => remove(&mut tree, &join(directory, name)),
            }
        }
        let own = layer.iter().filter(|(_, entry)| **entry != Entry::Whiteout);
        put(&mut tree, own, number);
    }
    tree
}

/// One layer as it is.
pub(crate) fn alone(layer: &Layer, number: usize) -> Tree {
    let mut tree = Tree::new();
    put(&mut tree, layer.iter(), number);
    tree
}

fn put<'a>(tree: &mut Tree, entries: impl Iterator<Item = (&'a String, &'a Entry)>, layer: usize) {
    let mut files: BTreeMap<&str, &Entry> = BTreeMap::new();
    for (path, entry) in entries {
        let was_directory = tree
            .get(path)
            .is_some_and(|seen| seen.entry == Entry::Directory);
        if !(was_directory && *entry == Entry::Directory) {
            remove(tree, path);
        }
        let (entry, origin) = match entry {
            Entry::Link(target) => (files[target.as_str()], target),
            entry => (entry, path),
        };
        files.insert(path, entry);
        let (entry, origin) = (entry.clone(), origin.clone());
        let seen = Seen {
            entry,
            layer,
            origin,
        };
        tree.insert(path.clone(), seen);
    }
}

fn remove(tree: &mut Tree, path: &str) {
    remove_below(tree, path);
    tree.remove(path);
}

fn remove_below(tree: &mut Tree, directory: &str) {
    let prefix = join(directory, "");
    tree.retain(|path, _| !path.starts_with(&prefix) || path.is_empty());
}

/// What is in a directory or below it, by path.
pub(crate) fn below<'a, T>(
    tree: &'a BTreeMap<String, T>,
    directory: &str,
) -> impl Iterator<Item = (&'a String, &'a T)> {
    let prefix = join(directory, "");
    let range = tree.range(prefix.clone()..);
    range.take_while(move |(path, _)| path.starts_with(&prefix))
}

/// The names in a directory.
pub(crate) fn names(tree: &Tree, directory: &str) -> Vec<String> {
    let start = join(directory, "").len();
    let names = below(tree, directory).map(|(path, _)| &path[start..]);
    let names = names.filter(|name| !name.contains('/') && !name.is_empty());
    names.map(str::to_owned).collect()
}

/// How many names of a tree are this file; for a directory, two and those in it.
pub(crate) fn links(tree: &Tree, path: &str) -> u32 {
    let seen = &tree[path];
    let count = if seen.entry == Entry::Directory {
        let is_directory = |name: &String| tree[&join(path, name)].entry == Entry::Directory;
        2 + names(tree, path)
            .iter()
            .filter(|name| is_directory(name))
            .count()
    } else {
        let id = |seen: &Seen| (seen.layer, seen.origin.clone());
        tree.values().filter(|other| id(other) == id(seen)).count()
    };
    u32::try_from(count).expect("it is small")
}

pub(crate) fn join(directory: &str, name: &str) -> String {
    match directory {
        "" => name.to_owned(),
        _ => format!("{directory}/{name}"),
    }
}

pub(crate) fn pick<'a, T>(random: &mut Random, list: &'a [T]) -> &'a T {
    let at = random.within(0..list.len() as u64);
    &list[usize::try_from(at).expect("it is below the length")]
}
