//! `ocifs index`: reading ahead of time, and what is kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use ocifs::oci::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::{Compression, Damage, Layer, TestLayout, digest_of, size_of};
use super::{assert_told, ocifs, stderr, stdout};

/// A layout and a cache directory.
pub(crate) struct Place {
    pub(crate) layout: TestLayout,
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            layout: TestLayout::new(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// Where the Toc of a layer is kept.
    pub(crate) fn toc(&self, layer: &Layer) -> PathBuf {
        let digest = digest_of(&layer.descriptor);
        let name = format!("{}-{}", digest.algorithm_name(), digest.encoded());
        self.cache().join("toc").join(name)
    }

    /// Runs `ocifs index` with these options, then the layout, then these refs.
    pub(crate) fn index(&self, options: &[&str], refs: &[&str]) -> Output {
        let cache = self.cache();
        let cache = cache.to_str().unwrap();
        let head = ["index", "--cache-dir", cache];
        let layout = [self.layout.path().to_str().unwrap()];
        ocifs(&[&head, options, &layout, refs].concat())
    }

    fn json(&self, options: &[&str], refs: &[&str]) -> Value {
        let output = self.index(&[options, &["--json"]].concat(), refs);
        json_of(&output)
    }
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(output), stderr(output)))
}

fn file(layout: &TestLayout, compression: Compression, text: &str) -> Layer {
    layout.layer(compression, &[("file", text.as_bytes())])
}

/// The digests in a list of objects, sorted.
fn digests(list: &Value) -> Vec<String> {
    let digest = |object: &Value| object["digest"].as_str().unwrap().to_owned();
    let mut digests: Vec<_> = list.as_array().unwrap().iter().map(digest).collect();
    digests.sort();
    digests
}

fn digests_of<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> Vec<String> {
    let digest = |layer: &Layer| digest_of(&layer.descriptor).to_string();
    let mut digests: Vec<_> = layers.into_iter().map(digest).collect();
    digests.sort();
    digests
}

#[test]
fn every_layer_is_read_once_and_described() {
    let place = Place::new();
    let layout = &place.layout;
    let kinds = [Compression::Gzip, Compression::Zstd, Compression::None];
    let layers = kinds.map(|kind| file(layout, kind, &format!("{kind:?}")));
    layout.add_refs(["one", "two"], &layout.image(&layers));
    layout.add_ref("three", &layout.image(&layers[1..]));

    let found = place.json(&[], &[]);
    assert_eq!(
        (&found["built"], &found["there"], &found["failed"]),
        (&json!(3), &json!(0), &json!(0))
    );
    let rows = found["layers"].as_array().unwrap();
    assert_eq!(rows.len(), 3, "each once");
    for (layer, compression) in layers.iter().zip(["gzip", "zstd", "none"]) {
        let digest = digest_of(&layer.descriptor);
        let row = rows.iter().find(|row| row["digest"] == digest.as_str());
        let row = row.unwrap_or_else(|| panic!("{compression} is missing"));
        assert_eq!(row["compression"], compression);
        assert_eq!(row["size"], size_of(&layer.descriptor), "{compression}");
        assert_eq!(row["decoded_size"], layer.tar_size, "{compression}");
        assert_eq!(row["diff_id"], layer.diff_id.as_str(), "{compression}");
        assert_eq!(row["was_there"], false, "{compression}");
        let kept = fs::metadata(place.toc(layer)).unwrap().len();
        assert_eq!(row["toc_size"], kept, "{compression}");
    }
    let again = place.json(&[], &[]);
    assert_eq!((&again["built"], &again["there"]), (&json!(0), &json!(3)));
    assert!(
        again["layers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["was_there"] == true)
    );

    let output = place.index(&[], &["three"]);
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 3, "two layers and the sum: {text}");
    assert!(text.contains("was there already"), "{text}");
    assert!(text.ends_with("kept\n"), "{text}");
    assert!(stderr(&output).is_empty(), "{}", stderr(&output));
}

#[test]
fn refs_and_platforms_choose_layers() {
    let place = Place::new();
    let layout = &place.layout;
    let [amd, arm, base, other] =
        ["amd", "arm", "base", "other"].map(|text| file(layout, Compression::Gzip, text));
    let on_amd = layout.image_for("linux/amd64", &[base.clone(), amd.clone()]);
    let on_arm = layout.image_for("linux/arm64/v8", &[base.clone(), arm.clone()]);
    let attestation = layout.attestation(&on_amd);
    let nested = layout.image_index(std::slice::from_ref(&on_arm));
    layout.add_ref("multi", &layout.image_index(&[on_amd, nested, attestation]));
    let single = layout.image(std::slice::from_ref(&other));
    layout.add_entry(&single);
    let by_digest = digest_of(&single).to_string();
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], i32, Vec<String>);
    let rows: [Row<'_>; 7] = [
        ("all", &[], &[], 0, digests_of([&amd, &arm, &base, &other])),
        (
            "an index",
            &[],
            &["multi"],
            0,
            digests_of([&amd, &arm, &base]),
        ),
        (
            "a platform",
            &["--platform", "linux/arm64"],
            &["multi"],
            0,
            digests_of([&arm, &base]),
        ),
        (
            "a platform of all",
            &["--platform", "linux/amd64"],
            &[],
            0,
            digests_of([&amd, &base, &other]),
        ),
        ("a digest", &[], &[&by_digest], 0, digests_of([&other])),
        (
            "another platform",
            &["--platform", "linux/s390x"],
            &["multi"],
            1,
            vec![],
        ),
        (
            "one that is not there",
            &[],
            &["nope", &by_digest],
            1,
            digests_of([&other]),
        ),
    ];
    for (name, options, refs, status, expected) in rows {
        let output = place.index(&[options, &["--json"]].concat(), refs);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{name}: {}",
            stderr(&output)
        );
        let found = json_of(&output);
        assert_eq!(digests(&found["layers"]), expected, "{name}");
        let problems = found["problems"].as_array().unwrap().len();
        assert_eq!(problems > 0, status != 0, "{name}");
        let listed = place.json(&[options, &["--list"]].concat(), refs);
        assert_eq!(
            digests(&listed["kept"]),
            expected,
            "{name}: what is kept of it"
        );
        assert_eq!(listed["missing"], json!([]), "{name}");
    }
}

#[test]
fn what_is_no_layer_is_passed_over() {
    let place = Place::new();
    let layout = &place.layout;
    let layer = file(layout, Compression::Gzip, "a");
    let gone = file(layout, Compression::Gzip, "not distributed");
    let mut encrypted = file(layout, Compression::Gzip, "secret").descriptor;
    encrypted["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
    let mut foreign = gone.descriptor.clone();
    foreign["mediaType"] = json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    layout.damage(&gone.descriptor, Damage::Missing);
    let raw = layout.blob("text/plain", b"no layer");
    let config = layout.json(
        "application/vnd.oci.image.config.v1+json",
        &json!({"os": "linux"}),
    );
    let layers = [layer.descriptor.clone(), encrypted, foreign, raw];
    layout.add_ref(
        "odd",
        &layout.manifest(&json!({"config": config, "layers": layers})),
    );
    layout.add_ref(
        "artifact",
        &layout.artifact("text/plain", "notes", b"notes", None),
    );
    let output = place.index(&["--json"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found = json_of(&output);
    assert_eq!(digests(&found["layers"]), digests_of([&layer]));
    assert_eq!(found["problems"], json!([]));
}

#[test]
fn each_problem_is_told_and_the_rest_goes_on() {
    type Spoil = fn(&TestLayout, &Layer) -> Value;
    let rows: [(&str, Spoil, i32, &str); 6] = [
        (
            "missing",
            |layout, layer| {
                let image = layout.image(std::slice::from_ref(layer));
                layout.damage(&layer.descriptor, Damage::Missing);
                image
            },
            1,
            "BLOB_MISSING",
        ),
        (
            "cut",
            |layout, layer| {
                let image = layout.image(std::slice::from_ref(layer));
                layout.damage(&layer.descriptor, Damage::Truncated);
                image
            },
            3,
            "BLOB_SIZE",
        ),
        (
            "flipped",
            |layout, layer| {
                let image = layout.image(std::slice::from_ref(layer));
                layout.damage(&layer.descriptor, Damage::FlippedBit);
                image
            },
            3,
            "BLOB_DIGEST",
        ),
        (
            "other DiffID",
            |layout, layer| {
                let mut layer = layer.clone();
                layer.diff_id = Digest::of(b"other");
                layout.image(&[layer])
            },
            3,
            "LAYER_DIFF_ID",
        ),
        (
            "no gzip",
            |layout, layer| {
                let xz = layout.blob(
                    "application/vnd.oci.image.layer.v1.tar+gzip",
                    b"\xfd7zXZ\0 and more",
                );
                let layer = Layer {
                    descriptor: xz,
                    ..layer.clone()
                };
                layout.image(&[layer])
            },
            1,
            "COMPRESSION",
        ),
        (
            "manifest damaged",
            |layout, layer| {
                let image = layout.image(std::slice::from_ref(layer));
                layout.damage(&image, Damage::FlippedBit);
                image
            },
            3,
            "BLOB_DIGEST",
        ),
    ];
    for (name, spoil, status, code) in rows {
        let place = Place::new();
        let good = file(&place.layout, Compression::Zstd, "good");
        place
            .layout
            .add_ref("good", &place.layout.image(std::slice::from_ref(&good)));
        let bad = file(&place.layout, Compression::Gzip, "bad");
        place.layout.add_ref("bad", &spoil(&place.layout, &bad));
        let output = place.index(&["--json"], &[]);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{name}: {}",
            stderr(&output)
        );
        let found = json_of(&output);
        let problems = found["problems"].as_array().unwrap();
        assert_eq!(problems.len(), 1, "{name}: {problems:?}");
        assert_eq!(problems[0]["code"], code, "{name}: {problems:?}");
        assert!(
            digests(&found["layers"]).contains(&digests_of([&good])[0]),
            "{name}"
        );
        assert!(place.toc(&good).exists(), "{name}: the rest goes on");
        let lines = stderr(&output);
        assert_eq!(lines.lines().count(), 1, "{name}: told once: {lines}");
        assert!(
            lines.contains(code) && lines.starts_with("ocifs: error: bad"),
            "{name}: {lines}"
        );
    }
}

#[test]
fn what_is_kept_is_listed_and_dropped() {
    let place = Place::new();
    let layout = &place.layout;
    let [one, two, three] = ["1", "2", "3"].map(|text| file(layout, Compression::Gzip, text));
    let image = |layer: &Layer| layout.image(std::slice::from_ref(layer));
    layout.add_ref("one", &image(&one));
    layout.add_ref("two", &image(&two));
    layout.add_ref("three", &image(&three));
    let of_cache = |option: &str| {
        let cache = place.cache();
        ocifs(&[
            "index",
            option,
            "--json",
            "--cache-dir",
            cache.to_str().unwrap(),
        ])
    };
    // Looking makes nothing.
    let nothing = of_cache("--list");
    assert_eq!(json_of(&nothing)["kept"], json!([]), "{}", stderr(&nothing));
    assert!(!place.cache().exists());

    assert!(place.index(&[], &["one", "two"]).status.success());
    let garbage = place.toc(&three);
    fs::write(&garbage, "garbage").unwrap();
    fs::write(place.cache().join("toc/notes.txt"), "of the user").unwrap();
    let list = json_of(&of_cache("--list"));
    assert_eq!(digests(&list["kept"]), digests_of([&one, &two, &three]));
    let size: u64 = [&one, &two, &three]
        .iter()
        .map(|layer| fs::metadata(place.toc(layer)).unwrap().len())
        .sum();
    assert_eq!(list["size"], size);
    for row in list["kept"].as_array().unwrap() {
        let is_garbage = row["digest"] == digest_of(&three.descriptor).as_str();
        assert_eq!(row["unusable"].is_null(), !is_garbage, "{row}");
        assert_eq!(row["compression"].is_null(), is_garbage, "{row}");
    }
    let of_layout = place.json(&["--list"], &["one", "three"]);
    assert_eq!(digests(&of_layout["kept"]), digests_of([&one, &three]));
    fs::remove_file(&garbage).unwrap();
    let of_layout = place.json(&["--list"], &[]);
    assert_eq!(of_layout["missing"], json!(digests_of([&three])));
    let text = stdout(&place.index(&["--list"], &[]));
    assert!(
        text.contains("nothing is kept") && text.contains(" ago"),
        "{text}"
    );

    let dropped = place.json(&["--drop"], &["nope"]);
    assert_eq!(dropped["dropped"], json!([]), "a wrong name drops nothing");
    let dropped = place.json(&["--drop"], &["one"]);
    assert_eq!(digests(&dropped["dropped"]), digests_of([&one]));
    assert!(!place.toc(&one).exists() && place.toc(&two).exists());
    fs::write(&garbage, "garbage").unwrap();
    let dropped = json_of(&of_cache("--drop"));
    assert_eq!(digests(&dropped["dropped"]), digests_of([&two, &three]));
    let left = names(&place.cache().join("toc"));
    assert_eq!(left, ["notes.txt"], "what is not ours stays");
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn listing_counts_as_no_use() {
    let place = Place::new();
    let layer = file(&place.layout, Compression::Gzip, "1");
    place
        .layout
        .add_ref("one", &place.layout.image(std::slice::from_ref(&layer)));
    assert!(place.index(&[], &[]).status.success());
    let long_ago =
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let times = fs::FileTimes::new()
        .set_accessed(long_ago)
        .set_modified(long_ago);
    fs::File::open(place.toc(&layer))
        .unwrap()
        .set_times(times)
        .unwrap();
    for _ in 0..2 {
        let list = place.json(&["--list"], &[]);
        assert_eq!(list["kept"][0]["used"], "2001-09-09T01:46:40Z", "{list}");
        assert_eq!(list["kept"][0]["built"], "2001-09-09T01:46:40Z", "{list}");
    }
    assert!(place.index(&[], &[]).status.success());
    let list = place.json(&["--list"], &[]);
    assert_ne!(
        list["kept"][0]["used"], "2001-09-09T01:46:40Z",
        "that was a use"
    );
    assert_eq!(
        list["kept"][0]["built"], "2001-09-09T01:46:40Z",
        "and made nothing"
    );
}

#[test]
fn a_limit_that_is_too_small_is_told() {
    let place = Place::new();
    for number in 0..10 {
        let layer = file(&place.layout, Compression::Gzip, &number.to_string());
        place
            .layout
            .add_ref(&format!("r{number}"), &place.layout.image(&[layer]));
    }
    let output = place.index(&["--cache-size", "2000"], &[]);
    assert_told("some fit", &output, 1, "--cache-size");
    let output = place.index(&["--cache-size", "10"], &["r1"]);
    assert_told("none fits", &output, 4, "over the limit of 10");
}
