//! Whether a large layer costs more than its share.
//!
//! A read at random is one whose stretch nobody has read before. Many reads of one mount
//! are not: the decoders that rest after them cover a small layer sooner than a large one,
//! and begin nearer to what is read next. So each mount answers few reads, far from each
//! other, and there are many mounts.

use std::time::Duration;

use crate::common::Random;
use crate::input::{GZIP, Input, Stored, ZSTD};
use crate::rows::pass::first_open;
use crate::rows::random::NO_MEMORY;
use crate::serve::{open, read_page};
use crate::table::{Row, Runs, Target, Unit};
use crate::{Bench, Percentiles, ROUNDS, milliseconds, quotient};

/// Decoded megabytes.
const SIZES: [u64; 2] = [100, 1000];
/// With `--large`.
const LARGE: u64 = 4000;

/// How much more than with the smallest layer, at the most, within the noise.
const TOLERANCE: f64 = 1.25;
/// The same for 99th percentiles, which vary more.
const TOLERANCE_P99: f64 = 1.5;

/// How many mounts a round has.
const MOUNTS: usize = 100;

/// Into how many parts of one length a layer is cut. All but the first are read once in a
/// mount, somewhere in the first half. So no two reads of a mount are nearer to each other
/// than half a part: in the smallest layer 10 MB, more than lies between two checkpoints.
const PARTS: u64 = 5;

/// How many reads of the first part go before, not counted: what a daemon does for the
/// first time, such as taking memory from the kernel, is no part of a read at random.
const WARM_UP: u64 = 10;

pub fn run(bench: &mut Bench) {
    let large = bench.is_large.then_some(LARGE);
    let inputs: Vec<_> = SIZES.into_iter().chain(large).map(Input::of).collect();
    for name in [GZIP, ZSTD] {
        compare(bench, name, &inputs);
    }
}

/// What one layer costs.
#[derive(Default)]
struct Cost {
    /// For each decoded gigabyte, in milliseconds.
    pass: Runs,
    random: Percentiles,
}

/// The times of reads of 4 KiB of which none finds what another one left behind.
fn cold_reads(bench: &mut Bench, stored: &Stored, seed: u64) -> Vec<Duration> {
    let mut random = Random::of_seed(seed);
    let mut times = Vec::new();
    for _ in 0..MOUNTS {
        let mount = bench.caches.mount(stored, NO_MEMORY);
        let file = open(&mount);
        let pages = stored.decoded / 4096 / PARTS;
        let mut read = |part: u64| read_page(&file, part * pages + random.within(0..pages / 2));
        for _ in 0..WARM_UP {
            read(0);
        }
        times.extend((1..PARTS).map(read));
    }
    times
}

fn compare(bench: &mut Bench, name: &'static str, inputs: &[Input]) {
    let mut costs: Vec<_> = inputs.iter().map(|_| Cost::default()).collect();
    for seed in 0..ROUNDS {
        for (input, cost) in inputs.iter().zip(&mut costs) {
            let stored = input.stored(name);
            let gigabytes = quotient(stored.decoded, 1_000_000_000);
            cost.pass
                .push(milliseconds(first_open(&stored).0) / gigabytes);
            cost.random.push(cold_reads(bench, &stored, seed));
        }
    }
    let mut all = inputs.iter().zip(costs);
    let Some((small, base)) = all.next() else {
        return;
    };
    let label = |input: &Input| format!("{} MB", input.decoded / 1_000_000);
    for (input, cost) in all {
        let sides = [
            ("first pass for each GB", cost.pass, &base.pass, TOLERANCE),
            (
                "random 4 KiB, p50",
                cost.random.p50,
                &base.random.p50,
                TOLERANCE,
            ),
            (
                "random 4 KiB, p99",
                cost.random.p99,
                &base.random.p99,
                TOLERANCE_P99,
            ),
        ];
        for (what, runs, base, tolerance) in sides {
            let what = format!("{name} layer of {}: {what}", label(input));
            let row = Row::new(what, Unit::Milliseconds, runs).beside(label(small), base.clone());
            bench
                .table
                .add(row.target(Target::FirstTimesAtMost(tolerance)));
        }
    }
}
