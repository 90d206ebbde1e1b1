//! An archive written from its beginning to its end, each blob verified on the way.

use std::io::Write;

use super::graph::open_sized;
use super::{Error, Piece, Plan};
use crate::oci::{Descriptor, Hasher};
use crate::store::{BlobSource, ReadAt, verify};

/// How many bytes are read, hashed and written at a time.
const CHUNK: usize = 1 << 20;

/// Writes the archive of `plan` to `out`. Before the first byte each blob was seen to be
/// there and to have its size.
///
/// # Errors
/// [`Error::Layout`], [`Error::BlobSize`] before anything is written; [`Error::Blob`] if
/// bytes have another digest: then what was written is worth nothing. [`Error::Write`].
pub fn copy(plan: &Plan, blobs: &dyn BlobSource, out: &mut dyn Write) -> Result<(), Error> {
    check(plan, blobs)?;
    let mut buf = vec![0; CHUNK];
    for piece in plan.pieces() {
        match piece {
            Piece::Bytes(bytes) => out.write_all(bytes).map_err(Error::Write)?,
            Piece::Blob(descriptor) => copy_blob(blobs, descriptor, &mut buf, out)?,
        }
    }
    out.flush().map_err(Error::Write)
}

/// Sees that all blobs are there; that one is missing counts more than what else is wrong.
fn check(plan: &Plan, blobs: &dyn BlobSource) -> Result<(), Error> {
    let opened = plan.claims().map(|claim| open_sized(blobs, claim));
    let worst = opened.filter_map(Result::err).min_by_key(Error::rank);
    worst.map_or(Ok(()), Err)
}

fn copy_blob(
    blobs: &dyn BlobSource,
    descriptor: &Descriptor,
    buf: &mut [u8],
    out: &mut dyn Write,
) -> Result<(), Error> {
    let blob = open_sized(blobs, descriptor)?;
    let expected = || descriptor.digest.clone();
    let mut hasher = Hasher::new(descriptor.digest.algorithm())
        .ok_or_else(|| verify::Error::Algorithm { digest: expected() })?;
    let mut offset = 0;
    while offset < descriptor.size {
        let read = blob.read_at(buf, offset);
        let len = read.map_err(|source| verify::Error::of_reading(&descriptor.digest, source))?;
        hasher.update(&buf[..len]);
        out.write_all(&buf[..len]).map_err(Error::Write)?;
        offset += len as u64;
    }
    let actual = hasher.finish();
    if actual != descriptor.digest {
        let expected = expected();
        return Err(verify::Error::DigestMismatch { expected, actual }.into());
    }
    Ok(())
}
