//! Tests of the library through its public interface, one file for each room.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod archive;
mod artifacts;
mod commit;
#[path = "../common/mod.rs"]
mod common;
mod export;
mod fuzz;
mod ingest;
mod layer;
mod layout;
mod pack;
mod rootfs;
mod sample;
mod sessions;
mod stream;
mod tar;
#[path = "../fuzz/src/lib.rs"]
mod targets;
mod vfs;
