//! What stands at a place in the tree of ref names, and to which image a link leads.

use std::os::unix::ffi::OsStrExt;

use super::Naming;
use crate::oci::RefName;
use crate::vfs::Vfs;
use crate::vfs::error::Error;
use crate::vfs::node::Name;
use crate::vfs::views::names;
use crate::vfs::views::refs::{Here, Target};
use crate::vfs::writable::{RefLevel, Room};

/// What is at a path now.
#[derive(Debug)]
pub(super) enum Standing {
    /// A ref, or several entries that are shown as one.
    Ref(Ref),
    /// A mere part of names.
    Level,
    /// What no request changes: the short name of an image that has a full one, or what the
    /// mount itself shows in its root.
    Fixed,
    /// Nothing.
    Nothing,
}

/// A ref as the index knows it.
#[derive(Debug)]
pub(super) struct Ref {
    /// What resolves to the entries that are shown: a name, `NAME@DIGEST`, or a digest.
    pub(super) key: String,
    /// The name, if it has one and is all that has it.
    name: Option<String>,
}

impl Ref {
    /// The name, of which it must be all.
    pub(super) fn whole_name(&self) -> Result<RefName, Error> {
        let name = self.name.as_ref().ok_or(Error::NotPermitted)?;
        name.parse().map_err(|_| Error::Invalid)
    }
}

impl Naming {
    /// What is at `path`, a child of `level`.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] for a part of an image.
    pub(super) fn standing(&self, level: RefLevel<'_>, path: &[Name]) -> Result<Standing, Error> {
        let standing = self.standing_at(path);
        let (Standing::Nothing, Some(name)) = (&standing, path.last()) else {
            return Ok(standing);
        };
        if level.is_image && self.is_own_child(level.path, name) {
            return Err(Error::ReadOnly);
        }
        Ok(
            match level.path.is_empty() && self.is_own_child(&[], name) {
                true => Standing::Fixed,
                false => standing,
            },
        )
    }

    /// What the snapshot shows at `path`.
    pub(super) fn standing_at(&self, path: &[Name]) -> Standing {
        let snapshot = self.views.snapshot();
        let Some(level) = snapshot.find(path) else {
            return Standing::Nothing;
        };
        match level.here.as_deref() {
            None => Standing::Level,
            Some(Here::Link(_)) => Standing::Fixed,
            Some(Here::Image { name, target }) => {
                Standing::Ref(found(path, name.as_deref(), target))
            }
        }
    }

    fn is_own_child(&self, path: &[Name], name: &[u8]) -> bool {
        let mut node = self.views.root();
        for level in path {
            match node.find(level) {
                Ok(Some(below)) => node = below,
                Ok(None) | Err(_) => return false,
            }
        }
        matches!(node.find(name), Ok(Some(_)))
    }

    /// What to call the image directory to which `target` leads from `level`, so that its
    /// entries are found.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it leads to anything else.
    pub(super) fn image_at(
        &self,
        vfs: &Vfs,
        level: RefLevel<'_>,
        target: &[u8],
    ) -> Result<String, Error> {
        let path = self.path_from_root(level, target).ok_or(Error::Invalid)?;
        let node = vfs.resolve_at_once(&path).map_err(|error| match error {
            Error::NotFound | Error::NotDirectory => Error::Invalid,
            other => other,
        })?;
        match node.room() {
            Room::Image(digest) => Ok(digest.to_string()),
            Room::Refs(level) => match self.standing_at(level.path) {
                Standing::Ref(existing) => Ok(existing.key),
                Standing::Level | Standing::Fixed | Standing::Nothing => Err(Error::Invalid),
            },
            Room::Content | Room::DropBox(_) => Err(Error::Invalid),
        }
    }

    /// The target of a link in `level`, from the mount root.
    fn path_from_root(&self, level: RefLevel<'_>, target: &[u8]) -> Option<Vec<u8>> {
        if !target.starts_with(b"/") {
            let mut path = level.path.join(&b'/');
            path.push(b'/');
            path.extend(target);
            return Some(path);
        }
        let mountpoint = self.mountpoint.as_os_str().as_bytes();
        let inside = target.strip_prefix(mountpoint)?;
        (inside.is_empty() || inside.starts_with(b"/")).then(|| inside.to_vec())
    }
}

/// The ref that is shown at `path`, which is its own place or one of several that share a
/// name.
fn found(path: &[Name], name: Option<&str>, target: &Target) -> Ref {
    let digest = match target {
        Target::One(entry) => entry.descriptor.as_ref().ok().map(|d| &d.digest),
        Target::Platforms(_) => None,
    };
    let is_whole = |name: &str| names::levels(name) == path;
    match (name, digest) {
        (Some(name), Some(digest)) if !is_whole(name) => Ref {
            key: format!("{name}@{digest}"),
            name: None,
        },
        (Some(name), _) => Ref {
            key: name.to_owned(),
            name: Some(name.to_owned()),
        },
        (None, digest) => Ref {
            key: digest.map(ToString::to_string).unwrap_or_default(),
            name: None,
        },
    }
}
