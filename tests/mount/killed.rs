//! The daemon is killed at random moments while others write: nothing that was
//! acknowledged is lost, and the next start leaves no rubbish.
//!
//! Some dozen times by default; `OCIFS_KILLS=500` kills it that often.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{Need, Random, TestLayout, TestMount, has, verify_layout};

/// How often it is killed where nothing says how often.
const KILLS: u64 = 50;

/// The writers at a time.
const WRITERS: u64 = 4;

/// How long after the start of the writers it is killed at the latest, in milliseconds.
const LATEST: u64 = 150;

/// Drops one small file after another until that fails, and prints the name of each that
/// was taken.
const DROP: &str = r#"number=0
while echo "$prefix-$number" >"$file" && cp "$file" "$mnt/incoming/$prefix-$number"; do
    echo "$prefix-$number"
    number=$((number + 1))
done 2>/dev/null"#;

fn start(mount: &Path, scratch: &Path, prefix: &str) -> Child {
    Command::new("bash")
        .args(["-c", DROP])
        .env("mnt", mount)
        .env("file", scratch.join(prefix))
        .env("prefix", prefix)
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash can be started")
}

fn acknowledged(writers: Vec<Child>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for writer in writers {
        let output = writer.wait_with_output().expect("it was started");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        names.extend(text.lines().map(str::to_owned));
    }
    names
}

fn names(layout: &TestLayout) -> BTreeSet<String> {
    let name = |entry: &Value| {
        let name = &entry["annotations"]["org.opencontainers.image.ref.name"];
        name.as_str().map(str::to_owned)
    };
    layout.entries().iter().filter_map(name).collect()
}

#[test]
fn what_was_acknowledged_outlives_the_daemon() {
    if !has("what_was_acknowledged_outlives_the_daemon", &[Need::Fuse]) {
        return;
    }
    let wanted = std::env::var("OCIFS_KILLS");
    let kills = wanted.map_or(KILLS, |text| text.parse().expect("OCIFS_KILLS is a number"));
    let (layout, scratch) = (
        TestLayout::new(),
        tempfile::tempdir().expect("it can be made"),
    );
    let (mut random, mut all) = (Random::new(), BTreeSet::new());
    for round in 0..kills {
        let mount = TestMount::start(layout.path());
        let writer = |number| start(mount.path(), scratch.path(), &format!("r{round}-{number}"));
        let writers: Vec<Child> = (0..WRITERS).map(writer).collect();
        thread::sleep(Duration::from_millis(random.within(0..LATEST)));
        let pid = i32::try_from(mount.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("it has a number"), Signal::KILL).expect("the daemon runs");
        all.extend(acknowledged(writers));
        drop(mount);
        let present = names(&layout);
        let lost: Vec<&String> = all.difference(&present).collect();
        assert!(lost.is_empty(), "lost in round {round}: {lost:?}");
    }
    assert!(!all.is_empty(), "nothing was ever acknowledged");
    verify_layout(layout.path());
    let mount = TestMount::start(layout.path());
    let left = fs::read_dir(layout.path().join(".ocifs/tmp"));
    let left: Vec<_> = left.into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "rubbish: {left:?}");
    assert!(!layout.path().join("index.json.lock").exists());
    assert!(mount.unmount().success());
}
