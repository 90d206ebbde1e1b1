//! Reads decoded bytes at any place.

use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::store::ReadAt;
use crate::stream::buffers::Buffer;
use crate::stream::checkpoint::dictionary::read_frame;
use crate::stream::checkpoint::{Checkpoint, Restart, deflate};
use crate::stream::cursor::Cursor;
use crate::stream::error::Error;
use crate::stream::offset::{BlobOffset, TarOffset};
use crate::stream::read_ahead;
use crate::stream::scratch::Workplace;
use crate::stream::sniff::Compression;
use crate::stream::span::{self, SpanId, SpanTable};
use crate::stream::span_cache::{Parked, SpanCache, SpanKey};

/// How many spans that are decoded on the way to another one are kept at most, more than
/// those between two gzip checkpoints: what lies close before it is likely to be read as
/// well, what lies far is not.
const KEPT_ON_THE_WAY: u32 = 8;

/// Which spans before one are in the cache where somebody reads on from them.
const READ_ON: [u32; 2] = [1, 2];

/// A compressed stream, read at positions of its decoded bytes.
#[derive(Debug, Clone)]
pub struct Stream {
    pub(super) table: Arc<SpanTable>,
    source: Arc<dyn ReadAt>,
    pub(super) cache: Arc<SpanCache>,
}

impl Stream {
    /// Joins stored bytes with the table that a pass over them made.
    #[must_use]
    pub fn new(table: Arc<SpanTable>, source: Arc<dyn ReadAt>, cache: Arc<SpanCache>) -> Self {
        Self {
            table,
            source,
            cache,
        }
    }

    /// How many bytes it decodes to.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.table.size()
    }

    /// Reads into `buf` from `offset`; returns fewer bytes than asked only at the end.
    ///
    /// # Errors
    /// [`Error::SpanCheck`] if the bytes are not those that the pass saw,
    /// [`Error::Shrunk`] and [`Error::Read`] from the source.
    pub fn read_at(&self, buf: &mut [u8], offset: TarOffset) -> Result<usize, Error> {
        let mut len = 0;
        while len < buf.len() {
            let at = TarOffset(offset.0.saturating_add(len as u64));
            let Some(id) = self.table.span_at(at) else {
                break;
            };
            read_ahead::consider(self, id);
            let bytes = self.span(id)?;
            let start = self.table.start_of(id);
            let skip = usize::try_from(at.0 - start.0).unwrap_or(usize::MAX);
            let here = bytes.get(skip..).unwrap_or_default();
            let step = here.len().min(buf.len() - len);
            buf[len..len + step].copy_from_slice(&here[..step]);
            len += step;
            if step == here.len() {
                self.cache.retire(self.key(id));
            }
        }
        Ok(len)
    }

    /// The decoded bytes of a span, from the cache or decoded now.
    pub(super) fn span(&self, id: SpanId) -> Result<Arc<Buffer>, Error> {
        if let Some(bytes) = self.cache.get(&self.key(id)) {
            return Ok(bytes);
        }
        let (checkpoint, needed) = self.start_for(id)?;
        let _lane = self.table.lane(checkpoint.span);
        if let Some(bytes) = self.cache.get(&self.key(id)) {
            return Ok(bytes);
        }
        // The stream was found good once: whatever is wrong with it now is damage.
        self.decode_from(&checkpoint, &needed, id).map_err(|error| {
            if error.is_of_the_stream() {
                self.changed(id)
            } else {
                error
            }
        })
    }

    fn decode_from(
        &self,
        checkpoint: &Checkpoint,
        needed: &[u8],
        id: SpanId,
    ) -> Result<Arc<Buffer>, Error> {
        let start = self.key(checkpoint.span);
        match checkpoint.restart {
            Restart::Fresh { blob_offset } => {
                let compression = self.table.compression();
                self.go_on(id, start, || Ok(Cursor::fresh(compression, blob_offset)))
            }
            Restart::Deflate {
                bit_offset,
                window_len,
                ..
            } => self.go_on(id, start, || self.deflate(bit_offset, needed, window_len)),
            Restart::Dictionary { state_len, end, .. } => {
                let end = self.wanted_with(id, checkpoint.span, end);
                self.burst((needed, state_len), checkpoint.span..end, id)
            }
        }
    }

    /// The checkpoint from which a span is decoded, and what it needs: the nearest that is
    /// not damaged.
    fn start_for(&self, id: SpanId) -> Result<(Checkpoint, Cow<'_, [u8]>), Error> {
        if self.table.compression() == Compression::Plain {
            // Every byte is where it is: no need to come from the start.
            let blob_offset = BlobOffset(self.table.start_of(id).0);
            let restart = Restart::Fresh { blob_offset };
            return Ok((Checkpoint { span: id, restart }, Cow::default()));
        }
        let checkpoints = self.table.checkpoints();
        let with_needed = |checkpoint: &Checkpoint| {
            let needed = checkpoints.heap.piece(checkpoint.restart.needs())?;
            Some((*checkpoint, needed))
        };
        let found = checkpoints.before(id).find_map(with_needed);
        found.ok_or_else(|| self.changed(id))
    }

    fn deflate(&self, bit_offset: u64, window: &[u8], len: u32) -> Result<Cursor, Error> {
        let window = match len {
            0 => Vec::new(),
            _ => deflate::unpack(window, len)?,
        };
        Cursor::deflate(bit_offset, &window, &*self.source)
    }

    /// Decodes up to and with a span, from where somebody stopped after the checkpoint
    /// `start` or else from there.
    fn go_on(
        &self,
        id: SpanId,
        start: SpanKey,
        open: impl FnOnce() -> Result<Cursor, Error>,
    ) -> Result<Arc<Buffer>, Error> {
        let mut parked = match self.cache.unpark(&start, id) {
            Some(parked) => parked,
            None => Parked {
                next: start.span,
                cursor: open()?,
            },
        };
        while id.0 - parked.next.0 > self.kept_on_the_way() {
            self.decode(&mut parked)?;
        }
        loop {
            let next = parked.next;
            let bytes = self.decode(&mut parked)?;
            let bytes = self.keep(next, bytes)?;
            if next == id {
                self.park(start, parked);
                return Ok(bytes);
            }
        }
    }

    /// Decodes the next span.
    fn decode(&self, parked: &mut Parked) -> Result<Buffer, Error> {
        let id = parked.next;
        let next = SpanId(id.0 + 1);
        let mut bytes = self.cache.buffers.take(self.len(id, next));
        if parked.cursor.read(&*self.source, &mut bytes)? < bytes.len() {
            return Err(self.changed(id));
        }
        parked.next = next;
        Ok(bytes)
    }

    /// Leaves the decoder for those who read on, unless the next span has its own start.
    fn park(&self, start: SpanKey, parked: Parked) {
        let checkpoint = self.table.checkpoint_before(parked.next);
        let goes_on = checkpoint.is_some_and(|checkpoint| checkpoint.span == start.span);
        if goes_on && self.table.span(parked.next).is_some() {
            self.cache.park(start, parked);
        }
    }

    /// Up to where to decode from a dictionary, which cannot go on later: all of it for
    /// somebody who reads on from the spans before, if there is room to keep it. One of them
    /// says nothing: a read of a few bytes may lie across two spans.
    fn wanted_with(&self, id: SpanId, first: SpanId, end: SpanId) -> SpanId {
        let was_read = |back: &u32| {
            let before = id.0.checked_sub(*back);
            before.is_some_and(|span| self.cache.contains(&self.key(SpanId(span))))
        };
        if READ_ON.iter().all(was_read) && self.cache.has_room_for(2 * self.len(first, end)) {
            end
        } else {
            SpanId(id.0 + 1)
        }
    }

    /// Decodes some spans at once, with a packed dictionary, and keeps those near and after
    /// `id`.
    fn burst(
        &self,
        (packed, len): (&[u8], u32),
        spans: Range<SpanId>,
        id: SpanId,
    ) -> Result<Arc<Buffer>, Error> {
        let place = |span| self.table.span(span).map(|span| span.blob_offset);
        let (first, end) = (spans.start, spans.end);
        let from = place(first).ok_or_else(|| self.changed(id))?;
        let pool = &self.cache.scratch;
        let mut frame = pool.take_frame();
        read_frame(&*self.source, (from, place(end)), &mut frame)?;
        let wanted = pool.run(|workplace| {
            let Workplace {
                scratch,
                unpacked,
                output,
            } = workplace;
            let unpack = unpacked.unpack(packed, len, &mut scratch.context);
            unpack.ok_or_else(|| self.changed(id))?;
            let output = output.of(self.len(first, end));
            unpacked
                .decode(&mut frame, scratch, output)
                .map_err(|fault| Error::ZstdFrame { at: from, fault })?;
            let kept = SpanId(first.0.max(id.0.saturating_sub(self.copied_on_the_way(id))));
            self.keep_all(kept..end, &output[self.len(first, kept)..], id)
        });
        pool.give_frame(frame);
        wanted
    }

    /// Keeps some spans, whose bytes are `decoded`; returns that of `id`.
    fn keep_all(
        &self,
        spans: Range<SpanId>,
        mut decoded: &[u8],
        id: SpanId,
    ) -> Result<Arc<Buffer>, Error> {
        let mut wanted = None;
        for span in (spans.start.0..spans.end.0).map(SpanId) {
            let (bytes, rest) = decoded.split_at(self.len(span, SpanId(span.0 + 1)));
            let mut buffer = self.cache.buffers.take(bytes.len());
            buffer.copy_from_slice(bytes);
            let kept = self.keep(span, buffer)?;
            if span == id {
                wanted = Some(kept);
            }
            decoded = rest;
        }
        wanted.ok_or_else(|| self.changed(id))
    }

    /// How many spans before the wanted one are worth keeping: none that would be gone
    /// before they are read.
    fn kept_on_the_way(&self) -> u32 {
        let all = (KEPT_ON_THE_WAY as usize + 1) * span::SPAN_SIZE;
        if self.cache.has_room_for(all) {
            KEPT_ON_THE_WAY
        } else {
            0
        }
    }

    /// As [`Self::kept_on_the_way`], where keeping takes a copy: none unless somebody has
    /// read just behind, and so comes from there.
    fn copied_on_the_way(&self, id: SpanId) -> u32 {
        let all = self.kept_on_the_way();
        let after = (1..=all).map(|step| SpanId(id.0.saturating_add(step)));
        let mut keys = after.map(|span| self.key(span));
        if keys.any(|key| self.cache.contains(&key)) {
            all
        } else {
            0
        }
    }

    /// Compares a decoded span with its check, and keeps it.
    fn keep(&self, id: SpanId, bytes: Buffer) -> Result<Arc<Buffer>, Error> {
        let expected = self.table.span(id).map(|span| span.check);
        if Some(span::check(&bytes)) != expected {
            return Err(self.changed(id));
        }
        let bytes = Arc::new(bytes);
        self.cache.insert(self.key(id), &bytes);
        Ok(bytes)
    }

    /// How many decoded bytes lie between the starts of two spans.
    fn len(&self, from: SpanId, to: SpanId) -> usize {
        let len = self.table.start_of(to).0 - self.table.start_of(from).0;
        usize::try_from(len).unwrap_or(usize::MAX)
    }

    /// The span is not what the pass saw.
    fn changed(&self, id: SpanId) -> Error {
        Error::SpanCheck {
            at: self.table.start_of(id),
        }
    }

    pub(super) fn key(&self, span: SpanId) -> SpanKey {
        SpanKey {
            table: self.table.id(),
            span,
        }
    }
}

impl ReadAt for Stream {
    fn size(&self) -> u64 {
        self.table.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(Self::read_at(self, buf, TarOffset(offset))?)
    }
}
