//! What can be wrong with a tar.

use super::limits::Limit;

/// What an error means to those who asked; `vfs` makes an errno of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The bytes are no tar that makes sense.
    Malformed,
    /// They may make sense to others.
    Unsupported,
    /// They would cost more than is allowed.
    Limit,
}

/// Why a tar cannot be read.
///
/// `header_offset` is where the header in question starts, in decoded bytes from the
/// start of the tar; for an entry with extension headers, it is that of its own header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A header block's sum does not fit its bytes: damage, or no tar at all.
    #[error("tar header at byte {header_offset} fails its checksum")]
    Checksum {
        /// Start of the header.
        header_offset: u64,
    },
    /// A number in a header, or in a pax record, is none or does not fit its use.
    #[error("tar header at byte {header_offset}: {field} is not a number that fits")]
    Number {
        /// Start of the header.
        header_offset: u64,
        /// Which number.
        field: &'static str,
    },
    /// The records of a pax header break their grammar.
    #[error("pax header at byte {header_offset}: {fault}")]
    Pax {
        /// Start of the header.
        header_offset: u64,
        /// What about it.
        fault: &'static str,
    },
    /// A sparse file's map makes no sense, or does not fit the bytes that are stored.
    #[error("sparse file at byte {header_offset} of the tar: {fault}")]
    Sparse {
        /// Start of the header.
        header_offset: u64,
        /// What about it.
        fault: &'static str,
    },
    /// An entry of a type that no reader knows, or that belongs to an incremental or
    /// multi-volume archive.
    #[error("tar header at byte {header_offset} has the type {:?}, which no layer can have", char::from(*.flag))]
    Type {
        /// Start of the header.
        header_offset: u64,
        /// The type flag.
        flag: u8,
    },
    /// An entry of a type that only some readers know.
    #[error("tar header at byte {header_offset} has the type {:?}, which is not supported", char::from(*.flag))]
    UnsupportedType {
        /// Start of the header.
        header_offset: u64,
        /// The type flag.
        flag: u8,
    },
    /// A path cannot be used: it holds a NUL, or names the root and is no directory.
    #[error("tar header at byte {header_offset}: {fault}")]
    Path {
        /// Start of the header.
        header_offset: u64,
        /// What about it.
        fault: &'static str,
    },
    /// A component of a path, or a symlink's target, is longer than a file system allows.
    #[error("tar header at byte {header_offset}: a name of {len} bytes, where {max} are possible")]
    NameTooLong {
        /// Start of the header.
        header_offset: u64,
        /// How long it is.
        len: usize,
        /// How long it may be.
        max: usize,
    },
    /// A link has a target that no link can have.
    #[error("tar header at byte {header_offset}: {fault}")]
    Link {
        /// Start of the header.
        header_offset: u64,
        /// What about it.
        fault: &'static str,
    },
    /// A single block of zeros with something behind it: neither an entry nor the end.
    #[error("a lone block of zeros at byte {zero_offset} of the tar, with more behind it")]
    LoneZeroBlock {
        /// Start of the zeros.
        zero_offset: u64,
    },
    /// The tar ends within a header or within an entry's data.
    #[error("the tar ends early, at byte {end_offset}, in the entry at byte {header_offset}")]
    Truncated {
        /// Start of the header, or of what should have been one.
        header_offset: u64,
        /// Where the bytes end.
        end_offset: u64,
    },
    /// More of something than is allowed.
    #[error("tar header at byte {header_offset}: more than the limit of {max} {limit}")]
    Limit {
        /// Start of the header.
        header_offset: u64,
        /// Of what.
        limit: Limit,
        /// How many are allowed.
        max: u64,
    },
}

impl Error {
    /// The stable name of this failure.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Checksum { .. } => "TAR_CHECKSUM",
            Self::Number { .. } => "TAR_NUMBER",
            Self::Pax { .. } => "TAR_PAX",
            Self::Sparse { .. } => "TAR_SPARSE",
            Self::Type { .. } | Self::UnsupportedType { .. } => "TAR_TYPE",
            Self::Path { .. } => "TAR_PATH",
            Self::NameTooLong { .. } => "TAR_NAME_TOO_LONG",
            Self::Link { .. } => "TAR_LINK",
            Self::LoneZeroBlock { .. } => "TAR_ZERO_BLOCK",
            Self::Truncated { .. } => "TAR_TRUNCATED",
            Self::Limit { limit, .. } => limit.code(),
        }
    }

    /// What it means to those who asked.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Checksum { .. }
            | Self::Number { .. }
            | Self::Pax { .. }
            | Self::Sparse { .. }
            | Self::Type { .. }
            | Self::Path { .. }
            | Self::NameTooLong { .. }
            | Self::Link { .. }
            | Self::LoneZeroBlock { .. }
            | Self::Truncated { .. } => ErrorClass::Malformed,
            Self::UnsupportedType { .. } => ErrorClass::Unsupported,
            Self::Limit { .. } => ErrorClass::Limit,
        }
    }
}
