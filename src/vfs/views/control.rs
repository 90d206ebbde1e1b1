//! `.ocifs/`: the layout itself, everything by digest, and the state of the daemon.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde_json::json;

use super::Views;
use super::blob::StoredBlob;
use super::directory::Directory;
use super::image::ImageDir;
use super::place::Place;
use crate::oci::{Descriptor, Digest};
use crate::store::layout;
use crate::vfs::attr::{Attr, FileKind, Lifetime};
use crate::vfs::error::Error;
use crate::vfs::node::{Caching, Child, InMemory, Node, NodeKey, OpenFile, Patience};

/// The name of the directory below the mount root. It is found but not listed.
pub(super) const NAME: &[u8] = b".ocifs";

/// The directory `.ocifs`.
#[must_use]
pub(super) fn directory(views: &Arc<Views>) -> Child {
    let list = |views: &Arc<Views>, place: &Place| {
        let shelf = |kind: ShelfKind, name: &[u8]| {
            let place = place.below(name);
            Child {
                name: name.to_vec(),
                node: Arc::new(Shelf::new(views, place, kind)),
            }
        };
        Ok(vec![
            layout(views, place),
            shelf(ShelfKind::Digests, b"digests"),
            generated(views, "status.json", status),
            generated(views, "metrics", metrics),
        ])
    };
    Directory::new(views, Place::default().below(NAME), "", list).into_child(NAME)
}

fn layout(views: &Arc<Views>, place: &Place) -> Child {
    let list = |views: &Arc<Views>, place: &Place| {
        let blobs = Shelf::new(views, place.below(b"blobs"), ShelfKind::Blobs);
        let marker = views.blobs().marker()?;
        let index = views.snapshot().view().bytes().as_slice().into();
        Ok(vec![
            fixed(views, "oci-layout", marker.into()),
            fixed(views, "index.json", index),
            Child {
                name: b"blobs".to_vec(),
                node: Arc::new(blobs),
            },
        ])
    };
    Directory::new(views, place.below(b"layout"), "", list).into_child(b"layout")
}

/// A file whose bytes are at hand; its inode hangs on their digest.
fn fixed(views: &Arc<Views>, name: &str, bytes: Arc<[u8]>) -> Child {
    let node = Fixed {
        views: views.clone(),
        digest: Digest::of(&bytes),
        bytes,
    };
    Child {
        name: name.as_bytes().to_vec(),
        node: Arc::new(node),
    }
}

#[derive(Debug)]
struct Fixed {
    views: Arc<Views>,
    digest: Digest,
    bytes: Arc<[u8]>,
}

impl Node for Fixed {
    fn key(&self) -> NodeKey {
        NodeKey::content("fixed", self.digest.to_string())
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        Ok(self
            .views
            .file_attr(self.bytes.len() as u64, None, Lifetime::Forever))
    }

    fn name_lifetime(&self) -> Lifetime {
        // Another index.json is another file under the same name.
        Lifetime::None
    }

    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        Ok(Arc::new(InMemory::new(self.bytes.clone(), Caching::Keep)))
    }
}

/// Which things a shelf holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShelfKind {
    /// The stored blobs of the layout.
    Blobs,
    /// Manifests and indexes, as image directories.
    Digests,
}

/// `blobs/` or `digests/`: one directory for each algorithm.
#[derive(Debug)]
struct Shelf {
    views: Arc<Views>,
    place: Place,
    kind: ShelfKind,
}

impl Shelf {
    fn new(views: &Arc<Views>, place: Place, kind: ShelfKind) -> Self {
        Self {
            views: views.clone(),
            place,
            kind,
        }
    }

    fn algorithms(&self) -> Result<BTreeSet<String>, Error> {
        Ok(match self.kind {
            ShelfKind::Blobs => self.views.blobs().list_algorithms()?.into_iter().collect(),
            ShelfKind::Digests => {
                let found = self.views.reachable.get(&self.views);
                found
                    .keys()
                    .map(|digest| digest.algorithm_name().to_owned())
                    .collect()
            }
        })
    }

    fn section(&self, algorithm: &str) -> Arc<dyn Node> {
        Arc::new(Section {
            views: self.views.clone(),
            place: self.place.below(algorithm.as_bytes()),
            algorithm: algorithm.to_owned(),
            kind: self.kind,
        })
    }
}

impl Node for Shelf {
    fn key(&self) -> NodeKey {
        self.place.key("")
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        Ok(self.views.directory_attr(None, Lifetime::Briefly))
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<dyn Node>>, Error> {
        let Ok(name) = std::str::from_utf8(name) else {
            return Ok(None);
        };
        // Shared directories may have algorithms that the layout has not.
        let known = name == "sha256" || name == "sha512" || self.algorithms()?.contains(name);
        Ok(known.then(|| self.section(name)))
    }

    fn list(&self) -> Result<Vec<Child>, Error> {
        let child = |name: String| Child {
            node: self.section(&name),
            name: name.into_bytes(),
        };
        Ok(self.algorithms()?.into_iter().map(child).collect())
    }
}

/// `blobs/sha256/` or `digests/sha256/`.
#[derive(Debug)]
struct Section {
    views: Arc<Views>,
    place: Place,
    algorithm: String,
    kind: ShelfKind,
}

impl Section {
    fn image(&self, digest: &Digest, descriptor: &Descriptor) -> Arc<dyn Node> {
        let place = self.place.below(digest.encoded().as_bytes());
        Arc::new(ImageDir::new(&self.views, place, descriptor).of_the_index())
    }
}

impl Node for Section {
    fn key(&self) -> NodeKey {
        self.place.key("")
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        Ok(self.views.directory_attr(None, Lifetime::Briefly))
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<dyn Node>>, Error> {
        let digest = std::str::from_utf8(name).ok().and_then(|encoded| {
            format!("{}:{encoded}", self.algorithm)
                .parse::<Digest>()
                .ok()
        });
        let Some(digest) = digest else {
            return Ok(None);
        };
        match self.kind {
            ShelfKind::Blobs => match self.views.blobs().identify(&digest) {
                Ok(_) => Ok(Some(Arc::new(StoredBlob::new(&self.views, digest)))),
                Err(layout::Error::BlobMissing { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            },
            ShelfKind::Digests => {
                let found = self.views.reachable.get(&self.views);
                let descriptor = found.get(&digest);
                Ok(descriptor.map(|descriptor| self.image(&digest, descriptor)))
            }
        }
    }

    fn list(&self) -> Result<Vec<Child>, Error> {
        let name = |digest: &Digest| digest.encoded().as_bytes().to_vec();
        match self.kind {
            ShelfKind::Blobs => {
                let digests = self.views.blobs().list_blobs(&self.algorithm)?;
                let child = |digest: Digest| Child {
                    name: name(&digest),
                    node: Arc::new(StoredBlob::new(&self.views, digest)),
                };
                Ok(digests.into_iter().map(child).collect())
            }
            ShelfKind::Digests => {
                let found = self.views.reachable.get(&self.views);
                let ours = found
                    .iter()
                    .filter(|(d, _)| d.algorithm_name() == self.algorithm);
                let child = |(digest, descriptor): (&Digest, _)| Child {
                    name: name(digest),
                    node: self.image(digest, descriptor),
                };
                Ok(ours.map(child).collect())
            }
        }
    }
}

/// Makes the content of a generated file.
type Render = fn(&Views) -> String;

/// A file whose content is made when it is opened.
#[derive(Debug)]
struct Generated {
    views: Arc<Views>,
    name: &'static str,
    render: Render,
}

fn generated(views: &Arc<Views>, name: &'static str, render: Render) -> Child {
    let node = Generated {
        views: views.clone(),
        name,
        render,
    };
    Child {
        name: name.as_bytes().to_vec(),
        node: Arc::new(node),
    }
}

impl Node for Generated {
    fn key(&self) -> NodeKey {
        NodeKey::content("generated", self.name.to_owned())
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        let size = (self.render)(&self.views).len() as u64;
        Ok(self.views.file_attr(size, None, Lifetime::None))
    }

    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        let bytes = (self.render)(&self.views).into_bytes();
        Ok(Arc::new(InMemory::new(bytes.into(), Caching::Direct)))
    }
}

/// What is mounted, since when, what is being indexed, what failed.
fn status(views: &Views) -> String {
    let since = views
        .since
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let errors: Vec<_> = views
        .faults()
        .all()
        .into_iter()
        .map(|(subject, fault)| json!({"of": subject, "code": fault.code, "text": fault.text}))
        .collect();
    let passes: Vec<_> = views
        .layers()
        .passes()
        .into_iter()
        .map(|pass| {
            json!({"layer": pass.digest.to_string(), "done": pass.done, "total": pass.total})
        })
        .collect();
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "layout": views.blobs().path().to_string_lossy(),
        "mountpoint": views.options.mountpoint.as_ref().map(|path| path.to_string_lossy()),
        "since": since,
        "platform": views.platform().directory_name(),
        "index": views.snapshot().view().digest().to_string(),
        "images": views.snapshot().images(),
        "indexing": passes,
        "drop_box": views.drop_box_status(),
        "errors": errors,
    });
    format!("{status:#}\n")
}

/// The counters of `status.json` in Prometheus text format.
fn metrics(views: &Views) -> String {
    let passes = views.layers().passes();
    let left: u64 = passes
        .iter()
        .map(|pass| pass.total.saturating_sub(pass.done))
        .sum();
    let rows: [(&str, &str, u64); 4] = [
        (
            "ocifs_images",
            "Names that show an image.",
            views.snapshot().images() as u64,
        ),
        (
            "ocifs_faults",
            "Blobs in which something was found wrong.",
            views.faults().all().len() as u64,
        ),
        (
            "ocifs_passes",
            "Layers being read for the first time.",
            passes.len() as u64,
        ),
        (
            "ocifs_passes_left_bytes",
            "Stored bytes that those have yet to read.",
            left,
        ),
    ];
    let mut text = String::new();
    for (name, help, value) in rows {
        writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
        )
        .expect("writing to a string cannot fail");
    }
    text
}
