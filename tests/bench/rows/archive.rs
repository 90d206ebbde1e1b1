//! Archives: one that is mounted in place, and the image as one that is read through a mount.
//!
//! A stored blob is read by the kernel itself where it can be, which no archive is: so both
//! are read from a layout on a stacked file system, where it cannot. That the blob's file is
//! in the page cache, and nothing of the mount is, shows what the daemon costs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::{MountOptions, TestMount, run_ok};
use crate::input::{DockerArchive, GZIP, REF, Stored};
use crate::serve::{Background, random_reads};
use crate::table::{Row, Runs, Target, Unit};
use crate::{Bench, Percentiles, ROUNDS, milliseconds, peer, quotient, rate};

/// The most milliseconds until the names of an archive are there that needs no first pass.
const FIRST_LIST: f64 = 50.0;

/// How much of the time to decode it the first pass over an archive may take.
const FIRST_PASS: f64 = 0.5;

/// The least that an archive that is computed may be of what is read beside it.
const CACHED: f64 = 0.65;
const UNCACHED: f64 = 0.8;

/// How much longer a read at random may take, which is to be nothing but noise.
const RANDOM: f64 = 1.1;

/// How many of them a round has.
const READS: usize = 2000;

/// The most megabytes that reading it takes.
const MEMORY: f64 = 16.0 * 1.048_576;

const FILE: &str = "file";
const BLOB: &str = "stored blob";

pub fn run(bench: &mut Bench) {
    let archive = bench.input.docker_archive();
    mounts(bench, &archive);
    let stored = bench.input.stored(GZIP);
    cached(bench, &stored);
    uncached(bench, &stored);
}

/// From the command to the names of the images.
fn first_list(archive: &Path, cache: &Path) -> Duration {
    let start = Instant::now();
    let mount = Background::start(archive, Some(cache));
    let names = fs::read_dir(&mount.path).expect("the mount answers");
    assert!(names.count() > 0, "it has a name");
    start.elapsed()
}

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// How long skopeo takes to make a layout of an archive, without compressing anything.
fn copy(archive: &Path) -> Option<f64> {
    let dir = temporary();
    let from = format!("docker-archive:{}", archive.display());
    let to = format!("oci:{}:{REF}", dir.path().join("layout").display());
    let options = ["copy", "-q", "--dest-oci-accept-uncompressed-layers", &from];
    let time = peer::time("skopeo", &options, Path::new(&to));
    time.map(|time| time.as_secs_f64())
}

fn mounts(bench: &mut Bench, archive: &DockerArchive) {
    let (mut plain, mut skopeo, mut first, mut gzip, mut again) =
        <(Runs, Runs, Runs, Runs, Runs)>::default();
    for _ in 0..ROUNDS {
        let cache = temporary();
        let known = |archive| milliseconds(first_list(archive, cache.path()));
        plain.push(known(&archive.plain));
        skopeo.push(copy(&archive.plain).map(|seconds| seconds * 1e3));
        first.push(first_list(&archive.gzip, cache.path()).as_secs_f64());
        let time = peer::time("gzip", &["-dc"], &archive.gzip);
        gzip.push(time.map(|time| time.as_secs_f64()));
        again.push(known(&archive.gzip));
    }
    let what = |how: &str| {
        let size = archive.size / 1_000_000;
        format!("mount to first ls, docker-archive of {size} MB{how}")
    };
    let row = Row::new(what(""), Unit::Milliseconds, plain).beside("skopeo copy", skopeo);
    bench.table.add(row.target(Target::AtMost(FIRST_LIST)));
    let row = Row::new(what(", gzip, the first time"), Unit::Seconds, first);
    let row = row.beside("gzip -dc", gzip);
    bench
        .table
        .add(row.target(Target::FirstTimesAtMost(FIRST_PASS)));
    let row = Row::new(what(", gzip, again"), Unit::Milliseconds, again);
    bench.table.add(row.target(Target::AtMost(FIRST_LIST)));
}

fn archive_in(mount: &TestMount) -> PathBuf {
    mount.join(REF).join("export/oci-archive.tar")
}

fn size_of(path: &Path) -> u64 {
    fs::metadata(path).expect("it is listed").len()
}

/// Reads a file to its end, and says how fast.
fn cat(path: &Path) -> Option<f64> {
    let time = peer::time("cat", &[], path);
    time.map(|time| rate(size_of(path), time))
}

fn cached(bench: &mut Bench, stored: &Stored) {
    let mount = MountOptions::new(&stored.layout).start();
    let (archive, dir) = (archive_in(&mount), temporary());
    let file = dir.path().join("archive.tar");
    // Has the kernel keep all of it.
    fs::copy(&archive, &file).expect("it is readable");
    let (mut ocifs, mut real) = <(Runs, Runs)>::default();
    for _ in 0..ROUNDS * 3 {
        ocifs.push(cat(&archive));
        real.push(cat(&file));
    }
    let row = Row::new("oci-archive, cached", Unit::MegabytesPerSecond, ocifs);
    let row = row.beside(FILE, real);
    bench
        .table
        .add(row.target(Target::TimesAtLeast(FILE, CACHED)));
}

/// A layout on a stacked file system; it is unmounted with the value.
struct Stacked(TempDir);

impl Stacked {
    /// `None` where the file system of temporary files cannot be stacked.
    fn over(layout: &Path) -> Option<Self> {
        let dir = temporary();
        for name in ["upper", "work", "layout"] {
            fs::create_dir(dir.path().join(name)).expect("it is ours");
        }
        let place = |name: &str| dir.path().join(name).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            layout.display(),
            place("upper"),
            place("work")
        );
        let to = place("layout");
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "-o", &options, "overlay", &to]);
        let is_mounted = mount.status().is_ok_and(|status| status.success());
        is_mounted.then(|| Self(dir))
    }

    fn mount(&self) -> TestMount {
        let (layout, cache) = (self.0.path().join("layout"), self.0.path().join("cache"));
        MountOptions::new(layout).cache_dir(cache).start()
    }
}

impl Drop for Stacked {
    fn drop(&mut self) {
        run_ok("umount", &[self.0.path().join("layout")]);
    }
}

fn uncached(bench: &mut Bench, stored: &Stored) {
    let Some(layout) = Stacked::over(&stored.layout) else {
        let note = "no overlayfs on the file system of temporary files: no uncached archive";
        return bench.table.note(note);
    };
    let hex = stored.digest().encoded().to_owned();
    let blob_in = |mount: &TestMount| mount.join(".ocifs/layout/blobs/sha256").join(&hex);
    // Has the verdicts kept.
    File::open(archive_in(&layout.mount())).expect("it is sound");
    let (mut ocifs, mut blob, mut memory) = <(Runs, Runs, Runs)>::default();
    let (mut random, mut of_blob) = <(Percentiles, Percentiles)>::default();
    for seed in 0..ROUNDS * 3 {
        let mount = layout.mount();
        blob.push(cat(&blob_in(&mount)));
        drop(mount);
        let mount = layout.mount();
        let file = File::open(archive_in(&mount)).expect("it is sound");
        let before = mount.peak_memory();
        ocifs.push(cat(&archive_in(&mount)));
        memory.push(quotient(mount.peak_memory() - before, 1_000_000));
        drop((file, mount));
        let mount = layout.mount();
        let mut files = [
            (blob_in(&mount), &mut of_blob),
            (archive_in(&mount), &mut random),
        ];
        // Whoever comes first has the threads to wake.
        files.rotate_left(usize::from(seed % 2 == 1));
        for (path, times) in files {
            let file = File::open(&path).expect("it is sound");
            times.push(random_reads(&file, stored.size, READS, seed));
        }
    }
    let row = Row::new("oci-archive, uncached", Unit::MegabytesPerSecond, ocifs);
    let row = row.beside(BLOB, blob);
    bench
        .table
        .add(row.target(Target::TimesAtLeast(BLOB, UNCACHED)));
    let row = Row::new("peak memory of that", Unit::Megabytes, memory);
    bench.table.add(row.target(Target::AtMost(MEMORY)));
    for (part, ocifs, blob) in [
        ("p50", random.p50, of_blob.p50),
        ("p99", random.p99, of_blob.p99),
    ] {
        let what = format!("oci-archive, random 4 KiB, {part}");
        let row = Row::new(what, Unit::Milliseconds, ocifs).beside(BLOB, blob);
        let is_typical = part == "p50";
        bench.table.add(match is_typical {
            true => row.target(Target::TimesAtMost(BLOB, RANDOM)),
            false => row,
        });
    }
}
