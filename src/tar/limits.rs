//! What is accepted of a layer's tar.

use std::fmt;

/// Bounds on what the headers of a tar may cost; all can be lowered by tests and options.
///
/// They bound metadata only: the bytes of files are skipped, and cost nothing here.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most entries of one layer. The largest real ones have some 500,000; zero-length
    /// entries compress a thousandfold, so a few kilobytes can claim ten million.
    pub entries: u64,
    /// The largest body of one extension header (pax records, GNU long name), in bytes.
    /// Go's archive/tar and libarchive stop there too.
    pub extension_size: u64,
    /// The most records of one pax header, those of a sparse map (form 0.0) not counted.
    pub pax_records: u64,
    /// The most global pax headers. Real archives have one, and all are ignored.
    pub global_headers: u64,
    /// The most regions of one sparse file, empty ones included. A map takes 16 bytes for
    /// each in memory, and GNU tar writes one for each hole.
    pub sparse_regions: u64,
    /// The most components of a path. The kernel's longest path has 2,048; deeper ones can
    /// be made step by step, and every walk of the tree pays for each step.
    pub depth: u64,
    /// The most bytes that paths, targets, extended attributes and sparse maps of all
    /// entries take together. Real layers stay below 100 MiB.
    pub metadata: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            extension_size: 1 << 20,
            pax_records: 4_096,
            global_headers: 65_536,
            sparse_regions: 65_536,
            depth: 4_096,
            metadata: 1 << 30,
        }
    }
}

/// A limit, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`Limits::entries`].
    Entries,
    /// [`Limits::extension_size`].
    ExtensionSize,
    /// [`Limits::pax_records`].
    PaxRecords,
    /// [`Limits::global_headers`].
    GlobalHeaders,
    /// [`Limits::sparse_regions`].
    SparseRegions,
    /// [`Limits::depth`].
    Depth,
    /// [`Limits::metadata`].
    Metadata,
}

impl Limit {
    /// The stable name of the failure to keep to it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Entries => "LIMIT_TAR_ENTRIES",
            Self::ExtensionSize => "LIMIT_TAR_EXTENSION",
            Self::PaxRecords => "LIMIT_TAR_PAX_RECORDS",
            Self::GlobalHeaders => "LIMIT_TAR_GLOBAL_HEADERS",
            Self::SparseRegions => "LIMIT_TAR_SPARSE_REGIONS",
            Self::Depth => "LIMIT_TAR_DEPTH",
            Self::Metadata => "LIMIT_TAR_METADATA",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entries => "entries",
            Self::ExtensionSize => "bytes in an extension header",
            Self::PaxRecords => "records in a pax header",
            Self::GlobalHeaders => "global pax headers",
            Self::SparseRegions => "regions of a sparse file",
            Self::Depth => "components of a path",
            Self::Metadata => "bytes of metadata",
        })
    }
}
