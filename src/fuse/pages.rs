//! Buffers for what is read, used again and again.
//!
//! Each begins where a page does: the kernel takes the bytes of a reply page by page, and
//! what lies across two pages costs it far more than two copies. The one that was used last
//! is used next, since the processor still has it at hand.

use std::fmt;

use parking_lot::Mutex;

const PAGE: usize = 4096;

/// Buffers that hold nothing just now, never more than requests are answered at once.
#[derive(Default)]
pub(super) struct Pages(Mutex<Vec<Vec<u8>>>);

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages({} buffers)", self.0.lock().len())
    }
}

impl Pages {
    /// Gives `fill` a buffer of `len` bytes of any content, up to its return.
    pub(super) fn lend<T>(&self, len: usize, fill: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut bytes = self.0.lock().pop().unwrap_or_default();
        if bytes.len() < len + PAGE {
            // Not in place: nothing of what it holds is to be copied.
            bytes = vec![0; len + PAGE];
        }
        let start = bytes.as_ptr().align_offset(PAGE).min(PAGE);
        let result = fill(&mut bytes[start..start + len]);
        self.0.lock().push(bytes);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_begins_with_a_page_and_is_used_again() {
        let pages = Pages::default();
        let lend = |len| {
            pages.lend(len, |bytes| {
                assert_eq!(bytes.len(), len);
                bytes.fill(1);
                bytes.as_ptr().addr()
            })
        };
        let long = lend(1 << 20);
        for len in [0, 1, 4096, 1 << 20] {
            assert_eq!(lend(len), long, "{len}");
        }
        let longer = lend((1 << 20) + 1);
        for place in [long, longer, pages.lend(9, |_| lend(9))] {
            assert_eq!(place % PAGE, 0, "{place:x}");
        }
        assert_eq!(pages.0.lock().len(), 2, "two were in use at once");
    }
}
