//! GNU tar, once for each archive: entries are told in the form of `tar -tv`, the content
//! of all files comes in one piece.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ocifs::oci::Digest;
use tempfile::TempDir;

use super::Reader;
use crate::tar::differential::{Reading, Row, normal};

/// How much content is read; with more, there is none. A sparse file may have any size.
const MAX_CONTENT: u64 = 4 << 20;

/// How a listing marks the label of an archive, which no other reader hands out.
const VOLUME_LABEL: char = 'V';

/// GNU tar.
pub(crate) struct GnuTar {
    dir: TempDir,
}

/// What a run of it said.
struct Answer {
    listing: Vec<u8>,
    /// The content of all files.
    content: Option<Vec<u8>>,
    error: Option<String>,
}

impl GnuTar {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, operation: &str) -> Answer {
        let errors = File::create(self.path("errors")).expect("a file can be made");
        let mut child = Command::new("tar")
            .args([operation, "--to-stdout", "--no-seek", "-vv"])
            .args(["--full-time", "--numeric-owner"])
            .args(["--quoting-style=c", "--absolute-names"])
            .args(["--index-file=listing", "--file=archive"])
            .current_dir(self.dir.path())
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("tar can be started");
        let mut content = Vec::new();
        let pipe = child.stdout.take().expect("it is piped");
        let read = pipe.take(MAX_CONTENT + 1).read_to_end(&mut content);
        // The pipe is closed now, which ends it if it has more to say.
        let status = child.wait().expect("it ends");
        let len = read.expect("a pipe is readable") as u64;
        let text = |name| fs::read(self.path(name)).expect("it is written");
        let errors = String::from_utf8_lossy(&text("errors")).into_owned();
        Answer {
            listing: text("listing"),
            content: (len <= MAX_CONTENT).then_some(content),
            error: (!status.success()).then_some(errors),
        }
    }
}

impl Reader for GnuTar {
    fn read(&mut self, bytes: &[u8]) -> Reading {
        fs::write(self.path("archive"), bytes).expect("a file can be written");
        let mut answer = self.run("--extract");
        if answer.content.is_none() {
            answer = Answer {
                content: None,
                ..self.run("--list")
            };
        }
        let mut content = answer.content.as_deref();
        let lines = answer.listing.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        let mut row = |line: &[u8]| {
            row(line, &mut content).unwrap_or_else(|| panic!("tar says {}", line.escape_ascii()))
        };
        let is_entry = |row: &Row| row.letter != VOLUME_LABEL;
        let rows = lines.map(&mut row).filter(is_entry).collect();
        Reading {
            rows,
            error: answer.error,
        }
    }
}

/// Reads a line such as `-rw-r--r-- 0/0  6 1960-01-02 03:04:05.5 "name" link to "target"`,
/// and takes what the file has from the front of `content`.
fn row(line: &[u8], content: &mut Option<&[u8]>) -> Option<Row> {
    let mut rest = line;
    let mut word = || {
        let start = rest.iter().position(|byte| *byte != b' ')?;
        let word = &rest[start..];
        let len = word.iter().position(|byte| *byte == b' ')?;
        rest = &word[len..];
        std::str::from_utf8(&word[..len]).ok()
    };
    let (mode, owner, size, date) = (word()?, word()?, word()?, word()?);
    let mtime = match date.parse() {
        // A time that has no date is a number.
        Ok(number) => number,
        Err(_) => {
            let time = word()?;
            let seconds = seconds(date, time)?;
            // Before 1970, it shows a fraction as what is to be taken away.
            seconds - i64::from(seconds < 0 && time.contains('.'))
        }
    };
    let (uid, gid) = owner.split_once('/')?;
    let letter = match mode.as_bytes().first()? {
        b'-' | b'C' => 'f',
        letter => char::from(*letter),
    };
    let mut names = Quoted(rest);
    let (path, link) = (names.next()?, names.next().unwrap_or_default());
    // Devices have their numbers there.
    let size = size.parse::<u64>().unwrap_or(0);
    let has_content = matches!(letter, 'f' | '?');
    Some(Row {
        path: normal(&path),
        letter,
        mode: mode_of(mode),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        size: if letter == 'f' { size } else { 0 },
        mtime,
        link: if letter == 'h' { normal(&link) } else { link },
        content: has_content.then(|| take(content, size)).flatten(),
    })
}

/// The sha256 of the next bytes, or of fewer if there are no more.
fn take(content: &mut Option<&[u8]>, size: u64) -> Option<String> {
    let bytes = (*content)?;
    let len = usize::try_from(size).unwrap_or(usize::MAX);
    let (taken, rest) = bytes.split_at(len.min(bytes.len()));
    *content = Some(rest);
    Some(Digest::of(taken).encoded().to_owned())
}

/// The bits of `-rwsr-xr-t`.
fn mode_of(text: &str) -> u64 {
    let letters = text.as_bytes().iter().skip(1).take(9);
    let bits = letters.enumerate().map(|(at, letter)| {
        let bit = 0o400 >> at;
        let special = 0o4000 >> (at / 3);
        match letter {
            b'-' => 0,
            b'S' | b'T' => special,
            b's' | b't' => special | bit,
            _ => bit,
        }
    });
    bits.sum()
}

/// The seconds since 1970 of `1960-01-02` and `03:04:05.5`, in any year.
fn seconds(date: &str, time: &str) -> Option<i64> {
    let mut date = date.rsplitn(3, '-').map(str::parse::<i64>);
    let (day, month, year) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let mut time = time.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    // Years from March to March, so that the odd day comes last.
    let (year, month) = match month {
        ..=2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// The names in quotes of a line, unquoted.
struct Quoted<'a>(&'a [u8]);

impl Iterator for Quoted<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let start = self.0.iter().position(|byte| *byte == b'"')?;
        let mut name = Vec::new();
        let mut at = start + 1;
        loop {
            let byte = *self.0.get(at)?;
            at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    let (byte, len) = escaped(self.0.get(at..)?)?;
                    name.push(byte);
                    at += len;
                }
                byte => name.push(byte),
            }
        }
        self.0 = &self.0[at..];
        Some(name)
    }
}

/// The byte behind a backslash, and how many letters say it.
fn escaped(text: &[u8]) -> Option<(u8, usize)> {
    let plain = match text.first()? {
        b'a' => 7,
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 11,
        b'f' => 12,
        b'r' => b'\r',
        b'0'..=b'3' => {
            let digits = std::str::from_utf8(text.get(..3)?).ok()?;
            return Some((u8::from_str_radix(digits, 8).ok()?, 3));
        }
        other => *other,
    };
    Some((plain, 1))
}
