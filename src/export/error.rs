//! Why there is no archive of an image.

use std::io;

use crate::oci::{self, Digest};
use crate::store::{layout, verify};

/// Why an image cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A blob is not in the layout, or cannot be opened.
    #[error(transparent)]
    Layout(#[from] layout::Error),
    /// A blob has another size than its descriptor says.
    #[error("blob {digest} has {actual} bytes, its descriptor says {expected}")]
    BlobSize {
        /// The blob.
        digest: Digest,
        /// The size that the descriptor says.
        expected: u64,
        /// The size that it has.
        actual: u64,
    },
    /// The bytes of a blob are not right, or cannot be read.
    #[error(transparent)]
    Blob(#[from] verify::Error),
    /// A manifest or an index, or what a descriptor says of a blob, is not right.
    #[error("{digest} is not right")]
    Document {
        /// The document.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: oci::Error,
    },
    /// The image leads to more than is looked at.
    #[error("the image leads to more than {limit} {what}")]
    TooMany {
        /// More of what.
        what: &'static str,
        /// How many are accepted.
        limit: u64,
    },
    /// The sizes that descriptors say add up to more than a file can have.
    #[error("the archive would be larger than any file can be")]
    TooLarge,
    /// There is no manifest that could be in a docker-archive.
    #[error("there is no image for this platform")]
    NoImage,
    /// It is an artifact, which docker does not take.
    #[error("{digest} is no image that docker can load")]
    NotAnImage {
        /// Its manifest.
        digest: Digest,
    },
    /// The archive could not be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

impl Error {
    /// Where several apply, the one with the lowest rank is told.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Layout(layout::Error::BlobMissing { .. }) => 0,
            Self::BlobSize { .. } | Self::Blob(verify::Error::DigestMismatch { .. }) => 1,
            Self::Document { source, .. } => match source.class() {
                oci::ErrorClass::Mismatch => 1,
                oci::ErrorClass::Malformed => 2,
                oci::ErrorClass::Unsupported => 3,
                oci::ErrorClass::Limit => 4,
            },
            Self::NoImage | Self::NotAnImage { .. } => 3,
            Self::TooMany { .. } | Self::TooLarge => 4,
            Self::Layout(_) | Self::Blob(_) | Self::Write(_) => 5,
        }
    }
}
