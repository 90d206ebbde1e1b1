//! Moves the entries of a layer whose paths lead through symlinks of lower layers.
//!
//! A layer that has `lib/x` and no entry `lib`, over one in which `lib` is a symlink to
//! `usr/lib`, puts its file into `usr/lib`: that is what happens when containerd or umoci
//! extract it, who follow symlinks within the image. So it is merged as if it had
//! `usr/lib/x`. Where a layer does have an entry `lib` of its own, that replaces the link.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use super::error::Error;
use super::limits::Limits;
use super::merge::check_paths;
use super::resolve::{Lower, Steps, Stuck};
use super::size::Size;
use crate::layer::tree::{self, Builder, Tree};
use crate::tar;

/// A directory that a layer implies, where lower layers show a symlink.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Conflict {
    /// Which layer.
    pub(super) layer: usize,
    /// Where.
    pub(super) path: Vec<u8>,
}

/// So many bytes of a layer are copied in one step.
const COPIED: u64 = 256;

/// One round of moving entries.
#[derive(Debug)]
pub(super) struct Relocation<'a> {
    limits: &'a Limits,
    steps: &'a Steps,
    size: &'a mut Size,
    /// How many bytes the paths have together.
    path_bytes: u64,
}

/// The path of a directory, and where its entries go.
type Move = (Vec<u8>, Vec<u8>);

impl<'a> Relocation<'a> {
    /// Of layers that have this size, which it keeps right.
    pub(super) fn new(limits: &'a Limits, steps: &'a Steps, size: &'a mut Size) -> Self {
        Self {
            limits,
            steps,
            size,
            path_bytes: 0,
        }
    }

    /// Makes the layers agree at the places of all `conflicts`, or at most of them: the
    /// others show again in the next merge.
    pub(super) fn run(
        mut self,
        layers: &mut [Arc<Tree>],
        mut conflicts: Vec<Conflict>,
    ) -> Result<(), Error> {
        // Where a lower layer's entries go may change where a higher one's symlinks lead.
        conflicts.sort();
        let lowest = conflicts.first().map(|conflict| conflict.layer);
        for conflicts in conflicts.chunk_by(|a, b| a.layer == b.layer) {
            let layer = conflicts[0].layer;
            let may_wait = lowest < Some(layer);
            let moves = self.moves(&layers[..=layer], conflicts, may_wait)?;
            if !moves.is_empty() {
                self.replace(layers, layer, &moves)?;
            }
        }
        Ok(())
    }

    /// Where the entries of the last of `layers` go.
    fn moves(
        &mut self,
        layers: &[Arc<Tree>],
        conflicts: &[Conflict],
        may_wait: bool,
    ) -> Result<Vec<Move>, Error> {
        let mut moves = Vec::new();
        let mut targets = BTreeSet::new();
        for Conflict { layer, path } in conflicts {
            // What is moved must not have got anything in the same round.
            if is_above(path, &targets) {
                continue;
            }
            let lower = Lower::new(layers, self.limits, self.steps);
            let target = match lower.follow(path) {
                Ok(target) => target,
                Err(Stuck::Limit(error)) => return Err(error),
                // A lower layer may still get what takes the loop apart.
                Err(Stuck::Loop) if may_wait => continue,
                Err(Stuck::Loop) => return Err(failed(*layer, path)),
            };
            self.path_bytes += (path.len() + target.len()) as u64;
            check_paths(self.path_bytes, self.limits)?;
            targets.insert(target.clone());
            moves.push((path.clone(), target));
        }
        Ok(moves)
    }

    fn replace(
        &mut self,
        layers: &mut [Arc<Tree>],
        layer: usize,
        moves: &[Move],
    ) -> Result<(), Error> {
        self.steps.spend(layers[layer].weight() / COPIED)?;
        let accepted = tar::Limits {
            entries: self.limits.entries,
            depth: self.limits.depth,
            ..tar::Limits::default()
        };
        let moved = Builder::moved(&layers[layer], moves, &accepted);
        let moved = Arc::new(moved.map_err(|error| match error {
            tree::Error::Limit { what, max, .. } => Error::Limit { what, max },
            _ => failed(layer, &moves[0].0),
        })?);
        self.size.remove(&layers[layer]);
        self.size.add(&moved)?;
        layers[layer] = moved;
        Ok(())
    }
}

fn failed(layer: usize, path: &[u8]) -> Error {
    Error::SymlinkLoop {
        layer,
        path: path.to_vec(),
    }
}

/// Whether `path` is one of `targets`, or one of the directories above them.
fn is_above(path: &[u8], targets: &BTreeSet<Vec<u8>>) -> bool {
    let inside = [path, b"/"].concat();
    let from = (Bound::Included(inside.as_slice()), Bound::Unbounded);
    let next = targets.range::<[u8], _>(from).next();
    targets.contains(path) || next.is_some_and(|next| next.starts_with(&inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_above_what_begins_with_its_names() {
        let targets = ["a/b/c", "a-b", "a.b", "d"];
        let targets = targets.map(|target| target.as_bytes().to_vec()).into();
        let rows = [
            ("itself", "a/b/c", true),
            ("a name", "d", true),
            ("above", "a/b", true),
            ("far above, with others between", "a", true),
            ("below", "a/b/c/d", false),
            ("a part of a name", "a/b/", false),
            ("a shorter name", "a-", false),
            ("nothing like it", "b", false),
            ("behind all", "z", false),
        ];
        for (name, path, expected) in rows {
            assert_eq!(is_above(path.as_bytes(), &targets), expected, "{name}");
        }
    }
}
