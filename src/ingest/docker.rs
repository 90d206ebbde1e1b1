//! A docker-archive: its images, with OCI manifests.
//!
//! Configs and layers stay the bytes that they are, since Docker's configs have all that
//! OCI's must have; only a manifest is made, which a docker-archive has none of.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::archive::get;
use super::collect::Collected;
use super::held::{self, Held};
use super::{Error, Ingest, Kind, Prepared, scan};
use crate::archive::docker::{self, Image};
use crate::archive::{self};
use crate::oci::{DiffId, Digest, ImageConfig, MediaType, RefName};
use crate::store::ReadAt;
use crate::store::layout::index::draft::named;
use crate::stream::Compression;

/// What docker writes for an image without a name.
const NO_NAME: &str = "<none>:<none>";

/// What is known of a layer's file.
#[derive(Debug, Clone)]
struct Layer {
    descriptor: Value,
    diff_id: DiffId,
}

/// The images of one archive, as they are put together.
struct Images<'a> {
    ingest: &'a Ingest,
    collected: &'a Collected,
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
        let manifest = get(collected, "manifest.json")?;
        let list = docker::images(&held::document(manifest, || "manifest.json".to_owned())?)?;
        let mut images = Images {
            ingest: self,
            collected,
            layers: BTreeMap::new(),
            new: BTreeMap::new(),
        };
        let is_single = list.len() == 1;
        let mut entries = Vec::new();
        for (number, image) in list.iter().enumerate() {
            let descriptor = images.add(number, image)?;
            let mut names: BTreeSet<&str> = image.tags.iter().map(String::as_str).collect();
            names.retain(|tag| !tag.is_empty() && *tag != NO_NAME);
            if names.is_empty() && is_single {
                names.insert(name.as_str());
            }
            if names.is_empty() {
                entries.push(descriptor.clone());
            }
            for name in names {
                let entry = named(&descriptor, name).map_err(|source| Error::Document {
                    what: name.to_owned(),
                    source,
                })?;
                entries.push(entry);
            }
        }
        let new = images.new;
        Prepared::new(&self.writer, Kind::DockerArchive, entries, new, Vec::new())
    }
}

impl Images<'_> {
    /// Takes image `number`; the JSON text of its descriptor.
    fn add(&mut self, number: usize, image: &Image) -> Result<String, Error> {
        let config = get(self.collected, &image.config)?;
        let bytes = held::document(config, || image.config.clone())?;
        let wrong = |source| archive::Error::Document {
            path: image.config.clone(),
            source,
        };
        let parsed = ImageConfig::parse(&bytes).map_err(wrong)?;
        let diff_ids = parsed.diff_ids().map_err(|error| wrong(error.clone()))?;
        if diff_ids.len() != image.layers.len() {
            return Err(archive::Error::LayerCount {
                image: number,
                layers: image.layers.len(),
                diff_ids: diff_ids.len(),
            }
            .into());
        }
        let mut layers = Vec::new();
        for (path, expected) in image.layers.iter().zip(diff_ids) {
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
        let config = self.describe(&MediaType::IMAGE_CONFIG, config.clone());
        let manifest = manifest(&config, &layers);
        let descriptor = self.describe(&MediaType::IMAGE_MANIFEST, Held::text(&manifest));
        Ok(descriptor.to_string())
    }

    /// Takes the file at `path` as a layer, which it may have been before.
    fn layer(&mut self, path: &str) -> Result<Layer, Error> {
        let held = get(self.collected, path)?;
        let digest = held.digest();
        if let Some(layer) = self.layers.get(&digest) {
            return Ok(layer.clone());
        }
        let compression = Compression::of(held)?;
        let diff_id = match compression {
            Compression::Plain => DiffId(digest.clone()),
            Compression::Gzip | Compression::Zstd => {
                scan::diff_id(held, &self.ingest.options.limits.stream)?
            }
        };
        let media_type = super::layer::media_type(compression);
        let layer = Layer {
            descriptor: self.describe(&media_type, held.clone()),
            diff_id,
        };
        self.layers.insert(digest, layer.clone());
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
    let descriptor = json!({
        "mediaType": media_type.as_str(),
        "digest": digest.as_str(),
        "size": ReadAt::size(&held),
    });
    new.insert(digest, held);
    descriptor
}

/// The JSON text of an image manifest.
pub(super) fn manifest(config: &Value, layers: &[Value]) -> String {
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::IMAGE_MANIFEST.as_str(),
        "config": config,
        "layers": layers,
    })
    .to_string()
}
