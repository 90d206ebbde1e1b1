//! Stored files that the kernel reads itself.
//!
//! Where the kernel offers passthrough and the process may use it (it needs
//! `CAP_SYS_ADMIN`), a file that is stored as it is shown is opened for the kernel, which
//! then reads it without asking. Where not, it is read through the daemon: nobody sees a
//! difference but in speed.
//!
//! A file of a session is written by the kernel in the same way. Nothing was verified
//! there, so nothing is compared.
//!
//! Invariant: the kernel wants one mode and one backing file for an inode, from its first
//! open to its last release; whoever opens it meanwhile gets the same.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::BackingId;
use parking_lot::Mutex;

use crate::vfs::Ino;

/// What is known of the bytes of a backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// They were verified, and must stay as they were then.
    Verified,
    /// They change by what is written through the mount.
    Changing,
}

/// How an inode is read and written while it is open.
#[derive(Debug, Clone)]
pub(super) enum Mode {
    /// By the kernel, from the backing file.
    Passthrough(Arc<BackingId>),
    /// By requests to the daemon, kept in the page cache.
    Cached,
    /// Not at all: the kernel holds on to another file for this inode, and that file was
    /// written to since it was verified.
    Refused,
}

/// A file that the kernel reads, and when it was last written to before it was verified.
#[derive(Debug)]
struct Backing {
    file: File,
    written: (i64, i64, u64),
}

impl Backing {
    fn of(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        let written = written(&file)?;
        Ok(Self { file, written })
    }

    fn is_as_verified(&self) -> bool {
        written(&self.file).is_ok_and(|now| now == self.written)
    }
}

/// When a file was last written to, and its size. Its change time is left out: it moves
/// with the file's names as well.
fn written(file: &File) -> io::Result<(i64, i64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
}

#[derive(Debug)]
struct OpenInode {
    mode: Mode,
    backing: Option<Backing>,
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

    /// Whether the kernel offers passthrough, and it has worked so far.
    pub(super) fn is_offered(&self) -> bool {
        self.offered.load(Ordering::Relaxed)
    }

    /// Counts one more open of `ino`, whose bytes are those of `file`, if of any;
    /// `open_backing` gives that file to the kernel.
    pub(super) fn open(
        &self,
        ino: Ino,
        content: Content,
        file: Option<&File>,
        open_backing: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Mode {
        let mut open = self.open.lock();
        let inode = open.entry(ino).or_insert_with(|| OpenInode {
            mode: self.mode(file, open_backing),
            backing: file
                .filter(|_| content == Content::Verified)
                .and_then(|file| Backing::of(file).ok()),
            opens: 0,
        });
        let passed = matches!(inode.mode, Mode::Passthrough(_));
        let verified = || inode.backing.as_ref().is_some_and(Backing::is_as_verified);
        if passed && content == Content::Verified && !verified() {
            if inode.opens == 0 {
                open.remove(&ino);
            }
            return Mode::Refused;
        }
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

    fn mode(
        &self,
        file: Option<&File>,
        open_backing: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Mode {
        let Some(file) = file.filter(|_| self.is_offered()) else {
            return Mode::Cached;
        };
        match open_backing(file) {
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
