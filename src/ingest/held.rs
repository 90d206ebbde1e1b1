//! Content that is whole and belongs to nothing yet.

use std::io::{self, Write};
use std::sync::Arc;

use super::Error;
use super::sniff;
use crate::oci::limits::Limit;
use crate::oci::{self, Algorithm, Digest, Hasher};
use crate::store::layout::writer::SealedBlob;
use crate::store::{LayoutWriter, ReadAt};

/// The bytes of a blob that is not published: in memory, or in a file without a name.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Memory(Arc<Vec<u8>>),
    File(SealedBlob),
}

impl Held {
    /// A document that was made here.
    pub(super) fn text(text: &str) -> Self {
        Self::Memory(Arc::new(text.as_bytes().to_vec()))
    }

    /// Its sha256 digest.
    pub(super) fn digest(&self) -> Digest {
        match self {
            Self::Memory(bytes) => Digest::of(bytes),
            Self::File(sealed) => sealed.digest().clone(),
        }
    }

    /// Its digest by the algorithm of `wanted`.
    pub(super) fn digest_like(&self, wanted: &Digest) -> Result<Digest, Error> {
        let algorithm = wanted.algorithm();
        let digest = match self {
            Self::File(sealed) => sealed.digest_by(algorithm)?,
            Self::Memory(bytes) if algorithm == Algorithm::Sha256 => Some(Digest::of(bytes)),
            Self::Memory(bytes) => Hasher::new(algorithm).map(|mut hasher| {
                hasher.update(bytes);
                hasher.finish()
            }),
        };
        digest.ok_or_else(|| Error::Algorithm {
            digest: wanted.clone(),
        })
    }

    /// The same in a file.
    pub(super) fn seal(self, writer: &LayoutWriter) -> Result<SealedBlob, Error> {
        match self {
            Self::File(sealed) => Ok(sealed),
            Self::Memory(bytes) => {
                let mut blob = writer.blob()?;
                blob.write_all(&bytes)
                    .map_err(|source| write_error(writer, source))?;
                Ok(blob.seal()?)
            }
        }
    }
}

impl ReadAt for Held {
    fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(sealed) => sealed.size(),
        }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Memory(bytes) => bytes.read_at(buf, offset),
            Self::File(sealed) => sealed.read_at(buf, offset),
        }
    }
}

/// All bytes of a document, if it is not too large for one.
pub(super) fn document(source: &dyn ReadAt, what: impl Fn() -> String) -> Result<Vec<u8>, Error> {
    let checked: Result<(), oci::Error> = Limit::DocumentSize.check(source.size());
    checked.map_err(|source| Error::Document {
        what: what(),
        source,
    })?;
    sniff::read_all(source)
}

/// A failure to write to a file without a name.
pub(super) fn write_error(writer: &LayoutWriter, source: io::Error) -> Error {
    writer.write_error(source).into()
}
