//! OCI layouts in temporary directories, right ones and damaged ones.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use ocifs::oci::{Digest, Hasher};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::layer::{Compression, compress, tar_of};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const SCHEMA2: &str = "application/vnd.docker.distribution.manifest.v2+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The annotation of an entry that has its ref name.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The architecture of this machine, in the words of the image specification.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The digest in a descriptor.
pub fn digest_of(descriptor: &Value) -> Digest {
    let text = descriptor["digest"].as_str().unwrap_or_default();
    text.parse()
        .unwrap_or_else(|error| panic!("descriptor {descriptor}: {error}"))
}

/// The size in a descriptor.
pub fn size_of(descriptor: &Value) -> u64 {
    let size = descriptor["size"].as_u64();
    size.unwrap_or_else(|| panic!("descriptor {descriptor} has no size"))
}

/// A stored layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its descriptor, as it stands in a manifest.
    pub descriptor: Value,
    /// The digest of its tar.
    pub diff_id: Digest,
    /// The size of its tar.
    pub tar_size: u64,
}

/// What can be wrong with a stored blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It is not there.
    Missing,
    /// It ends one byte early.
    Truncated,
    /// It has one byte more.
    Longer,
    /// It has no bytes.
    Empty,
    /// It has the right size, and one bit in the middle is wrong.
    FlippedBit,
    /// A symbolic link to the right bytes.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A directory.
    Directory,
}

/// An OCI layout in a temporary directory that goes with the value.
///
/// The directory is the only state: what a test or a tool changes there is seen by the
/// next call. Documents that a method makes are stored at once and handed back as their
/// descriptors ([`Value`]), which other methods take; `index.json` changes only by the
/// methods that say so.
#[derive(Debug)]
pub struct TestLayout {
    dir: TempDir,
}

impl TestLayout {
    /// An empty layout.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ocifs-layout-")
            .tempdir()
            .expect("a temporary directory can be made");
        let layout = Self { dir };
        fs::create_dir_all(layout.path().join("blobs/sha256")).expect("the layout is writable");
        fs::write(
            layout.path().join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .expect("the layout is writable");
        layout.write_entries(&[]);
        layout
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    // Blobs.

    /// Stores bytes and describes them.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        let path = self.path_of_digest(&digest);
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        json!({"mediaType": media_type, "digest": digest.as_str(), "size": bytes.len()})
    }

    /// Stores a document and describes it.
    pub fn json(&self, media_type: &str, document: &Value) -> Value {
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// Where the described blob is stored.
    pub fn blob_path(&self, descriptor: &Value) -> PathBuf {
        self.path_of_digest(&digest_of(descriptor))
    }

    fn path_of_digest(&self, digest: &Digest) -> PathBuf {
        let blobs = self.path().join("blobs");
        blobs.join(digest.algorithm_name()).join(digest.encoded())
    }

    /// Damages the described blob.
    pub fn damage(&self, descriptor: &Value, damage: Damage) {
        let path = self.blob_path(descriptor);
        damage_file(&path, damage)
            .unwrap_or_else(|error| panic!("{damage:?} at {}: {error}", path.display()));
    }

    // Layers.

    /// Stores a layer of small files (see [`tar_of`]).
    pub fn layer(&self, compression: Compression, files: &[(&str, &[u8])]) -> Layer {
        self.layer_of_tar(compression, &tar_of(files))
    }

    /// Stores a layer of any bytes, which may or may not be a tar.
    pub fn layer_of_tar(&self, compression: Compression, tar: &[u8]) -> Layer {
        Layer {
            descriptor: self.blob(compression.media_type(), &compress(compression, tar)),
            diff_id: Digest::of(tar),
            tar_size: tar.len() as u64,
        }
    }

    /// Stores a layer of what `fill` writes, without ever holding it in memory.
    pub fn layer_of_stream(
        &self,
        compression: Compression,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Layer {
        let temporary = self.path().join("layer.tmp");
        let store = || {
            let stored = Hashing::new(BufWriter::new(File::create(&temporary)?));
            let mut tar = (Hasher::sha256(), 0);
            let stored = compression.stream(stored, |out| {
                let mut decoded = Hashing::new(out);
                fill(&mut decoded)?;
                tar = (decoded.hasher, decoded.size);
                Ok(())
            })?;
            stored.out.into_inner()?;
            let digest = stored.hasher.finish();
            fs::rename(&temporary, self.path_of_digest(&digest))?;
            Ok::<_, io::Error>(Layer {
                descriptor: json!({
                    "mediaType": compression.media_type(),
                    "digest": digest.as_str(),
                    "size": stored.size,
                }),
                diff_id: tar.0.finish(),
                tar_size: tar.1,
            })
        };
        store().unwrap_or_else(|error| panic!("cannot store a layer: {error}"))
    }

    // Manifests and indexes.

    /// An image of `layers` for this machine's platform.
    pub fn image(&self, layers: &[Layer]) -> Value {
        self.image_with(layers, &json!({}))
    }

    /// An image whose config has `extra` members beside (or instead of) the usual ones.
    pub fn image_with(&self, layers: &[Layer], extra: &Value) -> Value {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let history: Vec<Value> = (0..layers.len())
            .map(|number| json!({"created_by": format!("step {number}")}))
            .collect();
        let mut config = json!({
            "created": "2024-01-02T03:04:05Z",
            "architecture": host_architecture(),
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        });
        merge(&mut config, extra);
        let config = self.json(CONFIG, &config);
        let layers: Vec<&Value> = layers.iter().map(|layer| &layer.descriptor).collect();
        self.manifest(&json!({"config": config, "layers": layers}))
    }

    /// An image for a platform such as `linux/arm64/v8`, its descriptor saying so.
    pub fn image_for(&self, platform: &str, layers: &[Layer]) -> Value {
        let platform = platform_of(platform);
        let mut image = self.image_with(layers, &platform);
        image["platform"] = platform;
        image
    }

    /// A manifest with these members beside schema version and media type.
    pub fn manifest(&self, members: &Value) -> Value {
        let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST});
        merge(&mut manifest, members);
        self.json(MANIFEST, &manifest)
    }

    /// An image of one gzip layer as docker writes it, in schema 2.
    pub fn docker_image(&self, layer: &Layer) -> Value {
        let config = json!({
            "architecture": host_architecture(),
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id.as_str()]},
        });
        let config = self.json("application/vnd.docker.container.image.v1+json", &config);
        let mut descriptor = layer.descriptor.clone();
        descriptor["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": SCHEMA2, "config": config, "layers": [descriptor],
        });
        self.json(SCHEMA2, &manifest)
    }

    /// An image index of `entries`, which may be indexes too.
    pub fn image_index(&self, entries: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        self.json(INDEX, &index)
    }

    /// The entry that build tools put beside `image` in an index: a provenance statement
    /// in a manifest for the platform `unknown/unknown`.
    pub fn attestation(&self, image: &Value) -> Value {
        let statement = self.layer_of_tar(Compression::None, br#"{"_type":"statement"}"#);
        let mut layer = statement;
        layer.descriptor["mediaType"] = json!("application/vnd.in-toto+json");
        let unknown = json!({"architecture": "unknown", "os": "unknown"});
        let mut attestation = self.image_with(&[layer], &unknown);
        attestation["platform"] = unknown;
        attestation["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image["digest"],
        });
        attestation
    }

    /// An artifact with one file, and `subject` if it belongs to another manifest.
    pub fn artifact(
        &self,
        artifact_type: &str,
        title: &str,
        bytes: &[u8],
        subject: Option<&Value>,
    ) -> Value {
        let mut layer = self.blob(artifact_type, bytes);
        layer["annotations"] = json!({"org.opencontainers.image.title": title});
        let mut members = json!({
            "artifactType": artifact_type,
            "config": self.blob(EMPTY, b"{}"),
            "layers": [layer],
        });
        if let Some(subject) = subject {
            members["subject"] = subject.clone();
        }
        self.manifest(&members)
    }

    // index.json.

    /// Adds an entry with this raw ref name, whatever is there already.
    pub fn add_ref(&self, name: &str, descriptor: &Value) {
        self.add_refs([name], descriptor);
    }

    /// Adds an entry for each name, with one write: thousands are quick.
    pub fn add_refs<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>, descriptor: &Value) {
        let mut entries = self.entries();
        entries.extend(names.into_iter().map(|name| {
            let mut entry = descriptor.clone();
            entry["annotations"][REF_NAME] = json!(name.as_ref());
            entry
        }));
        self.write_entries(&entries);
    }

    /// Adds an entry as containerd and build tools write it: `full_name`
    /// (`docker.io/library/app:1`) and the bare ref name (`1`).
    pub fn add_containerd_ref(&self, full_name: &str, ref_name: &str, descriptor: &Value) {
        let mut entry = descriptor.clone();
        entry["annotations"]["io.containerd.image.name"] = json!(full_name);
        entry["annotations"][REF_NAME] = json!(ref_name);
        self.add_entry(&entry);
    }

    /// Adds an entry as it is: without a name, if the descriptor has none.
    pub fn add_entry(&self, descriptor: &Value) {
        let mut entries = self.entries();
        entries.push(descriptor.clone());
        self.write_entries(&entries);
    }

    /// Removes all entries with this ref name.
    pub fn remove_ref(&self, name: &str) {
        let mut entries = self.entries();
        entries.retain(|entry| entry["annotations"][REF_NAME] != json!(name));
        self.write_entries(&entries);
    }

    /// The entries of `index.json` as they are now.
    pub fn entries(&self) -> Vec<Value> {
        let path = self.path().join("index.json");
        let bytes = fs::read(&path).expect("index.json is readable");
        let index: Value = serde_json::from_slice(&bytes).expect("index.json is JSON");
        index["manifests"].as_array().cloned().unwrap_or_default()
    }

    /// Name and digest of each entry, in their order; the name of one that has none is empty.
    pub fn refs(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entries = self.entries().into_iter();
        let pair = |entry: Value| {
            let name = text(&entry["annotations"][REF_NAME]);
            (name, text(&entry["digest"]))
        };
        entries.map(pair).collect()
    }

    /// Replaces the entries of `index.json`.
    pub fn write_entries(&self, entries: &[Value]) {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        self.write_index(index.to_string().as_bytes());
    }

    /// Replaces `index.json` by any bytes, in one step.
    pub fn write_index(&self, bytes: &[u8]) {
        let temporary = self.path().join("index.json.tmp");
        fs::write(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, self.path().join("index.json")))
            .expect("index.json is writable");
    }
}

/// Passes bytes on, and counts and hashes them.
struct Hashing<W> {
    out: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            hasher: Hasher::sha256(),
            size: 0,
        }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        self.size += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn damage_file(path: &Path, damage: Damage) -> io::Result<()> {
    let mut bytes = fs::read(path)?;
    match damage {
        Damage::Missing => fs::remove_file(path),
        Damage::Truncated => {
            bytes.pop();
            fs::write(path, bytes)
        }
        Damage::Longer => {
            bytes.push(0);
            fs::write(path, bytes)
        }
        Damage::Empty => fs::write(path, b""),
        Damage::FlippedBit => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            fs::write(path, bytes)
        }
        Damage::Symlink => {
            let elsewhere = path.with_extension("moved");
            fs::rename(path, &elsewhere)?;
            std::os::unix::fs::symlink(elsewhere, path)
        }
        Damage::Fifo => {
            fs::remove_file(path)?;
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            let fifo = rustix::fs::FileType::Fifo;
            Ok(rustix::fs::mknodat(rustix::fs::CWD, path, fifo, mode, 0)?)
        }
        Damage::Directory => {
            fs::remove_file(path)?;
            fs::create_dir(path)
        }
    }
}

/// Sets the members of `extra` in `document`.
fn merge(document: &mut Value, extra: &Value) {
    for (name, value) in extra.as_object().into_iter().flatten() {
        document[name] = value.clone();
    }
}

/// `os/architecture[/variant]` as the object in a descriptor.
fn platform_of(text: &str) -> Value {
    let mut parts = text.split('/');
    let mut platform = json!({"os": parts.next(), "architecture": parts.next()});
    if let Some(variant) = parts.next() {
        platform["variant"] = json!(variant);
    }
    platform
}
