//! Requests that wait for a first pass or a hashing, kept off the threads that take
//! requests from the kernel.
//!
//! Requests that wait for one inode stand in line: a thread lets the first of them wait
//! and then answers the others, which by then need not wait. So there are as many threads
//! as there are inodes that somebody waits for, however many do; and never more than
//! [`MAX_THREADS`], beyond which whole lines wait for a thread. A thread without a line
//! stays for a moment: who commits one thing after the other has a line for each.
//!
//! Invariant: an inode has a line from its first request until its last is answered, and
//! one thread at a time works on it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::guard;
use crate::vfs::Ino;

/// The most threads that wait at a time. First passes are made two at a time whoever waits
/// for them; what this bounds is how many inodes can be waited for before the others have
/// to wait for one of these.
const MAX_THREADS: usize = 256;

/// How long a thread stays that has nothing to do: long beside what a program does between
/// two commits.
const STAY: Duration = Duration::from_millis(500);

/// What answers a request; dropped without being called, it answers EIO.
type Answer = Box<dyn FnOnce() + Send>;

/// The lines of waiting requests.
#[derive(Default)]
pub(super) struct Waiting {
    lines: Mutex<Lines>,
    added: Condvar,
}

#[derive(Default)]
struct Lines {
    by_ino: HashMap<Ino, VecDeque<Answer>>,
    /// The lines on which no thread works yet.
    idle: VecDeque<Ino>,
    threads: usize,
    /// How many of them have nothing to do.
    resting: usize,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines.lock();
        let mut waiting = f.debug_struct("Waiting");
        waiting.field("inodes", &lines.by_ino.len());
        waiting.field("threads", &lines.threads).finish()
    }
}

impl Waiting {
    /// Calls `answer` from another thread when it is its turn.
    pub(super) fn add(self: &Arc<Self>, ino: Ino, answer: impl FnOnce() + Send + 'static) {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.by_ino.get_mut(&ino) {
            line.push_back(Box::new(answer));
            return;
        }
        lines
            .by_ino
            .insert(ino, VecDeque::from([Box::new(answer) as Answer]));
        lines.idle.push_back(ino);
        if lines.idle.len() <= lines.resting {
            self.added.notify_one();
        } else if lines.threads < MAX_THREADS {
            lines.threads += 1;
            drop(lines);
            self.spawn();
        }
    }

    fn spawn(self: &Arc<Self>) {
        let this = self.clone();
        let spawned = std::thread::Builder::new()
            .name("wait".into())
            .spawn(move || this.work());
        if let Err(error) = spawned {
            log::error!("cannot start a thread: {error}");
            let mut lines = self.lines.lock();
            lines.threads -= 1;
            if lines.threads == 0 {
                // Nobody else will come to these lines.
                let given_up = std::mem::take(&mut *lines);
                drop(lines);
                drop(given_up);
            }
        }
    }

    /// Works on idle lines until there is none for a while.
    fn work(&self) {
        let mut lines = self.lines.lock();
        loop {
            while let Some(ino) = lines.idle.pop_front() {
                while let Some(answer) = lines.next(ino) {
                    MutexGuard::unlocked(&mut lines, || guard(answer));
                }
                lines.by_ino.remove(&ino);
            }
            lines.resting += 1;
            let waited = self.added.wait_for(&mut lines, STAY);
            lines.resting -= 1;
            if waited.timed_out() && lines.idle.is_empty() {
                break;
            }
        }
        lines.threads -= 1;
    }
}

impl Lines {
    fn next(&mut self, ino: Ino) -> Option<Answer> {
        self.by_ino.get_mut(&ino)?.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const AT_ALL: Duration = Duration::from_secs(10);

    #[test]
    fn many_who_wait_for_one_thing_take_one_thread() {
        let waiting: Arc<Waiting> = Arc::default();
        let (pass, passed) = mpsc::channel::<()>();
        let (answer, answers) = mpsc::channel();
        waiting.add(Ino(2), move || {
            passed.recv_timeout(AT_ALL).expect("in time");
        });
        for number in 0..10_000 {
            let answer = answer.clone();
            waiting.add(Ino(2), move || answer.send(number).expect("it is heard"));
        }
        assert_eq!(waiting.lines.lock().threads, 1);
        // Another thing does not wait for that one.
        let other = answer.clone();
        waiting.add(Ino(3), move || other.send(-1).expect("it is heard"));
        assert_eq!(answers.recv_timeout(AT_ALL), Ok(-1));
        pass.send(()).expect("it is waited for");
        for number in 0..10_000 {
            assert_eq!(answers.recv_timeout(AT_ALL), Ok(number));
        }
    }

    #[test]
    fn threads_are_bounded_and_everybody_is_answered() {
        let waiting: Arc<Waiting> = Arc::default();
        let (answer, answers) = mpsc::channel();
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock();
        let count = 3 * MAX_THREADS as u64;
        for number in 0..count {
            let (answer, gate) = (answer.clone(), gate.clone());
            waiting.add(Ino(2 + number), move || {
                drop(gate.lock());
                answer.send(number).expect("it is heard");
            });
        }
        assert_eq!(waiting.lines.lock().threads, MAX_THREADS);
        drop(closed);
        let mut answered: Vec<u64> = (0..count)
            .map(|_| answers.recv_timeout(AT_ALL).expect("it is answered"))
            .collect();
        answered.sort_unstable();
        assert!(answered.into_iter().eq(0..count));
    }

    #[test]
    fn a_thread_goes_on_with_the_next_line_and_then_ends() {
        let waiting: Arc<Waiting> = Arc::default();
        let (answer, answers) = mpsc::channel();
        for number in 0..100 {
            let answer = answer.clone();
            waiting.add(Ino(2 + number), move || {
                answer.send(()).expect("it is heard");
            });
            answers.recv_timeout(AT_ALL).expect("it is answered");
            while waiting.lines.lock().resting == 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(waiting.lines.lock().threads, 1);
        let begun = std::time::Instant::now();
        while waiting.lines.lock().threads > 0 {
            assert!(begun.elapsed() < AT_ALL, "it stays");
            std::thread::sleep(STAY / 10);
        }
    }

    #[test]
    fn a_panic_ends_one_request_alone() {
        let waiting: Arc<Waiting> = Arc::default();
        let (answer, answers) = mpsc::channel();
        waiting.add(Ino(2), || panic!("a mistake"));
        waiting.add(Ino(2), move || answer.send(()).expect("it is heard"));
        assert_eq!(answers.recv_timeout(AT_ALL), Ok(()));
    }
}
