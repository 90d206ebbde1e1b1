//! What is far too large, because it is made of holes.

use std::time::{Duration, Instant};

use ocifs::ingest::{Ingest, IngestOptions, Name};
use ocifs::store::{ReadAt, source};

use super::super::common::{
    Compression, Fingerprint, Tarball, TestLayout, compress, sum_block, tar_of,
};
use super::{TestResult, tar, writer};

/// Bytes, and then nothing but zeros, which nobody has written.
#[derive(Debug)]
struct Holes {
    head: Vec<u8>,
    size: u64,
}

impl ReadAt for Holes {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let wanted = source::available(self.size, offset, buf.len());
        buf[..wanted].fill(0);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(rest) = self.head.get(start..) {
            let len = rest.len().min(wanted);
            buf[..len].copy_from_slice(&rest[..len]);
        }
        Ok(wanted)
    }
}

/// What is larger than any blob is neither read to its end nor written; what only says so is
/// cut short.
#[test]
fn a_sparse_member_of_a_terabyte() -> TestResult {
    const SIZE: u64 = 1 << 40;
    let mut header = Tarball::new().file("blobs/sha256/x", "").finish_part();
    let mut field = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    field[4..].copy_from_slice(&SIZE.to_be_bytes());
    header[124..136].copy_from_slice(&field);
    sum_block(&mut header);
    let marker = tar(&[("oci-layout".into(), b"{}".to_vec())]);
    let marker = &marker[..1024];
    let head = [marker, &header].concat();
    let packed = compress(Compression::Gzip, &[&head[..], &[0; 4096]].concat());
    let rows = [
        ("a member", head.clone(), SIZE + 4096, "LIMIT_BLOB_SIZE"),
        ("a layer", tar_of(&[("a", b"1")]), SIZE, "LIMIT_BLOB_SIZE"),
        ("a file", b"hello".to_vec(), SIZE, "LIMIT_BLOB_SIZE"),
        (
            "a claim",
            head.clone(),
            head.len() as u64 + 4096,
            "TAR_TRUNCATED",
        ),
        (
            "a claim, gzip",
            packed.clone(),
            packed.len() as u64,
            "TAR_TRUNCATED",
        ),
    ];
    let layout = TestLayout::new();
    let before = Fingerprint::of(layout.path());
    for (name, head, size, code) in rows {
        let ingest = Ingest::new(writer(layout.path()), IngestOptions::default());
        let begun = Instant::now();
        let prepared = ingest.prepare_file(&Holes { head, size }, &Name::of_file(b"x")?);
        let error = prepared.err().ok_or(name)?;
        assert_eq!(error.code(), code, "{name}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}");
    }
    assert_eq!(before, Fingerprint::of(layout.path()));
    Ok(())
}
