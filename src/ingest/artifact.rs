//! Any file as an artifact: a manifest with the empty config and this one blob.
//!
//! Spec: image-spec manifest.md, "Guidelines for Artifact Usage".

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::docker::describe;
use super::held::Held;
use super::{Error, Ingest, Kind, Name, Prepared, Target};
use crate::oci::{Descriptor, MediaType, RefName, annotations};
use crate::store::layout::index::draft::named;
use crate::store::layout::writer::SealedBlob;

/// The type of an artifact of which nothing is known, as ORAS writes it.
pub const UNKNOWN_ARTIFACT: &str = "application/vnd.unknown.artifact.v1";

/// The media type of a file of which nothing is known.
const UNKNOWN_FILE: &str = "application/octet-stream";

/// The content of the empty config, and the same as embedded data.
const EMPTY: (&str, &str) = ("{}", "e30=");

/// What an artifact says of itself.
#[derive(Debug, Clone)]
pub(super) struct ArtifactOptions {
    /// Its name, if it has one.
    name: Option<RefName>,
    /// The name of the file.
    title: String,
    /// What kind of artifact it is.
    artifact_type: MediaType,
    /// What the file is.
    media_type: MediaType,
    /// The manifest that it is about.
    subject: Option<Descriptor>,
}

impl ArtifactOptions {
    /// An artifact of a file of which no more than its name is known.
    #[must_use]
    pub(super) fn of_file(name: &Name) -> Self {
        Self {
            name: match &name.target {
                Target::Ref(name) => Some(name.clone()),
                Target::Blob(_) | Target::Attached(_) => None,
            },
            title: name.title.clone(),
            artifact_type: MediaType::new(UNKNOWN_ARTIFACT),
            media_type: MediaType::new(UNKNOWN_FILE),
            subject: None,
        }
    }

    /// An artifact of this type that is about `subject`, without a name of its own.
    #[must_use]
    pub(super) fn referrer(artifact_type: MediaType, title: &str, subject: Descriptor) -> Self {
        Self {
            name: None,
            title: title.to_owned(),
            media_type: artifact_type.clone(),
            artifact_type,
            subject: Some(subject),
        }
    }
}

impl Ingest {
    /// Takes `received` as the file of an artifact.
    pub(super) fn artifact(
        &self,
        received: SealedBlob,
        options: &ArtifactOptions,
    ) -> Result<Prepared, Error> {
        let mut new = BTreeMap::new();
        // A file that holds just the same is one blob with it.
        let mut config = describe(&MediaType::EMPTY, Held::text(EMPTY.0), &mut new);
        config["data"] = Value::from(EMPTY.1);
        let mut layer = describe(&options.media_type, Held::File(received), &mut new);
        layer["annotations"] = json!({ annotations::TITLE: options.title });
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::IMAGE_MANIFEST.as_str(),
            "artifactType": options.artifact_type.as_str(),
            "config": config,
            "layers": [layer],
        });
        if let Some(subject) = &options.subject {
            manifest["subject"] = json!({
                "mediaType": subject.media_type.as_str(),
                "digest": subject.digest.as_str(),
                "size": subject.size,
            });
        }
        let manifest = Held::text(&manifest.to_string());
        let mut entry = describe(&MediaType::IMAGE_MANIFEST, manifest, &mut new);
        entry["artifactType"] = Value::from(options.artifact_type.as_str());
        let mut entry = entry.to_string();
        if let Some(name) = &options.name {
            entry = named(&entry, name.as_str()).map_err(|source| Error::Document {
                what: name.to_string(),
                source,
            })?;
        }
        Prepared::new(&self.writer, Kind::Artifact, vec![entry], new, Vec::new())
    }
}
