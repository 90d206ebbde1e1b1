//! Mounts whose cache directory fails them: reads stay right.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use ocifs::oci::Digest;
use ocifs::store::verify::file_name;
use rustix::fs::{Advice, fadvise};
use serde_json::Value;

use crate::common::{
    Compression, Damage, Layer, MountOptions, Need, Random, TestLayout, TestMount, Tmpfs,
    digest_of, has, run, run_ok, tar_of,
};
use crate::patience::until;
use crate::ward::in_time;

const OCIFS: &str = env!("CARGO_BIN_EXE_ocifs");

/// How long a whole layer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A layout with layers of which nobody knows anything yet.
struct Cold {
    layout: TestLayout,
    layers: Vec<Layer>,
    dir: tempfile::TempDir,
}

impl Cold {
    fn new(count: u64) -> Self {
        let layout = TestLayout::new();
        let kinds = [Compression::Gzip, Compression::Zstd];
        let layer = |number: u64| {
            let mut noise = vec![0; 2 << 20];
            Random::of_seed(100 + number).fill(&mut noise);
            let kind = kinds[usize::from(number % 2 == 1)];
            layout.layer_of_tar(kind, &tar_of(&[("noise", &noise)]))
        };
        let layers: Vec<Layer> = (0..count).map(layer).collect();
        layout.add_ref("app", &layout.image(&layers));
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        Self {
            layout,
            layers,
            dir,
        }
    }

    fn start(&self, cache: &Path, more: &[&str]) -> TestMount {
        let options = MountOptions::new(self.layout.path()).cache_dir(cache);
        let options = more.iter().fold(options, |options, word| options.arg(word));
        options.memory("1MiB").start()
    }

    fn assert_right(&self, what: &str, mount: &TestMount, number: usize) {
        let path = mount.join(format!("app/layers/{number:02}.tar"));
        let tar = in_time(what, PATIENCE, move || fs::read(path));
        let tar = tar.unwrap_or_else(|error| panic!("{what}: {error}\n{}", mount.stderr()));
        assert_eq!(Digest::of(&tar), self.layers[number].diff_id, "{what}");
    }
}

#[test]
fn caches_in_which_nothing_can_be_kept() {
    if !has(
        "caches_in_which_nothing_can_be_kept",
        &[Need::Fuse, Need::Root],
    ) {
        return;
    }
    let cold = Cold::new(2);
    let full = Tmpfs::mount("size=16k");
    let frozen = Tmpfs::mount("size=1m");
    let cache = frozen.path().join("cache");
    for shelf in ["toc", "verdicts"] {
        fs::create_dir_all(cache.join(shelf)).expect("it is ours");
        let mode = Permissions::from_mode(0o700);
        fs::set_permissions(cache.join(shelf), mode).expect("it is ours");
    }
    fs::set_permissions(&cache, Permissions::from_mode(0o700)).expect("it is ours");
    fs::write(full.path().join("rest"), vec![1; 8 << 10]).expect("there is room");
    frozen.remount("ro");
    for (what, cache) in [("full", full.path().join("cache")), ("read-only", cache)] {
        // The second mount has nothing to begin with either.
        for _ in 0..2 {
            let mount = cold.start(&cache, &[]);
            for number in 0..cold.layers.len() {
                cold.assert_right(what, &mount, number);
            }
            let said = mount.stderr();
            let count = said.matches("is not kept").count();
            assert!(count <= 1, "{what}: said once: {said}");
            assert!(mount.unmount().success(), "{what}");
        }
        for shelf in ["toc", "verdicts"] {
            for entry in fs::read_dir(cache.join(shelf)).into_iter().flatten() {
                let name = entry.expect("an entry").file_name();
                assert!(
                    !name.to_string_lossy().starts_with('.'),
                    "{what}: {name:?} is left"
                );
            }
        }
    }
}

#[test]
fn files_of_the_daemon_may_not_grow() {
    if !has(
        "files_of_the_daemon_may_not_grow",
        &[Need::Fuse, Need::Tool("prlimit")],
    ) {
        return;
    }
    let cold = Cold::new(2);
    let cache = cold.dir.path().join("cache");
    let options = MountOptions::new(cold.layout.path()).cache_dir(&cache);
    let mount = options.run_by(&["prlimit", "--fsize=100"]).start();
    for number in 0..cold.layers.len() {
        cold.assert_right("fsize", &mount, number);
    }
    let kept = fs::read_dir(cache.join("toc"))
        .expect("it is there")
        .count();
    assert_eq!(kept, 0, "half a file is left");
    assert!(mount.unmount().success());
}

/// Does something to a cache directory that is in use.
type Spoil = fn(&Path);

#[test]
fn caches_that_change_while_they_are_used() {
    if !has("caches_that_change_while_they_are_used", &[Need::Fuse]) {
        return;
    }
    let rows: [(&str, Spoil, bool); 7] = [
        (
            "deleted",
            |cache| fs::remove_dir_all(cache).expect("ours"),
            true,
        ),
        (
            "a shelf deleted",
            |cache| {
                fs::remove_dir_all(cache.join("toc")).expect("ours");
            },
            true,
        ),
        (
            "replaced by a link",
            |cache| {
                let moved = cache.with_extension("moved");
                fs::rename(cache, &moved).expect("ours");
                symlink(moved, cache).expect("ours");
            },
            false,
        ),
        (
            "a shelf replaced by a link",
            |cache| {
                let (shelf, moved) = (cache.join("toc"), cache.join("moved"));
                fs::rename(&shelf, &moved).expect("ours");
                symlink(moved, shelf).expect("ours");
            },
            false,
        ),
        (
            "opened to all",
            |cache| {
                fs::set_permissions(cache, Permissions::from_mode(0o777)).expect("ours");
            },
            false,
        ),
        (
            "a shelf opened to all",
            |cache| {
                fs::set_permissions(cache.join("toc"), Permissions::from_mode(0o777))
                    .expect("ours");
            },
            false,
        ),
        (
            "replaced by a file",
            |cache| {
                fs::remove_dir_all(cache).expect("ours");
                fs::write(cache, "x").expect("ours");
            },
            false,
        ),
    ];
    for (what, spoil, goes_on) in rows {
        assert_spoilt(what, spoil, goes_on);
    }
    if has("caches_that_change_while_they_are_used", &[Need::Root]) {
        let give_away: Spoil = |cache| chown(cache, Some(1000), Some(1000)).expect("root may");
        assert_spoilt("given away", give_away, false);
    }
}

fn assert_spoilt(what: &str, spoil: Spoil, goes_on: bool) {
    let cold = Cold::new(3);
    let cache = cold.dir.path().join("cache");
    let mount = cold.start(&cache, &[]);
    cold.assert_right(what, &mount, 0);
    let kept = || fs::read_dir(cache.join("toc")).map_or(0, Iterator::count);
    assert_eq!(kept(), 1, "{what}: before");
    spoil(&cache);
    let before = kept();
    for number in 0..cold.layers.len() {
        cold.assert_right(what, &mount, number);
    }
    assert_eq!(kept() > before, goes_on, "{what}: more is kept");
    assert!(mount.unmount().success(), "{what}");
}

#[test]
fn a_toc_that_is_evicted_while_it_is_used() {
    if !has("a_toc_that_is_evicted_while_it_is_used", &[Need::Fuse]) {
        return;
    }
    let cold = Cold::new(8);
    let cache = cold.dir.path().join("cache");
    let index = |more: &[&str]| {
        let layout = cold.layout.path().to_str().expect("it is text");
        let cache = cache.to_str().expect("it is text");
        run_ok(
            OCIFS,
            &[&["index", "--cache-dir", cache], more, &[layout]].concat(),
        )
    };
    index(&[]);
    // No more than one of them may stay, and so each new one pushes the others out.
    let mount = cold.start(&cache, &["--cache-size", "1000"]);
    let open = |number: usize| {
        let path = mount.join(format!("app/layers/{number:02}.tar"));
        File::open(path).expect("it is sound")
    };
    let files: Vec<File> = (0..8).map(open).collect();
    index(&["--drop"]);
    for (number, file) in files.iter().enumerate() {
        fadvise(file, 0, None, Advice::DontNeed).expect("a cache can be dropped");
        let size = usize::try_from(cold.layers[number].tar_size).expect("it is in memory");
        let mut tar = vec![0; size];
        file.read_exact_at(&mut tar, 0).expect("it is sound");
        assert_eq!(Digest::of(&tar), cold.layers[number].diff_id, "{number}");
    }
    drop(files);
    assert!(mount.unmount().success());
    let mount = cold.start(&cache, &["--cache-size", "1000"]);
    for number in 0..8 {
        cold.assert_right("after it", &mount, number);
    }
    let sizes = fs::read_dir(cache.join("toc")).expect("it is there");
    let sizes = sizes.map(|entry| {
        entry
            .and_then(|entry| entry.metadata())
            .map_or(0, |m| m.len())
    });
    assert!(sizes.sum::<u64>() <= 1000, "the limit holds");
}

#[test]
fn when_layers_are_indexed() {
    if !has("when_layers_are_indexed", &[Need::Fuse]) {
        return;
    }
    let cold = Cold::new(4);
    let one = cold.layout.image(&cold.layers[2..3]);
    cold.layout.add_ref("one", &one);
    let cache = |when: &str| cold.dir.path().join(when);
    let all: Vec<&Layer> = cold.layers.iter().collect();

    // Nobody looks at anything but the status.
    let mount = cold.start(&cache("eager"), &["--index", "eager"]);
    until(PATIENCE, "all are indexed", || {
        kept(&cache("eager")) == files_of(&all)
    });
    cold.assert_right("eager", &mount, 3);
    assert!(mount.unmount().success(), "eager");

    let mount = cold.start(&cache("lazy"), &[]);
    for looked_at in ["one", "one/layers", "app/layers"] {
        fs::read_dir(mount.join(looked_at)).expect("it can be listed");
    }
    fs::read_dir(mount.join("one/rootfs")).expect("it is sound");
    until(PATIENCE, "no pass is made", || indexing(&mount) == 0);
    assert_eq!(kept(&cache("lazy")), files_of(&all[2..3]), "lazy");
    fs::read_dir(mount.join("app/rootfs")).expect("it is sound");
    until(PATIENCE, "no pass is made", || indexing(&mount) == 0);
    assert_eq!(kept(&cache("lazy")), files_of(&all), "lazy");
    assert!(mount.unmount().success(), "lazy");

    for _ in 0..2 {
        let mount = cold.start(&cache("off"), &["--index=off"]);
        fs::read_dir(mount.join("app/rootfs")).expect("it is sound");
        (0..4).for_each(|number| cold.assert_right("off", &mount, number));
        assert!(mount.unmount().success(), "off");
        assert!(!cache("off").exists(), "off");
    }
}

#[test]
fn indexing_all_ends_with_the_mount_and_not_at_a_fault() {
    if !has(
        "indexing_all_ends_with_the_mount_and_not_at_a_fault",
        &[Need::Fuse],
    ) {
        return;
    }
    let mut cold = Cold::new(5);
    let cache = cold.dir.path().join("cache");
    let mount = cold.start(&cache, &["--index=eager"]);
    assert!(mount.unmount().success(), "while it goes on");

    let damaged = cold.layers.remove(1);
    cold.layout.damage(&damaged.descriptor, Damage::FlippedBit);
    let sound: Vec<&Layer> = cold.layers.iter().collect();
    let cache = cold.dir.path().join("with-a-fault");
    let mount = cold.start(&cache, &["--index=eager"]);
    until(PATIENCE, "the sound ones are indexed", || {
        kept(&cache) == files_of(&sound)
    });
    let status = fs::read_to_string(mount.join(".ocifs/status.json")).expect("it answers");
    let digest = digest_of(&damaged.descriptor);
    assert!(
        status.contains("BLOB_DIGEST") && status.contains(digest.as_str()),
        "{status}"
    );
}

/// The names of the Tocs in a cache directory.
fn kept(cache: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(cache.join("toc")).into_iter().flatten();
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    // Those that begin with a dot are being written.
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Those that layers have there.
fn files_of(layers: &[&Layer]) -> BTreeSet<String> {
    let name = |layer: &&Layer| file_name(&digest_of(&layer.descriptor));
    layers.iter().map(name).collect()
}

/// How many layers are being read just now, or will be.
fn indexing(mount: &TestMount) -> usize {
    let status = fs::read(mount.join(".ocifs/status.json")).expect("the mount answers");
    let status: Value = serde_json::from_slice(&status).expect("it is JSON");
    status["indexing"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_mount_waits_for_nothing_that_was_indexed() {
    if !has("a_mount_waits_for_nothing_that_was_indexed", &[Need::Fuse]) {
        return;
    }
    let cold = Cold::new(3);
    let cache = cold.dir.path().join("cache");
    let words = [
        "index".as_ref(),
        "--cache-dir".as_ref(),
        cache.as_os_str(),
        cold.layout.path().as_os_str(),
    ];
    let output = run(OCIFS, &words);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mount = cold.start(&cache, &[]);
    // A listing never waits: the sizes that it shows are those that are known.
    let listed = fs::read_dir(mount.join("app/layers")).expect("it can be listed");
    let tars = listed.filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.to_string_lossy().ends_with(".tar")
    });
    assert_eq!(tars.count(), 3);
    let before = bytes_read(mount.pid());
    for (number, layer) in cold.layers.iter().enumerate() {
        let path = mount.join(format!("app/layers/{number:02}.tar"));
        let size = fs::metadata(&path).expect("it is known").len();
        assert_eq!(size, layer.tar_size, "{number}");
        let mut start = [0; 512];
        let file = File::open(path).expect("it is sound");
        file.read_exact_at(&mut start, 0).expect("it is sound");
    }
    let read = bytes_read(mount.pid()) - before;
    let stored: u64 = cold
        .layers
        .iter()
        .map(|layer| crate::common::size_of(&layer.descriptor))
        .sum();
    assert!(
        read < stored,
        "read {read} bytes of {stored}: passes were made"
    );
}

/// What a process has asked the kernel to read so far, in bytes.
fn bytes_read(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/io");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let count = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    let count = count.and_then(|count| count.parse().ok());
    count.unwrap_or_else(|| panic!("no rchar in {path}"))
}
