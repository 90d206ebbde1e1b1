//! How much the processors have to do just now.

use std::fs;

/// Whether each of those who want to run has one of so many processors, this thread and the
/// one that it has just answered among them. Where that cannot be told, it is not so, nor
/// with a single processor.
pub(super) fn is_light(processors: usize) -> bool {
    let running = || want_to_run(&fs::read_to_string("/proc/loadavg").ok()?);
    processors > 1 && running().is_some_and(|running| running <= processors)
}

/// How many threads want to run, by the text of `/proc/loadavg`.
///
/// `proc_loadavg(5)`: the fourth field is their number, a slash and that of all threads.
fn want_to_run(text: &str) -> Option<usize> {
    let (running, _) = text.split_ascii_whitespace().nth(3)?.split_once('/')?;
    running.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_loadavg() {
        let rows = [
            ("usual", "0.20 0.18 0.12 2/195 11206\n", Some(2)),
            ("many", "90.1 50.0 9.9 123/4567 1\n", Some(123)),
            ("cut", "0.20 0.18 0.12", None),
            ("no slash", "0.20 0.18 0.12 2 11206", None),
            ("no number", "0.20 0.18 0.12 x/195 11206", None),
            ("empty", "", None),
        ];
        for (name, text, expected) in rows {
            assert_eq!(want_to_run(text), expected, "{name}");
        }
    }
}
