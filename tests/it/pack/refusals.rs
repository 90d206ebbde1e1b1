//! Trees that are not packed, and sinks that fail.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use ocifs::pack::Limits;
use ocifs::store::{Layout, LayoutWriter, Verdicts};

use crate::common::{TestLayout, Tmpfs};

use super::*;

fn bounded(change: impl FnOnce(&mut Limits)) -> PackOptions {
    let mut options = options(LayerCompression::None, 1);
    change(&mut options.limits);
    options
}

type Row = (&'static str, PackOptions, &'static str, &'static str);

#[test]
fn what_cannot_be_read_back_is_refused() -> TestResult {
    let plain = || bounded(|_| ());
    let rows: [Row; 11] = [
        (
            "f d/.wh.x",
            plain(),
            "TREE_WHITEOUT",
            "d/.wh.x cannot be packed: names that begin with .wh. mark what a layer removes",
        ),
        (
            "d .wh..wh..opq",
            plain(),
            "TREE_WHITEOUT",
            ".wh..wh..opq cannot be packed: names that begin with .wh. mark what a layer removes",
        ),
        (
            "l d/.wh.",
            plain(),
            "TREE_WHITEOUT",
            "d/.wh. cannot be packed: names that begin with .wh. mark what a layer removes",
        ),
        (
            "f d/e/f",
            bounded(|limits| limits.tar.entries = 3),
            "LIMIT_TAR_ENTRIES",
            "d/e/f: more than the limit of 3 entries",
        ),
        (
            "f d/e/f",
            bounded(|limits| limits.tar.depth = 1),
            "LIMIT_TAR_DEPTH",
            "d/e: more than the limit of 1 components of a path",
        ),
        (
            "f d/e/f",
            bounded(|limits| limits.tar.depth = 2),
            "LIMIT_TAR_DEPTH",
            "d/e/f: more than the limit of 2 components of a path",
        ),
        (
            "f d/e/f",
            bounded(|limits| limits.tar.metadata = 8),
            "LIMIT_TAR_METADATA",
            "d/e/f: more than the limit of 8 bytes of metadata",
        ),
        (
            "f \u{e9}",
            bounded(|limits| limits.tar.extension_size = 8),
            "LIMIT_TAR_EXTENSION",
            "more than the limit of 8 bytes in an extension header",
        ),
        (
            "f x",
            bounded(|limits| limits.stream.decoded_size = 1 << 20),
            "LIMIT_DECODED_SIZE",
            ".: the layer gets larger than the limit of 1048576 bytes",
        ),
        ("f d/e/f", bounded(|limits| limits.tar.entries = 4), "", ""),
        (
            "f d/e/f",
            bounded(|limits| (limits.tar.depth, limits.tar.metadata) = (3, 9)),
            "",
            "",
        ),
    ];
    for (item, options, code, message) in rows {
        let dir = tempfile::tempdir()?;
        let (letter, path) = item.split_once(' ').ok_or("a letter and a path")?;
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().ok_or("below the root")?)?;
        match letter {
            "d" => fs::create_dir(&path)?,
            "l" => symlink("x", &path)?,
            _ => fs::write(&path, "")?,
        }
        if code.is_empty() {
            packed(dir.path(), &options)?;
            continue;
        }
        let error = refusal(dir.path(), &options)?;
        assert_eq!(error.code(), code, "{item}: {error}");
        assert!(error.to_string().ends_with(message), "{item}: {error}");
    }
    Ok(())
}

#[test]
fn only_a_directory_is_a_tree() -> TestResult {
    let file = OwnedFd::from(tempfile::tempfile()?);
    let error = Tree::open(file).err().ok_or("it was opened")?;
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("TREE_READ", "cannot open .")
    );
    Ok(())
}

#[test]
fn a_tree_of_a_path_handle_can_be_packed() -> TestResult {
    let dir = tempfile::tempdir()?;
    let handle = openat(rustix::fs::CWD, dir.path(), OFlags::PATH, Mode::empty())?;
    let tree = Tree::open(handle)?;
    pack(&tree, &PackOptions::default(), Vec::new(), &Unwatched)?;
    Ok(())
}

/// A sink that takes so many bytes.
#[derive(Debug)]
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            Some(rest) => self.0 = rest,
            None => return Err(io::Error::from_raw_os_error(libc::EDQUOT)),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn errno_of(error: &Error) -> Option<i32> {
    match error {
        Error::Sink(source) => source.raw_os_error(),
        _ => None,
    }
}

#[test]
fn an_error_of_the_sink_comes_through() -> TestResult {
    let dir = tempfile::tempdir()?;
    let mut noise = vec![0; 5 << 20];
    Random::of_seed(1).fill(&mut noise);
    fs::write(dir.path().join("noise"), noise)?;
    for compression in COMPRESSIONS {
        for room in [0, 1 << 20, 5 << 20] {
            let options = options(compression, 2);
            let result = pack(&tree(dir.path())?, &options, Room(room), &Unwatched);
            let error = result.err().ok_or("there was room")?;
            assert_eq!(
                errno_of(&error),
                Some(libc::EDQUOT),
                "{compression:?}: {error}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left() -> TestResult {
    if !has("a_full_disk_is_told_and_nothing_is_left", &[Need::Root]) {
        return Ok(());
    }
    let (dir, disk) = (tempfile::tempdir()?, Tmpfs::mount("size=2m"));
    let mut noise = vec![0; 5 << 20];
    Random::of_seed(2).fill(&mut noise);
    fs::write(dir.path().join("noise"), noise)?;
    let path = disk.path().join("layout");
    ocifs::store::layout::init(&path)?;
    let writer = writer(&path)?;
    let free = || rustix::fs::statvfs(disk.path()).map(|stat| stat.f_bfree);
    let before = free()?;
    let options = PackOptions::default();
    let result = pack(&tree(dir.path())?, &options, writer.blob()?, &Unwatched);
    let error = result.err().ok_or("there was room")?;
    assert_eq!(errno_of(&error), Some(libc::ENOSPC), "{error}");
    let blobs = fs::read_dir(path.join("blobs/sha256"))?.count();
    assert_eq!((blobs, free()?), (0, before));
    Ok(())
}

pub(super) fn writer(layout: &Path) -> TestResult<LayoutWriter> {
    let layout = Layout::open(layout, &[])?;
    Ok(LayoutWriter::open(&layout, Arc::new(Verdicts::new(None)))?)
}

#[test]
fn nothing_is_published_unasked() -> TestResult {
    let (dir, layout) = (tempfile::tempdir()?, TestLayout::new());
    fs::write(dir.path().join("f"), "content")?;
    let writer = writer(layout.path())?;
    let options = PackOptions::default();
    let layer = pack(&tree(dir.path())?, &options, writer.blob()?, &Unwatched)?;
    let blobs = || Ok::<_, io::Error>(fs::read_dir(layout.path().join("blobs/sha256"))?.count());
    assert_eq!(blobs()?, 0);
    let size = layer.size;
    let stored = layer.blob.commit()?;
    assert_eq!((blobs()?, stored.size()), (1, size));
    let again = packed(dir.path(), &options)?;
    assert_eq!(stored.digest(), &Digest::of(&again.blob));
    Ok(())
}
