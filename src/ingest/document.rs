//! A manifest or an index by itself: all that it names is in the layout already.

use std::collections::BTreeMap;

use serde_json::json;

use super::held::{self, Held};
use super::walk::{Stock, Walk, Wholeness};
use super::{Error, Ingest, Kind, Prepared};
use crate::oci::{Descriptor, Digest, Document, DocumentType, MediaType, RefName};
use crate::store::ReadAt;
use crate::store::layout::index::draft::named;
use crate::store::layout::writer::SealedBlob;

impl Ingest {
    /// Takes `received` as a document of this type.
    pub(super) fn document(
        &self,
        received: SealedBlob,
        media_type: &MediaType,
        name: &RefName,
    ) -> Result<Prepared, Error> {
        let what = || "the document".to_owned();
        let wrong = |source| Error::Document {
            what: what(),
            source,
        };
        let bytes = held::document(&received, what)?;
        let size = ReadAt::size(&received);
        let digest = received.digest().clone();
        let descriptor = Descriptor::new(media_type.clone(), digest.clone(), size);
        let parsed = DocumentType::of(media_type).map(|known| Document::parse(&bytes, known));
        let kind = match parsed.transpose().map_err(wrong)? {
            Some(Document::Index(_)) => Kind::Index,
            Some(Document::Manifest(_)) | None => Kind::Manifest,
        };
        let stock = Itself(received);
        let max_blobs = self.options.limits.blobs;
        let mut walk = Walk::new(&self.writer, &stock, Wholeness::Full, max_blobs);
        walk.enter(&descriptor)?;
        let found = walk.finish();
        let entry = json!({
            "mediaType": media_type.as_str(),
            "digest": digest.as_str(),
            "size": size,
        });
        let entry = named(&entry.to_string(), name.as_str()).map_err(wrong)?;
        let new: BTreeMap<Digest, Held> = found.new;
        Prepared::new(&self.writer, kind, vec![entry], new, found.stored)
    }
}

/// The document alone.
struct Itself(SealedBlob);

impl Stock for Itself {
    fn find(&self, descriptor: &Descriptor) -> Result<Option<(String, Held)>, Error> {
        let digest = &descriptor.digest;
        let is_it = self.0.digest() == digest;
        Ok(is_it.then(|| (digest.to_string(), Held::File(self.0.clone()))))
    }
}
