//! Publishing by a rename, without freezing the mount.
//!
//! While the kernel waits for the answer to a rename it holds the locks of both
//! directories, the mount root's among them, and nobody finds a new name there. So a
//! session that takes more than a moment to look at is not looked at under them:
//!
//! ```text
//! rename ──► preparing begins ──► not done at once: ESTALE     (the locks are free)
//! kernel looks `incoming` up anew ──► answered when it is prepared
//! kernel renames anew ──► all is ready
//! ```
//!
//! The kernel does so once for each rename, whoever called it (`retry_estale` in its
//! `fs/namei.c`). Where it has no name to look up, because the path begins in `incoming/`,
//! the second rename waits.
//!
//! What was prepared for nobody is given up after a while, and the session is open again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Sessions;
use super::publish::Ready;
use super::tree::Tree;
use crate::oci::RefName;
use crate::vfs::error::Error;

/// How long a rename waits before its caller is sent away for a moment.
const AT_ONCE: Duration = Duration::from_millis(20);

/// How long what was prepared is kept for who asked for it.
const KEPT: Duration = Duration::from_secs(5);

/// The callers whose rename is being prepared.
#[derive(Debug, Default)]
pub struct Postponed {
    by_thread: Mutex<HashMap<u32, Arc<Attempt>>>,
    /// How many those are: looked at by every lookup.
    count: AtomicUsize,
}

impl Postponed {
    /// Whether the thread `pid` is looking a name up only to rename again.
    #[must_use]
    pub fn has(&self, pid: u32) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.by_thread.lock().contains_key(&pid)
    }

    /// Waits until the rename of the thread `pid` is prepared.
    pub fn wait(&self, pid: u32) {
        let attempt = self.by_thread.lock().get(&pid).cloned();
        if let Some(attempt) = attempt {
            attempt.wait(None);
        }
    }

    fn add(&self, pid: u32, attempt: Arc<Attempt>) {
        let mut by_thread = self.by_thread.lock();
        let former = by_thread.insert(pid, attempt);
        self.count.store(by_thread.len(), Ordering::Release);
        drop(by_thread);
        drop(former);
    }

    fn take(&self, pid: u32) -> Option<Arc<Attempt>> {
        let mut by_thread = self.by_thread.lock();
        let attempt = by_thread.remove(&pid);
        self.count.store(by_thread.len(), Ordering::Release);
        attempt
    }
}

/// A session that is being prepared.
struct Attempt {
    tree: Arc<Tree>,
    name: RefName,
    state: Mutex<State>,
    changed: Condvar,
}

enum State {
    Preparing,
    Prepared(Result<Ready, Error>),
    Taken,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Attempt {
    /// Waits until it is prepared, at most for `patience`; whether it is.
    fn wait(&self, patience: Option<Duration>) -> bool {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut state = self.state.lock();
        while matches!(*state, State::Preparing) {
            match deadline {
                None => self.changed.wait(&mut state),
                Some(deadline) => {
                    if self.changed.wait_until(&mut state, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        !matches!(*state, State::Preparing)
    }

    fn take(&self) -> Option<Result<Ready, Error>> {
        let mut state = self.state.lock();
        if matches!(*state, State::Preparing) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Prepared(result) => {
                self.changed.notify_all();
                Some(result)
            }
            State::Preparing | State::Taken => None,
        }
    }

    /// Prepares, and keeps the result for a while.
    fn run(&self, sessions: &Sessions) {
        let compression = sessions.options.compression;
        let result = sessions.prepare(&self.tree, &self.name, compression);
        let mut state = self.state.lock();
        *state = State::Prepared(result);
        self.changed.notify_all();
        let deadline = Instant::now() + KEPT;
        while matches!(*state, State::Prepared(_)) {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        let given_up = std::mem::replace(&mut *state, State::Taken);
        drop(state);
        drop(given_up);
    }
}

impl Sessions {
    /// Prepares a session for a rename of the thread `pid`.
    ///
    /// # Errors
    /// [`Error::Stale`] if that takes longer than a moment, and the caller is to come
    /// again; why the session cannot be published.
    pub(super) fn prepare_for(
        self: &Arc<Self>,
        pid: u32,
        tree: &Arc<Tree>,
        name: &RefName,
    ) -> Result<Ready, Error> {
        if let Some(attempt) = self.postponed.take(pid)
            && Arc::ptr_eq(&attempt.tree, tree)
            && attempt.name == *name
        {
            attempt.wait(None);
            if let Some(result) = attempt.take() {
                return result;
            }
        }
        let attempt = Arc::new(Attempt {
            tree: tree.clone(),
            name: name.clone(),
            state: Mutex::new(State::Preparing),
            changed: Condvar::new(),
        });
        let (sessions, work) = (self.clone(), attempt.clone());
        std::thread::Builder::new()
            .name("publish".into())
            .spawn(move || work.run(&sessions))?;
        if attempt.wait(Some(AT_ONCE)) || pid == 0 {
            attempt.wait(None);
            return attempt.take().unwrap_or(Err(Error::Busy));
        }
        self.postponed.add(pid, attempt);
        Err(Error::Stale)
    }
}
