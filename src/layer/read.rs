//! The bytes of one regular file of a layer.

use std::sync::Arc;

use crate::layer::{Error, Layer};
use crate::stream::TarOffset;
use crate::tar::Content;

/// A regular file of a layer, opened for reading. Offsets count from its start.
#[derive(Debug, Clone)]
pub struct LayerFile {
    layer: Arc<Layer>,
    content: Content,
    /// For each region of a sparse file, where its bytes are; empty for others.
    starts: Vec<u64>,
}

impl LayerFile {
    /// The file of `layer` with this content.
    #[must_use]
    pub fn new(layer: Arc<Layer>, content: Content) -> Self {
        let starts = match content.regions {
            Some(_) => content.extents().map(|(_, start, _)| start).collect(),
            None => Vec::new(),
        };
        Self {
            layer,
            content,
            starts,
        }
    }

    /// How long it is in bytes, holes included.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.content.size
    }

    /// Reads bytes; returns fewer than asked only at the end. Holes read as zeros.
    ///
    /// # Errors
    /// As [`Layer::read_at`].
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        let rest = self.content.size.saturating_sub(offset);
        let len = usize::try_from(rest).map_or(buf.len(), |rest| rest.min(buf.len()));
        let buf = &mut buf[..len];
        if self.content.regions.is_some() {
            self.read_sparse(buf, offset)?;
        } else {
            self.read_stored(buf, self.content.data_offset + offset)?;
        }
        Ok(len)
    }

    fn read_stored(&self, buf: &mut [u8], tar_offset: u64) -> Result<(), Error> {
        let read = self.layer.read_at(buf, TarOffset(tar_offset))?;
        // The pass saw all of the tar: its entries lie within it.
        debug_assert_eq!(read, buf.len(), "an entry ends behind its tar");
        Ok(())
    }

    fn read_sparse(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        buf.fill(0);
        let end = offset + buf.len() as u64;
        let regions = self.content.regions.as_deref().unwrap_or_default();
        let first = regions.partition_point(|region| region.file_offset + region.len <= offset);
        for (region, start) in regions.iter().zip(&self.starts).skip(first) {
            if region.file_offset >= end {
                break;
            }
            let from = region.file_offset.max(offset);
            let to = (region.file_offset + region.len).min(end);
            let at = |place: u64| usize::try_from(place - offset).expect("it lies in the buffer");
            let tar_offset = start + (from - region.file_offset);
            self.read_stored(&mut buf[at(from)..at(to)], tar_offset)?;
        }
        Ok(())
    }

    /// Where the next stored byte at or after `offset` is; `None` if only holes follow, or
    /// the end.
    #[must_use]
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        let offset = (offset < self.size()).then_some(offset)?;
        let Some(regions) = &self.content.regions else {
            return Some(offset);
        };
        let next = regions.partition_point(|region| region.file_offset + region.len <= offset);
        regions
            .get(next)
            .map(|region| region.file_offset.max(offset))
    }

    /// Where the next hole at or after `offset` begins; the end counts as one. `None` from
    /// the end on.
    #[must_use]
    pub fn next_hole(&self, offset: u64) -> Option<u64> {
        let mut offset = (offset < self.size()).then_some(offset)?;
        let Some(regions) = &self.content.regions else {
            return Some(self.size());
        };
        let next = regions.partition_point(|region| region.file_offset + region.len <= offset);
        for region in &regions[next..] {
            if region.file_offset > offset {
                break;
            }
            offset = region.file_offset + region.len;
        }
        Some(offset.min(self.size()))
    }
}
