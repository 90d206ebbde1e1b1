//! One blob being written: bytes -> hash -> temporary -> commit.

mod anywhere;
mod sealed;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

pub use anywhere::CopyError;
pub use sealed::SealedBlob;

use super::{Error, LayoutWriter, SharedDirectory, Temporary};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher};
use crate::store::blob::Identity;
use crate::store::disk::DiskFile;
use crate::store::source::ReadAt;
use crate::store::verify::Verdict;

/// How many bytes are written and hashed at a time.
const CHUNK: usize = 256 << 10;

/// From this size on a blob is hashed on a thread of its own: before, making the thread
/// takes longer than hashing.
const BESIDE_FROM: u64 = 1 << 20;

/// How many chunks the hashing thread may be behind.
const CHUNKS_BEHIND: usize = 4;

/// A blob that the layout has, itself or in a shared directory, synced, under its digest.
/// The open file keeps its bytes until the index names them.
#[derive(Debug, Clone)]
pub struct StoredBlob {
    digest: Digest,
    size: u64,
    file: Arc<dyn DiskFile>,
    origin: Origin,
}

/// Where a stored blob comes from.
#[derive(Debug, Clone)]
enum Origin {
    /// It is in the layout.
    Layout,
    /// It is in this shared directory, and nowhere else; and which file it was, in which
    /// state, when it was verified.
    Shared(SharedDirectory, Identity),
    /// It was copied from a shared directory, and gets its name before an index names it.
    Copy(SealedBlob),
}

impl StoredBlob {
    pub(super) fn new(digest: Digest, size: u64, file: Arc<dyn DiskFile>) -> Self {
        Self {
            digest,
            size,
            file,
            origin: Origin::Layout,
        }
    }

    /// The same blob, which is in a shared directory, and was this file when it was verified.
    pub(super) fn of(self, directory: SharedDirectory, identity: Identity) -> Self {
        let origin = Origin::Shared(directory, identity);
        Self { origin, ..self }
    }

    /// A copy of a shared blob.
    pub(super) fn copied(digest: Digest, copy: SealedBlob) -> Self {
        Self {
            digest,
            size: ReadAt::size(&copy),
            file: copy.file().clone(),
            origin: Origin::Copy(copy),
        }
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the layout has it only from a shared directory.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared().is_some()
    }

    /// Whether the layout had it only from a shared directory, and gets a copy.
    #[must_use]
    pub fn is_copied(&self) -> bool {
        self.copy().is_some()
    }

    pub(super) fn shared(&self) -> Option<&SharedDirectory> {
        match &self.origin {
            Origin::Shared(directory, _) => Some(directory),
            Origin::Layout | Origin::Copy(_) => None,
        }
    }

    pub(super) fn copy(&self) -> Option<&SealedBlob> {
        match &self.origin {
            Origin::Copy(copy) => Some(copy),
            Origin::Layout | Origin::Shared(..) => None,
        }
    }

    /// Whether somebody has written to it in its shared directory since it was verified. The
    /// change time does not tell: it moves also when the file loses its name.
    pub(super) fn was_written_to(&self) -> io::Result<bool> {
        let Origin::Shared(_, verified) = &self.origin else {
            return Ok(false);
        };
        let now = self.file.status()?.identity;
        Ok((now.size, now.mtime) != (verified.size, verified.mtime))
    }

    pub(in crate::store::layout) fn file(&self) -> &dyn DiskFile {
        &*self.file
    }
}

/// A blob that is being written as a stream. Dropping it leaves nothing behind.
///
/// Once a write or a sync has failed the writer is dead: every later call fails with the
/// same error, because the kernel tells of lost bytes only once.
#[derive(Debug)]
pub struct BlobWriter {
    writer: LayoutWriter,
    temporary: Temporary,
    hashing: Hashing,
    /// Bytes that are neither written nor hashed yet, fewer than [`CHUNK`].
    buffer: Vec<u8>,
    /// How many bytes were written and hashed.
    flushed: u64,
    failed: Option<Failure>,
}

/// What killed a writer, in a form that can be told again.
#[derive(Debug, Clone, Copy)]
enum Failure {
    Errno(i32),
    Kind(io::ErrorKind),
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Errno(errno) => Self::from_raw_os_error(errno),
            Failure::Kind(kind) => kind.into(),
        }
    }
}

impl BlobWriter {
    pub(super) fn new(writer: LayoutWriter) -> Result<Self, Error> {
        let temporary = Temporary::create(&writer.disk, "blobs/sha256")
            .map_err(|source| writer.io("create a file in", ".", source))?;
        Ok(Self {
            writer,
            temporary,
            hashing: Hashing::Here(Hasher::sha256()),
            buffer: Vec::new(),
            flushed: 0,
            failed: None,
        })
    }

    /// How many bytes it has by now.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    /// Makes what was written durable, without a name.
    ///
    /// # Errors
    /// What the system says; then the writer is dead.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush_buffer()?;
        let synced = self.temporary.file().sync();
        self.mortal(synced)
    }

    /// Publishes the blob under the sha256 digest of its bytes. It may have been there
    /// before: then that file stays, unless it is damaged.
    ///
    /// # Errors
    /// [`Error::Io`] with what the system said.
    pub fn commit(mut self) -> Result<StoredBlob, Error> {
        let digest = self.finish()?;
        self.publish(digest)
    }

    /// Publishes the blob if it is the one that `descriptor` says.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`], [`Error::DigestMismatch`], [`Error::Algorithm`]; nothing
    /// is published then.
    pub fn commit_as(mut self, descriptor: &Descriptor) -> Result<StoredBlob, Error> {
        self.check_alive()
            .map_err(|source| self.writer.write_error(source))?;
        let expected = &descriptor.digest;
        if self.size() != descriptor.size {
            return Err(Error::SizeMismatch {
                digest: expected.clone(),
                expected: descriptor.size,
                actual: self.size(),
            });
        }
        let sha256 = self.finish()?;
        let actual = match expected.algorithm() {
            Algorithm::Sha256 => sha256,
            other => self.hash_again(other)?.ok_or_else(|| Error::Algorithm {
                digest: expected.clone(),
            })?,
        };
        if actual != *expected {
            return Err(Error::DigestMismatch {
                expected: expected.clone(),
                actual,
            });
        }
        self.publish(actual)
    }

    /// Writes what is left and gives the digest of all.
    fn finish(&mut self) -> Result<Digest, Error> {
        let flushed = self.flush_buffer();
        flushed.map_err(|source| self.writer.write_error(source))?;
        let hashing = std::mem::replace(&mut self.hashing, Hashing::Here(Hasher::sha256()));
        match hashing.finish() {
            Some(digest) => Ok(digest),
            None => sealed::sha256(&self.writer, self.temporary.file()),
        }
    }

    fn publish(mut self, digest: Digest) -> Result<StoredBlob, Error> {
        sealed::publish(&self.writer, &mut self.temporary, digest, self.flushed)
    }

    /// The digest by another algorithm than the usual one, from the file.
    fn hash_again(&self, algorithm: Algorithm) -> Result<Option<Digest>, Error> {
        sealed::hash_again(&self.writer, self.temporary.file(), algorithm)
    }

    fn flush_buffer(&mut self) -> io::Result<()> {
        self.check_alive()?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.temporary.file().write_at(&self.buffer, self.flushed);
        self.mortal(written)?;
        self.flushed += self.buffer.len() as u64;
        if self.flushed >= BESIDE_FROM {
            self.hashing.move_beside();
        }
        let full = std::mem::take(&mut self.buffer);
        self.buffer = self.hashing.update(full);
        Ok(())
    }

    fn check_alive(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// Lets the writer die with an error.
    fn mortal(&mut self, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &result {
            let errno = error.raw_os_error().map(Failure::Errno);
            self.failed = Some(errno.unwrap_or(Failure::Kind(error.kind())));
        }
        result
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check_alive()?;
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(CHUNK.min(bytes.len().max(4096)));
        }
        let len = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..len]);
        if self.buffer.len() == CHUNK {
            self.flush_buffer()?;
        }
        Ok(len)
    }

    /// Hands what was written to the kernel; [`BlobWriter::sync`] makes it durable.
    fn flush(&mut self) -> io::Result<()> {
        self.flush_buffer()
    }
}

/// The hash of what was written so far.
#[derive(Debug)]
enum Hashing {
    /// By the writing thread.
    Here(Hasher),
    /// By a thread of its own.
    Beside {
        full: SyncSender<Vec<u8>>,
        empty: Receiver<Vec<u8>>,
        thread: JoinHandle<Hasher>,
    },
    /// Not any more: the bytes did not come in order.
    Stale,
}

impl Hashing {
    /// Goes on with a thread, unless it does so already or none is to be had.
    fn move_beside(&mut self) {
        let Self::Here(hasher) = self else { return };
        let mut hasher = hasher.clone();
        let (full, chunks) = sync_channel::<Vec<u8>>(CHUNKS_BEHIND);
        let (give_back, empty) = sync_channel::<Vec<u8>>(CHUNKS_BEHIND + 1);
        let work = move || {
            for mut chunk in chunks {
                hasher.update(&chunk);
                chunk.clear();
                // With nobody to take it, the chunk is just freed.
                drop(give_back.try_send(chunk));
            }
            hasher
        };
        let thread = std::thread::Builder::new().name("hash".into()).spawn(work);
        match thread {
            Ok(thread) => {
                *self = Self::Beside {
                    full,
                    empty,
                    thread,
                }
            }
            Err(error) => log::debug!("no thread to hash on: {error}"),
        }
    }

    /// Adds a chunk; an empty buffer for the next one.
    fn update(&mut self, mut chunk: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Here(hasher) => {
                hasher.update(&chunk);
                chunk.clear();
                chunk
            }
            Self::Beside { full, empty, .. } => {
                // The thread ends early only by a panic, which `finish` passes on.
                drop(full.send(chunk));
                empty.try_recv().unwrap_or_default()
            }
            Self::Stale => {
                chunk.clear();
                chunk
            }
        }
    }

    /// Whether all bytes so far came in order.
    fn is_in_order(&self) -> bool {
        !matches!(self, Self::Stale)
    }

    /// The digest, if all bytes came in order.
    fn finish(self) -> Option<Digest> {
        match self {
            Self::Here(hasher) => Some(hasher.finish()),
            Self::Beside { full, thread, .. } => {
                drop(full);
                match thread.join() {
                    Ok(hasher) => Some(hasher.finish()),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Self::Stale => None,
        }
    }
}

/// Whether bytes in memory have a sha256 digest.
pub(super) fn verdict(bytes: &[u8], digest: &Digest) -> Verdict {
    let actual = Digest::of(bytes);
    if actual == *digest {
        Verdict::Sound
    } else {
        Verdict::Damaged { actual }
    }
}
