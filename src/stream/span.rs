//! The table that says where each span of a stream lies and how to come by it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use twox_hash::XxHash3_64;

use crate::stream::checkpoint::{Checkpoint, Restart, dictionary};
use crate::stream::heap::Heap;
use crate::stream::inflate::WINDOW_SIZE;
use crate::stream::offset::{BlobOffset, TarOffset};
use crate::stream::sniff::Compression;

/// How many decoded bytes a span has, unless a checkpoint cuts it short: small, because a
/// read of one byte decodes and keeps a whole span; large, because each costs a record.
pub const SPAN_SIZE: usize = 256 << 10;

/// The longest span that is accepted in a table.
pub const MAX_SPAN_SIZE: u64 = 1 << 20;

/// How many locks keep apart those who decode. Two stretches that share a lock wait for
/// each other without need; with so many it seldom happens.
const LANES: usize = 16;

/// The number of a span, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub u32);

/// Decoded bytes that are decoded, checked and kept together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it begins; it ends where the next one begins.
    pub tar_offset: TarOffset,
    /// The zstd frame or block with which it begins; not used for other streams.
    pub blob_offset: BlobOffset,
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

/// Checkpoints, and the heap of what they need.
#[derive(Debug, PartialEq, Default)]
pub struct Checkpoints {
    /// In the order of their spans.
    pub list: Vec<Checkpoint>,
    /// What they need.
    pub heap: Heap,
}

impl Checkpoints {
    /// Those from which the span `id` can be decoded, the nearest first.
    pub(in crate::stream) fn before(&self, id: SpanId) -> impl Iterator<Item = &Checkpoint> {
        let after = self
            .list
            .partition_point(|checkpoint| checkpoint.span <= id);
        let before = self.list[..after].iter().rev();
        before.filter(move |checkpoint| match checkpoint.restart {
            Restart::Dictionary { end, .. } => id < end,
            Restart::Fresh { .. } | Restart::Deflate { .. } => true,
        })
    }
}

/// The spans of a stream and the checkpoints to decode them from.
///
/// A value of this type keeps these rules, wherever it came from: spans begin at 0, grow,
/// and are no longer than [`MAX_SPAN_SIZE`]; there is a checkpoint at the first; the
/// checkpoints' spans grow; what they need lies in the heap.
///
/// Spans never change. Checkpoints do once: a long zstd frame gets its own after the pass,
/// when somebody may be reading already ([`Self::improve`]).
#[derive(Debug)]
pub struct SpanTable {
    /// Tells tables apart in the span cache.
    id: u64,
    compression: Compression,
    size: u64,
    spans: Vec<Span>,
    first: Checkpoints,
    better: OnceLock<Checkpoints>,
    lanes: [Mutex<()>; LANES],
}

impl PartialEq for SpanTable {
    fn eq(&self, other: &Self) -> bool {
        (self.compression, self.size) == (other.compression, other.size)
            && self.spans == other.spans
            && self.checkpoints() == other.checkpoints()
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
        checkpoints: Checkpoints,
    ) -> Result<Self, Fault> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let table = Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            compression,
            size,
            spans,
            first: checkpoints,
            better: OnceLock::new(),
            lanes: Default::default(),
        };
        table.check_spans()?;
        table.check_checkpoints(&table.first)?;
        Ok(table)
    }

    /// Replaces the checkpoints by better ones, for all readers from now on. A second time
    /// changes nothing.
    ///
    /// # Errors
    /// A [`Fault`] if they break a rule; the old ones stay.
    pub fn improve(&self, checkpoints: Checkpoints) -> Result<(), Fault> {
        self.check_checkpoints(&checkpoints)?;
        self.better.get_or_init(|| checkpoints);
        Ok(())
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

    fn check_checkpoints(&self, checkpoints: &Checkpoints) -> Result<(), Fault> {
        let list = &checkpoints.list;
        let first = list.first().map(|checkpoint| checkpoint.span);
        let is_fresh = list.first().is_none_or(|first| first.restart.is_fresh());
        if first != (!self.spans.is_empty()).then_some(SpanId(0)) || !is_fresh {
            return Err(Fault("no checkpoint at the start"));
        }
        if !list.is_sorted_by(|a, b| a.span < b.span) {
            return Err(Fault("checkpoints out of order"));
        }
        if list
            .last()
            .is_some_and(|last| self.span(last.span).is_none())
        {
            return Err(Fault("checkpoint beyond the last span"));
        }
        let fits = |checkpoint: &Checkpoint| self.fits(checkpoint, checkpoints);
        if !list.iter().all(fits) {
            return Err(Fault("unusable checkpoint"));
        }
        Ok(())
    }

    fn fits(&self, checkpoint: &Checkpoint, checkpoints: &Checkpoints) -> bool {
        match (&checkpoint.restart, self.compression) {
            (Restart::Fresh { .. }, _) => true,
            (
                Restart::Deflate {
                    window, window_len, ..
                },
                Compression::Gzip,
            ) => *window_len as usize <= WINDOW_SIZE && checkpoints.heap.covers(*window),
            (
                Restart::Dictionary {
                    state,
                    state_len,
                    end,
                },
                Compression::Zstd,
            ) => {
                *state_len <= dictionary::MAX_LEN
                    && checkpoints.heap.covers(*state)
                    && *end > checkpoint.span
                    && end.0 as usize <= self.spans.len()
            }
            (Restart::Deflate { .. } | Restart::Dictionary { .. }, _) => false,
        }
    }

    /// Tells this table from all others of this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits until nobody else decodes from the checkpoint at the span `start`, so that
    /// what one decodes is found by the others. Dropping the guard lets the next one in.
    ///
    /// Lock order: a table's lane, then one of the table beneath, where streams nest. Each
    /// table has its own, so that nobody waits for himself.
    pub(in crate::stream) fn lane(&self, start: SpanId) -> MutexGuard<'_, ()> {
        // Checkpoints often lie a fixed number of spans apart: a large odd factor spreads
        // them.
        let spread = start.0.wrapping_mul(0x9e37_79b1) >> 16;
        self.lanes[spread as usize % LANES].lock()
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

    /// The best checkpoints there are.
    #[must_use]
    pub fn checkpoints(&self) -> &Checkpoints {
        self.better.get().unwrap_or(&self.first)
    }

    /// Whether a checkpoint turned out to be damaged: what it is needed for takes long.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.checkpoints().heap.is_damaged()
    }

    /// About how many bytes of memory the table takes; a heap that is left in its file
    /// counts as well, since that is held open.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let Checkpoints { list, heap } = self.checkpoints();
        let records = size_of_val(&*self.spans) + size_of_val(&**list);
        (size_of::<Self>() + records + heap.len()) as u64
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

    /// Where a span begins; the end of the stream for those beyond the last.
    #[must_use]
    pub fn start_of(&self, id: SpanId) -> TarOffset {
        self.spans
            .get(id.0 as usize)
            .map_or(TarOffset(self.size), |span| span.tar_offset)
    }

    /// Where a span ends.
    #[must_use]
    pub fn end_of(&self, id: SpanId) -> TarOffset {
        self.spans
            .get(id.0 as usize + 1)
            .map_or(TarOffset(self.size), |next| next.tar_offset)
    }

    /// The last checkpoint from which a span can be decoded.
    #[must_use]
    pub fn checkpoint_before(&self, id: SpanId) -> Option<&Checkpoint> {
        self.checkpoints().before(id).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::heap::HeapRange;

    /// Name, decoded size, starts of spans, checkpoints, whether it is accepted.
    type Row<'a> = (&'a str, u64, &'a [u64], &'a [Checkpoint], bool);

    fn spans(starts: &[u64]) -> Vec<Span> {
        let span = |&start| Span {
            tar_offset: TarOffset(start),
            blob_offset: BlobOffset(0),
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

    fn with_heap(list: &[Checkpoint]) -> Checkpoints {
        Checkpoints {
            list: list.to_vec(),
            heap: vec![0; 4].into(),
        }
    }

    fn deflate(span: u32, len: u32, window_len: u32) -> Checkpoint {
        Checkpoint {
            span: SpanId(span),
            restart: Restart::Deflate {
                bit_offset: 0,
                window: HeapRange {
                    start: 1,
                    len,
                    check: 0,
                },
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
            (
                "window in the heap",
                2,
                &[0, 1],
                &[fresh(0), deflate(1, 3, 9)],
                true,
            ),
            (
                "window beyond the heap",
                2,
                &[0, 1],
                &[fresh(0), deflate(1, 4, 9)],
                false,
            ),
            (
                "window end overflows",
                2,
                &[0, 1],
                &[fresh(0), deflate(1, u32::MAX, 9)],
                false,
            ),
            ("window at the start", 1, &[0], &[deflate(0, 3, 9)], false),
            ("no window at the start", 1, &[0], &[deflate(0, 0, 0)], true),
            (
                "window too long",
                2,
                &[0, 1],
                &[fresh(0), deflate(1, 3, 32769)],
                false,
            ),
        ];
        for (name, size, starts, checkpoints, ok) in rows {
            let table = SpanTable::new(
                Compression::Gzip,
                *size,
                spans(starts),
                with_heap(checkpoints),
            );
            assert_eq!(table.is_ok(), *ok, "{name}: {table:?}");
        }
        let elsewhere = with_heap(&[fresh(0), deflate(1, 3, 9)]);
        let table = SpanTable::new(Compression::Plain, 2, spans(&[0, 1]), elsewhere);
        assert!(table.is_err(), "a deflate checkpoint in a plain stream");
    }

    #[test]
    fn spans_are_found_by_offset() -> Result<(), Fault> {
        let checkpoints = vec![fresh(0), fresh(2)];
        let spans = spans(&[0, 10, 20]);
        let table = SpanTable::new(Compression::Zstd, 25, spans, with_heap(&checkpoints))?;
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

    #[test]
    fn a_dictionary_serves_up_to_its_end() -> Result<(), Fault> {
        let dictionary = |span, end| Checkpoint {
            span: SpanId(span),
            restart: Restart::Dictionary {
                state: HeapRange {
                    start: 0,
                    len: 4,
                    check: 0,
                },
                state_len: 4,
                end: SpanId(end),
            },
        };
        // Between them one was too dear, and after the last one everything.
        let checkpoints = with_heap(&[fresh(0), dictionary(1, 3), dictionary(4, 5)]);
        let starts = spans(&[0, 10, 20, 30, 40, 50]);
        let table = SpanTable::new(Compression::Zstd, 60, starts, checkpoints)?;
        let before = |span| {
            let before = table.checkpoints().before(SpanId(span));
            before.map(|found| found.span.0).collect::<Vec<_>>()
        };
        let rows: [&[u32]; 6] = [&[0], &[1, 0], &[1, 0], &[0], &[4, 0], &[0]];
        for (span, expected) in (0..).zip(rows) {
            assert_eq!(before(span), expected, "span {span}");
        }
        Ok(())
    }
}
