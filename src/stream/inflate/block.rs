//! Blocks, symbol by symbol: input and output may end anywhere, and it goes on from there.

use std::sync::LazyLock;

use super::Corrupt;
use super::bits::Bits;
use super::code::{Alphabet, CodeLengths, Distances, END_OF_BLOCK, Entry, Literals};
use super::fast::{self, Left};
use super::window::Window;

/// The most codes for literals and lengths, and for distances, that a block may describe.
const MAX_LITERALS: usize = 286;
const MAX_DISTANCES: usize = 30;

/// How many codes there are for the lengths of codes.
const CODE_LENGTHS: usize = 19;

/// The input of a call, and how much of it was taken.
#[derive(Debug)]
pub(super) struct Feed<'a> {
    bytes: &'a [u8],
    taken: usize,
}

impl<'a> Feed<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, taken: 0 }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// What was not taken yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.taken..]
    }

    pub(super) fn take(&mut self, len: usize) {
        self.taken += len;
    }
}

/// The output of a call, and how much of it was written.
pub(super) type Output<'a> = (&'a mut [u8], &'a mut usize);

/// What comes next in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The header of a block.
    Header,
    /// The length of a stored block.
    StoredLen,
    /// So many bytes of a stored block.
    Stored(usize),
    /// How many codes the block describes.
    Counts,
    /// The length of the code for a length of codes.
    LengthOfLength { at: usize },
    /// The length of a code.
    Length { at: usize },
    /// How often a length is repeated, in so many bits.
    Repeat { at: usize, repeat: Repeat },
    /// A symbol, of a literal, a length or the end.
    Symbol,
    /// The extra bits of a length.
    CopyLen(Entry),
    /// A symbol of a distance.
    Distance { len: usize },
    /// The extra bits of a distance.
    DistanceExtra { len: usize, entry: Entry },
    /// Bytes that were put out before.
    Copy { len: usize, distance: usize },
    /// Nothing.
    End,
    /// Anything: what came before cannot be deflate data.
    Corrupt,
}

/// A length of codes that is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeat {
    len: u8,
    least: usize,
    extra_bits: u32,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another step.
    Step,
    /// There is no more input, or no more room for output.
    Wait,
    /// A block has ended.
    Boundary,
    /// The last block has ended.
    End,
}

/// The tables of a block.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) literals: Literals,
    pub(super) distances: Distances,
}

/// RFC 1951 section 3.2.6.
static FIXED: LazyLock<Tables> = LazyLock::new(|| {
    let mut lens = [8; 288];
    lens[144..256].fill(9);
    lens[256..280].fill(7);
    let mut tables = Tables::default();
    let literals = tables.literals.build(&lens, Alphabet::Literals);
    let distances = tables.distances.build(&[5; 32], Alphabet::Distances);
    assert!(literals.and(distances).is_ok(), "both codes are complete");
    tables
});

/// A stream at one place.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) bits: Bits,
    pub(super) state: State,
    is_last: bool,
    /// Whether the block has the fixed codes, not those that one described last.
    is_fixed: bool,
    described: Tables,
    /// How many codes are described for literals and lengths, for distances, and for lengths
    /// of codes.
    counts: [usize; 3],
    lens: [u8; MAX_LITERALS + MAX_DISTANCES],
    code_lengths: CodeLengths,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            bits: Bits::default(),
            state: State::Header,
            is_last: false,
            is_fixed: false,
            described: Tables::default(),
            counts: [0; 3],
            lens: [0; MAX_LITERALS + MAX_DISTANCES],
            code_lengths: CodeLengths::default(),
        }
    }
}

impl Block {
    /// Does one step: up to a whole block, if its symbols come next.
    pub(super) fn step(
        &mut self,
        feed: &mut Feed<'_>,
        window: &Window,
        output: Output<'_>,
    ) -> Result<Next, Corrupt> {
        let done = match self.state {
            State::Header => self.header(feed),
            State::StoredLen => self.stored_len(feed),
            State::Stored(left) => return Ok(self.stored(left, feed, output)),
            State::Counts => self.counts(feed),
            State::LengthOfLength { at } => self.length_of_length(at, feed),
            State::Length { at } => self.length(at, feed),
            State::Repeat { at, repeat } => self.repeat(at, repeat, feed),
            State::Symbol => return self.symbols(feed, window, output),
            State::CopyLen(entry) => Ok(self.copy_len(entry, feed)),
            State::Distance { len } => self.distance(len, feed),
            State::DistanceExtra { len, entry } => Ok(self.distance_extra(len, entry, feed)),
            State::Copy { len, distance } => return self.copy(len, distance, window, output),
            State::End => return Ok(Next::End),
            State::Corrupt => return Err(Corrupt),
        };
        Ok(done?.map_or(Next::Wait, |()| Next::Step))
    }

    fn header(&mut self, feed: &mut Feed<'_>) -> Result<Option<()>, Corrupt> {
        let Some(header) = self.take(3, feed) else {
            return Ok(None);
        };
        self.is_last = header & 1 != 0;
        self.state = match header >> 1 {
            0 => {
                self.bits.take(self.bits.left_of_byte().into());
                State::StoredLen
            }
            1 => {
                self.is_fixed = true;
                State::Symbol
            }
            2 => State::Counts,
            _ => return Err(Corrupt),
        };
        Ok(Some(()))
    }

    fn stored_len(&mut self, feed: &mut Feed<'_>) -> Result<Option<()>, Corrupt> {
        let Some(both) = self.take(32, feed) else {
            return Ok(None);
        };
        let (len, complement) = (both & 0xffff, both >> 16);
        if len != complement ^ 0xffff {
            return Err(Corrupt);
        }
        self.state = State::Stored(len);
        Ok(Some(()))
    }

    fn stored(&mut self, left: usize, feed: &mut Feed<'_>, (output, produced): Output<'_>) -> Next {
        let (from, to) = (feed.rest(), &mut output[*produced..]);
        let len = left.min(from.len()).min(to.len());
        to[..len].copy_from_slice(&from[..len]);
        feed.take(len);
        *produced += len;
        self.state = State::Stored(left - len);
        match left - len {
            0 => self.end(),
            _ => Next::Wait,
        }
    }

    /// RFC 1951 section 3.2.7, as far as the lengths of the codes for lengths.
    fn counts(&mut self, feed: &mut Feed<'_>) -> Result<Option<()>, Corrupt> {
        let Some(all) = self.take(14, feed) else {
            return Ok(None);
        };
        self.counts = [257 + (all & 31), 1 + (all >> 5 & 31), 4 + (all >> 10)];
        if self.counts[0] > MAX_LITERALS || self.counts[1] > MAX_DISTANCES {
            return Err(Corrupt);
        }
        self.lens.fill(0);
        self.state = State::LengthOfLength { at: 0 };
        Ok(Some(()))
    }

    fn length_of_length(&mut self, at: usize, feed: &mut Feed<'_>) -> Result<Option<()>, Corrupt> {
        const ORDER: [usize; CODE_LENGTHS] = [
            16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
        ];
        let Some(len) = self.take(3, feed) else {
            return Ok(None);
        };
        self.lens[ORDER[at]] = u8::try_from(len).map_err(|_| Corrupt)?;
        self.state = State::LengthOfLength { at: at + 1 };
        if at + 1 == self.counts[2] {
            let lens = &self.lens[..CODE_LENGTHS];
            self.code_lengths.build(lens, Alphabet::CodeLengths)?;
            self.state = State::Length { at: 0 };
        }
        Ok(Some(()))
    }

    fn length(&mut self, mut at: usize, feed: &mut Feed<'_>) -> Result<Option<()>, Corrupt> {
        while at < self.counts[0] + self.counts[1] {
            let found = loop {
                match self.code_lengths.look_up(&self.bits) {
                    None if self.pull(feed) => {}
                    found => break found,
                }
            };
            self.state = State::Length { at };
            let Some((entry, code_bits)) = found else {
                return Ok(None);
            };
            self.bits.take(code_bits);
            let (len, least, extra_bits) = match entry.value() {
                len @ ..16 => {
                    self.lens[at] = u8::try_from(len).map_err(|_| Corrupt)?;
                    at += 1;
                    continue;
                }
                16 => (self.lens[at.checked_sub(1).ok_or(Corrupt)?], 3, 2),
                17 => (0, 3, 3),
                _ => (0, 11, 7),
            };
            let repeat = Repeat {
                len,
                least,
                extra_bits,
            };
            self.state = State::Repeat { at, repeat };
            return Ok(Some(()));
        }
        self.describe_codes()?;
        self.state = State::Symbol;
        Ok(Some(()))
    }

    fn repeat(
        &mut self,
        at: usize,
        repeat: Repeat,
        feed: &mut Feed<'_>,
    ) -> Result<Option<()>, Corrupt> {
        let Some(more) = self.take(repeat.extra_bits, feed) else {
            return Ok(None);
        };
        let end = at + repeat.least + more;
        if end > self.counts[0] + self.counts[1] {
            return Err(Corrupt);
        }
        self.lens[at..end].fill(repeat.len);
        self.state = State::Length { at: end };
        Ok(Some(()))
    }

    /// Many symbols if there is room for them, else one.
    fn symbols(
        &mut self,
        feed: &mut Feed<'_>,
        window: &Window,
        (output, produced): Output<'_>,
    ) -> Result<Next, Corrupt> {
        let mut bits = self.bits;
        let stream = (&mut bits, feed.rest());
        let done = fast::decode(stream, self.tables(), window, (output, produced))?;
        self.bits = bits;
        feed.take(done.taken);
        if done.left == Left::EndOfBlock {
            return Ok(self.end());
        }
        let (entry, code_bits) = loop {
            match self.tables().literals.look_up(&self.bits) {
                None if self.pull(feed) => {}
                None => return Ok(Next::Wait),
                Some(found) => break found,
            }
        };
        if entry.is_end() {
            self.bits.take(code_bits);
            return Ok(self.end());
        }
        if entry.is_special() {
            return Err(Corrupt);
        }
        // It stays in the input while there is no room for what it means.
        let Some(to) = output.get_mut(*produced) else {
            return Ok(Next::Wait);
        };
        self.bits.take(code_bits);
        if entry.is_literal() {
            *to = entry.literal();
            *produced += 1;
        } else {
            self.state = State::CopyLen(entry);
        }
        Ok(Next::Step)
    }

    fn copy_len(&mut self, entry: Entry, feed: &mut Feed<'_>) -> Option<()> {
        let len = entry.value() + self.take(entry.extra_bits(), feed)?;
        self.state = State::Distance { len };
        Some(())
    }

    fn distance(&mut self, len: usize, feed: &mut Feed<'_>) -> Result<Option<()>, Corrupt> {
        let (entry, code_bits) = loop {
            match self.tables().distances.look_up(&self.bits) {
                None if self.pull(feed) => {}
                None => return Ok(None),
                Some(found) => break found,
            }
        };
        if entry.is_special() {
            return Err(Corrupt);
        }
        self.bits.take(code_bits);
        self.state = State::DistanceExtra { len, entry };
        Ok(Some(()))
    }

    fn distance_extra(&mut self, len: usize, entry: Entry, feed: &mut Feed<'_>) -> Option<()> {
        let distance = entry.value() + self.take(entry.extra_bits(), feed)?;
        self.state = State::Copy { len, distance };
        Some(())
    }

    fn copy(
        &mut self,
        len: usize,
        distance: usize,
        window: &Window,
        (output, produced): Output<'_>,
    ) -> Result<Next, Corrupt> {
        let (start, end) = (*produced, output.len().min(*produced + len));
        if distance > start {
            window
                .copy(output, start, distance, end - start)
                .ok_or(Corrupt)?;
        } else {
            for to in start..end {
                output[to] = output[to - distance];
            }
        }
        *produced = end;
        match len - (end - start) {
            0 => {
                self.state = State::Symbol;
                Ok(Next::Step)
            }
            len => {
                self.state = State::Copy { len, distance };
                Ok(Next::Wait)
            }
        }
    }

    fn end(&mut self) -> Next {
        if self.is_last {
            // The bits up to the next byte mean nothing.
            self.bits = Bits::default();
            self.state = State::End;
            return Next::End;
        }
        self.state = State::Header;
        Next::Boundary
    }

    fn tables(&self) -> &Tables {
        match self.is_fixed {
            true => &FIXED,
            false => &self.described,
        }
    }

    fn describe_codes(&mut self) -> Result<(), Corrupt> {
        let [literals, distances, _] = self.counts;
        let (literals, distances) = self.lens[..literals + distances].split_at(literals);
        if literals[END_OF_BLOCK] == 0 {
            return Err(Corrupt);
        }
        self.is_fixed = false;
        let tables = &mut self.described;
        tables.literals.build(literals, Alphabet::Literals)?;
        tables.distances.build(distances, Alphabet::Distances)
    }

    /// The next `count` bits; nothing if the input ends before.
    fn take(&mut self, count: u32, feed: &mut Feed<'_>) -> Option<usize> {
        while self.bits.count() < count {
            if !self.pull(feed) {
                return None;
            }
        }
        Some(self.bits.take(count))
    }

    /// Takes in one byte of input, if there is one.
    fn pull(&mut self, feed: &mut Feed<'_>) -> bool {
        let byte = feed.rest().first();
        if let Some(&byte) = byte {
            self.bits.push(byte);
            feed.take(1);
        }
        byte.is_some()
    }
}
