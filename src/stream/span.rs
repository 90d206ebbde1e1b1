//! The table that says where each span of a stream lies and how to come by it.

use std::sync::atomic::{AtomicU64, Ordering};

use twox_hash::XxHash3_64;

use crate::stream::checkpoint::{Checkpoint, HeapRange, Restart};
use crate::stream::inflate::WINDOW_SIZE;
use crate::stream::offset::TarOffset;
use crate::stream::sniff::Compression;

/// How many decoded bytes a span has, unless a checkpoint cuts it short: small, because a
/// read of one byte decodes and keeps a whole span; large, because each costs a record.
pub const SPAN_SIZE: usize = 256 << 10;

/// The longest span that is accepted in a table.
pub const MAX_SPAN_SIZE: u64 = 1 << 20;

/// The number of a span, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub u32);

/// Decoded bytes that are decoded, checked and kept together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it begins; it ends where the next one begins.
    pub tar_offset: TarOffset,
    /// [`check`] of its bytes.
    pub check: u64,
}

/// The check of decoded bytes: not against an attacker (the blob's digest is), but
/// against bytes that changed since.
#[must_use]
pub fn check(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// Which rule a table breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("span table: {0}")]
pub struct Fault(&'static str);

/// The spans of a stream and the checkpoints to decode them from.
///
/// A value of this type keeps these rules, wherever it came from: spans begin at 0, grow,
/// and are no longer than [`MAX_SPAN_SIZE`]; there is a checkpoint at the first; the
/// checkpoints' spans grow; what they need lies in the heap.
#[derive(Debug)]
pub struct SpanTable {
    /// Tells tables apart in the span cache.
    id: u64,
    compression: Compression,
    size: u64,
    spans: Vec<Span>,
    checkpoints: Vec<Checkpoint>,
    heap: Vec<u8>,
}

impl PartialEq for SpanTable {
    fn eq(&self, other: &Self) -> bool {
        (self.compression, self.size) == (other.compression, other.size)
            && self.spans == other.spans
            && self.checkpoints == other.checkpoints
            && self.heap == other.heap
    }
}

impl SpanTable {
    /// Puts a table together.
    ///
    /// # Errors
    /// A [`Fault`] that names the rule which the parts break.
    pub fn new(
        compression: Compression,
        size: u64,
        spans: Vec<Span>,
        checkpoints: Vec<Checkpoint>,
        heap: Vec<u8>,
    ) -> Result<Self, Fault> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let table = Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            compression,
            size,
            spans,
            checkpoints,
            heap,
        };
        table.check_spans()?;
        table.check_checkpoints()?;
        Ok(table)
    }

    fn check_spans(&self) -> Result<(), Fault> {
        u32::try_from(self.spans.len()).map_err(|_| Fault("too many spans"))?;
        let starts = self.spans.iter().map(|span| span.tar_offset.0);
        let mut last = None;
        for start in starts.chain([self.size]) {
            let fits = match last {
                None => start == 0,
                Some(last) => start > last && start - last <= MAX_SPAN_SIZE,
            };
            if !fits {
                return Err(Fault("spans do not follow each other"));
            }
            last = Some(start);
        }
        Ok(())
    }

    fn check_checkpoints(&self) -> Result<(), Fault> {
        let first = self.checkpoints.first().map(|checkpoint| checkpoint.span);
        if first != (!self.spans.is_empty()).then_some(SpanId(0)) {
            return Err(Fault("no checkpoint at the start"));
        }
        if !self.checkpoints.is_sorted_by(|a, b| a.span < b.span) {
            return Err(Fault("checkpoints out of order"));
        }
        if self
            .checkpoints
            .last()
            .is_some_and(|last| last.span.0 as usize >= self.spans.len())
        {
            return Err(Fault("checkpoint beyond the last span"));
        }
        for checkpoint in &self.checkpoints {
            self.check_restart(&checkpoint.restart)?;
        }
        Ok(())
    }

    fn check_restart(&self, restart: &Restart) -> Result<(), Fault> {
        let fits = match (restart, self.compression) {
            (Restart::Fresh { .. }, _) => true,
            (
                Restart::Deflate {
                    window, window_len, ..
                },
                Compression::Gzip,
            ) => *window_len as usize <= WINDOW_SIZE && self.in_heap(*window).is_some(),
            (Restart::Deflate { .. }, _) => false,
        };
        fits.then_some(()).ok_or(Fault("unusable checkpoint"))
    }

    fn in_heap(&self, range: HeapRange) -> Option<&[u8]> {
        let start = range.start as usize;
        self.heap.get(start..start.checked_add(range.len as usize)?)
    }

    /// The bytes that a checkpoint needs.
    #[must_use]
    pub(in crate::stream) fn heap_bytes(&self, range: HeapRange) -> &[u8] {
        self.in_heap(range).unwrap_or_default()
    }

    /// Tells this table from all others of this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How the stream is compressed, by its bytes.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// How many bytes the stream decodes to.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All spans, in order.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// All checkpoints, in order.
    #[must_use]
    pub fn checkpoints(&self) -> &[Checkpoint] {
        &self.checkpoints
    }

    /// What the checkpoints need, one after the other.
    #[must_use]
    pub fn heap(&self) -> &[u8] {
        &self.heap
    }

    /// About how many bytes of memory the table takes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let records = size_of_val(&*self.spans) + size_of_val(&*self.checkpoints);
        (size_of::<Self>() + records + self.heap.len()) as u64
    }

    /// The span that holds `offset`, `None` at and beyond the end.
    #[must_use]
    pub fn span_at(&self, offset: TarOffset) -> Option<SpanId> {
        if offset.0 >= self.size {
            return None;
        }
        let after = self.spans.partition_point(|span| span.tar_offset <= offset);
        u32::try_from(after).ok()?.checked_sub(1).map(SpanId)
    }

    /// A span by its number.
    #[must_use]
    pub fn span(&self, id: SpanId) -> Option<&Span> {
        self.spans.get(id.0 as usize)
    }

    /// Where a span ends.
    #[must_use]
    pub fn end_of(&self, id: SpanId) -> TarOffset {
        self.spans
            .get(id.0 as usize + 1)
            .map_or(TarOffset(self.size), |next| next.tar_offset)
    }

    /// The last checkpoint at or before a span.
    #[must_use]
    pub fn checkpoint_before(&self, id: SpanId) -> Option<&Checkpoint> {
        let after = self
            .checkpoints
            .partition_point(|checkpoint| checkpoint.span <= id);
        self.checkpoints.get(after.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::offset::BlobOffset;

    /// Name, decoded size, starts of spans, checkpoints, whether it is accepted.
    type Row<'a> = (&'a str, u64, &'a [u64], &'a [Checkpoint], bool);

    fn spans(starts: &[u64]) -> Vec<Span> {
        let span = |&start| Span {
            tar_offset: TarOffset(start),
            check: 0,
        };
        starts.iter().map(span).collect()
    }

    fn fresh(span: u32) -> Checkpoint {
        Checkpoint {
            span: SpanId(span),
            restart: Restart::Fresh {
                blob_offset: BlobOffset(0),
            },
        }
    }

    fn deflate(len: u32, window_len: u32) -> Checkpoint {
        Checkpoint {
            span: SpanId(0),
            restart: Restart::Deflate {
                bit_offset: 0,
                window: HeapRange { start: 1, len },
                window_len,
            },
        }
    }

    #[test]
    fn tables_that_break_a_rule_are_refused() {
        let max = MAX_SPAN_SIZE;
        let rows: &[Row<'_>] = &[
            ("empty", 0, &[], &[], true),
            ("empty with size", 1, &[], &[], false),
            ("empty with checkpoint", 0, &[], &[fresh(0)], false),
            ("one span", 1, &[0], &[fresh(0)], true),
            ("no checkpoint", 1, &[0], &[], false),
            ("late checkpoint", 2, &[0, 1], &[fresh(1)], false),
            (
                "checkpoint beyond",
                2,
                &[0, 1],
                &[fresh(0), fresh(2)],
                false,
            ),
            (
                "same checkpoint twice",
                2,
                &[0, 1],
                &[fresh(0), fresh(0)],
                false,
            ),
            ("two checkpoints", 2, &[0, 1], &[fresh(0), fresh(1)], true),
            ("not from 0", 2, &[1], &[fresh(0)], false),
            ("empty span", 2, &[0, 1, 1], &[fresh(0)], false),
            ("empty last span", 2, &[0, 2], &[fresh(0)], false),
            ("backwards", 9, &[0, 5, 4], &[fresh(0)], false),
            ("longest span", max, &[0], &[fresh(0)], true),
            ("too long a span", max + 1, &[0], &[fresh(0)], false),
            ("window in the heap", 1, &[0], &[deflate(3, 9)], true),
            ("window beyond the heap", 1, &[0], &[deflate(4, 9)], false),
            (
                "window end overflows",
                1,
                &[0],
                &[deflate(u32::MAX, 9)],
                false,
            ),
            ("window too long", 1, &[0], &[deflate(3, 32769)], false),
        ];
        for (name, size, starts, checkpoints, ok) in rows {
            let table = SpanTable::new(
                Compression::Gzip,
                *size,
                spans(starts),
                checkpoints.to_vec(),
                vec![0; 4],
            );
            assert_eq!(table.is_ok(), *ok, "{name}: {table:?}");
        }
        let elsewhere = vec![deflate(3, 9)];
        let table = SpanTable::new(Compression::Plain, 1, spans(&[0]), elsewhere, vec![0; 4]);
        assert!(table.is_err(), "a deflate checkpoint in a plain stream");
    }

    #[test]
    fn spans_are_found_by_offset() -> Result<(), Fault> {
        let checkpoints = vec![fresh(0), fresh(2)];
        let spans = spans(&[0, 10, 20]);
        let table = SpanTable::new(Compression::Zstd, 25, spans, checkpoints, Vec::new())?;
        let rows = [
            (0, Some(0)),
            (9, Some(0)),
            (10, Some(1)),
            (24, Some(2)),
            (25, None),
        ];
        for (offset, expected) in rows {
            let found = table.span_at(TarOffset(offset));
            assert_eq!(found, expected.map(SpanId), "offset {offset}");
        }
        assert_eq!(table.end_of(SpanId(2)), TarOffset(25));
        let before = |span| table.checkpoint_before(SpanId(span)).map(|c| c.span.0);
        assert_eq!([0, 1, 2].map(before), [Some(0), Some(0), Some(2)]);
        Ok(())
    }
}
