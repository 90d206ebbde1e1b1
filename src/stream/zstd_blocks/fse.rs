//! FSE tables: distributions, their descriptions, and decoding tables made of them.
//!
//! Spec: RFC 8878 section 4.1.

use super::{Code, Unparsed};

/// The largest table has 2^9 states.
const MAX_STATES: usize = 512;

/// What is fixed for a kind of codes, RFC 8878 section 3.1.1.3.2.1.
struct Rules {
    /// The largest accuracy of a described table, as a power of two.
    max_log: u32,
    /// The largest symbol.
    max_symbol: usize,
}

impl Rules {
    const fn of(code: Code) -> Self {
        let (max_log, max_symbol) = match code {
            Code::LiteralLength => (9, 35),
            Code::Offset => (8, 31),
            Code::MatchLength => (9, 52),
        };
        Self {
            max_log,
            max_symbol,
        }
    }
}

/// How probable each symbol is; -1 means less than one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Distribution {
    log: u32,
    counts: Vec<i16>,
}

impl Distribution {
    /// The one of the specification, RFC 8878 section 3.1.1.3.2.2.
    pub(super) fn predefined(code: Code) -> Self {
        const LITERAL_LENGTH: [i16; 36] = [
            4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1,
            1, 1, 1, -1, -1, -1, -1,
        ];
        const OFFSET: [i16; 29] = [
            1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1,
            -1,
        ];
        const MATCH_LENGTH: [i16; 53] = [
            1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
        ];
        let (log, counts): (u32, &[i16]) = match code {
            Code::LiteralLength => (6, &LITERAL_LENGTH),
            Code::Offset => (5, &OFFSET),
            Code::MatchLength => (6, &MATCH_LENGTH),
        };
        Self {
            log,
            counts: counts.to_vec(),
        }
    }

    /// Reads a description from the start of `bytes`; says how long it is as well.
    pub(super) fn read(code: Code, bytes: &[u8]) -> Result<(Self, usize), Unparsed> {
        let rules = Rules::of(code);
        let mut bits = Forward { bytes, at: 0 };
        let log = bits.peek(4) + 5;
        bits.at += 4;
        if log > rules.max_log {
            return Err(Unparsed("table too large"));
        }
        let mut counts: Vec<i16> = Vec::with_capacity(rules.max_symbol + 1);
        let mut rest = 1_u32 << log;
        while rest > 0 {
            if counts.len() > rules.max_symbol {
                return Err(Unparsed("too many symbols"));
            }
            let count = bits.count(rest);
            let states = u32::from(count.unsigned_abs());
            rest = rest.checked_sub(states).ok_or(Unparsed("bad table"))?;
            counts.push(count);
            if count == 0 {
                bits.zeros(&mut counts, rules.max_symbol)?;
            }
            if bits.at > bytes.len() * 8 {
                return Err(Unparsed("table cut short"));
            }
        }
        if counts.len() > rules.max_symbol + 1 {
            return Err(Unparsed("too many symbols"));
        }
        Ok((Self { log, counts }, bits.at.div_ceil(8)))
    }

    /// Writes the description that [`Self::read`] reads.
    pub(super) fn describe(&self) -> Vec<u8> {
        let mut out = Backfilled::default();
        out.put(self.log - 5, 4);
        let mut rest = 1_u32 << self.log;
        let mut counts = self.counts.iter().copied().peekable();
        while rest > 0 {
            let count = counts.next().unwrap_or(0);
            out.count(rest, count);
            rest -= u32::from(count.unsigned_abs());
            if count == 0 {
                let mut zeros = 0;
                while counts.next_if_eq(&0).is_some() {
                    zeros += 1;
                }
                for _ in 0..zeros / 3 {
                    out.put(3, 2);
                }
                out.put(zeros % 3, 2);
            }
        }
        out.bytes
    }
}

/// How a count is written while `rest` states are to be given out: in few bits if it is
/// below a threshold, with one more above. RFC 8878 section 4.1.1.
struct CountForm {
    /// Bits of the long form.
    bits: u32,
    /// Values below this have the short form.
    short_limit: u32,
}

impl CountForm {
    fn new(rest: u32) -> Self {
        let bits = 32 - (rest + 1).leading_zeros();
        Self {
            bits,
            short_limit: (1 << bits) - 1 - (rest + 1),
        }
    }

    fn short_mask(&self) -> u32 {
        (1 << (self.bits - 1)) - 1
    }
}

/// Reads bits from the low end of each byte.
struct Forward<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Forward<'_> {
    /// The next `count` bits (16 at most), zeros beyond the end.
    fn peek(&self, count: u32) -> u32 {
        let mut field = [0; 4];
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let len = rest.len().min(4);
        field[..len].copy_from_slice(&rest[..len]);
        u32::from_le_bytes(field) >> (self.at % 8) & ((1 << count) - 1)
    }

    fn count(&mut self, rest: u32) -> i16 {
        let form = CountForm::new(rest);
        let long = self.peek(form.bits);
        let short = long & form.short_mask();
        let (value, bits) = if short < form.short_limit {
            (short, form.bits - 1)
        } else if long > form.short_mask() {
            (long - form.short_limit, form.bits)
        } else {
            (long, form.bits)
        };
        self.at += bits as usize;
        i16::try_from(value).unwrap_or(i16::MAX) - 1
    }

    /// After a zero: how many more there are, two bits at a time.
    fn zeros(&mut self, counts: &mut Vec<i16>, max_symbol: usize) -> Result<(), Unparsed> {
        loop {
            let more = self.peek(2);
            self.at += 2;
            counts.extend(std::iter::repeat_n(0, more as usize));
            if more < 3 {
                return Ok(());
            }
            if counts.len() > max_symbol {
                return Err(Unparsed("too many symbols"));
            }
        }
    }
}

/// Writes bits from the low end of each byte.
#[derive(Default)]
struct Backfilled {
    bytes: Vec<u8>,
    at: usize,
}

impl Backfilled {
    fn put(&mut self, value: u32, bits: u32) {
        for bit in 0..bits {
            if self.at.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if value >> bit & 1 == 1
                && let Some(last) = self.bytes.last_mut()
            {
                *last |= 1 << (self.at % 8);
            }
            self.at += 1;
        }
    }

    fn count(&mut self, rest: u32, count: i16) {
        let form = CountForm::new(rest);
        let value = u32::from((count + 1).unsigned_abs());
        if value < form.short_limit {
            self.put(value, form.bits - 1);
        } else if value <= form.short_mask() {
            self.put(value, form.bits);
        } else {
            self.put(value + form.short_limit, form.bits);
        }
    }
}

/// What to do in a state: the value it stands for, and where to go.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Entry {
    /// The smallest value of the code.
    pub(super) base: u32,
    /// The next state, before bits are added.
    pub(super) next: u16,
    /// How many bits are added to the next state.
    pub(super) next_bits: u8,
    /// How many bits are added to the value.
    pub(super) extra_bits: u8,
}

/// A decoding table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    entries: Box<[Entry; MAX_STATES]>,
    log: u32,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            entries: Box::new([Entry::default(); MAX_STATES]),
            log: 0,
        }
    }
}

impl Table {
    /// How many bits the first state has.
    pub(super) fn log(&self) -> u32 {
        self.log
    }

    pub(super) fn entry(&self, state: usize) -> Entry {
        self.entries[state % MAX_STATES]
    }

    /// Spreads the symbols over the states. RFC 8878 section 4.1.1, "From Normalized
    /// Distribution to Decoding Tables".
    pub(super) fn build(&mut self, code: Code, distribution: &Distribution) {
        let size = 1_usize << distribution.log;
        let mut symbols = [0_u8; MAX_STATES];
        let mut next = [0_u16; 64];
        let mut high = size;
        for (symbol, &count) in (0_u8..).zip(&distribution.counts) {
            next[usize::from(symbol)] = count.unsigned_abs();
            if count == -1 {
                high -= 1;
                symbols[high] = symbol;
            }
        }
        let step = size / 2 + size / 8 + 3;
        let mut at = 0;
        for (symbol, &count) in (0_u8..).zip(&distribution.counts) {
            for _ in 0..count.max(0) {
                symbols[at] = symbol;
                at = (at + step) % size;
                while at >= high {
                    at = (at + step) % size;
                }
            }
        }
        for (entry, &symbol) in self.entries[..size].iter_mut().zip(&symbols) {
            let count = &mut next[usize::from(symbol)];
            let bits = distribution.log - count.ilog2();
            let (base, extra_bits) = value(code, symbol);
            let target = (u32::from(*count) << bits) - (1 << distribution.log);
            *entry = Entry {
                base,
                next: u16::try_from(target).unwrap_or(0),
                next_bits: u8::try_from(bits).unwrap_or(0),
                extra_bits,
            };
            *count += 1;
        }
        self.log = distribution.log;
    }

    /// One symbol, always.
    pub(super) fn build_rle(&mut self, code: Code, symbol: u8) -> Result<(), Unparsed> {
        if usize::from(symbol) > Rules::of(code).max_symbol {
            return Err(Unparsed("symbol out of range"));
        }
        let (base, extra_bits) = value(code, symbol);
        self.entries[0] = Entry {
            base,
            extra_bits,
            ..Entry::default()
        };
        self.log = 0;
        Ok(())
    }
}

/// The smallest value of a code and how many bits are added to it. RFC 8878 section
/// 3.1.1.3.2.1.1. Symbols are in range, because tables are checked when they are read.
fn value(code: Code, symbol: u8) -> (u32, u8) {
    const LITERAL_LENGTH: [(u32, u8); 20] = [
        (16, 1),
        (18, 1),
        (20, 1),
        (22, 1),
        (24, 2),
        (28, 2),
        (32, 3),
        (40, 3),
        (48, 4),
        (64, 6),
        (128, 7),
        (256, 8),
        (512, 9),
        (1024, 10),
        (2048, 11),
        (4096, 12),
        (8192, 13),
        (16384, 14),
        (32768, 15),
        (65536, 16),
    ];
    const MATCH_LENGTH: [(u32, u8); 21] = [
        (35, 1),
        (37, 1),
        (39, 1),
        (41, 1),
        (43, 2),
        (47, 2),
        (51, 3),
        (59, 3),
        (67, 4),
        (83, 4),
        (99, 5),
        (131, 7),
        (259, 8),
        (515, 9),
        (1027, 10),
        (2051, 11),
        (4099, 12),
        (8195, 13),
        (16387, 14),
        (32771, 15),
        (65539, 16),
    ];
    let long = |table: &[(u32, u8)], from: u8| {
        let entry = table.get(usize::from(symbol - from));
        entry.copied().unwrap_or_default()
    };
    match code {
        Code::LiteralLength if symbol < 16 => (u32::from(symbol), 0),
        Code::LiteralLength => long(&LITERAL_LENGTH, 16),
        Code::Offset => (1 << (symbol % 32), symbol % 32),
        Code::MatchLength if symbol < 32 => (u32::from(symbol) + 3, 0),
        Code::MatchLength => long(&MATCH_LENGTH, 32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_read_as_they_were_written() {
        let sparse = Distribution {
            log: 5,
            counts: vec![1, 0, 0, 0, 0, 0, 0, 0, 28, 0, -1, 0, 0, 0, 2],
        };
        let one = Distribution {
            log: 8,
            counts: vec![0, 256],
        };
        let rows = [
            (
                "literal lengths",
                Code::LiteralLength,
                Distribution::predefined(Code::LiteralLength),
            ),
            (
                "offsets",
                Code::Offset,
                Distribution::predefined(Code::Offset),
            ),
            (
                "match lengths",
                Code::MatchLength,
                Distribution::predefined(Code::MatchLength),
            ),
            ("many zeros", Code::Offset, sparse),
            ("one symbol", Code::Offset, one),
        ];
        for (name, code, distribution) in rows {
            let mut bytes = distribution.describe();
            let len = bytes.len();
            bytes.extend_from_slice(&[0xff; 3]);
            let read = Distribution::read(code, &bytes);
            assert_eq!(read, Ok((distribution, len)), "{name}");
            let cut = Distribution::read(code, &bytes[..len - 1]);
            assert!(cut.is_err(), "{name}, cut");
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let mut state = 1_u32;
        for round in 0..20_000 {
            let bytes: Vec<u8> = (0..round % 40)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state.to_be_bytes()[0]
                })
                .collect();
            for code in Code::ALL {
                if let Ok((distribution, _)) = Distribution::read(code, &bytes) {
                    Table::default().build(code, &distribution);
                }
            }
        }
    }
}
