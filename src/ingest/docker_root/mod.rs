//! Docker's own store, read without its daemon: the storage driver overlay2.
//!
//! ```text
//! DIR/                                    /var/lib/docker
//! ├── image/overlay2/
//! │   ├── repositories.json               names and digests -> image ids
//! │   ├── imagedb/content/sha256/<id>     the config, byte for byte
//! │   └── layerdb/sha256/<chain id>/
//! │       ├── diff                        the DiffID
//! │       ├── cache-id                    where the files are
//! │       ├── size                        how many bytes they have
//! │       └── tar-split.json.gz           the tar less the bytes of its files
//! └── overlay2/<cache id>/diff/           the files of this layer alone
//! ```
//!
//! Docker keeps no tars. Each layer's tar is put together again: what is in it besides the
//! bytes of files comes from the tar-split data, those from `diff`, and the whole must have
//! the DiffID. Configs stay the bytes that they are, and manifests are made as for an
//! archive of `docker save`, so the images are the same whichever way they come.
//!
//! Invariants:
//! - Nothing outside of the directory is opened, whatever is in it: see `directory`.
//! - A file with other bytes than Docker has unpacked, or a layer with another DiffID, is
//!   an error that names it; nothing is published then.
//! - Memory does not grow with layers or files: two layers are made at once, each with a
//!   few blocks under way, and documents and lines have largest sizes.
//! - Nothing is changed in Docker's store, and it may be in use: what it is removing
//!   meanwhile is missing, and never another's.
//!
//! Newer versions of Docker can keep images in containerd instead, which is told apart and
//! refused.
//!
//! # Sparse files in tars
//!
//! tar-split treats the member of a sparse file as if it were stored with its holes, so
//! Docker cannot save such a layer again. Here the map of its regions is taken from the
//! headers where it is in them (pax forms 0.0 and 0.1). Form 1.0 has it in the data, and
//! Docker has not kept it: that is an error that says so.

mod directory;
mod error;
mod images;
mod name;
mod rebuild;
mod sink;
mod sparse;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use error::{Change, Error};

use crate::oci::limits::Limit;
use crate::oci::{DiffId, Digest, ImageConfig, json};
use directory::Directory;

/// Where the images are, and where those of the other drivers would be.
const IMAGES: &str = "image/overlay2";

/// What a Docker has in its data root that keeps its images in containerd. An older one
/// has some of it besides its own images, which go before.
const CONTAINERD: [&str; 2] = ["containerd", "rootfs"];

/// The longest cache id, in bytes. Docker's have 64, or 65 with what it appends.
const MAX_CACHE_ID: usize = 128;

/// The data root of a Docker.
#[derive(Debug)]
pub struct DockerRoot {
    directory: Directory,
    path: PathBuf,
}

/// A layer in Docker's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLayer {
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// How many bytes its files have, as Docker has counted them.
    pub size: u64,
    /// Its place: it stands for the layer on those below.
    chain_id: Digest,
}

/// An image in Docker's store.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// The digest of its config.
    pub id: Digest,
    /// The name that it gets in a layout; none if it was found by id or digest.
    pub name: Option<String>,
    /// Its layers, the base layer first.
    pub layers: Vec<StoredLayer>,
    config: Vec<u8>,
}

/// One line of a list of images.
#[derive(Debug)]
pub struct Listed {
    /// The digest of its config.
    pub id: Digest,
    /// Its names with tags, in Docker's short form.
    pub names: Vec<String>,
    /// Its names with digests.
    pub digests: Vec<String>,
    /// How many bytes the files of all its layers have; or why it cannot be brought in.
    pub size: Result<u64, Error>,
}

impl StoredImage {
    /// How many bytes the files of all its layers have.
    #[must_use]
    pub fn size(&self) -> u64 {
        let sizes = self.layers.iter().map(|layer| layer.size);
        sizes.fold(0, u64::saturating_add)
    }
}

impl DockerRoot {
    /// Opens a data root.
    ///
    /// # Errors
    /// [`Error::NotDocker`], [`Error::Driver`], [`Error::Containerd`], [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let directory = Directory::open(path)?;
        let root = path.to_owned();
        if directory.find_directory(IMAGES)?.is_some() {
            return Ok(Self {
                directory,
                path: root,
            });
        }
        if let Some(driver) = directory.list("image")?.into_iter().next() {
            return Err(Error::Driver { root, driver });
        }
        for name in CONTAINERD {
            if directory.find_directory(name)?.is_some() {
                return Err(Error::Containerd { root });
            }
        }
        Err(Error::NotDocker { root })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All images, those with names first, by name.
    ///
    /// # Errors
    /// If there is no list to be had. What is wrong with an image is told in its line.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let mut lines: BTreeMap<Digest, Listed> = BTreeMap::new();
        let line = |id: &Digest| Listed {
            id: id.clone(),
            names: Vec::new(),
            digests: Vec::new(),
            size: self.load(id, None).map(|image| image.size()),
        };
        for id in self.ids()? {
            lines.insert(id.clone(), line(&id));
        }
        for (name, id) in self.names()? {
            let line = lines.entry(id.clone()).or_insert_with(|| line(&id));
            match name.contains('@') {
                true => line.digests.push(name),
                false => line.names.push(name),
            }
        }
        let mut lines: Vec<Listed> = lines.into_values().collect();
        lines.sort_by(|a, b| {
            let key = |line: &Listed| (line.names.is_empty(), line.names.first().cloned());
            key(a).cmp(&key(b))
        });
        Ok(lines)
    }

    /// The image that is called `name`: a name in short or long form, with a tag or a
    /// digest, or the id or its beginning. Who asks for a tag gets the image under that
    /// name, in the short form.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`]; what is wrong with the image.
    pub fn image(&self, name: &str) -> Result<StoredImage, Error> {
        let digits = name::id_digits(name);
        if let Some(digits) = digits.filter(|digits| name::is_whole_id(digits)) {
            return self.load(&self.by_digits(name, digits)?, None);
        }
        let reference = name::reference(name);
        if let Some(id) = self.names()?.remove(&reference.text) {
            let name = (!reference.has_digest).then_some(reference.text);
            return self.load(&id, name);
        }
        let missing = || Error::NotFound {
            name: name.to_owned(),
        };
        let id = self.by_digits(name, digits.ok_or_else(missing)?)?;
        self.load(&id, None)
    }

    /// The one image whose id begins so.
    fn by_digits(&self, name: &str, digits: &str) -> Result<Digest, Error> {
        let mut ids = self.ids()?;
        ids.retain(|id| id.encoded().starts_with(digits));
        match ids.len() {
            1 => Ok(ids.remove(0)),
            0 => Err(Error::NotFound {
                name: name.to_owned(),
            }),
            images => Err(Error::Ambiguous {
                name: name.to_owned(),
                images,
            }),
        }
    }

    /// The ids of all images. What else lies there is none.
    fn ids(&self) -> Result<Vec<Digest>, Error> {
        let names = self
            .directory
            .list(&format!("{IMAGES}/imagedb/content/sha256"))?;
        let ids = names.iter().map(|name| format!("sha256:{name}").parse());
        Ok(ids.filter_map(Result::ok).collect())
    }

    /// All names and the ids of their images.
    fn names(&self) -> Result<BTreeMap<String, Digest>, Error> {
        let path = format!("{IMAGES}/repositories.json");
        let Some(bytes) = self.directory.read(&path, Limit::IndexJsonSize.value())? else {
            return Ok(BTreeMap::new());
        };
        let path = self.directory.path_of(&path);
        let document = json::parse(&bytes).map_err(|source| Error::Document {
            path: path.clone(),
            source,
        })?;
        names(&document).ok_or(Error::Malformed {
            path,
            fault: "something else than names and ids",
        })
    }

    /// Reads the config of an image and finds its layers.
    fn load(&self, id: &Digest, name: Option<String>) -> Result<StoredImage, Error> {
        let path = format!("{IMAGES}/imagedb/content/sha256/{}", id.encoded());
        let config = self.directory.read(&path, Limit::DocumentSize.value())?;
        let config = config.ok_or_else(|| Error::ImageMissing { id: id.clone() })?;
        let actual = Digest::of(&config);
        if actual != *id {
            let id = id.clone();
            return Err(Error::ImageDigest { id, actual });
        }
        let wrong = |source| Error::Document {
            path: self.directory.path_of(&path),
            source,
        };
        let parsed = ImageConfig::parse(&config).map_err(wrong)?;
        let diff_ids = parsed.diff_ids().map_err(|error| wrong(error.clone()))?;
        let mut layers = Vec::new();
        let mut below: Option<Digest> = None;
        for diff_id in diff_ids {
            let layer = self.layer(diff_id, below.as_ref())?;
            below = Some(layer.chain_id.clone());
            layers.push(layer);
        }
        Ok(StoredImage {
            id: id.clone(),
            name,
            layers,
            config,
        })
    }

    /// The layer `diff_id` on those of the chain `below`.
    fn layer(&self, diff_id: &DiffId, below: Option<&Digest>) -> Result<StoredLayer, Error> {
        let chain_id = chain_id(below, diff_id);
        let place = layer_path(&chain_id);
        if self.directory.find_directory(&place)?.is_none() {
            let diff_id = diff_id.clone();
            return Err(Error::LayerMissing { diff_id });
        }
        let wrong = |file: &str, fault| Error::Malformed {
            path: self.directory.path_of(&format!("{place}/{file}")),
            fault,
        };
        if self.directory.line(&format!("{place}/diff"))? != diff_id.to_string() {
            return Err(wrong("diff", "another DiffID than the image's"));
        }
        let size = self.directory.line(&format!("{place}/size"))?;
        Ok(StoredLayer {
            diff_id: diff_id.clone(),
            size: size.parse().map_err(|_| wrong("size", "no number"))?,
            chain_id,
        })
    }

    /// The directory with the files of a layer.
    fn files_of(&self, layer: &StoredLayer) -> Result<Directory, Error> {
        let path = format!("{}/cache-id", layer_path(&layer.chain_id));
        let cache_id = self.directory.line(&path)?;
        let is_name = (1..=MAX_CACHE_ID).contains(&cache_id.len())
            && cache_id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_name {
            return Err(Error::Malformed {
                path: self.directory.path_of(&path),
                fault: "no id",
            });
        }
        let files = self
            .directory
            .find_directory(&format!("overlay2/{cache_id}/diff"))?;
        files.ok_or_else(|| Error::LayerMissing {
            diff_id: layer.diff_id.clone(),
        })
    }
}

/// Where what is known of a layer is.
fn layer_path(chain_id: &Digest) -> String {
    format!("{IMAGES}/layerdb/sha256/{}", chain_id.encoded())
}

/// What stands for a layer together with those below.
///
/// Spec: image-spec config.md, "Layer ChainID".
fn chain_id(below: Option<&Digest>, diff_id: &DiffId) -> Digest {
    match below {
        Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        None => diff_id.0.clone(),
    }
}

/// The names in `repositories.json`: below each repository the full names.
fn names(document: &Value) -> Option<BTreeMap<String, Digest>> {
    let mut names = BTreeMap::new();
    for references in document.get("Repositories")?.as_object()?.values() {
        for (name, id) in references.as_object()? {
            names.insert(name.clone(), id.as_str()?.parse().ok()?);
        }
    }
    Some(names)
}
