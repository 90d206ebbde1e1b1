//! The kernel tells of the last close, and of the end of a mount, when the program has long
//! gone on. Who does one thing after the other must not see that.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ocifs::oci::Digest;
use serde_json::Value;

use crate::common::{
    Compression, MountOptions, Need, TestLayout, TestMount, digest_of, has, verify_layout,
};
use crate::patience::until;
use crate::sample::names;

const AT_ALL: Duration = Duration::from_secs(10);

/// How often it is tried what goes wrong now and then.
const ROUNDS: usize = 25;

/// A layout with one image `app`, that image's entry, and a mount.
fn mounted(arguments: &[&str]) -> (TestLayout, Value, TestMount) {
    let layout = TestLayout::new();
    let image = layout.image(&[layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")])]);
    layout.add_ref("app", &image);
    let mut options = MountOptions::new(layout.path());
    for argument in arguments {
        options = options.arg(argument);
    }
    let mount = options.start();
    (layout, image, mount)
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Writes a file and closes it once; another descriptor stays open, as one does for a moment
/// of which the kernel has not told yet.
fn closed_once(path: &Path, bytes: &[u8]) -> File {
    let mut file = File::create(path).expect("it can be begun");
    file.write_all(bytes).expect("it is taken");
    drop(file.try_clone().expect("a second descriptor"));
    file
}

fn bash(directory: &Path, script: &str) {
    let mut command = Command::new("bash");
    command.args(["-ec", script]).current_dir(directory);
    let output = command.output().expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
}

/// The bytes of the artifact that has this ref name; none without that.
fn artifact(mount: &TestMount, name: &str) -> Option<Vec<u8>> {
    let manifest = fs::read(mount.join(name).join("manifest.json")).ok()?;
    let manifest: Value = serde_json::from_slice(&manifest).expect("it is JSON");
    let blobs = mount.join(".ocifs/layout/blobs/sha256");
    fs::read(blobs.join(digest_of(&manifest["layers"][0]).encoded())).ok()
}

#[test]
fn an_empty_file_can_be_written_at_once() {
    if !has("an_empty_file_can_be_written_at_once", &[Need::Fuse]) {
        return;
    }
    let (layout, _, mount) = mounted(&["--allow-delete"]);
    for round in 0..ROUNDS {
        let name = format!("x{round}");
        let script = format!("touch {name}; echo hi > {name}");
        bash(&mount.join("incoming"), &script);
        assert_eq!(
            artifact(&mount, &name).as_deref(),
            Some(&b"hi\n"[..]),
            "{name}"
        );
    }
    verify_layout(layout.path());
}

#[test]
fn an_empty_file_that_is_removed_at_once_is_a_ref() {
    let name = "an_empty_file_that_is_removed_at_once_is_a_ref";
    if !has(name, &[Need::Fuse]) {
        return;
    }
    let (layout, _, mount) = mounted(&[]);
    // Somebody else has it a moment longer.
    let script = "exec 3> x; sleep 0.1 & exec 3>&-; rm x; touch y; rm y";
    bash(&mount.join("incoming"), script);
    for name in ["x", "y"] {
        assert_eq!(artifact(&mount, name).as_deref(), Some(&b""[..]), "{name}");
    }
    verify_layout(layout.path());
}

#[test]
fn after_a_killed_writer_the_next_one_can_begin_at_once() {
    let name = "after_a_killed_writer_the_next_one_can_begin_at_once";
    if !has(name, &[Need::Fuse]) {
        return;
    }
    let (layout, _, mount) = mounted(&[]);
    // Somebody else has it a moment longer than who is killed.
    let script = "exec 3> x; bash -c 'echo torso; kill -KILL $$' >&3 || true; sleep 0.1 &
                  exec 3>&- || true; echo whole > x";
    bash(&mount.join("incoming"), script);
    assert_eq!(artifact(&mount, "x").as_deref(), Some(&b"whole\n"[..]));
    verify_layout(layout.path());
}

#[test]
fn what_is_told_of_a_drop_is_that_of_its_last_close() {
    let name = "what_is_told_of_a_drop_is_that_of_its_last_close";
    if !has(name, &[Need::Fuse]) {
        return;
    }
    let (layout, image, mount) = mounted(&[]);
    let incoming = |name: &str| -> PathBuf { mount.join("incoming").join(name) };
    // What was refused is not under way.
    let wrong = Digest::of(b"right");
    let refused = closed_once(&incoming(wrong.as_str()), b"wrong");
    let held = closed_once(&incoming("y.part"), b"y");
    let status = fs::read(mount.join(".ocifs/status.json")).expect("it can be read");
    let status: Value = serde_json::from_slice(&status).expect("it is JSON");
    let under_way = status["drop_box"]["under_way"].as_array();
    let under_way: Vec<_> = under_way
        .expect("it is a list")
        .iter()
        .map(|drop| (drop["path"].as_str(), drop["stage"].as_str()))
        .collect();
    assert_eq!(under_way, [(Some("incoming/y.part"), Some("held back"))]);
    drop((refused, held));
    // What is a referrer is listed as that alone.
    fs::create_dir(mount.join("app/referrers/text%2Fplain")).expect("types can be made");
    let about = mount.join("app/referrers/text%2Fplain");
    let file = closed_once(&about.join("note"), b"a note");
    let digest = digest_of(&layout.entries()[1]).to_string();
    assert_ne!(digest, digest_of(&image).to_string());
    assert_eq!(names(&about), [digest]);
    drop(file);
    verify_layout(layout.path());
}

/// `truncate(2)`, by the name.
fn truncate(path: &Path, len: i64) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes());
    let path = path.expect("there is no zero in it");
    #[expect(unsafe_code, reason = "the standard library only cuts what is open")]
    // SAFETY: the path is a string that ends in a zero and lives until the call is over.
    let cut = unsafe { libc::truncate(path.as_ptr(), len) };
    match cut {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[test]
fn who_has_not_opened_it_cannot_cut_what_was_closed() {
    let name = "who_has_not_opened_it_cannot_cut_what_was_closed";
    if !has(name, &[Need::Fuse]) {
        return;
    }
    let (layout, _, mount) = mounted(&[]);
    let incoming = |name: &str| mount.join("incoming").join(name);
    // Committed, held back, and never written.
    let files = [
        closed_once(&incoming("x"), b"x and more"),
        closed_once(&incoming("y.part"), b"y and more"),
        File::create(incoming("z")).expect("it can be begun"),
    ];
    for name in ["x", "y.part", "z"] {
        let cut = truncate(&incoming(name), 1);
        assert_eq!(errno(cut), Some(libc::EPERM), "{name}");
    }
    drop(files);
    assert_eq!(artifact(&mount, "x").as_deref(), Some(&b"x and more"[..]));
    let held = fs::read(incoming("y.part"));
    assert_eq!(held.ok().as_deref(), Some(&b"y and more"[..]));
    until(AT_ALL, "the empty one is committed", || {
        artifact(&mount, "z").is_some_and(|bytes| bytes.is_empty())
    });
    // What somebody is writing can be cut.
    let mut file = File::create(incoming("w")).expect("it can be begun");
    file.write_all(b"w and more").expect("it is taken");
    truncate(&incoming("w"), 1).expect("it is under way");
    drop(file);
    assert_eq!(artifact(&mount, "w").as_deref(), Some(&b"w"[..]));
    verify_layout(layout.path());
}

#[test]
fn renaming_at_once_is_renaming_later() {
    if !has("renaming_at_once_is_renaming_later", &[Need::Fuse]) {
        return;
    }
    // With one thread nobody else is there to take what the kernel tells late.
    for threads in ["1", "4"] {
        let (layout, _, mount) = mounted(&["--threads", threads]);
        let incoming = mount.join("incoming");
        // Somebody else has each a moment longer. What was empty is a ref before it is held
        // back; what a killed writer left is not there any more.
        bash(
            &incoming,
            "exec 3> a; sleep 0.1 & exec 3>&-; mv a a.part
             exec 3> b.part; sleep 0.1 & exec 3>&-; mv b.part b
             exec 3> c.part; bash -c 'echo torso; kill -KILL $$' >&3 || true
             sleep 0.1 & exec 3>&- || true; if mv c.part c; then exit 1; fi
             exec 3> d.part; bash -c 'echo torso; kill -KILL $$' >&3 || true
             sleep 0.1 & exec 3>&- || true; if rm d.part; then exit 1; fi
             exec 3> e; sleep 0.1 & exec 3>&-; rm e",
        );
        for (name, expected) in [
            ("a", Some(&b""[..])),
            ("b", Some(&b""[..])),
            ("c", None),
            ("d", None),
            ("e", Some(&b""[..])),
        ] {
            let found = artifact(&mount, name);
            assert_eq!(found.as_deref(), expected, "{threads} threads: {name}");
        }
        fs::create_dir(mount.join("app/referrers/text%2Fplain")).expect("types can be made");
        let about = mount.join("app/referrers/text%2Fplain");
        bash(&about, "exec 3> x; sleep 0.1 & exec 3>&-; rm x");
        assert_eq!(names(&about).len(), 1, "{threads} threads");
        for name in ["c.part.error", "d.part.error"] {
            assert!(incoming.join(name).exists(), "{threads} threads: {name}");
        }
        verify_layout(layout.path());
    }
}

#[test]
fn a_session_is_there_at_once_when_its_layout_is_mounted_again() {
    let name = "a_session_is_there_at_once_when_its_layout_is_mounted_again";
    if !has(name, &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let mount = || MountOptions::new(layout.path()).start();
    let first = mount();
    fs::create_dir(first.join("incoming/job")).expect("directories can be made");
    // Its daemon may not have ended when the next one begins.
    let flags = rustix::mount::UnmountFlags::empty();
    rustix::mount::unmount(first.path(), flags).expect("nobody is in it");
    let second = mount();
    assert_eq!(names(&second.join("incoming")), ["blobs", "job"]);
    drop(first);
    verify_layout(layout.path());
}
