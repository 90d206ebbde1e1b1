//! Waiting for something to come true, and how long that took.

use std::thread;
use std::time::{Duration, Instant};

/// How often is asked.
const PAUSE: Duration = Duration::from_millis(1);

/// Asks until `condition` holds; says how long that took.
///
/// # Panics
/// If it does not hold within `limit`.
pub(crate) fn until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    loop {
        // The time before the question: an answer that was long in coming counts as late.
        let asked = start.elapsed();
        if condition() {
            return start.elapsed();
        }
        assert!(asked < limit, "not within {limit:?}: {what}");
        thread::sleep(PAUSE);
    }
}

/// The middle one of some durations.
pub(crate) fn median(mut durations: Vec<Duration>) -> Duration {
    assert!(!durations.is_empty(), "nothing was measured");
    durations.sort();
    durations[durations.len() / 2]
}
