//! The `manifest.json` of `docker save`, and what stands for its images in a layout.
//!
//! Configs and layers stay the bytes that they are, since Docker's configs have all that
//! OCI's must have; only a manifest is made, which a docker-archive has none of.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::archive::Error;
use crate::oci::limits::Limit;
use crate::oci::{self, Digest, LayerCompression, MediaType, raw};
use crate::store::layout::index::draft::named;
use crate::stream::Compression;

/// What docker writes for an image without a name.
const NO_NAME: &str = "<none>:<none>";

/// One image of a docker-archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The path of its config.
    pub config: String,
    /// The paths of its layers, the base layer first.
    pub layers: Vec<String>,
    /// Its names, such as `alpine:3.19`; may be none.
    pub tags: Vec<String>,
}

impl Image {
    /// Its names, each once.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        let tags = self.tags.iter().map(String::as_str);
        tags.filter(|tag| !tag.is_empty() && *tag != NO_NAME)
            .collect()
    }
}

/// Whether these bytes are meant as what `docker save` writes, right or wrong.
#[must_use]
pub fn is_manifest(bytes: &[u8]) -> bool {
    let first = || {
        let text = std::str::from_utf8(bytes).ok()?;
        let first = raw::elements(text)?.into_iter().next()?;
        raw::members(&text[first])
    };
    first().is_some_and(|members| {
        let has = |key: &str| members.iter().any(|member| member.key == key);
        has("Config") && has("Layers")
    })
}

/// Reads the images out of `manifest.json`.
///
/// # Errors
/// [`Error::Document`], [`Error::DockerManifest`], [`Error::NoImage`].
pub fn images(bytes: &[u8]) -> Result<Vec<Image>, Error> {
    let wrong = |source| Error::Document {
        path: super::DOCKER_MANIFEST.to_owned(),
        source,
    };
    let parse = || {
        Limit::DocumentSize.check(bytes.len() as u64)?;
        oci::json::parse_within(bytes, Limit::DocumentValues)
    };
    let document = parse().map_err(wrong)?;
    let images = document.as_array().filter(|images| !images.is_empty());
    let images = images.ok_or(Error::NoImage)?.iter().enumerate();
    let images: Vec<Image> = images.map(image).collect::<Result<_, _>>()?;
    for image in &images {
        let layers = Limit::Layers.check(image.layers.len() as u64);
        layers.map_err(wrong)?;
    }
    Ok(images)
}

fn image((number, value): (usize, &Value)) -> Result<Image, Error> {
    let wrong = |part, expected| Error::DockerManifest {
        image: number,
        part,
        expected,
    };
    let config = value.get("Config").and_then(Value::as_str);
    let texts = |part: &'static str| {
        let list = match value.get(part) {
            // Go writes an absent list as null.
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(list) => list.as_array(),
        };
        let texts = list.and_then(|list| list.iter().map(text).collect());
        texts.ok_or_else(|| wrong(part, "a list of strings"))
    };
    Ok(Image {
        config: config
            .ok_or_else(|| wrong("Config", "a string"))?
            .to_owned(),
        layers: texts("Layers")?,
        tags: texts("RepoTags")?,
    })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The descriptor of a blob, as JSON.
#[must_use]
pub fn descriptor(media_type: &MediaType, digest: &Digest, size: u64) -> Value {
    json!({
        "mediaType": media_type.as_str(),
        "digest": digest.as_str(),
        "size": size,
    })
}

/// The JSON text of an image manifest that names these blobs: the same for the same blobs,
/// wherever it is made.
#[must_use]
pub fn manifest(config: &Value, layers: &[Value]) -> String {
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::IMAGE_MANIFEST.as_str(),
        "config": config,
        "layers": layers,
    })
    .to_string()
}

/// The media type of a layer by what its bytes are.
#[must_use]
pub fn layer_media_type(compression: Compression) -> MediaType {
    MediaType::layer(match compression {
        Compression::Plain => LayerCompression::None,
        Compression::Gzip => LayerCompression::Gzip,
        Compression::Zstd => LayerCompression::Zstd,
    })
}

/// The JSON texts of the index entries of an image with this descriptor: one for each name,
/// one without a name if there is none.
///
/// # Errors
/// If the descriptor is no JSON object.
pub fn entries(descriptor: &Value, names: &BTreeSet<&str>) -> Result<Vec<String>, oci::Error> {
    let text = descriptor.to_string();
    if names.is_empty() {
        return Ok(vec![text]);
    }
    names.iter().map(|name| named(&text, name)).collect()
}
