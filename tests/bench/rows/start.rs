//! From the start of the command to the first bytes of a known layer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::input::{GZIP, Stored, ZSTD};
use crate::peer::ArchiveFs;
use crate::serve::{Background, drop_caches, tar_in};
use crate::table::{Row, Runs, Target, Unit};
use crate::{Bench, milliseconds};

/// It takes so little that there is time for more rounds.
const ROUNDS: usize = 7;

/// The most milliseconds.
const LIMIT: f64 = 15.0;

/// What the kernel holds of the program, the Toc and the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caches {
    Warm,
    Cold,
}

pub fn run(bench: &mut Bench) {
    for name in [GZIP, ZSTD] {
        let stored = bench.input.stored(name);
        // Makes the index.
        drop(ArchiveFs::Ratarmount.mount(&stored));
        for caches in [Caches::Warm, Caches::Cold] {
            compare(bench, &stored, caches);
        }
    }
}

fn compare(bench: &mut Bench, stored: &Stored, caches: Caches) {
    let cache = bench.caches.of(stored);
    let (mut ocifs, mut ratarmount) = <(Runs, Runs)>::default();
    for _ in 0..ROUNDS {
        prepare(caches);
        ocifs.push(milliseconds(ours(stored, &cache)));
        prepare(caches);
        let start = Instant::now();
        if let Some(mount) = ArchiveFs::Ratarmount.mount(stored) {
            mount.read_in_the_middle(&bench.input);
            ratarmount.push(milliseconds(start.elapsed()));
        }
    }
    let state = if caches == Caches::Cold {
        "cold"
    } else {
        "warm"
    };
    let what = format!("mount to first 4 KiB, {}, {state}", stored.name);
    let row = Row::new(what, Unit::Milliseconds, ocifs).beside("ratarmount", ratarmount);
    bench.table.add(row.target(Target::AtMost(LIMIT)));
}

fn prepare(caches: Caches) {
    if caches == Caches::Cold {
        drop_caches();
    }
}

fn ours(stored: &Stored, cache: &Path) -> Duration {
    let start = Instant::now();
    let mount = Background::start(&stored.layout, Some(cache));
    let file = File::open(tar_in(&mount.path)).expect("the layer is known");
    let read = file.read_exact_at(&mut [0; 4096], stored.decoded / 2);
    read.expect("the layer is readable");
    start.elapsed()
}
