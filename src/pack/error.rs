//! Why a tree cannot be packed.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::tar::Limit;

/// Why a tree cannot be packed. Paths are relative to its root, which is `.`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory is no longer what it was when its header was written.
    #[error("{} was changed while it was packed", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// A name that would hide something of other layers instead of being shown.
    #[error("{} cannot be packed: names that begin with .wh. mark what a layer removes", path.display())]
    Whiteout {
        /// Which.
        path: PathBuf,
    },
    /// More of something than is allowed.
    #[error("{}: more than the limit of {max} {limit}", path.display())]
    Limit {
        /// Where it was noticed.
        path: PathBuf,
        /// Of what.
        limit: Limit,
        /// How much is allowed.
        max: u64,
    },
    /// The tar would be larger than is read back.
    #[error("{}: the layer gets larger than the limit of {max} bytes", path.display())]
    TooLarge {
        /// Where it was noticed.
        path: PathBuf,
        /// How many bytes are allowed.
        max: u64,
    },
    /// The system refused to read something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The layer cannot be written.
    #[error("cannot write the layer")]
    Sink(#[source] io::Error),
}

impl Error {
    /// The stable name of this failure.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "TREE_CHANGED",
            Self::Whiteout { .. } => "TREE_WHITEOUT",
            Self::Limit { limit, .. } => limit.code(),
            Self::TooLarge { .. } => "LIMIT_DECODED_SIZE",
            Self::Io { .. } => "TREE_READ",
            Self::Sink(_) => "LAYER_WRITE",
        }
    }

    pub(super) fn io(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io {
            action,
            path: shown(path),
            source: source.into(),
        }
    }

    pub(super) fn changed(path: &[u8]) -> Self {
        Self::Changed { path: shown(path) }
    }
}

/// A path in the tree as messages have it.
pub(super) fn shown(path: &[u8]) -> PathBuf {
    match path {
        [] => PathBuf::from("."),
        path => Path::new(OsStr::from_bytes(path)).to_owned(),
    }
}
