//! Image configs: what is shown or used of them.
//!
//! A config is read leniently, because its bytes are shown as they are in any case: a
//! member of the wrong type counts as absent. Only what the root file system hangs on,
//! the list of uncompressed digests, keeps its error for who asks for it.
//!
//! Spec: image-spec config.md.

use serde_json::Value;

use super::digest::DiffId;
use super::error::{Error, JsonType, Part};
use super::fields::Fields;
use super::json;
use super::limits::Limit;
use super::platform::Platform;
use super::timestamp::Timestamp;

/// What an image config says.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// When the image was made.
    pub created: Option<Timestamp>,
    /// What the image is made for; parts that the config does not name are empty.
    pub platform: Platform,
    /// The build steps, the first one first.
    pub history: Vec<History>,
    diff_ids: Result<Vec<DiffId>, Error>,
}

/// One build step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// When it was done.
    pub created: Option<Timestamp>,
    /// The command that made it.
    pub created_by: Option<String>,
    /// Who did it.
    pub author: Option<String>,
    /// Words about it.
    pub comment: Option<String>,
    /// Whether it made no layer.
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Parses the bytes of a config blob.
    ///
    /// # Errors
    /// What is wrong with the JSON; [`Error::NotAnObject`]; [`Limit::DocumentSize`]; [`Limit::DocumentValues`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Limit::DocumentSize.check(bytes.len() as u64)?;
        let document = json::parse_within(bytes, Limit::DocumentValues)?;
        let fields = Fields::of(&document, "config")?;
        Ok(Self {
            created: timestamp(&document),
            platform: Platform::of_config(&document),
            history: history(&document),
            diff_ids: fields.get("rootfs").and_then(diff_ids),
        })
    }

    /// The digests of the uncompressed layers, the base layer first.
    ///
    /// # Errors
    /// [`Error::RootfsType`], [`Error::Digest`] as a [`Error::Part`], [`Limit::Layers`],
    /// or what is wrong with `rootfs` or its list.
    ///
    /// Spec: image-spec config.md, "rootfs".
    pub fn diff_ids(&self) -> Result<&[DiffId], &Error> {
        self.diff_ids.as_deref()
    }

    /// The build step that made layer number `layer` of `layers`, if the history has as
    /// many steps with a layer as there are layers.
    #[must_use]
    pub fn step_of_layer(&self, layer: usize, layers: usize) -> Option<&History> {
        let mut steps = self.history.iter().filter(|step| !step.empty_layer);
        (steps.clone().count() == layers)
            .then(|| steps.nth(layer))
            .flatten()
    }
}

/// Reads `created`. Go writes the year 1 for a time that was never set.
fn timestamp(object: &Value) -> Option<Timestamp> {
    let created: Timestamp = text(object, "created")?.parse().ok()?;
    (created != Timestamp::GO_ZERO).then_some(created)
}

fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get(field)?.as_str()
}

fn history(document: &Value) -> Vec<History> {
    let owned = |step: &Value, field| text(step, field).map(str::to_owned);
    let step = |step: &Value| History {
        created: timestamp(step),
        created_by: owned(step, "created_by"),
        author: owned(step, "author"),
        comment: owned(step, "comment"),
        empty_layer: step.get("empty_layer").and_then(Value::as_bool) == Some(true),
    };
    let steps = document.get("history").and_then(Value::as_array);
    steps.map_or_else(Vec::new, |steps| steps.iter().map(step).collect())
}

fn diff_ids(rootfs: &Value) -> Result<Vec<DiffId>, Error> {
    let fields = Fields::of(rootfs, "rootfs")?;
    let kind = fields.string("type")?;
    if kind != "layers" {
        return Err(Error::RootfsType {
            found: kind.chars().take(40).collect(),
        });
    }
    let values = fields.array("diff_ids")?;
    Limit::Layers.check(values.len() as u64)?;
    let diff_id = |(number, value): (usize, &Value)| {
        let text = value.as_str().ok_or(Error::FieldType {
            object: "rootfs",
            field: "diff_ids",
            expected: JsonType::String,
            found: value.into(),
        });
        text.and_then(|text| Ok(DiffId(text.parse()?)))
            .map_err(|error| error.of(Part::DiffId(number)))
    };
    values.iter().enumerate().map(diff_id).collect()
}

#[cfg(test)]
mod tests;
