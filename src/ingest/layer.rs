//! The tar of one layer, and the image that has no other.

use std::collections::BTreeMap;

use serde_json::json;

use super::docker::describe;
use super::held::Held;
use super::scan::{self, Scanned};
use super::{Error, Ingest, Kind, Prepared};
use crate::archive::docker::{layer_media_type, manifest};
use crate::oci::{DiffId, MediaType, RefName};
use crate::store::layout::index::draft::named;
use crate::store::layout::writer::SealedBlob;
use crate::stream::Compression;

impl Ingest {
    /// Takes `received`, of which `scanned` is known, as the layer of an image.
    pub(super) fn layer(
        &self,
        received: SealedBlob,
        scanned: Scanned,
        name: &RefName,
    ) -> Result<Prepared, Error> {
        if let Some(fault) = scanned.layer_fault {
            return Err(fault.into());
        }
        let diff_id = match (scanned.diff_id, scanned.compression) {
            (Some(diff_id), _) => diff_id,
            (None, Compression::Plain) => DiffId(received.digest().clone()),
            (None, Compression::Gzip | Compression::Zstd) => {
                scan::diff_id(&received, &self.options.limits.stream)?
            }
        };
        let mut new = BTreeMap::new();
        let media_type = layer_media_type(scanned.compression);
        let layer = describe(&media_type, Held::File(received), &mut new);
        // No history: umoci expects a time in each step of one, and there is none to tell.
        let config = json!({
            "architecture": self.options.platform.architecture,
            "os": self.options.platform.os,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id.to_string()]},
        });
        let config = Held::text(&config.to_string());
        let config = describe(&MediaType::IMAGE_CONFIG, config, &mut new);
        let manifest = Held::text(&manifest(&config, &[layer]));
        let image = describe(&MediaType::IMAGE_MANIFEST, manifest, &mut new);
        let entry = named(&image.to_string(), name.as_str()).map_err(|source| Error::Document {
            what: name.to_string(),
            source,
        })?;
        Prepared::new(&self.writer, Kind::Layer, vec![entry], new, Vec::new())
    }
}
