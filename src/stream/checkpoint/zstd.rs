//! Finds checkpoints within long zstd frames.
//!
//! Most writers of layers make one frame of the whole, so that without checkpoints every
//! read would decode from its start. This second pass, made after the first, goes through
//! the frame once more:
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
//! It is an improvement and no more: whatever it cannot follow leaves the frame without
//! checkpoints, and no error.

use std::ops::Range;

use crate::store::ReadAt;
use crate::stream::checkpoint::dictionary::{Dictionary, window_descriptor};
use crate::stream::checkpoint::lookahead::{Ahead, Lookahead, MAX_INTERVAL, Refusal, merge};
use crate::stream::checkpoint::{Checkpoint, HeapRange, Restart};
use crate::stream::error::Error;
use crate::stream::input::Direct;
use crate::stream::offset::BlobOffset;
use crate::stream::scratch::Scratch;
use crate::stream::sniff::Compression;
use crate::stream::span::{self, Checkpoints, SpanId, SpanTable};
use crate::stream::zstd::{Decoder, Event, FrameHeader};
use crate::stream::zstd_blocks::Unparsed;

/// Frames of fewer decoded bytes get no checkpoints: all of them decodes in some ten
/// milliseconds.
const MIN_FRAME: u64 = 8 << 20;

/// How far checkpoints are apart, in decoded bytes, while the heap is below a share of the
/// stored bytes, in thousandths: first what makes reads fast, then what keeps it small. A
/// random read decodes half of it on average.
const SPACINGS: [(u64, u64); 2] = [(15, 4 << 20), (50, 8 << 20)];

/// A checkpoint that makes the heap grow beyond this share of the stored bytes before it,
/// in thousandths, is left out.
const MAX_SHARE: u64 = 100;

/// Whether [`find`] could find something: whether there is a long zstd frame.
#[must_use]
pub fn may_find(table: &SpanTable) -> bool {
    table.compression() == Compression::Zstd && long_frames(table).next().is_some()
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
    let mut found = Checkpoints::default();
    if table.compression() == Compression::Zstd {
        for (blob_offset, spans) in long_frames(table) {
            Search::new(source, table, spans, &mut found).run(blob_offset, stop)?;
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

/// Where long frames begin, and their spans.
fn long_frames(table: &SpanTable) -> impl Iterator<Item = (BlobOffset, Range<u32>)> {
    let list = &table.checkpoints().list;
    let all = u32::try_from(table.spans().len()).unwrap_or(u32::MAX);
    let ends = list.iter().skip(1).map(|next| next.span.0).chain([all]);
    list.iter().zip(ends).filter_map(|(checkpoint, end)| {
        let Restart::Fresh { blob_offset } = checkpoint.restart else {
            return None;
        };
        let len = table.start_of(SpanId(end)).0 - table.start_of(checkpoint.span).0;
        (len >= MIN_FRAME).then_some((blob_offset, checkpoint.span.0..end))
    })
}

/// The search in one frame.
struct Search<'a> {
    source: &'a dyn ReadAt,
    table: &'a SpanTable,
    spans: Range<u32>,
    found: &'a mut Checkpoints,
    /// What there was before this frame.
    before: (usize, usize),
    /// Decoded bytes before the next interval, as far back as blocks may refer.
    history: Vec<u8>,
    scratch: Scratch,
}

impl<'a> Search<'a> {
    fn new(
        source: &'a dyn ReadAt,
        table: &'a SpanTable,
        spans: Range<u32>,
        found: &'a mut Checkpoints,
    ) -> Self {
        let before = (found.list.len(), found.heap.len());
        Self {
            source,
            table,
            spans,
            found,
            before,
            history: Vec::new(),
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
        let mut lookahead = Lookahead::new(self.source, self.table, spans, first_block);
        let mut covered = 0;
        loop {
            if stop() {
                return Err(Error::Stopped.into());
            }
            let interval = lookahead.next_interval(self.spacing(covered))?;
            let Some(first) = interval.first() else {
                return Ok(());
            };
            if first.span.0 == self.spans.start {
                self.decode_start(frame_at, &interval)?;
            } else {
                covered = self.place(first.span).0 - frame_at.0;
                self.add(&header, &interval, covered)?;
            }
            let window = usize::try_from(header.window).unwrap_or(usize::MAX);
            self.history
                .drain(..self.history.len().saturating_sub(window));
        }
    }

    /// How far the next checkpoint should be, when `covered` stored bytes of the frame have
    /// theirs.
    fn spacing(&self, covered: u64) -> u64 {
        let used = (self.found.heap.len() - self.before.1) as u64;
        let fits = |(share, _): &&(u64, u64)| used * 1000 <= covered * share;
        let spacing = SPACINGS.iter().find(fits);
        spacing.map_or(MAX_INTERVAL, |(_, spacing)| *spacing)
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
        self.history = vec![0; len];
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
    /// stored bytes of the frame lie before.
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
        dictionary.decode(self.source, (from, to), &mut self.scratch, out)?;
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
        let place = u32::try_from(self.found.heap.len()).ok();
        let len = u32::try_from(packed.len()).ok();
        let (Some(start), Some(len)) = (place, len) else {
            return Ok(());
        };
        if used as u64 * 1000 > covered * MAX_SHARE {
            return Ok(());
        }
        self.found.heap.extend_from_slice(&packed);
        self.found.list.push(Checkpoint {
            span,
            restart: Restart::Dictionary {
                state: HeapRange { start, len },
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
