//! Mounting, being mounted, and ending it.
//!
//! ```text
//! Mount::new ──► kernel answers ──► Mount::wait ──► ended from outside, or
//!                                                  Mount::detach ──► wait_for
//! ```

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use fuser::{BackgroundSession, Config, INodeNo, MountOption, Session, SessionACL};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::mount::UnmountFlags;

use super::{FuseAdapter, Permissions};
use crate::vfs::Vfs;

/// How `df` and `mount` call the kind of file system.
const SUBTYPE: &str = "oci-layout";

/// The fewest threads that take requests, unless the user says otherwise. A read may have
/// to decode a few MiB first; who asks for something else must not wait for that.
const MIN_THREADS: usize = 8;

/// How much the kernel may read ahead, in KiB. The protocol's offer stops at 128, which
/// makes a decode of a few MiB start again and again.
const READ_AHEAD_KB: &str = "1024";

/// Where the helper is looked for: what could mount must be able to unmount, and `fuser`
/// does not rely on `PATH` alone.
const HELPERS: [&str; 2] = ["fusermount3", "/bin/fusermount3"];

/// Why a mount could not be made or ended.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no FUSE in this kernel, or it is not shown here.
    #[error(
        "/dev/fuse is missing: load the module with `modprobe fuse`, or give the container the device"
    )]
    NoDevice,
    /// The device cannot be opened by this user.
    #[error("no permission to open /dev/fuse: it must be readable and writable for you")]
    DevicePermission,
    /// Only root can mount without the helper.
    #[error("fusermount3 is missing and you are not root: install the package fuse3")]
    NoHelper,
    /// `--allow-other` is not permitted to plain users.
    #[error("--allow-other needs the line `user_allow_other` in /etc/fuse.conf")]
    AllowOther,
    /// Somebody uses the mount.
    #[error("{} is in use; try --force", path.display())]
    Busy {
        /// The mount point.
        path: PathBuf,
    },
    /// Nothing is mounted there.
    #[error("{} is not a mount point", path.display())]
    NotMounted {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// How a file system is mounted.
#[derive(Debug, Clone, Default)]
pub struct MountOptions {
    /// What `mount` and `df` show as the source.
    pub source: String,
    /// Whether other users may look at the mount; the kernel then checks modes.
    pub allow_other: bool,
    /// Usual mount options such as `noexec` or `suid`, as after `-o`.
    pub flags: Vec<String>,
    /// What requests come here at all.
    pub access: Access,
    /// How many threads take requests; 0 for as many as seem good.
    pub threads: usize,
}

/// Whether the kernel lets requests through that would change something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// It does not.
    #[default]
    ReadOnly,
    /// It does.
    ReadWrite,
}

impl MountOptions {
    fn config(&self) -> Config {
        let mut config = Config::default();
        let custom = |text: String| MountOption::CUSTOM(text);
        config.mount_options = vec![
            MountOption::FSName(self.source.replace(',', "\\,")),
            custom(format!("subtype={SUBTYPE}")),
            match self.access {
                Access::ReadOnly => MountOption::RO,
                Access::ReadWrite => MountOption::RW,
            },
        ];
        for flag in &self.flags {
            config.mount_options.extend(option(flag));
        }
        config.acl = if self.allow_other {
            SessionACL::All
        } else {
            SessionACL::Owner
        };
        // Where modes bind nobody it makes no difference, but that the kernel asks for
        // attributes on its way to a name, before it locks directories: what is renamed from
        // within the drop box can wait there.
        let asks = self.access == Access::ReadWrite && modes_bind_nobody();
        if asks || self.permissions() == Permissions::OfTheFiles {
            config.mount_options.push(MountOption::DefaultPermissions);
        }
        config.n_threads = Some(self.threads());
        config.clone_fd = true;
        config
    }

    /// How many threads take requests.
    pub(super) fn threads(&self) -> usize {
        if self.threads > 0 {
            return self.threads;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        processors.max(MIN_THREADS / 2) * 2
    }

    pub(super) fn permissions(&self) -> Permissions {
        let asked = |flag: &String| flag == "default_permissions";
        if self.allow_other || self.flags.iter().any(asked) {
            Permissions::OfTheFiles
        } else {
            Permissions::OfTheMount
        }
    }
}

/// Whether whoever may use a mount that is for this process's user alone may do what they
/// want whatever modes say: root, but not the one of a user namespace.
fn modes_bind_nobody() -> bool {
    use rustix::thread::CapabilitySet;
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let has_all_users = map.split_whitespace().eq(["0", "0", "4294967295"]);
    let may = rustix::thread::capabilities(None).map(|sets| sets.effective);
    let needed = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    let is_root = rustix::process::geteuid().is_root();
    is_root && has_all_users && may.is_ok_and(|may| may.contains(needed))
}

/// One word after `-o`; those that are always so are left out.
fn option(word: &str) -> Option<MountOption> {
    Some(match word {
        // The last one is asked for by `permissions`.
        "ro" | "rw" | "nosuid" | "nodev" | "" | "default_permissions" => return None,
        "suid" => MountOption::Suid,
        "dev" => MountOption::Dev,
        "exec" => MountOption::Exec,
        "noexec" => MountOption::NoExec,
        "atime" => MountOption::Atime,
        "noatime" => MountOption::NoAtime,
        "sync" => MountOption::Sync,
        "async" => MountOption::Async,
        "dirsync" => MountOption::DirSync,
        other => MountOption::CUSTOM(other.to_owned()),
    })
}

/// Tells the kernel what it must forget.
///
/// Nothing is told that waits in the kernel for what a program holds while it waits for an
/// answer: neither a directory, which a notice of a name in it locks, nor a page that is
/// being read. Who waits so cannot be killed. If the daemon were, the device would never be
/// closed, and everybody who uses the mount would hang until somebody aborts the connection
/// by hand. Those that remain wait for nobody, so any thread may send them.
#[derive(Debug, Clone)]
pub struct Notifier(fuser::Notifier);

impl Notifier {
    /// Makes the kernel ask for the attributes of the root anew.
    pub fn forget_root(&self) {
        // A negative offset: attributes alone.
        if let Err(error) = self.0.inval_inode(INodeNo::ROOT, -1, 0) {
            log::debug!("change notice for the root: {error}");
        }
    }
}

/// A mounted file system.
#[derive(Debug)]
pub struct Mount {
    mountpoint: PathBuf,
    /// Device number of the mount, by which it is told from another one at its place.
    device: u64,
    notifier: Notifier,
    ended: Receiver<io::Result<()>>,
}

impl Mount {
    /// Mounts `vfs` and returns when the mount answers.
    ///
    /// # Errors
    /// What hinders it, in words that say what to do.
    pub fn new(
        vfs: Arc<Vfs>,
        mountpoint: &Path,
        options: &MountOptions,
    ) -> Result<Self, MountError> {
        check_device()?;
        let config = options.config();
        let adapter = FuseAdapter::new(vfs, options);
        let (early, crew) = (adapter.early.clone(), adapter.crew.clone());
        let unopened = adapter.unopened.clone();
        let session = Session::new(adapter, mountpoint, &config)
            .map_err(|error| mount_error(mountpoint, error))?;
        let notifier = Notifier(session.notifier());
        early.begin(session.notifier());
        unopened.begin(session.notifier());
        let serve = |source| io_error("serve", mountpoint, source);
        crew.look_at(session.as_fd().try_clone_to_owned().map_err(serve)?);
        // Dropped on the way out of here, it unmounts.
        let session = session.spawn().map_err(serve)?;
        let metadata = std::fs::metadata(mountpoint)
            .map_err(|source| io_error("look at", mountpoint, source))?;
        let mount = Self {
            mountpoint: mountpoint.to_owned(),
            device: metadata.dev(),
            notifier,
            ended: watch_end(session).map_err(serve)?,
        };
        read_ahead(metadata.dev());
        Ok(mount)
    }

    /// Tells this mount's kernel about changes.
    #[must_use]
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// Whether the mount has ended by now; waits for it for `patience`.
    ///
    /// # Errors
    /// What ended it, if it was not an unmount.
    pub fn wait(&self, patience: Duration) -> Option<io::Result<()>> {
        match self.ended.recv_timeout(patience) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Ok(())),
        }
    }

    /// Takes the mount out of the tree at once; whoever has files open there keeps them
    /// until the process ends.
    ///
    /// # Errors
    /// As [`unmount`].
    pub fn detach(&self) -> Result<(), MountError> {
        if device_of_root(&self.mountpoint) != Some(self.device) {
            // Somebody has unmounted it, and perhaps mounted something else there.
            return Ok(());
        }
        match unmount(&self.mountpoint, Unmount::Lazy) {
            Err(MountError::NotMounted { .. }) => Ok(()),
            other => other,
        }
    }
}

/// Tells when the session has ended, and sees to it that nothing is unmounted by that.
///
/// A session of fuser unmounts, when it ends, whatever is mounted at its path by then, be
/// it another mount (release 0.18.0 takes the error that the device reports after an
/// unmount for a sign that it is still mounted). What would do so is never dropped; it
/// keeps a descriptor of the device, as long as the process lasts.
fn watch_end(mut session: BackgroundSession) -> io::Result<Receiver<io::Result<()>>> {
    let (hand_over, handed) = sync_channel::<JoinHandle<io::Result<()>>>(1);
    let (sender, ended) = channel();
    let watch = move || -> io::Result<()> {
        let Ok(guard) = handed.recv() else {
            return Ok(());
        };
        let result = guard.join();
        let panicked = |_| Err(io::Error::other("the session panicked"));
        // Nobody may be left to hear it.
        drop(sender.send(result.unwrap_or_else(panicked)));
        Ok(())
    };
    let watching = std::thread::Builder::new()
        .name("session".into())
        .spawn(watch)?;
    // The watching thread's own handle takes the place of the one that it waits for.
    let guard = std::mem::replace(&mut session.guard, watching);
    std::mem::forget(session);
    // It is there, and waits for this.
    drop(hand_over.send(guard));
    Ok(ended)
}

/// The device number of what is mounted at `path`, without asking its daemon.
fn device_of_root(path: &Path) -> Option<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(CWD, path, flags, StatxFlags::empty()).ok()?;
    Some(rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor))
}

/// How a mount is taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmount {
    /// Only if nobody uses it.
    IfUnused,
    /// Out of the tree at once; whoever has a file open there can go on reading.
    Lazy,
    /// Out of the tree at once; whoever uses it or waits for it gets errors.
    Detach,
}

/// Unmounts what is mounted at `path`, as root directly, else by `fusermount3`.
///
/// # Errors
/// [`MountError::Busy`] if it is in use, [`MountError::NotMounted`].
pub fn unmount(path: &Path, how: Unmount) -> Result<(), MountError> {
    let flags = match how {
        Unmount::IfUnused => UnmountFlags::NOFOLLOW,
        Unmount::Lazy => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
        // Force: the kernel ends the connection, and with it every wait.
        Unmount::Detach => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH | UnmountFlags::FORCE,
    };
    let owned = || path.to_owned();
    match rustix::mount::unmount(path, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::BUSY) => Err(MountError::Busy { path: owned() }),
        Err(rustix::io::Errno::INVAL) => Err(MountError::NotMounted { path: owned() }),
        Err(rustix::io::Errno::PERM) => unmount_by_helper(path, how),
        Err(errno) => Err(io_error("unmount", path, errno.into())),
    }
}

fn unmount_by_helper(path: &Path, how: Unmount) -> Result<(), MountError> {
    if how == Unmount::Detach {
        abort(path);
    }
    let lazy = (how != Unmount::IfUnused).then_some("-z");
    let run = |helper: &&str| {
        let mut command = Command::new(helper);
        command.arg("-u").args(lazy).arg("--").arg(path);
        command.stdin(Stdio::null()).output()
    };
    let is_there = |output: &io::Result<Output>| {
        let kind = output.as_ref().map_err(io::Error::kind);
        kind.err() != Some(io::ErrorKind::NotFound)
    };
    let output = HELPERS
        .iter()
        .map(run)
        .find(is_there)
        .ok_or(MountError::NoHelper)?
        .map_err(|source| io_error("unmount", path, source))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(())
    } else if said.contains("busy") {
        Err(MountError::Busy {
            path: path.to_owned(),
        })
    } else if said.contains("not found") || said.contains("not mounted") {
        Err(MountError::NotMounted {
            path: path.to_owned(),
        })
    } else {
        Err(io_error(
            "unmount",
            path,
            io::Error::other(said.trim().to_owned()),
        ))
    }
}

/// Ends the connection of the mount at `path`, as far as a plain user may. Asks the mount
/// nothing: it may be one that does not answer.
fn abort(path: &Path) {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    let Ok(stat) = statx(CWD, path, flags, StatxFlags::empty()) else {
        return;
    };
    // Numbers of connections are those of devices without a driver, which have major 0.
    let is_mount = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    if !is_mount || stat.stx_dev_major != 0 {
        return;
    }
    let file = format!("/sys/fs/fuse/connections/{}/abort", stat.stx_dev_minor);
    if let Err(error) = std::fs::write(&file, "1") {
        log::debug!("{file}: {error}");
    }
}

/// Whether `path` is a mount point whose daemon has gone without unmounting.
#[must_use]
pub fn is_stale(path: &Path) -> bool {
    // Not `stat`: the kernel may still know those answers. How much room there is, it asks
    // for each time.
    rustix::fs::statfs(path).err() == Some(rustix::io::Errno::NOTCONN)
}

/// The faults of the device that `fuser` does not tell apart.
fn check_device() -> Result<(), MountError> {
    let opened = File::options().read(true).write(true).open("/dev/fuse");
    match opened.as_ref().map_err(io::Error::kind) {
        Err(io::ErrorKind::NotFound) => Err(MountError::NoDevice),
        Err(io::ErrorKind::PermissionDenied) => Err(MountError::DevicePermission),
        _ => Ok(()),
    }
}

fn mount_error(mountpoint: &Path, error: io::Error) -> MountError {
    let said = error.to_string();
    match error.kind() {
        io::ErrorKind::NotFound if mountpoint.exists() => MountError::NoHelper,
        io::ErrorKind::PermissionDenied if said.contains("user_allow_other") => {
            MountError::AllowOther
        }
        _ => io_error("mount on", mountpoint, error),
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> MountError {
    MountError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Lets the kernel read further ahead than the protocol can say, where we may.
fn read_ahead(device: u64) {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, READ_AHEAD_KB) {
        log::debug!("{path}: {error}");
    }
}
