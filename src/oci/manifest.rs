//! Image manifests, OCI's and Docker's of schema 2, which have the same shape.
//!
//! Spec: image-spec manifest.md.

use serde_json::Value;

use super::annotations::Annotations;
use super::descriptor::{self, Descriptor};
use super::error::{Error, Part};
use super::fields::Fields;
use super::limits::Limit;
use super::media_type::{Kind, MediaType};

/// An image or an artifact: a config and layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// The document's own `mediaType`.
    pub media_type: Option<MediaType>,
    /// What kind of artifact it is.
    pub artifact_type: Option<MediaType>,
    /// The config blob.
    pub config: Descriptor,
    /// The layers, the base layer first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about; it may not exist.
    pub subject: Option<Descriptor>,
    /// Texts about the image.
    pub annotations: Annotations,
}

impl ImageManifest {
    /// Reads a manifest out of a parsed document whose type is settled.
    pub(super) fn from_json(document: &Value) -> Result<Self, Error> {
        let fields = Fields::of(document, "manifest")?;
        let layers = fields.array("layers")?;
        Limit::Layers.check(layers.len() as u64)?;
        let config = Descriptor::from_json(fields.get("config")?);
        Ok(Self {
            media_type: fields.find_media_type("mediaType")?,
            artifact_type: fields.find_media_type("artifactType")?,
            config: config.map_err(|error| error.of(Part::Config))?,
            layers: descriptor::list(layers, Part::Layer)?,
            subject: descriptor::find_subject(fields)?,
            annotations: fields.annotations()?,
        })
    }

    /// Whether this is an image, which has a root file system, and no other artifact.
    #[must_use]
    pub fn is_image(&self) -> bool {
        self.config.media_type.kind() == Kind::Config
    }

    /// Whether its layers make a root file system. Those of signatures and attestations do
    /// not, though many have the config of an image; of others one that cannot be read
    /// is wrong with the root file system, which is there.
    #[must_use]
    pub fn has_rootfs(&self) -> bool {
        let is_tree = |layer: &Descriptor| {
            matches!(
                layer.media_type.kind(),
                Kind::Layer { .. } | Kind::Encrypted
            )
        };
        self.is_image() && (self.layers.is_empty() || self.layers.iter().any(is_tree))
    }

    /// The type that referrers are filed under: that of the artifact, in older manifests
    /// that of the config. An empty one is none, as tools written in Go have it.
    ///
    /// Spec: image-spec manifest.md, "Guidelines for Artifact Usage".
    #[must_use]
    pub fn effective_artifact_type(&self) -> &MediaType {
        self.artifact_type
            .as_ref()
            .filter(|artifact_type| !artifact_type.as_str().is_empty())
            .unwrap_or(&self.config.media_type)
    }
}
