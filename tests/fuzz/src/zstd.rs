//! Zstd streams: `stream::scan`, and reads after it.
//!
//! Invariants, for any bytes:
//! - no panic, and memory bounded by the limits;
//! - the chunks in which the bytes come make no difference;
//! - a stream is accepted if and only if libzstd's streaming decoder accepts it, except
//!   for what a limit refuses; both refuse frames that ask for a dictionary;
//! - it decodes to the same bytes;
//! - any read equals the slice of them, with a cache and without, from checkpoints within
//!   frames as well; those are searched in tables with a span for each block.

use std::io::{BufReader, Read};

use ocifs::stream::ErrorClass;

use super::access::{check_stream, limits};
use super::blocks::{Spacing, check_checkpoints};
use super::random::Random;

/// What the other reader says.
enum Reference {
    Decoded(Vec<u8>),
    TooLarge,
    Refused(String),
}

/// Checks the invariants.
pub fn check(bytes: &[u8]) {
    let blob = bytes.to_vec();
    if !is_zstd(&blob) {
        return;
    }
    match (check_stream(&blob), reference(&blob)) {
        (Ok(ours), Reference::Decoded(theirs)) => {
            assert!(ours == theirs, "other bytes");
            let mut random = Random::of_seed(ours.len() as u64);
            let spacing = Spacing {
                span: 1,
                checkpoint: 300,
            };
            check_checkpoints(&blob, &ours, spacing, &mut random);
        }
        (Ok(_), Reference::TooLarge) => panic!("decoded beyond the limit"),
        (Ok(_), Reference::Refused(error)) => panic!("accepted; libzstd: {error}"),
        (Err(error), Reference::Decoded(theirs)) => {
            let is_large = theirs.len() as u64 > limits().ratio_floor;
            let is_limit = error.class() == ErrorClass::Limit;
            assert!(
                is_limit && (is_large || error.code() == "ZSTD_WINDOW"),
                "{} bytes refused: {error}",
                theirs.len()
            );
        }
        (Err(_), Reference::TooLarge | Reference::Refused(_)) => {}
    }
}

fn is_zstd(blob: &[u8]) -> bool {
    matches!(
        blob,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]
    )
}

/// With libzstd, which gets a few bytes at a time: a frame that is there as a whole it
/// would decode by another way, which takes references beyond the window.
fn reference(blob: &[u8]) -> Reference {
    let input = BufReader::with_capacity(3, blob);
    let mut decoder = match zstd::stream::read::Decoder::with_buffer(input) {
        Ok(decoder) => decoder,
        Err(error) => return Reference::Refused(error.to_string()),
    };
    let window_log = limits().zstd_window.ilog2();
    decoder.window_log_max(window_log).expect("a valid log");
    let mut decoded = Vec::new();
    let limit = limits().decoded_size;
    match decoder.take(limit + 1).read_to_end(&mut decoded) {
        Err(error) => Reference::Refused(error.to_string()),
        Ok(len) if len as u64 > limit => Reference::TooLarge,
        Ok(_) => Reference::Decoded(decoded),
    }
}
