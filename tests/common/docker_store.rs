//! A data root as Docker keeps it, made without Docker: the storage driver overlay2.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::write::GzEncoder;
use ocifs::oci::Digest;
use serde_json::{Value, json};
use tar::EntryType;
use tempfile::TempDir;

/// A store in a temporary directory.
#[derive(Debug)]
pub struct DockerStore {
    dir: TempDir,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

/// An image in it.
#[derive(Debug)]
pub struct StoredImage {
    /// The digest of its config.
    pub id: Digest,
    /// The bytes of its config.
    pub config: Vec<u8>,
    /// What is kept of its layers.
    pub layers: Vec<StoredLayer>,
}

/// Where a layer is in the store.
#[derive(Debug)]
pub struct StoredLayer {
    /// The digest of its tar.
    pub diff_id: Digest,
    /// The directory in layerdb.
    pub data: PathBuf,
    /// The directory with its files.
    pub files: PathBuf,
}

/// A line of tar-split data, and the bytes that belong into its gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Bytes of the tar.
    Segment(Vec<u8>),
    /// An entry: its name, and the bytes of its file.
    Entry(Vec<u8>, Vec<u8>),
}

impl DockerStore {
    /// One without images.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ocifs-docker-").tempdir();
        let store = Self {
            dir: dir.expect("a temporary directory can be made"),
            repositories: BTreeMap::new(),
        };
        for path in ["imagedb/content/sha256", "layerdb/sha256"] {
            let path = store.path().join("image/overlay2").join(path);
            fs::create_dir_all(path).expect("the directory is ours");
        }
        store.write_names();
        store
    }

    /// The data root.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Adds an image with these layers.
    pub fn image(&self, tars: &[&[u8]]) -> StoredImage {
        let layers: Vec<(Vec<Line>, Digest)> = tars
            .iter()
            .map(|tar| (split(tar), Digest::of(tar)))
            .collect();
        self.image_of(&layers, &Value::Null)
    }

    /// Adds an image with layers of these lines and digests; `extra` is in its config.
    pub fn image_of(&self, layers: &[(Vec<Line>, Digest)], extra: &Value) -> StoredImage {
        let diff_ids: Vec<&str> = layers.iter().map(|(_, digest)| digest.as_str()).collect();
        // With spaces, as no writer of ours would put them.
        let config = format!(
            "{{\"architecture\": \"amd64\", \"os\": \"linux\", \"extra\": {extra}, \
             \"rootfs\": {{\"type\": \"layers\", \"diff_ids\": {}}}}}\n",
            json!(diff_ids)
        );
        let id = Digest::of(config.as_bytes());
        let path = format!("image/overlay2/imagedb/content/sha256/{}", id.encoded());
        fs::write(self.path().join(path), &config).expect("the directory is ours");
        let mut below: Option<Digest> = None;
        let layers = layers.iter().map(|(lines, diff_id)| {
            let chain = match &below {
                Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
                None => diff_id.clone(),
            };
            below = Some(chain.clone());
            self.layer(lines, diff_id, &chain)
        });
        StoredImage {
            layers: layers.collect(),
            config: config.into_bytes(),
            id,
        }
    }

    /// Gives an image a name with a tag or a digest.
    pub fn name(&mut self, name: &str, id: &Digest) {
        let (repository, _) = name
            .split_once('@')
            .or_else(|| name.rsplit_once(':'))
            .expect("a name has a tag or a digest");
        let names = self.repositories.entry(repository.to_owned()).or_default();
        names.insert(name.to_owned(), id.to_string());
        self.write_names();
    }

    fn write_names(&self) {
        let path = self.path().join("image/overlay2/repositories.json");
        let document = json!({"Repositories": self.repositories});
        fs::write(path, document.to_string()).expect("the directory is ours");
    }

    fn layer(&self, lines: &[Line], diff_id: &Digest, chain: &Digest) -> StoredLayer {
        let of_layers = self.path().join("image/overlay2/layerdb/sha256");
        let data = of_layers.join(chain.encoded());
        let cache_id = Digest::of(chain.as_str().as_bytes()).encoded().to_owned();
        let files = self.path().join("overlay2").join(&cache_id).join("diff");
        let stored = StoredLayer {
            diff_id: diff_id.clone(),
            data,
            files,
        };
        fs::create_dir_all(&stored.data).expect("the directory is ours");
        fs::create_dir_all(&stored.files).expect("the directory is ours");
        let bytes = lines.iter().map(|line| match line {
            Line::Segment(_) => 0,
            Line::Entry(_, bytes) => bytes.len(),
        });
        for (name, text) in [
            ("diff", diff_id.to_string()),
            ("cache-id", cache_id),
            ("size", bytes.sum::<usize>().to_string()),
        ] {
            fs::write(stored.data.join(name), text).expect("the directory is ours");
        }
        for line in lines {
            if let Line::Entry(name, bytes) = line
                && !bytes.is_empty()
            {
                stored.write(name, bytes);
            }
        }
        stored.write_lines(&text_of(lines));
        stored
    }
}

impl StoredLayer {
    /// Writes tar-split data.
    pub fn write_lines(&self, text: &[u8]) {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let written = encoder.write_all(text).and_then(|()| encoder.finish());
        let path = self.data.join("tar-split.json.gz");
        fs::write(path, written.expect("memory takes it")).expect("the directory is ours");
    }

    /// Writes a file of the layer.
    fn write(&self, name: &[u8], bytes: &[u8]) {
        let path = self.file(name);
        let parent = path.parent().expect("it is in a directory");
        fs::create_dir_all(parent).expect("the directory is ours");
        fs::write(path, bytes).expect("the directory is ours");
    }

    /// Where a file of the layer is.
    pub fn file(&self, name: &[u8]) -> PathBuf {
        let parts = name.split(|byte| *byte == b'/').filter(|part| {
            // A test that leads out of the layer puts its file there itself.
            !matches!(*part, b"" | b"." | b"..")
        });
        let parts = parts.map(|part| Path::new(std::ffi::OsStr::from_bytes(part)));
        self.files.join(parts.collect::<PathBuf>())
    }
}

/// Cuts a tar into its lines. Members of sparse files are taken for what they store.
pub fn split(tar: &[u8]) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut at = 0;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().expect("it is a tar") {
        let entry = entry.expect("it is a tar");
        let start = usize::try_from(entry.raw_file_position()).expect("it is in memory");
        lines.push(Line::Segment(tar[at..start].to_vec()));
        at = start;
        let is_file = matches!(
            entry.header().entry_type(),
            EntryType::Regular | EntryType::Continuous
        );
        let len = if is_file { entry.size() } else { 0 };
        let end = at + usize::try_from(len).expect("it is in memory");
        let name = entry.path_bytes().into_owned();
        lines.push(Line::Entry(name, tar[at..end].to_vec()));
        at = end;
    }
    lines.push(Line::Segment(tar[at..].to_vec()));
    lines
}

/// Lines as Docker writes them.
pub fn text_of(lines: &[Line]) -> Vec<u8> {
    let mut text = Vec::new();
    for (position, line) in lines.iter().enumerate() {
        let mut object = match line {
            Line::Segment(bytes) => json!({"type": 2, "payload": STANDARD.encode(bytes)}),
            Line::Entry(name, bytes) => entry(name, bytes),
        };
        object["position"] = json!(position);
        text.extend(object.to_string().into_bytes());
        text.push(b'\n');
    }
    text
}

fn entry(name: &[u8], bytes: &[u8]) -> Value {
    let mut object = json!({"type": 1});
    match std::str::from_utf8(name) {
        Ok(name) => object["name"] = json!(name),
        Err(_) => object["name_raw"] = json!(STANDARD.encode(name)),
    }
    if bytes.is_empty() {
        object["payload"] = Value::Null;
    } else {
        object["size"] = json!(bytes.len());
        object["payload"] = json!(STANDARD.encode(crc64(bytes).to_be_bytes()));
    }
    object
}

/// One bit after the other, as ISO 3309 says it.
fn crc64(bytes: &[u8]) -> u64 {
    let sum = bytes.iter().fold(u64::MAX, |sum, byte| {
        (0..8).fold(sum ^ u64::from(*byte), |sum, _| {
            (sum >> 1) ^ ((sum & 1) * 0xd800_0000_0000_0000)
        })
    });
    !sum
}
