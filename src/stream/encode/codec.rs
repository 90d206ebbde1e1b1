//! What compresses one block: deflate or zstd, with nothing kept from the block before.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use flate2::{Compress, FlushCompress, Status};
use zstd::zstd_safe::{self, CCtx, CParameter};

use crate::stream::inflate::WINDOW_SIZE;
use crate::stream::sniff::Compression;

/// How many bytes a block has that becomes a part of a gzip member: each costs five bytes
/// and its first Huffman tables, less than 0.1 % in all. So small also because what it
/// costs keeps zeros below the ratio that [`Limits`](crate::stream::Limits) allow, 1,000.
const DEFLATE_BLOCK: usize = 256 << 10;

/// How many bytes a block has that becomes a zstd frame: the window of the level, so that
/// little is lost by beginning anew, and few enough for reading from its start.
const FRAME_BLOCK: usize = 2 << 20;

/// The level of deflate: that which is no larger than pigz's usual one.
const DEFLATE_LEVEL: u32 = 6;

/// The level of zstd: its own usual one.
const ZSTD_LEVEL: i32 = 3;

/// How many times its size a frame may decode to, with some room below the limit of
/// readers. One of zeros would decode to 26,000 times its size; a skippable frame behind
/// it makes up for that.
const MAX_RATIO: usize = 900;

/// The start of a skippable frame.
const SKIPPABLE: [u8; 4] = 0x184d_2a50_u32.to_le_bytes();

/// A block to be compressed.
pub(super) struct Job {
    pub(super) block: Arc<Vec<u8>>,
    pub(super) before: Option<Arc<Vec<u8>>>,
    pub(super) is_last: bool,
    pub(super) done: SyncSender<Part>,
}

/// A block that was compressed.
pub(super) struct Part {
    pub(super) bytes: Arc<Vec<u8>>,
    /// How many bytes it decodes to.
    pub(super) decoded_len: usize,
    /// Of the decoded bytes; only gzip wants it.
    pub(super) crc: crc32fast::Hasher,
}

/// How many decoded bytes a part has.
pub(super) const fn block_size(compression: Compression) -> usize {
    match compression {
        Compression::Plain | Compression::Gzip => DEFLATE_BLOCK,
        Compression::Zstd => FRAME_BLOCK,
    }
}

/// What one worker compresses with.
pub(super) enum Codec {
    /// A compressor for each block: one that is used again hashes bytes of its window that
    /// the block before has left there, and finds other matches than a new one.
    Deflate,
    Zstd(CCtx<'static>),
}

impl Codec {
    pub(super) fn deflate() -> Self {
        Self::Deflate
    }

    pub(super) fn zstd() -> Self {
        let mut context = CCtx::create();
        for parameter in [
            CParameter::CompressionLevel(ZSTD_LEVEL),
            CParameter::ChecksumFlag(true),
        ] {
            let set = context.set_parameter(parameter);
            set.expect("every version of zstd has these");
        }
        Self::Zstd(context)
    }

    /// The part for a block.
    pub(super) fn encode(&mut self, job: &Job) -> Part {
        let mut crc = crc32fast::Hasher::new();
        let bytes = match self {
            Self::Deflate => {
                crc.update(&job.block);
                deflate(job)
            }
            Self::Zstd(context) => frame(context, &job.block),
        };
        Part {
            bytes: Arc::new(bytes),
            decoded_len: job.block.len(),
            crc,
        }
    }
}

/// A block as deflate blocks that end at a byte, the last one marked as such.
///
/// Spec: RFC 1951 section 3.2.3.
fn deflate(job: &Job) -> Vec<u8> {
    const SOUND: &str = "a raw stream takes any window and any bytes";
    let mut compress = Compress::new(flate2::Compression::new(DEFLATE_LEVEL), false);
    if let Some(before) = &job.before {
        let window = &before[before.len().saturating_sub(WINDOW_SIZE)..];
        compress.set_dictionary(window).expect(SOUND);
    }
    let flush = if job.is_last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    // Enough for what does not compress, so that one call does it.
    let room = job.block.len() + job.block.len() / 8 + 1024;
    let mut out = Vec::with_capacity(room);
    loop {
        let taken = usize::try_from(compress.total_in()).expect("within the block");
        let status = compress.compress_vec(&job.block[taken..], &mut out, flush);
        // Room that is left says that nothing is held back.
        let has_room = out.len() < out.capacity();
        match status.expect(SOUND) {
            Status::StreamEnd => return out,
            _ if has_room && !job.is_last => return out,
            _ => out.reserve(room),
        }
    }
}

/// A block as a frame, and a skippable one if there is too little of it.
///
/// Spec: RFC 8878 sections 3.1.1 and 3.1.2.
fn frame(context: &mut CCtx<'static>, block: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(block.len()));
    let len = context.compress2(&mut out, block);
    len.expect("there is room for whatever comes");
    let least = block.len() / MAX_RATIO;
    if out.len() < least {
        let missing = least - out.len();
        let len = u32::try_from(missing).expect("less than a block");
        out.extend_from_slice(&SKIPPABLE);
        out.extend_from_slice(&len.to_le_bytes());
        out.resize(out.len() + missing, 0);
    }
    out
}
