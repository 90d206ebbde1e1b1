//! `files/` of an artifact: each layer as it is stored, where its title puts it.
//!
//! ```text
//! sbom.spdx.json         a layer of that title
//! docs/readme.md         the same, with directories in the title
//! docs/readme.md~0c5e…   another layer with that title
//! 02.json                a layer without one
//! ```
//!
//! What is an artifact has no root file system, and the other way round: each image directory
//! has `rootfs/` or `files/`.

use std::sync::Arc;

use super::Views;
use super::blob::DescribedBlob;
use super::directory::Directory;
use super::place::Place;
use super::titles::{Level, Shown};
use crate::oci::{Descriptor, Document};
use crate::vfs::attr::Time;
use crate::vfs::error::Error;
use crate::vfs::node::Child;

/// What all directories of one artifact share.
#[derive(Debug)]
struct Artifact {
    /// Its manifest.
    descriptor: Descriptor,
    document: Arc<Document>,
    created: Option<Time>,
}

/// The directory `files` of the manifest that `descriptor` names.
#[must_use]
pub(super) fn directory(
    views: &Arc<Views>,
    place: &Place,
    descriptor: &Descriptor,
    created: Option<Time>,
) -> Child {
    let manifest = descriptor.clone();
    let list = move |views: &Arc<Views>, place: &Place| list(views, place, &manifest, created);
    let shows = descriptor.digest.as_str();
    Directory::new(views, place.below(b"files"), shows, list)
        .with_mtime(created)
        .into_child(b"files")
}

fn list(
    views: &Arc<Views>,
    place: &Place,
    descriptor: &Descriptor,
    created: Option<Time>,
) -> Result<Vec<Child>, Error> {
    let Some(document) = views.documents().document(descriptor)? else {
        return Ok(Vec::new());
    };
    let artifact = Arc::new(Artifact {
        descriptor: descriptor.clone(),
        document,
        created,
    });
    let level = Level::of(artifact.layers());
    Ok(artifact.children(views, place, &level))
}

impl Artifact {
    fn layers(&self) -> &[Descriptor] {
        let manifest = self.document.manifest();
        manifest.map_or(&[], |manifest| &manifest.layers)
    }

    fn children(self: &Arc<Self>, views: &Arc<Views>, place: &Place, level: &Level) -> Vec<Child> {
        let child = |(name, shown): (&Vec<u8>, &Shown)| match shown {
            Shown::File(number) => Child {
                name: name.clone(),
                node: Arc::new(DescribedBlob::new(views, &self.layers()[*number], None)),
            },
            Shown::Directory(below) => self.directory(views, place, name, below.clone()),
        };
        level.iter().map(child).collect()
    }

    fn directory(
        self: &Arc<Self>,
        views: &Arc<Views>,
        place: &Place,
        name: &[u8],
        level: Arc<Level>,
    ) -> Child {
        let artifact = self.clone();
        let list =
            move |views: &Arc<Views>, place: &Place| Ok(artifact.children(views, place, &level));
        let shows = self.descriptor.digest.as_str();
        Directory::new(views, place.below(name), shows, list)
            .with_mtime(self.created)
            .into_child(name)
    }
}
