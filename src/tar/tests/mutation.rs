//! Damaged archives: nothing panics, nothing is unbounded, and pieces make no difference.

use proptest::prelude::*;

use super::build::{Header, archive, dir, extension, file, global, parse_by, pax};
use crate::tar::{Entry, Kind, Limits};

/// An archive with everything in it.
fn everything() -> Vec<u8> {
    let sparse = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.realsize", "4096"),
        ("SCHILY.xattr.user.a", "b"),
        ("LIBARCHIVE.xattr.user.%61", "Yg"),
    ];
    let mut lines = b"1\n10\n2\n".to_vec();
    lines.resize(512, 0);
    lines.extend_from_slice(b"aa");
    archive(&[
        global(&[("comment", "c")]),
        dir("./"),
        pax(&[("path", "a/b"), ("mtime", "-1.5"), ("size", "5")]),
        Header::file("x", 0).data(b"hello"),
        extension(b'L', b"c/../d\0"),
        Header::link(b'1', "l", "a/b").bytes(),
        pax(&sparse),
        file("s", &lines),
        Header::gnu(b'S', "t")
            .size(2)
            .with(386, b"00000000001\x0000000000002\0")
            .with(483, b"00000000007\0")
            .data(b"aa"),
        Header::new(b'3', "null")
            .with(329, b"0000001\x000000003\0")
            .bytes(),
    ])
}

/// What holds of every entry, whatever the bytes were.
fn holds(entry: &Entry) {
    let is_normal = |path: &[u8]| {
        path.is_empty()
            || path.split(|byte| *byte == b'/').all(|name| {
                (1..=255).contains(&name.len())
                    && name != b"."
                    && name != b".."
                    && !name.contains(&0)
            })
    };
    assert!(is_normal(&entry.path), "{entry:?}");
    assert!(
        entry.mode <= 0o7777 && entry.mtime_nanoseconds < 1_000_000_000,
        "{entry:?}"
    );
    match &entry.kind {
        Kind::HardLink { target } => assert!(is_normal(target) && !target.is_empty()),
        Kind::File(content) => {
            let mut end = 0;
            let mut stored = 0;
            for (file_offset, tar_offset, len) in content.extents() {
                assert!(file_offset >= end && len > 0, "{entry:?}");
                assert_eq!(tar_offset, content.data_offset + stored, "{entry:?}");
                end = file_offset + len;
                stored += len;
            }
            assert!(
                end <= content.size && stored == content.stored_len,
                "{entry:?}"
            );
        }
        Kind::Directory
        | Kind::Symlink { .. }
        | Kind::CharDevice(_)
        | Kind::BlockDevice(_)
        | Kind::Fifo => {}
    }
}

/// Puts the sum of the block at `start` right, so that damage gets past it.
fn sum(bytes: &mut [u8], start: usize) {
    let Some(block) = bytes.get_mut(start..start + 512) else {
        return;
    };
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn the_undamaged_archive_is_read() {
    let bytes = everything();
    let (entries, _) = parse_by(&bytes, bytes.len(), &Limits::default()).expect("sound");
    assert_eq!(entries.len(), 6);
    entries.iter().for_each(holds);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damage_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
        len in 1..1500_usize,
    ) {
        let mut bytes = everything();
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
            if bytes[at / 512 * 512 + 257..].starts_with(b"ustar") {
                sum(&mut bytes, at / 512 * 512);
            }
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        let limits = Limits::default();
        let at_once = parse_by(&bytes, bytes.len(), &limits);
        if let Ok((entries, _)) = &at_once {
            entries.iter().for_each(holds);
        }
        prop_assert_eq!(parse_by(&bytes, len, &limits), at_once.clone());
        prop_assert_eq!(parse_by(&bytes, 1, &limits), at_once);
    }

    #[test]
    fn noise_is_no_tar(bytes in prop::collection::vec(any::<u8>(), 512..2048)) {
        prop_assert!(parse_by(&bytes, bytes.len(), &Limits::default()).is_err());
    }
}
