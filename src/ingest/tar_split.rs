//! tar-split: a tar less the bytes of its files, as Docker keeps it beside each layer.
//!
//! ```text
//!   {"type":2,"payload":"Li8ud2g…","position":0}                       bytes of the tar: headers, padding
//!   {"type":1,"name":"etc/x","size":3,"payload":"YUmYEAAAAAA=","position":1}  a file's bytes belong here
//!   {"type":2,"payload":"AAAAAA…","position":2}
//! ```
//!
//! One JSON object a line, in the order of the tar. Only files that have bytes leave a gap;
//! whatever else an entry has (links, devices, whiteouts, extended attributes, long names)
//! is in the segments around it. The sum of a gap's bytes is a CRC-64 ([`Crc64`]), most
//! significant byte first.
//!
//! This is foreign data: a line has a largest length and few values, and lines are read one
//! by one, so memory does not grow with their number. Positions are not looked at, and neither are
//! members that have no meaning here: whether the whole is right shows the layer's DiffID.

mod crc64;

use std::io::{self, BufRead, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

pub use crc64::Crc64;

use crate::oci::json;
use crate::oci::limits::Limit;

/// The longest line, in bytes. Segments are headers: at most a few extension headers of a
/// megabyte each; old versions also put all that follows the end of a tar in one of them.
pub const MAX_LINE: usize = 16 << 20;

/// The most lines: four for each entry that a layer may have.
const MAX_LINES: u64 = 16_000_000;

/// A part of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Segment(Vec<u8>),
    /// The bytes of a file.
    File {
        /// Its path in the layer, as the tar has it.
        name: Vec<u8>,
        /// How many bytes there are; never none.
        size: u64,
        /// Their CRC-64.
        crc: u64,
    },
}

/// Why tar-split data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read, or is no gzip stream.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// A line is not the JSON that it should be.
    #[error("line {line} is not right")]
    Json {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        #[source]
        source: crate::oci::Error,
    },
    /// A line has not what it should have.
    #[error("line {line} has {fault}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What about it.
        fault: &'static str,
    },
    /// A line is too long.
    #[error("line {line} is over the limit of {limit} bytes")]
    LineTooLong {
        /// Counted from 1.
        line: u64,
        /// The most bytes.
        limit: usize,
    },
    /// There are too many lines.
    #[error("more than the limit of {limit} lines")]
    Lines {
        /// The most lines.
        limit: u64,
    },
}

/// Reads the pieces of a tar, one line after the other.
#[derive(Debug)]
pub struct Pieces<R> {
    lines: R,
    max_line: usize,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Pieces<R> {
    /// The pieces in these lines, none of which may have more than `max_line` bytes
    /// ([`MAX_LINE`] outside of tests).
    #[must_use]
    pub fn new(lines: R, max_line: usize) -> Self {
        Self {
            lines,
            max_line,
            line: Vec::new(),
            number: 0,
        }
    }

    /// The next piece; `None` at the end. What an entry without bytes leaves is skipped.
    ///
    /// # Errors
    /// See [`Error`]; it is final.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, Error> {
        while self.read_line()? {
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            let line = self.number;
            let value = json::parse_within(&self.line, Limit::LineValues)
                .map_err(|source| Error::Json { line, source })?;
            match piece(&value) {
                Ok(None) => {}
                Ok(piece) => return Ok(piece),
                Err(fault) => return Err(Error::Line { line, fault }),
            }
        }
        Ok(None)
    }

    /// Whether there was one more line.
    fn read_line(&mut self) -> Result<bool, Error> {
        self.line.clear();
        self.number += 1;
        if self.number > MAX_LINES {
            return Err(Error::Lines { limit: MAX_LINES });
        }
        let most = self.max_line as u64 + 1;
        let mut lines = (&mut self.lines).take(most);
        let len = lines.read_until(b'\n', &mut self.line);
        let len = len.map_err(Error::Read)?;
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        if line.len() > self.max_line {
            return Err(Error::LineTooLong {
                line: self.number,
                limit: self.max_line,
            });
        }
        Ok(len > 0)
    }
}

/// What one line says; `None` for an entry without bytes.
fn piece(value: &Value) -> Result<Option<Piece>, &'static str> {
    let payload = match &value["payload"] {
        Value::Null => None,
        Value::String(text) => Some(decode(text)?),
        _ => return Err("a payload that is no text"),
    };
    match value["type"].as_u64() {
        Some(2) => Ok(Some(Piece::Segment(payload.unwrap_or_default()))),
        Some(1) => file(value, payload),
        _ => Err("no known type"),
    }
}

fn file(value: &Value, payload: Option<Vec<u8>>) -> Result<Option<Piece>, &'static str> {
    let size = match &value["size"] {
        Value::Null => 0,
        size => size.as_u64().ok_or("a size that is no number of bytes")?,
    };
    let name = name(value)?;
    if size == 0 {
        return Ok(None);
    }
    let crc = payload.ok_or("a file without a sum")?;
    let crc = crc.try_into().map_err(|_| "a sum of another length")?;
    Ok(Some(Piece::File {
        name,
        size,
        crc: u64::from_be_bytes(crc),
    }))
}

/// A name that is no UTF-8 is written as base64, in a member of its own.
fn name(value: &Value) -> Result<Vec<u8>, &'static str> {
    match (&value["name_raw"], &value["name"]) {
        (Value::Null, Value::String(name)) => Ok(name.as_bytes().to_vec()),
        (Value::String(raw), _) => decode(raw),
        _ => Err("no name"),
    }
}

fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    STANDARD.decode(text).map_err(|_| "no base64")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &[u8]) -> Result<Vec<Piece>, Error> {
        let mut pieces = Pieces::new(text, 200);
        let mut found = Vec::new();
        while let Some(piece) = pieces.next_piece()? {
            found.push(piece);
        }
        Ok(found)
    }

    fn file(name: &[u8], size: u64, crc: u64) -> Piece {
        Piece::File {
            name: name.to_vec(),
            size,
            crc,
        }
    }

    #[test]
    fn lines_and_what_they_stand_for() {
        let rows = [
            ("nothing", "", vec![]),
            (
                "segment",
                r#"{"type":2,"payload":"aGVhZA==","position":0}"#,
                vec![Piece::Segment(b"head".to_vec())],
            ),
            (
                "empty segment",
                r#"{"type":2,"payload":"","position":14}"#,
                vec![Piece::Segment(Vec::new())],
            ),
            (
                "segment of an old version",
                r#"{"type":2,"payload":null,"position":14}"#,
                vec![Piece::Segment(Vec::new())],
            ),
            (
                "file",
                r#"{"type":1,"name":"./hl","size":3,"payload":"YUmYEAAAAAA=","position":5}"#,
                vec![file(b"./hl", 3, 0x6149_9810_0000_0000)],
            ),
            (
                "name that is no UTF-8",
                r#"{"type":1,"name_raw":"Li9iYWT/bmFtZQ==","size":6,"payload":"MBh53Yw9sAA="}"#,
                vec![file(b"./bad\xffname", 6, 0x3018_79dd_8c3d_b000)],
            ),
            (
                "escapes as Go writes them",
                r#"{"type":1,"name":"\u003ca\u0026b\u003e","size":1,"payload":"AAAAAAAAAAE="}"#,
                vec![file(b"<a&b>", 1, 1)],
            ),
            (
                "entry without bytes",
                r#"{"type":1,"name":"./","payload":null,"position":1}"#,
                vec![],
            ),
            (
                "two lines, and none at the end",
                "{\"type\":2,\"payload\":\"YQ==\"}\n{\"type\":2,\"payload\":\"Yg==\"}\n\n",
                vec![Piece::Segment(b"a".to_vec()), Piece::Segment(b"b".to_vec())],
            ),
        ];
        for (name, text, expected) in rows {
            assert_eq!(pieces(text.as_bytes()).expect(name), expected, "{name}");
        }
    }

    #[test]
    fn lines_that_make_no_sense() {
        let long = format!(r#"{{"type":2,"payload":"{}"}}"#, "A".repeat(200));
        let many = format!(r#"{{"type":2,"payload":"","x":[0{}]}}"#, ",0".repeat(64));
        let rows = [
            ("no JSON", "{\"type\":2", "line 1 is not right"),
            ("two values", "{}{}", "line 1 is not right"),
            (
                "a key twice",
                r#"{"type":2,"type":1}"#,
                "line 1 is not right",
            ),
            ("no object", "[]", "line 1 has no known type"),
            ("no type", r#"{"payload":""}"#, "line 1 has no known type"),
            (
                "type 3",
                r#"{"type":3,"payload":""}"#,
                "line 1 has no known type",
            ),
            (
                "payload of another type",
                r#"{"type":2,"payload":7}"#,
                "line 1 has a payload that is no text",
            ),
            (
                "no base64",
                r#"{"type":2,"payload":"*"}"#,
                "line 1 has no base64",
            ),
            ("no name", r#"{"type":1,"size":1}"#, "line 1 has no name"),
            (
                "negative size",
                r#"{"type":1,"name":"a","size":-1}"#,
                "line 1 has a size that is no number of bytes",
            ),
            (
                "no sum",
                r#"{"type":1,"name":"a","size":1}"#,
                "line 1 has a file without a sum",
            ),
            (
                "short sum",
                r#"{"type":1,"name":"a","size":1,"payload":"AA=="}"#,
                "line 1 has a sum of another length",
            ),
            ("many values", &many, "line 1 is not right"),
            ("long line", &long, "line 1 is over the limit of 200 bytes"),
            (
                "the second",
                "{\"type\":2}\n{\"type\":9}\n",
                "line 2 has no known type",
            ),
        ];
        for (name, text, expected) in rows {
            let error = pieces(text.as_bytes()).expect_err(name);
            assert_eq!(error.to_string(), expected, "{name}");
        }
    }

    #[test]
    fn the_longest_line_is_accepted() {
        // There are 23 bytes around the payload.
        for (len, is_accepted) in [(176, true), (180, false)] {
            let text = "A".repeat(len);
            let line = format!("{{\"type\":2,\"payload\":\"{text}\"}}\n");
            let mut pieces = Pieces::new(line.as_bytes(), 199);
            assert_eq!(pieces.next_piece().is_ok(), is_accepted, "{len}");
        }
    }
}
