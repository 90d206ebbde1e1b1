//! Bytes at positions: what every reader in the crate reads from.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

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
