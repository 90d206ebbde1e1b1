//! The fuzz targets on the stable toolchain: their seeds, and a few thousand changes of
//! them, always the same ones.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use crate::common::Random;
use crate::sample::TestResult;
use crate::targets::seeds::{TARGETS, Target};
use crate::targets::zstd_checkpoints;

/// How many changed inputs each target gets.
const ROUNDS: u64 = 5000;

/// A try with one of these costs a hundred times as much as others.
const SLOW: [(&str, u64); 3] = [(CHECKPOINTS, 300), ("ingest", 1500), ("archive", 1500)];

const CHECKPOINTS: &str = "zstd_checkpoints";

fn seeds(target: &Target) -> TestResult<Vec<Vec<u8>>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let seeds = target.seeds(&golden)?;
    assert!(seeds.len() > 4, "{}: few seeds", target.name);
    Ok(seeds)
}

/// Seeds, one after the other, and then changes of them.
fn run(name: &str) -> TestResult {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.ok_or("no such target")?;
    let seeds = seeds(target)?;
    for (number, seed) in seeds.iter().enumerate() {
        try_one(target, seed, &format!("seed-{number}"))?;
    }
    let slow = SLOW.iter().find(|slow| slow.0 == name);
    let rounds = slow.map_or(ROUNDS, |slow| slow.1);
    let mut random = Random::of_seed(1);
    for round in 0..rounds {
        try_one(
            target,
            &changed(&seeds, &mut random),
            &format!("round-{round}"),
        )?;
    }
    Ok(())
}

/// Keeps an input that breaks an invariant.
fn try_one(target: &Target, bytes: &[u8], what: &str) -> TestResult {
    if catch_unwind(|| (target.check)(bytes)).is_ok() {
        return Ok(());
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}-{what}", target.name));
    fs::write(&path, bytes)?;
    panic!("{}: {what} is kept in {}", target.name, path.display());
}

/// One of the seeds with a few bytes changed, parts moved, or its end cut off.
fn changed(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let below = |random: &mut Random, limit: usize| {
        usize::try_from(random.within(0..limit.max(1) as u64)).unwrap()
    };
    let mut bytes = seeds[below(random, seeds.len())].clone();
    for _ in 0..random.within(1..5) {
        let at = below(random, bytes.len());
        match random.within(0..8) {
            0 => bytes.truncate(at),
            1 => {
                let other = &seeds[below(random, seeds.len())];
                bytes.extend_from_slice(&other[below(random, other.len())..]);
            }
            2 if at < bytes.len() => {
                let end = bytes.len().min(at + below(random, 600));
                bytes.drain(at..end);
            }
            3 if at < bytes.len() => {
                let end = bytes.len().min(at + below(random, 600));
                bytes.extend_from_within(at..end);
            }
            _ if at < bytes.len() => bytes[at] = random.next().to_le_bytes()[0],
            _ => bytes.push(random.next().to_le_bytes()[0]),
        }
    }
    bytes
}

#[test]
fn deflate() -> TestResult {
    run("deflate")
}

#[test]
fn gzip() -> TestResult {
    run("gzip")
}

#[test]
fn zstd() -> TestResult {
    run("zstd")
}

#[test]
fn checkpoints() -> TestResult {
    run(CHECKPOINTS)
}

#[test]
fn tar() -> TestResult {
    run("tar")
}

#[test]
fn toc_file() -> TestResult {
    run("toc_file")
}

#[test]
fn json() -> TestResult {
    run("json")
}

#[test]
fn names() -> TestResult {
    run("names")
}

#[test]
fn documents() -> TestResult {
    run("documents")
}

#[test]
fn tar_split() -> TestResult {
    run("tar_split")
}

#[test]
fn archive() -> TestResult {
    run("archive")
}

#[test]
fn ingest() -> TestResult {
    run("ingest")
}

/// Recipes must lead somewhere, or the target would check nothing.
#[test]
fn recipes_make_checkpoints() -> TestResult {
    let target = TARGETS.iter().find(|target| target.name == CHECKPOINTS);
    let seeds = seeds(target.ok_or("no such target")?)?;
    let counts: Vec<usize> = seeds
        .iter()
        .map(|seed| zstd_checkpoints::count(seed))
        .collect();
    let with_some = counts.iter().filter(|count| **count > 2).count();
    assert!(with_some > seeds.len() / 3, "{counts:?}");
    Ok(())
}
