//! The layers that the bytes of a file tree come from.
//!
//! An image may have thousands of layers, and a process only so many open files: a tree
//! holds none of them open, the ones that were used last are held open for all trees.

use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

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

/// How long a blob's file that did not change is taken to be where it was. Finding it by its
/// name takes three system calls, for each file of a layer that is opened; asking the open
/// file for its change time, which moves with its names as well, takes one. So only who moves
/// a directory above it is noticed that much later.
const SURE: Duration = Duration::from_millis(100);

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
    subject: Arc<str>,
    /// The build step that made it.
    pub(super) created_by: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    /// The file that its blob was in when it was opened.
    identity: Identity,
    layer: Weak<Layer>,
    /// When that file was found by its name.
    found: Option<Instant>,
}

impl State {
    fn of(layer: &Arc<Layer>) -> Self {
        Self {
            identity: *layer.blob().identity(),
            layer: Arc::downgrade(layer),
            found: None,
        }
    }
}

impl OpenedLayer {
    /// `layer`, which `source` opened.
    pub(super) fn new(source: LayerSource, created_by: Option<String>, layer: &Arc<Layer>) -> Self {
        let opened = Self {
            subject: source.subject().into(),
            created_by,
            state: Mutex::new(State::of(layer)),
            source,
        };
        opened.hold(layer);
        opened
    }

    /// The same layer at another place of its image.
    pub(super) fn again(&self, created_by: Option<String>) -> Self {
        Self {
            source: self.source.clone(),
            subject: self.subject.clone(),
            created_by,
            state: Mutex::new(self.state.lock().clone()),
        }
    }

    /// The digest of its blob.
    pub(super) fn digest(&self) -> &Digest {
        &self.source.descriptor().digest
    }

    /// What faults of it are noted under.
    pub(super) fn subject(&self) -> &Arc<str> {
        &self.subject
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
        let State {
            identity,
            layer,
            found,
        } = self.state.lock().clone();
        let is_fine = |layer: &Arc<Layer>| !layer.toc().spans().is_damaged();
        let layer = layer.upgrade().filter(is_fine)?;
        let now = Instant::now();
        let is_sure = found.is_some_and(|found| now.duration_since(found) < SURE);
        if is_sure && matches!(layer.blob().is_unchanged(), Ok(true)) {
            return Some(layer);
        }
        let present = self.source.views().blobs().identify(self.digest());
        if present.ok()? != identity {
            return None;
        }
        let mut state = self.state.lock();
        if state.identity == identity {
            state.found = Some(now);
        }
        Some(layer)
    }

    fn hold(&self, layer: &Arc<Layer>) {
        *self.state.lock() = State::of(layer);
        let mut held = self.source.views().held.0.lock();
        held.put(self.source.shows(), layer.clone());
    }
}
