//! Why the layers of an image make no root file system.

/// Why the layers of an image make no root file system. Layers count from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A whiteout that says nothing that makes sense.
    #[error("layer {layer}: whiteout \"{}\": {fault}", path.escape_ascii())]
    Whiteout {
        /// Which layer it is in.
        layer: usize,
        /// Its path.
        path: Vec<u8>,
        /// What about it.
        fault: &'static str,
    },
    /// A path leads through a symlink of a lower layer that leads in circles.
    #[error("layer {layer}: \"{}\" leads through a symlink that cannot be followed", path.escape_ascii())]
    SymlinkLoop {
        /// Which layer the path is in.
        layer: usize,
        /// The path.
        path: Vec<u8>,
    },
    /// More of something than can be.
    #[error("the root file system has more than the limit of {max} {what}")]
    Limit {
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
            Self::Whiteout { .. } => "LAYER_WHITEOUT",
            Self::SymlinkLoop { .. } => "LAYER_SYMLINK_LOOP",
            Self::Limit { .. } => "LIMIT_ROOTFS",
        }
    }
}
