//! Mounts by the real binary, which go when the test ends, however it ends.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use tempfile::TempDir;

/// How long a mount may take to answer, and a daemon to end.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// `f_type` of a FUSE file system.
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

/// What to mount, and how.
#[derive(Debug, Clone)]
pub struct MountOptions {
    source: PathBuf,
    cache_dir: Option<PathBuf>,
    arguments: Vec<OsString>,
    runner: Vec<OsString>,
}

impl MountOptions {
    /// A mount of `source` with a cache directory of its own.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            cache_dir: None,
            arguments: Vec::new(),
            runner: Vec::new(),
        }
    }

    /// A command that becomes the daemon, given its command line as further arguments:
    /// `setpriv` with options, say.
    pub fn run_by<S: AsRef<OsStr>>(mut self, command: &[S]) -> Self {
        let words = command.iter().map(|word| word.as_ref().to_owned());
        self.runner = words.collect();
        self
    }

    /// One more argument of `ocifs mount`.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// `--memory`, such as `16MiB`.
    pub fn memory(self, size: &str) -> Self {
        self.arg("--memory").arg(size)
    }

    /// A cache directory that outlives the mount.
    pub fn cache_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(path.into());
        self
    }

    /// Mounts, and waits until the mount answers.
    pub fn start(self) -> TestMount {
        self.try_start()
            .unwrap_or_else(|failure| panic!("the mount failed: {failure:?}"))
    }

    /// Mounts, or says why not.
    pub fn try_start(self) -> Result<TestMount, MountFailure> {
        let dir = tempfile::Builder::new()
            .prefix("ocifs-mount-")
            .tempdir()
            .expect("a temporary directory can be made");
        fs::create_dir(dir.path().join("mnt")).expect("the temporary directory is writable");
        let mut mount = TestMount {
            child: self.spawn(dir.path()),
            mountpoint: dir.path().join("mnt"),
            stderr: dir.path().join("stderr"),
            _dir: dir,
        };
        match mount.wait_until_it_answers() {
            Ok(()) => Ok(mount),
            Err(status) => {
                let stderr = mount.stderr();
                Err(MountFailure { status, stderr })
            }
        }
    }
}

impl MountOptions {
    /// Starts a daemon that mounts on `mnt` in `dir`.
    fn spawn(self, dir: &Path) -> Child {
        let log = File::create(dir.join("stderr")).expect("the temporary directory is writable");
        let cache_dir = self.cache_dir.unwrap_or_else(|| dir.join("cache"));
        let mut words = self.runner;
        words.push(env!("CARGO_BIN_EXE_ocifs").into());
        Command::new(&words[0])
            .args(&words[1..])
            .args(["mount", "--foreground", "--cache-dir"])
            .arg(cache_dir)
            .args(self.arguments)
            .args([&self.source, &dir.join("mnt")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary can be started")
    }
}

/// Why there is no mount.
#[derive(Debug)]
pub struct MountFailure {
    /// How the daemon ended; nothing if it ran and the mount never answered.
    pub status: Option<ExitStatus>,
    /// What it said.
    pub stderr: String,
}

/// A mount that a child process serves. Dropping it unmounts, and ends the process.
#[derive(Debug)]
pub struct TestMount {
    child: Child,
    mountpoint: PathBuf,
    stderr: PathBuf,
    /// Holds the mount point; goes last.
    _dir: TempDir,
}

impl TestMount {
    /// Mounts `source` with defaults, and waits until the mount answers.
    pub fn start(source: &Path) -> Self {
        MountOptions::new(source).start()
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// A path inside the mount.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.mountpoint.join(path)
    }

    /// The process that serves it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the daemon has written to stderr so far.
    pub fn stderr(&self) -> String {
        let bytes = fs::read(&self.stderr).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The most memory that the daemon ever had in use, in bytes (`VmHWM`).
    pub fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("no VmHWM in {path}")) * 1024
    }

    /// Ends the daemon as `kill -9` does, and leaves the mount as that leaves it.
    ///
    /// # Panics
    /// If it does not end.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is a child");
        if self.wait_for_end().is_none() {
            // What it waits for ends with the connection.
            let flags = UnmountFlags::FORCE | UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(&self.mountpoint, flags);
            panic!("a daemon that was killed does not end");
        }
    }

    /// Mounts at the same place once more, where the daemon has been killed.
    ///
    /// # Panics
    /// If that mount does not answer.
    pub fn start_again(&mut self, options: MountOptions) {
        let dir = self.mountpoint.parent().expect("it is in a directory");
        self.child = options.spawn(dir);
        let answer = self.wait_until_it_answers();
        answer.unwrap_or_else(|status| panic!("{status:?}: {}", self.stderr()));
    }

    /// Unmounts, and returns how the daemon ended.
    pub fn unmount(mut self) -> ExitStatus {
        unmount(&self.mountpoint, Busy::Refuse);
        self.wait_for_end()
            .unwrap_or_else(|| panic!("the daemon runs on after unmount:\n{}", self.stderr()))
    }

    /// Waits until statfs of the mount point is that of a FUSE file system.
    ///
    /// # Errors
    /// The exit status of a daemon that ended, nothing if time is up.
    fn wait_until_it_answers(&mut self) -> Result<(), Option<ExitStatus>> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Some(status));
            }
            if is_mounted(&self.mountpoint) && answers(&self.mountpoint) {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        Err(None)
    }

    fn wait_for_end(&mut self) -> Option<ExitStatus> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(PAUSE);
        }
        None
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        if is_mounted(&self.mountpoint) {
            unmount(&self.mountpoint, Busy::Detach);
            // A file that the test still has open keeps a detached mount, and so the
            // daemon: its end is waited for, not relied on.
            self.wait_for_end();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What a daemon mounted in the meantime, or left behind when it crashed.
        if is_mounted(&self.mountpoint) {
            unmount(&self.mountpoint, Busy::Detach);
        }
        assert!(
            thread::panicking() || !is_mounted(&self.mountpoint),
            "{} is still mounted",
            self.mountpoint.display()
        );
    }
}

/// What to do with a mount that is in use.
#[derive(Clone, Copy)]
enum Busy {
    Refuse,
    Detach,
}

fn unmount(mountpoint: &Path, busy: Busy) {
    let flags = match busy {
        Busy::Refuse => "-u",
        Busy::Detach => "-uz",
    };
    let end = Instant::now() + PATIENCE;
    // A process that another test is starting has this one's descriptors for a moment, and
    // the mount is in use as long.
    loop {
        let mut command = Command::new("fusermount3");
        let output = command.arg(flags).arg("--").arg(mountpoint).output();
        let is_done = output.is_ok_and(|output| output.status.success());
        if !is_done && is_mounted(mountpoint) {
            let _ = Command::new("umount").arg(mountpoint).output();
        }
        if !is_mounted(mountpoint) || Instant::now() > end {
            break;
        }
        thread::sleep(PAUSE);
    }
}

/// Whether the kernel lists a mount there. Asks no file system, so it never hangs.
fn is_mounted(mountpoint: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_it = |line: &str| line.split(' ').nth(4).map(Path::new) == Some(mountpoint);
    table.lines().any(is_it)
}

/// Asks the mount from another thread, which a daemon that never answers may keep.
fn answers(mountpoint: &Path) -> bool {
    let (sender, receiver) = mpsc::channel();
    let path = mountpoint.to_owned();
    thread::spawn(move || {
        let is_fuse = rustix::fs::statfs(&path).is_ok_and(|stat| stat.f_type == FUSE_SUPER_MAGIC);
        let _ = sender.send(is_fuse && fs::metadata(&path).is_ok());
    });
    receiver.recv_timeout(PATIENCE) == Ok(true)
}
