//! Blobs that a layout has from directories beside it, which it shares with other layouts:
//! `<algorithm>/<encoded>`, as skopeo writes them with `--dest-shared-blob-dir`.
//!
//! Nothing is ever written to such a directory. What is there is as good as a blob of the
//! layout's own once it was verified and is durable, but only where a reader would find it:
//! a blob of the layout goes before, and an earlier directory before a later one. What is
//! damaged hides what is behind it; so it proves nothing, and the layout gets a blob of its
//! own, which goes before it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Error, LayoutWriter, Settled, StoredBlob};
use crate::oci::Digest;
use crate::store::disk::{self, Disk, RealDisk};
use crate::store::layout::{self, Layout, blobs};

/// How many bytes are copied at a time.
const CHUNK: usize = 1 << 20;

/// What becomes of a blob that only a shared directory has, when an index is to name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// It stays there.
    #[default]
    Refer,
    /// The layout gets a copy, and needs the directory no more.
    Copy,
}

/// A directory of blobs beside the layout.
#[derive(Debug, Clone)]
pub(super) struct SharedDirectory {
    disk: Arc<dyn Disk>,
    /// What messages call it.
    path: PathBuf,
    settled: Settled,
}

impl SharedDirectory {
    pub(in crate::store::layout) fn on(disk: Arc<dyn Disk>, path: &Path) -> Self {
        Self {
            disk,
            path: path.to_owned(),
            settled: Settled::default(),
        }
    }

    /// Those that `layout` has pinned.
    pub(super) fn of(layout: &Layout) -> Result<Vec<Self>, layout::Error> {
        let open = |pinned: &layout::Pinned| {
            let disk = pinned.fd.try_clone().and_then(RealDisk::new);
            let disk = disk.map_err(|source| pinned.io("open", "", source))?;
            Ok(Self::on(Arc::new(disk), &pinned.path))
        };
        layout.shared.0.iter().map(open).collect()
    }

    /// Whether it still has a blob that was seen there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn has(&self, digest: &Digest) -> Result<bool, Error> {
        let path = blobs::below(digest);
        match self.disk.status(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(self.io("stat", &path, source)),
        }
    }

    /// Makes a blob durable that somebody else has put there, content and name. Where this
    /// process cannot do that, or the file system has nothing to do, whoever put it there
    /// could.
    pub(super) fn settle(&self, blob: &StoredBlob) -> Result<(), Error> {
        let path = blobs::below(blob.digest());
        let parent = disk::parent(&path);
        let settle = || {
            tolerate(blob.file().sync())?;
            tolerate(self.disk.sync_directory(parent))?;
            tolerate(self.settled.directory(&*self.disk, parent))
        };
        settle().map_err(|source| self.io("sync", &path, source))
    }

    fn io(&self, action: &'static str, path: &str, source: io::Error) -> Error {
        Error::Io {
            action,
            path: self.path.join(path),
            source,
        }
    }
}

impl LayoutWriter {
    /// The same writer, which does so with what shared directories have.
    #[must_use]
    pub fn sharing(self, sharing: Sharing) -> Self {
        Self { sharing, ..self }
    }

    /// Whether something has the name of the blob in the layout or a shared directory, sound
    /// or not.
    #[must_use]
    pub fn is_in_reach(&self, digest: &Digest) -> bool {
        let is_shared = |directory: &SharedDirectory| directory.has(digest).unwrap_or(false);
        self.is_present(digest) || self.shared.iter().any(is_shared)
    }

    /// Whether publishing the blob would write it into the layout, if what has its name is
    /// sound.
    #[must_use]
    pub fn would_store(&self, digest: &Digest) -> bool {
        match self.sharing {
            Sharing::Copy => !self.is_present(digest),
            Sharing::Refer => !self.is_in_reach(digest),
        }
    }

    /// A blob that is to be published and is there already: the layout's own or, unless
    /// copies are wanted, that of a shared directory.
    pub(super) fn find_stored(
        &self,
        digest: &Digest,
        size: u64,
    ) -> Result<Option<StoredBlob>, Error> {
        let path = blobs::path(digest);
        if let Some(existing) = self.find_sound(digest, size, &path)? {
            self.settle(&*existing, &path)
                .map_err(|source| self.io("sync", &path, source))?;
            let own = StoredBlob::new(digest.clone(), size, existing.into());
            return Ok(Some(own));
        }
        self.find_shared(digest, size)
    }

    /// A blob that is to be published and that a shared directory has, unless copies are
    /// wanted. The layout has no sound one.
    pub(super) fn find_shared(
        &self,
        digest: &Digest,
        size: u64,
    ) -> Result<Option<StoredBlob>, Error> {
        // Something damaged in the layout would go before.
        if self.sharing == Sharing::Copy || self.is_present(digest) {
            return Ok(None);
        }
        let held = self.look_at_shared(digest, size);
        match held.and_then(|stored| self.settle_blob(&stored).map(|()| stored)) {
            Ok(stored) => Ok(Some(stored)),
            Err(Error::Layout(layout::Error::BlobMissing { .. })) => Ok(None),
            Err(error) => {
                log::warn!("{digest} in a shared directory is of no use: {error}");
                Ok(None)
            }
        }
    }

    /// A blob of the first shared directory that has something under its name, verified; it
    /// need not be durable.
    pub(super) fn look_at_shared(&self, digest: &Digest, size: u64) -> Result<StoredBlob, Error> {
        let path = blobs::below(digest);
        for directory in self.shared.iter() {
            let file = match directory.disk.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|source| directory.io("open", &path, source))?,
            };
            let identity = self.check(&*file, digest, size, &directory.path.join(&path))?;
            let stored = StoredBlob::new(digest.clone(), size, file.into());
            return Ok(stored.of(directory.clone(), identity));
        }
        Err(layout::Error::BlobMissing {
            digest: digest.clone(),
        }
        .into())
    }

    /// A copy of a shared blob, which gets its name in the layout before an index names it.
    pub(super) fn copy_shared(&self, blob: &StoredBlob) -> Result<StoredBlob, Error> {
        let mut copy = self.blob()?;
        let mut buf = vec![0; CHUNK];
        loop {
            let len = blob
                .file()
                .read_at(&mut buf, copy.size())
                .map_err(|source| match blob.shared() {
                    Some(directory) => directory.io("read", &blobs::below(blob.digest()), source),
                    None => self.io("read", &blobs::path(blob.digest()), source),
                })?;
            if len == 0 {
                break;
            }
            copy.write_all(&buf[..len])
                .map_err(|source| self.write_error(source))?;
        }
        copy.sync().map_err(|source| self.write_error(source))?;
        let sealed = copy.seal()?;
        let actual = sealed.digest_by(blob.digest().algorithm())?;
        match actual {
            Some(actual) if actual == *blob.digest() => Ok(StoredBlob::copied(actual, sealed)),
            Some(actual) => Err(Error::DigestMismatch {
                expected: blob.digest().clone(),
                actual,
            }),
            None => Err(Error::Algorithm {
                digest: blob.digest().clone(),
            }),
        }
    }

    /// Gives the copies among `blobs` their names: that takes time, and needs no lock.
    pub(in crate::store::layout) fn publish_copies(
        &self,
        blobs: &[StoredBlob],
    ) -> Result<(), Error> {
        for blob in blobs {
            if let Some(copy) = blob.copy() {
                copy.publish_as(blob.digest())?;
            }
        }
        Ok(())
    }
}

/// Takes it for done where it cannot be done: on a file system that cannot be written to, or
/// in a directory that may not be read.
fn tolerate(result: io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem};
    match result {
        Err(error)
            if matches!(
                error.kind(),
                InvalidInput | PermissionDenied | ReadOnlyFilesystem
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}
