//! Which blobs an image leads to, and which of them the layout has.
//!
//! Documents are read and verified, each once; of other blobs it is only asked whether they
//! are there. What is wrong with a document is kept, and the search goes on, so that of
//! several faults the one is told that counts most.
//!
//! The time is that of the documents' entries: whether something is whole is found out once
//! for each document, and each is collected once, however many ways lead to it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::Error;
use crate::oci::limits::Limit;
use crate::oci::media_type::Kind;
use crate::oci::{Descriptor, Digest, Document, DocumentType, Hasher, ImageManifest};
use crate::store::{Blob, BlobSource, ReadAt, layout, verify};

/// How many blobs an archive may have. Images have some ten, those for many platforms some
/// hundreds; each costs a kilobyte of the plan.
const MAX_BLOBS: usize = 16_384;

/// How many bytes of documents are read for one archive: as many as are searched for the
/// image of a platform.
const MAX_DOCUMENTS: u64 = 16 << 20;

/// Whether layers that may not be distributed may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// Where their descriptors say where they are to be had.
    MayBeMissing,
    /// They are needed as all others.
    Needed,
}

/// What an image leads to.
#[derive(Debug)]
pub(super) struct Found {
    /// The blobs of the archive.
    pub(super) blobs: BTreeMap<Digest, Descriptor>,
    /// Descriptors that say other things of these blobs: not all of them can be right.
    pub(super) disputed: Vec<Descriptor>,
    /// Images and layers that are not whole in the archive.
    pub(super) left_out: BTreeMap<Digest, Descriptor>,
}

/// A document: its digest, and what it is read as.
type Key = (Digest, String);

/// See the module.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    source: &'a dyn BlobSource,
    foreign: Foreign,
    /// The documents that were read; `None` for one that is not right.
    documents: HashMap<Key, Option<Arc<Document>>>,
    /// How many bytes that were.
    read: u64,
    whole: HashMap<Key, bool>,
    collected: HashSet<Key>,
    found: Found,
    fault: Option<Error>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(source: &'a dyn BlobSource, foreign: Foreign) -> Self {
        Self {
            source,
            foreign,
            documents: HashMap::new(),
            read: 0,
            whole: HashMap::new(),
            collected: HashSet::new(),
            found: Found {
                blobs: BTreeMap::new(),
                disputed: Vec::new(),
                left_out: BTreeMap::new(),
            },
            fault: None,
        }
    }

    /// Adds all that an entry of an `index.json` leads to.
    pub(super) fn enter(&mut self, descriptor: &Descriptor) {
        self.collect(descriptor, 1);
    }

    /// The document that an entry names, where it is one that can be read.
    pub(super) fn read_document(&mut self, descriptor: &Descriptor) -> Option<Arc<Document>> {
        self.document(descriptor, 1)
    }

    /// What was found.
    ///
    /// # Errors
    /// What is wrong with a document, or with the whole.
    pub(super) fn finish(self) -> Result<Found, Error> {
        match self.fault {
            None => Ok(self.found),
            Some(fault) => Err(fault),
        }
    }

    fn blame(&mut self, fault: Error) {
        let known = self.fault.as_ref().map(Error::rank);
        if known.is_none_or(|known| fault.rank() < known) {
            self.fault = Some(fault);
        }
    }

    fn collect(&mut self, descriptor: &Descriptor, depth: u64) {
        self.add(descriptor);
        if !self.collected.insert(key(descriptor)) {
            return;
        }
        let Some(document) = self.document(descriptor, depth) else {
            return;
        };
        match &*document {
            Document::Manifest(manifest) => self.collect_parts(manifest),
            Document::Index(index) => self.collect_images(&index.manifests, depth + 1),
        }
    }

    /// What a manifest names, but its subject: that may be anywhere.
    ///
    /// Spec: image-spec manifest.md, "subject".
    fn collect_parts(&mut self, manifest: &ImageManifest) {
        self.add(&manifest.config);
        for layer in &manifest.layers {
            if self.may_be_missing(layer) && !self.has(layer) {
                self.leave_out(layer);
            } else {
                self.add(layer);
            }
        }
    }

    fn collect_images(&mut self, entries: &[Descriptor], depth: u64) {
        let whole: Vec<bool> = entries
            .iter()
            .map(|entry| self.is_whole(entry, depth))
            .collect();
        let is_image = |(entry, whole): (&Descriptor, &bool)| *whole && !entry.is_attestation();
        let has_image = entries.iter().zip(&whole).any(is_image);
        for (entry, whole) in entries.iter().zip(whole) {
            if whole || !has_image {
                self.collect(entry, depth);
                continue;
            }
            self.leave_out(entry);
            if self.has(entry) {
                self.add(entry);
            }
        }
    }

    /// Whether the layout has all that `descriptor` leads to and an archive needs. What
    /// cannot be read does not lack anything: it is wrong.
    fn is_whole(&mut self, descriptor: &Descriptor, depth: u64) -> bool {
        if !self.has(descriptor) {
            return false;
        }
        if let Some(known) = self.whole.get(&key(descriptor)) {
            return *known;
        }
        let whole = match self.document(descriptor, depth).as_deref() {
            None => true,
            Some(Document::Manifest(manifest)) => {
                let has = |layer| self.has(layer) || self.may_be_missing(layer);
                self.has(&manifest.config) && manifest.layers.iter().all(has)
            }
            Some(Document::Index(index)) => self.is_index_whole(&index.manifests, depth + 1),
        };
        self.whole.insert(key(descriptor), whole);
        whole
    }

    fn is_index_whole(&mut self, entries: &[Descriptor], depth: u64) -> bool {
        let (mut all, mut image) = (true, false);
        for entry in entries {
            let whole = self.is_whole(entry, depth);
            all &= whole;
            image |= whole && !entry.is_attestation();
        }
        all || image
    }

    fn has(&self, descriptor: &Descriptor) -> bool {
        let found = self.source.identify(&descriptor.digest);
        !matches!(found, Err(layout::Error::BlobMissing { .. }))
    }

    /// Spec: image-spec layer.md, "Non-Distributable Layers".
    fn may_be_missing(&self, layer: &Descriptor) -> bool {
        let is_foreign = matches!(
            layer.media_type.kind(),
            Kind::Layer {
                nondistributable: true,
                ..
            }
        );
        is_foreign && !layer.urls.is_empty() && self.foreign == Foreign::MayBeMissing
    }

    fn add(&mut self, descriptor: &Descriptor) {
        let Found {
            blobs, disputed, ..
        } = &mut self.found;
        if blobs.len() + disputed.len() >= MAX_BLOBS {
            let (what, limit) = ("blobs", MAX_BLOBS as u64);
            return self.blame(Error::TooMany { what, limit });
        }
        match blobs.get(&descriptor.digest) {
            None => {
                blobs.insert(descriptor.digest.clone(), descriptor.clone());
            }
            Some(known) if known.size == descriptor.size && descriptor.check_data().is_ok() => {}
            Some(_) => disputed.push(descriptor.clone()),
        }
    }

    fn leave_out(&mut self, descriptor: &Descriptor) {
        let digest = descriptor.digest.clone();
        self.found.left_out.insert(digest, descriptor.clone());
    }

    /// The document that `descriptor` names; `None` if its media type stands for none, if
    /// it is not there, or if it is not right.
    fn document(&mut self, descriptor: &Descriptor, depth: u64) -> Option<Arc<Document>> {
        let document_type = DocumentType::of(&descriptor.media_type)?;
        if let Some(known) = self.documents.get(&key(descriptor)) {
            return known.clone();
        }
        let document = match self.read(descriptor, document_type, depth) {
            Ok(document) => Some(Arc::new(document)),
            Err(Error::Layout(layout::Error::BlobMissing { .. })) => None,
            Err(fault) => {
                self.blame(fault);
                None
            }
        };
        self.documents.insert(key(descriptor), document.clone());
        document
    }

    fn read(
        &mut self,
        descriptor: &Descriptor,
        document_type: DocumentType<'_>,
        depth: u64,
    ) -> Result<Document, Error> {
        let wrong = |source| Error::Document {
            digest: descriptor.digest.clone(),
            source,
        };
        let blob = open_sized(self.source, descriptor)?;
        Limit::DocumentSize.check(blob.size()).map_err(wrong)?;
        if document_type.is_index() {
            Limit::IndexDepth.check(depth).map_err(wrong)?;
        }
        self.read += blob.size();
        if self.read > MAX_DOCUMENTS {
            let (what, limit) = ("bytes of manifests and indexes", MAX_DOCUMENTS);
            return Err(Error::TooMany { what, limit });
        }
        Document::parse(&verified_bytes(&blob)?, document_type).map_err(wrong)
    }
}

fn key(descriptor: &Descriptor) -> Key {
    let read_as = descriptor.media_type.essence().to_ascii_lowercase();
    (descriptor.digest.clone(), read_as)
}

/// Opens a blob, and compares it with what its descriptor says, as far as that needs none of
/// its bytes.
///
/// # Errors
/// [`Error::Layout`]; [`Error::BlobSize`]; [`Error::Document`] for data in the descriptor that
/// differs.
pub fn open_sized(blobs: &dyn BlobSource, descriptor: &Descriptor) -> Result<Blob, Error> {
    let digest = || descriptor.digest.clone();
    let blob = blobs.open_blob(&descriptor.digest)?;
    if blob.size() != descriptor.size {
        return Err(Error::BlobSize {
            digest: digest(),
            expected: descriptor.size,
            actual: blob.size(),
        });
    }
    descriptor.check_data().map_err(|source| Error::Document {
        digest: digest(),
        source,
    })?;
    Ok(blob)
}

/// The bytes of a small blob, and not others than those that were hashed.
fn verified_bytes(blob: &Blob) -> Result<Vec<u8>, verify::Error> {
    let digest = || blob.digest().clone();
    let mut hasher = Hasher::new(blob.digest().algorithm())
        .ok_or_else(|| verify::Error::Algorithm { digest: digest() })?;
    // It is not larger than a document.
    let mut bytes = vec![0; usize::try_from(blob.size()).unwrap_or(0)];
    blob.read_at(&mut bytes, 0)
        .map_err(|source| verify::Error::Read {
            digest: digest(),
            source,
        })?;
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual != *blob.digest() {
        let expected = digest();
        return Err(verify::Error::DigestMismatch { expected, actual });
    }
    Ok(bytes)
}
