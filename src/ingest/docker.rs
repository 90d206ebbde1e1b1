//! A docker-archive: its images, with OCI manifests.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::archive::{get, get_with_digest};
use super::collect::Collected;
use super::held::{self, Held};
use super::{Error, Ingest, Kind, Prepared, scan};
use crate::archive::docker::{self, Image};
use crate::archive::{self, DOCKER_MANIFEST};
use crate::oci::{DiffId, Digest, ImageConfig, MediaType, RefName};
use crate::store::ReadAt;
use crate::stream::Compression;

/// What is known of a layer's file.
#[derive(Debug, Clone)]
struct Layer {
    descriptor: Value,
    diff_id: DiffId,
}

/// What is known of a config's file.
#[derive(Debug, Clone)]
struct Config {
    descriptor: Value,
    diff_ids: Arc<[DiffId]>,
}

/// The images of one archive, as they are put together.
struct Images<'a> {
    ingest: &'a Ingest,
    collected: &'a Collected,
    /// By the digest of the file: several images may have one config, and it may be large.
    configs: BTreeMap<Digest, Config>,
    /// By the digest of the file: several images share layers.
    layers: BTreeMap<Digest, Layer>,
    new: BTreeMap<Digest, Held>,
}

impl Ingest {
    /// Takes the images of `docker save`. The only one takes `name` if it has none.
    pub(super) fn docker_archive(
        &self,
        collected: &Collected,
        name: &RefName,
    ) -> Result<Prepared, Error> {
        let manifest = get(collected, DOCKER_MANIFEST)?;
        let list = docker::images(&held::document(manifest, || DOCKER_MANIFEST.to_owned())?)?;
        let mut images = Images {
            ingest: self,
            collected,
            configs: BTreeMap::new(),
            layers: BTreeMap::new(),
            new: BTreeMap::new(),
        };
        let is_single = list.len() == 1;
        let mut entries = Vec::new();
        for (number, image) in list.iter().enumerate() {
            let descriptor = images.add(number, image)?;
            let mut names = image.names();
            if names.is_empty() && is_single {
                names.insert(name.as_str());
            }
            let named = docker::entries(&descriptor, &names);
            entries.extend(named.map_err(|source| Error::Document {
                what: DOCKER_MANIFEST.to_owned(),
                source,
            })?);
        }
        let new = images.new;
        Prepared::new(&self.writer, Kind::DockerArchive, entries, new, Vec::new())
    }
}

impl Images<'_> {
    /// Takes image `number`; its descriptor.
    fn add(&mut self, number: usize, image: &Image) -> Result<Value, Error> {
        let config = self.config(&image.config)?;
        let diff_ids = &config.diff_ids;
        if diff_ids.len() != image.layers.len() {
            return Err(archive::Error::LayerCount {
                image: number,
                layers: image.layers.len(),
                diff_ids: diff_ids.len(),
            }
            .into());
        }
        let mut layers = Vec::new();
        for (path, expected) in image.layers.iter().zip(&**diff_ids) {
            let layer = self.layer(path)?;
            if layer.diff_id != *expected {
                return Err(Error::DiffId {
                    path: path.clone(),
                    expected: expected.clone(),
                    actual: layer.diff_id,
                });
            }
            layers.push(layer.descriptor);
        }
        let manifest = docker::manifest(&config.descriptor, &layers);
        Ok(self.describe(&MediaType::IMAGE_MANIFEST, Held::text(&manifest)))
    }

    /// Takes the file at `path` as a config, which it may have been before.
    fn config(&mut self, path: &str) -> Result<Config, Error> {
        let (digest, held) = get_with_digest(self.collected, path)?;
        if let Some(config) = self.configs.get(digest) {
            return Ok(config.clone());
        }
        let bytes = held::document(held, || path.to_owned())?;
        let wrong = |source| archive::Error::Document {
            path: path.to_owned(),
            source,
        };
        let parsed = ImageConfig::parse(&bytes).map_err(wrong)?;
        let diff_ids = parsed.diff_ids().map_err(|error| wrong(error.clone()))?;
        let config = Config {
            diff_ids: Arc::from(diff_ids),
            descriptor: self.describe(&MediaType::IMAGE_CONFIG, held.clone()),
        };
        self.configs.insert(digest.clone(), config.clone());
        Ok(config)
    }

    /// Takes the file at `path` as a layer, which it may have been before.
    fn layer(&mut self, path: &str) -> Result<Layer, Error> {
        let (digest, held) = get_with_digest(self.collected, path)?;
        if let Some(layer) = self.layers.get(digest) {
            return Ok(layer.clone());
        }
        let compression = Compression::of(held)?;
        let diff_id = match compression {
            Compression::Plain => DiffId(digest.clone()),
            Compression::Gzip | Compression::Zstd => {
                scan::diff_id(held, &self.ingest.options.limits.stream)?
            }
        };
        let media_type = docker::layer_media_type(compression);
        let layer = Layer {
            descriptor: self.describe(&media_type, held.clone()),
            diff_id,
        };
        self.layers.insert(digest.clone(), layer.clone());
        Ok(layer)
    }

    fn describe(&mut self, media_type: &MediaType, held: Held) -> Value {
        describe(media_type, held, &mut self.new)
    }
}

/// The descriptor of something that joins `new`.
pub(super) fn describe(
    media_type: &MediaType,
    held: Held,
    new: &mut BTreeMap<Digest, Held>,
) -> Value {
    let digest = held.digest();
    let descriptor = docker::descriptor(media_type, &digest, ReadAt::size(&held));
    new.insert(digest, held);
    descriptor
}
