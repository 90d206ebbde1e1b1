//! What a mount costs, beside what the same thing costs without one.
//!
//! Each comparison runs its sides in turn, several times, and shows medians: machines
//! are noisy, so the ratios count. `scripts/bench` runs it with the release profile.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "../common/mod.rs"]
mod common;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Compression, Need, Random, TestLayout, has, run_ok};
use tempfile::TempDir;

const OCIFS: &str = env!("CARGO_BIN_EXE_ocifs");

/// How often each side runs.
const TURNS: usize = 9;
/// The size of the blob that is read.
const BLOB_SIZE: usize = 512 << 20;

fn main() {
    if !has("bench", &[Need::Fuse]) {
        return;
    }
    println!("medians of {TURNS} runs in turn\n");
    println!("| what | ocifs | without | ratio |\n|---|---:|---:|---:|");
    for count in [1_000, 10_000] {
        first_listing(count, "ls", &[]);
        first_listing(count, "ls -l", &["-l"]);
    }
    stored_blob();
}

/// From `mount` to the end of the first listing; beside it, the same with an empty
/// layout, and `ls -l` of as many plain files.
fn first_listing(count: usize, name: &str, options: &[&str]) {
    let full = layout_of(count);
    let empty = TestLayout::new();
    let files = plain_files(count);
    let mut times = Times::default();
    for _ in 0..TURNS {
        times.ocifs.push(mount_and_list(full.path(), options));
        let mount = mount_and_list(empty.path(), options);
        times.without.push(mount + listing(files.path(), &["-l"]));
    }
    let what = format!("mount to first `{name}`, {count} refs / empty mount + `ls -l` of files");
    times.print(&what, |time| format!("{:.1} ms", time.as_secs_f64() * 1e3));
}

/// A layout of `count` refs, each to a manifest of its own.
fn layout_of(count: usize) -> TestLayout {
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]);
    let entries: Vec<_> = (0..count)
        .map(|number| {
            let extra = serde_json::json!({"author": number.to_string()});
            let mut image = layout.image_with(std::slice::from_ref(&layer), &extra);
            image["annotations"] = serde_json::json!({
                "org.opencontainers.image.ref.name": format!("app-{number}:1"),
            });
            image
        })
        .collect();
    layout.write_entries(&entries);
    layout
}

fn plain_files(count: usize) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    for number in 0..count {
        let path = dir.path().join(format!("app-{number}:1"));
        fs::write(path, b"").expect("it is writable");
    }
    dir
}

fn mount_and_list(source: &Path, options: &[&str]) -> Duration {
    let start = Instant::now();
    let mounted = Mounted::start(source);
    listing(&mounted.path, options);
    start.elapsed()
}

fn listing(dir: &Path, options: &[&str]) -> Duration {
    let start = Instant::now();
    let arguments: Vec<_> = options.iter().map(Path::new).chain([dir]).collect();
    run_ok("ls", &arguments);
    start.elapsed()
}

/// A mount by a daemon in the background, as a user makes it.
struct Mounted {
    path: PathBuf,
    /// Holds mount point and cache directory; goes last.
    _dir: TempDir,
}

impl Mounted {
    fn start(source: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let (path, cache) = (dir.path().join("mnt"), dir.path().join("cache"));
        fs::create_dir(&path).expect("it is writable");
        let options = ["mount".as_ref(), "--cache-dir".as_ref(), cache.as_path()];
        run_ok(OCIFS, &[&options[..], &[source, &path]].concat());
        Self { path, _dir: dir }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let ended = Command::new(OCIFS).arg("unmount").arg(&self.path).status();
        if !ended.is_ok_and(|status| status.success()) {
            let _ = Command::new("fusermount3")
                .arg("-uz")
                .arg(&self.path)
                .status();
        }
    }
}

/// Sequential read of a stored blob through the mount, and of the file itself, both in
/// the page cache.
fn stored_blob() {
    let layout = TestLayout::new();
    let layer = layout.layer_of_stream(Compression::None, |out| {
        let (mut random, mut block) = (Random::of_seed(1), vec![0; 1 << 20]);
        (0..BLOB_SIZE >> 20).try_for_each(|_| {
            random.fill(&mut block);
            out.write_all(&block)
        })
    });
    layout.add_ref("app", &layout.image(std::slice::from_ref(&layer)));
    let direct = layout.blob_path(&layer.descriptor);
    let inside = direct.strip_prefix(layout.path()).expect("it is inside");
    let mounted = Mounted::start(layout.path());
    let through = mounted.path.join(".ocifs/layout").join(inside);
    let mut times = Times::default();
    // The first turn fills the page cache and finds the verdict.
    for turn in 0..=TURNS {
        let (ocifs, without) = (read_time(&through), read_time(&direct));
        if turn > 0 {
            times.ocifs.push(ocifs);
            times.without.push(without);
        }
    }
    times.print("stored blob, sequential, cached", |time| {
        let mib = BLOB_SIZE >> 20;
        format!(
            "{:.0} MiB/s",
            f64::from(u32::try_from(mib).unwrap_or(0)) / time.as_secs_f64()
        )
    });
}

fn read_time(path: &Path) -> Duration {
    let start = Instant::now();
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => total += len,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    assert_eq!(total, BLOB_SIZE, "{}", path.display());
    start.elapsed()
}

/// The runs of both sides of a comparison.
#[derive(Default)]
struct Times {
    ocifs: Vec<Duration>,
    without: Vec<Duration>,
}

impl Times {
    /// Prints a row; the ratio is that of the times, below 1 where ocifs is faster.
    fn print(self, what: &str, show: impl Fn(Duration) -> String) {
        let (ocifs, without) = (median(self.ocifs), median(self.without));
        let ratio = ocifs.as_secs_f64() / without.as_secs_f64();
        println!(
            "| {what} | {} | {} | {ratio:.2} |",
            show(ocifs),
            show(without)
        );
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
