//! How much the layers of an image are together.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::Error;
use super::limits::Limits;
use super::merge::check;
use crate::layer::tree::Tree;

/// How much the layers of an image are together, so that it can be found out that they are
/// too much before all of them are loaded.
///
/// Each use of a tree is merged, so its entries count each time; its memory counts once.
#[derive(Debug, Default)]
pub struct Size {
    limits: Limits,
    entries: u64,
    weight: u64,
    /// How often each tree is used, by its address.
    uses: HashMap<usize, usize>,
}

impl Size {
    /// That of no layers.
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            ..Self::default()
        }
    }

    /// Adds a layer, or one more use of it.
    ///
    /// # Errors
    /// [`Error::Limit`] if they are too much now.
    pub fn add(&mut self, tree: &Arc<Tree>) -> Result<(), Error> {
        self.entries += entries(tree);
        let what = "names, files and directories in all layers";
        check(what, self.entries, self.limits.entries)?;
        let uses = self.uses.entry(address(tree)).or_default();
        *uses += 1;
        if *uses == 1 {
            self.weight += tree.weight();
        }
        let what = "bytes of metadata in all layers";
        check(what, self.weight, self.limits.weight)
    }

    /// Takes one use of a layer back.
    pub(super) fn remove(&mut self, tree: &Arc<Tree>) {
        let Some(uses) = self.uses.get_mut(&address(tree)) else {
            return;
        };
        self.entries -= entries(tree);
        *uses -= 1;
        if *uses == 0 {
            self.uses.remove(&address(tree));
            self.weight -= tree.weight();
        }
    }

    /// How many names and nodes there are.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }
}

fn entries(tree: &Tree) -> u64 {
    (tree.len() + tree.count_names()) as u64
}

fn address(tree: &Arc<Tree>) -> usize {
    Arc::as_ptr(tree).addr()
}
