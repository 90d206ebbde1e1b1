//! `referrers/` of an image: what is about it, by artifact type.
//!
//! ```text
//! referrers/
//! └── application%2Fspdx+json/
//!     └── sha256:5b2f…/            an image directory, with referrers/ of its own
//! ```
//!
//! For an image index these are what is about the index, and what is about the manifest that
//! its top shows. A listing reads documents, each once ([`edges`]), and no other blob.
//!
//! What is about what by `subject` is a forest. Tags can make every manifest be about every
//! other one, and indexes can list what is about others: few documents, and more ways from one
//! to the next than anybody can go. So what was gone through on the way here is not shown
//! again, no way is longer than [`MAX_NESTING`], tags are believed for [`MAX_BY_TAG`] of its
//! steps, and what an index in `referrers/` lists has no `referrers/` there.
//!
//! Where files are taken in, one that is written into the directory of a type becomes an
//! artifact of that type about the image. What takes it in is not known here: see
//! [`Views::accept_referrers`](super::Views::accept_referrers).

mod edges;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) use edges::KnownEdges;
use edges::{Edges, Referrer};

use super::Views;
use super::image::{ImageDir, ImageTime};
use super::names;
use super::place::Place;
use super::xattr::{self, Xattrs};
use crate::oci::{Descriptor, Digest, MediaType};
use crate::vfs::attr::{Attr, FileKind, Lifetime};
use crate::vfs::error::Error;
use crate::vfs::node::{Child, Node, NodeKey, OpenFile, Patience};
use crate::vfs::writable::{
    AttrChange, Caller, Created, NewNode, OpenMode, Removal, RenameMode, Room, Writable, XattrMode,
};

/// How many manifests and indexes may be gone through, each about the one before; an index
/// and what its top shows are two. To the signature of a bill of materials of an image it is
/// two, of an index three; what is further away is found by its digest.
const MAX_NESTING: usize = 4;

/// How many `referrers/` on one way believe tags. In those further in there is only what says
/// itself what it is about.
const MAX_BY_TAG: usize = 2;

/// How many directories of types may be there of which there is nothing yet, all images
/// together. They are kept in memory, and gone through whenever one is looked for.
const MAX_MADE_TYPES: usize = 1_000;

/// What takes in files that are about a manifest, of one artifact type.
pub type Attach = Box<dyn Fn(&Descriptor, &MediaType) -> Arc<dyn Writable> + Send + Sync>;

/// The artifact types of which a directory was made before there is anything of them, by the
/// digest of the subject.
pub(super) type MadeTypes = BTreeSet<(Digest, MediaType)>;

/// The directory `referrers` at `place`, which shows the manifest of `descriptor` as the top
/// of the `whole`.
#[must_use]
pub(super) fn directory(
    views: &Arc<Views>,
    place: &Place,
    whole: &[Descriptor],
    descriptor: &Descriptor,
) -> Option<Child> {
    let subject = match whole {
        [index] => index,
        _ => descriptor,
    };
    let mut digests = vec![subject.digest.clone()];
    if descriptor.digest != subject.digest {
        digests.push(descriptor.digest.clone());
    }
    let place = place.below(b"referrers").through(&digests);
    let is_near = place.gone_through().len() <= MAX_NESTING && !place.is_aside();
    is_near.then(|| Child {
        name: b"referrers".to_vec(),
        node: Arc::new(ReferrersDir(About {
            views: views.clone(),
            place,
            subject: subject.clone(),
            digests,
        })),
    })
}

/// What a directory of referrers is about.
#[derive(Debug, Clone)]
struct About {
    views: Arc<Views>,
    place: Place,
    /// What new referrers are about.
    subject: Descriptor,
    /// The digests whose referrers are shown: that one, and perhaps one more.
    digests: Vec<Digest>,
}

impl About {
    fn key(&self) -> NodeKey {
        let digests: Vec<&str> = self.digests.iter().map(Digest::as_str).collect();
        self.place.key(&digests.join(" "))
    }

    fn attr(&self) -> Attr {
        self.views.level_attr(ImageTime::default())
    }

    fn edges(&self) -> Arc<Edges> {
        self.views.edges.get(&self.views)
    }

    /// Whether what is about it has to be found first, for which documents are read.
    fn would_wait(&self) -> bool {
        !self.views.edges.is_known(&self.views)
    }

    /// Whether tags are believed here.
    fn by_tag(&self) -> bool {
        self.place.steps() <= MAX_BY_TAG
    }

    /// What is shown of this digest.
    fn find_referrer(&self, digest: &Digest) -> Option<Arc<Referrer>> {
        if self.place.gone_through().contains(digest) {
            return None;
        }
        let edges = self.edges();
        let find = |subject| edges.find(subject, self.by_tag(), digest);
        self.digests.iter().find_map(find).cloned()
    }

    /// All that is shown: of each digest what [`About::find_referrer`] finds.
    fn referrers<'a>(&self, edges: &'a Edges) -> BTreeMap<&'a Digest, &'a Arc<Referrer>> {
        let mut all = BTreeMap::new();
        for subject in &self.digests {
            for referrer in edges.about(subject, self.by_tag()) {
                all.entry(&referrer.descriptor.digest).or_insert(referrer);
            }
        }
        for digest in self.place.gone_through() {
            all.remove(digest);
        }
        all
    }

    /// The types of which there are referrers.
    fn types(&self) -> BTreeSet<MediaType> {
        let edges = self.edges();
        let types: BTreeSet<&MediaType> = self
            .referrers(&edges)
            .values()
            .map(|referrer| &referrer.artifact_type)
            .collect();
        types.into_iter().cloned().collect()
    }

    /// The types of which a directory was made, and nothing is there yet.
    fn made(&self, types: &BTreeSet<MediaType>) -> Vec<MediaType> {
        let mut made = self.views.made_types.lock();
        let is_ours = |of: &Digest| *of == self.subject.digest;
        made.retain(|(of, artifact_type)| !is_ours(of) || !types.contains(artifact_type));
        let ours = made.iter().filter(|(of, _)| is_ours(of));
        ours.map(|(_, artifact_type)| artifact_type.clone())
            .collect()
    }

    /// Notes that the directory of a type is made here.
    ///
    /// # Errors
    /// [`Error::Limit`] if there are too many of which there is nothing.
    fn make(&self, artifact_type: MediaType) -> Result<(), Error> {
        let edges = self.edges();
        let reachable = self.views.reachable.get(&self.views);
        let mut made = self.views.made_types.lock();
        if made.len() >= MAX_MADE_TYPES {
            // Nobody may have looked since something came, and can where the image has gone.
            made.retain(|(subject, artifact_type)| {
                let mut there = edges.about(subject, false);
                reachable.contains_key(subject)
                    && !there.any(|referrer| referrer.artifact_type == *artifact_type)
            });
        }
        if made.len() >= MAX_MADE_TYPES {
            let text = format!(
                "there are {MAX_MADE_TYPES} directories in referrers/ with nothing in them, which \
                 is the limit (artifact types without artifacts); remove some"
            );
            return Err(Error::limit("LIMIT_REFERRER_TYPES", text));
        }
        made.insert((self.subject.digest.clone(), artifact_type));
        Ok(())
    }

    /// The directory of a type.
    fn type_dir(&self, artifact_type: MediaType) -> Child {
        let name = names::part(artifact_type.as_str());
        let attach = self.views.attach();
        let taker = attach.map(|attach| attach(&self.subject, &artifact_type));
        let node = TypeDir {
            about: Self {
                place: self.place.below(&name),
                ..self.clone()
            },
            artifact_type,
            taker,
        };
        Child {
            name,
            node: Arc::new(node),
        }
    }
}

/// `referrers/`: a directory for each artifact type.
#[derive(Debug)]
struct ReferrersDir(About);

impl ReferrersDir {
    fn find_type(&self, name: &[u8]) -> Option<MediaType> {
        let types = self.0.types();
        let made = self.0.made(&types);
        let mut all = types.into_iter().chain(made);
        all.find(|artifact_type| names::part(artifact_type.as_str()) == name)
    }
}

impl Node for ReferrersDir {
    fn key(&self) -> NodeKey {
        self.0.key()
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn room(&self) -> Room<'_> {
        match self.0.views.attach() {
            Some(_) => Room::DropBox(self),
            None => Room::Content,
        }
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        Ok(self.0.attr())
    }

    fn would_wait_inside(&self) -> bool {
        self.0.would_wait()
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<dyn Node>>, Error> {
        let found = self.find_type(name);
        Ok(found.map(|artifact_type| self.0.type_dir(artifact_type).node))
    }

    fn list(&self) -> Result<Vec<Child>, Error> {
        let types = self.0.types();
        let made = self.0.made(&types);
        let all = types.into_iter().chain(made);
        let mut children: Vec<Child> = all.map(|of| self.0.type_dir(of)).collect();
        children.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(children)
    }
}

impl Writable for ReferrersDir {
    fn as_any(&self) -> &dyn Any {
        self
    }

    /// Makes the directory of a type. It has to be found under the name that was given.
    fn make(&self, _: &Caller, name: &[u8], new: NewNode<'_>) -> Result<Arc<dyn Node>, Error> {
        let NewNode::Directory(_) = new else {
            return Err(Error::ReadOnly);
        };
        if self.find_type(name).is_some() {
            return Err(Error::Exists);
        }
        let artifact_type = names::raw_part(name).ok_or(Error::Invalid)?;
        let artifact_type = MediaType::new(&artifact_type);
        if !artifact_type.is_well_formed() {
            log::debug!("{artifact_type} is no artifact type: write it as application%2Fspdx+json");
            return Err(Error::Invalid);
        }
        self.0.make(artifact_type.clone())?;
        Ok(self.0.type_dir(artifact_type).node)
    }

    /// Removes the directory of a type of which there is nothing.
    fn remove(&self, _: &Caller, name: &[u8], what: Removal) -> Result<(), Error> {
        let artifact_type = self.find_type(name).ok_or(Error::NotFound)?;
        match what {
            Removal::File => return Err(Error::IsDirectory),
            Removal::Directory if self.0.types().contains(&artifact_type) => {
                return Err(Error::ReadOnly);
            }
            Removal::Directory => {}
        }
        if !self
            .0
            .type_dir(artifact_type.clone())
            .node
            .list()?
            .is_empty()
        {
            return Err(Error::NotEmpty);
        }
        let made = (self.0.subject.digest.clone(), artifact_type);
        self.0.views.made_types.lock().remove(&made);
        Ok(())
    }
}

/// `referrers/TYPE/`: the referrers of one type, by digest.
#[derive(Debug)]
struct TypeDir {
    about: About,
    artifact_type: MediaType,
    /// What takes in files here, if anything does.
    taker: Option<Arc<dyn Writable>>,
}

impl TypeDir {
    fn image(&self, referrer: &Referrer) -> Arc<dyn Node> {
        let descriptor = &referrer.descriptor;
        let place = self
            .about
            .place
            .below(descriptor.digest.as_str().as_bytes());
        Arc::new(ImageDir::new(&self.about.views, place, descriptor).of_the_index())
    }

    /// The referrer that is called so.
    fn find_referrer(&self, name: &[u8]) -> Option<Arc<Referrer>> {
        let digest: Digest = std::str::from_utf8(name).ok()?.parse().ok()?;
        let found = self.about.find_referrer(&digest);
        found.filter(|referrer| referrer.artifact_type == self.artifact_type)
    }

    fn xattrs(&self) -> Xattrs {
        Xattrs::default().with("artifact-type", self.artifact_type.as_str())
    }

    /// What takes in files, for what is no referrer.
    fn taker(&self, name: &[u8]) -> Result<&dyn Writable, Error> {
        match &self.taker {
            Some(taker) if self.find_referrer(name).is_none() => Ok(&**taker),
            _ => Err(Error::ReadOnly),
        }
    }
}

impl Node for TypeDir {
    fn key(&self) -> NodeKey {
        self.about.key()
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn room(&self) -> Room<'_> {
        match &self.taker {
            Some(_) => Room::DropBox(self),
            None => Room::Content,
        }
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        Ok(self.about.attr())
    }

    fn would_wait_inside(&self) -> bool {
        self.about.would_wait()
    }

    fn name_lifetime(&self) -> Lifetime {
        Lifetime::None
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<dyn Node>>, Error> {
        if let Some(referrer) = self.find_referrer(name) {
            return Ok(Some(self.image(&referrer)));
        }
        let taker = self.taker.as_ref();
        taker.map_or(Ok(None), |taker| taker.find(name))
    }

    fn list(&self) -> Result<Vec<Child>, Error> {
        let edges = self.about.edges();
        let mut ours = self.about.referrers(&edges);
        ours.retain(|_, referrer| referrer.artifact_type == self.artifact_type);
        let child = |(digest, referrer): (&Digest, &Arc<Referrer>)| Child {
            name: digest.as_str().as_bytes().to_vec(),
            node: self.image(referrer),
        };
        let mut children: Vec<Child> = ours.into_iter().map(child).collect();
        if let Some(taker) = &self.taker {
            children.extend(taker.list()?);
        }
        Ok(children)
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        self.xattrs().names()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        xattr::find(name, || self.xattrs())
    }
}

/// What is written goes to who takes it in; referrers themselves are never changed.
impl Writable for TypeDir {
    fn as_any(&self) -> &dyn Any {
        match &self.taker {
            Some(taker) => taker.as_any(),
            None => self,
        }
    }

    fn create(
        &self,
        caller: &Caller,
        name: &[u8],
        mode: u16,
        how: OpenMode,
    ) -> Result<Created, Error> {
        let taker = self.taker(name)?;
        if !self.artifact_type.is_well_formed() {
            return Err(Error::Invalid);
        }
        taker.create(caller, name, mode, how)
    }

    fn make(&self, _: &Caller, _: &[u8], _: NewNode<'_>) -> Result<Arc<dyn Node>, Error> {
        Err(Error::ReadOnly)
    }

    fn remove_is_slow(&self, name: &[u8]) -> bool {
        let taker = self.taker.as_ref();
        taker.is_some_and(|taker| taker.remove_is_slow(name))
    }

    fn remove(&self, caller: &Caller, name: &[u8], what: Removal) -> Result<(), Error> {
        self.taker(name)?.remove(caller, name, what)
    }

    fn rename(
        &self,
        caller: &Caller,
        name: &[u8],
        to: &dyn Writable,
        new_name: &[u8],
        how: RenameMode,
    ) -> Result<(), Error> {
        self.taker(name)?.rename(caller, name, to, new_name, how)
    }

    // `cp -a` sets what it has found on the directory, too.
    fn set_attr(
        &self,
        _caller: &Caller,
        change: &AttrChange,
        _open: Option<&dyn OpenFile>,
    ) -> Result<Attr, Error> {
        match change.size {
            Some(_) => Err(Error::IsDirectory),
            None => self.attr(Patience::Never),
        }
    }

    fn set_xattr(
        &self,
        _caller: &Caller,
        _name: &[u8],
        _value: &[u8],
        _how: XattrMode,
    ) -> Result<(), Error> {
        Ok(())
    }

    fn remove_xattr(&self, _caller: &Caller, _name: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}
