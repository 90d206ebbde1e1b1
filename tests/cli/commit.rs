//! `commit`: sessions of a mount, published without `mv`.

use std::fs;

use serde_json::Value;

use super::common::{MountOptions, Need, TestLayout, has, verify_layout};
use super::{ocifs, stderr, stdout};

#[test]
fn sessions_are_published_under_their_name_or_another() {
    let name = "sessions_are_published_under_their_name_or_another";
    if !has(name, &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let mount = MountOptions::new(layout.path()).start();
    let at = mount.path().to_str().unwrap();
    for session in ["plain", "with%2Fslash", "renamed"] {
        fs::create_dir(mount.join("incoming").join(session)).unwrap();
        fs::write(mount.join("incoming").join(session).join("f"), session).unwrap();
    }
    let rows: [(&[&str], &str); 3] = [
        (&["plain"], "plain"),
        (&["with%2Fslash"], "with/slash"),
        (&["renamed", "team/app:1"], "team/app:1"),
    ];
    for (arguments, name) in rows {
        let output = ocifs(&[&["commit", at], arguments].concat());
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        assert!(
            output.stdout.is_empty() && output.stderr.is_empty(),
            "{name}"
        );
        let found = fs::read_to_string(mount.join(name).join("rootfs/f")).unwrap();
        assert_eq!(found, arguments[0], "{name}");
        assert!(
            !mount.join("incoming").join(arguments[0]).exists(),
            "{name}"
        );
    }
    verify_layout(layout.path());
}

#[test]
fn what_cannot_be_committed() {
    if !has("what_cannot_be_committed", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let mount = MountOptions::new(layout.path()).start();
    let incoming = mount.join("incoming");
    let at = mount.path().to_str().unwrap();
    let elsewhere = layout.path().to_str().unwrap();
    fs::create_dir_all(incoming.join("open/etc")).unwrap();
    let _file = fs::File::create(incoming.join("open/etc/f")).unwrap();
    fs::create_dir(incoming.join("whiteout")).unwrap();
    fs::write(incoming.join("whiteout/.wh.a"), "").unwrap();
    fs::create_dir(incoming.join("taken")).unwrap();
    fs::write(incoming.join("note"), "a drop").unwrap();
    fs::create_dir(incoming.join("half")).unwrap();
    fs::write(
        incoming.join("half/oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    fs::write(
        incoming.join("half/index.json"),
        r#"{"schemaVersion":2,"manif"#,
    )
    .unwrap();

    let rows: [(&str, &[&str], i32, &str); 10] = [
        ("no such session", &[at, "nothing"], 1, "is not a session"),
        ("a drop", &[at, "note"], 1, "is not a session"),
        (
            "part of a session",
            &[at, "open/etc"],
            1,
            "is not a session",
        ),
        ("the shelf of blobs", &[at, "blobs"], 4, "not permitted"),
        ("no mount", &[elsewhere, "open"], 1, "no layout is mounted"),
        ("a name that is none", &[at, "open", "a b"], 2, "a b"),
        (
            "an open file",
            &[at, "open"],
            1,
            "etc/f is open for writing",
        ),
        ("a name that is taken", &[at, "taken", "note"], 1, "exists"),
        ("half an index", &[at, "half"], 3, "json_syntax"),
        (
            "a compression that is none",
            &["--compress", "xz", at, "open"],
            2,
            "possible values: gzip, zstd, none",
        ),
    ];
    let index = || fs::read(layout.path().join("index.json")).unwrap();
    let before = index();
    for (row, arguments, status, expected) in rows {
        let output = ocifs(&[&["commit"], arguments].concat());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{row}: {said}");
        assert!(said.to_lowercase().contains(expected), "{row}: {said}");
        assert_eq!(index(), before, "{row}");
    }
    let output = ocifs(&["commit", at, "whiteout"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(incoming.join("whiteout.error").exists());
    verify_layout(layout.path());
}

#[test]
fn sessions_that_are_not_published_are_named() {
    let name = "sessions_that_are_not_published_are_named";
    if !has(name, &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let mount = MountOptions::new(layout.path()).start();
    let at = mount.path().to_str().unwrap();
    fs::create_dir(mount.join("incoming/job")).unwrap();
    let output = ocifs(&["status", at]);
    assert!(
        stdout(&output).contains("session   incoming/job"),
        "{}",
        stdout(&output)
    );
    let output = ocifs(&["status", "--json", at]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sessions = &found[0]["status"]["drop_box"]["sessions"];
    assert_eq!(sessions[0]["path"], "incoming/job");
    let output = ocifs(&["unmount", at]);
    assert!(output.status.success());
    assert!(
        stderr(&output).contains("incoming/job is not published"),
        "{}",
        stderr(&output)
    );
}
