//! The sequences of a block: a stream of bits that is read from its end.
//!
//! Spec: RFC 8878 section 3.1.1.3.2.1.2 (sequence bitstream) and 3.1.2.5 (repeat offsets).

use super::fse::Table;
use super::{PADDING, Unparsed};

const CUT: Unparsed = Unparsed("sequences cut short");

/// What sequences may not exceed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How many literals the block has.
    pub(super) literals: u64,
    /// How many decoded bytes come before the block.
    pub(super) position: u64,
}

/// The body of a block, read from its start until the bits begin.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    /// The body, and [`PADDING`] bytes.
    padded: &'a [u8],
    len: usize,
    at: usize,
}

impl<'a> Bits<'a> {
    /// `padded` holds `len` bytes of a body, and at least [`PADDING`] more.
    pub(super) fn new(padded: &'a [u8], len: usize) -> Self {
        debug_assert!(padded.len() >= len + PADDING);
        Self { padded, len, at: 0 }
    }

    pub(super) fn skip(&mut self, len: usize) -> Result<(), Unparsed> {
        self.at = self.at.checked_add(len).ok_or(CUT)?;
        (self.at <= self.len).then_some(()).ok_or(CUT)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Unparsed> {
        let byte = *self.rest().first().ok_or(CUT)?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.padded[self.at..self.len]
    }

    /// Reads `count` sequences (at least one) and tells of each match. Returns how many
    /// bytes the matches make together.
    pub(super) fn sequences(
        &self,
        count: usize,
        tables: &[Table; 3],
        repeats: &mut [u32; 3],
        limits: Limits,
        mut on_match: impl FnMut(u64, u64),
    ) -> Result<u64, Unparsed> {
        let [literal_lengths, offsets, match_lengths] = tables;
        let mut bits = Backward::new(&self.padded[self.at..], self.len - self.at)?;
        let mut states = [
            bits.take_state(literal_lengths.log())?,
            bits.take_state(offsets.log())?,
            bits.take_state(match_lengths.log())?,
        ];
        let mut position = limits.position;
        let (mut literals, mut matched) = (0, 0);
        for left in (0..count).rev() {
            let literal = literal_lengths.entry(states[0]);
            let offset = offsets.entry(states[1]);
            let length = match_lengths.entry(states[2]);
            let code = u64::from(offset.base) + bits.take(u32::from(offset.extra_bits))?;
            let extra = bits.take(u32::from(length.extra_bits + literal.extra_bits))?;
            let match_len = u64::from(length.base) + (extra >> literal.extra_bits);
            let literal_mask = (1 << literal.extra_bits) - 1;
            let literal_len = u64::from(literal.base) + (extra & literal_mask);
            let distance = u64::from(resolve(repeats, code, literal_len == 0)?);
            position += literal_len;
            literals += literal_len;
            let source = position.checked_sub(distance);
            on_match(source.ok_or(Unparsed("match before the start"))?, match_len);
            position += match_len;
            matched += match_len;
            if left > 0 {
                let total = literal.next_bits + length.next_bits + offset.next_bits;
                let more = bits.take(u32::from(total))?;
                let below = |bits: u8| (1_u64 << bits) - 1;
                let state = |next: u16, more: u64| usize::from(next) + small(more);
                states[1] = state(offset.next, more & below(offset.next_bits));
                let more = more >> offset.next_bits;
                states[2] = state(length.next, more & below(length.next_bits));
                states[0] = state(literal.next, more >> length.next_bits);
            }
        }
        if bits.left != 0 {
            return Err(Unparsed("bits left over"));
        }
        if literals > limits.literals {
            return Err(Unparsed("more literals than there are"));
        }
        Ok(matched)
    }
}

/// A value of at most nine bits.
fn small(value: u64) -> usize {
    usize::from(u16::try_from(value).unwrap_or(0))
}

/// The distance that an offset code stands for; moves the repeat offsets.
fn resolve(repeats: &mut [u32; 3], code: u64, no_literals: bool) -> Result<u32, Unparsed> {
    let [first, second, third] = *repeats;
    let choice = code + u64::from(no_literals && code <= 3);
    let distance = match choice {
        0 => return Err(Unparsed("offset code of 0")),
        new if code > 3 => u32::try_from(new - 3).map_err(|_| Unparsed("offset too large"))?,
        1 => first,
        2 => second,
        3 => third,
        _ => first.wrapping_sub(1),
    };
    if distance == 0 {
        return Err(Unparsed("offset of 0"));
    }
    *repeats = match choice {
        1 => *repeats,
        2 => [second, first, third],
        _ => [distance, first, second],
    };
    Ok(distance)
}

/// Bits that are read from the end to the start.
struct Backward<'a> {
    /// The bytes with the bits, and [`PADDING`] more.
    padded: &'a [u8],
    /// How many bits are left.
    left: usize,
}

impl<'a> Backward<'a> {
    /// The last byte's highest set bit only marks the end.
    fn new(padded: &'a [u8], len: usize) -> Result<Self, Unparsed> {
        let last = *padded[..len].last().ok_or(CUT)?;
        let used = last.checked_ilog2().ok_or(Unparsed("no end mark"))?;
        Ok(Self {
            padded,
            left: (len - 1) * 8 + used as usize,
        })
    }

    /// The next `count` bits, 56 at most.
    fn take(&mut self, count: u32) -> Result<u64, Unparsed> {
        self.left = self.left.checked_sub(count as usize).ok_or(CUT)?;
        let field = self.padded.get(self.left / 8..).ok_or(CUT)?;
        let field = u64::from_le_bytes(*field.first_chunk().ok_or(CUT)?);
        Ok(field >> (self.left % 8) & ((1 << count) - 1))
    }

    fn take_state(&mut self, log: u32) -> Result<usize, Unparsed> {
        self.take(log).map(small)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, code, whether there are no literals, the distance, the repeat offsets after.
    type Row<'a> = (&'a str, u64, bool, Option<u32>, [u32; 3]);

    #[test]
    fn repeat_offsets() {
        let rows: &[Row<'_>] = &[
            ("new", 10, false, Some(7), [7, 1, 4]),
            ("new without literals", 10, true, Some(7), [7, 1, 4]),
            ("smallest new", 4, true, Some(1), [1, 1, 4]),
            ("first", 1, false, Some(1), [1, 4, 8]),
            ("second", 2, false, Some(4), [4, 1, 8]),
            ("third", 3, false, Some(8), [8, 1, 4]),
            ("second, by 1 without literals", 1, true, Some(4), [4, 1, 8]),
            ("third, by 2 without literals", 2, true, Some(8), [8, 1, 4]),
            ("one less than the first", 3, true, None, [1, 4, 8]),
        ];
        for (name, code, no_literals, expected, after) in rows {
            let mut repeats = [1, 4, 8];
            let distance = resolve(&mut repeats, *code, *no_literals).ok();
            assert_eq!((distance, repeats), (*expected, *after), "{name}");
        }
        let mut repeats = [5, 4, 8];
        assert_eq!(resolve(&mut repeats, 3, true), Ok(4));
        assert_eq!(repeats, [4, 5, 4]);
    }
}
