//! `layers/` of an image: each layer as an uncompressed tar, and a link to its blob.
//!
//! ```text
//! 00.tar                     the layer uncompressed; its sha256 is the DiffID
//! 00.tar.gz -> …/blobs/…     the stored blob, where the media type says it is compressed
//! 00.json                    a blob that is no layer, raw
//! ```

use std::sync::Arc;

use super::blob::{DescribedBlob, OpenBlob};
use super::directory::{Directory, Link};
use super::documents::open_sized;
use super::faults::{claim, subject};
use super::place::Place;
use super::xattr::{self, Xattrs};
use super::{Views, mtime};
use crate::layer::Layer;
use crate::oci::LayerCompression;
use crate::oci::media_type::Kind;
use crate::oci::{Descriptor, DiffId, ImageManifest};
use crate::store::progress::Unwatched;
use crate::store::{Blob, ReadAt};
use crate::stream::{Compression, TarOffset};
use crate::vfs::attr::{Attr, FileKind, Lifetime, Time};
use crate::vfs::error::Error;
use crate::vfs::node::{Child, Node, NodeKey, OpenFile, Patience};

/// The directory `layers` of the manifest that `descriptor` names.
#[must_use]
pub(super) fn directory(
    views: &Arc<Views>,
    place: &Place,
    descriptor: &Descriptor,
    created: Option<Time>,
) -> Child {
    let manifest = descriptor.clone();
    let list = move |views: &Arc<Views>, place: &Place| list(views, place, &manifest);
    Directory::new(
        views,
        place.below(b"layers"),
        descriptor.digest.as_str(),
        list,
    )
    .with_mtime(created)
    .into_child(b"layers")
}

fn list(views: &Arc<Views>, place: &Place, descriptor: &Descriptor) -> Result<Vec<Child>, Error> {
    let document = views.documents().document(descriptor)?;
    let Some(manifest) = document.as_ref().and_then(|document| document.manifest()) else {
        return Ok(Vec::new());
    };
    let (diff_ids, lifetime) = diff_ids(views, manifest);
    // Two digits, three from 100 layers on.
    let width = manifest.layers.len().max(10).to_string().len();
    let mut children = Vec::with_capacity(manifest.layers.len() * 2);
    for (at, layer) in manifest.layers.iter().enumerate() {
        let number = format!("{at:0width$}");
        match layer.media_type.kind() {
            Kind::Layer { compression, .. } => {
                let diff_id = diff_ids.get(at).cloned();
                children.push(tar_file(views, &number, layer, diff_id, lifetime));
                children.extend(blob_link(views, place, &number, layer, compression));
            }
            Kind::Encrypted => children.push(tar_file(views, &number, layer, None, lifetime)),
            _ => children.push(raw_file(views, &number, layer)),
        }
    }
    Ok(children)
}

/// The DiffIDs that the config gives: none if it gives another number of them than there
/// are layers, because then nobody can say which belongs to which. And how long that may
/// be believed: not at all where the config cannot be read now.
fn diff_ids(views: &Arc<Views>, manifest: &ImageManifest) -> (Vec<DiffId>, Lifetime) {
    let config = match views.documents().config(&manifest.config) {
        Ok(Some(config)) => config,
        Ok(None) => return (Vec::new(), Lifetime::Forever),
        Err(_) => return (Vec::new(), Lifetime::None),
    };
    let diff_ids = match config.diff_ids() {
        Ok(diff_ids) if diff_ids.len() == manifest.layers.len() => diff_ids.to_vec(),
        _ => Vec::new(),
    };
    (diff_ids, Lifetime::Forever)
}

fn tar_file(
    views: &Arc<Views>,
    number: &str,
    descriptor: &Descriptor,
    diff_id: Option<DiffId>,
    name_lifetime: Lifetime,
) -> Child {
    let node = LayerTar {
        views: views.clone(),
        descriptor: descriptor.clone(),
        diff_id,
        name_lifetime,
    };
    Child {
        name: format!("{number}.tar").into_bytes(),
        node: Arc::new(node),
    }
}

/// The link to a blob that is stored compressed.
fn blob_link(
    views: &Arc<Views>,
    place: &Place,
    number: &str,
    descriptor: &Descriptor,
    compression: LayerCompression,
) -> Option<Child> {
    let extension = match compression {
        LayerCompression::None => return None,
        LayerCompression::Gzip => "gz",
        LayerCompression::Zstd => "zst",
    };
    let name = format!("{number}.tar.{extension}").into_bytes();
    let digest = &descriptor.digest;
    let blob = format!(
        ".ocifs/layout/blobs/{}/{}",
        digest.algorithm_name(),
        digest.encoded()
    );
    let place = place.below(&name);
    let target = place.link_to(&blob);
    let node = Link::new(views, place, target, Lifetime::Forever);
    Some(Child {
        name,
        node: Arc::new(node),
    })
}

fn raw_file(views: &Arc<Views>, number: &str, descriptor: &Descriptor) -> Child {
    let name = format!("{number}{}", descriptor.media_type.extension());
    let node = DescribedBlob::new(views, descriptor, None);
    Child {
        name: name.into_bytes(),
        node: Arc::new(node),
    }
}

/// Makes the first pass over every layer that the index leads to, one after the other;
/// ends early when the layers are shut down. What is wrong with one is noted where
/// opening it would note it.
pub(super) fn index_all(views: &Arc<Views>) {
    let reachable = views.reachable.get(views);
    for descriptor in reachable.values() {
        let Ok(children) = list(views, &Place::default(), descriptor) else {
            continue;
        };
        for child in children {
            if child.node.would_wait() && matches!(child.node.open(), Err(Error::ShutDown)) {
                return;
            }
        }
    }
}

/// A layer as an uncompressed tar.
#[derive(Debug)]
struct LayerTar {
    views: Arc<Views>,
    descriptor: Descriptor,
    /// What the image's config says that the digest of the tar is.
    diff_id: Option<DiffId>,
    /// How long this may be taken for what the image says of the layer.
    name_lifetime: Lifetime,
}

impl LayerTar {
    /// Opens the layer; waits for its first pass. The order of the checks is that of
    /// precedence of their errors.
    fn try_open(&self) -> Result<Opened, Error> {
        let blob = open_sized(self.views.layout(), &self.descriptor)?;
        let compression = Compression::of(&blob);
        let encrypted = self.is_encrypted();
        let decoded = matches!(compression, Ok(Compression::Gzip | Compression::Zstd));
        if encrypted || !decoded {
            self.views.verdicts().verify(&blob, &Unwatched)?;
        }
        if encrypted {
            let text = format!("layer {} is encrypted", self.descriptor.digest);
            return Err(Error::unsupported("LAYER_ENCRYPTED", text));
        }
        let compression = compression?;
        self.warn_of_mismatch(compression);
        if compression == Compression::Plain {
            self.check_plain(&blob)?;
            return Ok(Opened::Stored(blob));
        }
        let layer = self.views.layers().open(Arc::new(blob))?;
        self.check_diff_id(layer.diff_id())?;
        Ok(Opened::Decoded(layer))
    }

    fn is_encrypted(&self) -> bool {
        self.descriptor.media_type.is_encrypted()
    }

    /// A stored layer that is not compressed is its own DiffID.
    fn check_plain(&self, blob: &Blob) -> Result<(), Error> {
        let same = |diff_id: &DiffId| diff_id.0.algorithm() == blob.digest().algorithm();
        match &self.diff_id {
            None => Ok(()),
            Some(diff_id) if same(diff_id) => self.check_diff_id(&DiffId(blob.digest().clone())),
            Some(_) => {
                let blob = open_sized(self.views.layout(), &self.descriptor)?;
                let layer = self.views.layers().open(Arc::new(blob))?;
                self.check_diff_id(layer.diff_id())
            }
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

    /// The size as far as it is known without waiting.
    fn known_size(&self) -> Option<u64> {
        let digest = &self.descriptor.digest;
        self.views.known_size(digest).or_else(|| {
            let size = self.views.layers().find(digest)?.size();
            self.views.learn_size(digest, size);
            Some(size)
        })
    }

    fn xattrs(&self) -> Xattrs {
        let fault = self.views.faults().find(&self.subject());
        Xattrs::of(&self.descriptor)
            .with_diff_id(self.diff_id.as_ref())
            .with_fault(fault.as_ref())
    }

    /// What faults of this layer are noted under: the same blob can be right for one
    /// image and wrong for another, whose config says something else of it.
    fn subject(&self) -> String {
        let subject = subject(&self.descriptor);
        match &self.diff_id {
            Some(diff_id) => format!("{subject} as {diff_id}"),
            None => subject,
        }
    }
}

impl Node for LayerTar {
    fn key(&self) -> NodeKey {
        let claim = claim(&self.descriptor);
        let encrypted = if self.is_encrypted() {
            ", encrypted"
        } else {
            ""
        };
        let diff_id = self.diff_id.as_ref().map(ToString::to_string);
        let text = format!("{claim} {}{encrypted}", diff_id.unwrap_or_default());
        NodeKey::content("layer", text)
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self, patience: Patience) -> Result<Attr, Error> {
        let stat = self.views.layout().stat_blob(&self.descriptor.digest);
        let mtime = stat.as_ref().ok().map(mtime);
        let attr = |size, lifetime| Ok(self.views.file_attr(size, mtime, lifetime));
        if let Some(size) = self.known_size() {
            return attr(size, Lifetime::Forever);
        }
        if stat.is_err() {
            return attr(self.descriptor.size, Lifetime::None);
        }
        if patience == Patience::Never {
            return attr(0, Lifetime::None);
        }
        match self.views.faults().judge(&self.subject(), self.try_open()) {
            Ok(opened) => {
                self.views
                    .learn_size(&self.descriptor.digest, opened.size());
                attr(opened.size(), Lifetime::Forever)
            }
            Err(Error::ShutDown) => Err(Error::ShutDown),
            Err(_) => attr(self.descriptor.size, Lifetime::None),
        }
    }

    fn name_lifetime(&self) -> Lifetime {
        self.name_lifetime
    }

    fn would_wait(&self) -> bool {
        let digest = &self.descriptor.digest;
        let Ok(blob) = self.views.layout().open_blob(digest) else {
            return false;
        };
        if self.views.verdicts().find(&blob).is_none() {
            return true;
        }
        let plain = matches!(Compression::of(&blob), Ok(Compression::Plain));
        let judged = self.views.layers().find(digest).is_some()
            || self.views.layers().failure(&blob).is_some();
        !plain && !judged
    }

    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        match self
            .views
            .faults()
            .judge(&self.subject(), self.try_open())?
        {
            Opened::Stored(blob) => Ok(Arc::new(OpenBlob::new(&self.views, blob))),
            Opened::Decoded(layer) => Ok(Arc::new(OpenLayer {
                views: self.views.clone(),
                subject: self.subject(),
                layer,
            })),
        }
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        self.xattrs().names()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        xattr::find(name, || self.xattrs())
    }
}

/// A layer that was opened and found right.
enum Opened {
    /// The stored bytes are the tar.
    Stored(Blob),
    /// The tar is decoded from them.
    Decoded(Arc<Layer>),
}

impl Opened {
    fn size(&self) -> u64 {
        match self {
            Self::Stored(blob) => blob.size(),
            Self::Decoded(layer) => layer.size(),
        }
    }
}

/// A decoded layer, open for reading.
#[derive(Debug)]
struct OpenLayer {
    views: Arc<Views>,
    subject: String,
    layer: Arc<Layer>,
}

impl OpenFile for OpenLayer {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        let read = self.layer.read_at(buf, TarOffset(offset));
        read.map_err(|error| self.views.faults().noted(&self.subject, error.into()))
    }

    fn size(&self) -> u64 {
        self.layer.size()
    }
}
