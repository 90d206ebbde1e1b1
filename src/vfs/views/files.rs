//! Directories whose content is a file tree: `rootfs`, and each layer's own.
//!
//! ```text
//! FilesDir ── load ──> Files ── tree ──> nodes (see `tree`)
//!  by place            by content: the layers, opened, and what they make together
//! ```
//!
//! What is in such a directory is known only after a first pass over its layers: looking
//! anything up in it, and opening it, wait for that. The directory itself can always be
//! looked at.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use super::Views;
use super::faults::subject;
use super::opened::OpenedLayer;
use super::place::Place;
use super::source::LayerSource;
use super::tree::{FileTree, TreeNode};
use super::xattr::{self, Xattrs};
use crate::layer::Layer;
use crate::layer::tree::Tree;
use crate::oci::Descriptor;
use crate::oci::media_type::Kind;
use crate::rootfs::{self, NodeId, Rootfs};
use crate::vfs::attr::{Attr, FileKind, Lifetime, Time};
use crate::vfs::error::Error;
use crate::vfs::node::{Caching, Child, Listing, Node, NodeKey, Patience};

/// How many bytes of memory the trees take that nobody uses just now.
pub(super) const KEPT: u64 = 32 << 20;

/// How many root file systems are put together at once: each takes a processor, and for a
/// while more memory than what comes out.
pub(super) const MERGES: usize = 2;

/// How many layers of an image are asked for before they are waited for: two are read at
/// once, and each takes an open file.
const AHEAD: usize = 8;

/// Which layers a directory shows.
#[derive(Debug, Clone)]
enum What {
    /// All layers of the manifest that this names, merged.
    Rootfs(Descriptor),
    /// One layer as it is.
    Layer(LayerSource),
}

/// See the module.
#[derive(Debug)]
pub(super) struct FilesDir {
    views: Arc<Views>,
    place: Place,
    what: What,
    created: Option<Time>,
    name_lifetime: Lifetime,
    tree: OnceLock<Arc<FileTree>>,
}

impl FilesDir {
    /// The directory `rootfs` of the image whose manifest `descriptor` names.
    #[must_use]
    pub(super) fn rootfs(
        views: &Arc<Views>,
        place: Place,
        descriptor: &Descriptor,
        created: Option<Time>,
    ) -> Self {
        Self::new(views, place, What::Rootfs(descriptor.clone()), created)
    }

    /// The directory of one layer.
    #[must_use]
    pub(super) fn of_layer(place: Place, source: LayerSource, created: Option<Time>) -> Self {
        let views = source.views().clone();
        Self::new(&views, place, What::Layer(source), created)
    }

    fn new(views: &Arc<Views>, place: Place, what: What, created: Option<Time>) -> Self {
        Self {
            views: views.clone(),
            place,
            what,
            created,
            name_lifetime: Lifetime::Forever,
            tree: OnceLock::new(),
        }
    }

    /// As one whose name may be believed for so long.
    #[must_use]
    pub(super) fn with_name_lifetime(self, name_lifetime: Lifetime) -> Self {
        Self {
            name_lifetime,
            ..self
        }
    }

    /// What the content hangs on.
    fn shows(&self) -> String {
        match &self.what {
            What::Rootfs(descriptor) => subject(descriptor),
            What::Layer(source) => source.shows(),
        }
    }

    /// What faults are noted under.
    fn subject(&self) -> String {
        match &self.what {
            What::Rootfs(descriptor) => format!("rootfs of {}", subject(descriptor)),
            // Its bytes may be right, and make no tree.
            What::Layer(source) => format!("tree of {}", source.subject()),
        }
    }

    /// The root of the tree; waits until all layers are known.
    fn root(&self) -> Result<TreeNode, Error> {
        if let Some(tree) = self.tree.get() {
            return Ok(TreeNode::root(tree));
        }
        let load = || self.load().map(|files| (files.weight, files));
        let loaded = self.views.files.get(&self.shows(), load);
        let files = self.views.faults().judge(&self.subject(), loaded)?;
        let shows = format!("files {}", self.shows());
        let tree = FileTree::new(&self.views, files, self.place.key(&shows), self.created);
        Ok(TreeNode::root(self.tree.get_or_init(|| Arc::new(tree))))
    }

    fn load(&self) -> Result<Files, Error> {
        match &self.what {
            What::Rootfs(descriptor) => Files::rootfs(&self.views, descriptor),
            What::Layer(source) => Files::of_layer(source),
        }
    }

    fn xattrs(&self) -> Xattrs {
        let fault = self.views.faults().find(&self.subject());
        Xattrs::default().with_fault(fault.as_ref())
    }
}

impl Node for FilesDir {
    fn key(&self) -> NodeKey {
        self.place.key(&self.shows())
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    /// Spec: image-spec layer.md says nothing of the root's attributes, and the layer that
    /// has them may not be known yet.
    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        let attr = self.views.directory_attr(self.created, Lifetime::Forever);
        let (uid, gid) = self.views.shown_owner(0, 0);
        Ok(Attr {
            mode: 0o755,
            uid,
            gid,
            ..attr
        })
    }

    fn would_wait_inside(&self) -> bool {
        // Loading a large tree from the cache directory and merging takes its time too.
        self.tree.get().is_none()
    }

    fn is_tree_root(&self) -> bool {
        true
    }

    fn name_lifetime(&self) -> Lifetime {
        self.name_lifetime
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<dyn Node>>, Error> {
        self.root()?.find(name)
    }

    fn list(&self) -> Result<Vec<Child>, Error> {
        self.root()?.list()
    }

    fn listing(&self) -> Result<Arc<dyn Listing>, Error> {
        self.root()?.listing()
    }

    fn list_caching(&self) -> Caching {
        Caching::Keep
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        self.xattrs().names()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        xattr::find(name, || self.xattrs())
    }
}

/// A file tree and the layers that its bytes come from.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) rootfs: Rootfs,
    layers: Vec<OpenedLayer>,
    /// What the inode numbers of regular files hang on.
    pub(super) content: NodeKey,
    /// Whether all layers of an image are merged in it.
    pub(super) is_rootfs: bool,
    weight: u64,
}

impl Files {
    /// All layers of the image whose manifest `descriptor` names, merged.
    fn rootfs(views: &Arc<Views>, descriptor: &Descriptor) -> Result<Self, Error> {
        let Opening { layers, trees, .. } = open_all(sources(views, descriptor)?)?;
        let rootfs = views.merges.take(|| Rootfs::new(trees))?;
        Ok(Self {
            weight: rootfs.weight(),
            rootfs,
            layers,
            content: NodeKey::content("rootfs", subject(descriptor)),
            is_rootfs: true,
        })
    }

    fn of_layer(source: &LayerSource) -> Result<Self, Error> {
        let (layer, tree) = open(source)?;
        let rootfs = Rootfs::of_layer(tree);
        let opened = OpenedLayer::new(source.clone(), None, &layer);
        Ok(Self {
            weight: rootfs.weight(),
            rootfs,
            layers: vec![opened],
            content: NodeKey::content("layer-tree", source.shows()),
            is_rootfs: false,
        })
    }

    /// The layer that a node comes from.
    pub(super) fn layer_of(&self, id: NodeId) -> &OpenedLayer {
        &self.layers[self.rootfs.layer(id)]
    }
}

/// A layer of an image, and the build step that made it.
type Source = (LayerSource, Option<String>);

/// All layers of an image and their trees. Of several that are wrong, the most telling is
/// told, so all of them are looked at.
fn open_all(sources: Vec<Source>) -> Result<Opening, Error> {
    let mut seen = HashSet::new();
    let is_new = |(source, _): &&Source| seen.insert(source.shows());
    let distinct = sources.iter().filter(is_new);
    let distinct: Vec<LayerSource> = distinct.map(|(source, _)| source.clone()).collect();
    let mut ahead = distinct.iter();
    for source in ahead.by_ref().take(AHEAD) {
        source.request();
    }
    let mut opening = Opening::default();
    for (source, created_by) in sources {
        if opening.add(source, created_by)?
            && let Some(next) = ahead.next()
        {
            next.request();
        }
    }
    match opening.fault.take() {
        Some(fault) => Err(fault),
        None => Ok(opening),
    }
}

/// The layers of an image while they are opened, the base layer first.
#[derive(Debug, Default)]
struct Opening {
    layers: Vec<OpenedLayer>,
    trees: Vec<Arc<Tree>>,
    size: rootfs::Size,
    /// Those that were opened, by what they show; nothing for those that are wrong.
    known: HashMap<String, Option<(OpenedLayer, Arc<Tree>)>>,
    fault: Option<Error>,
}

impl Opening {
    /// Adds the next layer. One that is there again is not opened again, nor is its tree
    /// loaded: it may be too heavy to be kept between two uses. Says whether it was opened.
    fn add(&mut self, source: LayerSource, created_by: Option<String>) -> Result<bool, Error> {
        let shows = source.shows();
        let is_new = !self.known.contains_key(&shows);
        if is_new {
            let opened = self.open(source)?;
            self.known.insert(shows.clone(), opened);
        }
        if let Some(Some((layer, tree))) = self.known.get(&shows) {
            self.trees.push(tree.clone());
            self.layers.push(layer.again(created_by));
            let sized = self.size.add(tree);
            sized.map_err(|error| self.with_former(error.into()))?;
        }
        Ok(is_new)
    }

    fn open(&mut self, source: LayerSource) -> Result<Option<(OpenedLayer, Arc<Tree>)>, Error> {
        match open(&source) {
            Ok((layer, tree)) => Ok(Some((OpenedLayer::new(source, None, &layer), tree))),
            Err(Error::ShutDown) => Err(Error::ShutDown),
            Err(error) => {
                self.fault = Some(self.with_former(error));
                Ok(None)
            }
        }
    }

    /// The more telling one of `error` and what was found before.
    fn with_former(&mut self, error: Error) -> Error {
        match self.fault.take() {
            Some(former) => former.or(error),
            None => error,
        }
    }
}

/// A layer and its tree; what is wrong with its bytes is noted as the layer's fault.
fn open(source: &LayerSource) -> Result<(Arc<Layer>, Arc<Tree>), Error> {
    let views = source.views();
    let layer = views.faults().judge(&source.subject(), source.layer())?;
    let tree = views.layers().tree(&layer)?;
    Ok((layer, tree))
}

/// The layers of an image, each with the build step that made it.
fn sources(views: &Arc<Views>, descriptor: &Descriptor) -> Result<Vec<Source>, Error> {
    let document = views.documents().document(descriptor)?;
    let Some(manifest) = document.as_ref().and_then(|document| document.manifest()) else {
        return Ok(Vec::new());
    };
    let Some(config) = views.documents().config(&manifest.config)? else {
        return Ok(Vec::new());
    };
    let diff_ids = config.diff_ids().map_err(Clone::clone)?;
    let count = manifest.layers.len();
    if diff_ids.len() != count {
        let found = diff_ids.len();
        let text = format!("the config has {found} DiffIDs, the manifest {count} layers");
        return Err(Error::malformed("CONFIG_DIFF_IDS", text));
    }
    let mut sources = Vec::with_capacity(count);
    for (at, (layer, diff_id)) in manifest.layers.iter().zip(diff_ids).enumerate() {
        if !matches!(
            layer.media_type.kind(),
            Kind::Layer { .. } | Kind::Encrypted
        ) {
            let text = format!("layer {at} is no file tree but {}", layer.media_type);
            return Err(Error::unsupported("LAYER_MEDIA_TYPE", text));
        }
        let step = config.step_of_layer(at, count);
        let created_by = step.and_then(|step| step.created_by.clone());
        let source = LayerSource::new(views, layer, Some(diff_id.clone()));
        sources.push((source, created_by));
    }
    Ok(sources)
}
