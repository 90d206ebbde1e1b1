//! The parser over archives made by hand. Rows that begin with `T` and a number are those
//! of the table of hostile inputs that the room was built against.
//!
//! Each archive is read at once and in small pieces, which must make no difference.

use std::slice;

mod build;
mod mutation;
mod sparse;

use super::{ErrorClass, Kind, Limits};
pub(super) use build::pax_record;
use build::{Header, archive, dir, extension, file, global, parse, pax, say, say_with};

type Row = (&'static str, Vec<u8>, &'static str);

fn check(rows: &[Row]) {
    for (name, bytes, expected) in rows {
        assert_eq!(say(bytes), *expected, "{name}");
    }
}

#[test]
fn sizes_decide_what_is_data() {
    let inner = archive(&[file("inner", b"")]);
    let long = "x".repeat(101);
    check(&[
        (
            "plain",
            archive(&[file("a", b"hello"), file("b", &[7; 512]), file("c", b"")]),
            "file a 5, file b 512, file c 0",
        ),
        (
            "T1' the size of a pax header counts, for data and for what comes next",
            archive(&[
                pax(&[("size", "1536")]),
                Header::file("a", 0).data(&inner),
                file("b", b""),
            ]),
            "file a 1536, file b 0",
        ),
        (
            "T2' it does not count for extension headers",
            archive(&[
                pax(&[("size", "5")]),
                extension(b'L', long.as_bytes()),
                Header::file("a", 0).data(b"hello"),
                file("b", b""),
            ]),
            &format!("file {long} 5, file b 0").leak()[..],
        ),
        (
            "T24' a hard link has no data",
            archive(&[
                file("a", b"x"),
                Header::link(b'1', "b", "a").size(600).bytes(),
                dir("c"),
            ]),
            "file a 1, link b => a, dir c",
        ),
        (
            "T24' not even with a pax size",
            archive(&[
                pax(&[("size", "9")]),
                Header::link(b'1', "b", "a").bytes(),
                dir("c"),
            ]),
            "link b => a, dir c",
        ),
        (
            "T24' so data is no header",
            archive(&[Header::link(b'1', "b", "a").size(5).data(b"hello")]),
            "TAR_CHECKSUM",
        ),
        (
            "T31' directory",
            archive(&[Header::new(b'5', "a").size(600).bytes(), dir("c")]),
            "dir a, dir c",
        ),
        (
            "T31' symlink",
            archive(&[Header::link(b'2', "a", "b").size(600).bytes(), dir("c")]),
            "symlink a -> b, dir c",
        ),
        (
            "T31' fifo",
            archive(&[Header::new(b'6', "a").size(600).bytes(), dir("c")]),
            "fifo a, dir c",
        ),
        (
            "T12' negative",
            archive(&[Header::file("a", 0).with(124, &[0xff; 12]).bytes()]),
            "TAR_NUMBER",
        ),
        (
            "T12' negative where there is no data",
            archive(&[Header::new(b'5', "a").with(124, &[0xff; 12]).bytes()]),
            "dir a",
        ),
        (
            "T12' above i64",
            archive(&[Header::file("a", 0)
                .with(124, b"\x80\0\0\0\xff\0\0\0\0\0\0\0")
                .bytes()]),
            "TAR_NUMBER",
        ),
        (
            "negative pax size",
            archive(&[pax(&[("size", "-1")]), file("a", b"")]),
            "TAR_NUMBER",
        ),
        (
            "pax size that is none",
            archive(&[pax(&[("size", "1e3")]), file("a", b"")]),
            "TAR_NUMBER",
        ),
        (
            "empty pax size",
            archive(&[pax(&[("size", "")]), file("a", b"hi")]),
            "file a 2",
        ),
        (
            "T32' 8 EiB",
            archive(&[Header::file("a", 0)
                .with(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")
                .bytes()]),
            "TAR_TRUNCATED",
        ),
    ]);
}

#[test]
fn extension_headers_stand_before_their_entry() {
    let x = pax(&[("path", "new")]);
    check(&[
        (
            "T3' two in a row: the last counts",
            archive(&[pax(&[("path", "old")]), x.clone(), file("a", b"")]),
            "file new 0, !TAR_PAX_UNUSED",
        ),
        (
            "T3' the first may make no sense",
            archive(&[pax(&[("uid", "?")]), x.clone(), file("a", b"")]),
            "file new 0, !TAR_PAX_UNUSED",
        ),
        (
            "T3' parted by a global one",
            archive(&[x.clone(), global(&[("comment", "c")]), file("a", b"")]),
            "file a 0, !TAR_PAX_UNUSED",
        ),
        (
            "T3' long name parted by a global one",
            archive(&[extension(b'L', b"long\0"), global(&[]), file("a", b"")]),
            "file a 0",
        ),
        (
            "T3' at the end",
            archive(&[file("a", b""), x.clone()]),
            "file a 0, !TAR_PAX_UNUSED",
        ),
        ("T3' at the end without zeros", x.clone(), "!TAR_PAX_UNUSED"),
        (
            "used once",
            archive(&[x.clone(), file("a", b""), file("b", b"")]),
            "file new 0, file b 0",
        ),
        (
            "T4' damaged",
            archive(&[extension(b'x', b"99 path=a\n"), file("a", b"")]),
            "TAR_PAX",
        ),
        (
            "T4' damaged though replaced",
            archive(&[extension(b'x', b"99 path=a\n"), x.clone(), file("a", b"")]),
            "TAR_PAX",
        ),
        (
            "T5' NUL in the path",
            archive(&[pax(&[("path", "a\0b")]), file("a", b"")]),
            "TAR_PAX",
        ),
        (
            "T5' NUL in the target",
            archive(&[pax(&[("linkpath", "a\0b")]), file("a", b"")]),
            "TAR_PAX",
        ),
        (
            "T6' pax and GNU, equal",
            archive(&[x.clone(), extension(b'L', b"new\0"), file("a", b"")]),
            "file new 0",
        ),
        (
            "T6' pax and GNU",
            archive(&[x.clone(), extension(b'L', b"gnu\0"), file("a", b"")]),
            "file gnu 0, !TAR_TWO_PATHS",
        ),
        (
            "T6' GNU and pax",
            archive(&[extension(b'L', b"gnu"), x.clone(), file("a", b"")]),
            "file gnu 0, !TAR_TWO_PATHS",
        ),
        (
            "an empty long name",
            archive(&[extension(b'L', b""), x.clone(), file("a", b"")]),
            "file new 0",
        ),
        (
            "long link and linkpath",
            archive(&[
                pax(&[("linkpath", "pax")]),
                extension(b'K', b"gnu\0x"),
                Header::link(b'2', "a", "h").bytes(),
            ]),
            "symlink a -> gnu",
        ),
        (
            "linkpath",
            archive(&[
                pax(&[("linkpath", "pax")]),
                Header::link(b'2', "a", "h").bytes(),
            ]),
            "symlink a -> pax",
        ),
        (
            "empty values",
            archive(&[
                pax(&[("path", ""), ("linkpath", "")]),
                Header::link(b'2', "a", "h").bytes(),
            ]),
            "symlink a -> h",
        ),
        (
            "T8' comment",
            archive(&[global(&[("comment", "c")]), file("a", b"")]),
            "file a 0",
        ),
        (
            "T8' global path",
            archive(&[global(&[("path", "g")]), file("a", b"")]),
            "file a 0, !TAR_PAX_GLOBAL",
        ),
        (
            "T8' global size that is none",
            archive(&[global(&[("size", "x")]), file("a", b"")]),
            "file a 0, !TAR_PAX_GLOBAL",
        ),
        (
            "T8' damaged",
            archive(&[extension(b'g', b"1"), file("a", b"")]),
            "TAR_PAX",
        ),
        (
            "negative size",
            archive(&[Header::new(b'x', "x").with(124, &[0xff; 12]).bytes()]),
            "TAR_NUMBER",
        ),
    ]);
}

#[test]
fn limits_are_kept_before_memory_is_used() {
    let limits = Limits {
        entries: 3,
        extension_size: 1024,
        pax_records: 4,
        global_headers: 2,
        depth: 4,
        metadata: 40,
        ..Limits::default()
    };
    let rows: &[Row] = &[
        (
            "T7' 2 GiB declared",
            Header::new(b'x', "x").size(2 << 30).data(&[b'x'; 512]),
            "LIMIT_TAR_EXTENSION",
        ),
        (
            "T7' long name",
            Header::new(b'L', "x").size(1025).bytes(),
            "LIMIT_TAR_EXTENSION",
        ),
        (
            "T7' records",
            archive(&[pax(&[("k", "v"); 5]), file("a", b"")]),
            "LIMIT_TAR_PAX_RECORDS",
        ),
        (
            "T7' as many as allowed",
            archive(&[pax(&[("k", "v"); 4]), file("a", b"")]),
            "file a 0",
        ),
        (
            "T8' global headers",
            archive(&vec![global(&[]); 3]),
            "LIMIT_TAR_GLOBAL_HEADERS",
        ),
        (
            "T33' entries",
            archive(&vec![file("a", b""); 4]),
            "LIMIT_TAR_ENTRIES",
        ),
        (
            "T33' as many as allowed",
            archive(&vec![file("a", b""); 3]),
            "file a 0, file a 0, file a 0",
        ),
        (
            "T18' depth",
            archive(&[file("a/b/c/d/e", b"")]),
            "LIMIT_TAR_DEPTH",
        ),
        (
            "T18' as deep as allowed",
            archive(&[file("a/b/c/d", b"")]),
            "file a/b/c/d 0",
        ),
        (
            "metadata",
            archive(&[file(&"x".repeat(41), b"")]),
            "LIMIT_TAR_METADATA",
        ),
    ];
    for (name, bytes, expected) in rows {
        assert_eq!(say_with(bytes, &limits), *expected, "{name}");
    }
    let error = parse(&Header::new(b'x', "x").size(2 << 30).bytes()).expect_err("a limit");
    assert_eq!(error.class(), ErrorClass::Limit);
    assert_eq!(
        error.to_string(),
        "tar header at byte 0: more than the limit of 1048576 bytes in an extension header"
    );
}

#[test]
fn header_blocks_are_told_from_noise() {
    let plain = Header::file("a", 0);
    let signed = {
        // A byte of 0xE9 counts -23 for those who add signed numbers.
        let header = Header::file("\u{e9}", 0);
        let sum: i32 = header
            .0
            .iter()
            .enumerate()
            .map(|(at, byte)| match at {
                148..156 => 32,
                _ => i32::from(i8::from_ne_bytes([*byte])),
            })
            .sum();
        let mut header = header;
        header.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    };
    let mut bad = plain.clone();
    bad.0[0] ^= 1;
    let mut blank = plain.clone();
    blank.0[148..156].fill(b' ');
    let mut sum_text = plain.clone();
    sum_text.0[148] = b'x';
    check(&[
        ("T14' bad", archive(&[bad.bytes()]), "TAR_CHECKSUM"),
        ("T14' blank", archive(&[blank.bytes()]), "TAR_CHECKSUM"),
        (
            "T14' no number",
            archive(&[sum_text.bytes()]),
            "TAR_CHECKSUM",
        ),
        (
            "T14' signed",
            archive(&[signed.bytes()]),
            "file \\xc3\\xa9 0",
        ),
        (
            "C13 no tar at all",
            b"\x1f\x8b\x08".iter().copied().cycle().take(1024).collect(),
            "TAR_CHECKSUM",
        ),
        (
            "T13' spaces",
            archive(&[plain.clone().with(100, b"  644 \0 ").bytes()]),
            "file a 0",
        ),
        (
            "T13' all NUL",
            archive(&[plain.clone().with(100, &[0; 48]).bytes()]),
            "file a 0",
        ),
        (
            "T13' garbage in the mode",
            archive(&[plain.clone().with(100, b"rw-r--r-").bytes()]),
            "TAR_NUMBER",
        ),
        (
            "T13' garbage in a device number of a file",
            archive(&[plain.clone().with(329, b"garbage\0").bytes()]),
            "TAR_NUMBER",
        ),
        (
            "T13' garbage there in V7",
            archive(&[Header::v7(0, "a").with(329, b"garbage\0").bytes()]),
            "file a 0",
        ),
    ]);
}

#[test]
fn the_archive_ends_where_go_says() {
    let a = file("a", b"hello");
    let b = file("b", b"");
    let zeros = vec![0; 512];
    let cut = |bytes: Vec<u8>, len: usize| bytes[..len].to_vec();
    check(&[
        ("C14 no bytes", vec![], ""),
        ("C14 1,024 zeros", vec![0; 1024], ""),
        ("T15' no end", a.clone(), "file a 5"),
        (
            "T15' half an end",
            [a.clone(), zeros.clone()].concat(),
            "file a 5",
        ),
        (
            "T15' a lone block of zeros",
            [a.clone(), zeros.clone(), b.clone()].concat(),
            "TAR_ZERO_BLOCK",
        ),
        (
            "T15' one and a half",
            [a.clone(), vec![0; 700]].concat(),
            "TAR_TRUNCATED",
        ),
        (
            "T15' padded to 10 KiB",
            [archive(slice::from_ref(&a)), vec![0; 10_000]].concat(),
            "file a 5",
        ),
        (
            "T15' data behind",
            [archive(slice::from_ref(&a)), b"data".to_vec()].concat(),
            "file a 5, !TAR_TRAILING",
        ),
        (
            "T35' another archive behind",
            [archive(slice::from_ref(&a)), archive(slice::from_ref(&b))].concat(),
            "file a 5, !TAR_TRAILING",
        ),
        (
            "T16' cut in the header",
            cut(a.clone(), 511),
            "TAR_TRUNCATED",
        ),
        (
            "T16' cut in the second header",
            [a.clone(), cut(b, 1)].concat(),
            "TAR_TRUNCATED",
        ),
        ("T16' cut in the data", cut(a.clone(), 516), "TAR_TRUNCATED"),
        (
            "T16' cut before the data",
            cut(a.clone(), 512),
            "TAR_TRUNCATED",
        ),
        (
            "T16' cut before the padding",
            cut(a.clone(), 517),
            "file a 5",
        ),
        ("T16' cut in the padding", cut(a.clone(), 518), "file a 5"),
        (
            "T16' cut in a pax header",
            cut(pax(&[("path", "p")]), 515),
            "TAR_TRUNCATED",
        ),
        (
            "T16' cut in its padding",
            cut(pax(&[("path", "p")]), 600),
            "!TAR_PAX_UNUSED",
        ),
        (
            "something in the padding",
            [cut(a, 517), vec![7; 507]].concat(),
            "file a 5",
        ),
    ]);
}

#[test]
fn paths_are_those_of_every_format() {
    let prefix = format!("{}/{}", "p".repeat(100), "q".repeat(54));
    let name = "n".repeat(100);
    let joined: &str = format!("file {prefix}/{name} 0").leak();
    let gnu = Header::gnu(b'0', "a");
    check(&[
        (
            "T34' V7",
            archive(&[Header::v7(0, "a").size(5).data(b"hello")]),
            "file a 5",
        ),
        (
            "T34' V7 has no prefix",
            archive(&[Header::v7(0, "a").with(345, b"p").bytes()]),
            "file a 0",
        ),
        (
            "T34' ustar, prefix and name full",
            archive(&[Header::file(&name, 0).with(345, prefix.as_bytes()).bytes()]),
            joined,
        ),
        (
            "T34' another version",
            archive(&[Header::file("a", 0)
                .with(263, b"  ")
                .with(345, b"p")
                .bytes()]),
            "file p/a 0",
        ),
        (
            "T34' star's prefix is shorter",
            archive(&[Header::star("a")
                .with(345, &[b'p'; 131])
                .with(476, b"00000000001 00000000001 ")
                .bytes()]),
            &format!("file {}/a 0", "p".repeat(131)).leak()[..],
        ),
        (
            "T34' star with a bad time",
            archive(&[Header::star("a").with(476, b"x").bytes()]),
            "TAR_NUMBER",
        ),
        (
            "T34' GNU has times there",
            archive(&[gnu
                .clone()
                .with(345, b"00000000001\x0000000000001\0")
                .bytes()]),
            "file a 0",
        ),
        (
            "T34' Go before 1.8 wrote a prefix",
            archive(&[gnu.clone().with(345, b"some/dir").bytes()]),
            "file some/dir/a 0",
        ),
        (
            "T34' unless it is not ASCII",
            archive(&[gnu.with(345, "d\u{e9}".as_bytes()).bytes()]),
            "file a 0",
        ),
        (
            "T17' climbs",
            archive(&[file("../../etc/x", b"")]),
            "file etc/x 0, !TAR_PATH",
        ),
        (
            "T17' absolute",
            archive(&[file("/etc/x", b"")]),
            "file etc/x 0",
        ),
        (
            "T17' root",
            archive(&[dir("./"), dir("/"), dir("")]),
            "dir , dir , dir ",
        ),
        (
            "T17' above the root",
            archive(&[dir("..")]),
            "dir , !TAR_PATH",
        ),
        (
            "T17' a file without a name",
            archive(&[file("", b"")]),
            "TAR_PATH",
        ),
        (
            "T18' component of 255 bytes",
            archive(&[pax(&[("path", &"x".repeat(255))]), file("a", b"")]),
            &format!("file {} 0", "x".repeat(255)).leak()[..],
        ),
        (
            "T18' component of 256 bytes",
            archive(&[pax(&[("path", &"x".repeat(256))]), file("a", b"")]),
            "TAR_NAME_TOO_LONG",
        ),
        (
            "T18' depth 10,000",
            archive(&[pax(&[("path", &"a/".repeat(10_000))]), file("a", b"")]),
            "LIMIT_TAR_DEPTH",
        ),
        (
            "T19' bytes",
            archive(&[
                Header::new(b'0', "").with(0, b"a\n\x1b\xff\\ .").bytes(),
                file("CON", b""),
            ]),
            "file a\\n\\x1b\\xff\\\\ . 0, file CON 0",
        ),
        (
            "T20' symlink at the root",
            archive(&[Header::link(b'2', ".", "/etc").bytes()]),
            "TAR_PATH",
        ),
        (
            "T20' symlink at the root, absolute",
            archive(&[Header::link(b'2', "/.", "/etc").bytes()]),
            "TAR_PATH",
        ),
    ]);
}

#[test]
fn links_lead_where_links_can() {
    let symlink =
        |target: &str| archive(&[pax(&[("linkpath", target)]), Header::new(b'2', "a").bytes()]);
    let link = |path: &str, target: &str| archive(&[Header::link(b'1', path, target).bytes()]);
    check(&[
        (
            "symlinks are kept as they are",
            symlink("../../x//./y/"),
            "symlink a -> ../../x//./y/",
        ),
        ("empty symlink", symlink(""), "TAR_LINK"),
        (
            "symlink of 4,095 bytes",
            symlink(&"/x".repeat(2047)),
            &format!("symlink a -> {}", "/x".repeat(2047)).leak()[..],
        ),
        (
            "symlink of 4,096 bytes",
            symlink(&"/x".repeat(2048)),
            "TAR_NAME_TOO_LONG",
        ),
        (
            "T23' to a later or missing entry",
            link("a", "later"),
            "link a => later",
        ),
        ("T23' absolute", link("a", "/b/./c"), "link a => b/c"),
        ("T23' to itself", link("a/b", "./a//b"), "TAR_LINK"),
        ("T23' to above the root", link("a", "../x"), "TAR_LINK"),
        ("T23' to the root", link("a", "."), "TAR_LINK"),
        (
            "T23' component of 256 bytes",
            archive(&[
                extension(b'K', &[b'x'; 256]),
                Header::new(b'1', "a").bytes(),
            ]),
            "TAR_NAME_TOO_LONG",
        ),
    ]);
}

#[test]
fn types_are_those_that_a_layer_can_have() {
    let device = |flag| Header::new(flag, "a").with(329, b"0000001\x000000003\0");
    let of = |flag| archive(&[Header::new(flag, "a").bytes(), dir("z")]);
    check(&[
        ("T26' unknown", of(b'Z'), "TAR_TYPE"),
        (
            "T26' contiguous",
            archive(&[Header::new(b'7', "a").size(5).data(b"hello"), dir("z")]),
            "file a 5, dir z",
        ),
        (
            "T26' old directory",
            archive(&[Header::v7(0, "a/").size(600).bytes(), dir("z")]),
            "dir a, dir z",
        ),
        (
            "T26' old directory, by a long name",
            archive(&[extension(b'L', b"l/\0"), Header::v7(0, "a").bytes()]),
            "dir l",
        ),
        (
            "T26' old type in ustar",
            archive(&[Header::new(0, "a/").bytes()]),
            "dir a",
        ),
        (
            "T26' a file with a slash",
            archive(&[Header::new(b'0', "a/").size(5).data(b"hello"), dir("z")]),
            "file a 5, dir z",
        ),
        ("T26' incremental", of(b'D'), "TAR_TYPE"),
        ("T26' multi-volume", of(b'M'), "TAR_TYPE"),
        ("T26' old long names", of(b'N'), "TAR_TYPE"),
        (
            "T26' volume label",
            archive(&[Header::new(b'V', "label").size(5).data(b"hello"), dir("z")]).clone(),
            "dir z",
        ),
        ("T34' Solaris", of(b'X'), "TAR_TYPE"),
        (
            "T27' character device",
            archive(&[device(b'3').bytes()]),
            "char a 1:3",
        ),
        (
            "T27' block device",
            archive(&[device(b'4').bytes()]),
            "block a 1:3",
        ),
        (
            "T27' 0:0",
            archive(&[Header::new(b'3', "a").bytes()]),
            "char a 0:0",
        ),
        ("T27' fifo", of(b'6'), "fifo a, dir z"),
        (
            "T27' V7 has no device numbers",
            archive(&[Header::v7(b'3', "a")
                .with(329, b"0000001\x000000003\0")
                .bytes()]),
            "char a 0:0",
        ),
        (
            "device number above u32",
            archive(&[Header::gnu(b'3', "a")
                .with(329, b"\x80\0\0\x01\0\0\0\0")
                .bytes()]),
            "TAR_NUMBER",
        ),
    ]);
    let class = |bytes: &[u8]| parse(bytes).map_err(|error| error.class()).err();
    assert_eq!(class(&of(b'X')), Some(ErrorClass::Unsupported));
    assert_eq!(class(&of(b'Z')), Some(ErrorClass::Malformed));
}

#[test]
fn owners_fit_a_file_system() {
    let uid = |value: &str| archive(&[pax(&[("uid", value)]), file("a", b"")]);
    let in_header = |field: &[u8]| archive(&[Header::file("a", 0).with(116, field).bytes()]);
    type Row = (&'static str, Vec<u8>, Option<(u32, u32)>);
    let rows: &[Row] = &[
        ("T29' 2^31", uid("2147483648"), Some((1 << 31, 0))),
        ("T29' 2^32 - 2", uid("4294967294"), Some((u32::MAX - 1, 0))),
        ("T29' 2^32 - 1", uid("4294967295"), None),
        ("T29' 2^63", uid("9223372036854775808"), None),
        ("T29' negative", uid("-1"), None),
        ("T29' no number", uid("root"), None),
        (
            "T29' base-256",
            in_header(b"\x80\0\0\0\x80\0\0\0"),
            Some((0, 1 << 31)),
        ),
        ("T29' base-256, negative", in_header(&[0xff; 8]), None),
        (
            "a pax value counts before one that does not fit",
            archive(&[
                pax(&[("gid", "7")]),
                Header::file("a", 0).with(116, &[0xff; 8]).bytes(),
            ]),
            Some((0, 7)),
        ),
    ];
    for (name, bytes, expected) in rows {
        let owner = parse(bytes).map(|(entries, _)| (entries[0].uid, entries[0].gid));
        match expected {
            Some(expected) => assert_eq!(owner.as_ref(), Ok(expected), "{name}"),
            None => assert_eq!(
                owner.map_err(|error| error.code()),
                Err("TAR_NUMBER"),
                "{name}"
            ),
        }
    }
}

#[test]
fn times_and_modes_are_kept() {
    let mtime = |value: &str| archive(&[pax(&[("mtime", value)]), file("a", b"")]);
    type Row = (&'static str, Vec<u8>, Result<(i64, u32), &'static str>);
    let rows: &[Row] = &[
        (
            "header",
            archive(&[Header::file("a", 0).with(136, b"14742355000\0").bytes()]),
            Ok((0o14_742_355_000, 0)),
        ),
        (
            "T30' before 1970 in a header",
            archive(&[Header::file("a", 0).with(136, &[0xff; 12]).bytes()]),
            Ok((-1, 0)),
        ),
        ("T30' -1", mtime("-1"), Ok((-1, 0))),
        (
            "T30' twelve digits",
            mtime("1.123456789123"),
            Ok((1, 123_456_789)),
        ),
        ("T30' 2^63", mtime("9223372036854775808"), Err("TAR_NUMBER")),
        ("T30' NaN", mtime("NaN"), Err("TAR_NUMBER")),
        (
            "bad access time",
            archive(&[pax(&[("atime", "x")]), file("a", b"")]),
            Err("TAR_NUMBER"),
        ),
        (
            "bad change time",
            archive(&[pax(&[("ctime", "1.x")]), file("a", b"")]),
            Err("TAR_NUMBER"),
        ),
    ];
    for (name, bytes, expected) in rows {
        let time =
            parse(bytes).map(|(entries, _)| (entries[0].mtime, entries[0].mtime_nanoseconds));
        assert_eq!(time.map_err(|error| error.code()), *expected, "{name}");
    }
    assert_eq!(
        say(&mtime("-9223372036854775808.5")),
        "file a 0, !TAR_TIME",
        "T30' clamped"
    );
    let (entries, _) = parse(&archive(&[Header::file("a", 0)
        .with(100, b"0107755\0")
        .bytes()]))
    .expect("sound");
    assert_eq!(
        entries[0].mode, 0o7755,
        "T28' setuid, setgid and sticky, no file type"
    );
}

#[test]
fn entries_say_where_they_and_their_data_are() {
    let bytes = archive(&[pax(&[("path", "a")]), file("x", b"hello"), file("b", b"")]);
    let (entries, _) = parse(&bytes).expect("sound");
    let places: Vec<_> = entries
        .iter()
        .map(|entry| match &entry.kind {
            Kind::File(content) => (entry.header_offset, content.extents().collect()),
            _ => (entry.header_offset, Vec::new()),
        })
        .collect();
    assert_eq!(places, [(1024, vec![(0, 1536, 5)]), (2048, vec![])]);
}

#[test]
fn warnings_are_bounded_and_escaped() {
    let bytes = archive(&vec![file("../\x1b[2J", b""); 100]);
    let (_, summary) = parse(&bytes).expect("sound");
    assert_eq!(summary.warnings.first().len(), 64);
    assert_eq!(summary.warnings.more(), 36);
    assert_eq!(
        summary.warnings.first()[0].to_string(),
        "tar header at byte 0: path \"../\\x1b[2J\" climbs above the root"
    );
}
