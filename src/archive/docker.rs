//! The `manifest.json` of `docker save`.

use serde_json::Value;

use crate::archive::Error;
use crate::oci::limits::Limit;
use crate::oci::{json, raw};

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
        path: "manifest.json".to_owned(),
        source,
    };
    let parse = || {
        Limit::DocumentSize.check(bytes.len() as u64)?;
        json::parse_within(bytes, Limit::DocumentValues)
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
