//! Every writer of gzip and zstd that is met in practice, in every mode that shapes its
//! stream: any read equals the slice of what went in.

use super::check;
use crate::common::{Need, has};
use crate::sample::{Random, TestResult, gzip, gzip_members, layer_like, piped, skippable};
use crate::targets::{self, blocks};

/// How much a row gets: writers that search for long get little.
#[derive(Debug, Clone, Copy)]
enum Input {
    Large,
    Small,
}
use Input::{Large, Small};

/// Something of everything: words, programs, zeros, noise, and repetitions from far away.
fn sample() -> Vec<u8> {
    let words = layer_like(2_000_000, 60);
    let mut random = Random(61);
    let noise: Vec<u8> = (0..300_000)
        .map(|_| (random.below(256) & 0xff) as u8)
        .collect();
    let mut program = std::fs::read("/bin/sh").unwrap_or_default();
    program.truncate(400_000);
    let parts = [
        &words[..],
        &[0; 200_000],
        &noise,
        &program,
        &words[..300_000],
        &noise[..50_000],
    ];
    parts.concat()
}

/// `zlib LEVEL MEMORY STRATEGY WINDOW FLUSH EVERY`: deflate as programs call zlib.
const ZLIB: &str = "
import sys, zlib
level, memory, strategy, window, flush, every = map(int, sys.argv[1:])
writer = zlib.compressobj(level, zlib.DEFLATED, 16 + window, memory, strategy)
bytes = sys.stdin.buffer.read()
for at in range(0, len(bytes), every):
    sys.stdout.buffer.write(writer.compress(bytes[at:at + every]))
    if flush and at + every < len(bytes):
        sys.stdout.buffer.write(writer.flush(flush))
sys.stdout.buffer.write(writer.flush())
";

/// What the command of a row writes, in which `SIZE` is that of its input; `None` if the
/// machine does not have it.
fn written(row: &str, bytes: &[u8]) -> TestResult<Option<Vec<u8>>> {
    let row = &row.replace("SIZE", &bytes.len().to_string());
    let mut command: Vec<&str> = row.split(' ').collect();
    if command[0] == "zlib" {
        command.splice(..1, ["python3", "-c", ZLIB]);
    }
    let needs: &[Need] = match command[0] {
        "bgzip" => &[Need::Tool("bgzip")],
        "igzip" => &[Need::Tool("igzip")],
        "libdeflate-gzip" => &[Need::Tool("libdeflate-gzip")],
        "pigz" => &[Need::Tool("pigz")],
        "python3" => &[Need::Tool("python3")],
        "pzstd" => &[Need::Tool("pzstd")],
        "zopfli" => &[Need::Tool("zopfli")],
        "zstd" => &[Need::Tool("zstd")],
        _ => &[],
    };
    if !has(&format!("the writer `{row}`"), needs) {
        return Ok(None);
    }
    piped(&command, bytes).map(Some)
}

fn check_rows(rows: &[(Input, &str)]) -> TestResult {
    let large = sample();
    let small = &large[1_900_000..2_200_000];
    for (input, row) in rows {
        let bytes = match input {
            Large => &large[..],
            Small => small,
        };
        let Some(blob) = written(row, bytes)? else {
            continue;
        };
        check(row, &blob, bytes)?;
        if blob.starts_with(&[0x1f, 0x8b]) {
            continue;
        }
        let spacing = blocks::Spacing {
            span: 1,
            checkpoint: 100_000,
        };
        let mut random = targets::random::Random::of_seed(62);
        let (_, found) = blocks::check_checkpoints(&blob, bytes, spacing, &mut random);
        assert!(found > 0, "{row}: no checkpoints");
    }
    Ok(())
}

#[test]
fn gzip_programs() -> TestResult {
    check_rows(&[
        (Large, "gzip -1"),
        (Large, "gzip -6"),
        (Large, "gzip -9"),
        (Large, "gzip --rsyncable"),
        (Large, "pigz -p1 -6"),
        (Large, "pigz -p2 -1"),
        (Large, "pigz -p2 -9"),
        (Large, "pigz -p2 -i -b 128"),
        (Large, "pigz -p2 -R"),
        (Large, "pigz -U"),
        (Large, "pigz -H"),
        (Large, "pigz -0"),
        (Large, "pigz -p2 -b 512 -1"),
        (Small, "pigz -11 -p2"),
        (Small, "zopfli --i1 -c /dev/stdin"),
        (Large, "libdeflate-gzip -1 -c"),
        (Large, "libdeflate-gzip -6 -c"),
        (Small, "libdeflate-gzip -12 -c"),
        (Large, "igzip -0 -c"),
        (Large, "igzip -1 -c"),
        (Large, "igzip -3 -c"),
        (Large, "igzip -2 -T 2 -c"),
        (Large, "bgzip -c"),
        (Large, "bgzip -l 0 -c"),
        (Large, "zstd --format=gzip -c"),
    ])
}

/// Flushes: 1 partial, 2 sync, 3 full, 5 block. Strategies: 1 filtered, 2 Huffman only,
/// 3 run lengths, 4 fixed tables.
#[test]
fn zlib_of_every_kind() -> TestResult {
    check_rows(&[
        (Large, "zlib 0 8 0 15 0 1000000"),
        (Large, "zlib 1 8 0 15 0 1000000"),
        (Large, "zlib 2 8 0 15 0 1000000"),
        (Large, "zlib 3 8 0 15 0 1000000"),
        (Large, "zlib 4 8 0 15 0 1000000"),
        (Large, "zlib 5 8 0 15 0 1000000"),
        (Large, "zlib 6 8 0 15 0 1000000"),
        (Large, "zlib 7 8 0 15 0 1000000"),
        (Large, "zlib 8 8 0 15 0 1000000"),
        (Large, "zlib 9 9 0 15 0 1000000"),
        // Blocks of a hundred bytes.
        (Large, "zlib 6 1 0 15 0 1000000"),
        (Large, "zlib 6 8 1 15 0 1000000"),
        (Large, "zlib 6 8 2 15 0 1000000"),
        (Large, "zlib 6 8 3 15 0 1000000"),
        (Large, "zlib 6 8 4 15 0 1000000"),
        // A window of 512 bytes.
        (Large, "zlib 6 8 0 9 0 1000000"),
        // As pgzip writes: a marker after each megabyte.
        (Large, "zlib 6 8 0 15 2 1048576"),
        (Large, "zlib 6 8 0 15 3 1048576"),
        (Large, "zlib 6 8 0 15 1 5000"),
        (Large, "zlib 6 8 0 15 2 5000"),
        (Large, "zlib 6 8 0 15 3 5000"),
        (Large, "zlib 6 8 0 15 5 5000"),
        (Small, "zlib 1 8 0 15 2 20"),
        (Large, "zlib 0 8 0 15 2 70000"),
    ])
}

#[test]
fn zstd_programs() -> TestResult {
    check_rows(&[
        (Large, "zstd --fast=5"),
        (Large, "zstd -1"),
        (Large, "zstd -2"),
        (Large, "zstd -3"),
        (Large, "zstd -4"),
        (Large, "zstd -5"),
        (Large, "zstd -6"),
        (Large, "zstd -7"),
        (Large, "zstd -8"),
        (Large, "zstd -9"),
        (Large, "zstd -10"),
        (Large, "zstd -11"),
        (Large, "zstd -12"),
        (Small, "zstd -13"),
        (Small, "zstd -14"),
        (Small, "zstd -15"),
        (Small, "zstd -16"),
        (Small, "zstd -17"),
        (Small, "zstd -18"),
        (Small, "zstd -19"),
        (Small, "zstd --ultra -22"),
    ])
}

/// Matches from far behind what the level would look at.
#[test]
fn zstd_of_every_level_with_long() -> TestResult {
    let rows = (1..=19).map(|level| {
        let input = if level < 10 { Large } else { Small };
        (input, format!("zstd -{level} --long=27"))
    });
    let rows: Vec<_> = rows.collect();
    let rows: Vec<_> = rows.iter().map(|(input, row)| (*input, &**row)).collect();
    check_rows(&rows)
}

#[test]
fn zstd_of_every_kind() -> TestResult {
    check_rows(&[
        (Large, "zstd -T2 -B1MiB"),
        (Large, "zstd -3 -T2 --rsyncable"),
        (Large, "zstd --adapt"),
        (Large, "zstd --no-check"),
        (Large, "zstd --size-hint=SIZE"),
        (Large, "zstd --stream-size=SIZE"),
        (Large, "zstd --target-compressed-block-size=2000"),
        (Large, "zstd --zstd=wlog=10"),
        (Large, "zstd --no-compress-literals"),
        (Small, "zstd -3 --compress-literals"),
        (Large, "zstd -12 --zstd=wlog=19 -T1"),
        (Large, "pzstd -p2 -c"),
        (Large, "pzstd -p1 -9 -c"),
    ])
}

#[test]
fn a_hundred_thousand_members() -> TestResult {
    let bytes = layer_like(1_000_000, 63);
    check("members of 10 bytes", &gzip_members(&bytes, 10), &bytes)
}

/// A member with every field in its header that RFC 1952 knows.
fn with_fields(bytes: &[u8]) -> Vec<u8> {
    let plain = gzip(bytes, 6);
    let mut header = plain[..10].to_vec();
    header[3] = 0b1_1111;
    header.extend_from_slice(&[4, 0, b'A', b'B', 0, 0]);
    header.extend_from_slice(b"name\0comment\0");
    let checksum = crc32fast::hash(&header).to_le_bytes();
    [&header, &checksum[..2], &plain[10..]].concat()
}

#[test]
fn headers_and_frames_among_each_other() -> TestResult {
    let bytes = layer_like(700_000, 64);
    let (first, rest) = bytes.split_at(300_000);
    let gzip_blob = [
        with_fields(first),
        gzip(b"", 9),
        with_fields(b""),
        with_fields(rest),
    ];
    check("fields in headers", &gzip_blob.concat(), &bytes)?;

    // Each frame in another of the ways to say how large it is.
    let mut blob = skippable(3);
    for piece in bytes.chunks(90_000) {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1)?;
        let is_known = piece[0] % 2 == 0;
        encoder.set_pledged_src_size(is_known.then_some(piece.len() as u64))?;
        encoder.include_checksum(piece[1] % 2 == 0)?;
        std::io::Write::write_all(&mut encoder, piece)?;
        blob.extend(encoder.finish()?);
        blob.extend(zstd::bulk::compress(b"", 1)?);
        blob.extend(skippable(u32::from(piece[2])));
    }
    check("frames with and without sizes", &blob, &bytes)
}
