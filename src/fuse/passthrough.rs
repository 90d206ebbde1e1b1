//! Stored files that the kernel reads itself.
//!
//! Where the kernel offers passthrough and the process may use it (it needs
//! `CAP_SYS_ADMIN`), a file that is stored as it is shown is opened for the kernel, which
//! then reads it without asking. Where not, it is read through the daemon: nobody sees a
//! difference but in speed.
//!
//! Invariant: the kernel wants one mode and one backing file for an inode, from its first
//! open to its last release; whoever opens it meanwhile gets the same.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{BackingId, ReplyOpen};
use parking_lot::Mutex;

use crate::vfs::Ino;

/// How an inode is read while it is open.
#[derive(Debug, Clone)]
pub(super) enum Mode {
    /// By the kernel, from the backing file.
    Passthrough(Arc<BackingId>),
    /// By requests to the daemon, kept in the page cache.
    Cached,
}

#[derive(Debug)]
struct OpenInode {
    mode: Mode,
    opens: u64,
}

/// The inodes that are open, and how.
#[derive(Debug, Default)]
pub(super) struct Passthrough {
    offered: AtomicBool,
    open: Mutex<HashMap<Ino, OpenInode>>,
}

impl Passthrough {
    /// Notes whether the kernel offers passthrough.
    pub(super) fn offer(&self, offered: bool) {
        self.offered.store(offered, Ordering::Relaxed);
    }

    /// Counts one more open of `ino`, whose bytes are those of `file`, if of any.
    pub(super) fn open(&self, ino: Ino, file: Option<&File>, reply: &ReplyOpen) -> Mode {
        let mut open = self.open.lock();
        let inode = open.entry(ino).or_insert_with(|| OpenInode {
            mode: self.mode(file, reply),
            opens: 0,
        });
        inode.opens += 1;
        inode.mode.clone()
    }

    /// Counts one open of `ino` less.
    pub(super) fn release(&self, ino: Ino) {
        let mut open = self.open.lock();
        let Some(inode) = open.get_mut(&ino) else {
            return;
        };
        inode.opens -= 1;
        if inode.opens == 0 {
            open.remove(&ino);
        }
    }

    fn mode(&self, file: Option<&File>, reply: &ReplyOpen) -> Mode {
        let Some(file) = file.filter(|_| self.offered.load(Ordering::Relaxed)) else {
            return Mode::Cached;
        };
        match reply.open_backing(file) {
            Ok(backing) => Mode::Passthrough(Arc::new(backing)),
            Err(error) => {
                // Without the privilege it will not work for any other file either.
                if error.raw_os_error() == Some(libc::EPERM) {
                    self.offer(false);
                }
                log::debug!("no passthrough: {error}");
                Mode::Cached
            }
        }
    }
}
