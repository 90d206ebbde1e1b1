//! Where a decoder can start, and what it must know for that.

pub mod deflate;

use crate::stream::offset::BlobOffset;
use crate::stream::span::SpanId;

/// A place in a [`SpanTable`](crate::stream::SpanTable)'s heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeapRange {
    /// First byte.
    pub start: u32,
    /// How many bytes.
    pub len: u32,
}

/// What a decoder needs to start at a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Nothing but the place: the start of the stream or of a zstd frame.
    Fresh {
        /// The first stored byte.
        blob_offset: BlobOffset,
    },
    /// Between two deflate blocks, or at the start of a member's deflate stream.
    Deflate {
        /// The first stored bit, counted from the start of the blob, as deflate counts
        /// them: from the low end of each byte.
        bit_offset: u64,
        /// The decoded bytes before it, as [`deflate::pack`] leaves them.
        window: HeapRange,
        /// How many bytes those are unpacked; 0 at the start of a member.
        window_len: u32,
    },
}

/// A place from where decoding can start; always the start of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The span that begins here.
    pub span: SpanId,
    /// How to start.
    pub restart: Restart,
}
