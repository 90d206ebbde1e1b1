//! Whether a large layer costs more than its share.
//!
//! Decoders at rest cover every stretch of a small gzip layer, so that its random reads
//! begin nearer: that is a gain of the small one, not a cost of the large one.

use crate::input::{GZIP, Input, ZSTD};
use crate::rows::pass::first_open;
use crate::rows::random;
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

fn compare(bench: &mut Bench, name: &'static str, inputs: &[Input]) {
    let mut costs: Vec<_> = inputs.iter().map(|_| Cost::default()).collect();
    for seed in 0..ROUNDS {
        for (input, cost) in inputs.iter().zip(&mut costs) {
            let stored = input.stored(name);
            let gigabytes = quotient(stored.decoded, 1_000_000_000);
            cost.pass
                .push(milliseconds(first_open(&stored).0) / gigabytes);
            cost.random.push(random::ours(bench, &stored, seed));
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
