//! Measures ocifs beside its peers, in turn, on one real layer; prints one table.
//!
//! ```text
//! scripts/bench [--large] [GROUP...]      all groups, or these
//! ```
//!
//! Each file under `rows/` is a group: a function that adds rows to the table. A new
//! group is one more line in [`GROUPS`]. What a machine lacks is said in the table. The
//! numbers of a noisy machine mean little; the ratios within a row mean more.

#![allow(
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    reason = "a program, read from its groups"
)]

mod input;
mod peer;
mod rows;
mod serve;
mod table;

#[path = "../common/mod.rs"]
mod common;

use std::time::Duration;

use common::{Need, has};
use input::Input;
use serve::Caches;
use table::{Runs, Table};

/// How often each side of a row runs, for the median.
pub const ROUNDS: u64 = 3;

/// How large the layer is that most rows are of, in decoded megabytes.
const SIZE: u64 = 1000;

/// What a group has to work with.
pub struct Bench {
    /// The layer.
    pub input: Input,
    /// Where ocifs keeps the Tocs of layers that it knows.
    pub caches: Caches,
    pub table: Table,
    /// Whether there is time and room for layers of 4 GB.
    pub is_large: bool,
}

type Group = fn(&mut Bench);

const GROUPS: [(&str, Group); 11] = [
    ("pass", rows::pass::run),
    ("toc", rows::toc::run),
    ("entries", rows::entries::run),
    ("start", rows::start::run),
    ("random", rows::random::run),
    ("sequential", rows::sequential::run),
    ("memory", rows::memory::run),
    ("linear", rows::linear::run),
    ("tree", rows::tree::run),
    ("browse", rows::browse::run),
    ("archive", rows::archive::run),
];

fn main() {
    if !has("bench", &[Need::Fuse, Need::Root, Need::Tool("skopeo")]) {
        return;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (options, wanted): (Vec<&str>, Vec<&str>) = words
        .iter()
        .map(String::as_str)
        .partition(|word| word.starts_with('-'));
    let known = |name: &str| GROUPS.iter().any(|(group, _)| *group == name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        say(&format!(
            "no group {unknown}; there are {:?}",
            GROUPS.map(|(name, _)| name)
        ));
        std::process::exit(2);
    }
    let mut bench = Bench {
        input: Input::of(SIZE),
        caches: Caches::default(),
        table: Table::default(),
        is_large: options.contains(&"--large"),
    };
    bench.table.note(format!(
        "medians of {ROUNDS} rounds in turn; one layer of {} MB decoded, {} entries",
        bench.input.decoded / 1_000_000,
        bench.input.entries
    ));
    peer::name_missing(&mut bench.table);
    for (name, run) in GROUPS {
        if wanted.is_empty() || wanted.contains(&name) {
            run(&mut bench);
        }
    }
    print(&bench.table.show());
}

/// Tells whoever waits how far it is.
#[expect(clippy::print_stderr, reason = "a program for people")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "its result")]
fn print(text: &str) {
    println!("\n{text}");
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Bytes per time, in MB/s.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn quotient(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// The times of many reads, as median and 99th percentile in milliseconds.
fn percentiles(mut times: Vec<Duration>) -> Option<(f64, f64)> {
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get(times.len().checked_sub(1)? * percent / 100)
            .copied()
    };
    Some((milliseconds(at(50)?), milliseconds(at(99)?)))
}

/// Medians and 99th percentiles of several rounds.
#[derive(Default)]
pub struct Percentiles {
    pub p50: Runs,
    pub p99: Runs,
}

impl Percentiles {
    pub fn push(&mut self, times: Vec<Duration>) {
        if let Some((p50, p99)) = percentiles(times) {
            self.p50.push(p50);
            self.p99.push(p99);
        }
    }
}
