//! A stored blob as a file, byte for byte.

use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Views;
use super::documents::open_sized;
use super::faults::{claim, subject};
use super::xattr::{self, Xattrs};
use crate::oci::limits::MAX_DOCUMENT_SIZE;
use crate::oci::{Descriptor, Digest};
use crate::store::progress::Unwatched;
use crate::store::{Blob, Identity, ReadAt};
use crate::vfs::attr::{Attr, FileKind, Lifetime, Time};
use crate::vfs::error::Error;
use crate::vfs::node::{Caching, InMemory, Node, NodeKey, OpenFile, Patience};

/// How often a read is tried of a file that keeps changing.
const READ_ATTEMPTS: usize = 3;

/// A blob that a descriptor names, shown in an image directory: a manifest, an index, a
/// config, or the raw layer of an artifact.
#[derive(Debug)]
pub(super) struct DescribedBlob {
    views: Arc<Views>,
    descriptor: Descriptor,
    mtime: Option<Time>,
    refusal: Option<Error>,
}

impl DescribedBlob {
    /// The blob of `descriptor`, with the modification time `mtime` instead of its file's.
    #[must_use]
    pub(super) fn new(views: &Arc<Views>, descriptor: &Descriptor, mtime: Option<Time>) -> Self {
        Self {
            views: views.clone(),
            descriptor: descriptor.clone(),
            mtime,
            refusal: None,
        }
    }

    /// As [`DescribedBlob::new`], where `open` is to say what is wrong with the document
    /// in the blob, although the bytes may be right.
    #[must_use]
    pub(super) fn refused(views: &Arc<Views>, descriptor: &Descriptor, error: Error) -> Self {
        Self {
            refusal: Some(error),
            ..Self::new(views, descriptor, None)
        }
    }

    fn try_open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        if let Some(error) = &self.refusal {
            return Err(error.clone());
        }
        if self.descriptor.size <= MAX_DOCUMENT_SIZE {
            let bytes = self.views.documents().bytes(&self.descriptor)?;
            return Ok(Arc::new(InMemory::new(bytes, Caching::Keep)));
        }
        let blob = open_sized(&**self.views.blobs(), &self.descriptor)?;
        self.views.verdicts().verify(&blob, &Unwatched)?;
        Ok(Arc::new(OpenBlob::new(&self.views, blob)))
    }
}

impl Node for DescribedBlob {
    fn key(&self) -> NodeKey {
        // What was refused as one type of document may be right as another.
        match &self.refusal {
            Some(_) => NodeKey::content("refused", subject(&self.descriptor)),
            None => NodeKey::content("image", claim(&self.descriptor)),
        }
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        let file = self.views.blobs().identify(&self.descriptor.digest);
        let mtime = self.mtime.or_else(|| file.as_ref().ok().map(super::mtime));
        let lifetime = if file.is_ok() && self.refusal.is_none() {
            Lifetime::Forever
        } else {
            Lifetime::None
        };
        Ok(self.views.file_attr(self.descriptor.size, mtime, lifetime))
    }

    fn name_lifetime(&self) -> Lifetime {
        if self.refusal.is_some() {
            Lifetime::None
        } else {
            Lifetime::Forever
        }
    }

    fn would_wait(&self) -> bool {
        self.descriptor.size > MAX_DOCUMENT_SIZE && self.views.would_hash(&self.descriptor.digest)
    }

    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        self.views
            .faults()
            .judge(&subject(&self.descriptor), self.try_open())
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        self.xattrs().names()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        xattr::find(name, || self.xattrs())
    }
}

impl DescribedBlob {
    fn xattrs(&self) -> Xattrs {
        let fault = self.refusal.as_ref().and_then(Error::fault);
        let fault = fault.or_else(|| self.views.faults().find(&subject(&self.descriptor)));
        Xattrs::of(&self.descriptor).with_fault(fault.as_ref())
    }
}

/// A blob file of `.ocifs/layout/blobs`, which no descriptor need name.
#[derive(Debug)]
pub(super) struct StoredBlob {
    views: Arc<Views>,
    digest: Digest,
}

impl StoredBlob {
    /// The blob of `digest`.
    #[must_use]
    pub(super) fn new(views: &Arc<Views>, digest: Digest) -> Self {
        Self {
            views: views.clone(),
            digest,
        }
    }

    fn try_open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        let blob = self.views.blobs().open_blob(&self.digest)?;
        self.views.verdicts().verify(&blob, &Unwatched)?;
        Ok(Arc::new(OpenBlob::new(&self.views, blob)))
    }

    fn xattrs(&self) -> Xattrs {
        let fault = self.views.faults().find(self.digest.as_str());
        Xattrs::default()
            .with("digest", self.digest.as_str())
            .with_fault(fault.as_ref())
    }
}

impl Node for StoredBlob {
    fn key(&self) -> NodeKey {
        NodeKey::content("stored", self.digest.to_string())
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        let file = self.views.blobs().identify(&self.digest)?;
        // The file may be damaged and mended later, with another size.
        Ok(self
            .views
            .file_attr(file.size, Some(super::mtime(&file)), Lifetime::Briefly))
    }

    fn name_lifetime(&self) -> Lifetime {
        Lifetime::None
    }

    fn would_wait(&self) -> bool {
        self.views.would_hash(&self.digest)
    }

    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        self.views
            .faults()
            .judge(self.digest.as_str(), self.try_open())
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        self.xattrs().names()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        xattr::find(name, || self.xattrs())
    }
}

/// A verified blob, open for reading as it is stored.
///
/// What is read through here is cached under the digest for ever, so each read makes sure
/// that the file is still as it was verified. One that was renamed, linked or removed
/// meanwhile has changed as well, but not its bytes: it is verified again.
#[derive(Debug)]
pub(super) struct OpenBlob {
    views: Arc<Views>,
    blob: Arc<Blob>,
    verified: Mutex<Identity>,
}

impl OpenBlob {
    /// Opens a blob that was verified.
    pub(super) fn new(views: &Arc<Views>, blob: impl Into<Arc<Blob>>) -> Self {
        let blob = blob.into();
        let verified = Mutex::new(*blob.identity());
        Self {
            views: views.clone(),
            blob,
            verified,
        }
    }

    fn present(&self) -> Result<Identity, Error> {
        Ok(self.blob.present()?)
    }

    fn verify_again(&self) -> Result<(), Error> {
        let fresh = self.blob.reopen()?;
        self.views.verdicts().verify(&fresh, &Unwatched)?;
        *self.verified.lock() = *fresh.identity();
        Ok(())
    }
}

impl OpenFile for OpenBlob {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        let read = self.try_read(buf, offset);
        read.map_err(|error| {
            let subject = self.blob.digest().as_str();
            self.views.faults().noted(subject, error)
        })
    }

    fn size(&self) -> u64 {
        self.blob.size()
    }

    fn backing(&self) -> Option<&File> {
        self.blob.file()
    }
}

impl OpenBlob {
    fn try_read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        for _ in 0..READ_ATTEMPTS {
            if self.present()? != *self.verified.lock() {
                self.verify_again()?;
            }
            let read = self.blob.read_at(buf, offset);
            let len = read.map_err(|error| Error::of_content(&error))?;
            if self.present()? == *self.verified.lock() {
                return Ok(len);
            }
        }
        let digest = self.blob.digest();
        Err(Error::damaged(
            "BLOB_CHANGED",
            format!("blob {digest} is being written to"),
        ))
    }
}
