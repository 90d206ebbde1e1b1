//! The small JSON documents of a layout: verified, parsed, and kept while there is room.
//!
//! A document that was parsed once is believed for its digest from then on, whatever
//! happens to the file: the digest fixes the bytes. Failures are not kept, so that a
//! blob which is mended or appears later is seen at once.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::oci::limits::Limit;
use crate::oci::media_type::Kind;
use crate::oci::{Descriptor, Digest, Document, DocumentType, Hasher, ImageConfig, MediaType};
use crate::store::{Blob, BlobSource, ReadAt, verify};
use crate::vfs::error::Error;

/// How many bytes of source text the parsed documents that are kept may have in all.
/// Parsed they take some five times as much.
const KEPT_BYTES: usize = 4 << 20;

/// How many parsed documents are kept at most, whatever their size.
const KEPT: NonZeroUsize = NonZeroUsize::new(16_384).expect("it is not zero");

/// Reads documents of one layout.
#[derive(Debug)]
pub(super) struct Documents {
    blobs: Arc<dyn BlobSource>,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    parsed: LruCache<Key, Parsed>,
    bytes: usize,
}

/// Which bytes, read as what.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    digest: Digest,
    size: u64,
    read_as: MediaType,
}

impl Key {
    fn of(descriptor: &Descriptor) -> Self {
        Self {
            digest: descriptor.digest.clone(),
            // The document is right; a descriptor that says another size is not.
            size: descriptor.size,
            // The same bytes read as another type may be refused.
            read_as: descriptor.media_type.clone(),
        }
    }
}

#[derive(Debug, Clone)]
struct Parsed {
    value: Value,
    len: usize,
}

#[derive(Debug, Clone)]
enum Value {
    Document(Arc<Document>),
    Config(Arc<ImageConfig>),
}

impl Documents {
    /// A reader that has kept nothing yet.
    #[must_use]
    pub(super) fn new(blobs: Arc<dyn BlobSource>) -> Self {
        let kept = Kept {
            parsed: LruCache::new(KEPT),
            bytes: 0,
        };
        Self {
            blobs,
            kept: Mutex::new(kept),
        }
    }

    /// The manifest or index that `descriptor` names; `None` if its media type stands for
    /// neither.
    ///
    /// # Errors
    /// What is wrong with the blob or the document.
    pub(super) fn document(&self, descriptor: &Descriptor) -> Result<Option<Arc<Document>>, Error> {
        let Some(document_type) = DocumentType::of(&descriptor.media_type) else {
            return Ok(None);
        };
        let key = Key::of(descriptor);
        if let Some(Value::Document(document)) = self.find(&key) {
            descriptor.check_data()?;
            return Ok(Some(document));
        }
        let bytes = self.bytes(descriptor)?;
        let document = Arc::new(Document::parse(&bytes, document_type)?);
        self.keep(key, Value::Document(document.clone()), bytes.len());
        Ok(Some(document))
    }

    /// The image config that `descriptor` names; `None` if its media type is another.
    ///
    /// # Errors
    /// What is wrong with the blob or the config.
    pub(super) fn config(
        &self,
        descriptor: &Descriptor,
    ) -> Result<Option<Arc<ImageConfig>>, Error> {
        if descriptor.media_type.kind() != Kind::Config {
            return Ok(None);
        }
        let key = Key::of(descriptor);
        if let Some(Value::Config(config)) = self.find(&key) {
            return Ok(Some(config));
        }
        let bytes = self.bytes(descriptor)?;
        let config = Arc::new(ImageConfig::parse(&bytes)?);
        self.keep(key, Value::Config(config.clone()), bytes.len());
        Ok(Some(config))
    }

    /// The verified bytes of a small blob.
    ///
    /// # Errors
    /// [`Error::Limit`] if it is too large for a document, before it is read; else what
    /// is wrong with the blob.
    pub(super) fn bytes(&self, descriptor: &Descriptor) -> Result<Arc<[u8]>, Error> {
        let blob = open_sized(&*self.blobs, descriptor)?;
        // That the blob is missing or of another size counts before a limit.
        Limit::DocumentSize.check(descriptor.size)?;
        read_verified(&blob)
    }

    fn find(&self, key: &Key) -> Option<Value> {
        self.kept
            .lock()
            .parsed
            .get(key)
            .map(|parsed| parsed.value.clone())
    }

    fn keep(&self, key: Key, value: Value, len: usize) {
        let mut kept = self.kept.lock();
        kept.bytes += len;
        if let Some((_, old)) = kept.parsed.push(key, Parsed { value, len }) {
            kept.bytes -= old.len;
        }
        while kept.bytes > KEPT_BYTES && kept.parsed.len() > 1 {
            if let Some((_, old)) = kept.parsed.pop_lru() {
                kept.bytes -= old.len;
            }
        }
    }
}

/// Opens a blob and compares it with what the descriptor says, as far as that needs none of
/// its bytes: its size, and that data in the descriptor has its digest.
///
/// # Errors
/// [`Error::Damaged`] if one differs; what is wrong with the file.
pub(super) fn open_sized(blobs: &dyn BlobSource, descriptor: &Descriptor) -> Result<Blob, Error> {
    let blob = blobs.open_blob(&descriptor.digest)?;
    if blob.size() == descriptor.size {
        descriptor.check_data()?;
        return Ok(blob);
    }
    Err(Error::damaged(
        "BLOB_SIZE",
        format!(
            "blob {} has {} bytes, its descriptor says {}",
            descriptor.digest,
            blob.size(),
            descriptor.size
        ),
    ))
}

/// The bytes of a small blob, and not others than those that were hashed.
fn read_verified(blob: &Blob) -> Result<Arc<[u8]>, Error> {
    let digest = blob.digest();
    let mut hasher = Hasher::new(digest.algorithm()).ok_or_else(|| verify::Error::Algorithm {
        digest: digest.clone(),
    })?;
    let len = usize::try_from(blob.size()).map_err(|_| Error::Invalid)?;
    let mut bytes = vec![0; len];
    let read = blob.read_at(&mut bytes, 0);
    read.map_err(|error| Error::of_content(&error))?;
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual == *digest {
        return Ok(bytes.into());
    }
    Err(verify::Error::DigestMismatch {
        expected: digest.clone(),
        actual,
    }
    .into())
}
