//! The life of a daemon from its start to its end, and what a mount is to the system.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ocifs::oci::Digest;
use rustix::fs::{Advice, CWD, Mode, fadvise};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{
    Compression, Damage, Layer, MountOptions, Need, TestLayout, TestMount, digest_of, has, run,
    run_ok, size_of, skip, tar_of,
};
use crate::patience::until;

const OCIFS: &str = env!("CARGO_BIN_EXE_ocifs");

const AT_ALL: Duration = Duration::from_secs(5);
/// How long a daemon that was told to end may take, whoever has files open.
const END: Duration = Duration::from_secs(11);

/// A layout with one image.
struct Sample {
    layout: TestLayout,
    image: Value,
    layer: Layer,
    tar: Vec<u8>,
}

impl Sample {
    fn new() -> Self {
        // More than the kernel reads ahead, so that a part is asked for later.
        let tar = tar_of(&[
            ("etc/", b""),
            ("etc/large", &b"0123456789abcdef".repeat(1 << 18)),
        ]);
        let layout = TestLayout::new();
        let layer = layout.layer_of_tar(Compression::Gzip, &tar);
        let image = layout.image(std::slice::from_ref(&layer));
        layout.add_ref("app", &image);
        Self {
            layout,
            image,
            layer,
            tar,
        }
    }

    fn start(&self) -> TestMount {
        TestMount::start(self.layout.path())
    }
}

fn pid(number: u32) -> Pid {
    let number = i32::try_from(number).expect("process ids are small");
    Pid::from_raw(number).expect("no process has the id 0")
}

fn send(mount: &TestMount, signal: Signal) {
    kill_process(pid(mount.pid()), signal).expect("the daemon runs");
}

/// Whether the process has ended, waited for or not.
fn is_gone(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The state follows the command in parentheses.
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// The line of the mount table for a mount point.
fn mount_line(mountpoint: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("there is a mount table");
    let mut lines = table.lines().map(str::to_owned);
    lines.find(|line| line.split(' ').nth(4).map(Path::new) == Some(mountpoint))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// A daemon in the background, which goes with the value.
struct Background {
    dir: TempDir,
    pid: u32,
}

impl Background {
    fn start(layout: &Path, more: &[&OsStr]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mountpoint = dir.path().join("mnt");
        fs::create_dir(&mountpoint).expect("it is ours");
        let mut command = Command::new(OCIFS);
        command
            .args(["mount", "--cache-dir"])
            .arg(dir.path().join("cache"));
        // Ends when all have closed its output: the daemon must have done so.
        let command = command
            .args(more)
            .arg(layout)
            .arg(&mountpoint)
            .process_group(0);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let group = pid(child.id());
        let output = child.wait_with_output().expect("it is a child");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", output.status);
        assert!(output.stdout.is_empty(), "something on stdout");
        assert!(output.stderr.is_empty(), "{stderr}");
        // The very next request must be answered.
        let mut daemon = Self { dir, pid: 0 };
        assert_eq!(names(&daemon.mountpoint()), ["app", "incoming"]);
        let status = fs::read(daemon.mountpoint().join(".ocifs/status.json"));
        let status: Value =
            serde_json::from_slice(&status.expect("there is a status")).expect("it is JSON");
        let number = status["pid"]
            .as_u64()
            .and_then(|number| u32::try_from(number).ok());
        daemon.pid = number.expect("the status has the process id");
        // What its parent's terminal is told is not told to the daemon.
        let told = kill_process_group(group, Signal::HUP);
        assert_eq!(
            told,
            Err(rustix::io::Errno::SRCH),
            "still in the group of its parent"
        );
        daemon
    }

    fn mountpoint(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if mount_line(&self.mountpoint()).is_some() {
            run("umount", &["-l".as_ref(), self.mountpoint().as_os_str()]);
        }
        let gone = self.pid == 0 || {
            let end = Instant::now() + AT_ALL;
            while !is_gone(self.pid) && Instant::now() < end {
                thread::sleep(Duration::from_millis(5));
            }
            is_gone(self.pid)
        };
        assert!(gone || thread::panicking(), "daemon {} runs on", self.pid);
    }
}

#[test]
fn the_command_returns_when_the_mount_answers() {
    if !has("the_command_returns_when_the_mount_answers", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    for _ in 0..20 {
        let daemon = Background::start(sample.layout.path(), &[]);
        run_ok(
            OCIFS,
            &["unmount".as_ref(), daemon.mountpoint().as_os_str()],
        );
        assert_eq!(names(&daemon.mountpoint()), [""; 0]);
        until(AT_ALL, "the daemon ends", || is_gone(daemon.pid));
    }
}

#[test]
fn a_daemon_in_the_background() {
    if !has("a_daemon_in_the_background", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    // The working directory is left, the files that were named from there are not.
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut daemon = Background { dir, pid: 0 };
    let (dir, mountpoint) = (daemon.dir.path().to_owned(), daemon.mountpoint());
    let layout = dir.join("layout");
    fs::rename(sample.layout.path(), &layout).expect("it is ours");
    for name in ["mnt", "cache"] {
        fs::create_dir(dir.join(name)).expect("it is ours");
    }
    // After `--` too the daemon gets the command as it was given.
    let output = Command::new(OCIFS)
        .args([
            "mount",
            "-v",
            "--cache-dir",
            "cache",
            "--log-file",
            "log",
            "--",
            "layout",
            "mnt",
        ])
        .current_dir(&dir)
        .output()
        .expect("the binary can be started");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("layout is mounted on"), "{stderr}");
    let status = fs::read(mountpoint.join(".ocifs/status.json")).expect("there is a status");
    let status: Value = serde_json::from_slice(&status).expect("it is JSON");
    assert_eq!(status["layout"], json!(layout), "{status}");
    assert_eq!(status["mountpoint"], json!(mountpoint), "{status}");
    let process = status["pid"].to_string();
    let cwd = fs::read_link(format!("/proc/{process}/cwd")).expect("the daemon runs");
    assert_eq!(cwd, Path::new("/"), "it keeps a directory busy");
    // What it notices later is logged, and found.
    fs::write(
        layout.join("index.json"),
        r#"{"schemaVersion":2,"manifests":[]}"#,
    )
    .expect("it is ours");
    until(AT_ALL, "the change is seen", || {
        names(&mountpoint) == ["incoming"]
    });
    run_ok(OCIFS, &["unmount".as_ref(), mountpoint.as_os_str()]);
    daemon.pid = process.parse().expect("it is a number");
    until(AT_ALL, "the daemon ends", || is_gone(daemon.pid));
    let log = fs::read_to_string(dir.join("log")).expect("there is a log");
    assert!(
        log.contains("the index changed") && log.contains("is unmounted"),
        "{log}"
    );
}

#[test]
fn a_start_that_fails_leaves_no_mount() {
    if !has("a_start_that_fails_leaves_no_mount", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (mountpoint, log) = (dir.path().join("mnt"), dir.path().join("none/log"));
    fs::create_dir(&mountpoint).expect("it is ours");
    let output = Command::new(OCIFS)
        .args(["mount", "--cache-dir"])
        .arg(dir.path().join("cache"))
        .arg("--log-file")
        .arg(&log)
        .args([sample.layout.path(), &mountpoint])
        .output()
        .expect("the binary can be started");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains(&*log.to_string_lossy()), "{stderr}");
    assert_eq!(mount_line(&mountpoint), None);
}

#[test]
fn signals_unmount() {
    if !has("signals_unmount", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mount = sample.start();
        let mountpoint = mount.path().to_owned();
        fs::read(mount.join("app/manifest.json")).expect("it is sound");
        send(&mount, signal);
        let time = until(END, "the daemon ends", || is_gone(mount.pid()));
        assert!(time < Duration::from_secs(2), "{signal:?}: took {time:?}");
        assert_eq!(mount_line(&mountpoint), None, "{signal:?}");
        assert!(names(&mountpoint).is_empty(), "{signal:?}");
        assert_eq!(mount.unmount().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn signals_unmount_while_a_file_is_open() {
    if !has("signals_unmount_while_a_file_is_open", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let read = |file: &File| {
        fadvise(file, 0, None, Advice::DontNeed).expect("a cache can be dropped");
        let mut end = vec![0; 4096];
        let offset = sample.tar.len() - end.len();
        file.read_exact_at(&mut end, offset as u64)?;
        assert!(end == sample.tar[offset..], "wrong bytes");
        io::Result::Ok(())
    };
    for closes in [true, false] {
        let mount = sample.start();
        let file = File::open(mount.join("app/layers/00.tar")).expect("it is sound");
        send(&mount, Signal::TERM);
        until(AT_ALL, "the mount is detached", || {
            mount_line(mount.path()).is_none()
        });
        read(&file).expect("who has a file open can go on");
        assert!(!is_gone(mount.pid()), "the daemon waits for its readers");
        let limit = if closes {
            drop(file);
            Duration::from_secs(2)
        } else {
            until(END, "the daemon ends", || is_gone(mount.pid()));
            read(&file).expect_err("there is nobody to ask");
            Duration::ZERO
        };
        until(limit, "the daemon ends", || is_gone(mount.pid()));
        assert_eq!(mount.unmount().code(), Some(0), "reader closes: {closes}");
    }
}

#[test]
fn e4_signals_that_are_ignored() {
    if !has("e4_signals_that_are_ignored", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let mount = sample.start();
    for signal in [Signal::XFSZ, Signal::PIPE, Signal::WINCH, Signal::CHILD].repeat(50) {
        send(&mount, signal);
    }
    let tar = fs::read(mount.join("app/layers/00.tar")).expect("it is sound");
    assert!(tar == sample.tar, "wrong bytes");
    // And a storm of those that end it ends it cleanly.
    for signal in [Signal::TERM, Signal::HUP, Signal::INT].repeat(20) {
        // It may be gone by now.
        let (Ok(()) | Err(_)) = kill_process(pid(mount.pid()), signal);
    }
    until(END, "the daemon ends", || is_gone(mount.pid()));
    assert_eq!(mount_line(mount.path()), None);
    assert_eq!(mount.unmount().code(), Some(0));
}

#[test]
fn fusermount_ends_the_daemon() {
    if !has(
        "fusermount_ends_the_daemon",
        &[Need::Fuse, Need::Tool("fusermount3")],
    ) {
        return;
    }
    let sample = Sample::new();
    let mount = sample.start();
    run_ok("fusermount3", &["-u".as_ref(), mount.path().as_os_str()]);
    until(AT_ALL, "the daemon ends", || is_gone(mount.pid()));
    assert_eq!(mount.unmount().code(), Some(0));
}

#[test]
fn a_mount_in_use_is_unmounted_by_force_only() {
    const NAME: &str = "a_mount_in_use_is_unmounted_by_force_only";
    if !has(NAME, &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let mount = sample.start();
    let file = File::open(mount.join("app/manifest.json")).expect("it is sound");
    let output = run(OCIFS, &["unmount".as_ref(), mount.path().as_os_str()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("is in use; try --force"), "{stderr}");
    assert_eq!(
        names(mount.path()),
        ["app", "incoming"],
        "it is there still"
    );
    let arguments = [
        "unmount".as_ref(),
        "--force".as_ref(),
        mount.path().as_os_str(),
    ];
    run_ok(OCIFS, &arguments);
    // Whoever has a file open does not keep the daemon.
    until(AT_ALL, "the daemon ends", || is_gone(mount.pid()));
    drop(file);
    assert_eq!(mount.unmount().code(), Some(0));
}

#[test]
fn e6_a_daemon_that_was_stopped() {
    if !has("e6_a_daemon_that_was_stopped", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let mount = sample.start();
    send(&mount, Signal::STOP);
    thread::scope(|scope| {
        let reader = scope.spawn(|| fs::read(mount.join("app/layers/00.tar")));
        thread::sleep(Duration::from_millis(300));
        sample.layout.add_ref("later", &sample.image);
        thread::sleep(Duration::from_millis(300));
        assert!(!reader.is_finished(), "somebody answered");
        send(&mount, Signal::CONT);
        let tar = reader
            .join()
            .expect("it does not panic")
            .expect("it is sound");
        assert!(tar == sample.tar, "wrong bytes");
    });
    until(Duration::from_secs(1), "the change is seen", || {
        mount.join("later").exists()
    });
    assert_eq!(mount.unmount().code(), Some(0));
}

#[test]
fn e2_a_layout_in_memory() {
    const NAME: &str = "e2_a_layout_in_memory";
    const SHM: &str = "/dev/shm";
    if !has(NAME, &[Need::Fuse]) {
        return;
    }
    if !Path::new(SHM).is_dir() {
        return skip(NAME, "no /dev/shm");
    }
    let sample = Sample::new();
    let plain = sample.layout.layer_of_tar(Compression::None, &sample.tar);
    sample
        .layout
        .add_ref("plain", &sample.layout.image(&[plain]));
    let memory = tempfile::tempdir_in(SHM).expect("a temporary directory can be made");
    let copy = memory.path().join("layout");
    run_ok(
        "cp",
        &[
            "-r".as_ref(),
            sample.layout.path().as_os_str(),
            copy.as_os_str(),
        ],
    );
    for layout in [sample.layout.path(), &copy] {
        let mount = TestMount::start(layout);
        for name in ["app", "plain"] {
            let path = mount.join(name).join("layers/00.tar");
            let mut tar = Vec::new();
            let opened = File::open(&path).and_then(|mut file| file.read_to_end(&mut tar));
            opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(tar == sample.tar, "{}: wrong bytes", path.display());
        }
        fs::write(
            layout.join("index.json"),
            r#"{"schemaVersion":2,"manifests":[]}"#,
        )
        .expect("it is ours");
        until(Duration::from_secs(1), "the change is seen", || {
            names(mount.path()) == ["incoming"]
        });
    }
}

#[test]
fn the_room_is_that_of_the_layout() {
    if !has("the_room_is_that_of_the_layout", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let mount = sample.start();
    let room = |path: &Path| {
        let stat = rustix::fs::statvfs(path).expect("it can be asked");
        (stat.f_blocks * stat.f_frsize, stat.f_files, stat.f_namemax)
    };
    assert_eq!(room(mount.path()), room(sample.layout.path()));
    assert_eq!(room(&mount.join("app/layers")), room(sample.layout.path()));
    let free = |path: &Path| {
        let stat = rustix::fs::statvfs(path).expect("it can be asked");
        stat.f_bavail * stat.f_frsize
    };
    // Others write to the same file system meanwhile.
    let difference = free(mount.path()).abs_diff(free(sample.layout.path()));
    assert!(difference < 1 << 30, "{difference} bytes more or less");
    let df = run_ok("df", &["-T".as_ref(), mount.path().as_os_str()]);
    let df = String::from_utf8_lossy(&df);
    let line = df.lines().last().unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let layout = sample.layout.path().to_string_lossy();
    assert_eq!(words.first(), Some(&&*layout), "{df}");
    assert_eq!(words.get(1), Some(&"fuse.oci-layout"), "{df}");
    assert_eq!(words.last().map(Path::new), Some(mount.path()), "{df}");
}

/// One extended attribute as text, or the error.
fn xattr(path: &Path, name: &str) -> rustix::io::Result<String> {
    let mut value = vec![0; 4096];
    let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice())?;
    Ok(String::from_utf8_lossy(&value[..len]).into_owned())
}

fn xattr_names(path: &Path) -> Vec<String> {
    let mut list = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, list.as_mut_slice())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let names = list[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let mut names: Vec<String> = names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn virtual_attributes() {
    if !has("virtual_attributes", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let mut annotated = sample.image.clone();
    annotated["annotations"] = json!({"org.example.key": "some value"});
    sample.layout.add_ref("ghcr.io/org/app:1", &annotated);
    let damaged = sample.layout.layer(Compression::Gzip, &[("x", b"y")]);
    sample
        .layout
        .add_ref("bad", &sample.layout.image(std::slice::from_ref(&damaged)));
    sample
        .layout
        .damage(&damaged.descriptor, Damage::FlippedBit);
    let mount = sample.start();
    let image = mount.join("ghcr.io/org/app:1");
    let digest = digest_of(&sample.image).to_string();
    let size = size_of(&sample.image).to_string();
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let layer = mount.join("app/layers/00.tar");
    let layer_digest = digest_of(&sample.layer.descriptor).to_string();
    let rows: [(&Path, &str, &str); 11] = [
        (&image, "user.oci.digest", &digest),
        (&image, "user.oci.media-type", manifest),
        (&image, "user.oci.size", &size),
        (&image, "user.oci.ref", "ghcr.io/org/app:1"),
        (&image, "user.oci.annotation.org.example.key", "some value"),
        (&mount.join("app"), "user.oci.ref", "app"),
        (&mount.join("app/manifest.json"), "user.oci.digest", &digest),
        (&layer, "user.oci.digest", &layer_digest),
        (&layer, "user.oci.diff-id", sample.layer.diff_id.as_str()),
        (
            &layer,
            "user.oci.media-type",
            Compression::Gzip.media_type(),
        ),
        (
            &mount.join("app/config.json"),
            "user.oci.media-type",
            "application/vnd.oci.image.config.v1+json",
        ),
    ];
    for (path, name, expected) in rows {
        let what = format!("{} {name}", path.display());
        assert_eq!(xattr(path, name).as_deref(), Ok(expected), "{what}");
        assert!(
            xattr_names(path).iter().any(|listed| listed == name),
            "{what} is not listed"
        );
    }
    for (path, name) in [
        (image.as_path(), "user.oci.diff-id"),
        (&image, "user.oci.error"),
        (&image, "user.other"),
        (&image, "security.capability"),
        (&layer, "user.oci.error"),
        (mount.path(), "user.oci.digest"),
    ] {
        let value = xattr(path, name);
        assert_eq!(
            value,
            Err(rustix::io::Errno::NODATA),
            "{} {name}",
            path.display()
        );
    }
    assert_eq!(xattr_names(mount.path()), [""; 0]);
    // A buffer that is too small.
    let short = rustix::fs::lgetxattr(&image, "user.oci.digest", &mut [0; 8]);
    assert_eq!(short, Err(rustix::io::Errno::RANGE));
    let bad = mount.join("bad/layers/00.tar");
    fs::read(&bad).expect_err("it is damaged");
    let error = xattr(&bad, "user.oci.error").expect("it says why");
    assert!(error.starts_with("BLOB_DIGEST: "), "{error}");
    assert!(
        error.contains(digest_of(&damaged.descriptor).as_str()),
        "{error}"
    );
}

#[test]
fn nothing_can_be_written() {
    if !has("nothing_can_be_written", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let mount = MountOptions::new(sample.layout.path())
        .arg("--read-only")
        .start();
    let (file, dir) = (mount.join("app/manifest.json"), mount.join("app"));
    let open = |options: &mut fs::OpenOptions, path: &Path| options.open(path).map(drop);
    let plain = |mode| Mode::from_raw_mode(mode);
    let os = |result: rustix::io::Result<()>| result.map_err(io::Error::from);
    let fifo = rustix::fs::FileType::Fifo;
    let new = |name: &str| mount.join(name);
    let attempts: Vec<(&str, io::Result<()>)> = vec![
        ("write", open(File::options().write(true), &file)),
        ("append", open(File::options().append(true), &file)),
        (
            "read and write",
            open(File::options().read(true).write(true), &file),
        ),
        (
            "truncate",
            open(File::options().write(true).truncate(true), &file),
        ),
        (
            "create",
            open(File::options().write(true).create(true), &new("x")),
        ),
        (
            "create in an image",
            open(File::options().write(true).create(true), &dir.join("x")),
        ),
        (
            "create in the drop box",
            open(File::options().write(true).create(true), &new("incoming/x")),
        ),
        (
            "nameless",
            open(
                File::options().write(true).custom_flags(libc::O_TMPFILE),
                mount.path(),
            ),
        ),
        ("mkdir", fs::create_dir(new("x"))),
        ("rmdir", fs::remove_dir(&dir)),
        ("unlink", fs::remove_file(&file)),
        ("rename", fs::rename(&dir, new("x"))),
        ("symlink", std::os::unix::fs::symlink("app", new("x"))),
        ("link", fs::hard_link(&file, new("x"))),
        (
            "mknod",
            os(rustix::fs::mknodat(CWD, new("x"), fifo, plain(0o600), 0)),
        ),
        (
            "chmod",
            os(rustix::fs::chmodat(
                CWD,
                &file,
                plain(0o777),
                rustix::fs::AtFlags::empty(),
            )),
        ),
        ("chown", std::os::unix::fs::chown(&file, Some(0), Some(0))),
        ("set times", {
            let now = rustix::fs::Timestamps {
                last_access: rustix::fs::Timespec {
                    tv_sec: 1,
                    tv_nsec: 0,
                },
                last_modification: rustix::fs::Timespec {
                    tv_sec: 1,
                    tv_nsec: 0,
                },
            };
            os(rustix::fs::utimensat(
                CWD,
                &file,
                &now,
                rustix::fs::AtFlags::empty(),
            ))
        }),
        (
            "setxattr",
            os(rustix::fs::setxattr(
                &dir,
                "user.oci.annotation.x",
                b"y",
                rustix::fs::XattrFlags::empty(),
            )),
        ),
        (
            "removexattr",
            os(rustix::fs::removexattr(&dir, "user.oci.digest")),
        ),
        (
            "access",
            os(rustix::fs::access(&file, rustix::fs::Access::WRITE_OK)),
        ),
    ];
    for (what, result) in attempts {
        let errno = result.err().and_then(|error| error.raw_os_error());
        assert_eq!(errno, Some(libc::EROFS), "{what}");
    }
    assert_eq!(names(mount.path()), ["app", "incoming"]);
    let bytes = fs::read(&file).expect("it is sound");
    assert_eq!(Digest::of(&bytes), digest_of(&sample.image));
}

#[test]
fn attributes() {
    if !has("attributes", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let owner = fs::metadata(sample.layout.path()).expect("it is ours");
    let owner = (owner.uid(), owner.gid());
    // 2024-01-02T03:04:05Z, from the config.
    let created = 1_704_164_645;
    let rows: [(&str, u32, Option<i64>); 11] = [
        ("", 0o040_555, None),
        ("incoming", 0o040_555, None),
        (".ocifs", 0o040_555, None),
        (".ocifs/status.json", 0o100_444, None),
        (".ocifs/layout/index.json", 0o100_444, None),
        ("app", 0o040_555, Some(created)),
        ("app/manifest.json", 0o100_444, Some(created)),
        ("app/config.json", 0o100_444, Some(created)),
        ("app/layers", 0o040_555, Some(created)),
        ("app/layers/00.tar", 0o100_444, None),
        ("app/layers/00.tar.gz", 0o120_777, None),
    ];
    for given in [None, Some((4321, 8765))] {
        let options = MountOptions::new(sample.layout.path()).arg("--read-only");
        let mount = match given {
            None => options.start(),
            Some(_) => options
                .arg("--uid")
                .arg("4321")
                .arg("--gid")
                .arg("8765")
                .start(),
        };
        for (path, mode, mtime) in rows {
            let stat = fs::symlink_metadata(mount.join(path)).expect(path);
            assert_eq!(stat.mode(), mode, "{path}: mode {:o}", stat.mode());
            assert_eq!(
                (stat.uid(), stat.gid()),
                given.unwrap_or(owner),
                "{path}: owner"
            );
            if let Some(mtime) = mtime {
                assert_eq!(
                    (stat.mtime(), stat.mtime_nsec()),
                    (mtime, 0),
                    "{path}: time"
                );
            }
        }
    }
}

#[test]
fn mount_options() {
    if !has("mount_options", &[Need::Fuse, Need::Root]) {
        return;
    }
    let sample = Sample::new();
    let rows: [(&str, &[&str], &[&str]); 4] = [
        ("", &["ro", "nosuid", "nodev"], &["noexec", "noatime"]),
        ("noexec", &["ro", "nosuid", "nodev", "noexec"], &[]),
        ("suid,dev", &["ro"], &["nosuid", "nodev"]),
        ("noatime,nosuid", &["ro", "nosuid", "nodev", "noatime"], &[]),
    ];
    for (given, has, lacks) in rows {
        let mut options = MountOptions::new(sample.layout.path());
        if !given.is_empty() {
            options = options.arg("-o").arg(given);
        }
        let mount = options.start();
        let line = mount_line(mount.path()).expect("it is mounted");
        let fields: Vec<&str> = line.split(' ').collect();
        let flags: Vec<&str> = fields[5].split(',').collect();
        for flag in has {
            assert!(flags.contains(flag), "-o {given}: no {flag} in {line}");
        }
        for flag in lacks {
            assert!(!flags.contains(flag), "-o {given}: {flag} in {line}");
        }
        let kind = fields
            .iter()
            .position(|field| *field == "-")
            .expect("a dash");
        assert_eq!(fields[kind + 1], "fuse.oci-layout", "{line}");
        assert_eq!(Path::new(fields[kind + 2]), sample.layout.path(), "{line}");
    }
}

#[test]
fn other_users() {
    if !has(
        "other_users",
        &[Need::Fuse, Need::Root, Need::Tool("setpriv")],
    ) {
        return;
    }
    let sample = Sample::new();
    for allowed in [false, true] {
        let mut options = MountOptions::new(sample.layout.path());
        if allowed {
            options = options.arg("--allow-other");
        }
        let mount = options.start();
        // The directory around the mount point lets nobody else in.
        let parent = mount.path().parent().expect("it is in a directory");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(parent, mode).expect("it is ours");
        let script = format!("cat {}", mount.join("app/manifest.json").display());
        let user = ["--reuid", "1000", "--regid", "1000", "--clear-groups"];
        let mut arguments = user.to_vec();
        arguments.extend(["sh", "-c", &script]);
        let output = run("setpriv", &arguments);
        assert_eq!(output.status.success(), allowed, "{output:?}");
        if allowed {
            assert_eq!(Digest::of(&output.stdout), digest_of(&sample.image));
        }
    }
}
