//! Archives made by hand, block by block, and what the parser says of them.

use crate::tar::{Entry, Error, Kind, Limits, Parser, Summary};

/// A header that can be bent.
#[derive(Clone)]
pub(super) struct Header(pub(super) [u8; 512]);

impl Header {
    /// A ustar header of this type.
    pub(super) fn new(flag: u8, path: &str) -> Self {
        let mut header = Self([0; 512]);
        header.put(0, path.as_bytes());
        header.put(100, b"0000644\0");
        header.put(108, b"0000000\0");
        header.put(116, b"0000000\0");
        header.put(124, b"00000000000\0");
        header.put(136, b"00000000000\0");
        header.0[156] = flag;
        header.put(257, b"ustar\x0000");
        header.sum()
    }

    pub(super) fn file(path: &str, size: usize) -> Self {
        Self::new(b'0', path).size(size)
    }

    pub(super) fn link(flag: u8, path: &str, target: &str) -> Self {
        Self::new(flag, path).with(157, target.as_bytes())
    }

    pub(super) fn gnu(flag: u8, path: &str) -> Self {
        Self::new(flag, path).with(257, b"ustar  \0")
    }

    pub(super) fn v7(flag: u8, path: &str) -> Self {
        Self::new(flag, path).with(257, &[0; 8])
    }

    pub(super) fn star(path: &str) -> Self {
        Self::new(b'0', path).with(508, b"tar\0")
    }

    pub(super) fn size(self, size: usize) -> Self {
        self.with(124, format!("{size:011o}\0").as_bytes())
    }

    /// Other bytes from `at` on, with the checksum put right.
    pub(super) fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self.sum()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn sum(mut self) -> Self {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self
    }

    /// The header alone.
    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// The header with its data, padded.
    pub(super) fn data(self, data: &[u8]) -> Vec<u8> {
        let mut bytes = self.0.to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// A file with its data.
pub(super) fn file(path: &str, data: &[u8]) -> Vec<u8> {
    Header::file(path, data.len()).data(data)
}

/// A directory.
pub(super) fn dir(path: &str) -> Vec<u8> {
    Header::new(b'5', path).bytes()
}

/// An extension header: `x`, `g`, `L` or `K`.
pub(super) fn extension(flag: u8, body: &[u8]) -> Vec<u8> {
    Header::new(flag, "extension").size(body.len()).data(body)
}

/// One pax record.
pub(in crate::tar) fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    let mut record = format!("{len} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// A pax header with these records.
pub(super) fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    extended(b'x', records)
}

/// A global pax header.
pub(super) fn global(records: &[(&str, &str)]) -> Vec<u8> {
    extended(b'g', records)
}

fn extended(flag: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let records = records.iter();
    let body: Vec<u8> = records
        .flat_map(|(key, value)| pax_record(key, value.as_bytes()))
        .collect();
    extension(flag, &body)
}

/// The parts and the end of an archive.
pub(super) fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

/// Parses `bytes`, in pieces of `len`.
pub(super) fn parse_by(
    bytes: &[u8],
    len: usize,
    limits: &Limits,
) -> Result<(Vec<Entry>, Summary), Error> {
    let mut parser = Parser::new(limits.clone());
    let mut entries = Vec::new();
    for piece in bytes.chunks(len.max(1)) {
        parser.feed(piece, |entry| {
            entries.push(entry);
            Ok::<_, Error>(())
        })?;
    }
    parser.finish().map(|summary| (entries, summary))
}

/// Parses `bytes` and passes over what need not be looked at.
fn parse_skipping(bytes: &[u8], limits: &Limits) -> Result<Vec<Entry>, Error> {
    let mut parser = Parser::new(limits.clone());
    let mut entries = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let skipped = parser.skip(rest.len() as u64);
        rest = &rest[usize::try_from(skipped).expect("it is no more than there are")..];
        let (piece, after) = rest.split_at(rest.len().min(700));
        parser.feed(piece, |entry| {
            entries.push(entry);
            Ok::<_, Error>(())
        })?;
        rest = after;
    }
    parser.finish().map(|_| entries)
}

/// Parses `bytes` at once, and holds that against smaller pieces, and against passing over
/// what need not be looked at.
///
/// # Panics
/// If the pieces make a difference.
pub(super) fn parse_with(bytes: &[u8], limits: &Limits) -> Result<(Vec<Entry>, Summary), Error> {
    let at_once = parse_by(bytes, bytes.len(), limits);
    for len in [1, 7, 512, 513] {
        assert_eq!(parse_by(bytes, len, limits), at_once, "in pieces of {len}");
    }
    let entries = at_once.clone().map(|(entries, _)| entries);
    assert_eq!(parse_skipping(bytes, limits), entries, "passing over data");
    at_once
}

pub(super) fn parse(bytes: &[u8]) -> Result<(Vec<Entry>, Summary), Error> {
    parse_with(bytes, &Limits::default())
}

/// What the parser says of `bytes` in one line: entries and warnings, or the error.
pub(super) fn say(bytes: &[u8]) -> String {
    say_with(bytes, &Limits::default())
}

pub(super) fn say_with(bytes: &[u8], limits: &Limits) -> String {
    match parse_with(bytes, limits) {
        Err(error) => error.code().to_owned(),
        Ok((entries, summary)) => {
            // Volume labels are counted and not handed out.
            assert!(summary.entries >= entries.len() as u64);
            let warnings = summary.warnings.first().iter();
            let warnings = warnings.map(|warning| format!("!{}", warning.code()));
            let said: Vec<String> = entries.iter().map(say_entry).chain(warnings).collect();
            said.join(", ")
        }
    }
}

fn say_entry(entry: &Entry) -> String {
    let path = entry.path.escape_ascii();
    match &entry.kind {
        Kind::File(content) => match content.regions {
            None => format!("file {path} {}", content.size),
            Some(_) => {
                let extents: Vec<_> = content.extents().collect();
                format!("sparse {path} {} {extents:?}", content.size)
            }
        },
        Kind::Directory => format!("dir {path}"),
        Kind::Symlink { target } => format!("symlink {path} -> {}", target.escape_ascii()),
        Kind::HardLink { target } => format!("link {path} => {}", target.escape_ascii()),
        Kind::CharDevice(device) => format!("char {path} {}:{}", device.major, device.minor),
        Kind::BlockDevice(device) => format!("block {path} {}:{}", device.major, device.minor),
        Kind::Fifo => format!("fifo {path}"),
    }
}
