//! Ref names changed with coreutils, as other tools then read them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::common::{
    Compression, MountOptions, Need, REF_NAME, TestLayout, TestMount, digest_of, has, run,
    verify_layout,
};

const FULL_NAME: &str = "io.containerd.image.name";

/// A layout with two images, mounted.
struct Sample {
    layout: TestLayout,
    images: [Value; 2],
    mount: TestMount,
}

/// Which leave the mount has.
#[derive(Clone, Copy)]
enum Leave {
    ToAdd,
    ToDelete,
}

impl Sample {
    /// The refs of the layout are given by name, with the number of their image.
    fn new(refs: &[(&str, usize)], leave: Leave) -> Self {
        let layout = TestLayout::new();
        let layers = [layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")])];
        let images =
            ["one", "two"].map(|name| layout.image_with(&layers, &json!({"author": name})));
        for (name, at) in refs {
            layout.add_ref(name, &images[*at]);
        }
        Self::mounted(layout, images, leave)
    }

    fn mounted(layout: TestLayout, images: [Value; 2], leave: Leave) -> Self {
        let options = MountOptions::new(layout.path());
        let mount = match leave {
            Leave::ToAdd => options.start(),
            Leave::ToDelete => options.arg("--allow-delete").start(),
        };
        Self {
            layout,
            images,
            mount,
        }
    }

    /// Runs a shell command in the mount root.
    fn sh(&self, command: &str) -> Output {
        let script = format!("cd '{}' && {command}", self.mount.path().display());
        run("sh", &["-c", &script])
    }

    #[track_caller]
    fn ok(&self, command: &str) {
        let output = self.sh(command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{command}: {said}\n{}",
            self.mount.stderr()
        );
        verify_layout(self.layout.path());
    }

    /// The command fails with this errno, and changes nothing.
    #[track_caller]
    fn refused(&self, command: &str, errno: i32) {
        let index = self.layout.path().join("index.json");
        let before = fs::read(&index).expect("it can be read");
        let output = self.sh(&format!("LC_ALL=C {command}"));
        let said = String::from_utf8_lossy(&output.stderr);
        let expected = io::Error::from_raw_os_error(errno).to_string();
        let expected = expected.split(" (").next().unwrap_or_default();
        assert!(!output.status.success(), "{command} is done");
        assert!(said.contains(expected), "{command}: {said}, not {expected}");
        assert_eq!(
            fs::read(&index).expect("it can be read"),
            before,
            "{command}"
        );
    }

    /// Names in the index, each with the number of its image.
    fn refs(&self) -> BTreeMap<String, usize> {
        let entries = self.layout.entries();
        let pair = |entry: &Value| {
            let name = entry["annotations"][REF_NAME].as_str()?.to_owned();
            let is_it = |image: &Value| image["digest"] == entry["digest"];
            Some((name, self.images.iter().position(is_it)?))
        };
        entries.iter().filter_map(pair).collect()
    }

    #[track_caller]
    fn expect(&self, refs: &[(&str, usize)]) {
        let expected = refs.iter().map(|(name, at)| ((*name).to_owned(), *at));
        assert_eq!(self.refs(), expected.collect());
        for (name, at) in refs {
            assert_eq!(self.shown(name), Some(*at), "{name} in the mount");
        }
    }

    /// The number of the image that is shown at a path.
    fn shown(&self, path: &str) -> Option<usize> {
        let bytes = fs::read(self.mount.join(path).join("manifest.json")).ok()?;
        let digest = ocifs::oci::Digest::of(&bytes);
        self.images
            .iter()
            .position(|image| digest_of(image) == digest)
    }

    fn annotation(&self, name: &str, key: &str) -> Option<String> {
        let entries = self.layout.entries();
        let entry = entries
            .iter()
            .find(|entry| entry["annotations"][REF_NAME] == name)?;
        Some(entry["annotations"][key].as_str()?.to_owned())
    }
}

#[test]
fn links_are_more_names() {
    if !has("links_are_more_names", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new(&[("app:1", 0), ("ghcr.io/org/app:1", 1)], Leave::ToAdd);
    let root = sample.mount.path().display();
    let digest = digest_of(&sample.images[1]);
    let by_digest = format!(".ocifs/digests/sha256/{}", digest.encoded());
    sample.ok("ln -s app:1 app:2 && test -d app:2 && test -f app:2/manifest.json");
    sample.ok("ln -s ../../app:1 ghcr.io/org/app:2");
    sample.ok("cd ghcr.io/org && ln -s app:1 app:3");
    sample.ok(&format!("ln -s '{root}/app:1' absolute"));
    sample.ok(&format!("ln -s {by_digest} digest"));
    sample.ok("ln -s ./ghcr.io/../app:1/ dots");
    sample.ok("ln -s app:1 a%2Fb");
    sample.expect(&[
        ("a/b", 0),
        ("absolute", 0),
        ("app:1", 0),
        ("app:2", 0),
        ("digest", 1),
        ("dots", 0),
        ("ghcr.io/org/app:1", 1),
        ("ghcr.io/org/app:2", 0),
        ("ghcr.io/org/app:3", 1),
    ]);
}

#[test]
fn what_is_refused_changes_nothing() {
    if !has("what_is_refused_changes_nothing", &[Need::Fuse]) {
        return;
    }
    let refs = [("app:1", 0), ("app:2", 1), ("ghcr.io/org", 1)];
    let sample = Sample::new(&refs, Leave::ToAdd);
    let rows = [
        ("ln -s missing new", libc::EINVAL),
        ("ln -s app:1/layers new", libc::EINVAL),
        ("ln -s app:1/manifest.json new", libc::EINVAL),
        ("ln -s app:1/rootfs/etc new", libc::EINVAL),
        ("ln -s ghcr.io new", libc::EINVAL),
        ("ln -s incoming new", libc::EINVAL),
        ("ln -s . new", libc::EINVAL),
        ("ln -s /etc new", libc::EINVAL),
        ("ln -s app:1 'a b'", libc::EINVAL),
        ("ln -s app:1 .hidden", libc::EINVAL),
        ("ln -s app:1 ghcr.io/layers", libc::EINVAL),
        ("ln -s app:1 a%2", libc::EINVAL),
        ("ln -sT app:1 app:2", libc::EEXIST),
        ("ln -s app:1 app:2", libc::EEXIST),
        ("ln -sfn app:1 app:2", libc::EEXIST),
        ("mkdir app:1/new", libc::EEXIST),
        ("mkdir app:1", libc::EEXIST),
        ("mkdir 'a b'", libc::EINVAL),
        ("mv -T app:1 app:2", libc::EPERM),
        ("rmdir app:1", libc::EPERM),
        ("rmdir ghcr.io", libc::ENOTEMPTY),
        ("rmdir incoming", libc::EPERM),
        ("mv ghcr.io new", libc::EPERM),
        ("mv -T app:1 ghcr.io", libc::ENOTEMPTY),
        ("mv app:1/manifest.json new", libc::EROFS),
        ("rmdir app:1/layers", libc::EROFS),
        ("rm app:1/manifest.json", libc::EROFS),
        ("touch app:1/new", libc::EROFS),
        ("touch new", libc::EPERM),
        ("mkfifo new", libc::EPERM),
        ("ln app:1/manifest.json new", libc::EROFS),
        ("chmod 700 app:1", libc::EROFS),
        ("setfattr -n user.oci.digest -v x app:1", libc::EPERM),
        (
            "setfattr -n user.oci.annotation.org.opencontainers.image.ref.name -v x app:1",
            libc::EPERM,
        ),
        (
            "setfattr -n user.oci.annotation.x -v x app:1/layers",
            libc::EROFS,
        ),
    ];
    for (command, errno) in rows {
        sample.refused(command, errno);
    }
    // `mv` has words of its own for what is there already.
    let into = fs::rename(sample.mount.join("app:1"), sample.mount.join("app:2/app:1"));
    assert_eq!(
        into.expect_err("a ref is no directory of refs")
            .raw_os_error(),
        Some(libc::EEXIST)
    );
    assert!(!sample.sh("mv app:1 app:2").status.success());
    let missing = sample.sh("LC_ALL=C setfattr -x user.oci.annotation.none app:1");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("No such attribute"));
    sample.expect(&refs);
    assert!(sample.mount.stderr().contains("mv -T"), "the hint");
}

#[test]
fn refs_are_renamed_replaced_and_removed() {
    if !has("refs_are_renamed_replaced_and_removed", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new(&[("app:1", 0), ("app:2", 1)], Leave::ToDelete);
    let inode = |name: &str| {
        fs::metadata(sample.mount.join(name))
            .expect("it is there")
            .ino()
    };
    let before = inode("app:1");
    sample.ok("mv app:1 app:3");
    sample.expect(&[("app:2", 1), ("app:3", 0)]);
    sample.ok("cd app:3 && test \"$(pwd -P)\" = \"$(pwd)\" && cat manifest.json >/dev/null");
    sample.ok("mv -T app:3 app:2");
    sample.expect(&[("app:2", 0)]);
    sample.ok("mkdir new && mv app:2 new/app && ln -s new/app app:1");
    sample.expect(&[("new/app", 0), ("app:1", 0)]);
    assert_ne!(inode("app:1"), before, "a number that was used");
    sample.ok("rmdir new/app && ! test -e new");
    sample.ok("mkdir -p x/y && rmdir x/y && rmdir x && mkdir z");
    assert_eq!(sample.sh("ls").stdout, b"app:1\nincoming\nz\n");
    sample.ok("mv -T app:1 z");
    sample.expect(&[("z", 0)]);
    sample.ok("ln -s z a && mv -n a z; test -d a && ln -s a b && rmdir a");
    sample.expect(&[("b", 0), ("z", 0)]);
    sample.ok("rmdir b z");
    sample.expect(&[]);
    assert_eq!(sample.layout.entries().len(), 0);
}

#[test]
fn names_are_exchanged_in_one_step() {
    if !has("names_are_exchanged_in_one_step", &[Need::Fuse]) {
        return;
    }
    let exchange = |sample: &Sample| {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let [one, other] = ["app:1", "app:2"].map(|name| sample.mount.join(name));
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
    };
    let refs = [("app:1", 0), ("app:2", 1)];
    let sample = Sample::new(&refs, Leave::ToDelete);
    exchange(&sample).expect("it is done");
    sample.expect(&[("app:1", 1), ("app:2", 0)]);
    let sample = Sample::new(&refs, Leave::ToAdd);
    assert_eq!(exchange(&sample), Err(rustix::io::Errno::PERM));
    sample.expect(&refs);
}

#[test]
fn annotations_are_attributes() {
    if !has("annotations_are_attributes", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new(&[("app", 0)], Leave::ToAdd);
    let get = |key: &str| {
        let output = sample.sh(&format!(
            "getfattr --only-values -n user.oci.annotation.{key} app"
        ));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    sample.ok("setfattr -n user.oci.annotation.k -v 1 app");
    assert_eq!(
        (get("k").as_str(), sample.annotation("app", "k")),
        ("1", Some("1".into()))
    );
    sample.ok("setfattr -n user.oci.annotation.k -v 2 app");
    assert_eq!(
        (get("k").as_str(), sample.annotation("app", "k")),
        ("2", Some("2".into()))
    );
    sample.ok("setfattr -x user.oci.annotation.k app");
    assert_eq!(
        (get("k").as_str(), sample.annotation("app", "k")),
        ("", None)
    );
    sample.expect(&[("app", 0)]);
}

/// Full names as containerd writes them: the ref name is a link that cannot be changed.
#[test]
fn full_names() {
    if !has("full_names", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let images = ["one", "two"].map(|name| layout.image_with(&[], &json!({"author": name})));
    layout.add_containerd_ref("docker.io/library/app:1", "1", &images[0]);
    let sample = Sample::mounted(layout, images, Leave::ToDelete);
    sample.refused("rm 1", libc::EPERM);
    sample.refused("mv 1 2", libc::EPERM);
    sample.ok("mv docker.io/library/app:1 docker.io/library/app:2");
    let names = |sample: &Sample| {
        let entry = sample.layout.entries().pop()?;
        let text = |key: &str| entry["annotations"][key].as_str().map(str::to_owned);
        Some((text(FULL_NAME), text(REF_NAME)))
    };
    let new = || Some("docker.io/library/app:2".to_owned());
    assert_eq!(names(&sample), Some((new(), new())));
    sample.ok("ln -s docker.io/library/app:2 short && rmdir docker.io/library/app:2");
    assert_eq!(names(&sample), Some((None, Some("short".to_owned()))));
    assert_eq!(sample.shown("short"), Some(0));
}

/// Entries for several platforms under one name are one thing to all requests.
#[test]
fn groups_of_platforms() {
    if !has("groups_of_platforms", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let images = ["linux/amd64", "linux/arm64"].map(|platform| layout.image_for(platform, &[]));
    for image in &images {
        layout.add_ref("multi", image);
    }
    let sample = Sample::mounted(layout, images, Leave::ToDelete);
    let names = || {
        let entries = sample.layout.entries();
        let name = |entry: &Value| entry["annotations"][REF_NAME].as_str().map(str::to_owned);
        entries.iter().filter_map(name).collect::<Vec<_>>()
    };
    sample.ok("ln -s multi/platforms/linux-arm64 arm && ln -s multi both");
    assert_eq!(names(), ["multi", "multi", "arm", "both", "both"]);
    assert_eq!(sample.shown("arm"), Some(1));
    sample.ok("ls both/platforms/linux-arm64 both/platforms/linux-amd64");
    sample.ok("setfattr -n user.oci.annotation.k -v v both && mv both all && rmdir multi arm");
    assert_eq!(names(), ["all", "all"]);
    let is_set = |entry: &Value| entry["annotations"]["k"] == "v";
    assert!(sample.layout.entries().iter().all(is_set));
    sample.ok("rmdir all");
    assert!(names().is_empty());
}

#[test]
fn nothing_is_written_to_a_read_only_mount() {
    if !has("nothing_is_written_to_a_read_only_mount", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let images = ["one", "two"].map(|name| layout.image_with(&[], &json!({"author": name})));
    layout.add_ref("app", &images[0]);
    let mount = MountOptions::new(layout.path()).arg("--read-only").start();
    let error = symlink("app", mount.join("new")).expect_err("it is refused");
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    let mode = fs::metadata(mount.path()).expect("it is there").mode();
    assert_eq!(mode & 0o777, 0o555);
    assert!(!layout.path().join(".ocifs").exists());
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// How many refs are made in all.
fn refs_to_make() -> usize {
    let many = std::env::var("OCIFS_TEST_REFS").ok();
    many.and_then(|many| many.parse().ok()).unwrap_or(1_000)
}

/// Sixteen processes at once, by the mount and without it: no ref is lost, and what was
/// removed stays away.
#[test]
fn many_processes_lose_nothing() {
    const PROCESSES: usize = 16;
    if !has("many_processes_lose_nothing", &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new(&[("app", 0)], Leave::ToDelete);
    let layout = sample.layout.path().display();
    let ocifs = env!("CARGO_BIN_EXE_ocifs");
    let count = refs_to_make().div_ceil(PROCESSES);
    thread::scope(|scope| {
        for process in 0..PROCESSES {
            let (tag, untag) = match process % 2 {
                0 => ("ln -s app".to_owned(), "rmdir".to_owned()),
                _ => (
                    format!("{ocifs} tag '{layout}' app"),
                    format!("{ocifs} untag '{layout}'"),
                ),
            };
            let command = format!(
                "for n in $(seq {count}); do {tag} r{process}-$n || exit; \
                 if [ $((n % 10)) = 0 ]; then {untag} r{process}-$n || exit; fi; done"
            );
            let sample = &sample;
            scope.spawn(move || {
                let output = sample.sh(&command);
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{process}: {said}");
            });
        }
    });
    let names = (0..PROCESSES).flat_map(|process| {
        let kept = (1..=count).filter(|number| number % 10 != 0);
        kept.map(move |number| (format!("r{process}-{number}"), 0))
    });
    let expected: BTreeMap<String, usize> = names.chain([("app".to_owned(), 0)]).collect();
    assert_eq!(sample.refs(), expected);
    until("all are seen", || {
        let listed = fs::read_dir(sample.mount.path()).map(Iterator::count);
        listed.is_ok_and(|count| count == expected.len() + 1)
    });
    verify_layout(sample.layout.path());
}

/// `umoci gc` takes away what no index names yet; what comes of that is whole all the same.
#[test]
fn blobs_are_collected_before_they_are_named() {
    let name = "blobs_are_collected_before_they_are_named";
    if !has(name, &[Need::Fuse, Need::Tool("umoci")]) {
        return;
    }
    let sample = Sample::new(&[("app", 0)], Leave::ToAdd);
    let content = "what a drop brings";
    let digest = ocifs::oci::Digest::of(content.as_bytes());
    let layout = sample.layout.path();
    let blob = layout.join("blobs/sha256").join(digest.encoded());
    // No commit comes further than this lock.
    let lock = fs::File::open(layout).expect("it is there");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("nobody holds it");
    thread::scope(|scope| {
        let dropping =
            scope.spawn(|| sample.sh(&format!("printf '{content}' | dd of=incoming/note")));
        until("the blob has its name", || blob.exists());
        let path = layout.to_str().expect("it is text");
        let output = run("umoci", &["gc", "--layout", path]);
        assert!(output.status.success(), "{output:?}");
        assert!(!blob.exists(), "it is collected");
        drop(lock);
        let output = dropping.join().expect("it ends");
        assert!(output.status.success(), "{output:?}");
    });
    assert_eq!(
        fs::read(&blob).expect("it is there again"),
        content.as_bytes()
    );
    assert!(sample.mount.join("note/manifest.json").exists());
    verify_layout(layout);
}

/// skopeo copies images to the layout itself, again and again, while refs are made by the
/// mount: all of them are there at the end. What `umoci rm` removes then stays away.
#[test]
fn other_tools_write_meanwhile() {
    let needs = [Need::Fuse, Need::Tool("skopeo"), Need::Tool("umoci")];
    if !has("other_tools_write_meanwhile", &needs) {
        return;
    }
    const REFS: usize = 100;
    let sample = Sample::new(&[("app", 0)], Leave::ToDelete);
    let from = TestLayout::new();
    let numbers = (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes());
    let large: Vec<u8> = numbers.collect();
    for (name, content) in [("large", &large[..]), ("small", b"small")] {
        let layers = [from.layer(Compression::Gzip, &[(name, content)])];
        from.add_ref(name, &from.image(&layers));
    }
    let (to, from) = (sample.layout.path().display(), from.path().display());
    let (is_done, copies) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let copying = scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                for name in ["large", "small"] {
                    let (from, to) = (format!("oci:{from}:{name}"), format!("oci:{to}:{name}"));
                    let output = run("skopeo", &["--insecure-policy", "copy", &from, &to]);
                    assert!(output.status.success(), "{output:?}");
                    copies.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for number in 0..REFS {
            symlink("app", sample.mount.join(format!("r{number}"))).expect("it is made");
            thread::sleep(Duration::from_millis(20));
            // However slow the machine is, some copies end between the refs.
            let wanted = (number + 1) / 25;
            until("a copy ends", || {
                copies.load(Ordering::Relaxed) >= wanted || copying.is_finished()
            });
        }
        is_done.store(true, Ordering::Relaxed);
        copying.join().expect("all copies succeed");
    });
    let missing = || {
        let refs = sample.refs();
        let names = (0..REFS).map(|number| format!("r{number}"));
        names
            .filter(|name| !refs.contains_key(name))
            .collect::<Vec<_>>()
    };
    let end = Instant::now() + Duration::from_secs(10);
    while !missing().is_empty() {
        let log = sample.mount.stderr();
        assert!(Instant::now() < end, "{:?} are gone\n{log}", missing());
        thread::sleep(Duration::from_millis(5));
    }
    for name in ["r3", "r99"] {
        let image = format!("{to}:{name}");
        let output = run("umoci", &["rm", "--image", &image]);
        assert!(output.status.success(), "{output:?}");
        until("it is gone", || !sample.mount.join(name).exists());
        thread::sleep(Duration::from_millis(200));
        assert!(!sample.refs().contains_key(name), "{name} is back");
    }
    assert_eq!(sample.refs().len(), REFS - 1);
    verify_layout(sample.layout.path());
}
