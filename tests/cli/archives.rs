//! Archives where a layout is meant: what reads takes them, what writes says why not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ocifs::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::{Compression, Tarball, TestLayout, compress, digest_of, run, tar_of};
use super::{OCIFS, assert_told, ocifs, stderr, stdout};

/// What an old `docker save` writes of one image, in gzip.
struct Sample {
    dir: TempDir,
}

impl Sample {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sample = Self { dir };
        fs::write(sample.archive(), compress(Compression::Gzip, &docker())).unwrap();
        sample
    }

    fn archive(&self) -> PathBuf {
        self.path("image.tar.gz")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command on the archive, with a cache directory of its own.
    fn run(&self, command: &str, arguments: &[&str]) -> std::process::Output {
        let (archive, cache) = (self.archive(), self.path("cache"));
        let mut all = vec![command, "--cache-dir", text(&cache), text(&archive)];
        all.extend(arguments);
        ocifs(&all)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn docker() -> Vec<u8> {
    let layer = tar_of(&[("etc/", b""), ("etc/motd", b"hello\n")]);
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
    });
    let manifest = json!([{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["x/layer.tar"]}]);
    Tarball::new()
        .file("c.json", config.to_string())
        .dir("x/")
        .file("x/layer.tar", layer)
        .file("manifest.json", manifest.to_string())
        .finish()
}

#[test]
fn what_reads_takes_them() {
    let sample = Sample::new();
    let said = |command: &str, arguments: &[&str]| {
        let output = sample.run(command, arguments);
        assert!(output.status.success(), "{command}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{command}");
        stdout(&output)
    };
    assert_eq!(said("ls", &[]), "app:1\n");
    assert!(said("index", &[]).contains("1 read, 0 there already, 0 failed"));
    assert!(said("index", &[]).contains("0 read, 1 there already, 0 failed"));
    assert_eq!(said("ls", &["app:1/rootfs/etc"]), "motd\n");
    assert_eq!(said("cat", &["app:1/rootfs/etc/motd"]), "hello\n");
    let whole: Value = serde_json::from_str(&said("inspect", &["--json"])).unwrap();
    assert_eq!(whole["blobs"], 3, "{whole}");
    assert_eq!(whole["problems"], json!([]), "{whole}");
    let image: Value = serde_json::from_str(&said("inspect", &["--json", "app:1"])).unwrap();
    assert_eq!(image["problems"], json!([]), "{image}");
    // What is read of it stays where it is.
    let mut names: Vec<_> = fs::read_dir(sample.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["cache", "image.tar.gz"]);
}

/// The manifest that is made for an image of docker is the same wherever it is made.
#[test]
fn exported_and_imported_again() {
    let sample = Sample::new();
    let (archive, out) = (sample.archive(), sample.path("out.tar"));
    let layout = TestLayout::new();
    let output = ocifs(&["export", text(&archive), "app:1", "-o", text(&out)]);
    assert!(output.status.success(), "{}", stderr(&output));
    for file in [&archive, &out] {
        let output = ocifs(&["import", text(layout.path()), text(file)]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(layout.entries().len(), 1, "one and the same image");
}

/// An archive that lacks blobs is whole with the directory that has them.
#[test]
fn blobs_of_shared_directories() {
    let layout = TestLayout::new();
    let layer = layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]);
    let lost = layout.layer(Compression::Gzip, &[("lost", b"1")]);
    layout.add_ref("app:1", &layout.image(std::slice::from_ref(&layer)));
    layout.add_ref("lost", &layout.image(std::slice::from_ref(&lost)));
    let dir = tempfile::tempdir().unwrap();
    let [shared, nowhere] = ["shared", "nowhere"].map(|name| dir.path().join(name));
    fs::create_dir_all(shared.join("sha256")).unwrap();
    let digest = digest_of(&layer.descriptor);
    let moved = shared.join("sha256").join(digest.encoded());
    fs::rename(layout.blob_path(&layer.descriptor), moved).unwrap();
    fs::remove_file(layout.blob_path(&lost.descriptor)).unwrap();
    let archive = dir.path().join("archive.tar");
    let names = ["oci-layout", "index.json", "blobs"];
    let mut words = vec!["-cf", text(&archive), "-C", text(layout.path())];
    words.extend(names);
    assert!(run("tar", &words).status.success());
    let out = dir.path().join("out.tar");
    let rows: &[(&str, &[&str], i32, &str)] = &[
        (
            "without",
            &[
                "cat",
                "--index=off",
                text(&archive),
                "app:1/layers/00/etc/motd",
            ],
            1,
            "BLOB_MISSING",
        ),
        (
            "with",
            &[
                "cat",
                "--index=off",
                "--shared-blobs",
                text(&shared),
                text(&archive),
                "app:1/layers/00/etc/motd",
            ],
            0,
            "",
        ),
        (
            "lost",
            &[
                "cat",
                "--index=off",
                "--shared-blobs",
                text(&shared),
                text(&archive),
                "lost/layers/00/lost",
            ],
            1,
            "BLOB_MISSING",
        ),
        (
            "export",
            &[
                "export",
                "--shared-blobs",
                text(&shared),
                text(&archive),
                "app:1",
                "-o",
                text(&out),
            ],
            0,
            "",
        ),
        (
            "no such directory",
            &[
                "ls",
                "--index=off",
                "--shared-blobs",
                text(&nowhere),
                text(&archive),
            ],
            1,
            "nowhere",
        ),
    ];
    for (name, arguments, status, said) in rows {
        let output = ocifs(arguments);
        assert_told(name, &output, *status, said);
    }
    // What comes of that needs the directory no more.
    let output = ocifs(&["cat", "--index=off", text(&out), "app:1/layers/00/etc/motd"]);
    assert_eq!(stdout(&output), "hello\n", "{}", stderr(&output));
    let target = TestLayout::new();
    let output = ocifs(&["import", text(target.path()), text(&out)]);
    assert!(output.status.success(), "{}", stderr(&output));
    // Only the archive with all blobs can be brought in without it.
    let output = ocifs(&[
        "import",
        "--shared-blobs",
        text(&shared),
        text(target.path()),
        text(&archive),
    ]);
    assert_told(
        "without its directory",
        &output,
        1,
        &digest_of(&lost.descriptor).to_string(),
    );
}

#[test]
fn what_writes_says_why_not() {
    let sample = Sample::new();
    let (archive, here) = (sample.archive(), sample.path("here"));
    fs::create_dir(&here).unwrap();
    let (archive, here) = (text(&archive), text(&here));
    let rows: &[(&str, &[&str], i32, &str)] = &[
        (
            "tag",
            &["tag", archive, "app:1", "app:2"],
            2,
            "archives are only read",
        ),
        (
            "untag",
            &["untag", archive, "app:1"],
            2,
            "archives are only read",
        ),
        (
            "import",
            &["import", archive, archive],
            2,
            "archives are only read",
        ),
        (
            "a mount that deletes",
            &["mount", "--allow-delete", archive, here],
            2,
            "leave out --allow-delete",
        ),
    ];
    let before = fs::read(sample.archive()).unwrap();
    for (name, arguments, status, said) in rows {
        let output = ocifs(arguments);
        assert_told(name, &output, *status, said);
    }
    assert_eq!(fs::read(sample.archive()).unwrap(), before);
}

#[test]
fn what_is_no_archive_is_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.tar");
    let here = dir.path().join("here");
    fs::create_dir(&here).unwrap();
    let whole = docker();
    let cut = &whole[..2_000];
    let rows: &[(&str, &[u8], i32, &str)] = &[
        ("a text", &b"hello\n".repeat(100), 3, "[TAR_CHECKSUM]"),
        ("a layer", &tar_of(&[("a", b"1")]), 1, "[ARCHIVE_UNKNOWN]"),
        ("cut short", cut, 3, "[TAR_TRUNCATED]"),
        (
            "xz",
            b"\xfd7zXZ\0\0",
            1,
            "compression xz is not supported [COMPRESSION]",
        ),
    ];
    for (name, bytes, status, said) in rows {
        fs::write(&path, bytes).unwrap();
        let (file, cache) = (text(&path), dir.path().join("cache"));
        for arguments in [
            vec!["ls", "--cache-dir", text(&cache), file],
            vec!["mount", "--cache-dir", text(&cache), file, text(&here)],
        ] {
            let output = run(OCIFS, &arguments);
            let error = stderr(&output);
            assert_eq!(output.status.code(), Some(*status), "{name}: {error}");
            assert!(
                error.contains(said) && error.contains(file),
                "{name}: {error}"
            );
            assert_eq!(error.lines().count(), 1, "{name}: {error}");
        }
    }
}

/// A mount that waits for the first pass over an archive ends as soon as it is told to.
#[test]
fn who_waits_for_the_first_pass_can_be_interrupted() {
    for has_reader in [true, false] {
        interrupt_in_the_first_pass(has_reader);
    }
}

/// Whether anybody reads what it says makes no difference to whether it ends.
fn interrupt_in_the_first_pass(has_reader: bool) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (archive, here) = (root.join("huge.tar.gz"), root.join("here"));
    fs::create_dir(&here).unwrap();
    fs::write(&archive, b"\x1f\x8b\x08\0\0\0\0\0\0\xff").unwrap();
    // Holes cost nothing but the time to hash them, which is minutes.
    let file = fs::File::options().write(true).open(&archive).unwrap();
    file.set_len(100 << 30).unwrap();
    let cache = dir.path().join("cache");
    let mut child = Command::new(OCIFS)
        .args(["mount", "--foreground", "--cache-dir", text(&cache)])
        .args([&archive, &here])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let open_files = format!("/proc/{}/fd", child.id());
    let is_archive =
        |entry: fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|to| to == archive);
    let began = Instant::now();
    while !fs::read_dir(&open_files).unwrap().flatten().any(is_archive) {
        if began.elapsed() > Duration::from_secs(10) {
            child.kill().unwrap();
            panic!("it is not read");
        }
        thread::sleep(Duration::from_millis(5));
    }
    if !has_reader {
        drop(child.stderr.take());
    }
    run("kill", &["-INT", &child.id().to_string()]);
    let told = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if told.elapsed() > Duration::from_secs(5) {
            child.kill().unwrap();
            panic!("it goes on");
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let said = match has_reader {
        true => "ocifs: error: interrupted; nothing is mounted\n",
        false => "",
    };
    assert_eq!(stderr(&output), said);
}
