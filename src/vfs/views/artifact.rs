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

use std::sync::{Arc, OnceLock};

use super::Views;
use super::blob::DescribedBlob;
use super::place::Place;
use super::titles::{Level, Shown};
use crate::oci::{Descriptor, Document};
use crate::vfs::attr::{Attr, FileKind, Lifetime, Time};
use crate::vfs::error::Error;
use crate::vfs::node::{Child, Name, Node, NodeKey, Patience};

/// What all directories of one artifact share.
#[derive(Debug)]
struct Artifact {
    /// Its manifest.
    descriptor: Descriptor,
    created: Option<Time>,
    /// What that says, once somebody has looked: it hangs on a digest.
    said: OnceLock<Said>,
}

#[derive(Debug)]
struct Said {
    document: Option<Arc<Document>>,
    /// The directory `files` itself.
    root: Arc<Level>,
}

impl Said {
    fn layers(&self) -> &[Descriptor] {
        let document = self.document.as_ref();
        let manifest = document.and_then(|document| document.manifest());
        manifest.map_or(&[], |manifest| &manifest.layers)
    }
}

impl Artifact {
    fn said(&self, views: &Views) -> Result<&Said, Error> {
        if let Some(said) = self.said.get() {
            return Ok(said);
        }
        let mut said = Said {
            document: views.documents().document(&self.descriptor)?,
            root: Arc::default(),
        };
        said.root = Arc::new(Level::of(said.layers()));
        Ok(self.said.get_or_init(|| said))
    }
}

/// The directory `files` of the manifest that `descriptor` names.
#[must_use]
pub(super) fn directory(
    views: &Arc<Views>,
    place: &Place,
    descriptor: &Descriptor,
    created: Option<Time>,
) -> Child {
    let node = TitleDir {
        views: views.clone(),
        place: place.below(b"files"),
        artifact: Arc::new(Artifact {
            descriptor: descriptor.clone(),
            created,
            said: OnceLock::new(),
        }),
        level: None,
    };
    Child {
        name: b"files".to_vec(),
        node: Arc::new(node),
    }
}

/// `files`, or a directory in it that titles go through.
#[derive(Debug)]
struct TitleDir {
    views: Arc<Views>,
    place: Place,
    artifact: Arc<Artifact>,
    /// What is in it; nothing of `files` itself.
    level: Option<Arc<Level>>,
}

impl TitleDir {
    /// What the manifest says, and what of it is in here.
    fn look(&self) -> Result<(&Said, &Level), Error> {
        let said = self.artifact.said(&self.views)?;
        Ok((said, self.level.as_ref().unwrap_or(&said.root)))
    }

    fn node(&self, said: &Said, name: &[u8], shown: &Shown) -> Arc<dyn Node> {
        match shown {
            Shown::File(number) => Arc::new(DescribedBlob::new(
                &self.views,
                &said.layers()[*number],
                None,
            )),
            Shown::Directory(below) => Arc::new(Self {
                views: self.views.clone(),
                place: self.place.below(name),
                artifact: self.artifact.clone(),
                level: Some(below.clone()),
            }),
        }
    }
}

impl Node for TitleDir {
    fn key(&self) -> NodeKey {
        self.place.key(self.artifact.descriptor.digest.as_str())
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        let created = self.artifact.created;
        Ok(self.views.directory_attr(created, Lifetime::Forever))
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<dyn Node>>, Error> {
        let (said, level) = self.look()?;
        let found = level.get(name);
        Ok(found.map(|shown| self.node(said, name, shown)))
    }

    fn list(&self) -> Result<Vec<Child>, Error> {
        let (said, level) = self.look()?;
        let child = |(name, shown): (&Name, &Shown)| Child {
            name: name.clone(),
            node: self.node(said, name, shown),
        };
        Ok(level.iter().map(child).collect())
    }
}
