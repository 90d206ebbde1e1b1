//! Directories of a mount that is only read: the kernel keeps their names without ever
//! opening them, and shows every change of them all the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::{
    Compression, MountOptions, Need, TestLayout, TestMount, digest_of, has, run_ok,
};
use crate::forgetting::caches_are_kept;
use crate::patience::until;

/// For what must come true at all, whatever else the machine has to do.
const AT_ALL: Duration = Duration::from_secs(10);

/// What an image directory holds, in order.
const OF_IMAGE: [&str; 6] = [
    "config.json",
    "export",
    "layers",
    "manifest.json",
    "referrers",
    "rootfs",
];

/// A mount is shown to others too: then the kernel looks at modes on its way to each name,
/// and with them at times.
const WHO: [&[&str]; 2] = [&["--read-only"], &["--read-only", "--allow-other"]];

fn mount(layout: &TestLayout, options: &[&str]) -> TestMount {
    let all = MountOptions::new(layout.path());
    options.iter().fold(all, MountOptions::arg).start()
}

/// The names in a directory, each with the inode number that the listing gives.
fn listed(dir: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let entries = entries.map(|entry| entry.expect("an entry"));
    let pair = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, entry.ino())
    };
    entries.map(pair).collect()
}

fn names(dir: &Path) -> Vec<String> {
    listed(dir).into_keys().collect()
}

/// Waits until a listing has these names, and sees that it stays so, and that its numbers
/// are those of a lookup.
fn assert_becomes(dir: &Path, expected: &[&str], what: &str) {
    until(AT_ALL, what, || names(dir) == expected);
    for _ in 0..3 {
        assert_eq!(names(dir), expected, "{what}, again");
    }
    for (name, number) in listed(dir) {
        let found = fs::symlink_metadata(dir.join(&name)).expect("what is listed is there");
        assert_eq!(found.ino(), number, "{what}: {name}");
    }
}

fn image(layout: &TestLayout, author: &str) -> Value {
    let layer = layout.layer(Compression::Gzip, &[("etc/", b""), ("etc/motd", b"hello")]);
    layout.image_with(&[layer], &json!({"author": author}))
}

#[test]
fn a_second_walk_needs_no_daemon() {
    if !has("a_second_walk_needs_no_daemon", &[Need::Fuse]) {
        return;
    }
    let _caches = caches_are_kept();
    let layout = TestLayout::new();
    let paths: Vec<String> = (0..40)
        .flat_map(|dir| (0..10).map(move |file| format!("d{dir}/e/f{file}")))
        .collect();
    let files: Vec<(&str, &[u8])> = paths.iter().map(|path| (&**path, &b"x"[..])).collect();
    let layer = layout.layer(Compression::Gzip, &files);
    layout.add_ref("app", &layout.image(&[layer]));
    for options in WHO {
        let mount = mount(&layout, options);
        let root = File::open(mount.join("app/rootfs")).expect("it is a directory");
        let first = walk(root.as_fd());
        assert_eq!(first.len(), 480);
        // Who is stopped answers nothing.
        let pid = i32::try_from(mount.pid()).ok().and_then(Pid::from_raw);
        let signal = |signal| kill_process(pid.expect("a process"), signal).expect("it is ours");
        let (sender, walked) = channel();
        signal(Signal::STOP);
        thread::spawn(move || sender.send(walk(root.as_fd())));
        let second = walked.recv_timeout(AT_ALL);
        signal(Signal::CONT);
        assert_eq!(second.as_ref(), Ok(&first), "{options:?}");
    }
}

/// Type, size, time and number of all that is below a directory, by path.
fn walk(root: BorrowedFd<'_>) -> BTreeMap<String, (u32, i64, i64, u64)> {
    let mut seen = BTreeMap::new();
    let mut rest = vec![String::from(".")];
    while let Some(path) = rest.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = openat(root, &path, flags, Mode::empty()).expect("a directory opens");
        for entry in Dir::new(opened).expect("it is a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_str().expect("a name in ASCII");
            if [".", ".."].contains(&name) {
                continue;
            }
            let below = format!("{path}/{name}");
            let stat = statat(root, &below, AtFlags::SYMLINK_NOFOLLOW).expect("it is there");
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                rest.push(below.clone());
            }
            seen.insert(
                below,
                (stat.st_mode, stat.st_size, stat.st_mtime, stat.st_ino),
            );
        }
    }
    seen
}

#[test]
fn names_of_refs_are_those_of_the_index() {
    if !has("names_of_refs_are_those_of_the_index", &[Need::Fuse]) {
        return;
    }
    for options in WHO {
        let layout = TestLayout::new();
        let (one, two) = (image(&layout, "one"), image(&layout, "two"));
        layout.add_ref("org/a", &one);
        let mount = mount(&layout, options);
        let (root, org) = (mount.path(), mount.join("org"));
        assert_becomes(root, &["incoming", "org"], "the root at first");
        assert_becomes(&org, &["a"], "a level at first");
        layout.add_ref("org/b", &one);
        assert_becomes(&org, &["a", "b"], "a ref more in a level");
        assert_becomes(root, &["incoming", "org"], "the root above it");
        layout.add_ref("c", &one);
        assert_becomes(root, &["c", "incoming", "org"], "a ref more in the root");
        // The names stay, and one of them is another image.
        let before = listed(root);
        layout.remove_ref("c");
        layout.add_ref("c", &two);
        until(AT_ALL, "c is another image", || {
            fs::read(root.join("c/config.json")).is_ok_and(|config| {
                let config: Value = serde_json::from_slice(&config).expect("a config");
                config["author"] == "two"
            })
        });
        assert_becomes(root, &["c", "incoming", "org"], "a ref moved");
        assert_ne!(listed(root), before, "another image is another directory");
        layout.add_ref("org/a/below", &two);
        let below = [&["below"], &OF_IMAGE[..]].concat();
        assert_becomes(&org.join("a"), &below, "a level below an image");
        layout.remove_ref("org/a/below");
        assert_becomes(&org.join("a"), &OF_IMAGE, "and none again");
        layout.remove_ref("org/b");
        assert_becomes(&org, &["a"], "a ref less in a level");
        layout.remove_ref("org/a");
        assert_becomes(root, &["c", "incoming"], "a level less");
    }
}

#[test]
fn names_that_hang_on_blobs_are_there_when_those_are() {
    const NAME: &str = "names_that_hang_on_blobs_are_there_when_those_are";
    if !has(NAME, &[Need::Fuse]) {
        return;
    }
    for options in WHO {
        let layout = TestLayout::new();
        let app = image(&layout, "app");
        let fitting = layout.image_for("linux/amd64", &[]);
        let index = layout.image_index(std::slice::from_ref(&fitting));
        let hidden = |descriptor: &Value| {
            let path = layout.blob_path(descriptor);
            let aside = layout
                .path()
                .join(format!("aside-{}", digest_of(descriptor).encoded()));
            (aside, path)
        };
        for descriptor in [&app, &fitting] {
            let (aside, path) = hidden(descriptor);
            fs::rename(path, aside).expect("it is ours");
        }
        layout.add_ref("app", &app);
        layout.add_ref("index", &index);
        let all: Vec<&str> = options
            .iter()
            .copied()
            .chain(["--platform", "linux/amd64"])
            .collect();
        let mount = mount(&layout, &all);
        let (by_ref, by_index) = (mount.join("app"), mount.join("index"));
        let blobs = mount.join(".ocifs/layout/blobs/sha256");
        assert_becomes(&by_ref, &["manifest.json"], "without a manifest");
        assert_becomes(&by_index, &["index.json", "platforms"], "without what fits");
        let held = names(&blobs);
        for descriptor in [&app, &fitting] {
            let (aside, path) = hidden(descriptor);
            fs::rename(aside, path).expect("it is ours");
        }
        assert_becomes(&by_ref, &OF_IMAGE, "with its manifest");
        let mut of_index = OF_IMAGE.to_vec();
        of_index.extend(["index.json", "platforms"]);
        of_index.sort_unstable();
        assert_becomes(&by_index, &of_index, "with what fits");
        assert_becomes(
            &by_ref.join("layers"),
            &["00", "00.tar", "00.tar.gz"],
            "layers",
        );
        assert_eq!(names(&blobs).len(), held.len() + 2);
        layout.blob("text/plain", b"one more");
        until(AT_ALL, "a blob more", || {
            names(&blobs).len() == held.len() + 3
        });

        assert_becomes(&by_ref.join("referrers"), &[], "nothing about it");
        let sbom = layout.artifact("text/x-sbom", "sbom", b"[]", Some(&app));
        layout.add_ref("sbom", &sbom);
        assert_becomes(
            &by_ref.join("referrers"),
            &["text%2Fx-sbom"],
            "something about it",
        );
        let of_type = by_ref.join("referrers/text%2Fx-sbom");
        assert_becomes(&of_type, &[&digest_of(&sbom).to_string()], "which it is");
        layout.remove_ref("sbom");
        assert_becomes(&by_ref.join("referrers"), &[], "nothing again");
    }
}

/// Programs that list at once, while the names change, see one state of them each.
#[test]
fn no_listing_mixes_two_states_of_the_names() {
    if !has("no_listing_mixes_two_states_of_the_names", &[Need::Fuse]) {
        return;
    }
    // More than goes into three answers.
    let state = |which: &str| -> Vec<String> {
        let name = |at: u32| match at % 3 {
            0 => format!("{at:03}-{which}-and-a-name-that-fills-answers-sooner"),
            _ => format!("{at:03}-always-and-a-name-that-fills-answers-sooner"),
        };
        let mut names: Vec<String> = (0..600).map(name).chain(["incoming".into()]).collect();
        names.sort();
        names
    };
    let states = ["one", "two", "last"].map(state);
    for options in [&[][..], WHO[0]] {
        let layout = TestLayout::new();
        let image = image(&layout, "one");
        let indexes = states.clone().map(|names| {
            let entry = |name: &String| {
                let mut entry = image.clone();
                entry["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
                entry
            };
            let refs = names.iter().filter(|name| *name != "incoming");
            let manifests: Vec<Value> = refs.map(entry).collect();
            json!({"schemaVersion": 2, "manifests": manifests})
                .to_string()
                .into_bytes()
        });
        layout.write_index(&indexes[0]);
        let mount = mount(&layout, options);
        let ended = AtomicBool::new(false);
        let seen = [0; 3].map(AtomicU32::new);
        let is_seen = |which: &AtomicU32| which.load(Ordering::Relaxed) > 0;
        thread::scope(|scope| {
            let read = || {
                while !ended.load(Ordering::Relaxed) {
                    let names = names(mount.path());
                    let which = states.iter().position(|state| *state == names);
                    let which = which.unwrap_or_else(|| panic!("{options:?}: {names:?}"));
                    seen[which].fetch_add(1, Ordering::Relaxed);
                }
            };
            let readers = [scope.spawn(read), scope.spawn(read)];
            // Not in step with those who look for changes.
            let pauses = [20, 20, 35, 55].into_iter().cycle();
            let begun = Instant::now();
            for (round, pause) in pauses.enumerate() {
                layout.write_index(&indexes[round % 2]);
                thread::sleep(Duration::from_millis(pause));
                let is_enough = round >= 40 && seen[..2].iter().all(is_seen);
                if is_enough || begun.elapsed() > AT_ALL {
                    break;
                }
            }
            ended.store(true, Ordering::Relaxed);
            for reader in readers {
                reader.join().expect("a reader sees one state");
            }
        });
        for (which, seen) in seen[..2].iter().enumerate() {
            assert!(is_seen(seen), "{options:?}: state {which} was never seen");
        }
        // One that was never there before: the others are seen late on a busy machine.
        layout.write_index(&indexes[2]);
        let expected: Vec<&str> = states[2].iter().map(String::as_str).collect();
        assert_becomes(mount.path(), &expected, "the last one");
    }
}

/// What is wrong with a tree is said by listing it, where opening it says nothing.
#[test]
fn a_tree_that_cannot_be_read_says_so() {
    if !has("a_tree_that_cannot_be_read_says_so", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::Gzip, &[("a", b"a")]);
    let path = layout.blob_path(&layer.descriptor);
    layout.add_ref("app", &layout.image(&[layer]));
    let aside = layout.path().join("aside");
    fs::rename(&path, &aside).expect("it is ours");
    let mount = mount(&layout, WHO[0]);
    let root = mount.join("app/rootfs");
    let list = || fs::read_dir(&root).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let errno = list().expect_err("its layer is missing").raw_os_error();
    assert_eq!(errno, Some(libc::ENODATA));
    fs::rename(&aside, &path).expect("it is ours");
    assert_eq!(names(&root), ["a"]);
    run_ok(
        "ls",
        &["-lR", root.to_str().expect("a temporary path is text")],
    );
}
