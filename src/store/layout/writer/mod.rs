//! The write side of a layout: blobs are committed, then the index is updated.
//!
//! ```text
//! LAYOUT/
//! ├── blobs/<algorithm>/<encoded>   linked here when they are whole, hashed and synced
//! ├── index.json                    replaced in one step, under the locks
//! ├── index.json.lock               while somebody changes the index
//! └── .ocifs/tmp/                   files that have no final name yet
//! ```
//!
//! A blob is written to a file without a name, which goes with its writer. Only where the
//! file system has no such files, and for a rename in place of what is there, a name below
//! `.ocifs/tmp` is needed. A file there is locked by its writer for as long as it lives;
//! one that nobody has locked is rubbish of a writer that was killed, and
//! [`LayoutWriter::collect`] removes it.
//!
//! The order is that of filesystem.md, "Commit": after a power cut at any moment there is
//! the old index, or the new index with all its blobs.

mod adopt;
mod blob;
mod extra;
mod shared;
mod temporary;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use adopt::Adoption;
pub use blob::{BlobWriter, CopyError, SealedBlob, StoredBlob};
use shared::SharedDirectory;
pub use shared::Sharing;
pub(super) use temporary::Temporary;

use super::{Layout, TORN_PATIENCE, TORN_RETRY, refs};
use crate::oci::Digest;
use crate::store::blob::{Blob, Identity};
use crate::store::disk::{self, Disk, DiskFile, RealDisk};
use crate::store::lock::{self, LayoutLock};
use crate::store::progress::Unwatched;
use crate::store::verify::{self, MAX_BLOB_SIZE, Verdict, Verdicts};

/// How long the locks of a layout are waited for. Who holds them writes one small file;
/// longer than this is a program that hangs.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The layout cannot be read.
    #[error(transparent)]
    Layout(#[from] super::Error),
    /// The change does not fit what the index says.
    #[error(transparent)]
    Refused(#[from] refs::Refusal),
    /// The locks were not to be had.
    #[error("cannot lock {}", layout.display())]
    Lock {
        /// The layout directory.
        layout: PathBuf,
        /// Why not.
        #[source]
        source: lock::Error,
    },
    /// The bytes have another digest than they should.
    #[error("the bytes have the digest {actual}, not {expected}")]
    DigestMismatch {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// There are more or fewer bytes than there should be.
    #[error("blob {digest} has {actual} bytes, not {expected}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// The size that was asked for.
        expected: u64,
        /// How many there are.
        actual: u64,
    },
    /// The digest's algorithm cannot be computed.
    #[error("digest algorithm of {digest} is not supported")]
    Algorithm {
        /// The digest that was asked for.
        digest: Digest,
    },
    /// A blob that is needed cannot be verified.
    #[error(transparent)]
    Blob(#[from] verify::Error),
    /// Somebody else has changed `index.json` after each of several attempts.
    #[error("{} is rewritten again and again by another program", path.display())]
    Contended {
        /// The file.
        path: PathBuf,
    },
    /// What hindered several changes that were to be written together.
    #[error(transparent)]
    Shared(Arc<Self>),
    /// The thread that wrote several changes together has ended over it.
    #[error("the thread that was to write the index has failed")]
    Abandoned,
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The error itself, also where several callers share it.
    #[must_use]
    pub fn kind(&self) -> &Self {
        match self {
            Self::Shared(error) => error.kind(),
            error => error,
        }
    }
}

/// Writes to one layout; any number of them may do so at once, in any processes.
#[derive(Debug, Clone)]
pub struct LayoutWriter {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    verdicts: Arc<Verdicts>,
    settled: Settled,
    /// Where blobs are looked for that the layout has not.
    shared: Arc<[SharedDirectory]>,
    sharing: Sharing,
    /// Memory for the next index.
    pub(super) room: Arc<Mutex<Vec<u8>>>,
}

/// The directories of a disk whose names are durable, and which files they are: device and
/// inode.
#[derive(Debug, Clone, Default)]
struct Settled(Arc<Mutex<HashMap<String, (u64, u64)>>>);

impl Settled {
    /// Makes the names of the directory `path` and of those above it durable, once.
    fn directory(&self, disk: &dyn Disk, path: &str) -> io::Result<()> {
        if path == "." {
            return Ok(());
        }
        let status = disk.status(path)?.identity;
        let identity = (status.device, status.inode);
        if self.0.lock().get(path) == Some(&identity) {
            return Ok(());
        }
        let parent = disk::parent(path);
        disk.sync_directory(parent)?;
        self.directory(disk, parent)?;
        self.0.lock().insert(path.to_owned(), identity);
        Ok(())
    }
}

impl LayoutWriter {
    /// A writer to the directory that `layout` has pinned, wherever its path leads now. What
    /// the shared directories of `layout` have need not be in the layout itself.
    ///
    /// # Errors
    /// If a handle cannot be duplicated.
    pub fn open(layout: &Layout, verdicts: Arc<Verdicts>) -> Result<Self, Error> {
        let disk = layout.dir().try_clone_to_owned().and_then(RealDisk::new);
        let disk = disk.map_err(|source| layout.dir.io("open", "", source))?;
        Ok(Self {
            shared: SharedDirectory::of(layout)?.into(),
            ..Self::on(Arc::new(disk), layout.path(), verdicts)
        })
    }

    /// A writer to a layout on `disk`, which messages call `path`.
    pub(crate) fn on(disk: Arc<dyn Disk>, path: &Path, verdicts: Arc<Verdicts>) -> Self {
        Self {
            disk,
            path: path.to_owned(),
            verdicts,
            settled: Settled::default(),
            shared: Arc::new([]),
            sharing: Sharing::default(),
            room: Arc::default(),
        }
    }

    /// The same writer with a shared directory on `disk`, which messages call `path`.
    #[cfg(test)]
    pub(crate) fn with_shared(self, disk: Arc<dyn Disk>, path: &Path) -> Self {
        let shared = Arc::new([SharedDirectory::on(disk, path)]);
        Self { shared, ..self }
    }

    /// Removes what killed writers have left; how many files those were. What a living
    /// writer needs stays.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn collect(&self) -> Result<usize, Error> {
        if self.disk.status(lock::LOCK_FILE).is_err() && !temporary::are_there(&*self.disk) {
            return Ok(0);
        }
        let _lock = match LayoutLock::acquire(&self.disk, Duration::ZERO) {
            // Giving it back removes its file, which a killed writer may have left.
            Ok(lock) => lock,
            // Somebody is at work; the next one clears up.
            Err(lock::Error::Busy { .. }) => return Ok(0),
            Err(source) => {
                let layout = self.path.clone();
                return Err(Error::Lock { layout, source });
            }
        };
        temporary::collect(&*self.disk)
            .map_err(|source| self.io("clear", temporary::DIRECTORY, source))
    }

    /// Begins a blob of which nothing is known yet.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn blob(&self) -> Result<BlobWriter, Error> {
        BlobWriter::new(self.clone())
    }

    /// Stores a small blob that is in memory.
    ///
    /// # Errors
    /// As [`BlobWriter::commit`].
    pub fn store(&self, bytes: &[u8]) -> Result<StoredBlob, Error> {
        let mut blob = self.blob()?;
        let written = io::Write::write_all(&mut blob, bytes);
        written.map_err(|source| self.write_error(source))?;
        blob.commit()
    }

    /// A failure to write to a file that has no name yet, as an error of this layout.
    #[must_use]
    pub fn write_error(&self, source: io::Error) -> Error {
        self.io("write", temporary::DIRECTORY, source)
    }

    /// Whether something has the name of the blob in the layout itself, sound or not.
    #[must_use]
    pub fn is_present(&self, digest: &Digest) -> bool {
        self.disk.status(&super::blobs::path(digest)).is_ok()
    }

    /// Takes a blob that the layout or a shared directory has already, so that the index can
    /// name it: verifies it, sees that it is durable, whoever wrote it, and holds it against
    /// removal. One that is not right is looked at again for a moment: skopeo writes a manifest in
    /// place, also one that is there already.
    ///
    /// # Errors
    /// [`super::Error::BlobMissing`]; [`Error::SizeMismatch`]; [`Error::DigestMismatch`].
    pub fn hold(&self, digest: &Digest, size: u64) -> Result<StoredBlob, Error> {
        let deadline = Instant::now() + TORN_PATIENCE;
        loop {
            match self.try_hold(digest, size) {
                Err(
                    Error::SizeMismatch { .. }
                    | Error::DigestMismatch { .. }
                    | Error::Blob(verify::Error::Changed { .. }),
                ) if Instant::now() < deadline => std::thread::sleep(TORN_RETRY),
                Ok(stored) if stored.is_shared() && self.sharing == Sharing::Copy => {
                    return self.copy_shared(&stored);
                }
                other => return other,
            }
        }
    }

    /// As [`Self::hold`], without waiting for what is not right, and copying nothing.
    pub(crate) fn try_hold(&self, digest: &Digest, size: u64) -> Result<StoredBlob, Error> {
        let stored = self.look_at(digest, size)?;
        self.settle_blob(&stored)?;
        Ok(stored)
    }

    /// A blob that the layout or a shared directory has, verified; it need not be durable.
    pub(in crate::store::layout) fn look_at(
        &self,
        digest: &Digest,
        size: u64,
    ) -> Result<StoredBlob, Error> {
        let path = super::blobs::path(digest);
        let file = match self.disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.look_at_shared(digest, size);
            }
            other => other.map_err(|source| self.io("open", &path, source))?,
        };
        self.check(&*file, digest, size, &self.path.join(&path))?;
        Ok(StoredBlob::new(digest.clone(), size, file.into()))
    }

    /// Makes a blob that somebody else wrote durable.
    fn settle_blob(&self, blob: &StoredBlob) -> Result<(), Error> {
        if let Some(directory) = blob.shared() {
            return directory.settle(blob);
        }
        let path = super::blobs::path(blob.digest());
        self.settle(blob.file(), &path)
            .map_err(|source| self.io("sync", &path, source))
    }

    /// Sees that `file`, which messages call `path`, holds `digest` in `size` bytes; which
    /// file it is, in which state.
    fn check(
        &self,
        file: &dyn DiskFile,
        digest: &Digest,
        size: u64,
        path: &Path,
    ) -> Result<Identity, Error> {
        let status = file.status().map_err(|source| Error::Io {
            action: "stat",
            path: path.to_owned(),
            source,
        })?;
        if !status.is_file {
            return Err(super::Error::FileType {
                path: path.to_owned(),
                expected: "regular file",
                found: "a special file",
            }
            .into());
        }
        if status.identity.size != size {
            return Err(Error::SizeMismatch {
                digest: digest.clone(),
                expected: size,
                actual: status.identity.size,
            });
        }
        match self.verdict(file, digest)? {
            Verdict::Sound => Ok(status.identity),
            Verdict::Damaged { actual } => Err(Error::DigestMismatch {
                expected: digest.clone(),
                actual,
            }),
        }
    }

    /// Makes a file that somebody else wrote durable, content and name.
    pub(super) fn settle(&self, file: &dyn DiskFile, path: &str) -> io::Result<()> {
        file.sync()?;
        self.disk.sync_directory(disk::parent(path))?;
        self.settled.directory(&*self.disk, disk::parent(path))
    }

    /// Makes the directory `path` and those above it where they are missing, and all of them
    /// durable: who made those that are there may have been killed before.
    pub(super) fn make_directories(&self, path: &str) -> io::Result<()> {
        disk::make_directories(&*self.disk, path)?;
        self.settled.directory(&*self.disk, path)
    }

    /// Which file `oci-layout` is, in which state.
    pub(super) fn marker(&self) -> Option<Identity> {
        let status = self.disk.status(super::MARKER).ok()?;
        Some(status.identity)
    }

    /// Takes both locks of the layout.
    pub(super) fn lock(&self) -> Result<LayoutLock, Error> {
        LayoutLock::acquire(&self.disk, LOCK_PATIENCE).map_err(|source| Error::Lock {
            layout: self.path.clone(),
            source,
        })
    }

    /// Sees that `blob` still has its name, and gives it again if somebody has removed it
    /// (`umoci gc` does so with a blob that no index names yet). One that has gone from a
    /// shared directory is put into the layout.
    pub(super) fn relink(&self, blob: &StoredBlob) -> Result<(), Error> {
        let path = super::blobs::path(blob.digest());
        match self.disk.status(&path) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.io("stat", &path, error)),
        }
        if let Some(shared) = blob.shared()
            && shared.has(blob.digest())?
        {
            return Ok(());
        }
        log::warn!("{path} was removed before the index named it, and is put back");
        let made = self.make_directories(disk::parent(&path));
        made.map_err(|source| self.io("restore", &path, source))?;
        self.restore(blob, &path)
    }

    /// Links the open file again; a file that has lost its last name may have to be
    /// copied, since only one that never had a name can be linked from none.
    fn restore(&self, blob: &StoredBlob, path: &str) -> Result<(), Error> {
        let failed = |source| self.io("restore", path, source);
        // A file of somebody else may be written to, under whatever name.
        if !blob.is_shared() {
            let linked = disk::publish(&*self.disk, blob.file(), disk::Publication::Link, path);
            match linked {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Somebody else has put it back.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                other => return other.map_err(failed),
            }
        }
        let mut copy = Temporary::create(&self.disk, disk::parent(path)).map_err(failed)?;
        copy_all(blob.file(), copy.file()).map_err(failed)?;
        // Before the copy has its name: what was verified must be what is there.
        if blob.was_written_to().map_err(failed)? {
            let digest = blob.digest().clone();
            return Err(verify::Error::Changed { digest }.into());
        }
        copy.publish(path).map_err(failed)
    }

    /// What is known of the existing file at `path`, which should hold `digest` in `size`
    /// bytes: the file if it is sound, `None` if it must be replaced.
    fn find_sound(
        &self,
        digest: &Digest,
        size: u64,
        path: &str,
    ) -> Result<Option<Box<dyn DiskFile>>, Error> {
        let file = match self.disk.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // A link or a special file has the name. A rename puts the blob in its place.
            Err(error) => {
                log::warn!("{path} cannot be read and is replaced: {error}");
                return Ok(None);
            }
        };
        let status = file
            .status()
            .map_err(|source| self.io("stat", path, source))?;
        let sound = status.is_file
            && status.identity.size == size
            && match self.verdict(&*file, digest) {
                // Somebody is writing it, and may never come to an end.
                Err(Error::Blob(verify::Error::Changed { .. })) => false,
                verdict => verdict? == Verdict::Sound,
            };
        if !sound {
            log::warn!("{path} is damaged and is replaced");
        }
        Ok(sound.then_some(file))
    }

    /// Remembers that the file that was just published is sound.
    fn remember(&self, blob: &StoredBlob) {
        let real = blob.file().real().and_then(|file| file.try_clone().ok());
        if let Some(blob) = real.and_then(|file| Blob::new(blob.digest().clone(), file).ok()) {
            self.verdicts.record(&blob, &Verdict::Sound);
        }
    }

    /// Whether the file's bytes have the digest: remembered, or found out now.
    fn verdict(&self, file: &dyn DiskFile, digest: &Digest) -> Result<Verdict, Error> {
        let read = |source| self.io("read", &super::blobs::path(digest), source);
        let Some(real) = file.real() else {
            let bytes = disk::read_all(file, MAX_BLOB_SIZE).map_err(read)?;
            return Ok(blob::verdict(&bytes, digest));
        };
        let real = real.try_clone().map_err(read)?;
        let blob = Blob::new(digest.clone(), real).map_err(read)?;
        match self.verdicts.verify(&blob, &Unwatched) {
            Ok(()) => Ok(Verdict::Sound),
            Err(verify::Error::DigestMismatch { actual, .. }) => Ok(Verdict::Damaged { actual }),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn io(&self, action: &'static str, path: &str, source: io::Error) -> Error {
        Error::Io {
            action,
            path: self.path.join(path),
            source,
        }
    }
}

fn copy_all(from: &dyn DiskFile, to: &dyn DiskFile) -> io::Result<()> {
    let mut buf = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let len = from.read_at(&mut buf, offset)?;
        if len == 0 {
            return Ok(());
        }
        to.write_at(&buf[..len], offset)?;
        offset += len as u64;
    }
}
