//! Tests of the library through its public interface, one file for each room.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod layer;
mod sample;
mod stream;
