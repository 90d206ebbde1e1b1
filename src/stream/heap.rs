//! The bytes that checkpoints need: in memory, or left in the file where they are kept.
//!
//! Every piece has a check of its own, compared each time it is taken out. So a long heap
//! need not be read as a whole before the first byte of the stream can be, and damage to a
//! piece is met where that is used. Then decoding starts at an earlier checkpoint, at the
//! start of the stream in the end: damage costs speed, never a byte.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::store::ReadAt;
use crate::stream::span;

/// A place in a [`Heap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeapRange {
    /// First byte.
    pub start: u32,
    /// How many bytes; where there are none, the check says nothing.
    pub len: u32,
    /// [`span::check`] of them.
    pub check: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Heap {
    place: Place,
    is_damaged: AtomicBool,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    Stored {
        source: Arc<dyn ReadAt>,
        offset: u64,
        len: usize,
        check: u64,
    },
}

impl Default for Place {
    fn default() -> Self {
        Self::Memory(Vec::new())
    }
}

impl From<Vec<u8>> for Heap {
    fn from(bytes: Vec<u8>) -> Self {
        Self::at(Place::Memory(bytes))
    }
}

impl PartialEq for Heap {
    fn eq(&self, other: &Self) -> bool {
        match (self.bytes(), other.bytes()) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
    }
}

impl Heap {
    fn at(place: Place) -> Self {
        let is_damaged = AtomicBool::new(false);
        Self { place, is_damaged }
    }

    /// The `len` bytes of `source` from `offset` on, which stay there. `check` is that of
    /// all of them.
    #[must_use]
    pub fn stored(source: Arc<dyn ReadAt>, offset: u64, len: usize, check: u64) -> Self {
        Self::at(Place::Stored {
            source,
            offset,
            len,
            check,
        })
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.place {
            Place::Memory(bytes) => bytes.len(),
            Place::Stored { len, .. } => *len,
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a piece was found damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// All bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if they are not what they were; those of reading.
    pub fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        let (source, offset, len, expected) = match &self.place {
            Place::Memory(bytes) => return Ok(Cow::Borrowed(bytes)),
            Place::Stored {
                source,
                offset,
                len,
                check,
            } => (source, *offset, *len, *check),
        };
        let bytes = read(&**source, offset, len)?;
        if span::check(&bytes) == expected {
            Ok(Cow::Owned(bytes))
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    /// Whether `range` lies in it.
    pub(super) fn covers(&self, range: HeapRange) -> bool {
        u64::from(range.start) + u64::from(range.len) <= self.len() as u64
    }

    /// The bytes of `range`; `None` if they are not, or cannot be read as, what they were.
    pub(super) fn piece(&self, range: HeapRange) -> Option<Cow<'_, [u8]>> {
        if range.len == 0 {
            return Some(Cow::Borrowed(&[]));
        }
        let piece = self.unchecked(range);
        let piece = piece.filter(|bytes| span::check(bytes) == range.check);
        if piece.is_none() && !self.is_damaged.swap(true, Ordering::Relaxed) {
            log::warn!("a kept checkpoint is damaged: reads near it are slow until it is remade");
        }
        piece
    }

    fn unchecked(&self, range: HeapRange) -> Option<Cow<'_, [u8]>> {
        let (start, len) = (range.start as usize, range.len as usize);
        match &self.place {
            Place::Memory(bytes) => {
                let piece = bytes.get(start..start.checked_add(len)?)?;
                Some(Cow::Borrowed(piece))
            }
            Place::Stored { source, offset, .. } if self.covers(range) => {
                let piece = read(&**source, offset + u64::from(range.start), len);
                piece.ok().map(Cow::Owned)
            }
            Place::Stored { .. } => None,
        }
    }

    /// Puts a piece at the end of a heap in memory; `None` if there is no more room.
    pub(super) fn push(&mut self, piece: &[u8]) -> Option<HeapRange> {
        let Place::Memory(bytes) = &mut self.place else {
            return None;
        };
        let range = HeapRange {
            start: u32::try_from(bytes.len()).ok()?,
            len: u32::try_from(piece.len()).ok()?,
            check: span::check(piece),
        };
        bytes.extend_from_slice(piece);
        Some(range)
    }

    /// Drops all but the first `len` bytes of a heap in memory.
    pub(super) fn truncate(&mut self, len: usize) {
        if let Place::Memory(bytes) = &mut self.place {
            bytes.truncate(len);
        }
    }

    /// Gives back memory that is not needed.
    pub(super) fn shrink_to_fit(&mut self) {
        if let Place::Memory(bytes) = &mut self.place {
            bytes.shrink_to_fit();
        }
    }
}

fn read(source: &dyn ReadAt, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    if source.read_at(&mut bytes, offset)? < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_what_it_was_or_nothing() {
        let mut made = Heap::default();
        let ranges = [b"one".as_slice(), b"", b"three"].map(|piece| made.push(piece));
        let [Some(one), Some(empty), Some(three)] = ranges else {
            panic!("there is room");
        };
        let stored = |bytes: &[u8]| {
            let file: Arc<dyn ReadAt> = Arc::new(bytes.to_vec());
            Heap::stored(file, 2, 8, span::check(b"onethree"))
        };
        let beyond = HeapRange { start: 6, ..one };
        // Name, heap, range, its bytes, whether the heap is damaged then, and as a whole.
        let rows = [
            ("in memory", made, one, Some("one"), false, true),
            (
                "stored",
                stored(b"..onethree."),
                three,
                Some("three"),
                false,
                true,
            ),
            (
                "empty",
                stored(b"..onethree."),
                empty,
                Some(""),
                false,
                true,
            ),
            ("changed", stored(b"..onethrEe."), three, None, true, false),
            (
                "changed elsewhere",
                stored(b"..onethrEe."),
                one,
                Some("one"),
                false,
                false,
            ),
            ("cut", stored(b"..onethr"), three, None, true, false),
            ("beyond", stored(b"..onethree."), beyond, None, true, true),
        ];
        for (name, heap, range, expected, is_damaged, is_whole) in rows {
            let piece = heap.piece(range);
            assert_eq!(piece.as_deref(), expected.map(str::as_bytes), "{name}");
            assert_eq!(heap.is_damaged(), is_damaged, "{name}");
            assert_eq!(heap.bytes().is_ok(), is_whole, "{name}");
        }
    }
}
