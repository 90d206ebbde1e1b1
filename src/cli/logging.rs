//! The log on standard error: level from the flags, details from `OCIFS_LOG`.
//!
//! A daemon's lines are read later and by others: they have time and module. Those of a
//! command that ends at once look like its other messages, and leave out what the
//! command says itself.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use env_logger::{Builder, Env};
use log::{Level, LevelFilter, Record};

use super::{Global, output};

/// Where the library notes what it found wrong with a blob.
const FAULTS: &str = "ocifs::vfs::views::faults";

/// Where it notes what ended a pass; those who waited for it are told as well.
const PASSES: &str = "ocifs::layer::layers";

/// Whether this process is a daemon, or is going to be one.
static DAEMON: AtomicBool = AtomicBool::new(false);

/// Sets the log up. Called once, before anything is done.
pub(crate) fn init(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Warn,
        (false, 1) => LevelFilter::Info,
        (false, 2) => LevelFilter::Debug,
        (false, _) => LevelFilter::Trace,
    };
    let mut builder = Builder::new();
    builder.filter_level(level);
    // The protocol library reports what the mount reports in its own words.
    builder.filter_module("fuser", level.min(LevelFilter::Error));
    builder.parse_env(Env::new().filter("OCIFS_LOG"));
    let detailed = global.verbose > 0 || std::env::var_os("OCIFS_LOG").is_some();
    let dated = env_logger::fmt::ConfigurableFormat::default();
    builder.format(move |buf, record| {
        if detailed || DAEMON.load(Ordering::Relaxed) {
            return dated.format(buf, record);
        }
        match plain(record) {
            Some(line) => writeln!(buf, "{line}"),
            None => Ok(()),
        }
    });
    builder.init();
}

/// From now on lines are those of a daemon.
pub(crate) fn become_daemon() {
    DAEMON.store(true, Ordering::Relaxed);
}

/// The line of a command that ends at once, if there is to be one.
fn plain(record: &Record<'_>) -> Option<String> {
    let is_failed_pass = record.target() == PASSES && record.level() == Level::Error;
    if record.target() == FAULTS || is_failed_pass {
        return None;
    }
    let level = match record.level() {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info | Level::Debug | Level::Trace => "",
    };
    let text = output::printable(record.args().to_string().as_bytes());
    Some(format!("ocifs: {level}{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_short_command() {
        let rows = [
            (Level::Warn, "ocifs::x", Some("ocifs: warning: a\\u{1b}b")),
            (Level::Error, "ocifs::x", Some("ocifs: error: a\\u{1b}b")),
            (Level::Info, "ocifs::x", Some("ocifs: a\\u{1b}b")),
            (Level::Error, FAULTS, None),
            (Level::Warn, FAULTS, None),
            (Level::Error, PASSES, None),
            (Level::Warn, PASSES, Some("ocifs: warning: a\\u{1b}b")),
        ];
        for (level, target, expected) in rows {
            let mut record = Record::builder();
            let record = record.level(level).target(target);
            let line = plain(&record.args(format_args!("a\x1bb")).build());
            assert_eq!(line.as_deref(), expected, "{level} {target}");
        }
    }
}
