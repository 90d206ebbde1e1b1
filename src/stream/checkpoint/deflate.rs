//! Checkpoints between deflate blocks.
//!
//! All state between two blocks is the window, the last 32 KiB decoded (RFC 1951
//! section 2). Most of its bytes are never referred to again: [`pack`] finds those that
//! are, sets the others to zero, and compresses what results to a tenth of its size.
//!
//! How it finds them: the bytes after the checkpoint are decoded twice, each time after
//! another made-up window. A byte that came from window position `i` shows the low bits of
//! `i` in one and the high ones in the other, and differs between the two, so that it tells
//! itself from a literal. References reach 32 KiB back, so 32 KiB of output are enough to
//! look at.

use std::ops::RangeInclusive;

use parking_lot::Mutex;
use zstd::zstd_safe::DCtx;

use crate::store::ReadAt;
use crate::stream::error::Error;
use crate::stream::gzip::{Decoder, Event};
use crate::stream::inflate::{Stop, WINDOW_SIZE};
use crate::stream::input::Direct;

/// How far checkpoints are apart, in decoded bytes, while all windows together are small
/// beside the stored bytes, and where they are large. A random read decodes half of it on
/// average; half the spacing doubles the size of all windows, and with it the Toc.
const SPACING: RangeInclusive<u64> = 3 << 18..=7 << 18;

/// What is small and what is large then, in millionths of the stored bytes: about where the
/// spacing balances, the Toc has less than a two-hundredth of them.
const SHARE: RangeInclusive<u64> = 3900..=4400;

/// How far the next checkpoint is to be from the last one, in decoded bytes, when the
/// windows so far have `used` bytes for the `covered` stored ones.
pub(in crate::stream) fn spacing(used: u64, covered: u64) -> u64 {
    let share = used.saturating_mul(1_000_000) / covered.max(1);
    let above = share.clamp(*SHARE.start(), *SHARE.end()) - SHARE.start();
    let range = SPACING.end() - SPACING.start();
    SPACING.start() + range * above / (SHARE.end() - SHARE.start())
}

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
    /// To make one takes longer than unpacking does.
    static CONTEXTS: Mutex<Vec<DCtx<'static>>> = Mutex::new(Vec::new());
    let mut context = CONTEXTS.lock().pop().unwrap_or_else(DCtx::create);
    let mut window = vec![0; len as usize];
    let unpacked = context.decompress(&mut window[..], packed);
    CONTEXTS.lock().push(context);
    if unpacked == Ok(window.len()) {
        Ok(window)
    } else {
        Err(Error::Truncated)
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
    // The upper bit of the second is not that of the first.
    let patterns = [pattern(|i| i), pattern(|i| (i >> 8) | (!i & 0x80))];
    let mut outputs = Vec::with_capacity(patterns.len());
    for window in patterns {
        match decode(source, bit_offset, &window) {
            Ok(output) => outputs.push(output),
            Err(error @ (Error::Read { .. } | Error::Shrunk)) => return Err(error),
            Err(_) => return Ok(None),
        }
    }
    let mut used = vec![false; len];
    for (&low, &high) in outputs[0].iter().zip(&outputs[1]) {
        if low != high {
            let position = usize::from(low) | usize::from(high & 0x7f) << 8;
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    #[test]
    fn spacing_grows_with_what_windows_take() {
        const CLOSE: u64 = 3 << 18;
        const FAR: u64 = 7 << 18;
        // Bytes of windows, stored bytes, spacing.
        let rows = [
            (0, 0, CLOSE),
            (0, 1 << 30, CLOSE),
            (3_900, 1_000_000, CLOSE),
            (4_150, 1_000_000, CLOSE + (FAR - CLOSE) / 2),
            (4_400, 1_000_000, FAR),
            (1, 0, FAR),
            (u64::MAX, 1, FAR),
        ];
        for (used, covered, expected) in rows {
            assert_eq!(spacing(used, covered), expected, "{used} of {covered}");
        }
    }

    /// What a stream refers to is kept of its window, and little else.
    #[test]
    fn the_bytes_that_matter_are_found() -> Result<(), Box<dyn std::error::Error>> {
        // Bytes without a pattern, so that only what is written twice is referred to.
        let mut state = 1_u32;
        let mut noise = |len: usize| -> Vec<u8> {
            let next = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            };
            (0..len).map(next).collect()
        };
        let window = noise(WINDOW_SIZE);
        for referred in [400..464, 0x7f7f..0x7fc0, 0x8000 - 40..0x8000] {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&window)?;
            encoder.flush()?;
            let bit_offset = encoder.get_ref().len() as u64 * 8;
            encoder.write_all(&window[referred.clone()])?;
            encoder.write_all(&noise(500))?;
            let mut stream = encoder.finish()?;
            stream.extend_from_slice(&[0; 8]);
            let used = used_bytes(&stream, bit_offset, window.len())?.ok_or("not deflate data")?;
            let found = used.iter().filter(|used| **used).count();
            let is_found = used[referred.clone()].iter().all(|used| *used);
            assert!(is_found, "{referred:?}");
            assert!(found < referred.len() + 64, "{referred:?}: {found}");
        }
        Ok(())
    }
}
