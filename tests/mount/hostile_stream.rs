//! Hostile and odd compressed layers: rows C1 to C14.
//!
//! What waits for later work, because there is no `rootfs/` and no tree of a layer yet:
//! - C6: nested archives as files of a tree (a layer that decodes to another archive is
//!   checked here);
//! - C11: the warning about a table of contents that lies (nobody reads it yet, so it
//!   cannot do harm);
//! - C12, C13: EUCLEAN of `rootfs/` for a stream that is no tar;
//! - C14: that an empty layer is an empty tree.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::write::{DeflateEncoder, GzEncoder};
use libc::{EBADMSG, EFBIG, EOPNOTSUPP, EUCLEAN};
use ocifs::oci::Digest;
use serde_json::json;

use crate::common::{Compression, MountOptions, compress, tar_of};
use crate::ward::{Mounted, TAR, TAR_GZIP, TAR_ZSTD, Ward, can_mount, errno_name};

/// What a layer must answer.
enum Answer<'a> {
    /// These bytes.
    Holds(&'a [u8]),
    /// An errno and a code.
    Refused(i32, &'a str),
}

use Answer::{Holds, Refused};

/// A layer: a name for messages, its media type, its stored bytes, and the answer.
type Row<'a> = (&'a str, &'a str, Vec<u8>, Answer<'a>);

/// Mounts an image for each row, whose one layer it is, and asks for the layers.
fn assert_rows(rows: &[Row<'_>]) -> Mounted {
    let ward = Ward::new();
    for (row, media_type, bytes, _) in rows {
        let layer = ward.layout.blob(media_type, bytes);
        ward.add_image_of(row, &[layer]);
    }
    let options = MountOptions::new(ward.layout.path()).memory("16MiB");
    let mounted = ward.mount_with(options);
    for (row, _, _, answer) in rows {
        let path = format!("{row}/layers/00.tar");
        match answer {
            Holds(bytes) => mounted.assert_holds(row, &path, bytes),
            Refused(errno, code) => mounted.assert_refused(row, &path, *errno, code),
        }
    }
    mounted.assert_good("beside all");
    mounted
}

fn sample() -> Vec<u8> {
    let text = "all work and no play\n".repeat(3000);
    tar_of(&[("a", text.as_bytes()), ("b/", b""), ("b/c", b"c")])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    compress(Compression::Gzip, bytes)
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress(Compression::Zstd, bytes)
}

/// A gzip member with these flags and header fields.
fn member(flags: u8, fields: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut body = DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    body.write_all(bytes).expect("memory can be written");
    let len = u32::try_from(bytes.len()).expect("a small member");
    [
        &[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255][..],
        fields,
        &body.finish().expect("memory can be written"),
        &crc32fast::hash(bytes).to_le_bytes(),
        &len.to_le_bytes(),
    ]
    .concat()
}

/// A zstd frame that is skipped, with this content and claimed length.
fn skippable(len: u32, content: &[u8]) -> Vec<u8> {
    [&[0x50, 0x2a, 0x4d, 0x18][..], &len.to_le_bytes(), content].concat()
}

/// `bytes` with the bit 0 of the byte `from_end` wrong; 1 is the last byte.
fn spoilt(bytes: &[u8], from_end: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    bytes
}

fn concat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn c1_other_compression_than_said() {
    if !can_mount("c1_other_compression_than_said") {
        return;
    }
    let tar = sample();
    let other = |magic: &[u8]| concat(&[magic, &[0; 100]]);
    let rows: &[Row<'_>] = &[
        (
            "plain-as-gzip",
            TAR_GZIP,
            tar_of(&[("x", b"1")]),
            Holds(&tar_of(&[("x", b"1")])),
        ),
        ("zstd-as-gzip", TAR_GZIP, zstd(&tar), Holds(&tar)),
        ("gzip-as-zstd", TAR_ZSTD, gzip(&tar), Holds(&tar)),
        ("gzip-as-plain", TAR, member(0, b"", &tar), Holds(&tar)),
        (
            "xz",
            TAR_GZIP,
            other(b"\xfd7zXZ\0"),
            Refused(EOPNOTSUPP, "COMPRESSION"),
        ),
        (
            "xz-as-plain",
            TAR,
            other(b"\xfd7zXZ\0\x01"),
            Refused(EOPNOTSUPP, "COMPRESSION"),
        ),
        (
            "bzip2",
            TAR_GZIP,
            other(b"BZh91AY&SY"),
            Refused(EOPNOTSUPP, "COMPRESSION"),
        ),
        (
            "lz4",
            TAR_ZSTD,
            other(b"\x04\x22\x4d\x18"),
            Refused(EOPNOTSUPP, "COMPRESSION"),
        ),
    ];
    let mounted = assert_rows(rows);
    let stderr = mounted.mount.stderr();
    for (row, _, bytes, answer) in rows {
        let digest = Digest::of(bytes).to_string();
        let is_warned = stderr
            .lines()
            .any(|line| line.contains("MEDIATYPE_MISMATCH") && line.contains(&digest));
        assert_eq!(is_warned, matches!(answer, Holds(_)), "{row}: {stderr}");
    }
}

#[test]
fn c2_many_members() {
    if !can_mount("c2_many_members") {
        return;
    }
    let tar = sample();
    let empty = gzip(b"");
    let small: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let one_each: Vec<u8> = small
        .iter()
        .flat_map(|byte| member(0, b"", &[*byte]))
        .collect();
    let frames = compress(Compression::ZstdFrames(500), &tar);
    assert_rows(&[
        ("one", TAR_GZIP, gzip(&tar), Holds(&tar)),
        (
            "three",
            TAR_GZIP,
            compress(Compression::GzipMembers(tar.len() / 2 - 1), &tar),
            Holds(&tar),
        ),
        ("hundred-thousand", TAR_GZIP, one_each, Holds(&small)),
        (
            "hundred-thousand-empty",
            TAR_GZIP,
            concat(&[&gzip(&tar), &empty.repeat(100_000)]),
            Holds(&tar),
        ),
        (
            "empty-around",
            TAR_GZIP,
            concat(&[&empty, &gzip(&tar), &empty]),
            Holds(&tar),
        ),
        ("frames", TAR_ZSTD, frames, Holds(&tar)),
    ]);
}

#[test]
fn c3_what_follows_the_end() {
    if !can_mount("c3_what_follows_the_end") {
        return;
    }
    let tar = sample();
    let good = gzip(&tar);
    let cut = &good[..good.len() - 1];
    let frame = zstd(&tar);
    assert_rows(&[
        ("zeros", TAR_GZIP, concat(&[&good, &[0; 1000]]), Holds(&tar)),
        (
            "garbage",
            TAR_GZIP,
            concat(&[&good, b"garbage"]),
            Refused(EUCLEAN, "GZ_TRAILING"),
        ),
        (
            "zeros-and-garbage",
            TAR_GZIP,
            concat(&[&good, &[0; 1000], b"x"]),
            Refused(EUCLEAN, "GZ_TRAILING"),
        ),
        (
            "second-member-cut",
            TAR_GZIP,
            concat(&[&good, cut]),
            Refused(EUCLEAN, "STREAM_TRUNCATED"),
        ),
        (
            "zstd-garbage",
            TAR_ZSTD,
            concat(&[&frame, b"garbage"]),
            Refused(EUCLEAN, "ZSTD_FRAME"),
        ),
        (
            "zstd-second-cut",
            TAR_ZSTD,
            concat(&[&frame, &frame[..frame.len() - 1]]),
            Refused(EUCLEAN, "STREAM_TRUNCATED"),
        ),
    ]);
}

#[test]
fn c4_trailers_that_lie() {
    if !can_mount("c4_trailers_that_lie") {
        return;
    }
    let tar = sample();
    let good = gzip(&tar);
    // The length is the last four bytes, the checksum the four before.
    let mut huge = good.clone();
    let at = huge.len() - 4;
    huge[at..].fill(0xff);
    let wrong = || Refused(EUCLEAN, "GZ_CRC");
    let mounted = assert_rows(&[
        ("length", TAR_GZIP, spoilt(&good, 1), wrong()),
        ("length-of-4-gib", TAR_GZIP, huge, wrong()),
        ("checksum", TAR_GZIP, spoilt(&good, 8), wrong()),
        (
            "checksum-of-first",
            TAR_GZIP,
            concat(&[&spoilt(&good, 8), &good, &good]),
            wrong(),
        ),
        (
            "checksum-of-middle",
            TAR_GZIP,
            concat(&[&good, &spoilt(&good, 8), &good]),
            wrong(),
        ),
        (
            "checksum-of-last",
            TAR_GZIP,
            concat(&[&good, &good, &spoilt(&good, 8)]),
            wrong(),
        ),
    ]);
    assert!(mounted.mount.peak_memory() < 200 << 20);
}

#[test]
fn c5_member_headers() {
    if !can_mount("c5_member_headers") {
        return;
    }
    let tar = sample();
    let extra = concat(&[&[0xff, 0xff], &[7; 0xffff]]);
    let endless = concat(&[&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 255], &[b'n'; 100_000]]);
    let endless_comment = concat(&[&[0x1f, 0x8b, 8, 16, 0, 0, 0, 0, 0, 255], &[b'c'; 100_000]]);
    assert_rows(&[
        ("extra", TAR_GZIP, member(4, &extra, &tar), Holds(&tar)),
        (
            "name",
            TAR_GZIP,
            member(8, b"layer.tar\0", &tar),
            Holds(&tar),
        ),
        (
            "name-and-comment",
            TAR_GZIP,
            member(0x18, b"n\0c\0", &tar),
            Holds(&tar),
        ),
        (
            "name-without-end",
            TAR_GZIP,
            endless,
            Refused(EUCLEAN, "STREAM_TRUNCATED"),
        ),
        (
            "comment-without-end",
            TAR_GZIP,
            endless_comment,
            Refused(EUCLEAN, "STREAM_TRUNCATED"),
        ),
        (
            "reserved-flag",
            TAR_GZIP,
            member(0x20, b"", &tar),
            Refused(EUCLEAN, "GZ_HEADER"),
        ),
        (
            "header-checksum",
            TAR_GZIP,
            member(2, b"xx", &tar),
            Refused(EUCLEAN, "GZ_HEADER"),
        ),
        (
            "method",
            TAR_GZIP,
            concat(&[&[0x1f, 0x8b, 7], &gzip(&tar)[3..]]),
            Refused(EUCLEAN, "GZ_HEADER"),
        ),
    ]);
}

/// What `len` zeros are compressed to.
fn zeros(len: u64, mut encoder: impl Write) {
    let block = vec![0; 1 << 20];
    for _ in 0..len >> 20 {
        encoder.write_all(&block).expect("memory can be written");
    }
}

#[test]
fn c6_bombs() {
    if !can_mount("c6_bombs") {
        return;
    }
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
    zeros(256 << 20, &mut encoder);
    let bomb = encoder.finish().expect("memory can be written");
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("a level that exists");
    zeros(1 << 30, &mut encoder);
    let zstd_bomb = encoder.finish().expect("memory can be written");
    // What is inside an archive is never unpacked.
    let nested = gzip(&bomb);
    let below = vec![0; 40 << 20];
    let begun = Instant::now();
    let mounted = assert_rows(&[
        (
            "gzip",
            TAR_GZIP,
            bomb.clone(),
            Refused(EFBIG, "LIMIT_RATIO"),
        ),
        (
            "gzip-repeated",
            TAR_GZIP,
            bomb.repeat(10),
            Refused(EFBIG, "LIMIT_RATIO"),
        ),
        (
            "zstd",
            TAR_ZSTD,
            zstd_bomb.clone(),
            Refused(EFBIG, "LIMIT_RATIO"),
        ),
        ("nested", TAR_GZIP, nested, Holds(&bomb)),
        ("below-the-floor", TAR_GZIP, gzip(&below), Holds(&below)),
    ]);
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(mounted.mount.peak_memory() < 200 << 20);
    let error = mounted
        .xattr("gzip/layers/00.tar", "error")
        .unwrap_or_default();
    assert!(
        error.contains("1000 times"),
        "the limit is not named: {error}"
    );
}

#[test]
fn c7_blocks_of_nothing() {
    if !can_mount("c7_blocks_of_nothing") {
        return;
    }
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let blocks = |count: usize| concat(&[&head, &[0, 0, 0, 0xff, 0xff].repeat(count)]);
    // Fixed-code blocks that hold nothing but their end: ten bits each.
    let fixed = |count: usize| concat(&[&head, &[0x02, 0x08, 0x20, 0x80, 0x00].repeat(count)]);
    assert_rows(&[
        (
            "stored",
            TAR_GZIP,
            blocks(2_000_000),
            Refused(EFBIG, "LIMIT_PROGRESS"),
        ),
        (
            "fixed",
            TAR_GZIP,
            fixed(500_000),
            Refused(EFBIG, "LIMIT_PROGRESS"),
        ),
        (
            "members",
            TAR_GZIP,
            gzip(b"").repeat(1_100_000),
            Refused(EFBIG, "LIMIT_PROGRESS"),
        ),
    ]);
}

#[test]
fn c8_skippable_frames() {
    if !can_mount("c8_skippable_frames") {
        return;
    }
    let tar = sample();
    let (first, second) = tar.split_at(tar.len() / 2);
    let skip = skippable(5, b"hello");
    let everywhere = concat(&[&skip, &zstd(first), &skip, &skip, &zstd(second), &skip]);
    let cut = || Refused(EUCLEAN, "STREAM_TRUNCATED");
    assert_rows(&[
        ("everywhere", TAR_ZSTD, everywhere, Holds(&tar)),
        ("only", TAR_ZSTD, skip.clone(), Holds(b"")),
        (
            "empty",
            TAR_ZSTD,
            concat(&[&skippable(0, b""), &zstd(&tar)]),
            Holds(&tar),
        ),
        (
            "too-long",
            TAR_ZSTD,
            concat(&[&zstd(&tar), &skippable(u32::MAX, b"x")]),
            cut(),
        ),
        (
            "too-long-first",
            TAR_ZSTD,
            concat(&[&skippable(u32::MAX, b""), &zstd(&tar)]),
            cut(),
        ),
        (
            "one-short",
            TAR_ZSTD,
            concat(&[&zstd(&tar), &skippable(6, b"hello")]),
            cut(),
        ),
    ]);
}

/// A zstd frame with one raw block `hello`, and this descriptor and fields.
fn frame(descriptor: u8, fields: &[u8], after: &[u8]) -> Vec<u8> {
    let magic = [0x28, 0xb5, 0x2f, 0xfd, descriptor];
    concat(&[&magic, fields, &[0x29, 0, 0], b"hello", after])
}

#[test]
fn c9_frame_headers() {
    if !can_mount("c9_frame_headers") {
        return;
    }
    let tar = sample();
    let mut long = zstd::Encoder::new(Vec::new(), 1).expect("a level that exists");
    long.window_log(27).expect("a window that is allowed");
    long.write_all(&tar).expect("memory can be written");
    let long = long.finish().expect("memory can be written");
    let mut sized = zstd::Encoder::new(Vec::new(), 1).expect("a level that exists");
    sized
        .set_pledged_src_size(Some(tar.len() as u64))
        .expect("before the first byte");
    sized.include_checksum(true).expect("before the first byte");
    sized.write_all(&tar).expect("memory can be written");
    let sized = sized.finish().expect("memory can be written");
    let mounted = assert_rows(&[
        ("unknown-size", TAR_ZSTD, zstd(&tar), Holds(&tar)),
        ("known-size", TAR_ZSTD, sized.clone(), Holds(&tar)),
        ("window-of-128-mib", TAR_ZSTD, long, Holds(&tar)),
        (
            "window-log-31",
            TAR_ZSTD,
            frame(0, &[0xa8], b""),
            Refused(EFBIG, "ZSTD_WINDOW"),
        ),
        (
            "single-segment-of-1-tib",
            TAR_ZSTD,
            frame(0xe0, &(1_u64 << 40).to_le_bytes(), b""),
            Refused(EFBIG, "ZSTD_WINDOW"),
        ),
        (
            "dictionary",
            TAR_ZSTD,
            frame(1, &[0, 7], b""),
            Refused(EOPNOTSUPP, "ZSTD_DICTIONARY"),
        ),
        (
            "checksum",
            TAR_ZSTD,
            spoilt(&sized, 1),
            Refused(EUCLEAN, "ZSTD_CHECKSUM"),
        ),
        (
            "reserved-bit",
            TAR_ZSTD,
            frame(8, &[0], b""),
            Refused(EUCLEAN, "ZSTD_FRAME"),
        ),
        (
            "wrong-size",
            TAR_ZSTD,
            frame(0x20, &[6], b""),
            Refused(EUCLEAN, "ZSTD_FRAME"),
        ),
    ]);
    assert!(mounted.mount.peak_memory() < 300 << 20);
}

/// An eStargz layer as stargz-snapshotter writes it: a member for each piece, one with the
/// table of contents, and the footer that says where that one is.
fn estargz(tar: &[u8], toc_offset: Option<&str>) -> (Vec<u8>, Vec<u8>) {
    let toc = tar_of(&[("stargz.index.json", br#"{"version":1,"entries":[]}"#)]);
    // The archive goes on in the member with the table: no end blocks before it.
    let content = &tar[..tar.len() - 1024];
    let mut blob = compress(Compression::GzipMembers(700), content);
    let offset = format!("{:016x}STARGZ", blob.len());
    blob.extend(gzip(&toc));
    let offset = toc_offset.unwrap_or(&offset);
    let len = u8::try_from(offset.len()).expect("it is short");
    let field = concat(&[&[len + 4, 0], b"SG", &[len, 0], offset.as_bytes()]);
    blob.extend(member(4, &field, b""));
    (blob, concat(&[content, &toc]))
}

/// A zstd:chunked layer: frames, the manifest in a skippable frame, and the footer.
fn zstd_chunked(tar: &[u8], footer: impl Fn(u64) -> [u64; 4]) -> Vec<u8> {
    let mut blob = compress(Compression::ZstdFrames(700), tar);
    let manifest = zstd(br#"{"version":1,"entries":[]}"#);
    let offset = blob.len() as u64 + 8;
    let len = u32::try_from(manifest.len()).expect("it is short");
    blob.extend(skippable(len, &manifest));
    let numbers: Vec<u8> = footer(offset)
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    let footer = concat(&[&numbers, b"GNUlInUx"]);
    blob.extend(skippable(40, &footer));
    blob
}

#[test]
fn c10_layers_with_their_own_index() {
    if !can_mount("c10_layers_with_their_own_index") {
        return;
    }
    let tar = sample();
    let (blob, decoded) = estargz(&tar, None);
    let chunked = zstd_chunked(&tar, |offset| [offset, 30, 26, 1]);
    assert_rows(&[
        ("estargz", TAR_GZIP, blob, Holds(&decoded)),
        ("zstd-chunked", TAR_ZSTD, chunked, Holds(&tar)),
    ]);
}

#[test]
fn c11_indexes_that_lie() {
    if !can_mount("c11_indexes_that_lie") {
        return;
    }
    let tar = sample();
    let offsets = [
        ("beyond", "7fffffffffffffffSTARGZ"),
        ("negative", "-000000000000001STARGZ"),
        ("itself", "0000000000000000STARGZ"),
        ("no-number", "zzzzzzzzzzzzzzzzSTARGZ"),
    ];
    let layers = offsets.map(|(row, offset)| (row, estargz(&tar, Some(offset))));
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (row, (blob, decoded)) in &layers {
        rows.push((row, TAR_GZIP, blob.clone(), Holds(decoded)));
    }
    type Footer = fn(u64) -> [u64; 4];
    let footers: [(&str, Footer); 3] = [
        ("chunked-beyond", |_| [u64::MAX, 30, 26, 1]),
        ("chunked-huge", |offset| [offset, u64::MAX, u64::MAX, 1]),
        ("chunked-overlapping", |_| [0, 1 << 40, 26, 99]),
    ];
    for (row, footer) in footers {
        rows.push((row, TAR_ZSTD, zstd_chunked(&tar, footer), Holds(&tar)));
    }
    assert_rows(&rows);
}

#[test]
fn c12_streams_cut_at_every_byte() {
    if !can_mount("c12_streams_cut_at_every_byte") {
        return;
    }
    let tar = tar_of(&[("x", b"0123456789")]);
    for (name, media_type, whole) in [
        ("gzip", TAR_GZIP, gzip(&tar)),
        ("zstd", TAR_ZSTD, zstd(&tar)),
    ] {
        let ward = Ward::new();
        // The blobs are what their digests say; the config says what they should hold.
        let cuts: Vec<_> = (0..whole.len())
            .map(|len| ward.layout.blob(media_type, &whole[..len]))
            .collect();
        let diff_ids = vec![Digest::of(&tar).to_string(); cuts.len()];
        let rootfs = json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}, "os": "linux"});
        let config = ward.layout.json(crate::ward::CONFIG, &rootfs);
        let members = json!({"config": config, "layers": cuts});
        ward.layout.add_ref("cut", &ward.layout.manifest(&members));
        let mounted = ward.mount();
        let width = whole.len().to_string().len();
        for len in 0..whole.len() {
            let path = format!("cut/layers/{len:0width$}.tar");
            let errno = errno_name(mounted.errno(&path));
            let error = mounted.xattr(&path, "error").unwrap_or_default();
            let code = error.split(':').next().unwrap_or_default();
            // So little of it that it cannot be told from a plain file.
            let is_unknown = len < if name == "gzip" { 2 } else { 4 };
            let expected = if is_unknown {
                ("EBADMSG", "LAYER_DIFF_ID")
            } else {
                ("EUCLEAN", "STREAM_TRUNCATED")
            };
            assert_eq!((errno.as_str(), code), expected, "{name} after {len} bytes");
        }
        mounted.assert_good(name);
    }
}

#[test]
fn c12_blobs_cut_at_every_byte() {
    if !can_mount("c12_blobs_cut_at_every_byte") {
        return;
    }
    let ward = Ward::new();
    let whole = gzip(&tar_of(&[("x", b"0123456789")]));
    let blob = ward.layout.blob(TAR_GZIP, &whole);
    ward.add_image_of("cut", std::slice::from_ref(&blob));
    let path = ward.layout.blob_path(&blob);
    let mounted = ward.mount();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).expect("the layout is writable");
        let row = format!("after {len} bytes");
        mounted.assert_refused(&row, "cut/layers/00.tar", EBADMSG, "BLOB_SIZE");
    }
}

#[test]
fn c13_compressed_twice() {
    if !can_mount("c13_compressed_twice") {
        return;
    }
    let tar = sample();
    let (inner, frame) = (gzip(&tar), zstd(&tar));
    // One layer of compression is taken off, as the DiffID has it.
    assert_rows(&[
        ("gzip-in-gzip", TAR_GZIP, gzip(&inner), Holds(&inner)),
        ("zstd-in-gzip", TAR_GZIP, gzip(&frame), Holds(&frame)),
    ]);
}

/// The layer that `docker build` writes for steps without files: gzip of 1,024 zeros.
const WELL_KNOWN: [u8; 32] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x09, 0x6e, 0x88, 0x00, 0xff, 0x62, 0x18, 0x05, 0xa3, 0x60, 0x14,
    0x8c, 0x58, 0x00, 0x08, 0x00, 0x00, 0xff, 0xff, 0x2e, 0xaf, 0xb5, 0xef, 0x00, 0x04, 0x00, 0x00,
];

#[test]
fn c14_empty_layers() {
    if !can_mount("c14_empty_layers") {
        return;
    }
    assert_eq!(
        Digest::of(&WELL_KNOWN).encoded(),
        "a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4",
    );
    let end = [0; 1024];
    assert_rows(&[
        ("no-bytes", TAR, Vec::new(), Holds(b"")),
        ("no-bytes-as-gzip", TAR_GZIP, Vec::new(), Holds(b"")),
        ("end-blocks", TAR, end.to_vec(), Holds(&end)),
        ("well-known", TAR_GZIP, WELL_KNOWN.to_vec(), Holds(&end)),
        ("gzip-of-nothing", TAR_GZIP, gzip(b""), Holds(b"")),
        ("zstd-of-nothing", TAR_ZSTD, zstd(b""), Holds(b"")),
    ]);
}
