//! Reading a known layer from end to end, with nothing of it in the page cache.
//!
//! fuse-archive is in few package registries. It reads through libarchive and cannot give
//! out a byte that this has not decoded, so `bsdcat`, which does that and nothing else, is
//! faster than it can be.

use std::time::{Duration, Instant};

use crate::input::{GZIP, PLAIN_GZIP, Stored, ZSTD};
use crate::peer::{ArchiveFs, Library};
use crate::serve::{open, read_all};
use crate::table::{Row, Runs, Target, Unit};
use crate::{Bench, ROUNDS, peer, rate};

/// What the daemon may keep unless it is told otherwise.
pub const DEFAULT_MEMORY: &str = "256MiB";

/// Decodes with libarchive.
const LIBARCHIVE: &str = "bsdcat";

const ARCHIVES: [ArchiveFs; 3] = [
    ArchiveFs::Ratarmount,
    ArchiveFs::Archivemount,
    ArchiveFs::FuseArchive,
];

pub fn run(bench: &mut Bench) {
    compare(bench, GZIP, &ARCHIVES);
    compare(bench, PLAIN_GZIP, &[]);
    compare(bench, ZSTD, &ARCHIVES[..1]);
}

fn compare(bench: &mut Bench, name: &'static str, archives: &[ArchiveFs]) {
    let stored = bench.input.stored(name);
    let (tool, options) = if stored.is_gzip() {
        ("gzip", "-dc")
    } else {
        ("zstd", "-dcqf")
    };
    let (mut ocifs, mut plain, mut libarchive, mut python) = <(Runs, Runs, Runs, Runs)>::default();
    let mut others: Vec<Runs> = archives.iter().map(|_| Runs::default()).collect();
    let of_tar = |time: Duration| rate(stored.decoded, time);
    for _ in 0..ROUNDS {
        ocifs.push(ours(bench, &stored));
        plain.push(peer::time(tool, &[options], &stored.blob).map(of_tar));
        libarchive.push(peer::time(LIBARCHIVE, &[], &stored.blob).map(of_tar));
        for (archive, runs) in archives.iter().zip(&mut others) {
            let mount = archive.mount(&stored);
            let read = mount.map(|mount| mount.read_in_order(&bench.input));
            runs.push(read.map(|(bytes, time)| rate(bytes, time)));
        }
        if name == GZIP {
            python.push(Library("rapidgzip").read_all(&stored).map(of_tar));
        }
    }
    let plain_name = if stored.is_gzip() {
        "gzip -dc"
    } else {
        "zstd -dc"
    };
    let what = format!("sequential, {name}");
    let mut row = Row::new(what, Unit::MegabytesPerSecond, ocifs).beside(plain_name, plain);
    if stored.is_gzip() {
        row = row.target(Target::TimesAtLeast(plain_name, 3.0));
    }
    row = row.beside(LIBARCHIVE, libarchive);
    row = row.target(Target::TimesAtLeast(LIBARCHIVE, 1.0));
    for (archive, runs) in archives.iter().zip(others) {
        row = row.beside(archive.name(), runs);
        row = row.target(Target::TimesAtLeast(archive.name(), 1.0));
    }
    if name == GZIP {
        row = row.beside("rapidgzip", python);
    }
    bench.table.add(row);
}

fn ours(bench: &mut Bench, stored: &Stored) -> f64 {
    let mount = bench.caches.mount(stored, DEFAULT_MEMORY);
    let file = open(&mount);
    let start = Instant::now();
    rate(read_all(file), start.elapsed())
}
