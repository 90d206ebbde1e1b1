//! Where in a zstd frame checkpoints are cheap: reads the blocks ahead and counts how far
//! their matches reach back.
//!
//! A checkpoint costs the bytes before it that later blocks refer to, up to the next one.
//! Candidates are the starts of spans, four to a megabyte. Among those near the wanted
//! place the cheapest is taken; where all are dear, the search goes on for a while.

use std::collections::VecDeque;
use std::ops::Range;

use crate::store::ReadAt;
use crate::stream::error::Error;
use crate::stream::input::{Direct, Input};
use crate::stream::offset::BlobOffset;
use crate::stream::span::{SpanId, SpanTable};
use crate::stream::zstd_blocks::{Entropy, PADDING, TableSource, Unparsed, Walker, read_block};

/// How many references are held at most, of 16 bytes each. Beyond, the next checkpoint is
/// chosen from what is known.
const MAX_REFERENCES: usize = 1 << 20;

/// References of one span are merged on the way when there are so many.
const MERGED: usize = 1 << 15;

/// Parts of the window that are so close to each other are kept as one: the bytes between
/// them cost less than one more range.
const GAP: u64 = 4;

/// A checkpoint is dear if it costs more than this part of the way to the next one.
const DEAR: u64 = 16;

/// Why no checkpoints are made in a frame.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The blocks cannot be followed.
    Unparsed(Unparsed),
    /// The blob cannot be read, or its bytes are not those of the pass.
    Error(Error),
}

impl From<Unparsed> for Refusal {
    fn from(unparsed: Unparsed) -> Self {
        Self::Unparsed(unparsed)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// A span whose blocks were read.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) span: SpanId,
    /// Where it begins, counted in decoded bytes from the start of the frame, as all
    /// positions here.
    pub(super) start: u64,
    /// The state before it.
    pub(super) entropy: Entropy,
    /// What it refers to before its start: in order, apart from each other.
    pub(super) references: Vec<Range<u64>>,
    /// What a checkpoint here would cost: bytes before it that are referred to from it
    /// and from the spans after it, within the spacing.
    crossing: u64,
    /// Whether a checkpoint can be here; `None` until a block with sequences is met. That
    /// may be after megabytes of noise, so it is taken for yes: no writer is known that
    /// repeats a table of one symbol, and the interval is tried before it is kept.
    is_usable: Option<bool>,
}

/// The blocks of one frame, read ahead.
#[derive(Debug)]
pub(super) struct Lookahead<'a> {
    source: &'a dyn ReadAt,
    table: &'a SpanTable,
    /// The spans of the frame.
    spans: Range<u32>,
    /// The longest way between two checkpoints, in decoded bytes.
    max_interval: u64,
    next: u32,
    walker: Walker,
    input: Input,
    block: Vec<u8>,
    /// Decoded bytes gone past.
    position: u64,
    queue: VecDeque<Ahead>,
    /// How many references the queue holds.
    held: usize,
    /// How many references of the span being read are let grow before they are merged.
    merge_at: usize,
}

impl<'a> Lookahead<'a> {
    /// At the first block, which lies at `first_block`, of the frame with these spans.
    pub(super) fn new(
        source: &'a dyn ReadAt,
        table: &'a SpanTable,
        spans: Range<u32>,
        first_block: BlobOffset,
        max_interval: u64,
    ) -> Self {
        Self {
            source,
            table,
            next: spans.start,
            spans,
            max_interval,
            walker: Walker::new(),
            input: Input::at(first_block),
            block: Vec::new(),
            position: 0,
            queue: VecDeque::new(),
            held: 0,
            merge_at: MERGED,
        }
    }

    /// The spans up to the next checkpoint, about `spacing` decoded bytes; none at the end
    /// of the frame.
    pub(super) fn next_interval(&mut self, spacing: u64) -> Result<Vec<Ahead>, Refusal> {
        let near = spacing * 3 / 4..=(spacing * 5 / 4).min(self.max_interval);
        self.read(spacing, *near.end() + spacing)?;
        let base = self
            .queue
            .front()
            .map_or(self.position, |ahead| ahead.start);
        let is_at_end = self.next == self.spans.end;
        if is_at_end && self.position - base <= *near.end() {
            return Ok(self.take(self.queue.len()));
        }
        let mut best = self.cheapest(near.start() + base..=near.end() + base);
        let is_dear =
            |cost: Option<(usize, u64)>| cost.is_none_or(|(_, cost)| cost > spacing / DEAR);
        if is_dear(best) {
            let far = self.max_interval.min(spacing * 4);
            self.read(spacing, far + spacing)?;
            let later = near.end() + base + 1..=far + base;
            best = self
                .first_below(later, spacing / DEAR)
                .or_else(|| self.cheapest(near.start() + base..=far + base))
                // So many references that nothing more was read.
                .or_else(|| self.cheapest(base..=far + base));
        }
        let is_rest = self.next == self.spans.end && self.position - base <= self.max_interval;
        match best {
            Some((count, _)) => Ok(self.take(count)),
            None if is_rest => Ok(self.take(self.queue.len())),
            None => Err(Unparsed("no usable checkpoint").into()),
        }
    }

    /// Reads on until `len` bytes from the start of the queue are known.
    fn read(&mut self, spacing: u64, len: u64) -> Result<(), Refusal> {
        loop {
            let base = self
                .queue
                .front()
                .map_or(self.position, |ahead| ahead.start);
            let is_enough = self.position - base >= len || self.held > MAX_REFERENCES;
            if is_enough || self.next == self.spans.end {
                return Ok(());
            }
            self.read_span(spacing)?;
        }
    }

    /// The candidate with the least cost, and that.
    fn cheapest(&self, starts: std::ops::RangeInclusive<u64>) -> Option<(usize, u64)> {
        self.candidates(starts).min_by_key(|(_, cost)| *cost)
    }

    /// The first candidate that costs no more than `limit`.
    fn first_below(
        &self,
        starts: std::ops::RangeInclusive<u64>,
        limit: u64,
    ) -> Option<(usize, u64)> {
        self.candidates(starts).find(|(_, cost)| *cost <= limit)
    }

    fn candidates(
        &self,
        starts: std::ops::RangeInclusive<u64>,
    ) -> impl Iterator<Item = (usize, u64)> {
        let queue = self.queue.iter().enumerate().skip(1);
        queue
            .filter(move |(_, ahead)| starts.contains(&ahead.start))
            .filter(|(_, ahead)| ahead.is_usable != Some(false))
            .map(|(index, ahead)| (index, ahead.crossing))
    }

    fn take(&mut self, count: usize) -> Vec<Ahead> {
        let taken: Vec<Ahead> = self.queue.drain(..count).collect();
        self.held -= taken
            .iter()
            .map(|ahead| ahead.references.len())
            .sum::<usize>();
        taken
    }

    /// Reads the blocks of the next span.
    fn read_span(&mut self, spacing: u64) -> Result<(), Refusal> {
        let span = SpanId(self.next);
        self.next += 1;
        let start = self.position;
        let has_rle = |source: &TableSource| matches!(source, TableSource::Rle(_));
        let entropy = self.walker.entropy().clone();
        let is_usable = (!entropy.tables.iter().any(has_rle)).then_some(true);
        self.queue.push_back(Ahead {
            span,
            start,
            entropy,
            references: Vec::new(),
            crossing: 0,
            is_usable,
        });
        let mut references = Vec::new();
        self.merge_at = MERGED;
        let end = (self.next < self.spans.end)
            .then(|| self.table.span(SpanId(self.next)))
            .flatten()
            .map(|next| next.blob_offset);
        loop {
            let is_last = self.read_block(start, &mut references)?;
            match end {
                Some(end) if self.input.offset() == end && !is_last => break,
                Some(end) if self.input.offset() < end && !is_last => {}
                None if is_last => break,
                None => {}
                Some(_) => return Err(Unparsed("blocks end elsewhere").into()),
            }
        }
        let len = self.table.end_of(span).0 - self.table.start_of(span).0;
        if self.position - start != len {
            return Err(Unparsed("blocks decode to another length").into());
        }
        self.add_references(merge(references), spacing);
        Ok(())
    }

    /// Reads one block; collects what it refers to before `start`. Says whether it is the
    /// frame's last.
    fn read_block(
        &mut self,
        start: u64,
        references: &mut Vec<Range<u64>>,
    ) -> Result<bool, Refusal> {
        let mut chunks = Direct(self.source);
        self.block.clear();
        read_block(&mut self.input, &mut chunks, &mut self.block)?;
        self.block.extend_from_slice(&[0; PADDING]);
        let block = self
            .walker
            .block(&self.block, self.position, |source, len| {
                if source < start {
                    references.push(source..(source + len).min(start));
                }
            })?;
        if references.len() > self.merge_at {
            *references = merge(std::mem::take(references));
            self.merge_at = MERGED.max(references.len() * 2);
        }
        self.position += block.decoded_len as u64;
        if let Some(repeated) = block.repeated {
            self.decide(repeated);
        }
        Ok(block.is_last)
    }

    /// A block with sequences was met: where it repeats a table of one symbol, no
    /// dictionary can stand for the state before it.
    fn decide(&mut self, repeated: [bool; 3]) {
        let open = self.queue.iter_mut().rev();
        for ahead in open.take_while(|ahead| ahead.is_usable.is_none()) {
            let mut tables = ahead.entropy.tables.iter().zip(repeated);
            let is_lost = |(table, repeated): (&TableSource, bool)| {
                repeated && matches!(table, TableSource::Rle(_))
            };
            ahead.is_usable = Some(!tables.any(is_lost));
        }
    }

    /// Gives the last span its references, and counts them at each candidate which they
    /// reach across.
    fn add_references(&mut self, references: Vec<Range<u64>>, spacing: u64) {
        let Some(last) = self.queue.back().map(|ahead| ahead.start) else {
            return;
        };
        let from = self
            .queue
            .partition_point(|ahead| ahead.start + spacing <= last);
        let mut below = references.iter().peekable();
        let mut bytes = 0;
        for ahead in self.queue.range_mut(from..) {
            while let Some(range) = below.next_if(|range| range.end <= ahead.start) {
                bytes += range.end - range.start;
            }
            let across = below.peek().filter(|range| range.start < ahead.start);
            ahead.crossing += bytes + across.map_or(0, |range| ahead.start - range.start);
        }
        self.held += references.len();
        if let Some(ahead) = self.queue.back_mut() {
            ahead.references = references;
        }
    }
}

/// Brings ranges in order, and joins those that overlap or nearly touch.
pub(super) fn merge(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    ranges.dedup_by(|range, last| {
        let joins = range.start <= last.end + GAP;
        if joins {
            last.end = last.end.max(range.end);
        }
        joins
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::span::{Checkpoints, Span};
    use crate::stream::{Compression, TarOffset};

    type Pairs<'a> = &'a [(u64, u64)];

    #[test]
    fn ranges_are_merged() {
        let rows: &[(&str, Pairs<'_>, Pairs<'_>)] = &[
            ("none", &[], &[]),
            ("out of order", &[(50, 60), (1, 2)], &[(1, 2), (50, 60)]),
            ("overlapping", &[(1, 9), (3, 20)], &[(1, 20)]),
            (
                "one inside the other",
                &[(1, 90), (3, 20), (80, 91)],
                &[(1, 91)],
            ),
            ("nearly touching", &[(1, 9), (13, 20)], &[(1, 20)]),
            ("apart", &[(1, 9), (14, 20)], &[(1, 9), (14, 20)]),
        ];
        for (name, ranges, expected) in rows {
            let merged = merge(ranges.iter().map(|(start, end)| *start..*end).collect());
            let merged: Vec<_> = merged
                .iter()
                .map(|range| (range.start, range.end))
                .collect();
            assert_eq!(merged, *expected, "{name}");
        }
    }

    fn table() -> SpanTable {
        let span = Span {
            tar_offset: TarOffset(0),
            blob_offset: BlobOffset(0),
            check: 0,
        };
        let checkpoint = crate::stream::checkpoint::Checkpoint {
            span: SpanId(0),
            restart: crate::stream::checkpoint::Restart::Fresh {
                blob_offset: BlobOffset(0),
            },
        };
        let checkpoints = Checkpoints {
            list: vec![checkpoint],
            heap: crate::stream::Heap::default(),
        };
        SpanTable::new(Compression::Zstd, 9, vec![span], checkpoints).expect("a good table")
    }

    fn ahead(start: u64, tables: [TableSource; 3]) -> Ahead {
        let has_rle = tables
            .iter()
            .any(|table| matches!(table, TableSource::Rle(_)));
        Ahead {
            span: SpanId(0),
            start,
            entropy: Entropy {
                tables,
                ..Walker::new().entropy().clone()
            },
            references: Vec::new(),
            crossing: 0,
            is_usable: (!has_rle).then_some(true),
        }
    }

    #[test]
    fn no_checkpoint_where_a_table_of_one_symbol_is_repeated() {
        let unset = || TableSource::Unset;
        let rle = || TableSource::Rle(3);
        let rows = [
            (
                "no such table",
                [unset(), unset(), unset()],
                [true; 3],
                true,
            ),
            (
                "not repeated",
                [unset(), rle(), unset()],
                [true, false, true],
                true,
            ),
            (
                "repeated",
                [unset(), rle(), unset()],
                [false, true, false],
                false,
            ),
            (
                "one of two repeated",
                [rle(), unset(), rle()],
                [false, true, true],
                false,
            ),
        ];
        for (name, tables, repeated, expected) in rows {
            let (source, table) = (Vec::new(), table());
            let mut lookahead = Lookahead::new(&source, &table, 0..1, BlobOffset(0), 0);
            lookahead.queue.push_back(ahead(0, tables.clone()));
            lookahead.queue.push_back(ahead(9, tables));
            lookahead.decide(repeated);
            for ahead in &lookahead.queue {
                assert_eq!(ahead.is_usable, Some(expected), "{name}");
            }
            // What is decided stays: the next block's tables are other ones.
            lookahead.decide([true; 3]);
            assert_eq!(lookahead.queue[0].is_usable, Some(expected), "{name}");
        }
    }

    #[test]
    fn references_count_at_each_candidate_that_they_cross() {
        let (source, table) = (Vec::new(), table());
        let mut lookahead = Lookahead::new(&source, &table, 0..1, BlobOffset(0), 0);
        let none = || [TableSource::Unset, TableSource::Unset, TableSource::Unset];
        for start in [0, 100, 200, 300] {
            lookahead.queue.push_back(ahead(start, none()));
        }
        lookahead.add_references(vec![20..30, 90..120, 250..260], 250);
        let crossing = lookahead.queue.iter().map(|ahead| ahead.crossing);
        // The first is too far from the last to pay for its references.
        assert_eq!(crossing.collect::<Vec<_>>(), [0, 20, 40, 50]);
    }
}
