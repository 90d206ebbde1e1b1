//! What takes long to make: made once for all who ask for it, and by few at a time.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};

use crate::stream::Budget;
use crate::vfs::error::Error;

/// Values by what they show: those in use, those that were used last, and those that
/// somebody makes just now.
///
/// Lock order: a slot, then the table; the table's lock is never held while one waits.
#[derive(Debug)]
pub(super) struct Loaded<T> {
    limit: u64,
    known: Mutex<Known<T>>,
}

#[derive(Debug)]
struct Known<T> {
    kept: Budget<String, Arc<T>>,
    in_use: HashMap<String, Weak<T>>,
    loading: HashMap<String, Slot<T>>,
}

/// What comes of one making; who makes it holds the lock until then.
type Slot<T> = Arc<Mutex<Option<Result<Arc<T>, Error>>>>;

impl<T> Loaded<T> {
    /// Nothing yet. Values that nobody uses may weigh `limit` together.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            known: Mutex::new(Known {
                kept: Budget::new(limit),
                in_use: HashMap::new(),
                loading: HashMap::new(),
            }),
        }
    }

    /// The value of `shows`. If it is not known, `load` makes it and says what it weighs; all
    /// who ask meanwhile wait for that, and get the same value or error.
    pub(super) fn get(
        &self,
        shows: &str,
        load: impl FnOnce() -> Result<(u64, T), Error>,
    ) -> Result<Arc<T>, Error> {
        let slot = {
            let mut known = self.known.lock();
            if let Some(value) = known.find(shows) {
                return Ok(value);
            }
            known.loading.entry(shows.to_owned()).or_default().clone()
        };
        let mut outcome = slot.lock();
        if let Some(outcome) = &*outcome {
            return outcome.clone();
        }
        let loaded = load().map(|(weight, value)| (weight, Arc::new(value)));
        let mut known = self.known.lock();
        known.loading.remove(shows);
        if let Ok((weight, value)) = &loaded {
            // What is too heavy alone counts as just light enough.
            known.remember(shows, value, (*weight).min(self.limit));
        }
        let loaded = loaded.map(|(_, value)| value);
        *outcome = Some(loaded.clone());
        loaded
    }
}

impl<T> Known<T> {
    fn find(&mut self, shows: &str) -> Option<Arc<T>> {
        let kept = self.kept.get(&shows.to_owned()).cloned();
        kept.or_else(|| self.in_use.get(shows)?.upgrade())
    }

    fn remember(&mut self, shows: &str, value: &Arc<T>, weight: u64) {
        self.in_use.retain(|_, value| value.strong_count() > 0);
        self.in_use.insert(shows.to_owned(), Arc::downgrade(value));
        self.kept.insert(shows.to_owned(), value.clone(), weight);
    }
}

/// Turns at work of which only so much may be under way at once.
#[derive(Debug)]
pub(super) struct Turns {
    free: Mutex<usize>,
    changed: Condvar,
}

impl Turns {
    /// So many at once.
    pub(super) fn new(count: usize) -> Self {
        Self {
            free: Mutex::new(count),
            changed: Condvar::new(),
        }
    }

    /// Does `work` as soon as there is a turn for it.
    pub(super) fn take<R>(&self, work: impl FnOnce() -> R) -> R {
        let mut free = self.free.lock();
        while *free == 0 {
            self.changed.wait(&mut free);
        }
        *free -= 1;
        drop(free);
        let _turn = Turn(self);
        work()
    }
}

/// Given back also if the work breaks off.
struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    /// Asks for the same on eight threads; the first to load waits until all others wait.
    fn ask_together(
        loaded: &Loaded<u32>,
        load: impl Fn() -> Result<(u64, u32), Error> + Sync,
    ) -> (usize, Vec<Result<Arc<u32>, Error>>) {
        const ASKERS: usize = 8;
        let loads = AtomicUsize::new(0);
        let load = || {
            loads.fetch_add(1, Ordering::Relaxed);
            // One for the table, and one for each who asks.
            let count = || Arc::strong_count(&loaded.known.lock().loading["a"]);
            while loads.load(Ordering::Relaxed) == 1 && count() < ASKERS + 1 {
                thread::yield_now();
            }
            load()
        };
        let outcomes = thread::scope(|scope| {
            let ask = || scope.spawn(|| loaded.get("a", load));
            let threads: Vec<_> = (0..ASKERS).map(|_| ask()).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join();
            let outcomes = threads.into_iter().map(join);
            outcomes.map(|outcome| outcome.expect("no panic")).collect()
        });
        (loads.load(Ordering::Relaxed), outcomes)
    }

    #[test]
    fn all_who_ask_at_once_get_what_one_of_them_made() -> TestResult {
        let loaded = Loaded::new(10);
        let (loads, outcomes) = ask_together(&loaded, || Ok((100, 1)));
        assert_eq!(loads, 1);
        let first = outcomes[0].clone()?;
        for outcome in outcomes {
            assert!(Arc::ptr_eq(&outcome?, &first));
        }
        let again = loaded.get("a", || Err(Error::Invalid))?;
        assert!(Arc::ptr_eq(&again, &first), "it stays known");
        Ok(())
    }

    #[test]
    fn an_error_is_for_those_who_waited_for_it() -> TestResult {
        let loaded = Loaded::new(10);
        let (loads, outcomes) = ask_together(&loaded, || Err(Error::Invalid));
        assert_eq!(loads, 1);
        assert!(outcomes.iter().all(Result::is_err));
        assert_eq!(
            *loaded.get("a", || Ok((1, 2)))?,
            2,
            "the next one tries again"
        );
        Ok(())
    }

    #[test]
    fn only_so_many_turns_at_once() {
        let (turns, now, most) = (Turns::new(2), AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..100).for_each(|_| turns.take(work)));
            }
        });
        assert!(most.into_inner() <= 2);
        assert_eq!(*turns.free.lock(), 2, "all are given back");
    }
}
