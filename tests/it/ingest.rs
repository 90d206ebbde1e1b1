//! Bringing things in: what files become, and that what is refused changes nothing.

mod archives;
mod docker_root;
mod files;
mod holes;
mod hostile;
mod tools;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use ocifs::ingest::{Error, ErrorClass, Ingest, IngestOptions, Name, Prepared, Report};
use ocifs::oci::Digest;
use ocifs::store::layout::refs::Collision;
use ocifs::store::{Layout, LayoutWriter, Verdicts};
use serde_json::{Value, json};

use super::common::{Compression, Fingerprint, Tarball, TestLayout, verify_layout};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// How an archive may be packed.
pub(super) const COMPRESSIONS: &[Compression] = &[
    Compression::None,
    Compression::Gzip,
    Compression::GzipMembers(700),
    Compression::Zstd,
    Compression::ZstdFrames(700),
];

/// How bytes come to the room: both ways must come to the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Written through a mount, or a pipe.
    Received,
    /// Read from a file of somebody else.
    File,
}

const WAYS: [Way; 2] = [Way::Received, Way::File];

fn writer(layout: &Path) -> LayoutWriter {
    let layout = Layout::open(layout, &[]).expect("it is a layout");
    LayoutWriter::open(&layout, Arc::new(Verdicts::new(None))).expect("it can be written")
}

fn prepare(
    layout: &TestLayout,
    options: IngestOptions,
    way: Way,
    name: &str,
    bytes: &[u8],
) -> Result<Prepared, Error> {
    let writer = writer(layout.path());
    let ingest = Ingest::new(writer.clone(), options);
    let name = Name::of_file(name.as_bytes())?;
    match way {
        Way::File => ingest.prepare_file(&bytes.to_vec(), &name),
        Way::Received => {
            let mut blob = writer.blob()?;
            blob.write_all(bytes).expect("it can be written");
            ingest.prepare(blob.seal()?, &name)
        }
    }
}

/// Brings `bytes` in as a file `name`, and looks whether the layout is right afterwards.
pub(super) fn import(
    layout: &TestLayout,
    way: Way,
    name: &str,
    bytes: &[u8],
) -> Result<Report, Error> {
    import_over(layout, way, name, bytes, Collision::Refuse)
}

fn import_over(
    layout: &TestLayout,
    way: Way,
    name: &str,
    bytes: &[u8],
    collision: Collision,
) -> Result<Report, Error> {
    let options = IngestOptions::default();
    let prepared = prepare(layout, options.clone(), way, name, bytes)?;
    let report = Ingest::new(writer(layout.path()), options).commit(prepared, collision)?;
    verify_layout(layout.path());
    Ok(report)
}

/// Sees that `bytes` are refused with `code` and `class`, and that not a byte of the
/// layout changes by it.
fn refused(
    layout: &TestLayout,
    name: &str,
    file: &str,
    bytes: &[u8],
    expected: (&str, ErrorClass),
) {
    for way in WAYS {
        let before = Fingerprint::of(layout.path());
        let error = import(layout, way, file, bytes)
            .err()
            .unwrap_or_else(|| panic!("{name}, {way:?}: it was taken"));
        let found = (error.code(), error.class());
        assert_eq!(found, expected, "{name}, {way:?}: {error}");
        let after = Fingerprint::of(layout.path());
        assert_eq!(before, after, "{name}, {way:?}: the layout changed");
    }
}

fn names(layout: &TestLayout) -> Vec<String> {
    layout.refs().into_iter().map(|(name, _)| name).collect()
}

/// The document that a descriptor stands for.
fn document(layout: &TestLayout, descriptor: &Value) -> Value {
    let bytes = std::fs::read(layout.blob_path(descriptor)).expect("the blob is there");
    serde_json::from_slice(&bytes).expect("it is JSON")
}

/// All files of a layout as the members of a tar, sorted.
pub(super) fn members_of(layout: &TestLayout) -> Vec<(String, Vec<u8>)> {
    let mut members = Vec::new();
    for name in ["index.json", "oci-layout"] {
        let bytes = std::fs::read(layout.path().join(name)).expect("it is there");
        members.push((name.to_owned(), bytes));
    }
    let blobs = std::fs::read_dir(layout.path().join("blobs/sha256")).expect("it has blobs");
    for blob in blobs {
        let path = blob.expect("an entry is readable").path();
        let name = path.file_name().expect("it has a name").to_string_lossy();
        let bytes = std::fs::read(&path).expect("a blob is readable");
        members.push((format!("blobs/sha256/{name}"), bytes));
    }
    members.sort();
    members
}

pub(super) fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let tarball = members
        .iter()
        .fold(Tarball::new(), |tarball, (path, bytes)| {
            tarball.file(path, bytes)
        });
    tarball.finish()
}

pub(super) fn oci_archive(layout: &TestLayout) -> Vec<u8> {
    tar(&members_of(layout))
}

/// The config of an image with these uncompressed layers, as docker writes it.
pub(super) fn docker_config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids = layers.iter().map(|layer| Digest::of(layer).to_string());
    json!({
        "architecture": "amd64",
        "os": "linux",
        "docker_version": "20.10",
        "rootfs": {"type": "layers", "diff_ids": diff_ids.collect::<Vec<_>>()},
    })
    .to_string()
    .into_bytes()
}

/// The `manifest.json` of images given as config, tags and layers.
pub(super) fn docker_manifest(images: &[(&str, Value, &[&str])]) -> Vec<u8> {
    let image = |(config, tags, layers): &(&str, Value, &[&str])| json!({"Config": config, "RepoTags": tags, "Layers": layers});
    let images: Vec<Value> = images.iter().map(image).collect();
    Value::Array(images).to_string().into_bytes()
}
