//! Where a decoder can start, and what it must know for that.

pub(in crate::stream) mod deflate;
pub(in crate::stream) mod dictionary;
mod lookahead;
pub(in crate::stream) mod zstd;

use crate::stream::heap::HeapRange;
use crate::stream::offset::BlobOffset;
use crate::stream::span::SpanId;

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
        /// The decoded bytes before it, packed.
        window: HeapRange,
        /// How many bytes those are unpacked; 0 at the start of a member.
        window_len: u32,
    },
    /// Between two blocks of a zstd frame, where the checkpoint's span begins.
    Dictionary {
        /// Tables, repeat offsets and window, packed.
        state: HeapRange,
        /// How many bytes those are unpacked.
        state_len: u32,
        /// The window has what the spans before this one refer to, and no more.
        end: SpanId,
    },
}

impl Restart {
    /// Whether decoding from here needs nothing of what comes before in the stream.
    #[must_use]
    pub(in crate::stream) fn is_fresh(&self) -> bool {
        match self {
            Self::Fresh { .. } => true,
            Self::Deflate { window_len, .. } => *window_len == 0,
            Self::Dictionary { .. } => false,
        }
    }

    /// What of the heap it needs; nothing is an empty range.
    #[must_use]
    pub(in crate::stream) fn needs(&self) -> HeapRange {
        match self {
            Self::Fresh { .. } => HeapRange::default(),
            Self::Deflate { window, .. } => *window,
            Self::Dictionary { state, .. } => *state,
        }
    }
}

/// A place from where decoding can start; always the start of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The span that begins here.
    pub span: SpanId,
    /// How to start.
    pub restart: Restart,
}
