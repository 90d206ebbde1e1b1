//! Raw deflate streams: the same invariants as `gzip`, which a change hardly ever reaches
//! there, because it does not change the checksum with the bytes.
//!
//! Here the bytes are the body of a member, and header and trailer are put around it: what
//! flate2 decodes has the right ones, so that it must be accepted; what flate2 refuses must be
//! refused.

use flate2::{Crc, Decompress, FlushDecompress, Status};
use ocifs::stream::ErrorClass;

use super::access::{check_stream, limits};

/// Longer inputs are cut: a try should not take long.
const MAX_LEN: usize = 60_000;

/// A member header without fields, RFC 1952 section 2.3.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Checks the invariants.
pub fn check(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MAX_LEN)];
    let Some((body, decoded)) = reference(bytes) else {
        let blob = [&HEADER[..], bytes, &[0; 8]].concat();
        assert!(check_stream(&blob).is_err(), "accepted, unlike by flate2");
        return;
    };
    let mut crc = Crc::new();
    crc.update(&decoded);
    let trailer = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
    let blob = [&HEADER[..], body, &trailer].concat();
    match check_stream(&blob) {
        Ok(ours) => assert!(ours == decoded, "other bytes"),
        Err(error) => {
            let is_limit = error.class() == ErrorClass::Limit;
            assert!(is_limit, "{} bytes refused: {error}", decoded.len());
        }
    }
}

/// The stream with which `bytes` begin, and what it decodes to as far as we would read it;
/// nothing if it is damaged or has no end.
fn reference(bytes: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let most = usize::try_from(limits().decoded_size).ok()?;
    let mut decoder = Decompress::new(false);
    let mut decoded = Vec::new();
    loop {
        let taken = usize::try_from(decoder.total_in()).ok()?;
        let before = decoded.len();
        decoded.reserve(1 << 16);
        let rest = &bytes[taken..];
        let status = decoder.decompress_vec(rest, &mut decoded, FlushDecompress::None);
        let now = usize::try_from(decoder.total_in()).ok()?;
        match status.ok()? {
            Status::StreamEnd => return Some((&bytes[..now], decoded)),
            _ if decoded.len() > most => return Some((bytes, decoded)),
            _ if (now, decoded.len()) == (taken, before) => return None,
            Status::Ok | Status::BufError => {}
        }
    }
}
