//! Archives to read: those of real tools, some of every format made by hand, and damaged
//! ones.

use std::fs;
use std::path::Path;

use crate::common::{Random, TarHeader, extension, pax, pax_record, sum_block};

/// The largest seed; mutations of larger ones cost time and show nothing more.
const MAX_SEED: usize = 32 << 10;

/// Sound archives.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = fs::read_dir(golden).expect("tests/golden is readable");
    let mut paths: Vec<_> = files
        .map(|file| file.expect("it is readable").path())
        .collect();
    paths.sort();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    let mut seeds: Vec<_> = paths
        .iter()
        .map(|path| fs::read(path).expect("a file"))
        .collect();
    seeds.retain(|seed| seed.len() <= MAX_SEED);
    seeds.extend(made());
    seeds.extend(odd());
    seeds
}

fn ended(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Archives of every format, made by hand.
fn made() -> Vec<Vec<u8>> {
    let file = |path: &str, data: &[u8]| {
        TarHeader::new(b'0', path.as_bytes())
            .size(data.len())
            .data(data)
    };
    let other = |flag, path: &str| TarHeader::new(flag, path.as_bytes());
    let link =
        |flag, path: &str, target: &str| other(flag, path).with(157, target.as_bytes()).data(b"");
    let gnu = |flag, path: &str| other(flag, path).with(257, b"ustar  \0");
    let long = "long/".repeat(40);
    vec![
        ended(&[
            other(b'5', "dir/").data(b""),
            file("dir/file", b"hello"),
            link(b'2', "link", "dir/file"),
            link(b'1', "hard", "dir/file"),
        ]),
        ended(&[
            other(0, "v7").with(257, &[0; 8]).size(3).data(b"old"),
            other(0, "v7/").with(257, &[0; 8]).data(b""),
            other(b'7', "contiguous").size(2).data(b"ab"),
        ]),
        ended(&[
            other(b'3', "null")
                .octal(329, 8, 1)
                .octal(337, 8, 3)
                .data(b""),
            other(b'4', "disk")
                .octal(329, 8, 8)
                .octal(337, 8, 1)
                .data(b""),
            other(b'6', "pipe").data(b""),
            file("last", &[7; 700]),
        ]),
        ended(&[
            pax(&[
                ("path", long.as_bytes()),
                ("mtime", b"-1.5"),
                ("uid", b"3000000"),
                ("SCHILY.xattr.user.a", b"b"),
            ]),
            file("short", b"data"),
            pax(&[("linkpath", b"elsewhere"), ("size", b"9")]),
            link(b'2', "symlink", "x"),
            extension(b'g', &pax_record("comment", b"global")),
            file("z", b""),
        ]),
        ended(&[
            extension(b'L', format!("{long}name\0").as_bytes()),
            gnu(b'0', "short").size(4).data(b"data"),
            extension(b'K', format!("{long}target\0").as_bytes()),
            gnu(b'2', "symlink")
                .with(157, &long.as_bytes()[..99])
                .data(b""),
            gnu(b'0', "large")
                .with(108, b"\x80\0\0\0\x10\0\0\0")
                .with(136, &[0xff; 12])
                .data(b""),
        ]),
        ended(&[
            gnu(b'S', "sparse")
                .size(5)
                .with(
                    386,
                    b"00000000000\x0000000000002\x0000000001000\x0000000000003\0",
                )
                .with(483, b"00000010000\0")
                .data(b"aabbb"),
            file("after", b"x"),
        ]),
        ended(&[
            pax(&[
                ("GNU.sparse.size", b"4096"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.map", b"0,2,512,3"),
                ("GNU.sparse.name", b"s01"),
            ]),
            file("GNUSparseFile.0/s01", b"aabbb"),
            pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", b"4096"),
                ("GNU.sparse.name", b"s10"),
            ]),
            file(
                "GNUSparseFile.0/s10",
                &[b"2\n0\n2\n512\n3\n".as_slice(), &[0; 500], b"aabbb"].concat(),
            ),
            file("after", b"x"),
        ]),
        // A long name with a size that cuts it, and an old directory by the header alone.
        ended(&[
            other(b'L', "long").size(4).data(b"long name"),
            gnu(b'0', "short").data(b""),
            extension(b'L', b"dir/file\0"),
            gnu(0, "dir/").data(b""),
        ]),
        ended(&[
            extension(b'L', b""),
            gnu(b'0', "named").data(b""),
            pax(&[("mtime", b"7")]),
            pax(&[("uid", b"7")]),
            file("merged", b""),
        ]),
        ended(&[extension(b'L', b"dir/file\0"), gnu(0, "dir/").data(b"")]),
        ended(&[
            other(b'0', "name")
                .with(345, b"pre/fix")
                .size(2)
                .data(b"ab"),
            other(b'0', "star").with(508, b"tar\0").data(b""),
        ]),
    ]
}

/// Archives that are read in several ways.
fn odd() -> Vec<Vec<u8>> {
    let other = |flag, path: &str| TarHeader::new(flag, path.as_bytes());
    let after = || other(b'0', "after").size(1).data(b"x");
    let v7 = |flag, path: &str| other(flag, path).with(257, &[0; 8]);
    let version = [("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")];
    let size: (&str, &[u8]) = ("GNU.sparse.realsize", b"4096");
    let version: Vec<_> = version
        .into_iter()
        .map(|(key, value)| (key, value.as_slice()))
        .chain([size])
        .collect();
    let with_sum = |at: usize, byte| {
        let mut bytes = ended(&[after(), after()]);
        bytes[1024 + 148 + at] = byte;
        bytes
    };
    vec![
        Vec::new(),
        with_sum(7, b'x'),
        with_sum(0, b'\r'),
        ended(&[pax(&[("mtime", b"+7")]), after()]),
        ended(&[other(b'0', "map")
            .with(257, b"ustar  \0")
            .with(386, b"00000000000\x0000000000001\0")
            .with(483, b"00000010000\0")
            .size(1)
            .data(b"x")]),
        ended(&[extension(b'g', &pax_record("mtime", b"7")), after()]),
        ended(&[other(b'4', "size").size(3).data(b""), after(), after()]),
        ended(&[
            pax(&[("uid", b"7")]),
            other(b'0', "owned").with(108, &[0xff; 8]).data(b""),
        ]),
        ended(&[other(b'V', "label").size(5).data(b"hello"), after()]),
        ended(&[v7(0, "/").size(3).data(b"abc"), after()]),
        ended(&[
            pax(&version),
            other(b'0', "later").size(9).data(b"1\n0\n1\nabc"),
            after(),
        ]),
    ]
}

/// A field of a header: where it is, and how long.
const FIELDS: &[(usize, usize)] = &[
    (0, 100),
    (100, 8),
    (108, 8),
    (116, 8),
    (124, 12),
    (136, 12),
    (156, 1),
    (157, 100),
    (257, 8),
    (329, 8),
    (337, 8),
    (345, 155),
];

const VALUES: &[&[u8]] = &[
    b"",
    b"0",
    b"7",
    b"12 ",
    b" 12",
    b"\x0012",
    b"644\0x",
    b"9",
    b"-1",
    b"+1",
    b"/",
    b"./",
    b"..",
    b"a/../../b",
    b"a//b/",
    b"\xff",
    b"\x80\0\0\0\0\0\0\x07",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"ustar\x0000",
    b"ustar  \0",
    b"x",
    b"g",
    b"L",
    b"K",
    b"S",
    b"V",
    b"5",
    b"1",
    b"2",
    b"Z",
    b"D",
];

/// Damages an archive in one to three ways.
pub(crate) fn mutate(random: &mut Random, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.within(1..4) {
        let blocks = bytes.len() / 512;
        if blocks == 0 {
            break;
        }
        let start = pick(random, blocks) * 512;
        match random.within(0..10) {
            0..5 => mutate_field(random, &mut bytes[start..start + 512]),
            5 => bytes[start + pick(random, 512)] = byte(random),
            6 => {
                let block = bytes[start..start + 512].to_vec();
                let to = pick(random, blocks) * 512;
                bytes.splice(to..to, block);
            }
            7 => drop(bytes.drain(start..start + 512)),
            8 => mutate_text(random, &mut bytes[start..start + 512]),
            _ => bytes.truncate(pick(random, seed.len())),
        }
    }
    bytes
}

fn pick(random: &mut Random, len: usize) -> usize {
    usize::try_from(random.within(0..len as u64)).expect("below a length")
}

fn byte(random: &mut Random) -> u8 {
    random.next().to_le_bytes()[0]
}

/// Sets a field of a header, with the checksum put right.
fn mutate_field(random: &mut Random, block: &mut [u8]) {
    if &block[257..262] != b"ustar" && block[148] != b'0' {
        return;
    }
    let (at, len) = FIELDS[pick(random, FIELDS.len())];
    let value = VALUES[pick(random, VALUES.len())];
    let len = value.len().min(len);
    block[at..at + len].copy_from_slice(&value[..len]);
    if random.within(0..2) == 0 {
        block[at + len
            ..at + FIELDS
                .iter()
                .find(|field| field.0 == at)
                .map_or(len, |field| field.1)]
            .fill(0);
    }
    sum_block(block);
}

/// Changes a byte where there is text.
fn mutate_text(random: &mut Random, block: &mut [u8]) {
    let len = block
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(block.len());
    if len > 0 {
        block[pick(random, len)] = b"0123456789 =\n,.-+/ab"[pick(random, 20)];
    }
}
