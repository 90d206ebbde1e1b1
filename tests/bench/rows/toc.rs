//! The Toc of a layer on disk.

use std::fs;

use ocifs::layer::toc::cache::TocCache;
use ocifs::store::{CacheDir, verify};

use crate::input::{GZIP, PLAIN_GZIP, Stored, ZSTD};
use crate::table::{Row, Target, Unit};
use crate::{Bench, quotient};

/// Bytes of a span, of a checkpoint, and of what goes before all sections, in its file.
const SPAN: u64 = 24;
const CHECKPOINT: u64 = 40;
const HEAD: u64 = 1024;

/// The most bytes for an entry.
const ENTRY: f64 = 70.0;

pub fn run(bench: &mut Bench) {
    for (name, limit) in [(GZIP, 0.5), (PLAIN_GZIP, 0.5), (ZSTD, 2.0)] {
        let stored = bench.input.stored(name);
        let (access, total) = sizes(bench, &stored);
        let share = quotient(access, stored.size) * 100.0;
        let what = format!("Toc, {name}: spans and checkpoints, of the blob");
        let row = Row::new(what, Unit::Percent, share);
        bench.table.add(row.target(Target::AtMost(limit)));
        let rest = quotient(total.saturating_sub(access + HEAD), bench.input.entries);
        let what = format!("Toc, {name}: for each entry");
        let row = Row::new(what, Unit::Bytes, rest);
        bench.table.add(row.target(Target::AtMost(ENTRY)));
    }
}

/// How many bytes random access takes in the Toc's file, and how many it has.
fn sizes(bench: &mut Bench, stored: &Stored) -> (u64, u64) {
    let cache = CacheDir::open(&bench.caches.of(stored)).expect("the cache directory is there");
    let digest = stored.digest();
    let file = cache.path().join("toc").join(verify::file_name(&digest));
    let total = fs::metadata(file).expect("the Toc was kept").len();
    let kept = TocCache::open(&cache, u64::MAX).expect("the cache directory is usable");
    let toc = kept.load(&digest).expect("the Toc was kept");
    let checkpoints = toc.spans().checkpoints();
    let spans = toc.spans().spans().len() as u64 * SPAN;
    let list = checkpoints.list.len() as u64 * CHECKPOINT;
    (spans + list + checkpoints.heap.len() as u64, total)
}
