//! Why the entries of a layer make no tree.

use std::sync::Arc;

use crate::tar::{self, ErrorClass};

/// The names of all failures that are facts about the bytes, whatever is accepted.
const CODES: [&str; 11] = [
    "TAR_CHECKSUM",
    "TAR_LINK",
    "TAR_NAME_TOO_LONG",
    "TAR_NUMBER",
    "TAR_PATH",
    "TAR_PAX",
    "TAR_SPARSE",
    "TAR_SYMLINK_LOOP",
    "TAR_TRUNCATED",
    "TAR_TYPE",
    "TAR_ZERO_BLOCK",
];

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
    /// What an earlier pass found, in any process.
    #[error("{text}")]
    Known {
        /// The stable name of the failure.
        code: &'static str,
        /// What it means to those who asked.
        class: ErrorClass,
        /// What the pass said.
        text: Arc<str>,
    },
}

impl Error {
    /// The failure that had this name, this meaning and this text; `None` if there is no
    /// such name, or it depends on what is accepted.
    #[must_use]
    pub fn known(code: &str, class: ErrorClass, text: &str) -> Option<Self> {
        let code = CODES.into_iter().find(|known| *known == code)?;
        (class != ErrorClass::Limit).then(|| Self::Known {
            code,
            class,
            text: text.into(),
        })
    }

    /// The stable name of this failure.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Tar(source) => source.code(),
            Self::DirectoryLink { .. } => "TAR_LINK",
            Self::SymlinkLoop { .. } => "TAR_SYMLINK_LOOP",
            Self::Limit { .. } => "LIMIT_TAR_TREE",
            Self::Known { code, .. } => code,
        }
    }

    /// What it means to those who asked.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Tar(source) => source.class(),
            Self::DirectoryLink { .. } | Self::SymlinkLoop { .. } => ErrorClass::Malformed,
            Self::Limit { .. } => ErrorClass::Limit,
            Self::Known { class, .. } => *class,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_bytes_is_known_again() {
        let (header_offset, fault, flag) = (512, "a fault", b'Z');
        let rows: [Error; 14] = [
            tar::Error::Checksum { header_offset }.into(),
            tar::Error::Number {
                header_offset,
                field: "size",
            }
            .into(),
            tar::Error::Pax {
                header_offset,
                fault,
            }
            .into(),
            tar::Error::Sparse {
                header_offset,
                fault,
            }
            .into(),
            tar::Error::Type {
                header_offset,
                flag,
            }
            .into(),
            tar::Error::UnsupportedType {
                header_offset,
                flag,
            }
            .into(),
            tar::Error::Path {
                header_offset,
                fault,
            }
            .into(),
            tar::Error::NameTooLong {
                header_offset,
                len: 256,
                max: 255,
            }
            .into(),
            tar::Error::Link {
                header_offset,
                fault,
            }
            .into(),
            tar::Error::LoneZeroBlock { zero_offset: 0 }.into(),
            tar::Error::Truncated {
                header_offset,
                end_offset: 700,
            }
            .into(),
            Error::DirectoryLink { header_offset },
            Error::SymlinkLoop { header_offset },
            Error::Known {
                code: "TAR_PAX",
                class: ErrorClass::Malformed,
                text: "as before".into(),
            },
        ];
        for error in rows {
            let text = error.to_string();
            let known = Error::known(error.code(), error.class(), &text);
            let known = known.unwrap_or_else(|| panic!("{text}: {} is not known", error.code()));
            let facts = |error: &Error| (error.code(), error.class(), error.to_string());
            assert_eq!(facts(&known), facts(&error));
        }
        for (code, class) in [
            ("LIMIT_TAR_TREE", ErrorClass::Limit),
            ("TAR_PAX", ErrorClass::Limit),
            ("TAR_OTHER", ErrorClass::Malformed),
        ] {
            assert_eq!(Error::known(code, class, ""), None, "{code}");
        }
    }
}
