//! A layout in a tar.

use crate::archive::Error;
use crate::oci::index::Entry;
use crate::oci::limits::Limit;
use crate::oci::{self, Digest, LayoutIndex, json, raw};

/// The layout version that is understood.
///
/// Spec: image-spec image-layout.md, "oci-layout file".
const VERSION: &str = "1.0.0";

/// Looks whether the bytes of `oci-layout` say what is understood.
///
/// # Errors
/// [`Error::Document`], [`Error::Version`].
pub fn check_marker(bytes: &[u8]) -> Result<(), Error> {
    let value = Limit::LayoutFileSize
        .check(bytes.len() as u64)
        .and_then(|()| json::parse(bytes))
        .map_err(|source| document("oci-layout", source))?;
    let version = value.get("imageLayoutVersion").and_then(|v| v.as_str());
    match version {
        Some(VERSION) => Ok(()),
        Some(version) => Err(Error::Version {
            version: version.chars().take(40).collect(),
        }),
        None => {
            let (object, field) = ("oci-layout", "imageLayoutVersion");
            let missing = oci::Error::MissingField { object, field };
            Err(document("oci-layout", missing))
        }
    }
}

/// The entries of `index.json`, each with its JSON text as it is written.
///
/// # Errors
/// [`Error::Document`] if anything about the index is not right: of an archive, unlike a
/// layout that belongs to many, all is taken or nothing. [`Error::NoImage`].
pub fn entries(bytes: &[u8]) -> Result<Vec<(String, Entry)>, Error> {
    let wrong = |source| document(super::OCI_INDEX, source);
    let entries = LayoutIndex::parse(bytes).map_err(wrong)?.into_entries();
    for entry in &entries {
        if let Err(source) = &entry.descriptor {
            return Err(wrong(source.clone()));
        }
    }
    if entries.is_empty() {
        return Err(Error::NoImage);
    }
    // It was parsed, so it is text with a list.
    let text = String::from_utf8_lossy(bytes);
    let texts = texts(&text).unwrap_or_default();
    Ok(texts.into_iter().zip(entries).collect())
}

fn texts(index: &str) -> Option<Vec<String>> {
    let members = raw::members(index)?;
    let list = members.into_iter().find(|m| m.key == "manifests")?.value;
    let list = &index[list];
    let elements = raw::elements(list)?.into_iter();
    Some(elements.map(|range| list[range].to_owned()).collect())
}

/// Where an archive keeps the blob of `digest`.
#[must_use]
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm_name(), digest.encoded())
}

/// The digest of the blob that an archive keeps at `path`, if that is a place for one.
#[must_use]
pub fn blob_at(path: &[u8]) -> Option<Digest> {
    let below = std::str::from_utf8(path).ok()?.strip_prefix("blobs/")?;
    let (algorithm, encoded) = below.split_once('/')?;
    format!("{algorithm}:{encoded}").parse().ok()
}

fn document(path: &str, source: oci::Error) -> Error {
    Error::Document {
        path: path.to_owned(),
        source,
    }
}
