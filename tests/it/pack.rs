//! File trees packed as layers, and what others make of them.

mod changes;
mod facts;
mod random_tree;
mod refusals;
mod tools;

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use ocifs::oci::{Digest, LayerCompression};
use ocifs::pack::{Error, LeftOut, PackOptions, PackedLayer, Tree, pack};
use ocifs::store::progress::Unwatched;
use rustix::fs::{Mode, OFlags, mkdirat, openat};

use crate::common::{Need, Random, has};
use crate::sample::TestResult;
use facts::{Fact, Facts, difference, of_disk, of_layer};

const COMPRESSIONS: [LayerCompression; 3] = [
    LayerCompression::None,
    LayerCompression::Gzip,
    LayerCompression::Zstd,
];

fn tree(path: &Path) -> TestResult<Tree> {
    Ok(Tree::open(OwnedFd::from(File::open(path)?))?)
}

fn options(compression: LayerCompression, threads: usize) -> PackOptions {
    PackOptions {
        compression,
        threads,
        ..PackOptions::default()
    }
}

/// A tree packed into memory.
fn packed(path: &Path, options: &PackOptions) -> TestResult<PackedLayer<Vec<u8>>> {
    Ok(pack(&tree(path)?, options, Vec::new(), &Unwatched)?)
}

/// What a layer of a tree should show: what is on the disk, less what is left out.
fn expected(root: &Path) -> TestResult<Facts> {
    let mut facts = of_disk(root)?;
    facts.retain(|_, fact| fact.letter != 's');
    for fact in facts.values_mut() {
        fact.xattrs
            .retain(|name, _| !ocifs::tar::is_hidden_xattr(name));
        // What is left out must save more than the headers of a sparse file cost.
        let stored: u64 = fact.data.iter().map(|(start, end)| end - start).sum();
        let cost = 1024 + 40 * fact.data.len() as u64;
        if stored + cost >= fact.bytes.len() as u64 {
            fill_holes_of(fact);
        }
    }
    Ok(facts)
}

/// Files that are stored whole have no holes, wherever the disk has some.
fn fill_holes(facts: &mut Facts) {
    facts.values_mut().for_each(fill_holes_of);
}

fn fill_holes_of(fact: &mut Fact) {
    let size = fact.bytes.len() as u64;
    fact.data = (size > 0).then_some((0, size)).into_iter().collect();
}

#[test]
fn a_packed_tree_shows_what_is_there() -> TestResult {
    if !has("a_packed_tree_shows_what_is_there", &[Need::Root]) {
        return Ok(());
    }
    let mut random = Random::new();
    for compression in COMPRESSIONS {
        let dir = tempfile::tempdir()?;
        random_tree::make(dir.path(), &mut random)?;
        let shown = expected(dir.path())?;
        let layer = packed(dir.path(), &options(compression, 2))?;
        assert_eq!(difference(&of_layer(&layer.blob)?, &shown), None);
        assert_eq!(layer.report.entries, shown.len() as u64);
        assert_eq!(layer.report.left_out, []);
        assert_eq!(layer.size, layer.blob.len() as u64);
        let after = expected(dir.path())?;
        assert_eq!(difference(&after, &shown), None, "packing changes nothing");
    }
    Ok(())
}

#[test]
fn the_same_tree_gives_the_same_digest() -> TestResult {
    if !has("the_same_tree_gives_the_same_digest", &[Need::Root]) {
        return Ok(());
    }
    let (dir, seed) = (tempfile::tempdir()?, Random::new().next());
    // Made twice: other inodes, another order on the disk.
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    for root in [&one, &two] {
        fs::create_dir(root)?;
        random_tree::make(root, &mut Random::of_seed(seed))?;
    }
    for compression in COMPRESSIONS {
        let first = packed(&one, &options(compression, 1))?;
        for (root, threads) in [(&one, 1), (&one, 8), (&two, 3)] {
            let again = packed(root, &options(compression, threads))?;
            let name = format!("{compression:?}, {} with {threads}", root.display());
            assert_eq!(again.diff_id, first.diff_id, "{name}");
            assert_eq!(Digest::of(&again.blob), Digest::of(&first.blob), "{name}");
        }
        if compression == LayerCompression::None {
            assert_eq!(first.diff_id.0, Digest::of(&first.blob));
        }
    }
    Ok(())
}

#[test]
fn entries_are_sorted_and_directories_first() -> TestResult {
    let dir = tempfile::tempdir()?;
    for path in ["a/b", "a-", "a.d", "B", "\u{e9}"] {
        fs::create_dir_all(dir.path().join(path))?;
    }
    fs::write(dir.path().join("a/b/c"), "c")?;
    let layer = packed(dir.path(), &options(LayerCompression::None, 1))?;
    let mut archive = tar::Archive::new(&layer.blob[..]);
    let paths = archive.entries()?.map(|entry| {
        let path = entry?.path_bytes().into_owned();
        Ok(String::from_utf8(path)?)
    });
    let paths: Vec<String> = paths.collect::<TestResult<_>>()?;
    let sorted = ["./", "B/", "a/", "a/b/", "a/b/c", "a-/", "a.d/", "\u{e9}/"];
    assert_eq!(paths, sorted);
    Ok(())
}

#[test]
fn an_empty_tree_is_its_root() -> TestResult {
    let dir = tempfile::tempdir()?;
    for compression in COMPRESSIONS {
        let layer = packed(dir.path(), &options(compression, 2))?;
        let facts = of_layer(&layer.blob)?;
        assert_eq!(difference(&facts, &expected(dir.path())?), None);
        assert_eq!((facts.len(), layer.report.entries), (1, 1));
    }
    Ok(())
}

/// Makes directories below each other, and gives the lowest.
fn descend(root: &Path, names: impl Iterator<Item = String>) -> TestResult<OwnedFd> {
    let mut handle = OwnedFd::from(File::open(root)?);
    for name in names {
        mkdirat(&handle, name.as_str(), Mode::RWXU)?;
        handle = openat(&handle, name.as_str(), OFlags::DIRECTORY, Mode::empty())?;
    }
    Ok(handle)
}

#[test]
fn thousands_of_levels_are_no_matter() -> TestResult {
    let dir = tempfile::tempdir()?;
    let lowest = descend(dir.path(), (0..3000).map(|level| format!("{level:x}")))?;
    let flags = OFlags::CREATE | OFlags::WRONLY;
    rustix::io::write(openat(&lowest, "file", flags, Mode::RUSR)?, b"deep")?;
    fs::write(dir.path().join("z"), "after")?;
    let layer = packed(dir.path(), &options(LayerCompression::Gzip, 2))?;
    let facts = of_layer(&layer.blob)?;
    assert_eq!(facts.len(), 3003);
    let deep = facts.iter().find(|(path, _)| path.ends_with(b"/file"));
    let (path, fact) = deep.ok_or("the file is not there")?;
    let levels = path.iter().filter(|byte| **byte == b'/').count();
    assert_eq!((levels, fact.bytes.as_slice()), (3000, &b"deep"[..]));
    remove(dir.path());
    Ok(())
}

/// Removes what is deeper than the standard library goes.
fn remove(path: &Path) {
    crate::common::run("rm", &["-rf".as_ref(), path.as_os_str()]);
}

#[test]
fn sockets_are_left_out_and_told() -> TestResult {
    let dir = tempfile::tempdir()?;
    let mut listeners = Vec::new();
    for number in 10..80 {
        listeners.push(UnixListener::bind(dir.path().join(format!("s{number}")))?);
    }
    fs::write(dir.path().join("file"), "")?;
    let report = packed(dir.path(), &options(LayerCompression::None, 1))?.report;
    assert_eq!(report.entries, 2);
    let path = PathBuf::from("s10");
    assert_eq!(report.left_out[0], LeftOut::Socket { path });
    assert_eq!((report.left_out.len(), report.more_left_out), (64, 6));
    Ok(())
}

#[test]
fn holes_cost_nothing() -> TestResult {
    let dir = tempfile::tempdir()?;
    let file = File::create(dir.path().join("sparse"))?;
    file.set_len(1 << 40)?;
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", (1 << 40) - 3)?;
    file.sync_all()?;
    let layer = packed(dir.path(), &options(LayerCompression::None, 1))?;
    assert!(layer.size < 16 << 10, "{} bytes", layer.size);
    let (layers, opened) = facts::open(&layer.blob)?;
    let tree = layers.tree(&opened)?;
    let id = tree.find(ocifs::layer::tree::NodeId::ROOT, b"sparse");
    let content = id.and_then(|id| tree.content(id)).ok_or("no file")?;
    assert_eq!(content.size, 1 << 40);
    Ok(())
}

#[test]
fn zeros_are_not_taken_for_a_bomb() -> TestResult {
    let dir = tempfile::tempdir()?;
    let file = File::create(dir.path().join("zeros"))?;
    for _ in 0..96 {
        io::Write::write_all(&mut &file, &vec![0; 1 << 20])?;
    }
    for compression in [LayerCompression::Gzip, LayerCompression::Zstd] {
        let layer = packed(dir.path(), &options(compression, 2))?;
        let (_, opened) = facts::open(&layer.blob)?;
        assert_eq!(opened.diff_id(), &layer.diff_id, "{compression:?}");
    }
    Ok(())
}

#[test]
fn mounts_inside_are_a_part_of_the_tree() -> TestResult {
    if !has("mounts_inside_are_a_part_of_the_tree", &[Need::Root]) {
        return Ok(());
    }
    let inside = crate::common::Tmpfs::mount("size=64k");
    fs::create_dir(inside.path().join("d"))?;
    fs::write(inside.path().join("d/f"), "inside")?;
    let dir = tempfile::tempdir()?;
    let below = dir.path().join("mnt");
    fs::create_dir(&below)?;
    let bound = [
        "--bind".as_ref(),
        inside.path().as_os_str(),
        below.as_os_str(),
    ];
    crate::common::run_ok("mount", &bound);
    let layer = packed(dir.path(), &options(LayerCompression::None, 1));
    crate::common::run_ok("umount", &[&below]);
    let facts = of_layer(&layer?.blob)?;
    assert_eq!(facts[&b"mnt/d/f"[..]].bytes, b"inside");
    Ok(())
}

/// The error of a tree that is not packed.
fn refusal(path: &Path, options: &PackOptions) -> TestResult<Error> {
    let result = pack(&tree(path)?, options, Vec::new(), &Unwatched);
    Ok(result.err().ok_or("it was packed")?)
}
