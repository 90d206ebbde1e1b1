//! All layers that a process knows.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;

use crate::layer::Layer;
use crate::layer::error::Error;
use crate::layer::queue::{PassStatus, Passed, Queue, Task, Work};
use crate::layer::toc::Toc;
use crate::layer::toc::builder::{self, Control};
use crate::layer::toc::cache::{KeptToc, NotKept, TocCache};
use crate::layer::tree::Tree;
use crate::oci::Digest;
use crate::store::verify::Verdict;
use crate::store::{Blob, CacheDir, Identity, ReadAt, Verdicts};
use crate::stream::{self, Budget, SpanCache};
use crate::tar;

/// How much memory the Tocs take that nobody uses just now, in bytes: about those of
/// thirty layers of a gigabyte. Others come back from the cache directory.
const TOC_MEMORY: u64 = 32 << 20;

/// How many failures are remembered.
const FAILURES: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

/// How many failures to keep a Toc are remembered.
const UNKEPT: NonZeroUsize = NonZeroUsize::new(1000).expect("it is not zero");

/// What can be chosen about [`Layers`].
#[derive(Debug, Clone)]
pub struct LayersOptions {
    /// Where Tocs are kept between runs; nowhere if `None`.
    pub cache: Option<CacheDir>,
    /// How many bytes of Tocs are kept there.
    pub cache_size: u64,
    /// How many bytes of memory decoding may take: for the most part decoded spans that are
    /// kept.
    pub memory: u64,
    /// What is accepted of a layer.
    pub limits: Limits,
}

/// What is accepted of a layer.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// What its blob may decode to.
    pub stream: stream::Limits,
    /// What its entries may cost.
    pub tar: tar::Limits,
}

impl Default for LayersOptions {
    fn default() -> Self {
        Self {
            cache: None,
            cache_size: 1 << 30,
            memory: 256 << 20,
            limits: Limits::default(),
        }
    }
}

/// All layers that a process knows: their Tocs, the decoded spans, the queue of passes.
///
/// Shared by an [`Arc`]. When the last one goes, passes under way are told to end.
#[derive(Debug)]
pub struct Layers {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    spans: Arc<SpanCache>,
}

/// What the threads that make passes share with those who ask.
#[derive(Debug)]
struct Shared {
    verdicts: Arc<Verdicts>,
    limits: Limits,
    kept: Option<TocCache>,
    tocs: Mutex<Budget<Digest, Arc<Toc>>>,
    /// What is wrong with a file in this state. Not kept between runs.
    failures: Mutex<LruCache<(Digest, Identity), Error>>,
    /// Why Tocs of this process are not kept.
    unkept: Mutex<LruCache<Digest, NotKept>>,
    warned: AtomicBool,
}

/// What [`Layers::index`] brought.
#[derive(Debug)]
pub struct Indexed {
    /// What is known of the layer.
    pub toc: Arc<Toc>,
    /// Whether a sound Toc of it was kept before.
    pub was_kept: bool,
    /// The file that has it for later mounts, or why none has.
    pub kept: Result<KeptToc, NotKept>,
    /// How long was worked for it, waiting for others not counted.
    pub took: Duration,
}

impl Layers {
    /// Knows no layer yet. Verdicts go to and come from `verdicts`.
    #[must_use]
    pub fn new(options: LayersOptions, verdicts: Arc<Verdicts>) -> Self {
        let open = |cache: CacheDir| {
            TocCache::open(&cache, options.cache_size)
                .inspect_err(|error| log::warn!("tables of contents are not kept: {error}"))
                .ok()
        };
        let kept = options.cache.and_then(open);
        let shared = Arc::new(Shared {
            verdicts,
            limits: options.limits,
            kept,
            tocs: Mutex::new(Budget::new(TOC_MEMORY)),
            failures: Mutex::new(LruCache::new(FAILURES)),
            unkept: Mutex::new(LruCache::new(UNKEPT)),
            warned: AtomicBool::new(false),
        });
        let work = Box::new(Arc::clone(&shared));
        Self {
            shared,
            queue: Arc::new(Queue::new(work)),
            spans: Arc::new(SpanCache::new(
                options.memory - while_decoding(options.memory),
            )),
        }
    }

    /// The Toc of a blob, from memory or the cache directory: never waits for a pass,
    /// never decodes. That a Toc is there says nothing about any file.
    #[must_use]
    pub fn find(&self, digest: &Digest) -> Option<Arc<Toc>> {
        self.shared.find(digest)
    }

    /// Why an earlier pass over this very file in this state failed, if it did. Never
    /// waits.
    #[must_use]
    pub fn failure(&self, blob: &Blob) -> Option<Error> {
        self.shared.failure(blob)
    }

    /// Opens a layer for reading its decoded bytes.
    ///
    /// Waits for the first pass over it, which is made now if nobody has made it, or, if
    /// its Toc is known and this file is not, until the file is hashed.
    ///
    /// # Errors
    /// What is wrong with the blob, also when that was found earlier;
    /// [`Error::ShutDown`] after [`Self::shut_down`].
    pub fn open(&self, blob: Arc<Blob>) -> Result<Arc<Layer>, Error> {
        let toc = match self.find_sound(&blob)? {
            Some(toc) => toc,
            None => self.queue.run(&blob)?,
        };
        let spans = Arc::clone(&self.spans);
        Ok(Arc::new(Layer::new(toc, blob, spans)))
    }

    /// Has the first pass over a layer made soon, if it is not known; does not wait.
    pub fn request(&self, blob: &Arc<Blob>) {
        let is_known = self.shared.find_for(blob).is_some() || self.failure(blob).is_some();
        if !is_known {
            self.queue.request(blob, Task::Pass);
        }
    }

    /// Returns once [`Self::open`] need not wait for a layer, or when that has failed. Passes
    /// nothing that anybody has asked for.
    pub fn make_ready(&self, blob: &Arc<Blob>) {
        if let Ok(None) = self.find_sound(blob) {
            self.queue.run_behind(blob, Task::Pass);
        }
    }

    /// Returns once [`Self::verify`] need not wait for a blob, or when that has failed. Passes
    /// nothing that anybody has asked for.
    pub fn make_verdict_ready(&self, blob: &Arc<Blob>) {
        if self.shared.verdict(blob).is_none() {
            self.queue.run_behind(blob, Task::Hash);
        }
    }

    /// Returns once the stored bytes of a blob are known to be right; has them hashed, in
    /// turn with the passes, if nobody has.
    ///
    /// # Errors
    /// What is wrong with them; [`Error::ShutDown`] after [`Self::shut_down`].
    pub fn verify(&self, blob: &Arc<Blob>) -> Result<(), Error> {
        if let Some(verdict) = self.shared.verdict(blob) {
            return verdict;
        }
        let hashed = self.queue.hash(blob);
        // A pass may have failed for another reason.
        self.shared.verdict(blob).unwrap_or(hashed)
    }

    /// Has the stored bytes of a blob hashed soon, if nobody has; does not wait.
    pub fn request_verdict(&self, blob: &Arc<Blob>) {
        if self.shared.verdict(blob).is_none() {
            self.queue.request(blob, Task::Hash);
        }
    }

    /// A layer's own tree. Where it is not in memory, it is read from the cache directory,
    /// or else the layer gets another pass.
    ///
    /// # Errors
    /// [`Error::Tree`] if the layer's bytes make none.
    pub fn tree(&self, layer: &Layer) -> Result<Arc<Tree>, Error> {
        let toc = layer.toc();
        let tree = if self.shared.has_tree(toc) {
            toc.tree().cloned()
        } else {
            self.queue.run(layer.blob())?.tree().cloned()
        };
        let digest = || toc.digest().clone();
        let tree = tree.ok_or_else(|| Error::BrokenOff { digest: digest() })?;
        tree.map_err(|source| Error::Tree {
            digest: digest(),
            source,
        })
    }

    /// The Toc of a blob, if nothing need be read of it any more.
    fn find_sound(&self, blob: &Blob) -> Result<Option<Arc<Toc>>, Error> {
        if let Some(error) = self.failure(blob) {
            return Err(error);
        }
        let known = self.shared.find_for(blob);
        Ok(known.filter(|_| self.shared.verdicts.find(blob) == Some(Verdict::Sound)))
    }

    /// Sees to it that a later process need not wait for this layer: makes the first pass
    /// over it if nobody has, and waits for it, for what makes random reads faster, and
    /// until the Toc is kept.
    ///
    /// # Errors
    /// As [`Self::open`]; that the Toc is not kept is no error here.
    pub fn index(&self, blob: &Arc<Blob>) -> Result<Indexed, Error> {
        let digest = blob.digest();
        let is_kept = |kept: &KeptToc| {
            let summary = kept.summary.as_ref();
            summary.is_ok_and(|summary| summary.blob_size == blob.size())
        };
        let found = self.shared.find_kept(digest);
        let was_kept = found.as_ref().is_some_and(is_kept);
        if found.is_some_and(|found| found.is_damaged()) {
            self.shared.discard(digest);
        }
        let (toc, took) = match self.find_sound(blob)? {
            Some(toc) => {
                self.queue.wait_for(blob)?;
                (toc, Duration::ZERO)
            }
            None => self.queue.run_through(blob)?,
        };
        let kept = match self.shared.find_kept(digest).filter(is_kept) {
            Some(kept) => Ok(kept),
            None => self.shared.keep_again(&toc),
        };
        Ok(Indexed {
            toc,
            was_kept,
            kept,
            took,
        })
    }

    /// How far the passes under way and in the queue are.
    #[must_use]
    pub fn passes(&self) -> Vec<PassStatus> {
        self.queue.status()
    }

    /// Waits until nothing is under way: no pass, nor what is done after one to make random
    /// reads faster and to keep the Toc.
    pub fn wait_idle(&self) {
        self.queue.wait_idle();
    }

    /// Ends all waits with [`Error::ShutDown`], and the passes; what is open stays
    /// readable.
    pub fn shut_down(&self) {
        self.queue.shut_down();
    }
}

/// How much of `memory` is left for what decoding itself needs, such as windows, and for
/// what the allocator does not give back.
fn while_decoding(memory: u64) -> u64 {
    (memory / 2).min(80 << 20)
}

impl Drop for Layers {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Shared {
    fn find(&self, digest: &Digest) -> Option<Arc<Toc>> {
        let known = self.tocs.lock().get(digest).cloned();
        match known {
            Some(toc) if toc.spans().is_damaged() => {
                self.discard(digest);
                return None;
            }
            Some(toc) => return Some(toc),
            None => {}
        }
        let toc = Arc::new(self.kept.as_ref()?.load(digest)?);
        self.remember(&toc);
        Some(toc)
    }

    /// Forgets a Toc that is damaged, so that it is made again.
    fn discard(&self, digest: &Digest) {
        self.tocs.lock().remove(digest);
        if let Some(Err(error)) = self.kept.as_ref().map(|kept| kept.remove(digest)) {
            log::debug!("damaged table of {digest} stays: {error}");
        }
    }

    /// The Toc of a blob, unless the size already shows that it is of other bytes.
    fn find_for(&self, blob: &Blob) -> Option<Arc<Toc>> {
        self.find(blob.digest())
            .filter(|toc| toc.blob_size() == blob.size())
    }

    /// One that is too heavy alone counts as just light enough: without a cache directory
    /// it would have to be made again at each use.
    fn remember(&self, toc: &Arc<Toc>) {
        let key = toc.digest().clone();
        let weight = toc.weight().min(TOC_MEMORY);
        self.tocs.lock().insert(key, Arc::clone(toc), weight);
    }

    /// Whether the tree of `toc` is in memory, or why there is none, now that it was read if
    /// it is kept.
    fn has_tree(&self, toc: &Arc<Toc>) -> bool {
        if toc.tree().is_some() {
            return true;
        }
        let kept = self.kept.as_ref();
        let Some(tree) = kept.and_then(|kept| kept.load_tree(toc.digest())) else {
            return false;
        };
        toc.set_tree(tree);
        self.remember(toc);
        true
    }

    fn failure(&self, blob: &Blob) -> Option<Error> {
        let key = (blob.digest().clone(), *blob.identity());
        let known = self.failures.lock().get(&key).cloned();
        known.or_else(|| self.verdict(blob)?.err())
    }

    /// What is known of the stored bytes, without reading them.
    fn verdict(&self, blob: &Blob) -> Option<Result<(), Error>> {
        Some(match self.verdicts.find(blob)? {
            Verdict::Sound => Ok(()),
            Verdict::Damaged { actual } => Err(Error::DigestMismatch {
                expected: blob.digest().clone(),
                actual,
            }),
        })
    }

    fn verify_or_build(&self, blob: &Blob, control: &Control<'_>) -> Result<Passed, Error> {
        if let Some(toc) = self.find_for(blob)
            && self.has_tree(&toc)
        {
            self.verdicts.verify(blob, control.progress)?;
            return Ok(Passed {
                toc,
                may_improve: false,
            });
        }
        let toc = builder::build(blob, &self.limits, &self.verdicts, control)?;
        let toc = Arc::new(toc);
        self.remember(&toc);
        let may_improve = stream::may_find_checkpoints(toc.spans());
        if !may_improve {
            self.keep(&toc);
        }
        Ok(Passed { toc, may_improve })
    }

    fn keep(&self, toc: &Toc) {
        let Some(kept) = &self.kept else { return };
        match kept.store(toc) {
            Ok(()) => {
                self.unkept.lock().pop(toc.digest());
            }
            Err(error) => self.unkept(toc.digest(), error),
        }
    }

    /// Notes why a Toc is not kept. Said aloud once: the next is mostly for the same reason.
    fn unkept(&self, digest: &Digest, error: NotKept) {
        let level = if self.warned.swap(true, Ordering::Relaxed) {
            log::Level::Debug
        } else {
            log::Level::Warn
        };
        log::log!(
            level,
            "table of layer {digest} is not kept: {}",
            chain(&error)
        );
        self.unkept.lock().put(digest.clone(), error);
    }

    fn find_kept(&self, digest: &Digest) -> Option<KeptToc> {
        self.kept.as_ref()?.find(digest).ok()?
    }

    /// Keeps a Toc that should be kept and is not, unless it is known why.
    fn keep_again(&self, toc: &Toc) -> Result<KeptToc, NotKept> {
        let reason = || self.unkept.lock().get(toc.digest()).cloned();
        if let Some(reason) = reason() {
            return Err(reason);
        }
        // It was evicted or deleted after it was used.
        self.keep(toc);
        self.find_kept(toc.digest())
            .ok_or_else(|| reason().unwrap_or(NotKept::NoCache))
    }
}

/// An error with what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl Work for Arc<Shared> {
    /// Hashes the blob if its Toc is known, else decodes it as well.
    fn pass(&self, blob: &Blob, control: &Control<'_>) -> Result<Passed, Error> {
        // The failure may be that of a pass which ended after this one was asked for.
        if let Some(error) = self.failure(blob) {
            return Err(error);
        }
        let outcome = self.verify_or_build(blob, control);
        if let Err(error) = &outcome
            && error.is_lasting()
        {
            log::error!("{error}");
            let key = (blob.digest().clone(), *blob.identity());
            self.failures.lock().put(key, error.clone());
        }
        outcome
    }

    fn hash(&self, blob: &Blob, control: &Control<'_>) -> Result<(), Error> {
        self.verdicts.verify(blob, control.progress)?;
        Ok(())
    }

    fn improve(&self, blob: &Blob, toc: &Arc<Toc>, control: &Control<'_>) {
        let stop = || control.stop.load(Ordering::Relaxed);
        match stream::find_checkpoints(blob, toc.spans(), &stop) {
            Ok(Some(checkpoints)) => {
                if let Err(fault) = toc.spans().improve(checkpoints) {
                    log::error!("checkpoints of layer {}: {fault}", toc.digest());
                }
                // It weighs more now.
                self.remember(toc);
            }
            Ok(None) => {}
            Err(_) if stop() => return,
            Err(error) => {
                let reason = error.to_string().into();
                self.unkept(toc.digest(), NotKept::Unfinished { reason });
                return;
            }
        }
        self.keep(toc);
    }
}
