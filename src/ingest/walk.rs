//! From an entry to all blobs that it leads to: each is there, has the right size and the
//! right bytes, and each document is one that can be read.
//!
//! A blob is either given, beside the entry, or in the layout already. Nothing is published
//! here.
//!
//! # Indexes that are not whole
//!
//! An index in an archive may name images that the archive does not have. Docker writes
//! such archives whenever an image for several platforms was pulled for one, with the
//! containerd image store; skopeo reads them and takes the image for its own platform, as
//! `podman load` does. So an entry of an index may lack blobs as long as another entry of
//! the same index lacks none ([`Wholeness::PerIndex`]): what is missing is shown as missing.
//! What `index.json` itself names must be there, and so must everything that a manifest
//! given by itself names ([`Wholeness::Full`]).

use std::collections::{BTreeMap, HashMap, HashSet};

use super::held::{self, Held};
use super::{Error, ErrorClass};
use crate::oci::limits::Limit;
use crate::oci::media_type::Kind;
use crate::oci::{Descriptor, Digest, Document, DocumentType};
use crate::store::layout;
use crate::store::layout::writer::{self, StoredBlob};
use crate::store::{LayoutWriter, ReadAt};

/// Whether images of an index may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wholeness {
    /// None.
    Full,
    /// All but one.
    PerIndex,
}

/// Gives out what is beside the entry.
pub(super) trait Stock {
    /// The bytes that are there for `descriptor`, and what they are called; they may have
    /// another size and digest.
    fn find(&self, descriptor: &Descriptor) -> Result<Option<(String, Held)>, Error>;

    /// Is told what will be asked for next, all of it at once.
    fn expect(&self, _descriptors: &[&Descriptor]) {}
}

/// What a walk has found.
#[derive(Debug)]
pub(super) struct Found {
    /// What was given and is needed.
    pub(super) new: BTreeMap<Digest, Held>,
    /// What is in the layout and needed.
    pub(super) stored: Vec<StoredBlob>,
}

/// See the module.
pub(super) struct Walk<'a> {
    writer: &'a LayoutWriter,
    stock: &'a dyn Stock,
    wholeness: Wholeness,
    max_blobs: usize,
    new: BTreeMap<Digest, Held>,
    stored: BTreeMap<Digest, StoredBlob>,
    /// What visiting a document has brought, by digest and media type.
    visited: HashMap<(Digest, String), Outcome>,
    /// The fault that is told, if there are several.
    fault: Option<Error>,
}

/// What a descriptor leads to, faults left aside.
#[derive(Debug, Clone)]
enum Outcome {
    /// Everything is there.
    Whole,
    /// This is not.
    Lacks(Digest),
}

impl Outcome {
    fn and(self, other: Self) -> Self {
        match self {
            Self::Whole => other,
            Self::Lacks(digest) => Self::Lacks(digest),
        }
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        writer: &'a LayoutWriter,
        stock: &'a dyn Stock,
        wholeness: Wholeness,
        max_blobs: usize,
    ) -> Self {
        Self {
            writer,
            stock,
            wholeness,
            max_blobs,
            new: BTreeMap::new(),
            stored: BTreeMap::new(),
            visited: HashMap::new(),
            fault: None,
        }
    }

    /// Walks from `descriptor`.
    ///
    /// # Errors
    /// That a blob is missing before anything else that is wrong.
    pub(super) fn enter(&mut self, descriptor: &Descriptor) -> Result<(), Error> {
        let outcome = self.visit(descriptor, 1);
        match (outcome, self.fault.take()) {
            (_, Some(fault)) if fault.class() < ErrorClass::Missing => Err(fault),
            (Outcome::Lacks(digest), _) => Err(Error::Missing { digest }),
            (Outcome::Whole, Some(fault)) => Err(fault),
            (Outcome::Whole, None) => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Found {
        Found {
            new: self.new,
            stored: self.stored.into_values().collect(),
        }
    }

    fn blame(&mut self, fault: Error) {
        let known = self.fault.as_ref().map(Error::class);
        if known.is_none_or(|known| fault.class() < known) {
            self.fault = Some(fault);
        }
    }

    fn visit(&mut self, descriptor: &Descriptor, depth: u64) -> Outcome {
        match self.obtain(descriptor) {
            Ok(Outcome::Whole) => {}
            Ok(lacking) => return lacking,
            Err(fault) => {
                self.blame(fault);
                return Outcome::Whole;
            }
        }
        let Some(document_type) = DocumentType::of(&descriptor.media_type) else {
            return Outcome::Whole;
        };
        let key = (
            descriptor.digest.clone(),
            descriptor.media_type.essence().to_ascii_lowercase(),
        );
        if let Some(outcome) = self.visited.get(&key) {
            return outcome.clone();
        }
        let outcome = match self.read(descriptor, document_type, depth) {
            Ok(document) => self.follow(&document, depth),
            Err(fault) => {
                self.blame(fault);
                Outcome::Whole
            }
        };
        self.visited.insert(key, outcome.clone());
        outcome
    }

    fn read(
        &self,
        descriptor: &Descriptor,
        document_type: DocumentType<'_>,
        depth: u64,
    ) -> Result<Document, Error> {
        let digest = &descriptor.digest;
        let wrong = |source| Error::Document {
            what: digest.to_string(),
            source,
        };
        Limit::IndexDepth.check(depth).map_err(wrong)?;
        let source: &dyn ReadAt = match (self.new.get(digest), self.stored.get(digest)) {
            (Some(held), _) => held,
            (None, Some(stored)) => stored,
            (None, None) => {
                let digest = digest.clone();
                return Err(Error::Missing { digest });
            }
        };
        let bytes = held::document(source, || digest.to_string())?;
        Document::parse(&bytes, document_type).map_err(wrong)
    }

    /// Visits what a document names, but its subject: that may be anywhere.
    ///
    /// Spec: image-spec manifest.md, "subject".
    fn follow(&mut self, document: &Document, depth: u64) -> Outcome {
        match document {
            Document::Manifest(manifest) => {
                self.expect(std::iter::once(&manifest.config).chain(&manifest.layers));
                let mut outcome = self.visit(&manifest.config, depth);
                for layer in &manifest.layers {
                    outcome = outcome.and(self.layer(layer, depth));
                }
                outcome
            }
            Document::Index(index) => {
                let outcomes = index.manifests.iter().map(|entry| {
                    let is_image = !entry.is_attestation();
                    (is_image, self.visit(entry, depth + 1))
                });
                let outcomes: Vec<(bool, Outcome)> = outcomes.collect();
                let is_whole = |(is_image, outcome): &(bool, Outcome)| {
                    *is_image && matches!(outcome, Outcome::Whole)
                };
                if self.wholeness == Wholeness::PerIndex && outcomes.iter().any(is_whole) {
                    return Outcome::Whole;
                }
                let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome);
                outcomes.fold(Outcome::Whole, Outcome::and)
            }
        }
    }

    /// Tells of what will be asked for, each blob once.
    fn expect<'d>(&self, descriptors: impl Iterator<Item = &'d Descriptor>) {
        let mut seen = HashSet::new();
        let is_new = |descriptor: &&Descriptor| {
            let digest = &descriptor.digest;
            let is_known = self.new.contains_key(digest) || self.stored.contains_key(digest);
            !is_known && seen.insert(digest.clone())
        };
        let descriptors: Vec<&Descriptor> = descriptors.filter(is_new).collect();
        let room = self
            .max_blobs
            .saturating_sub(self.new.len() + self.stored.len());
        self.stock
            .expect(&descriptors[..descriptors.len().min(room)]);
    }

    /// A layer that may not be given away, and says where it is to be had, is not in
    /// archives.
    ///
    /// Spec: image-spec layer.md, "Non-Distributable Layers".
    fn layer(&mut self, layer: &Descriptor, depth: u64) -> Outcome {
        let may_lack = matches!(
            layer.media_type.kind(),
            Kind::Layer {
                nondistributable: true,
                ..
            }
        ) && !layer.urls.is_empty()
            && self.wholeness == Wholeness::PerIndex;
        match self.visit(layer, depth) {
            Outcome::Lacks(_) if may_lack => Outcome::Whole,
            outcome => outcome,
        }
    }

    /// Gets hold of the blob of `descriptor`, if it is anywhere.
    fn obtain(&mut self, descriptor: &Descriptor) -> Result<Outcome, Error> {
        let digest = &descriptor.digest;
        descriptor.check_data().map_err(|source| Error::Document {
            what: digest.to_string(),
            source,
        })?;
        let known = self.new.get(digest).map(ReadAt::size);
        let known = known.or_else(|| Some(ReadAt::size(self.stored.get(digest)?)));
        if let Some(actual) = known {
            return check_size(descriptor, actual).map(|()| Outcome::Whole);
        }
        if self.new.len() + self.stored.len() >= self.max_blobs {
            return Err(Error::TooManyBlobs {
                limit: self.max_blobs,
            });
        }
        if self.take(descriptor)? {
            return Ok(Outcome::Whole);
        }
        match self.writer.hold(digest, descriptor.size) {
            Ok(stored) => {
                self.stored.insert(digest.clone(), stored);
                Ok(Outcome::Whole)
            }
            // The stock does not give what the layout has, and somebody may have removed it
            // since the stock has looked.
            Err(writer::Error::Layout(layout::Error::BlobMissing { digest })) => {
                match self.take(descriptor)? {
                    true => Ok(Outcome::Whole),
                    false => Ok(Outcome::Lacks(digest)),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the blob of `descriptor` from the stock; whether it is there.
    fn take(&mut self, descriptor: &Descriptor) -> Result<bool, Error> {
        let Some((what, held)) = self.stock.find(descriptor)? else {
            return Ok(false);
        };
        check_size(descriptor, ReadAt::size(&held))?;
        let actual = held.digest_like(&descriptor.digest)?;
        if actual != descriptor.digest {
            return Err(Error::DigestMismatch {
                what,
                expected: descriptor.digest.clone(),
                actual,
            });
        }
        self.new.insert(actual, held);
        Ok(true)
    }
}

fn check_size(descriptor: &Descriptor, actual: u64) -> Result<(), Error> {
    if actual == descriptor.size {
        return Ok(());
    }
    Err(Error::SizeMismatch {
        digest: descriptor.digest.clone(),
        expected: descriptor.size,
        actual,
    })
}
