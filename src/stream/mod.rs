//! Random access into a compressed stream, exactly as it is stored.
//!
//! ```text
//!    stored bytes (gzip, zstd or plain)          decoded bytes
//!   ┌──────────────────────────────────┐        ┌──────┬──────┬──────┬──────┐
//!   │  ▲            ▲             ▲    │   =>   │ span │ span │ span │ span │ ...
//!   └──┼────────────┼─────────────┼────┘        └──────┴──────┴──────┴──────┘
//!      checkpoint   checkpoint    checkpoint     ▲             ▲
//! ```
//!
//! One pass over the stream ([`pass::scan`]) cuts the decoded bytes into spans of about
//! [`span::SPAN_SIZE`] and leaves, every so often, a [`checkpoint`]: what a decoder must
//! know to start in the middle. Both make the [`SpanTable`]. A [`Stream`] then reads any
//! byte: it finds the span, decodes from the last checkpoint before it, and keeps what it
//! decoded in a [`SpanCache`] that all streams share.
//!
//! Invariants:
//! - Every span has a 64-bit check, taken in the pass and compared on every later decode.
//!   A blob that changed after the pass answers an error, never another byte.
//! - What the bytes are decides how they are decoded ([`Compression::sniff`]), never a
//!   media type.
//! - Memory is bounded by spans, windows and [`Limits`], whatever the stream says.
//!
//! Offsets carry their space: [`BlobOffset`] counts stored bytes, [`TarOffset`] decoded
//! ones.

mod budget;
mod buffers;
pub mod checkpoint;
mod cursor;
pub mod encode;
mod error;
mod gzip;
pub mod heap;
mod inflate;
mod input;
mod limits;
mod offset;
pub mod pass;
mod read_ahead;
mod reader;
mod scratch;
mod sniff;
pub mod span;
mod span_cache;
mod zstd;
mod zstd_blocks;

pub use checkpoint::zstd::{
    Density, find as find_checkpoints, find_with as find_checkpoints_with,
    may_find as may_find_checkpoints,
};
pub use cursor::head;
pub use encode::{Encoded, Encoder};
pub use error::{Error, ErrorClass};
pub use heap::{Heap, HeapRange};
pub use input::Chunks;
pub use limits::Limits;
pub use offset::{BlobOffset, TarOffset};
pub use pass::{Sink, decode, scan};
pub use reader::Stream;
pub use sniff::Compression;
pub use span::{Checkpoints, SpanId, SpanTable};
pub use span_cache::SpanCache;

pub(crate) use budget::Budget;
