use super::*;
use crate::tar::{Content, Entry, Kind, Parser};

/// A plain entry: what a row does not say is like this.
fn plain<'a>(path: &'a [u8], kind: NewKind<'a>) -> NewEntry<'a> {
    NewEntry {
        path,
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 1_700_000_000,
        mtime_nanoseconds: 0,
        xattrs: &[],
    }
}

const EMPTY: NewKind<'static> = NewKind::File { size: 0 };

fn written(entry: &NewEntry<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    append(&mut out, entry, &Limits::default()).expect("within the limits");
    assert_eq!(out.len() % BLOCK_SIZE, 0, "whole blocks");
    out
}

/// What our own reader makes of an entry; its bytes are not there, so only of small ones.
fn read_back(entry: &NewEntry<'_>) -> Entry {
    let mut tar = written(entry);
    let stored_len = entry.kind.stored_len();
    let len = usize::try_from(stored_len).expect("a small file");
    tar.resize(tar.len() + len + padding(stored_len), 0);
    tar.extend_from_slice(&END);
    let mut entries = Vec::new();
    let mut parser = Parser::new(Limits::default());
    parser
        .feed(&tar, |entry| {
            entries.push(entry);
            Ok::<(), crate::tar::Error>(())
        })
        .expect("sound");
    let summary = parser.finish().expect("sound");
    assert_eq!(summary.warnings.first(), &[]);
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

/// The keys of the records before an entry, and what they say.
fn records(entry: &NewEntry<'_>) -> Vec<String> {
    let tar = written(entry);
    if tar[156] != flag::PAX {
        return Vec::new();
    }
    let size = std::str::from_utf8(&tar[124..135]).expect("octal digits");
    let size = usize::from_str_radix(size, 8).expect("octal digits");
    let mut rest = &tar[BLOCK_SIZE..BLOCK_SIZE + size];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').expect("a space");
        let len = std::str::from_utf8(&rest[..space]).expect("digits");
        let (record, after) = rest.split_at(len.parse().expect("digits"));
        let text = record[space + 1..].strip_suffix(b"\n").expect("a newline");
        records.push(text.escape_ascii().to_string());
        rest = after;
    }
    records
}

#[test]
fn paths_are_split_while_they_fit() {
    let long = |lens: &[usize]| {
        let parts: Vec<String> = lens.iter().map(|len| "x".repeat(*len)).collect();
        parts.join("/")
    };
    let rows: &[(&str, String, NewKind<'_>, bool)] = &[
        ("100 bytes", long(&[100]), EMPTY, false),
        ("101 bytes without a slash", long(&[101]), EMPTY, true),
        ("101 bytes with one", long(&[50, 50]), EMPTY, false),
        ("255 bytes, cut at 154", long(&[154, 100]), EMPTY, false),
        ("256 bytes, cut at 155", long(&[155, 100]), EMPTY, false),
        ("256 bytes, cut at 156", long(&[156, 99]), EMPTY, true),
        ("257 bytes", long(&[155, 101]), EMPTY, true),
        (
            "a directory with 99 bytes",
            long(&[99]),
            NewKind::Directory,
            false,
        ),
        (
            "a directory with 100 bytes",
            long(&[100]),
            NewKind::Directory,
            true,
        ),
        (
            "a directory below another",
            long(&[155, 99]),
            NewKind::Directory,
            false,
        ),
        (
            "its slash is one too many",
            long(&[155, 100]),
            NewKind::Directory,
            true,
        ),
        ("many short ones", long(&[1; 120]), EMPTY, false),
        ("2,000 levels", long(&[1; 2000]), NewKind::Directory, true),
        ("not ASCII", "gr\u{fc}n".to_owned(), EMPTY, true),
    ];
    for (name, path, kind, in_record) in rows {
        let entry = plain(path.as_bytes(), *kind);
        assert_eq!(read_back(&entry).path, path.as_bytes(), "{name}");
        let records = records(&entry);
        assert_eq!(!records.is_empty(), *in_record, "{name}: {records:?}");
    }
    let raw = b"a\xff\xfe\n=b".as_slice();
    assert_eq!(read_back(&plain(raw, EMPTY)).path, raw, "not UTF-8");
    let root = plain(b"", NewKind::Directory);
    assert_eq!(read_back(&root).path, b"", "the root");
    assert_eq!(&written(&root)[..3], b"./\0", "the root");
}

#[test]
fn numbers_go_to_records_when_they_do_not_fit() {
    let file = |change: fn(&mut NewEntry<'static>)| {
        let mut entry = plain(b"f", EMPTY);
        change(&mut entry);
        entry
    };
    let rows: &[(&str, NewEntry<'static>, &[&str])] = &[
        ("nothing special", file(|_| ()), &[]),
        ("uid 2097151", file(|e| e.uid = 2_097_151), &[]),
        ("uid 2097152", file(|e| e.uid = 2_097_152), &["uid=2097152"]),
        ("gid 2097151", file(|e| e.gid = 2_097_151), &[]),
        (
            "the greatest gid",
            file(|e| e.gid = u32::MAX - 1),
            &["gid=4294967294"],
        ),
        ("1970", file(|e| e.mtime = 0), &[]),
        ("a second before", file(|e| e.mtime = -1), &["mtime=-1"]),
        (
            "half a second before",
            file(|e| (e.mtime, e.mtime_nanoseconds) = (-1, 500_000_000)),
            &["mtime=-0.5"],
        ),
        (
            "a nanosecond before",
            file(|e| (e.mtime, e.mtime_nanoseconds) = (-1, 999_999_999)),
            &["mtime=-0.000000001"],
        ),
        (
            "one and a half before",
            file(|e| (e.mtime, e.mtime_nanoseconds) = (-2, 500_000_000)),
            &["mtime=-1.5"],
        ),
        (
            "a nanosecond",
            file(|e| (e.mtime, e.mtime_nanoseconds) = (0, 1)),
            &["mtime=0.000000001"],
        ),
        (
            "zeros within",
            file(|e| (e.mtime, e.mtime_nanoseconds) = (10, 1_000_100)),
            &["mtime=10.0010001"],
        ),
        ("2038", file(|e| e.mtime = 1 << 31), &[]),
        ("2242, the last", file(|e| e.mtime = 0o777_7777_7777), &[]),
        (
            "one later",
            file(|e| e.mtime = 1 << 33),
            &["mtime=8589934592"],
        ),
        (
            "the last of all",
            file(|e| e.mtime = i64::MAX),
            &["mtime=9223372036854775807"],
        ),
        (
            "the first of all",
            file(|e| e.mtime = i64::MIN),
            &["mtime=-9223372036854775808"],
        ),
        (
            "just after it",
            file(|e| (e.mtime, e.mtime_nanoseconds) = (i64::MIN, 1)),
            &["mtime=-9223372036854775807.999999999"],
        ),
    ];
    for (name, entry, expected) in rows {
        assert_eq!(records(entry), *expected, "{name}");
        let read = read_back(entry);
        let found = (read.uid, read.gid, read.mtime, read.mtime_nanoseconds);
        assert_eq!(
            found,
            (entry.uid, entry.gid, entry.mtime, entry.mtime_nanoseconds),
            "{name}"
        );
    }
}

#[test]
fn sizes_from_8_gib_are_in_a_record() {
    let rows: &[(&str, u64, &[&str], &[u8])] = &[
        ("one less", (8 << 30) - 1, &[], b"77777777777\0"),
        ("8 GiB", 8 << 30, &["size=8589934592"], b"00000000000\0"),
    ];
    for (name, size, expected, field) in rows {
        let entry = plain(b"f", NewKind::File { size: *size });
        assert_eq!(records(&entry), *expected, "{name}");
        let tar = written(&entry);
        assert_eq!(&tar[tar.len() - 512 + 124..][..12], *field, "{name}");
    }
    let holes = NewKind::Sparse {
        size: 1 << 40,
        regions: &[],
    };
    let sparse = read_back(&plain(b"f", holes));
    assert!(matches!(
        sparse.kind,
        Kind::File(Content {
            size: 0x100_0000_0000,
            stored_len: 0,
            ..
        })
    ));
}

#[test]
fn targets_go_to_records_when_they_do_not_fit() {
    let rows: &[(&str, String, bool)] = &[
        ("100 bytes", "x".repeat(100), false),
        ("101 bytes", "x".repeat(101), true),
        ("the longest", "x".repeat(4095), true),
        ("not ASCII", "\u{e9}".to_owned(), true),
    ];
    for (name, target, in_record) in rows {
        let target = target.as_bytes();
        let link = plain(b"l", NewKind::Symlink { target });
        assert_eq!(records(&link).len(), usize::from(*in_record), "{name}");
        let target = target.to_vec();
        assert_eq!(read_back(&link).kind, Kind::Symlink { target }, "{name}");
    }
    let target = "d/".repeat(100) + "f";
    let link = plain(
        b"l",
        NewKind::HardLink {
            target: target.as_bytes(),
        },
    );
    let read = read_back(&link).kind;
    let target = target.clone().into_bytes();
    assert_eq!(read, Kind::HardLink { target });
}

#[test]
fn devices_keep_their_numbers() {
    for number in [0, 1, 4095, 2_097_151, 2_097_152, u32::MAX] {
        let device = Device {
            major: number,
            minor: u32::MAX - number,
        };
        let read = read_back(&plain(b"c", NewKind::CharDevice(device)));
        assert_eq!(read.kind, Kind::CharDevice(device));
        let read = read_back(&plain(b"b", NewKind::BlockDevice(device)));
        assert_eq!(read.kind, Kind::BlockDevice(device));
    }
    assert_eq!(read_back(&plain(b"p", NewKind::Fifo)).kind, Kind::Fifo);
}

#[test]
fn modes_have_twelve_bits() {
    for mode in [0, 0o644, 0o4755, 0o7777] {
        let entry = NewEntry {
            mode,
            ..plain(b"f", EMPTY)
        };
        assert_eq!(read_back(&entry).mode, mode);
    }
}

#[test]
fn sparse_files_have_a_map() {
    let region = |file_offset, len| Region { file_offset, len };
    let rows: &[(&str, u64, &[Region], &str)] = &[
        ("a hole alone", 4096, &[], "1\n4096\n0\n"),
        (
            "a hole before",
            8192,
            &[region(4096, 4096)],
            "1\n4096\n4096\n",
        ),
        (
            "a hole behind",
            8192,
            &[region(0, 100)],
            "2\n0\n100\n8192\n0\n",
        ),
        (
            "holes between",
            1 << 20,
            &[region(0, 1), region(4096, 513), region(65536, 7)],
            "4\n0\n1\n4096\n513\n65536\n7\n1048576\n0\n",
        ),
    ];
    for (name, size, regions, map) in rows {
        let size = *size;
        let entry = plain(b"d/f", NewKind::Sparse { size, regions });
        let tar = written(&entry);
        let text = &tar[tar.len() - 512..];
        assert_eq!(
            text.escape_ascii().to_string().replace("\\x00", ""),
            map.replace('\n', "\\n"),
            "{name}"
        );
        let read = read_back(&entry);
        assert_eq!(read.path, b"d/f", "{name}");
        let Kind::File(content) = read.kind else {
            panic!("{name}")
        };
        assert_eq!(
            (content.size, content.regions.as_deref()),
            (size, Some(*regions)),
            "{name}"
        );
        assert_eq!(&tar[1024..][..22], b"d/GNUSparseFile.0/f\0\0\0", "{name}");
    }
}

#[test]
fn many_regions_take_many_blocks() {
    let regions: Vec<Region> = (0..1000)
        .map(|at| Region {
            file_offset: at * 8192,
            len: 3,
        })
        .collect();
    let size = 8_192_000;
    let read = read_back(&plain(
        b"f",
        NewKind::Sparse {
            size,
            regions: &regions,
        },
    ));
    let Kind::File(content) = read.kind else {
        panic!("a file")
    };
    assert_eq!(content.regions, Some(regions));
}

#[test]
fn extended_attributes_are_records() {
    let list = acl::from_text(b"user::rwx,user:7:r--,group::r-x,mask::r-x,other::---");
    let list = list.expect("sound");
    let rows: &[(&str, &[u8], &[u8], &str)] = &[
        ("plain", b"user.a", b"b", "SCHILY.xattr.user.a=b"),
        ("empty", b"user.a", b"", "SCHILY.xattr.user.a="),
        (
            "any bytes",
            b"user.a\n\xff",
            b"\0=\n",
            "SCHILY.xattr.user.a\\n\\xff=\\x00=\\n",
        ),
        (
            "equals in the name",
            b"user.a=b",
            b"c",
            "LIBARCHIVE.xattr.user.a%3Db=Yw",
        ),
        (
            "percent in the name",
            b"user.a%3D",
            b"c",
            "SCHILY.xattr.user.a%3D=c",
        ),
        (
            "a list",
            b"system.posix_acl_access",
            &list,
            "SCHILY.acl.access=user::rwx,user:7:r--,group::r-x,mask::r-x,other::---",
        ),
    ];
    for (name, key, value, first) in rows {
        let xattrs = [Xattr {
            name: key.to_vec(),
            value: value.to_vec(),
        }];
        let entry = NewEntry {
            xattrs: &xattrs,
            ..plain(b"f", EMPTY)
        };
        assert_eq!(records(&entry)[0], *first, "{name}");
        assert_eq!(read_back(&entry).xattrs, xattrs, "{name}");
    }
}

#[test]
fn what_would_not_be_read_is_not_written() {
    let large = Xattr {
        name: b"user.a".to_vec(),
        value: vec![0; 1 << 16],
    };
    let many = |count: usize| vec![large.clone(); count];
    let rows = [
        ("15 of 64 KiB", many(15), None),
        (
            "16 of 64 KiB",
            many(16),
            Some((Limit::ExtensionSize, 1 << 20)),
        ),
        (
            "4,097 empty ones",
            vec![
                Xattr {
                    name: b"user.a".to_vec(),
                    value: Vec::new()
                };
                4097
            ],
            Some((Limit::PaxRecords, 4096)),
        ),
    ];
    for (name, xattrs, expected) in rows {
        let entry = NewEntry {
            xattrs: &xattrs,
            ..plain(b"f", EMPTY)
        };
        let mut out = b"before".to_vec();
        let result = append(&mut out, &entry, &Limits::default());
        let expected = expected.map_or(Ok(()), |(limit, max)| Err(OverLimit { limit, max }));
        assert_eq!(result, expected, "{name}");
        assert!(result.is_ok() || out == b"before", "{name}");
    }
}

#[test]
fn records_count_their_own_length() {
    for len in (0..120).chain(980..1010).chain(9980..10010) {
        let mut records = Records::default();
        records.push("k", &vec![b'v'; len]);
        let text = String::from_utf8(records.body).expect("ASCII");
        let (said, _) = text.split_once(' ').expect("a space");
        assert_eq!(said.parse(), Ok(text.len()), "{len}");
    }
}

#[test]
fn padding_fills_the_block() {
    for (len, expected) in [
        (0, 0),
        (1, 511),
        (511, 1),
        (512, 0),
        (513, 511),
        (u64::MAX, 1),
    ] {
        assert_eq!(padding(len), expected, "{len}");
    }
}
