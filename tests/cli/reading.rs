//! `ls`, `cat` and `inspect`: what a mount would show, without one.

use serde_json::Value;

use super::common::{Compression, Damage, TestLayout, digest_of, tar_of};
use super::{assert_told, ocifs, stderr, stdout};

const FILES: [(&str, &[u8]); 2] = [("etc/motd", b"hello\n"), ("etc/name", b"sample\n")];

/// A layout with an image of two layers under two names, and one that is broken.
struct Sample {
    layout: TestLayout,
    image: Value,
}

impl Sample {
    fn new() -> Self {
        let layout = TestLayout::new();
        let base = layout.layer(Compression::Gzip, &FILES);
        let upper = layout.layer(Compression::Zstd, &[("upper", b"2")]);
        let image = layout.image(&[base, upper]);
        layout.add_refs(["app:1", "example.org/tools/app:1"], &image);
        let lost = layout.image(&[layout.layer(Compression::None, &[("x", b"lost")])]);
        layout.damage(&lost, Damage::Missing);
        layout.add_ref("lost:1", &lost);
        Self { layout, image }
    }

    fn path(&self) -> &str {
        self.layout.path().to_str().unwrap()
    }

    fn ocifs(&self, command: &str, arguments: &[&str]) -> std::process::Output {
        let cache = self.layout.path().with_extension("cache");
        let cache = cache.to_str().unwrap();
        let mut all = vec![command, "--cache-dir", cache, self.path()];
        all.extend(arguments);
        let output = ocifs(&all);
        std::fs::remove_dir_all(cache).ok();
        output
    }

    fn json(&self, command: &str, arguments: &[&str]) -> Value {
        let output = self.ocifs(command, &[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{command}: {error}: {}", stderr(&output)))
    }
}

#[test]
fn ls_shows_names() {
    let sample = Sample::new();
    let rows: [(&[&str], &str); 5] = [
        (&[], "app:1\nexample.org/tools/app:1\nlost:1\n"),
        (&["/"], "app:1\nexample.org\nlost:1\n"),
        (&["example.org/tools"], "app:1\n"),
        (
            &["app:1"],
            "config.json\nexport\nlayers\nmanifest.json\nreferrers\nrootfs\n",
        ),
        (
            &["app:1/layers"],
            "00\n00.tar\n00.tar.gz\n01\n01.tar\n01.tar.zst\n",
        ),
    ];
    for (arguments, expected) in rows {
        let output = sample.ocifs("ls", arguments);
        let mut lines: Vec<&str> = expected.lines().collect();
        let shown = stdout(&output);
        let mut found: Vec<&str> = shown.lines().filter(|line| *line != "incoming").collect();
        lines.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, lines, "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn ls_as_json_names_the_layer_digests() {
    let sample = Sample::new();
    let listing = sample.json("ls", &["app:1/layers"]);
    let first = &listing.as_array().unwrap()[1];
    assert_eq!(first["name"], "00.tar");
    assert_eq!(first["kind"], "file");
    let manifest = std::fs::read(sample.layout.blob_path(&sample.image)).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(first["digest"], manifest["layers"][0]["digest"]);
}

#[test]
fn cat_prints_the_very_bytes() {
    let sample = Sample::new();
    let manifest = std::fs::read(sample.layout.blob_path(&sample.image)).unwrap();
    let output = sample.ocifs("cat", &["app:1/manifest.json"]);
    assert_eq!(output.stdout, manifest);
    let output = sample.ocifs("cat", &["app:1/layers/00.tar"]);
    assert_eq!(
        output.stdout,
        tar_of(&FILES),
        "decoded: {}",
        stderr(&output)
    );
    let output = sample.ocifs("cat", &["app:1/layers/00.tar.gz"]);
    assert_eq!(
        output.stdout[..2],
        [0x1f, 0x8b],
        "through the link, as it is stored"
    );
    let twice = sample.ocifs("cat", &["app:1/manifest.json", "app:1/manifest.json"]);
    assert_eq!(twice.stdout, [&manifest[..], &manifest].concat());
}

#[test]
fn inspect_describes_an_image() {
    let sample = Sample::new();
    let image = sample.json("inspect", &["app:1"]);
    assert_eq!(image["digest"], digest_of(&sample.image).as_str());
    let layers = image["manifest"]["layers"].as_array().unwrap();
    let compressions: Vec<_> = layers.iter().map(|layer| &layer["compression"]).collect();
    assert_eq!(compressions, ["gzip", "zstd"]);
    let text = stdout(&sample.ocifs("inspect", &["app:1"]));
    assert!(text.contains(digest_of(&sample.image).as_str()), "{text}");
    let layout = sample.json("inspect", &[]);
    assert_eq!(layout["entries"], 3);
    assert!(
        !layout["problems"].as_array().unwrap().is_empty(),
        "lost:1 is named"
    );
}

#[test]
fn what_is_missing_or_damaged_is_said() {
    let sample = Sample::new();
    let output = sample.ocifs("cat", &["lost:1/manifest.json"]);
    assert_told("missing", &output, 1, "sha256:");
    sample.layout.damage(&sample.image, Damage::FlippedBit);
    let output = sample.ocifs("cat", &["app:1/manifest.json"]);
    assert_eq!(
        output.status.code(),
        Some(3),
        "damaged: {}",
        stderr(&output)
    );
    assert!(output.stdout.is_empty(), "no wrong byte is printed");
}

#[test]
fn the_worst_of_several_failures_is_the_exit_status() {
    let sample = Sample::new();
    let bad = sample
        .layout
        .image(&[sample.layout.layer(Compression::Gzip, &[("y", b"bad")])]);
    sample.layout.damage(&bad, Damage::FlippedBit);
    sample.layout.add_ref("bad:1", &bad);
    let (lost, bad) = ("lost:1/manifest.json", "bad:1/manifest.json");
    let good = "app:1/manifest.json";
    let rows: [(&[&str], i32); 6] = [
        (&[good, good], 0),
        (&[lost, good], 1),
        (&[lost, bad], 3),
        (&[bad, lost], 3),
        (&["app:1", lost], 2),
        (&[lost, good, bad, "nope", "app:1"], 3),
    ];
    for (paths, status) in rows {
        let output = sample.ocifs("cat", paths);
        let code = output.status.code();
        assert_eq!(code, Some(status), "{paths:?}: {}", stderr(&output));
        let printed = paths.contains(&good);
        assert_eq!(
            !output.stdout.is_empty(),
            printed,
            "{paths:?}: the rest goes on"
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sample = Sample::new();
    let script = format!(
        "set -o pipefail; '{}' cat --index off '{}' app:1/layers/00.tar | head -c 1 >/dev/null",
        super::OCIFS,
        sample.path()
    );
    let output = super::common::run("bash", &["-c", &script]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn what_is_about_an_image_is_told() {
    let sample = Sample::new();
    let layout = &sample.layout;
    let before = sample.json("inspect", &["app:1"]);
    assert_eq!(before["referrers"], serde_json::json!([]));
    let sbom = layout.artifact(
        "application/spdx+json",
        "sbom.json",
        b"{}",
        Some(&sample.image),
    );
    layout.add_entry(&sbom);
    let image = sample.json("inspect", &["app:1"]);
    assert_eq!(
        image["referrers"],
        serde_json::json!([{
            "artifact_type": "application/spdx+json",
            "digest": sbom["digest"],
            "size": sbom["size"],
            "media_type": sbom["mediaType"],
        }])
    );
    let text = stdout(&sample.ocifs("inspect", &["app:1"]));
    let digest = sbom["digest"].as_str().unwrap();
    let line = text.lines().find(|line| line.contains(digest)).unwrap();
    assert!(line.contains("application/spdx+json"), "{text}");
    let directory = "app:1/referrers/application%2Fspdx+json";
    assert_eq!(
        stdout(&sample.ocifs("ls", &[directory])),
        format!("{digest}\n")
    );
    let path = format!("{directory}/{digest}/files/sbom.json");
    assert_eq!(sample.ocifs("cat", &[&path]).stdout, b"{}");
    let about = sample.json("inspect", &[digest]);
    assert_eq!(about["manifest"]["subject"], sample.image["digest"]);
}
