//! The layers that the bytes of a file tree come from.
//!
//! An image may have thousands of layers, and a process only so many open files: a tree
//! holds none of them open, the ones that were used last are held open for all trees.

use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};

use lru::LruCache;
use parking_lot::Mutex;

use super::source::LayerSource;
use crate::layer::Layer;
use crate::oci::Digest;
use crate::store::Identity;
use crate::vfs::error::Error;

/// How many layers are held open that nobody reads just now: a small part of the 1,024
/// files that a process may usually have open.
const HELD: NonZeroUsize = NonZeroUsize::new(128).expect("it is not zero");

/// The layers that were used last, by what they show.
#[derive(Debug)]
pub(super) struct HeldLayers(Mutex<LruCache<String, Arc<Layer>>>);

impl Default for HeldLayers {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(HELD)))
    }
}

/// A layer of a tree.
#[derive(Debug)]
pub(super) struct OpenedLayer {
    source: LayerSource,
    /// The build step that made it.
    pub(super) created_by: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The file that its blob was in when it was opened.
    identity: Identity,
    layer: Weak<Layer>,
}

impl OpenedLayer {
    /// `layer`, which `source` opened.
    pub(super) fn new(source: LayerSource, created_by: Option<String>, layer: &Arc<Layer>) -> Self {
        let opened = Self {
            created_by,
            state: Mutex::new(State {
                identity: *layer.blob().identity(),
                layer: Weak::new(),
            }),
            source,
        };
        opened.hold(layer);
        opened
    }

    /// The same layer at another place of its image.
    pub(super) fn again(&self, created_by: Option<String>) -> Self {
        let state = self.state.lock();
        Self {
            source: self.source.clone(),
            created_by,
            state: Mutex::new(State {
                identity: state.identity,
                layer: state.layer.clone(),
            }),
        }
    }

    /// The digest of its blob.
    pub(super) fn digest(&self) -> &Digest {
        &self.source.descriptor().digest
    }

    /// What faults of it are noted under.
    pub(super) fn subject(&self) -> String {
        self.source.subject()
    }

    /// Whether [`Self::layer`] has to open it anew: it was closed meanwhile, the file of
    /// its blob is another now, or what is known of it turned out to be damaged.
    pub(super) fn has_gone(&self) -> bool {
        self.find().is_none()
    }

    /// The layer, as the layout has it now.
    ///
    /// # Errors
    /// What is wrong with it now.
    pub(super) fn layer(&self) -> Result<Arc<Layer>, Error> {
        if let Some(layer) = self.find() {
            return Ok(layer);
        }
        let layer = self.source.layer()?;
        self.hold(&layer);
        Ok(layer)
    }

    fn find(&self) -> Option<Arc<Layer>> {
        let stat = self.source.views().layout().stat_blob(self.digest());
        let present = stat.ok().map(|stat| Identity::from(&stat))?;
        let state = self.state.lock();
        let layer = state.layer.upgrade();
        let is_fine = |layer: &Arc<Layer>| !layer.toc().spans().is_damaged();
        layer.filter(|layer| state.identity == present && is_fine(layer))
    }

    fn hold(&self, layer: &Arc<Layer>) {
        *self.state.lock() = State {
            identity: *layer.blob().identity(),
            layer: Arc::downgrade(layer),
        };
        let mut held = self.source.views().held.0.lock();
        held.put(self.source.shows(), layer.clone());
    }
}
