//! The directory levels of ref names: the mount root, `ghcr.io/`, `ghcr.io/org/app:1.2/`.
//!
//! A level may be an image and have further levels below at once. Its own children hang
//! on what it showed when it was looked up; the levels below are those of the present
//! snapshot.
//!
//! The kernel believes none of these names: it asks again on each way through one. It could
//! be told instead which names to forget. But for that it locks their directory, for which it
//! waits as long as somebody's rename there is not answered. What waits so cannot be killed;
//! and a daemon that is killed over a commit would not end, and neither would those who wait
//! for it. A question costs less than a notice and what is kept for it.

use std::sync::Arc;

use super::directory::Link;
use super::faults::subject;
use super::place::Place;
use super::refs::{Here, Level, Target};
use super::xattr::{self, Xattrs};
use super::{Patience, Views, control, image, platforms};
use crate::export::{Names, Root};
use crate::oci::Descriptor;
use crate::oci::index::Entry;
use crate::vfs::attr::{Attr, FileKind, Lifetime};
use crate::vfs::error::Error;
use crate::vfs::node::{Caching, Child, InMemory, Name, Node, NodeKey, OpenFile};
use crate::vfs::writable::{RefLevel, Room};

/// One directory level of ref names.
#[derive(Debug)]
pub(super) struct LevelDir {
    views: Arc<Views>,
    path: Vec<Name>,
    here: Option<Arc<Here>>,
    epoch: u64,
}

impl LevelDir {
    /// The mount root.
    #[must_use]
    pub(super) fn root(views: &Arc<Views>) -> Self {
        Self {
            views: views.clone(),
            path: Vec::new(),
            here: None,
            epoch: 0,
        }
    }

    fn place(&self) -> Place {
        Place::new(self.path.clone(), self.epoch)
    }

    /// The place of the image that is shown here, with the names of its entry.
    fn image_place(&self, entry: &Entry) -> Place {
        self.place().called(Names {
            ref_name: entry.ref_name.clone(),
            containerd_name: entry.containerd_name.clone(),
        })
    }

    /// The child that `level` stands for.
    fn child(&self, name: &[u8], level: &Level) -> Arc<dyn Node> {
        let path: Vec<Name> = self.path.iter().cloned().chain([name.to_vec()]).collect();
        if let Some(Here::Link(target)) = level.here.as_deref() {
            let place = Place::new(path, level.epoch);
            return Arc::new(Link::new(
                &self.views,
                place,
                target.clone(),
                Lifetime::None,
            ));
        }
        Arc::new(Self {
            views: self.views.clone(),
            path,
            here: level.here.clone(),
            epoch: level.epoch,
        })
    }

    /// What the image that is shown here is described by, if it is one and right.
    fn descriptor(&self) -> Option<&Descriptor> {
        match self.here.as_deref()? {
            Here::Image {
                target: Target::One(entry),
                ..
            } => entry.descriptor.as_ref().ok(),
            Here::Image { .. } | Here::Link(_) => None,
        }
    }

    /// What this level shows of its own, apart from the levels below.
    fn own_children(&self) -> Vec<Child> {
        let mut own = match self.here.as_deref() {
            None | Some(Here::Link(_)) => Vec::new(),
            Some(Here::Image {
                target: Target::One(entry),
                ..
            }) => match &entry.descriptor {
                Ok(descriptor) => {
                    image::children(&self.views, &self.image_place(entry), descriptor)
                }
                Err(error) => vec![self.malformed(entry, error)],
            },
            Some(Here::Image {
                target: Target::Platforms(entries),
                ..
            }) => {
                let whole = right(entries);
                let place = entries.first().map(|entry| self.image_place(entry));
                platforms::children(&self.views, &place.unwrap_or_default(), &whole, &whole)
            }
        };
        if self.path.is_empty() {
            own.push(control::directory(&self.views));
            own.push(self.views.drop_box());
        }
        own
    }

    /// The file that says what is wrong with an entry that is no descriptor.
    fn malformed(&self, entry: &Entry, error: &crate::oci::Error) -> Child {
        let media_type = entry.media_type.as_ref();
        let name = media_type.map_or(&b"manifest.json"[..], image::file_name);
        let node = Malformed {
            views: self.views.clone(),
            place: self.place().below(name),
            error: error.clone().into(),
        };
        Child {
            name: name.to_vec(),
            node: Arc::new(node),
        }
    }

    /// What is shown here, with what else its entry says by now.
    fn present(&self) -> Option<Arc<Here>> {
        let snapshot = self.views.snapshot();
        let level = snapshot.find(&self.path);
        let is_same = |level: &&Level| level.epoch == self.epoch;
        let present = level.filter(is_same).map(|level| level.here.clone());
        present.unwrap_or_else(|| self.here.clone())
    }

    fn xattrs(&self) -> Xattrs {
        let present = self.present();
        let Some(Here::Image { name, target }) = present.as_deref() else {
            return Xattrs::default();
        };
        match target {
            Target::One(entry) => match &entry.descriptor {
                Ok(descriptor) => {
                    let fault = self.views.faults().find(&subject(descriptor));
                    Xattrs::of(descriptor)
                        .with_ref(name.as_deref())
                        .with_fault(fault.as_ref())
                }
                Err(error) => {
                    let fault = Error::from(error.clone()).fault();
                    Xattrs::default()
                        .with_ref(name.as_deref())
                        .with_fault(fault.as_ref())
                }
            },
            Target::Platforms(_) => Xattrs::default().with_ref(name.as_deref()),
        }
    }
}

impl Node for LevelDir {
    fn key(&self) -> NodeKey {
        self.place().key(
            &self
                .here
                .as_ref()
                .map_or_else(String::new, |here| here.shows()),
        )
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    /// LOOKUP and listings read no document for the time. Where it is not known without, the
    /// kernel is not to believe what it is told, and asks when somebody wants it.
    fn attr(&self, patience: Patience) -> Result<Attr, Error> {
        let Some(descriptor) = self.descriptor() else {
            return Ok(self.views.level_attr(image::ImageTime::default()));
        };
        if patience == Patience::Wait {
            let created = image::created(&self.views, descriptor);
            return Ok(self.views.level_attr(created));
        }
        let known = image::known_created(&self.views, descriptor);
        let attr = self.views.level_attr(known.unwrap_or_default());
        Ok(match known {
            Some(_) => attr,
            None => Attr {
                lifetime: Lifetime::None,
                ..attr
            },
        })
    }

    fn room(&self) -> Room<'_> {
        Room::Refs(RefLevel {
            path: &self.path,
            is_image: matches!(self.here.as_deref(), Some(Here::Image { .. })),
        })
    }

    fn name_lifetime(&self) -> Lifetime {
        Lifetime::None
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<dyn Node>>, Error> {
        let snapshot = self.views.snapshot();
        let mut path = self.path.clone();
        path.push(name.to_vec());
        if let Some(level) = snapshot.find(&path) {
            return Ok(Some(self.child(name, level)));
        }
        let own = self
            .own_children()
            .into_iter()
            .find(|child| child.name == name);
        Ok(own.map(|child| child.node))
    }

    fn list(&self) -> Result<Vec<Child>, Error> {
        let mut children = self.own_children();
        children.retain(|child| child.name != control::NAME);
        if let Some(level) = self.views.snapshot().find(&self.path) {
            children.extend(level.below.iter().map(|(name, level)| Child {
                name: name.to_vec(),
                node: self.child(name, level),
            }));
        }
        Ok(children)
    }

    fn exported(&self) -> Option<Root> {
        let Some(Here::Image { target, .. }) = self.here.as_deref() else {
            return None;
        };
        let entries = match target {
            Target::One(entry) => std::slice::from_ref(entry),
            Target::Platforms(entries) => entries,
        };
        let descriptors = right(entries);
        let place = self.image_place(entries.first()?);
        (!descriptors.is_empty()).then(|| image::root(&self.views, &place, &descriptors))
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        self.xattrs().names()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        xattr::find(name, || self.xattrs())
    }
}

/// The descriptors of those entries that have one.
fn right(entries: &[Arc<Entry>]) -> Vec<Descriptor> {
    let descriptors = entries.iter();
    let descriptors = descriptors.filter_map(|entry| entry.descriptor.clone().ok());
    descriptors.collect()
}

/// The document of an index entry that is malformed: it cannot be opened.
#[derive(Debug)]
struct Malformed {
    views: Arc<Views>,
    place: Place,
    error: Error,
}

impl Node for Malformed {
    fn key(&self) -> NodeKey {
        self.place.key("malformed")
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        Ok(self.views.file_attr(0, None, Lifetime::None))
    }

    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        let subject = String::from_utf8_lossy(&self.place.path().join(&b'/')).into_owned();
        self.views
            .faults()
            .judge(&subject, Err(self.error.clone()))?;
        Ok(Arc::new(InMemory::new(Arc::new([]), Caching::Direct)))
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        Xattrs::default()
            .with_fault(self.error.fault().as_ref())
            .names()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        Xattrs::default()
            .with_fault(self.error.fault().as_ref())
            .get(name)
    }
}
