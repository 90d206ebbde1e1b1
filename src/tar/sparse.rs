//! The maps of sparse files, in the four forms that GNU tar has had.
//!
//! A map is a list of regions, each an offset in the file and a length. The stored bytes
//! are those of all regions, one after the other.
//!
//! | form | where the map is |
//! |---|---|
//! | old GNU | 4 regions in the header, 21 in each extension block behind it |
//! | pax 0.0 | a pax record for each number (`pax.rs` makes form 0.1 of it) |
//! | pax 0.1 | the pax record `GNU.sparse.map`, numbers joined by commas |
//! | pax 1.0 | decimal lines in blocks before the stored bytes |
//!
//! Spec: GNU tar manual, "Storing Sparse Files".

use super::entry::Region;
use super::header::{BLOCK_SIZE, Block};
use super::number::{decimal, numeric};
use super::pax::{Key, Pax};

/// The longest number of a map in decimal, in bytes. 20 hold any; zeros may lead.
const MAX_NUMBER_LEN: usize = 64;

/// What is wrong with a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It makes no sense.
    Malformed(&'static str),
    /// It has more regions than allowed.
    TooManyRegions,
}

const NO_NUMBER: Fault = Fault::Malformed("its map holds something that is not a number");

/// A map as it is read, region by region.
#[derive(Debug)]
pub(super) struct Map {
    /// The size of the file, holes included.
    pub(super) size: u64,
    regions: Vec<Region>,
    /// How many there were, empty ones included.
    count: u64,
    max_count: u64,
    /// Where the last one ends in the file.
    end: u64,
    /// The lengths of all.
    stored_len: u64,
}

impl Map {
    /// An empty map of a file with this size.
    pub(super) fn new(size: i64, max_count: u64) -> Result<Self, Fault> {
        let size = u64::try_from(size).map_err(|_| Fault::Malformed("its size is negative"))?;
        Ok(Self {
            size,
            regions: Vec::new(),
            count: 0,
            max_count,
            end: 0,
            stored_len: 0,
        })
    }

    fn push(&mut self, offset: i64, len: i64) -> Result<(), Fault> {
        self.count += 1;
        if self.count > self.max_count {
            return Err(Fault::TooManyRegions);
        }
        let (Ok(offset), Ok(len)) = (u64::try_from(offset), u64::try_from(len)) else {
            return Err(Fault::Malformed("a region is negative"));
        };
        // Neither is above i64::MAX, so this cannot overflow.
        let end = offset + len;
        if end > self.size {
            return Err(Fault::Malformed("a region ends behind the end of the file"));
        }
        if offset < self.end {
            return Err(Fault::Malformed("regions overlap or are out of order"));
        }
        self.end = end;
        self.stored_len += len;
        // Writers end the map with an empty region where the file ends in a hole.
        if len > 0 {
            self.regions.push(Region {
                file_offset: offset,
                len,
            });
        }
        Ok(())
    }

    /// The regions, if they take as many bytes as are stored.
    pub(super) fn finish(self, stored_len: u64) -> Result<Vec<Region>, Fault> {
        if self.stored_len != stored_len {
            return Err(Fault::Malformed(
                "its regions and its stored bytes differ in length",
            ));
        }
        Ok(self.regions)
    }

    /// Reads form 0.1 (and 0.0) out of a pax header.
    pub(super) fn read_pax(&mut self, pax: &Pax) -> Result<(), Fault> {
        let count = pax.get(Key::SparseNumBlocks).and_then(decimal);
        let count = count.and_then(|count| u64::try_from(count).ok());
        let count = count.ok_or(Fault::Malformed("the number of its regions is missing"))?;
        if count > self.max_count {
            return Err(Fault::TooManyRegions);
        }
        let text = pax.get(Key::SparseMap).unwrap_or_default();
        let mut numbers = text.split(|byte| *byte == b',');
        if text.is_empty() {
            numbers.next();
        }
        for _ in 0..count {
            let (offset, len) = (numbers.next(), numbers.next());
            let missing = Fault::Malformed("its map has fewer regions than it says");
            let (offset, len) = offset.zip(len).ok_or(missing)?;
            let (offset, len) = decimal(offset).zip(decimal(len)).ok_or(NO_NUMBER)?;
            self.push(offset, len)?;
        }
        match numbers.next() {
            Some(_) => Err(Fault::Malformed("its map has more regions than it says")),
            None => Ok(()),
        }
    }
}

/// The size of an old GNU sparse file, as its header has it.
pub(super) fn old_gnu_size(header: &Block) -> Option<i64> {
    numeric(&header[483..495])
}

/// Reads the part of an old GNU map that is in the header; true if an extension follows.
pub(super) fn read_old_gnu_header(map: &mut Map, header: &Block) -> Result<bool, Fault> {
    read_old_gnu(map, &header[386..482])?;
    Ok(header[482] != 0)
}

/// Reads an extension block of an old GNU map; true if another one follows.
pub(super) fn read_old_gnu_extension(map: &mut Map, block: &Block) -> Result<bool, Fault> {
    read_old_gnu(map, &block[..504])?;
    Ok(block[504] != 0)
}

fn read_old_gnu(map: &mut Map, fields: &[u8]) -> Result<(), Fault> {
    for field in fields.chunks_exact(24) {
        // This alone ends the list, for GNU and BSD tar as well.
        if field[0] == 0 {
            break;
        }
        let (offset, len) = field.split_at(12);
        let (offset, len) = numeric(offset).zip(numeric(len)).ok_or(NO_NUMBER)?;
        map.push(offset, len)?;
    }
    Ok(())
}

/// A map in form 1.0, as its blocks come: the number of regions, then two numbers for
/// each, all on lines of their own.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) map: Map,
    /// The start of a number that goes on in the next block.
    line: Vec<u8>,
    /// How many numbers are to come, once that is known.
    numbers_left: Option<u64>,
    /// The offset of the region whose length is to come.
    offset: Option<i64>,
}

impl Lines {
    /// Lines to come, for this map.
    pub(super) const fn new(map: Map) -> Self {
        Self {
            map,
            line: Vec::new(),
            numbers_left: None,
            offset: None,
        }
    }

    /// Reads the next block; true if it was the last. What follows the last number in
    /// it does not matter.
    pub(super) fn read(&mut self, block: &[u8; BLOCK_SIZE]) -> Result<bool, Fault> {
        let mut rest = &block[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.extend_line(&rest[..end])?;
            rest = &rest[end + 1..];
            let number = decimal(&self.line).ok_or(NO_NUMBER)?;
            self.line.clear();
            self.take(number)?;
            if self.numbers_left == Some(0) {
                return Ok(true);
            }
        }
        self.extend_line(rest)?;
        Ok(false)
    }

    fn extend_line(&mut self, part: &[u8]) -> Result<(), Fault> {
        if self.line.len() + part.len() > MAX_NUMBER_LEN {
            return Err(NO_NUMBER);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn take(&mut self, number: i64) -> Result<(), Fault> {
        let Some(left) = self.numbers_left else {
            let count = u64::try_from(number)
                .map_err(|_| Fault::Malformed("the number of its regions is negative"))?;
            if count > self.map.max_count {
                return Err(Fault::TooManyRegions);
            }
            self.numbers_left = Some(2 * count);
            return Ok(());
        };
        self.numbers_left = Some(left - 1);
        match self.offset.take() {
            None => self.offset = Some(number),
            Some(offset) => self.map.push(offset, number)?,
        }
        Ok(())
    }
}
