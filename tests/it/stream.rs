//! Random access equals decoding everything and slicing; streams that are refused.

mod crafted;
mod frame;
mod writers;

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use ocifs::store::ReadAt;
use ocifs::stream::checkpoint::Restart;
use ocifs::stream::{
    Error, Limits, SpanCache, SpanId, SpanTable, Stream, TarOffset, find_checkpoints,
};
use proptest::prelude::*;

use crate::sample::{
    Random, TestResult, gzip, gzip_members, layer_like, skippable, zstd, zstd_frames, zstd_stream,
};
use crate::targets::access::{self, pass};
use crate::targets::blocks;

fn decode(blob: &Vec<u8>) -> Result<Vec<u8>, Error> {
    pass(blob, 1 << 16, &Limits::default()).map(|(_, decoded)| decoded)
}

fn open(table: SpanTable, blob: Vec<u8>, memory: u64) -> Stream {
    access::open(&Arc::new(table), blob, memory)
}

/// Reads at `count` places, near and far, and compares with `expected`.
fn compare(stream: &Stream, expected: &[u8], count: u32, seed: u64) -> TestResult {
    let mut random = Random(seed | 1);
    let mut offset = 0;
    for _ in 0..count {
        let len = [1, 100, 4096, 200_000, 600_000][random.size(5)];
        if random.below(3) > 0 {
            offset = random.size(expected.len() + 10);
        }
        let mut buf = vec![0xa5; len];
        let read = stream.read_at(&mut buf, TarOffset(offset as u64))?;
        let end = expected.len().min(offset + len);
        let wanted = &expected[offset.min(end)..end];
        assert!(
            buf[..read] == *wanted,
            "{len} bytes at {offset}: {read} read, {} expected",
            wanted.len()
        );
        offset += read;
    }
    Ok(())
}

/// The whole property: the pass decodes right, and so does every read after it, with
/// plenty of memory and with none.
fn check(name: &str, blob: &[u8], expected: &[u8]) -> TestResult {
    for (chunk, memory, count) in [(1 << 18, 1 << 30, 60), (4099, 0, 12)] {
        let blob = blob.to_vec();
        let (table, decoded) =
            pass(&blob, chunk, &Limits::default()).map_err(|error| format!("{name}: {error}"))?;
        assert!(decoded == expected, "{name}: decoded bytes differ");
        assert_eq!(table.size(), expected.len() as u64, "{name}");
        compare(
            &open(table, blob, memory),
            expected,
            count,
            expected.len() as u64,
        )
        .map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// As [`check`], and once more with checkpoints within zstd frames, of which there must be
/// `least` at least.
fn check_improved(name: &str, blob: &[u8], expected: &[u8], least: usize) -> TestResult {
    check(name, blob, expected)?;
    for memory in [1 << 30, 0] {
        let blob = blob.to_vec();
        let (table, _) = pass(&blob, 1 << 18, &Limits::default())?;
        let before = table.checkpoints().list.len();
        let found = find_checkpoints(&blob, &table, &|| false)?;
        let count = found.as_ref().map_or(before, |found| found.list.len());
        assert!(count >= before + least, "{name}: {count} checkpoints");
        if let Some(found) = found {
            assert!(
                found.heap.len() <= blob.len() / 10,
                "{name}: the heap is too large"
            );
            table.improve(found)?;
        }
        compare(&open(table, blob, memory), expected, 25, 77)
            .map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

#[test]
fn long_zstd_frames() -> TestResult {
    let bytes = layer_like(40 << 20, 30);
    for (level, window_log, least) in [(1, 19, 8), (3, 21, 4), (3, 23, 3), (-3, 20, 8)] {
        let name = format!("level {level}, window of 2^{window_log}");
        check_improved(
            &name,
            &zstd_stream(&bytes, level, window_log),
            &bytes,
            least,
        )?;
    }
    Ok(())
}

#[test]
fn noise_that_is_repeated_would_cost_too_much() -> TestResult {
    // Every checkpoint would need all of the noise, which nothing makes smaller.
    let mut random = Random(31);
    let noise: Vec<u8> = (0..1 << 17)
        .flat_map(|_| random.below(u64::MAX >> 12).to_le_bytes())
        .collect();
    let blob = zstd_stream(&noise.repeat(24), 3, 21);
    check_improved("repeated noise", &blob, &noise.repeat(24), 0)
}

/// A block whose matches all have one offset code, and noise without matches after it: no
/// block says for long whether the table of one symbol is still wanted.
#[test]
fn noise_after_a_table_of_one_symbol() -> TestResult {
    let mut random = Random(38);
    let mut noise = |len: usize| -> Vec<u8> {
        let byte = |_| (random.below(256) & 0xff) as u8;
        (0..len).map(byte).collect()
    };
    let piece = noise(60);
    let repeated: Vec<u8> = (0..200)
        .flat_map(|_| [&piece[..], &noise(5)].concat())
        .collect();
    let parts = [
        layer_like(9 << 20, 37),
        repeated,
        noise(24 << 20),
        layer_like(9 << 20, 39),
    ];
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1)?;
    for part in &parts {
        encoder.write_all(part)?;
        // Ends a block.
        encoder.flush()?;
    }
    check_improved("noise", &encoder.finish()?, &parts.concat(), 6)
}

#[test]
fn several_long_frames_and_short_ones() -> TestResult {
    let bytes = layer_like(30 << 20, 32);
    let parts = [
        &bytes[..12 << 20],
        &bytes[12 << 20..13 << 20],
        &bytes[13 << 20..],
    ];
    let [first, second, third] = parts.map(|part| zstd_stream(part, 3, 20));
    let blob = [&first[..], &skippable(99), &second, &third, &skippable(7)].concat();
    check_improved("three frames", &blob, &bytes, 4)
}

#[test]
fn a_long_frame_after_a_short_one() -> TestResult {
    let bytes = layer_like(14 << 20, 40);
    for len in [1, 65_535, 65_536] {
        let (short, long) = bytes.split_at(len);
        let blob = [zstd(short, 3), zstd_stream(long, 1, 20)].concat();
        check_improved(&format!("after {len} bytes"), &blob, &bytes, 2)?;
    }
    Ok(())
}

#[test]
fn changed_zstd_blocks_are_decoded_alike_or_refused() -> TestResult {
    let bytes = layer_like(9 << 20, 33);
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1)?;
    io::Write::write_all(&mut encoder, &bytes)?;
    let good = encoder.finish()?;
    let mut random = Random(34);
    let mut accepted = 0;
    for _ in 0..40 {
        let mut blob = good.clone();
        let at = 20 + random.size(blob.len() - 20);
        blob[at] ^= 1 << random.below(8);
        // There is no checksum: a decoder takes some of these.
        let Ok((table, decoded)) = pass(&blob, 1 << 18, &Limits::default()) else {
            continue;
        };
        accepted += 1;
        if let Some(found) = find_checkpoints(&blob, &table, &|| false)? {
            table.improve(found)?;
        }
        compare(&open(table, blob, 1 << 30), &decoded, 10, at as u64)?;
    }
    assert!(accepted > 3, "only {accepted} were decoded at all");
    Ok(())
}

#[test]
fn a_search_for_checkpoints_can_be_stopped() -> TestResult {
    let bytes = layer_like(9 << 20, 35);
    let blob = zstd_stream(&bytes, 1, 20);
    let (table, _) = pass(&blob, 1 << 18, &Limits::default())?;
    let result = find_checkpoints(&blob, &table, &|| true);
    assert_eq!(result.err().map(|error| error.code()), Some("SHUT_DOWN"));
    Ok(())
}

#[test]
fn reading_ahead_reads_the_same() -> TestResult {
    let bytes = layer_like(24 << 20, 36);
    for (name, blob) in [
        ("gzip", gzip(&bytes, 1)),
        ("zstd", zstd_stream(&bytes, 1, 20)),
    ] {
        let (table, _) = pass(&blob, 1 << 18, &Limits::default())?;
        if let Some(found) = find_checkpoints(&blob, &table, &|| false)? {
            table.improve(found)?;
        }
        let stream = open(table, blob, 40 << 20);
        let mut buf = vec![0; 100_000];
        let mut offset = 0;
        loop {
            let len = stream.read_at(&mut buf, TarOffset(offset as u64))?;
            assert!(
                buf[..len] == bytes[offset..offset + len],
                "{name} at {offset}"
            );
            offset += len;
            if len == 0 {
                break;
            }
        }
        assert_eq!(offset, bytes.len(), "{name}");
    }
    Ok(())
}

#[test]
fn gzip_of_every_level() -> TestResult {
    let bytes = layer_like(5 << 20, 1);
    for level in 0..=9 {
        check(&format!("level {level}"), &gzip(&bytes, level), &bytes)?;
    }
    Ok(())
}

#[test]
fn gzip_members_of_every_size() -> TestResult {
    let bytes = layer_like(6 << 20, 2);
    for piece in [100, 70_000, 1 << 20, 5 << 20] {
        let bytes = &bytes[..bytes.len().min(piece * 20_000)];
        check(
            &format!("members of {piece}"),
            &gzip_members(bytes, piece),
            bytes,
        )?;
    }
    let empty = gzip(b"", 6);
    let with_empty = [
        &empty[..],
        &gzip(&bytes, 6),
        &empty,
        &empty,
        &gzip(b"end", 1),
    ]
    .concat();
    check("empty members", &with_empty, &[&bytes[..], b"end"].concat())
}

#[test]
fn a_hundred_thousand_empty_members() -> TestResult {
    let mut blob = gzip(b"begin", 6);
    blob.extend(gzip(b"", 6).repeat(100_000));
    blob.extend(gzip(b"end", 6));
    check("empty members", &blob, b"beginend")
}

#[test]
fn zstd_of_many_levels() -> TestResult {
    let bytes = layer_like(5 << 20, 4);
    for level in [-5, 1, 3, 7, 12, 19] {
        check(&format!("level {level}"), &zstd(&bytes, level), &bytes)?;
        let stream = zstd_stream(&bytes, level, 21);
        check(&format!("stream of level {level}"), &stream, &bytes)?;
    }
    Ok(())
}

#[test]
fn zstd_frames_of_every_size() -> TestResult {
    let bytes = layer_like(6 << 20, 6);
    for piece in [500, 10_000, 300_000, 2 << 20] {
        let bytes = &bytes[..bytes.len().min(piece * 5_000)];
        check(
            &format!("frames of {piece}"),
            &zstd_frames(bytes, piece),
            bytes,
        )?;
    }
    let skip = skippable(70_000);
    let (first, second) = bytes.split_at(3 << 20);
    let blob = [
        &skip[..],
        &zstd(first, 3),
        &skip,
        &skippable(0),
        &zstd(second, 3),
        &skip,
    ]
    .concat();
    check("skippable frames", &blob, &bytes)
}

#[test]
fn plain_bytes() -> TestResult {
    let bytes = layer_like(3 << 20, 7);
    check("plain", &bytes, &bytes)?;
    check("empty", b"", b"")?;
    check("one byte", b"x", b"x")?;
    check("zeros", &[0; 1024], &[0; 1024])
}

#[test]
fn long_stretches_without_a_block_boundary() -> TestResult {
    // Deflate puts megabytes of zeros into one block.
    let mut bytes = vec![0; 40 << 20];
    bytes.extend(layer_like(1 << 20, 8));
    check("gzip", &gzip(&bytes, 9), &bytes)?;
    check("zstd", &zstd(&bytes, 3), &bytes)
}

#[test]
fn empty_streams() -> TestResult {
    check("gzip", &gzip(b"", 6), b"")?;
    check("zstd", &zstd(b"", 3), b"")?;
    check("only skippable", &skippable(5), b"")
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// Deflate blocks that are stored, not the last, and empty; never ended.
fn endless(count: usize) -> Vec<u8> {
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    [&head[..], &[0, 0, 0, 0xff, 0xff].repeat(count)].concat()
}

#[test]
fn limits_are_kept() {
    let zeros = vec![0; 20 << 20];
    let bomb = gzip(&zeros, 9);
    let low_ratio = limits(|limits| {
        limits.ratio = 100;
        limits.ratio_floor = 1 << 20;
    });
    let low_size = limits(|limits| limits.decoded_size = 10 << 20);
    let low_window = limits(|limits| limits.zstd_window = 1 << 20);
    let low_members = limits(|limits| limits.idle_members = 99);
    let default = Limits::default();
    let members = gzip(b"", 6).repeat(100);
    let rows: &[(&str, Vec<u8>, &Limits, Option<&str>)] = &[
        ("zeros, default limits", bomb.clone(), &default, None),
        ("ratio", bomb.clone(), &low_ratio, Some("LIMIT_RATIO")),
        (
            "ratio, zstd",
            zstd(&zeros, 3),
            &low_ratio,
            Some("LIMIT_RATIO"),
        ),
        (
            "ratio, below the floor",
            zstd(&zeros[..1 << 20], 3),
            &low_ratio,
            None,
        ),
        ("size", bomb, &low_size, Some("LIMIT_SIZE")),
        ("size, plain", zeros.clone(), &low_size, Some("LIMIT_SIZE")),
        (
            "window",
            zstd_stream(&zeros, 3, 21),
            &low_window,
            Some("ZSTD_WINDOW"),
        ),
        (
            "window that fits",
            zstd_stream(&zeros, 3, 20),
            &low_window,
            None,
        ),
        (
            "empty blocks",
            endless(70_000),
            &default,
            Some("LIMIT_PROGRESS"),
        ),
        (
            "fewer, then cut",
            endless(60_000),
            &default,
            Some("STREAM_TRUNCATED"),
        ),
        (
            "empty members",
            members.clone(),
            &low_members,
            Some("LIMIT_PROGRESS"),
        ),
        ("empty members, default limits", members, &default, None),
    ];
    for (name, blob, limits, expected) in rows {
        let code = pass(blob, 1 << 16, limits).err().map(|error| error.code());
        assert_eq!(code, *expected, "{name}");
    }
}

#[test]
fn the_ratio_is_that_of_the_whole_blob() -> TestResult {
    let mut bytes = vec![0; 30 << 20];
    bytes.extend(layer_like(300_000, 17));
    let blob = zstd(&bytes, 3);
    let limits = limits(|limits| limits.ratio_floor = 1 << 20);
    let (table, _) = pass(&blob, 1 << 16, &limits)?;
    assert_eq!(table.size(), bytes.len() as u64);
    Ok(())
}

#[test]
fn lies_and_damage_are_malformed() {
    let bytes = layer_like(400_000, 9);
    let good = gzip(&bytes, 6);
    let changed = |from_end: usize| {
        let mut blob = good.clone();
        let at = blob.len() - from_end;
        blob[at] ^= 1;
        blob
    };
    let second_cut = [&good[..], &good[..good.len() - 1]].concat();
    let mut checked = zstd_stream(&bytes, 3, 20);
    let at = checked.len() - 1;
    checked[at] ^= 1;
    let rows: &[(&str, Vec<u8>, &str)] = &[
        ("length", changed(1), "GZ_CRC"),
        ("checksum", changed(8), "GZ_CRC"),
        (
            "checksum, middle member",
            [changed(8), good.clone()].concat(),
            "GZ_CRC",
        ),
        ("second member cut", second_cut, "STREAM_TRUNCATED"),
        (
            "garbage after",
            [&good[..], b"garbage"].concat(),
            "GZ_TRAILING",
        ),
        ("zstd checksum", checked, "ZSTD_CHECKSUM"),
    ];
    for (name, blob, expected) in rows {
        let code = decode(blob).err().map(|error| error.code());
        assert_eq!(code, Some(*expected), "{name}");
    }
}

#[test]
fn what_is_cut_anywhere_is_refused() {
    let bytes = layer_like(20_000, 10);
    let rows = [
        ("gzip", gzip(&bytes, 6)),
        ("zstd", zstd_stream(&bytes, 3, 20)),
    ];
    for (name, blob) in rows {
        for len in (4..40).chain((40..blob.len()).step_by(97)) {
            let cut = blob[..len].to_vec();
            let code = decode(&cut).err().map(|error| error.code());
            assert_eq!(code, Some("STREAM_TRUNCATED"), "{name}, {len} bytes");
        }
    }
}

/// A source whose bytes change under the reader.
#[derive(Debug)]
struct Changing(parking_lot::Mutex<Vec<u8>>);

impl ReadAt for Changing {
    fn size(&self) -> u64 {
        self.0.lock().len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.lock().read_at(buf, offset)
    }
}

#[test]
fn damage_after_the_pass_is_an_error_and_never_a_wrong_byte() -> TestResult {
    let bytes = layer_like(3 << 20, 11);
    let rows = [
        ("gzip", gzip(&bytes, 6)),
        ("gzip, stored", gzip(&bytes, 0)),
        ("zstd", zstd(&bytes, 3)),
        ("zstd frames", zstd_frames(&bytes, 50_000)),
        ("plain", bytes.clone()),
    ];
    for (name, blob) in rows {
        let (table, _) = pass(&blob, 1 << 16, &Limits::default())?;
        let table = Arc::new(table);
        let source = Arc::new(Changing(parking_lot::Mutex::new(blob)));
        let mut random = Random(12);
        let mut refused = 0;
        for _ in 0..40 {
            let stream = Stream::new(
                Arc::clone(&table),
                Arc::clone(&source) as Arc<dyn ReadAt>,
                Arc::new(SpanCache::new(0)),
            );
            let at = random.size(usize::try_from(source.size())?);
            source.0.lock()[at] ^= 0x10;
            // About where the damage is, decoded.
            let near = at * (bytes.len() / 100) / (usize::try_from(source.size())? / 100);
            let offset = (near + random.size(50_000)).saturating_sub(25_000);
            let offset = offset.min(bytes.len() - 100);
            let mut buf = [0; 100];
            match stream.read_at(&mut buf, TarOffset(offset as u64)) {
                Ok(_) => assert!(buf == bytes[offset..offset + 100], "{name}: a wrong byte"),
                Err(error) => {
                    assert_eq!(error.code(), "SPAN_CHECK", "{name}");
                    refused += 1;
                }
            }
            source.0.lock()[at] ^= 0x10;
        }
        assert!(refused > 0, "{name}: the damage was never met");
    }
    Ok(())
}

#[test]
fn a_source_that_shrank_is_a_mismatch() -> TestResult {
    let bytes = layer_like(1 << 20, 13);
    let blob = gzip(&bytes, 6);
    let (table, _) = pass(&blob, 1 << 16, &Limits::default())?;
    let stream = open(table, blob[..blob.len() / 2].to_vec(), 0);
    let result = stream.read_at(&mut [0; 10], TarOffset(bytes.len() as u64 - 10));
    let class = result.err().map(|error| error.class());
    assert_eq!(class, Some(ocifs::stream::ErrorClass::Mismatch));
    Ok(())
}

#[test]
fn many_readers_of_one_stream() -> TestResult {
    let bytes = layer_like(8 << 20, 14);
    let rows = [
        ("gzip", gzip(&bytes, 6)),
        ("zstd", zstd_stream(&bytes, 3, 20)),
        ("frames", zstd_frames(&bytes, 60_000)),
    ];
    for (name, blob) in rows {
        let (table, _) = pass(&blob, 1 << 16, &Limits::default())?;
        let stream = open(table, blob, 1 << 20);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (stream, bytes) = (&stream, &bytes);
                scope.spawn(move || {
                    compare(stream, bytes, 25, 1000 + seed).expect(name);
                });
            }
        });
    }
    Ok(())
}

/// A source that counts what is read of it, and may take its time.
#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    pause: Duration,
    read: AtomicU64,
}

impl Counted {
    /// A stream of its bytes, beside a cache of `memory` bytes.
    fn stream(
        blob: &[u8],
        pause: Duration,
        table: &Arc<SpanTable>,
        memory: u64,
    ) -> (Arc<Self>, Stream) {
        let source = Arc::new(Self {
            bytes: blob.to_vec(),
            pause,
            read: AtomicU64::new(0),
        });
        let cache = Arc::new(SpanCache::new(memory));
        let stream = Stream::new(Arc::clone(table), source.clone(), cache);
        (source, stream)
    }

    fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

impl ReadAt for Counted {
    fn size(&self) -> u64 {
        self.bytes.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::thread::sleep(self.pause);
        let len = self.bytes.read_at(buf, offset)?;
        self.read.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

#[test]
fn who_waits_for_the_same_bytes_decodes_nothing() -> TestResult {
    let bytes = layer_like(4 << 20, 18);
    let last = TarOffset(bytes.len() as u64 - 1);
    let rows = [
        ("gzip", gzip(&bytes, 6)),
        ("zstd", zstd_stream(&bytes, 3, 20)),
    ];
    for (name, blob) in rows {
        let (table, _) = pass(&blob, 1 << 16, &Limits::default())?;
        let table = Arc::new(table);
        let read_by = |readers: usize| {
            let pause = Duration::from_millis(2);
            let (source, stream) = Counted::stream(&blob, pause, &table, 64 << 20);
            let barrier = Barrier::new(readers);
            std::thread::scope(|scope| {
                for _ in 0..readers {
                    scope.spawn(|| {
                        let mut buf = [0];
                        barrier.wait();
                        stream.read_at(&mut buf, last).expect(name);
                        assert_eq!(buf[0], bytes[bytes.len() - 1], "{name}");
                    });
                }
            });
            source.read()
        };
        assert_eq!(read_by(8), read_by(1), "{name}");
    }
    Ok(())
}

#[test]
fn who_reads_on_without_memory_decodes_nothing_twice() -> TestResult {
    let bytes = layer_like(6 << 20, 19);
    let rows = [
        ("gzip", gzip(&bytes, 6)),
        ("zstd", zstd_stream(&bytes, 3, 20)),
    ];
    for (name, blob) in rows {
        let (table, _) = pass(&blob, 1 << 16, &Limits::default())?;
        let table = Arc::new(table);
        let (source, stream) = Counted::stream(&blob, Duration::ZERO, &table, 0);
        let mut buf = vec![0; 64 << 10];
        for (number, span) in table.spans().iter().enumerate() {
            let at = usize::try_from(span.tar_offset.0)?;
            let len = stream.read_at(&mut buf, span.tar_offset)?;
            assert!(buf[..len] == bytes[at..at + len], "{name}: span {number}");
        }
        let (read, size) = (source.read(), blob.len() as u64);
        assert!(read < size * 3 / 2, "{name}: read {read} bytes of {size}");
    }
    Ok(())
}

#[test]
fn what_follows_is_decoded_ahead_for_who_reads_on() -> TestResult {
    let bytes = layer_like(16 << 20, 21);
    let blob = gzip(&bytes, 6);
    let (table, _) = pass(&blob, 1 << 16, &Limits::default())?;
    let table = Arc::new(table);
    let from_start: Vec<u64> = (0..32).map(|number| number << 17).collect();
    let far_apart: Vec<u64> = (0..4).map(|number| number << 22).collect();
    // Memory, where is read, and how much of the blob is read for that: at least a half, or
    // no more than that.
    let rows = [
        ("from the start", 64 << 20, &from_start, true),
        ("from the start, no room", 24 << 20, &from_start, false),
        ("here and there", 64 << 20, &far_apart, false),
    ];
    for (name, memory, places, is_ahead) in rows {
        let (source, stream) = Counted::stream(&blob, Duration::ZERO, &table, memory);
        let mut buf = vec![0; 128 << 10];
        for place in places {
            let len = stream.read_at(&mut buf, TarOffset(*place))?;
            let at = usize::try_from(*place)?;
            assert!(buf[..len] == bytes[at..at + len], "{name}: at {place}");
        }
        let half = blob.len() as u64 / 2;
        let patience = Duration::from_millis(if is_ahead { 10_000 } else { 100 });
        let begun = Instant::now();
        while source.read() < half && begun.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        let read = source.read();
        assert_eq!(
            read >= half,
            is_ahead,
            "{name}: {read} bytes of {}",
            2 * half
        );
    }
    Ok(())
}

#[test]
fn the_further_was_read_the_further_is_decoded_ahead() -> TestResult {
    const SPAN: u64 = 256 << 10;
    let bytes = layer_like(24 << 20, 22);
    let blob = gzip(&bytes, 6);
    let (table, _) = pass(&blob, 1 << 16, &Limits::default())?;
    let table = Arc::new(table);
    // Memory, how much is read, and how much of the stream is decoded then, in percent.
    let rows = [
        ("a little", 256 << 20, 12 * SPAN, 20..45),
        ("more", 256 << 20, 40 * SPAN, 90..150),
        ("more, little memory", 40 << 20, 40 * SPAN, 50..85),
    ];
    for (name, memory, len, expected) in rows {
        let (source, stream) = Counted::stream(&blob, Duration::ZERO, &table, memory);
        let mut buf = vec![0; 128 << 10];
        for place in (0..len).step_by(buf.len()) {
            stream.read_at(&mut buf, TarOffset(place))?;
        }
        let percent = || source.read() * 100 / blob.len() as u64;
        let begun = Instant::now();
        while percent() < expected.start && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // What is too much comes soon after.
        std::thread::sleep(Duration::from_millis(100));
        assert!(expected.contains(&percent()), "{name}: {} %", percent());
    }
    Ok(())
}

#[test]
fn who_reads_from_end_to_end_leaves_little_behind() -> TestResult {
    let bytes = layer_like(12 << 20, 20);
    let blob = gzip(&bytes, 1);
    let (table, _) = pass(&blob, 1 << 16, &Limits::default())?;
    // Room for all of it, and too little for reading ahead.
    let cache = Arc::new(SpanCache::new(24 << 20));
    let stream = Stream::new(Arc::new(table), Arc::new(blob), cache.clone());
    let mut buf = vec![0; 128 << 10];
    let mut at = 0;
    loop {
        let len = stream.read_at(&mut buf, TarOffset(at as u64))?;
        if len == 0 {
            break;
        }
        assert!(buf[..len] == bytes[at..at + len], "{len} bytes at {at}");
        at += len;
    }
    assert!(cache.used() < 6 << 20, "{} bytes", cache.used());
    Ok(())
}

#[test]
fn what_lies_before_is_kept_for_those_who_come_from_behind() -> TestResult {
    const LEAST: u64 = 192 << 10;
    let bytes = layer_like(8 << 20, 17);
    let blob = zstd_stream(&bytes, 3, 20);
    let (table, _) = pass(&blob, 1 << 16, &Limits::default())?;
    blocks::improve(&table, &blob, 2 << 20);
    // The fourth span after a checkpoint within the frame.
    let ids = table.checkpoints().list.iter();
    let mut id = ids.filter_map(|checkpoint| match checkpoint.restart {
        Restart::Dictionary { end, .. } if end.0 >= checkpoint.span.0 + 4 => {
            Some(SpanId(checkpoint.span.0 + 3))
        }
        _ => None,
    });
    let id = id.next_back().ok_or("no such checkpoint")?;
    let start = table.start_of(id).0;
    // Memory, and the most and the least that is kept after a read, and after one before it.
    let rows = [(64 << 20, 2 * LEAST, 4 * LEAST), (512 << 10, 2 * LEAST, 0)];
    let table = Arc::new(table);
    for (memory, most, least) in rows {
        let cache = Arc::new(SpanCache::new(memory));
        let stream = Stream::new(Arc::clone(&table), Arc::new(blob.clone()), cache.clone());
        let mut buf = [0];
        stream.read_at(&mut buf, TarOffset(start))?;
        assert!(cache.used() < most, "{memory}: {}", cache.used());
        stream.read_at(&mut buf, TarOffset(start - 1))?;
        assert!(cache.used() >= least, "{memory}: {}", cache.used());
        assert_eq!(buf[0], bytes[usize::try_from(start - 1)?], "{memory}");
    }
    Ok(())
}

#[test]
fn streams_nest() -> TestResult {
    let bytes = layer_like(2 << 20, 15);
    let inner = gzip(&bytes, 6);
    let outer = zstd_frames(&inner, 100_000);
    let (inner_table, _) = pass(&inner, 1 << 16, &Limits::default())?;
    let (outer_table, _) = pass(&outer, 1 << 16, &Limits::default())?;
    let cache = Arc::new(SpanCache::new(1 << 22));
    let below = Stream::new(Arc::new(outer_table), Arc::new(outer), Arc::clone(&cache));
    let stream = Stream::new(Arc::new(inner_table), Arc::new(below), cache);
    compare(&stream, &bytes, 30, 16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_mixture_of_pieces(
        pieces in prop::collection::vec((0_usize..400_000, 0_u64..1000, 0_u32..10), 1..6),
        chunk in 1_usize..100_000,
        is_gzip: bool,
    ) {
        let (mut blob, mut expected) = (Vec::new(), Vec::new());
        for (len, seed, level) in pieces {
            let bytes = layer_like(len, seed);
            blob.extend(match is_gzip {
                true => gzip(&bytes, level),
                false if level == 0 => skippable(7),
                false => zstd(&bytes, i32::try_from(level).unwrap()),
            });
            if is_gzip || level > 0 {
                expected.extend(bytes);
            }
        }
        let (table, decoded) = pass(&blob, chunk, &Limits::default()).unwrap();
        prop_assert!(decoded == expected);
        compare(&open(table, blob, 300_000), &expected, 10, chunk as u64).unwrap();
    }
}
