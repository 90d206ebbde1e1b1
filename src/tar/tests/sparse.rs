//! Sparse files in all their forms.

use super::build::{Header, archive, extension, file, parse_with, pax, pax_record, say};
use crate::tar::{ErrorClass, Limits};

/// An old GNU sparse header with these regions and this size of the file; a file follows.
fn old_gnu(regions: &[(&str, &str)], real_size: &str, stored: usize) -> Header {
    let mut header = Header::gnu(b'S', "s").size(stored);
    for (at, (offset, len)) in regions.iter().enumerate() {
        header = header
            .with(386 + at * 24, offset.as_bytes())
            .with(398 + at * 24, len.as_bytes());
    }
    header.with(483, real_size.as_bytes())
}

/// A file in form 1.0 whose map is this text.
fn lines(map: &str, real_size: &str, stored: &[u8]) -> Vec<u8> {
    let mut data = map.as_bytes().to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data.extend_from_slice(stored);
    let version = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")];
    let more = [("GNU.sparse.name", "s"), ("GNU.sparse.realsize", real_size)];
    archive(&[
        pax(&[version, more].concat()),
        file("GNUSparseFile.0/s", &data),
        file("z", b""),
    ])
}

/// A file in form 0.1 with this map.
fn map(count: &str, map: &str, size: &str, stored: &[u8]) -> Vec<u8> {
    let records = [
        ("GNU.sparse.size", size),
        ("GNU.sparse.numblocks", count),
        ("GNU.sparse.map", map),
        ("GNU.sparse.name", "s"),
    ];
    archive(&[
        pax(&records),
        file("GNUSparseFile.0/s", stored),
        file("z", b""),
    ])
}

fn check(rows: &[(&str, Vec<u8>, &str)]) {
    for (name, bytes, expected) in rows {
        assert_eq!(say(bytes), *expected, "{name}");
    }
}

#[test]
fn old_gnu_maps_are_in_headers() {
    let end = file("z", b"");
    let two = [
        ("00000000000\0", "00000000002\0"),
        ("00000001000\0", "00000000003\0"),
    ];
    let mut extension = vec![0; 512];
    extension[..24].copy_from_slice(b"00000002000\x0000000000001\0");
    let mut last = extension.clone();
    last[..24].copy_from_slice(b"00000010000\x0000000000000\0");
    extension[504] = 1;
    let extended = old_gnu(&two, "00000010000\0", 6).with(482, &[1]).bytes();
    check(&[
        (
            "in the header",
            archive(&[
                old_gnu(&two, "00000010000\0", 5).data(b"aabbb"),
                end.clone(),
            ]),
            "sparse s 4096 [(0, 512, 2), (512, 514, 3)], file z 0",
        ),
        (
            "in two more blocks",
            archive(&[
                [
                    extended.clone(),
                    extension.clone(),
                    last,
                    b"aabbbc".to_vec(),
                    vec![0; 506],
                ]
                .concat(),
                end.clone(),
            ]),
            "sparse s 4096 [(0, 1536, 2), (512, 1538, 3), (1024, 1541, 1)], file z 0",
        ),
        (
            "cut in the map",
            [extended, extension[..100].to_vec()].concat(),
            "TAR_TRUNCATED",
        ),
        (
            "nothing but a hole",
            archive(&[old_gnu(&[], "00000010000\0", 0).bytes(), end.clone()]),
            "sparse s 4096 [], file z 0",
        ),
        (
            "T10' another format",
            archive(&[Header::new(b'S', "s").bytes()]),
            "TAR_SPARSE",
        ),
        (
            "T10' no number",
            archive(&[old_gnu(&[("x", "0")], "00000010000\0", 0).bytes()]),
            "TAR_SPARSE",
        ),
        (
            "T10' size is no number",
            archive(&[old_gnu(&[], "x", 0).bytes()]),
            "TAR_NUMBER",
        ),
        (
            "T10' beyond the size",
            archive(&[old_gnu(&two, "00000001002\0", 5).data(b"aabbb")]),
            "TAR_SPARSE",
        ),
        (
            "T10' overlapping",
            archive(&[old_gnu(
                &[two[0], ("00000000001\0", "00000000003\0")],
                "00000010000\0",
                5,
            )
            .data(b"aabbb")]),
            "TAR_SPARSE",
        ),
        (
            "fewer bytes than its regions",
            archive(&[old_gnu(&two, "00000010000\0", 4).data(b"aabb")]),
            "TAR_SPARSE",
        ),
        (
            "more bytes than its regions",
            archive(&[old_gnu(&two, "00000010000\0", 6).data(b"aabbbb")]),
            "TAR_SPARSE",
        ),
    ]);
}

#[test]
fn pax_maps_are_in_records() {
    check(&[
        (
            "0.1",
            map("2", "0,2,512,3", "4096", b"aabbb"),
            "sparse s 4096 [(0, 1536, 2), (512, 1538, 3)], file z 0",
        ),
        (
            "0.1, empty region at the end",
            map("2", "0,2,4096,0", "4096", b"aa"),
            "sparse s 4096 [(0, 1536, 2)], file z 0",
        ),
        (
            "0.1, size in the header",
            map("1", "0,2", "", b"aa"),
            "sparse s 2 [(0, 1536, 2)], file z 0",
        ),
        (
            "T10' unsorted",
            map("2", "512,3,0,2", "4096", b"aabbb"),
            "TAR_SPARSE",
        ),
        (
            "T10' overlapping",
            map("2", "0,2,1,3", "4096", b"aabbb"),
            "TAR_SPARSE",
        ),
        (
            "T10' beyond the size",
            map("1", "4095,2", "4096", b"aa"),
            "TAR_SPARSE",
        ),
        (
            "T10' negative offset",
            map("1", "-1,2", "4096", b"aa"),
            "TAR_SPARSE",
        ),
        (
            "T10' negative length",
            map("1", "5,-1", "4096", b""),
            "TAR_SPARSE",
        ),
        (
            "T10' overflow",
            map("1", "9223372036854775807,1", "9223372036854775807", b"a"),
            "TAR_SPARSE",
        ),
        (
            "T10' negative size",
            map("1", "0,0", "-1", b""),
            "TAR_SPARSE",
        ),
        (
            "T10' size is no number",
            map("1", "0,2", "big", b"aa"),
            "TAR_NUMBER",
        ),
        (
            "T10' fewer than it says",
            map("3", "0,2,512,3", "4096", b"aabbb"),
            "TAR_SPARSE",
        ),
        (
            "T10' more than it says",
            map("1", "0,2,512,3", "4096", b"aabbb"),
            "TAR_SPARSE",
        ),
        (
            "T10' half a region",
            map("1", "0,2,512", "4096", b"aa"),
            "TAR_SPARSE",
        ),
        ("T10' no count", map("", "0,2", "4096", b"aa"), "TAR_SPARSE"),
        (
            "T10' no number",
            map("1", "0,x", "4096", b"aa"),
            "TAR_SPARSE",
        ),
        (
            "T11' 8 EiB",
            map("1", "9223372036854775806,1", "9223372036854775807", b"a"),
            "sparse s 9223372036854775807 [(9223372036854775806, 1536, 1)], file z 0",
        ),
    ]);
}

#[test]
fn pax_maps_of_form_0_0_are_pairs_of_records() {
    let mut body = pax_record("GNU.sparse.size", b"4096");
    body.extend(pax_record("GNU.sparse.numblocks", b"2"));
    for (offset, len) in [("0", "2"), ("512", "3")] {
        body.extend(pax_record("GNU.sparse.offset", offset.as_bytes()));
        body.extend(pax_record("GNU.sparse.numbytes", len.as_bytes()));
    }
    let bytes = archive(&[extension(b'x', &body), file("s", b"aabbb")]);
    assert_eq!(say(&bytes), "sparse s 4096 [(0, 1536, 2), (512, 1538, 3)]");
}

#[test]
fn pax_maps_of_form_1_0_are_lines_before_the_data() {
    let long = format!("{}2\n0\n2\n512\n3\n", "0".repeat(30));
    check(&[
        (
            "1.0",
            lines("2\n0\n2\n512\n3\n", "4096", b"aabbb"),
            "sparse s 4096 [(0, 2048, 2), (512, 2050, 3)], file z 0",
        ),
        (
            "nothing but a hole",
            lines("0\n", "4096", b""),
            "sparse s 4096 [], file z 0",
        ),
        (
            "leading zeros",
            lines(&long, "4096", b"aabbb"),
            "sparse s 4096 [(0, 2048, 2), (512, 2050, 3)], file z 0",
        ),
        (
            "numbers over two blocks",
            lines(&format!("100\n{}", "4000\n0\n".repeat(100)), "4096", b""),
            "sparse s 4096 [], file z 0",
        ),
        (
            "what follows the last number is not looked at",
            lines("1\n0\n2\nrest\n\n", "4096", b"aa"),
            "sparse s 4096 [(0, 2048, 2)], file z 0",
        ),
        ("T10' no map", lines("", "4096", b""), "TAR_SPARSE"),
        (
            "T10' map without an end",
            lines("2\n0\n2\n512", "4096", b""),
            "TAR_SPARSE",
        ),
        (
            "T10' no number",
            lines("1\nx\n2\n", "4096", b"aa"),
            "TAR_SPARSE",
        ),
        (
            "T10' empty line",
            lines("1\n\n2\n", "4096", b"aa"),
            "TAR_SPARSE",
        ),
        (
            "T10' negative count",
            lines("-1\n", "4096", b""),
            "TAR_SPARSE",
        ),
        (
            "T10' more bytes than its regions",
            lines("1\n0\n2\n", "4096", b"aabb"),
            "TAR_SPARSE",
        ),
        (
            "T9' 10^7 regions claimed",
            lines("10000000\n0\n1\n", "4096", b"a"),
            "LIMIT_TAR_SPARSE_REGIONS",
        ),
    ]);
}

#[test]
fn versions_decide_which_form_it_is() {
    let with = |major: &str, minor: &str| {
        let records = [
            ("GNU.sparse.major", major),
            ("GNU.sparse.minor", minor),
            ("GNU.sparse.numblocks", "1"),
            ("GNU.sparse.map", "0,2"),
            ("GNU.sparse.name", "s"),
        ];
        archive(&[pax(&records), file("plain", b"aa")])
    };
    let on = |header: Header| {
        archive(&[
            pax(&[("GNU.sparse.map", "0,0"), ("GNU.sparse.numblocks", "1")]),
            header.bytes(),
        ])
    };
    check(&[
        ("0.0", with("0", "0"), "sparse s 2 [(0, 1536, 2)]"),
        ("0.1", with("0", "1"), "sparse s 2 [(0, 1536, 2)]"),
        ("none", with("", ""), "sparse s 2 [(0, 1536, 2)]"),
        ("unknown", with("2", "0"), "file plain 2"),
        ("half", with("1", ""), "file plain 2"),
        (
            "a directory cannot be sparse",
            on(Header::new(b'5', "a")),
            "TAR_SPARSE",
        ),
        (
            "a link cannot be sparse",
            on(Header::link(b'2', "a", "b")),
            "TAR_SPARSE",
        ),
        (
            "a NUL in the name",
            archive(&[
                pax(&[
                    ("GNU.sparse.map", "0,0"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.name", "a\0b"),
                ]),
                file("a", b""),
            ]),
            "TAR_PATH",
        ),
    ]);
}

#[test]
fn regions_are_limited_in_every_form() {
    let limits = Limits {
        sparse_regions: 3,
        ..Limits::default()
    };
    let mut block = vec![0; 512];
    block[..24].copy_from_slice(b"00000000001\x0000000000000\0");
    block[504] = 1;
    let region = ("00000000001\0", "00000000000\0");
    let header = old_gnu(&[region; 3], "00000000001\0", 0).with(482, &[1]);
    let rows: &[(&str, Vec<u8>)] = &[
        (
            "old GNU, header",
            archive(&[old_gnu(&[region; 4], "00000000001\0", 0).bytes()]),
        ),
        ("old GNU, blocks", [header.bytes(), block].concat()),
        ("0.1", map("4", "0,0,0,0,0,0,0,0", "1", b"")),
        ("1.0", lines("4\n0\n0\n0\n0\n0\n0\n0\n0\n", "1", b"")),
    ];
    for (name, bytes) in rows {
        let error = parse_with(bytes, &limits).expect_err(name);
        assert_eq!(error.code(), "LIMIT_TAR_SPARSE_REGIONS", "T9' {name}");
        assert_eq!(error.class(), ErrorClass::Limit, "T9' {name}");
    }
    assert!(parse_with(&map("3", "0,0,0,0,0,0", "1", b""), &limits).is_ok());
}
