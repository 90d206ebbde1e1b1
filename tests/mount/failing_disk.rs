//! Disks that are full, and disks that fail: who writes is told, the layout stays as it
//! was, and when there is room again, or the disk works, all goes on.
//!
//! Of the calls that the daemon makes each third fails by default, with one errno;
//! `OCIFS_INJECTIONS=all` lets each fail with all that there are.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::{
    Ext4, Fingerprint, MountOptions, Need, Random, TestLayout, TestMount, has, verify_layout,
};
use crate::injections::{FILL_LAYOUT, Failing};
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

/// What is injected, and what the program is told.
const FAILURES: &[(&str, &str)] = &[
    ("fsync:error=EIO", "Input/output error"),
    ("fsync:error=EDQUOT", "Disk quota exceeded"),
    ("pwrite64:error=ENOSPC", "No space left on device"),
    ("linkat:error=EDQUOT", "Disk quota exceeded"),
    ("renameat2:error=EIO", "Input/output error"),
    ("openat2:error=EMFILE", "Too many open files"),
];

/// What is done to a layout that is mounted, whose calls fail.
struct Action {
    name: &'static str,
    /// What goes before it, while nothing fails; and itself: shell scripts that are given
    /// `$mnt`, `$name` and `$file`.
    begin: &'static str,
    action: &'static str,
}

const ACTIONS: &[Action] = &[
    Action {
        name: "a drop",
        begin: ":",
        action: r#"cp "$file" "$mnt/incoming/$name""#,
    },
    Action {
        name: "a synced drop",
        begin: ":",
        action: r#"dd if="$file" of="$mnt/incoming/$name" conv=fsync status=none"#,
    },
    Action {
        name: "a tree",
        begin: r#"mkdir "$mnt/incoming/$name" && cp "$file" "$mnt/incoming/$name/f""#,
        action: r#"mv -T "$mnt/incoming/$name" "$mnt/$name""#,
    },
    Action {
        name: "a layout",
        begin: r#"mkdir "$mnt/incoming/$name" && cd "$mnt/incoming/$name" && fill"#,
        action: r#"mv -T "$mnt/incoming/$name" "$mnt/$name""#,
    },
    Action {
        name: "one more name",
        begin: ":",
        action: r#"ln -s base "$mnt/$name""#,
    },
    Action {
        name: "another name",
        begin: r#"ln -s base "$mnt/$name-old""#,
        action: r#"mv -T "$mnt/$name-old" "$mnt/$name""#,
    },
];

/// A layout with the ref `base`, mounted, and a directory for files to bring in.
struct Failable {
    layout: TestLayout,
    mount: TestMount,
    dir: tempfile::TempDir,
}

impl Failable {
    fn new() -> Self {
        let layout = TestLayout::new();
        let mount = MountOptions::new(layout.path()).start();
        fs::write(mount.join("incoming/base"), "something to link to").expect("it is taken");
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        Self { layout, mount, dir }
    }

    fn shell(&self, name: &str, script: &str) -> Output {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("{FILL_LAYOUT}{script}")]);
        command.env("LC_ALL", "C").env("mnt", self.mount.path());
        command
            .env("name", name)
            .env("file", self.dir.path().join(name));
        command.output().expect("there is a shell")
    }

    fn index(&self) -> Vec<u8> {
        fs::read(self.layout.path().join("index.json")).expect("it is there")
    }

    /// Does something while calls fail by a rule of strace; how that went, whether one has
    /// failed, and whether it was done. What was not done changes nothing, and goes well the
    /// second time.
    fn act(&self, row: &str, action: &Action, rule: &str) -> (Output, bool) {
        let name = row.replace([' ', ',', ':', '='], "-");
        fs::write(self.dir.path().join(&name), row).expect("it is ours");
        let begun = self.shell(&name, action.begin);
        assert!(begun.status.success(), "{row}: {begun:?}");
        let before = self.index();
        let failing = Failing::new(&self.mount, rule);
        let output = self.shell(&name, action.action);
        let has_failed = failing.end();
        let manifest = self.mount.join(&name).join("manifest.json");
        if output.status.success() {
            assert!(manifest.exists(), "{row}: it is not done");
            return (output, has_failed);
        }
        assert!(self.index() == before, "{row}: the index is another one");
        let again = self.shell(&name, action.action);
        assert!(
            again.status.success(),
            "{row}, once more: {again:?}, {output:?}"
        );
        assert!(manifest.exists(), "{row}");
        (output, has_failed)
    }

    fn end(self) {
        assert!(self.mount.unmount().success());
        verify_layout(self.layout.path());
        let left = fs::read_dir(self.layout.path().join(".ocifs/tmp"));
        assert_eq!(left.map_or(0, Iterator::count), 0, "rubbish is left");
    }

    /// Mounts it once more: what could not be removed goes with the next start.
    fn start_again(self) -> Self {
        let Self { layout, mount, dir } = self;
        assert!(mount.unmount().success());
        let mount = MountOptions::new(layout.path()).start();
        Self { layout, mount, dir }
    }
}

#[test]
fn a_disk_that_fails_is_told_and_forgotten() {
    let name = "a_disk_that_fails_is_told_and_forgotten";
    if !has(name, &[Need::Fuse, Need::Root, Need::Tool("strace")]) {
        return;
    }
    let failable = Failable::new();
    for (rule, text) in FAILURES {
        for action in ACTIONS {
            let row = format!("{}, {rule}", action.name);
            let (output, _) = failable.act(&row, action, rule);
            assert!(!output.status.success(), "{row}: it was answered");
            assert!(said(&output).contains(text), "{row}: {output:?}");
        }
    }
    failable.end();
}

const EIO: (&str, &str) = ("EIO", "Input/output error");
const ENOSPC: (&str, &str) = ("ENOSPC", "No space left on device");
const EDQUOT: (&str, &str) = ("EDQUOT", "Disk quota exceeded");
const EMFILE: (&str, &str) = ("EMFILE", "Too many open files");

/// The calls of the daemon, and what each of them fails with.
const CALLS: &[(&str, &[(&str, &str)])] = &[
    ("fsync", &[EIO, ENOSPC, EDQUOT]),
    ("pwrite64", &[ENOSPC, EDQUOT, EIO]),
    ("linkat", &[EDQUOT, ENOSPC, EIO]),
    ("renameat2", &[EIO, ENOSPC, EDQUOT]),
    ("openat2", &[EMFILE, ENOSPC, EDQUOT, EIO]),
    ("openat", &[EMFILE, ENOSPC, EDQUOT, EIO]),
    ("mkdirat", &[ENOSPC, EDQUOT, EIO]),
    ("fchmod", &[EIO]),
    ("unlinkat", &[EIO]),
    ("flock", &[EIO]),
    ("pread64", &[EIO]),
    ("statx", &[EIO]),
];

/// Who asks is told, or all is done; and what was not done can be tried again.
#[test]
fn each_call_of_the_daemon_fails_once() {
    let name = "each_call_of_the_daemon_fails_once";
    if !has(name, &[Need::Fuse, Need::Root, Need::Tool("strace")]) {
        return;
    }
    let is_full = std::env::var_os("OCIFS_INJECTIONS").is_some_and(|wanted| wanted == "all");
    let failable = Failable::new();
    for action in ACTIONS {
        let mut told = 0;
        for (call, failures) in CALLS {
            let (failures, step) = match is_full {
                true => (*failures, 1),
                false => (&failures[..1], 3),
            };
            for (errno, text) in failures {
                for number in (1..).step_by(step) {
                    let row = format!("{}, {call} {number}, {errno}", action.name);
                    let rule = format!("{call}:error={errno}:when={number}");
                    let (output, has_failed) = failable.act(&row, action, &rule);
                    if !output.status.success() {
                        told += usize::from(has_failed);
                        assert!(said(&output).contains(text), "{row}: {output:?}");
                    }
                    if !has_failed {
                        break;
                    }
                }
            }
        }
        assert!(told > 0, "{}: no failure was told", action.name);
    }
    failable.start_again().end();
}
