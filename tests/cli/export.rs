//! `export`: what is written, what is said about it, and that no half of it is left.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ocifs::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::{
    Compression, Damage, TestLayout, digest_of, host_architecture, run_ok, verify_layout,
};
use super::{OCIFS, assert_told, ocifs, stderr, stdout};

/// A layout with an image, one for two platforms, an artifact and one that lacks a layer.
struct Sample {
    layout: TestLayout,
    multi: Value,
    other: Value,
    out: TempDir,
}

impl Sample {
    fn new() -> Self {
        let layout = TestLayout::new();
        let layer = layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]);
        let image = layout.image(std::slice::from_ref(&layer));
        layout.add_refs(["app:1", "ghcr.io/org/app:1"], &image);
        let own = layout.image_for(&format!("linux/{}", host_architecture()), &[layer]);
        let other = layout.layer(Compression::Zstd, &[("other", b"1")]);
        let other = layout.image_for("linux/s390x", &[other]);
        let multi = layout.image_index(&[own, other.clone()]);
        layout.add_ref("multi:1", &multi);
        layout.add_ref(
            "notes",
            &layout.artifact("text/plain", "notes", b"hello\n", None),
        );
        let lost = layout.layer(Compression::Gzip, &[("lost", b"1")]);
        layout.add_ref("lost", &layout.image(std::slice::from_ref(&lost)));
        layout.damage(&lost.descriptor, Damage::Missing);
        let bad = layout.layer(Compression::Gzip, &[("bad", b"1")]);
        layout.add_ref("bad", &layout.image(std::slice::from_ref(&bad)));
        layout.damage(&bad.descriptor, Damage::FlippedBit);
        Self {
            layout,
            multi,
            other,
            out: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> &str {
        self.layout.path().to_str().unwrap()
    }

    fn out(&self, name: &str) -> PathBuf {
        self.out.path().join(name)
    }

    /// Exports to a file.
    fn export(&self, arguments: &[&str], name: &str) -> Output {
        let out = self.out(name);
        let all = [
            &["export", self.path()],
            arguments,
            &["-o", out.to_str().unwrap()],
        ];
        ocifs(&all.concat())
    }

    /// The names of all files where something was exported to.
    fn written(&self) -> Vec<String> {
        let entries = fs::read_dir(self.out.path()).unwrap();
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }
}

/// A layout with what an archive brings.
fn imported(archive: &Path) -> TestLayout {
    let layout = TestLayout::new();
    let output = ocifs(&[
        "import",
        layout.path().to_str().unwrap(),
        archive.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    verify_layout(layout.path());
    layout
}

fn named(layout: &TestLayout) -> Vec<(String, Digest)> {
    let name = |entry: &Value| {
        let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str();
        (name.unwrap_or_default().to_owned(), digest_of(entry))
    };
    layout.entries().iter().map(name).collect()
}

#[test]
fn several_images_make_one_archive() {
    let sample = Sample::new();
    let output = sample.export(
        &["app:1", "multi:1", "ghcr.io/org/app:1", "notes"],
        "all.tar",
    );
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(lines[0].starts_with("app:1  sha256:"), "{text}");
    assert!(lines[4].contains("oci-archive, 10 blobs"), "{text}");
    assert_eq!(sample.written(), ["all.tar"]);
    let mode = fs::metadata(sample.out("all.tar"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o600, 0o600);
    assert_ne!(mode & 0o777, 0o600, "others may read it, as any new file");
    let layout = imported(&sample.out("all.tar"));
    let expected: Vec<_> = named(&sample.layout)
        .into_iter()
        .filter(|(name, _)| !matches!(name.as_str(), "lost" | "bad"))
        .collect();
    assert_eq!(named(&layout), expected);
}

#[test]
fn the_platform_is_chosen() {
    let sample = Sample::new();
    let rows: &[(&str, &[&str], &Value)] = &[
        ("all.tar", &["multi:1"], &sample.multi),
        (
            "one.tar",
            &["multi:1", "--platform", "linux/s390x"],
            &sample.other,
        ),
        (
            "docker.tar",
            &["multi:1", "--platform", "linux/s390x", "--format", "docker"],
            &sample.other,
        ),
        (
            "path.tar",
            &["multi:1/platforms/linux-s390x"],
            &sample.other,
        ),
    ];
    for (name, arguments, expected) in rows {
        let output = sample.export(arguments, name);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let layout = imported(&sample.out(name));
        let expected = ("multi:1".to_owned(), digest_of(expected));
        assert_eq!(named(&layout), [expected], "{name}");
    }
    let digest = digest_of(&sample.other);
    let output = sample.export(&[digest.as_str()], "digest.tar");
    assert!(output.status.success(), "{}", stderr(&output));
    let expected = ("digest".to_owned(), digest);
    assert_eq!(
        named(&imported(&sample.out("digest.tar"))),
        [expected],
        "it has no name"
    );
}

#[test]
fn json_says_it_all() {
    let sample = Sample::new();
    let output = sample.export(&["multi:1", "--format", "docker", "--json"], "a.tar");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let size = fs::metadata(sample.out("a.tar")).unwrap().len();
    assert_eq!(report["format"], "docker-archive");
    assert_eq!(report["size"], json!(size));
    assert_eq!(report["file"], json!(sample.out("a.tar")));
    assert_eq!(report["images"][0]["ref"], "multi:1");
    assert_ne!(
        report["images"][0]["digest"], sample.multi["digest"],
        "one platform"
    );
    assert_eq!(report["blobs"].as_array().map(Vec::len), Some(3));
    assert_eq!(report["leftOut"], json!([]));
    sample.layout.damage(&sample.other, Damage::Missing);
    let output = sample.export(&["multi:1", "--json"], "b.tar");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["leftOut"], json!([sample.other["digest"]]));
    assert!(stderr(&output).contains("left out"), "{}", stderr(&output));
}

#[test]
fn exit_status() {
    let sample = Sample::new();
    let rows: &[(&str, &[&str], i32, &str)] = &[
        ("no ref", &[], 2, "REF"),
        ("no such ref", &["nothing"], 1, "nothing"),
        ("no image", &["app:1/layers"], 1, "no image"),
        ("a file", &["app:1/config.json"], 1, "no image"),
        (
            "another platform",
            &["multi:1", "--platform", "linux/arm"],
            1,
            "no image for",
        ),
        (
            "no image for docker",
            &["notes", "--format", "docker"],
            1,
            "EXPORT_NOT_AN_IMAGE",
        ),
        ("no such format", &["app:1", "--format", "zip"], 2, "zip"),
        ("a missing layer", &["app:1", "lost"], 1, "BLOB_MISSING"),
        ("a damaged layer", &["app:1", "bad"], 3, "BLOB_DIGEST"),
    ];
    for (name, arguments, status, words) in rows {
        let output = sample.export(arguments, "a.tar");
        assert_told(name, &output, *status, words);
        assert!(
            sample.written().is_empty(),
            "{name}: {:?}",
            sample.written()
        );
    }
    let nowhere = [
        "export",
        sample.path(),
        "app:1",
        "-o",
        "/no/such/directory/a.tar",
    ];
    let output = ocifs(&nowhere);
    assert_told("nowhere", &output, 4, "/no/such/directory");
}

#[test]
fn a_file_is_replaced_by_a_whole_one_or_stays() {
    let sample = Sample::new();
    fs::write(sample.out("a.tar"), "before").unwrap();
    symlink("a.tar", sample.out("link.tar")).unwrap();
    assert_eq!(sample.export(&["bad"], "a.tar").status.code(), Some(3));
    assert_eq!(fs::read(sample.out("a.tar")).unwrap(), b"before");
    assert!(sample.export(&["app:1"], "link.tar").status.success());
    assert_eq!(sample.written(), ["a.tar", "link.tar"]);
    assert!(sample.out("link.tar").is_symlink(), "a link stays");
    imported(&sample.out("a.tar"));
}

#[test]
fn standard_output_and_pipes() {
    let sample = Sample::new();
    assert!(sample.export(&["app:1"], "a.tar").status.success());
    let expected = fs::read(sample.out("a.tar")).unwrap();
    let printed = ocifs(&["export", sample.path(), "app:1", "-o", "-"]);
    assert!(printed.status.success(), "{}", stderr(&printed));
    assert!(printed.stdout == expected && printed.stderr.is_empty());
    let both = ocifs(&["export", sample.path(), "app:1", "-o", "-", "--json"]);
    assert_eq!(both.status.code(), Some(2), "{}", stderr(&both));
    let damaged = ocifs(&["export", sample.path(), "bad", "-o", "-"]);
    assert_eq!(damaged.status.code(), Some(3), "{}", stderr(&damaged));

    let pipe = sample.out("pipe");
    run_ok("mkfifo", &[&pipe]);
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::read(pipe).unwrap())
    };
    assert!(sample.export(&["app:1"], "pipe").status.success());
    assert!(reader.join().unwrap() == expected);
    assert!(
        fs::metadata(&pipe).unwrap().file_type().is_fifo(),
        "it stays a pipe"
    );
}

/// A large layout, so that there is time to do something to who exports it.
fn large() -> Sample {
    let sample = Sample::new();
    let bytes = vec![7; 64 << 20];
    let layers: Vec<_> = (0..4_u8)
        .map(|number| {
            let files: [(&str, &[u8]); 2] = [("large", &bytes), ("number", &[number])];
            sample.layout.layer(Compression::None, &files)
        })
        .collect();
    sample
        .layout
        .add_ref("large", &sample.layout.image(&layers));
    sample
}

#[test]
fn who_is_interrupted_leaves_nothing() {
    let sample = large();
    let out = sample.out("a.tar");
    let mut child = Command::new(OCIFS)
        .args([
            "export",
            sample.path(),
            "large",
            "-o",
            out.to_str().unwrap(),
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while sample.written().is_empty() {
        std::thread::yield_now();
    }
    run_ok("kill", &["-TERM", &child.id().to_string()]);
    let status = child.wait().unwrap();
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert!(sample.written().is_empty(), "{:?}", sample.written());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sample = large();
    let script = format!(
        "set -o pipefail; {OCIFS} export {} large -o - | head -c 100 > /dev/null",
        sample.path()
    );
    run_ok("bash", &["-c", &script]);
}
