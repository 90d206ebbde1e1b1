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
//! `fs/namei.c`). On its way it looks names up, but those that are renamed only under the
//! locks; and where it checks permissions itself, it asks for the attributes of `incoming/`,
//! which it may not keep: these requests wait. Where the path begins in `incoming/` or
//! below it, and the kernel checks nothing, none comes: the second rename waits a second
//! for what is left, and then is refused, but what it has asked for goes on, and whoever
//! asks anew gets it.
//!
//! What was prepared for nobody is given up after a while, and the session is open again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Sessions;
use super::publish::Ready;
use super::tree::Tree;
use crate::oci::RefName;
use crate::vfs::error::Error;
use crate::vfs::inode::Ino;
use crate::vfs::node::Name;

/// How long a rename waits before its caller is sent away for a moment.
const AT_ONCE: Duration = Duration::from_millis(20);

/// How long a rename waits that nothing could make wait before: as long as for a file that
/// is open.
const AT_MOST: Duration = Duration::from_secs(1);

/// How long what was prepared is kept for who asked for it.
const KEPT: Duration = Duration::from_secs(5);

/// How long it is kept for somebody who was told to ask anew.
const KEPT_LONG: Duration = Duration::from_secs(60);

/// The renames that are being prepared, and the threads that have asked for them.
#[derive(Debug, Default)]
pub struct Postponed {
    threads: Mutex<HashMap<u32, Thread>>,
    /// How many those are: looked at by every lookup.
    count: AtomicUsize,
    /// What nobody has taken yet.
    attempts: Mutex<Vec<Arc<Attempt>>>,
}

/// A thread that was sent away for a moment.
#[derive(Debug)]
struct Thread {
    attempt: Arc<Attempt>,
    /// The names of the rename, which are looked up under the locks.
    names: Vec<(Ino, Name)>,
}

impl Postponed {
    /// Whether the thread `pid` asks for something only to rename again.
    #[must_use]
    pub fn has(&self, pid: u32) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.threads.lock().contains_key(&pid)
    }

    /// Whether it looks up one of the names of its rename.
    #[must_use]
    pub fn renames(&self, pid: u32, parent: Ino, name: &[u8]) -> bool {
        let threads = self.threads.lock();
        let is_it = |known: &(Ino, Name)| known.0 == parent && known.1 == name;
        let thread = threads.get(&pid);
        thread.is_some_and(|thread| thread.names.iter().any(is_it))
    }

    /// Notes the names of the rename of the thread `pid`, if that was sent away.
    pub fn note(&self, pid: u32, names: [(Ino, &[u8]); 2]) {
        if let Some(thread) = self.threads.lock().get_mut(&pid) {
            let names = names.into_iter();
            thread.names = names.map(|(ino, name)| (ino, name.to_vec())).collect();
        }
    }

    /// Waits until the rename of the thread `pid` is prepared.
    pub fn wait(&self, pid: u32) {
        let threads = self.threads.lock();
        let attempt = threads.get(&pid).map(|thread| thread.attempt.clone());
        drop(threads);
        if let Some(attempt) = attempt {
            attempt.wait(None);
        }
    }

    fn send_away(&self, pid: u32, attempt: Arc<Attempt>) {
        let thread = Thread {
            attempt,
            names: Vec::new(),
        };
        let mut threads = self.threads.lock();
        let former = threads.insert(pid, thread);
        self.count.store(threads.len(), Ordering::Release);
        drop(threads);
        drop(former);
    }

    /// Whether the thread `pid` was sent away for this rename, and comes again.
    fn comes_again(&self, pid: u32, tree: &Arc<Tree>, name: &RefName) -> bool {
        let mut threads = self.threads.lock();
        let thread = threads.remove(&pid);
        self.count.store(threads.len(), Ordering::Release);
        drop(threads);
        thread.is_some_and(|thread| thread.attempt.is_of(tree, name))
    }

    /// What was begun for this rename, by whomever.
    fn find(&self, tree: &Arc<Tree>, name: &RefName) -> Option<Arc<Attempt>> {
        let mut attempts = self.attempts.lock();
        attempts.retain(|attempt| !attempt.is_taken());
        let mut attempts = attempts.iter();
        attempts.find(|attempt| attempt.is_of(tree, name)).cloned()
    }

    fn add(&self, attempt: Arc<Attempt>) {
        self.attempts.lock().push(attempt);
    }

    fn remove(&self, attempt: &Arc<Attempt>) {
        let mut attempts = self.attempts.lock();
        attempts.retain(|known| !Arc::ptr_eq(known, attempt));
    }
}

/// A session that is being prepared.
struct Attempt {
    tree: Arc<Tree>,
    name: RefName,
    state: Mutex<State>,
    changed: Condvar,
    /// Whether somebody was told to ask anew.
    is_kept_long: AtomicBool,
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
    fn is_of(&self, tree: &Arc<Tree>, name: &RefName) -> bool {
        Arc::ptr_eq(&self.tree, tree) && self.name == *name
    }

    fn is_taken(&self) -> bool {
        matches!(*self.state.lock(), State::Taken)
    }

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
        let kept = match *state {
            State::Prepared(Ok(_)) if self.is_kept_long.load(Ordering::Acquire) => KEPT_LONG,
            _ => KEPT,
        };
        let deadline = Instant::now() + kept;
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
    /// again; [`Error::Preparing`] if it has come too early; why the session cannot be
    /// published.
    pub(super) fn prepare_for(
        self: &Arc<Self>,
        pid: u32,
        tree: &Arc<Tree>,
        name: &RefName,
    ) -> Result<Ready, Error> {
        let comes_again = self.postponed.comes_again(pid, tree, name);
        let attempt = match self.postponed.find(tree, name) {
            Some(attempt) => attempt,
            None => self.begin_attempt(tree, name)?,
        };
        let patience = match comes_again || pid == 0 {
            true => AT_MOST,
            false => AT_ONCE,
        };
        if attempt.wait(Some(patience)) {
            self.postponed.remove(&attempt);
            return attempt.take().unwrap_or(Err(Error::Busy));
        }
        if comes_again || pid == 0 {
            attempt.is_kept_long.store(true, Ordering::Release);
            return Err(Error::Preparing);
        }
        self.postponed.send_away(pid, attempt);
        Err(Error::Stale)
    }

    fn begin_attempt(
        self: &Arc<Self>,
        tree: &Arc<Tree>,
        name: &RefName,
    ) -> Result<Arc<Attempt>, Error> {
        let attempt = Arc::new(Attempt {
            tree: tree.clone(),
            name: name.clone(),
            state: Mutex::new(State::Preparing),
            changed: Condvar::new(),
            is_kept_long: AtomicBool::new(false),
        });
        let (sessions, work) = (self.clone(), attempt.clone());
        std::thread::Builder::new()
            .name("publish".into())
            .spawn(move || work.run(&sessions))?;
        self.postponed.add(attempt.clone());
        Ok(attempt)
    }
}
