//! The prefix codes of a block, as tables to decode them with. RFC 1951 section 3.2.
//!
//! A code is looked up by the bits that come next, the first of them lowest: one that is
//! short enough in one step, a longer one by way of a second table, which lies behind the
//! first and serves all codes that begin alike.

use super::Corrupt;
use super::bits::Bits;

/// The longest code of literals, lengths and distances, in bits.
const MAX_LEN: usize = 15;

/// The most symbols that a code has.
const MAX_SYMBOLS: usize = 288;

/// The symbol that ends a block, of those for literals and lengths.
pub(super) const END_OF_BLOCK: usize = 256;

/// What a code stands for.
///
/// | bits | |
/// |---|---|
/// | 0 to 7 | how many bits the code has, and its extra bits after it |
/// | 8 to 11 | how many bits the code has |
/// | 12 to 15 | flags, none for a length or distance |
/// | 16 to 30 | the literal, the base of a length or distance, or where a second table is |
/// | 31 | whether it is a literal |
///
/// Entries of a second table count the bits behind those of the first. For one that leads
/// there, bits 8 to 11 say how many bits index it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u32);

impl Entry {
    const LITERAL: u32 = 1 << 31;
    /// Neither a literal nor a length or distance.
    const SPECIAL: u32 = 1 << 15;
    const SECOND_TABLE: u32 = 1 << 14;
    const END: u32 = 1 << 13;

    /// No code begins so.
    const INVALID: Self = Self(Self::SPECIAL | 1 << 8 | 1);

    const fn base(base: u16, extra: u16) -> Self {
        Self((base as u32) << 16 | extra as u32)
    }

    fn second_table(start: usize, bits: u32, first_bits: u32) -> Self {
        let start = u32::try_from(start).expect("tables have some thousand entries");
        Self(Self::SPECIAL | Self::SECOND_TABLE | start << 16 | bits << 8 | first_bits)
    }

    fn with_code(self, len: u32) -> Self {
        Self(self.0 + (len << 8 | len))
    }

    /// For [`Bits::drop_low_byte`].
    #[inline(always)]
    pub(super) fn raw(self) -> u32 {
        self.0
    }

    /// How many bits the code has, or index the second table.
    #[inline(always)]
    pub(super) fn code_bits(self) -> u32 {
        self.0 >> 8 & 0xf
    }

    /// How many bits follow the code.
    pub(super) fn extra_bits(self) -> u32 {
        (self.0 & 0xff) - self.code_bits()
    }

    #[inline(always)]
    pub(super) fn is_literal(self) -> bool {
        self.0 & Self::LITERAL != 0
    }

    #[inline(always)]
    pub(super) fn is_special(self) -> bool {
        self.0 & Self::SPECIAL != 0
    }

    #[inline(always)]
    pub(super) fn is_second_table(self) -> bool {
        self.0 & Self::SECOND_TABLE != 0
    }

    #[inline(always)]
    pub(super) fn is_end(self) -> bool {
        self.0 & Self::END != 0
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "what is above are flags")]
    pub(super) fn literal(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// The base of a length or distance, or the start of a second table.
    #[inline(always)]
    pub(super) fn value(self) -> usize {
        (self.0 >> 16 & 0x7fff) as usize
    }

    /// A whole length or distance, whose code and extra bits come next.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "13 bits at most")]
    pub(super) fn decode(self, bits: &Bits) -> usize {
        let all = bits.value() & (1_u64.wrapping_shl(self.0) - 1);
        let extra = all.wrapping_shr(self.0 >> 8);
        self.value() + extra as usize
    }
}

/// What the symbols of a code mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// Bytes, the end of the block, and lengths. A code of one symbol may leave a bit unused.
    Literals,
    /// Distances. A code of one symbol may leave a bit unused, one of none both.
    Distances,
    /// Lengths of codes. All that the bits can say must be used.
    CodeLengths,
}

impl Alphabet {
    /// What a symbol stands for, without a code.
    pub(super) fn entry(self, symbol: u16) -> Entry {
        match self {
            Self::Literals => literal(symbol),
            Self::Distances => distance(symbol),
            Self::CodeLengths => Entry::base(symbol, 0),
        }
    }
}

/// RFC 1951 section 3.2.5, first table.
fn literal(symbol: u16) -> Entry {
    #[rustfmt::skip]
    const BASES: [(u16, u16); 29] = [
        (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0),
        (11, 1), (13, 1), (15, 1), (17, 1), (19, 2), (23, 2), (27, 2), (31, 2),
        (35, 3), (43, 3), (51, 3), (59, 3), (67, 4), (83, 4), (99, 4), (115, 4),
        (131, 5), (163, 5), (195, 5), (227, 5), (258, 0),
    ];
    match usize::from(symbol) {
        ..END_OF_BLOCK => Entry(u32::from(symbol) << 16 | Entry::LITERAL),
        END_OF_BLOCK => Entry(Entry::SPECIAL | Entry::END),
        length => {
            let base = BASES.get(length - END_OF_BLOCK - 1);
            base.map_or(Entry(Entry::SPECIAL), |&(base, extra)| {
                Entry::base(base, extra)
            })
        }
    }
}

/// RFC 1951 section 3.2.5, second table.
fn distance(symbol: u16) -> Entry {
    match symbol {
        ..4 => Entry::base(symbol + 1, 0),
        4..30 => {
            let extra = symbol / 2 - 1;
            Entry::base(((2 + symbol % 2) << extra) + 1, extra)
        }
        _ => Entry(Entry::SPECIAL),
    }
}

/// How many codes there are of each length.
type Counts = [u16; MAX_LEN + 1];

/// The table of one code: `INDEX_BITS` bits index the first one; with the second ones that
/// the longest codes can need there are up to `SIZE` entries.
#[derive(Debug)]
pub(super) struct Table<const INDEX_BITS: u32, const SIZE: usize> {
    entries: [Entry; SIZE],
}

/// For [`Alphabet::Literals`].
pub(super) type Literals = Table<11, 2342>;

/// For [`Alphabet::Distances`].
pub(super) type Distances = Table<8, 402>;

/// For [`Alphabet::CodeLengths`].
pub(super) type CodeLengths = Table<7, 128>;

impl<const INDEX_BITS: u32, const SIZE: usize> Default for Table<INDEX_BITS, SIZE> {
    fn default() -> Self {
        Self {
            entries: [Entry::INVALID; SIZE],
        }
    }
}

impl<const INDEX_BITS: u32, const SIZE: usize> Table<INDEX_BITS, SIZE> {
    /// The entry of the first table for the bits that come next.
    #[inline(always)]
    pub(super) fn first(&self, bits: &Bits) -> Entry {
        const { assert!(SIZE >= 1 << INDEX_BITS) };
        let at = bits.peek(INDEX_BITS);
        #[expect(unsafe_code, reason = "looked up for each symbol")]
        // SAFETY: so many bits index no more entries than there are, as was just asserted.
        unsafe {
            *self.entries.get_unchecked(at)
        }
    }

    /// The entry of the second table that `first` leads to, when its bits are dropped.
    #[inline(always)]
    pub(super) fn second(&self, first: Entry, bits: &Bits) -> Entry {
        self.entries[first.value() + bits.peek(first.code_bits())]
    }

    /// What comes next, and how many bits its code has; nothing if the bits are too few.
    pub(super) fn look_up(&self, bits: &Bits) -> Option<(Entry, u32)> {
        let mut entry = self.first(bits);
        let mut len = entry.code_bits();
        if entry.is_second_table() {
            let mut rest = *bits;
            rest.drop_low_byte(entry.raw());
            entry = self.second(entry, &rest);
            len = INDEX_BITS + entry.code_bits();
        }
        (len <= bits.count()).then_some((entry, len))
    }

    /// Makes the table of the code in which the symbol `i` has `lens[i]` bits; 0 if it is not
    /// used.
    pub(super) fn build(&mut self, lens: &[u8], alphabet: Alphabet) -> Result<(), Corrupt> {
        let mut counts = Counts::default();
        for &len in lens {
            counts[usize::from(len)] += 1;
        }
        counts[0] = 0;
        let used = counts.iter().sum::<u16>();
        if unused(&counts)? > 0 {
            let is_one_bit = used == counts[1];
            if !is_one_bit || alphabet == Alphabet::CodeLengths {
                return Err(Corrupt);
            }
            // What is there of no symbol goes with any bits, or with a one.
            self.entries[..2].fill(Entry::INVALID);
        }
        let mut sorted = [0; MAX_SYMBOLS];
        let sorted = sort(&mut sorted, lens, &counts);
        let (short, long) =
            sorted.split_at(counts[..=INDEX_BITS as usize].iter().sum::<u16>().into());
        let code = self.fill_first(short, lens, alphabet);
        self.fill_second(code, long, &counts, lens, alphabet);
        Ok(())
    }

    /// Fills the first table with the codes that fit it, of these symbols; says which code
    /// comes next.
    fn fill_first(&mut self, sorted: &[u16], lens: &[u8], alphabet: Alphabet) -> usize {
        let (mut code, mut symbols) = (0, sorted.iter().copied().peekable());
        for len in 1..=INDEX_BITS {
            // What is there of shorter codes goes with either value of the next bit.
            let half = 1 << (len - 1);
            self.entries.copy_within(..half, half);
            while let Some(symbol) =
                symbols.next_if(|&symbol| u32::from(lens[usize::from(symbol)]) == len)
            {
                self.entries[code] = alphabet.entry(symbol).with_code(len);
                code = next(code, len);
            }
        }
        code
    }

    /// Fills second tables with the codes from `code` on.
    fn fill_second(
        &mut self,
        mut code: usize,
        sorted: &[u16],
        counts: &Counts,
        lens: &[u8],
        alphabet: Alphabet,
    ) {
        let mut left = *counts;
        let mut table = Second::none(INDEX_BITS);
        for &symbol in sorted {
            let len = u32::from(lens[usize::from(symbol)]);
            let prefix = code & ((1 << INDEX_BITS) - 1);
            if !table.holds(prefix) {
                table = table.next(prefix, len - INDEX_BITS, &left[INDEX_BITS as usize..]);
                self.entries[prefix] = Entry::second_table(table.start, table.bits, INDEX_BITS);
            }
            let entry = alphabet.entry(symbol).with_code(len - INDEX_BITS);
            let step = 1 << (len - INDEX_BITS);
            for at in (code >> INDEX_BITS..1 << table.bits).step_by(step) {
                self.entries[table.start + at] = entry;
            }
            left[len as usize] -= 1;
            code = next(code, len);
        }
    }
}

/// How many of all strings of 15 bits begin with no code: 0 for a complete one.
fn unused(counts: &Counts) -> Result<u32, Corrupt> {
    let mut unused = 1_u32;
    for &count in &counts[1..] {
        unused = (2 * unused).checked_sub(count.into()).ok_or(Corrupt)?;
    }
    Ok(unused)
}

/// The symbols that are used in the order of their codes: by length, then by number.
fn sort<'a>(sorted: &'a mut [u16; MAX_SYMBOLS], lens: &[u8], counts: &Counts) -> &'a [u16] {
    let mut places = Counts::default();
    for len in 1..MAX_LEN {
        places[len + 1] = places[len] + counts[len];
    }
    for (symbol, &len) in (0..).zip(lens) {
        if len > 0 {
            let place = &mut places[usize::from(len)];
            sorted[usize::from(*place)] = symbol;
            *place += 1;
        }
    }
    &sorted[..usize::from(places[MAX_LEN])]
}

/// The code of `len` bits after `code`, the first bit lowest; 0 after the last. With a zero
/// behind it, it is the first of the next length.
fn next(code: usize, len: u32) -> usize {
    let zeros = !code & ((1 << len) - 1);
    zeros.checked_ilog2().map_or(0, |highest| {
        let bit = 1 << highest;
        code & (bit - 1) | bit
    })
}

/// Where the table is of all codes with one prefix.
#[derive(Debug, Clone, Copy)]
struct Second {
    prefix: Option<usize>,
    start: usize,
    end: usize,
    bits: u32,
}

impl Second {
    /// Before the first one, behind a table of `index_bits`.
    fn none(index_bits: u32) -> Self {
        Self {
            prefix: None,
            start: 0,
            end: 1 << index_bits,
            bits: 0,
        }
    }

    fn holds(&self, prefix: usize) -> bool {
        self.prefix == Some(prefix)
    }

    /// The one behind this: for `prefix`, whose shortest code has `bits` more; `left[n]` codes
    /// with `n` more are left. It is as small as the longest of its codes allows.
    fn next(&self, prefix: usize, mut bits: u32, left: &[u16]) -> Self {
        let mut room = 1_u32 << bits;
        while let Some(rest) = room.checked_sub(left[bits as usize].into())
            && rest > 0
            && bits as usize + 1 < left.len()
        {
            bits += 1;
            room = 2 * rest;
        }
        Self {
            prefix: Some(prefix),
            start: self.end,
            end: self.end + (1 << bits),
            bits,
        }
    }
}
