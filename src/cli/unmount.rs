//! `ocifs unmount`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ocifs::fuse::{self, Unmount};

use super::daemon::{self, Daemon};
use super::output;

/// How long a daemon may take to say who it is.
const ASK_PATIENCE: Duration = Duration::from_secs(1);

/// How long its process may take to end. With files open it gives their readers ten
/// seconds.
const END_PATIENCE: Duration = Duration::from_secs(11);

/// Arguments of `ocifs unmount`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where it is mounted.
    mountpoint: PathBuf,
    /// Take it out of the tree at once, even if it is in use, and end who waits in it.
    #[arg(short, long)]
    force: bool,
}

/// Takes a mount down, and waits until its daemon has ended.
///
/// # Errors
/// If it is in use, or not mounted.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let how = if arguments.force {
        Unmount::Detach
    } else {
        Unmount::IfUnused
    };
    unmount(&arguments.mountpoint, how)?;
    Ok(ExitCode::SUCCESS)
}

/// Takes the mount at `mountpoint` down, and waits until its daemon has ended.
///
/// # Errors
/// If it is in use, or not mounted.
pub(crate) fn unmount(mountpoint: &Path, how: Unmount) -> anyhow::Result<()> {
    // Asked before: afterwards nobody is there to answer.
    let daemon = Daemon::of(mountpoint, ASK_PATIENCE);
    let sessions = sessions(mountpoint);
    fuse::unmount(mountpoint, how)?;
    for session in sessions {
        let shown = output::printable(session.as_bytes());
        output::note(&format!(
            "{shown} is not published; it is there again when the layout is mounted"
        ));
    }
    let Some(daemon) = daemon else { return Ok(()) };
    if how == Unmount::Detach {
        daemon.terminate();
    }
    if !daemon.wait(END_PATIENCE) {
        let shown = mountpoint.display();
        output::note(&format!(
            "{shown} is unmounted; its daemon has not ended yet"
        ));
    }
    Ok(())
}

/// The sessions of a mount that are not published.
fn sessions(mountpoint: &Path) -> Vec<String> {
    let Ok(status) = daemon::status(mountpoint, ASK_PATIENCE) else {
        return Vec::new();
    };
    let sessions = status["drop_box"]["sessions"].as_array().into_iter();
    sessions
        .flatten()
        .filter_map(|session| session["path"].as_str().map(str::to_owned))
        .collect()
}
