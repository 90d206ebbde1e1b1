//! The table of contents of a layer: all that a pass over it found out.

pub mod builder;
pub mod cache;
pub mod file;

use std::sync::Arc;

use crate::oci::{DiffId, Digest};
use crate::stream::{Compression, SpanTable};

/// What is known about a layer blob once it was decoded to its end. It hangs on the
/// blob's digest alone, so it holds for every file with these bytes.
#[derive(Debug, PartialEq)]
pub struct Toc {
    digest: Digest,
    blob_size: u64,
    diff_id: DiffId,
    spans: Arc<SpanTable>,
}

impl Toc {
    /// Puts the findings of a pass together.
    #[must_use]
    pub fn new(digest: Digest, blob_size: u64, diff_id: DiffId, spans: SpanTable) -> Self {
        Self {
            digest,
            blob_size,
            diff_id,
            spans: Arc::new(spans),
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

    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.spans.weight() + 512
    }
}
