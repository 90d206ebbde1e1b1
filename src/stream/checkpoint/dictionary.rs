//! Checkpoints between the blocks of a zstd frame, as formatted zstd dictionaries.
//!
//! A dictionary in the format of RFC 8878 section 5 holds exactly what a decoder knows
//! between two blocks: a Huffman table, three FSE tables, three repeat offsets, and
//! content to refer to. So any decoder can go on in the middle of a frame, if it is given
//!
//! ```text
//!   dictionary:  magic  number  tables  repeat offsets  ......ranges of the window......
//!   frame:       magic  header of 2 bytes  the original blocks, the last one marked so
//! ```
//!
//! The tables are described by bytes of the blob itself. Of the window only the ranges are
//! kept that the blocks up to the next checkpoint refer to.
//!
//! What a dictionary cannot say is a table with one symbol that a later block repeats:
//! where [`lookahead`](super::lookahead) sees that, it puts no checkpoint. A wrong dictionary may decode
//! without an error to wrong bytes, so each is tried before it is used, and the checks of
//! the spans are compared on every read.

use std::ops::Range;

use zstd::zstd_safe::{DCtx, get_error_name};

use crate::store::ReadAt;
use crate::stream::error::Error;
use crate::stream::input::{Direct, Input};
use crate::stream::offset::BlobOffset;
use crate::stream::scratch::{Room, Scratch};
use crate::stream::zstd::{FRAME, FrameHeader};
use crate::stream::zstd_blocks::{
    BlockHeader, Code, Entropy, HEADER_LEN, TableSource, Unparsed, describe_predefined, read_block,
};

/// The most bytes that a packed dictionary unpacks to: the largest window, its ranges, and
/// the tables.
pub(in crate::stream) const MAX_LEN: u32 = 160 << 20;

/// The longest content: the largest window that is decoded at all.
const MAX_CONTENT: u64 = 128 << 20;

/// RFC 8878 section 5.
const MAGIC: u32 = 0xec30_a437;

/// Any number but 0; frames that name no dictionary do not ask for it.
const NUMBER: u32 = 1;

/// The description of a Huffman tree that stands where none is in force: two symbols of
/// one bit each. RFC 8878 section 4.2.1.1.
const ANY_TREE: [u8; 2] = [128, 0x10];

/// Length of the header of a frame that declares nothing but a window.
const HEAD_LEN: usize = 6;

/// Where in that the window is.
const WINDOW_AT: usize = 5;

/// So many stored bytes are read at once.
const MAX_STORED: u64 = 32 << 20;

/// A dictionary's compression level: lower ones make them a sixteenth longer, higher ones
/// hardly shorter.
const LEVEL: i32 = 6;

/// What is known between two blocks of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::stream) struct Dictionary {
    /// All of it, in the form that is packed: how the frame's header describes its window
    /// (a byte), the head and its length, the length of the content, the ranges, and
    /// their bytes.
    plain: Vec<u8>,
    /// Where in that the dictionary up to its content is.
    head: Range<usize>,
    /// Where in that the bytes of the ranges begin.
    bytes_at: usize,
    content_len: usize,
    /// The parts of the content that matter, in order.
    ranges: Vec<Range<usize>>,
}

impl Dictionary {
    /// The dictionary for blocks that begin at `position` of their frame and refer to
    /// `references` before it, in order and apart from each other. `history` ends at
    /// `position`.
    pub(in crate::stream) fn new(
        window_descriptor: u8,
        entropy: &Entropy,
        position: u64,
        references: &[Range<u64>],
        history: &[u8],
    ) -> Result<Self, Unparsed> {
        let beyond = Unparsed("reference beyond the window");
        // Decoders want the repeat offsets to lie in the content, used or not.
        let repeat = entropy.repeats.iter().copied().max().map_or(0, u64::from);
        let lowest = references.first().map_or(position, |range| range.start);
        let content_len = (position - lowest).max(repeat);
        if content_len > MAX_CONTENT.min(position) {
            return Err(beyond);
        }
        let content_at = position - content_len;
        let history_at = position - history.len() as u64;
        let index = |at: u64, from: u64| {
            let index = at.checked_sub(from).and_then(|at| usize::try_from(at).ok());
            index.ok_or(beyond)
        };
        let mut this = Self {
            content_len: index(position, content_at)?,
            ..Self::default()
        };
        for range in references {
            let there = index(range.start, content_at)?..index(range.end, content_at)?;
            this.ranges.push(there);
        }
        this.write(window_descriptor, &head(entropy));
        for range in references {
            let there = index(range.start, history_at)?..index(range.end, history_at)?;
            let bytes = history.get(there).ok_or(beyond)?;
            this.plain.extend_from_slice(bytes);
        }
        Ok(this)
    }

    /// Writes everything but the bytes of the ranges.
    fn write(&mut self, window_descriptor: u8, head: &[u8]) {
        let plain = &mut self.plain;
        plain.push(window_descriptor);
        put(plain, head.len());
        self.head = plain.len()..plain.len() + head.len();
        plain.extend_from_slice(head);
        put(plain, self.content_len);
        put(plain, self.ranges.len());
        let mut at = 0;
        for range in &self.ranges {
            put(plain, range.start - at);
            at = range.end;
        }
        for range in &self.ranges {
            put(plain, range.len());
        }
        self.bytes_at = plain.len();
    }

    /// Packs the dictionary; says also how many bytes it unpacks to.
    pub(in crate::stream) fn pack(&self) -> Result<(Vec<u8>, u32), Error> {
        let len = u32::try_from(self.plain.len()).map_err(|_| Error::Truncated)?;
        let packed = zstd::bulk::compress(&self.plain, LEVEL).map_err(Error::from_read)?;
        Ok((packed, len))
    }

    /// Becomes what [`Self::pack`] packed; `None` if that is anything else. Uses the
    /// memory that it has.
    pub(in crate::stream) fn unpack(
        &mut self,
        packed: &[u8],
        len: u32,
        context: &mut DCtx<'static>,
    ) -> Option<()> {
        self.ranges.clear();
        self.plain.resize(len as usize, 0);
        let unpacked = context.decompress(&mut self.plain[..], packed);
        (unpacked.ok()? == len as usize).then_some(())?;
        let mut rest = &self.plain[..];
        let place = |rest: &[u8]| self.plain.len() - rest.len();
        take(&mut rest, 1)?;
        let head_len = get(&mut rest)?;
        self.head = place(rest)..place(rest).checked_add(head_len)?;
        take(&mut rest, head_len)?;
        self.content_len = get(&mut rest)?;
        let count = get(&mut rest)?;
        // Each range has two numbers of a byte at least.
        if self.content_len as u64 > MAX_CONTENT || count > rest.len() / 2 {
            return None;
        }
        // First each has its distance from the one before, and then its length.
        for _ in 0..count {
            let gap = get(&mut rest)?;
            self.ranges.push(gap..gap);
        }
        let (mut at, mut total) = (0_usize, 0_usize);
        for range in &mut self.ranges {
            let start = at.checked_add(range.start)?;
            at = start.checked_add(get(&mut rest)?)?;
            *range = start..at;
            total = total.checked_add(range.len())?;
        }
        self.bytes_at = place(rest);
        (at <= self.content_len && total == rest.len()).then_some(())
    }

    /// About how many bytes of memory it takes.
    pub(in crate::stream) fn weight(&self) -> usize {
        self.plain.capacity() + self.ranges.capacity() * size_of::<Range<usize>>()
    }

    /// Decodes exactly `out` from the blocks that [`read_frame`] read; else says
    /// what is wrong with them.
    pub(in crate::stream) fn decode(
        &self,
        frame: &mut [u8],
        scratch: &mut Scratch,
        out: &mut [u8],
    ) -> Result<(), &'static str> {
        if let (Some(there), Some(here)) = (frame.get_mut(WINDOW_AT), self.plain.first()) {
            *there = *here;
        }
        let dictionary = self.unfold(&mut scratch.dictionary);
        let context = &mut scratch.context;
        let len = context
            .decompress_using_dict(out, frame, dictionary)
            .map_err(get_error_name)?;
        (len == out.len())
            .then_some(())
            .ok_or("another length than before")
    }

    /// Writes the dictionary in full. Between the ranges may lie anything: nothing refers
    /// to it.
    fn unfold<'a>(&self, room: &'a mut Room) -> &'a [u8] {
        let head = &self.plain[self.head.clone()];
        let dictionary = room.of(head.len() + self.content_len);
        let (start, content) = dictionary.split_at_mut(head.len());
        start.copy_from_slice(head);
        let mut bytes = &self.plain[self.bytes_at..];
        for range in &self.ranges {
            let (part, rest) = bytes.split_at(range.len());
            content[range.clone()].copy_from_slice(part);
            bytes = rest;
        }
        dictionary
    }
}

/// Reads the blocks of `source` that begin at the first place and end before the
/// second, or with their frame, as a frame of their own.
pub(in crate::stream) fn read_frame(
    source: &dyn ReadAt,
    (from, to): (BlobOffset, Option<BlobOffset>),
    frame: &mut Vec<u8>,
) -> Result<(), Error> {
    let len = to.map(|to| to.0.saturating_sub(from.0));
    match len.filter(|len| *len <= MAX_STORED) {
        Some(len) => {
            // What is left of another frame is overwritten; to clear it would cost as much.
            frame.resize(HEAD_LEN + usize::try_from(len).unwrap_or(0), 0);
            let read = source.read_at(&mut frame[HEAD_LEN..], from.0);
            if read.map_err(Error::from_read)? as u64 != len {
                return Err(Error::Truncated);
            }
            end_frame(frame)?;
        }
        None => read_blocks(source, (from, to), frame)?,
    }
    frame[..4].copy_from_slice(&FRAME.to_le_bytes());
    // The dictionary says how large the window is.
    frame[4..HEAD_LEN].fill(0);
    Ok(())
}

/// Cuts what lies behind the last block of a frame, and marks that one as the last.
fn end_frame(frame: &mut Vec<u8>) -> Result<(), Error> {
    let mut at = HEAD_LEN;
    loop {
        let header = frame.get(at..).and_then(<[u8]>::first_chunk);
        let header = BlockHeader::parse(*header.ok_or(Error::Truncated)?);
        let end = at + HEADER_LEN + header.body_len();
        if end > frame.len() {
            return Err(Error::Truncated);
        }
        if header.is_last || end == frame.len() {
            frame[at] |= 1;
            frame.truncate(end);
            return Ok(());
        }
        at = end;
    }
}

/// As [`read_frame`], but for the frame's header: block by block, where it is not known, or
/// very far, where they end.
fn read_blocks(
    source: &dyn ReadAt,
    (from, to): (BlobOffset, Option<BlobOffset>),
    frame: &mut Vec<u8>,
) -> Result<(), Error> {
    frame.clear();
    frame.extend_from_slice(&[0; HEAD_LEN]);
    let mut chunks = Direct(source);
    let mut input = Input::at(from);
    loop {
        let header_at = frame.len();
        let is_last = read_block(&mut input, &mut chunks, frame)?;
        if is_last {
            return Ok(());
        }
        if to.is_some_and(|to| input.offset() >= to) {
            frame[header_at] |= 1;
            return Ok(());
        }
    }
}

/// How a frame of blocks declares the window of the frame that they come from. A frame of
/// a single segment declares none: its size serves, rounded up.
pub(in crate::stream) fn window_descriptor(header: &FrameHeader) -> u8 {
    header.window_descriptor.unwrap_or_else(|| {
        let exponent = header.window.next_power_of_two().ilog2().clamp(10, 41);
        u8::try_from((exponent - 10) << 3).unwrap_or(u8::MAX)
    })
}

/// Everything of a dictionary but its content.
fn head(entropy: &Entropy) -> Vec<u8> {
    let mut head = MAGIC.to_le_bytes().to_vec();
    head.extend_from_slice(&NUMBER.to_le_bytes());
    head.extend_from_slice(entropy.huffman.as_deref().unwrap_or(&ANY_TREE));
    for code in [Code::Offset, Code::MatchLength, Code::LiteralLength] {
        match &entropy.tables[code as usize] {
            TableSource::Described(bytes) => head.extend_from_slice(bytes),
            // Where none is in force, or one that cannot be said, any valid one will do.
            TableSource::Predefined | TableSource::Unset | TableSource::Rle(_) => {
                head.extend_from_slice(&describe_predefined(code));
            }
        }
    }
    for repeat in entropy.repeats {
        head.extend_from_slice(&repeat.to_le_bytes());
    }
    head
}

/// Writes a number, seven bits to a byte, low ones first.
fn put(out: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Reads a number of 35 bits at most.
fn get(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dictionary() -> Result<Dictionary, Unparsed> {
        let history: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let walker = crate::stream::zstd_blocks::Walker::new();
        let references = [1200..1203, 1500..1800, 1999..2000];
        Dictionary::new(0x58, walker.entropy(), 2000, &references, &history)
    }

    #[test]
    fn what_was_packed_is_unpacked() -> Result<(), Unparsed> {
        let dictionary = dictionary()?;
        assert_eq!(dictionary.content_len, 800);
        let (packed, len) = dictionary.pack().map_err(|_| Unparsed("not packed"))?;
        let mut unpacked = Dictionary::default();
        let context = &mut DCtx::create();
        for (len, expected) in [(len, Some(())), (len - 1, None), (len, Some(()))] {
            assert_eq!(unpacked.unpack(&packed, len, context), expected, "{len}");
        }
        assert_eq!(unpacked, dictionary);
        let mut room = Room::default();
        let unfolded = dictionary.unfold(&mut room);
        let content = &unfolded[dictionary.head.len()..];
        assert_eq!(content[..4], [200, 201, 202, 0]);
        assert_eq!(content[799], 231);
        Ok(())
    }

    #[test]
    fn no_bytes_unpack_to_something_impossible() -> Result<(), Unparsed> {
        let (packed, len) = dictionary()?.pack().map_err(|_| Unparsed("not packed"))?;
        let plain = zstd::bulk::decompress(&packed, len as usize).map_err(|_| Unparsed("zstd"))?;
        let (mut unpacked, context) = (Dictionary::default(), &mut DCtx::create());
        let mut room = Room::default();
        for at in 0..plain.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = plain.clone();
                bad[at] = value;
                let bad = zstd::bulk::compress(&bad, 1).map_err(|_| Unparsed("zstd"))?;
                if unpacked.unpack(&bad, len, context).is_some() {
                    unpacked.unfold(&mut room);
                }
            }
        }
        Ok(())
    }

    /// A block of `len` bytes as they are, with its header.
    fn raw_block(len: u8, is_last: bool) -> Vec<u8> {
        let mut block = vec![len << 3 | u8::from(is_last), 0, 0];
        block.extend((0..len).map(|byte| byte ^ len));
        block
    }

    #[test]
    fn blocks_are_read_alike_with_and_without_a_known_end() -> Result<(), Error> {
        let blocks = [(5, false), (0, false), (31, false), (7, true)];
        let blocks = blocks.map(|(len, is_last)| raw_block(len, is_last));
        let stored = [
            &b"before"[..],
            &blocks.concat(),
            b"checksum and another frame",
        ]
        .concat();
        let starts: Vec<u64> = (0..=blocks.len())
            .map(|count| 6 + blocks[..count].concat().len() as u64)
            .collect();
        let (mut at_once, mut in_turn) = (vec![0xff; 500], Vec::new());
        for (index, from) in starts[..blocks.len()].iter().enumerate() {
            let ends = starts[index + 1..].iter().copied();
            for to in ends.chain([starts[blocks.len()] + 8]) {
                let places = (BlobOffset(*from), Some(BlobOffset(to)));
                read_frame(&stored, places, &mut at_once)?;
                read_blocks(&stored, places, &mut in_turn)?;
                assert_eq!(at_once[HEAD_LEN..], in_turn[HEAD_LEN..], "{from} to {to}");
                assert_eq!(at_once[..HEAD_LEN], [0x28, 0xb5, 0x2f, 0xfd, 0, 0]);
            }
        }
        Ok(())
    }

    #[test]
    fn blocks_that_are_cut_are_no_frame() {
        let stored = [raw_block(5, false), raw_block(7, false)].concat();
        let mut frame = Vec::new();
        for to in 0..=20 {
            let places = (BlobOffset(0), Some(BlobOffset(to)));
            let read = read_frame(&stored, places, &mut frame);
            assert_eq!(read.is_ok(), [8, 18].contains(&to), "up to {to}");
        }
    }

    #[test]
    fn references_beyond_the_history_are_refused() {
        let walker = crate::stream::zstd_blocks::Walker::new();
        let new = |range: Range<u64>, history: usize| {
            let references = [range];
            Dictionary::new(0, walker.entropy(), 2000, &references, &vec![0; history])
        };
        assert!(new(1000..1001, 1000).is_ok());
        assert!(new(999..1001, 1000).is_err());
        assert!(new(1990..2001, 1000).is_err());
    }
}
