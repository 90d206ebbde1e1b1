//! Offsets that say which bytes they count.

use std::fmt;

/// Counts stored (compressed) bytes from the start of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlobOffset(pub u64);

/// Counts decoded bytes from the start of a layer's tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TarOffset(pub u64);

impl fmt::Display for BlobOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stored byte {}", self.0)
    }
}

impl fmt::Display for TarOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "decoded byte {}", self.0)
    }
}
