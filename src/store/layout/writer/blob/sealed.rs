//! A blob that is whole and known by its digest, and is not published yet: what is looked
//! at before anything in the layout changes.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{BlobWriter, CHUNK, StoredBlob};
use crate::oci::{Algorithm, Digest, Hasher};
use crate::store::disk::{self, DiskFile};
use crate::store::layout::blobs;
use crate::store::layout::writer::{Error, LayoutWriter, Temporary, temporary};
use crate::store::source::{ReadAt, available};

/// All bytes of a blob, in a file without a name. Clones share it; when the last one is
/// dropped before it was published, nothing is left behind.
#[derive(Debug, Clone)]
pub struct SealedBlob {
    writer: LayoutWriter,
    temporary: Arc<Mutex<Temporary>>,
    file: Arc<dyn DiskFile>,
    digest: Digest,
    size: u64,
}

impl BlobWriter {
    /// Ends the writing without publishing anything.
    ///
    /// # Errors
    /// [`Error::Io`] with what the system said.
    pub fn seal(mut self) -> Result<SealedBlob, Error> {
        let digest = self.finish()?;
        Ok(SealedBlob {
            digest,
            size: self.flushed,
            file: self.temporary.share(),
            temporary: Arc::new(Mutex::new(self.temporary)),
            writer: self.writer,
        })
    }
}

impl SealedBlob {
    /// The sha256 digest of its bytes.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The digest of its bytes by any algorithm; reads them again unless it is sha256.
    ///
    /// # Errors
    /// [`Error::Io`]; `None` means that the algorithm is not known.
    pub fn digest_by(&self, algorithm: Algorithm) -> Result<Option<Digest>, Error> {
        match algorithm {
            Algorithm::Sha256 => Ok(Some(self.digest.clone())),
            other => hash_again(&self.writer, &*self.file, other),
        }
    }

    /// The file that holds it.
    pub(in crate::store::layout::writer) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Publishes the blob under `digest`, which must be one that [`Self::digest_by`] has
    /// given. It may have been there before: then that file stays, unless it is damaged.
    ///
    /// # Errors
    /// [`Error::Io`] with what the system said.
    pub fn publish_as(&self, digest: &Digest) -> Result<StoredBlob, Error> {
        let mut temporary = self.temporary.lock();
        publish(&self.writer, &mut temporary, digest.clone(), self.size)
    }
}

impl LayoutWriter {
    /// Publishes several blobs as [`SealedBlob::publish_as`] does each of them, and makes
    /// their names durable together: that is one sync for each directory.
    ///
    /// # Errors
    /// [`Error::Io`] with what the system said. Some may have their names then.
    pub fn publish_all(&self, blobs: &[(Digest, SealedBlob)]) -> Result<Vec<StoredBlob>, Error> {
        let (mut stored, mut directories) = (Vec::with_capacity(blobs.len()), BTreeSet::new());
        for (digest, sealed) in blobs {
            let mut temporary = sealed.temporary.lock();
            let blob = place(self, &mut temporary, digest.clone(), sealed.size)?;
            if !blob.is_shared() {
                directories.insert(disk::parent(&blobs::path(digest)).to_owned());
            }
            stored.push(blob);
        }
        for directory in directories {
            sync_directory(self, &directory)?;
        }
        Ok(stored)
    }
}

impl ReadAt for SealedBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(&*self.file, self.size, buf, offset)
    }
}

impl ReadAt for StoredBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(&*self.file, self.size, buf, offset)
    }
}

fn read_full(file: &dyn DiskFile, size: u64, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let wanted = available(size, offset, buf.len());
    let mut len = 0;
    while len < wanted {
        match file.read_at(&mut buf[len..wanted], offset + len as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => len += read,
        }
    }
    Ok(len)
}

/// Gives the file of `temporary` the name of its digest, unless a sound one has it.
pub(super) fn publish(
    writer: &LayoutWriter,
    temporary: &mut Temporary,
    digest: Digest,
    size: u64,
) -> Result<StoredBlob, Error> {
    let blob = place(writer, temporary, digest, size)?;
    if !blob.is_shared() {
        sync_directory(writer, disk::parent(&blobs::path(blob.digest())))?;
    }
    Ok(blob)
}

fn sync_directory(writer: &LayoutWriter, path: &str) -> Result<(), Error> {
    let synced = writer.disk.sync_directory(path);
    synced.map_err(|source| writer.io("sync", path, source))
}

/// The same, but the name lasts only when its directory is synced.
fn place(
    writer: &LayoutWriter,
    temporary: &mut Temporary,
    digest: Digest,
    size: u64,
) -> Result<StoredBlob, Error> {
    let path = blobs::path(&digest);
    let existing = writer.find_sound(&digest, size, &path)?;
    if existing.is_none()
        && let Some(shared) = writer.find_shared(&digest, size)?
    {
        return Ok(shared);
    }
    let directory = disk::parent(&path);
    writer
        .make_directories(directory)
        .map_err(|source| writer.io("create", directory, source))?;
    if let Some(existing) = existing {
        // Whoever wrote it.
        let synced = existing.sync();
        synced.map_err(|source| writer.io("sync", &path, source))?;
        return Ok(StoredBlob::new(digest, size, existing.into()));
    }
    temporary
        .place(&path)
        .map_err(|source| writer.io("write", &path, source))?;
    let blob = StoredBlob::new(digest, size, temporary.share());
    writer.remember(&blob);
    Ok(blob)
}

/// The digest by another algorithm than the usual one, from the file.
pub(super) fn hash_again(
    writer: &LayoutWriter,
    file: &dyn DiskFile,
    algorithm: Algorithm,
) -> Result<Option<Digest>, Error> {
    let hasher = Hasher::new(algorithm);
    hasher.map(|hasher| hash(writer, file, hasher)).transpose()
}

/// The usual digest, from the file.
pub(super) fn sha256(writer: &LayoutWriter, file: &dyn DiskFile) -> Result<Digest, Error> {
    hash(writer, file, Hasher::sha256())
}

fn hash(writer: &LayoutWriter, file: &dyn DiskFile, mut hasher: Hasher) -> Result<Digest, Error> {
    let mut buf = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let len = file
            .read_at(&mut buf, offset)
            .map_err(|source| writer.io("read", temporary::DIRECTORY, source))?;
        if len == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buf[..len]);
        offset += len as u64;
    }
}
