//! Tars: `tar::Parser`.
//!
//! Invariants, for any bytes, also once the sums of all headers are put right:
//! - no panic;
//! - how the bytes are cut into calls makes no difference: to entries, to warnings, to
//!   what is wrong;
//! - limits are kept: on entries, depth, regions and bytes of metadata;
//! - paths and hard link targets are normal and below the root;
//! - regions of a sparse file are in order and within the file, and the data of all
//!   entries lies in the tar, behind its header, one entry after the other.

use ocifs::tar::{Entry, Error, Kind, Limits, Parser, Region, Summary};

use super::random::Random;

const BLOCK: usize = 512;

/// Low ones, so that they are met.
fn limits() -> Limits {
    Limits {
        entries: 50,
        extension_size: 8 << 10,
        pax_records: 30,
        global_headers: 5,
        sparse_regions: 40,
        depth: 20,
        metadata: 16 << 10,
    }
}

/// Checks the invariants.
pub fn check(bytes: &[u8]) {
    check_one(bytes);
    if let Some(summed) = with_right_sums(bytes) {
        check_one(&summed);
    }
}

/// The same with the sums of all headers put right, if one was wrong.
pub fn with_right_sums(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut summed = bytes.to_vec();
    summed.chunks_exact_mut(BLOCK).for_each(put_sum_right);
    (summed != bytes).then_some(summed)
}

fn check_one(bytes: &[u8]) {
    let whole = parse(std::iter::once(bytes));
    assert!(parse(bytes.chunks(1)) == whole, "byte by byte");
    let mut random = Random::of_seed(bytes.len() as u64);
    assert!(
        parse(split(bytes, &mut random).into_iter()) == whole,
        "in pieces"
    );
    check_entries(&whole.0);
    if let Ok(summary) = &whole.1 {
        check_places(&whole.0, bytes.len() as u64);
        assert!(summary.entries >= whole.0.len() as u64);
    }
}

/// The entries found, and how it ended.
fn parse<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Entry>, Result<Summary, Error>) {
    let mut parser = Parser::new(limits());
    let mut entries = Vec::new();
    for piece in pieces {
        let fed = parser.feed(piece, |entry| {
            entries.push(entry);
            Ok::<_, Error>(())
        });
        if let Err(error) = fed {
            assert_eq!(parser.finish(), Err(error.clone()), "an error is final");
            return (entries, Err(error));
        }
    }
    (entries, parser.finish())
}

fn split<'a>(mut bytes: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let len = usize::try_from(random.within(0..1200)).expect("below 1200");
        let (piece, rest) = bytes.split_at(len.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn check_entries(entries: &[Entry]) {
    let limits = limits();
    assert!(entries.len() as u64 <= limits.entries, "too many entries");
    let metadata: usize = entries.iter().map(metadata_len).sum();
    assert!(metadata as u64 <= limits.metadata, "too much metadata");
    entries.iter().for_each(|entry| check_entry(entry, &limits));
}

fn check_entry(entry: &Entry, limits: &Limits) {
    check_path(&entry.path, limits);
    assert!(entry.mode <= 0o7777 && entry.mtime_nanoseconds < 1_000_000_000);
    assert!(entry.uid < u32::MAX && entry.gid < u32::MAX);
    assert!(
        entry.xattrs.is_sorted_by(|a, b| a.name <= b.name),
        "{entry:?}"
    );
    for xattr in &entry.xattrs {
        assert!(
            xattr.name.len() <= 255 && !xattr.name.contains(&0),
            "{entry:?}"
        );
    }
    match &entry.kind {
        Kind::HardLink { target } => {
            check_path(target, limits);
            assert!(!target.is_empty() && *target != entry.path, "{entry:?}");
        }
        Kind::Symlink { target } => {
            assert!(!target.is_empty() && !target.contains(&0), "{entry:?}");
        }
        Kind::File(content) => {
            let regions = content.regions.as_ref().map_or(0, Vec::len);
            assert!(regions as u64 <= limits.sparse_regions, "{entry:?}");
            assert!(i64::try_from(content.size).is_ok(), "{entry:?}");
            let (mut end, mut stored) = (0, 0);
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
        Kind::Directory => {}
        Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo => {
            assert!(!entry.path.is_empty(), "{entry:?}");
        }
    }
}

fn check_path(path: &[u8], limits: &Limits) {
    let is_name = |name: &[u8]| {
        (1..=255).contains(&name.len()) && name != b"." && name != b".." && !name.contains(&0)
    };
    let names = path.split(|byte| *byte == b'/');
    assert!(names.clone().count() as u64 <= limits.depth, "too deep");
    let is_normal = path.is_empty() || names.into_iter().all(is_name);
    assert!(is_normal, "{}", path.escape_ascii());
}

fn metadata_len(entry: &Entry) -> usize {
    let of_kind = match &entry.kind {
        Kind::Symlink { target } | Kind::HardLink { target } => target.len(),
        Kind::File(content) => content.regions.as_ref().map_or(0, Vec::len) * size_of::<Region>(),
        Kind::Directory | Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo => 0,
    };
    let xattrs = entry
        .xattrs
        .iter()
        .map(|xattr| xattr.name.len() + xattr.value.len());
    entry.path.len() + of_kind + xattrs.sum::<usize>()
}

/// Of a tar that is whole.
fn check_places(entries: &[Entry], size: u64) {
    let mut end = 0;
    for entry in entries {
        assert!(
            entry.header_offset >= end,
            "overlaps what came before: {entry:?}"
        );
        assert_eq!(entry.header_offset % BLOCK as u64, 0, "{entry:?}");
        end = entry.header_offset + BLOCK as u64;
        if let Kind::File(content) = &entry.kind {
            assert!(content.data_offset >= end, "{entry:?}");
            end = content.data_offset + content.stored_len;
        }
        assert!(end <= size, "beyond the end: {entry:?}");
    }
}

/// Puts the sum of a block right that looks like a header, so that changes get past it.
fn put_sum_right(block: &mut [u8]) {
    if !block[257..].starts_with(b"ustar") {
        return;
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
