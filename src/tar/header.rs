//! One header block, its fields and what they mean in each format.
//!
//! ```text
//!   0    name        100      257  magic, version   8      GNU:  345 atime  12
//!   100  mode          8      265  owner, group    64            357 ctime  12
//!   108  uid, gid     16      329  major, minor    16            386 sparse map
//!   124  size         12      345  prefix         155            482 more follows
//!   136  mtime        12                                         483 real size  12
//!   148  checksum      8           (star: 131, then
//!   156  type          1            476 atime, 488 ctime,
//!   157  link        100            508 "tar\0")
//! ```
//!
//! Every number that a format has must be one, used or not: that is how Go's archive/tar
//! tells a header from noise.
//!
//! Spec: POSIX pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".

use super::error::Error;
use super::number::{numeric, octal};
use super::path::Raw;

/// The unit of the format, in bytes.
pub(super) const BLOCK_SIZE: usize = 512;

/// One block.
pub(super) type Block = [u8; BLOCK_SIZE];

/// Type flags that have a meaning here.
pub(super) mod flag {
    pub(in crate::tar) const OLD_FILE: u8 = 0;
    pub(in crate::tar) const FILE: u8 = b'0';
    pub(in crate::tar) const HARD_LINK: u8 = b'1';
    pub(in crate::tar) const SYMLINK: u8 = b'2';
    pub(in crate::tar) const CHAR_DEVICE: u8 = b'3';
    pub(in crate::tar) const BLOCK_DEVICE: u8 = b'4';
    pub(in crate::tar) const DIRECTORY: u8 = b'5';
    pub(in crate::tar) const FIFO: u8 = b'6';
    /// A file that wants contiguous room on the disk; a file for all others.
    pub(in crate::tar) const CONTIGUOUS: u8 = b'7';
    pub(in crate::tar) const PAX: u8 = b'x';
    pub(in crate::tar) const GLOBAL_PAX: u8 = b'g';
    pub(in crate::tar) const GNU_LONG_NAME: u8 = b'L';
    pub(in crate::tar) const GNU_LONG_LINK: u8 = b'K';
    pub(in crate::tar) const GNU_SPARSE: u8 = b'S';
    /// The label of a GNU archive.
    pub(in crate::tar) const GNU_VOLUME: u8 = b'V';
    /// Solaris' pax header from before the standard.
    pub(in crate::tar) const SOLARIS_PAX: u8 = b'X';
}

/// The dialect of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// From before there was a magic: no owner names, devices or prefix.
    V7,
    /// ustar and pax.
    Posix,
    /// Old GNU.
    Gnu,
    /// Schily's star.
    Star,
}

impl Format {
    fn of(block: &Block) -> Self {
        match &block[257..265] {
            [b'u', b's', b't', b'a', b'r', 0, ..] if &block[508..] == b"tar\0" => Self::Star,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Self::Posix,
            b"ustar  \0" => Self::Gnu,
            _ => Self::V7,
        }
    }
}

/// The fields of a header, as numbers and texts.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) block: &'a Block,
    /// Where it starts, in bytes from the start of the tar.
    pub(super) offset: u64,
    pub(super) format: Format,
    pub(super) flag: u8,
    pub(super) path: Raw<'a>,
    pub(super) link: &'a [u8],
    pub(super) size: i64,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) mtime: i64,
    pub(super) major: i64,
    pub(super) minor: i64,
}

impl<'a> Header<'a> {
    /// Reads the header at `offset`.
    ///
    /// # Errors
    /// [`Error::Checksum`] and [`Error::Number`].
    pub(super) fn parse(block: &'a Block, offset: u64) -> Result<Self, Error> {
        if !has_sound_checksum(block) {
            return Err(Error::Checksum {
                header_offset: offset,
            });
        }
        let number = |field: &'static str, start: usize, len: usize| {
            numeric(&block[start..start + len]).ok_or(Error::Number {
                header_offset: offset,
                field,
            })
        };
        let format = Format::of(block);
        let (major, minor) = match format {
            Format::V7 => (0, 0),
            Format::Posix | Format::Gnu | Format::Star => (
                number("the major device number", 329, 8)?,
                number("the minor device number", 337, 8)?,
            ),
        };
        if format == Format::Star {
            number("the access time", 476, 12)?;
            number("the change time", 488, 12)?;
        }
        Ok(Self {
            block,
            offset,
            format,
            flag: block[156],
            path: Raw {
                prefix: prefix(block, format),
                name: text(&block[..100]),
            },
            link: text(&block[157..257]),
            size: number("the size", 124, 12)?,
            mode: number("the mode", 100, 8)?,
            uid: number("the owner", 108, 8)?,
            gid: number("the group", 116, 8)?,
            mtime: number("the time", 136, 12)?,
            major,
            minor,
        })
    }

    /// The error that a number of this header is not what it must be.
    pub(super) fn bad_number(&self, field: &'static str) -> Error {
        Error::Number {
            header_offset: self.offset,
            field,
        }
    }
}

/// The part of the path that stands before the name, where the format has one.
fn prefix(block: &Block, format: Format) -> &[u8] {
    match format {
        Format::V7 => b"",
        Format::Posix => text(&block[345..500]),
        Format::Star => text(&block[345..476]),
        Format::Gnu => stray_prefix(block),
    }
}

/// GNU headers have times where others have the prefix. Go's archive/tar before 1.8 wrote
/// a prefix there all the same; if the times make no sense, that is what it is.
fn stray_prefix(block: &Block) -> &[u8] {
    let is_time = |field: &[u8]| field[0] == 0 || numeric(field).is_some();
    let prefix = text(&block[345..500]);
    if (is_time(&block[345..357]) && is_time(&block[357..369])) || !prefix.is_ascii() {
        return b"";
    }
    prefix
}

/// A text that ends with its field or with a NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// Whether the sum of the bytes, those of the sum itself taken as spaces, is as stated.
/// Old Sun tars add the bytes as signed numbers.
fn has_sound_checksum(block: &Block) -> bool {
    let Some(stated) = octal(&block[148..156]) else {
        return false;
    };
    let sum = |bytes: &[u8]| -> i64 { bytes.iter().map(|byte| i64::from(*byte)).sum() };
    let others = [&block[..148], &block[156..]];
    let unsigned = sum(others[0]) + sum(others[1]) + 8 * i64::from(b' ');
    if stated == unsigned {
        return true;
    }
    let negative = others
        .iter()
        .flat_map(|part| part.iter())
        .filter(|byte| **byte >= 0x80);
    let signed = negative.fold(unsigned, |sum, _| sum - 256);
    stated == signed
}
