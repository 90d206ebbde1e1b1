//! The caches of the kernel, which all tests share: one that empties them must not run beside
//! one that counts what they save.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static CACHES: RwLock<()> = RwLock::new(());

/// As long as this is kept, no other test empties the caches.
pub(crate) fn caches_are_kept() -> RwLockReadGuard<'static, ()> {
    CACHES.read()
}

/// As long as this is kept, they may be emptied.
pub(crate) fn caches_are_emptied() -> RwLockWriteGuard<'static, ()> {
    CACHES.write()
}
