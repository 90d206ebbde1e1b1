//! What must hold for any bytes, one module for each parser of foreign ones.
//!
//! Each has a `check` that takes bytes and panics if one of the invariants in the module's
//! header does not hold. cargo-fuzz drives them (`bin/`, `scripts/fuzz`), and so does
//! tests/it/fuzz.rs, with the [`seeds`] and a few thousand changes of them.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "also a module of a test binary, which uses a part of it"
)]

pub mod access;
pub mod archive;
pub mod blocks;
pub mod deflate;
pub mod documents;
pub mod gzip;
pub mod ingest;
pub mod json;
pub mod names;
#[allow(
    clippy::duplicate_mod,
    reason = "the test binary has it from its own place"
)]
#[path = "../../common/random.rs"]
pub mod random;
pub mod recipe;
pub mod seeds;
pub mod tar;
pub mod tar_split;
pub mod toc_file;
pub mod zstd;
pub mod zstd_checkpoints;
