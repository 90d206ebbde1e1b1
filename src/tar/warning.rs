//! What is odd about a tar that is read all the same.

use std::fmt;

/// How many warnings are kept in full; the others are counted.
const MAX_KEPT: usize = 64;

/// Something odd that has a reading. Bytes from the archive are escaped in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A path climbs above the root with `..`, and was stopped there.
    Climbs {
        /// Start of the header.
        header_offset: u64,
        /// The path as it was read.
        path: Vec<u8>,
    },
    /// A global pax header sets something that would change entries, and is ignored.
    GlobalPax {
        /// Start of the header.
        header_offset: u64,
        /// The first such key.
        key: Vec<u8>,
    },
    /// A pax header is without effect: another one, or a global one, or the end follows.
    UnusedPax {
        /// Start of the header that follows it, or the end.
        header_offset: u64,
    },
    /// A pax header and a GNU long name give different paths; the long name counts.
    TwoPaths {
        /// Start of the header.
        header_offset: u64,
    },
    /// A time cannot be represented, and was moved to the nearest that can.
    Time {
        /// Start of the header.
        header_offset: u64,
    },
    /// An extended attribute cannot be read or named, and is left out.
    Xattr {
        /// Start of the header.
        header_offset: u64,
        /// The pax key.
        key: Vec<u8>,
    },
    /// Something other than zeros follows the end of the archive, and is ignored.
    Trailing {
        /// Where the archive ends.
        end_offset: u64,
    },
}

impl Warning {
    /// The stable name of this warning.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Climbs { .. } => "TAR_PATH",
            Self::GlobalPax { .. } => "TAR_PAX_GLOBAL",
            Self::UnusedPax { .. } => "TAR_PAX_UNUSED",
            Self::TwoPaths { .. } => "TAR_TWO_PATHS",
            Self::Time { .. } => "TAR_TIME",
            Self::Xattr { .. } => "TAR_XATTR",
            Self::Trailing { .. } => "TAR_TRAILING",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Climbs {
                header_offset,
                path,
            } => write!(
                f,
                "tar header at byte {header_offset}: path \"{}\" climbs above the root",
                path.escape_ascii()
            ),
            Self::GlobalPax { header_offset, key } => write!(
                f,
                "global pax header at byte {header_offset}: \"{}\" is ignored",
                key.escape_ascii()
            ),
            Self::UnusedPax { header_offset } => write!(
                f,
                "the pax header before byte {header_offset} of the tar has no entry"
            ),
            Self::TwoPaths { header_offset } => write!(
                f,
                "tar header at byte {header_offset} has a pax path and another GNU long name"
            ),
            Self::Time { header_offset } => write!(
                f,
                "tar header at byte {header_offset}: the time is out of range"
            ),
            Self::Xattr { header_offset, key } => write!(
                f,
                "tar header at byte {header_offset}: \"{}\" is no extended attribute",
                key.escape_ascii()
            ),
            Self::Trailing { end_offset } => write!(
                f,
                "bytes after the end of the archive at byte {end_offset} are ignored"
            ),
        }
    }
}

/// The warnings of one tar: the first in full, of the others the number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings {
    kept: Vec<Warning>,
    more: u64,
}

impl Warnings {
    pub(super) fn push(&mut self, warning: Warning) {
        if self.kept.len() < MAX_KEPT {
            self.kept.push(warning);
        } else {
            self.more += 1;
        }
    }

    /// The first ones, in the order of the tar.
    #[must_use]
    pub fn first(&self) -> &[Warning] {
        &self.kept
    }

    /// How many there were after the first ones.
    #[must_use]
    pub const fn more(&self) -> u64 {
        self.more
    }
}
