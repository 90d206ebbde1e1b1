//! What a stream is, by its first bytes.

use std::io;

use crate::store::ReadAt;
use crate::stream::error::Error;

/// How many bytes at the start decide.
const SNIFFED: usize = 10;

/// How the bytes of a layer are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all; also what is not recognised.
    Plain,
    /// One or more gzip members (RFC 1952).
    Gzip,
    /// One or more zstd frames (RFC 8878), skippable ones among them.
    Zstd,
}

impl Compression {
    /// Decides by the first bytes of a stream (fewer than ten only if it is shorter).
    ///
    /// # Errors
    /// [`Error::UnsupportedCompression`] for formats that are known and not decoded.
    pub fn sniff(head: &[u8]) -> Result<Self, Error> {
        let unsupported = |name| Err(Error::UnsupportedCompression { name });
        match head {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => unsupported("xz"),
            [0x04, 0x22, 0x4d, 0x18, ..] => unsupported("lz4"),
            // The block magic as well: a tar may begin with a file called "BZh9".
            [b'B', b'Z', b'h', b'1'..=b'9', block @ ..] if is_bzip2_block(block) => {
                unsupported("bzip2")
            }
            _ => Ok(Self::Plain),
        }
    }

    /// Decides for the bytes of `source`.
    ///
    /// # Errors
    /// As [`Self::sniff`], and [`Error::Read`].
    pub fn of(source: &dyn ReadAt) -> Result<Self, Error> {
        let mut head = [0; SNIFFED];
        let len = source.read_at(&mut head, 0).map_err(Error::from_read)?;
        Self::sniff(&head[..len])
    }

    /// The word for messages and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The first block, or the end of an empty stream.
fn is_bzip2_block(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x31, 0x41, 0x59, 0x26, 0x53, 0x59])
        || bytes.starts_with(&[0x17, 0x72, 0x45, 0x38, 0x50, 0x90])
}

impl Error {
    /// An error of the bytes beneath, whose own meaning is kept when streams nest.
    pub(crate) fn from_read(error: io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            let inner = error.into_inner().and_then(|inner| inner.downcast().ok());
            return inner.map_or(Self::Truncated, |inner| *inner);
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Shrunk;
        }
        Self::Read {
            source: std::sync::Arc::new(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_bytes() {
        let bzip2 = b"BZh91AY&SY\0\0";
        let rows: &[(&str, &[u8], Option<Compression>)] = &[
            ("empty", b"", Some(Compression::Plain)),
            ("one byte of gzip", b"\x1f", Some(Compression::Plain)),
            ("gzip", b"\x1f\x8b\x08", Some(Compression::Gzip)),
            ("zstd", b"\x28\xb5\x2f\xfd\0", Some(Compression::Zstd)),
            (
                "first skippable",
                b"\x50\x2a\x4d\x18",
                Some(Compression::Zstd),
            ),
            (
                "last skippable",
                b"\x5f\x2a\x4d\x18",
                Some(Compression::Zstd),
            ),
            (
                "not skippable",
                b"\x60\x2a\x4d\x18",
                Some(Compression::Plain),
            ),
            ("xz", b"\xfd7zXZ\0", None),
            ("lz4", b"\x04\x22\x4d\x18", None),
            ("bzip2", bzip2, None),
            (
                "file name like bzip2",
                b"BZh9.txt\0\0",
                Some(Compression::Plain),
            ),
            ("tar", b"usr/\0\0\0\0\0\0", Some(Compression::Plain)),
        ];
        for (name, head, expected) in rows {
            assert_eq!(Compression::sniff(head).ok(), *expected, "{name}");
        }
    }
}
