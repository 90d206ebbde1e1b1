//! Why a layer is not served.

use std::io;
use std::sync::Arc;

use crate::layer::tree;
use crate::oci::Digest;
use crate::store::verify;
use crate::stream;
pub use crate::stream::ErrorClass;
use crate::tar;

/// Why a layer cannot be opened or read. Cheap to clone: all that wait get the same one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The blob's bytes have another digest.
    #[error("layer {expected} is damaged: its bytes have the digest {actual}")]
    DigestMismatch {
        /// The digest under which the blob is stored.
        expected: Digest,
        /// The digest of its bytes.
        actual: Digest,
    },
    /// The blob's file changed while it was read.
    #[error("layer {digest} changed while it was read")]
    Changed {
        /// The layer's blob.
        digest: Digest,
    },
    /// The digest cannot be computed here.
    #[error("digest algorithm of layer {digest} is not supported")]
    Algorithm {
        /// The layer's blob.
        digest: Digest,
    },
    /// The blob is too large to be hashed.
    #[error("layer {digest} has {size} bytes, over the limit of {limit} (blob size)")]
    TooLarge {
        /// The layer's blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The bytes are those of the digest, and decoding them fails; or they were, and are
    /// not any more.
    #[error("layer {digest}: {source}")]
    Stream {
        /// The layer's blob.
        digest: Digest,
        /// What is wrong.
        source: stream::Error,
    },
    /// The bytes decode well, and are no tar that makes sense.
    #[error("layer {digest}: {source}")]
    Tree {
        /// The layer's blob.
        digest: Digest,
        /// What is wrong.
        source: tree::Error,
    },
    /// The blob's file cannot be read.
    #[error("cannot read layer {digest}")]
    Read {
        /// The layer's blob.
        digest: Digest,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The pass ended without a result, by a fault of this program.
    #[error("the pass over layer {digest} broke off")]
    BrokenOff {
        /// The layer's blob.
        digest: Digest,
    },
    /// Everything that waits is told to end.
    #[error("shutting down")]
    ShutDown,
}

impl Error {
    /// The stable name of this failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::DigestMismatch { .. } => "BLOB_DIGEST",
            Self::Changed { .. } => "BLOB_CHANGED",
            Self::Algorithm { .. } => "DIGEST_ALGORITHM",
            Self::TooLarge { .. } => "LIMIT_BLOB_SIZE",
            Self::Stream { source, .. } => source.code(),
            Self::Tree { source, .. } => source.code(),
            Self::Read { .. } => "BLOB_READ",
            Self::BrokenOff { .. } => "PASS_BROKEN_OFF",
            Self::ShutDown => "SHUT_DOWN",
        }
    }

    /// What it means to those who asked.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::DigestMismatch { .. } | Self::Changed { .. } => ErrorClass::Mismatch,
            Self::Algorithm { .. } => ErrorClass::Unsupported,
            Self::TooLarge { .. } => ErrorClass::Limit,
            Self::Stream { source, .. } => source.class(),
            Self::Tree { source, .. } => match source.class() {
                tar::ErrorClass::Malformed => ErrorClass::Malformed,
                tar::ErrorClass::Unsupported => ErrorClass::Unsupported,
                tar::ErrorClass::Limit => ErrorClass::Limit,
            },
            Self::Read { .. } | Self::BrokenOff { .. } => ErrorClass::Io,
            Self::ShutDown => ErrorClass::ShutDown,
        }
    }

    /// Whether it is a fact about the bytes, so that trying again brings the same.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Changed { .. } | Self::Read { .. } | Self::BrokenOff { .. } | Self::ShutDown => {
                false
            }
            Self::DigestMismatch { .. }
            | Self::Algorithm { .. }
            | Self::TooLarge { .. }
            | Self::Tree { .. } => true,
            Self::Stream { source, .. } => source.is_of_the_stream(),
        }
    }

    /// An error of the stream, or of what lies beneath it.
    pub(crate) fn stream(digest: &Digest, source: stream::Error) -> Self {
        let digest = digest.clone();
        match source {
            stream::Error::Stopped => Self::ShutDown,
            stream::Error::Shrunk => Self::Changed { digest },
            stream::Error::Read { source } => Self::Read { digest, source },
            source => Self::Stream { digest, source },
        }
    }
}

impl From<verify::Error> for Error {
    fn from(error: verify::Error) -> Self {
        match error {
            verify::Error::DigestMismatch { expected, actual } => {
                Self::DigestMismatch { expected, actual }
            }
            verify::Error::Changed { digest } => Self::Changed { digest },
            verify::Error::Algorithm { digest } => Self::Algorithm { digest },
            verify::Error::TooLarge { digest, size } => Self::TooLarge {
                digest,
                size,
                limit: verify::MAX_BLOB_SIZE,
            },
            // A blob may lie in a stream itself.
            verify::Error::Read { digest, source } => {
                Self::stream(&digest, stream::Error::from_read(source))
            }
        }
    }
}
