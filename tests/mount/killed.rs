//! The daemon is killed at random moments while others write: drops, sessions that are
//! renamed or published by `ocifs commit`, and refs that are made, renamed and removed.
//! Nothing that was acknowledged is lost, what was not can be tried again, and the next
//! start leaves no rubbish. Whoever waits for the daemon is let go, and the next start is at
//! the same place, without anybody's help. And it is killed before each of the calls that
//! take the files of a session.
//!
//! Some dozen times by default; `OCIFS_KILLS=500` kills it that often.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ocifs::oci::Digest;
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::common::{
    MountOptions, Need, Random, TestLayout, TestMount, has, run_ok, verify_layout,
};
use crate::injections::{FILL_LAYOUT, Failing};
use crate::patience::until;
use crate::ward::in_time;

/// How often it is killed where nothing says how often.
const KILLS: u64 = 50;

/// How long after the start of the writers it is killed at the latest, in milliseconds; more
/// where one of them was not acknowledged anything by then.
const LATEST: u64 = 200;

const AT_ALL: Duration = Duration::from_secs(10);

/// How soon after the end of the daemon its callers get an error.
const SOON: Duration = Duration::from_secs(1);

/// What all writers begin with. A line `KEY WISH...` says that one of the wishes must have
/// come true: `+NAME` that there is this ref, `-NAME` that there is not. Of several lines
/// with one key the last counts.
const BEGIN: &str = r#"
exec 2>/dev/null
number=0
name=$prefix-$number
next() { number=$((number + 1)); name=$prefix-$number; }
session() { mkdir "$mnt/incoming/$name" && cd "$mnt/incoming/$name"; }
"#;

/// One writer after the other of these: each does the same again and again until that
/// fails, and prints what was acknowledged.
const WRITERS: &[&[&str]] = &[
    &[
        BEGIN,
        r#"while echo "$name" >"$file" && cp "$file" "$mnt/incoming/$name"; do
            echo "$name +$name"; next
        done"#,
    ],
    &[
        BEGIN,
        r#"while session && echo "$name" >file && cd / && mv -T "$mnt/incoming/$name" "$mnt/$name"; do
            echo "$name +$name"; next
        done"#,
    ],
    &[
        BEGIN,
        FILL_LAYOUT,
        r#"while session && fill && mv -T "$mnt/incoming/$name" "$mnt/$name"; do
            echo "$name +$name"; next
        done"#,
    ],
    &[
        BEGIN,
        FILL_LAYOUT,
        r#"while session && fill && "$ocifs" commit "$mnt" "$name"; do
            echo "$name +$name"; next
        done"#,
    ],
    &[
        BEGIN,
        r#"while ln -s base "$mnt/$name"; do
            echo "$name +$name"
            echo "$name +$name +$name-moved"; mv -T "$mnt/$name" "$mnt/$name-moved" || break
            echo "$name +$name-moved"
            if [ $((number % 2)) = 0 ]; then
                echo "$name +$name-moved -$name-moved"; rmdir "$mnt/$name-moved" || break
                echo "$name -$name-moved"
            fi
            next
        done"#,
    ],
];

/// What must be there, by the keys of the writers.
type Wishes = BTreeMap<String, Vec<String>>;

fn start(script: &[&str], mount: &Path, scratch: &Path, prefix: &str) -> Child {
    Command::new("bash")
        .args(["-c", &script.concat()])
        .env("mnt", mount)
        .env("file", scratch.join(prefix))
        .env("prefix", prefix)
        .env("ocifs", env!("CARGO_BIN_EXE_ocifs"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash can be started")
}

/// What the writers have said.
fn acknowledged(writers: Vec<Child>) -> Wishes {
    let mut wishes = Wishes::new();
    for writer in writers {
        let output = writer.wait_with_output().expect("it was started");
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let mut words = line.split(' ').map(str::to_owned);
            let key = words.next().expect("a line has a word");
            wishes.insert(key, words.collect());
        }
    }
    wishes
}

/// Those of which nothing has come true.
fn lost<'a>(wishes: &'a Wishes, layout: &TestLayout) -> Vec<&'a String> {
    let names = names(layout);
    let is_true = |wish: &String| match wish.split_at(1) {
        ("+", name) => names.contains(name),
        (_, name) => !names.contains(name),
    };
    let lost = wishes
        .iter()
        .filter(|(_, wishes)| !wishes.iter().any(is_true));
    lost.map(|(key, _)| key).collect()
}

fn names(layout: &TestLayout) -> BTreeSet<String> {
    let name = |entry: &Value| {
        let name = &entry["annotations"]["org.opencontainers.image.ref.name"];
        name.as_str().map(str::to_owned)
    };
    layout.entries().iter().filter_map(name).collect()
}

fn options(layout: &TestLayout) -> MountOptions {
    MountOptions::new(layout.path()).arg("--allow-delete")
}

/// A mount of a layout with the ref `base`.
fn mount(layout: &TestLayout) -> TestMount {
    let mount = options(layout).start();
    fs::write(mount.join("incoming/base"), "something to link to").expect("it is taken");
    fs::remove_file(mount.join("incoming/base")).expect("it is a receipt");
    mount
}

/// Publishes what is left in the drop box: each session can be, also where that was done
/// already when the daemon was killed. How many those were.
fn publish_the_rest(mount: &TestMount) -> usize {
    let mut names = crate::sample::names(&mount.join("incoming"));
    names.retain(|name| name != "blobs");
    for name in &names {
        let (from, to) = (mount.join("incoming").join(name), mount.join(name));
        run_ok("mv", &["-T".as_ref(), from.as_os_str(), to.as_os_str()]);
    }
    names.len()
}

/// Whether a directory has nothing in it, or is not there.
fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
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
    let mut mount = mount(&layout);
    let (mut random, mut all, mut left) = (Random::new(), Wishes::new(), 0);
    let count = |all: &Wishes, number: usize| {
        let is_its = |key: &&String| key.contains(&format!("-{number}-"));
        all.keys().filter(is_its).count()
    };
    let mut latest = LATEST;
    for round in 0..kills {
        left += publish_the_rest(&mount);
        let writers = WRITERS.iter().enumerate().map(|(number, script)| {
            let prefix = format!("r{round}-{number}");
            start(script, mount.path(), scratch.path(), &prefix)
        });
        let writers: Vec<Child> = writers.collect();
        thread::sleep(Duration::from_millis(random.within(0..latest)));
        mount.kill();
        all.extend(in_time("the writers", AT_ALL, || acknowledged(writers)));
        let lost = lost(&all, &layout);
        assert!(lost.is_empty(), "lost in round {round}: {lost:?}");
        mount.start_again(options(&layout));
        // A machine that has much to do.
        let is_waiting = (0..WRITERS.len()).any(|number| count(&all, number) == 0);
        if is_waiting && (round + 1) % (kills / 5).max(1) == 0 {
            latest *= 2;
        }
    }
    for number in 0..WRITERS.len() {
        let count = count(&all, number);
        assert!(count > 0, "writer {number} was never acknowledged anything");
    }
    assert!(left > 0, "the daemon was never killed over a session");
    verify_layout(layout.path());
    publish_the_rest(&mount);
    let private = layout.path().join(".ocifs");
    until(AT_ALL, "there is no rubbish", || {
        let rooms = ["tmp", "sessions", "published"].iter();
        rooms
            .map(|room| private.join(room))
            .all(|room| is_empty(&room))
    });
    assert!(!layout.path().join("index.json.lock").exists());
    verify_layout(layout.path());
    assert!(mount.unmount().success());
}

/// Whether a process waits in one of these system calls.
fn is_in(process: &Child, calls: &[libc::c_long]) -> bool {
    let call = fs::read_to_string(format!("/proc/{}/syscall", process.id()));
    let number = call
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok());
    number.is_some_and(|number| calls.contains(&number))
}

#[test]
fn a_daemon_that_is_killed_over_a_rename_lets_everybody_go() {
    if !has(
        "a_daemon_that_is_killed_over_a_rename_lets_everybody_go",
        &[Need::Fuse],
    ) {
        return;
    }
    let layout = TestLayout::new();
    let mut mount = mount(&layout);
    let before = fs::read(layout.path().join("index.json")).expect("it is readable");
    // No commit comes further than this lock.
    let lock = File::open(layout.path()).expect("it is there");
    flock(&lock, FlockOperation::LockExclusive).expect("nobody holds it");
    let mut rename = Command::new("mv");
    rename
        .arg("-T")
        .args([mount.join("base"), mount.join("other")]);
    let mut rename = rename.spawn().expect("mv can be started");
    let calls = [libc::SYS_rename, libc::SYS_renameat, libc::SYS_renameat2];
    // Before that it asks for the names, which takes a moment.
    let mut waits_since = None;
    until(AT_ALL, "the rename is asked for", || {
        waits_since = is_in(&rename, &calls).then(|| waits_since.unwrap_or_else(Instant::now));
        waits_since.is_some_and(|since| since.elapsed() > SOON / 4)
    });
    // The kernel holds the root for it. Now a name there comes to mean something else.
    layout.write_entries(&[]);
    thread::sleep(SOON / 2);
    let ended = rename.try_wait().expect("it is our child");
    assert!(ended.is_none(), "it is answered");
    mount.kill();
    let ended = in_time("mv", SOON, move || rename.wait().expect("it was started"));
    assert!(!ended.success());
    layout.write_index(&before);
    drop(lock);
    mount.start_again(options(&layout));
    assert!(mount.join("base/manifest.json").exists());
    assert!(mount.unmount().success());
}

/// Where the kernel passes writes through, they reach the file also when the daemon has ended.
#[test]
fn who_kept_a_file_open_over_a_restart_writes_to_no_blob() {
    if !has(
        "who_kept_a_file_open_over_a_restart_writes_to_no_blob",
        &[Need::Fuse],
    ) {
        return;
    }
    let layout = TestLayout::new();
    let mut mount = mount(&layout);
    let session = mount.join("incoming/app");
    fs::create_dir(&session).expect("there is none");
    let fill = format!("name=app; {FILL_LAYOUT} fill");
    let filled = Command::new("bash")
        .args(["-ec", &fill])
        .current_dir(&session)
        .status();
    assert!(filled.expect("bash can be started").success());
    let blobs = fs::read_dir(session.join("blobs/sha256")).expect("it is there");
    let blob = blobs.flatten().next().expect("it has blobs").path();
    let byte = fs::read(&blob).expect("it is readable")[0];
    let kept = File::options().write(true).open(&blob);
    let kept = kept.expect("it is ours");
    mount.kill();
    mount.start_again(options(&layout));
    let is_passed_through = kept.write_at(&[byte], 0).is_ok();
    let publish = || {
        let mut mv = Command::new("mv");
        mv.arg("-T").args([&session, &mount.join("app")]);
        mv.env("LC_ALL", "C").output().expect("mv can be started")
    };
    if is_passed_through {
        let said = publish().stderr;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("Device or resource busy"), "{said}");
    }
    drop(kept);
    let output = publish();
    assert!(output.status.success(), "{output:?}");
    verify_layout(layout.path());
    assert!(mount.unmount().success());
}

/// The user whose session it is: another one than the layout's.
const MAKER: &str = "1000";

/// The calls by which a session gets into the layout.
const CALLS: [&str; 4] = ["fchown", "fchmod", "linkat", "unlinkat"];

/// Runs a script as the maker of a session, in the mount.
fn as_maker(mount: &TestMount, name: &str, script: &str) -> Output {
    Command::new("setpriv")
        .args(["--reuid", MAKER, "--regid", MAKER, "--clear-groups"])
        .args(["bash", "-ec", &format!("{FILL_LAYOUT}{script}")])
        .env("in", mount.join("incoming"))
        .env("name", name)
        .env("LC_ALL", "C")
        .current_dir("/")
        .output()
        .expect("setpriv can be started")
}

/// Every blob of the layout is right, and nobody but its owner can write to it.
fn check_blobs(layout: &TestLayout, row: &str) {
    let blobs = fs::read_dir(layout.path().join("blobs/sha256")).expect("it is there");
    for blob in blobs.map(|blob| blob.expect("it can be listed").path()) {
        let bytes = fs::read(&blob).expect("it is readable");
        let digest = Digest::of(&bytes);
        let name = blob.file_name().and_then(|name| name.to_str());
        assert_eq!(name, Some(digest.encoded()), "{row}: it was written to");
        let stat = fs::metadata(&blob).expect("it is there");
        let facts = (stat.uid(), stat.mode() & 0o777, stat.nlink());
        assert_eq!(facts, (0, 0o644, 1), "{row}: {}", blob.display());
    }
}

/// Kills the daemon before it makes a call for the `number`th time to take a session; whether
/// it came to that. What it has not taken is the maker's as before, what it has is lent; and
/// whatever is done in the session then, the layout's blobs stay what they are.
fn kill_before(layout: &TestLayout, call: &str, number: usize) -> bool {
    let row = format!("{call}-{number}");
    let options = || MountOptions::new(layout.path()).arg("--allow-other");
    let mut mount = options().start();
    let around = mount.path().parent().expect("it is in a directory");
    fs::set_permissions(around, Permissions::from_mode(0o755)).expect("it is ours");
    let ok = |mount: &TestMount, script: &str| {
        let output = as_maker(mount, &row, script);
        assert!(output.status.success(), "{row}: {script}: {output:?}");
    };
    let publish = r#"setfattr -n user.oci.commit "$in/$name""#;
    ok(
        &mount,
        r#"umask 077; mkdir "$in/$name"; cd "$in/$name"; fill"#,
    );
    let mut failing = Failing::new(&mount, &format!("{call}:signal=KILL:when={number}"));
    let is_killed = !as_maker(&mount, &row, publish).status.success();
    if is_killed {
        failing.wait_for_end();
    }
    drop(failing);
    if is_killed {
        mount.kill();
        mount.start_again(options());
        let session = layout.path().join(format!(".ocifs/sessions/{row}"));
        assert!(!session.join("handed").exists(), "{row}: it is still noted");
        let files = r#"cd "$in/$name"; echo $(stat -c %u:%g:%a:%h blobs/sha256/* 2>&1 | uniq)"#;
        let said = as_maker(&mount, &row, files).stdout;
        let said = String::from_utf8_lossy(&said);
        let is_as_before = said == "1000:1000:600:1\n" || said.contains("No such file");
        assert!(is_as_before, "{row}: {said}");
        // Somebody goes on with it, also by writing over what is there, as skopeo does.
        ok(
            &mount,
            r#"cd "$in/$name"; manifest=$(sed 's/.*sha256:\([0-9a-f]*\).*/\1/' index.json)
            for file in $manifest $(sed 's/"/\n/g' blobs/sha256/$manifest | sed -n s/^sha256://p | uniq); do
                bytes=$(cat blobs/sha256/$file; echo .); printf x > blobs/sha256/$file
                printf %s "${bytes%.}" > blobs/sha256/$file
            done"#,
        );
        check_blobs(layout, &row);
        ok(&mount, publish);
    }
    assert!(names(layout).contains(&row), "{row}: it is published");
    check_blobs(layout, &row);
    let ended = mount.unmount();
    // Of the calls after the answer, too, one may have been the one to be killed at.
    let is_killed_later = !is_killed && ended.signal() == Some(libc::SIGKILL);
    assert!(ended.success() || is_killed_later, "{row}: {ended}");
    is_killed
}

#[test]
fn a_session_is_killed_over_at_each_call() {
    let name = "a_session_is_killed_over_at_each_call";
    let tools = ["strace", "setpriv", "setfattr"].map(Need::Tool);
    if !has(name, &[Need::Fuse, Need::Root]) || !has(name, &tools) {
        return;
    }
    let layout = TestLayout::new();
    let mut kills = 0;
    for call in CALLS {
        kills += (1..)
            .take_while(|number| kill_before(&layout, call, *number))
            .count();
    }
    assert!(kills > 8, "only {kills} kills");
    verify_layout(layout.path());
}
