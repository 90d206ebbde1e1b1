//! Accepted sizes and depths, each with its reason.
//!
//! These bound what the bytes of a stranger can cost in memory and time. All are far above
//! what real images need. What exceeds one is an [`Error`] of class
//! [`ErrorClass::Limit`](super::ErrorClass::Limit) that names the [`Limit`].

use std::fmt;

use super::Error;

/// The largest manifest, image index or config, in bytes. Registries commonly refuse
/// manifests over 4 MiB; a parsed document takes about ten times its size in memory.
pub const MAX_DOCUMENT_SIZE: u64 = 8 << 20;

/// The largest `index.json` of a layout, in bytes. Entries take 200 to 600 bytes: 100,000
/// refs are some 50 MiB, and a layout that works must not stop to do so as it grows.
pub const MAX_INDEX_JSON_SIZE: u64 = 256 << 20;

/// The largest `oci-layout` file, in bytes. It holds one short member.
pub const MAX_LAYOUT_FILE_SIZE: u64 = 64 << 10;

/// The most values (scalars, arrays and objects together) in an `index.json`. A value may
/// be one byte of text and takes 72 bytes in memory, an object with members some 500, so
/// the size alone does not bound the memory. An entry has about ten.
pub const MAX_JSON_VALUES: u64 = 4_000_000;

/// The most values in a manifest, image index or config. Fewer than in an `index.json`,
/// since any image can bring such a document; 40,000 entries of an index stay within.
pub const MAX_DOCUMENT_VALUES: u64 = 500_000;

/// The most values in a line of tar-split data. Lines are long for what their text holds,
/// and have seven values at most.
pub const MAX_LINE_VALUES: u64 = 64;

/// The deepest nesting of arrays and objects in JSON. The specification needs five; each
/// level takes some hundred bytes of a thread's stack.
pub const MAX_JSON_DEPTH: usize = 128;

/// The most layers of one image. Docker stops at 127; merging is linear in them.
pub const MAX_LAYERS: u64 = 4_096;

/// The deepest nesting of image indexes, the outermost counted as 1. Real ones have two
/// (BuildKit's, within a layout); a walk uses one stack frame for each.
pub const MAX_INDEX_DEPTH: u64 = 16;

/// The longest ref name, in bytes: the longest path that the kernel takes.
pub const MAX_REF_NAME: u64 = 4_096;

/// A limit, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`MAX_DOCUMENT_SIZE`].
    DocumentSize,
    /// [`MAX_INDEX_JSON_SIZE`].
    IndexJsonSize,
    /// [`MAX_LAYOUT_FILE_SIZE`].
    LayoutFileSize,
    /// [`MAX_JSON_VALUES`].
    JsonValues,
    /// [`MAX_DOCUMENT_VALUES`].
    DocumentValues,
    /// [`MAX_LINE_VALUES`].
    LineValues,
    /// [`MAX_LAYERS`].
    Layers,
    /// [`MAX_INDEX_DEPTH`].
    IndexDepth,
    /// [`MAX_REF_NAME`].
    RefName,
}

impl Limit {
    /// The largest value that is accepted.
    #[must_use]
    pub const fn value(self) -> u64 {
        match self {
            Self::DocumentSize => MAX_DOCUMENT_SIZE,
            Self::IndexJsonSize => MAX_INDEX_JSON_SIZE,
            Self::LayoutFileSize => MAX_LAYOUT_FILE_SIZE,
            Self::JsonValues => MAX_JSON_VALUES,
            Self::DocumentValues => MAX_DOCUMENT_VALUES,
            Self::LineValues => MAX_LINE_VALUES,
            Self::Layers => MAX_LAYERS,
            Self::IndexDepth => MAX_INDEX_DEPTH,
            Self::RefName => MAX_REF_NAME,
        }
    }

    /// The stable code of an [`Error`] about this limit.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::DocumentSize => "LIMIT_DOCUMENT_SIZE",
            Self::IndexJsonSize => "LIMIT_INDEX_JSON_SIZE",
            Self::LayoutFileSize => "LIMIT_LAYOUT_FILE_SIZE",
            Self::JsonValues | Self::DocumentValues | Self::LineValues => "LIMIT_JSON_VALUES",
            Self::Layers => "LIMIT_LAYERS",
            Self::IndexDepth => "LIMIT_INDEX_DEPTH",
            Self::RefName => "LIMIT_REF_NAME",
        }
    }

    /// Accepts `actual` if the limit allows it.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub const fn check(self, actual: u64) -> Result<(), Error> {
        if actual > self.value() {
            return Err(Error::Limit {
                limit: self,
                actual,
            });
        }
        Ok(())
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DocumentSize => "document size",
            Self::IndexJsonSize => "size of index.json",
            Self::LayoutFileSize => "size of oci-layout",
            Self::JsonValues | Self::DocumentValues | Self::LineValues => "number of JSON values",
            Self::Layers => "number of layers",
            Self::IndexDepth => "nesting of image indexes",
            Self::RefName => "length of the ref name",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_is_accepted() {
        assert!(Limit::Layers.check(MAX_LAYERS).is_ok());
        let error = Limit::Layers.check(10_001).expect_err("it is wrong");
        assert_eq!(
            error.to_string(),
            "number of layers 10001 is over the limit of 4096"
        );
        assert_eq!(error.code(), "LIMIT_LAYERS");
        assert_eq!(error.class(), crate::oci::ErrorClass::Limit);
    }
}
