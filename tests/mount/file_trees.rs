//! How `rootfs/` and `layers/NN/` behave: what they are in the tree, what becomes of open
//! files and directories when something moves, and how large they may be.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::common::{
    Compression, Layer, MountOptions, Need, Random, Tarball, TestLayout, TestMount, has,
};
use crate::patience::until;
use crate::ward::{Ward, can_mount};

/// How soon a change by another tool is seen.
const SEEN: Duration = Duration::from_secs(1);

fn ino(path: &Path) -> u64 {
    let stat = fs::symlink_metadata(path);
    stat.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .ino()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn errno<T>(result: std::io::Result<T>) -> i32 {
    result
        .err()
        .and_then(|error| error.raw_os_error())
        .unwrap_or(0)
}

#[test]
fn an_image_index_has_root_file_systems_too() {
    if !can_mount("an_image_index_has_root_file_systems_too") {
        return;
    }
    let ward = Ward::new();
    let entries: Vec<_> = ["linux/arm64/v8", "linux/amd64"]
        .iter()
        .map(|platform| {
            let layer = ward
                .layout
                .layer(Compression::Zstd, &[("name", platform.as_bytes())]);
            ward.layout.image_for(platform, &[layer])
        })
        .collect();
    ward.layout
        .add_ref("multi", &ward.layout.image_index(&entries));
    let options = MountOptions::new(ward.layout.path()).arg("--platform=linux/arm64");
    let mounted = ward.mount_with(options);
    let rows = [
        ("multi/rootfs/name", "linux/arm64/v8"),
        ("multi/layers/00/name", "linux/arm64/v8"),
        (
            "multi/platforms/linux-arm64-v8/rootfs/name",
            "linux/arm64/v8",
        ),
        ("multi/platforms/linux-amd64/rootfs/name", "linux/amd64"),
    ];
    for (path, expected) in rows {
        mounted.assert_holds(path, path, expected.as_bytes());
    }
    let digest = entries[1]["digest"].as_str().expect("it has one");
    let path = format!(".ocifs/digests/{}/rootfs/name", digest.replace(':', "/"));
    mounted.assert_holds("by digest", &path, b"linux/amd64");
}

#[test]
fn where_a_file_comes_from() {
    if !can_mount("where_a_file_comes_from") {
        return;
    }
    let ward = Ward::new();
    let base = ward
        .layout
        .layer(Compression::Gzip, &[("etc/", b""), ("etc/a", b"a")]);
    let upper = ward.layout.layer(Compression::Zstd, &[("etc/b", b"b")]);
    let digests = [&base, &upper].map(|layer| layer.descriptor["digest"].clone());
    ward.layout
        .add_ref("app", &ward.layout.image(&[base, upper]));
    let mounted = ward.mount();
    for (path, number) in [("etc", 0), ("etc/a", 0), ("etc/b", 1)] {
        let path = format!("app/rootfs/{path}");
        let digest = digests[number].as_str().unwrap_or_default();
        let layer = mounted.xattr(&path, "layer");
        assert_eq!(layer, Some(format!("{number} {digest}")), "{path}");
        let step = mounted.xattr(&path, "created-by");
        assert_eq!(step, Some(format!("step {number}")), "{path}");
        // They are found, not listed: `cp -a` must not carry them away.
        let listed = crate::walk::xattrs(&mounted.mount.join(&path));
        assert!(listed.is_empty(), "{path}: {listed:?}");
    }
    assert_eq!(mounted.xattr("app/layers/00/etc/a", "layer"), None);
}

/// A layer with a directory, in it a file with two names and a link.
fn small(layout: &TestLayout, content: &str) -> Layer {
    let tar = Tarball::new()
        .dir("dir/")
        .file("dir/a", content)
        .link("dir/b", "dir/a")
        .symlink("dir/link", "a")
        .finish();
    layout.layer_of_tar(Compression::Gzip, &tar)
}

#[test]
fn inode_numbers_hang_on_content_and_place() {
    if !can_mount("inode_numbers_hang_on_content_and_place") {
        return;
    }
    let layout = TestLayout::new();
    let image = layout.image(&[small(&layout, "one")]);
    layout.add_refs(["app:1", "app:2"], &image);
    let mount = TestMount::start(layout.path());
    let at = |reference: &str, path: &str| ino(&mount.join(reference).join("rootfs").join(path));
    assert_eq!(at("app:1", "dir/a"), at("app:1", "dir/b"), "hard links");
    let stat = fs::metadata(mount.join("app:1/rootfs/dir/a")).expect("it is there");
    assert_eq!(stat.nlink(), 2);
    assert_eq!(
        at("app:1", "dir/a"),
        at("app:2", "dir/a"),
        "the same manifest"
    );
    assert_ne!(at("app:1", "dir"), at("app:2", "dir"), "directories");
    assert_ne!(at("app:1", ""), at("app:2", ""), "their roots");
    // A listing tells the same numbers and kinds as stat: overlayfs relies on both.
    for dir in ["app:1/rootfs/dir", "app:1/rootfs", "app:1/layers/00/dir"] {
        let dir = File::open(mount.join(dir)).expect("it is a directory");
        let listing = rustix::fs::Dir::read_from(&dir).expect("it can be listed");
        let mut names = BTreeSet::new();
        for entry in listing {
            let entry = entry.expect("an entry");
            let name: &CStr = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            let stat = rustix::fs::statat(&dir, name, flags).expect("it is there");
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            assert_eq!(
                (entry.ino(), entry.file_type()),
                (stat.st_ino, kind),
                "{name:?}"
            );
            names.insert(name.to_owned());
        }
        assert!(!names.is_empty());
    }
    // The numbers are the same after all of it was forgotten and in another mount.
    let before = at("app:1", "dir/a");
    drop(mount);
    let mount = TestMount::start(layout.path());
    assert_eq!(ino(&mount.join("app:2/rootfs/dir/b")), before);
}

#[test]
fn an_open_file_keeps_its_bytes_when_its_ref_moves() {
    if !can_mount("an_open_file_keeps_its_bytes_when_its_ref_moves") {
        return;
    }
    let layout = TestLayout::new();
    let images = ["one", "two"].map(|text| layout.image(&[small(&layout, &text.repeat(9000))]));
    layout.add_ref("app", &images[0]);
    let mount = TestMount::start(layout.path());
    let path = mount.join("app/rootfs/dir/a");
    let mut open = File::open(&path).expect("it is sound");
    let number = ino(&path);
    layout.remove_ref("app");
    layout.add_ref("app", &images[1]);
    until(SEEN, "the ref moves", || {
        fs::read_to_string(&path).is_ok_and(|text| text.starts_with("two"))
    });
    let mut kept = String::new();
    open.read_to_string(&mut kept).expect("it is open");
    assert!(kept == "one".repeat(9000), "an open file changed");
    assert_ne!(ino(&path), number, "another content is another inode");
    layout.remove_ref("app");
    until(SEEN, "the ref goes", || !path.exists());
    let mut start = [0; 3];
    open.read_exact_at(&mut start, 0).expect("it is open");
    assert_eq!(&start, b"one");
}

#[test]
fn a_working_directory_in_a_root_file_system_goes_on() {
    if !can_mount("a_working_directory_in_a_root_file_system_goes_on") {
        return;
    }
    let layout = TestLayout::new();
    let images = ["one", "two"].map(|text| layout.image(&[small(&layout, text)]));
    layout.add_ref("app", &images[0]);
    let mount = TestMount::start(layout.path());
    let path = mount.join("app/rootfs/dir");
    let mut shell = Command::new("bash")
        .args([
            "-c",
            "ls; read; cat a; cd -P ..; ls; cat dir/b; read; cat dir/b",
        ])
        .current_dir(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    layout.remove_ref("app");
    layout.add_ref("app", &images[1]);
    until(SEEN, "the ref moves", || {
        fs::read_to_string(path.join("a")).is_ok_and(|text| text == "two")
    });
    let mut stdin = shell.stdin.take().expect("it is piped");
    writeln!(stdin).expect("the shell lives");
    layout.remove_ref("app");
    until(SEEN, "the ref goes", || !path.exists());
    writeln!(stdin).expect("the shell lives");
    drop(stdin);
    let output = shell.wait_with_output().expect("the shell lives");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: String = said.lines().collect();
    assert_eq!(said, "ablinkonedironeone", "{output:?}");
}

/// A layer of one file of noise.
fn noise(layout: &TestLayout, compression: Compression, seed: u64, len: usize) -> (Layer, Vec<u8>) {
    let mut bytes = vec![0; len];
    Random::of_seed(seed).fill(&mut bytes);
    let tar = Tarball::new().file("noise", &bytes).finish();
    (layout.layer_of_tar(compression, &tar), bytes)
}

#[test]
fn a_blob_that_changes_under_an_open_file() {
    const LEN: usize = 48 << 20;
    const STEP: usize = 1 << 20;
    if !can_mount("a_blob_that_changes_under_an_open_file") {
        return;
    }
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let layout = TestLayout::new();
        let (layer, bytes) = noise(&layout, compression, 3, LEN);
        layout.add_ref("app", &layout.image(std::slice::from_ref(&layer)));
        let mount = MountOptions::new(layout.path()).memory("4MiB").start();
        let path = mount.join("app/rootfs/noise");
        let open = File::open(&path).expect("it is sound");
        let mut part = vec![0; STEP];
        open.read_exact_at(&mut part, 0).expect("it is sound");
        assert!(part == bytes[..STEP], "{compression:?}");
        // Other bytes of the same length, in the same file.
        let blob = layout.blob_path(&layer.descriptor);
        let right = fs::read(&blob).expect("it is ours");
        let mut wrong = right.clone();
        Random::of_seed(4).fill(&mut wrong[4096..]);
        let overwrite = |bytes: &[u8]| {
            let file = File::options().write(true).open(&blob).expect("it is ours");
            file.write_all_at(bytes, 0).expect("it is ours");
        };
        overwrite(&wrong);
        let mut refused = 0;
        for at in (0..LEN).step_by(STEP) {
            match open.read_exact_at(&mut part, at as u64) {
                Ok(()) => assert!(
                    part == bytes[at..at + STEP],
                    "{compression:?}: wrong at {at}"
                ),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EBADMSG), "{compression:?}");
                    refused += 1;
                }
            }
        }
        // A few parts may be in the caches.
        assert!(
            refused > LEN / STEP / 2,
            "{compression:?}: {refused} parts refused"
        );
        assert_eq!(errno(File::open(&path)), libc::EBADMSG, "{compression:?}");
        overwrite(&right);
        let read = fs::read(&path).expect("the right bytes are back");
        assert!(read == bytes, "{compression:?}: wrong bytes after that");
    }
}

#[test]
fn a_blob_that_goes_and_comes_back() {
    if !can_mount("a_blob_that_goes_and_comes_back") {
        return;
    }
    let layout = TestLayout::new();
    let (layer, bytes) = noise(&layout, Compression::Gzip, 5, 3 << 20);
    layout.add_ref("app", &layout.image(std::slice::from_ref(&layer)));
    let blob = layout.blob_path(&layer.descriptor);
    let aside = blob.with_extension("aside");
    fs::rename(&blob, &aside).expect("it is ours");
    let mount = TestMount::start(layout.path());
    let rootfs = mount.join("app/rootfs");
    assert_eq!(errno(fs::read_dir(&rootfs)), libc::ENODATA, "never seen");
    assert_eq!(errno(File::open(rootfs.join("noise"))), libc::ENODATA);
    fs::rename(&aside, &blob).expect("it is ours");
    let path = rootfs.join("noise");
    until(SEEN, "the blob is found", || path.exists());
    assert!(fs::read(&path).expect("it is sound") == bytes, "back");
    let open = File::open(&path).expect("it is sound");
    fs::rename(&blob, &aside).expect("it is ours");
    // What is in the tree is known, and its bytes are not there.
    assert_eq!(
        fs::metadata(&path).expect("it is known").len(),
        bytes.len() as u64
    );
    assert_eq!(errno(File::open(&path)), libc::ENODATA, "gone again");
    let mut start = vec![0; 1 << 20];
    open.read_exact_at(&mut start, 1 << 20)
        .expect("an open file keeps its bytes");
    assert!(start == bytes[1 << 20..2 << 20], "an open file");
    fs::rename(&aside, &blob).expect("it is ours");
    assert!(fs::read(&path).expect("it is sound") == bytes, "back again");
    // The blob's own file does not change by this.
    let dir = blob.parent().expect("it is in a directory");
    let aside = dir.with_extension("aside");
    let found = || File::open(&path).map_or_else(|error| error.raw_os_error(), |_| None);
    fs::rename(dir, &aside).expect("it is ours");
    until(SEEN, "its directory is missed", || {
        found() == Some(libc::ENODATA)
    });
    fs::rename(&aside, dir).expect("it is ours");
    until(SEEN, "its directory is found", || found().is_none());
}

#[test]
fn symbolic_links_are_the_kernels_to_follow() {
    if !can_mount("symbolic_links_are_the_kernels_to_follow") {
        return;
    }
    let ward = Ward::new();
    let mut tar = Tarball::new()
        .file("file", "text")
        .symlink("self", "self")
        .symlink("a", "b")
        .symlink("b", "a")
        .symlink("here", ".")
        .symlink("good", "here/here/file")
        .symlink("hop-0", "file");
    for at in 1..=60 {
        tar = tar.symlink(format!("hop-{at}"), format!("hop-{}", at - 1));
    }
    let layer = ward.layout.layer_of_tar(Compression::Gzip, &tar.finish());
    ward.layout.add_ref("app", &ward.layout.image(&[layer]));
    let mounted = ward.mount();
    let rows = [
        ("self", libc::ELOOP),
        ("a", libc::ELOOP),
        ("b/x", libc::ELOOP),
        ("good", 0),
        ("hop-30", 0),
        ("hop-60", libc::ELOOP),
    ];
    for (name, expected) in rows {
        for tree in ["rootfs", "layers/00"] {
            let found = mounted.errno(&format!("app/{tree}/{name}"));
            assert_eq!(found, expected, "{tree}/{name}");
        }
    }
    mounted.assert_good("links");
}

#[test]
fn a_path_of_two_thousand_directories() {
    const DEPTH: usize = 2_000;
    if !can_mount("a_path_of_two_thousand_directories") {
        return;
    }
    let layout = TestLayout::new();
    let path = "d/".repeat(DEPTH) + "file";
    let tar = Tarball::new().file(path, "deep").finish();
    layout.add_ref(
        "app",
        &layout.image(&[layout.layer_of_tar(Compression::Gzip, &tar)]),
    );
    let mount = TestMount::start(layout.path());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = |parent: &File, path: &str, flags: OFlags| {
        let opened = rustix::fs::openat(parent, path, flags, Mode::empty());
        File::from(opened.unwrap_or_else(|error| panic!("{error}")))
    };
    let mut at = File::open(mount.join("app/rootfs")).expect("it is there");
    for _ in 0..2 {
        at = open(&at, &"d/".repeat(DEPTH / 2), flags | OFlags::DIRECTORY);
    }
    let mut read = String::new();
    open(&at, "file", flags)
        .read_to_string(&mut read)
        .expect("it is sound");
    assert_eq!(read, "deep");
    let up = open(&at, &"../".repeat(DEPTH / 2), flags | OFlags::DIRECTORY);
    assert!(rustix::fs::statat(&up, "d", rustix::fs::AtFlags::empty()).is_ok());
}

/// A layer of empty files, `DIRS` directories with `FILES` each, and one with text.
fn many_files(layout: &TestLayout, dirs: usize, files: usize) -> Layer {
    layout.layer_of_stream(Compression::Zstd, |out| {
        for dir in 0..dirs {
            let mut tar = Tarball::new().dir(format!("{dir:04}/"));
            for file in 0..files {
                tar = tar.file(format!("{dir:04}/{file:06}"), "");
            }
            out.write_all(
                &tar.file(format!("{dir:04}/text"), format!("{dir}"))
                    .finish_part(),
            )?;
        }
        out.write_all(&Tarball::new().finish())
    })
}

#[test]
fn a_million_files_in_a_layer() {
    const DIRS: usize = 1_000;
    if !can_mount("a_million_files_in_a_layer") {
        return;
    }
    let layout = TestLayout::new();
    let layer = many_files(&layout, DIRS, 1_000);
    layout.add_ref("app", &layout.image(&[layer]));
    let mount = TestMount::start(layout.path());
    let names = |path: &str| fs::read_dir(mount.join(path)).map_or(0, Iterator::count);
    assert_eq!(names("app/rootfs"), DIRS);
    let start = Instant::now();
    assert_eq!(names("app/rootfs/0500"), 1_001);
    assert_eq!(text(&mount.join("app/rootfs/0999/text")), "999");
    assert_eq!(text(&mount.join("app/layers/00/0001/text")), "1");
    let known = start.elapsed();
    assert!(known < Duration::from_secs(2), "took {known:?}");
    // The table of contents takes 70 bytes for each, what is merged of it 32 more; the
    // pass builds it beside the names that it has seen.
    let peak = mount.peak_memory() >> 20;
    assert!(peak < 700, "{peak} MiB");
}

#[test]
fn a_directory_of_a_hundred_thousand_names() {
    const MANY: usize = 100_000;
    if !can_mount("a_directory_of_a_hundred_thousand_names") {
        return;
    }
    let layout = TestLayout::new();
    layout.add_ref("app", &layout.image(&[many_files(&layout, 1, MANY)]));
    let mount = TestMount::start(layout.path());
    for tree in ["rootfs", "layers/00"] {
        let dir = mount.join("app").join(tree).join("0000");
        let entries = fs::read_dir(&dir).expect("it is a directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let names: BTreeSet<_> = names.collect();
        assert_eq!(names.len(), MANY + 1, "{tree}");
        assert!(names.contains("099999".as_ref() as &std::ffi::OsStr));
        assert!(dir.join("050000").is_file(), "{tree}");
        assert!(!dir.join("100000").exists(), "{tree}");
    }
}

#[test]
fn what_a_hundred_thousand_files_take_in_memory() {
    const DIRS: usize = 100;
    if !can_mount("what_a_hundred_thousand_files_take_in_memory") {
        return;
    }
    let layout = TestLayout::new();
    layout.add_ref("app", &layout.image(&[many_files(&layout, DIRS, 1_000)]));
    let cache = tempfile::tempdir().expect("a temporary directory can be made");
    let mount = || {
        MountOptions::new(layout.path())
            .cache_dir(cache.path())
            .start()
    };
    assert!(
        mount().join("app/rootfs/0000").is_dir(),
        "its layer is known from now on"
    );
    let mount = mount();
    for dir in 0..DIRS {
        let entries = fs::read_dir(mount.join(format!("app/rootfs/{dir:04}")));
        let sizes = entries.expect("it is a directory").map(|entry| {
            let entry = entry.expect("an entry");
            entry.metadata().expect("it is there").len()
        });
        assert_eq!(sizes.count(), 1_001);
    }
    // The kernel holds all of them. Nothing was read, so there is nothing in the cache.
    let peak = mount.peak_memory() >> 20;
    assert!(peak < 64, "{peak} MiB");
}

#[test]
fn as_many_layers_as_there_may_be() {
    const LAYERS: usize = 4_096;
    if !can_mount("as_many_layers_as_there_may_be") {
        return;
    }
    let layout = TestLayout::new();
    // Each replaces one file and adds another; each hundredth hides all before it.
    let layer = |number: usize| {
        let mut tar = Tarball::new()
            .file("top", format!("{number}"))
            .file(format!("dir/{number:04}"), "x");
        if number % 100 == 99 {
            tar = tar.file("dir/.wh..wh..opq", "");
        }
        layout.layer_of_tar(Compression::Gzip, &tar.finish())
    };
    let layers: Vec<Layer> = (0..LAYERS).map(layer).collect();
    layout.add_ref("app", &layout.image(&layers));
    // With as many open files as a process usually may have.
    let shell = ["bash", "-c", "ulimit -n 1024 && exec \"$@\"", "bash"];
    let mount = MountOptions::new(layout.path()).run_by(&shell).start();
    let start = Instant::now();
    assert_eq!(text(&mount.join("app/rootfs/top")), "4095");
    let took = start.elapsed();
    let names = fs::read_dir(mount.join("app/rootfs/dir")).expect("it is there");
    assert_eq!(names.count(), 97, "from 3999 on");
    assert_eq!(text(&mount.join("app/layers/0001/top")), "1");
    assert_eq!(
        text(&mount.join("app/rootfs/dir/4001")),
        "x",
        "of a layer closed since"
    );
    let files = format!("/proc/{}/fd", mount.pid());
    let files = fs::read_dir(files).expect("it is ours").count();
    assert!(files < 300, "{files} files are open");
    assert!(took < Duration::from_secs(60), "took {took:?}");
}

#[test]
fn more_layers_than_there_may_be() {
    if !can_mount("more_layers_than_there_may_be") {
        return;
    }
    let ward = Ward::new();
    let layer = ward.layout.layer(Compression::Gzip, &[("a", b"a")]);
    let image = ward.layout.image(&vec![layer; 10_000]);
    ward.layout.add_ref("many", &image);
    let mounted = ward.mount();
    assert_eq!(mounted.names("many"), ["manifest.json"]);
    assert_eq!(mounted.errno("many/manifest.json"), libc::EFBIG);
    mounted.assert_good("many");
}

#[test]
fn w11_the_same_layer_twice() {
    if !can_mount("w11_the_same_layer_twice") {
        return;
    }
    let ward = Ward::new();
    let base = ward
        .layout
        .layer(Compression::Gzip, &[("a", b"a"), ("b", b"b")]);
    let upper = ward
        .layout
        .layer(Compression::Gzip, &[(".wh.a", b""), ("b", b"new")]);
    let layers = [&base, &upper, &base].map(Clone::clone);
    ward.layout.add_ref("twice", &ward.layout.image(&layers));
    let mounted = ward.mount();
    assert_eq!(mounted.names("twice/rootfs"), ["a", "b"]);
    mounted.assert_holds("again", "twice/rootfs/b", b"b");
    let layer = mounted.xattr("twice/rootfs/b", "layer").unwrap_or_default();
    assert!(layer.starts_with("2 sha256:"), "{layer}");
    mounted.assert_good("twice");
}

#[test]
fn owners_are_shown_as_asked() {
    if !has("owners_are_shown_as_asked", &[Need::Fuse]) {
        return;
    }
    let layout = TestLayout::new();
    let tar = Tarball::new().owner(33, 44).file("file", "x").finish();
    layout.add_ref(
        "app",
        &layout.image(&[layout.layer_of_tar(Compression::Gzip, &tar)]),
    );
    let rows: [(&[&str], (u32, u32)); 3] = [
        (&[], (33, 44)),
        (&["--uid=1000"], (1000, 44)),
        (&["--uid=1000", "--gid=1001"], (1000, 1001)),
    ];
    for (arguments, expected) in rows {
        let mut options = MountOptions::new(layout.path());
        for argument in arguments {
            options = options.arg(argument);
        }
        let mount = options.start();
        let stat = fs::metadata(mount.join("app/rootfs/file")).expect("it is there");
        assert_eq!((stat.uid(), stat.gid()), expected, "{arguments:?}");
    }
}
