//! The other direction: entries in, headers out.
//!
//! ```text
//!   ┌────────┬─────────┬────────┬──────┬───────┬─────┐
//!   │ x      │ records │ header │ map  │ bytes │ 000 │      and 1,024 zeros at the end
//!   └────────┴─────────┴────────┴──────┴───────┴─────┘
//!     only where ustar        only of a
//!     has no room             sparse file
//! ```
//!
//! [`append`] writes all that comes before an entry's bytes; the bytes and [`padding`]
//! after them are the caller's, and [`END`] after all entries. What ustar can say is said
//! in ustar; pax records say the rest, as star, GNU tar and Go write them:
//!
//! | fact | record |
//! |---|---|
//! | paths and targets that are long or not ASCII | `path`, `linkpath` |
//! | sizes from 8 GiB, owners from 2,097,152 | `size`, `uid`, `gid` |
//! | times with nanoseconds, before 1970, after 2242 | `mtime` |
//! | extended attributes | `SCHILY.xattr.*`; with `=` in the name `LIBARCHIVE.xattr.*` |
//! | access control lists | `SCHILY.acl.*` beside their attributes: GNU tar wants the text |
//! | holes | `GNU.sparse.*` in form 1.0 |
//!
//! Invariants:
//! - The same entry gives the same bytes: nothing comes from a clock, a process or a
//!   table of users.
//! - What is written is read back by [`Parser`](super::Parser) as the same entry, as long
//!   as it keeps to [`Limits`]; what would not is an error.
//!
//! Spec: POSIX pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual,
//! "PAX Format, Version 1.0".

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::acl;
use super::entry::{Device, Region, Xattr};
use super::header::{BLOCK_SIZE, Block, flag};
use super::limits::{Limit, Limits};

/// What ends an archive.
pub const END: [u8; 2 * BLOCK_SIZE] = [0; 2 * BLOCK_SIZE];

/// The name of extension headers, which nothing reads; that of Python's tarfile.
const EXTENSION_NAME: &[u8] = b"././@PaxHeader";

/// The directory of sparse files, for those who do not know the records; as GNU tar, but
/// for the number of its process.
const SPARSE_DIRECTORY: &[u8] = b"GNUSparseFile.0/";

/// The largest values of octal fields with 8 and 12 bytes, a NUL at the end.
const MAX_OCTAL_8: u64 = 0o777_7777;
const MAX_OCTAL_12: u64 = 0o777_7777_7777;

/// An entry to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewEntry<'a> {
    /// The path below the root, in the form of [`Entry::path`](super::Entry::path).
    pub path: &'a [u8],
    /// What it is.
    pub kind: NewKind<'a>,
    /// The low 12 bits of its mode.
    pub mode: u16,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The time of the last change, in seconds since 1970.
    pub mtime: i64,
    /// What it is after the second, in nanoseconds.
    pub mtime_nanoseconds: u32,
    /// Extended attributes, sorted by name.
    pub xattrs: &'a [Xattr],
}

/// What an entry to be written is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewKind<'a> {
    /// A regular file, all of whose bytes follow.
    File {
        /// How many.
        size: u64,
    },
    /// A regular file, of whose bytes only some regions follow.
    Sparse {
        /// How long it is, holes included.
        size: u64,
        /// The regions, as in [`Content::regions`](super::Content::regions).
        regions: &'a [Region],
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it leads.
        target: &'a [u8],
    },
    /// Another name of an entry before.
    HardLink {
        /// That entry's path.
        target: &'a [u8],
    },
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

impl NewKind<'_> {
    const fn flag(self) -> u8 {
        match self {
            Self::File { .. } | Self::Sparse { .. } => flag::FILE,
            Self::Directory => flag::DIRECTORY,
            Self::Symlink { .. } => flag::SYMLINK,
            Self::HardLink { .. } => flag::HARD_LINK,
            Self::CharDevice(_) => flag::CHAR_DEVICE,
            Self::BlockDevice(_) => flag::BLOCK_DEVICE,
            Self::Fifo => flag::FIFO,
        }
    }

    const fn target(&self) -> &[u8] {
        match self {
            Self::Symlink { target } | Self::HardLink { target } => target,
            _ => &[],
        }
    }

    /// How many bytes of the file follow.
    fn stored_len(self) -> u64 {
        match self {
            Self::File { size } => size,
            Self::Sparse { regions, .. } => regions.iter().map(|region| region.len).sum(),
            _ => 0,
        }
    }
}

/// An entry whose records would be more than [`Limits`] lets be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than the limit of {max} {limit}")]
pub struct OverLimit {
    /// Of what.
    pub limit: Limit,
    /// How many are allowed.
    pub max: u64,
}

/// Appends to `out` what comes before the bytes of `entry`. `out` may hold nothing else,
/// or whole blocks.
///
/// # Errors
/// [`OverLimit`] with [`Limit::ExtensionSize`] or [`Limit::PaxRecords`]; then `out` is as
/// it was.
pub fn append(out: &mut Vec<u8>, entry: &NewEntry<'_>, limits: &Limits) -> Result<(), OverLimit> {
    let map = match entry.kind {
        NewKind::Sparse { size, regions } => sparse_map(size, regions),
        _ => Vec::new(),
    };
    let stored_len = map.len() as u64 + entry.kind.stored_len();
    let name = stored_name(entry);
    let mut header = Fields::new(entry.kind.flag());
    let mut records = Records::default();
    header.path(&name, &mut records);
    header.owner(entry, &mut records);
    header.time(entry, &mut records);
    header.size(stored_len, &mut records);
    header.target(entry.kind.target(), &mut records);
    if let NewKind::CharDevice(device) | NewKind::BlockDevice(device) = entry.kind {
        header.device(device);
    }
    if let NewKind::Sparse { size, .. } = entry.kind {
        records.sparse(&entry_name(entry), size);
    }
    records.xattrs(entry.xattrs);
    records.append(out, limits)?;
    out.extend_from_slice(&header.finish());
    out.extend_from_slice(&map);
    Ok(())
}

/// How many zeros follow an entry's `stored_len` bytes.
#[must_use]
pub const fn padding(stored_len: u64) -> usize {
    let over = stored_len % BLOCK_SIZE as u64;
    // A remainder of 512 fits anything.
    #[expect(clippy::cast_possible_truncation, reason = "below the size of a block")]
    let over = over as usize;
    (BLOCK_SIZE - over) % BLOCK_SIZE
}

/// The path as archives have it: the root is `./`, directories end in a slash.
fn entry_name(entry: &NewEntry<'_>) -> Vec<u8> {
    if entry.path.is_empty() {
        return b"./".to_vec();
    }
    let mut name = entry.path.to_vec();
    if entry.kind == NewKind::Directory {
        name.push(b'/');
    }
    name
}

/// The path in the header, which for sparse files is not the real one: who does not know
/// the records must not take the map for bytes of the file.
fn stored_name(entry: &NewEntry<'_>) -> Vec<u8> {
    let name = entry_name(entry);
    if !matches!(entry.kind, NewKind::Sparse { .. }) {
        return name;
    }
    let slash = name.iter().rposition(|byte| *byte == b'/');
    let (directory, base) = name.split_at(slash.map_or(0, |slash| slash + 1));
    [directory, SPARSE_DIRECTORY, base].concat()
}

/// The map of form 1.0, in whole blocks. A file that ends in a hole gets an empty region
/// there, from which GNU tar takes its length.
fn sparse_map(size: u64, regions: &[Region]) -> Vec<u8> {
    let end = regions.last().map_or(0, |last| last.file_offset + last.len);
    let last = (end < size).then_some(Region {
        file_offset: size,
        len: 0,
    });
    let count = regions.len() + usize::from(last.is_some());
    let mut map = format!("{count}\n").into_bytes();
    for region in regions.iter().chain(&last) {
        map.extend_from_slice(format!("{}\n{}\n", region.file_offset, region.len).as_bytes());
    }
    pad(&mut map);
    map
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK_SIZE), 0);
}

/// A header block being filled; what has no room in it goes to the records.
struct Fields(Block);

impl Fields {
    fn new(flag: u8) -> Self {
        let mut block = [0; BLOCK_SIZE];
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        let mut fields = Self(block);
        for (start, len) in [
            (100, 8),
            (108, 8),
            (116, 8),
            (124, 12),
            (136, 12),
            (329, 8),
            (337, 8),
        ] {
            fields.octal(start, len, 0);
        }
        fields
    }

    /// Digits with zeros before and a NUL behind.
    fn octal(&mut self, start: usize, len: usize, value: u64) {
        let mut rest = value;
        for at in (start..start + len - 1).rev() {
            self.0[at] = b'0' + (rest & 7) as u8;
            rest >>= 3;
        }
    }

    fn path(&mut self, name: &[u8], records: &mut Records) {
        let is_ascii = name.is_ascii();
        if let Some((prefix, rest)) = split(name).filter(|_| is_ascii) {
            self.0[..rest.len()].copy_from_slice(rest);
            self.0[345..345 + prefix.len()].copy_from_slice(prefix);
            return;
        }
        self.text(0, name);
        records.push("path", name);
    }

    fn target(&mut self, target: &[u8], records: &mut Records) {
        self.text(157, target);
        if target.len() > 100 || !target.is_ascii() {
            records.push("linkpath", target);
        }
    }

    /// As much of a name as there is room for.
    fn text(&mut self, start: usize, text: &[u8]) {
        let len = text.len().min(100);
        self.0[start..start + len].copy_from_slice(&text[..len]);
    }

    fn owner(&mut self, entry: &NewEntry<'_>, records: &mut Records) {
        self.octal(100, 8, u64::from(entry.mode & 0o7777));
        for (start, key, id) in [(108, "uid", entry.uid), (116, "gid", entry.gid)] {
            match u64::from(id) {
                id if id <= MAX_OCTAL_8 => self.octal(start, 8, id),
                id => records.push(key, id.to_string().as_bytes()),
            }
        }
    }

    fn time(&mut self, entry: &NewEntry<'_>, records: &mut Records) {
        let (seconds, nanoseconds) = (entry.mtime, entry.mtime_nanoseconds);
        let in_field = u64::try_from(seconds).ok();
        let in_field = in_field.filter(|seconds| *seconds <= MAX_OCTAL_12);
        self.octal(136, 12, in_field.unwrap_or(0));
        if in_field.is_none() || nanoseconds > 0 {
            records.push("mtime", decimal_time(seconds, nanoseconds).as_bytes());
        }
    }

    fn size(&mut self, stored_len: u64, records: &mut Records) {
        if stored_len <= MAX_OCTAL_12 {
            self.octal(124, 12, stored_len);
        } else {
            records.push("size", stored_len.to_string().as_bytes());
        }
    }

    /// Numbers that octal has no room for are in base 256, since no record has them.
    fn device(&mut self, device: Device) {
        for (start, number) in [(329, device.major), (337, device.minor)] {
            if u64::from(number) <= MAX_OCTAL_8 {
                self.octal(start, 8, number.into());
            } else {
                self.0[start..start + 4].copy_from_slice(&[0x80, 0, 0, 0]);
                self.0[start + 4..start + 8].copy_from_slice(&number.to_be_bytes());
            }
        }
    }

    /// The block with its checksum: the sum of all bytes, its own being spaces.
    fn finish(mut self) -> Block {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.octal(148, 7, sum);
        self.0[154] = 0;
        self.0
    }
}

/// A name as the prefix and the rest that fit a header.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((&[], name));
    }
    // The slash before the rest, which is 100 bytes at most and not empty.
    let first = name.len() - 101;
    let inside = &name[first..name.len() - 1];
    let slash = first + inside.iter().position(|byte| *byte == b'/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (!prefix.is_empty() && prefix.len() <= 155).then_some((prefix, rest))
}

/// Seconds and nanoseconds as one decimal number: half a second before 1970 is `-0.5`.
fn decimal_time(seconds: i64, nanoseconds: u32) -> String {
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    let (sign, whole, fraction) = if seconds < 0 {
        (
            "-",
            (seconds + 1).unsigned_abs(),
            1_000_000_000 - nanoseconds,
        )
    } else {
        ("", seconds.unsigned_abs(), nanoseconds)
    };
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').to_owned()
}

/// The records of an extension header.
#[derive(Default)]
struct Records {
    body: Vec<u8>,
    count: u64,
}

impl Records {
    fn push(&mut self, key: &str, value: &[u8]) {
        self.push_parts(&[key.as_bytes()], value);
    }

    /// Adds a record, whose key comes in parts. Its length counts its own digits.
    fn push_parts(&mut self, key: &[&[u8]], value: &[u8]) {
        let key_len: usize = key.iter().map(|part| part.len()).sum();
        let others = key_len + value.len() + 3;
        let mut len = others + decimal_len(others);
        if others + decimal_len(len) != len {
            len += 1;
        }
        self.body.extend_from_slice(len.to_string().as_bytes());
        self.body.push(b' ');
        key.iter()
            .for_each(|part| self.body.extend_from_slice(part));
        self.body.push(b'=');
        self.body.extend_from_slice(value);
        self.body.push(b'\n');
        self.count += 1;
    }

    fn sparse(&mut self, name: &[u8], size: u64) {
        self.push("GNU.sparse.major", b"1");
        self.push("GNU.sparse.minor", b"0");
        self.push("GNU.sparse.name", name);
        self.push("GNU.sparse.realsize", size.to_string().as_bytes());
    }

    fn xattrs(&mut self, xattrs: &[Xattr]) {
        for Xattr { name, value } in xattrs {
            if let Some((key, text)) = acl::to_text(name, value) {
                self.push_parts(&[b"SCHILY.acl.", key], text.as_bytes());
            }
            // The first of them ends the key.
            if name.contains(&b'=') {
                let (name, value) = (percent_encoded(name), STANDARD_NO_PAD.encode(value));
                self.push_parts(&[b"LIBARCHIVE.xattr.", name.as_bytes()], value.as_bytes());
            } else {
                self.push_parts(&[b"SCHILY.xattr.", name], value);
            }
        }
    }

    /// Appends the extension header, if there is anything to say.
    fn append(mut self, out: &mut Vec<u8>, limits: &Limits) -> Result<(), OverLimit> {
        if self.count == 0 {
            return Ok(());
        }
        let len = self.body.len() as u64;
        let bounds = [
            (Limit::ExtensionSize, len, limits.extension_size),
            (Limit::PaxRecords, self.count, limits.pax_records),
        ];
        for (limit, value, max) in bounds {
            if value > max {
                return Err(OverLimit { limit, max });
            }
        }
        let mut header = Fields::new(flag::PAX);
        header.text(0, EXTENSION_NAME);
        header.octal(100, 8, 0o644);
        header.octal(124, 12, len);
        out.extend_from_slice(&header.finish());
        pad(&mut self.body);
        out.append(&mut self.body);
        Ok(())
    }
}

fn decimal_len(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// As libarchive does it: all but letters, digits and a few signs.
fn percent_encoded(name: &[u8]) -> String {
    let encoded = name.iter().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
            char::from(*byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests;
