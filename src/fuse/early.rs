//! Small files, whose bytes the kernel is given when they are opened.
//!
//! Who opens a small file is about to read all of it. Two requests for that, one after the
//! other, cost more than its bytes: each wakes a thread here and then the reader again. So
//! the bytes are put into the page cache while `open` is answered, and no read is asked for.
//!
//! The kernel locks a page while somebody waits for a read of it, and a store waits for
//! that lock; not even the end of the process breaks that off. Therefore only the first open
//! of an inode stores, and whoever opens it meanwhile is answered after that ([`Gate`]): so
//! nobody can be reading it. One thread at a time stores; where another one does, nothing is
//! given.
//!
//! Until the store is done the open is not answered, so that the kernel cannot have
//! forgotten the inode: its number cannot mean another file yet.

use std::sync::OnceLock;

use fuser::INodeNo;
use parking_lot::{Condvar, Mutex};

use crate::vfs::{Caching, Ino, OpenFile, Vfs};

/// The largest file that is given, in bytes: what the kernel asks for in one request
/// where it may not read further ahead. Copying more takes as long as a request.
const MOST: u64 = 128 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Early {
    notifier: OnceLock<fuser::Notifier>,
    gate: Gate,
    /// The bytes that are given just now.
    buf: Mutex<Vec<u8>>,
}

impl Early {
    /// Begins to give. To be called before the first request is answered.
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
        if !is_kept || size == 0 || size > MOST {
            return;
        }
        let Some(_passage) = self.gate.enter(ino, || vfs.is_first_open(ino)) else {
            return;
        };
        let mut buf = self.buf.lock();
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

/// Lets one inode in at a time, and waits for it only with those who open the same one.
#[derive(Debug, Default)]
struct Gate {
    inside: Mutex<Option<Ino>>,
    left: Condvar,
}

impl Gate {
    /// Goes in with `ino` if nobody is there and this `is_first`, which is asked whatever
    /// comes of it. Whoever comes while the same inode is there waits until it has left.
    fn enter(&self, ino: Ino, is_first: impl FnOnce() -> bool) -> Option<Passage<'_>> {
        let mut inside = self.inside.lock();
        let is_first = is_first();
        while *inside == Some(ino) {
            self.left.wait(&mut inside);
        }
        if inside.is_some() || !is_first {
            return None;
        }
        *inside = Some(ino);
        Some(Passage(self))
    }
}

/// An inode in the gate; it leaves when this is dropped.
struct Passage<'a>(&'a Gate);

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        *self.0.inside.lock() = None;
        self.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_opens_what_is_just_given_waits() {
        let gate = Gate::default();
        let passage = gate.enter(Ino(2), || true).expect("nobody is there");
        // Another one neither waits nor gives, and is never given later.
        let mut is_asked = false;
        let other = gate.enter(Ino(3), || {
            is_asked = true;
            true
        });
        assert!(other.is_none() && is_asked);
        thread::scope(|scope| {
            let (answer, answered) = mpsc::channel();
            let gate = &gate;
            scope.spawn(move || {
                let is_in = gate.enter(Ino(2), || false).is_some();
                answer.send(is_in).expect("it is heard");
            });
            let early = answered.recv_timeout(Duration::from_millis(50));
            assert!(early.is_err(), "it was answered before the bytes are there");
            drop(passage);
            assert_eq!(answered.recv_timeout(Duration::from_secs(10)), Ok(false));
        });
        assert!(gate.enter(Ino(3), || true).is_some(), "it is free again");
    }
}
