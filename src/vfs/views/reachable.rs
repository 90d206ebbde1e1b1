//! Every manifest and index that can be reached from index.json, by digest.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Views;
use super::refs::Snapshot;
use crate::oci::limits::MAX_INDEX_DEPTH;
use crate::oci::{Descriptor, Digest, DocumentType};

/// Descriptors by digest.
pub(super) type ByDigest = BTreeMap<Digest, Descriptor>;

/// The result of the last walk, for the snapshot that it was made from.
#[derive(Debug, Default)]
pub(super) struct Reachable {
    last: Mutex<Option<(Weak<Snapshot>, Arc<ByDigest>)>>,
}

impl Reachable {
    /// All manifests and indexes of the present snapshot. Each index is read once; one
    /// that cannot be read is a leaf, and the walk is made again at the next request.
    #[must_use]
    pub(super) fn get(&self, views: &Views) -> Arc<ByDigest> {
        let snapshot = views.snapshot();
        let mut last = self.last.lock();
        if let Some((of, found)) = &*last
            && of.upgrade().is_some_and(|of| Arc::ptr_eq(&of, &snapshot))
        {
            return found.clone();
        }
        let mut walk = Walk {
            views,
            found: ByDigest::new(),
            complete: true,
        };
        let entries = snapshot.view().entries();
        for descriptor in entries
            .iter()
            .filter_map(|entry| entry.descriptor.as_ref().ok())
        {
            walk.visit(descriptor, 1);
        }
        let found = Arc::new(walk.found);
        *last = walk
            .complete
            .then(|| (Arc::downgrade(&snapshot), found.clone()));
        found
    }
}

struct Walk<'a> {
    views: &'a Views,
    found: ByDigest,
    complete: bool,
}

impl Walk<'_> {
    /// Keeps one descriptor for each digest: the first under which it can be read, so
    /// that one which says something wrong of a blob does not hide the right one.
    /// Whether it is kept.
    fn keep(&mut self, descriptor: &Descriptor) -> bool {
        let is_bad = |other: &Descriptor| self.views.documents().document(other).is_err();
        let kept = match self.found.get(&descriptor.digest) {
            None => true,
            Some(other) => other != descriptor && is_bad(other) && !is_bad(descriptor),
        };
        if kept {
            let (digest, descriptor) = (descriptor.digest.clone(), descriptor.clone());
            self.found.insert(digest, descriptor);
        }
        kept
    }

    fn visit(&mut self, descriptor: &Descriptor, depth: u64) {
        let Some(document_type) = DocumentType::of(&descriptor.media_type) else {
            return;
        };
        if !self.keep(descriptor) || !document_type.is_index() || depth > MAX_INDEX_DEPTH {
            return;
        }
        match self.views.documents().document(descriptor) {
            Ok(document) => {
                for entry in document
                    .iter()
                    .filter_map(|d| d.index())
                    .flat_map(|i| &i.manifests)
                {
                    self.visit(entry, depth + 1);
                }
            }
            Err(_) => self.complete = false,
        }
    }
}
