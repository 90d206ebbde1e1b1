//! `export/` of an image: the image as an archive, computed while it is read.
//!
//! ```text
//! oci-archive.tar       all that the image leads to, all platforms of it
//! docker-archive.tar    the image that the top of its directory shows
//! ```
//!
//! Size and inode follow from the plan of the archive, for which documents are read and no
//! other blob. Whoever opens one waits until all its blobs are verified.
//!
//! A plan hangs on digests and names, and on nothing else as long as nothing is left out of
//! it; otherwise it may be another one at each look. An archive that is another by the time
//! it is opened is stale, which makes the kernel look again.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::blob::OpenBlob;
use super::directory::Directory;
use super::place::Place;
use super::xattr::{self, Xattrs};
use super::{Views, image};
use crate::export::{Format, Plan, Root, open_sized};
use crate::oci::Digest;
use crate::vfs::attr::{Attr, FileKind, Lifetime, Time};
use crate::vfs::error::Error;
use crate::vfs::node::{Child, Node, NodeKey, OpenFile, Patience};

/// How many blobs an open archive holds open: all that an image usually has. Of others it
/// holds those that were read last, because a process may only have so many.
const HELD: NonZeroUsize = NonZeroUsize::new(32).expect("it is not zero");

/// The directory `export` of the image `root` at `place`.
#[must_use]
pub(super) fn directory(
    views: &Arc<Views>,
    place: &Place,
    root: Root,
    created: Option<Time>,
) -> Child {
    let shows = image::claims(&root.descriptors);
    let list = move |views: &Arc<Views>, _: &Place| {
        // Docker takes images alone.
        let docker = root.image.as_ref().map(|_| Format::Docker);
        let formats = [Some(Format::Oci), docker].into_iter().flatten();
        let file = |format| ArchiveFile::new(views, format, root.clone(), created).into_child();
        Ok(formats.map(file).collect())
    };
    Directory::new(views, place.below(b"export"), &shows, list)
        .with_mtime(created)
        .into_child(b"export")
}

/// An archive of an image.
#[derive(Debug)]
struct ArchiveFile {
    views: Arc<Views>,
    format: Format,
    root: Root,
    mtime: Option<Time>,
    planned: Result<Planned, Error>,
}

/// What is kept of a plan. All of it would be a kilobyte for each blob.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Planned {
    fingerprint: Digest,
    size: u64,
    is_complete: bool,
}

impl Planned {
    fn of(plan: &Plan) -> Self {
        Self {
            fingerprint: plan.fingerprint(),
            size: plan.size(),
            is_complete: plan.left_out().is_empty(),
        }
    }
}

impl ArchiveFile {
    fn new(views: &Arc<Views>, format: Format, root: Root, mtime: Option<Time>) -> Self {
        let plan = plan(views, format, &root);
        Self {
            views: views.clone(),
            format,
            root,
            mtime,
            planned: plan.map(|plan| Planned::of(&plan)),
        }
    }

    fn into_child(self) -> Child {
        Child {
            name: format!("{}.tar", self.format.name()).into_bytes(),
            node: Arc::new(self),
        }
    }

    /// What faults of it are noted under.
    fn subject(&self) -> String {
        let claims = image::claims(&self.root.descriptors);
        format!("{} of {claims}", self.format.name())
    }

    /// How long name and attributes may be believed.
    fn lifetime(&self) -> Lifetime {
        match &self.planned {
            Ok(planned) if planned.is_complete => Lifetime::Forever,
            _ => Lifetime::None,
        }
    }

    fn try_open(&self) -> Result<OpenArchive, Error> {
        let plan = plan(&self.views, self.format, &self.root)?;
        if self.planned.as_ref().ok() != Some(&Planned::of(&plan)) {
            return Err(Error::Stale);
        }
        let archive = OpenArchive {
            views: self.views.clone(),
            subject: self.subject(),
            plan,
            held: Mutex::new(LruCache::new(HELD)),
        };
        archive.verify()?;
        Ok(archive)
    }

    fn xattrs(&self) -> Xattrs {
        let fault = self.views.faults().find(&self.subject());
        Xattrs::default().with_fault(fault.as_ref())
    }
}

fn plan(views: &Views, format: Format, root: &Root) -> Result<Plan, Error> {
    let roots = std::slice::from_ref(root);
    Ok(Plan::new(&**views.blobs(), format, roots)?)
}

impl Node for ArchiveFile {
    fn key(&self) -> NodeKey {
        let what = match &self.planned {
            Ok(planned) => planned.fingerprint.to_string(),
            Err(_) => format!("refused: {}, {:?}", self.subject(), self.root.names),
        };
        NodeKey::content(self.format.name(), what)
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        let size = self.planned.as_ref().map_or(0, |planned| planned.size);
        Ok(self.views.file_attr(size, self.mtime, self.lifetime()))
    }

    fn name_lifetime(&self) -> Lifetime {
        self.lifetime()
    }

    /// Finding out whether all blobs are verified takes longer than attributes do.
    fn would_wait(&self) -> bool {
        true
    }

    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        let opened = self.try_open();
        let opened = self.views.faults().judge(&self.subject(), opened);
        Ok(Arc::new(opened?))
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        self.xattrs().names()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        xattr::find(name, || self.xattrs())
    }
}

/// An archive that is open. Its blobs were verified, and each read makes sure that they are
/// as they were then.
#[derive(Debug)]
struct OpenArchive {
    views: Arc<Views>,
    subject: String,
    plan: Plan,
    /// The blobs that were read last, by their number in the plan.
    held: Mutex<LruCache<usize, Arc<OpenBlob>>>,
}

impl OpenArchive {
    /// Waits until all blobs are verified, in turn with the first passes over layers.
    fn verify(&self) -> Result<(), Error> {
        let (blobs, layers) = (&**self.views.blobs(), self.views.layers());
        let mut worst: Option<Error> = None;
        let mut note = |error: Error| {
            worst = Some(match worst.take() {
                Some(worst) => worst.or(error),
                None => error,
            });
        };
        // Nothing is hashed for an archive that cannot be whole.
        for claim in self.plan.claims() {
            if let Err(error) = open_sized(blobs, claim) {
                note(error.into());
            }
        }
        if let Some(worst) = worst {
            return Err(worst);
        }
        for blob in self.plan.blobs() {
            layers.request_verdict(&Arc::new(open_sized(blobs, blob)?));
        }
        (0..self.plan.blobs().len()).try_for_each(|number| self.blob(number).map(drop))
    }

    /// The blob with that number; one that is not open is compared with its digest again, for
    /// which a verdict is enough.
    fn blob(&self, number: usize) -> Result<Arc<OpenBlob>, Error> {
        if let Some(blob) = self.held.lock().get(&number) {
            return Ok(blob.clone());
        }
        let descriptor = &self.plan.blobs()[number];
        let blob = Arc::new(open_sized(&**self.views.blobs(), descriptor)?);
        self.views.layers().verify(&blob)?;
        let blob = Arc::new(OpenBlob::new(&self.views, blob));
        self.held.lock().put(number, blob.clone());
        Ok(blob)
    }
}

impl OpenFile for OpenArchive {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        let read_blob = |number, part: &mut [u8], inside| {
            let blob = self.blob(number);
            let blob = blob.map_err(|error| self.views.faults().noted(&self.subject, error))?;
            // Its size was compared: it has all of them.
            blob.read(part, inside).map(drop)
        };
        self.plan.read_at(buf, offset, read_blob)
    }

    fn size(&self) -> u64 {
        self.plan.size()
    }
}
