//! The real image that `scripts/real-image` builds, in each of its compressions, and the one
//! that `scripts/real-image-umoci` makes of the same files.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ocifs::oci::Digest;
use serde_json::Value;

use super::layout::{digest_of, size_of};

/// The ref that each layout has.
const REF: &str = "real";

/// One image, stored in several ways.
#[derive(Debug, Clone)]
pub struct RealImage {
    /// DiffID and decoded size of each layer.
    pub layers: Vec<(Digest, u64)>,
    /// The layouts.
    pub flavours: Vec<Flavour>,
}

/// The image in one compression.
#[derive(Debug, Clone)]
pub struct Flavour {
    /// What is special: `gzip`, `zstd-chunked`, `none`, ...
    pub name: String,
    /// The layout's directory.
    pub layout: PathBuf,
    /// Digest and size of each layer's blob.
    pub blobs: Vec<(Digest, u64)>,
}

impl RealImage {
    /// The ref name of the image in every layout.
    pub fn ref_name(&self) -> &'static str {
        REF
    }

    /// The decoded layer, as a file that was never compressed.
    pub fn decoded_layer(&self, number: usize) -> PathBuf {
        let none = self.flavours.iter().find(|flavour| flavour.name == "none");
        let none = none.expect("the script makes an uncompressed flavour");
        none.blob_path(&self.layers[number].0)
    }
}

impl Flavour {
    /// Where the layout stores a blob.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let blobs = self.layout.join("blobs");
        blobs.join(digest.algorithm_name()).join(digest.encoded())
    }
}

/// The real image; builds it if this machine has not got it yet, which takes minutes.
///
/// The test that asks for it checks [`super::Need::RealImage`] first.
pub fn real_image() -> RealImage {
    let dir = built_by("real-image", &[]);
    let document = json_of(&dir.join("image.json"));
    RealImage {
        layers: array(&document["layers"]).map(diff_id_and_size).collect(),
        flavours: array(&document["flavours"])
            .map(|flavour| flavour_in(&dir, flavour))
            .collect(),
    }
}

/// The real image, and more directories, in layers that umoci made: `real`, and a part of it
/// that buildah refuses. Each flavour is a ref of one layout.
///
/// What [`real_image`] needs, this needs, and to be root.
pub fn umoci_images(more: &[&OsStr]) -> [Flavour; 2] {
    let layout = built_by("real-image-umoci", more);
    [REF, "retyped"].map(|name| flavour_of_ref(&layout, name))
}

/// The path that a script prints, which makes what is there unless it is there already.
fn built_by(script: &str, arguments: &[&OsStr]) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let output = Command::new(path.join(script))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("the script can be started");
    assert!(output.status.success(), "scripts/{script} failed");
    let printed = String::from_utf8(output.stdout).expect("its path is text");
    PathBuf::from(printed.trim())
}

fn json_of(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).expect("it is JSON")
}

fn flavour_of_ref(layout: &Path, name: &str) -> Flavour {
    let mut flavour = Flavour {
        name: name.to_owned(),
        layout: layout.to_owned(),
        blobs: Vec::new(),
    };
    let index = json_of(&layout.join("index.json"));
    let is_named =
        |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == name;
    let entry = array(&index["manifests"]).find(is_named);
    let manifest = flavour.blob_path(&digest_of(entry.expect("the script made the ref")));
    flavour.blobs = array(&json_of(&manifest)["layers"])
        .map(|layer| (digest_of(layer), size_of(layer)))
        .collect();
    flavour
}

fn flavour_in(dir: &Path, flavour: &Value) -> Flavour {
    let name = flavour["name"].as_str().expect("a flavour has a name");
    Flavour {
        name: name.to_owned(),
        layout: dir.join(name),
        blobs: array(&flavour["layers"])
            .map(|layer| (digest_of(layer), size_of(layer)))
            .collect(),
    }
}

fn diff_id_and_size(layer: &Value) -> (Digest, u64) {
    let diff_id = layer["diff_id"].as_str().unwrap_or_default();
    let diff_id = diff_id.parse().expect("image.json has DiffIDs");
    (diff_id, size_of(layer))
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("image.json has arrays").iter()
}
