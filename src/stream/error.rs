//! What can be wrong with a stream.

use std::io;
use std::sync::Arc;

use crate::stream::offset::{BlobOffset, TarOffset};

/// What an error means to those who asked; `vfs` makes an errno of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The bytes are not those that were promised: by a digest, or by an earlier pass.
    Mismatch,
    /// The bytes are what was promised and make no sense.
    Malformed,
    /// They may make sense to others.
    Unsupported,
    /// They would cost more than is allowed.
    Limit,
    /// The disk failed.
    Io,
    /// Waiting was ended from outside.
    ShutDown,
}

/// Why a stream cannot be decoded. Cheap to clone: all that wait get the same one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The stream ends within a member, frame, header or trailer.
    #[error("the compressed stream ends early")]
    Truncated,
    /// A gzip member header breaks RFC 1952.
    #[error("gzip header at {at}: {fault}")]
    GzipHeader {
        /// Start of the member.
        at: BlobOffset,
        /// What about it.
        fault: &'static str,
    },
    /// A gzip member's trailer does not fit its bytes.
    #[error("gzip member that ends at {at} fails its {fault}")]
    GzipCheck {
        /// End of the member.
        at: BlobOffset,
        /// The check: CRC-32 or length.
        fault: &'static str,
    },
    /// Bytes that are neither zeros nor a member follow a gzip member.
    #[error("bytes after the gzip member that ends at {at}")]
    GzipTrailing {
        /// End of the last member.
        at: BlobOffset,
    },
    /// Compressed data that no deflate writer makes.
    #[error("invalid deflate data near {at}")]
    Deflate {
        /// About where.
        at: BlobOffset,
    },
    /// Compressed data that no zstd writer makes.
    #[error("zstd frame at {at}: {fault}")]
    ZstdFrame {
        /// Start of the frame.
        at: BlobOffset,
        /// What the decoder says.
        fault: &'static str,
    },
    /// A zstd frame's checksum does not fit its bytes.
    #[error("zstd frame at {at} fails its checksum")]
    ZstdChecksum {
        /// Start of the frame.
        at: BlobOffset,
    },
    /// A zstd frame needs a dictionary that nobody has.
    #[error("zstd frame at {at} needs dictionary {id}")]
    ZstdDictionary {
        /// Start of the frame.
        at: BlobOffset,
        /// The dictionary's number.
        id: u32,
    },
    /// A zstd frame wants more memory than allowed.
    #[error(
        "zstd frame at {at} has a window of {window} bytes, over the limit of {limit} (zstd window)"
    )]
    ZstdWindow {
        /// Start of the frame.
        at: BlobOffset,
        /// What it wants, in bytes.
        window: u64,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// A format that is recognised and not decoded.
    #[error("compression {name} is not supported")]
    UnsupportedCompression {
        /// Its name.
        name: &'static str,
    },
    /// Decoding brings more bytes than allowed.
    #[error("decodes to more than the limit of {limit} bytes (decoded size)")]
    DecodedSize {
        /// What is allowed.
        limit: u64,
    },
    /// Decoding brings too many bytes for each stored one.
    #[error("decodes to more than the limit of {limit} times its {size} bytes (ratio)")]
    Ratio {
        /// What is allowed.
        limit: u64,
        /// Stored size in bytes.
        size: u64,
    },
    /// Decoding goes on and brings nothing.
    #[error("more than the limit of {limit} {what} in a row decode to nothing (progress)")]
    Progress {
        /// What is allowed.
        limit: u64,
        /// Blocks or members.
        what: &'static str,
    },
    /// Decoded bytes are not those that the pass saw.
    #[error("the span at {at} is not what it was when the blob was verified")]
    SpanCheck {
        /// Start of the span.
        at: TarOffset,
    },
    /// The source became shorter than it was when it was opened.
    #[error("the blob became shorter while it was read")]
    Shrunk,
    /// The source cannot be read.
    #[error("cannot read the stored bytes")]
    Read {
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// Whoever drives the decoding wants it to end.
    #[error("stopped: shutting down")]
    Stopped,
}

impl Error {
    /// The stable name of this failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Truncated => "STREAM_TRUNCATED",
            Self::GzipHeader { .. } => "GZ_HEADER",
            Self::GzipCheck { .. } => "GZ_CRC",
            Self::GzipTrailing { .. } => "GZ_TRAILING",
            Self::Deflate { .. } => "GZ_DEFLATE",
            Self::ZstdFrame { .. } => "ZSTD_FRAME",
            Self::ZstdChecksum { .. } => "ZSTD_CHECKSUM",
            Self::ZstdDictionary { .. } => "ZSTD_DICTIONARY",
            Self::ZstdWindow { .. } => "ZSTD_WINDOW",
            Self::UnsupportedCompression { .. } => "COMPRESSION",
            Self::DecodedSize { .. } => "LIMIT_SIZE",
            Self::Ratio { .. } => "LIMIT_RATIO",
            Self::Progress { .. } => "LIMIT_PROGRESS",
            Self::SpanCheck { .. } => "SPAN_CHECK",
            Self::Shrunk => "BLOB_SHRUNK",
            Self::Read { .. } => "BLOB_READ",
            Self::Stopped => "SHUT_DOWN",
        }
    }

    /// Whether the bytes that were read are at fault, and not that they cannot be read.
    #[must_use]
    pub fn is_of_the_stream(&self) -> bool {
        matches!(
            self.class(),
            ErrorClass::Malformed | ErrorClass::Unsupported | ErrorClass::Limit
        )
    }

    /// What it means to those who asked.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Truncated
            | Self::GzipHeader { .. }
            | Self::GzipCheck { .. }
            | Self::GzipTrailing { .. }
            | Self::Deflate { .. }
            | Self::ZstdFrame { .. }
            | Self::ZstdChecksum { .. } => ErrorClass::Malformed,
            Self::ZstdDictionary { .. } | Self::UnsupportedCompression { .. } => {
                ErrorClass::Unsupported
            }
            Self::ZstdWindow { .. }
            | Self::DecodedSize { .. }
            | Self::Ratio { .. }
            | Self::Progress { .. } => ErrorClass::Limit,
            Self::SpanCheck { .. } | Self::Shrunk => ErrorClass::Mismatch,
            Self::Read { .. } => ErrorClass::Io,
            Self::Stopped => ErrorClass::ShutDown,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match &error {
            // The errno must stay visible to those who read through several streams.
            Error::Read { source } => source
                .raw_os_error()
                .map_or_else(|| Self::other(error.clone()), Self::from_raw_os_error),
            _ => Self::other(error),
        }
    }
}
