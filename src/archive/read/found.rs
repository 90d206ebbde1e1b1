//! A file that may be an archive, from its first byte to what it amounts to.

use std::cell::RefCell;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use super::contents::{Contents, Tar};
use super::kept::Known;
use super::table::{self, Extent};
use super::{ArchiveOptions, Error};
use crate::archive::{Member, Members};
use crate::layer;
use crate::oci::{Digest, Hasher};
use crate::store::source::{self, FileSource};
use crate::store::verify::{self, Verdict};
use crate::store::{Blob, Identity, ReadAt};
use crate::stream::{self, Compression};

/// How many bytes are read and hashed at a time.
const CHUNK: usize = 1 << 20;

/// Opens a regular file for reading: never blocking.
pub(super) fn open_file(path: &Path) -> Result<(File, Metadata), Error> {
    let io = |action| {
        move |source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let mut options = File::options();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(io("open"))?;
    let metadata = file.metadata().map_err(io("stat"))?;
    if !metadata.is_file() {
        let path = path.to_owned();
        return Err(Error::FileType { path });
    }
    Ok((file, metadata))
}

/// A file that may be an archive.
pub(super) struct Found<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
    pub(super) metadata: &'a Metadata,
}

/// What was found in it.
pub(super) struct Looked {
    pub(super) tar: Arc<dyn ReadAt>,
    /// Whether that is what the file decodes to.
    pub(super) is_decoded: bool,
    pub(super) contents: Contents,
    /// What is worth keeping, if that is more than was known.
    pub(super) learned: Option<Known>,
}

impl Found<'_> {
    /// Looks into it, where `known` is what is kept of it.
    pub(super) fn look(
        &self,
        options: &ArchiveOptions<'_>,
        known: Option<Known>,
    ) -> Result<Looked, Error> {
        let (bytes, digest) = self.tar(options, known.as_ref())?;
        let is_decoded = digest.is_some();
        let known = known.filter(|known| known.is_within(bytes.size()));
        let was_known = known.is_some();
        let Known {
            members, layers, ..
        } = known.unwrap_or_default();
        let members = match members {
            Some(members) => members,
            None => self.members(&*bytes)?,
        };
        let tar = Tar {
            path: self.path,
            bytes: &bytes,
            members: &members,
            hashed: RefCell::new(layers),
        };
        let contents = tar.contents()?;
        let layers = tar.hashed.into_inner();
        // Reading the headers of a plain tar is as fast as reading what was kept of them.
        let is_worth_it = digest.is_some() || !layers.is_empty();
        let learned = (is_worth_it && !was_known).then_some(Known {
            digest,
            members: Some(members),
            layers,
        });
        Ok(Looked {
            tar: bytes,
            is_decoded,
            contents,
            learned,
        })
    }

    /// The tar in it, and the digest of the file if it is compressed.
    fn tar(
        &self,
        options: &ArchiveOptions<'_>,
        known: Option<&Known>,
    ) -> Result<(Arc<dyn ReadAt>, Option<Digest>), Error> {
        let clone = || {
            self.file
                .try_clone()
                .map_err(|error| self.io("open", error))
        };
        let source = FileSource::of_size(clone()?, self.metadata.len());
        let compression = Compression::of(&source);
        if compression.map_err(|error| self.undecodable(error))? == Compression::Plain {
            return Ok((Arc::new(source), None));
        }
        let digest = match known.and_then(|known| known.digest.clone()) {
            Some(digest) => digest,
            None => hash(self.path, &source)?,
        };
        let blob = Arc::new(Blob::of(digest.clone(), clone()?, self.metadata));
        if !self.is_unchanged()? {
            return Err(self.changed());
        }
        // It was hashed just now, or earlier in this very state.
        if options.verdicts.find(&blob).is_none() {
            options.verdicts.record(&blob, &Verdict::Sound);
        }
        let layers = options.layers;
        let indexed = layers.index(&blob).map_err(|error| self.pass(error))?;
        if let Err(reason) = indexed.kept {
            log::debug!(
                "what was learned of {} is not kept: {reason}",
                self.path.display()
            );
        }
        let layer = layers.open(blob).map_err(|error| self.pass(error))?;
        Ok((layer, Some(digest)))
    }

    pub(super) fn is_unchanged(&self) -> Result<bool, Error> {
        let present = self.file.metadata();
        let present = present.map_err(|error| self.io("stat", error))?;
        Ok(Identity::from(&present) == Identity::from(self.metadata))
    }

    pub(super) fn changed(&self) -> Error {
        let path = self.path.to_owned();
        Error::Changed { path }
    }

    fn members(&self, tar: &dyn ReadAt) -> Result<Members<Extent>, Error> {
        let scanned = table::scan(tar, table::limits()).map_err(|error| match error {
            table::Error::Tar(source) => Error::Tar {
                path: self.path.to_owned(),
                source,
            },
            table::Error::Read(source) => self.io("read", source),
        })?;
        if !scanned.has_ended && !scanned.members.is_empty() {
            let path = self.path.display();
            log::warn!("{path} has no end, as a tar that was cut short: files may be missing");
        }
        Ok(scanned.members)
    }

    fn io(&self, action: &'static str, source: io::Error) -> Error {
        read_error(self.path, action, source)
    }

    fn undecodable(&self, source: stream::Error) -> Error {
        let path = self.path.to_owned();
        Error::Stream { path, source }
    }

    fn pass(&self, error: layer::Error) -> Error {
        let path = self.path.to_owned();
        match error {
            layer::Error::Stream { source, .. } => Error::Stream { path, source },
            layer::Error::DigestMismatch { .. } | layer::Error::Changed { .. } => {
                Error::Changed { path }
            }
            source => Error::Pass { path, source },
        }
    }
}

/// What reading the archive at `path` answered; a stream beneath keeps its own meaning.
pub(super) fn read_error(path: &Path, action: &'static str, source: io::Error) -> Error {
    let path = path.to_owned();
    let inner = source.get_ref().and_then(|inner| inner.downcast_ref());
    match inner.cloned() {
        Some(source) => Error::Stream { path, source },
        None if source.kind() == io::ErrorKind::UnexpectedEof => Error::Changed { path },
        None => Error::Io {
            action,
            path,
            source,
        },
    }
}

/// The sha256 digest of all bytes of the archive at `path`, or of a file in it.
///
/// # Errors
/// [`Error::TooLarge`], before anything is read; what reading answers.
pub(super) fn hash(path: &Path, source: &dyn ReadAt) -> Result<Digest, Error> {
    let size = source.size();
    if size > verify::MAX_BLOB_SIZE {
        let path = path.to_owned();
        return Err(Error::TooLarge { path, size });
    }
    let mut hasher = Hasher::sha256();
    let mut buf = vec![0; source::available(size, 0, CHUNK)];
    let mut at = 0;
    while at < size {
        let len = source.read_at(&mut buf, at);
        let len = len.map_err(|error| read_error(path, "read", error))?;
        hasher.update(&buf[..len]);
        at += len as u64;
    }
    Ok(hasher.finish())
}

impl Known {
    /// Whether all members lie within a tar of `size` bytes.
    fn is_within(&self, size: u64) -> bool {
        let mut members = self.members.iter().flat_map(Members::iter);
        members.all(|(_, member)| match member {
            Some(Member::File(extent)) => extent.offset + extent.len <= size,
            _ => true,
        })
    }
}
