//! Trees of layers, and root file systems of stacks of them, against naive extraction.

use std::collections::BTreeSet;
use std::sync::Arc;

use ocifs::layer::Tree;
use ocifs::layer::tree::{Builder, Kind};
use ocifs::rootfs::{NodeId, Rootfs};
use ocifs::tar::{Limits, Parser};

use crate::common::{
    Attributes, Extracted, Item, Refusal, Seen, SeenKind, Sight, Whiteouts, difference, items_of,
    tar_of_items,
};

mod rules;
mod stacks;
mod tools;

use rules::{Rule, Rules};

type Failure = Box<dyn std::error::Error>;

/// The tree of a layer's tar, read in pieces.
fn tree_of(tar: &[u8]) -> Result<Arc<Tree>, Failure> {
    let mut parser = Parser::new(Limits::default());
    let mut builder = Builder::new(&Limits::default());
    for piece in tar.chunks(700) {
        parser.feed(piece, |entry| builder.insert(&entry))?;
    }
    parser.finish()?;
    Ok(Arc::new(builder.finish()))
}

/// What a root file system shows; the bytes of its files come from `tars`.
fn sight_of(rootfs: &Rootfs, tars: &[Vec<u8>]) -> Sight {
    let mut sight = Sight::new();
    let mut nodes: Vec<(String, NodeId)> = Vec::new();
    let mut todo = vec![(String::new(), NodeId::ROOT)];
    while let Some((path, id)) = todo.pop() {
        for (name, child) in rootfs.list(id) {
            let name = String::from_utf8_lossy(name);
            let inside = if path.is_empty() {
                name.into_owned()
            } else {
                format!("{path}/{name}")
            };
            todo.push((inside, child));
        }
        nodes.push((path, id));
    }
    for (path, id) in &nodes {
        let same = nodes.iter().filter(|(_, other)| other == id);
        let first = same.map(|(path, _)| path).min().unwrap_or(path);
        sight.insert(path.clone(), seen(rootfs, *id, first, tars));
    }
    sight
}

fn seen(rootfs: &Rootfs, id: NodeId, first: &str, tars: &[Vec<u8>]) -> Seen {
    let node = rootfs.node(id);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kind = match node.kind {
        Kind::Directory => SeenKind::Directory,
        Kind::File { .. } => SeenKind::File(bytes_of(rootfs, id, tars)),
        Kind::Symlink { target } => SeenKind::Symlink(text(target)),
        Kind::CharDevice(_) => SeenKind::Special('c'),
        Kind::BlockDevice(_) => SeenKind::Special('b'),
        Kind::Fifo => SeenKind::Special('p'),
        Kind::Outer { target } => SeenKind::Dangling(text(target)),
    };
    let xattrs = rootfs.xattrs(id);
    Seen {
        kind,
        attributes: Attributes {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime,
            nanoseconds: node.mtime_nanoseconds,
            xattrs: xattrs
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect(),
        },
        links: node.links,
        first: first.to_owned(),
    }
}

fn bytes_of(rootfs: &Rootfs, id: NodeId, tars: &[Vec<u8>]) -> Vec<u8> {
    let content = rootfs.content(id).expect("it is a file");
    let tar = &tars[rootfs.layer(id)];
    let at = |offset: u64| usize::try_from(offset).expect("a small file");
    let mut bytes = vec![0; at(content.size)];
    for (file_offset, tar_offset, len) in content.extents() {
        bytes[at(file_offset)..at(file_offset + len)]
            .copy_from_slice(&tar[at(tar_offset)..at(tar_offset + len)]);
    }
    bytes
}

/// What we make of some layers.
fn ours(layers: &[Vec<Item>]) -> Result<Sight, Failure> {
    let tars: Vec<_> = layers.iter().map(|layer| tar_of_items(layer)).collect();
    let trees: Result<Vec<_>, _> = tars.iter().map(|tar| tree_of(tar)).collect();
    Ok(sight_of(&Rootfs::new(trees?)?, &tars))
}

/// What naive extraction makes of them, and the rules that it depends on.
fn naive(layers: &[Vec<Item>], whiteouts: Whiteouts) -> (Result<Sight, Refusal>, BTreeSet<Rule>) {
    let mut extracted = Extracted::new();
    let mut rules = Rules::default();
    for layer in layers {
        let applied = extracted.apply(layer, whiteouts);
        rules.look_at(&extracted.events);
        if let Err(refusal) = applied {
            return (Err(refusal), rules.found);
        }
    }
    (Ok(extracted.sight()), rules.found)
}

/// What we make of one layer by itself.
fn ours_alone(layer: &[Item]) -> Result<Sight, Failure> {
    let tar = tar_of_items(layer);
    Ok(sight_of(&Rootfs::of_layer(tree_of(&tar)?), &[tar]))
}
