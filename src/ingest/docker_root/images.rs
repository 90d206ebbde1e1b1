//! Images of Docker's store as images of a layout.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::rebuild::{Failure, rebuild};
use super::sink::{Made, Purpose};
use super::{DockerRoot, StoredImage, StoredLayer};
use crate::archive::docker::manifest;
use crate::ingest::prepared::image;
use crate::ingest::{BlobReport, Error, Image, Ingest, Kind, Prepared, Report};
use crate::oci::media_type::LayerCompression;
use crate::oci::{DiffId, Digest, MediaType};
use crate::store::layout::index::draft::named;
use crate::stream::Compression;

/// How many layers are made at once: while one waits for the disk the other is compressed.
/// More would only take more memory, since each is compressed by all cores.
const AT_ONCE: usize = 2;

/// Images as they are put together.
struct Images {
    entries: Vec<String>,
    blobs: BTreeMap<Digest, Made>,
}

impl Ingest {
    /// Gets ready images of Docker's store: makes their layers again, each once, stored as
    /// `compression` says, and changes nothing in the layout. The same images give the same
    /// bytes. [`IngestOptions::progress`](crate::ingest::IngestOptions) is told of the bytes
    /// of files.
    ///
    /// # Errors
    /// [`Error::Docker`] if Docker's store is not what it was; what writing says.
    pub fn prepare_docker_images(
        &self,
        root: &DockerRoot,
        images: &[StoredImage],
        compression: LayerCompression,
    ) -> Result<Prepared, Error> {
        let Images { entries, blobs } = self.images(root, images, compression, Purpose::Keep)?;
        let held = blobs.into_iter();
        let new = held.filter_map(|(digest, made)| Some((digest, made.held?)));
        Prepared::new(
            &self.writer,
            Kind::DockerStore,
            entries,
            new.collect(),
            Vec::new(),
        )
    }

    /// What [`Self::prepare_docker_images`] and [`Self::commit`] would amount to; writes
    /// nothing.
    ///
    /// # Errors
    /// As [`Self::prepare_docker_images`].
    pub fn measure_docker_images(
        &self,
        root: &DockerRoot,
        images: &[StoredImage],
        compression: LayerCompression,
    ) -> Result<Report, Error> {
        let Images { entries, blobs } = self.images(root, images, compression, Purpose::Measure)?;
        let blob = |(digest, made): (Digest, Made)| BlobReport {
            is_new: self.writer.would_store(&digest),
            size: made.size,
            digest,
        };
        let images: Result<Vec<Image>, Error> = entries.iter().map(|text| image(text)).collect();
        Ok(Report {
            kind: Kind::DockerStore,
            images: images?,
            blobs: blobs.into_iter().map(blob).collect(),
        })
    }

    fn images(
        &self,
        root: &DockerRoot,
        images: &[StoredImage],
        compression: LayerCompression,
        purpose: Purpose,
    ) -> Result<Images, Error> {
        let layers = distinct(images);
        let limit = self.options.limits.blobs;
        if layers.len() + 2 * images.len() > limit {
            return Err(Error::TooManyBlobs { limit });
        }
        let made = self.layers(root, &layers, compression, purpose)?;
        let mut blobs = BTreeMap::new();
        let mut keep = |media_type: &MediaType, made: &Made| {
            blobs.insert(made.digest.clone(), made.clone());
            json!({
                "mediaType": media_type.as_str(),
                "digest": made.digest.as_str(),
                "size": made.size,
            })
        };
        let media_type = MediaType::layer(compression);
        let of_layers: HashMap<&DiffId, Value> = layers
            .iter()
            .zip(&made)
            .map(|(layer, made)| (&layer.diff_id, keep(&media_type, made)))
            .collect();
        let mut entries = Vec::new();
        for image in images {
            let layers = image.layers.iter();
            let layers: Vec<Value> = layers
                .map(|layer| of_layers[&layer.diff_id].clone())
                .collect();
            let config = Made::document(image.config.clone());
            let config = keep(&MediaType::IMAGE_CONFIG, &config);
            let manifest = Made::document(manifest(&config, &layers).into_bytes());
            let entry = keep(&MediaType::IMAGE_MANIFEST, &manifest).to_string();
            let entry = match &image.name {
                Some(name) => named(&entry, name).map_err(|source| Error::Document {
                    what: name.clone(),
                    source,
                })?,
                None => entry,
            };
            // One image may be asked for by two of its names that come to the same.
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        Ok(Images { entries, blobs })
    }

    /// Makes layers, a few at once; of several failures that of the first layer is told.
    fn layers(
        &self,
        root: &DockerRoot,
        layers: &[&StoredLayer],
        compression: LayerCompression,
        purpose: Purpose,
    ) -> Result<Vec<Made>, Error> {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let compression = match compression {
            LayerCompression::None => Compression::Plain,
            LayerCompression::Gzip => Compression::Gzip,
            LayerCompression::Zstd => Compression::Zstd,
        };
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let made = Mutex::new(BTreeMap::new());
        let work = || {
            while let number = next.fetch_add(1, Ordering::Relaxed)
                && let Some(layer) = layers.get(number)
            {
                let how = (compression, threads, purpose);
                let result = rebuild(self, root, layer, how, &stop);
                stop.fetch_or(result.is_err(), Ordering::Relaxed);
                made.lock().insert(number, result);
            }
        };
        thread::scope(|scope| {
            for _ in 1..AT_ONCE.min(layers.len()) {
                let helper = thread::Builder::new().name("rebuild".into());
                if let Err(error) = helper.spawn_scoped(scope, work) {
                    log::debug!("no thread to make layers on: {error}");
                }
            }
            work();
        });
        let mut all = Vec::new();
        for result in made.into_inner().into_values() {
            match result {
                Ok(made) => all.push(made),
                Err(Failure::Stopped) => {}
                Err(Failure::Error(error)) => return Err(*error),
            }
        }
        Ok(all)
    }
}

/// The layers of all images, each once.
fn distinct(images: &[StoredImage]) -> Vec<&StoredLayer> {
    let mut seen = std::collections::HashSet::new();
    let layers = images.iter().flat_map(|image| &image.layers);
    layers.filter(|layer| seen.insert(&layer.diff_id)).collect()
}
