//! A small layout to look at, the same each time.
//!
//! ```text
//! base:latest                          one layer
//! example.org/tools/hello:1.0          an image index
//! ├── linux/amd64, linux/arm64         base's layer (gzip), a program (zstd), settings (plain)
//! └── unknown/unknown                  an attestation about linux/amd64
//! example.org/tools/hello-sbom:1.0     an artifact whose subject is hello:1.0
//! ```

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use flate2::GzBuilder;
use ocifs::oci::annotations::{DOCKER_REFERENCE_DIGEST, DOCKER_REFERENCE_TYPE, REF_NAME, TITLE};
use ocifs::oci::{Digest, LayerCompression, MediaType};
use ocifs::store::layout;
use serde_json::{Value, json};

/// The image that has most to show.
pub(crate) const IMAGE: &str = "example.org/tools/hello:1.0";

/// When everything in it was made.
const CREATED: &str = "2026-01-02T03:04:05Z";

/// The same in seconds since the epoch.
const MTIME: u64 = 1_767_323_045;

/// Writes the sample layout into the directory `path`, which is empty or is made.
///
/// # Errors
/// What hinders it.
pub(crate) fn write(path: &Path) -> anyhow::Result<()> {
    layout::init(path)?;
    let sample = Sample { path };
    let base = sample.base()?;
    let greeting = sample.greeting()?;
    let mut hello = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let program = sample.program(architecture)?;
        let layers = [&base, &program, &greeting];
        let image = sample.image(architecture, &layers)?;
        let platform = json!({"architecture": architecture, "os": "linux"});
        hello.push(with(image, "platform", platform));
    }
    let attestation = sample.attestation(&hello[0])?;
    hello.push(attestation);
    let hello = sample.document(&MediaType::IMAGE_INDEX, json!({"manifests": hello}))?;
    let sbom = sample.sbom(&hello)?;
    let base = sample.image("amd64", &[&base])?;
    let entries = [
        named("base:latest", base),
        named(IMAGE, hello),
        named("example.org/tools/hello-sbom:1.0", sbom),
    ];
    let index = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::IMAGE_INDEX.as_str(),
        "manifests": entries,
    });
    let file = path.join("index.json");
    fs::write(&file, index.to_string()).with_context(|| file.display().to_string())
}

/// A layer that was written: what a manifest and a config say of it.
struct Layer {
    descriptor: Value,
    diff_id: Digest,
    created_by: String,
}

/// The layout that is being written.
struct Sample<'a> {
    path: &'a Path,
}

impl Sample<'_> {
    /// A base system: some directories, a link, and a file that a later layer deletes.
    fn base(&self) -> anyhow::Result<Layer> {
        let mut tar = Tar::new();
        tar.directory("etc")?;
        tar.file(
            "etc/motd",
            0o644,
            "This line is deleted by a later layer.\n",
        )?;
        tar.file(
            "etc/os-release",
            0o644,
            "ID=sample\nPRETTY_NAME=\"Sample Linux\"\n",
        )?;
        tar.directory("usr")?;
        tar.directory("usr/bin")?;
        tar.link("bin", "usr/bin")?;
        self.layer(tar, LayerCompression::Gzip, "COPY base /")
    }

    /// What differs between the platforms.
    fn program(&self, architecture: &str) -> anyhow::Result<Layer> {
        let script = format!("#!/bin/sh\necho \"$(cat /etc/hello.conf) from {architecture}\"\n");
        let mut tar = Tar::new();
        tar.file("usr/bin/hello", 0o755, &script)?;
        self.layer(tar, LayerCompression::Zstd, "COPY hello /usr/bin/hello")
    }

    /// Settings, and a whiteout: it hides a file of the base.
    fn greeting(&self) -> anyhow::Result<Layer> {
        let mut tar = Tar::new();
        tar.file("etc/.wh.motd", 0o644, "")?;
        tar.file("etc/hello.conf", 0o644, "Hello, world\n")?;
        let step = "RUN rm /etc/motd && echo 'Hello, world' > /etc/hello.conf";
        self.layer(tar, LayerCompression::None, step)
    }

    fn layer(&self, tar: Tar, compression: LayerCompression, step: &str) -> anyhow::Result<Layer> {
        let tar = tar.finish()?;
        let diff_id = Digest::of(&tar);
        let stored = match compression {
            LayerCompression::None => tar,
            LayerCompression::Gzip => {
                // Without a time in the header, so that the bytes are the same each time.
                let mut encoder = GzBuilder::new().write(Vec::new(), flate2::Compression::new(6));
                encoder.write_all(&tar)?;
                encoder.finish()?
            }
            LayerCompression::Zstd => zstd::stream::encode_all(&*tar, 3)?,
        };
        Ok(Layer {
            descriptor: self.blob(&MediaType::layer(compression), &stored)?,
            diff_id,
            created_by: step.to_owned(),
        })
    }

    fn image(&self, architecture: &str, layers: &[&Layer]) -> anyhow::Result<Value> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let step = |layer: &&Layer| json!({"created": CREATED, "created_by": layer.created_by});
        let mut history: Vec<Value> = layers.iter().map(step).collect();
        history.push(json!({
            "created": CREATED, "created_by": "CMD [\"/usr/bin/hello\"]", "empty_layer": true,
        }));
        let config = json!({
            "created": CREATED,
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/usr/bin/hello"], "Env": ["PATH=/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        });
        let config = self.blob(&MediaType::IMAGE_CONFIG, config.to_string().as_bytes())?;
        let layers: Vec<_> = layers.iter().map(|layer| &layer.descriptor).collect();
        let manifest = json!({
            "config": config,
            "layers": layers,
            "annotations": {"org.opencontainers.image.description": "A sample"},
        });
        self.document(&MediaType::IMAGE_MANIFEST, manifest)
    }

    /// What builders put beside an image: where it came from.
    fn attestation(&self, image: &Value) -> anyhow::Result<Value> {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": "https://slsa.dev/provenance/v0.2",
            "subject": [{"name": IMAGE, "digest": {"sha256": hex(image)}}],
            "predicate": {"builder": {"id": ""}},
        });
        let layer_type = MediaType::new("application/vnd.in-toto+json");
        let layer = self.blob(&layer_type, statement.to_string().as_bytes())?;
        let diff_id = layer["digest"].clone();
        let config = json!({
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        let config = self.blob(&MediaType::IMAGE_CONFIG, config.to_string().as_bytes())?;
        let manifest = json!({"config": config, "layers": [layer]});
        let descriptor = self.document(&MediaType::IMAGE_MANIFEST, manifest)?;
        let platform = json!({"architecture": "unknown", "os": "unknown"});
        let annotations = json!({
            DOCKER_REFERENCE_DIGEST: image["digest"],
            DOCKER_REFERENCE_TYPE: "attestation-manifest",
        });
        let descriptor = with(descriptor, "annotations", annotations);
        Ok(with(descriptor, "platform", platform))
    }

    /// A list of what is in the image, as an artifact about it.
    fn sbom(&self, subject: &Value) -> anyhow::Result<Value> {
        let list = json!({
            "spdxVersion": "SPDX-2.3",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": IMAGE,
            "dataLicense": "CC0-1.0",
            "documentNamespace": format!("https://example.org/sbom/{}", hex(subject)),
            "creationInfo": {"created": CREATED, "creators": ["Tool: ocifs"]},
            "packages": [],
        });
        let artifact_type = MediaType::new("application/spdx+json");
        let layer = self.blob(&artifact_type, list.to_string().as_bytes())?;
        let layer = with(layer, "annotations", json!({TITLE: "hello.spdx.json"}));
        let manifest = json!({
            "artifactType": artifact_type.as_str(),
            "config": self.blob(&MediaType::EMPTY, b"{}")?,
            "layers": [layer],
            "subject": subject,
            "annotations": {"org.opencontainers.image.created": CREATED},
        });
        let descriptor = self.document(&MediaType::IMAGE_MANIFEST, manifest)?;
        Ok(with(
            descriptor,
            "artifactType",
            artifact_type.as_str().into(),
        ))
    }

    /// Writes a manifest or an index, and describes it.
    fn document(&self, media_type: &MediaType, members: Value) -> anyhow::Result<Value> {
        let mut document = json!({"schemaVersion": 2, "mediaType": media_type.as_str()});
        if let (Value::Object(document), Value::Object(members)) = (&mut document, members) {
            document.extend(members);
        }
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// Writes a blob, and describes it.
    fn blob(&self, media_type: &MediaType, bytes: &[u8]) -> anyhow::Result<Value> {
        let digest = Digest::of(bytes);
        let directory = self.path.join("blobs").join(digest.algorithm_name());
        let file = directory.join(digest.encoded());
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(&file, bytes))
            .with_context(|| file.display().to_string())?;
        Ok(json!({
            "mediaType": media_type.as_str(),
            "digest": digest.as_str(),
            "size": bytes.len(),
        }))
    }
}

/// The index entry of that name.
fn named(name: &str, descriptor: Value) -> Value {
    with(descriptor, "annotations", json!({REF_NAME: name}))
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

/// The digest of a descriptor without its algorithm.
fn hex(descriptor: &Value) -> &str {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    digest.split_once(':').map_or("", |(_, hex)| hex)
}

/// A tar whose entries have nothing of this machine.
struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(MTIME);
        header
    }

    fn directory(&mut self, path: &str) -> io::Result<()> {
        let mut header = Self::header(tar::EntryType::Directory, 0o755, 0);
        self.0
            .append_data(&mut header, format!("{path}/"), io::empty())
    }

    fn file(&mut self, path: &str, mode: u32, text: &str) -> io::Result<()> {
        let mut header = Self::header(tar::EntryType::Regular, mode, text.len() as u64);
        self.0.append_data(&mut header, path, text.as_bytes())
    }

    fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target)
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        self.0.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use ocifs::store::{Layout, ReadAt};

    use super::*;

    #[test]
    fn the_sample_is_the_same_each_time_and_complete() -> anyhow::Result<()> {
        let layouts = [tempfile::tempdir()?, tempfile::tempdir()?];
        let mut digests = Vec::new();
        for directory in &layouts {
            write(directory.path())?;
            let layout = Layout::open(directory.path(), &[])?;
            let view = layout.read_index()?;
            for entry in view.entries() {
                let descriptor = entry.descriptor.as_ref().map_err(Clone::clone)?;
                let blob = layout.open_blob(&descriptor.digest)?;
                assert_eq!(blob.size(), descriptor.size, "{:?}", entry.ref_name);
            }
            digests.push(view.digest().clone());
        }
        assert_eq!(digests[0], digests[1]);
        Ok(())
    }
}
