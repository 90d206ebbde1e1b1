//! The root file system of an image, beside the same files on a disk.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{TestMount, run_ok};
use crate::input::{GZIP, Input, REF, Stored};
use crate::peer::{self, ArchiveFs};
use crate::rows::sequential::DEFAULT_MEMORY;
use crate::serve::{Background, drop_caches, read_all};
use crate::table::{Row, Runs, Target, Unit};
use crate::{Bench, ROUNDS, milliseconds, quotient, rate};

/// The most milliseconds until the names in the root are there.
const FIRST_LIST: f64 = 15.0;

/// The most megabytes that the daemon takes after everything was looked at.
const WALKED_MEMORY: f64 = 64.0 * 1.048_576;

/// The walks of a mount, and how many times as long as on a disk each may take. Where nothing
/// can be written, the second asks for nothing. Elsewhere each opens and closes every
/// directory, and the second asks for their attributes too: the kernel drops the time of the
/// last access of each after a listing that it asked for.
const WALKS: [(&str, Option<f64>); 3] = [("cold", Some(2.5)), ("warm", Some(1.2)), ("third", None)];

/// How much `cat` reads at once, in bytes.
const CAT_BUFFER: usize = 128 << 10;

/// The size of a large file, in MB.
const LARGE_FILE: u64 = 200;

/// How many times as fast as `gzip -dc` it is read. The goal is 1,000 MB/s on a machine
/// whose `gzip -dc` does 211 MB/s; what another machine can do is told by its own.
const LARGE_FILE_TIMES: f64 = 4.74;

const DISK: &str = "disk";

const READ_ONLY: &str = "--read-only";

const DECODED: &str = "gzip -dc";

pub fn run(bench: &mut Bench) {
    let stored = bench.input.stored(GZIP);
    first_list(bench, &stored);
    let unpacked = unpacked(&stored);
    walks(bench, &stored, &unpacked);
    all_files(bench, &stored);
    large_file(bench);
}

fn root(mount: &Path) -> PathBuf {
    mount.join(REF).join("rootfs")
}

/// The files of the layer on the disk; made once.
fn unpacked(stored: &Stored) -> PathBuf {
    let dir = stored.layout.with_extension("unpacked");
    let done = dir.join("done");
    if !done.exists() {
        fs::create_dir_all(dir.join("files")).expect("target is writable");
        let place = format!("--directory={}", dir.join("files").display());
        let arguments = [place.as_ref(), "-xzf".as_ref(), stored.blob.as_path()];
        run_ok("tar", &arguments);
        File::create(done).expect("target is writable");
    }
    dir.join("files")
}

fn first_list(bench: &mut Bench, stored: &Stored) {
    let cache = bench.caches.of(stored);
    let (mut ocifs, mut ratarmount) = <(Runs, Runs)>::default();
    // Makes its index.
    drop(ArchiveFs::Ratarmount.mount(stored));
    for _ in 0..ROUNDS * 3 {
        let start = Instant::now();
        let mount = Background::start(&stored.layout, Some(&cache));
        let names = fs::read_dir(root(&mount.path)).expect("the layer is known");
        assert!(names.count() > 0);
        ocifs.push(milliseconds(start.elapsed()));
        let start = Instant::now();
        if let Some(mount) = ArchiveFs::Ratarmount.mount(stored) {
            mount.list();
            ratarmount.push(milliseconds(start.elapsed()));
        }
    }
    let row = Row::new("mount to first ls rootfs", Unit::Milliseconds, ocifs);
    let row = row.beside("ratarmount", ratarmount);
    bench.table.add(row.target(Target::AtMost(FIRST_LIST)));
}

fn walks(bench: &mut Bench, stored: &Stored, unpacked: &Path) {
    let mut memory = Runs::default();
    let (mut read_only, mut writable, mut disk) = <(Walked, Walked, Walked)>::default();
    for _ in 0..ROUNDS * 3 {
        for (options, walked) in [(&[READ_ONLY][..], &mut read_only), (&[], &mut writable)] {
            let mount = bench.caches.mount_with(stored, DEFAULT_MEMORY, options);
            let root = root(mount.path());
            let names = fs::read_dir(&root).expect("the layer is known");
            assert!(names.count() > 0);
            walk_all(&root, walked);
            memory.push(quotient(mount.peak_memory(), 1_000_000));
        }
        walk_all(unpacked, &mut disk);
    }
    for (how, walked) in [("", writable), (READ_ONLY, read_only)] {
        for (((name, limit), ocifs), disk) in WALKS.into_iter().zip(walked).zip(disk.clone()) {
            let what = format!("find -printf over rootfs, {name} {how}");
            let row = Row::new(what.trim_end(), Unit::Milliseconds, ocifs).beside(DISK, disk);
            let target = limit.map(|limit| Target::TimesAtMost(DISK, limit));
            bench.table.add(target.into_iter().fold(row, Row::target));
        }
    }
    let row = Row::new("peak memory after these", Unit::Megabytes, memory);
    bench.table.add(row.target(Target::AtMost(WALKED_MEMORY)));
}

/// What each of [`WALKS`] took.
type Walked = [Runs; WALKS.len()];

fn walk_all(root: &Path, walked: &mut Walked) {
    drop_caches();
    for runs in walked {
        runs.push(walk(root));
    }
}

/// Looks at the attributes of all files, in milliseconds.
fn walk(root: &Path) -> f64 {
    let start = Instant::now();
    let arguments = [root, "-printf".as_ref(), "%y %m %s %t\\n".as_ref()];
    run_ok("find", &arguments);
    milliseconds(start.elapsed())
}

fn all_files(bench: &mut Bench, stored: &Stored) {
    let (mut ocifs, mut tar) = <(Runs, Runs)>::default();
    for _ in 0..ROUNDS {
        let mount = bench.caches.mount(stored, DEFAULT_MEMORY);
        drop_caches();
        ocifs.push(read_files(&root(mount.path())).as_secs_f64());
        drop_caches();
        tar.push(peer::unpack(stored).map(|time| time.as_secs_f64()));
    }
    let row = Row::new("cat of all files of rootfs", Unit::Seconds, ocifs);
    let row = row.beside("tar -xzf", tar);
    bench
        .table
        .add(row.target(Target::TimesAtMost("tar -xzf", 0.5)));
}

fn read_files(root: &Path) -> Duration {
    let start = Instant::now();
    read_directory(root, &mut vec![0; CAT_BUFFER]);
    start.elapsed()
}

/// Reads all files in the order in which they are listed.
fn read_directory(dir: &Path, buffer: &mut [u8]) {
    for entry in fs::read_dir(dir).expect("a directory is readable") {
        let entry = entry.expect("a directory is readable");
        let kind = entry.file_type().expect("names come with types");
        if kind.is_dir() {
            read_directory(&entry.path(), buffer);
        } else if kind.is_file() {
            let mut file = File::open(entry.path()).expect("a file is readable");
            while file.read(buffer).expect("a file is readable") > 0 {}
        }
    }
}

/// Reads a large file from end to end, with nothing of it in the page cache.
fn large_file(bench: &mut Bench) {
    let input = Input::of_one_file(LARGE_FILE);
    let stored = input.stored(GZIP);
    let (path, size) = input.files[0].clone();
    // Makes its index.
    drop(ArchiveFs::Ratarmount.mount(&stored));
    let (mut ocifs, mut ratarmount, mut decoded) = <(Runs, Runs, Runs)>::default();
    for _ in 0..ROUNDS * 3 {
        let mount = bench.caches.mount(&stored, DEFAULT_MEMORY);
        ocifs.push(sequential(&mount, &path));
        let mount = ArchiveFs::Ratarmount.mount(&stored);
        let read = mount.map(|mount| mount.read_in_order(&input));
        ratarmount.push(read.map(|(bytes, time)| rate(bytes, time)));
        let time = peer::time("gzip", &["-dc"], &stored.blob);
        decoded.push(time.map(|time| rate(stored.decoded, time)));
    }
    let what = format!("sequential, a file of {} MB", size / 1_000_000);
    let row = Row::new(what, Unit::MegabytesPerSecond, ocifs)
        .beside("ratarmount", ratarmount)
        .target(Target::TimesAtLeast("ratarmount", 1.0))
        .beside(DECODED, decoded)
        .target(Target::TimesAtLeast(DECODED, LARGE_FILE_TIMES));
    bench.table.add(row);
}

fn sequential(mount: &TestMount, path: &Path) -> f64 {
    let path = root(mount.path()).join(path);
    let file = File::open(path).expect("the file is there");
    assert!(file.metadata().is_ok_and(|metadata| metadata.size() > 0));
    let start = Instant::now();
    rate(read_all(file), start.elapsed())
}
