//! The stored bytes as a decoder takes them: in order, chunk by chunk.

use std::sync::Arc;

use crate::store::ReadAt;
use crate::stream::error::Error;
use crate::stream::offset::BlobOffset;

/// How many stored bytes a random read takes at a time: about what 150 KiB of decoded
/// bytes need.
const READ_CHUNK: usize = 64 << 10;

/// Gives out stored bytes.
pub trait Chunks {
    /// The next bytes from `offset`, as many as is convenient; empty only at the end.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Shrunk`], or [`Error::Stopped`].
    fn chunk_at(&mut self, offset: BlobOffset) -> Result<Arc<Vec<u8>>, Error>;
}

/// Stored bytes straight from their source.
#[derive(Debug)]
pub(super) struct Direct<'a>(pub(super) &'a dyn ReadAt);

impl Chunks for Direct<'_> {
    fn chunk_at(&mut self, offset: BlobOffset) -> Result<Arc<Vec<u8>>, Error> {
        let wanted = crate::store::source::available(self.0.size(), offset.0, READ_CHUNK);
        let mut bytes = vec![0; wanted];
        let len = self
            .0
            .read_at(&mut bytes, offset.0)
            .map_err(Error::from_read)?;
        bytes.truncate(len);
        Ok(Arc::new(bytes))
    }
}

/// A place in the stored bytes, with the chunk around it. It does not hold the source,
/// so that a parked decoder keeps no file open.
#[derive(Debug, Default)]
pub(super) struct Input {
    chunk: Arc<Vec<u8>>,
    pos: usize,
    chunk_end: BlobOffset,
}

impl Input {
    /// At `offset`, nothing read yet.
    pub(super) fn at(offset: BlobOffset) -> Self {
        Self {
            chunk_end: offset,
            ..Self::default()
        }
    }

    /// Where the next byte lies.
    pub(super) fn offset(&self) -> BlobOffset {
        BlobOffset(self.chunk_end.0 - (self.chunk.len() - self.pos) as u64)
    }

    /// The bytes at hand, at least one unless the stream is at its end.
    pub(super) fn fill(&mut self, chunks: &mut dyn Chunks) -> Result<&[u8], Error> {
        if self.pos == self.chunk.len() {
            self.chunk = chunks.chunk_at(self.chunk_end)?;
            self.chunk_end.0 += self.chunk.len() as u64;
            self.pos = 0;
        }
        Ok(&self.chunk[self.pos..])
    }

    /// Goes past `len` of the bytes at hand.
    pub(super) fn consume(&mut self, len: usize) {
        debug_assert!(len <= self.chunk.len() - self.pos);
        self.pos += len;
    }

    /// The next byte; the end is [`Error::Truncated`].
    pub(super) fn byte(&mut self, chunks: &mut dyn Chunks) -> Result<u8, Error> {
        let byte = *self.fill(chunks)?.first().ok_or(Error::Truncated)?;
        self.consume(1);
        Ok(byte)
    }

    /// The next `N` bytes.
    pub(super) fn bytes<const N: usize>(
        &mut self,
        chunks: &mut dyn Chunks,
    ) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte(chunks)?;
        }
        Ok(bytes)
    }

    /// Goes past the next `len` bytes, which must be there.
    pub(super) fn skip(&mut self, mut len: u64, chunks: &mut dyn Chunks) -> Result<(), Error> {
        while len > 0 {
            let here = self.fill(chunks)?.len();
            if here == 0 {
                return Err(Error::Truncated);
            }
            let step = usize::try_from(len).map_or(here, |len| len.min(here));
            self.consume(step);
            len -= step as u64;
        }
        Ok(())
    }
}
