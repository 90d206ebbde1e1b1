//! One sample of every kind of thing that can be brought in.

use serde_json::{Value, json};

use crate::ingest::{Kind, Name};
use crate::oci::Digest;
use crate::store::disk::simulated::SimulatedDisk;

pub(crate) const EMPTY: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Something to bring in.
pub(crate) struct Sample {
    pub(crate) kind: Kind,
    pub(crate) name: Name,
    pub(crate) bytes: Vec<u8>,
    /// The blobs that the layout has to have.
    pub(crate) needed: Vec<Vec<u8>>,
    /// How many entries come of it.
    pub(crate) entries: usize,
}

impl Sample {
    fn of(kind: Kind, file: &str, bytes: Vec<u8>, entries: usize) -> Self {
        Self {
            kind,
            name: Name::of_file(file.as_bytes()).expect("it is a file name"),
            bytes,
            needed: Vec::new(),
            entries,
        }
    }

    fn needing(mut self, needed: Vec<Vec<u8>>) -> Self {
        self.needed = needed;
        self
    }

    /// Makes the layout that it is brought into, all of it durable.
    pub(crate) fn prepare(&self, disk: &SimulatedDisk) -> std::io::Result<()> {
        disk.put("index.json", EMPTY)?;
        for blob in &self.needed {
            disk.put(&blob_path(blob), blob)?;
        }
        disk.settle();
        Ok(())
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Sample> {
    let images = [image("one", &[1; 100]), image("two", &[2; 100])];
    let with_manifest =
        |image: &Image| [&image.blobs[..], std::slice::from_ref(&image.manifest)].concat();
    let needed = images.iter().flat_map(with_manifest).collect();
    let mut blob = Sample::of(Kind::Blob, "raw", b"anything at all".to_vec(), 0);
    blob.name = Name::of_blob(b"raw");
    vec![
        blob,
        Sample::of(Kind::Artifact, "notes.txt", b"hello\n".to_vec(), 1),
        Sample::of(Kind::Layer, "layer.tar", tar_of(&[("a", b"1")]), 1),
        Sample::of(
            Kind::Layer,
            "layer.tar.gz",
            gzip(&tar_of(&[("a", b"1")])),
            1,
        ),
        Sample::of(Kind::DockerArchive, "docker.tar", docker_archive(), 2),
        Sample::of(Kind::OciArchive, "oci.tar", oci_archive(&images), 3),
        Sample::of(Kind::Manifest, "m.json", images[0].manifest.clone(), 1)
            .needing(images[0].blobs.clone()),
        Sample::of(Kind::Index, "i.json", index(&images), 1).needing(needed),
    ]
}

pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        let appended = builder.append_data(&mut header, path, *bytes);
        appended.expect("memory can be written");
    }
    builder.into_inner().expect("memory can be written")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let written = std::io::Write::write_all(&mut encoder, bytes);
    written
        .and_then(|()| encoder.finish())
        .expect("memory can be written")
}

/// Two images that share a layer, the second with a layer that is too large for memory.
pub(crate) fn docker_archive() -> Vec<u8> {
    let small = tar_of(&[("a", b"1")]);
    let large = tar_of(&[("b", &[7; 100_000])]);
    let config = |layers: &[&[u8]]| config(layers).to_string();
    let manifest = r#"[{"Config":"1.json","RepoTags":["one"],"Layers":["s"]},
        {"Config":"2.json","RepoTags":["two"],"Layers":["s","l"]}]"#;
    tar_of(&[
        ("s", &small),
        ("l", &large),
        ("1.json", config(&[&small]).as_bytes()),
        ("2.json", config(&[&small, &large]).as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ])
}

/// The documents of an image, and all blobs that it leads to but the manifest.
struct Image {
    name: &'static str,
    manifest: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

fn image(name: &'static str, content: &[u8]) -> Image {
    let layer = tar_of(&[(name, content)]);
    let config = config(&[&layer]).to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer)],
    });
    Image {
        name,
        manifest: manifest.to_string().into_bytes(),
        blobs: vec![config, layer],
    }
}

fn config(layers: &[&[u8]]) -> Value {
    let diff_ids = layers.iter().map(|layer| Digest::of(layer).to_string());
    let diff_ids: Vec<String> = diff_ids.collect();
    json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}})
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": Digest::of(bytes).to_string(),
        "size": bytes.len(),
    })
}

/// An index of images, which are not in it.
fn index(images: &[Image]) -> Vec<u8> {
    let entries = images
        .iter()
        .map(|image| descriptor(MANIFEST, &image.manifest));
    let entries: Vec<Value> = entries.collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    index.to_string().into_bytes()
}

/// The files of a layout that has each of the images under its name, and an index of all.
fn layout(images: &[Image]) -> Vec<(String, Vec<u8>)> {
    let all = index(images);
    let mut blobs: Vec<Vec<u8>> = vec![all.clone()];
    let mut entries = vec![named(descriptor(INDEX, &all), "all")];
    for image in images {
        blobs.push(image.manifest.clone());
        blobs.extend(image.blobs.iter().cloned());
        entries.push(named(descriptor(MANIFEST, &image.manifest), image.name));
    }
    let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
    let mut files = vec![
        (
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ),
        ("index.json".to_owned(), index.into_bytes()),
    ];
    files.extend(blobs.into_iter().map(|blob| (blob_path(&blob), blob)));
    files
}

/// The files of a small layout, by their paths.
pub(crate) fn layout_files() -> Vec<(String, Vec<u8>)> {
    layout(&[image("one", &[1; 100]), image("two", &[2; 100])])
}

fn oci_archive(images: &[Image]) -> Vec<u8> {
    let files = layout(images);
    let files: Vec<(&str, &[u8])> = files.iter().map(|(p, b)| (p.as_str(), &b[..])).collect();
    tar_of(&files)
}

fn blob_path(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(bytes).encoded())
}

fn named(mut descriptor: Value, name: &str) -> Value {
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    descriptor
}
