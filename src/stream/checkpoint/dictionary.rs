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

use zstd::zstd_safe::get_error_name;

use crate::store::ReadAt;
use crate::stream::error::Error;
use crate::stream::input::{Direct, Input};
use crate::stream::offset::BlobOffset;
use crate::stream::scratch::{Scratch, resize};
use crate::stream::zstd::{FRAME, FrameHeader};
use crate::stream::zstd_blocks::{
    Code, Entropy, TableSource, Unparsed, describe_predefined, read_block,
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

/// For so many stored bytes room is made at once.
const MAX_STORED: u64 = 32 << 20;

/// A window's compression level.
const LEVEL: i32 = 3;

/// What is known between two blocks of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stream) struct Dictionary {
    /// How the frame's header describes its window.
    window_descriptor: u8,
    /// The dictionary up to its content.
    head: Vec<u8>,
    content_len: usize,
    /// The parts of the content that matter, in order.
    ranges: Vec<Range<usize>>,
    /// The bytes of those parts.
    bytes: Vec<u8>,
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
        let mut ranges = Vec::with_capacity(references.len());
        let mut bytes = Vec::new();
        for range in references {
            let there = index(range.start, history_at)?..index(range.end, history_at)?;
            bytes.extend_from_slice(history.get(there).ok_or(beyond)?);
            ranges.push(index(range.start, content_at)?..index(range.end, content_at)?);
        }
        Ok(Self {
            window_descriptor,
            head: head(entropy),
            content_len: index(position, content_at)?,
            ranges,
            bytes,
        })
    }

    /// Packs the dictionary; says also how many bytes it unpacks to.
    pub(in crate::stream) fn pack(&self) -> Result<(Vec<u8>, u32), Error> {
        let mut plain = vec![self.window_descriptor];
        put(&mut plain, self.head.len());
        plain.extend_from_slice(&self.head);
        put(&mut plain, self.content_len);
        put(&mut plain, self.ranges.len());
        let mut at = 0;
        for range in &self.ranges {
            put(&mut plain, range.start - at);
            at = range.end;
        }
        for range in &self.ranges {
            put(&mut plain, range.len());
        }
        plain.extend_from_slice(&self.bytes);
        let len = u32::try_from(plain.len()).map_err(|_| Error::Truncated)?;
        let packed = zstd::bulk::compress(&plain, LEVEL).map_err(Error::from_read)?;
        Ok((packed, len))
    }

    /// Unpacks what [`Self::pack`] made; `None` if it is anything else.
    pub(in crate::stream) fn unpack(packed: &[u8], len: u32) -> Option<Self> {
        let plain = zstd::bulk::decompress(packed, len as usize).ok()?;
        let mut rest = &plain[..];
        let [window_descriptor] = take(&mut rest, 1)?.try_into().ok()?;
        let head_len = get(&mut rest)?;
        let head = take(&mut rest, head_len)?.to_vec();
        let content_len = get(&mut rest)?;
        let count = get(&mut rest)?;
        // Each range has two numbers of a byte at least.
        if content_len as u64 > MAX_CONTENT || count > rest.len() / 2 {
            return None;
        }
        let gaps: Vec<usize> = (0..count).map_while(|_| get(&mut rest)).collect();
        let lens: Vec<usize> = (0..count).map_while(|_| get(&mut rest)).collect();
        let mut ranges = Vec::with_capacity(count);
        let mut at = 0_usize;
        for (gap, len) in gaps.into_iter().zip(lens) {
            let start = at.checked_add(gap)?;
            at = start.checked_add(len)?;
            ranges.push(start..at);
        }
        let total: usize = ranges.iter().map(Range::len).sum();
        let fits = ranges.len() == count && at <= content_len && total == rest.len();
        fits.then_some(Self {
            window_descriptor,
            head,
            content_len,
            ranges,
            bytes: rest.to_vec(),
        })
    }

    /// Decodes exactly `out` from the blocks of `source` that begin at `from` and end
    /// before `to`, or with their frame.
    pub(in crate::stream) fn decode(
        &self,
        source: &dyn ReadAt,
        blocks: (BlobOffset, Option<BlobOffset>),
        scratch: &mut Scratch,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let (from, to) = blocks;
        let fault = |fault| Error::ZstdFrame { at: from, fault };
        self.read_frame(source, from, to, &mut scratch.frame)?;
        self.unfold(&mut scratch.dictionary);
        let len = scratch
            .context
            .decompress_using_dict(out, &scratch.frame, &scratch.dictionary)
            .map_err(|code| fault(get_error_name(code)))?;
        (len == out.len())
            .then_some(())
            .ok_or_else(|| fault("another length than before"))
    }

    /// Reads the blocks as a frame of their own.
    fn read_frame(
        &self,
        source: &dyn ReadAt,
        from: BlobOffset,
        to: Option<BlobOffset>,
        frame: &mut Vec<u8>,
    ) -> Result<(), Error> {
        frame.clear();
        // Without a known end it is that of the frame; room grows as it is read.
        let len = to.map_or(0, |to| to.0.saturating_sub(from.0).min(MAX_STORED));
        frame.reserve_exact(usize::try_from(len).unwrap_or(0) + HEAD_LEN);
        frame.extend_from_slice(&FRAME.to_le_bytes());
        frame.extend_from_slice(&[0, self.window_descriptor]);
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

    /// Writes the dictionary in full. Between the ranges may lie anything: nothing refers
    /// to it.
    fn unfold(&self, dictionary: &mut Vec<u8>) {
        resize(dictionary, self.head.len() + self.content_len);
        dictionary[..self.head.len()].copy_from_slice(&self.head);
        let content = &mut dictionary[self.head.len()..];
        let mut bytes = &self.bytes[..];
        for range in &self.ranges {
            let (part, rest) = bytes.split_at(range.len());
            content[range.clone()].copy_from_slice(part);
            bytes = rest;
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
        assert_eq!(Dictionary::unpack(&packed, len).as_ref(), Some(&dictionary));
        assert_eq!(Dictionary::unpack(&packed, len - 1), None);
        let mut unfolded = Vec::new();
        dictionary.unfold(&mut unfolded);
        let content = &unfolded[dictionary.head.len()..];
        assert_eq!(content[..4], [200, 201, 202, 0]);
        assert_eq!(content[799], 231);
        Ok(())
    }

    #[test]
    fn no_bytes_unpack_to_something_impossible() -> Result<(), Unparsed> {
        let (packed, len) = dictionary()?.pack().map_err(|_| Unparsed("not packed"))?;
        let plain = zstd::bulk::decompress(&packed, len as usize).map_err(|_| Unparsed("zstd"))?;
        for at in 0..plain.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = plain.clone();
                bad[at] = value;
                let bad = zstd::bulk::compress(&bad, 1).map_err(|_| Unparsed("zstd"))?;
                if let Some(dictionary) = Dictionary::unpack(&bad, len) {
                    dictionary.unfold(&mut Vec::new());
                }
            }
        }
        Ok(())
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
