//! Why something is not brought in.

use std::io;
use std::sync::Arc;

use super::docker_root;
use crate::oci::{self, DiffId, Digest};
use crate::store::layout::refs::Refusal;
use crate::store::layout::{self, writer};
use crate::store::verify::{self, MAX_BLOB_SIZE};
use crate::{archive, layer, stream, tar};

/// What an error means to those who asked; `vfs` makes an errno of it. Where several apply
/// to one file the least is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// The disk or the system failed.
    Io,
    /// The name cannot be used.
    Invalid,
    /// Another image has the name.
    Exists,
    /// Something is named and not in the layout.
    Missing,
    /// Bytes differ from their digest or size.
    Mismatch,
    /// Malformed or ambiguous.
    Malformed,
    /// It may be right, but is not handled here.
    Unsupported,
    /// It would cost more than is allowed.
    Limit,
}

/// Why something is not brought in. The layout is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file name cannot become a ref name.
    #[error("{name:?} cannot become a ref name: {fault}")]
    Name {
        /// The file name.
        name: String,
        /// What about it.
        fault: &'static str,
    },
    /// The archive is not right.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// Docker's own store does not give it.
    #[error(transparent)]
    Docker(#[from] docker_root::Error),
    /// A manifest, an index, a config or an entry is not right.
    #[error("{what} is not right")]
    Document {
        /// Which one: its digest, or its name.
        what: String,
        /// What is wrong with it.
        #[source]
        source: oci::Error,
    },
    /// The compressed stream cannot be decoded.
    #[error(transparent)]
    Stream(stream::Error),
    /// The tar makes no sense.
    #[error(transparent)]
    Tree(#[from] layer::tree::Error),
    /// A blob that is named is nowhere.
    #[error(
        "blob {digest} is named, and neither given nor in this layout; bring it in first, or in one archive"
    )]
    Missing {
        /// The blob.
        digest: Digest,
    },
    /// Bytes have another digest than their name says.
    #[error("{what} has the digest {actual}, not {expected}")]
    DigestMismatch {
        /// The file that has the name.
        what: String,
        /// The digest of its name.
        expected: Digest,
        /// The digest of its bytes.
        actual: Digest,
    },
    /// A blob has another size than its descriptor says.
    #[error("blob {digest} has {actual} bytes, its descriptor says {expected}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// What the descriptor says.
        expected: u64,
        /// How many there are.
        actual: u64,
    },
    /// A digest that cannot be computed here.
    #[error("digest algorithm of {digest} is not supported")]
    Algorithm {
        /// The digest.
        digest: Digest,
    },
    /// A config says another digest of an uncompressed layer than the layer has.
    #[error("layer {path:?} uncompressed has the digest {actual}, the config says {expected}")]
    DiffId {
        /// The layer's path in the archive.
        path: String,
        /// What the config says.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// Something that would become a blob is larger than any that could be verified later.
    #[error("{what} has {size} bytes, over the limit of {MAX_BLOB_SIZE} (blob size)")]
    BlobTooLarge {
        /// The path in an archive, or the digest; or that it is all of what was given.
        what: String,
        /// How many bytes it has.
        size: u64,
    },
    /// There are more files than can be held open until all are looked at.
    #[error("more than the limit of {limit} blobs in one import; bring it in by parts")]
    TooManyBlobs {
        /// How many are allowed.
        limit: usize,
    },
    /// The process may not open so many files.
    #[error("too many open files; raise the limit (ulimit -n) above the number of blobs")]
    TooManyFiles {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What was given cannot be read.
    #[error("cannot read what was given")]
    Read {
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The layout cannot be written, or does not take it.
    #[error(transparent)]
    Writer(writer::Error),
}

/// Sees that something of this size can become a blob, before any of it is written.
///
/// # Errors
/// [`Error::BlobTooLarge`].
pub(super) fn check_blob_size(size: u64, what: impl FnOnce() -> String) -> Result<(), Error> {
    if size > MAX_BLOB_SIZE {
        let what = what();
        return Err(Error::BlobTooLarge { what, size });
    }
    Ok(())
}

impl From<writer::Error> for Error {
    fn from(error: writer::Error) -> Self {
        match error {
            writer::Error::Io { source, .. }
                if source.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) =>
            {
                Self::TooManyFiles { source }
            }
            error => Self::Writer(error),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Writer(refusal.into())
    }
}

impl From<stream::Error> for Error {
    fn from(error: stream::Error) -> Self {
        match error {
            stream::Error::Read { source } => Self::Read { source },
            error => Self::Stream(error),
        }
    }
}

impl From<tar::Error> for Error {
    fn from(error: tar::Error) -> Self {
        Self::Tree(error.into())
    }
}

impl Error {
    /// A failure to read what was given.
    pub(super) fn read(source: io::Error) -> Self {
        stream::Error::from_read(source).into()
    }

    /// The stable name of this failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name { .. } => "REF_NAME_GRAMMAR",
            Self::Archive(error) => error.code(),
            Self::Docker(error) => error.code(),
            Self::Document { source, .. } => source.code(),
            Self::Stream(error) => error.code(),
            Self::Tree(error) => error.code(),
            Self::Missing { .. } => "COMMIT_INCOMPLETE",
            Self::DigestMismatch { .. } => "BLOB_DIGEST",
            Self::SizeMismatch { .. } => "BLOB_SIZE",
            Self::Algorithm { .. } => "DIGEST_ALGORITHM",
            Self::DiffId { .. } => "LAYER_DIFF_ID",
            Self::BlobTooLarge { .. } => "LIMIT_BLOB_SIZE",
            Self::TooManyBlobs { .. } => "LIMIT_IMPORT_BLOBS",
            Self::TooManyFiles { .. } => "LIMIT_OPEN_FILES",
            Self::Read { .. } => "SOURCE_READ",
            Self::Writer(error) => code_of_writer(error),
        }
    }

    /// What it means to those who asked.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Name { .. } => ErrorClass::Invalid,
            Self::Archive(error) => match error.class() {
                archive::ErrorClass::Missing => ErrorClass::Missing,
                archive::ErrorClass::Mismatch => ErrorClass::Mismatch,
                archive::ErrorClass::Malformed => ErrorClass::Malformed,
                archive::ErrorClass::Unsupported => ErrorClass::Unsupported,
                archive::ErrorClass::Limit => ErrorClass::Limit,
            },
            Self::Docker(error) => error.class(),
            Self::Document { source, .. } => of_document(source),
            Self::Stream(error) => match error.class() {
                stream::ErrorClass::Mismatch => ErrorClass::Mismatch,
                stream::ErrorClass::Malformed => ErrorClass::Malformed,
                stream::ErrorClass::Unsupported => ErrorClass::Unsupported,
                stream::ErrorClass::Limit => ErrorClass::Limit,
                stream::ErrorClass::Io | stream::ErrorClass::ShutDown => ErrorClass::Io,
            },
            Self::Tree(error) => match error.class() {
                tar::ErrorClass::Malformed => ErrorClass::Malformed,
                tar::ErrorClass::Unsupported => ErrorClass::Unsupported,
                tar::ErrorClass::Limit => ErrorClass::Limit,
            },
            Self::Missing { .. } => ErrorClass::Missing,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } | Self::DiffId { .. } => {
                ErrorClass::Mismatch
            }
            Self::Algorithm { .. } => ErrorClass::Unsupported,
            Self::BlobTooLarge { .. } | Self::TooManyBlobs { .. } => ErrorClass::Limit,
            Self::TooManyFiles { .. } | Self::Read { .. } => ErrorClass::Io,
            Self::Writer(error) => class_of_writer(error),
        }
    }
}

pub(super) fn of_document(error: &oci::Error) -> ErrorClass {
    match error.class() {
        oci::ErrorClass::Malformed => ErrorClass::Malformed,
        oci::ErrorClass::Unsupported => ErrorClass::Unsupported,
        oci::ErrorClass::Limit => ErrorClass::Limit,
        oci::ErrorClass::Mismatch => ErrorClass::Mismatch,
    }
}

fn code_of_writer(error: &writer::Error) -> &'static str {
    use writer::Error as E;
    match error.kind() {
        E::Layout(layout::Error::BlobMissing { .. }) => "COMMIT_INCOMPLETE",
        E::Layout(layout::Error::Content { source, .. }) => source.code(),
        E::Layout(layout::Error::Version { .. }) => "LAYOUT_VERSION",
        E::Layout(_) => "LAYOUT",
        E::Refused(Refusal::Malformed { source, .. }) => source.code(),
        E::Refused(_) => "REF_EXISTS",
        E::Lock { .. } | E::Contended { .. } => "LAYOUT_BUSY",
        E::DigestMismatch { .. } | E::Blob(verify::Error::DigestMismatch { .. }) => "BLOB_DIGEST",
        E::SizeMismatch { .. } => "BLOB_SIZE",
        E::Algorithm { .. } | E::Blob(verify::Error::Algorithm { .. }) => "DIGEST_ALGORITHM",
        E::Blob(verify::Error::Changed { .. }) => "BLOB_CHANGED",
        E::Blob(verify::Error::TooLarge { .. }) => "LIMIT_BLOB_SIZE",
        E::Blob(verify::Error::Read { .. }) => "BLOB_READ",
        E::Shared(_) | E::Abandoned | E::Io { .. } => "LAYOUT_WRITE",
    }
}

fn class_of_writer(error: &writer::Error) -> ErrorClass {
    use writer::Error as E;
    match error.kind() {
        E::Layout(layout::Error::BlobMissing { .. }) => ErrorClass::Missing,
        E::Layout(layout::Error::Io { .. })
        | E::Shared(_)
        | E::Abandoned
        | E::Lock { .. }
        | E::Contended { .. }
        | E::Io { .. } => ErrorClass::Io,
        E::Layout(layout::Error::Content { source, .. })
        | E::Refused(Refusal::Malformed { source, .. }) => of_document(source),
        E::Layout(layout::Error::Version { .. }) => ErrorClass::Unsupported,
        E::Layout(_) => ErrorClass::Malformed,
        E::Refused(_) => ErrorClass::Exists,
        E::DigestMismatch { .. } | E::SizeMismatch { .. } => ErrorClass::Mismatch,
        E::Algorithm { .. } => ErrorClass::Unsupported,
        E::Blob(error) => match error {
            verify::Error::DigestMismatch { .. } | verify::Error::Changed { .. } => {
                ErrorClass::Mismatch
            }
            verify::Error::Algorithm { .. } => ErrorClass::Unsupported,
            verify::Error::TooLarge { .. } => ErrorClass::Limit,
            verify::Error::Read { .. } => ErrorClass::Io,
        },
    }
}
