//! Why the entries of a layer make no tree.

use crate::tar::{self, ErrorClass};

/// Why the entries of a layer make no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The tar itself cannot be read.
    #[error(transparent)]
    Tar(#[from] tar::Error),
    /// A hard link leads to a directory.
    #[error("tar header at byte {header_offset}: a hard link to a directory")]
    DirectoryLink {
        /// Start of the header.
        header_offset: u64,
    },
    /// A path leads through a symlink that leads nowhere: in circles, through too many
    /// others, or to a name that is too long.
    #[error(
        "tar header at byte {header_offset}: its path leads through a symlink that cannot be followed"
    )]
    SymlinkLoop {
        /// Start of the header.
        header_offset: u64,
    },
    /// More nodes, or more bytes of metadata, than are allowed.
    #[error("tar header at byte {header_offset}: more than the limit of {max} {what}")]
    Limit {
        /// Start of the header.
        header_offset: u64,
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        max: u64,
    },
}

impl Error {
    /// The stable name of this failure.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Tar(source) => source.code(),
            Self::DirectoryLink { .. } => "TAR_LINK",
            Self::SymlinkLoop { .. } => "TAR_SYMLINK_LOOP",
            Self::Limit { .. } => "LIMIT_TAR_TREE",
        }
    }

    /// What it means to those who asked.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Tar(source) => source.class(),
            Self::DirectoryLink { .. } | Self::SymlinkLoop { .. } => ErrorClass::Malformed,
            Self::Limit { .. } => ErrorClass::Limit,
        }
    }
}
