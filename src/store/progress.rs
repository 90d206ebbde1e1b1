//! How long work reports how far it is.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

/// Receives how many bytes a long piece of work has got through. Called from any thread.
pub trait Progress: Send + Sync + Debug {
    /// `bytes` more are done, counted in stored (compressed) bytes.
    fn advance(&self, bytes: u64);
}

/// A progress that nobody looks at.
#[derive(Debug, Clone, Copy)]
pub struct Unwatched;

impl Progress for Unwatched {
    fn advance(&self, _bytes: u64) {}
}

impl Progress for AtomicU64 {
    fn advance(&self, bytes: u64) {
        self.fetch_add(bytes, Ordering::Relaxed);
    }
}
