//! The read-only tree, made from a snapshot of the layout.
//!
//! ```text
//! refs ──► level ──► image ──┬─► platforms ──► image …
//!   │                        ├─► layers ──► tar, link, files
//!   │                        ├─► files ──► tree          rootfs, a layer's own tree
//!   │                        ├─► artifact                files/ by the titles of layers
//!   │                        ├─► referrers ──► image …   what is about it
//!   │                        ├─► export                  the whole as an archive
//!   │                        └─► blob
//!   └────► control (.ocifs)
//! ```
//!
//! [`Views`] holds what all nodes share and the present [`Snapshot`] of names. Nodes of
//! images and below hang on digests and hold what they need; only the directory levels of
//! ref names, the root first of all, and what is about an image look at the present snapshot
//! at each request.

mod artifact;
mod blob;
mod control;
mod directory;
mod documents;
mod export;
mod faults;
mod files;
mod image;
mod layers;
mod level;
mod loaded;
pub mod names;
mod opened;
mod place;
mod platforms;
mod reachable;
mod referrers;
pub mod refs;
mod source;
mod titles;
mod tree;
mod xattr;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use lru::LruCache;
use parking_lot::{Mutex, RwLock};

use self::directory::{Directory, Link};
use self::documents::Documents;
use self::faults::Faults;
use self::files::{Files, KEPT, MERGES};
use self::image::ImageTime;
use self::level::LevelDir;
use self::loaded::{Loaded, Turns};
use self::opened::HeldLayers;
use self::place::Place;
use self::reachable::Reachable;
pub use self::referrers::Attach;
use self::referrers::{KnownEdges, MadeTypes};
use self::refs::Snapshot;
use super::Error;
use super::attr::{Attr, Device, FileKind, Lifetime, Time};
use super::node::{Child, Name, Node, Patience};
use crate::layer::Layers;
use crate::oci::{Descriptor, Digest, Platform};
use crate::store::{BlobSource, Identity, Verdicts, View};

/// How many times of images are kept, at about 200 bytes each.
const CREATED: NonZeroUsize = NonZeroUsize::new(50_000).expect("it is not zero");

/// How many indexes are kept in mind with the manifest that their top shows, at about a
/// kilobyte each.
const DEFAULTS: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

/// How the tree is shown.
#[derive(Debug, Clone)]
pub struct ViewsOptions {
    /// The platform that the top of an image index shows.
    pub platform: Platform,
    /// Owner shown instead of the layout's.
    pub uid: Option<u32>,
    /// Group shown instead of the layout's.
    pub gid: Option<u32>,
    /// Where the tree is mounted, for `status.json`; none without a mount.
    pub mountpoint: Option<PathBuf>,
    /// Whether refs can be changed through the tree.
    pub is_writable: bool,
}

impl Default for ViewsOptions {
    fn default() -> Self {
        Self {
            platform: Platform::host(),
            uid: None,
            gid: None,
            mountpoint: None,
            is_writable: false,
        }
    }
}

/// What all nodes of the read-only tree share.
#[derive(Debug)]
pub struct Views {
    blobs: Arc<dyn BlobSource>,
    layers: Arc<Layers>,
    verdicts: Arc<Verdicts>,
    documents: Documents,
    faults: Faults,
    files: Loaded<Files>,
    merges: Turns,
    held: HeldLayers,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Levels that were made and below which nothing stands yet.
    made: Mutex<BTreeSet<Vec<Name>>>,
    reachable: Reachable,
    edges: KnownEdges,
    made_types: Mutex<MadeTypes>,
    /// When images were made, by the digest of their manifest or index: asked for again
    /// and again by listings of all refs, and much smaller than the documents. Not all say it.
    created: Mutex<LruCache<Digest, Option<Time>>>,
    /// Which manifest the top of an index shows, if any, by what the index is.
    defaults: Mutex<LruCache<String, Option<Descriptor>>>,
    sizes: Mutex<HashMap<Digest, u64>>,
    warned: Mutex<HashSet<Digest>>,
    /// What stands in the root as the drop box; an empty directory where nothing is
    /// accepted.
    drop_box: OnceLock<PlacedDropBox>,
    attach: OnceLock<PlacedAttach>,
    options: ViewsOptions,
    owner: (u32, u32),
    since: SystemTime,
}

/// What says for `status.json` how something fares.
type Status = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

/// A drop box in the root.
struct PlacedDropBox {
    node: Arc<dyn Node>,
    status: Status,
}

impl fmt::Debug for PlacedDropBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt(f)
    }
}

/// What takes in referrers.
struct PlacedAttach(Attach);

impl fmt::Debug for PlacedAttach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PlacedAttach").finish_non_exhaustive()
    }
}

/// The name of the drop box in the root.
pub const DROP_BOX: &[u8] = b"incoming";

impl Views {
    /// The tree of a layout with these blobs, as its index was seen in `view`.
    ///
    /// # Errors
    /// If what the layout is in cannot be looked at any more.
    pub fn new(
        blobs: Arc<dyn BlobSource>,
        view: View,
        layers: Arc<Layers>,
        verdicts: Arc<Verdicts>,
        options: ViewsOptions,
    ) -> Result<Arc<Self>, Error> {
        let (uid, gid) = blobs.owner()?;
        let owner = (options.uid.unwrap_or(uid), options.gid.unwrap_or(gid));
        Ok(Arc::new(Self {
            documents: Documents::new(blobs.clone()),
            blobs,
            layers,
            verdicts,
            faults: Faults::default(),
            files: Loaded::new(KEPT),
            merges: Turns::new(MERGES),
            held: HeldLayers::default(),
            snapshot: RwLock::new(Arc::new(Snapshot::new(Arc::new(view), None))),
            made: Mutex::default(),
            reachable: Reachable::default(),
            edges: KnownEdges::default(),
            made_types: Mutex::default(),
            created: Mutex::new(LruCache::new(CREATED)),
            defaults: Mutex::new(LruCache::new(DEFAULTS)),
            sizes: Mutex::default(),
            warned: Mutex::default(),
            drop_box: OnceLock::new(),
            attach: OnceLock::new(),
            options,
            owner,
            since: SystemTime::now(),
        }))
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(self: &Arc<Self>) -> Arc<dyn Node> {
        Arc::new(LevelDir::root(self))
    }

    /// Puts a drop box in the root, and what `status` says of it in `status.json`. Only the
    /// first one counts.
    pub fn place_drop_box(&self, node: Arc<dyn Node>, status: Status) {
        let (Ok(()) | Err(_)) = self.drop_box.set(PlacedDropBox { node, status });
    }

    /// Lets files be written into `referrers/` of images, each directory of a type by the node
    /// that `attach` gives for it. Only the first one counts.
    pub fn accept_referrers(&self, attach: Attach) {
        let (Ok(()) | Err(_)) = self.attach.set(PlacedAttach(attach));
    }

    fn attach(&self) -> Option<&Attach> {
        self.attach.get().map(|placed| &placed.0)
    }

    /// How the drop box fares; null where there is none.
    fn drop_box_status(&self) -> serde_json::Value {
        let placed = self.drop_box.get();
        placed.map_or(serde_json::Value::Null, |placed| (placed.status)())
    }

    fn drop_box(self: &Arc<Self>) -> Child {
        match self.drop_box.get() {
            Some(placed) => Child {
                name: DROP_BOX.to_vec(),
                node: placed.node.clone(),
            },
            None => {
                let place = Place::default().below(DROP_BOX);
                Directory::new(self, place, "", |_, _| Ok(Vec::new())).into_child(DROP_BOX)
            }
        }
    }

    /// Shows another view of the index from now on. Of several threads the last one counts.
    pub fn refresh(&self, view: View) {
        self.show(Arc::new(view), &mut self.made.lock());
    }

    /// Shows a directory at `path` although no ref name goes through it, until one does.
    pub(in crate::vfs) fn make_level(&self, path: Vec<Name>) {
        let mut made = self.made.lock();
        made.insert(path);
        self.show(self.snapshot().view().clone(), &mut made);
    }

    /// Shows the directory at `path` no longer; whether it was one without ref names.
    pub(in crate::vfs) fn remove_level(&self, path: &[Name]) -> bool {
        let mut made = self.made.lock();
        let is_removed = made.remove(path);
        self.show(self.snapshot().view().clone(), &mut made);
        is_removed
    }

    /// Who holds `made` is the only one who changes the snapshot.
    fn show(&self, view: Arc<View>, made: &mut BTreeSet<Vec<Name>>) {
        // Nobody waits for the new snapshot while it is made.
        let present = self.snapshot();
        let next = Arc::new(Snapshot::with_levels(view, Some(&present), made));
        *self.snapshot.write() = next;
    }

    /// The link that a program has just made at `path`: it is gone at the next look, when
    /// what it has made is there.
    pub(in crate::vfs) fn new_link(
        self: &Arc<Self>,
        path: Vec<Name>,
        target: &[u8],
    ) -> Arc<dyn Node> {
        let place = Place::new(path, 0);
        Arc::new(Link::new(self, place, target.to_vec(), Lifetime::None))
    }

    /// The names as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().clone()
    }

    /// Reads every layer once, so that nobody has to wait for it later. Takes as long as
    /// that takes.
    pub fn index_all(self: &Arc<Self>) {
        layers::index_all(self);
    }

    /// The layout, less its index.
    #[must_use]
    pub fn blobs(&self) -> &Arc<dyn BlobSource> {
        &self.blobs
    }

    /// The layers.
    #[must_use]
    pub fn layers(&self) -> &Arc<Layers> {
        &self.layers
    }

    fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    fn documents(&self) -> &Documents {
        &self.documents
    }

    fn faults(&self) -> &Faults {
        &self.faults
    }

    fn platform(&self) -> &Platform {
        &self.options.platform
    }

    /// Whether opening the stored blob would have to hash it first.
    fn would_hash(&self, digest: &Digest) -> bool {
        self.blobs
            .open_blob(digest)
            .is_ok_and(|blob| self.verdicts.find(&blob).is_none())
    }

    /// The decoded size of a layer that was learned before. Once the kernel was told a
    /// size it must never be told that it is not known.
    fn known_size(&self, digest: &Digest) -> Option<u64> {
        self.sizes.lock().get(digest).copied()
    }

    fn learn_size(&self, digest: &Digest, size: u64) {
        self.sizes.lock().insert(digest.clone(), size);
    }

    /// Whether nothing was said about this blob's media type yet.
    fn first_warning(&self, digest: &Digest) -> bool {
        self.warned.lock().insert(digest.clone())
    }

    /// The owner and group to show for those of a tar.
    fn shown_owner(&self, uid: u32, gid: u32) -> (u32, u32) {
        let ViewsOptions {
            uid: user,
            gid: group,
            ..
        } = &self.options;
        (user.unwrap_or(uid), group.unwrap_or(gid))
    }

    fn file_attr(&self, size: u64, mtime: Option<Time>, lifetime: Lifetime) -> Attr {
        let (uid, gid) = self.owner;
        let mtime = mtime.unwrap_or_else(|| self.index_time());
        Attr {
            kind: FileKind::Regular,
            mode: 0o444,
            size,
            stored: size,
            links: 1,
            device: Device::default(),
            uid,
            gid,
            mtime,
            other_times: None,
            lifetime,
        }
    }

    fn directory_attr(&self, mtime: Option<Time>, lifetime: Lifetime) -> Attr {
        let attr = self.file_attr(0, mtime, lifetime);
        Attr {
            kind: FileKind::Directory,
            mode: 0o555,
            ..attr
        }
    }

    /// Attributes of an image directory, or of a level that is none. What shows the
    /// index's own time changes with the index.
    fn image_attr(&self, created: ImageTime) -> Attr {
        let lifetime = match created.time {
            Some(_) if created.is_settled => Lifetime::Forever,
            _ => Lifetime::Briefly,
        };
        self.directory_attr(created.time, lifetime)
    }

    /// Attributes of a level of ref names, which may accept something.
    fn level_attr(&self, created: ImageTime) -> Attr {
        let attr = self.image_attr(created);
        match self.options.is_writable {
            true => Attr {
                mode: 0o755,
                ..attr
            },
            false => attr,
        }
    }

    /// The owner and group of what has none of its own.
    #[must_use]
    pub fn owner(&self) -> (u32, u32) {
        self.owner
    }

    /// When index.json was last written.
    fn index_time(&self) -> Time {
        mtime(self.snapshot.read().view().identity())
    }
}

/// The modification time of a stored file.
fn mtime(file: &Identity) -> Time {
    let (seconds, nanoseconds) = file.mtime;
    Time {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
    }
}
