//! What a mount costs, beside what the same thing costs without one.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::{Compression, Random, TestLayout, run_ok};
use crate::serve::{Background, read_all};
use crate::table::{Row, Runs, Unit};
use crate::{Bench, milliseconds, rate};

/// It takes so little that there is time for more rounds.
const ROUNDS: usize = 9;
/// The size of the blob that is read, in MiB.
const BLOB_SIZE: u64 = 512;

pub fn run(bench: &mut Bench) {
    for count in [1_000, 10_000] {
        first_listing(bench, count, "ls", &[]);
        first_listing(bench, count, "ls -l", &["-l"]);
    }
    stored_blob(bench);
}

/// From `mount` to the end of the first listing; beside it, the same with an empty
/// layout, and `ls -l` of as many plain files.
fn first_listing(bench: &mut Bench, count: usize, name: &str, options: &[&str]) {
    let full = layout_of(count);
    let empty = TestLayout::new();
    let files = plain_files(count);
    let (mut ocifs, mut without) = <(Runs, Runs)>::default();
    for _ in 0..ROUNDS {
        ocifs.push(milliseconds(mount_and_list(full.path(), options)));
        let mount = mount_and_list(empty.path(), options);
        without.push(milliseconds(mount + listing(files.path(), &["-l"])));
    }
    let what = format!("mount to first `{name}`, {count} refs");
    let row = Row::new(what, Unit::Milliseconds, ocifs);
    bench
        .table
        .add(row.beside("empty mount + `ls -l` of files", without));
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
    let mount = Background::start(source, None);
    listing(&mount.path, options);
    start.elapsed()
}

fn listing(dir: &Path, options: &[&str]) -> Duration {
    let start = Instant::now();
    let arguments: Vec<_> = options.iter().map(Path::new).chain([dir]).collect();
    run_ok("ls", &arguments);
    start.elapsed()
}

/// Sequential read of a stored blob through the mount, and of the file itself, both in
/// the page cache.
fn stored_blob(bench: &mut Bench) {
    let layout = TestLayout::new();
    let layer = layout.layer_of_stream(Compression::None, |out| {
        let (mut random, mut block) = (Random::of_seed(1), vec![0; 1 << 20]);
        (0..BLOB_SIZE).try_for_each(|_| {
            random.fill(&mut block);
            out.write_all(&block)
        })
    });
    layout.add_ref("app", &layout.image(std::slice::from_ref(&layer)));
    let direct = layout.blob_path(&layer.descriptor);
    let inside = direct.strip_prefix(layout.path()).expect("it is inside");
    let mount = Background::start(layout.path(), None);
    let through = mount.path.join(".ocifs/layout").join(inside);
    // Fills the page cache and finds the verdict.
    let (_, _) = (read_rate(&through), read_rate(&direct));
    let (mut ocifs, mut without) = <(Runs, Runs)>::default();
    for _ in 0..ROUNDS {
        ocifs.push(read_rate(&through));
        without.push(read_rate(&direct));
    }
    let row = Row::new(
        "stored blob, sequential, cached",
        Unit::MegabytesPerSecond,
        ocifs,
    );
    bench.table.add(row.beside("the file itself", without));
}

fn read_rate(path: &Path) -> f64 {
    let start = Instant::now();
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let bytes = read_all(file);
    assert_eq!(bytes, BLOB_SIZE << 20, "{}", path.display());
    rate(bytes, start.elapsed())
}
