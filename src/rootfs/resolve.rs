//! Looks a path up in the lower layers, without merging them.

use std::cell::Cell;
use std::sync::Arc;

use super::Origin;
use super::error::Error;
use super::limits::Limits;
use super::merge::check;
use super::whiteout::{Meaning, meaning};
use crate::layer::tree::{self, Kind, Tree};

/// How many symlinks one path may lead through, as in containerd and umoci.
const MAX_FOLLOWED: usize = 255;

/// So many bytes of a path or a name cost one step more: targets of links may be long.
const LONG: u64 = 256;

/// A directory of twice as many names, so often, costs one step more to look into.
const DOUBLINGS: u32 = 4;

/// Why a path cannot be walked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stuck {
    /// A symlink on the way leads in circles, or through too many others.
    Loop,
    /// It would cost too much.
    Limit(Error),
}

impl From<Error> for Stuck {
    fn from(error: Error) -> Self {
        Self::Limit(error)
    }
}

/// How much may still be looked up in one merge.
#[derive(Debug)]
pub(super) struct Steps {
    left: Cell<u64>,
    max: u64,
}

impl Steps {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            left: Cell::new(limits.steps),
            max: limits.steps,
        }
    }

    pub(super) fn spend(&self, count: u64) -> Result<(), Error> {
        let left = self.left.get().checked_sub(count);
        self.left.set(left.unwrap_or(0));
        left.map(drop).ok_or(Error::Limit {
            what: "steps of looking up paths in lower layers",
            max: self.max,
        })
    }
}

/// Some layers, the base first, as they show themselves together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lower<'a> {
    layers: &'a [Arc<Tree>],
    limits: &'a Limits,
    steps: &'a Steps,
}

/// Finds one path after the other: the next is often in the same directory.
#[derive(Debug)]
pub(super) struct Finder<'a> {
    lower: Lower<'a>,
    /// The directory of the last path, and what the layers have of it, the highest first.
    last: Option<(&'a [u8], Vec<Origin>)>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(lower: Lower<'a>) -> Self {
        Self { lower, last: None }
    }

    /// The file at `path`, or whatever is no directory there. Symlinks on the way are
    /// followed, within these layers; the last one is not.
    pub(super) fn find(&mut self, path: &'a [u8]) -> Result<Option<Origin>, Error> {
        let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        // A path is compared with the last one, however little is looked up then.
        self.lower.steps.spend(path.len() as u64 / LONG)?;
        let is_it = |(last, _): &(&[u8], Vec<Origin>)| *last == directory;
        let (_, parents) = match self.last.take().filter(is_it) {
            Some(last) => self.last.insert(last),
            None => {
                let parents = self.lower.directory(directory)?;
                self.last.insert((directory, parents))
            }
        };
        Ok(match self.lower.step(parents, name)? {
            Found::Other(origin) => Some(origin),
            Found::Directory(_) | Found::Nothing => None,
        })
    }
}

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
type Stage<'a> = (&'a [u8], Vec<Origin>);

impl<'a> Lower<'a> {
    pub(super) fn new(layers: &'a [Arc<Tree>], limits: &'a Limits, steps: &'a Steps) -> Self {
        Self {
            layers,
            limits,
            steps,
        }
    }

    /// What the layers have of the directory at `path`, the highest first; nothing if
    /// symlinks on the way lead in circles.
    fn directory(self, path: &[u8]) -> Result<Vec<Origin>, Error> {
        match self.walk(path) {
            Ok(mut way) => Ok(way.pop().map_or(Vec::new(), |(_, here)| here)),
            Err(Stuck::Loop) => Ok(Vec::new()),
            Err(Stuck::Limit(error)) => Err(error),
        }
    }

    /// The path to which `path` leads when all symlinks in it are followed. What is not
    /// there stays as it is written.
    pub(super) fn follow(self, path: &[u8]) -> Result<Vec<u8>, Stuck> {
        let way = self.walk(path)?;
        let names: Vec<&[u8]> = way[1..].iter().map(|(name, _)| *name).collect();
        Ok(names.join(&b'/'))
    }

    /// The directories from the root to `path`.
    fn walk<'p>(self, path: &'p [u8]) -> Result<Vec<Stage<'p>>, Stuck>
    where
        'a: 'p,
    {
        let mut way: Vec<Stage<'p>> = vec![(b"", self.root())];
        // What is still to be walked, the next path last.
        let mut rest = vec![path];
        let mut followed = 0;
        while let Some(name) = next(&mut rest) {
            self.steps.spend(1 + name.len() as u64 / LONG)?;
            let here = way.last().map_or(&[][..], |(_, here)| here);
            match name {
                b"" | b"." => {}
                b".." if way.len() == 1 => {}
                b".." => {
                    way.pop();
                }
                _ => match self.step(here, name)? {
                    Found::Directory(origins) => way.push((name, origins)),
                    Found::Other(origin) => match self.target(origin) {
                        Some(target) => {
                            followed += 1;
                            if followed > MAX_FOLLOWED {
                                return Err(Stuck::Loop);
                            }
                            if target.starts_with(b"/") {
                                way.truncate(1);
                            }
                            rest.push(target);
                        }
                        None => way.push((name, Vec::new())),
                    },
                    Found::Nothing => way.push((name, Vec::new())),
                },
            }
            // With the root, as much as with a name in it.
            check("directories on a path", way.len() as u64, self.limits.depth)?;
        }
        Ok(way)
    }

    fn root(self) -> Vec<Origin> {
        let layers = 0..u32::try_from(self.layers.len()).unwrap_or(u32::MAX);
        let root = |layer| Origin {
            layer,
            node: tree::NodeId::ROOT,
        };
        layers.rev().map(root).collect()
    }

    fn target(self, origin: Origin) -> Option<&'a [u8]> {
        match self.layers[origin.layer as usize].node(origin.node).kind {
            Kind::Symlink { target } => Some(target),
            _ => None,
        }
    }

    /// What `name` is in the directory that `parents` make.
    fn step(self, parents: &[Origin], name: &[u8]) -> Result<Found, Error> {
        let hides = [&b".wh."[..], name].concat();
        let mut directories = Vec::new();
        for parent in parents {
            let tree = &self.layers[parent.layer as usize];
            let names = tree.names(parent.node).len();
            self.steps
                .spend(1 + u64::from(names.max(1).ilog2() / DOUBLINGS))?;
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
                    return Ok(Found::Other(origin));
                } else {
                    break;
                }
            }
            let is_there = |name: &[u8]| tree.find(parent.node, name).is_some();
            if is_there(&hides) || is_there(b".wh..wh..opq") {
                break;
            }
        }
        Ok(if directories.is_empty() {
            Found::Nothing
        } else {
            Found::Directory(directories)
        })
    }
}

impl Lower<'_> {
    /// Whether `below` is a symlink that directories above it do not replace, because no
    /// entry names them.
    fn leads_on(self, directories: &[Origin], below: Origin) -> bool {
        let named = |one: &Origin| self.layers[one.layer as usize].node(one.node).named;
        self.target(below).is_some() && !directories.iter().any(named)
    }
}

/// Takes the first name of the last path.
fn next<'a>(rest: &mut Vec<&'a [u8]>) -> Option<&'a [u8]> {
    let path = rest.pop()?;
    let Some(end) = path.iter().position(|byte| *byte == b'/') else {
        return Some(path);
    };
    rest.push(&path[end + 1..]);
    Some(&path[..end])
}
