//! `layers/` of an image: each layer as an uncompressed tar, as its own tree, and a link to
//! its blob.
//!
//! ```text
//! 00/                        what is in the layer, whiteouts as the files that they are
//! 00.tar                     the layer uncompressed; its sha256 is the DiffID
//! 00.tar.gz -> …/blobs/…     the stored blob, where the media type says it is compressed
//! 00.json                    a blob that is no layer, raw
//! ```

use std::sync::Arc;

use super::blob::{DescribedBlob, OpenBlob};
use super::directory::{Directory, Link};
use super::files::FilesDir;
use super::place::Place;
use super::source::{LayerSource, Opened};
use super::{Views, mtime, xattr};
use crate::layer::Layer;
use crate::oci::LayerCompression;
use crate::oci::media_type::Kind;
use crate::oci::{Descriptor, DiffId, ImageManifest};
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
    let list = move |views: &Arc<Views>, place: &Place| list(views, place, &manifest, created);
    Directory::new(
        views,
        place.below(b"layers"),
        descriptor.digest.as_str(),
        list,
    )
    .with_mtime(created)
    .into_child(b"layers")
}

fn list(
    views: &Arc<Views>,
    place: &Place,
    descriptor: &Descriptor,
    created: Option<Time>,
) -> Result<Vec<Child>, Error> {
    let document = views.documents().document(descriptor)?;
    let Some(manifest) = document.as_ref().and_then(|document| document.manifest()) else {
        return Ok(Vec::new());
    };
    let (diff_ids, lifetime) = diff_ids(views, manifest);
    // Two digits, three from 100 layers on.
    let width = manifest.layers.len().max(10).to_string().len();
    let mut children = Vec::with_capacity(manifest.layers.len() * 3);
    for (at, layer) in manifest.layers.iter().enumerate() {
        let number = format!("{at:0width$}");
        match layer.media_type.kind() {
            Kind::Layer { compression, .. } => {
                let source = LayerSource::new(views, layer, diff_ids.get(at).cloned());
                children.push(tree(place, &number, &source, lifetime, created));
                children.push(tar_file(&number, source, lifetime));
                children.extend(blob_link(views, place, &number, layer, compression));
            }
            Kind::Encrypted => {
                let source = LayerSource::new(views, layer, None);
                children.push(tree(place, &number, &source, lifetime, created));
                children.push(tar_file(&number, source, lifetime));
            }
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

fn tree(
    place: &Place,
    number: &str,
    source: &LayerSource,
    lifetime: Lifetime,
    created: Option<Time>,
) -> Child {
    let place = place.below(number.as_bytes());
    let node = FilesDir::of_layer(place, source.clone(), created).with_name_lifetime(lifetime);
    Child {
        name: number.as_bytes().to_vec(),
        node: Arc::new(node),
    }
}

fn tar_file(number: &str, source: LayerSource, name_lifetime: Lifetime) -> Child {
    let node = LayerTar {
        source,
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
/// ends early when the layers are shut down. What anybody asks for goes first. What is wrong with one is noted where
/// opening it would note it.
pub(super) fn index_all(views: &Arc<Views>) {
    let reachable = views.reachable.get(views);
    for descriptor in reachable.values() {
        let Ok(Some(document)) = views.documents().document(descriptor) else {
            continue;
        };
        let Some(manifest) = document.manifest() else {
            continue;
        };
        let (diff_ids, _) = diff_ids(views, manifest);
        for (at, layer) in manifest.layers.iter().enumerate() {
            if !matches!(layer.media_type.kind(), Kind::Layer { .. }) {
                continue;
            }
            let source = LayerSource::new(views, layer, diff_ids.get(at).cloned());
            source.make_ready();
            let opened = views.faults().judge(&source.subject(), source.layer());
            if matches!(opened, Err(Error::ShutDown)) {
                return;
            }
        }
    }
}

/// A layer as an uncompressed tar.
#[derive(Debug)]
struct LayerTar {
    source: LayerSource,
    /// How long this may be taken for what the image says of the layer.
    name_lifetime: Lifetime,
}

impl LayerTar {
    fn views(&self) -> &Arc<Views> {
        self.source.views()
    }

    fn descriptor(&self) -> &Descriptor {
        self.source.descriptor()
    }

    /// The size as far as it is known without waiting.
    fn known_size(&self) -> Option<u64> {
        let (views, digest) = (self.views(), &self.descriptor().digest);
        views.known_size(digest).or_else(|| {
            let size = views.layers().find(digest)?.size();
            views.learn_size(digest, size);
            Some(size)
        })
    }

    fn try_open(&self) -> Result<Opened, Error> {
        let (faults, subject) = (self.views().faults(), self.source.subject());
        faults.judge(&subject, self.source.open())
    }
}

impl Node for LayerTar {
    fn key(&self) -> NodeKey {
        NodeKey::content("layer", self.source.shows())
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self, patience: Patience) -> Result<Attr, Error> {
        let (views, descriptor) = (self.views(), self.descriptor());
        let file = views.blobs().identify(&descriptor.digest);
        let mtime = file.as_ref().ok().map(mtime);
        let attr = |size, lifetime| Ok(views.file_attr(size, mtime, lifetime));
        if let Some(size) = self.known_size() {
            return attr(size, Lifetime::Forever);
        }
        if file.is_err() {
            return attr(descriptor.size, Lifetime::None);
        }
        if patience == Patience::Never {
            return attr(0, Lifetime::None);
        }
        match self.try_open() {
            Ok(opened) => {
                views.learn_size(&descriptor.digest, opened.size());
                attr(opened.size(), Lifetime::Forever)
            }
            Err(Error::ShutDown) => Err(Error::ShutDown),
            Err(_) => attr(descriptor.size, Lifetime::None),
        }
    }

    fn name_lifetime(&self) -> Lifetime {
        self.name_lifetime
    }

    fn would_wait(&self) -> bool {
        let (views, digest) = (self.views(), &self.descriptor().digest);
        let Ok(blob) = views.blobs().open_blob(digest) else {
            return false;
        };
        if views.verdicts().find(&blob).is_none() {
            return true;
        }
        let plain = matches!(Compression::of(&blob), Ok(Compression::Plain));
        let judged =
            views.layers().find(digest).is_some() || views.layers().failure(&blob).is_some();
        !plain && !judged
    }

    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        match self.try_open()? {
            Opened::Stored(blob) => Ok(Arc::new(OpenBlob::new(self.views(), blob))),
            Opened::Decoded(layer) => Ok(Arc::new(OpenLayer {
                views: self.views().clone(),
                subject: self.source.subject(),
                layer,
            })),
        }
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        self.source.xattrs().names()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        xattr::find(name, || self.source.xattrs())
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
