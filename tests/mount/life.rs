//! The life of a daemon from its start to its end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Compression, MountOptions, Need, TestMount, Tmpfs, has, run, run_ok, skip};
use crate::patience::until;
use crate::sample::{Sample, mount_line, names};

const OCIFS: &str = env!("CARGO_BIN_EXE_ocifs");

const AT_ALL: Duration = Duration::from_secs(5);
/// How long a daemon that was told to end may take, whoever has files open: it gives them
/// ten seconds.
const END: Duration = Duration::from_secs(14);
/// How long it may take if nobody has a file open: it waits for nobody then.
const PROMPT: Duration = Duration::from_secs(5);

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
fn a_daemon_keeps_nothing_of_who_started_it() {
    const NAME: &str = "a_daemon_keeps_nothing_of_who_started_it";
    if !has(NAME, &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut daemon = Background { dir, pid: 0 };
    let (dir, mountpoint) = (daemon.dir.path().to_owned(), daemon.mountpoint());
    fs::create_dir(&mountpoint).expect("it is ours");
    // One is only there, the other one names the log file.
    let script = r#"exec 7>"$1/lock" 9>"$1/log"; shift; exec "$@""#;
    let output = Command::new("bash")
        .args(["-c", script, "bash"])
        .arg(&dir)
        .args([
            OCIFS,
            "mount",
            "-v",
            "--log-file",
            "/dev/fd/9",
            "--cache-dir",
        ])
        .args([&dir.join("cache"), sample.layout.path(), &mountpoint])
        .output()
        .expect("there is a shell");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let status = fs::read(mountpoint.join(".ocifs/status.json")).expect("there is a status");
    let status: Value = serde_json::from_slice(&status).expect("it is JSON");
    let process = status["pid"].to_string();
    daemon.pid = process.parse().expect("it is a number");
    let open: Vec<PathBuf> = fs::read_dir(format!("/proc/{process}/fd"))
        .expect("the daemon runs")
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .collect();
    assert!(!open.contains(&dir.join("lock")), "{open:?}");
    let logs = open.iter().filter(|path| **path == dir.join("log"));
    assert_eq!(
        logs.count(),
        3,
        "output, messages, and what both are from: {open:?}"
    );
    // What it needs of its own it has kept.
    let tar = fs::read(mountpoint.join("app/layers/00.tar")).expect("it is sound");
    assert!(tar == sample.tar, "wrong bytes");
    sample.layout.add_ref("later", &sample.image);
    until(AT_ALL, "the change is seen", || {
        mountpoint.join("later").exists()
    });
    run_ok(OCIFS, &["unmount".as_ref(), mountpoint.as_os_str()]);
    until(AT_ALL, "the daemon ends", || is_gone(daemon.pid));
    let log = fs::read_to_string(dir.join("log")).expect("there is a log");
    assert!(log.contains("is unmounted"), "{log}");
}

#[test]
fn messages_of_a_daemon_in_front_go_to_its_log_file() {
    const NAME: &str = "messages_of_a_daemon_in_front_go_to_its_log_file";
    if !has(NAME, &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new();
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let log = dir.path().join("log");
    fs::write(&log, "what was there\n").expect("it is ours");
    let options = MountOptions::new(sample.layout.path()).arg("-v");
    let mount = options.arg("--log-file").arg(&log).start();
    sample.layout.add_ref("later", &sample.image);
    until(AT_ALL, "the change is seen", || {
        mount.join("later").exists()
    });
    let said = || fs::read_to_string(&log).expect("there is a log");
    until(AT_ALL, "it is logged", || {
        said().contains("the index changed")
    });
    assert!(said().starts_with("what was there\n"), "{}", said());
    let stderr = mount.stderr();
    assert!(!stderr.contains("the index changed"), "{stderr}");
    assert!(
        stderr.contains("is mounted on"),
        "until it is mounted: {stderr}"
    );
    assert_eq!(mount.unmount().code(), Some(0));
    assert!(said().contains("is unmounted"), "{}", said());
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
        assert!(time < PROMPT, "{signal:?}: took {time:?}");
        assert_eq!(mount_line(&mountpoint), None, "{signal:?}");
        assert!(names(&mountpoint).is_empty(), "{signal:?}");
        assert_eq!(mount.unmount().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_signal_takes_down_no_other_mount() {
    const NAME: &str = "a_signal_takes_down_no_other_mount";
    if !has(NAME, &[Need::Fuse, Need::Root]) {
        return;
    }
    let sample = Sample::new();
    let mount = sample.start();
    let path = mount.path().to_owned();
    let file = File::open(mount.join("app/layers/00.tar")).expect("it is sound");
    // Somebody unmounts it, and mounts something else there, while a file is open.
    run_ok("umount", &["-l".as_ref(), path.as_os_str()]);
    let words = ["-t", "tmpfs", "tmpfs"].map(OsStr::new);
    run_ok("mount", &[&words[..], &[path.as_os_str()]].concat());
    fs::write(path.join("theirs"), "x").expect("it is in memory");
    send(&mount, Signal::TERM);
    thread::sleep(Duration::from_millis(500));
    let theirs = names(&path);
    drop(file);
    until(AT_ALL, "the daemon ends", || is_gone(mount.pid()));
    let after = names(&path);
    run("umount", &[&path]);
    assert_eq!(theirs, ["theirs"], "it was unmounted");
    assert_eq!(after, ["theirs"], "it was unmounted at the end");
    assert_eq!(mount.unmount().code(), Some(0));
}

#[test]
fn unmounting_ends_no_process_that_another_mount_names() {
    const NAME: &str = "unmounting_ends_no_process_that_another_mount_names";
    if !has(NAME, &[Need::Fuse, Need::Root]) {
        return;
    }
    let sample = Sample::new();
    let mount = sample.start();
    let other = Tmpfs::mount("size=64k");
    let control = other.path().join(".ocifs");
    fs::create_dir(&control).expect("it is in memory");
    let status = json!({"pid": mount.pid()}).to_string();
    fs::write(control.join("status.json"), status).expect("it is in memory");
    let words = [
        "unmount".as_ref(),
        "--force".as_ref(),
        other.path().as_os_str(),
    ];
    let begun = Instant::now();
    run_ok(OCIFS, &words);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "waited for it: {took:?}");
    thread::sleep(Duration::from_millis(300));
    assert!(
        !is_gone(mount.pid()),
        "the daemon of another mount was ended"
    );
    let tar = fs::read(mount.join("app/layers/00.tar")).expect("it is sound");
    assert!(tar == sample.tar, "wrong bytes");
    assert_eq!(mount.unmount().code(), Some(0));
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
            PROMPT
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
    // A process that another test is just starting has the descriptors of this one, for as
    // long as it has not become another program.
    until(AT_ALL, "fusermount3 unmounts it", || {
        run("fusermount3", &["-u".as_ref(), mount.path().as_os_str()])
            .status
            .success()
    });
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
