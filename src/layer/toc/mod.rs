//! The table of contents of a layer: all that a pass over it found out.

pub mod builder;
pub mod cache;
mod entries;
pub mod file;

use std::sync::{Arc, OnceLock};

use crate::layer::tree::{self, Tree};
use crate::oci::{DiffId, Digest};
use crate::stream::{Compression, SpanTable};

/// A layer's own tree, or why its bytes make none: a blob can be sound and no tar.
pub type TreeOutcome = Result<Arc<Tree>, tree::Error>;

/// What is known about a layer blob once it was decoded to its end. It hangs on the
/// blob's digest alone, so it holds for every file with these bytes.
#[derive(Debug, PartialEq)]
pub struct Toc {
    digest: Digest,
    blob_size: u64,
    diff_id: DiffId,
    spans: Arc<SpanTable>,
    /// Loaded when it is first asked for: it is the largest part by far.
    tree: OnceLock<TreeOutcome>,
}

impl Toc {
    /// Puts the findings of a pass together, but for the tree.
    #[must_use]
    pub fn new(digest: Digest, blob_size: u64, diff_id: DiffId, spans: SpanTable) -> Self {
        Self {
            digest,
            blob_size,
            diff_id,
            spans: Arc::new(spans),
            tree: OnceLock::new(),
        }
    }

    /// The digest of the blob.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How many bytes the blob has.
    #[must_use]
    pub fn blob_size(&self) -> u64 {
        self.blob_size
    }

    /// How the blob is compressed, by its bytes; its media type may say otherwise.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.spans.compression()
    }

    /// The digest of the decoded bytes.
    #[must_use]
    pub fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }

    /// How many bytes the blob decodes to.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.spans.size()
    }

    /// Where decoding can start, and the check of each span.
    #[must_use]
    pub fn spans(&self) -> &Arc<SpanTable> {
        &self.spans
    }

    /// The layer's own tree; `None` if it is not in memory.
    #[must_use]
    pub fn tree(&self) -> Option<&TreeOutcome> {
        self.tree.get()
    }

    /// Adds the tree. The first one stays: all are the same.
    pub fn set_tree(&self, tree: TreeOutcome) {
        let _ = self.tree.set(tree);
    }

    /// About how many bytes of memory it takes just now.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let tree = match self.tree() {
            Some(Ok(tree)) => tree.weight(),
            Some(Err(_)) | None => 0,
        };
        self.spans.weight() + tree + 512
    }
}
