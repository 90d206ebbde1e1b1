//! The bits of a deflate stream that were taken from the input and not used yet.

/// Up to 63 bits, the next one lowest.
///
/// While the fast loop runs, only the low six bits of the count mean anything, and bits
/// beyond it may be set already that the input has there. At all other times the count is
/// exact and what is beyond it is zero.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bits {
    value: u64,
    count: u32,
}

impl Bits {
    /// The `count` low bits of `value`; fewer than eight, the others zero.
    pub(super) fn of(count: u8, value: u8) -> Self {
        Self {
            value: value.into(),
            count: count.into(),
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// How many there are, in the fast loop.
    #[inline(always)]
    pub(super) fn fast_count(&self) -> u32 {
        self.count & 63
    }

    /// The bits, the next one lowest.
    #[inline(always)]
    pub(super) fn value(&self) -> u64 {
        self.value
    }

    /// The next `count` bits, up to 32; zeros where there are fewer, outside the fast loop.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "32 bits at most")]
    pub(super) fn peek(&self, count: u32) -> usize {
        (self.value & ((1 << count) - 1)) as usize
    }

    /// Drops as many bits as the low byte of a table's entry says.
    #[inline(always)]
    pub(super) fn drop_low_byte(&mut self, entry: u32) {
        self.value = self.value.wrapping_shr(entry);
        self.count = self.count.wrapping_sub(entry);
    }

    /// Takes in what fits of the next eight bytes; says how many that are. Then there are 56
    /// bits at least.
    #[inline(always)]
    pub(super) fn refill(&mut self, word: u64) -> usize {
        self.value |= word.wrapping_shl(self.count);
        let taken = 7 - ((self.count >> 3) & 7);
        self.count |= 56;
        taken as usize
    }

    /// Gives back whole bytes after the fast loop; says how many.
    pub(super) fn give_back(&mut self) -> usize {
        let bytes = (self.count >> 3) & 7;
        self.count &= 7;
        self.value &= (1 << self.count) - 1;
        bytes as usize
    }

    /// Takes in one byte; there is room for it.
    pub(super) fn push(&mut self, byte: u8) {
        debug_assert!(self.count <= 56);
        self.value |= u64::from(byte) << self.count;
        self.count += 8;
    }

    /// Takes the next `count` bits out; there are as many.
    pub(super) fn take(&mut self, count: u32) -> usize {
        debug_assert!(count <= self.count && count <= 32);
        let taken = self.peek(count);
        self.value >>= count;
        self.count -= count;
        taken
    }

    /// How many bits of the byte that was begun are left: 0 to 7.
    pub(super) fn left_of_byte(&self) -> u8 {
        (self.count & 7) as u8
    }
}
