//! The groups of rows, one file each.

pub mod archive;
pub mod browse;
pub mod entries;
pub mod linear;
pub mod memory;
pub mod pass;
pub mod random;
pub mod sequential;
pub mod start;
pub mod toc;
pub mod tree;
