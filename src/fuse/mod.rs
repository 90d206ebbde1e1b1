//! Speaks FUSE for a [`Vfs`]: translates requests and replies, and decides nothing else.
//!
//! The one room that imports `fuser`. What is learned from the kernel's behaviour:
//!
//! - A request that may wait for a first pass goes to another thread ([`waiting`]), so
//!   that those that take requests from the kernel are never all asleep.
//! - Waking threads is most of what requests cost; [`crew`] says how many are awake.
//! - readdirplus cannot decline an entry and is asked in the first chunk of every `ls`,
//!   so it never waits.
//! - A notice of a name locks the directory, and a store locks the page: where a program
//!   holds either until it is answered, the thread that sends it cannot even be killed, and
//!   keeps the device open for ever. So names that may change have no lifetime and need no
//!   notice, and nothing is stored that somebody may be reading ([`early`]).
//! - ENOSYS is remembered by the kernel for the whole mount. It is answered to `opendir` of a
//!   mount that is only read, and to nothing else ([`unopened`]).
//! - A handler that panics must not end the mount: the panic is caught, and the reply
//!   that is dropped by it answers EIO.

mod caller;
mod convert;
mod crew;
mod early;
mod filesystem;
mod load;
mod pages;
mod passthrough;
mod replies;
mod session;
mod unopened;
mod waiting;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use session::{Access, Mount, MountError, MountOptions, Notifier, Unmount, is_stale, unmount};

use self::crew::Crew;
use self::early::Early;
use self::pages::Pages;
use self::passthrough::Passthrough;
use self::unopened::{Position, Unopened};
use self::waiting::Waiting;
use crate::vfs::{Handle, Ino, Vfs};

/// Who may read what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permissions {
    /// Whoever may use the mount may read everything in it.
    OfTheMount,
    /// What modes and access control lists say; the kernel looks at them.
    OfTheFiles,
}

/// A [`Vfs`] as `fuser` wants it.
#[derive(Debug)]
pub(crate) struct FuseAdapter {
    vfs: Arc<Vfs>,
    passthrough: Arc<Passthrough>,
    early: Arc<Early>,
    crew: Arc<Crew>,
    waiting: Arc<Waiting>,
    /// Those who wait for another program's last close, which may stand in the first line.
    opening: Arc<Waiting>,
    pages: Pages,
    permissions: Permissions,
    access: Access,
    /// Whether the kernel lists directories without opening them.
    lists_unopened: bool,
    unopened: Arc<Unopened>,
}

impl FuseAdapter {
    fn new(vfs: Arc<Vfs>, options: &MountOptions) -> Self {
        Self {
            vfs,
            permissions: options.permissions(),
            access: options.access,
            lists_unopened: false,
            unopened: Arc::default(),
            passthrough: Arc::default(),
            early: Arc::default(),
            crew: Arc::new(Crew::new(options.threads())),
            waiting: Arc::default(),
            opening: Arc::default(),
            pages: Pages::default(),
        }
    }

    /// Runs `answer`, which asks for attributes or content of `ino`, where it may wait.
    fn answer(&self, ino: Ino, answer: impl FnOnce(&Vfs, &Passthrough) + Send + 'static) {
        if self.holds(|vfs| vfs.would_wait(ino)) {
            return self.wait(ino, answer);
        }
        guard(|| answer(&self.vfs, &self.passthrough));
    }

    /// Where a listing goes on for which the kernel sends these.
    fn position(&self, handle: fuser::FileHandle, offset: u64) -> Position {
        let handle = (!self.lists_unopened).then_some(Handle(handle.0));
        Position { handle, offset }
    }

    /// Whether that is so. If the question panics, the answer is left to find out.
    fn holds(&self, question: impl FnOnce(&Vfs) -> bool) -> bool {
        catch_unwind(AssertUnwindSafe(|| question(&self.vfs))).unwrap_or(false)
    }

    /// Runs `answer`, which waits until `ino` is closed, on another thread than those that
    /// close it.
    fn wait_for_close(&self, ino: Ino, answer: impl FnOnce(&Vfs, &Passthrough) + Send + 'static) {
        let (vfs, passthrough) = (self.vfs.clone(), self.passthrough.clone());
        self.opening.add(ino, move || answer(&vfs, &passthrough));
    }

    /// Runs `answer`, which waits for `ino`, on another thread.
    fn wait(&self, ino: Ino, answer: impl FnOnce(&Vfs, &Passthrough) + Send + 'static) {
        let (vfs, passthrough) = (self.vfs.clone(), self.passthrough.clone());
        self.waiting.add(ino, move || answer(&vfs, &passthrough));
    }
}

/// Keeps a panic of one request from ending the mount.
fn guard(answer: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(answer)).is_err() {
        log::error!("a request failed by a mistake in the program; it was answered with EIO");
    }
}
