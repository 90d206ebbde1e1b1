//! A decoder of any kind, at some place of a stream, ready to go on.

use crate::stream::checkpoint::{Checkpoint, Restart, deflate};
use crate::stream::error::Error;
use crate::stream::gzip;
use crate::stream::inflate::Stop;
use crate::stream::input::{Chunks, Input};
use crate::stream::sniff::Compression;
use crate::stream::span::SpanTable;
use crate::stream::zstd;

/// About how much memory a gzip decoder takes: its window, its tables, a chunk of input.
const GZIP_WEIGHT: u64 = 128 << 10;

/// A decoder. Checksums of members are left aside: each span has its own check.
#[derive(Debug)]
pub(super) enum Cursor {
    Plain(Input),
    Gzip(gzip::Decoder),
    Zstd(Box<zstd::Decoder>),
}

impl Cursor {
    /// A decoder at `checkpoint`.
    pub(super) fn open(
        table: &SpanTable,
        checkpoint: &Checkpoint,
        chunks: &mut dyn Chunks,
    ) -> Result<Self, Error> {
        Ok(match (checkpoint.restart, table.compression()) {
            (Restart::Fresh { blob_offset }, Compression::Plain) => {
                Self::Plain(Input::at(blob_offset))
            }
            (Restart::Fresh { blob_offset }, Compression::Zstd) => {
                Self::Zstd(Box::new(zstd::Decoder::at(blob_offset, u64::MAX)))
            }
            (Restart::Fresh { .. }, Compression::Gzip) => Self::Gzip(gzip::Decoder::new()),
            (
                Restart::Deflate {
                    bit_offset,
                    window,
                    window_len,
                },
                _,
            ) => {
                let window = deflate::unpack(table.heap_bytes(window), window_len)?;
                Self::Gzip(gzip::Decoder::resume(bit_offset, &window, chunks)?)
            }
        })
    }

    /// Decodes into `out`; less than all of it only at the end of the stream.
    pub(super) fn read(&mut self, chunks: &mut dyn Chunks, out: &mut [u8]) -> Result<usize, Error> {
        let mut len = 0;
        while len < out.len() {
            let rest = &mut out[len..];
            let (step, at_end) = match self {
                Self::Plain(input) => {
                    let bytes = input.fill(chunks)?;
                    let step = bytes.len().min(rest.len());
                    rest[..step].copy_from_slice(&bytes[..step]);
                    input.consume(step);
                    (step, step == 0)
                }
                Self::Gzip(decoder) => {
                    let (step, event) = decoder.advance(chunks, rest, Stop::Anywhere)?;
                    (step, event == gzip::Event::End)
                }
                Self::Zstd(decoder) => {
                    let (step, event) = decoder.advance(chunks, rest)?;
                    (step, event == zstd::Event::End)
                }
            };
            len += step;
            if at_end {
                break;
            }
        }
        Ok(len)
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
