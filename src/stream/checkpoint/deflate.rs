//! Checkpoints between deflate blocks.
//!
//! All state between two blocks is the window, the last 32 KiB decoded (RFC 1951
//! section 2). Most of its bytes are never referred to again: [`pack`] finds those that
//! are, sets the others to zero, and compresses what results to a tenth of its size.
//!
//! How it finds them: the bytes after the checkpoint are decoded three times, each time
//! after another made-up window. A byte that came from window position `i` shows `i` in
//! two of them and differs between two, so that it tells itself from a literal.
//! References reach 32 KiB back, so 32 KiB of output are enough to look at.

use crate::store::ReadAt;
use crate::stream::error::Error;
use crate::stream::gzip::{Decoder, Event};
use crate::stream::inflate::{Stop, WINDOW_SIZE};
use crate::stream::input::Direct;

/// How far checkpoints are apart, in decoded bytes. A random read decodes half of it on
/// average; half the spacing would double the size of all windows, and with it the Toc.
pub(in crate::stream) const SPACING: u64 = 7 << 18;

/// A window's compression level: higher ones gain less than a twentieth here.
const LEVEL: i32 = 3;

/// Packs the window before `bit_offset` of `source`: only what is referred to later.
///
/// # Errors
/// Those of reading `source`.
pub(in crate::stream) fn pack(
    source: &dyn ReadAt,
    bit_offset: u64,
    mut window: Vec<u8>,
) -> Result<Vec<u8>, Error> {
    if let Some(used) = used_bytes(source, bit_offset, window.len())? {
        for (byte, used) in window.iter_mut().zip(used) {
            *byte = if used { *byte } else { 0 };
        }
    }
    zstd::bulk::compress(&window, LEVEL).map_err(Error::from_read)
}

/// Unpacks a window of `len` bytes.
///
/// # Errors
/// [`Error::Truncated`] where `packed` is not a window of that length.
pub(in crate::stream) fn unpack(packed: &[u8], len: u32) -> Result<Vec<u8>, Error> {
    let len = len as usize;
    match zstd::bulk::decompress(packed, len) {
        Ok(window) if window.len() == len => Ok(window),
        _ => Err(Error::Truncated),
    }
}

/// Which bytes of a window of `len` are referred to from `bit_offset` on; `None` where
/// that cannot be told, because the data there is not deflate data.
fn used_bytes(
    source: &dyn ReadAt,
    bit_offset: u64,
    len: usize,
) -> Result<Option<Vec<bool>>, Error> {
    let pattern = |byte: fn(usize) -> usize| -> Vec<u8> {
        (0..len).map(|i| byte(i).to_le_bytes()[0]).collect()
    };
    let mut outputs = Vec::with_capacity(3);
    for window in [pattern(|i| i), pattern(|i| i >> 8), pattern(|i| !i)] {
        match decode(source, bit_offset, &window) {
            Ok(output) => outputs.push(output),
            Err(error @ (Error::Read { .. } | Error::Shrunk)) => return Err(error),
            Err(_) => return Ok(None),
        }
    }
    let mut used = vec![false; len];
    for ((&low, &high), &inverse) in outputs[0].iter().zip(&outputs[1]).zip(&outputs[2]) {
        if low != inverse {
            let position = usize::from(low) | usize::from(high) << 8;
            if let Some(used) = used.get_mut(position) {
                *used = true;
            }
        }
    }
    Ok(Some(used))
}

/// The first bytes decoded from `bit_offset` after `window`, up to the member's end.
fn decode(source: &dyn ReadAt, bit_offset: u64, window: &[u8]) -> Result<Vec<u8>, Error> {
    let mut chunks = Direct(source);
    let mut decoder = Decoder::resume(bit_offset, window, &mut chunks)?;
    let mut output = vec![0; WINDOW_SIZE];
    let mut len = 0;
    while len < output.len() {
        let out = &mut output[len..];
        let (step, event) = decoder.advance(&mut chunks, out, Stop::Anywhere)?;
        len += step;
        if matches!(event, Event::MemberEnd(_)) {
            break;
        }
    }
    output.truncate(len);
    Ok(output)
}
