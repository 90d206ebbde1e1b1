//! What the daemon takes at its peak, while it does all that the other groups ask for.

use std::thread;

use crate::common::{MountOptions, TestMount};
use crate::input::{GZIP, Stored, ZSTD};
use crate::serve::{open, random_reads, read_all, wait_until_idle};
use crate::table::{Row, Target, Unit};
use crate::{Bench, quotient};

/// `--memory`, in MiB: what it is by default, and a little.
const LIMITS: [u32; 2] = [256, 16];

/// What the daemon may take beside that, in MiB.
const BESIDE: u32 = 64;

const MIB: f64 = 1.048_576;

const READERS: u64 = 4;
const READS: usize = 300;

pub fn run(bench: &mut Bench) {
    for limit in LIMITS {
        for name in [GZIP, ZSTD] {
            let stored = bench.input.stored(name);
            let options = MountOptions::new(&stored.layout).memory(&format!("{limit}MiB"));
            let mount = options.start();
            read(&mount, &stored);
            let peak = quotient(mount.peak_memory(), 1_000_000);
            let what = format!("peak memory, {name}, --memory {limit}MiB");
            let row = Row::new(what, Unit::Megabytes, peak);
            let most = f64::from(limit + BESIDE) * MIB;
            bench.table.add(row.target(Target::AtMost(most)));
        }
    }
}

/// First pass, several readers at random, one from end to end.
fn read(mount: &TestMount, stored: &Stored) {
    let file = open(mount);
    wait_until_idle(mount);
    thread::scope(|scope| {
        for seed in 0..READERS {
            let file = &file;
            scope.spawn(move || random_reads(file, stored.decoded, READS, seed));
        }
    });
    read_all(open(mount));
}
