//! The blocks of a zstd frame, read without producing output.
//!
//! Between two blocks a decoder's state is the Huffman table, three FSE tables, three
//! repeat offsets and the window (RFC 8878 section 3.1.1). [`Walker`] follows all of it but
//! the window's bytes: it decodes the sequences of each block, but no literal, and tells
//! which earlier bytes they refer to. That is two to three times as fast as decoding.
//!
//! What it cannot follow it refuses ([`Unparsed`]); nothing depends on its accepting
//! exactly what a decoder accepts, because all that is made of its findings is compared
//! with what the decoder made.

mod fse;
mod sequences;

use std::rc::Rc;

use fse::{Distribution, Table};
use sequences::Bits;

use crate::stream::error::Error;
use crate::stream::input::{Chunks, Input};

/// How many readable bytes must follow a block that is handed to [`Walker::block`], of any
/// value: bits are loaded eight bytes at a time.
pub(super) const PADDING: usize = 8;

/// Length of a block header.
pub(super) const HEADER_LEN: usize = 3;

/// The most bytes that a block decodes to, and the most that it has after its header.
pub(super) const MAX_BLOCK_SIZE: usize = 128 << 10;

/// A block is not as the specification has it, or not as this module knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unparsed(pub(super) &'static str);

/// The three kinds of codes in a sequence, in the order in which they are described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// How many literals come before the match.
    LiteralLength,
    /// Where the match is.
    Offset,
    /// How long the match is.
    MatchLength,
}

impl Code {
    pub(super) const ALL: [Self; 3] = [Self::LiteralLength, Self::Offset, Self::MatchLength];
}

/// Where an FSE table in force comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TableSource {
    /// None is in force yet.
    Unset,
    /// The one of the specification.
    Predefined,
    /// One symbol, always.
    Rle(u8),
    /// Described by these bytes.
    Described(Rc<[u8]>),
}

/// What a decoder knows between two blocks, but for the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entropy {
    /// The description of the Huffman tree in force.
    pub(super) huffman: Option<Rc<[u8]>>,
    /// The FSE tables in force, in the order of [`Code::ALL`].
    pub(super) tables: [TableSource; 3],
    /// The repeat offsets.
    pub(super) repeats: [u32; 3],
}

impl Entropy {
    /// The state at the start of a frame, RFC 8878 section 3.1.2.5.
    fn at_start() -> Self {
        Self {
            huffman: None,
            tables: [TableSource::Unset, TableSource::Unset, TableSource::Unset],
            repeats: [1, 4, 8],
        }
    }
}

/// What a block header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) is_last: bool,
    kind: u8,
    size: usize,
}

impl BlockHeader {
    const RAW: u8 = 0;
    const RLE: u8 = 1;
    const COMPRESSED: u8 = 2;

    /// Any three bytes are a header; whether it makes sense shows later.
    pub(super) fn parse(bytes: [u8; HEADER_LEN]) -> Self {
        let [low, middle, high] = bytes;
        Self {
            is_last: low & 1 != 0,
            kind: low >> 1 & 3,
            size: usize::from(low >> 3) | usize::from(middle) << 5 | usize::from(high) << 13,
        }
    }

    /// How many bytes follow the header.
    pub(super) fn body_len(self) -> usize {
        if self.kind == Self::RLE { 1 } else { self.size }
    }
}

/// Reads a block with its header and appends it to `out`; says whether it is its frame's
/// last.
pub(super) fn read_block(
    input: &mut Input,
    chunks: &mut dyn Chunks,
    out: &mut Vec<u8>,
) -> Result<bool, Error> {
    let header = input.bytes(chunks)?;
    out.extend_from_slice(&header);
    let header = BlockHeader::parse(header);
    let mut left = header.body_len();
    while left > 0 {
        let bytes = input.fill(chunks)?;
        if bytes.is_empty() {
            return Err(Error::Truncated);
        }
        let step = left.min(bytes.len());
        out.extend_from_slice(&bytes[..step]);
        input.consume(step);
        left -= step;
    }
    Ok(header.is_last)
}

/// What was found in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) is_last: bool,
    /// How many bytes it decodes to.
    pub(super) decoded_len: usize,
    /// Which tables it takes over from before, if it has sequences at all.
    pub(super) repeated: Option<[bool; 3]>,
}

/// Follows the blocks of one frame, from the first.
#[derive(Debug)]
pub(super) struct Walker {
    entropy: Entropy,
    tables: [Table; 3],
}

impl Walker {
    /// Before the first block of a frame.
    pub(super) fn new() -> Self {
        Self {
            entropy: Entropy::at_start(),
            tables: std::array::from_fn(|_| Table::default()),
        }
    }

    /// The state before the next block.
    pub(super) fn entropy(&self) -> &Entropy {
        &self.entropy
    }

    /// Goes past the next block: `bytes` holds it with its header, and [`PADDING`] bytes
    /// more; `position` is where its decoded bytes begin, counted from the frame's.
    /// `on_match` is told of each match: where its source begins, and its length.
    pub(super) fn block(
        &mut self,
        bytes: &[u8],
        position: u64,
        on_match: impl FnMut(u64, u64),
    ) -> Result<Block, Unparsed> {
        let header = bytes.first_chunk().ok_or(Unparsed("no block header"))?;
        let header = BlockHeader::parse(*header);
        if header.size > MAX_BLOCK_SIZE {
            return Err(Unparsed("block too large"));
        }
        let mut block = Block {
            is_last: header.is_last,
            decoded_len: header.size,
            repeated: None,
        };
        match header.kind {
            BlockHeader::RAW | BlockHeader::RLE => Ok(block),
            BlockHeader::COMPRESSED => {
                let padded = &bytes[HEADER_LEN..];
                if padded.len() < header.size + PADDING {
                    return Err(Unparsed("block cut short"));
                }
                let literals = self.literals(&padded[..header.size])?;
                let reader = Bits::new(padded, header.size);
                self.sequences(reader, &literals, position, on_match, &mut block)?;
                Ok(block)
            }
            _ => Err(Unparsed("reserved block type")),
        }
    }

    /// Reads the literals section's header, and a Huffman tree's description if there is
    /// one. RFC 8878 section 3.1.1.3.1.
    fn literals(&mut self, body: &[u8]) -> Result<Literals, Unparsed> {
        let cut = Unparsed("literals cut short");
        let first = *body.first().ok_or(cut)?;
        let mut field = [0; 8];
        let len = body.len().min(8);
        field[..len].copy_from_slice(&body[..len]);
        let field = u64::from_le_bytes(field);
        let bits = |from: u32, count: u32| -> usize {
            usize::try_from(field >> from & ((1 << count) - 1)).unwrap_or(usize::MAX)
        };
        let (kind, format) = (first & 3, first >> 2 & 3);
        let (header_len, regenerated, stored) = match (kind, format) {
            (0 | 1, 0 | 2) => (1, bits(3, 5), None),
            (0 | 1, 1) => (2, bits(4, 12), None),
            (0 | 1, _) => (3, bits(4, 20), None),
            (_, 0 | 1) => (3, bits(4, 10), Some(bits(14, 10))),
            (_, 2) => (4, bits(4, 14), Some(bits(18, 14))),
            _ => (5, bits(4, 18), Some(bits(22, 18))),
        };
        let stored = match kind {
            0 => regenerated,
            1 => 1,
            _ => stored.unwrap_or(0),
        };
        let end = header_len + stored;
        let content = body.get(header_len..end).ok_or(cut)?;
        match kind {
            2 => self.entropy.huffman = Some(tree_description(content)?),
            3 if self.entropy.huffman.is_none() => {
                return Err(Unparsed("literals without a tree"));
            }
            _ => {}
        }
        Ok(Literals { regenerated, end })
    }

    /// Reads the sequences section. RFC 8878 section 3.1.1.3.2.
    fn sequences(
        &mut self,
        mut bits: Bits<'_>,
        literals: &Literals,
        position: u64,
        on_match: impl FnMut(u64, u64),
        block: &mut Block,
    ) -> Result<(), Unparsed> {
        bits.skip(literals.end)?;
        let count = match bits.byte()? {
            few @ 0..128 => usize::from(few),
            255 => usize::from(bits.byte()?) + (usize::from(bits.byte()?) << 8) + 0x7f00,
            high => ((usize::from(high) - 128) << 8) + usize::from(bits.byte()?),
        };
        block.decoded_len = literals.regenerated;
        if count > 0 {
            let modes = bits.byte()?;
            let mut repeated = [false; 3];
            for (index, code) in Code::ALL.into_iter().enumerate() {
                let mode = modes >> (6 - 2 * index) & 3;
                repeated[index] = mode == 3;
                self.set_table(code, mode, &mut bits)?;
            }
            block.repeated = Some(repeated);
            let matched = bits.sequences(
                count,
                &self.tables,
                &mut self.entropy.repeats,
                sequences::Limits {
                    literals: literals.regenerated as u64,
                    position,
                },
                on_match,
            )?;
            let matched = usize::try_from(matched).map_err(|_| Unparsed("block too large"))?;
            block.decoded_len += matched;
        }
        if block.decoded_len > MAX_BLOCK_SIZE {
            return Err(Unparsed("block too large"));
        }
        Ok(())
    }

    fn set_table(&mut self, code: Code, mode: u8, bits: &mut Bits<'_>) -> Result<(), Unparsed> {
        let index = code as usize;
        let source = &mut self.entropy.tables[index];
        let table = &mut self.tables[index];
        match mode {
            0 if *source == TableSource::Predefined => {}
            0 => {
                table.build(code, &Distribution::predefined(code));
                *source = TableSource::Predefined;
            }
            1 => {
                let symbol = bits.byte()?;
                table.build_rle(code, symbol)?;
                *source = TableSource::Rle(symbol);
            }
            2 => {
                let (distribution, len) = Distribution::read(code, bits.rest())?;
                table.build(code, &distribution);
                *source = TableSource::Described(bits.rest()[..len].into());
                bits.skip(len)?;
            }
            _ if *source == TableSource::Unset => {
                return Err(Unparsed("repeated table that was never set"));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The part of a literals section that matters here.
struct Literals {
    /// How many literals there are, decoded.
    regenerated: usize,
    /// Where the section ends in the block's body.
    end: usize,
}

/// The bytes that describe a Huffman tree. RFC 8878 section 4.2.1.
fn tree_description(content: &[u8]) -> Result<Rc<[u8]>, Unparsed> {
    let cut = Unparsed("tree cut short");
    let first = usize::from(*content.first().ok_or(cut)?);
    let len = if first < 128 {
        1 + first
    } else {
        1 + (first - 127).div_ceil(2)
    };
    Ok(content.get(..len).ok_or(cut)?.into())
}

/// A description of the predefined table of a kind of codes, for places that need one.
pub(super) fn describe_predefined(code: Code) -> Vec<u8> {
    Distribution::predefined(code).describe()
}

#[cfg(test)]
mod tests;
