//! Reads of 4 KiB at random, of a known layer, with nothing kept of what was decoded.

use std::time::Duration;

use crate::input::{GZIP, PLAIN_GZIP, Stored, ZSTD};
use crate::peer::{ArchiveFs, Library};
use crate::serve::{open, random_reads};
use crate::table::{Row, Target, Unit};
use crate::{Bench, Percentiles, ROUNDS};

/// How many reads a round has.
const READS: usize = 1000;

/// Keeps no span.
pub const NO_MEMORY: &str = "0";

/// The most milliseconds at the median and at the 99th percentile.
const GZIP_LIMITS: (f64, f64) = (1.5, 6.0);
const ZSTD_LIMITS: (f64, f64) = (2.5, 10.0);

pub fn run(bench: &mut Bench) {
    compare(
        bench,
        GZIP,
        GZIP_LIMITS,
        &[Library("indexed_gzip"), Library("rapidgzip")],
    );
    compare(bench, PLAIN_GZIP, GZIP_LIMITS, &[]);
    compare(bench, ZSTD, ZSTD_LIMITS, &[]);
}

/// One round of ocifs.
fn ours(bench: &mut Bench, stored: &Stored, seed: u64) -> Vec<Duration> {
    let mount = bench.caches.mount(stored, NO_MEMORY);
    let file = open(&mount);
    random_reads(&file, stored.decoded, READS, seed)
}

fn compare(bench: &mut Bench, name: &'static str, limits: (f64, f64), libraries: &[Library]) {
    let stored = bench.input.stored(name);
    let mut ocifs = Percentiles::default();
    let mut ratarmount = Percentiles::default();
    let mut others: Vec<_> = libraries.iter().map(|_| Percentiles::default()).collect();
    // Makes the index.
    drop(ArchiveFs::Ratarmount.mount(&stored));
    for seed in 0..ROUNDS {
        ocifs.push(ours(bench, &stored, seed));
        if let Some(mount) = ArchiveFs::Ratarmount.mount(&stored) {
            ratarmount.push(mount.random_reads(&bench.input, READS, seed));
        }
        for (library, times) in libraries.iter().zip(&mut others) {
            times.push(library.random_reads(&stored, READS, seed));
        }
    }
    let what = |part: &str| format!("random 4 KiB, {name}, {part}");
    let mut p50 = Row::new(what("p50"), Unit::Milliseconds, ocifs.p50)
        .beside("ratarmount", ratarmount.p50)
        .target(Target::AtMost(limits.0));
    let mut p99 = Row::new(what("p99"), Unit::Milliseconds, ocifs.p99)
        .beside("ratarmount", ratarmount.p99)
        .target(Target::AtMost(limits.1));
    for (library, times) in libraries.iter().zip(others) {
        p50 = p50.beside(library.0, times.p50);
        p99 = p99.beside(library.0, times.p99);
    }
    bench.table.add(p50);
    bench.table.add(p99);
}
