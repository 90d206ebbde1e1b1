//! Small files, whose bytes the kernel is given when they are opened.
//!
//! Who opens a small file is about to read all of it. Two requests for that, one after the
//! other, cost more than its bytes: each wakes a thread here and then the reader again. So
//! the bytes are put into the page cache while `open` is answered, and no read is asked for.
//!
//! The kernel locks a page while somebody waits for a read of it, and a store waits for
//! that lock. Such a read can come, of another who opened the same file meanwhile and was
//! answered sooner. Therefore only the first open of an inode stores, and one thread at a
//! time: the others answer the read, and where there are no others, nothing is given.
//!
//! Until the store is done the open is not answered, so that the kernel cannot have
//! forgotten the inode: its number cannot mean another file yet.

use std::sync::OnceLock;

use fuser::INodeNo;
use parking_lot::Mutex;

use crate::vfs::{Caching, Ino, OpenFile, Vfs};

/// The largest file that is given, in bytes: what the kernel asks for in one request
/// where it may not read further ahead. Copying more takes as long as a request.
const MOST: u64 = 128 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Early {
    notifier: OnceLock<fuser::Notifier>,
    /// The bytes that are given just now.
    buf: Mutex<Vec<u8>>,
}

impl Early {
    /// Begins to give. To be called before the first request is answered, and only where
    /// more than one thread takes requests.
    pub(super) fn begin(&self, notifier: fuser::Notifier) {
        drop(self.notifier.set(notifier));
    }

    /// Gives the kernel the bytes of `file`, which is about to be open as `ino`, if they
    /// never change and are few. If that fails, it asks for them as for any other.
    pub(super) fn give(&self, vfs: &Vfs, ino: Ino, file: &dyn OpenFile) {
        let (size, Some(notifier)) = (file.size(), self.notifier.get()) else {
            return;
        };
        let is_kept = file.caching() == Caching::Keep && file.backing().is_none();
        if !is_kept || size == 0 || size > MOST || !vfs.is_first_open(ino) {
            return;
        }
        let Some(mut buf) = self.buf.try_lock() else {
            return;
        };
        buf.resize(usize::try_from(size).unwrap_or(0), 0);
        match file.read(&mut buf, 0) {
            Ok(len) if len == buf.len() => {
                if let Err(error) = notifier.store(INodeNo(ino.0), 0, &buf) {
                    log::debug!("bytes of inode {} are not taken: {error}", ino.0);
                }
            }
            // Whoever reads meets it again.
            Ok(_) | Err(_) => {}
        }
    }
}
