use super::*;
use crate::tar::{self, Entry, Kind, Limits};

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn toc(compression: Compression) -> Result<Toc, span::Fault> {
    let span = |start, check| Span {
        tar_offset: TarOffset(start),
        blob_offset: BlobOffset(start / 2),
        check,
    };
    let checkpoint = |span, restart| Checkpoint {
        span: SpanId(span),
        restart,
    };
    let fresh = Restart::Fresh {
        blob_offset: BlobOffset(7),
    };
    let range = HeapRange {
        start: 1,
        len: 3,
        check: span::check(&[2, 3, 4]),
    };
    let middle = match compression {
        Compression::Zstd => Restart::Dictionary {
            state: range,
            state_len: 99,
            end: SpanId(2),
        },
        Compression::Plain | Compression::Gzip => Restart::Deflate {
            bit_offset: 12345,
            window: range,
            window_len: 77,
        },
    };
    let table = SpanTable::new(
        compression,
        1000,
        vec![span(0, 5), span(300, u64::MAX), span(999, 0)],
        Checkpoints {
            list: vec![checkpoint(0, fresh), checkpoint(1, middle)],
            heap: vec![1, 2, 3, 4, 5].into(),
        },
    )?;
    let diff_id = DiffId(Digest::of(b"decoded"));
    Ok(Toc::new(Digest::of(b"blob"), 600, diff_id, table))
}

fn tree() -> Result<Arc<Tree>, Box<dyn std::error::Error>> {
    let mut builder = tree::Builder::new(&Limits::default());
    let entry = |path: &[u8], kind| Entry {
        header_offset: 0,
        path: path.to_vec(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nanoseconds: 0,
        xattrs: Vec::new(),
    };
    let target = b"a/b".to_vec();
    builder.insert(&entry(b"a/b", Kind::Fifo))?;
    builder.insert(&entry(b"c", Kind::Symlink { target }))?;
    Ok(Arc::new(builder.finish()))
}

fn encoded(compression: Compression) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let toc = toc(compression)?;
    toc.set_tree(Ok(tree()?));
    let mut bytes = Vec::new();
    encode(&toc, &mut bytes)?;
    Ok(bytes)
}

#[test]
fn what_was_written_is_read() -> TestResult {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let (bytes, digest) = (encoded(compression)?, Digest::of(b"blob"));
        assert_eq!(
            decode(&bytes, &digest)?,
            toc(compression)?,
            "{compression:?}"
        );
        assert_eq!(
            decode_tree(&bytes, &digest)?.map(|tree| tree.map(Arc::new)),
            Some(Ok(tree()?)),
            "{compression:?}"
        );
    }
    Ok(())
}

#[test]
fn a_layer_without_a_tree_is_kept_too() -> TestResult {
    let mut bytes = Vec::new();
    encode(&toc(Compression::Gzip)?, &mut bytes)?;
    let digest = Digest::of(b"blob");
    assert_eq!(decode(&bytes, &digest)?, toc(Compression::Gzip)?);
    assert_eq!(decode_tree(&bytes, &digest), Ok(None));
    Ok(())
}

#[test]
fn why_there_is_no_tree_is_kept_unless_others_may_accept_more() -> TestResult {
    let long = "\u{e9}".repeat(MAX_TEXT);
    let known = |code, text: &str| tree::Error::Known {
        code,
        class: ErrorClass::Unsupported,
        text: text.into(),
    };
    let limit = tree::Error::Limit {
        header_offset: 0,
        what: "files",
        max: 1,
    };
    let checksum = tree::Error::Tar(tar::Error::Checksum { header_offset: 512 });
    let read_again = tree::Error::Known {
        code: "TAR_CHECKSUM",
        class: ErrorClass::Malformed,
        text: checksum.to_string().into(),
    };
    let rows = [
        ("from a pass", checksum, Some(read_again)),
        (
            "again",
            known("TAR_TYPE", "x"),
            Some(known("TAR_TYPE", "x")),
        ),
        (
            "cut",
            known("TAR_TYPE", &long),
            Some(known("TAR_TYPE", &long[..MAX_TEXT])),
        ),
        ("a limit", limit, None),
        ("no name of ours", known("OTHER", "x"), None),
    ];
    let digest = Digest::of(b"blob");
    for (name, error, expected) in rows {
        let toc = toc(Compression::Gzip)?;
        toc.set_tree(Err(error));
        let mut bytes = Vec::new();
        encode(&toc, &mut bytes)?;
        assert_eq!(decode_tree(&bytes, &digest)?, expected.map(Err), "{name}");
    }
    let rows: [(&str, &[u8]); 6] = [
        ("no class", b""),
        ("no such class", b"\x02\x08\0TAR_TYPE\0\0"),
        ("no such name", b"\0\x08\0TAR_TYPO\0\0"),
        ("no text", b"\0\x08\0TAR_TYPE"),
        ("text that is none", b"\0\x08\0TAR_TYPE\x01\0\xff"),
        ("more", b"\0\x08\0TAR_TYPE\0\0\0"),
    ];
    for (name, bytes) in rows {
        assert!(read_failure(bytes).is_err(), "{name}");
    }
    Ok(())
}

#[test]
fn the_file_of_another_blob_is_refused() -> TestResult {
    let (bytes, other) = (encoded(Compression::Zstd)?, Digest::of(b"other"));
    assert_eq!(decode(&bytes, &other).err(), Some(Fault::OtherBlob));
    assert_eq!(decode_tree(&bytes, &other).err(), Some(Fault::OtherBlob));
    Ok(())
}

#[test]
fn a_sound_file_of_another_version_is_foreign() -> TestResult {
    let good = encoded(Compression::Zstd)?;
    let digest = Digest::of(b"blob");
    let sections = Sections::read(&good).map(|sections| sections.list.len())?;
    let head = HEADER_LEN + RECORD_LEN * sections;
    let end = head + CHECK_LEN;
    for version in [0, VERSION - 1, VERSION, VERSION + 1] {
        let mut other = good.clone();
        other[8..12].copy_from_slice(&version.to_le_bytes());
        let check = span::check(&other[..head]);
        other[head..end].copy_from_slice(&check.to_le_bytes());
        let expected = (version != VERSION).then_some(Fault::Foreign);
        assert_eq!(decode(&other, &digest).err(), expected, "{version}");
        assert_eq!(decode_tree(&other, &digest).err(), expected, "{version}");
    }
    Ok(())
}

#[test]
fn damage_at_any_bit_and_any_cut_is_noticed() -> TestResult {
    let good = encoded(Compression::Zstd)?;
    let digest = Digest::of(b"blob");
    let both = |bytes: &Vec<u8>| {
        decode(bytes, &digest).and_then(|_| decode_tree(bytes, &digest).map(drop))
    };
    assert_eq!(both(&good), Ok(()));
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(both(&bad).is_err(), "byte {at} bit {bit}");
        }
        assert!(both(&good[..at].to_vec()).is_err(), "cut at {at}");
    }
    let longer = [&good[..], b"x"].concat();
    assert_eq!(both(&longer), Err(Fault::Length));
    Ok(())
}
