//! The layout that a docker-archive stands for: an index, and a manifest for each image.
//!
//! A layer that is not compressed is its own DiffID, so its digest is known from the config
//! without reading it, and compared like any other before a byte of it is given out. One
//! that is compressed is hashed, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Error;
use super::contents::{Contents, Stored, Tar};
use super::table::Extent;
use crate::archive::docker::{self, Image};
use crate::archive::{self, DOCKER_MANIFEST};
use crate::oci::{Algorithm, DiffId, Digest, ImageConfig, MediaType};
use crate::store::ReadAt;
use crate::stream::Compression;

/// What the layout says of itself, as layouts that are made here do.
const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Puts the layout together out of the images that `manifest.json` lists.
///
/// # Errors
/// What is wrong with an image: as when it is brought into a layout, all are taken or none.
pub(super) fn contents(tar: &Tar<'_>, manifest: &[u8]) -> Result<Contents, Error> {
    let wrong = |source| tar.wrong(source);
    let images = docker::images(manifest).map_err(wrong)?;
    let mut assembly = Assembly {
        tar,
        blobs: BTreeMap::new(),
        configs: BTreeMap::new(),
        by_extent: BTreeMap::new(),
    };
    let mut entries = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let descriptor = assembly.add(number, image)?;
        let named = docker::entries(&descriptor, &image.names());
        entries.extend(named.map_err(|source| {
            wrong(archive::Error::Document {
                path: DOCKER_MANIFEST.to_owned(),
                source,
            })
        })?);
    }
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
        MediaType::IMAGE_INDEX,
        entries.join(",")
    );
    Ok(Contents {
        marker: MARKER.to_vec(),
        index: index.into_bytes(),
        blobs: assembly.blobs,
    })
}

struct Assembly<'a> {
    tar: &'a Tar<'a>,
    blobs: BTreeMap<Digest, Stored>,
    /// Several images may have one config, and it may be large.
    configs: BTreeMap<Extent, Config>,
    /// Descriptors of the layers: several images share some. With the DiffID, since that
    /// says what the digest of one is which is not compressed.
    by_extent: BTreeMap<(Extent, DiffId), Value>,
}

/// What is known of a config.
#[derive(Debug, Clone)]
struct Config {
    descriptor: Value,
    diff_ids: Arc<[DiffId]>,
}

impl Assembly<'_> {
    /// Takes image `number`; its descriptor.
    fn add(&mut self, number: usize, image: &Image) -> Result<Value, Error> {
        let config = self.config(&image.config)?;
        let diff_ids = &config.diff_ids;
        if diff_ids.len() != image.layers.len() {
            return Err(self.tar.wrong(archive::Error::LayerCount {
                image: number,
                layers: image.layers.len(),
                diff_ids: diff_ids.len(),
            }));
        }
        let layers = image.layers.iter().zip(&**diff_ids);
        let layers = layers.map(|(path, diff_id)| self.layer(path, diff_id));
        let layers: Vec<Value> = layers.collect::<Result<_, _>>()?;
        let config = config.descriptor;
        let manifest = docker::manifest(&config, &layers).into_bytes();
        let digest = Digest::of(&manifest);
        let manifest = Stored::Made(manifest.into());
        Ok(self.describe(&MediaType::IMAGE_MANIFEST, digest, manifest))
    }

    /// Takes the file at `path` as a config, which it may have been before.
    fn config(&mut self, path: &str) -> Result<Config, Error> {
        let extent = self.tar.get(path)?;
        if let Some(known) = self.configs.get(&extent) {
            return Ok(known.clone());
        }
        let (extent, bytes) = self.tar.document(path)?;
        let wrong = |source| {
            self.tar.wrong(archive::Error::Document {
                path: path.to_owned(),
                source,
            })
        };
        let parsed = ImageConfig::parse(&bytes).map_err(wrong)?;
        let diff_ids = parsed.diff_ids().map_err(|error| wrong(error.clone()))?;
        let diff_ids = Arc::from(diff_ids);
        let (digest, stored) = (Digest::of(&bytes), Stored::At(extent));
        let config = Config {
            descriptor: self.describe(&MediaType::IMAGE_CONFIG, digest, stored),
            diff_ids,
        };
        self.configs.insert(extent, config.clone());
        Ok(config)
    }

    /// Takes the file at `path` as a layer, which it may have been before.
    fn layer(&mut self, path: &str, diff_id: &DiffId) -> Result<Value, Error> {
        let extent = self.tar.get(path)?;
        let key = (extent, diff_id.clone());
        if let Some(known) = self.by_extent.get(&key) {
            return Ok(known.clone());
        }
        let section = self.tar.section(extent);
        let compression = Compression::of(&section);
        let compression = compression.map_err(|source| self.tar.undecodable(path, source))?;
        let digest = match compression {
            Compression::Plain if diff_id.0.algorithm() == Algorithm::Sha256 => diff_id.0.clone(),
            _ => self.tar.digest(extent)?,
        };
        let media_type = docker::layer_media_type(compression);
        let descriptor = self.describe(&media_type, digest, Stored::At(extent));
        self.by_extent.insert(key, descriptor.clone());
        Ok(descriptor)
    }

    fn describe(&mut self, media_type: &MediaType, digest: Digest, stored: Stored) -> Value {
        let size = match &stored {
            Stored::At(extent) => extent.len,
            Stored::Made(bytes) => bytes.size(),
            Stored::Unusable(_) => 0,
        };
        let descriptor = docker::descriptor(media_type, &digest, size);
        self.blobs.entry(digest).or_insert(stored);
        descriptor
    }
}
