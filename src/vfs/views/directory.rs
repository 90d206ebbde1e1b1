//! A directory whose children are computed whole: every fixed level of an image.

use std::fmt;
use std::sync::Arc;

use super::Views;
use super::place::Place;
use crate::vfs::attr::{Attr, FileKind, Lifetime, Time};
use crate::vfs::error::Error;
use crate::vfs::node::{Child, Node, NodeKey};

/// Makes the children of a directory.
pub(super) type Children = dyn Fn(&Arc<Views>, &Place) -> Result<Vec<Child>, Error> + Send + Sync;

/// A read-only directory with children that hang on what it shows.
pub(super) struct Directory {
    views: Arc<Views>,
    place: Place,
    shows: String,
    mtime: Option<Time>,
    children: Box<Children>,
}

impl Directory {
    /// A directory at `place` whose content is fixed by the text `shows`.
    #[must_use]
    pub(super) fn new(
        views: &Arc<Views>,
        place: Place,
        shows: &str,
        children: impl Fn(&Arc<Views>, &Place) -> Result<Vec<Child>, Error> + Send + Sync + 'static,
    ) -> Self {
        Self {
            views: views.clone(),
            place,
            shows: shows.to_owned(),
            mtime: None,
            children: Box::new(children),
        }
    }

    /// With this modification time instead of that of the index.
    #[must_use]
    pub(super) fn with_mtime(mut self, mtime: Option<Time>) -> Self {
        self.mtime = mtime;
        self
    }

    /// As the child `name` of another directory.
    #[must_use]
    pub(super) fn into_child(self, name: &[u8]) -> Child {
        Child {
            name: name.to_vec(),
            node: Arc::new(self),
        }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("place", &self.place)
            .field("shows", &self.shows)
            .finish()
    }
}

impl Node for Directory {
    fn key(&self) -> NodeKey {
        self.place.key(&self.shows)
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self, _patience: super::Patience) -> Result<Attr, Error> {
        Ok(self.views.directory_attr(self.mtime, Lifetime::Forever))
    }

    fn list(&self) -> Result<Vec<Child>, Error> {
        (self.children)(&self.views, &self.place)
    }
}

/// A symbolic link.
#[derive(Debug)]
pub(super) struct Link {
    views: Arc<Views>,
    place: Place,
    target: Vec<u8>,
    lifetime: Lifetime,
}

impl Link {
    /// A link at `place`; its name may be believed for `lifetime`.
    #[must_use]
    pub(super) fn new(
        views: &Arc<Views>,
        place: Place,
        target: Vec<u8>,
        lifetime: Lifetime,
    ) -> Self {
        Self {
            views: views.clone(),
            place,
            target,
            lifetime,
        }
    }
}

impl Node for Link {
    fn key(&self) -> NodeKey {
        self.place
            .key(&format!("-> {}", String::from_utf8_lossy(&self.target)))
    }

    fn kind(&self) -> FileKind {
        FileKind::Symlink
    }

    fn attr(&self, _patience: super::Patience) -> Result<Attr, Error> {
        let size = self.target.len() as u64;
        let attr = self.views.file_attr(size, None, Lifetime::Forever);
        Ok(Attr {
            kind: FileKind::Symlink,
            mode: 0o777,
            ..attr
        })
    }

    fn name_lifetime(&self) -> Lifetime {
        self.lifetime
    }

    fn read_link(&self) -> Result<Vec<u8>, Error> {
        Ok(self.target.clone())
    }
}
