//! Progress bars on a terminal, for what takes longer than a moment.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ocifs::layer::{Layers, PassState, PassStatus};
use ocifs::oci::Digest;
use ocifs::vfs::views::Views;

/// Begins a line anew on a terminal, where a bar may stand in it.
pub(crate) fn leave_line() {
    let mut terminal = io::stderr();
    if terminal.is_terminal() {
        let (Ok(()) | Err(_)) = terminal.write_all(b"\r\x1b[K");
    }
}

/// What ends before this shows no bar.
const MOMENT: Duration = Duration::from_millis(500);

/// How often a bar moves.
pub(crate) const TICK: Duration = Duration::from_millis(100);

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
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
        .with_style(style())
        .with_position(done)
        .with_message(end_of(what))
}

fn style() -> ProgressStyle {
    let template = "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}";
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// A bar for each pass that runs, and one for all that is to be read. They appear after a
/// moment if standard error is a terminal, and go when this is dropped.
#[derive(Debug)]
pub(crate) struct Bars {
    since: Instant,
    allowed: bool,
    screen: MultiProgress,
    all: ProgressBar,
    running: Vec<(Digest, ProgressBar)>,
}

impl Bars {
    /// Bars for `total` stored bytes.
    pub(crate) fn new(total: u64) -> Self {
        let all = ProgressBar::hidden();
        all.set_length(total);
        Self {
            since: Instant::now(),
            allowed: io::stderr().is_terminal(),
            screen: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            all,
            running: Vec::new(),
        }
    }

    /// Shows how far the passes are, beside `done` bytes of layers that are finished.
    pub(crate) fn show(&mut self, passes: &[PassStatus], done: u64) {
        if !self.allowed || self.since.elapsed() < MOMENT {
            return;
        }
        if self.screen.is_hidden() {
            self.screen.set_draw_target(ProgressDrawTarget::stderr());
            self.all = self.screen.add(self.all.clone());
            self.all.set_style(style());
            self.all.set_message("all layers");
        }
        let read: u64 = passes.iter().map(|pass| pass.done).sum();
        self.all.set_position(done + read);
        self.running.retain(|(digest, bar)| {
            let runs = passes.iter().any(|pass| pass.digest == *digest);
            if !runs {
                bar.finish_and_clear();
                self.screen.remove(bar);
            }
            runs
        });
        for pass in passes.iter().filter(|pass| pass.state != PassState::Queued) {
            self.show_pass(pass);
        }
    }

    fn show_pass(&mut self, pass: &PassStatus) {
        let known = self
            .running
            .iter()
            .find(|(digest, _)| *digest == pass.digest);
        let bar = match known {
            Some((_, bar)) => bar.clone(),
            None => {
                let bar = ProgressBar::new(pass.total).with_style(style());
                let bar = self.screen.insert_before(&self.all, bar);
                self.running.push((pass.digest.clone(), bar.clone()));
                bar
            }
        };
        let digest = pass.digest.to_string();
        let short: String = digest.chars().take(MAX_NAME - 1).collect();
        let improving = pass.state == PassState::Improving;
        let more = if improving { ", checkpoints" } else { "" };
        bar.set_message(format!("{short}…{more}"));
        bar.set_position(pass.done);
    }

    /// Prints while the bars are out of the way.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.screen.suspend(print)
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        for (_, bar) in &self.running {
            bar.finish_and_clear();
        }
        self.all.finish_and_clear();
    }
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
    of_layers(views.layers(), work)
}

/// The same, where there are no views yet.
pub(crate) fn of_layers<T>(layers: &Layers, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    std::thread::scope(|scope| {
        let (working, worked) = mpsc::channel::<()>();
        scope.spawn(move || {
            let mut progress = Progress::new(true);
            while worked.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let passes = layers.passes();
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
