//! `files/` and `referrers/` through a mount: artifacts that are copied beside an image, as
//! coreutils make them and as other programs then read them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ocifs::oci::Digest;
use serde_json::Value;

use super::common::{
    Compression, Damage, MountOptions, Need, TestLayout, TestMount, digest_of, has, run, run_ok,
    verify_layout,
};
use super::sample::names;

const SPDX: &str = "application/spdx+json";
const SPDX_DIR: &str = "app:1/referrers/application%2Fspdx+json";

/// Another reading of what the image specification says of an artifact about an image, for a
/// layout and the digests of the artifact and the image.
const RULES: &str = r#"
import hashlib, json, re, sys

layout, artifact, subject = sys.argv[1:]
name = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
media_type = re.compile(f"{name}/{name}")

def blob(digest):
    algorithm, encoded = digest.split(":")
    with open(f"{layout}/blobs/{algorithm}/{encoded}", "rb") as file:
        bytes = file.read()
    assert hashlib.new(algorithm, bytes).hexdigest() == encoded, digest
    return bytes

def descriptor(value):
    assert media_type.fullmatch(value["mediaType"]), value
    assert isinstance(value["size"], int), value
    bytes = blob(value["digest"])
    assert len(bytes) == value["size"], value
    assert all(isinstance(text, str) for text in value.get("annotations", {}).values())
    return bytes

manifest = json.loads(blob(artifact))
assert manifest["schemaVersion"] == 2
assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
assert media_type.fullmatch(manifest["artifactType"])
assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
assert descriptor(manifest["config"]) == b"{}"
assert manifest["config"]["data"] == "e30="
assert len(manifest["layers"]) == 1
layer = manifest["layers"][0]
descriptor(layer)
assert layer["annotations"]["org.opencontainers.image.title"]
assert set(manifest["subject"]) == {"mediaType", "digest", "size"}
assert manifest["subject"]["digest"] == subject
about = json.loads(descriptor(manifest["subject"]))
assert about["mediaType"] == manifest["subject"]["mediaType"]
unknown = set(manifest) - {"schemaVersion", "mediaType", "artifactType", "config", "layers", "subject"}
assert not unknown, unknown
index = json.load(open(f"{layout}/index.json"))
entries = [entry for entry in index["manifests"] if entry["digest"] == artifact]
assert len(entries) == 1, entries
assert entries[0]["artifactType"] == manifest["artifactType"]
assert "annotations" not in entries[0]
descriptor(entries[0])
"#;

/// A layout with an image, a mount of it, and files to copy.
struct Sample {
    layout: TestLayout,
    image: Value,
    mount: TestMount,
    files: tempfile::TempDir,
}

impl Sample {
    fn new(options: impl FnOnce(MountOptions) -> MountOptions) -> Self {
        let layout = TestLayout::new();
        let image = layout.image(&[layout.layer(Compression::Gzip, &[("etc/motd", b"hello\n")])]);
        layout.add_ref("app:1", &image);
        layout.add_entry(&layout.artifact("a/first", "first.txt", b"first", Some(&image)));
        let mount = options(MountOptions::new(layout.path())).start();
        let files = tempfile::tempdir().expect("a temporary directory can be made");
        Self {
            layout,
            image,
            mount,
            files,
        }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, bytes).expect("it is ours");
        path
    }

    /// Runs a script of the shell in the mount, with `FILES` set; what it says on both ways.
    fn shell(&self, script: &str) -> String {
        let output = Command::new("bash")
            .args(["-c", &format!("exec 2>&1; export LC_ALL=C; {script}")])
            .env("FILES", self.files.path())
            .current_dir(self.mount.path())
            .stdin(Stdio::null())
            .output()
            .expect("there is a shell");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The digests of what is about the image in the directory of a type.
    fn listed(&self, directory: &str) -> Vec<String> {
        names(&self.mount.join(directory))
    }

    /// The newest entry of the layout, as the specification has it.
    fn newest(&self) -> String {
        let entry = self.layout.entries().pop().expect("there are entries");
        let digest = digest_of(&entry).to_string();
        let subject = digest_of(&self.image).to_string();
        let layout = self.layout.path().to_string_lossy();
        run_ok("python3", &["-c", RULES, &layout, &digest, &subject]);
        digest
    }
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_file_that_is_copied_beside_an_image_is_about_it() {
    let name = "a_file_that_is_copied_beside_an_image_is_about_it";
    if !has(name, &[Need::Fuse, Need::Tool("python3")]) {
        return;
    }
    let sample = Sample::new(|options| options);
    let sbom = br#"{"spdxVersion":"SPDX-2.3"}"#;
    sample.file("sbom.spdx.json", sbom);
    let script = format!("mkdir '{SPDX_DIR}' && cp $FILES/sbom.spdx.json '{SPDX_DIR}/'");
    assert_eq!(sample.shell(&script), "");
    let digest = sample.newest();
    assert_eq!(sample.listed(SPDX_DIR), [digest.as_str()], "at once");
    let script = format!("ls app:1/referrers '{SPDX_DIR}'/sha*/files");
    assert_eq!(
        sample.shell(&script),
        format!(
            "app:1/referrers:\na%2Ffirst\napplication%2Fspdx+json\n\n\
             {SPDX_DIR}/{digest}/files:\nsbom.spdx.json\n"
        )
    );
    for path in [
        format!("{digest}/files/sbom.spdx.json"),
        "sbom.spdx.json".to_owned(),
    ] {
        let path = sample.mount.join(SPDX_DIR).join(path);
        assert_eq!(
            fs::read(&path).ok().as_deref(),
            Some(&sbom[..]),
            "{}",
            path.display()
        );
    }
    // Once more it is the same, however it is written.
    let count = sample.layout.entries().len();
    let script = format!(
        "cd '{SPDX_DIR}'; cp -a $FILES/sbom.spdx.json .; cat $FILES/sbom.spdx.json > sbom.spdx.json; \
         dd if=$FILES/sbom.spdx.json of=sbom.spdx.json status=none; \
         cp $FILES/sbom.spdx.json .new; mv .new sbom.spdx.json"
    );
    assert_eq!(sample.shell(&script), "");
    assert_eq!(sample.layout.entries().len(), count);
    assert_eq!(sample.listed(SPDX_DIR), [digest.as_str()]);
    // Another file is another one, and a large one is read where it is stored.
    let large: Vec<u8> = (0..9 << 20).map(|at: u32| (at % 251) as u8).collect();
    sample.file("large.json", &large);
    assert_eq!(
        sample.shell(&format!("cp $FILES/large.json '{SPDX_DIR}'")),
        ""
    );
    let other = sample.newest();
    let path = sample
        .mount
        .join(SPDX_DIR)
        .join(&other)
        .join("files/large.json");
    assert!(fs::read(&path).is_ok_and(|bytes| bytes == large));
    verify_layout(sample.layout.path());
    // Without a mount, by another process.
    let cache = sample.files.path().join("cache");
    let arguments = [
        "ls",
        "--cache-dir",
        &cache.to_string_lossy(),
        &sample.layout.path().to_string_lossy(),
        SPDX_DIR,
    ]
    .map(str::to_owned);
    let listed = run_ok(env!("CARGO_BIN_EXE_ocifs"), &arguments);
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let mut expected = [digest, other];
    expected.sort();
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn what_cannot_be_done_beside_an_image_says_why() {
    let name = "what_cannot_be_done_beside_an_image_says_why";
    if !has(name, &[Need::Fuse]) {
        return;
    }
    let sample = Sample::new(|options| options);
    sample.file("x", b"x");
    let first = "app:1/referrers/a%2Ffirst";
    let digest = sample.listed(first).remove(0);
    let rows = [
        ("cp $FILES/x app:1/referrers/", "Read-only file system"),
        ("cp $FILES/x app:1/files", "Read-only file system"),
        (
            &format!("cp $FILES/x {first}/{digest}/y"),
            "Read-only file system",
        ),
        (&format!("rmdir {first}/{digest}"), "Read-only file system"),
        (&format!("rmdir {first}"), "Read-only file system"),
        (
            &format!("echo x > {first}/{digest}/files/first.txt"),
            "Read-only file system",
        ),
        (&format!("mkdir {first}/dir"), "Read-only file system"),
        ("mkdir app:1/referrers/spdx", "Invalid argument"),
        (&format!("mkdir {first}"), "File exists"),
        ("cp $FILES/x app:1/referrers/a%2Fnone/", "No"),
    ];
    let before = sample.layout.entries();
    for (script, expected) in rows {
        let said = sample.shell(script);
        assert!(said.contains(expected), "{script}: {said:?}");
    }
    assert_eq!(sample.layout.entries(), before);
    // What is not there, or not right.
    let stored = sample.layout.entries().pop().expect("an entry");
    let manifest = fs::read(sample.layout.blob_path(&stored)).expect("it is there");
    let manifest: Value = serde_json::from_slice(&manifest).expect("it is JSON");
    let file = sample
        .mount
        .join(first)
        .join(&digest)
        .join("files/first.txt");
    let layer = &manifest["layers"][0];
    let metadata = fs::metadata(&file).expect("it is there");
    assert_eq!((metadata.len(), metadata.mode() & 0o777), (5, 0o444));
    sample.layout.damage(layer, Damage::FlippedBit);
    assert_eq!(errno(File::open(&file)), Some(libc::EBADMSG));
    sample.layout.damage(layer, Damage::Missing);
    assert_eq!(errno(File::open(&file)), Some(libc::ENODATA));
    fs::write(sample.layout.blob_path(layer), "first").expect("it is ours");
    assert_eq!(fs::read(&file).ok().as_deref(), Some(&b"first"[..]));

    let read_only = Sample::new(|options| options.arg("--read-only"));
    read_only.file("x", b"x");
    for script in [
        "mkdir app:1/referrers/a%2Fb".to_owned(),
        format!("cp $FILES/x {first}/"),
        format!("cp $FILES/x {first}/{digest}"),
    ] {
        let said = read_only.shell(&script);
        assert!(said.contains("Read-only file system"), "{script}: {said:?}");
    }
}

#[test]
fn other_tools_take_what_was_attached() {
    let name = "other_tools_take_what_was_attached";
    if !has(
        name,
        &[Need::Fuse, Need::Tool("skopeo"), Need::Tool("rsync")],
    ) {
        return;
    }
    let sample = Sample::new(|options| options);
    sample.file("sbom.spdx.json", b"[]");
    let script = format!(
        "mkdir '{SPDX_DIR}' && rsync -a $FILES/sbom.spdx.json './{SPDX_DIR}/' && \
         ln -s '{SPDX_DIR}'/sha256* sbom:1"
    );
    assert_eq!(sample.shell(&script), "");
    let entry = sample.layout.entries().pop().expect("an entry");
    let digest = digest_of(&entry);
    assert_eq!(sample.listed(SPDX_DIR), [digest.to_string()]);
    assert_eq!(entry["artifactType"], SPDX);
    let layout = sample.layout.path();
    let elsewhere = sample.files.path().join("elsewhere");
    let source = format!("oci:{}:sbom:1", layout.display());
    let mounted = format!(
        "oci:{}:sbom:1",
        sample.mount.join(".ocifs/layout").display()
    );
    for from in [&source, &mounted] {
        let raw = run_ok("skopeo", &["inspect", "--raw", from]);
        assert_eq!(Digest::of(&raw), digest, "{from}");
    }
    let target = format!("oci:{}:copy", elsewhere.display());
    let policy = [
        "--insecure-policy",
        "copy",
        "--preserve-digests",
        &source,
        &target,
    ];
    let copied = run("skopeo", &policy);
    let said = String::from_utf8_lossy(&copied.stderr).into_owned();
    assert!(copied.status.success(), "{said}");
    assert!(blob(&elsewhere, &digest).is_file(), "{said}");
    verify_layout(&elsewhere);
}

fn blob(layout: &Path, digest: &Digest) -> PathBuf {
    let blobs = layout.join("blobs").join(digest.algorithm_name());
    blobs.join(digest.encoded())
}
