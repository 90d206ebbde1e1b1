//! A decoder of any kind, at some place of a stream, ready to go on.

use crate::store::ReadAt;
use crate::stream::error::Error;
use crate::stream::gzip;
use crate::stream::inflate::Stop;
use crate::stream::input::{Direct, Input};
use crate::stream::limits::Limits;
use crate::stream::offset::BlobOffset;
use crate::stream::sniff::Compression;
use crate::stream::zstd;

/// About how much memory a gzip decoder takes: its window, its tables, a chunk of input.
const GZIP_WEIGHT: u64 = 128 << 10;

/// Decodes the first bytes of a stream into `out`: all that fit, or all that come before
/// its end or before what is wrong with it. How many those are.
///
/// # Errors
/// [`Error::Read`] and [`Error::Shrunk`]; [`Error::UnsupportedCompression`].
pub fn head(source: &dyn ReadAt, out: &mut [u8], limits: &Limits) -> Result<usize, Error> {
    let start = BlobOffset(0);
    let mut cursor = match Compression::of(source)? {
        Compression::Zstd => Cursor::Zstd(Box::new(zstd::Decoder::at(start, limits.zstd_window))),
        other => Cursor::fresh(other, start),
    };
    let mut len = 0;
    while len < out.len() {
        match cursor.step(source, &mut out[len..]) {
            Ok((step, at_end)) => {
                len += step;
                if at_end {
                    break;
                }
            }
            Err(error) if error.is_of_the_stream() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// A decoder. Checksums of members are left aside: each span has its own check.
#[derive(Debug)]
pub(super) enum Cursor {
    Plain(Input),
    Gzip(gzip::Decoder),
    Zstd(Box<zstd::Decoder>),
}

impl Cursor {
    /// A decoder at the start of a stream, or of a zstd frame.
    pub(super) fn fresh(compression: Compression, at: BlobOffset) -> Self {
        match compression {
            Compression::Plain => Self::Plain(Input::at(at)),
            Compression::Gzip => Self::Gzip(gzip::Decoder::new()),
            Compression::Zstd => Self::Zstd(Box::new(zstd::Decoder::at(at, u64::MAX))),
        }
    }

    /// A decoder between two deflate blocks, after the bytes `window`.
    pub(super) fn deflate(
        bit_offset: u64,
        window: &[u8],
        source: &dyn ReadAt,
    ) -> Result<Self, Error> {
        let decoder = gzip::Decoder::resume(bit_offset, window, &mut Direct(source))?;
        Ok(Self::Gzip(decoder))
    }

    /// Decodes into `out`; less than all of it only at the end of the stream.
    pub(super) fn read(&mut self, source: &dyn ReadAt, out: &mut [u8]) -> Result<usize, Error> {
        let mut len = 0;
        while len < out.len() {
            let (step, at_end) = self.step(source, &mut out[len..])?;
            len += step;
            if at_end {
                break;
            }
        }
        Ok(len)
    }

    /// Decodes some bytes into `out`; how many, and whether the stream is at its end.
    fn step(&mut self, source: &dyn ReadAt, out: &mut [u8]) -> Result<(usize, bool), Error> {
        let chunks = &mut Direct(source);
        match self {
            Self::Plain(input) => {
                let bytes = input.fill(chunks)?;
                let step = bytes.len().min(out.len());
                out[..step].copy_from_slice(&bytes[..step]);
                input.consume(step);
                Ok((step, step == 0))
            }
            Self::Gzip(decoder) => {
                let (step, event) = decoder.advance(chunks, out, Stop::Anywhere)?;
                Ok((step, event == gzip::Event::End))
            }
            Self::Zstd(decoder) => {
                let (step, event) = decoder.advance(chunks, out)?;
                Ok((step, event == zstd::Event::End))
            }
        }
    }

    /// About how many bytes of memory it holds.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Self::Plain(_) => GZIP_WEIGHT / 2,
            Self::Gzip(_) => GZIP_WEIGHT,
            Self::Zstd(decoder) => decoder.weight(),
        }
    }
}
