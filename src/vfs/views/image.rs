//! An image directory: what one entry of an index describes.
//!
//! ```text
//! manifest.json  config.json  layers/          a manifest
//! rootfs/                                      if it is an image's
//! files/                                       if it is any other artifact's
//! referrers/                                   what is about it
//! export/                                      the whole as an archive
//! index.json  platforms/  + the above          an image index; the default platform's
//! manifest.json or index.json, nothing else    what cannot be read
//! ```

use std::sync::Arc;

use super::blob::DescribedBlob;
use super::faults::{claim, subject};
use super::files::FilesDir;
use super::place::Place;
use super::xattr::{self, Xattrs};
use super::{Views, artifact, export, layers, platforms, referrers};
use crate::export::Root;
use crate::oci::limits::Limit;
use crate::oci::{Descriptor, Document, DocumentType, ImageManifest, MediaType};
use crate::vfs::attr::{Attr, FileKind, Lifetime, Time};
use crate::vfs::error::Error;
use crate::vfs::node::{Child, Node, NodeKey, Patience};
use crate::vfs::writable::Room;

/// The image directory of one descriptor that is not itself a ref: below `platforms/`,
/// or by digest.
#[derive(Debug)]
pub(super) struct ImageDir {
    views: Arc<Views>,
    place: Place,
    descriptor: Descriptor,
    name_lifetime: Lifetime,
}

impl ImageDir {
    /// The image directory of `descriptor` at `place`.
    #[must_use]
    pub(super) fn new(views: &Arc<Views>, place: Place, descriptor: &Descriptor) -> Self {
        Self {
            views: views.clone(),
            place,
            descriptor: descriptor.clone(),
            name_lifetime: Lifetime::Forever,
        }
    }

    /// As one whose name goes when the index names it no more.
    #[must_use]
    pub(super) fn of_the_index(self) -> Self {
        Self {
            name_lifetime: Lifetime::None,
            ..self
        }
    }

    fn xattrs(&self) -> Xattrs {
        let fault = self.views.faults().find(&subject(&self.descriptor));
        Xattrs::of(&self.descriptor).with_fault(fault.as_ref())
    }
}

impl Node for ImageDir {
    fn key(&self) -> NodeKey {
        self.place.key(self.descriptor.digest.as_str())
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        Ok(self
            .views
            .image_attr(created(&self.views, &self.descriptor)))
    }

    fn room(&self) -> Room<'_> {
        Room::Image(&self.descriptor.digest)
    }

    fn name_lifetime(&self) -> Lifetime {
        self.name_lifetime
    }

    fn list(&self) -> Result<Vec<Child>, Error> {
        Ok(children(&self.views, &self.place, &self.descriptor))
    }

    fn exported(&self) -> Option<Root> {
        let descriptors = std::slice::from_ref(&self.descriptor);
        Some(root(&self.views, &self.place, descriptors))
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        self.xattrs().names()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        xattr::find(name, || self.xattrs())
    }
}

/// What the image directory of `descriptor` at `place` holds. Never fails: what cannot be
/// read is shown as the file whose `open` says why.
#[must_use]
pub(super) fn children(views: &Arc<Views>, place: &Place, descriptor: &Descriptor) -> Vec<Child> {
    let document = match load(views, place, descriptor) {
        Ok(document) => document,
        Err(error) => {
            let node = DescribedBlob::refused(views, descriptor, error);
            return vec![Child {
                name: file_name(&descriptor.media_type).to_vec(),
                node: Arc::new(node),
            }];
        }
    };
    match document.as_deref() {
        Some(Document::Manifest(manifest)) => {
            let whole = std::slice::from_ref(descriptor);
            manifest_children(views, place, whole, descriptor, manifest)
        }
        Some(Document::Index(index)) => {
            let mut children = vec![document_file(views, descriptor, None)];
            let whole = std::slice::from_ref(descriptor);
            let entries = &index.manifests;
            children.extend(platforms::children(views, place, whole, entries));
            children
        }
        // Of a media type that is not known: its bytes, and nothing more.
        None => vec![document_file(views, descriptor, None)],
    }
}

fn load(
    views: &Views,
    place: &Place,
    descriptor: &Descriptor,
) -> Result<Option<Arc<Document>>, Error> {
    let document = || {
        let document = views.documents().document(descriptor)?;
        let is_index = document
            .as_ref()
            .is_some_and(|document| document.index().is_some());
        Limit::IndexDepth.check(place.nesting() + u64::from(is_index))?;
        Ok(document)
    };
    views.faults().judge(&subject(descriptor), document())
}

/// What is to be exported of what `descriptors` name, together one image at `place`.
#[must_use]
pub(super) fn root(views: &Views, place: &Place, descriptors: &[Descriptor]) -> Root {
    let image = || {
        let [descriptor] = descriptors else {
            return platforms::default(views, &claims(descriptors), descriptors);
        };
        let document = views.documents().document(descriptor).ok()??;
        match document.index() {
            Some(index) => platforms::default(views, &claim(descriptor), &index.manifests),
            None => Some((descriptor.clone(), document)),
        }
    };
    Root {
        names: place.names().clone(),
        descriptors: descriptors.to_vec(),
        image: image().map(|(descriptor, _)| descriptor),
    }
}

/// What several descriptors claim together.
#[must_use]
pub(super) fn claims(descriptors: &[Descriptor]) -> String {
    let claims: Vec<String> = descriptors.iter().map(claim).collect();
    claims.join(" ")
}

/// The manifest's own children; also shown at the top of an index for its default. What is
/// exported, and what referrers are about, is the `whole`.
#[must_use]
pub(super) fn manifest_children(
    views: &Arc<Views>,
    place: &Place,
    whole: &[Descriptor],
    descriptor: &Descriptor,
    manifest: &ImageManifest,
) -> Vec<Child> {
    let created = manifest_created(views, manifest).flatten();
    let config = DescribedBlob::new(views, &manifest.config, created);
    let mut children = vec![
        document_file(views, descriptor, created),
        Child {
            name: b"config.json".to_vec(),
            node: Arc::new(config),
        },
        layers::directory(views, place, descriptor, created),
    ];
    if manifest.has_rootfs() {
        let place = place.below(b"rootfs");
        children.push(Child {
            name: b"rootfs".to_vec(),
            node: Arc::new(FilesDir::rootfs(views, place, descriptor, created)),
        });
    } else {
        children.push(artifact::directory(views, place, descriptor, created));
    }
    children.extend(referrers::directory(views, place, whole, descriptor));
    let root = Root {
        names: place.names().clone(),
        descriptors: whole.to_vec(),
        image: manifest.has_rootfs().then(|| descriptor.clone()),
    };
    children.push(export::directory(views, place, root, created));
    children
}

/// When an image was made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ImageTime {
    /// Unknown if its config cannot be read, or does not say so.
    pub(super) time: Option<Time>,
    /// Whether that hangs on the image's digest alone.
    pub(super) is_settled: bool,
}

/// When the image was made, as far as its config can be read.
#[must_use]
pub(super) fn created(views: &Views, descriptor: &Descriptor) -> ImageTime {
    known_created(views, descriptor)
        .or_else(|| find_created(views, descriptor))
        .unwrap_or_default()
}

/// The same, if that was found out already: no document is read for it.
#[must_use]
pub(super) fn known_created(views: &Views, descriptor: &Descriptor) -> Option<ImageTime> {
    let known = views.created.lock().get(&descriptor.digest).copied();
    known.map(|time| ImageTime {
        time,
        is_settled: true,
    })
}

fn find_created(views: &Views, descriptor: &Descriptor) -> Option<ImageTime> {
    let document = views.documents().document(descriptor).ok()??;
    let (time, is_settled) = match &*document {
        Document::Manifest(manifest) => (manifest_created(views, manifest)?, true),
        Document::Index(index) => {
            let claim = claim(descriptor);
            let (chosen, document) = platforms::default(views, &claim, &index.manifests)?;
            let time = manifest_created(views, document.manifest()?)?;
            // What is missing of the index may hold another one, when it comes.
            (time, platforms::is_settled(views, &claim, &chosen))
        }
    };
    if is_settled {
        views.created.lock().put(descriptor.digest.clone(), time);
    }
    Some(ImageTime { time, is_settled })
}

/// What the manifest's config says; `None` if it cannot be read.
fn manifest_created(views: &Views, manifest: &ImageManifest) -> Option<Option<Time>> {
    let config = views.documents().config(&manifest.config).ok()?;
    let created = config.and_then(|config| config.created);
    Some(created.map(|time| Time {
        seconds: time.seconds,
        nanoseconds: time.nanoseconds,
    }))
}

/// The file under which a document is shown, by what its descriptor says it is.
pub(super) fn file_name(media_type: &MediaType) -> &'static [u8] {
    match DocumentType::of(media_type) {
        Some(document_type) if document_type.is_index() => b"index.json",
        _ => b"manifest.json",
    }
}

fn document_file(views: &Arc<Views>, descriptor: &Descriptor, mtime: Option<Time>) -> Child {
    let node = DescribedBlob::new(views, descriptor, mtime);
    Child {
        name: file_name(&descriptor.media_type).to_vec(),
        node: Arc::new(node),
    }
}
