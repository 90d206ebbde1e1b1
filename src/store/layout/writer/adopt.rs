//! Files that are there already, made blobs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::{Error, LayoutWriter, StoredBlob, temporary};
use crate::oci::{Descriptor, Digest, MediaType};
use crate::store::disk::{self, DiskFile, Publication};
use crate::store::layout::blobs;

/// Publishes files that somebody else has written, and makes their names durable together:
/// that is one sync for each directory.
#[derive(Debug)]
pub struct Adoption<'a> {
    writer: &'a LayoutWriter,
    /// Those with names that are not durable yet.
    directories: BTreeSet<String>,
}

impl LayoutWriter {
    /// Begins to publish files of others.
    #[must_use]
    pub fn adoption(&self) -> Adoption<'_> {
        Adoption {
            writer: self,
            directories: BTreeSet::new(),
        }
    }
}

impl Adoption<'_> {
    /// Publishes a file whose bytes are known to have `digest` and `size`, and which nobody
    /// can write to any more: the layout gets a further name of it, or where there can be
    /// none, a copy. The blob may have been there before: then that file stays, unless it
    /// is damaged. It may be named by an index when [`Adoption::finish`] has returned. A
    /// verdict on it is for who adds it to record: more may be done to the file before that.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::DigestMismatch`] if a copy shows that the bytes have changed.
    pub fn add(&mut self, file: &File, digest: &Digest, size: u64) -> Result<StoredBlob, Error> {
        let writer = self.writer;
        if let Some(stored) = writer.find_stored(digest, size)? {
            return Ok(stored);
        }
        let path = blobs::path(digest);
        let directory = disk::parent(&path);
        writer
            .make_directories(directory)
            .map_err(|source| writer.io("create", directory, source))?;
        match writer.link(file, &path) {
            Ok(linked) => {
                self.directories.insert(directory.to_owned());
                Ok(StoredBlob::new(digest.clone(), size, linked))
            }
            Err(error) if cannot_share(&error) => {
                log::debug!("{path} is copied: {error}");
                writer.copy(file, digest, size)
            }
            Err(error) => Err(writer.io("link", &path, error)),
        }
    }

    /// Makes the names durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<(), Error> {
        for path in self.directories {
            let synced = self.writer.disk.sync_directory(&path);
            synced.map_err(|source| self.writer.io("sync", &path, source))?;
        }
        Ok(())
    }
}

impl LayoutWriter {
    fn link(&self, file: &File, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.adopt(file.try_clone()?)?;
        disk::place(&*self.disk, &*file, Publication::Link, path)?;
        Ok(file.into())
    }

    fn copy(&self, mut file: &File, digest: &Digest, size: u64) -> Result<StoredBlob, Error> {
        let io = |source| self.io("copy to", temporary::DIRECTORY, source);
        let mut blob = self.blob()?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        io::copy(&mut file.take(size + 1), &mut blob).map_err(io)?;
        let any = MediaType::new("application/octet-stream");
        blob.commit_as(&Descriptor::new(any, digest.clone(), size))
    }
}

/// Whether a file may still be copied: it is on another file system, something damaged has
/// the name, or it has too many names.
fn cannot_share(error: &io::Error) -> bool {
    let meanings = [
        libc::EXDEV,
        libc::EEXIST,
        libc::EMLINK,
        libc::EPERM,
        libc::EOPNOTSUPP,
    ];
    let is_meant = error
        .raw_os_error()
        .is_some_and(|errno| meanings.contains(&errno));
    is_meant || error.kind() == io::ErrorKind::Unsupported
}
