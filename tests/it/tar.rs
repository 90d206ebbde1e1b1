//! The tar room against those who write tars: what GNU tar, bsdtar and the `tar` crate
//! make of a tree must be read as that tree.

pub(crate) mod archives;
mod differential;
mod readers;
mod rules;

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ocifs::tar::{Entry, Error, Kind, Limits, Parser, Warning};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};

use crate::common::{Need, has, run_ok, skip};

/// Reads a whole tar in pieces of `len`.
fn read_by(bytes: &[u8], len: usize) -> Result<(Vec<Entry>, Vec<Warning>), Error> {
    let mut parser = Parser::new(Limits::default());
    let mut entries = Vec::new();
    for piece in bytes.chunks(len) {
        parser.feed(piece, |entry| {
            entries.push(entry);
            Ok::<_, Error>(())
        })?;
    }
    let summary = parser.finish()?;
    Ok((entries, summary.warnings.first().to_vec()))
}

/// The entries of a tar that has nothing odd about it, in whatever pieces it comes.
fn read(name: &str, bytes: &[u8]) -> Vec<Entry> {
    let at_once = read_by(bytes, bytes.len());
    assert_eq!(read_by(bytes, 1), at_once, "{name}: byte by byte");
    assert_eq!(read_by(bytes, 700), at_once, "{name}: in pieces of 700");
    let (entries, warnings) = at_once.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(warnings, [], "{name}");
    entries
}

/// What a format can hold.
#[derive(Clone, Copy)]
struct Holds {
    /// Devices, pipes, and paths over 100 bytes.
    ustar: bool,
    /// Owners above 2,097,151, and paths of any length.
    any_number: bool,
    /// Nanoseconds and extended attributes.
    pax: bool,
}

const V7: Holds = Holds {
    ustar: false,
    any_number: false,
    pax: false,
};
const USTAR: Holds = Holds { ustar: true, ..V7 };
const GNU: Holds = Holds {
    any_number: true,
    ..USTAR
};
const PAX: Holds = Holds { pax: true, ..GNU };

/// A tree with one of everything that a format holds.
fn make_tree(root: &Path, holds: Holds) -> io::Result<()> {
    fs::create_dir_all(root.join("dir/empty"))?;
    fs::write(root.join("dir/file"), "hello\n")?;
    fs::write(root.join("block"), [7; 512])?;
    fs::write(root.join("nothing"), "")?;
    fs::write(root.join("latin\u{e9}"), "a name that is not ASCII")?;
    fs::hard_link(root.join("dir/file"), root.join("dir/same"))?;
    symlink("../nowhere//./x", root.join("dir/link"))?;
    fs::set_permissions(root.join("block"), PermissionsExt::from_mode(0o6751))?;
    let sparse = File::create(root.join("sparse"))?;
    // More regions than the four of an old GNU header.
    for at in 0..9 {
        sparse.write_all_at(b"data", at * 300_000)?;
    }
    sparse.set_len(3_000_000)?;
    if holds.ustar {
        mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RWXU, 0)?;
        let (null, disk) = (makedev(1, 3), makedev(259, 70_000));
        mknodat(
            CWD,
            root.join("null"),
            FileType::CharacterDevice,
            Mode::RUSR,
            null,
        )?;
        mknodat(
            CWD,
            root.join("disk"),
            FileType::BlockDevice,
            Mode::RUSR,
            disk,
        )?;
        let deep = root.join(format!("{}/{}", "p".repeat(80), "q".repeat(60)));
        fs::create_dir_all(&deep)?;
        fs::write(deep.join("long"), "long")?;
    }
    if holds.any_number {
        chown(root.join("nothing"), Some(4_000_000), Some(4_294_967_000))?;
        let deep = root.join(format!("{}/", "r".repeat(200)).repeat(3));
        fs::create_dir_all(&deep)?;
        symlink("s".repeat(300), deep.join("link"))?;
        fs::write(deep.join("file"), "x")?;
        fs::hard_link(deep.join("file"), deep.join("same"))?;
    }
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    File::open(root.join("block"))?.set_times(FileTimes::new().set_modified(time))
}

/// Sets extended attributes; false where the file system has none.
fn set_xattrs(root: &Path) -> bool {
    let file = root.join("dir/file");
    [
        ("user.colour", &b"blue"[..]),
        ("user.binary", b"a\0=\n\xff"),
    ]
    .iter()
    .all(|(name, value)| setxattr(&file, *name, value, XattrFlags::empty()).is_ok())
}

/// The paths below `root` with what `lstat` says, the root itself as an empty path.
fn walk(root: &Path) -> io::Result<BTreeMap<Vec<u8>, Metadata>> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
        let below = path.strip_prefix(root).expect("it was found below");
        found.insert(below.as_os_str().as_encoded_bytes().to_vec(), metadata);
    }
    Ok(found)
}

/// The content of a file, holes filled.
fn content_of(entry: &Entry, tar: &[u8]) -> Vec<u8> {
    let Kind::File(content) = &entry.kind else {
        panic!("{entry:?} is no file");
    };
    let at = |offset: u64| usize::try_from(offset).expect("a small file");
    let mut bytes = vec![0; at(content.size)];
    for (file_offset, tar_offset, len) in content.extents() {
        bytes[at(file_offset)..at(file_offset + len)]
            .copy_from_slice(&tar[at(tar_offset)..at(tar_offset + len)]);
    }
    bytes
}

/// Holds the entries of `tar` against the tree that they were made of.
fn compare(name: &str, tar: &[u8], root: &Path, nanoseconds: bool) -> io::Result<Vec<Entry>> {
    let entries = read(name, tar);
    let mut tree = walk(root)?;
    for entry in &entries {
        let shown = format!("{name}: {}", entry.path.escape_ascii());
        let metadata = tree
            .remove(&entry.path)
            .unwrap_or_else(|| panic!("{shown}: not in the tree, or twice in the tar"));
        let path = root.join(text(&entry.path));
        check_kind(&shown, entry, &metadata, &path, root, tar)?;
        assert_eq!(
            u32::from(entry.mode),
            metadata.mode() & 0o7777,
            "{shown}: mode"
        );
        assert_eq!(
            (entry.uid, entry.gid),
            (metadata.uid(), metadata.gid()),
            "{shown}: owner"
        );
        let expected = if nanoseconds {
            metadata.mtime_nsec()
        } else {
            0
        };
        let time = (entry.mtime, i64::from(entry.mtime_nanoseconds));
        assert_eq!(time, (metadata.mtime(), expected), "{shown}: time");
    }
    let missing: Vec<_> = tree
        .keys()
        .map(|path| path.escape_ascii().to_string())
        .collect();
    assert!(missing.is_empty(), "{name}: not in the tar: {missing:?}");
    Ok(entries)
}

fn check_kind(
    shown: &str,
    entry: &Entry,
    metadata: &Metadata,
    path: &Path,
    root: &Path,
    tar: &[u8],
) -> io::Result<()> {
    let file_type = metadata.file_type();
    match &entry.kind {
        Kind::File(_) => assert!(
            content_of(entry, tar) == fs::read(path)?,
            "{shown}: content"
        ),
        Kind::Directory => assert!(file_type.is_dir(), "{shown}"),
        Kind::Fifo => assert!(file_type.is_fifo(), "{shown}"),
        Kind::Symlink { target } => {
            assert_eq!(
                fs::read_link(path)?.as_os_str().as_encoded_bytes(),
                target,
                "{shown}"
            );
        }
        Kind::HardLink { target } => {
            let other = fs::symlink_metadata(root.join(text(target)))?;
            assert_eq!(
                metadata.ino(),
                other.ino(),
                "{shown}: a link to another file"
            );
        }
        Kind::CharDevice(device) | Kind::BlockDevice(device) => {
            let is_char = matches!(entry.kind, Kind::CharDevice(_));
            assert_eq!(file_type.is_char_device(), is_char, "{shown}");
            assert_eq!(
                makedev(device.major, device.minor),
                metadata.rdev(),
                "{shown}"
            );
        }
    }
    Ok(())
}

fn text(path: &[u8]) -> &str {
    std::str::from_utf8(path).expect("the tree has UTF-8 names")
}

fn find<'a>(entries: &'a [Entry], path: &str) -> &'a Entry {
    let found = entries.iter().find(|entry| entry.path == path.as_bytes());
    found.unwrap_or_else(|| panic!("no entry {path}"))
}

/// The paths that a tool lists, in order, without `./` before and `/` behind.
fn listed_by(tool: &str, arguments: &[&str], archive: &Path) -> Vec<String> {
    let archive = archive.to_str().expect("UTF-8");
    let listing = run_ok(tool, &[arguments, &["-tf", archive]].concat());
    let listing = String::from_utf8(listing).expect("the tree has UTF-8 names");
    let plain = |line: &str| {
        let line = line.strip_prefix("./").unwrap_or(line);
        line.trim_end_matches('/').to_owned()
    };
    listing
        .lines()
        .map(plain)
        .map(|line| if line == "." { String::new() } else { line })
        .collect()
}

#[test]
fn gnu_tar_writes_what_is_read() -> io::Result<()> {
    if !has(
        "gnu_tar_writes_what_is_read",
        &[Need::Root, Need::Tool("tar")],
    ) {
        return Ok(());
    }
    let sparse = ["-S", "--sparse-version=0.0"];
    let rows: &[(&str, Holds, &[&str])] = &[
        ("v7", V7, &["--format=v7"]),
        ("ustar", USTAR, &["--format=ustar"]),
        ("gnu", GNU, &["--format=gnu"]),
        ("oldgnu", GNU, &["--format=oldgnu"]),
        ("pax", PAX, &["--format=pax"]),
        ("gnu sparse", GNU, &["--format=gnu", "-S"]),
        (
            "pax sparse 0.0",
            PAX,
            &["--format=pax", sparse[0], sparse[1]],
        ),
        (
            "pax sparse 0.1",
            PAX,
            &["--format=pax", "-S", "--sparse-version=0.1"],
        ),
        (
            "pax sparse 1.0",
            PAX,
            &["--format=pax", "-S", "--sparse-version=1.0"],
        ),
        ("gnu with a label", GNU, &["--format=gnu", "--label=x"]),
    ];
    for (name, holds, options) in rows {
        let dir = tempfile::tempdir()?;
        let (root, archive) = (dir.path().join("tree"), dir.path().join("tar"));
        make_tree(&root, *holds)?;
        let paths = [
            "-cf",
            archive.to_str().unwrap(),
            "-C",
            root.to_str().unwrap(),
            ".",
        ];
        run_ok("tar", &[options, &paths[..]].concat());
        let bytes = fs::read(&archive)?;
        let entries = compare(name, &bytes, &root, holds.pax)?;
        if options.contains(&"-S") {
            let Kind::File(content) = &find(&entries, "sparse").kind else {
                panic!("{name}: no file");
            };
            assert!(
                content
                    .regions
                    .as_ref()
                    .is_some_and(|regions| regions.len() >= 9),
                "{name}"
            );
            assert!(content.stored_len < content.size / 2, "{name}: {content:?}");
        }
        let mut listed = listed_by("tar", &["--quoting-style=literal"], &archive);
        listed.retain(|path| path != "x");
        let read: Vec<_> = entries
            .iter()
            .map(|entry| text(&entry.path).to_owned())
            .collect();
        assert_eq!(read, listed, "{name}");
    }
    Ok(())
}

#[test]
fn bsdtar_writes_what_is_read() -> io::Result<()> {
    if !has(
        "bsdtar_writes_what_is_read",
        &[Need::Root, Need::Tool("bsdtar")],
    ) {
        return Ok(());
    }
    for (format, holds) in [("v7", V7), ("ustar", USTAR), ("gnutar", GNU), ("pax", PAX)] {
        let dir = tempfile::tempdir()?;
        let (root, archive) = (dir.path().join("tree"), dir.path().join("tar"));
        make_tree(&root, holds)?;
        let to = archive.to_str().unwrap();
        run_ok(
            "bsdtar",
            &[
                "--format",
                format,
                "-cf",
                to,
                "-C",
                root.to_str().unwrap(),
                ".",
            ],
        );
        let entries = compare(format, &fs::read(&archive)?, &root, holds.pax)?;
        let read: Vec<_> = entries
            .iter()
            .map(|entry| text(&entry.path).to_owned())
            .collect();
        assert_eq!(read, listed_by("bsdtar", &[], &archive), "{format}");
    }
    Ok(())
}

#[test]
fn extended_attributes_are_read() -> io::Result<()> {
    let name = "extended_attributes_are_read";
    if !has(name, &[Need::Root, Need::Tool("tar"), Need::Tool("bsdtar")]) {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("tree");
    make_tree(&root, PAX)?;
    if !set_xattrs(&root) {
        skip(name, "no extended attributes in the temporary directory");
        return Ok(());
    }
    let from = root.to_str().unwrap();
    let gnu = run_ok(
        "tar",
        &[
            "--format=pax",
            "--xattrs",
            "--xattrs-include=*",
            "-cf",
            "-",
            "-C",
            from,
            ".",
        ],
    );
    let bsd = run_ok("bsdtar", &["--format", "pax", "-cf", "-", "-C", from, "."]);
    for (tool, bytes) in [("tar", gnu), ("bsdtar", bsd)] {
        let entries = compare(tool, &bytes, &root, true)?;
        let xattrs = find(&entries, "dir/file").xattrs.iter();
        let xattrs: Vec<_> = xattrs
            .map(|xattr| (xattr.name.as_slice(), xattr.value.as_slice()))
            .collect();
        assert_eq!(
            xattrs,
            [
                (&b"user.binary"[..], &b"a\0=\n\xff"[..]),
                (b"user.colour", b"blue")
            ],
            "{tool}"
        );
    }
    Ok(())
}

#[test]
fn the_tar_crate_writes_what_is_read() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("tree");
    let long = "n".repeat(150);
    fs::create_dir_all(root.join(&long))?;
    fs::write(root.join(&long).join("file"), "hello\n")?;
    symlink("t".repeat(200), root.join("link"))?;
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", &root)?;
    compare("tar crate", &builder.into_inner()?, &root, false)?;
    Ok(())
}

#[test]
fn archives_of_real_tools_are_read() -> io::Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = 0;
    for file in fs::read_dir(golden)? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "tar") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let entries = read(&name, &fs::read(&path)?);
        assert!(!entries.is_empty(), "{name}");
        seen += 1;
    }
    assert!(seen > 10, "only {seen} archives");
    Ok(())
}
