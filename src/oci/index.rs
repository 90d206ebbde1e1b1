//! Image indexes, and the `index.json` of a layout.
//!
//! An index that is a blob is right as a whole or not at all ([`ImageIndex`]). The
//! `index.json` of a layout belongs to many: each of its entries is judged alone
//! ([`LayoutIndex`]), so that one tool's mistake costs one ref.
//!
//! Spec: image-spec image-index.md; image-layout.md, "index.json file".

use serde_json::Value;

use super::annotations::{self, Annotations};
use super::descriptor::{self, Descriptor};
use super::document;
use super::error::{Error, Part};
use super::fields::{Fields, warn_of_case_variants};
use super::json;
use super::limits::Limit;
use super::media_type::{Kind, MediaType};

/// A list of manifests, usually one for each platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageIndex {
    /// The document's own `mediaType`.
    pub media_type: Option<MediaType>,
    /// What kind of artifact it is.
    pub artifact_type: Option<MediaType>,
    /// The entries, in order.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one is about; it may not exist.
    pub subject: Option<Descriptor>,
    /// Texts about the index.
    pub annotations: Annotations,
}

impl ImageIndex {
    /// Reads an index out of a parsed document whose type is settled.
    pub(super) fn from_json(document: &Value) -> Result<Self, Error> {
        let fields = Fields::of(document, "image index")?;
        Ok(Self {
            media_type: fields.find_media_type("mediaType")?,
            artifact_type: fields.find_media_type("artifactType")?,
            manifests: descriptor::list(fields.array("manifests")?, Part::Manifest)?,
            subject: descriptor::find_subject(fields)?,
            annotations: fields.annotations()?,
        })
    }
}

/// The `index.json` of a layout.
///
/// The document takes about 1.6 KiB of memory for each entry, twice what the entry itself
/// takes: who only reads keeps the entries ([`LayoutIndex::into_entries`]), who edits reads
/// the file again in any case.
#[derive(Debug, Clone)]
pub struct LayoutIndex {
    entries: Vec<Entry>,
    document: Value,
}

/// One entry of a layout's `index.json`.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The raw ref name, if it has one.
    pub ref_name: Option<String>,
    /// The full name that containerd, BuildKit or nerdctl gave it.
    pub containerd_name: Option<String>,
    /// The media type that it says it has, also where it is wrong elsewhere.
    pub media_type: Option<MediaType>,
    /// What it points to, or what is wrong with it.
    pub descriptor: Result<Descriptor, Error>,
}

impl LayoutIndex {
    /// Parses the bytes of an `index.json`.
    ///
    /// # Errors
    /// What concerns the whole: JSON that is malformed or has a key twice, another
    /// `mediaType` or `schemaVersion`, `manifests` absent or no array, members of a
    /// manifest, and [`Limit::IndexJsonSize`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Limit::IndexJsonSize.check(bytes.len() as u64)?;
        Self::from_json(json::parse(bytes)?)
    }

    /// Takes a document that [`json::parse`] returned, perhaps edited.
    ///
    /// # Errors
    /// As [`LayoutIndex::parse`].
    pub fn from_json(document: Value) -> Result<Self, Error> {
        let fields = Fields::of(&document, "index.json")?;
        document::check_unambiguous(fields)?;
        // The specification requires it, but nothing hangs on it, and a whole layout would.
        if fields.has("schemaVersion") {
            document::check_schema_version(fields)?;
        } else {
            log::warn!("index.json has no \"schemaVersion\"");
        }
        if let Some(found) = fields.find_media_type("mediaType")?
            && found.kind() != Kind::ImageIndex
        {
            return Err(Error::NotAnIndex { found });
        }
        let entries = fields.array("manifests")?;
        let entries = entries.iter().enumerate().map(Entry::from_json).collect();
        warn_of_case_variants(&document);
        Ok(Self { entries, document })
    }

    /// The entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries alone.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The whole document: unknown members, order. Entry `n` is `manifests[n]`.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The whole document, to be edited and given to [`LayoutIndex::from_json`].
    #[must_use]
    pub fn into_document(self) -> Value {
        self.document
    }
}

impl Entry {
    /// Reads entry `number` of an index. The names are read for themselves, so that an
    /// entry that is wrong elsewhere is found under its name.
    #[must_use]
    pub fn from_json((number, value): (usize, &Value)) -> Self {
        let annotation = |key| {
            let text = value.get("annotations")?.get(key)?.as_str()?;
            Some(text.to_owned())
        };
        let ref_name = annotation(annotations::REF_NAME);
        let containerd_name = annotation(annotations::CONTAINERD_NAME);
        let names = [&ref_name, &containerd_name];
        let longest = names.into_iter().flatten().map(String::len).max();
        let descriptor = Limit::RefName
            .check(longest.unwrap_or(0) as u64)
            .and_then(|()| Descriptor::from_json(value))
            .map_err(|error| error.of(Part::Manifest(number)));
        let media_type = value.get("mediaType").and_then(Value::as_str);
        Self {
            ref_name,
            containerd_name,
            media_type: media_type.map(MediaType::new),
            descriptor,
        }
    }
}

#[cfg(test)]
mod tests;
