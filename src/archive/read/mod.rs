//! An archive of images, read in place as the layout that it is.
//!
//! ```text
//!   file ──(gzip, zstd: a Layer)──> tar ──headers──> members ──> blobs, index, marker
//!                                    ▲                             │
//!                                    └── the bytes of a blob ──────┘
//! ```
//!
//! Nothing is unpacked and nothing is copied: a blob is a stretch of the tar. Where the
//! archive is compressed, its bytes come out of the same engine as those of a layer. It is
//! hashed, since the engine knows blobs by their digest, then decoded in one pass, whose
//! checkpoints are kept, and there is random access from then on. A layer in it that is
//! compressed once more is a stream over that stream.
//!
//! - `table` finds the members, by the headers alone; `contents` says what they amount to.
//! - `docker` makes an index and manifests for a docker-archive, the same ones that it
//!   would get in a layout.
//! - `kept` is what need not be found out again.
//!
//! Invariants:
//! - The file is held open from the beginning: another one in its place is not looked at.
//! - The index and what is made of documents hang on what the file was at opening, and so
//!   do the bytes that a compressed one decodes to: each span of them is compared with what
//!   it was, or is in memory since. Their verdicts are those of that state of the file.
//! - The bytes of blobs in a plain tar are what the file holds: each is verified under the
//!   file's identity at that time and its place, as the blobs of a directory are.
//! - What is refused is refused whole; a blob that is missing in the layout of an archive is
//!   looked for in shared directories, and missing if it is not there, as with a directory.

mod contents;
mod docker;
mod error;
mod found;
mod kept;
mod section;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contents::Stored;
pub use error::Error;
use found::{Found, Looked, open_file};
use kept::Kept;
use section::Section;
use table::Extent;

use super::oci;
use crate::layer::Layers;
use crate::oci::Digest;
use crate::store::layout::{self, SharedBlobs, Space, View};
use crate::store::{Blob, BlobSource, CacheDir, Identity, ReadAt, Verdicts};

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
    /// What the file was at opening.
    opened: Identity,
    tar: Arc<dyn ReadAt>,
    /// Whether the tar is not the file, but what it decodes to.
    is_decoded: bool,
    marker: Vec<u8>,
    view: View,
    blobs: BTreeMap<Digest, Stored>,
    shared: SharedBlobs,
}

impl Archive {
    /// Opens the archive at `path`. A compressed one is hashed, then decoded, from end to
    /// end, unless that was done before.
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
        let Looked {
            tar,
            is_decoded,
            contents,
            learned,
        } = found.look(options, known)?;
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
            opened: identity,
            tar,
            is_decoded,
            marker: contents.marker,
            view,
            blobs: contents.blobs,
            shared: SharedBlobs::default(),
        })
    }

    /// The same, where blobs that it has not are looked for in shared directories.
    #[must_use]
    pub fn with_shared(self, shared: SharedBlobs) -> Self {
        Self { shared, ..self }
    }

    /// Its index.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
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
        let fixed = |offset, bytes| Blob::fixed(digest.clone(), self.opened, offset, bytes);
        let extent = match self.blobs.get(digest) {
            None => return self.shared.open_blob(digest),
            Some(Stored::At(extent)) => *extent,
            Some(Stored::Made(bytes)) => return Ok(fixed(0, Arc::clone(bytes) as Arc<dyn ReadAt>)),
            Some(Stored::Unusable(found)) => {
                return Err(layout::Error::FileType {
                    path: self.path.join(oci::blob_path(digest)),
                    expected: "plain file",
                    found,
                });
            }
        };
        let bytes = Arc::new(Section::new(&self.tar, extent));
        if self.is_decoded {
            return Ok(fixed(extent.offset, bytes));
        }
        let file = Arc::clone(&self.file);
        let blob = Blob::part(digest.clone(), file, extent.offset, bytes);
        blob.map_err(|source| self.io("stat", source))
    }

    fn identify(&self, digest: &Digest) -> Result<Identity, layout::Error> {
        Ok(match self.blobs.get(digest) {
            None => return self.shared.identify(digest),
            Some(Stored::At(Extent { offset, len })) if self.is_decoded => {
                self.opened.part(*offset, *len)
            }
            Some(Stored::At(Extent { offset, len })) => {
                Identity::from(&self.metadata()?).part(*offset, *len)
            }
            Some(Stored::Made(bytes)) => self.opened.part(0, bytes.size()),
            Some(Stored::Unusable(_)) => self.opened.part(0, 0),
        })
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
