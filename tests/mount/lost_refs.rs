//! Many writers of all kinds at once: no name that one of them was told is there may be
//! missing at the end.
//!
//! Some hundred commits by default; `OCIFS_COMMITS=10000` makes that many and, beside it,
//! lets skopeo and umoci write to a layout directly, to see what they lose.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{Compression, Need, TestLayout, TestMount, has, verify_layout};

/// How many commits are made where nothing says how many.
const COMMITS: usize = 240;

/// Processes of each kind.
const OF_EACH: usize = 3;

/// What each kind of writer does once; it succeeds if it was told that `$name` is there.
/// `$mnt` is the mount, `$layout` the layout, `$source` a small layout with the ref
/// `small`, `$scratch` a directory of its own.
const WRITERS: [(&str, &str); 6] = [
    (
        "drop",
        r#"echo "$name" >"$scratch/file" && cp "$scratch/file" "$mnt/incoming/$name""#,
    ),
    (
        "import",
        r#"echo "$name" >"$scratch/file" && "$ocifs" import "$layout" "$scratch/file" --name "$name" >/dev/null"#,
    ),
    ("tag", r#""$ocifs" tag "$layout" small "$name""#),
    ("link", r#"ln -s small "$mnt/$name""#),
    (
        "skopeo",
        r#"job=$mnt/incoming/job-$name && mkdir "$job" &&
           skopeo copy -q --insecure-policy "oci:$source:small" "oci:$job:$name" &&
           mv "$job" "$mnt/""#,
    ),
    (
        "umoci",
        r#"job=$mnt/incoming/job-$name && umoci init --layout "$job" &&
           umoci new --image "$job:$name" && "$ocifs" commit "$mnt" "job-$name" >/dev/null"#,
    ),
];

/// The same two tools without us.
const DIRECT: [(&str, &str); 2] = [
    (
        "skopeo",
        r#"skopeo copy -q --insecure-policy "oci:$source:small" "oci:$layout:$name""#,
    ),
    ("umoci", r#"umoci new --image "$layout:$name""#),
];

/// A process that makes `$count` commits, and prints the name of each that succeeded.
const LOOP: &str = r#"for number in $(seq "$count"); do
    name=$kind-$writer-$number
    if once 2>>"$scratch/errors"; then echo "$name"; fi
done"#;

struct Place<'a> {
    layout: &'a Path,
    mount: &'a Path,
    source: &'a Path,
    scratch: &'a Path,
}

fn start(place: &Place<'_>, (kind, once): (&str, &str), writer: usize, count: usize) -> Child {
    let scratch = place.scratch.join(format!("{kind}-{writer}"));
    fs::create_dir_all(&scratch).expect("the temporary directory is writable");
    Command::new("bash")
        .arg("-c")
        .arg(format!("once() {{ {once}; }}\n{LOOP}"))
        .env("ocifs", env!("CARGO_BIN_EXE_ocifs"))
        .env("layout", place.layout)
        .env("mnt", place.mount)
        .env("source", place.source)
        .env("scratch", scratch)
        .env("kind", kind)
        .env("writer", writer.to_string())
        .env("count", count.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash can be started")
}

/// Lets `of_each` processes of each of `writers` make `count` commits each; the names
/// that they were told are there.
fn write(
    place: &Place<'_>,
    writers: &[(&str, &str)],
    of_each: usize,
    count: usize,
) -> BTreeSet<String> {
    let all = writers
        .iter()
        .flat_map(|writer| (0..of_each).map(move |number| (*writer, number)));
    let running: Vec<Child> = all
        .map(|(writer, number)| start(place, writer, number, count))
        .collect();
    let mut acknowledged = BTreeSet::new();
    for child in running {
        let output = child.wait_with_output().expect("it was started");
        let names = String::from_utf8_lossy(&output.stdout);
        acknowledged.extend(names.lines().map(str::to_owned));
    }
    acknowledged
}

/// The names in index.json.
fn names(layout: &TestLayout) -> BTreeSet<String> {
    let name = |entry: &serde_json::Value| {
        let name = &entry["annotations"]["org.opencontainers.image.ref.name"];
        name.as_str().map(str::to_owned)
    };
    layout.entries().iter().filter_map(name).collect()
}

fn errors(scratch: &Path) -> String {
    let dirs = fs::read_dir(scratch).into_iter().flatten().flatten();
    let texts = dirs.filter_map(|dir| fs::read_to_string(dir.path().join("errors")).ok());
    texts.collect::<String>().chars().take(4000).collect()
}

#[test]
#[expect(clippy::print_stdout, reason = "it reports")]
fn eighteen_writers_of_all_kinds_lose_nothing() {
    let needs = [Need::Fuse, Need::Tool("skopeo"), Need::Tool("umoci")];
    if !has("eighteen_writers_of_all_kinds_lose_nothing", &needs) {
        return;
    }
    let commits = std::env::var("OCIFS_COMMITS").ok();
    let wanted: usize = commits.as_ref().map_or(COMMITS, |text| {
        text.parse().expect("OCIFS_COMMITS is a number")
    });
    let source = TestLayout::new();
    let layer = source.layer(Compression::Gzip, &[("motd", b"small")]);
    source.add_ref("small", &source.image(&[layer]));
    let (layout, scratch) = (
        TestLayout::new(),
        tempfile::tempdir().expect("it can be made"),
    );
    let layer = layout.layer(Compression::Gzip, &[("motd", b"small")]);
    layout.add_ref("small", &layout.image(&[layer]));
    let mount = TestMount::start(layout.path());
    let place = Place {
        layout: layout.path(),
        mount: mount.path(),
        source: source.path(),
        scratch: scratch.path(),
    };
    let count = wanted.div_ceil(OF_EACH * WRITERS.len());
    let acknowledged = write(&place, &WRITERS, OF_EACH, count);
    let present = names(&layout);
    let lost: Vec<&String> = acknowledged.difference(&present).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let made = count * OF_EACH * WRITERS.len();
    assert_eq!(
        acknowledged.len(),
        made,
        "some were refused:\n{}",
        errors(scratch.path())
    );
    verify_layout(layout.path());
    println!("ocifs: {made} commits of 18 writers, none lost");
    if commits.is_some() {
        report_direct(&source, count);
    }
}

/// What eight processes each of skopeo and umoci lose that write to a layout directly.
#[expect(clippy::print_stdout, reason = "it reports")]
fn report_direct(source: &TestLayout, count: usize) {
    let (layout, scratch) = (
        TestLayout::new(),
        tempfile::tempdir().expect("it can be made"),
    );
    let place = Place {
        layout: layout.path(),
        mount: layout.path(),
        source: source.path(),
        scratch: scratch.path(),
    };
    let acknowledged = write(&place, &DIRECT, 8, count.min(50));
    let lost = acknowledged.difference(&names(&layout)).count();
    println!(
        "skopeo and umoci, eight each, directly: {lost} of {} lost",
        acknowledged.len()
    );
}
