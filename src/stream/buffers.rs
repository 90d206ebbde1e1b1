//! Buffers of decoded spans, used again and again.
//!
//! Spans come and go on many threads, each of which has memory of its own from the
//! allocator: what one thread frees, another does not get. So the buffers stay with
//! the cache that they belong to.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::stream::span::SPAN_SIZE;

/// How many buffers are kept for spans to come at most: as many as are decoded at once from
/// a dictionary, and those that the readers of the ones before give back meanwhile.
const SPARE: usize = 48;

/// How much of the memory for spans these may take beside it, as a divisor.
const SPARE_PART: u64 = 4;

/// Buffers have a multiple of this many bytes, so that most fit most spans.
const STEP: usize = 64 << 10;

/// The buffers that hold nothing just now.
#[derive(Debug, Clone)]
pub(super) struct Buffers {
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    most: usize,
}

impl Buffers {
    /// None yet; later some, but few beside a cache of `memory` bytes.
    pub(super) fn new(memory: u64) -> Self {
        let fitting = memory / SPARE_PART / SPAN_SIZE as u64;
        Self {
            spare: Arc::default(),
            most: usize::try_from(fitting).unwrap_or(SPARE).clamp(1, SPARE),
        }
    }

    /// A buffer of `len` bytes of any content.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let room = len.next_multiple_of(STEP);
        let mut spare = self.spare.lock();
        let fits = |buffer: &Vec<u8>| (room..=2 * room).contains(&buffer.capacity());
        let found = spare.iter().rposition(fits);
        let found = found.map(|at| spare.swap_remove(at));
        drop(spare);
        let mut bytes = found.unwrap_or_else(|| vec![0; room]);
        bytes.resize(len, 0);
        Buffer {
            bytes,
            home: self.clone(),
        }
    }
}

/// The bytes of one span. Dropping it gives the buffer back.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Buffer {
    /// How much memory it takes, in bytes.
    pub(super) fn weight(&self) -> u64 {
        self.bytes.capacity() as u64
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes.len())
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut spare = self.home.spare.lock();
        if spare.len() == self.home.most {
            // One that nothing has fitted into for so long.
            spare.remove(0);
        }
        spare.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: u64 = 256 << 20;

    #[test]
    fn a_buffer_is_used_again_by_what_fits() {
        let rows = [
            ("the same length", 200 << 10, 200 << 10, true),
            ("shorter", 256 << 10, 150 << 10, true),
            ("much shorter", 256 << 10, 1, false),
            ("longer", 100 << 10, 200 << 10, false),
        ];
        for (name, first, second, expected) in rows {
            let buffers = Buffers::new(MEMORY);
            let place = buffers.take(first).as_ptr();
            let buffer = buffers.take(second);
            assert_eq!(buffer.len(), second, "{name}");
            assert_eq!(buffer.as_ptr() == place, expected, "{name}");
        }
    }

    #[test]
    fn few_are_kept() {
        for (memory, expected) in [(0, 1), (12 << 20, 12), (MEMORY, SPARE)] {
            let buffers = Buffers::new(memory);
            let many: Vec<_> = (0..SPARE + 3).map(|_| buffers.take(1)).collect();
            drop(many);
            assert_eq!(buffers.spare.lock().len(), expected, "{memory}");
        }
    }
}
