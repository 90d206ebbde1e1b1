//! Looks a path up in the lower layers, without merging them.

use std::sync::Arc;

use super::Origin;
use super::whiteout::{Meaning, meaning};
use crate::layer::tree::{self, Kind, Tree};

/// How many symlinks one path may lead through, as in containerd and umoci.
const MAX_FOLLOWED: usize = 255;

/// A symlink on the way leads in circles, or through too many others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loop;

/// Some layers, the base first, as they show themselves together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lower<'a>(pub(super) &'a [Arc<Tree>]);

/// What is at one name.
#[derive(Debug, Clone)]
enum Found {
    Nothing,
    /// The directories of the layers that make it, the highest first.
    Directory(Vec<Origin>),
    Other(Origin),
}

/// A directory on the way to another: its name, and what the layers have of it, the
/// highest first.
type Stage = (Vec<u8>, Vec<Origin>);

impl<'a> Lower<'a> {
    /// The file at `path`, or whatever is no directory there. Symlinks on the way are
    /// followed, within these layers; the last one is not.
    pub(super) fn find(self, path: &[u8]) -> Result<Option<Origin>, Loop> {
        let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        let way = self.walk(directory)?;
        let parents = way.last().map_or(&[][..], |(_, parents)| parents);
        Ok(match self.step(parents, name) {
            Found::Other(origin) => Some(origin),
            Found::Directory(_) | Found::Nothing => None,
        })
    }

    /// The path to which `path` leads when all symlinks in it are followed. What is not
    /// there stays as it is written.
    pub(super) fn follow(self, path: &[u8]) -> Result<Vec<u8>, Loop> {
        let way = self.walk(path)?;
        let names: Vec<&[u8]> = way[1..].iter().map(|(name, _)| name.as_slice()).collect();
        Ok(names.join(&b'/'))
    }

    /// The directories from the root to `path`.
    fn walk(self, path: &[u8]) -> Result<Vec<Stage>, Loop> {
        let mut way = vec![(Vec::new(), self.root())];
        // The names that are still to be walked, the next one last.
        let mut rest: Vec<Vec<u8>> = Vec::new();
        push(&mut rest, path);
        let mut followed = 0;
        while let Some(name) = rest.pop() {
            let here = way.last().map_or(&[][..], |(_, here)| here);
            match name.as_slice() {
                b"" | b"." => {}
                b".." if way.len() == 1 => {}
                b".." => {
                    way.pop();
                }
                _ => match self.step(here, &name) {
                    Found::Directory(origins) => way.push((name, origins)),
                    Found::Other(origin) => match self.target(origin) {
                        Some(target) => {
                            followed += 1;
                            if followed > MAX_FOLLOWED {
                                return Err(Loop);
                            }
                            if target.starts_with(b"/") {
                                way.truncate(1);
                            }
                            push(&mut rest, target);
                        }
                        None => way.push((name, Vec::new())),
                    },
                    Found::Nothing => way.push((name, Vec::new())),
                },
            }
        }
        Ok(way)
    }

    fn root(self) -> Vec<Origin> {
        let layers = 0..u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let root = |layer| Origin {
            layer,
            node: tree::NodeId::ROOT,
        };
        layers.rev().map(root).collect()
    }

    fn target(self, origin: Origin) -> Option<&'a [u8]> {
        match self.0[origin.layer as usize].node(origin.node).kind {
            Kind::Symlink { target } => Some(target),
            _ => None,
        }
    }

    /// What `name` is in the directory that `parents` make.
    fn step(self, parents: &[Origin], name: &[u8]) -> Found {
        let mut directories = Vec::new();
        for parent in parents {
            let tree = &self.0[parent.layer as usize];
            if let Some(node) = tree.find(parent.node, name)
                && meaning(name, tree.node(node).kind) == Ok(Meaning::Plain)
            {
                let origin = Origin {
                    layer: parent.layer,
                    node,
                };
                if tree.node(node).kind == Kind::Directory {
                    directories.push(origin);
                } else if directories.is_empty() || self.leads_on(&directories, origin) {
                    return Found::Other(origin);
                } else {
                    break;
                }
            }
            let hides = [&b".wh."[..], name].concat();
            let is_there = |name: &[u8]| tree.find(parent.node, name).is_some();
            if is_there(&hides) || is_there(b".wh..wh..opq") {
                break;
            }
        }
        if directories.is_empty() {
            Found::Nothing
        } else {
            Found::Directory(directories)
        }
    }
}

impl Lower<'_> {
    /// Whether `below` is a symlink that directories above it do not replace, because no
    /// entry names them.
    fn leads_on(self, directories: &[Origin], below: Origin) -> bool {
        let named = |one: &Origin| self.0[one.layer as usize].node(one.node).named;
        self.target(below).is_some() && !directories.iter().any(named)
    }
}

/// Puts the names of `path` before the others.
fn push(rest: &mut Vec<Vec<u8>>, path: &[u8]) {
    let names = path.split(|byte| *byte == b'/').rev();
    rest.extend(names.map(<[u8]>::to_vec));
}
