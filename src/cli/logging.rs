//! The log on standard error: level from the flags, details from `OCIFS_LOG`.

use env_logger::{Builder, Env};
use log::LevelFilter;

use super::Global;

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
    builder.init();
}
