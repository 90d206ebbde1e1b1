//! Where the bytes of a layer's blob go: into the layout's file system, or nowhere.

use std::io::{self, Write};

use crate::ingest::held::{Held, write_error};
use crate::ingest::{Error, Ingest};
use crate::oci::{Digest, Hasher};
use crate::store::ReadAt;
use crate::store::layout::writer::BlobWriter;

/// What becomes of blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// They are kept.
    Keep,
    /// Only their digests and sizes are wanted.
    Measure,
}

/// See the module.
#[derive(Debug)]
pub(super) enum Sink {
    Blob(Box<BlobWriter>),
    Nowhere { hasher: Box<Hasher>, size: u64 },
}

/// A blob that is whole.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Its bytes, if they were kept.
    pub(super) held: Option<Held>,
}

impl Made {
    /// A document.
    pub(super) fn document(bytes: Vec<u8>) -> Self {
        Self {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            held: Some(Held::Memory(bytes.into())),
        }
    }
}

impl Sink {
    pub(super) fn new(ingest: &Ingest, purpose: Purpose) -> Result<Self, Error> {
        Ok(match purpose {
            Purpose::Keep => Self::Blob(Box::new(ingest.writer.blob()?)),
            Purpose::Measure => Self::Nowhere {
                hasher: Box::new(Hasher::sha256()),
                size: 0,
            },
        })
    }

    pub(super) fn finish(self) -> Result<Made, Error> {
        match self {
            Self::Blob(blob) => {
                let sealed = blob.seal()?;
                Ok(Made {
                    digest: sealed.digest().clone(),
                    size: sealed.size(),
                    held: Some(Held::File(sealed)),
                })
            }
            Self::Nowhere { hasher, size } => Ok(Made {
                digest: hasher.finish(),
                size,
                held: None,
            }),
        }
    }

    /// A failure to write to one.
    pub(super) fn error(ingest: &Ingest, source: io::Error) -> Error {
        write_error(&ingest.writer, source)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Blob(blob) => blob.write(bytes),
            Self::Nowhere { hasher, size } => {
                hasher.update(bytes);
                *size += bytes.len() as u64;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Blob(blob) => blob.flush(),
            Self::Nowhere { .. } => Ok(()),
        }
    }
}
