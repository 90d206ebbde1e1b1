//! Damaged archives, read by ours and by Python's tarfile, which reads all of them in one
//! process: starting one for each would take minutes.
//!
//! `OCIFS_TEST_ARCHIVES` asks for more than the usual number. All rows up to the first
//! difference are equal: path, type, mode, owner, size, time, link, and the sha256 of the
//! content. What differs is of a class ([`super::classes`]), or the test fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ocifs::oci::Digest;
use ocifs::tar::{Entry, Error, Kind, Limits, Parser};
use serde_json::Value;

use super::archives::{mutate, seeds};
use super::classes::{CLASSES, Class, Verdict, class_of};
use crate::common::{Need, Random, has};

/// How many archives are read, where `OCIFS_TEST_ARCHIVES` says nothing else.
const ARCHIVES: usize = 10_000;

/// An entry, as every tool can say it.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What ours reads, and what the classes are decided by.
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

/// Python in a process of its own, which reads one archive after the other.
struct Python {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Python {
    fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tar/python_lists.py");
        let mut command = Command::new("python3");
        let command = command.args(["-B", script]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let to = child.stdin.take().expect("it is piped");
        let from = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, to, from }
    }

    fn read(&mut self, bytes: &[u8]) -> Reading {
        writeln!(self.to, "{}", bytes.len())
            .and_then(|()| self.to.write_all(bytes))
            .and_then(|()| self.to.flush())
            .expect("it listens");
        let mut line = String::new();
        self.from.read_line(&mut line).expect("it answers");
        let value: Value = serde_json::from_str(&line).expect("it answers in JSON");
        let rows = value["rows"].as_array().expect("rows");
        Reading {
            rows: rows.iter().map(python_row).collect(),
            error: value["error"].as_str().map(str::to_owned),
        }
    }

    fn stop(self) {
        let Self { mut child, to, .. } = self;
        drop(to);
        child.wait().expect("it ends");
    }
}

fn python_row(row: &Value) -> Row {
    let bytes = |key: &str| -> Vec<u8> {
        let text = row[key].as_str().unwrap_or_default();
        text.chars()
            .map(|c| u8::try_from(u32::from(c)).expect("Latin-1"))
            .collect()
    };
    let number = |key: &str| row[key].as_i64().unwrap_or(i64::MAX);
    let letter = row["letter"]
        .as_str()
        .and_then(|text| text.chars().next())
        .unwrap_or('?');
    let link = bytes("link");
    Row {
        path: normal(&bytes("path")),
        letter,
        mode: number("mode").unsigned_abs(),
        uid: number("uid"),
        gid: number("gid"),
        size: number("size").unsigned_abs(),
        mtime: number("mtime"),
        link: if letter == 'h' { normal(&link) } else { link },
        content: row["content"].as_str().map(str::to_owned),
    }
}

#[test]
fn damaged_archives_are_read_as_python_reads_them() {
    let name = "damaged_archives_are_read_as_python_reads_them";
    if !has(name, &[Need::Tool("python3")]) {
        return;
    }
    let count = std::env::var("OCIFS_TEST_ARCHIVES")
        .map_or(ARCHIVES, |text| text.parse().expect("a number"));
    let mut python = Python::start();
    let seeds = seeds();
    let mut random = Random::of_seed(1);
    let mut classes = BTreeMap::<Class, usize>::new();
    let mut unknown = Vec::new();
    for number in 0..count {
        let seed = &seeds[number % seeds.len()];
        let is_sound = number < seeds.len();
        let bytes = if is_sound {
            seed.clone()
        } else {
            mutate(&mut random, seed)
        };
        let (ours, theirs) = (ours(&bytes), python.read(&bytes));
        match class_of(&ours, &theirs, &bytes) {
            Verdict::Same => {}
            Verdict::Class(class) => *classes.entry(class).or_default() += 1,
            Verdict::Unknown(text) => unknown.push(format!("archive {number}: {text}")),
        }
    }
    python.stop();
    assert!(unknown.is_empty(), "of no class: {unknown:#?}");
    let seen: BTreeSet<_> = classes.into_keys().collect();
    assert_eq!(
        seen,
        CLASSES.iter().copied().collect(),
        "all classes are there"
    );
}
