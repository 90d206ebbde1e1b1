//! An opened blob: its digest, its bytes, and which file they are, or are in.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

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
    /// Where in the file the bytes begin: 0 unless they are a part of it. What a compressed
    /// file decodes to counts as the file.
    pub offset: u64,
    /// How many bytes they are; the size of the file unless they are a part of it.
    pub size: u64,
    /// Modification time, seconds and nanoseconds since the epoch.
    pub mtime: (i64, i64),
    /// Change time, seconds and nanoseconds since the epoch.
    pub ctime: (i64, i64),
}

/// The clock that kernels stamp files by, or had stamped them by before they could do so more
/// exactly: it moves some hundred times a second. Seconds and nanoseconds since the epoch.
#[must_use]
pub fn file_clock() -> (i64, i64) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    (now.tv_sec, now.tv_nsec)
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            offset: 0,
            size: metadata.len(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl fmt::Display for Identity {
    /// All of it on one line, and nothing but for comparing it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            device,
            inode,
            offset,
            size,
            mtime,
            ctime,
        } = self;
        write!(f, "{device} {inode} {size}")?;
        write!(f, " {}.{:09} {}.{:09}", mtime.0, mtime.1, ctime.0, ctime.1)?;
        match offset {
            0 => Ok(()),
            offset => write!(f, " at {offset}"),
        }
    }
}

impl Identity {
    /// Whether every write to the file that was not seen when it was read shows in this
    /// identity, which it had before and after; it was read from `began` to `ended`, by the
    /// [`file_clock`].
    ///
    /// A kernel that stamps files by that clock gives two writes within one tick of it the
    /// same time: no write that comes later than `began` has one that is before that. One
    /// that stamps them more exactly gives each write after the first look another time,
    /// and it is known by a time that the clock has not reached. A file system that keeps
    /// whole seconds (ext4 in inodes of 128 bytes) gives all writes of one the same time. If
    /// the clock was put back meanwhile nothing is known.
    #[must_use]
    pub fn tells_of_writes(&self, began: (i64, i64), ended: (i64, i64)) -> bool {
        let (second, nanoseconds) = self.ctime;
        if ended < began || (nanoseconds == 0 && began.0 <= second) {
            return false;
        }
        self.ctime < began || ended < self.ctime
    }

    /// The identity of `size` bytes at `offset` of the file with this one.
    #[must_use]
    pub fn part(self, offset: u64, size: u64) -> Self {
        Self {
            offset,
            size,
            ..self
        }
    }
}

/// A blob that was opened under its digest. Its bytes are not verified by that:
/// [`crate::store::Verdicts`] does so.
#[derive(Debug)]
pub struct Blob {
    digest: Digest,
    identity: Identity,
    source: Source,
}

/// Where its bytes are.
#[derive(Debug)]
enum Source {
    /// A file of their own.
    File(FileSource),
    /// A part of a file.
    Part {
        container: Arc<File>,
        bytes: Arc<dyn ReadAt>,
    },
    /// Bytes that are not what the file holds now, but were decoded from it or made.
    Fixed(Arc<dyn ReadAt>),
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
            source: Source::File(FileSource::of_size(file, metadata.len())),
        }
    }

    /// Takes `bytes`, which begin at `offset` of the open file `container` and are read from
    /// there, as the blob of `digest`.
    ///
    /// # Errors
    /// What `fstat` answers.
    pub fn part(
        digest: Digest,
        container: Arc<File>,
        offset: u64,
        bytes: Arc<dyn ReadAt>,
    ) -> io::Result<Self> {
        let identity = Identity::from(&container.metadata()?);
        Ok(Self {
            digest,
            identity: identity.part(offset, bytes.size()),
            source: Source::Part { container, bytes },
        })
    }

    /// Takes `bytes` as the blob of `digest`, which begin at `offset` of what a file decodes
    /// to, or were made of what it holds. They come from the file as it was when it had the
    /// identity `whole`, or not at all: whatever it holds later, nothing that is found out
    /// about them is true of that.
    #[must_use]
    pub fn fixed(digest: Digest, whole: Identity, offset: u64, bytes: Arc<dyn ReadAt>) -> Self {
        Self {
            digest,
            identity: whole.part(offset, bytes.size()),
            source: Source::Fixed(bytes),
        }
    }

    /// The digest under which the file was found.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The identity of its bytes when it was opened.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The open file that is the blob; `None` if it is a part of one.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        match &self.source {
            Source::File(source) => Some(source.file()),
            Source::Part { .. } | Source::Fixed(_) => None,
        }
    }

    /// What the identity of its bytes is now: that at opening, if they are fixed.
    ///
    /// # Errors
    /// What `fstat` answers.
    pub fn present(&self) -> io::Result<Identity> {
        Ok(match &self.source {
            Source::File(source) => Identity::from(&source.file().metadata()?),
            Source::Part { container, .. } => {
                let whole = Identity::from(&container.metadata()?);
                whole.part(self.identity.offset, self.identity.size)
            }
            Source::Fixed(_) => self.identity,
        })
    }

    /// Whether the file is still as it was when it was opened.
    ///
    /// # Errors
    /// What `fstat` answers.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        Ok(self.present()? == self.identity)
    }

    /// The same file, or part of one, as if it were opened now.
    ///
    /// # Errors
    /// What the system answers.
    pub fn reopen(&self) -> io::Result<Self> {
        let digest = self.digest.clone();
        match &self.source {
            Source::File(source) => Self::new(digest, source.file().try_clone()?),
            Source::Part { container, bytes } => {
                let (container, bytes) = (Arc::clone(container), Arc::clone(bytes));
                Self::part(digest, container, self.identity.offset, bytes)
            }
            Source::Fixed(bytes) => Ok(Self {
                digest,
                identity: self.identity,
                source: Source::Fixed(Arc::clone(bytes)),
            }),
        }
    }
}

impl ReadAt for Blob {
    fn size(&self) -> u64 {
        self.identity.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.source {
            Source::File(source) => source.read_at(buf, offset),
            Source::Part { bytes, .. } | Source::Fixed(bytes) => bytes.read_at(buf, offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn which_times_tell_of_writes() -> TestResult {
        let identity = Identity::from(&tempfile::tempfile()?.metadata()?);
        let rows = [
            ("long before", (9, 0), (10, 0), (10, 0), true),
            ("the tick before", (9, 996), (10, 0), (10, 0), true),
            ("in the same tick", (10, 0), (10, 0), (10, 0), false),
            (
                "in a tick that came meanwhile",
                (10, 4),
                (10, 0),
                (10, 4),
                false,
            ),
            (
                "between two ticks that came",
                (10, 5),
                (10, 0),
                (10, 8),
                false,
            ),
            ("exactly", (10, 3), (10, 0), (10, 0), true),
            ("whole seconds", (10, 0), (10, 300), (10, 300), false),
            ("the second before", (9, 0), (10, 300), (10, 300), true),
            ("a clock put back", (9, 0), (10, 300), (8, 0), false),
        ];
        for (name, ctime, began, ended, expected) in rows {
            let identity = Identity { ctime, ..identity };
            assert_eq!(identity.tells_of_writes(began, ended), expected, "{name}");
        }
        Ok(())
    }

    /// What was decoded or made stays what it was; what lies in the file does not.
    #[test]
    fn what_a_change_of_the_file_changes() -> TestResult {
        let mut file = tempfile::tempfile()?;
        let container = Arc::new(file.try_clone()?);
        let opened = Identity::from(&file.metadata()?);
        let bytes = || Arc::new(b"hello".to_vec());
        let digest = Digest::of(b"hello");
        let fixed = Blob::fixed(digest.clone(), opened, 512, bytes());
        let part = Blob::part(digest, container, 512, bytes())?;
        assert_eq!(fixed.identity(), part.identity());
        file.write_all(b"another size at least")?;
        for (name, blob, is_unchanged) in [("fixed", fixed, true), ("part", part, false)] {
            assert_eq!(blob.is_unchanged()?, is_unchanged, "{name}");
            let reopened = blob.reopen()?;
            assert_eq!(
                reopened.identity() == blob.identity(),
                is_unchanged,
                "{name}"
            );
            assert_eq!(*reopened.identity(), blob.present()?, "{name}");
            assert_eq!(reopened.size(), 5, "{name}");
        }
        Ok(())
    }
}
