//! The commits that are under way, and the end of them all.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Counts commits, until none may begin any more.
#[derive(Debug, Default)]
pub(super) struct Running {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    commits: usize,
    is_closed: bool,
}

/// A commit that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct Commit<'a>(&'a Running);

impl Running {
    /// Begins a commit, if one may still begin.
    pub(super) fn begin(&self) -> Option<Commit<'_>> {
        let mut state = self.state.lock();
        if state.is_closed {
            return None;
        }
        state.commits += 1;
        Some(Commit(self))
    }

    /// Whether no commit may begin any more.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Lets no commit begin from now on, and waits for those that are under way; how many
    /// still are when the time is up.
    pub(super) fn close(&self, patience: Duration) -> usize {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        state.is_closed = true;
        while state.commits > 0 && !self.ended.wait_until(&mut state, until).timed_out() {}
        state.commits
    }
}

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        self.0.state.lock().commits -= 1;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_waits_for_those_under_way_and_no_longer_than_it_may() {
        let running = Running::default();
        let commit = running.begin().expect("it is open");
        assert_eq!(running.close(Duration::from_millis(10)), 1);
        assert!(running.begin().is_none(), "none begins after the end");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                drop(commit);
            });
            assert_eq!(running.close(Duration::from_secs(10)), 0);
        });
    }
}
