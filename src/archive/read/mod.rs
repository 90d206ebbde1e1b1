//! An archive of images, read in place as the layout that it is.
//!
//! ```text
//!   file ──(gzip, zstd: a Layer)──> tar ──headers──> members ──> blobs, index, marker
//!                                    ▲                             │
//!                                    └── the bytes of a blob ──────┘
//! ```
//!
//! Nothing is unpacked and nothing is copied: a blob is a stretch of the tar. Where the
//! archive is compressed, its bytes come out of the same engine as those of a layer: one
//! pass, whose checkpoints are kept, and random access from then on. A layer in it that is
//! compressed once more is a stream over that stream.
//!
//! - [`table`] finds the members, by the headers alone.
//! - [`docker`] makes an index and manifests for a docker-archive, the same ones that it
//!   would get in a layout.
//! - [`kept`] is what need not be found out again.
//!
//! Invariants:
//! - The file is held open from the beginning: another one in its place is not looked at.
//! - The index and what is made of documents hang on what the file was at opening. The
//!   bytes of blobs are what the file holds: each is verified under the file's identity at
//!   that time and its place, as the blobs of a directory are.
//! - What is refused is refused whole; a blob that is missing in the layout of an archive is
//!   missing, as in a directory.

mod docker;
mod error;
mod kept;
mod section;
mod table;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::Error;
use kept::{Kept, Known};
use section::Section;
use table::Extent;

use super::{DOCKER_MANIFEST, Dialect, Members, OCI_INDEX, OCI_MARKER, oci};
use crate::archive;
use crate::layer::{self, Layers};
use crate::oci::limits::{Limit, MAX_DOCUMENT_SIZE};
use crate::oci::{Digest, Hasher};
use crate::store::layout::{self, Space, View};
use crate::store::source::{self, FileSource};
use crate::store::verify::Verdict;
use crate::store::{Blob, BlobSource, CacheDir, Identity, ReadAt, Verdicts};
use crate::stream::{self, Compression};

/// How many bytes are read and hashed at a time.
const CHUNK: usize = 1 << 20;

/// What an archive is read with.
#[derive(Debug)]
pub struct ArchiveOptions<'a> {
    /// Through which a compressed one is read.
    pub layers: &'a Layers,
    /// Where verdicts are remembered.
    pub verdicts: &'a Verdicts,
    /// Where what was learned is kept between runs; nowhere if `None`.
    pub cache: Option<&'a CacheDir>,
}

/// An opened archive.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    file: Arc<File>,
    tar: Arc<dyn ReadAt>,
    marker: Vec<u8>,
    view: View,
    blobs: BTreeMap<Digest, Stored>,
}

/// Where the bytes of a blob are.
#[derive(Debug, Clone)]
enum Stored {
    /// In the tar.
    At(Extent),
    /// Here: they were made.
    Made(Arc<Vec<u8>>),
    /// Something is in its place that cannot be read: what.
    Unusable(&'static str),
}

/// What an archive amounts to.
struct Contents {
    marker: Vec<u8>,
    index: Vec<u8>,
    blobs: BTreeMap<Digest, Stored>,
}

impl Archive {
    /// Opens the archive at `path`. A compressed one is read once, from end to end, unless
    /// that was done before.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(path: &Path, options: &ArchiveOptions<'_>) -> Result<Self, Error> {
        let (file, metadata) = open_file(path)?;
        let identity = Identity::from(&metadata);
        let kept = options.cache.and_then(Kept::open);
        let known = kept.as_ref().and_then(|kept| kept.load(&identity));
        let found = Found {
            path,
            file: &file,
            metadata: &metadata,
        };
        let (tar, contents, learned) = found.contents(options, known)?;
        if !found.is_unchanged()? {
            return Err(found.changed());
        }
        let view = View::of(path, contents.index, identity).map_err(Error::Index)?;
        if let (Some(kept), Some(learned)) = (kept, learned) {
            kept.store(&identity, &learned);
        }
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            tar,
            marker: contents.marker,
            view,
            blobs: contents.blobs,
        })
    }

    /// Its index.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    fn find(&self, digest: &Digest) -> Result<&Stored, layout::Error> {
        let missing = || layout::Error::BlobMissing {
            digest: digest.clone(),
        };
        match self.blobs.get(digest).ok_or_else(missing)? {
            Stored::Unusable(found) => Err(layout::Error::FileType {
                path: self.path.join(oci::blob_path(digest)),
                expected: "plain file",
                found,
            }),
            stored => Ok(stored),
        }
    }

    fn metadata(&self) -> Result<Metadata, layout::Error> {
        self.file
            .metadata()
            .map_err(|source| self.io("stat", source))
    }

    fn io(&self, action: &'static str, source: io::Error) -> layout::Error {
        layout::Error::Io {
            action,
            path: self.path.clone(),
            source,
        }
    }
}

impl BlobSource for Archive {
    fn path(&self) -> &Path {
        &self.path
    }

    fn owner(&self) -> Result<(u32, u32), layout::Error> {
        let metadata = self.metadata()?;
        Ok((metadata.uid(), metadata.gid()))
    }

    fn space(&self) -> Result<Space, layout::Error> {
        Space::around(&*self.file).map_err(|source| self.io("statfs", source))
    }

    fn marker(&self) -> Result<Vec<u8>, layout::Error> {
        Ok(self.marker.clone())
    }

    fn open_blob(&self, digest: &Digest) -> Result<Blob, layout::Error> {
        let (offset, bytes): (u64, Arc<dyn ReadAt>) = match self.find(digest)? {
            Stored::At(extent) => (extent.offset, Arc::new(Section::new(&self.tar, *extent))),
            Stored::Made(bytes) => (0, Arc::clone(bytes) as Arc<dyn ReadAt>),
            Stored::Unusable(_) => (0, Arc::new(Vec::new())),
        };
        let blob = Blob::part(digest.clone(), Arc::clone(&self.file), offset, bytes);
        blob.map_err(|source| self.io("stat", source))
    }

    fn identify(&self, digest: &Digest) -> Result<Identity, layout::Error> {
        let (offset, size) = match self.find(digest)? {
            Stored::At(extent) => (extent.offset, extent.len),
            Stored::Made(bytes) => (0, bytes.size()),
            Stored::Unusable(_) => (0, 0),
        };
        Ok(Identity::from(&self.metadata()?).part(offset, size))
    }

    fn list_blobs(&self, algorithm: &str) -> Result<Vec<Digest>, layout::Error> {
        let ours = |digest: &&Digest| digest.algorithm_name() == algorithm;
        Ok(self.blobs.keys().filter(ours).cloned().collect())
    }

    fn list_algorithms(&self) -> Result<Vec<String>, layout::Error> {
        let names = self.blobs.keys().map(Digest::algorithm_name);
        let names: BTreeSet<&str> = names.collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }
}

/// Opens a regular file for reading: never blocking.
fn open_file(path: &Path) -> Result<(File, Metadata), Error> {
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
struct Found<'a> {
    path: &'a Path,
    file: &'a File,
    metadata: &'a Metadata,
}

impl Found<'_> {
    /// The tar in it, what that amounts to, and what is worth keeping of it if that is more
    /// than was known.
    fn contents(
        &self,
        options: &ArchiveOptions<'_>,
        known: Option<Known>,
    ) -> Result<(Arc<dyn ReadAt>, Contents, Option<Known>), Error> {
        let (bytes, digest) = self.tar(options, known.as_ref())?;
        let known = known.filter(|known| known.is_within(bytes.size()));
        let was_known = known.is_some();
        let mut known = match known {
            Some(known) => known,
            None => Known {
                digest,
                members: self.members(&*bytes)?,
                layers: BTreeMap::new(),
            },
        };
        let tar = Tar {
            path: self.path,
            bytes: &bytes,
            members: &known.members,
            hashed: RefCell::new(std::mem::take(&mut known.layers)),
        };
        let contents = tar.contents()?;
        known.layers = tar.hashed.into_inner();
        // Reading the headers of a plain tar is as fast as reading what was kept of them.
        let is_worth_it = known.digest.is_some() || !known.layers.is_empty();
        let learned = (is_worth_it && !was_known).then_some(known);
        Ok((bytes, contents, learned))
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
            None => hash(&source).map_err(|error| self.io("read", error))?,
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

    fn is_unchanged(&self) -> Result<bool, Error> {
        let present = self.file.metadata();
        let present = present.map_err(|error| self.io("stat", error))?;
        Ok(Identity::from(&present) == Identity::from(self.metadata))
    }

    fn changed(&self) -> Error {
        let path = self.path.to_owned();
        Error::Changed { path }
    }

    fn members(&self, tar: &dyn ReadAt) -> Result<Members<Extent>, Error> {
        table::scan(tar, table::limits()).map_err(|error| match error {
            table::Error::Tar(source) => Error::Tar {
                path: self.path.to_owned(),
                source,
            },
            table::Error::Read(source) => self.io("read", source),
        })
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
fn read_error(path: &Path, action: &'static str, source: io::Error) -> Error {
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

/// The sha256 digest of all bytes.
fn hash(source: &dyn ReadAt) -> io::Result<Digest> {
    let mut hasher = Hasher::sha256();
    let mut buf = vec![0; source::available(source.size(), 0, CHUNK)];
    let mut at = 0;
    while at < source.size() {
        let len = source.read_at(&mut buf, at)?;
        hasher.update(&buf[..len]);
        at += len as u64;
    }
    Ok(hasher.finish())
}

impl Known {
    /// Whether all members lie within a tar of `size` bytes.
    fn is_within(&self, size: u64) -> bool {
        self.members.iter().all(|(_, member)| match member {
            Some(archive::Member::File(extent)) => extent.offset + extent.len <= size,
            _ => true,
        })
    }
}

/// A tar whose members are known.
struct Tar<'a> {
    path: &'a Path,
    bytes: &'a Arc<dyn ReadAt>,
    members: &'a Members<Extent>,
    /// The digests that were worked out, by where the bytes begin.
    hashed: RefCell<BTreeMap<u64, Digest>>,
}

impl Tar<'_> {
    /// What the archive amounts to, by its dialect.
    fn contents(&self) -> Result<Contents, Error> {
        let has_marker = self.find(OCI_MARKER)?.is_some();
        // A layout needs none, whatever it is.
        let manifest = match self.find(DOCKER_MANIFEST) {
            _ if has_marker => None,
            Ok(Some(extent)) if extent.len > MAX_DOCUMENT_SIZE => None,
            Ok(Some(extent)) => Some(self.read(extent)?),
            Ok(None) => None,
            Err(error) => return Err(error),
        };
        match (Dialect::of(has_marker, manifest.as_deref()), manifest) {
            (Some(Dialect::Oci), _) => self.layout(),
            (Some(Dialect::Docker), Some(manifest)) => docker::contents(self, &manifest),
            _ => Err(Error::NotAnArchive {
                path: self.path.to_owned(),
            }),
        }
    }

    /// What a layout in a tar says.
    fn layout(&self) -> Result<Contents, Error> {
        let marker = self.limited(OCI_MARKER, Limit::LayoutFileSize)?.1;
        oci::check_marker(&marker).map_err(|source| self.wrong(source))?;
        let index = self.limited(OCI_INDEX, Limit::IndexJsonSize)?.1;
        let names = self.members.iter().map(|(path, _)| path);
        let named = names.filter_map(|path| Some((path, oci::blob_at(path)?)));
        let stored = |(path, digest): (&[u8], Digest)| {
            let path = std::str::from_utf8(path).ok()?;
            let stored = match self.members.find(path) {
                Ok(extent) => Stored::At(*extent?),
                Err(error) => Stored::Unusable(error.found()),
            };
            Some((digest, stored))
        };
        Ok(Contents {
            marker,
            index,
            blobs: named.filter_map(stored).collect(),
        })
    }

    fn find(&self, path: &str) -> Result<Option<Extent>, Error> {
        let found = self.members.find(path);
        Ok(found.map_err(|source| self.wrong(source))?.copied())
    }

    /// The file at `path`, which must be there.
    fn get(&self, path: &str) -> Result<Extent, Error> {
        let found = self.members.get(path);
        Ok(*found.map_err(|source| self.wrong(source))?)
    }

    /// The document at `path`, and where it is.
    fn document(&self, path: &str) -> Result<(Extent, Vec<u8>), Error> {
        self.limited(path, Limit::DocumentSize)
    }

    fn limited(&self, path: &str, limit: Limit) -> Result<(Extent, Vec<u8>), Error> {
        let extent = self.get(path)?;
        limit.check(extent.len).map_err(|source| {
            let path = path.to_owned();
            self.wrong(archive::Error::Document { path, source })
        })?;
        Ok((extent, self.read(extent)?))
    }

    /// All bytes of a small file.
    fn read(&self, extent: Extent) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; usize::try_from(extent.len).unwrap_or(0)];
        let read = self.section(extent).read_at(&mut bytes, 0);
        read.map_err(|source| read_error(self.path, "read", source))?;
        Ok(bytes)
    }

    /// The digest of a file, by reading it unless that was done before.
    fn digest(&self, extent: Extent) -> Result<Digest, Error> {
        if let Some(digest) = self.hashed.borrow().get(&extent.offset) {
            return Ok(digest.clone());
        }
        let digest = hash(&self.section(extent));
        let digest = digest.map_err(|source| read_error(self.path, "read", source))?;
        let hashed = &mut self.hashed.borrow_mut();
        hashed.insert(extent.offset, digest.clone());
        Ok(digest)
    }

    fn section(&self, extent: Extent) -> Section {
        Section::new(self.bytes, extent)
    }

    fn undecodable(&self, path: &str, source: stream::Error) -> Error {
        let path = self.path.join(path);
        Error::Stream { path, source }
    }

    fn wrong(&self, source: archive::Error) -> Error {
        let path = self.path.to_owned();
        Error::Content { path, source }
    }
}
