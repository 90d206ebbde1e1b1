//! The blobs of the layout as they are found in a session.
//!
//! In `blobs/<algorithm>/` of a session every blob of the layout is found by its name, so
//! that tools which look before they copy skip the copy. They are not listed, and the
//! directories are there only when somebody has made them. A name that was taken away in
//! the session stays away, also after a restart: it has a file in `hidden/`.

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};

use super::inode::{Inode, Place, system};
use crate::oci::{Algorithm, Digest};
use crate::store::Layout;
use crate::vfs::error::Error;

/// Where the names are noted that were taken away.
const HIDDEN: &str = "hidden";

/// What a session shows of the layout.
#[derive(Debug)]
pub(super) struct Lender {
    layout: Arc<Layout>,
    hidden: Mutex<HashSet<String>>,
}

impl Lender {
    /// The blobs of `layout` less those that were hidden in the session at `place`.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(layout: Arc<Layout>, place: &OwnedFd) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut hidden = HashSet::new();
        match rustix::fs::openat(place, HIDDEN, flags, Mode::empty()) {
            Ok(directory) => {
                for entry in Dir::read_from(&directory).map_err(system)? {
                    let name = entry.map_err(system)?;
                    hidden.insert(name.file_name().to_string_lossy().into_owned());
                }
            }
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(system(errno)),
        }
        Ok(Self {
            layout,
            hidden: Mutex::new(hidden),
        })
    }

    /// The blob that the layout lends under this name.
    pub(super) fn find(&self, parent: &Arc<Inode>, name: &[u8]) -> Option<Digest> {
        let digest = digest_at(parent, name)?;
        let is_hidden = self.hidden.lock().contains(digest.as_str());
        (!is_hidden && self.layout.stat_blob(&digest).is_ok()).then_some(digest)
    }

    /// What the disk says of a blob.
    ///
    /// # Errors
    /// That it is not there any more.
    pub(super) fn stat(&self, digest: &Digest) -> Result<Metadata, Error> {
        Ok(self.layout.stat_blob(digest)?)
    }

    /// Opens a blob for reading. Nothing is verified: a session is as a directory to which
    /// the blob was copied.
    ///
    /// # Errors
    /// That it is not there any more.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let blob = self.layout.open_blob(digest)?;
        let file = blob.file().expect("blobs of a directory are files");
        Ok(file.try_clone()?)
    }

    /// Lends nothing under this name any more, if something could be.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn hide(
        &self,
        place: &OwnedFd,
        parent: &Arc<Inode>,
        name: &[u8],
    ) -> Result<(), Error> {
        let Some(digest) = digest_at(parent, name) else {
            return Ok(());
        };
        if !self.hidden.lock().insert(digest.as_str().to_owned()) {
            return Ok(());
        }
        match rustix::fs::mkdirat(place, HIDDEN, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(system(errno)),
        }
        let path = format!("{HIDDEN}/{digest}");
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(place, path, flags, Mode::RUSR)
            .map(drop)
            .map_err(system)
    }

    /// Lends a blob again that was taken away: a file of the session's own, which was made in
    /// its place, has become it.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn show(&self, place: &OwnedFd, digest: &Digest) -> Result<(), Error> {
        let mut hidden = self.hidden.lock();
        if hidden.contains(digest.as_str()) {
            show(place, digest)?;
            hidden.remove(digest.as_str());
        }
        Ok(())
    }
}

/// Notes no more that a blob was taken away in the session at `place`.
///
/// # Errors
/// What the system says.
pub(super) fn show(place: &OwnedFd, digest: &Digest) -> Result<(), Error> {
    let path = format!("{HIDDEN}/{digest}");
    match rustix::fs::unlinkat(place, path, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(system(errno)),
    }
}

/// The digest that a file of this name has in a layout, if `parent` is a directory for
/// blobs in the layout that the session is.
pub(super) fn digest_at(parent: &Arc<Inode>, name: &[u8]) -> Option<Digest> {
    let Place::Named(blobs, algorithm) = parent.place() else {
        return None;
    };
    let Place::Named(root, blobs_name) = blobs.place() else {
        return None;
    };
    if blobs_name != b"blobs" || !root.is_root() {
        return None;
    }
    let (algorithm, name) = (std::str::from_utf8(&algorithm), std::str::from_utf8(name));
    let digest: Digest = format!("{}:{}", algorithm.ok()?, name.ok()?).parse().ok()?;
    (digest.algorithm() != Algorithm::Unknown).then_some(digest)
}
