//! What was decoded before the output of a call: as much as deflate may refer to.

/// How far back deflate data may refer.
pub(in crate::stream) const WINDOW_SIZE: usize = 32 << 10;

/// The last bytes of all earlier outputs, as a ring.
pub(super) struct Window {
    ring: [u8; WINDOW_SIZE],
    /// Where the next byte goes, which is where the oldest one is in a full ring.
    next: usize,
    len: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            ring: [0; WINDOW_SIZE],
            next: 0,
            len: 0,
        }
    }
}

impl Window {
    pub(super) fn clear(&mut self) {
        (self.next, self.len) = (0, 0);
    }

    /// Adds what was put out.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let last = &bytes[bytes.len().saturating_sub(WINDOW_SIZE)..];
        let (first, second) = last.split_at(last.len().min(WINDOW_SIZE - self.next));
        self.ring[self.next..][..first.len()].copy_from_slice(first);
        self.ring[..second.len()].copy_from_slice(second);
        self.next = (self.next + last.len()) % WINDOW_SIZE;
        self.len = (self.len + last.len()).min(WINDOW_SIZE);
    }

    /// Fills `to` with what begins `back` bytes before the end; it may end before that does,
    /// and says how much there was. Nothing, if `back` is more than it holds.
    pub(super) fn read(&self, back: usize, to: &mut [u8]) -> Option<usize> {
        if back > self.len {
            return None;
        }
        let len = back.min(to.len());
        let start = (self.next + WINDOW_SIZE - back) % WINDOW_SIZE;
        let (first, second) = to[..len].split_at_mut(len.min(WINDOW_SIZE - start));
        first.copy_from_slice(&self.ring[start..][..first.len()]);
        second.copy_from_slice(&self.ring[..second.len()]);
        Some(len)
    }

    /// Copies `len` bytes to `output[at..]` from `distance` before that, where the first of
    /// them are in the window. Nothing, if it does not reach so far back.
    pub(super) fn copy(
        &self,
        output: &mut [u8],
        at: usize,
        distance: usize,
        len: usize,
    ) -> Option<()> {
        let read = self.read(distance - at, &mut output[at..][..len])?;
        for to in at + read..at + len {
            output[to] = output[to - distance];
        }
        Some(())
    }

    /// All that it holds.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        let read = self.read(self.len, &mut bytes);
        debug_assert_eq!(read, Some(self.len));
        bytes
    }
}
