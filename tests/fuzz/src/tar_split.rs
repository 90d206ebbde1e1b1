//! What Docker keeps of a tar: `ingest::tar_split`.
//!
//! Invariants, for any bytes:
//! - no panic, and no more memory than the longest line takes;
//! - how the bytes are cut makes no difference;
//! - what is accepted, written out as Docker writes it, reads as the same pieces;
//! - a file has bytes.

use std::io::BufReader;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocifs::ingest::tar_split::{Error, Piece, Pieces};
use serde_json::json;

/// The longest line that is accepted here, so that longer ones are met.
const MAX_LINE: usize = 4096;

/// Checks the invariants.
pub fn check(bytes: &[u8]) {
    let (pieces, error) = read(bytes, 8192);
    assert_eq!(read(bytes, 1), (pieces.clone(), error), "in single bytes");
    let is_empty = |piece: &Piece| matches!(piece, Piece::File { size: 0, .. });
    assert!(!pieces.iter().any(is_empty), "a file without bytes");
    let written: Vec<u8> = pieces.iter().flat_map(written).collect();
    let mut again = Pieces::new(&written[..], usize::MAX >> 1);
    for piece in &pieces {
        let read = again.next_piece().expect("what was written is read");
        assert_eq!(read.as_ref(), Some(piece), "another piece");
    }
    assert!(
        matches!(again.next_piece(), Ok(None)),
        "more than was written"
    );
}

/// All pieces up to the first error, and its text.
fn read(bytes: &[u8], capacity: usize) -> (Vec<Piece>, Option<String>) {
    let mut lines = Pieces::new(BufReader::with_capacity(capacity, bytes), MAX_LINE);
    let mut pieces = Vec::new();
    loop {
        match lines.next_piece() {
            Ok(Some(piece)) => pieces.push(piece),
            Ok(None) => return (pieces, None),
            Err(error) => return (pieces, Some(text(&error))),
        }
    }
}

fn text(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A piece as a line of Docker's.
pub fn written(piece: &Piece) -> Vec<u8> {
    let object = match piece {
        Piece::Segment(bytes) => json!({"type": 2, "payload": STANDARD.encode(bytes)}),
        Piece::File { name, size, crc } => {
            let sum = STANDARD.encode(crc.to_be_bytes());
            let mut object = json!({"type": 1, "size": size, "payload": sum});
            match std::str::from_utf8(name) {
                Ok(name) => object["name"] = json!(name),
                Err(_) => object["name_raw"] = json!(STANDARD.encode(name)),
            }
            object
        }
    };
    format!("{object}\n").into_bytes()
}
