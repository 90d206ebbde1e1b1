//! Buffers of some megabytes that decoding from dictionaries needs, kept for the next
//! time: to have the kernel clear them anew would take longer than the decoding.

use std::fmt;

use parking_lot::{Condvar, Mutex};
use zstd::zstd_safe::DCtx;

use crate::stream::checkpoint::dictionary::Dictionary;

/// How many may decode at once; others wait. Each takes up to twice [`MAX_LEN`].
const AT_ONCE: usize = 2;

/// Where the cache of spans has fewer bytes than this, only one may.
const LITTLE_MEMORY: u64 = 32 << 20;

/// A room of more bytes is not kept: few frames have so large a window, and no two
/// checkpoints are so far apart.
const MAX_LEN: usize = 12 << 20;

/// What is asked of the allocator for a room at least, in bytes. So much comes from the
/// kernel itself and goes back to it: what is smaller would stay behind in the pieces of
/// memory that the allocator has for each thread. What is never touched costs nothing.
///
/// With what the allocator puts before it, these are whole huge pages: the kernel lets those
/// begin where a huge page may.
pub(super) const ALLOCATED: usize = (34 << 20) - (4 << 10);

/// A huge page.
const HUGE: usize = 2 << 20;

/// Room for bytes, never cleared.
#[derive(Default)]
pub(super) struct Room {
    bytes: Vec<u8>,
    /// Where in that the first huge page begins.
    start: usize,
    /// How many of them were ever asked for.
    touched: usize,
}

impl Room {
    /// Exactly `len` bytes of any content.
    pub(super) fn of(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < self.start + len {
            self.bytes = vec![0; len.max(ALLOCATED) + HUGE];
            let start = self.bytes.as_ptr();
            ask_for_huge_pages(start, self.bytes.len());
            self.start = start.align_offset(HUGE).min(HUGE);
        }
        self.touched = self.touched.max(len);
        &mut self.bytes[self.start..self.start + len]
    }

    fn forget_if_long(&mut self) {
        if self.touched > MAX_LEN {
            *self = Self::default();
        }
    }
}

/// Asks the kernel to hand the memory of `len` bytes from `start` on out in pieces of
/// megabytes: the first decode is to fill several of them, and would stop thousands of times
/// for smaller ones, which take seven times as long together.
fn ask_for_huge_pages(start: *const u8, len: usize) {
    const PAGE: usize = 4096;
    let skipped = start.align_offset(PAGE);
    let len = len.saturating_sub(skipped) / PAGE * PAGE;
    #[expect(unsafe_code, reason = "advice is given by address")]
    // SAFETY: the pages lie within memory that is allocated, and the advice changes nothing of
    // what they hold.
    let advised = unsafe {
        let first = start.wrapping_add(skipped).cast_mut().cast();
        rustix::mm::madvise(first, len, rustix::mm::Advice::LinuxHugepage)
    };
    if let Err(error) = advised {
        log::trace!("no huge pages for decoding: {error}");
    }
}

/// A decoder, and room for a dictionary in full. What that holds is left from the last
/// time.
pub(super) struct Scratch {
    pub(super) context: DCtx<'static>,
    pub(super) dictionary: Room,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch")
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            context: DCtx::create(),
            dictionary: Room::default(),
        }
    }
}

/// All that one decode needs.
#[derive(Default)]
pub(super) struct Workplace {
    pub(super) scratch: Scratch,
    /// A dictionary as it is unpacked.
    pub(super) unpacked: Dictionary,
    /// Decoded bytes.
    pub(super) output: Room,
}

#[derive(Default)]
struct State {
    unused: Vec<Workplace>,
    frames: Vec<Vec<u8>>,
    in_use: usize,
}

/// What is shared by all who decode from dictionaries.
pub(super) struct ScratchPool {
    at_once: usize,
    state: Mutex<State>,
    returned: Condvar,
}

impl fmt::Debug for ScratchPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScratchPool")
    }
}

impl ScratchPool {
    /// An empty pool, beside a cache of `memory` bytes.
    pub(super) fn new(memory: u64) -> Self {
        Self {
            at_once: if memory < LITTLE_MEMORY { 1 } else { AT_ONCE },
            state: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// Runs `decode`, after others if too many do so already.
    ///
    /// It must read from no source: that may be a stream which decodes in its turn.
    pub(super) fn run<T>(&self, decode: impl FnOnce(&mut Workplace) -> T) -> T {
        let _turn = self.wait_for_turn();
        let mut place = self.state.lock().unused.pop().unwrap_or_default();
        let result = decode(&mut place);
        place.scratch.dictionary.forget_if_long();
        place.output.forget_if_long();
        if place.unpacked.weight() > MAX_LEN {
            place.unpacked = Dictionary::default();
        }
        self.state.lock().unused.push(place);
        result
    }

    fn wait_for_turn(&self) -> Turn<'_> {
        let mut state = self.state.lock();
        while state.in_use == self.at_once {
            self.returned.wait(&mut state);
        }
        state.in_use += 1;
        Turn(self)
    }

    /// A buffer for stored blocks, to be given back.
    pub(super) fn take_frame(&self) -> Vec<u8> {
        let kept = self.state.lock().frames.pop();
        kept.unwrap_or_else(|| {
            let frame = Vec::with_capacity(ALLOCATED);
            ask_for_huge_pages(frame.as_ptr(), frame.capacity());
            frame
        })
    }

    /// Keeps such a buffer for the next one.
    pub(super) fn give_frame(&self, frame: Vec<u8>) {
        let mut state = self.state.lock();
        if state.frames.len() < self.at_once && frame.len() <= MAX_LEN {
            state.frames.push(frame);
        }
    }
}

/// The right to decode, up to its drop.
struct Turn<'a>(&'a ScratchPool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().in_use -= 1;
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_room_begins_with_a_huge_page_and_stays() {
        let mut room = Room::default();
        assert!(room.of(0).is_empty());
        let place = room.of(1).as_ptr();
        assert_eq!(place.align_offset(HUGE), 0);
        for len in [ALLOCATED, 5, ALLOCATED + HUGE] {
            assert_eq!(room.of(len).len(), len);
        }
        room.of(1)[0] = 7;
        assert_eq!(room.of(9)[0], 7);
        room.forget_if_long();
        assert!(room.bytes.is_empty());
    }

    #[test]
    fn no_more_than_a_few_decode_at_once() {
        for (memory, expected) in [(0, 1), (256 << 20, AT_ONCE)] {
            assert!((1..=expected).contains(&most_at_once(memory)), "{memory}");
        }
    }

    /// How many of several threads decode at once.
    fn most_at_once(memory: u64) -> usize {
        const THREADS: usize = 8;
        let (pool, start) = (ScratchPool::new(memory), Barrier::new(THREADS));
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    pool.run(|_| {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    });
                });
            }
        });
        most.into_inner()
    }

    #[test]
    fn a_decode_that_breaks_off_keeps_nobody_waiting() {
        let pool = ScratchPool::new(256 << 20);
        for _ in 0..=AT_ONCE {
            let broken = std::panic::AssertUnwindSafe(|| pool.run(|_| panic!("a fault of ours")));
            assert!(std::panic::catch_unwind(broken).is_err());
        }
        assert_eq!(pool.run(|_| 1), 1);
    }
}
