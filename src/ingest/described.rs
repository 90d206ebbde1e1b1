//! What comes with a descriptor: a manifest, an index, or anything else that is to be an
//! entry, as the descriptor says it.

use super::held::{self, Held};
use super::walk::{Found, Stock, Walk, Wholeness};
use super::{Error, Ingest, Kind, Prepared};
use crate::oci::config::ImageConfig;
use crate::oci::{Descriptor, Document, DocumentType, Platform, RefName};
use crate::store::ReadAt;
use crate::store::layout::index::draft::named;
use crate::store::layout::writer::SealedBlob;

impl Ingest {
    /// Gets ready an entry that says what `descriptor` does: annotations, platform, URLs. Its
    /// blob is `received`, or is in the layout already; so is everything that it names. With
    /// `name` the entry has that name.
    ///
    /// An image whose descriptor has no platform gets the one of its config.
    ///
    /// # Errors
    /// [`Error::Missing`]; [`Error::SizeMismatch`] and [`Error::DigestMismatch`] if
    /// `received` is something else; [`Error::Document`].
    pub fn prepare_described(
        &self,
        received: Option<SealedBlob>,
        descriptor: &Descriptor,
        name: Option<&RefName>,
    ) -> Result<Prepared, Error> {
        let wrong = |source| Error::Document {
            what: descriptor.digest.to_string(),
            source,
        };
        let stock = Itself(received, descriptor);
        let max_blobs = self.options.limits.blobs;
        let mut walk = Walk::new(&self.writer, &stock, Wholeness::Full, max_blobs);
        walk.enter(descriptor)?;
        let found = walk.finish();
        let document = DocumentType::of(&descriptor.media_type)
            .map(|document_type| {
                let bytes = bytes_of(&found, descriptor)?;
                Document::parse(&bytes, document_type).map_err(wrong)
            })
            .transpose()?;
        let mut descriptor = descriptor.clone();
        if descriptor.platform.is_none() {
            descriptor.platform = document.as_ref().and_then(|d| platform(&found, d));
        }
        let mut entry = descriptor.to_json().to_string();
        if let Some(name) = name {
            entry = named(&entry, name.as_str()).map_err(wrong)?;
        }
        let kind = match document {
            Some(Document::Index(_)) => Kind::Index,
            Some(Document::Manifest(_)) => Kind::Manifest,
            None => Kind::Artifact,
        };
        Prepared::new(&self.writer, kind, vec![entry], found.new, found.stored)
    }
}

/// What an image is made for, going by its config.
fn platform(found: &Found, document: &Document) -> Option<Platform> {
    let manifest = document.manifest().filter(|manifest| manifest.is_image())?;
    let bytes = bytes_of(found, &manifest.config).ok()?;
    let platform = ImageConfig::parse(&bytes).ok()?.platform;
    (!platform.os.is_empty() && !platform.architecture.is_empty()).then_some(platform)
}

/// The bytes of a document that the walk has found.
fn bytes_of(found: &Found, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let digest = &descriptor.digest;
    let new = found.new.get(digest).map(|held| held as &dyn ReadAt);
    let stored = || {
        let mut stored = found.stored.iter();
        stored.find(|blob| blob.digest() == digest)
    };
    let source = new.or_else(|| stored().map(|blob| blob as &dyn ReadAt));
    let source = source.ok_or_else(|| Error::Missing {
        digest: digest.clone(),
    })?;
    held::document(source, || digest.to_string())
}

/// The blob alone, for its descriptor.
struct Itself<'a>(Option<SealedBlob>, &'a Descriptor);

impl Stock for Itself<'_> {
    fn find(&self, descriptor: &Descriptor) -> Result<Option<(String, Held)>, Error> {
        let digest = &descriptor.digest;
        let received = self.0.as_ref().filter(|_| *digest == self.1.digest);
        Ok(received.map(|sealed| (digest.to_string(), Held::File(sealed.clone()))))
    }
}
