//! The first pass over a layer: until blob digest, DiffID and checksums are compared.

use std::time::{Duration, Instant};

use crate::common::TestMount;
use crate::input::{GZIP, PLAIN_GZIP, Stored, ZSTD};
use crate::serve::{open, wait_until_idle};
use crate::table::{Row, Runs, Target, Unit};
use crate::{Bench, ROUNDS, peer};

pub fn run(bench: &mut Bench) {
    for name in [GZIP, PLAIN_GZIP] {
        gzip(bench, name);
    }
    zstd(bench);
}

/// How long `open` waits, and what is done after it.
pub fn first_open(stored: &Stored) -> (Duration, Duration) {
    let mount = TestMount::start(&stored.layout);
    let start = Instant::now();
    open(&mount);
    let pass = start.elapsed();
    wait_until_idle(&mount);
    (pass, start.elapsed() - pass)
}

fn gzip(bench: &mut Bench, name: &'static str) {
    let stored = bench.input.stored(name);
    let (mut ocifs, mut plain, mut pigz, mut tar) = <(Runs, Runs, Runs, Runs)>::default();
    for _ in 0..ROUNDS {
        plain.push(seconds(peer::time("gzip", &["-dc"], &stored.blob)));
        ocifs.push(first_open(&stored).0.as_secs_f64());
        if name == GZIP {
            pigz.push(seconds(peer::time("pigz", &["-dc"], &stored.blob)));
            tar.push(seconds(peer::unpack(&stored)));
        }
    }
    let mut row = Row::new(format!("first pass, {name}"), Unit::Seconds, ocifs)
        .beside("gzip -dc", plain)
        .target(Target::TimesAtMost("gzip -dc", 0.45));
    if name == GZIP {
        row = row
            .beside("pigz -dc", pigz)
            .beside("tar -xzf to tmpfs", tar);
    }
    bench.table.add(row);
}

fn zstd(bench: &mut Bench) {
    let stored = bench.input.stored(ZSTD);
    let (mut ocifs, mut later, mut plain) = <(Runs, Runs, Runs)>::default();
    for _ in 0..ROUNDS {
        plain.push(seconds(peer::time("zstd", &["-dcqf"], &stored.blob)));
        let (pass, rest) = first_open(&stored);
        ocifs.push(pass.as_secs_f64());
        later.push(rest.as_secs_f64());
    }
    let row = Row::new("first pass, zstd", Unit::Seconds, ocifs);
    bench.table.add(row.beside("zstd -dc", plain.clone()));
    let row = Row::new("then checkpoints, nobody waits", Unit::Seconds, later);
    bench.table.add(row.beside("zstd -dc", plain));
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}
