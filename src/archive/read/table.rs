//! Which bytes of a tar are which file, by its headers alone.
//!
//! The data of files is stepped over, so that a tar of many gigabytes costs a read for each
//! of its headers. Only where one path comes twice is it looked whether both are the same.

use std::io;

use crate::archive::{Member, Members};
use crate::store::{ReadAt, source};
use crate::tar::{self, Content, Entry, Kind, Parser};

/// How many bytes are read at a time. Most headers stand alone before a large file, some in
/// a row.
const STEP: usize = 16 << 10;

/// How many bytes are compared at a time.
const CHUNK: usize = 256 << 10;

/// How many files are compared in one archive with others of the same path and length. No
/// writer is known that makes any; beyond this they are taken for different.
const MAX_COMPARED: u64 = 1_000;

/// How many bytes of them are compared, all together.
const MAX_COMPARED_SIZE: u64 = 256 << 20;

/// What is accepted of an archive's headers. An archive of a thousand images has some
/// 20,000 members; a million takes 150 MB of memory.
pub(super) fn limits() -> tar::Limits {
    tar::Limits {
        entries: 1 << 20,
        metadata: 64 << 20,
        ..tar::Limits::default()
    }
}

/// Where in the tar the bytes of a file are, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Extent {
    /// In bytes from the start of the tar.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) len: u64,
}

/// Why there is no table.
#[derive(Debug)]
pub(super) enum Error {
    Tar(tar::Error),
    Read(io::Error),
}

impl From<tar::Error> for Error {
    fn from(error: tar::Error) -> Self {
        Self::Tar(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// What the headers of a tar say.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) members: Members<Extent>,
    /// Whether the tar has an end. It need not, but one that was cut short has none.
    pub(super) has_ended: bool,
}

/// Reads the headers of `tar`.
///
/// # Errors
/// What is wrong with it; what reading answers.
pub(super) fn scan(tar: &dyn ReadAt, limits: tar::Limits) -> Result<Scanned, Error> {
    let mut parser = Parser::new(limits);
    let mut table = Table {
        tar,
        members: Members::default(),
        compared: Compared::default(),
    };
    let mut buf = vec![0; STEP];
    let (mut at, size) = (0, tar.size());
    loop {
        at += parser.skip(size - at);
        let len = tar.read_at(&mut buf, at)?;
        if len == 0 {
            break;
        }
        parser.feed(&buf[..len], |entry| table.add(entry))?;
        at += len as u64;
    }
    let has_ended = parser.has_ended();
    parser.finish()?;
    Ok(Scanned {
        members: table.members,
        has_ended,
    })
}

struct Table<'a> {
    tar: &'a dyn ReadAt,
    members: Members<Extent>,
    compared: Compared,
}

/// What was compared of files with one path.
#[derive(Debug, Default)]
struct Compared {
    files: u64,
    bytes: u64,
}

impl Compared {
    /// Counts one more of `len` bytes; whether it may be compared.
    fn count(&mut self, len: u64) -> bool {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(len);
        self.files <= MAX_COMPARED && self.bytes <= MAX_COMPARED_SIZE
    }
}

impl Table<'_> {
    fn add(&mut self, entry: Entry) -> Result<(), Error> {
        let member = match entry.kind {
            Kind::Directory => return Ok(()),
            Kind::File(Content {
                regions: None,
                data_offset: offset,
                stored_len: len,
                ..
            }) => Member::File(Extent { offset, len }),
            Kind::File(_) => Member::Sparse,
            Kind::Symlink { target } => Member::Symlink(target),
            Kind::HardLink { target } => Member::HardLink(target),
            Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo => Member::Special,
        };
        let (tar, compared) = (self.tar, &mut self.compared);
        self.members
            .insert_with(&entry.path, member, |known, member| match (known, member) {
                (Member::File(one), Member::File(other)) => {
                    Ok(are_same(tar, *one, *other, compared)?)
                }
                (known, member) => Ok(known == member),
            })
    }
}

fn are_same(
    tar: &dyn ReadAt,
    one: Extent,
    other: Extent,
    compared: &mut Compared,
) -> io::Result<bool> {
    if one.len != other.len || !compared.count(one.len) {
        return Ok(false);
    }
    let chunk = source::available(one.len, 0, CHUNK);
    let (mut left, mut right) = (vec![0; chunk], vec![0; chunk]);
    let mut at = 0;
    while at < one.len {
        let len = source::available(one.len, at, chunk);
        let of_one = tar.read_at(&mut left[..len], one.offset + at)?;
        // The later one may be cut off, which its tar will be refused for.
        let of_other = tar.read_at(&mut right[..len], other.offset + at)?;
        if of_one < len || of_other < len || left[..len] != right[..len] {
            return Ok(false);
        }
        at += len as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn tar_of(files: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = ::tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, *bytes)?;
        }
        builder.into_inner()
    }

    /// Counts the bytes that are read.
    #[derive(Debug)]
    struct Counted {
        bytes: Vec<u8>,
        read: AtomicU64,
    }

    impl ReadAt for Counted {
        fn size(&self) -> u64 {
            self.bytes.size()
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let len = self.bytes.read_at(buf, offset)?;
            self.read.fetch_add(len as u64, Ordering::Relaxed);
            Ok(len)
        }
    }

    fn members(bytes: &[u8], limits: tar::Limits) -> Result<Members<Extent>, String> {
        let scanned = scan(&bytes.to_vec(), limits);
        let members = scanned.map(|scanned| scanned.members);
        members.map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn data_is_stepped_over() -> TestResult {
        let large = vec![7; 1 << 20];
        let files: [(&str, &[u8]); 4] = [("a", &large), ("b", b"hello"), ("c", &large), ("d", b"")];
        let bytes = tar_of(&files)?;
        let counted = Counted {
            bytes,
            read: AtomicU64::new(0),
        };
        let scanned = scan(&counted, limits()).map_err(|error| format!("{error:?}"))?;
        assert!(scanned.has_ended);
        let found = scanned.members;
        for (path, content) in files {
            let extent = *found.get(path)?;
            let start = usize::try_from(extent.offset)?;
            let bytes = &counted.bytes[start..start + usize::try_from(extent.len)?];
            assert_eq!(bytes, content, "{path}");
        }
        let read = counted.read.load(Ordering::Relaxed);
        assert!(read <= 4 * STEP as u64, "{read} bytes were read");
        Ok(())
    }

    #[test]
    fn a_tar_may_lack_its_end() -> TestResult {
        let bytes = tar_of(&[("a", b"1"), ("b", b"2")])?;
        for (len, expected) in [(2_048, false), (2_560, true), (3_072, true)] {
            let scanned = scan(&bytes[..len].to_vec(), limits());
            let scanned = scanned.map_err(|error| format!("{error:?}"))?;
            assert_eq!(scanned.has_ended, expected, "{len}");
            assert_eq!(scanned.members.len(), 2, "{len}");
        }
        Ok(())
    }

    #[test]
    fn a_path_that_comes_twice() -> TestResult {
        let (one, other) = (vec![1; 300_000], [vec![1; 299_999], vec![2]].concat());
        let bytes = tar_of(&[
            ("same", &one),
            ("different", &one),
            ("longer", b"x"),
            ("same", &one),
            ("different", &other),
            ("longer", b"xy"),
        ])?;
        let found = members(&bytes, limits())?;
        assert_eq!(
            found.get("same").map(|extent| extent.len).ok(),
            Some(300_000)
        );
        for path in ["different", "longer"] {
            let error = found.find(path).expect_err(path);
            assert_eq!(error.code(), "ARCHIVE_DUPLICATE", "{path}");
        }
        Ok(())
    }

    /// Those of other lengths are not counted: nothing of them is read.
    #[test]
    fn no_more_than_some_are_compared() -> TestResult {
        let different = vec![("different", b"x".as_slice()), ("different", b"xy")];
        let names: Vec<String> = (0..=MAX_COMPARED)
            .map(|number| number.to_string())
            .collect();
        let twice = names
            .iter()
            .flat_map(|name| [(name.as_str(), b"x".as_slice()); 2]);
        let bytes = tar_of(&different.into_iter().chain(twice).collect::<Vec<_>>())?;
        let found = members(&bytes, limits())?;
        let is_known = |name: &&String| found.find(name).is_ok();
        let known = names.iter().take_while(is_known).count();
        assert_eq!(known as u64, MAX_COMPARED);
        let extent = |len| Extent { offset: 0, len };
        let mut compared = Compared::default();
        let mut is_same = |one, other| are_same(&bytes, extent(one), extent(other), &mut compared);
        assert!(!is_same(MAX_COMPARED_SIZE, 1)?, "another length");
        assert!(is_same(1_024, 1_024)?);
        assert_eq!((compared.files, compared.bytes), (1, 1_024));
        assert!(!compared.count(MAX_COMPARED_SIZE), "too much");
        assert!(Compared::default().count(MAX_COMPARED_SIZE));
        Ok(())
    }

    #[test]
    fn headers_are_bounded() -> TestResult {
        let bytes = tar_of(&[("a", b""), ("b", b""), ("c", b"")])?;
        let at_most = |entries| tar::Limits {
            entries,
            ..limits()
        };
        assert_eq!(members(&bytes, at_most(3))?.len(), 3);
        let error = members(&bytes, at_most(2)).expect_err("there are three");
        assert!(error.contains("Entries"), "{error}");
        Ok(())
    }
}
