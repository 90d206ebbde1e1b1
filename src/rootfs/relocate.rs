//! Moves the entries of a layer whose paths lead through symlinks of lower layers.
//!
//! A layer that has `lib/x` and no entry `lib`, over one in which `lib` is a symlink to
//! `usr/lib`, puts its file into `usr/lib`: that is what happens when containerd or umoci
//! extract it, who follow symlinks within the image. So it is merged as if it had
//! `usr/lib/x`. Where a layer does have an entry `lib` of its own, that replaces the link.

use std::collections::HashSet;
use std::sync::Arc;

use super::error::Error;
use super::resolve::Lower;
use crate::layer::tree::{Builder, Tree};

/// A directory that a layer implies, where lower layers show a symlink.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Conflict {
    /// Which layer.
    pub(super) layer: usize,
    /// Where.
    pub(super) path: Vec<u8>,
}

/// Makes the layers agree at the places of all `conflicts`, or at most of them: the others
/// show again in the next merge.
pub(super) fn relocate(
    layers: &mut [Arc<Tree>],
    mut conflicts: Vec<Conflict>,
) -> Result<(), Error> {
    // Where a lower layer's entries go may change where a higher one's symlinks lead.
    conflicts.sort();
    let lowest = conflicts.first().map(|conflict| conflict.layer);
    for conflicts in conflicts.chunk_by(|a, b| a.layer == b.layer) {
        let layer = conflicts[0].layer;
        let failed = |path: &[u8]| Error::SymlinkLoop {
            layer,
            path: path.to_vec(),
        };
        let mut moves = Vec::new();
        let mut grown = HashSet::new();
        for Conflict { path, .. } in conflicts {
            // What is moved must not have got anything in the same round.
            if !grown.contains(path) {
                let target = Lower(&layers[..=layer]).follow(path);
                let target = match target {
                    Ok(target) => target,
                    // A lower layer may still get what takes the loop apart.
                    Err(_) if lowest < Some(layer) => continue,
                    Err(_) => return Err(failed(path)),
                };
                grown.extend(prefixes(&target).map(<[u8]>::to_vec));
                moves.push((path.clone(), target));
            }
        }
        if moves.is_empty() {
            continue;
        }
        let moved = Builder::moved(&layers[layer], &moves);
        layers[layer] = Arc::new(moved.map_err(|_| failed(&moves[0].0))?);
    }
    Ok(())
}

/// The path and those of the directories above it.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate();
    let ends = ends.filter_map(|(at, byte)| (*byte == b'/').then_some(at));
    ends.chain([path.len()]).map(|end| &path[..end])
}
