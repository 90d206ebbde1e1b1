//! The blocks of a zstd stream as spans, however small: the pass makes spans of 192 KiB,
//! which would leave a small stream without any checkpoint.

use std::sync::Arc;

use ocifs::stream::checkpoint::{Checkpoint, Restart};
use ocifs::stream::span::{Span, check};
use ocifs::stream::{
    BlobOffset, Checkpoints, Compression, Density, Heap, SpanId, SpanTable, TarOffset,
    find_checkpoints_with,
};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::access::{check_reads, open};
use super::random::Random;

/// How many decoded bytes lie between the starts of things, about.
#[derive(Debug, Clone, Copy)]
pub struct Spacing {
    /// Of spans, at least.
    pub span: usize,
    /// Of checkpoints.
    pub checkpoint: u32,
}

/// Searches for checkpoints as close as `spacing` says in a stream that decodes to
/// `decoded`, and compares reads from them. Returns the table, and how many were found.
pub fn check_checkpoints(
    blob: &Vec<u8>,
    decoded: &[u8],
    spacing: Spacing,
    random: &mut Random,
) -> (Arc<SpanTable>, usize) {
    let table = Arc::new(table(blob, decoded, spacing.span));
    let count = improve(&table, blob, spacing.checkpoint);
    for memory in [1 << 20, 0] {
        check_reads(&open(&table, blob.clone(), memory), decoded, 6, random);
    }
    (table, count)
}

/// Searches for checkpoints and puts them into the table. Returns how many were found
/// within frames.
pub fn improve(table: &SpanTable, blob: &Vec<u8>, spacing: u32) -> usize {
    let starts = table.spans().iter().map(|span| span.tar_offset.0);
    let ends = starts.clone().skip(1).chain([table.size()]);
    let longest = ends.zip(starts).map(|(end, start)| end - start).max();
    // Not so close that the next span begins too far away to be looked at.
    let least = u32::try_from(longest.unwrap_or(0) / 2 + 1).expect("spans are short");
    let density = Density {
        min_frame: 1,
        spacing: spacing.max(least),
        max_share: u32::MAX,
    };
    let found = find_checkpoints_with(&density, blob, table, &|| false);
    let Some(found) = found.expect("nothing fails in memory") else {
        return 0;
    };
    let is_within =
        |checkpoint: &&Checkpoint| matches!(checkpoint.restart, Restart::Dictionary { .. });
    let count = found.list.iter().filter(is_within).count();
    table.improve(found).expect("what is found fits the table");
    count
}

/// The table of a good stream with spans of whole blocks, each of `min_span` decoded bytes
/// at least, and a checkpoint at each frame.
pub fn table(blob: &[u8], decoded: &[u8], min_span: usize) -> SpanTable {
    let mut cuts = Cuts {
        decoded,
        min_span: min_span.max(1),
        place: 0,
        start: 0,
        end: 0,
        spans: Vec::new(),
        list: Vec::new(),
    };
    let mut at = 0;
    while at < blob.len() {
        at = match blob[at + 3] {
            0x18 => at + 8 + usize::try_from(number(&blob[at + 4..at + 8])).expect("small"),
            _ => frame(blob, at, &mut cuts),
        };
    }
    let size = decoded.len() as u64;
    cuts.list
        .retain(|checkpoint| (checkpoint.span.0 as usize) < cuts.spans.len());
    let checkpoints = Checkpoints {
        list: cuts.list,
        heap: Heap::default(),
    };
    SpanTable::new(Compression::Zstd, size, cuts.spans, checkpoints).expect("a good table")
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// Goes through the frame at `at`; says where it ends.
fn frame(blob: &[u8], mut at: usize, cuts: &mut Cuts<'_>) -> usize {
    cuts.begin_frame(at);
    let descriptor = blob[at + 4];
    let mut context = DCtx::create();
    context
        .set_parameter(DParameter::WindowLogMax(31))
        .expect("a valid log");
    at += feed(&mut context, &blob[at..at + header_len(descriptor)]).1;
    loop {
        let header = number(&blob[at..at + 3]);
        let size = usize::try_from(header >> 3).expect("21 bits");
        let body = if header >> 1 & 3 == 1 { 1 } else { size };
        let (len, consumed) = feed(&mut context, &blob[at..at + 3 + body]);
        at += consumed;
        let is_last = header & 1 == 1;
        cuts.block(len, at, is_last);
        if is_last {
            return at + usize::from(descriptor & 4);
        }
    }
}

/// Length of a frame's header with its magic number. RFC 8878 section 3.1.1.1.
fn header_len(descriptor: u8) -> usize {
    let is_single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content = [usize::from(is_single), 2, 4, 8][usize::from(descriptor >> 6)];
    5 + usize::from(!is_single) + dictionary + content
}

/// How many bytes a part of a frame decodes to, and its length.
fn feed(context: &mut DCtx<'_>, part: &[u8]) -> (usize, usize) {
    let mut out = vec![0; (128 << 10) + 1];
    let mut input = InBuffer::around(part);
    let mut output = OutBuffer::around(&mut out[..]);
    while input.pos() < part.len() {
        let hint = context.decompress_stream(&mut output, &mut input);
        hint.expect("the stream was accepted before");
    }
    (output.pos(), part.len())
}

/// Spans under construction.
struct Cuts<'a> {
    decoded: &'a [u8],
    min_span: usize,
    /// The frame or block with which the span begins.
    place: usize,
    /// Where the span begins and ends in `decoded`.
    start: usize,
    end: usize,
    spans: Vec<Span>,
    list: Vec<Checkpoint>,
}

impl Cuts<'_> {
    fn begin_frame(&mut self, at: usize) {
        let span = SpanId(u32::try_from(self.spans.len()).expect("few"));
        let blob_offset = BlobOffset(at as u64);
        self.place = at;
        // Of frames without content, the last one begins the span.
        self.list.pop_if(|last| last.span == span);
        self.list.push(Checkpoint {
            span,
            restart: Restart::Fresh { blob_offset },
        });
    }

    /// A block decoded to `len` bytes; the next one lies at `next`.
    fn block(&mut self, len: usize, next: usize, is_last: bool) {
        self.end += len;
        let len = self.end - self.start;
        if len == 0 || (len < self.min_span && !is_last) {
            return;
        }
        self.spans.push(Span {
            tar_offset: TarOffset(self.start as u64),
            blob_offset: BlobOffset(self.place as u64),
            check: check(&self.decoded[self.start..self.end]),
        });
        self.start = self.end;
        self.place = next;
    }
}
