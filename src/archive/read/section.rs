//! A part of some bytes, as bytes of their own.

use std::io;
use std::sync::Arc;

use super::table::Extent;
use crate::store::{ReadAt, source};

/// The bytes of one member of an archive.
#[derive(Debug, Clone)]
pub(super) struct Section {
    of: Arc<dyn ReadAt>,
    extent: Extent,
}

impl Section {
    /// The bytes of `of` at `extent`, which lies within it.
    pub(super) fn new(of: &Arc<dyn ReadAt>, extent: Extent) -> Self {
        let of = Arc::clone(of);
        Self { of, extent }
    }
}

impl ReadAt for Section {
    fn size(&self) -> u64 {
        self.extent.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let wanted = source::available(self.extent.len, offset, buf.len());
        if wanted == 0 {
            return Ok(0);
        }
        match self
            .of
            .read_at(&mut buf[..wanted], self.extent.offset + offset)?
        {
            read if read == wanted => Ok(read),
            // A short read always means the end, which is not here.
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
