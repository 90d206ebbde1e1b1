//! Open directories, and the children that they give out piece by piece.

use std::fmt::Debug;
use std::sync::Arc;

use parking_lot::Mutex;

use super::attr::FileKind;
use super::error::Error;
use super::node::{Caching, Name, Node};

/// One name in a directory.
#[derive(Debug, Clone)]
pub struct Child {
    /// The name.
    pub name: Name,
    /// What is there.
    pub node: Arc<dyn Node>,
}

/// The children of a directory as they were when it was listed, without `.` and `..`.
///
/// The kernel asks for a few dozen at a time, each of which is made when it is asked for:
/// opening a directory of a hundred thousand names costs what opening an empty one does.
pub trait Listing: Debug + Send + Sync {
    /// The child at a position, counted from 0; `None` from the end on. Takes about as
    /// long at the end of a large directory as at its start.
    fn child(&self, at: usize) -> Option<Child>;
}

impl Listing for Vec<Child> {
    fn child(&self, at: usize) -> Option<Child> {
        self.get(at).cloned()
    }
}

/// An open directory.
///
/// A listing that is always the same is made when the directory is opened, which may wait
/// or fail as opening a file may. Any other is made when the first name is asked for, and
/// again when the directory is read from its start again.
#[derive(Debug)]
pub(super) struct OpenDirectory {
    node: Arc<dyn Node>,
    caching: Caching,
    listing: Mutex<Option<Arc<dyn Listing>>>,
}

impl OpenDirectory {
    /// Opens `node`.
    ///
    /// # Errors
    /// [`Error::NotDirectory`] for other kinds; what the node answers.
    pub(super) fn open(node: Arc<dyn Node>) -> Result<Self, Error> {
        if node.kind() != FileKind::Directory {
            return Err(Error::NotDirectory);
        }
        let caching = node.list_caching();
        let listing = match caching {
            Caching::Keep => Some(node.listing()?),
            Caching::Direct | Caching::Shared => None,
        };
        Ok(Self {
            node,
            caching,
            listing: Mutex::new(listing),
        })
    }

    /// How the kernel may cache the names.
    pub(super) fn caching(&self) -> Caching {
        self.caching
    }

    /// The children, in an order that stays the same until they are asked for from the
    /// start again.
    ///
    /// # Errors
    /// What the node answers.
    pub(super) fn listing(&self, from_start: bool) -> Result<Arc<dyn Listing>, Error> {
        let mut listing = self.listing.lock();
        let stays = self.caching == Caching::Keep || !from_start;
        match &*listing {
            Some(known) if stays => Ok(known.clone()),
            _ => {
                let fresh = self.node.listing()?;
                *listing = Some(fresh.clone());
                Ok(fresh)
            }
        }
    }
}
