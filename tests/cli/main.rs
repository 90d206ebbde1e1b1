//! The binary as a user calls it: output and exit status, one file per subcommand.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod unmount;

mod archives;
mod cache;
mod commit;
mod demo;
mod export;
mod failing;
mod file_trees;
mod import;
mod index;
mod reading;
mod status;
mod tag;

use std::ffi::OsStr;
use std::process::Output;

use common::{TestLayout, run};

const OCIFS: &str = env!("CARGO_BIN_EXE_ocifs");

/// Runs the binary, with a cache directory of its own in the layout's place.
fn ocifs(arguments: &[&str]) -> Output {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    run(OCIFS, &arguments)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A command ended with this status, and said these words among others.
#[track_caller]
fn assert_told(name: &str, output: &Output, status: i32, words: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{name}: {said}");
    assert!(said.contains(words), "{name}: {said}");
}

#[test]
fn exit_status() {
    let layout = TestLayout::new();
    let layout = layout.path().to_str().expect("a temporary path is text");
    let rows: &[(&str, &[&str], i32)] = &[
        ("help", &["--help"], 0),
        ("version", &["--version"], 0),
        ("no command", &[], 2),
        ("unknown command", &["no-such-command"], 2),
        ("unknown option", &["ls", "--no-such-option", layout], 2),
        (
            "malformed platform",
            &["ls", "--platform", "linux", layout],
            2,
        ),
        ("malformed size", &["ls", "--memory", "12XB", layout], 2),
        ("empty layout", &["ls", layout], 0),
        ("no such layout", &["ls", "/no/such/layout"], 1),
        (
            "no such ref",
            &["cat", layout, "no-such-ref/manifest.json"],
            1,
        ),
        (
            "no such ref to inspect",
            &["inspect", layout, "no-such-ref"],
            1,
        ),
        ("a directory is not printed", &["cat", layout, ".ocifs"], 2),
        ("nothing mounted there", &["unmount", layout], 4),
        ("nothing to index", &["index"], 2),
        ("to list and to drop", &["index", "--list", "--drop"], 2),
        (
            "a platform of no layout",
            &["index", "--list", "--platform", "linux/amd64"],
            2,
        ),
        (
            "shared blobs of no layout",
            &["index", "--drop", "--shared-blobs", "x"],
            2,
        ),
        ("no such layout to index", &["index", "/no/such/layout"], 1),
    ];
    for (name, arguments, status) in rows {
        let output = ocifs(arguments);
        assert_eq!(
            output.status.code(),
            Some(*status),
            "{name}: {}",
            stderr(&output)
        );
        assert!(!stderr(&output).contains("panicked"), "{name}");
    }
}

#[test]
fn a_failed_mount_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("here")).unwrap();
    let (cache, missing, here) = (path("cache"), path("missing"), path("here"));
    let output = ocifs(&["mount", "--cache-dir", &cache, &missing, &here]);
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("missing"),
        "the path is not named: {}",
        stderr(&output)
    );
}
