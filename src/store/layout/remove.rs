//! Removing one blob, if nothing leads to it.

use std::collections::BTreeSet;
use std::io;

use super::blobs;
use super::index::View;
use super::writer::{self, LayoutWriter};
use crate::oci::{self, Descriptor, Digest, Document, DocumentType};
use crate::store::ReadAt;
use crate::store::disk;

/// How often it is begun anew because somebody has changed the index in between.
const ATTEMPTS: usize = 20;

/// Why a blob stays.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The index leads to it.
    #[error("blob {digest} is needed by {by}")]
    InUse {
        /// The blob.
        digest: Digest,
        /// What names it: the digest of a manifest or an index, or `index.json`.
        by: String,
    },
    /// What the index leads to cannot be read, so that nobody knows what that needs.
    #[error("{document} cannot be read, and may need blob {digest}")]
    Unclear {
        /// The blob.
        digest: Digest,
        /// The manifest or index.
        document: Digest,
        /// What is wrong with it.
        #[source]
        source: Box<writer::Error>,
    },
    /// The layout cannot be read or written.
    #[error(transparent)]
    Writer(#[from] writer::Error),
}

impl LayoutWriter {
    /// Removes a blob of the layout that nothing leads to: neither `index.json` nor any
    /// manifest or index that can be reached from there, a subject included. A document that
    /// is missing leads nowhere. What a shared directory has stays.
    ///
    /// What is reached is found out before the locks are taken; under them the index is seen
    /// to be the same still, and made durable: another one that names the blob must not come
    /// back after a power cut. Who is about to name the blob holds it, and puts it back.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Unclear`]; [`super::Error::BlobMissing`].
    pub fn remove_blob(&self, digest: &Digest) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let view = self.read_index()?;
            self.check_unused(&view, digest)?;
            let lock = self.lock()?;
            let present = self.read_index()?;
            if !present.has_the_bytes_of(&view) {
                continue;
            }
            self.settled(present)?;
            let path = blobs::path(digest);
            match self.disk.unlink(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let digest = digest.clone();
                    let missing = super::Error::BlobMissing { digest };
                    return Err(writer::Error::from(missing).into());
                }
                other => other.map_err(|source| self.io("remove", &path, source))?,
            }
            let synced = self.disk.sync_directory(disk::parent(&path));
            synced.map_err(|source| self.io("sync", &path, source))?;
            drop(lock);
            return Ok(());
        }
        let path = self.path.join("index.json");
        Err(writer::Error::Contended { path }.into())
    }

    /// Sees that nothing leads to a blob.
    fn check_unused(&self, view: &View, digest: &Digest) -> Result<(), Error> {
        // Also where an entry is wrong in itself: it may become right.
        if contains(view.bytes(), digest) {
            return Err(in_use(digest, "index.json"));
        }
        let entries = view.entries().iter();
        let descriptors = entries.filter_map(|entry| entry.descriptor.as_ref().ok());
        let mut queue: Vec<Descriptor> = descriptors.cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(descriptor) = queue.pop() {
            let media_type = descriptor.media_type.essence().to_ascii_lowercase();
            if descriptor.digest == *digest {
                return Err(in_use(digest, "index.json"));
            }
            if DocumentType::of(&descriptor.media_type).is_none()
                || !seen.insert((descriptor.digest.clone(), media_type))
            {
                continue;
            }
            let named = self.named_by(&descriptor, digest)?;
            if named.iter().any(|named| named.digest == *digest) {
                return Err(in_use(digest, descriptor.digest.as_str()));
            }
            queue.extend(named);
        }
        Ok(())
    }

    /// What a document names; nothing if it is missing.
    fn named_by(&self, descriptor: &Descriptor, wanted: &Digest) -> Result<Vec<Descriptor>, Error> {
        let unclear = |source| Error::Unclear {
            digest: wanted.clone(),
            document: descriptor.digest.clone(),
            source: Box::new(source),
        };
        let stored = match self.look_at(&descriptor.digest, descriptor.size) {
            Err(writer::Error::Layout(super::Error::BlobMissing { .. })) => return Ok(Vec::new()),
            other => other.map_err(unclear)?,
        };
        let wrong = |source: oci::Error| {
            let path = self.path.join(blobs::path(&descriptor.digest));
            unclear(super::Error::Content { path, source }.into())
        };
        oci::limits::Limit::DocumentSize
            .check(stored.size())
            .map_err(wrong)?;
        let mut bytes = vec![0; usize::try_from(stored.size()).unwrap_or(0)];
        let read = ReadAt::read_at(&stored, &mut bytes, 0);
        read.map_err(|source| unclear(self.io("read", &blobs::path(&descriptor.digest), source)))?;
        let Some(document_type) = DocumentType::of(&descriptor.media_type) else {
            return Ok(Vec::new());
        };
        Ok(
            match Document::parse(&bytes, document_type).map_err(wrong)? {
                Document::Manifest(manifest) => {
                    let rest = manifest.layers.into_iter().chain(manifest.subject);
                    std::iter::once(manifest.config).chain(rest).collect()
                }
                Document::Index(index) => {
                    index.manifests.into_iter().chain(index.subject).collect()
                }
            },
        )
    }
}

fn in_use(digest: &Digest, by: &str) -> Error {
    Error::InUse {
        digest: digest.clone(),
        by: by.to_owned(),
    }
}

/// Whether a text has a digest in it.
fn contains(text: &[u8], digest: &Digest) -> bool {
    let digest = digest.as_str().as_bytes();
    text.windows(digest.len()).any(|window| window == digest)
}
