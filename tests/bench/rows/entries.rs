//! A layer of a million entries whose Toc is cached.

use std::fs;
use std::time::Instant;

use ocifs::layer::toc::cache::TocCache;
use ocifs::oci::Digest;
use ocifs::store::CacheDir;

use crate::common::{Compression, MountOptions, Tarball, TestLayout, TestMount};
use crate::serve::wait_until_idle;
use crate::table::{Row, Runs, Target, Unit};
use crate::{Bench, ROUNDS, milliseconds, quotient};

const DIRS: usize = 1_000;
const FILES: usize = 1_000;
const ENTRIES: u64 = 1_001_000;

/// The most milliseconds until the cached Toc is open.
const OPEN: f64 = 20.0;

/// The most bytes of memory for an entry, where somebody has looked at the root alone.
const RESIDENT: f64 = 100.0;

pub fn run(bench: &mut Bench) {
    let layout = TestLayout::new();
    let layer = layout.layer_of_stream(Compression::Zstd, |out| {
        for dir in 0..DIRS {
            let mut tar = Tarball::new().dir(format!("{dir:04}/"));
            for file in 0..FILES {
                tar = tar.file(format!("{dir:04}/{file:06}"), "");
            }
            out.write_all(&tar.finish_part())?;
        }
        out.write_all(&Tarball::new().finish())
    });
    layout.add_ref("app", &layout.image(std::slice::from_ref(&layer)));
    let digest = layer.descriptor["digest"].as_str();
    let digest: Digest = digest
        .and_then(|digest| digest.parse().ok())
        .expect("a descriptor has a digest");
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let cache = dir.path().join("cache");
    let start = || MountOptions::new(layout.path()).cache_dir(&cache).start();
    let mount = start();
    look(&mount);
    wait_until_idle(&mount);
    drop(mount);

    let kept = CacheDir::open(&cache).expect("it is usable");
    let kept = TocCache::open(&kept, u64::MAX).expect("it is usable");
    let (mut open, mut tree, mut resident) = <(Runs, Runs, Runs)>::default();
    for _ in 0..ROUNDS * 3 {
        let begun = Instant::now();
        let toc = kept.load(&digest).expect("the Toc was kept");
        open.push(milliseconds(begun.elapsed()));
        assert!(toc.size() > 0);
        let begun = Instant::now();
        let loaded = kept.load_tree(&digest).expect("its tree was kept");
        tree.push(milliseconds(begun.elapsed()));
        assert!(loaded.is_ok());

        let mount = start();
        let before = mount.peak_memory();
        look(&mount);
        resident.push(quotient(mount.peak_memory() - before, ENTRIES));
    }
    let row = Row::new(
        "a million entries, open of the Toc",
        Unit::Milliseconds,
        open,
    );
    bench.table.add(row.target(Target::AtMost(OPEN)));
    let what = "the same, its tree, for who first looks into it";
    bench.table.add(Row::new(what, Unit::Milliseconds, tree));
    let row = Row::new("the same, memory for each entry", Unit::Bytes, resident);
    bench.table.add(row.target(Target::AtMost(RESIDENT)));
}

/// Lists the root of the layer's own tree, and nothing below.
fn look(mount: &TestMount) {
    let names = fs::read_dir(mount.join("app/layers/00")).expect("the layer is readable");
    assert_eq!(names.count(), DIRS);
}
