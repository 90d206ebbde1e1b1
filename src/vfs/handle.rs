//! Open files and directories by the numbers that the kernel is given for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// The kernel's number for one open instance of a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// What the open handles mean. Numbers are never used twice.
#[derive(Debug)]
pub(super) struct HandleTable<T: ?Sized> {
    next: AtomicU64,
    open: RwLock<HashMap<Handle, Arc<T>>>,
}

impl<T: ?Sized> Default for HandleTable<T> {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(1),
            open: RwLock::default(),
        }
    }
}

impl<T: ?Sized> HandleTable<T> {
    pub(super) fn insert(&self, opened: Arc<T>) -> Handle {
        let handle = Handle(self.next.fetch_add(1, Ordering::Relaxed));
        self.open.write().insert(handle, opened);
        handle
    }

    pub(super) fn get(&self, handle: Handle) -> Option<Arc<T>> {
        self.open.read().get(&handle).cloned()
    }

    /// What was open, so that what closing it takes is done without the lock.
    pub(super) fn remove(&self, handle: Handle) -> Option<Arc<T>> {
        self.open.write().remove(&handle)
    }
}
