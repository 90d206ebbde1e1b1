//! Finding what a name means in a layout, and the bytes of that.

use std::collections::BTreeSet;

use super::index::draft::Draft;
use super::refs::{self, Refusal};
use super::writer::Error;
use super::{Layout, index};
use crate::oci::index::Entry;
use crate::oci::limits::{Limit, MAX_INDEX_DEPTH};
use crate::oci::{self, Descriptor, Digest, Document, DocumentType, json, raw};
use crate::store::progress::Unwatched;
use crate::store::{Blob, ReadAt, Verdicts};

/// An entry that a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Its JSON text, with everything that it says.
    pub text: String,
    /// What it points to.
    pub descriptor: Descriptor,
}

impl Resolved {
    fn of(name: &str, text: String) -> Result<Self, Refusal> {
        let value = json::parse(text.as_bytes());
        let descriptor = value.and_then(|value| Descriptor::from_json(&value));
        Ok(Self {
            descriptor: descriptor.map_err(|source| Refusal::Malformed {
                name: name.to_owned(),
                source,
            })?,
            text,
        })
    }
}

impl Layout {
    /// What `name` means now: a ref name, `NAME@DIGEST` where several have one name, or the
    /// digest of anything that the index leads to. Several entries are the platforms of one
    /// name.
    ///
    /// # Errors
    /// [`Error::Refused`]: [`Refusal::NotFound`], [`Refusal::Several`],
    /// [`Refusal::Malformed`]; what reading the index says.
    pub fn resolve(&self, name: &str) -> Result<Vec<Resolved>, Error> {
        let draft = self.draft()?;
        let texts = match texts_of(&draft, name) {
            Err(not_found @ Refusal::NotFound { .. }) => {
                let nested = find_nested(&draft, name, |descriptor| self.document(descriptor));
                vec![nested.ok_or(not_found)?]
            }
            other => other?,
        };
        let resolved = texts.into_iter().map(|text| Resolved::of(name, text));
        Ok(resolved.collect::<Result<_, _>>()?)
    }

    /// All entries, in order.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] if one is no descriptor; what reading the index says.
    pub fn resolve_all(&self) -> Result<Vec<Resolved>, Error> {
        let draft = self.draft()?;
        let resolved = draft.texts().zip(draft.entries()).map(|(text, entry)| {
            let name = index::merge::name(entry).unwrap_or("an entry");
            Resolved::of(name, text.to_owned())
        });
        Ok(resolved.collect::<Result<_, _>>()?)
    }

    /// The blob of `descriptor`, of which every byte was compared with the digest, now or
    /// before.
    ///
    /// # Errors
    /// [`super::Error::BlobMissing`], [`Error::SizeMismatch`], [`Error::Blob`].
    pub fn fetch(&self, descriptor: &Descriptor, verdicts: &Verdicts) -> Result<Blob, Error> {
        let blob = self.open_blob(&descriptor.digest)?;
        if blob.size() != descriptor.size {
            return Err(Error::SizeMismatch {
                digest: descriptor.digest.clone(),
                expected: descriptor.size,
                actual: blob.size(),
            });
        }
        verdicts.verify(&blob, &Unwatched)?;
        Ok(blob)
    }

    fn draft(&self) -> Result<Draft, Error> {
        Draft::of(&self.read_index()?).map_err(|source| {
            let path = self.path().join("index.json");
            super::Error::Content { path, source }.into()
        })
    }

    /// The bytes of a document; `None` if it is not there, or not right.
    fn document(&self, descriptor: &Descriptor) -> Option<Vec<u8>> {
        Limit::DocumentSize.check(descriptor.size).ok()?;
        let blob = self.fetch(descriptor, &Verdicts::new(None)).ok()?;
        let mut bytes = vec![0; usize::try_from(blob.size()).ok()?];
        blob.read_at(&mut bytes, 0).ok()?;
        Some(bytes)
    }
}

/// The JSON texts of the entries that `name` means: by name, or by digest whatever their
/// names are.
pub(super) fn texts_of(draft: &Draft, name: &str) -> Result<Vec<String>, Refusal> {
    let has_digest = |entry: &Entry| {
        let descriptor = entry.descriptor.as_ref();
        descriptor.is_ok_and(|descriptor| descriptor.digest.as_str() == name)
    };
    let mut numbers = match refs::resolve(draft, name) {
        Err(not_found @ Refusal::NotFound { .. }) => {
            let mut entries = draft.entries();
            let number = entries.position(|entry| has_digest(entry));
            vec![number.ok_or(not_found)?]
        }
        other => other?,
    };
    // One image that has the name twice is wanted once.
    let mut seen = BTreeSet::new();
    let digest = |number: usize| draft.text(number).and_then(descriptor).map(|d| d.digest);
    numbers.retain(|number| seen.insert(digest(*number)));
    let texts = numbers.iter().filter_map(|number| draft.text(*number));
    Ok(texts.map(str::to_owned).collect())
}

/// The JSON text of the descriptor of `digest` in one of the indexes that the layout's own
/// leads to. An index that `read` does not give leads nowhere.
pub(super) fn find_nested(
    draft: &Draft,
    digest: &str,
    read: impl Fn(&Descriptor) -> Option<Vec<u8>>,
) -> Option<String> {
    let digest: Digest = digest.parse().ok()?;
    let mut seen = BTreeSet::new();
    let mut level: Vec<String> = draft.texts().map(str::to_owned).collect();
    for _ in 0..MAX_INDEX_DEPTH {
        let mut next = Vec::new();
        for text in &level {
            let Some(descriptor) = descriptor(text) else {
                continue;
            };
            if descriptor.digest == digest {
                return Some(text.clone());
            }
            let document_type = DocumentType::of(&descriptor.media_type);
            let is_index = document_type.is_some_and(DocumentType::is_index);
            if is_index && seen.insert(descriptor.digest.clone()) {
                let bytes = read(&descriptor);
                let entries = bytes.and_then(|bytes| entries_of(&descriptor, bytes));
                next.extend(entries.unwrap_or_default());
            }
        }
        level = next;
    }
    None
}

/// The JSON texts of the entries of an index; `None` if it is not right.
fn entries_of(descriptor: &Descriptor, bytes: Vec<u8>) -> Option<Vec<String>> {
    Document::parse(&bytes, DocumentType::of(&descriptor.media_type)?).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let members = raw::members(&text)?;
    let list = members.into_iter().find(|m| m.key == "manifests")?.value;
    let list = &text[list];
    let elements = raw::elements(list)?.into_iter();
    Some(elements.map(|range| list[range].to_owned()).collect())
}

pub(super) fn descriptor(text: &str) -> Option<Descriptor> {
    let value: Result<_, oci::Error> = json::parse(text.as_bytes());
    Descriptor::from_json(&value.ok()?).ok()
}
