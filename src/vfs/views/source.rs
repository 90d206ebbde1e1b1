//! One layer of an image, as its manifest and its config describe it.

use std::sync::Arc;

use super::Views;
use super::documents::open_sized;
use super::faults::{claim, subject};
use super::xattr::Xattrs;
use crate::layer::{Layer, Layers};
use crate::oci::media_type::Kind;
use crate::oci::{Descriptor, DiffId, LayerCompression};
use crate::store::{Blob, ReadAt};
use crate::stream::Compression;
use crate::vfs::error::Error;

/// A layer of an image: its blob, and what its tar should be.
#[derive(Debug, Clone)]
pub(super) struct LayerSource {
    views: Arc<Views>,
    descriptor: Descriptor,
    /// What the image's config says that the digest of the tar is.
    diff_id: Option<DiffId>,
}

/// The tar of a layer that was opened and found right.
pub(super) enum Opened {
    /// The stored bytes are the tar.
    Stored(Arc<Blob>),
    /// The tar is decoded from them.
    Decoded(Arc<Layer>),
}

impl Opened {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Stored(blob) => blob.size(),
            Self::Decoded(layer) => layer.size(),
        }
    }
}

impl LayerSource {
    /// The layer that `descriptor` names.
    #[must_use]
    pub(super) fn new(
        views: &Arc<Views>,
        descriptor: &Descriptor,
        diff_id: Option<DiffId>,
    ) -> Self {
        Self {
            views: views.clone(),
            descriptor: descriptor.clone(),
            diff_id,
        }
    }

    pub(super) fn views(&self) -> &Arc<Views> {
        &self.views
    }

    pub(super) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// What is said of the layer: whatever shows it hangs on this.
    #[must_use]
    pub(super) fn shows(&self) -> String {
        let claim = claim(&self.descriptor);
        let encrypted = if self.is_encrypted() {
            ", encrypted"
        } else {
            ""
        };
        let diff_id = self.diff_id.as_ref().map(ToString::to_string);
        format!("{claim} {}{encrypted}", diff_id.unwrap_or_default())
    }

    /// What faults of this layer are noted under: the same blob can be right for one
    /// image and wrong for another, whose config says something else of it.
    pub(super) fn subject(&self) -> String {
        let subject = subject(&self.descriptor);
        match &self.diff_id {
            Some(diff_id) => format!("{subject} as {diff_id}"),
            None => subject,
        }
    }

    /// Opens the tar for reading all of it; waits for the layer's first pass, or until it is
    /// hashed, in turn with the passes.
    ///
    /// # Errors
    /// What is wrong with the layer.
    pub(super) fn open(&self) -> Result<Opened, Error> {
        let (blob, compression) = self.open_blob()?;
        if compression == Compression::Plain {
            self.check_plain(&blob)?;
            return Ok(Opened::Stored(blob));
        }
        Ok(Opened::Decoded(self.open_pass(blob)?))
    }

    /// Opens the layer for reading what is in it; waits for its first pass.
    ///
    /// # Errors
    /// What is wrong with the layer.
    pub(super) fn layer(&self) -> Result<Arc<Layer>, Error> {
        let (blob, _) = self.open_blob()?;
        self.open_pass(blob)
    }

    /// Has the first pass made soon, if the layer is there and not known yet; one that can
    /// have none is hashed.
    pub(super) fn request(&self) {
        self.ask(Layers::request, Layers::request_verdict);
    }

    /// Has made what [`Self::layer`] waits for, behind what anybody has asked for, and waits
    /// for that.
    pub(super) fn make_ready(&self) {
        self.ask(Layers::make_ready, Layers::make_verdict_ready);
    }

    /// Asks for a pass if there can be one, else for a verdict.
    fn ask(&self, pass: fn(&Layers, &Arc<Blob>), verdict: fn(&Layers, &Arc<Blob>)) {
        let Ok(blob) = open_sized(&**self.views.blobs(), &self.descriptor).map(Arc::new) else {
            return;
        };
        let has_none = self.is_encrypted() || Compression::of(&*blob).is_err();
        let ask = if has_none { verdict } else { pass };
        ask(self.views.layers(), &blob);
    }

    /// The blob, and how it is compressed. The order of the checks is that of precedence
    /// of their errors.
    fn open_blob(&self) -> Result<(Arc<Blob>, Compression), Error> {
        let blob = Arc::new(open_sized(&**self.views.blobs(), &self.descriptor)?);
        let compression = Compression::of(&*blob);
        if self.is_encrypted() || compression.is_err() {
            self.views.layers().verify(&blob)?;
        }
        if self.is_encrypted() {
            let text = format!("layer {} is encrypted", self.descriptor.digest);
            return Err(Error::unsupported("LAYER_ENCRYPTED", text));
        }
        let compression = compression?;
        self.warn_of_mismatch(compression);
        Ok((blob, compression))
    }

    fn open_pass(&self, blob: Arc<Blob>) -> Result<Arc<Layer>, Error> {
        let layer = self.views.layers().open(blob)?;
        self.check_diff_id(layer.diff_id())?;
        Ok(layer)
    }

    fn is_encrypted(&self) -> bool {
        self.descriptor.media_type.is_encrypted()
    }

    /// A stored layer that is not compressed is its own DiffID.
    fn check_plain(&self, blob: &Arc<Blob>) -> Result<(), Error> {
        self.views.layers().verify(blob)?;
        let same = |diff_id: &DiffId| diff_id.0.algorithm() == blob.digest().algorithm();
        match &self.diff_id {
            None => Ok(()),
            Some(diff_id) if same(diff_id) => self.check_diff_id(&DiffId(blob.digest().clone())),
            Some(_) => self.open_pass(blob.clone()).map(drop),
        }
    }

    fn check_diff_id(&self, actual: &DiffId) -> Result<(), Error> {
        let digest = &self.descriptor.digest;
        match &self.diff_id {
            Some(expected) if expected.0.algorithm() != actual.0.algorithm() => {
                let text = format!("layer {digest}: DiffID {expected} cannot be checked");
                Err(Error::unsupported("DIFF_ID_ALGORITHM", text))
            }
            Some(expected) if expected != actual => {
                let text = format!(
                    "layer {digest} has the DiffID {actual}, the image's config says {expected}"
                );
                Err(Error::damaged("LAYER_DIFF_ID", text))
            }
            _ => Ok(()),
        }
    }

    fn warn_of_mismatch(&self, found: Compression) {
        let Kind::Layer {
            compression: said, ..
        } = self.descriptor.media_type.kind()
        else {
            return;
        };
        let agree = matches!(
            (said, found),
            (LayerCompression::None, Compression::Plain)
                | (LayerCompression::Gzip, Compression::Gzip)
                | (LayerCompression::Zstd, Compression::Zstd)
        );
        if !agree && self.views.first_warning(&self.descriptor.digest) {
            log::warn!(
                "MEDIATYPE_MISMATCH: layer {} is {found:?}, its media type is {}",
                self.descriptor.digest,
                self.descriptor.media_type
            );
        }
    }

    /// Its virtual extended attributes.
    pub(super) fn xattrs(&self) -> Xattrs {
        let fault = self.views.faults().find(&self.subject());
        Xattrs::of(&self.descriptor)
            .with_diff_id(self.diff_id.as_ref())
            .with_fault(fault.as_ref())
    }
}
