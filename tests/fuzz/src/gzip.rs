//! Gzip streams: `stream::scan`, and reads after it.
//!
//! Invariants, for any bytes:
//! - no panic, and memory bounded by the limits;
//! - the chunks in which the bytes come make no difference;
//! - a stream is accepted if and only if flate2 accepts each member of it and nothing but
//!   zeros follows the last one. (flate2's own reader of several members refuses those
//!   zeros, and what begins a member after them; `gzip -d` takes the zeros, and so do we.)
//!   Exceptions: what a limit refuses, and names over 64 KiB, which flate2 does not take;
//! - it decodes to the same bytes;
//! - any read equals the slice of them, with a cache and without.

use std::io::Read;

use flate2::bufread::GzDecoder;
use ocifs::stream::ErrorClass;

use super::access::{check_stream, limits};

/// Longer inputs are cut: a name over 64 KiB is read by one side only.
const MAX_LEN: usize = 60_000;

/// What the other reader says.
enum Reference {
    Decoded(Vec<u8>),
    TooLarge,
    Refused(String),
}

/// Checks the invariants.
pub fn check(bytes: &[u8]) {
    let blob = bytes[..bytes.len().min(MAX_LEN)].to_vec();
    if !blob.starts_with(&[0x1f, 0x8b]) {
        return;
    }
    match (check_stream(&blob), reference(&blob)) {
        (Ok(ours), Reference::Decoded(theirs)) => assert!(ours == theirs, "other bytes"),
        (Ok(_), Reference::TooLarge) => panic!("decoded beyond the limit"),
        (Ok(_), Reference::Refused(error)) => panic!("accepted; flate2: {error}"),
        (Err(error), Reference::Decoded(theirs)) => {
            let is_large = theirs.len() as u64 > limits().ratio_floor;
            let is_limit = error.class() == ErrorClass::Limit;
            assert!(
                is_limit && (is_large || error.code() == "LIMIT_PROGRESS"),
                "{} bytes refused: {error}",
                theirs.len()
            );
        }
        (Err(_), Reference::TooLarge | Reference::Refused(_)) => {}
    }
}

/// Member by member, with flate2.
fn reference(blob: &[u8]) -> Reference {
    let limit = limits().decoded_size;
    let mut decoded = Vec::new();
    let mut rest = blob;
    loop {
        let mut decoder = GzDecoder::new(rest);
        let left = limit - decoded.len() as u64;
        match (&mut decoder).take(left + 1).read_to_end(&mut decoded) {
            Err(error) => return Reference::Refused(error.to_string()),
            Ok(len) if len as u64 > left => return Reference::TooLarge,
            Ok(_) => rest = decoder.into_inner(),
        }
        match rest.first() {
            Some(0x1f) => {}
            _ if rest.iter().all(|byte| *byte == 0) => return Reference::Decoded(decoded),
            _ => return Reference::Refused("bytes after the last member".to_owned()),
        }
    }
}
