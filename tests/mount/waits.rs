//! Who waits for the first pass over a layer, and who never does.
//!
//! That a command reads no layer byte is seen by the access time of the blob file: the
//! tests set it before the file's modification, and the kernel moves it with the first
//! byte that anybody reads (`relatime` does so too). This needs no tracer, misses nothing,
//! and the same command sequence ends with one that does read: the test can fail.

use std::fs::{self, File, FileTimes};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ocifs::oci::{Digest, Hasher};
use serde_json::Value;

use crate::common::{
    Compression, Layer, MountOptions, Need, Random, TestLayout, TestMount, compress, has, run_ok,
    size_of, skip, tar_of,
};
use crate::patience::{median, until};

/// What an answer takes that waits for nobody.
const QUICK: Duration = Duration::from_millis(100);
const AT_ALL: Duration = Duration::from_secs(10);

/// What unmounting by force takes at most, with the start and the end of two processes.
/// That the wait fails shows that it was not for what is waited for.
const FORCED: Duration = Duration::from_secs(3);

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

/// A layout with a layer of each compression, in an image and in an image index.
fn layout_of_all() -> (TestLayout, Vec<Layer>) {
    let layout = TestLayout::new();
    let layers: Vec<Layer> = COMPRESSIONS
        .iter()
        .map(|compression| {
            let text = format!("{compression:?}");
            layout.layer(
                *compression,
                &[("etc/", b""), ("etc/motd", text.as_bytes())],
            )
        })
        .collect();
    let image = layout.image(&layers);
    layout.add_ref("app", &image);
    layout.add_ref("ghcr.io/org/app:1", &image);
    let arm = layout.image_for("linux/arm64/v8", &layers);
    layout.add_ref("multi", &layout.image_index(&[arm]));
    (layout, layers)
}

/// Blob files, and whether anybody read them.
struct Watched(Vec<PathBuf>);

impl Watched {
    fn new(layout: &TestLayout, layers: &[Layer]) -> Self {
        let paths = layers
            .iter()
            .map(|layer| layout.blob_path(&layer.descriptor));
        let watched = Self(paths.collect());
        watched.reset();
        watched
    }

    fn long_ago() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
    }

    fn reset(&self) {
        for path in &self.0 {
            let file = File::options().write(true).open(path);
            let times = FileTimes::new().set_accessed(Self::long_ago());
            file.and_then(|file| file.set_times(times))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    /// How many of the files were read.
    fn read(&self) -> usize {
        let accessed = |path: &PathBuf| {
            let metadata = fs::metadata(path).expect("the blob is there");
            metadata.accessed().expect("files have access times")
        };
        let times = self.0.iter().map(accessed);
        times.filter(|time| *time != Self::long_ago()).count()
    }
}

/// Whether the file system of temporary files notes that a file was read.
fn access_is_noted(name: &str) -> bool {
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::None, &[("x", b"y")]);
    let watched = Watched::new(&layout, &[layer]);
    fs::read(&watched.0[0]).expect("the blob is readable");
    let noted = watched.read() == 1;
    if !noted {
        skip(
            name,
            "temporary files are on a file system without access times",
        );
    }
    noted
}

/// Runs a command with `MNT` in its environment, which must not read any layer.
fn assert_reads_nothing(what: &str, command: &str, expected: &str) {
    let (layout, layers) = layout_of_all();
    let mount = TestMount::start(layout.path());
    let watched = Watched::new(&layout, &layers);
    let script = format!("MNT={}; {command}", mount.path().display());
    // The second time over what the kernel knows by then.
    for turn in ["first", "second"] {
        let output = run_ok("bash", &["-c", &script]);
        let output = String::from_utf8_lossy(&output);
        assert!(
            output.contains(expected),
            "{what}: no {expected} in {output}"
        );
        assert_eq!(watched.read(), 0, "{what}: layers read, {turn} time");
    }
    for (number, layer) in layers.iter().enumerate() {
        let tar = mount.join(format!("app/layers/{number:02}.tar"));
        let size = run_ok("stat", &["-c".as_ref(), "%s".as_ref(), tar.as_os_str()]);
        let size = String::from_utf8_lossy(&size).trim().to_owned();
        assert_eq!(size, layer.tar_size.to_string(), "{what}: size of {number}");
        assert_eq!(watched.read(), number + 1, "{what}: stat of {number} reads");
    }
}

#[test]
fn listing_reads_no_layer_byte() {
    const NAME: &str = "listing_reads_no_layer_byte";
    if !has(NAME, &[Need::Fuse]) || !access_is_noted(NAME) {
        return;
    }
    let rows = [
        ("ls", "ls $MNT/app/layers", "00.tar\n"),
        ("ls -a", "ls -a $MNT/app/layers", "00.tar\n"),
        ("ls of an image", "ls $MNT/app", "rootfs\n"),
        (
            "stat of what must be looked into",
            "stat -c %A:%n $MNT/app/rootfs $MNT/app/layers/00",
            "drwxr-xr-x:",
        ),
        // Whoever goes into a file tree reads it, so these stop before.
        (
            "find",
            "find $MNT $MNT/.ocifs -regex '.*/\\(rootfs\\|layers/[0-9]+\\)' -prune -o -print",
            "layers/00.tar\n",
        ),
        (
            "find by type",
            "find $MNT -regex '.*/\\(rootfs\\|layers/[0-9]+\\)' -prune -o -type f -print",
            "layers/00.tar\n",
        ),
        (
            "find of directories",
            "find $MNT -maxdepth 3 -name rootfs -prune -o -maxdepth 3 -type d -print",
            "app/layers/00\n",
        ),
        (
            "completion",
            "compgen -f $MNT/app/layers/",
            "layers/00.tar\n",
        ),
        ("a pattern", "echo $MNT/app/layers/*.tar", "layers/00.tar"),
        (
            "links",
            "readlink $MNT/app/layers/01.tar.gz",
            "blobs/sha256",
        ),
        ("documents", "cat $MNT/app/{manifest,config}.json", "rootfs"),
    ];
    for (what, command, expected) in rows {
        assert_reads_nothing(what, command, expected);
    }
}

#[test]
fn listing_with_colours_reads_no_layer_byte() {
    const NAME: &str = "listing_with_colours_reads_no_layer_byte";
    if !has(NAME, &[Need::Fuse]) || !access_is_noted(NAME) {
        return;
    }
    assert_reads_nothing("ls --color", "ls --color=always $MNT/app/layers", "00.tar");
    assert_reads_nothing("ls -F", "ls -F $MNT/app/layers", "00.tar");
}

/// What a process has asked the kernel to read so far, in bytes.
fn bytes_read(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/io");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let count = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    let count = count.and_then(|count| count.parse().ok());
    count.unwrap_or_else(|| panic!("no rchar in {path}"))
}

#[test]
fn many_readers_of_a_cold_layer_cause_one_pass() {
    const NAME: &str = "many_readers_of_a_cold_layer_cause_one_pass";
    const READERS: usize = 50;
    if !has(NAME, &[Need::Fuse]) {
        return;
    }
    let mut noise = vec![0; 24 << 20];
    Random::of_seed(9).fill(&mut noise);
    let tar = tar_of(&[("noise", &noise)]);
    for compression in [Compression::Gzip, Compression::Zstd] {
        let layout = TestLayout::new();
        let layer = layout.layer_of_tar(compression, &tar);
        layout.add_ref("app", &layout.image(std::slice::from_ref(&layer)));
        let mount = TestMount::start(layout.path());
        let path = mount.join("app/layers/00.tar");
        let before = bytes_read(mount.pid());
        let barrier = Barrier::new(READERS);
        thread::scope(|scope| {
            for number in 0..READERS {
                let (barrier, path, tar) = (&barrier, &path, &tar);
                scope.spawn(move || {
                    barrier.wait();
                    if number % 2 == 0 {
                        let stat = fs::metadata(path).expect("the layer is sound");
                        assert_eq!(stat.len(), tar.len() as u64, "{compression:?}");
                    }
                    let mut start = [0; 4096];
                    let file = File::open(path).expect("the layer is sound");
                    file.read_exact_at(&mut start, 0)
                        .expect("the layer is sound");
                    assert!(start == tar[..4096], "{compression:?}: wrong bytes");
                });
            }
        });
        let (read, size) = (bytes_read(mount.pid()) - before, size_of(&layer.descriptor));
        assert!(read >= size, "{compression:?}: read {read} bytes of {size}");
        // A pass reads a stream twice where it proves its checkpoints; the rest is requests,
        // and the spans that were read. Fifty passes would be far more.
        assert!(
            read < size * 3,
            "{compression:?}: read {read} bytes of {size}"
        );
    }
}

/// A layer that takes seconds to read and is small on disk: one gzip member many times.
fn slow_layer(layout: &TestLayout, seed: u64) -> Layer {
    const MEMBER: usize = 4 << 20;
    const MEMBERS: usize = 320;
    let mut noise = vec![0; 16 << 10]; // Within the reach of a deflate match.
    Random::of_seed(seed).fill(&mut noise);
    let part = noise.repeat(MEMBER / noise.len());
    let mut hasher = Hasher::sha256();
    (0..MEMBERS).for_each(|_| hasher.update(&part));
    let stored = compress(Compression::Gzip, &part).repeat(MEMBERS);
    Layer {
        descriptor: layout.blob(Compression::Gzip.media_type(), &stored),
        diff_id: hasher.finish(),
        tar_size: (MEMBER * MEMBERS) as u64,
    }
}

/// How many passes are under way or waiting.
fn passes(mount: &TestMount) -> usize {
    let bytes = fs::read(mount.join(".ocifs/status.json")).expect("there is a status");
    let status: Value = serde_json::from_slice(&bytes).expect("it is JSON");
    status["indexing"].as_array().map_or(0, Vec::len)
}

/// A layout with two slow layers, one small one that is known, and small ones that nobody
/// looks at before the test does.
struct Busy {
    layout: TestLayout,
    slow: [Layer; 2],
    small: Vec<u8>,
}

impl Busy {
    const COLD: usize = 8;

    fn new() -> Self {
        let layout = TestLayout::new();
        let slow = [1, 2].map(|seed| slow_layer(&layout, seed));
        for (number, layer) in slow.iter().enumerate() {
            let image = layout.image(std::slice::from_ref(layer));
            layout.add_ref(&format!("slow-{number}"), &image);
        }
        let small = tar_of(&[("etc/motd", b"hello\n")]);
        let layer = layout.layer_of_tar(Compression::Gzip, &small);
        layout.add_ref("known", &layout.image(&[layer]));
        for number in 0..Self::COLD {
            let text = format!("cold {number}");
            let layer = layout.layer(Compression::Gzip, &[("motd", text.as_bytes())]);
            layout.add_ref(&format!("cold-{number}"), &layout.image(&[layer]));
        }
        Self {
            layout,
            slow,
            small,
        }
    }

    /// Runs `work` while the first `count` slow layers are read for the first time, as
    /// often as that lasts; says how long each run took.
    fn meanwhile(&self, count: usize, mut work: impl FnMut(&Path, usize)) -> Vec<Duration> {
        let mount = TestMount::start(self.layout.path());
        let known = fs::read(mount.join("known/layers/00.tar"));
        assert_eq!(known.expect("it is sound"), self.small);
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..count)
                .map(|number| {
                    let path = mount.join(format!("slow-{number}/layers/00.tar"));
                    scope.spawn(move || fs::metadata(path).expect("it is sound").len())
                })
                .collect();
            until(AT_ALL, "the passes begin", || passes(&mount) == count);
            let mut took = Vec::new();
            loop {
                let start = Instant::now();
                work(mount.path(), took.len());
                let time = start.elapsed();
                if passes(&mount) < count {
                    break;
                }
                took.push(time);
            }
            for (number, size) in waiting.into_iter().enumerate() {
                let size = size.join().expect("it does not panic");
                assert_eq!(size, self.slow[number].tar_size);
            }
            took
        })
    }
}

#[test]
fn a_slow_pass_keeps_nobody_else_waiting() {
    if !has("a_slow_pass_keeps_nobody_else_waiting", &[Need::Fuse]) {
        return;
    }
    let busy = Busy::new();
    // With two slow passes there is no room for a third one, but for all that is known.
    let took = busy.meanwhile(2, |root, _| {
        let list = |dir: &str| {
            fs::read_dir(root.join(dir))
                .expect("it can be listed")
                .count()
        };
        assert_eq!(list(""), Busy::COLD + 4);
        assert_eq!(list("slow-0/layers"), 3);
        let stat = fs::metadata(root.join("known/layers/00.tar")).expect("it is known");
        assert_eq!(stat.len(), busy.small.len() as u64);
        let tar = fs::read(root.join("known/layers/00.tar")).expect("it is known");
        assert_eq!(tar, busy.small);
        let motd = fs::read(root.join("known/rootfs/etc/motd")).expect("it is known");
        assert_eq!(motd, b"hello\n");
        fs::read(root.join("cold-0/config.json")).expect("it is sound");
    });
    assert!(took.len() >= 3, "the passes were over too soon");
    let all = median(took);
    assert!(all < QUICK, "took {all:?}");
    // Beside one slow pass others are made.
    let took = busy.meanwhile(1, |root, turn| {
        let path = root.join(format!("cold-{}/layers/00.tar", turn % Busy::COLD));
        let mut file = File::open(path).expect("it is sound");
        let mut tar = Vec::new();
        file.read_to_end(&mut tar).expect("it is sound");
        let text = format!("cold {}", turn % Busy::COLD);
        assert_eq!(
            Digest::of(&tar),
            Digest::of(&tar_of(&[("motd", text.as_bytes())]))
        );
    });
    assert!(took.len() >= 3, "the pass was over too soon");
    let cold = median(took[..took.len().min(Busy::COLD)].to_vec());
    assert!(cold < QUICK, "took {cold:?}");
}

#[test]
fn the_first_look_into_a_file_tree_waits() {
    if !has("the_first_look_into_a_file_tree_waits", &[Need::Fuse]) {
        return;
    }
    // No tars: they are found malformed at the end of the wait.
    let busy = Busy::new();
    for tree in ["rootfs", "layers/00"] {
        let mount = TestMount::start(busy.layout.path());
        let dir = mount.join("slow-0").join(tree);
        assert!(fs::metadata(&dir).expect("it is known").is_dir());
        thread::scope(|scope| {
            let looks = ["look", "list"].map(|what| {
                let dir = &dir;
                scope.spawn(move || match what {
                    "look" => fs::metadata(dir.join("x")).map(drop),
                    _ => fs::read_dir(dir).map(drop),
                })
            });
            until(AT_ALL, "the pass begins", || passes(&mount) == 1);
            let start = Instant::now();
            // The directory itself, what is beside it, and another image.
            assert!(fs::metadata(&dir).expect("it is known").is_dir());
            let beside = fs::read_dir(mount.join("slow-0/layers")).map_or(0, Iterator::count);
            assert_eq!(beside, 3, "{tree}");
            let motd = fs::read(mount.join("known/rootfs/etc/motd")).expect("it is sound");
            assert_eq!(motd, b"hello\n", "{tree}");
            let took = start.elapsed();
            assert_eq!(passes(&mount), 1, "{tree}: the pass was over too soon");
            assert!(took < 3 * QUICK, "{tree}: took {took:?}");
            for look in looks {
                let error = look.join().expect("no panic").expect_err("it is no tar");
                assert_eq!(error.raw_os_error(), Some(libc::EUCLEAN), "{tree}");
            }
        });
    }
}

#[test]
fn unmount_by_force_ends_waits() {
    if !has("unmount_by_force_ends_waits", &[Need::Fuse]) {
        return;
    }
    for path in ["layers/00.tar", "rootfs/etc/motd", "layers/00"] {
        unmount_ends_the_wait_for(path);
    }
}

fn unmount_ends_the_wait_for(path: &str) {
    let busy = Busy::new();
    let mount = MountOptions::new(busy.layout.path()).start();
    thread::scope(|scope| {
        let path = mount.join("slow-0").join(path);
        let waiting = scope.spawn(move || File::open(path).and_then(|file| file.metadata()));
        until(AT_ALL, "the pass begins", || passes(&mount) == 1);
        let start = Instant::now();
        let arguments = [
            "unmount".as_ref(),
            "--force".as_ref(),
            mount.path().as_os_str(),
        ];
        run_ok(env!("CARGO_BIN_EXE_ocifs"), &arguments);
        let result = waiting.join().expect("it does not panic");
        assert!(result.is_err(), "the pass was over too soon");
        let time = start.elapsed();
        assert!(time < FORCED, "took {time:?}");
    });
}

/// A blob of zeros that takes seconds to hash, after its first bytes.
fn slow_to_hash(layout: &TestLayout, media_type: &str, start: &[u8]) -> Value {
    const SIZE: u64 = 16 << 30;
    let mut blob = layout.blob(media_type, start);
    let file = File::options().write(true).open(layout.blob_path(&blob));
    file.and_then(|file| file.set_len(SIZE))
        .expect("sparse files can be made");
    blob["size"] = SIZE.into();
    blob
}

/// What has no first pass is hashed in turn with those that have.
#[test]
fn hashing_is_shown_and_ends_by_force() {
    if !has("hashing_is_shown_and_ends_by_force", &[Need::Fuse]) {
        return;
    }
    const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    let layout = TestLayout::new();
    let xz = b"\xfd7zXZ\0";
    let rows = [
        ("plain", TAR.to_owned(), &b"plain"[..]),
        ("unknown", format!("{TAR}+gzip"), xz),
        ("encrypted", format!("{TAR}+encrypted"), b"secret"),
    ];
    for (name, media_type, start) in &rows {
        let descriptor = slow_to_hash(&layout, media_type, start);
        let layer = Layer {
            descriptor,
            diff_id: Digest::of(start),
            tar_size: 0,
        };
        layout.add_ref(name, &layout.image(&[layer]));
    }
    let mount = TestMount::start(layout.path());
    thread::scope(|scope| {
        let opens = rows.each_ref().map(|(name, ..)| {
            let path = mount.join(name).join("layers/00.tar");
            scope.spawn(move || File::open(path).map(drop))
        });
        until(AT_ALL, "all are shown", || passes(&mount) == rows.len());
        let bytes = fs::read(mount.join(".ocifs/status.json")).expect("there is a status");
        let status: Value = serde_json::from_slice(&bytes).expect("it is JSON");
        let jobs = status["indexing"].as_array().expect("it is a list");
        let begun = jobs.iter().filter(|job| job["done"] != 0);
        assert!(begun.count() <= 2, "two at a time: {jobs:?}");
        let start = Instant::now();
        let arguments = [
            "unmount".as_ref(),
            "--force".as_ref(),
            mount.path().as_os_str(),
        ];
        run_ok(env!("CARGO_BIN_EXE_ocifs"), &arguments);
        for open in opens {
            let result = open.join().expect("it does not panic");
            assert!(result.is_err(), "it is not hashed yet");
        }
        let time = start.elapsed();
        assert!(time < FORCED, "took {time:?}");
    });
}
