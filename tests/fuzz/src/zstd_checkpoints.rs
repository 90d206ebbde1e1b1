//! Checkpoints within zstd frames of every shape that libzstd writes.
//!
//! The bytes are a recipe: a plaintext of runs, words, noise and copies, how to compress
//! it, where blocks and frames end, how close checkpoints are searched, and damage.
//!
//! Invariants:
//! - what libzstd wrote is accepted, and decodes to the plaintext;
//! - any read from any checkpoint equals the plaintext;
//! - damage before the pass: the invariants of [`zstd`](super::zstd);
//! - damage after the pass: a read gives the plaintext or the error for a blob that
//!   changed, never another byte.

use std::io::Write;
use std::sync::Arc;

use ocifs::stream::{ErrorClass, Limits, SpanTable, TarOffset};
use zstd::stream::Encoder;
use zstd::zstd_safe::CParameter;

use super::access::{open, pass, place, slice};
use super::blocks::{Spacing, check_checkpoints};
use super::random::Random;
use super::recipe::Recipe;

/// High levels take too long for more, in bytes.
const MAX_LEN: [(i32, usize); 3] = [(5, 700_000), (12, 300_000), (22, 100_000)];

/// Checks the invariants.
pub fn check(bytes: &[u8]) {
    count(bytes);
}

/// As [`check`]; says how many checkpoints were found.
pub fn count(bytes: &[u8]) -> usize {
    let mut recipe = Recipe::new(bytes);
    let spacing = Spacing {
        span: recipe.choose(&[1, 1, 3000, 50_000]),
        checkpoint: recipe.choose(&[300, 1000, 20_000, 100_000]),
    };
    let damages = recipe.byte() % 4;
    let mut random = Random::of_seed(u64::from(recipe.byte()));
    let (blob, plain) = compress(&mut recipe);

    let limits = Limits::default();
    let (_, decoded) = pass(&blob, 5000, &limits).expect("libzstd wrote it");
    assert!(decoded == plain, "decodes to other bytes");
    let (table, found) = check_checkpoints(&blob, &plain, spacing, &mut random);
    for _ in 0..damages {
        let damaged = damage(&blob, &mut random);
        check_damaged(&table, &damaged, &plain, &mut random);
        super::zstd::check(&damaged);
    }
    found
}

/// Reads from a blob that is not any more what the table was made of.
fn check_damaged(table: &Arc<SpanTable>, blob: &[u8], plain: &[u8], random: &mut Random) {
    let stream = open(table, blob.to_vec(), 0);
    for _ in 0..4 {
        let (offset, len) = place(random, plain.len());
        let mut buf = vec![0xa5; len];
        match stream.read_at(&mut buf, TarOffset(offset as u64)) {
            Ok(read) => assert!(buf[..read] == *slice(plain, offset, len), "a wrong byte"),
            Err(error) => assert_eq!(error.class(), ErrorClass::Mismatch, "{error}"),
        }
    }
}

fn damage(blob: &[u8], random: &mut Random) -> Vec<u8> {
    let mut damaged = blob.to_vec();
    for _ in 0..random.within(1..4) {
        let at = usize::try_from(random.within(0..blob.len() as u64)).expect("in memory");
        damaged[at] = random.next().to_le_bytes()[0];
    }
    damaged
}

/// Makes a plaintext and compresses it.
fn compress(recipe: &mut Recipe<'_>) -> (Vec<u8>, Vec<u8>) {
    let level = recipe.choose(&[-5, -1, 1, 1, 2, 3, 3, 4, 5, 6, 8, 10, 12, 14, 17, 19]);
    let max_len = MAX_LEN.iter().find(|(to, _)| level <= *to);
    let max_len = max_len.map_or(0, |(_, len)| *len);
    let (mut blob, mut plain) = (Vec::new(), Vec::new());
    loop {
        let (frame, content) = compress_frame(recipe, level, max_len - plain.len(), &plain);
        blob.extend(frame);
        plain.extend(content);
        if recipe.is_empty() || plain.len() >= max_len {
            return (blob, plain);
        }
    }
}

/// One frame; `before` is what came in those before it.
fn compress_frame(
    recipe: &mut Recipe<'_>,
    level: i32,
    max_len: usize,
    before: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let window_log = 10 + u32::from(recipe.byte() % 18);
    let flags = recipe.byte();
    let block_size = recipe.choose(&[0, 0, 0, 1340, 3000, 20_000]);
    let mut steps = Vec::new();
    let mut content = Vec::new();
    while !recipe.is_empty() && content.len() < max_len {
        match grow(recipe, &mut content, before) {
            Step::Grown => {}
            Step::Flush => steps.push(content.len()),
            Step::EndFrame => break,
        }
    }
    content.truncate(max_len);
    steps.retain(|end| *end <= content.len());
    let mut encoder = Encoder::new(Vec::new(), level).expect("memory is there");
    let mut set = |parameter| encoder.set_parameter(parameter).expect("a valid parameter");
    set(CParameter::WindowLog(window_log));
    set(CParameter::ChecksumFlag(flags & 1 != 0));
    set(CParameter::EnableLongDistanceMatching(flags & 2 != 0));
    set(CParameter::TargetCBlockSize(block_size));
    if flags & 4 != 0 {
        let size = Some(content.len() as u64);
        encoder
            .set_pledged_src_size(size)
            .expect("before the first byte");
    }
    let mut at = 0;
    for end in steps {
        encoder
            .write_all(&content[at..end])
            .expect("memory is there");
        encoder.flush().expect("memory is there");
        at = end;
    }
    encoder.write_all(&content[at..]).expect("memory is there");
    (encoder.finish().expect("memory is there"), content)
}

enum Step {
    Grown,
    Flush,
    EndFrame,
}

/// Adds to the plaintext, or ends a block or frame.
fn grow(recipe: &mut Recipe<'_>, content: &mut Vec<u8>, before: &[u8]) -> Step {
    match recipe.byte() % 16 {
        0 if recipe.byte() < 64 => return Step::EndFrame,
        0..=2 => return Step::Flush,
        3 => {
            let byte = recipe.byte();
            content.resize(content.len() + recipe.number(17), byte);
        }
        4 => {
            let mut random = Random::of_seed(u64::from(recipe.byte()));
            let len = content.len();
            content.resize(len + recipe.number(17), 0);
            random.fill(&mut content[len..]);
        }
        5 | 6 => words(recipe, content),
        7 if !before.is_empty() => {
            let start = before.len() - 1 - recipe.number(23) % before.len();
            let end = before.len().min(start + recipe.number(17));
            content.extend_from_slice(&before[start..end]);
        }
        _ => copy(recipe, content),
    }
    Step::Grown
}

/// Copies from near or far, several times with a byte between.
fn copy(recipe: &mut Recipe<'_>, content: &mut Vec<u8>) {
    if content.is_empty() {
        content.extend_from_slice(b"begin");
    }
    let distance = 1 + recipe.number(20) % content.len();
    let len = 1 + recipe.number(16);
    for _ in 0..=recipe.byte() % 8 {
        let start = content.len() - distance;
        let end = content.len().min(start + len);
        content.extend_from_within(start..end);
        content.push(recipe.byte());
    }
}

fn words(recipe: &mut Recipe<'_>, content: &mut Vec<u8>) {
    let mut random = Random::of_seed(u64::from(recipe.byte()));
    let vocabulary = 2 + u64::from(recipe.byte());
    for _ in 0..recipe.number(14) {
        let word = random.within(0..vocabulary);
        content.extend_from_slice(format!("{:x} ", word * word * 77).as_bytes());
    }
}
