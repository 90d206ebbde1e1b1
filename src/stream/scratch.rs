//! Buffers of some megabytes that decoding from dictionaries needs, kept for the next
//! time: to have the kernel clear them anew would take longer than the decoding.

use std::fmt;

use parking_lot::Mutex;
use zstd::zstd_safe::DCtx;

/// How many are kept: as many as there are likely to be in use at once.
const KEPT: usize = 2;

/// A longer buffer is not kept, in bytes: few frames have so large a window.
const MAX_LEN: usize = 10 << 20;

/// A decoder with its buffers. What they hold is left from the last time.
pub(super) struct Scratch {
    pub(super) context: DCtx<'static>,
    /// Stored blocks, as a frame.
    pub(super) frame: Vec<u8>,
    /// A dictionary.
    pub(super) dictionary: Vec<u8>,
    /// Decoded bytes.
    pub(super) output: Vec<u8>,
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
            frame: Vec::new(),
            dictionary: Vec::new(),
            output: Vec::new(),
        }
    }
}

/// Those that nobody uses just now.
#[derive(Debug, Default)]
pub(super) struct ScratchPool(Mutex<Vec<Scratch>>);

impl ScratchPool {
    /// One that is kept, or a new one.
    pub(super) fn take(&self) -> Scratch {
        self.0.lock().pop().unwrap_or_default()
    }

    /// Keeps one for later.
    pub(super) fn give(&self, mut scratch: Scratch) {
        for buffer in [
            &mut scratch.frame,
            &mut scratch.dictionary,
            &mut scratch.output,
        ] {
            if buffer.capacity() > MAX_LEN {
                *buffer = Vec::new();
            }
        }
        let mut kept = self.0.lock();
        if kept.len() < KEPT {
            kept.push(scratch);
        }
    }
}

/// Makes `buffer` exactly `len` bytes long, of any content.
pub(super) fn resize(buffer: &mut Vec<u8>, len: usize) {
    if buffer.capacity() < len {
        // Not `resize` alone: that would copy what nobody wants, and grow by doubling.
        *buffer = vec![0; len];
    } else {
        buffer.resize(len, 0);
    }
}
