//! `import`: what is said about what comes in, and what is refused.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::{
    Compression, DockerStore, Fingerprint, TestLayout, compress, run_ok, tar_of, verify_layout,
};
use super::{OCIFS, assert_told, ocifs, stderr, stdout};

/// A layout, and files to bring in.
struct Sample {
    layout: TestLayout,
    files: TempDir,
}

impl Sample {
    fn new() -> Self {
        Self {
            layout: TestLayout::new(),
            files: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.files.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn import(&self, arguments: &[&str]) -> Output {
        let layout = self.layout.path().to_str().unwrap();
        let output = ocifs(&[&["import", layout], arguments].concat());
        verify_layout(self.layout.path());
        output
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.import(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = self.layout.entries();
        let name = |entry: &Value| {
            let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str();
            name.unwrap_or_default().to_owned()
        };
        entries.iter().map(name).collect()
    }
}

fn golden(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    path.to_str().unwrap().to_owned()
}

#[test]
fn files_become_what_they_are() {
    let sample = Sample::new();
    let layer = compress(Compression::Gzip, &tar_of(&[("etc/motd", b"hello\n")]));
    let files = [
        golden("skopeo-docker-archive.tar.gz"),
        golden("skopeo-oci-archive.tar"),
        sample.file("base%2Flayer.tar.gz", &layer),
        sample.file("my notes.txt", b"hello\n"),
    ];
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let output = sample.import(&files);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
    let names = [
        "docker.io/library/app:1",
        "app:1",
        "base/layer",
        "my-notes.txt",
    ];
    assert_eq!(sample.names(), names);
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    let kinds = ["docker-archive", "oci-archive", "layer", "artifact"];
    assert_eq!(lines.len(), 4, "{text}");
    for ((line, name), kind) in lines.iter().zip(names).zip(kinds) {
        assert!(line.starts_with(name) && line.contains(kind), "{line}");
        assert!(line.contains("blobs new"), "{line}");
    }
    let output = sample.import(&files);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.lines().all(|line| line.ends_with("nothing new")),
        "{text}"
    );
    assert_eq!(sample.names(), names);
}

#[test]
fn json_says_it_all() {
    let sample = Sample::new();
    let good = sample.file("notes", b"hello\n");
    let bad = sample.file("bad.tar", &tar_of(&[("a", &[1; 1000])])[..600]);
    let reports = sample.json(&[&good, &bad]);
    let first = &reports[0];
    assert_eq!(first["file"], json!(good));
    assert_eq!(first["kind"], "artifact");
    assert_eq!(first["images"][0]["ref"], "notes");
    assert_eq!(
        first["images"][0]["digest"],
        sample.layout.entries()[0]["digest"]
    );
    let blobs = first["blobs"].as_array().unwrap();
    assert_eq!(blobs.len(), 3);
    assert!(blobs.iter().all(|blob| blob["new"] == json!(true)));
    assert_eq!(reports[1]["error"]["code"], "TAR_TRUNCATED");
    assert_eq!(reports.as_array().map(Vec::len), Some(2));
}

#[test]
fn exit_status() {
    let sample = Sample::new();
    let text = sample.file("notes", b"hello\n");
    let other = sample.file("other", b"other\n");
    let bad = sample.file("bad.tar", &tar_of(&[("a", &[1; 1000])])[..600]);
    let percent = sample.file("50%", b"x");
    let missing = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "x", "digest": format!("sha256:{}", "0".repeat(64)), "size": 1},
        "layers": [],
    });
    let missing = sample.file("missing.json", missing.to_string().as_bytes());
    let lying = sample.file(&format!("sha256:{}", "0".repeat(64)), b"x");
    let dir = sample.files.path().to_str().unwrap();
    let rows: &[(&str, &[&str], i32, &str)] = &[
        ("no file", &[], 2, "SOURCE"),
        ("no such file", &["/no/such/file"], 1, "does not exist"),
        ("a directory", &[dir], 2, "directory"),
        ("no name", &["-"], 2, "--name"),
        (
            "one name for two",
            &[&text, &other, "--name", "x"],
            2,
            "--name",
        ),
        (
            "a name that is none",
            &[&text, "--name", "a b"],
            2,
            "ref name",
        ),
        ("a file name that is none", &[&percent], 2, "--name"),
        ("half a tar", &[&bad], 3, "TAR_TRUNCATED"),
        ("a blob is missing", &[&missing], 1, "COMMIT_INCOMPLETE"),
        ("another digest", &[&lying], 3, "BLOB_DIGEST"),
    ];
    let before = Fingerprint::of(sample.layout.path());
    for (name, arguments, status, words) in rows {
        let output = sample.import(arguments);
        assert_told(name, &output, *status, words);
        assert_eq!(before, Fingerprint::of(sample.layout.path()), "{name}");
    }
}

/// Layouts are sources, whole or by one of their names; so a layout is made of another.
#[test]
fn layouts_are_sources_too() {
    let sample = Sample::new();
    let source = TestLayout::new();
    let layers = [1, 2].map(|n: u8| source.layer(Compression::Gzip, &[("a", &[n])]));
    let images = layers.map(|layer| source.image(&[layer]));
    source.add_ref("app:1", &images[0]);
    source.add_ref("app:2", &images[1]);
    let dir = source.path().to_str().unwrap();
    let one = format!("{dir}:app:1");
    let output = sample.import(&[&one]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("layout, 3 of 3 blobs new"),
        "{}",
        stdout(&output)
    );
    assert_eq!(sample.names(), ["app:1"]);
    let by_digest = format!("{dir}:{}", images[1]["digest"].as_str().unwrap());
    let output = sample.import(&[&by_digest, "--name", "second"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = sample.import(&[dir]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(sample.names(), ["app:1", "second", "app:2"]);
    assert!(
        stdout(&output).contains("nothing new"),
        "{}",
        stdout(&output)
    );

    let rows: &[(&str, &[&str], i32, &str)] = &[
        (
            "no such ref",
            &[&format!("{dir}:none")],
            1,
            "no ref \"none\"",
        ),
        ("one name for two", &[dir, "--name", "x"], 2, "--name"),
        (
            "copies of nothing",
            &[dir, "--copy-shared"],
            2,
            "--shared-blobs",
        ),
    ];
    for (name, arguments, status, words) in rows {
        let output = sample.import(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(*status), "{name}: {text}");
        assert!(text.contains(words), "{name}: {text}");
    }

    // An unnamed one is called as its directory.
    let unnamed = sample.files.path().join("job");
    let new = sample.files.path().join("new/layout");
    source.write_entries(&images[..1]);
    run_ok("cp", &["-r", dir, unnamed.to_str().unwrap()]);
    let (job, new) = (unnamed.to_str().unwrap(), new.to_str().unwrap());
    let missing = ocifs(&["import", new, job]);
    assert!(!missing.status.success(), "{}", stderr(&missing));
    for _ in 0..2 {
        let output = ocifs(&["import", "--create", new, job]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    verify_layout(new.as_ref());
    let output = ocifs(&["ls", new]);
    assert!(stdout(&output).starts_with("job"), "{}", stdout(&output));
}

/// With shared directories only the index is written; a name is given, and the image read.
#[test]
fn shared_directories() {
    let source = TestLayout::new();
    let layer = source.layer(Compression::Gzip, &[("etc/motd", b"hello\n")]);
    source.add_ref("app:1", &source.image(&[layer]));
    let sample = Sample::new();
    let shared = source.path().join("blobs");
    let cache = sample.files.path().join("cache");
    let archive = sample.files.path().join("app.tar");
    let paths = [
        source.path(),
        sample.layout.path(),
        &shared,
        &cache,
        &archive,
    ];
    let [from, to, shared, cache, archive] = paths.map(|path| path.to_str().unwrap());
    let run = |arguments: &[&str]| {
        let output = ocifs(&[arguments, &["--shared-blobs", shared]].concat());
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        stdout(&output)
    };
    let read = |command: &str, path: &str| run(&[command, to, path, "--cache-dir", cache]);
    let count = || {
        let blobs = fs::read_dir(sample.layout.path().join("blobs/sha256"));
        blobs.unwrap().count()
    };
    assert!(run(&["import", to, from]).contains("nothing new"));
    run(&["tag", to, "app:1", "app:2"]);
    assert_eq!(count(), 0);
    assert_eq!(read("cat", "app:2/rootfs/etc/motd"), "hello\n");
    assert!(read("ls", "app:2/rootfs/etc").contains("motd"));
    assert!(read("inspect", "app:2").contains("sha256:"));
    read("index", "app:2");
    run(&["export", to, "app:2", "-o", archive]);
    assert!(fs::metadata(archive).unwrap().len() > 1024);
    // What is beside an image that is only there is about it.
    let sbom = sample.file("sbom.json", b"{}");
    let attach = ["import", to, sbom.as_str(), "--subject", "app:1"];
    assert_eq!(ocifs(&attach).status.code(), Some(1));
    run(&attach);
    let entry = sample.layout.entries().pop().unwrap();
    let manifest = fs::read(sample.layout.blob_path(&entry)).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["subject"]["digest"], source.entries()[0]["digest"]);
    let own = count();
    // Without the directory there is nothing to name.
    assert!(!ocifs(&["tag", to, "app:1", "app:3"]).status.success());
    run(&["import", to, from, "--copy-shared"]);
    assert_eq!(count(), own + 3);
    verify_layout(sample.layout.path());
}

#[test]
fn refs_move_only_when_that_is_allowed() {
    let sample = Sample::new();
    let (one, two) = (sample.file("one", b"1"), sample.file("two", b"2"));
    assert!(sample.import(&[&one, "--name", "app:1"]).status.success());
    let before = Fingerprint::of(sample.layout.path());
    let output = sample.import(&[&two, "--name", "app:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("--allow-delete"),
        "{}",
        stderr(&output)
    );
    assert_eq!(before, Fingerprint::of(sample.layout.path()));
    let same = sample.import(&[&one, "--name", "app:1"]);
    assert!(same.status.success(), "{}", stderr(&same));
    let moved = sample.import(&[&two, "--name", "app:1", "--allow-delete"]);
    assert!(moved.status.success(), "{}", stderr(&moved));
    assert_eq!(sample.names(), ["app:1"]);
}

#[test]
fn one_bad_file_hinders_no_other() {
    let sample = Sample::new();
    let bad = sample.file("bad.tar", &tar_of(&[("a", &[1; 1000])])[..600]);
    let good = sample.file("good", b"1");
    let output = sample.import(&[&bad, &good]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(sample.names(), ["good"]);
}

/// Standard input and pipes can be read once, whatever comes out of them.
#[test]
fn what_can_be_read_only_once() {
    let sample = Sample::new();
    let layout = sample.layout.path();
    for (file, name) in [
        ("skopeo-docker-archive.tar.gz", "a"),
        ("v7.tar", "b/v7"),
        ("MADE.md", "c"),
    ] {
        let output = Command::new(OCIFS)
            .arg("import")
            .arg(layout)
            .args(["-", "--name", name])
            .stdin(Stdio::from(File::open(golden(file)).unwrap()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{file}: {}", stderr(&output));
    }
    assert_eq!(sample.names(), ["docker.io/library/app:1", "b/v7", "c"]);
    let script = format!(
        "{OCIFS} import {} --name piped <(cat {})",
        layout.display(),
        golden("v7.tar")
    );
    run_ok("bash", &["-c", &script]);
    assert_eq!(sample.names().last().map(String::as_str), Some("piped"));
    verify_layout(layout);
}

#[test]
fn files_become_artifacts_about_an_image() {
    let sample = Sample::new();
    let layer = sample.layout.layer(Compression::Gzip, &[("a", b"1")]);
    let image = sample.layout.image_for("linux/amd64", &[layer]);
    let index = sample.layout.image_index(std::slice::from_ref(&image));
    sample.layout.add_ref("app:1", &image);
    sample.layout.add_ref("multi/app", &index);
    sample.layout.add_ref(
        "bad",
        &json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", "0".repeat(64)),
            "size": 7,
        }),
    );
    let (sbom, other) = (sample.file("sbom.json", b"{}"), sample.file("other", b"x"));
    let spdx = "application/spdx+json";
    let import = |arguments: &[&str]| {
        let layout = sample.layout.path().to_str().unwrap();
        ocifs(&[&["import", layout], arguments].concat())
    };
    let newest = || {
        let entry = sample.layout.entries().pop().unwrap();
        let manifest = fs::read(sample.layout.blob_path(&entry)).unwrap();
        (entry, serde_json::from_slice::<Value>(&manifest).unwrap())
    };
    let output = import(&[&sbom, "--subject", "app:1", "--artifact-type", spdx]);
    assert!(output.status.success(), "{}", stderr(&output));
    let (entry, manifest) = newest();
    assert_eq!(entry["artifactType"], spdx);
    assert_eq!(manifest["subject"]["digest"], image["digest"]);
    assert_eq!(manifest["layers"][0]["mediaType"], spdx);
    assert!(stdout(&output).starts_with(entry["digest"].as_str().unwrap()));
    // By its digest it is the same.
    let count = sample.layout.entries().len();
    let digest = image["digest"].as_str().unwrap();
    let again = import(&[&sbom, "--subject", digest, "--artifact-type", spdx]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(sample.layout.entries().len(), count);
    let output = import(&[&sbom, &other, "--subject", "multi/app", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.as_array().unwrap().len(), 2, "{}", stderr(&output));
    let (entry, manifest) = newest();
    assert_eq!(manifest["subject"]["digest"], index["digest"]);
    assert_eq!(entry["artifactType"], "application/vnd.unknown.artifact.v1");

    let before = Fingerprint::of(sample.layout.path());
    let rows: [(&str, &[&str], i32); 8] = [
        ("a directory", &["/", "--subject", "app:1"], 2),
        ("no such ref", &[&sbom, "--subject", "none"], 1),
        ("no image", &[&sbom, "--subject", "multi"], 1),
        (
            "a manifest that is missing",
            &[&sbom, "--subject", "bad"],
            1,
        ),
        (
            "a name as well",
            &[&sbom, "--subject", "app:1", "--name", "x"],
            2,
        ),
        ("a type of nothing", &[&sbom, "--artifact-type", spdx], 2),
        (
            "no type",
            &[&sbom, "--subject", "app:1", "--artifact-type", "spdx"],
            2,
        ),
        ("no title", &["-", "--subject", "app:1"], 2),
    ];
    for (name, arguments, status) in rows {
        let output = import(arguments);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{name}: {}",
            stderr(&output)
        );
    }
    assert_eq!(before, Fingerprint::of(sample.layout.path()));
}

/// A store of Docker's with one image, `app:1`.
fn docker_store() -> (DockerStore, String) {
    let mut store = DockerStore::new();
    let layer = tar_of(&[("etc/motd", b"hello\n")]);
    let image = store.image(&[&layer]);
    store.name("app:1", &image.id);
    (store, image.id.to_string())
}

#[test]
fn images_come_out_of_dockers_store() {
    let (store, id) = docker_store();
    let root = store.path().to_str().unwrap();
    let sample = Sample::new();
    let before = Fingerprint::of(sample.layout.path());
    let dry = sample.import(&[
        "--docker-root",
        root,
        "--dry-run",
        "docker.io/library/app:1",
    ]);
    assert!(dry.status.success(), "{}", stderr(&dry));
    assert_eq!(Fingerprint::of(sample.layout.path()), before);
    assert_eq!(stdout(&dry).lines().count(), 4, "{}", stdout(&dry));

    let object = &sample.json(&["--docker-root", root, "app:1", &id[..20]])[0];
    assert_eq!(object["kind"], "docker-store");
    assert_eq!(object["file"], root);
    assert_eq!(object["dryRun"], false);
    assert_eq!(object["blobs"].as_array().map(Vec::len), Some(3));
    let digest = object["images"][0]["digest"].as_str().unwrap();
    assert!(stdout(&dry).starts_with(&format!("app:1  {digest}  docker-store, 3 of 3")));
    assert_eq!(sample.names(), ["app:1", ""]);

    let named = sample.import(&["--docker-root", root, "--name", "mine:2", &id]);
    assert!(stdout(&named).starts_with("mine:2  "), "{}", stdout(&named));
    let other = ["--compress", "zstd", "app:1"];
    let refused = sample.import(&[&["--docker-root", root], &other[..]].concat());
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--allow-delete moves it"));
    let moved = [&["--docker-root", root, "--allow-delete"], &other[..]].concat();
    assert!(sample.import(&moved).status.success());
}

#[test]
fn dockers_images_are_listed() {
    let (store, id) = docker_store();
    let root = store.path().to_str().unwrap();
    let list = ["import", "--docker-root", root, "--list"];
    let output = ocifs(&list);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), format!("app:1  {}  6 B\n", &id[..19]));
    let json = [&list[..], &["--json"]].concat();
    let listed: Value = serde_json::from_slice(&ocifs(&json).stdout).unwrap();
    let expected = json!([{"id": id, "names": ["app:1"], "digests": [], "size": 6}]);
    assert_eq!(listed, expected);

    let layers = store.path().join("image/overlay2/layerdb/sha256");
    fs::remove_dir_all(layers).unwrap();
    let output = ocifs(&list);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), format!("app:1  {}  damaged\n", &id[..19]));
    let error = &serde_json::from_slice::<Value>(&ocifs(&json).stdout).unwrap()[0]["error"];
    assert_eq!(error["code"], "DOCKER_INCOMPLETE");
}

#[test]
fn dockers_store_is_refused_with_reasons() {
    let (store, _) = docker_store();
    let root = store.path().to_str().unwrap();
    let sample = Sample::new();
    let before = Fingerprint::of(sample.layout.path());
    let layout = sample.layout.path().to_str().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    let missing = format!("{empty}/layout");
    let rows: [(&str, &[&str], i32, &str); 10] = [
        (
            "a dry run that makes a layout",
            &[
                "--docker-root",
                root,
                "--dry-run",
                "--create",
                &missing,
                "app:1",
            ],
            2,
            "--create",
        ),
        (
            "a list that makes a layout",
            &["--docker-root", root, "--list", "--create"],
            2,
            "--create",
        ),
        (
            "no store",
            &["--docker-root", empty, layout, "app:1"],
            1,
            "docker info",
        ),
        (
            "nowhere",
            &["--docker-root", "/no/such", layout, "app:1"],
            1,
            "/no/such",
        ),
        (
            "no image",
            &["--docker-root", root, layout, "app:2"],
            1,
            "--list",
        ),
        (
            "two of one name",
            &["--docker-root", root, "--name", "x", layout, "app:1", "app"],
            2,
            "--name is for one image",
        ),
        ("a list of what", &["--list"], 2, "--docker"),
        (
            "a trial of files",
            &["--dry-run", layout, "x"],
            2,
            "--docker",
        ),
        (
            "files are as they are",
            &["--compress", "zstd", layout, "x"],
            2,
            "--docker",
        ),
        ("no layout", &["--docker-root", root], 2, "LAYOUT"),
    ];
    for (name, arguments, status, part) in rows {
        let output = ocifs(&[&["import"], arguments].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{name}: {text}");
        assert!(text.contains(part), "{name}: {text}");
    }
    let changed = fs::read_dir(store.path().join("overlay2")).unwrap().next();
    let motd = changed.unwrap().unwrap().path().join("diff/etc/motd");
    fs::write(motd, "hollo\n").unwrap();
    let output = ocifs(&["import", "--docker-root", root, layout, "app:1"]);
    assert_eq!(output.status.code(), Some(3));
    let text = stderr(&output);
    assert!(
        text.contains("the file \"etc/motd\" has other bytes"),
        "{text}"
    );
    assert_eq!(Fingerprint::of(sample.layout.path()), before);
}
