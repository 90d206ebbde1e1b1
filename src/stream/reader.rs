//! Reads decoded bytes at any place.

use std::io;
use std::sync::Arc;

use crate::store::ReadAt;
use crate::stream::checkpoint::{Checkpoint, Restart};
use crate::stream::cursor::Cursor;
use crate::stream::error::Error;
use crate::stream::input::Direct;
use crate::stream::offset::{BlobOffset, TarOffset};
use crate::stream::sniff::Compression;
use crate::stream::span::{self, SpanId, SpanTable};
use crate::stream::span_cache::{Parked, SpanCache, SpanKey};

/// How many spans that are decoded on the way to another one are kept: what lies close
/// before it is likely to be read as well, what lies far is not.
const KEPT_ON_THE_WAY: u32 = 16;

/// A compressed stream, read at positions of its decoded bytes.
#[derive(Debug, Clone)]
pub struct Stream {
    table: Arc<SpanTable>,
    source: Arc<dyn ReadAt>,
    cache: Arc<SpanCache>,
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
            let bytes = self.span(id)?;
            let start = self.table.span(id).map_or(at, |span| span.tar_offset);
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
    fn span(&self, id: SpanId) -> Result<Arc<Vec<u8>>, Error> {
        if let Some(bytes) = self.cache.get(&self.key(id)) {
            return Ok(bytes);
        }
        let (checkpoint, start) = self.start_of(id)?;
        let _lane = self.cache.lane(&start);
        if let Some(bytes) = self.cache.get(&self.key(id)) {
            return Ok(bytes);
        }
        let mut chunks = Direct(&*self.source);
        let mut parked = match self.cache.unpark(&start, id) {
            Some(parked) => parked,
            None => Parked {
                next: checkpoint.span,
                cursor: Cursor::open(&self.table, &checkpoint, &mut chunks)
                    .map_err(|error| self.damaged(error, id))?,
            },
        };
        while parked.next < id {
            self.pass_by(&mut parked, id)?;
        }
        let bytes = self.decode(&mut parked)?;
        self.park(start, parked);
        Ok(bytes)
    }

    /// The checkpoint from which a span is decoded, and the key of what is shared there.
    fn start_of(&self, id: SpanId) -> Result<(Checkpoint, SpanKey), Error> {
        let gone = || Error::SpanCheck { at: self.start(id) };
        let mut checkpoint = *self.table.checkpoint_before(id).ok_or_else(gone)?;
        if self.table.compression() == Compression::Plain {
            // Every byte is where it is: no need to come from the start.
            checkpoint.span = id;
            checkpoint.restart = Restart::Fresh {
                blob_offset: BlobOffset(self.start(id).0),
            };
        }
        Ok((checkpoint, self.key(checkpoint.span)))
    }

    /// Decodes the next span on the way to `wanted`.
    fn pass_by(&self, parked: &mut Parked, wanted: SpanId) -> Result<(), Error> {
        if wanted.0 - parked.next.0 <= KEPT_ON_THE_WAY {
            self.decode(parked).map(drop)
        } else {
            self.decode_unchecked(parked).map(drop)
        }
    }

    /// Decodes the next span, checks it and keeps it.
    fn decode(&self, parked: &mut Parked) -> Result<Arc<Vec<u8>>, Error> {
        let id = parked.next;
        let bytes = Arc::new(self.decode_unchecked(parked)?);
        let expected = self.table.span(id).map(|span| span.check);
        if Some(span::check(&bytes)) != expected {
            return Err(Error::SpanCheck { at: self.start(id) });
        }
        self.cache.insert(self.key(id), &bytes);
        Ok(bytes)
    }

    fn decode_unchecked(&self, parked: &mut Parked) -> Result<Vec<u8>, Error> {
        let id = parked.next;
        let len = self.table.end_of(id).0 - self.start(id).0;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let read = parked.cursor.read(&mut Direct(&*self.source), &mut bytes);
        let read = read.map_err(|error| self.damaged(error, id))?;
        if read < bytes.len() {
            return Err(Error::SpanCheck { at: self.start(id) });
        }
        parked.next = SpanId(id.0 + 1);
        Ok(bytes)
    }

    /// Leaves the decoder for those who read on, unless the next span has its own start.
    fn park(&self, start: SpanKey, parked: Parked) {
        let checkpoint = self.table.checkpoint_before(parked.next);
        let goes_on = checkpoint.is_some_and(|checkpoint| checkpoint.span == start.span);
        if goes_on && (parked.next.0 as usize) < self.table.spans().len() {
            self.cache.park(start, parked);
        }
    }

    /// The stream was found good once: whatever is wrong with it now is damage.
    fn damaged(&self, error: Error, id: SpanId) -> Error {
        if error.is_of_the_stream() {
            Error::SpanCheck { at: self.start(id) }
        } else {
            error
        }
    }

    fn start(&self, id: SpanId) -> TarOffset {
        self.table
            .span(id)
            .map_or(TarOffset(self.size()), |span| span.tar_offset)
    }

    fn key(&self, span: SpanId) -> SpanKey {
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
