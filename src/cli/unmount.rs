//! `ocifs unmount`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ocifs::fuse::{self, Unmount};

/// Arguments of `ocifs unmount`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where it is mounted.
    mountpoint: PathBuf,
    /// Take it out of the tree at once, even if it is in use.
    #[arg(short, long)]
    force: bool,
}

/// Takes a mount down.
///
/// # Errors
/// If it is in use, or not mounted.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let how = if arguments.force {
        Unmount::Detach
    } else {
        Unmount::IfUnused
    };
    fuse::unmount(&arguments.mountpoint, how)?;
    Ok(ExitCode::SUCCESS)
}
