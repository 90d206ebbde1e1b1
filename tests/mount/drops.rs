//! Files that are dropped into `incoming/`: which close commits them, what they become,
//! what is told, and what is left of those that are refused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use ocifs::oci::Digest;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{
    MountOptions, Need, TestLayout, TestMount, Tmpfs, digest_of, has, run_ok, verify_layout,
};
use crate::patience::until;

const AT_ALL: Duration = Duration::from_secs(5);

/// A layout without images, and a mount of it.
struct Dropped {
    layout: TestLayout,
    mount: TestMount,
}

impl Dropped {
    fn new(arguments: &[&str]) -> Self {
        let layout = TestLayout::new();
        let mut options = MountOptions::new(layout.path());
        for argument in arguments {
            options = options.arg(argument);
        }
        let mount = options.start();
        Self { layout, mount }
    }

    /// The path of a name in the drop box.
    fn place(&self, name: &str) -> PathBuf {
        self.mount.join("incoming").join(name)
    }

    /// The bytes of the artifact that has this ref name; none without that.
    fn artifact(&self, name: &str) -> Option<Vec<u8>> {
        let manifest = fs::read(self.mount.join(name).join("manifest.json")).ok()?;
        let manifest: Value = serde_json::from_slice(&manifest).expect("it is JSON");
        let digest = digest_of(&manifest["layers"][0]);
        let blobs = self.mount.join(".ocifs/layout/blobs/sha256");
        Some(fs::read(blobs.join(digest.encoded())).expect("the blob is there"))
    }

    fn refs(&self) -> Vec<String> {
        let names = crate::sample::names(self.mount.path());
        names.into_iter().filter(|n| n != "incoming").collect()
    }

    /// Why a name was refused.
    fn error(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.place(&format!("{name}.error"))).ok()
    }

    /// Runs a script of the shell in the drop box; whether it succeeded.
    fn shell(&self, script: &str) -> bool {
        let mut command = Command::new("bash");
        command.args(["-c", script]).stderr(Stdio::null());
        command.current_dir(self.mount.join("incoming"));
        command.status().expect("there is a shell").success()
    }

    fn verify(&self) {
        verify_layout(self.layout.path());
    }
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Closes a file and says what that answered.
fn close(file: File) -> io::Result<()> {
    let fd = std::os::fd::IntoRawFd::into_raw_fd(file);
    #[expect(
        unsafe_code,
        reason = "the standard library does not say what close answers"
    )]
    // SAFETY: the number was that of a file which nobody else has.
    let closed = unsafe { libc::close(fd) };
    match closed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes a file as `cp` does; what writing it or closing it answered.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    close(file)
}

#[test]
fn what_is_copied_in_is_a_ref_at_once() {
    if !has("what_is_copied_in_is_a_ref_at_once", &[Need::Fuse]) {
        return;
    }
    let dropped = Dropped::new(&[]);
    let file = dropped.layout.path().join("../note.txt");
    fs::write(&file, b"a note").expect("the directory is ours");
    run_ok(
        "cp",
        &[file.as_os_str(), dropped.place("note.txt").as_os_str()],
    );
    assert_eq!(
        dropped.artifact("note.txt").as_deref(),
        Some(&b"a note"[..])
    );
    assert_eq!(
        fs::read(dropped.place("note.txt")).ok().as_deref(),
        Some(&b"a note"[..])
    );
    let mut value = vec![0; 256];
    let mut attribute = |name: &str| {
        let len = rustix::fs::getxattr(dropped.place("note.txt"), name, &mut value).ok()?;
        Some(String::from_utf8_lossy(&value[..len]).into_owned())
    };
    let manifest = fs::read(dropped.mount.join("note.txt/manifest.json")).expect("it is there");
    assert_eq!(
        attribute("user.oci.digest"),
        Some(Digest::of(&manifest).to_string())
    );
    assert_eq!(attribute("user.oci.ref"), Some("note.txt".into()));
    assert_eq!(attribute("user.oci.error"), None);
    fs::remove_file(dropped.place("note.txt")).expect("a receipt can be dismissed");
    assert_eq!(
        errno(fs::metadata(dropped.place("note.txt"))),
        Some(libc::ENOENT)
    );
    assert!(dropped.artifact("note.txt").is_some(), "the ref stays");
    fs::remove_file(file).expect("it is ours");
    dropped.verify();
}

#[test]
fn which_close_commits() {
    if !has("which_close_commits", &[Need::Fuse, Need::Tool("python3")]) {
        return;
    }
    let python = |script: &str| format!("python3 -c '{script}'");
    // The kernel tells of a close into which nothing was written when the shell has gone on.
    let committed = |name: &str| format!("until [ -e ../{name} ]; do sleep 0.01; done");
    let rows: &[(&str, String, &str)] = &[
        ("echo", "echo a > echo".into(), "a\n"),
        ("cat", "printf abc | cat > cat".into(), "abc"),
        (
            "dd",
            "printf abcdef | dd of=dd bs=2 status=none".into(),
            "abcdef",
        ),
        (
            "dd-notrunc",
            "printf abc | dd of=dd-notrunc conv=notrunc,fsync status=none".into(),
            "abc",
        ),
        ("both", "(echo a; /bin/echo b) > both".into(), "a\nb\n"),
        (
            "children",
            "(/bin/echo a; /bin/echo b; /bin/echo c) > children".into(),
            "a\nb\nc\n",
        ),
        (
            "later",
            "(echo a; sleep 0.05; echo b) > later".into(),
            "a\nb\n",
        ),
        (
            "exec",
            "exec 3> exec; echo a >&3; echo b >&3; exec 3>&-".into(),
            "a\nb\n",
        ),
        (
            "append",
            "exec 3>> append; echo a >&3; /bin/echo b >&3; exec 3>&-".into(),
            "a\nb\n",
        ),
        ("empty", format!(": > empty; {}", committed("empty")), ""),
        ("touch", format!("touch touch; {}", committed("touch")), ""),
        ("truncate", "truncate -s 5 truncate".into(), "\0\0\0\0\0"),
        (
            "become",
            python(
                "import os; f = os.open(\"become\", os.O_WRONLY | os.O_CREAT); os.write(f, b\"x\"); os.execvp(\"true\", [\"true\"])",
            ),
            "x",
        ),
        (
            "exit",
            python(
                "import os; f = os.open(\"exit\", os.O_WRONLY | os.O_CREAT); os.write(f, b\"x\"); os._exit(3)",
            ) + "; true",
            "x",
        ),
        (
            "fork",
            python(
                "import os\nf = os.open(\"fork\", os.O_WRONLY | os.O_CREAT)\nos.write(f, b\"a\")\n\
                 if os.fork() == 0: os._exit(0)\nos.wait()\nos.write(f, b\"b\")\nos.close(f)",
            ),
            "ab",
        ),
        (
            "dup2",
            python(
                "import os\nf = os.open(\"dup2\", os.O_WRONLY | os.O_CREAT)\nos.write(f, b\"a\")\n\
                 os.dup2(0, f)\nos._exit(0)",
            ),
            "a",
        ),
    ];
    let dropped = Dropped::new(&[]);
    for (name, script, expected) in rows {
        assert!(dropped.shell(script), "{name}");
        let found = dropped.artifact(name);
        assert_eq!(found.as_deref(), Some(expected.as_bytes()), "{name}");
        assert_eq!(dropped.error(name), None, "{name}");
    }
    dropped.verify();
}

/// Starts a program that has written `abc` to a drop and waits; ends it by `signal`.
fn end_writer(dropped: &Dropped, script: &str, signal: Signal) {
    let mut child = Command::new("bash")
        .args(["-c", script])
        .current_dir(dropped.mount.join("incoming"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let mut ready = [0];
    let stdout = child.stdout.as_mut().expect("it is a pipe");
    stdout
        .read_exact(&mut ready)
        .expect("it says when it is ready");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("it has a number"), signal).expect("it runs");
    child.wait().expect("it is ours");
}

#[test]
fn n1_a_killed_writer_leaves_nothing() {
    if !has(
        "n1_a_killed_writer_leaves_nothing",
        &[Need::Fuse, Need::Tool("python3")],
    ) {
        return;
    }
    let writer = |name: &str, bytes: &str| {
        format!(
            "exec python3 -c 'import os, sys\nimport signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n\
             f = os.open(\"{name}\", os.O_WRONLY | os.O_CREAT)\n{bytes}\n\
             os.write(1, b\"!\")\nsys.stdin.read()'"
        )
    };
    let dropped = Dropped::new(&[]);
    let written = "os.write(f, b\"abc\" * 1000000)";
    for (name, bytes, signal) in [
        ("killed", written, Signal::KILL),
        ("interrupted", written, Signal::INT),
        ("terminated", written, Signal::TERM),
        ("early", "", Signal::KILL),
    ] {
        end_writer(&dropped, &writer(name, bytes), signal);
        until(AT_ALL, &format!("{name} is refused"), || {
            dropped.error(name).is_some()
        });
        let text = dropped.error(name).expect("it is there");
        assert!(
            text.contains(&format!("signal {}", signal.as_raw())),
            "{name}: {text}"
        );
        assert_eq!(dropped.artifact(name), None, "{name}");
        assert_eq!(
            errno(fs::metadata(dropped.place(name))),
            Some(libc::ENOENT),
            "{name}"
        );
    }
    // One of several who have the file open is killed, and wrote nothing.
    assert!(dropped.shell("(echo a; sleep 5 & kill -9 $!; wait; echo b) > other"));
    assert_eq!(dropped.artifact("other").as_deref(), Some(&b"a\nb\n"[..]));
    // A writer is killed, and another goes on.
    assert!(dropped.shell("(timeout -s KILL 0.2 bash -c 'echo a; sleep 5'; echo b; true) > next"));
    let next = dropped.artifact("next").expect("it is committed");
    assert!(next.ends_with(b"b\n"));
    // A pipe of which the writer is killed, below a shell that ends as it wants.
    assert!(dropped.shell("(timeout 60 bash -c 'echo a; kill -KILL $$'; true) > torso; true"));
    until(AT_ALL, "the torso is refused", || {
        dropped.error("torso").is_some()
    });
    assert_eq!(dropped.artifact("torso"), None);
    assert_eq!(dropped.refs(), ["next", "other"]);
    dropped.verify();
}

/// How many regular files there are, but for what the mount notes for itself.
fn count_files(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("it can be listed");
    entries
        .map(|entry| entry.expect("it can be listed"))
        .filter(|entry| entry.file_name() != ".ocifs")
        .map(|entry| match entry.file_type().expect("it is there") {
            kind if kind.is_dir() => count_files(&entry.path()),
            kind => usize::from(kind.is_file()),
        })
        .sum()
}

#[test]
fn n1_what_nobody_closes_is_invisible_and_freed() {
    if !has(
        "n1_what_nobody_closes_is_invisible_and_freed",
        &[Need::Fuse],
    ) {
        return;
    }
    let layout = TestLayout::new();
    // A program that looks would be a child that closes the file, and so commits it.
    let files = || count_files(layout.path());
    let before = files();
    let mount = TestMount::start(layout.path());
    let mut file = File::create(mount.join("incoming/x")).expect("it can be begun");
    file.write_all(&[1; 3 << 20]).expect("it is taken");
    assert_eq!(crate::sample::names(mount.path()), ["incoming"]);
    assert_eq!(files(), before, "it has no name in the layout");
    let pid = i32::try_from(mount.pid()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("it has a number"), Signal::KILL).expect("the daemon runs");
    drop(file);
    drop(mount);
    assert_eq!(files(), before, "and nothing of it stays");
    verify_layout(layout.path());
}

#[test]
fn n4_bytes_in_any_order() {
    if !has("n4_bytes_in_any_order", &[Need::Fuse]) {
        return;
    }
    let dropped = Dropped::new(&[]);
    type Write = fn(&mut File) -> io::Result<()>;
    let zeros = |len: usize| vec![0; len];
    let rows: [(&str, Write, Vec<u8>); 7] = [
        (
            "gap",
            |file| file.write_all_at(b"end", 3_000_000),
            [zeros(3_000_000), b"end".to_vec()].concat(),
        ),
        (
            "again",
            |file| {
                file.write_all(&[b'a'; 600_000])?;
                file.write_all_at(b"bbb", 10)
            },
            [&[b'a'; 10][..], b"bbb", &[b'a'; 599_987]].concat(),
        ),
        (
            "backwards",
            |file| {
                file.write_all_at(b"second", 5)?;
                file.write_all_at(b"first", 0)
            },
            b"firstsecond".to_vec(),
        ),
        (
            "cut",
            |file| {
                file.write_all(&[b'a'; 600_000])?;
                file.set_len(3)?;
                file.write_all_at(b"b", 3)
            },
            b"aaab".to_vec(),
        ),
        (
            "begun-anew",
            |file| {
                file.write_all(&[b'a'; 600_000])?;
                file.set_len(0)?;
                file.write_all_at(b"b", 0)
            },
            b"b".to_vec(),
        ),
        (
            "hole",
            |file| {
                file.write_all(b"a")?;
                file.set_len(100_000)
            },
            [b"a".to_vec(), zeros(99_999)].concat(),
        ),
        (
            "synced",
            |file| {
                file.write_all(b"ab")?;
                file.sync_all()?;
                file.write_all(b"cd")?;
                file.sync_data()
            },
            b"abcd".to_vec(),
        ),
    ];
    for (name, steps, expected) in rows {
        let mut file = File::create(dropped.place(name)).expect(name);
        steps(&mut file).expect(name);
        assert_eq!(
            file.metadata().expect(name).len(),
            expected.len() as u64,
            "{name}"
        );
        close(file).expect(name);
        assert!(dropped.artifact(name) == Some(expected), "{name}");
    }
    // Each write goes to the end, and what was written can be read.
    let mut options = OpenOptions::new();
    let options = options.create(true).append(true).read(true);
    let mut file = options
        .open(dropped.place("appended"))
        .expect("it can be begun");
    for text in ["a", "b", "c"] {
        file.write_all(text.as_bytes()).expect("it is taken");
    }
    let mut read = [0; 3];
    file.read_exact_at(&mut read, 0).expect("it can be read");
    assert_eq!(&read, b"abc");
    close(file).expect("it is committed");
    assert_eq!(dropped.artifact("appended").as_deref(), Some(&b"abc"[..]));
    dropped.verify();
}

#[test]
fn n4_shared_mappings_are_refused() {
    if !has("n4_shared_mappings_are_refused", &[Need::Fuse]) {
        return;
    }
    let dropped = Dropped::new(&[]);
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(true).write(true).read(true);
    let file = options
        .open(dropped.place("mapped"))
        .expect("it can be begun");
    file.set_len(4096).expect("it can be lengthened");
    let map = |flags| {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses where, and nobody reads or writes there.
        #[expect(unsafe_code, reason = "the system call itself is what is tried")]
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                protection,
                flags,
                file.as_raw_fd(),
                0,
            )
        };
        address != libc::MAP_FAILED
    };
    assert!(!map(libc::MAP_SHARED), "a shared mapping is refused");
    assert!(map(libc::MAP_PRIVATE), "a private one is not");
}

#[test]
fn n6_other_kinds_and_attributes() {
    if !has("n6_other_kinds_and_attributes", &[Need::Fuse, Need::Root]) {
        return;
    }
    let dropped = Dropped::new(&[]);
    write(&dropped.place("file"), b"bytes").expect("it is taken");
    let mode = Mode::from_raw_mode(0o600);
    let node = |name: &str, kind| {
        let made = rustix::fs::mknodat(CWD, dropped.place(name), kind, mode, 0);
        errno(made.map_err(io::Error::from))
    };
    let rows = [
        ("symlink", errno(symlink("file", dropped.place("link")))),
        (
            "hard link",
            errno(fs::hard_link(dropped.place("file"), dropped.place("hard"))),
        ),
        ("fifo", node("fifo", FileType::Fifo)),
        ("socket", node("socket", FileType::Socket)),
        ("device", node("device", FileType::CharacterDevice)),
        ("plain node", node("plain", FileType::RegularFile)),
        (
            "removing blobs",
            errno(fs::remove_dir(dropped.place("blobs"))),
        ),
    ];
    for (what, found) in rows {
        assert_eq!(found, Some(libc::EPERM), "{what}");
    }
    let file = File::create(dropped.place("open")).expect("it can be begun");
    (&file).write_all(b"bytes").expect("it is taken");
    file.set_permissions(fs::Permissions::from_mode(0o4777))
        .expect("chmod");
    std::os::unix::fs::fchown(&file, Some(1), Some(1)).expect("chown");
    file.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH))
        .expect("utimens");
    rustix::fs::fsetxattr(&file, "user.x", b"y", XattrFlags::empty()).expect("setxattr");
    rustix::fs::fremovexattr(&file, "user.x").expect("removexattr");
    let stat = file.metadata().expect("it is open");
    assert_eq!(
        (stat.mode(), stat.uid()),
        (0o100_644, 0),
        "nothing has changed"
    );
    close(file).expect("it is committed");
    assert_eq!(dropped.artifact("open").as_deref(), Some(&b"bytes"[..]));
}

#[test]
fn n7_names() {
    if !has("n7_names", &[Need::Fuse]) {
        return;
    }
    let dropped = Dropped::new(&[]);
    let long = "x".repeat(256);
    let refused = [
        ("dots", "%2e%2e", libc::EINVAL),
        ("a component is empty", "a%2F%2Fb", libc::EINVAL),
        ("malformed", "a%2", libc::EINVAL),
        ("too long", &long, libc::ENAMETOOLONG),
        ("a directory", "blobs", libc::EISDIR),
    ];
    for (what, name, expected) in refused {
        assert_eq!(
            errno(File::create(dropped.place(name))),
            Some(expected),
            "{what}"
        );
    }
    let taken = [
        ("app.tar.gz", "app"),
        ("level%2Fapp:1.json", "level/app:1"),
        ("decoded%252Fonce", "decoded-2Fonce"),
        ("my file.txt", "my-file.txt"),
    ];
    for (file, name) in taken {
        write(&dropped.place(file), file.as_bytes()).expect(file);
        assert_eq!(
            dropped.artifact(name).as_deref(),
            Some(file.as_bytes()),
            "{file}"
        );
    }
    // Held back: no ref by this, and the bytes wait.
    write(&dropped.place(".wh.x"), b"x").expect("it is taken");
    assert_eq!(dropped.refs().len(), taken.len());
    dropped.verify();
}

#[test]
fn held_back_names_are_committed_when_they_are_renamed() {
    if !has(
        "held_back_names_are_committed_when_they_are_renamed",
        &[Need::Fuse],
    ) {
        return;
    }
    let dropped = Dropped::new(&[]);
    for (at, held) in [".x.Ab3dE", "x~", "x.part", "x.tmp", "x.crdownload"]
        .iter()
        .enumerate()
    {
        let name = format!("x{at}");
        write(&dropped.place(held), name.as_bytes()).expect(held);
        assert_eq!(dropped.artifact(&name), None, "{held}");
        assert_eq!(
            fs::read(dropped.place(held)).ok().as_deref(),
            Some(name.as_bytes()),
            "{held}"
        );
        fs::rename(dropped.place(held), dropped.place(&name)).expect(held);
        assert_eq!(
            dropped.artifact(&name).as_deref(),
            Some(name.as_bytes()),
            "{held}"
        );
        assert_eq!(
            errno(fs::metadata(dropped.place(held))),
            Some(libc::ENOENT),
            "{held}"
        );
    }
    // The verdict is that of the rename.
    write(&dropped.place("y.part"), b"other").expect("it is taken");
    let renamed = fs::rename(dropped.place("y.part"), dropped.place("x0"));
    assert_eq!(errno(renamed), Some(libc::EEXIST));
    assert!(
        dropped
            .error("x0")
            .expect("it says why")
            .contains("REF_EXISTS")
    );
    let renamed = fs::rename(dropped.place("y.part"), dropped.place("y"));
    renamed.expect("under another name it goes");
    assert_eq!(dropped.artifact("y").as_deref(), Some(&b"other"[..]));
    dropped.verify();
}

#[test]
fn what_was_closed_is_committed_by_the_rename_though_it_is_still_open() {
    let test = "what_was_closed_is_committed_by_the_rename_though_it_is_still_open";
    if !has(test, &[Need::Fuse]) {
        return;
    }
    let dropped = Dropped::new(&[]);
    let begin = |held: &str, bytes: &[u8]| {
        let mut file = File::create(dropped.place(held)).expect(held);
        file.write_all(bytes).expect(held);
        drop(file.try_clone().expect("a second descriptor"));
        file
    };
    let file = begin("x.part", b"x");
    fs::rename(dropped.place("x.part"), dropped.place("x")).expect("it is committed");
    assert_eq!(dropped.artifact("x").as_deref(), Some(&b"x"[..]));
    // Who writes on goes on under the new name.
    (&file).write_all(b" and y").expect("it is taken");
    drop(file);
    assert_eq!(dropped.artifact("x").as_deref(), Some(&b"x and y"[..]));
    // The verdict is that of the rename, and a refusal holds it back as before.
    let file = begin("y.part", b"y");
    let renamed = fs::rename(dropped.place("y.part"), dropped.place("x"));
    assert_eq!(errno(renamed), Some(libc::EEXIST));
    drop(file);
    let held = fs::read(dropped.place("y.part"));
    assert_eq!(held.expect("it is held back"), b"y");
    // Bytes that nobody has closed have no verdict before that.
    let mut file = File::create(dropped.place("z.part")).expect("z.part");
    file.write_all(b"z").expect("it is taken");
    fs::rename(dropped.place("z.part"), dropped.place("z")).expect("another name");
    assert_eq!(dropped.artifact("z"), None);
    drop(file);
    assert_eq!(dropped.artifact("z").as_deref(), Some(&b"z"[..]));
    dropped.verify();
}

#[test]
fn blobs_and_digests_as_names() {
    if !has("blobs_and_digests_as_names", &[Need::Fuse]) {
        return;
    }
    let dropped = Dropped::new(&[]);
    let stored = |digest: &Digest| {
        fs::read(
            dropped
                .layout
                .path()
                .join("blobs/sha256")
                .join(digest.encoded()),
        )
        .ok()
    };
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    write(&dropped.place(one.as_str()), b"one").expect("it is right");
    write(&dropped.place("blobs/any"), b"two").expect("it is a blob");
    assert_eq!(stored(&one).as_deref(), Some(&b"one"[..]));
    assert_eq!(stored(&two).as_deref(), Some(&b"two"[..]));
    for place in [two.to_string(), format!("blobs/{}", Digest::of(b"three"))] {
        let wrong = write(&dropped.place(&place), b"wrong");
        assert_eq!(errno(wrong), Some(libc::EBADMSG), "{place}");
        assert!(
            dropped
                .error(&place)
                .expect("it says why")
                .contains("BLOB_DIGEST"),
            "{place}"
        );
    }
    assert_eq!(
        stored(&Digest::of(b"wrong")),
        None,
        "nothing of it is in the layout"
    );
    assert!(dropped.refs().is_empty());
    assert_eq!(
        fs::read(dropped.place("blobs/any")).ok().as_deref(),
        Some(&b"two"[..])
    );
    dropped.verify();
}

#[test]
fn a_ref_that_exists() {
    if !has("a_ref_that_exists", &[Need::Fuse]) {
        return;
    }
    for (arguments, expected) in [
        (&[][..], Some(libc::EEXIST)),
        (&["--allow-delete"][..], None),
    ] {
        let dropped = Dropped::new(arguments);
        write(&dropped.place("x"), b"first").expect("it is taken");
        write(&dropped.place("x"), b"first").expect("it is the same");
        assert_eq!(
            errno(write(&dropped.place("x"), b"second")),
            expected,
            "{arguments:?}"
        );
        let holds: &[u8] = if expected.is_some() {
            b"first"
        } else {
            b"second"
        };
        assert_eq!(
            dropped.artifact("x").as_deref(),
            Some(holds),
            "{arguments:?}"
        );
        assert_eq!(
            dropped.error("x").is_some(),
            expected.is_some(),
            "{arguments:?}"
        );
        // The error goes with the next drop of that name, and can be dismissed.
        if expected.is_some() {
            write(&dropped.place("x"), b"first").expect("it is the same");
            assert_eq!(dropped.error("x"), None);
            assert_eq!(errno(write(&dropped.place("x"), b"second")), expected);
            fs::remove_file(dropped.place("x.error")).expect("it can be dismissed");
            assert_eq!(dropped.error("x"), None);
        }
        // Who writes on replaces what this very drop has made.
        let mut file = File::create(dropped.place("y")).expect("it can be begun");
        for text in ["a", "b", "c"] {
            file.write_all(text.as_bytes()).expect("it is taken");
            close(file.try_clone().expect("it is open")).expect("it is committed");
        }
        close(file).expect("nothing is new");
        assert_eq!(dropped.artifact("y").as_deref(), Some(&b"abc"[..]));
        assert_eq!(dropped.refs(), ["x", "y"]);
        dropped.verify();
    }
}

#[test]
fn two_writers_of_one_name() {
    if !has("two_writers_of_one_name", &[Need::Fuse]) {
        return;
    }
    let dropped = Dropped::new(&["--allow-delete"]);
    let mut first = File::create(dropped.place("x")).expect("it can be begun");
    assert_eq!(errno(File::create(dropped.place("x"))), Some(libc::EBUSY));
    first.write_all(b"first").expect("it is taken");
    assert_eq!(errno(File::create(dropped.place("x"))), Some(libc::EBUSY));
    let exclusive = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(dropped.place("x"));
    assert_eq!(errno(exclusive), Some(libc::EEXIST));
    close(first).expect("it is committed");
    // One after the other is never too soon, however late the kernel tells of a close.
    for number in 0..50 {
        let text = format!("number {number}");
        write(&dropped.place("x"), text.as_bytes()).expect(&text);
        assert_eq!(dropped.artifact("x"), Some(text.into_bytes()));
    }
    dropped.verify();
}

#[test]
fn a_removed_drop_is_forgotten() {
    if !has("a_removed_drop_is_forgotten", &[Need::Fuse]) {
        return;
    }
    let dropped = Dropped::new(&[]);
    let mut file = File::create(dropped.place("x")).expect("it can be begun");
    file.write_all(b"bytes").expect("it is taken");
    fs::remove_file(dropped.place("x")).expect("it can be removed");
    close(file).expect("as of any file without a name");
    assert!(dropped.refs().is_empty());
    write(&dropped.place("x"), b"others").expect("the name is free");
    assert_eq!(dropped.artifact("x").as_deref(), Some(&b"others"[..]));
}

#[test]
fn n9_a_full_disk() {
    if !has("n9_a_full_disk", &[Need::Fuse, Need::Root]) {
        return;
    }
    let tmpfs = Tmpfs::mount("size=2m");
    let path = tmpfs.path().join("layout");
    ocifs::store::layout::init(&path).expect("there is room for that");
    let index = fs::read(path.join("index.json")).expect("it was made");
    let mount = TestMount::start(&path);
    let refused = write(&mount.join("incoming/large"), &vec![7; 3 << 20]);
    assert_eq!(errno(refused), Some(libc::ENOSPC));
    until(AT_ALL, "it says why", || {
        mount.join("incoming/large.error").exists()
    });
    assert_eq!(
        fs::read(path.join("index.json")).ok(),
        Some(index),
        "all is as before"
    );
    // The room is there again.
    write(&mount.join("incoming/small"), &vec![7; 1 << 20]).expect("there is room for that");
    // So full that not even the index can be written.
    let filler = tmpfs.path().join("filler");
    let fill = File::create(&filler).expect("it is ours");
    while (&fill).write_all(&[0; 4096]).is_ok() {}
    let refused = write(&mount.join("incoming/tiny"), b"x");
    assert_eq!(errno(refused), Some(libc::ENOSPC));
    assert_eq!(crate::sample::names(mount.path()), ["incoming", "small"]);
    fs::remove_file(filler).expect("it is ours");
    drop(fill);
    write(&mount.join("incoming/tiny"), b"x").expect("there is room again");
    assert_eq!(
        crate::sample::names(mount.path()),
        ["incoming", "small", "tiny"]
    );
    drop(mount);
    verify_layout(&path);
}

#[test]
fn sixteen_at_once() {
    if !has("sixteen_at_once", &[Need::Fuse]) {
        return;
    }
    let dropped = Dropped::new(&[]);
    thread::scope(|scope| {
        for number in 0..16 {
            let dropped = &dropped;
            scope.spawn(move || {
                for round in 0..5 {
                    let name = format!("x-{number}-{round}");
                    write(&dropped.place(&name), name.as_bytes()).expect(&name);
                    assert!(dropped.artifact(&name).is_some(), "{name} is seen at once");
                }
            });
        }
    });
    assert_eq!(dropped.refs().len(), 80);
    dropped.verify();
}

#[test]
fn the_end_of_a_mount() {
    if !has("the_end_of_a_mount", &[Need::Fuse]) {
        return;
    }
    let dropped = Dropped::new(&[]);
    let mut file = File::create(dropped.place("x")).expect("it can be begun");
    file.write_all(b"first").expect("it is taken");
    let pid = i32::try_from(dropped.mount.pid())
        .ok()
        .and_then(Pid::from_raw);
    kill_process(pid.expect("it has a number"), Signal::TERM).expect("the daemon runs");
    until(AT_ALL, "writing is refused", || {
        errno(file.write_all(b"more")) == Some(libc::EROFS)
    });
    assert_eq!(errno(close(file)), Some(libc::EROFS));
    let Dropped { layout, mount } = dropped;
    drop(mount);
    assert!(layout.entries().is_empty(), "nothing was committed");
    verify_layout(layout.path());
}

#[test]
fn the_status_tells_of_drops() {
    if !has("the_status_tells_of_drops", &[Need::Fuse]) {
        return;
    }
    let dropped = Dropped::new(&[]);
    let mut file = File::create(dropped.place("x")).expect("it can be begun");
    file.write_all(b"abc").expect("it is taken");
    write(&dropped.place("y"), b"y").expect("it is taken");
    let wrong = Digest::of(b"right");
    write(&dropped.place(wrong.as_str()), b"wrong").expect_err("it is not right");
    let status = fs::read(dropped.mount.join(".ocifs/status.json")).expect("it can be read");
    let status: Value = serde_json::from_slice(&status).expect("it is JSON");
    let under_way = status["drop_box"]["under_way"]
        .as_array()
        .expect("it is a list");
    assert_eq!(under_way.len(), 1, "{under_way:?}");
    assert_eq!(under_way[0]["path"], "incoming/x");
    assert_eq!(under_way[0]["stage"], "receiving");
    assert_eq!(under_way[0]["size"], 3);
    let refused = status["drop_box"]["refused"]
        .as_array()
        .expect("it is a list");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["code"], "BLOB_DIGEST");
}

#[test]
fn modes_of_what_accepts_something() {
    if !has("modes_of_what_accepts_something", &[Need::Fuse, Need::Root]) {
        return;
    }
    let rows: [(&[&str], u32, u32); 3] = [
        (&[], 0o755, 0o755),
        (&["--allow-other"], 0o755, 0o1777),
        (&["--read-only", "--allow-other"], 0o555, 0o555),
    ];
    for (arguments, level, incoming) in rows {
        let layout = TestLayout::new();
        let image = layout.image(&[]);
        layout.add_refs(["app", "level/app"], &image);
        let mut options = MountOptions::new(layout.path());
        for argument in arguments {
            options = options.arg(argument);
        }
        let mount = options.start();
        let mode = |path: &str| fs::metadata(mount.join(path)).expect(path).mode() & 0o7777;
        for path in ["", "app", "level", "level/app"] {
            assert_eq!(mode(path), level, "{arguments:?}: {path}");
        }
        assert_eq!(mode("incoming"), incoming, "{arguments:?}");
        assert_eq!(mode("app/layers"), 0o555, "{arguments:?}");
        assert_eq!(mode("app/manifest.json"), 0o444, "{arguments:?}");
    }
}
