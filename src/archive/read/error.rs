//! Why an archive cannot be opened as a layout.

use std::io;
use std::path::PathBuf;

use crate::archive::{self, ErrorClass};
use crate::store::layout;
use crate::store::verify::MAX_BLOB_SIZE;
use crate::{layer, stream, tar};

/// Why an archive cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is neither a regular file nor a directory.
    #[error("{} is neither an archive nor a directory", path.display())]
    FileType {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The archive.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file was written to while it was opened.
    #[error("{} changes: another program is writing it", path.display())]
    Changed {
        /// The archive.
        path: PathBuf,
    },
    /// It, or a layer in it, is too large to be hashed.
    #[error(
        "{} cannot be hashed: {size} bytes are over the limit of {MAX_BLOB_SIZE} (blob size)",
        path.display()
    )]
    TooLarge {
        /// The archive.
        path: PathBuf,
        /// How many bytes would have to be hashed.
        size: u64,
    },
    /// Its compressed bytes cannot be decoded.
    #[error("{} cannot be decoded", path.display())]
    Stream {
        /// The archive.
        path: PathBuf,
        /// What is wrong with them.
        #[source]
        source: stream::Error,
    },
    /// The pass over its compressed bytes failed for another reason.
    #[error("{} cannot be read", path.display())]
    Pass {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: layer::Error,
    },
    /// It is no tar, or no right one.
    #[error("{} is no archive of images: as a tar it cannot be read", path.display())]
    Tar {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: tar::Error,
    },
    /// It is a tar of something else.
    #[error(
        "{} is no archive of images: it has neither oci-layout nor a manifest.json of docker save",
        path.display()
    )]
    NotAnArchive {
        /// The tar.
        path: PathBuf,
    },
    /// What it says of its images is not right.
    #[error("{} cannot be read", path.display())]
    Content {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: archive::Error,
    },
    /// Its index is not right.
    #[error(transparent)]
    Index(layout::Error),
}

impl Error {
    /// The stable name of this failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::FileType { .. } => "ARCHIVE_FILE_TYPE",
            Self::Io { .. } => "ARCHIVE_READ",
            Self::Changed { .. } => "ARCHIVE_CHANGED",
            Self::TooLarge { .. } => "LIMIT_BLOB_SIZE",
            Self::Stream { source, .. } => source.code(),
            Self::Pass { source, .. } => source.code(),
            Self::Tar { source, .. } => source.code(),
            Self::NotAnArchive { .. } => "ARCHIVE_UNKNOWN",
            Self::Content {
                source: archive::Error::Missing { .. },
                ..
            } => "ARCHIVE_INCOMPLETE",
            Self::Content { source, .. } => source.code(),
            Self::Index(layout::Error::Content { source, .. }) => source.code(),
            Self::Index(_) => "LAYOUT_FILE_EMPTY",
        }
    }

    /// What it means to those who asked; `None` if the system is at fault and not the
    /// archive.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        Some(match self {
            Self::Io { .. } => return None,
            Self::FileType { .. } | Self::NotAnArchive { .. } => ErrorClass::Unsupported,
            Self::Changed { .. } => ErrorClass::Mismatch,
            Self::TooLarge { .. } => ErrorClass::Limit,
            Self::Stream { source, .. } => return of_stream(source.class()),
            Self::Pass { source, .. } => return of_stream(source.class()),
            Self::Tar { source, .. } => match source.class() {
                tar::ErrorClass::Malformed => ErrorClass::Malformed,
                tar::ErrorClass::Unsupported => ErrorClass::Unsupported,
                tar::ErrorClass::Limit => ErrorClass::Limit,
            },
            Self::Content { source, .. } => source.class(),
            Self::Index(layout::Error::Content { source, .. }) => source.class().into(),
            Self::Index(_) => ErrorClass::Malformed,
        })
    }
}

fn of_stream(class: stream::ErrorClass) -> Option<ErrorClass> {
    match class {
        stream::ErrorClass::Mismatch => Some(ErrorClass::Mismatch),
        stream::ErrorClass::Malformed => Some(ErrorClass::Malformed),
        stream::ErrorClass::Unsupported => Some(ErrorClass::Unsupported),
        stream::ErrorClass::Limit => Some(ErrorClass::Limit),
        stream::ErrorClass::Io | stream::ErrorClass::ShutDown => None,
    }
}
