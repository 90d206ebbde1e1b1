//! Why something is not taken out of Docker's store.

use std::io;
use std::path::PathBuf;

use crate::ingest::{ErrorClass, tar_split};
use crate::oci::{self, DiffId, Digest};

/// How a file differs from what it was when Docker unpacked the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is not there.
    Gone,
    /// It is no regular file, or cannot be reached within the layer.
    Replaced,
    /// It has another size.
    Size,
    /// It has other bytes.
    Content,
}

impl Change {
    const fn text(self) -> &'static str {
        match self {
            Self::Gone => "is gone",
            Self::Replaced => "is no longer a regular file",
            Self::Size => "has another size",
            Self::Content => "has other bytes (its CRC-64 differs)",
        }
    }
}

/// Why something is not taken out of Docker's store. Paths are those of files in it, or
/// in a layer; they are quoted and escaped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is none of Docker's.
    #[error(
        "{} has no images of Docker: there is no image/overlay2; name its data root (`docker info` says it)",
        root.display()
    )]
    NotDocker {
        /// The directory.
        root: PathBuf,
    },
    /// The images are in containerd's store.
    #[error(
        "{} has no image/overlay2: this Docker keeps its images in containerd, in a form that is not read here; use `docker save`",
        root.display()
    )]
    Containerd {
        /// The directory.
        root: PathBuf,
    },
    /// Another storage driver has the layers.
    #[error(
        "{} keeps its layers by the storage driver {driver:?}, and only overlay2 is read; use `docker save`",
        root.display()
    )]
    Driver {
        /// The directory.
        root: PathBuf,
        /// The driver's name.
        driver: String,
    },
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
    /// A file of the store is something else.
    #[error("{} is no {expected}", path.display())]
    FileType {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// A file of the store is too large.
    #[error("{} has {actual} bytes, over the limit of {limit}", path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// How many bytes it has.
        actual: u64,
        /// How many are accepted.
        limit: u64,
    },
    /// A document of the store is not right.
    #[error("{} is not right", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: oci::Error,
    },
    /// A small file of the store makes no sense.
    #[error("{} has {fault}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What about it.
        fault: &'static str,
    },
    /// No image has this name.
    #[error("Docker has no image {name:?}; `--list` shows those that it has")]
    NotFound {
        /// The name.
        name: String,
    },
    /// Several images have an id that begins so.
    #[error("the ids of {images} images begin with {name:?}; give more digits")]
    Ambiguous {
        /// The beginning.
        name: String,
        /// How many.
        images: usize,
    },
    /// An image is named and not there.
    #[error("image {id} is named in Docker's store, and not in it")]
    ImageMissing {
        /// The image.
        id: Digest,
    },
    /// A config has other bytes than its id says.
    #[error("image {id} was changed in Docker's store: its config has the digest {actual}")]
    ImageDigest {
        /// The image.
        id: Digest,
        /// The digest of its config.
        actual: Digest,
    },
    /// A layer of an image is not there.
    #[error("layer {diff_id} is not in Docker's store")]
    LayerMissing {
        /// The layer.
        diff_id: DiffId,
    },
    /// There is nothing from which the tar of a layer could be made again.
    #[error(
        "layer {diff_id} has no tar-split data in Docker's store, from which its tar would be made; pull or load the image again"
    )]
    TarSplitMissing {
        /// The layer.
        diff_id: DiffId,
    },
    /// The tar-split data of a layer is not right.
    #[error("the tar-split data of layer {diff_id} is not right")]
    TarSplit {
        /// The layer.
        diff_id: DiffId,
        /// What is wrong with it.
        #[source]
        source: tar_split::Error,
    },
    /// A file was changed since the layer was unpacked.
    #[error(
        "layer {diff_id} was changed in Docker's store: the file {path:?} {}; pull or load the image again",
        change.text()
    )]
    FileChanged {
        /// The layer.
        diff_id: DiffId,
        /// The file.
        path: String,
        /// What about it.
        change: Change,
    },
    /// All parts of a layer are right by themselves, and the whole is not.
    #[error(
        "layer {diff_id} was changed in Docker's store: its tar has the digest {actual}; pull or load the image again"
    )]
    LayerChanged {
        /// The layer.
        diff_id: DiffId,
        /// What came of it.
        actual: DiffId,
    },
    /// A path would lead out of the layer.
    #[error("layer {diff_id} has the path {path:?}, which leads out of it")]
    PathEscapes {
        /// The layer.
        diff_id: DiffId,
        /// The path.
        path: String,
    },
    /// Docker did not keep where a sparse file has its holes.
    #[error(
        "layer {diff_id} has the sparse file {path:?}, of which Docker did not keep the map; its tar cannot be made again, by `docker save` neither"
    )]
    SparseMap {
        /// The layer.
        diff_id: DiffId,
        /// The file.
        path: String,
    },
    /// A layer comes to more than could be read back.
    #[error("layer {diff_id} comes to more than the limit of {limit} bytes")]
    LayerSize {
        /// The layer.
        diff_id: DiffId,
        /// The most bytes.
        limit: u64,
    },
}

impl Error {
    /// The stable name of this failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotDocker { .. } => "DOCKER_ROOT",
            Self::Containerd { .. } => "DOCKER_CONTAINERD",
            Self::Driver { .. } => "DOCKER_DRIVER",
            Self::Io { .. } => "DOCKER_READ",
            Self::FileType { .. } | Self::Malformed { .. } => "DOCKER_STORE",
            Self::FileSize { .. } => "LIMIT_DOCKER_FILE",
            Self::Document { source, .. } => source.code(),
            Self::NotFound { .. } | Self::Ambiguous { .. } => "DOCKER_IMAGE",
            Self::ImageMissing { .. } | Self::LayerMissing { .. } => "DOCKER_INCOMPLETE",
            Self::ImageDigest { .. } => "BLOB_DIGEST",
            Self::TarSplitMissing { .. } => "DOCKER_TAR_SPLIT_MISSING",
            Self::TarSplit { source, .. } => match source {
                tar_split::Error::LineTooLong { .. } | tar_split::Error::Lines { .. } => {
                    "LIMIT_TAR_SPLIT"
                }
                _ => "DOCKER_TAR_SPLIT",
            },
            Self::FileChanged { .. } => "DOCKER_FILE_CHANGED",
            Self::LayerChanged { .. } => "LAYER_DIFF_ID",
            Self::PathEscapes { .. } => "DOCKER_PATH",
            Self::SparseMap { .. } => "DOCKER_SPARSE_MAP",
            Self::LayerSize { .. } => "LIMIT_DECODED_SIZE",
        }
    }

    /// What it means to those who asked.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorClass::Missing
            }
            Self::Io { .. } => ErrorClass::Io,
            Self::Ambiguous { .. } => ErrorClass::Invalid,
            Self::NotDocker { .. }
            | Self::NotFound { .. }
            | Self::ImageMissing { .. }
            | Self::LayerMissing { .. }
            | Self::TarSplitMissing { .. } => ErrorClass::Missing,
            Self::ImageDigest { .. } | Self::FileChanged { .. } | Self::LayerChanged { .. } => {
                ErrorClass::Mismatch
            }
            Self::Containerd { .. } | Self::Driver { .. } | Self::SparseMap { .. } => {
                ErrorClass::Unsupported
            }
            Self::FileSize { .. } | Self::LayerSize { .. } => ErrorClass::Limit,
            Self::Document { source, .. } => crate::ingest::error::of_document(source),
            Self::TarSplit { source, .. } => match source {
                tar_split::Error::LineTooLong { .. } | tar_split::Error::Lines { .. } => {
                    ErrorClass::Limit
                }
                _ => ErrorClass::Malformed,
            },
            Self::FileType { .. } | Self::Malformed { .. } | Self::PathEscapes { .. } => {
                ErrorClass::Malformed
            }
        }
    }
}

/// A path of a layer as it is told.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
