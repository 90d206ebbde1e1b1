//! The daemon behind a mount, as others see it: what it says of itself, and its process.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use super::mounts;

/// What the process of a daemon is called.
const COMM: &str = "ocifs";

/// Why a mount does not say how it fares.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Silence {
    /// The request was not answered in time.
    #[error("it does not answer within {} seconds", .0.as_secs())]
    TimedOut(Duration),
    /// The mount answered with an error; its daemon has gone, mostly.
    #[error("it cannot be asked: {0}")]
    Refused(#[from] std::io::Error),
    /// It is a mount of another kind, or of another version.
    #[error("its status.json is not understood: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// What the mount says of itself in its `status.json`.
///
/// A thread reads it and may stay behind, because nothing can call it back from a mount
/// that does not answer.
///
/// # Errors
/// That it says nothing.
pub(crate) fn status(mountpoint: &Path, patience: Duration) -> Result<Value, Silence> {
    let path = mountpoint.join(".ocifs/status.json");
    let (sender, answer) = mpsc::channel();
    std::thread::Builder::new().spawn(move || {
        // Nobody may be left to hear it.
        drop(sender.send(fs::read(path)));
    })?;
    let bytes = answer
        .recv_timeout(patience)
        .map_err(|_| Silence::TimedOut(patience))??;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The process of a daemon, pinned: a number that is used again is not taken for it.
#[derive(Debug)]
pub(crate) struct Daemon {
    pidfd: OwnedFd,
}

impl Daemon {
    /// The daemon that serves `mountpoint`, if it says who it is, and is what it says.
    ///
    /// Only a mount of ours is asked, and believed only about a process of the user who
    /// mounted it: files of that name can be anywhere, and say anything.
    pub(crate) fn of(mountpoint: &Path, patience: Duration) -> Option<Self> {
        let mounted = mounts::find(mountpoint)
            .inspect_err(|error| log::debug!("{}: {error}", mountpoint.display()))
            .ok()??;
        let status = status(mountpoint, patience)
            .inspect_err(|silence| log::debug!("{}: {silence}", mountpoint.display()))
            .ok()?;
        let pid = i32::try_from(status.get("pid")?.as_i64()?).ok()?;
        Self::of_pid(Pid::from_raw(pid)?, mounted.user)
    }

    /// The process of that number, if it is a daemon of `user`, and this process may take
    /// it for one of its own: root may for all.
    fn of_pid(pid: Pid, user: u32) -> Option<Self> {
        // Pinned first: what is seen below is then of this very process.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let directory = format!("/proc/{}", pid.as_raw_nonzero());
        let comm = fs::read_to_string(format!("{directory}/comm")).ok()?;
        let owner = fs::metadata(&directory).ok()?.uid();
        let caller = rustix::process::geteuid();
        let ours = owner == user && (caller.is_root() || owner == caller.as_raw());
        (comm.trim_end() == COMM && ours).then_some(Self { pidfd })
    }

    /// Tells the daemon to end: it ends who waits in its mount.
    pub(crate) fn terminate(&self) {
        if let Err(error) = pidfd_send_signal(&self.pidfd, Signal::TERM) {
            log::debug!("the daemon cannot be told to end: {error}");
        }
    }

    /// Waits until the process has ended; says whether it has.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let timeout = Timespec::try_from(patience).ok();
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, timeout.as_ref()), Ok(1..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_no_mount_says_nothing() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let ask = || status(directory.path(), Duration::from_secs(5));
        assert!(matches!(ask(), Err(Silence::Refused(_))), "nothing there");
        fs::create_dir(directory.path().join(".ocifs"))?;
        fs::write(directory.path().join(".ocifs/status.json"), "{")?;
        assert!(matches!(ask(), Err(Silence::Malformed(_))), "no JSON");
        Ok(())
    }

    #[test]
    fn another_process_is_no_daemon() {
        assert!(Daemon::of_pid(Pid::INIT, 0).is_none());
    }
}
