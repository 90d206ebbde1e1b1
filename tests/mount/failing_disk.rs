//! Disks that are full, and disks that fail: who writes is told, the layout stays as it
//! was, and when there is room again, or the disk works, all goes on.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::common::{
    Ext4, Fingerprint, MountOptions, Need, Random, TestLayout, TestMount, has, verify_layout,
};
use crate::patience::until;

const AT_ALL: Duration = Duration::from_secs(10);

const MIB: u64 = 1 << 20;

/// What all may see of a layout: nothing but that is promised to stay.
fn published(layout: &Path) -> (Vec<u8>, Fingerprint) {
    let index = fs::read(layout.join("index.json")).expect("a layout has an index");
    (index, Fingerprint::of(&layout.join("blobs")))
}

fn noise(size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).expect("it is small")];
    Random::of_seed(size).fill(&mut bytes);
    bytes
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A layout on a small disk, and a mount of it.
struct Full {
    disk: Ext4,
    layout: PathBuf,
    mount: TestMount,
    sources: tempfile::TempDir,
}

impl Full {
    fn new() -> Self {
        let disk = Ext4::mount(24 * MIB);
        let layout = disk.path().join("layout");
        ocifs::store::layout::init(&layout).expect("there is room for that");
        let mount = TestMount::start(&layout);
        let sources = tempfile::tempdir().expect("a temporary directory can be made");
        let base = sources.path().join("base");
        fs::write(&base, "something that stays").expect("it is ours");
        let full = Self {
            disk,
            layout,
            mount,
            sources,
        };
        full.ok("cp", &[&base, &full.place("base")]);
        full
    }

    fn place(&self, name: &str) -> PathBuf {
        self.mount.join("incoming").join(name)
    }

    /// A file of so many bytes that cannot be compressed.
    fn source(&self, size: u64) -> PathBuf {
        let path = self.sources.path().join(format!("of-{size}"));
        fs::write(&path, noise(size)).expect("it is ours");
        path
    }

    /// Leaves `free` bytes, or a little less.
    fn fill(&self, free: u64) {
        let ballast = File::create(self.ballast()).expect("it is ours");
        let size = self.disk.free().saturating_sub(free);
        let chunk = vec![0; 1 << 16];
        for _ in 0..size / chunk.len() as u64 {
            (&ballast).write_all(&chunk).expect("there is room");
        }
        ballast.sync_all().expect("there is room");
        // More is promised than is needed, and given back when it is written.
        while free == 0 && (&ballast).write_all(&[0; 4096]).is_ok() {
            while (&ballast).write_all(&[0; 4096]).is_ok() {}
            ballast.sync_all().expect("there is room for that");
        }
    }

    fn ballast(&self) -> PathBuf {
        self.disk.path().join("ballast")
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("it is ours");
    }

    fn run(&self, tool: &str, paths: &[&PathBuf]) -> Output {
        let mut command = Command::new(tool);
        let output = command.args(paths).env("LC_ALL", "C").output();
        output.expect("it can be started")
    }

    #[track_caller]
    fn ok(&self, tool: &str, paths: &[&PathBuf]) {
        let output = self.run(tool, paths);
        assert!(output.status.success(), "{tool} {paths:?}: {output:?}");
    }

    /// Runs a command for which there is no room: it says so, all stays as it was, and
    /// takes no more room than before.
    #[track_caller]
    fn refused(&self, what: &str, command: &mut Command) {
        let (before, free) = (published(&self.layout), self.disk.free());
        let output = command.env("LC_ALL", "C").output();
        let output = output.expect("it can be started");
        assert!(!output.status.success(), "{what}: {output:?}");
        let is_told = said(&output).contains("No space left on device");
        assert!(is_told, "{what}: {output:?}");
        assert!(published(&self.layout) == before, "{what}: it is changed");
        until(AT_ALL, &format!("{what}: the room is given back"), || {
            self.disk.free() + 64 * 1024 >= free
        });
    }

    fn end(self) {
        assert!(self.mount.unmount().success());
        verify_layout(&self.layout);
        let left = fs::read_dir(self.layout.join(".ocifs/tmp"));
        assert_eq!(left.map_or(0, Iterator::count), 0, "rubbish is left");
    }
}

const NEEDS: &[Need] = &[
    Need::Fuse,
    Need::Root,
    Need::LoopDevice,
    Need::Tool("mkfs.ext4"),
];

#[test]
fn a_drop_for_which_there_is_no_room() {
    if !has("a_drop_for_which_there_is_no_room", NEEDS) {
        return;
    }
    let full = Full::new();
    let source = full.source(4 * MIB);
    // Too little for all of the bytes, and too little for any.
    for (free, file) in [(2 * MIB, &source), (0, &full.source(MIB / 4))] {
        full.fill(free);
        let place = full.place("large");
        full.refused("cp", Command::new("cp").arg(file).arg(&place));
        until(AT_ALL, "it says why", || full.place("large.error").exists());
        assert!(!full.mount.join("large").exists());
        full.make_room();
    }
    full.ok("cp", &[&source, &full.place("large")]);
    assert!(full.mount.join("large/manifest.json").exists());
    full.end();
}

#[test]
fn an_import_for_which_there_is_no_room() {
    if !has("an_import_for_which_there_is_no_room", NEEDS) {
        return;
    }
    let full = Full::new();
    let source = full.source(4 * MIB);
    let import = |file: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ocifs"));
        command.arg("import").arg(&full.layout).arg(file);
        command.args(["--name", "large"]);
        command
    };
    for (free, file) in [(2 * MIB, &source), (0, &full.source(MIB / 4))] {
        full.fill(free);
        full.refused("import", &mut import(file));
        full.make_room();
    }
    let output = import(&source).output().expect("it can be started");
    assert!(output.status.success(), "{output:?}");
    full.end();
}

#[test]
fn a_session_for_which_there_is_no_room() {
    if !has("a_session_for_which_there_is_no_room", NEEDS) {
        return;
    }
    let full = Full::new();
    let source = full.source(4 * MIB);
    for number in 0..2 {
        let (name, session) = (format!("app{number}"), full.place(&format!("app{number}")));
        full.ok("mkdir", &[&session]);
        full.ok("cp", &[&source, &session.join("file")]);
        full.fill(2 * MIB);
        let target = full.mount.join(&name);
        let publish = || match number {
            0 => {
                let mut command = Command::new("mv");
                command.arg("-T").arg(&session).arg(&target);
                command
            }
            _ => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_ocifs"));
                command.arg("commit").arg(full.mount.path()).arg(&name);
                command
            }
        };
        full.refused("publishing", &mut publish());
        assert!(session.join("file").exists(), "the session is still there");
        // Nor is there room for a write inside of the session.
        let output = full.run("cp", &[&source, &session.join("more")]);
        assert!(
            said(&output).contains("No space left on device"),
            "{output:?}"
        );
        fs::remove_file(session.join("more")).expect("it is ours");
        full.make_room();
        let output = publish().output().expect("it can be started");
        assert!(output.status.success(), "{output:?}");
        let shown = fs::read(target.join("rootfs/file")).expect("it is published");
        assert!(shown == noise(4 * MIB), "other bytes are shown");
    }
    full.end();
}

/// As long as this lives, the calls of a process fail.
struct Failing(Child);

impl Failing {
    fn new(mount: &TestMount, rule: &str) -> Self {
        let pid = mount.pid().to_string();
        let injection = format!("inject={rule}");
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-e", &injection, "-p", &pid]);
        let child = command.stderr(Stdio::null()).spawn();
        let failing = Self(child.expect("strace can be started"));
        until(AT_ALL, "all threads are traced", || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon runs");
            let mut tasks = tasks.flatten();
            tasks.all(|task| {
                let status = fs::read_to_string(task.path().join("status"));
                status.is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
            })
        });
        failing
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // By this signal it lets go of the process first.
        let pid = i32::try_from(self.0.id()).ok();
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let (Ok(()) | Err(_)) =
                rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let (Ok(_) | Err(_)) = self.0.wait();
    }
}

/// What is injected, and what the program is told.
const FAILURES: &[(&str, &str)] = &[
    ("fsync:error=EIO", "Input/output error"),
    ("fsync:error=EDQUOT", "Disk quota exceeded"),
    ("pwrite64:error=ENOSPC", "No space left on device"),
    ("linkat:error=EDQUOT", "Disk quota exceeded"),
    ("renameat2:error=EIO", "Input/output error"),
    ("openat2:error=EMFILE", "Too many open files"),
];

/// What is done: a shell script that is given `$mnt`, `$name` and `$file`.
const ACTIONS: &[(&str, &str, &str)] = &[
    ("a drop", ":", "cp \"$file\" \"$mnt/incoming/$name\""),
    (
        "a tree",
        "mkdir \"$mnt/incoming/$name\" && cp \"$file\" \"$mnt/incoming/$name/f\"",
        "mv -T \"$mnt/incoming/$name\" \"$mnt/$name\"",
    ),
    ("one more name", ":", "ln -s base \"$mnt/$name\""),
    (
        "another name",
        "ln -s base \"$mnt/$name-old\"",
        "mv -T \"$mnt/$name-old\" \"$mnt/$name\"",
    ),
];

#[test]
fn a_disk_that_fails_is_told_and_forgotten() {
    let name = "a_disk_that_fails_is_told_and_forgotten";
    if !has(name, &[Need::Fuse, Need::Root, Need::Tool("strace")]) {
        return;
    }
    let layout = TestLayout::new();
    let mount = MountOptions::new(layout.path()).start();
    fs::write(mount.join("incoming/base"), "something to link to").expect("it is taken");
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    for (number, (rule, text)) in FAILURES.iter().enumerate() {
        for (what, begin, action) in ACTIONS {
            let row = format!("{what}, {rule}");
            let name = format!("{}-{number}", what.replace(' ', "-"));
            let file = dir.path().join(&name);
            fs::write(&file, &row).expect("it is ours");
            let shell = |script: &str| {
                let mut command = Command::new("bash");
                command.args(["-c", script]).env("LC_ALL", "C");
                command.env("mnt", mount.path()).env("name", &name);
                command
                    .env("file", &file)
                    .output()
                    .expect("there is a shell")
            };
            let begun = shell(begin);
            assert!(begun.status.success(), "{row}: {begun:?}");
            let before = fs::read(layout.path().join("index.json")).expect("it is there");
            let failing = Failing::new(&mount, rule);
            let output = shell(action);
            drop(failing);
            assert!(!output.status.success(), "{row}: it was answered");
            assert!(said(&output).contains(text), "{row}: {output:?}");
            let after = fs::read(layout.path().join("index.json")).expect("it is there");
            assert!(before == after, "{row}: the index is another one");
            let again = shell(action);
            assert!(again.status.success(), "{row}, once more: {again:?}");
            assert!(mount.join(&name).join("manifest.json").exists(), "{row}");
        }
    }
    assert!(mount.unmount().success());
    verify_layout(layout.path());
    let left = fs::read_dir(layout.path().join(".ocifs/tmp"));
    assert_eq!(left.map_or(0, Iterator::count), 0, "rubbish is left");
}
