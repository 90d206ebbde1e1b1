//! A pass over a blob in memory, and random reads after it.

use std::sync::Arc;

use ocifs::store::ReadAt;
use ocifs::stream::{
    BlobOffset, Chunks, Error, Limits, Sink, SpanCache, SpanTable, Stream, TarOffset, scan,
};

use super::random::Random;

/// Small ones: a try should take no longer than some milliseconds.
pub fn limits() -> Limits {
    Limits {
        decoded_size: 4 << 20,
        ratio: 1000,
        ratio_floor: 1 << 20,
        zstd_window: 8 << 20,
        idle_blocks: 1000,
        idle_members: 1000,
    }
}

/// Hands out a blob in chunks and collects what is decoded.
struct Collect<'a> {
    blob: &'a Vec<u8>,
    chunk: usize,
    decoded: Vec<u8>,
}

impl Chunks for Collect<'_> {
    fn chunk_at(&mut self, offset: BlobOffset) -> Result<Arc<Vec<u8>>, Error> {
        let start = usize::try_from(offset.0).expect("blobs are in memory");
        let end = self.blob.len().min(start + self.chunk);
        Ok(Arc::new(self.blob[start..end].to_vec()))
    }
}

impl Sink for Collect<'_> {
    fn decoded(&mut self, span: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.decoded.extend_from_slice(&span);
        Ok(span)
    }
}

/// Makes the pass with chunks of `chunk` bytes; gives the decoded bytes as well.
pub fn pass(blob: &Vec<u8>, chunk: usize, limits: &Limits) -> Result<(SpanTable, Vec<u8>), Error> {
    let mut sink = Collect {
        blob,
        chunk,
        decoded: Vec::new(),
    };
    let table = scan(blob, &mut sink, limits)?;
    Ok((table, sink.decoded))
}

/// A stream with a cache of `memory` bytes of its own.
pub fn open(table: &Arc<SpanTable>, blob: Vec<u8>, memory: u64) -> Stream {
    let cache = Arc::new(SpanCache::new(memory));
    Stream::new(Arc::clone(table), Arc::new(blob) as Arc<dyn ReadAt>, cache)
}

/// A place and a length to read, now and then beyond the end.
pub fn place(random: &mut Random, size: usize) -> (usize, usize) {
    let lens = [1, 100, 5000, 200_000];
    let len = lens[usize::try_from(random.within(0..4)).expect("below 4")];
    let offset = random.within(0..size as u64 + 10);
    (usize::try_from(offset).expect("blobs are in memory"), len)
}

/// Reads at `count` places and compares with `expected`.
pub fn check_reads(stream: &Stream, expected: &[u8], count: usize, random: &mut Random) {
    assert_eq!(stream.size(), expected.len() as u64);
    for _ in 0..count {
        let (offset, len) = place(random, expected.len());
        let mut buf = vec![0xa5; len];
        let read = stream.read_at(&mut buf, TarOffset(offset as u64));
        let read = read.unwrap_or_else(|error| panic!("{len} bytes at {offset}: {error}"));
        assert!(
            buf[..read] == *slice(expected, offset, len),
            "{len} bytes at {offset}, {read} of them read"
        );
    }
}

/// The part of `bytes` that a read of `len` bytes at `offset` brings.
pub fn slice(bytes: &[u8], offset: usize, len: usize) -> &[u8] {
    let end = bytes.len().min(offset + len);
    &bytes[offset.min(end)..end]
}

/// Scans `blob` and checks what does not depend on its format: that chunks make no
/// difference, and that reads equal what was decoded.
pub fn check_stream(blob: &Vec<u8>) -> Result<Vec<u8>, Error> {
    let mut random = Random::of_seed(blob.iter().map(|byte| u64::from(*byte)).sum());
    let whole = pass(blob, blob.len().max(1), &limits());
    let chunk = usize::try_from(random.within(1..300)).expect("below 300");
    let chunked = pass(blob, chunk, &limits());
    let (table, decoded) = match (whole, chunked) {
        (Ok(whole), Ok(chunked)) => {
            assert!(
                whole == chunked,
                "chunks of {chunk} bytes make a difference"
            );
            whole
        }
        (Err(whole), Err(chunked)) => {
            let codes = (whole.code(), chunked.code());
            assert_eq!(codes.0, codes.1, "chunks of {chunk} bytes");
            return Err(whole);
        }
        (whole, chunked) => panic!(
            "at once {:?}, in chunks of {chunk} bytes {:?}",
            whole.err(),
            chunked.err()
        ),
    };
    let table = Arc::new(table);
    for memory in [1 << 20, 0] {
        let stream = open(&table, blob.clone(), memory);
        check_reads(&stream, &decoded, 4, &mut random);
    }
    Ok(decoded)
}
