//! Each call to the system that a writing command makes fails once: the command says so or
//! has done its work, the layout is as before or as after, and a second try works.
//!
//! One errno for each call by default, and not at every place; `OCIFS_INJECTIONS=all` takes
//! all of both.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use super::common::{Compression, Need, TestLayout, has, run_ok, verify_layout};
use super::{OCIFS, stderr};

/// The calls, and what each of them fails with: the name of the errno and its text.
const CALLS: &[(&str, &[(&str, &str)])] = &[
    ("fsync", &[EIO, ENOSPC, EDQUOT]),
    ("write", &[ENOSPC, EDQUOT, EIO]),
    ("pwrite64", &[ENOSPC, EDQUOT, EIO]),
    ("renameat2", &[EDQUOT, ENOSPC, EIO]),
    ("linkat", &[ENOSPC, EDQUOT, EIO]),
    ("mkdirat", &[ENOSPC, EDQUOT, EIO]),
    ("unlinkat", &[EIO]),
    ("flock", &[EIO]),
    ("pread64", &[EIO]),
    ("statx", &[EIO]),
    ("openat2", &[EMFILE, ENOSPC, EDQUOT, EIO]),
    ("openat", &[EMFILE, ENOSPC, EDQUOT, EIO]),
];

const EIO: (&str, &str) = ("EIO", "Input/output error");
const ENOSPC: (&str, &str) = ("ENOSPC", "No space left on device");
const EDQUOT: (&str, &str) = ("EDQUOT", "Disk quota exceeded");
const EMFILE: (&str, &str) = ("EMFILE", "Too many open files");

/// A command that changes a layout.
struct Action {
    name: &'static str,
    arguments: &'static [&'static str],
    /// The names of the refs afterwards.
    after: &'static [&'static str],
    /// Whether it is refused the second time.
    is_once: bool,
}

/// `LAYOUT` and `FILE` stand for these.
const ACTIONS: &[Action] = &[
    Action {
        name: "import",
        arguments: &["import", "LAYOUT", "FILE"],
        after: &["app", "new", "new2"],
        is_once: false,
    },
    Action {
        name: "tag",
        arguments: &["tag", "LAYOUT", "app", "more"],
        after: &["app", "more"],
        is_once: false,
    },
    Action {
        name: "untag",
        arguments: &["untag", "LAYOUT", "app"],
        after: &[],
        is_once: true,
    },
];

/// A layout to be copied, and an archive with two images to bring in.
struct Bench {
    layout: TestLayout,
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let (layout, other) = (TestLayout::new(), TestLayout::new());
        let image = |layout: &TestLayout, text: &[u8]| {
            let layer = layout.layer(Compression::Gzip, &[("etc/motd", text)]);
            layout.image(&[layer])
        };
        layout.add_ref("app", &image(&layout, b"hello"));
        other.add_ref("new", &image(&other, b"new"));
        other.add_ref("new2", &image(&other, b"newer"));
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive.tar");
        let words = ["-C".as_ref(), other.path().as_os_str(), "-cf".as_ref()];
        run_ok(
            "tar",
            &[&words[..], &[archive.as_os_str(), ".".as_ref()]].concat(),
        );
        Self { layout, dir }
    }

    /// A copy of the layout.
    fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        let from = self.layout.path().join(".");
        run_ok(
            "cp",
            &["-a".as_ref(), from.as_os_str(), copy.path().as_os_str()],
        );
        copy
    }

    fn command(&self, action: &Action, layout: &Path, before: &[String]) -> Output {
        let archive = self.dir.path().join("archive.tar");
        let mut words = before.to_vec();
        words.push(OCIFS.to_owned());
        words.extend(action.arguments.iter().map(|word| match *word {
            "LAYOUT" => layout.display().to_string(),
            "FILE" => archive.display().to_string(),
            word => word.to_owned(),
        }));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("LC_ALL", "C");
        command.output().unwrap()
    }
}

fn names(index: &[u8]) -> Vec<String> {
    let index: Value = serde_json::from_slice(index).unwrap();
    let entries = index["manifests"].as_array().unwrap().iter();
    let name = |entry: &Value| {
        let name = &entry["annotations"]["org.opencontainers.image.ref.name"];
        name.as_str().unwrap().to_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// Lets a call fail at its `number`th place; whether there was one.
fn fail(
    bench: &Bench,
    action: &Action,
    call: &str,
    number: usize,
    (errno, text): (&str, &str),
) -> bool {
    let row = format!("{}, {call} {number}, {errno}", action.name);
    let copy = bench.copy();
    let (layout, log) = (
        copy.path(),
        bench.dir.path().join(row.replace([' ', ','], "-")),
    );
    let before = fs::read(layout.join("index.json")).unwrap();
    let rule = format!("inject={call}:error={errno}:when={number}");
    let traced = [
        "strace",
        "-f",
        "-qq",
        "-o",
        log.to_str().unwrap(),
        "-e",
        &rule,
    ];
    let output = bench.command(action, layout, &traced.map(str::to_owned));
    let was_there = fs::read_to_string(&log).unwrap().contains("(INJECTED)");
    fs::remove_file(&log).unwrap();
    let index = fs::read(layout.join("index.json")).unwrap();
    let is_done = names(&index) == action.after;
    match output.status.code() {
        Some(0) => assert!(is_done, "{row}: it is not done"),
        // Its libraries could not be read.
        Some(127) => assert!(index == before, "{row}: {output:?}"),
        Some(4) => {
            assert!(stderr(&output).contains(text), "{row}: {output:?}");
            // All was done but to say so.
            assert!(
                index == before || is_done && call == "write",
                "{row}: {output:?}"
            );
        }
        _ => panic!("{row}: {output:?}, {:?}", output.status.signal()),
    }
    let again = bench.command(action, layout, &[]);
    let is_refused = action.is_once && is_done;
    assert_eq!(
        again.status.success(),
        !is_refused,
        "{row}, once more: {again:?}"
    );
    let index = fs::read(layout.join("index.json")).unwrap();
    assert_eq!(names(&index), action.after, "{row}, once more");
    verify_layout(layout);
    let left = fs::read_dir(layout.join(".ocifs/tmp")).map_or(0, Iterator::count);
    assert!(left == 0 || call == "unlinkat", "{row}: rubbish is left");
    was_there
}

#[test]
fn every_call_fails_once() {
    if !has("every_call_fails_once", &[Need::Tool("strace")]) {
        return;
    }
    let is_full = std::env::var_os("OCIFS_INJECTIONS").is_some_and(|wanted| wanted == "all");
    let bench = Bench::new();
    std::thread::scope(|scope| {
        for action in ACTIONS {
            let bench = &bench;
            scope.spawn(move || {
                for (call, failures) in CALLS {
                    let (failures, step) = match (is_full, *call) {
                        (true, _) => (*failures, 1),
                        (false, "openat" | "openat2" | "statx" | "pread64") => (&failures[..1], 5),
                        (false, _) => (&failures[..1], 1),
                    };
                    for failure in failures {
                        let mut numbers = (1..).step_by(step);
                        while fail(bench, action, call, numbers.next().unwrap(), *failure) {}
                    }
                }
            });
        }
    });
}
