//! A blob that is written as a file is: anywhere, cut, and again.
//!
//! Bytes that come in order are hashed on the way. The first that do not (a gap, a byte
//! written again, another size) make the hash stale: from then on nothing is hashed, and
//! the file is read once more when the blob is finished.

use std::io::{self, Write};

use super::{BlobWriter, CHUNK, Hashing};
use crate::oci::Hasher;
use crate::store::progress::Progress;
use crate::store::source::{ReadAt, available};

/// Why bytes were not copied into a blob.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// They cannot be read.
    #[error("cannot read what is copied")]
    Read(#[source] io::Error),
    /// They cannot be written; then the writer is dead.
    #[error("cannot write a blob")]
    Write(#[source] io::Error),
}

impl BlobWriter {
    /// Writes all of `bytes` at `offset`; what is skipped reads as zeros.
    ///
    /// # Errors
    /// What the system says; then the writer is dead.
    pub fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset == self.size() && self.hashing.is_in_order() {
            return self.write_all(bytes);
        }
        self.leave_order()?;
        let written = self.temporary.file().write_at(bytes, offset);
        self.mortal(written)?;
        self.flushed = self.flushed.max(offset + bytes.len() as u64);
        Ok(())
    }

    /// Cuts it, or lengthens it with zeros.
    ///
    /// # Errors
    /// What the system says; then the writer is dead.
    pub fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.check_alive()?;
        if size == self.size() {
            return Ok(());
        }
        self.leave_order()?;
        let set = self.temporary.file().set_size(size);
        self.mortal(set)?;
        self.flushed = size;
        if size == 0 {
            // Whatever comes now begins anew.
            self.hashing = Hashing::Here(Hasher::sha256());
        }
        Ok(())
    }

    /// Reads what was written so far.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&mut self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.flush_buffer()?;
        let mut len = 0;
        while len < buf.len() {
            let read = self.temporary.file();
            match read.read_at(&mut buf[len..], offset + len as u64)? {
                0 => break,
                read => len += read,
            }
        }
        Ok(len)
    }

    /// Writes all of `source` behind what there is, and tells `progress` how far it is. This
    /// is also how one goes on from a blob, which may be in the layout by now and is never
    /// changed.
    ///
    /// # Errors
    /// Which of the two sides failed.
    pub fn copy(&mut self, source: &dyn ReadAt, progress: &dyn Progress) -> Result<(), CopyError> {
        let mut buf = vec![0; available(source.size(), 0, CHUNK)];
        let mut offset = 0;
        loop {
            let len = source.read_at(&mut buf, offset).map_err(CopyError::Read)?;
            if len == 0 {
                return Ok(());
            }
            let written = self.write_at(&buf[..len], self.size());
            written.map_err(CopyError::Write)?;
            progress.advance(len as u64);
            offset += len as u64;
        }
    }

    /// Gives up hashing on the way.
    fn leave_order(&mut self) -> io::Result<()> {
        self.flush_buffer()?;
        self.hashing = Hashing::Stale;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;
    use crate::store::layout::writer::LayoutWriter;
    use crate::store::progress::Unwatched;

    /// One request on a file that is written.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Write(u64, usize),
        Size(u64),
        Sync,
        Read,
    }
    use Step::{Read, Size, Sync, Write};

    const BIG: usize = 3 * CHUNK + 17;

    fn writer() -> (tempfile::TempDir, LayoutWriter) {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        crate::store::layout::init(dir.path()).expect("a layout can be made");
        let layout = crate::store::Layout::open(dir.path(), &[]).expect("it can be opened");
        let verdicts = std::sync::Arc::new(crate::store::Verdicts::new(None));
        let writer = LayoutWriter::open(&layout, verdicts).expect("it can be written to");
        (dir, writer)
    }

    /// Takes the same steps with a blob and with bytes in memory.
    fn take(step: Step, salt: u8, blob: &mut BlobWriter, model: &mut Vec<u8>) -> io::Result<()> {
        match step {
            Write(offset, len) => {
                let bytes: Vec<u8> = (0..len)
                    .map(|at| u8::try_from(at % 251).unwrap_or(0) ^ salt)
                    .collect();
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                model.resize(model.len().max(start + len), 0);
                model[start..start + len].copy_from_slice(&bytes);
                blob.write_at(&bytes, offset)
            }
            Size(size) => {
                model.resize(usize::try_from(size).map_err(io::Error::other)?, 0);
                blob.set_size(size)
            }
            Sync => blob.sync(),
            Read => {
                let mut read = vec![0xff; model.len() + 1];
                let len = blob.read_at(&mut read, 0)?;
                assert!(read[..len] == **model, "what is read is what was written");
                Ok(())
            }
        }
    }

    #[test]
    fn whatever_the_order_the_bytes_and_the_digest_are_right()
    -> Result<(), Box<dyn std::error::Error>> {
        let chunk = CHUNK as u64;
        let rows: &[(&str, &[Step])] = &[
            ("nothing", &[]),
            (
                "in order",
                &[Write(0, 5), Write(5, BIG), Write(5 + BIG as u64, 1)],
            ),
            ("a gap", &[Write(0, 5), Write(100, 5)]),
            ("a gap first", &[Write(70_000, 5)]),
            ("again", &[Write(0, BIG), Write(3, 4)]),
            (
                "again in the buffer",
                &[Write(0, 10), Write(3, 4), Write(10, 6)],
            ),
            ("backwards", &[Write(chunk, 9), Write(0, CHUNK)]),
            ("cut", &[Write(0, BIG), Size(7), Write(7, 3)]),
            (
                "cut to nothing, begun anew",
                &[Write(0, BIG), Size(0), Write(0, BIG)],
            ),
            (
                "cut to nothing after a gap",
                &[Write(9, 9), Size(0), Write(0, 3), Write(3, 3)],
            ),
            (
                "lengthened",
                &[Write(0, 3), Size(chunk * 2), Write(chunk * 2, 5)],
            ),
            ("only a size", &[Size(12_345)]),
            ("the same size", &[Write(0, 9), Size(9), Write(9, 9)]),
            (
                "read between",
                &[
                    Write(0, 9),
                    Read,
                    Write(9, BIG),
                    Read,
                    Sync,
                    Write(1, 1),
                    Read,
                ],
            ),
        ];
        let (_dir, layout) = writer();
        for (name, steps) in rows {
            let (mut blob, mut model) = (layout.blob().expect(name), Vec::new());
            for (salt, step) in (1..).zip(*steps) {
                take(*step, salt, &mut blob, &mut model)?;
            }
            assert_eq!(blob.size(), model.len() as u64, "{name}");
            let sealed = blob.seal().expect(name);
            assert_eq!(*sealed.digest(), Digest::of(&model), "{name}");
            let mut read = vec![0; model.len()];
            ReadAt::read_at(&sealed, &mut read, 0)?;
            assert!(read == model, "{name}");
        }
        Ok(())
    }

    #[test]
    fn a_published_blob_is_never_changed() -> Result<(), Box<dyn std::error::Error>> {
        let (dir, layout) = writer();
        let mut blob = layout.blob().expect("a blob can be begun");
        blob.write_at(b"first", 0)?;
        let sealed = blob.seal().expect("it can be sealed");
        let stored = sealed.publish_as(sealed.digest()).expect("it is published");
        let mut again = layout.blob().expect("a blob can be begun");
        again.copy(&sealed, &Unwatched)?;
        again.write_at(b" and second", 5)?;
        again.write_at(b"F", 0)?;
        let second = again.seal().expect("it can be sealed");
        assert_eq!(*second.digest(), Digest::of(b"First and second"));
        let path = dir
            .path()
            .join("blobs/sha256")
            .join(stored.digest().encoded());
        assert_eq!(std::fs::read(path)?, b"first");
        Ok(())
    }
}
