//! One layer blob: its stream, and its table of contents.
//!
//! ```text
//!   Layers ── find(digest) ──> Toc            never waits, never decodes
//!     │
//!     └───── open(blob) ─────> Layer ── read_at ──> stream ──> blob
//!              │
//!              ├─ a Toc from memory or the cache directory, and a verdict on this file, or
//!              └─ the first pass (one for all who ask; two at a time): digest, diff ID,
//!                 checksums, spans, checkpoints and entries in one go
//! ```
//!
//! The entries become the layer's own [`Tree`], which is part of the Toc.
//!
//! Invariants: a [`Layer`] exists only for a blob whose digest was compared and whose
//! stream was decoded to its end; a layer that failed is never served, and the failure is
//! remembered for that state of the file. A Toc hangs on the digest of the blob, a verdict
//! on the file.

mod error;
mod layers;
mod queue;
mod read;
pub mod toc;
pub mod tree;

use std::io;
use std::sync::Arc;

pub use error::{Error, ErrorClass};
pub use layers::{Indexed, Layers, LayersOptions, Limits};
pub use queue::{PassState, PassStatus};
pub use read::LayerFile;
pub use toc::Toc;
pub use tree::Tree;

use crate::oci::DiffId;
use crate::store::{Blob, ReadAt};
use crate::stream::{SpanCache, Stream, TarOffset};

/// A layer whose blob is sound, opened for reading its decoded bytes.
#[derive(Debug, Clone)]
pub struct Layer {
    toc: Arc<Toc>,
    blob: Arc<Blob>,
    stream: Stream,
}

impl Layer {
    fn new(toc: Arc<Toc>, blob: Arc<Blob>, cache: Arc<SpanCache>) -> Self {
        let source = Arc::clone(&blob) as Arc<dyn ReadAt>;
        Self {
            stream: Stream::new(Arc::clone(toc.spans()), source, cache),
            toc,
            blob,
        }
    }

    /// What is known about it.
    #[must_use]
    pub fn toc(&self) -> &Arc<Toc> {
        &self.toc
    }

    /// The blob that it is read from.
    #[must_use]
    pub fn blob(&self) -> &Arc<Blob> {
        &self.blob
    }

    /// How many bytes the layer's tar has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.toc.size()
    }

    /// The digest of the layer's tar.
    #[must_use]
    pub fn diff_id(&self) -> &DiffId {
        self.toc.diff_id()
    }

    /// Reads decoded bytes; returns fewer than asked only at the end.
    ///
    /// # Errors
    /// [`Error::Stream`], of class [`ErrorClass::Mismatch`] if the blob is not any more
    /// what it was when it was verified.
    pub fn read_at(&self, buf: &mut [u8], offset: TarOffset) -> Result<usize, Error> {
        let read = self.stream.read_at(buf, offset);
        read.map_err(|source| Error::stream(self.toc.digest(), source))
    }
}

impl ReadAt for Layer {
    fn size(&self) -> u64 {
        self.toc.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.stream.read_at(buf, TarOffset(offset))?)
    }
}
