//! Where a directory or link of the views stands, and what its inode hangs on.

use std::sync::Arc;

use crate::export::Names;
use crate::oci::Digest;
use crate::vfs::node::{Name, NodeKey};

/// A place below the mount root.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    path: Vec<Name>,
    epoch: u64,
    /// How many image indexes were gone through to get here.
    nesting: u64,
    /// What the image is called that this place is in; nothing where it is found by digest.
    names: Arc<Names>,
    /// What was gone through by `referrers/` to get here.
    gone_through: Arc<Vec<Digest>>,
    /// How many `referrers/` that were.
    steps: usize,
    /// Whether it is below `platforms/` of what is itself in `referrers/`.
    is_aside: bool,
}

impl Place {
    /// A place that was given its meaning by the snapshot with the number `epoch`.
    #[must_use]
    pub(super) fn new(path: Vec<Name>, epoch: u64) -> Self {
        Self {
            path,
            epoch,
            ..Self::default()
        }
    }

    /// This place, in an image that is called so.
    #[must_use]
    pub(super) fn called(mut self, names: Names) -> Self {
        self.names = Arc::new(names);
        self
    }

    /// What the image is called that this place is in.
    #[must_use]
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// This place, gone to through `referrers/` of what `digests` name.
    #[must_use]
    pub(super) fn through(mut self, digests: &[Digest]) -> Self {
        let all = self.gone_through.iter().chain(digests).cloned();
        self.gone_through = Arc::new(all.collect());
        self.steps += 1;
        self
    }

    /// What was gone through by `referrers/` to get here.
    #[must_use]
    pub(super) fn gone_through(&self) -> &[Digest] {
        &self.gone_through
    }

    /// How many `referrers/` were gone through to get here.
    #[must_use]
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// Whether it is below `platforms/` of what is itself in `referrers/`.
    #[must_use]
    pub(super) fn is_aside(&self) -> bool {
        self.is_aside
    }

    /// The place called `name` in this one.
    #[must_use]
    pub(super) fn below(&self, name: &[u8]) -> Self {
        let mut place = self.clone();
        place.path.push(name.to_vec());
        place
    }

    /// This place, one image index further in.
    #[must_use]
    pub(super) fn nested(mut self) -> Self {
        self.nesting += 1;
        self.is_aside |= self.steps > 0;
        self
    }

    /// How many image indexes were gone through to get here.
    #[must_use]
    pub(super) fn nesting(&self) -> u64 {
        self.nesting
    }

    /// The names on the way from the mount root.
    #[must_use]
    pub(super) fn path(&self) -> &[Name] {
        &self.path
    }

    /// The key of a directory or link here that shows `shows`.
    #[must_use]
    pub(super) fn key(&self, shows: &str) -> NodeKey {
        NodeKey::place(self.path.join(&b'/'), shows.to_owned(), self.epoch)
    }

    /// A relative path from the directory that holds this place to `target`, a path from
    /// the mount root.
    #[must_use]
    pub(super) fn link_to(&self, target: &str) -> Vec<u8> {
        let mut link = b"../".repeat(self.path.len().saturating_sub(1));
        link.extend(target.as_bytes());
        link
    }
}
