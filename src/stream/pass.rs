//! The first pass: decodes a stream once, from end to end, and makes its [`SpanTable`].
//!
//! Everything that can be wrong with a stream is found here, once: member and frame
//! checksums, what follows the end, limits. Whoever drives the pass sees the stored bytes
//! (it hands them out, as [`Chunks`]) and the decoded ones ([`Sink::decoded`]), so that
//! digests are of the very bytes that were decoded.

use crate::store::ReadAt;
use crate::stream::checkpoint::deflate;
use crate::stream::checkpoint::{Checkpoint, Restart};
use crate::stream::error::Error;
use crate::stream::gzip::{self, Trailer};
use crate::stream::heap::HeapRange;
use crate::stream::inflate::Stop;
use crate::stream::input::{Chunks, Input};
use crate::stream::limits::Limits;
use crate::stream::offset::{BlobOffset, TarOffset};
use crate::stream::sniff::Compression;
use crate::stream::span::{self, Checkpoints, SPAN_SIZE, Span, SpanId, SpanTable};
use crate::stream::zstd;
use crate::stream::zstd_blocks::MAX_BLOCK_SIZE;

/// A span is cut at a zstd frame or a gzip member only if it has this many bytes: layers
/// with a frame for each small file would have a record for each as well.
const MIN_SPAN_SIZE: usize = 64 << 10;

/// Spans of a zstd frame consist of whole blocks, and end when they have this many bytes.
const ZSTD_SPAN_SIZE: usize = 192 << 10;

/// Room for such a span, with one byte that is never used: so that there is room left
/// after every block, which shows that all of it was decoded.
const ZSTD_ROOM: usize = ZSTD_SPAN_SIZE + MAX_BLOCK_SIZE + 1;

/// Hands out the stored bytes of a pass and takes the decoded ones.
pub trait Sink: Chunks {
    /// Takes the bytes of the next span. Returns a buffer that may be used again, of any
    /// content and size.
    ///
    /// # Errors
    /// [`Error::Stopped`] ends the pass.
    fn decoded(&mut self, span: Vec<u8>) -> Result<Vec<u8>, Error>;
}

/// Decodes all of a stream.
///
/// `sink` hands out the bytes of `source`, in order; `source` itself is read only to look
/// ahead, so what it says then matters for the table's size and not for its truth.
///
/// # Errors
/// What is wrong with the stream; see [`Error`].
pub fn scan(source: &dyn ReadAt, sink: &mut dyn Sink, limits: &Limits) -> Result<SpanTable, Error> {
    let compression = Compression::of(source)?;
    let mut pass = Pass::new(source, sink, limits, compression, Keep::Table);
    pass.run(compression)?;
    pass.finish(compression)
}

/// Decodes all of a stream as [`scan`] does, and keeps nothing of it: for what is read
/// once, in order. Says how it was compressed.
///
/// # Errors
/// As [`scan`].
pub fn decode(
    source: &dyn ReadAt,
    sink: &mut dyn Sink,
    limits: &Limits,
) -> Result<Compression, Error> {
    let compression = Compression::of(source)?;
    let mut pass = Pass::new(source, sink, limits, compression, Keep::Nothing);
    pass.run(compression)?;
    pass.cut()?;
    Ok(compression)
}

/// What is left of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Table,
    Nothing,
}

struct Pass<'a> {
    source: &'a dyn ReadAt,
    sink: &'a mut dyn Sink,
    limits: &'a Limits,
    keep: Keep,
    /// The most bytes of a span.
    room: usize,
    /// The span being decoded, and how much of it there is.
    buf: Vec<u8>,
    len: usize,
    /// Where in a zstd stream it begins.
    place: BlobOffset,
    /// Where it begins.
    start: TarOffset,
    /// Where the last checkpoint lies.
    checkpoint_at: TarOffset,
    spans: Vec<Span>,
    checkpoints: Checkpoints,
}

impl<'a> Pass<'a> {
    fn new(
        source: &'a dyn ReadAt,
        sink: &'a mut dyn Sink,
        limits: &'a Limits,
        compression: Compression,
        keep: Keep,
    ) -> Self {
        let room = match compression {
            Compression::Plain | Compression::Gzip => SPAN_SIZE,
            Compression::Zstd => ZSTD_ROOM,
        };
        Self {
            source,
            sink,
            limits,
            keep,
            room,
            buf: vec![0; room],
            len: 0,
            place: BlobOffset(0),
            start: TarOffset(0),
            checkpoint_at: TarOffset(0),
            spans: Vec::new(),
            checkpoints: Checkpoints::default(),
        }
    }

    fn run(&mut self, compression: Compression) -> Result<(), Error> {
        match compression {
            Compression::Plain => self.plain(),
            Compression::Gzip => self.gzip(),
            Compression::Zstd => self.zstd(),
        }
    }

    fn plain(&mut self) -> Result<(), Error> {
        self.mark(Restart::Fresh {
            blob_offset: BlobOffset(0),
        })?;
        let mut input = Input::default();
        loop {
            let bytes = input.fill(self.sink)?;
            if bytes.is_empty() {
                return Ok(());
            }
            let step = bytes.len().min(self.room - self.len);
            self.buf[self.len..self.len + step].copy_from_slice(&bytes[..step]);
            input.consume(step);
            self.wrote(step)?;
        }
    }

    fn gzip(&mut self) -> Result<(), Error> {
        let mut decoder = gzip::Decoder::new();
        let mut member = Member::default();
        let mut idle = Idle::default();
        loop {
            let out = &mut self.buf[self.len..];
            let (step, event) = decoder.advance(self.sink, out, Stop::AtBlocks)?;
            member.update(&out[..step]);
            self.wrote(step)?;
            idle.progress(step);
            match event {
                gzip::Event::Pause => {}
                gzip::Event::MemberStart(BlobOffset(at)) => self.free_mark(Restart::Deflate {
                    bit_offset: at * 8,
                    window: HeapRange::default(),
                    window_len: 0,
                })?,
                gzip::Event::Boundary { bit_offset } => {
                    idle.block(self.limits)?;
                    if self.keep == Keep::Table && self.is_due(bit_offset / 8) {
                        let window = decoder.window();
                        self.deflate_mark(bit_offset, window)?;
                    }
                }
                gzip::Event::MemberEnd(trailer) => {
                    idle.member(self.limits)?;
                    std::mem::take(&mut member).compare(&trailer)?;
                }
                gzip::Event::End => return Ok(()),
            }
        }
    }

    fn zstd(&mut self) -> Result<(), Error> {
        let mut decoder = zstd::Decoder::at(BlobOffset(0), self.limits.zstd_window);
        let mut frame_len = 0;
        // Where the frame begins, if that is within the current span.
        let mut begun = None;
        loop {
            let (step, event) = decoder.advance(self.sink, &mut self.buf[self.len..])?;
            frame_len += step;
            self.wrote(step)?;
            match event {
                zstd::Event::Pause => {}
                zstd::Event::FrameStart(blob_offset) => {
                    frame_len = 0;
                    self.free_mark(Restart::Fresh { blob_offset })?;
                    begun = (self.len > 0).then_some((self.len, blob_offset));
                    if self.len == 0 {
                        self.place = blob_offset;
                    }
                }
                zstd::Event::Boundary(next) => {
                    if self.len >= ZSTD_SPAN_SIZE {
                        if let Some((at, blob_offset)) = begun.take() {
                            self.split(at, blob_offset)?;
                        }
                        self.cut()?;
                        self.place = next;
                    }
                }
                // As in `split`.
                zstd::Event::FrameEnd if frame_len >= MIN_SPAN_SIZE => self.cut()?,
                zstd::Event::FrameEnd => {}
                zstd::Event::End => return Ok(()),
            }
        }
    }

    /// Whether a checkpoint that costs a window is due, after `covered` stored bytes.
    fn is_due(&self, covered: u64) -> bool {
        let since = self.start.0 + self.len as u64 - self.checkpoint_at.0;
        since >= deflate::spacing(self.checkpoints.heap.len() as u64, covered)
    }

    /// Makes a checkpoint here, which ends the current span.
    fn mark(&mut self, restart: Restart) -> Result<(), Error> {
        self.cut()?;
        if self.keep == Keep::Nothing {
            return Ok(());
        }
        let span = SpanId(u32::try_from(self.spans.len()).map_err(|_| self.too_many())?);
        // Empty members and frames leave several at one place: the last is the best.
        self.checkpoints.list.pop_if(|last| last.span == span);
        self.checkpoints.list.push(Checkpoint { span, restart });
        self.checkpoint_at = self.start;
        Ok(())
    }

    /// Makes a checkpoint that costs no window, unless the current span is very short.
    fn free_mark(&mut self, restart: Restart) -> Result<(), Error> {
        if self.len == 0 || self.len >= MIN_SPAN_SIZE {
            self.mark(restart)?;
        }
        Ok(())
    }

    /// Ends the current span at its byte `at`, where the frame at `blob_offset` begins: a
    /// long frame shares no span with others, so that each has its own checkpoints.
    fn split(&mut self, at: usize, blob_offset: BlobOffset) -> Result<(), Error> {
        let rest = self.buf[at..self.len].to_vec();
        self.len = at;
        self.mark(Restart::Fresh { blob_offset })?;
        self.place = blob_offset;
        self.len = rest.len();
        self.buf[..self.len].copy_from_slice(&rest);
        Ok(())
    }

    fn deflate_mark(&mut self, bit_offset: u64, window: Vec<u8>) -> Result<(), Error> {
        let window_len = u32::try_from(window.len()).map_err(|_| self.too_many())?;
        let packed = deflate::pack(self.source, bit_offset, window)?;
        let window = self.checkpoints.heap.push(&packed);
        let window = window.ok_or_else(|| self.too_many())?;
        self.mark(Restart::Deflate {
            bit_offset,
            window,
            window_len,
        })
    }

    /// `step` more bytes were decoded.
    fn wrote(&mut self, step: usize) -> Result<(), Error> {
        self.len += step;
        if self.len == self.room {
            self.cut()?;
        }
        Ok(())
    }

    /// Ends the current span, if it has begun.
    fn cut(&mut self) -> Result<(), Error> {
        if self.len == 0 {
            return Ok(());
        }
        self.buf.truncate(self.len);
        if self.keep == Keep::Table {
            self.spans.push(Span {
                tar_offset: self.start,
                blob_offset: self.place,
                check: span::check(&self.buf),
            });
        }
        self.start.0 += self.len as u64;
        self.len = 0;
        self.check_limits()?;
        self.buf = self.sink.decoded(std::mem::take(&mut self.buf))?;
        self.buf.resize(self.room, 0);
        Ok(())
    }

    fn check_limits(&self) -> Result<(), Error> {
        let Limits {
            decoded_size,
            ratio,
            ratio_floor,
            ..
        } = *self.limits;
        let size = self.source.size();
        if self.start.0 > decoded_size {
            Err(self.too_many())
        } else if self.start.0 > ratio_floor.max(size.saturating_mul(ratio)) {
            Err(Error::Ratio { limit: ratio, size })
        } else {
            Ok(())
        }
    }

    /// Numbers of spans and sizes of heaps overflow far beyond the limit on bytes only.
    fn too_many(&self) -> Error {
        Error::DecodedSize {
            limit: self.limits.decoded_size,
        }
    }

    fn finish(mut self, compression: Compression) -> Result<SpanTable, Error> {
        self.cut()?;
        let spans = self.spans.len();
        self.checkpoints
            .list
            .pop_if(|last| last.span.0 as usize >= spans);
        self.checkpoints.heap.shrink_to_fit();
        self.spans.shrink_to_fit();
        let table = SpanTable::new(compression, self.start.0, self.spans, self.checkpoints);
        Ok(table.expect("spans and checkpoints were made in order"))
    }
}

/// Checksum and length of the member being decoded.
#[derive(Default)]
struct Member {
    crc: crc32fast::Hasher,
    /// Modulo 2^32, as the trailer has it.
    len: u32,
}

impl Member {
    fn update(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        let len = u32::try_from(bytes.len()).expect("a span is far below 4 GiB");
        self.len = self.len.wrapping_add(len);
    }

    fn compare(self, trailer: &Trailer) -> Result<(), Error> {
        let at = trailer.end;
        if self.crc.finalize() != trailer.crc {
            Err(Error::GzipCheck {
                at,
                fault: "CRC-32",
            })
        } else if self.len != trailer.len {
            Err(Error::GzipCheck {
                at,
                fault: "length",
            })
        } else {
            Ok(())
        }
    }
}

/// How many blocks and members in a row decoded to nothing.
#[derive(Default)]
struct Idle {
    blocks: u64,
    members: u64,
}

impl Idle {
    fn progress(&mut self, produced: usize) {
        if produced > 0 {
            *self = Self::default();
        }
    }

    fn block(&mut self, limits: &Limits) -> Result<(), Error> {
        self.blocks += 1;
        (self.blocks <= limits.idle_blocks)
            .then_some(())
            .ok_or(Error::Progress {
                limit: limits.idle_blocks,
                what: "deflate blocks",
            })
    }

    fn member(&mut self, limits: &Limits) -> Result<(), Error> {
        self.blocks = 0;
        self.members += 1;
        (self.members <= limits.idle_members)
            .then_some(())
            .ok_or(Error::Progress {
                limit: limits.idle_members,
                what: "gzip members",
            })
    }
}
