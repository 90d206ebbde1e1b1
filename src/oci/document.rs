//! Documents: the blobs that point to others, read as what their descriptor says.
//!
//! Only media types with a [`DocumentType`] can be parsed; whether a blob of another type
//! is shown raw or refused is up to who holds the descriptor.
//!
//! A document whose members fit an index and a manifest alike is refused, because two
//! programs could read two images out of one digest. So is one that says it is something
//! else than its descriptor says.
//!
//! Spec: image-spec manifest.md and image-index.md, "mediaType"; media-types.md, "Media
//! Type Conflicts". The attack: CVE-2021-41190.

use super::error::Error;
use super::fields::{Fields, warn_of_case_variants};
use super::index::ImageIndex;
use super::json;
use super::limits::Limit;
use super::manifest::ImageManifest;
use super::media_type::{Kind, MediaType};

/// Members that only a manifest has; the last is of Docker's schema 1.
const MANIFEST_FIELDS: [&str; 3] = ["layers", "config", "fsLayers"];

/// The member that only an index has.
const INDEX_FIELD: &str = "manifests";

/// A media type that stands for a document.
#[derive(Debug, Clone, Copy)]
pub struct DocumentType<'a> {
    media_type: &'a MediaType,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Index,
    Manifest,
    Schema1,
}

impl<'a> DocumentType<'a> {
    /// The document that `media_type` stands for, or `None` if it stands for none.
    #[must_use]
    pub fn of(media_type: &'a MediaType) -> Option<Self> {
        let shape = match media_type.kind() {
            Kind::ImageIndex => Shape::Index,
            Kind::ImageManifest => Shape::Manifest,
            Kind::Schema1Manifest => Shape::Schema1,
            Kind::Config | Kind::Layer { .. } | Kind::Encrypted | Kind::Empty | Kind::Unknown => {
                return None;
            }
        };
        Some(Self { media_type, shape })
    }

    /// Whether it is an image index.
    #[must_use]
    pub fn is_index(self) -> bool {
        self.shape == Shape::Index
    }
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a document is moved once, from the parser to where it is kept"
)]
pub enum Document {
    /// An image index.
    Index(ImageIndex),
    /// An image manifest.
    Manifest(ImageManifest),
}

impl Document {
    /// Parses the bytes of a blob whose descriptor has the given type.
    ///
    /// # Errors
    /// [`Error::AmbiguousType`], [`Error::MediaTypeMismatch`], [`Error::ForeignField`],
    /// [`Error::SchemaVersion`], [`Error::Schema1`], and what is wrong with the JSON, with
    /// a descriptor ([`Error::Part`]) or with a size ([`Error::Limit`]).
    pub fn parse(bytes: &[u8], document_type: DocumentType<'_>) -> Result<Self, Error> {
        Limit::DocumentSize.check(bytes.len() as u64)?;
        if document_type.shape == Shape::Schema1 {
            return Err(Error::Schema1);
        }
        let document = json::parse_within(bytes, Limit::DocumentValues)?;
        let fields = Fields::of(&document, "document")?;
        check_unambiguous(fields)?;
        check_schema_version(fields)?;
        check_type(fields, document_type)?;
        warn_of_case_variants(&document);
        if document_type.is_index() {
            ImageIndex::from_json(&document).map(Self::Index)
        } else {
            ImageManifest::from_json(&document).map(Self::Manifest)
        }
    }

    /// The manifest, if it is one.
    #[must_use]
    pub fn manifest(&self) -> Option<&ImageManifest> {
        match self {
            Self::Manifest(manifest) => Some(manifest),
            Self::Index(_) => None,
        }
    }

    /// The index, if it is one.
    #[must_use]
    pub fn index(&self) -> Option<&ImageIndex> {
        match self {
            Self::Index(index) => Some(index),
            Self::Manifest(_) => None,
        }
    }
}

/// Refuses a document that has members of an index and of a manifest, be they `null`.
pub(super) fn check_unambiguous(fields: Fields<'_>) -> Result<(), Error> {
    let manifest_field = MANIFEST_FIELDS.into_iter().find(|field| fields.has(field));
    match manifest_field {
        Some(manifest_field) if fields.has(INDEX_FIELD) => Err(Error::AmbiguousType {
            index_field: INDEX_FIELD,
            manifest_field,
        }),
        _ => Ok(()),
    }
}

/// Refuses a document that is not of schema 2.
pub(super) fn check_schema_version(fields: Fields<'_>) -> Result<(), Error> {
    let found = fields.get("schemaVersion")?;
    match found.as_u64() {
        Some(2) => Ok(()),
        Some(1) => Err(Error::Schema1),
        _ => Err(Error::SchemaVersion {
            found: found.to_string().chars().take(40).collect(),
        }),
    }
}

/// Refuses a document that says it is something else, or that looks like it.
fn check_type(fields: Fields<'_>, expected: DocumentType<'_>) -> Result<(), Error> {
    if let Some(found) = fields.find_media_type("mediaType")?
        && !found.is_same_type(expected.media_type)
    {
        return Err(Error::MediaTypeMismatch {
            expected: expected.media_type.clone(),
            found,
        });
    }
    let foreign: &[&'static str] = if expected.is_index() {
        &MANIFEST_FIELDS
    } else {
        &[INDEX_FIELD, "fsLayers"]
    };
    match foreign.iter().find(|field| fields.has(field)) {
        Some(field) => Err(Error::ForeignField {
            media_type: expected.media_type.clone(),
            field,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
