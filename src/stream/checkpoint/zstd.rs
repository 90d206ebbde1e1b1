//! Finds checkpoints within long zstd frames.
//!
//! Most writers of layers make one frame of the whole, so that without checkpoints every
//! read would decode from its start. A frame has no places made for starting, but between
//! two of its blocks (128 KiB decoded at most) a decoder knows little: RFC 8878 lets a
//! block take over from those before it
//!
//! - the Huffman table ("treeless" literals), described by bytes of some earlier block;
//! - three FSE tables ("repeat" mode): described likewise, predefined, or of one symbol;
//! - three repeat offsets;
//! - the window: decoded bytes that matches copy.
//!
//! That is what the dictionary format of section 5 holds, so a checkpoint is a dictionary,
//! and going on from there is decoding with it: any decoder can, without knowing how. How
//! one is made and used is told in [`dictionary`](super::dictionary).
//!
//! # The search
//!
//! The first pass knows where spans begin: always between two blocks. This second one, made
//! after it, goes through the frame once more:
//!
//! ```text
//!   lookahead      reads blocks without decoding: state, references, where to cut
//!      │ spans up to the next checkpoint
//!   dictionary     state at the last checkpoint, and the bytes it needs, from the history
//!      │
//!   decode         the spans from that very dictionary; compared with the checks that the
//!      │           first pass left, so a dictionary that decodes wrongly is never used
//!   history        the decoded bytes, for the next dictionary
//! ```
//!
//! The tables and repeat offsets follow from headers and sequences alone, so `lookahead`
//! decodes no literal and makes no output
//! ([`zstd_blocks`](crate::stream::zstd_blocks)); it takes half the time of decoding or
//! less. It also learns where each match copies from, and that decides what a checkpoint
//! costs. Of a window of 8 MiB the blocks up to the next checkpoint refer to little, and
//! nothing else of it is kept: an interval must be known to its end before the
//! dictionary at its start can be made, and that dictionary serves no later block. How many
//! bytes cross a place changes quickly from block to block, so around each place where a
//! checkpoint is due the cheapest is taken.
//!
//! # What it may cost
//!
//! Spacing is traded for size ([`Density`]): checkpoints come closer to each other while all
//! of them together are small beside the stored bytes, farther apart where they are dear,
//! and are left out where that does not help (noise that is repeated from far away). Memory
//! is bounded by a window, an interval and the references ahead.
//!
//! # Why it can be trusted
//!
//! It need not be. Every interval is decoded from its dictionary before that is kept, by
//! the code that serves reads, and its bytes are compared with the checks of the first
//! pass; every read compares them again. So a fault in the reading of blocks costs speed
//! and no byte. It is an improvement and no more: whatever it cannot follow leaves the frame
//! without checkpoints, and no error.

use std::ops::{Range, RangeInclusive};

use crate::store::ReadAt;
use crate::stream::checkpoint::dictionary::{Dictionary, read_frame, window_descriptor};
use crate::stream::checkpoint::lookahead::{Ahead, Lookahead, Refusal, merge};
use crate::stream::checkpoint::{Checkpoint, Restart};
use crate::stream::error::Error;
use crate::stream::input::Direct;
use crate::stream::offset::BlobOffset;
use crate::stream::scratch::{ALLOCATED, Scratch};
use crate::stream::sniff::Compression;
use crate::stream::span::{self, Checkpoints, SpanId, SpanTable};
use crate::stream::zstd::{Decoder, Event, FrameHeader};
use crate::stream::zstd_blocks::Unparsed;

/// How close checkpoints are made, and what they may cost; tests make them closer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Density {
    /// Frames of fewer decoded bytes get no checkpoints: all of them decodes in some ten
    /// milliseconds.
    pub min_frame: u64,
    /// How far checkpoints are apart, in decoded bytes, while they are cheap: a random read
    /// decodes half of it on average. Where they are dear, twice as far.
    pub spacing: u32,
    /// A checkpoint that makes the heap grow beyond this share of the stored bytes that
    /// count before it ([`counted`]), in thousandths, is left out.
    pub max_share: u32,
}

/// Up to how much of [`Density::max_share`] checkpoints count as cheap, and from where on as
/// dear, in thousandths of it. In between, where most layers end, their distance grows.
const CHEAP: RangeInclusive<u64> = 145..=190;

/// Which part of the stored bytes counts from the start, as a divisor. Layers often begin
/// with what is stored in few bytes: there would be no checkpoint among much that is decoded,
/// and what the first ones cost would keep the others far apart for long.
const HEAD_START: u64 = 8;

/// How many stored bytes count for what checkpoints may cost, where a frame of `stored` is
/// gone through up to `covered`. In the end those are all.
fn counted(covered: u64, stored: u64) -> u64 {
    stored / HEAD_START + (covered - covered / HEAD_START)
}

impl Default for Density {
    fn default() -> Self {
        Self {
            min_frame: 8 << 20,
            spacing: 7 << 19,
            max_share: 100,
        }
    }
}

impl Density {
    /// The longest way between two checkpoints, in decoded bytes: a read may have to decode
    /// all of it at once.
    fn max_interval(&self) -> u64 {
        u64::from(self.spacing) * 2
    }

    /// How far the next checkpoint should be, when the heap has `used` bytes for
    /// `covered` stored ones that count: first what makes reads fast, then what keeps it small.
    fn spacing(&self, used: u64, covered: u64) -> u64 {
        let most = (covered.saturating_mul(self.max_share.into()) / 1000).max(1);
        let share = (used.saturating_mul(1000) / most).clamp(*CHEAP.start(), *CHEAP.end());
        let (above, range) = (share - CHEAP.start(), CHEAP.end() - CHEAP.start());
        let spacing = u64::from(self.spacing);
        spacing + spacing * above / range
    }
}

/// Whether [`find`] could find something: whether there is a long zstd frame.
#[must_use]
pub fn may_find(table: &SpanTable) -> bool {
    let min_frame = Density::default().min_frame;
    table.compression() == Compression::Zstd && long_frames(table, min_frame).next().is_some()
}

/// Finds better checkpoints for a stream that was decoded to its end once; `None` where
/// those of the table are as good.
///
/// # Errors
/// Those of reading `source`, and [`Error::Stopped`] when `stop` says so.
pub fn find(
    source: &dyn ReadAt,
    table: &SpanTable,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Checkpoints>, Error> {
    find_with(&Density::default(), source, table, stop)
}

/// As [`find`], with checkpoints of another density.
///
/// # Errors
/// As [`find`].
pub fn find_with(
    density: &Density,
    source: &dyn ReadAt,
    table: &SpanTable,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Checkpoints>, Error> {
    let mut found = Checkpoints::default();
    if table.compression() == Compression::Zstd {
        for (blob_offset, spans) in long_frames(table, density.min_frame) {
            Search::new(density, source, table, spans, &mut found).run(blob_offset, stop)?;
        }
    }
    if found.list.is_empty() {
        return Ok(None);
    }
    // Those at the starts of frames need no heap.
    found.list.extend(&table.checkpoints().list);
    found
        .list
        .sort_unstable_by_key(|checkpoint| checkpoint.span);
    found.heap.shrink_to_fit();
    Ok(Some(found))
}

/// Where frames of at least `min_len` decoded bytes begin, and their spans.
fn long_frames(table: &SpanTable, min_len: u64) -> impl Iterator<Item = (BlobOffset, Range<u32>)> {
    let list = &table.checkpoints().list;
    let all = u32::try_from(table.spans().len()).unwrap_or(u32::MAX);
    let ends = list.iter().skip(1).map(|next| next.span.0).chain([all]);
    list.iter().zip(ends).filter_map(move |(checkpoint, end)| {
        let Restart::Fresh { blob_offset } = checkpoint.restart else {
            return None;
        };
        let len = table.start_of(SpanId(end)).0 - table.start_of(checkpoint.span).0;
        (len >= min_len).then_some((blob_offset, checkpoint.span.0..end))
    })
}

/// The search in one frame.
struct Search<'a> {
    density: &'a Density,
    source: &'a dyn ReadAt,
    table: &'a SpanTable,
    spans: Range<u32>,
    found: &'a mut Checkpoints,
    /// What there was before this frame.
    before: (usize, usize),
    /// Decoded bytes before the next interval, as far back as blocks may refer.
    history: Vec<u8>,
    /// The stored blocks of an interval.
    frame: Vec<u8>,
    scratch: Scratch,
}

impl<'a> Search<'a> {
    fn new(
        density: &'a Density,
        source: &'a dyn ReadAt,
        table: &'a SpanTable,
        spans: Range<u32>,
        found: &'a mut Checkpoints,
    ) -> Self {
        let before = (found.list.len(), found.heap.len());
        Self {
            density,
            source,
            table,
            spans,
            found,
            before,
            history: Vec::with_capacity(ALLOCATED),
            frame: Vec::with_capacity(ALLOCATED),
            scratch: Scratch::default(),
        }
    }

    /// Adds the checkpoints of the frame, or none if it cannot be followed.
    fn run(&mut self, frame_at: BlobOffset, stop: &dyn Fn() -> bool) -> Result<(), Error> {
        match self.search(frame_at, stop) {
            Ok(()) => return Ok(()),
            Err(Refusal::Unparsed(Unparsed(fault))) => {
                log::debug!("no checkpoints in the zstd frame at {frame_at}: {fault}");
            }
            Err(Refusal::Error(error)) if error.is_of_the_stream() => {
                log::debug!("no checkpoints in the zstd frame at {frame_at}: {error}");
            }
            Err(Refusal::Error(error)) => return Err(error),
        }
        let (list, heap) = self.before;
        self.found.list.truncate(list);
        self.found.heap.truncate(heap);
        Ok(())
    }

    fn search(&mut self, frame_at: BlobOffset, stop: &dyn Fn() -> bool) -> Result<(), Refusal> {
        let header = self.header(frame_at)?;
        let first_block = BlobOffset(frame_at.0 + header.len as u64);
        let spans = self.spans.clone();
        let max_interval = self.density.max_interval();
        let mut lookahead =
            Lookahead::new(self.source, self.table, spans, first_block, max_interval);
        let end = self.place(SpanId(self.spans.end));
        let stored = end.0.saturating_sub(frame_at.0);
        let mut covered = counted(0, stored);
        loop {
            if stop() {
                return Err(Error::Stopped.into());
            }
            let used = (self.found.heap.len() - self.before.1) as u64;
            let interval = lookahead.next_interval(self.density.spacing(used, covered))?;
            let Some(first) = interval.first() else {
                return Ok(());
            };
            if first.span.0 == self.spans.start {
                self.decode_start(frame_at, &interval)?;
            } else {
                covered = counted(self.place(first.span).0 - frame_at.0, stored);
                self.add(&header, &interval, covered)?;
            }
            let window = usize::try_from(header.window).unwrap_or(usize::MAX);
            self.history
                .drain(..self.history.len().saturating_sub(window));
        }
    }

    fn header(&self, frame_at: BlobOffset) -> Result<FrameHeader, Refusal> {
        let mut bytes = [0; FrameHeader::MAX_LEN];
        let read = self.source.read_at(&mut bytes, frame_at.0);
        let len = read.map_err(Error::from_read)?;
        let header = FrameHeader::parse(&bytes[..len]);
        Ok(header.ok_or(Unparsed("incomplete header"))?)
    }

    /// Decodes the spans from the start of the frame to the first checkpoint.
    fn decode_start(&mut self, frame_at: BlobOffset, spans: &[Ahead]) -> Result<(), Refusal> {
        let len = self.len(spans);
        self.history.resize(len, 0);
        let mut decoder = Decoder::at(frame_at, u64::MAX);
        let mut chunks = Direct(self.source);
        let mut at = 0;
        while at < len {
            let (step, event) = decoder.advance(&mut chunks, &mut self.history[at..])?;
            at += step;
            if event == Event::End {
                return Err(Error::Truncated.into());
            }
        }
        self.compare(spans, 0)
    }

    /// Makes the checkpoint before `spans` and decodes them from it. `covered` is how many
    /// stored bytes of the frame count before it.
    fn add(&mut self, header: &FrameHeader, spans: &[Ahead], covered: u64) -> Result<(), Refusal> {
        let first = &spans[0];
        let start = first.start;
        let references = spans.iter().flat_map(|ahead| &ahead.references);
        let references = references
            .filter(|range| range.start < start)
            .map(|range| range.start..range.end.min(start))
            .collect();
        let dictionary = Dictionary::new(
            window_descriptor(header),
            &first.entropy,
            start,
            &merge(references),
            &self.history,
        )?;
        let at = self.history.len();
        let len = self.len(spans);
        // Exactly: what grows by doubling would take tens of megabytes for nothing.
        self.history.reserve_exact(len);
        self.history.resize(at + len, 0);
        let end = first.span.0 + u32::try_from(spans.len()).unwrap_or(u32::MAX);
        let to = (end < self.spans.end).then(|| self.place(SpanId(end)));
        let from = self.place(first.span);
        let out = &mut self.history[at..];
        read_frame(self.source, (from, to), &mut self.frame)?;
        let decoded = dictionary.decode(&mut self.frame, &mut self.scratch, out);
        decoded.map_err(|fault| Error::ZstdFrame { at: from, fault })?;
        self.compare(spans, at)?;
        self.keep(first.span, SpanId(end), &dictionary, covered)
    }

    /// Adds a checkpoint to those found, unless it is too dear.
    fn keep(
        &mut self,
        span: SpanId,
        end: SpanId,
        dictionary: &Dictionary,
        covered: u64,
    ) -> Result<(), Refusal> {
        let (packed, state_len) = dictionary.pack()?;
        let used = self.found.heap.len() - self.before.1 + packed.len();
        if used as u64 * 1000 > covered.saturating_mul(self.density.max_share.into()) {
            return Ok(());
        }
        let Some(state) = self.found.heap.push(&packed) else {
            return Ok(());
        };
        self.found.list.push(Checkpoint {
            span,
            restart: Restart::Dictionary {
                state,
                state_len,
                end,
            },
        });
        Ok(())
    }

    /// Compares the spans, whose bytes are in the history from `at` on, with their checks.
    fn compare(&self, spans: &[Ahead], mut at: usize) -> Result<(), Refusal> {
        for ahead in spans {
            let len = self.len(std::slice::from_ref(ahead));
            let expected = self.table.span(ahead.span).map(|span| span.check);
            if Some(span::check(&self.history[at..at + len])) != expected {
                return Err(Unparsed("decodes to other bytes").into());
            }
            at += len;
        }
        Ok(())
    }

    /// Where the stored bytes of a span begin.
    fn place(&self, span: SpanId) -> BlobOffset {
        self.table
            .span(span)
            .map_or(BlobOffset(self.source.size()), |span| span.blob_offset)
    }

    /// How many bytes the spans decode to.
    fn len(&self, spans: &[Ahead]) -> usize {
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
            return 0;
        };
        let len = self.table.end_of(last.span).0 - self.table.start_of(first.span).0;
        usize::try_from(len).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stored_bytes_count_in_the_end() {
        // Covered bytes, those of the frame, and how many count.
        let rows = [
            (0, 0, 0),
            (0, 800, 100),
            (400, 800, 450),
            (800, 800, 800),
            (7, 7, 7),
            (u64::MAX, u64::MAX, u64::MAX),
        ];
        for (covered, stored, expected) in rows {
            let name = format!("{covered} of {stored}");
            assert_eq!(counted(covered, stored), expected, "{name}");
        }
    }

    #[test]
    fn checkpoints_are_close_while_they_are_cheap() {
        let density = Density::default();
        let (cheap, dear) = (*CHEAP.start(), *CHEAP.end());
        let close = u64::from(density.spacing);
        // The share of the most that they may cost, in thousandths, and the spacing.
        let rows = [
            (0, close),
            (cheap, close),
            ((cheap + dear).div_ceil(2), close + close / 2),
            (dear, 2 * close),
            (1000, 2 * close),
        ];
        for (share, expected) in rows {
            // Bytes of which a tenth is the most.
            let spacing = density.spacing(share, 10_000);
            let error = close / (dear - cheap);
            assert!(spacing.abs_diff(expected) <= error, "{share}: {spacing}");
        }
    }
}
