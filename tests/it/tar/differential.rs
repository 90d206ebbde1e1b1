//! Damaged archives, read by ours and by other [readers](super::readers): Python's
//! tarfile, GNU tar, and bsdtar's libarchive.
//!
//! `OCIFS_TEST_ARCHIVES` asks for more than the usual number. All rows up to the first
//! difference are equal: path, type, mode, owner, size, time, link, and the sha256 of the
//! content. What differs has a [rule](super::rules), or the test fails.

use std::collections::BTreeMap;
use std::fmt;

use ocifs::oci::Digest;
use ocifs::tar::{Entry, Error, Kind, Limits, Parser};

use super::archives::{mutate, seeds};
use super::readers::{GnuTar, Reader, Script};
use super::rules::{self, Rule, Verdict, judge};
use crate::common::{Need, Random, has};

/// How many archives are read, where `OCIFS_TEST_ARCHIVES` says nothing else.
const ARCHIVES: usize = 10_000;

/// An entry, as every tool can say it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) path: Vec<u8>,
    pub(super) letter: char,
    pub(super) mode: u64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) link: Vec<u8>,
    /// The sha256 of files up to 1 MiB.
    pub(super) content: Option<String>,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, link) = (self.path.escape_ascii(), self.link.escape_ascii());
        let content = self.content.as_ref().map_or("", |digest| &digest[..8]);
        write!(
            f,
            "{}{:o} {}/{} {} {} {path} {link} {content}",
            self.letter, self.mode, self.uid, self.gid, self.size, self.mtime
        )
    }
}

/// What a tool reads, up to what stops it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) rows: Vec<Row>,
    pub(super) error: Option<String>,
}

/// A path as it leads below the root.
pub(super) fn normal(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join(&b'/')
}

/// What ours reads, and what the rules are decided by.
pub(super) struct Ours {
    pub(super) reading: Reading,
    /// Where the header of each row is, in bytes from the start of the tar.
    pub(super) offsets: Vec<usize>,
    pub(super) error: Option<Error>,
}

fn ours(bytes: &[u8]) -> Ours {
    let mut parser = Parser::new(Limits::default());
    let (mut rows, mut offsets) = (Vec::new(), Vec::new());
    let fed = parser.feed(bytes, |entry| {
        rows.push(row_of(&entry, bytes));
        offsets.push(usize::try_from(entry.header_offset).expect("a small tar"));
        Ok::<_, Error>(())
    });
    let error = fed.and_then(|()| parser.finish().map(drop)).err();
    let code = error.as_ref().map(|error| error.code().to_owned());
    Ours {
        reading: Reading { rows, error: code },
        offsets,
        error,
    }
}

fn row_of(entry: &Entry, bytes: &[u8]) -> Row {
    let (letter, link) = match &entry.kind {
        Kind::File(_) => ('f', &b""[..]),
        Kind::Directory => ('d', &b""[..]),
        Kind::Symlink { target } => ('l', target.as_slice()),
        Kind::HardLink { target } => ('h', target.as_slice()),
        Kind::CharDevice(_) => ('c', &b""[..]),
        Kind::BlockDevice(_) => ('b', &b""[..]),
        Kind::Fifo => ('p', &b""[..]),
    };
    let size = match &entry.kind {
        Kind::File(content) => content.size,
        _ => 0,
    };
    Row {
        path: entry.path.clone(),
        letter,
        mode: entry.mode.into(),
        uid: entry.uid.into(),
        gid: entry.gid.into(),
        size,
        mtime: entry.mtime,
        link: link.to_vec(),
        content: content_of(entry, bytes),
    }
}

fn content_of(entry: &Entry, tar: &[u8]) -> Option<String> {
    let Kind::File(content) = &entry.kind else {
        return None;
    };
    if content.size > 1 << 20 {
        return None;
    }
    let at = |offset: u64| usize::try_from(offset).expect("a small file");
    let mut bytes = vec![0; at(content.size)];
    for (file_offset, tar_offset, len) in content.extents() {
        let stored = tar.get(at(tar_offset)..at(tar_offset + len))?;
        bytes[at(file_offset)..at(file_offset + len)].copy_from_slice(stored);
    }
    Some(Digest::of(&bytes).encoded().to_owned())
}

/// Reads the archives by both, and judges each.
fn compare(rules: &[Rule], reader: &mut dyn Reader) {
    let count = std::env::var("OCIFS_TEST_ARCHIVES")
        .map_or(ARCHIVES, |text| text.parse().expect("a number"));
    let seeds = seeds();
    let mut random = Random::of_seed(1);
    let mut met = BTreeMap::<&str, usize>::new();
    let mut unknown = Vec::new();
    for number in 0..count {
        let seed = &seeds[number % seeds.len()];
        let is_sound = number < seeds.len();
        let bytes = if is_sound {
            seed.clone()
        } else {
            mutate(&mut random, seed)
        };
        match judge(rules, &ours(&bytes), &reader.read(&bytes), &bytes) {
            Verdict::Same => {}
            Verdict::Rule(name) => *met.entry(name).or_default() += 1,
            Verdict::Unknown(text) => unknown.push(format!("archive {number}: {text}")),
        }
    }
    assert!(unknown.is_empty(), "without a rule: {unknown:#?}");
    let idle = rules.iter().filter(|rule| !met.contains_key(rule.name));
    let idle: Vec<_> = idle.map(|rule| rule.name).collect();
    assert!(idle.is_empty(), "met nowhere: {idle:?}, and {met:?}");
}

#[test]
fn damaged_archives_are_read_as_python_reads_them() {
    let name = "damaged_archives_are_read_as_python_reads_them";
    if has(name, &[Need::Tool("python3")]) {
        compare(rules::PYTHON, &mut Script::start("python.py"));
    }
}

#[test]
fn damaged_archives_are_read_as_gnu_tar_reads_them() {
    let name = "damaged_archives_are_read_as_gnu_tar_reads_them";
    if has(name, &[Need::Tool("tar")]) {
        compare(rules::GNU_TAR, &mut GnuTar::new());
    }
}

#[test]
fn damaged_archives_are_read_as_bsdtar_reads_them() {
    let name = "damaged_archives_are_read_as_bsdtar_reads_them";
    if has(name, &[Need::Tool("python3"), Need::Tool("bsdtar")]) {
        compare(rules::LIBARCHIVE, &mut Script::start("libarchive.py"));
    }
}
