//! An opened blob: its digest, its bytes, and which file they are.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::oci::Digest;
use crate::store::source::{FileSource, ReadAt};

/// Which file holds some bytes, and in which state: what a verdict hangs on.
///
/// Two equal identities are taken for the same bytes. A file that is written to, replaced
/// or truncated gets another one, because the kernel moves its change time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device number of the file system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// Modification time, seconds and nanoseconds since the epoch.
    pub mtime: (i64, i64),
    /// Change time, seconds and nanoseconds since the epoch.
    pub ctime: (i64, i64),
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A blob file that was opened under its digest. Its bytes are not verified by that:
/// [`crate::store::Verdicts`] does so.
#[derive(Debug)]
pub struct Blob {
    digest: Digest,
    identity: Identity,
    source: FileSource,
}

impl Blob {
    /// Takes an open regular file as the blob of `digest`.
    ///
    /// # Errors
    /// What `fstat` answers.
    pub fn new(digest: Digest, file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self::of(digest, file, &metadata))
    }

    /// Takes an open regular file, of which `fstat` just said `metadata`, as the blob of
    /// `digest`.
    #[must_use]
    pub fn of(digest: Digest, file: File, metadata: &Metadata) -> Self {
        Self {
            digest,
            identity: Identity::from(metadata),
            source: FileSource::of_size(file, metadata.len()),
        }
    }

    /// The digest under which the file was found.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The file's identity when it was opened.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        self.source.file()
    }

    /// Whether the file is still as it was when it was opened.
    ///
    /// # Errors
    /// What `fstat` answers.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        Ok(Identity::from(&self.file().metadata()?) == self.identity)
    }
}

impl ReadAt for Blob {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.source.read_at(buf, offset)
    }
}
