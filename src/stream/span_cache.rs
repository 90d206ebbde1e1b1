//! Bounded memory of decoded spans, shared by all streams, and of decoders at rest.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::stream::budget::Budget;
use crate::stream::buffers::{Buffer, Buffers};
use crate::stream::cursor::Cursor;
use crate::stream::read_ahead::ReadAhead;
use crate::stream::scratch::ScratchPool;
use crate::stream::span::SpanId;

/// How much memory decoders at rest may take together, in bytes. A gzip decoder takes a
/// hundred kilobytes, one of zstd its window, which is 8 MiB in most layers.
const PARKED: u64 = 8 << 20;

/// How many spans that were read to their end are kept all the same: requests of one
/// reader overtake each other.
const RETIRED: usize = 16;

/// How many of them are remembered, with those: they show how far readers have come.
const REMEMBERED: usize = 32;

/// A span of some table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SpanKey {
    /// [`SpanTable::id`](crate::stream::SpanTable::id).
    pub(super) table: u64,
    pub(super) span: SpanId,
}

/// A decoder at rest, and the span that it would decode next.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) next: SpanId,
    pub(super) cursor: Cursor,
}

/// Decoded spans of all streams, up to a number of bytes; what was read longest ago goes
/// first. It is correct with any number, also 0: then every read decodes.
///
/// Its locks are never held while anything is decoded or copied, nor together.
#[derive(Debug)]
pub struct SpanCache {
    memory: u64,
    spans: Mutex<Budget<SpanKey, Arc<Buffer>>>,
    parked: Mutex<Budget<SpanKey, Parked>>,
    retired: Mutex<VecDeque<SpanKey>>,
    /// For spans to come, also those that go nowhere else.
    pub(super) buffers: Buffers,
    pub(super) scratch: ScratchPool,
    pub(super) ahead: ReadAhead,
}

impl SpanCache {
    /// An empty cache of `memory` bytes.
    #[must_use]
    pub fn new(memory: u64) -> Self {
        Self {
            memory,
            spans: Mutex::new(Budget::new(memory)),
            parked: Mutex::new(Budget::new(PARKED)),
            retired: Mutex::default(),
            buffers: Buffers::new(memory),
            scratch: ScratchPool::new(memory),
            ahead: ReadAhead::default(),
        }
    }

    /// How many bytes of decoded spans it holds.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.spans.lock().used()
    }

    pub(super) fn get(&self, key: &SpanKey) -> Option<Arc<Buffer>> {
        self.spans.lock().get(key).cloned()
    }

    /// Whether the span is here; that does not count as a use.
    pub(super) fn contains(&self, key: &SpanKey) -> bool {
        self.spans.lock().contains(key)
    }

    /// Whether it may hold `len` bytes at all.
    pub(super) fn has_room_for(&self, len: usize) -> bool {
        self.memory >= len as u64
    }

    pub(super) fn insert(&self, key: SpanKey, bytes: &Arc<Buffer>) {
        self.spans
            .lock()
            .insert(key, Arc::clone(bytes), bytes.weight());
    }

    /// Notes that a span was read to its end, as who reads from start to end does. Such a
    /// reader, or the page cache before it, has what it wanted, so the span soon makes
    /// room: reading a whole layer does not fill the memory with it.
    pub(super) fn retire(&self, key: SpanKey) {
        let mut retired = self.retired.lock();
        let kept = retired.len().saturating_sub(RETIRED);
        match retired.iter().position(|known| *known == key) {
            Some(at) if at >= kept => return,
            Some(at) => drop(retired.remove(at)),
            None => {}
        }
        retired.push_back(key);
        if retired.len() > REMEMBERED {
            retired.pop_front();
        }
        let gone = retired.len().checked_sub(RETIRED + 1);
        let gone = gone.map(|at| retired[at]);
        drop(retired);
        if let Some(key) = gone {
            self.spans.lock().remove(&key);
        }
    }

    /// Whether the span was read to its end lately; it need not be here any more.
    pub(super) fn was_read(&self, key: &SpanKey) -> bool {
        self.retired.lock().contains(key)
    }

    /// Takes the decoder that rests after the checkpoint `start`, if it has not gone past
    /// `wanted`: then it is of no use any more.
    pub(super) fn unpark(&self, start: &SpanKey, wanted: SpanId) -> Option<Parked> {
        let parked = self.parked.lock().remove(start)?;
        (parked.next <= wanted).then_some(parked)
    }

    /// Keeps a decoder for the next reader after the checkpoint `start`.
    pub(super) fn park(&self, start: SpanKey, parked: Parked) {
        // One with a huge window may rest alone: to start it anew would cost more.
        let weight = parked.cursor.weight().min(PARKED);
        self.parked.lock().insert(start, parked, weight);
    }
}
