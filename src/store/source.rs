//! Bytes at positions, and blobs by digest: what every reader in the crate reads from.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::oci::Digest;
use crate::store::blob::{Blob, Identity};
use crate::store::layout::{Error, Space};

/// Bytes of a known size that can be read at any position by many threads at once.
///
/// A file, a member of an archive, and a decoded stream are all this, so they nest.
/// Offsets count in the space of the implementor's own bytes.
pub trait ReadAt: Send + Sync + Debug {
    /// Size in bytes, fixed when the source was opened.
    fn size(&self) -> u64;

    /// Reads into `buf` from `offset`; returns fewer bytes than asked only at the end.
    ///
    /// # Errors
    /// What the bytes beneath answer; a source that shrank since it was opened is
    /// [`io::ErrorKind::UnexpectedEof`], so that a short read always means the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// What a layout has beside its index, wherever it is: in a directory, or in an archive.
///
/// All of it is answered without reading a byte of any blob.
pub trait BlobSource: Send + Sync + Debug {
    /// The path by which it was opened.
    fn path(&self) -> &Path;

    /// Owner and group of what it is in.
    ///
    /// # Errors
    /// What the system answers.
    fn owner(&self) -> Result<(u32, u32), Error>;

    /// The room on the file system that it is on.
    ///
    /// # Errors
    /// What the system answers.
    fn space(&self) -> Result<Space, Error>;

    /// The exact bytes of the `oci-layout` file.
    ///
    /// # Errors
    /// As for any file of a layout.
    fn marker(&self) -> Result<Vec<u8>, Error>;

    /// Opens the blob of `digest`. Its bytes are not verified by that.
    ///
    /// # Errors
    /// [`Error::BlobMissing`] if it is not there; [`Error::FileType`] if what is there is
    /// not a regular file.
    fn open_blob(&self, digest: &Digest) -> Result<Blob, Error>;

    /// Where the blob of `digest` is and in which state, without opening it.
    ///
    /// # Errors
    /// [`Error::BlobMissing`] if it is not there.
    fn identify(&self, digest: &Digest) -> Result<Identity, Error>;

    /// The digests of all blobs of one algorithm, in no order.
    ///
    /// # Errors
    /// What the system answers.
    fn list_blobs(&self, algorithm: &str) -> Result<Vec<Digest>, Error>;

    /// The names of the algorithms of which there may be blobs.
    ///
    /// # Errors
    /// What the system answers.
    fn list_algorithms(&self) -> Result<Vec<String>, Error>;
}

/// A plain file as a source. The size is the one at opening.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    size: u64,
}

impl FileSource {
    /// Wraps an open file.
    ///
    /// # Errors
    /// What `fstat` answers.
    pub fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }

    /// Wraps an open file whose size is known.
    #[must_use]
    pub fn of_size(file: File, size: u64) -> Self {
        Self { file, size }
    }

    /// The file, for those that hand it to the kernel.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl ReadAt for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let wanted = available(self.size, offset, buf.len());
        self.file.read_exact_at(&mut buf[..wanted], offset)?;
        Ok(wanted)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let wanted = available(self.size(), offset, buf.len());
        if wanted > 0 {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            buf[..wanted].copy_from_slice(&self[start..start + wanted]);
        }
        Ok(wanted)
    }
}

/// How many of `len` bytes from `offset` lie within `size`.
#[must_use]
pub fn available(size: u64, offset: u64, len: usize) -> usize {
    usize::try_from(size.saturating_sub(offset)).map_or(len, |rest| rest.min(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stop_at_the_end() -> io::Result<()> {
        let bytes: Vec<u8> = (0..10).collect();
        let rows = [
            (0, 4, 4),
            (8, 4, 2),
            (10, 4, 0),
            (u64::MAX, 4, 0),
            (3, 0, 0),
        ];
        for (offset, len, expected) in rows {
            let mut buf = vec![0; len];
            assert_eq!(
                bytes.read_at(&mut buf, offset)?,
                expected,
                "offset {offset}"
            );
        }
        Ok(())
    }
}
