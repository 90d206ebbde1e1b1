//! Progress bars on a terminal, for what takes longer than a moment.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ocifs::vfs::views::Views;

/// What ends before this shows no bar.
const MOMENT: Duration = Duration::from_millis(500);

/// How often a bar moves.
const TICK: Duration = Duration::from_millis(100);

/// How many characters of a name stand before the bar.
const MAX_NAME: usize = 24;

/// A bar that appears after a moment, and goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    since: Instant,
    allowed: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A bar that may be shown if `allowed`, and if standard error is a terminal.
    pub(crate) fn new(allowed: bool) -> Self {
        Self {
            since: Instant::now(),
            allowed: allowed && io::stderr().is_terminal(),
            bar: None,
        }
    }

    /// Says that `done` of `total` bytes are done.
    pub(crate) fn show(&mut self, what: &str, done: u64, total: u64) {
        if !self.allowed || self.since.elapsed() < MOMENT {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| bar(what, done, total));
        bar.set_length(total);
        bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str, done: u64, total: u64) -> ProgressBar {
    let template = "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}";
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
        .with_style(style)
        .with_position(done)
        .with_message(end_of(what))
}

/// The end of a text that is too long for its line.
fn end_of(text: &str) -> String {
    match text.char_indices().rev().nth(MAX_NAME - 1) {
        Some((at, _)) if at > 0 => format!("…{}", &text[at..]),
        _ => text.to_owned(),
    }
}

/// Does `work`, and shows meanwhile how far the first passes over layers are.
pub(crate) fn of_passes<T>(views: &Views, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    std::thread::scope(|scope| {
        let (working, worked) = mpsc::channel::<()>();
        scope.spawn(move || {
            let mut progress = Progress::new(true);
            while worked.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let passes = views.layers().passes();
                let done = passes.iter().map(|pass| pass.done).sum();
                let total = passes.iter().map(|pass| pass.total).sum();
                if total > 0 {
                    progress.show("reading for the first time", done, total);
                }
            }
        });
        let result = work();
        drop(working);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_before_the_bar_are_cut_at_their_beginning() {
        let fits = "x".repeat(MAX_NAME);
        let long = format!("a{fits}");
        let rows = [
            ("", String::new()),
            (&*fits, fits.clone()),
            (&*long, format!("…{fits}")),
        ];
        for (name, expected) in rows {
            assert_eq!(end_of(name), expected, "{name}");
        }
    }
}
