//! `ocifs cat`: the bytes of a file as a mount would give them.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use ocifs::vfs::{FileKind, Patience};

use super::error::{self, Refusal};
use super::format;
use super::output::{self, Flow};
use super::progress::{self, Progress};
use super::source::{self, Source, SourceOptions};
use super::tree::{self, LastLink};

/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// Arguments of `ocifs cat`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The layout: a directory or an archive.
    #[arg(value_name = "LAYOUT")]
    source: PathBuf,
    /// What to print, as in a mount: alpine:3.19/config.json.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
    #[command(flatten)]
    source_options: SourceOptions,
}

/// Prints files, one after the other; one that cannot be read does not stop the next.
///
/// # Errors
/// If the layout cannot be read, or standard output not be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let source = source::open(&arguments.source, &arguments.source_options, None)?;
    let mut worst = None;
    for path in &arguments.paths {
        match print(&source, path) {
            Ok(Flow::Continue) => {}
            Ok(Flow::Stop) => break,
            Err(error) if error.is::<io::Error>() => return Err(error),
            Err(error) => worst = worst.max(Some(error::report(&error))),
        }
    }
    Ok(worst.map_or(ExitCode::SUCCESS, ExitCode::from))
}

fn print(source: &Source, path: &OsStr) -> anyhow::Result<Flow> {
    let shown = || output::printable(path.as_bytes());
    let find = || tree::find(&source.vfs, path.as_bytes(), LastLink::Follow);
    let node = progress::of_passes(&source.views, find)?;
    match node.kind() {
        FileKind::Regular => {}
        FileKind::Directory => {
            let message = format!("{} is a directory; see `ocifs ls`", shown());
            return Err(Refusal::usage(message));
        }
        kind => {
            let message = format!("{} is a {} and has no bytes", shown(), format::kind(kind));
            return Err(Refusal::usage(message));
        }
    }
    let file = progress::of_passes(&source.views, || node.open()).with_context(shown)?;
    let size = node.attr(Patience::Wait).with_context(shown)?.size;
    // On one and the same terminal the bar would stand in the text.
    let mut progress = Progress::new(!io::stdout().is_terminal());
    let name = shown();
    let mut buf = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let len = file.read(&mut buf, offset).with_context(shown)?;
        if len == 0 {
            return Ok(Flow::Continue);
        }
        if output::bytes(&buf[..len])? == Flow::Stop {
            return Ok(Flow::Stop);
        }
        offset += len as u64;
        progress.show(&name, offset, size);
    }
}
