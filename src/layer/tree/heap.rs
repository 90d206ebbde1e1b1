//! The bytes of variable length of a tree, each distinct piece once.
//!
//! Layers repeat themselves: names like `index.js`, the same label on every file. The
//! pieces are names, targets, and [`Extras`].

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::record::{HeapPart, NO_EXTRAS};
use crate::tar::{Region, Xattr};

/// A heap being filled.
#[derive(Debug, Default)]
pub(super) struct Heap {
    bytes: Vec<u8>,
    pieces: HashTable<HeapPart>,
    hasher: RandomState,
}

impl Heap {
    /// Where `piece` is; it is put in if it is not there yet. `None` if it does not fit.
    pub(super) fn intern(&mut self, piece: &[u8]) -> Option<HeapPart> {
        let Self {
            bytes,
            pieces,
            hasher,
        } = self;
        let hash = hasher.hash_one(piece);
        if let Some(part) = pieces.find(hash, |part| get(bytes, *part) == piece) {
            return Some(*part);
        }
        let part = HeapPart {
            start: u32::try_from(bytes.len()).ok()?,
            len: u32::try_from(piece.len()).ok()?,
        };
        // What stands for "no extras" must not be a place.
        part.start
            .checked_add(part.len)
            .filter(|end| *end < NO_EXTRAS)?;
        bytes.extend_from_slice(piece);
        pieces.insert_unique(hash, part, |part| hasher.hash_one(get(bytes, *part)));
        Some(part)
    }

    pub(super) fn get(&self, part: HeapPart) -> &[u8] {
        get(&self.bytes, part)
    }

    /// A heap that begins with `bytes`, of which no piece is found again.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.shrink_to_fit();
        self.bytes
    }
}

/// The piece at `part`, which must lie within `bytes`.
pub(super) fn get(bytes: &[u8], part: HeapPart) -> &[u8] {
    let start = part.start as usize;
    &bytes[start..start + part.len as usize]
}

/// What only few nodes have: the regions of a sparse file, and extended attributes.
///
/// ```text
/// 4 flags and number of regions, 16 for each: offset, length
/// 4 number of xattrs, for each: 1 length of the name, 4 length of the value, name, value
/// ```
#[derive(Debug, Clone, Copy)]
pub(super) struct Extras<'a>(&'a [u8]);

/// Set if the file is sparse, even if it has no regions.
const SPARSE: u32 = 1 << 31;

impl<'a> Extras<'a> {
    /// Their bytes; empty if there are none.
    pub(super) fn encode(regions: Option<&[Region]>, xattrs: &[Xattr]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if regions.is_none() && xattrs.is_empty() {
            return bytes;
        }
        let len = |len: usize| u32::try_from(len).expect("limits of the tar are far below");
        let head = regions.map_or(0, |regions| SPARSE | len(regions.len()));
        bytes.extend_from_slice(&head.to_le_bytes());
        for region in regions.unwrap_or_default() {
            bytes.extend_from_slice(&region.file_offset.to_le_bytes());
            bytes.extend_from_slice(&region.len.to_le_bytes());
        }
        bytes.extend_from_slice(&len(xattrs.len()).to_le_bytes());
        for xattr in xattrs {
            bytes.push(u8::try_from(xattr.name.len()).expect("255 bytes at most"));
            bytes.extend_from_slice(&len(xattr.value.len()).to_le_bytes());
            bytes.extend_from_slice(&xattr.name);
            bytes.extend_from_slice(&xattr.value);
        }
        bytes
    }

    /// The extras that begin here; what follows them is not looked at.
    pub(super) fn at(heap: &'a [u8], start: u32) -> Option<Self> {
        heap.get(start as usize..).map(Self)
    }

    /// The regions of a sparse file, and what is behind them.
    pub(super) fn regions(self) -> Option<(Option<Vec<Region>>, ExtrasXattrs<'a>)> {
        let mut rest = self.0;
        let head = take_u32(&mut rest)?;
        let list = take(&mut rest, (head & !SPARSE) as usize * 16)?;
        let regions = list.chunks_exact(16).map(|bytes| {
            let (offset, len) = bytes.split_at(8);
            Region {
                file_offset: u64_of(offset),
                len: u64_of(len),
            }
        });
        let regions = (head & SPARSE != 0).then(|| regions.collect());
        let left = take_u32(&mut rest)?;
        Some((regions, ExtrasXattrs { rest, left }))
    }
}

/// The extended attributes among the extras, as (name, value).
#[derive(Debug, Clone, Copy)]
pub(super) struct ExtrasXattrs<'a> {
    rest: &'a [u8],
    left: u32,
}

impl ExtrasXattrs<'_> {
    /// Of a node that has none.
    pub(super) const NONE: Self = Self { rest: &[], left: 0 };

    /// Whether all of them are there.
    pub(super) fn are_whole(self) -> bool {
        self.count() == self.left as usize
    }
}

impl<'a> Iterator for ExtrasXattrs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (name_len, rest) = self.rest.split_first()?;
        self.rest = rest;
        let value_len = take_u32(&mut self.rest)?;
        let name = take(&mut self.rest, usize::from(*name_len))?;
        let value = take(&mut self.rest, value_len as usize)?;
        Some((name, value))
    }
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*taken))
}

fn u64_of(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_stored_once() {
        let mut heap = Heap::default();
        let rows: [&[u8]; 5] = [b"a", b"bc", b"", b"a", b"bc"];
        let parts = rows.map(|piece| heap.intern(piece));
        assert_eq!(parts[0], parts[3]);
        assert_eq!(parts[1], parts[4]);
        for (piece, part) in rows.iter().zip(parts) {
            assert_eq!(part.map(|part| heap.get(part)), Some(*piece));
        }
        assert_eq!(heap.into_bytes(), b"abc");
    }

    #[test]
    fn extras_survive_their_bytes_and_cuts_are_noticed() {
        let region = |file_offset| Region {
            file_offset,
            len: 512,
        };
        let xattr = |name: &[u8], value: &[u8]| Xattr {
            name: name.to_vec(),
            value: value.to_vec(),
        };
        let xattrs = [xattr(b"user.a", b""), xattr(b"user.\xff", b"value")];
        let rows: [(Option<Vec<Region>>, &[Xattr]); 4] = [
            (Some(vec![]), &[]),
            (Some(vec![region(0), region(u64::MAX)]), &[]),
            (None, &xattrs),
            (Some(vec![region(4096)]), &xattrs),
        ];
        for (regions, xattrs) in rows {
            let bytes = Extras::encode(regions.as_deref(), xattrs);
            let (read, list) = Extras(&bytes).regions().expect("all is there");
            assert_eq!(read, regions);
            assert!(list.are_whole());
            let expected = xattrs
                .iter()
                .map(|xattr| (&xattr.name[..], &xattr.value[..]));
            assert!(list.eq(expected), "{regions:?}");
            for cut in 0..bytes.len() {
                let read = Extras(&bytes[..cut]).regions();
                assert!(!read.is_some_and(|(_, list)| list.are_whole()), "{cut}");
            }
        }
        assert!(Extras::encode(None, &[]).is_empty());
    }
}
