//! Bytes as choices: what the structured targets are made of.

/// Choices, taken from the front; zeros when all are taken.
#[derive(Debug, Clone)]
pub struct Recipe<'a>(&'a [u8]);

impl<'a> Recipe<'a> {
    /// The choices that `bytes` are.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all are taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// One of `choices`.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// A number below 2^`bits`, small ones as likely as large ones.
    pub fn number(&mut self, bits: u8) -> usize {
        let kept = u32::from(self.byte() % (bits + 1));
        let [a, b, c] = [self.byte(), self.byte(), self.byte()];
        let number = u32::from_le_bytes([a, b, c, 0]) & ((1 << kept) - 1);
        usize::try_from(number).expect("24 bits")
    }
}
