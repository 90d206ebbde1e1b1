//! The queue of work on layers: two at a time, what somebody waits for before what is only
//! done ahead, else what is asked for first goes first, and one piece of work for all who
//! ask for the same. It is a pass over the layer, or, where the stored bytes are all that is
//! needed, hashing them.
//!
//! Work runs on threads of its own, so that everybody who waits, also who asked first, can
//! be told to stop waiting.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::layer::error::Error;
use crate::layer::toc::Toc;
use crate::layer::toc::builder::Control;
use crate::oci::Digest;
use crate::store::{Blob, ReadAt};

/// How many passes run at once: one of them fills a processor and a half.
const AT_ONCE: usize = 2;

/// How many jobs may wait before no more are taken that nobody waits for: each holds a file
/// open.
const REQUESTED: usize = 32;

/// Whether a pass has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassState {
    /// Others go first.
    Queued,
    /// It reads.
    Running,
    /// It is done, and whoever waited reads; random reads are being made faster.
    Improving,
}

/// How far a pass over a layer is, or hashing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassStatus {
    /// The layer's blob.
    pub digest: Digest,
    /// Whether it has begun.
    pub state: PassState,
    /// How many stored bytes are done.
    pub done: u64,
    /// How many there are.
    pub total: u64,
}

/// What is done with a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// The first pass, which hashes it as well.
    Pass,
    /// It is hashed.
    Hash,
}

/// A pass that ended well.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) toc: Arc<Toc>,
    /// Whether there is something left to do when nobody waits.
    pub(super) may_improve: bool,
}

/// What those who wait for a pass get.
pub(super) type Outcome = Result<Arc<Toc>, Error>;

/// What came of a job; a Toc if it was a pass.
type Done = Result<Option<Arc<Toc>>, Error>;

/// What is done for each blob.
pub(super) trait Work: Send + Sync {
    /// What others wait for.
    fn pass(&self, blob: &Blob, control: &Control<'_>) -> Result<Passed, Error>;

    /// Has a verdict on the blob, without a pass.
    fn hash(&self, blob: &Blob, control: &Control<'_>) -> Result<(), Error>;

    /// What is left to do after a pass.
    fn improve(&self, blob: &Blob, toc: &Arc<Toc>, control: &Control<'_>);
}

/// One piece of work.
#[derive(Debug)]
struct Job {
    blob: Arc<Blob>,
    task: Task,
    is_running: AtomicBool,
    done: AtomicU64,
    /// How long was worked on it, in nanoseconds.
    spent: AtomicU64,
    outcome: Mutex<Option<Done>>,
}

impl Job {
    fn new(blob: &Arc<Blob>, task: Task) -> Arc<Self> {
        Arc::new(Self {
            blob: Arc::clone(blob),
            task,
            is_running: AtomicBool::new(false),
            done: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            outcome: Mutex::new(None),
        })
    }

    /// Does some of its work, and adds up how long that took.
    fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.spent.fetch_add(nanos, Ordering::Relaxed);
        result
    }

    fn is_for(&self, blob: &Blob) -> bool {
        self.blob.identity() == blob.identity() && self.blob.digest() == blob.digest()
    }

    /// Whether it will have done `task` as well.
    fn does(&self, task: Task) -> bool {
        self.task == task || task == Task::Hash
    }

    fn status(&self) -> PassStatus {
        let state = match (
            &*self.outcome.lock(),
            self.is_running.load(Ordering::Relaxed),
        ) {
            (Some(_), _) => PassState::Improving,
            (None, true) => PassState::Running,
            (None, false) => PassState::Queued,
        };
        PassStatus {
            digest: self.blob.digest().clone(),
            state,
            done: self.done.load(Ordering::Relaxed),
            total: self.blob.size(),
        }
    }
}

/// Whether whoever asks for a job is kept from something else until it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    Waits,
    GoesOn,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Job>>,
    /// How many of these, from the front, somebody waits for.
    awaited: usize,
    running: Vec<Arc<Job>>,
    /// Jobs that nobody waits for any more.
    later: VecDeque<(Arc<Job>, Arc<Toc>)>,
    workers: usize,
}

impl State {
    /// The job that does `task` with `blob`, if there is one.
    fn find(&self, blob: &Blob, task: Task) -> Option<&Arc<Job>> {
        let mut jobs = self.running.iter().chain(&self.waiting);
        jobs.find(|job| job.is_for(blob) && job.does(task))
    }

    /// Somebody waits for `job` from now on: it passes those that nobody waits for.
    fn put_forward(&mut self, job: &Arc<Job>) {
        let mut others = self.waiting.iter();
        let Some(at) = others.position(|other| Arc::ptr_eq(other, job)) else {
            return;
        };
        if at >= self.awaited {
            self.waiting.remove(at);
            self.waiting.insert(self.awaited, Arc::clone(job));
            self.awaited += 1;
        }
    }

    /// Takes the job that goes next.
    fn take(&mut self) -> Option<Arc<Job>> {
        self.awaited = self.awaited.saturating_sub(1);
        self.waiting.pop_front()
    }
}

/// See the module. Lock order: the state, then a job's outcome.
pub(super) struct Queue {
    work: Box<dyn Work>,
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("state", &self.state)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// An empty queue that does `work` for each blob.
    pub(super) fn new(work: Box<dyn Work>) -> Self {
        Self {
            work,
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        }
    }

    /// Waits until the pass over `blob` is made, and has it made if nobody has.
    pub(super) fn run(self: &Arc<Self>, blob: &Arc<Blob>) -> Outcome {
        let job = self.enqueue(blob, Task::Pass, Asker::Waits)?;
        self.outcome(&job)
    }

    /// Waits until `blob` is hashed, or a pass over it has ended, which may have failed for
    /// another reason than its digest.
    pub(super) fn hash(self: &Arc<Self>, blob: &Arc<Blob>) -> Result<(), Error> {
        let job = self.enqueue(blob, Task::Hash, Asker::Waits)?;
        self.wait(&job).map(drop)
    }

    /// Has `task` done with `blob` behind what was asked for before, and waits for that. Its
    /// failure is found where that of every pass is.
    pub(super) fn run_behind(self: &Arc<Self>, blob: &Arc<Blob>, task: Task) {
        if let Ok(job) = self.enqueue(blob, task, Asker::GoesOn) {
            let (Ok(_) | Err(_)) = self.wait(&job);
        }
    }

    /// As [`Self::run`], and waits for what is left to do after it as well. Says how long
    /// was worked for it.
    pub(super) fn run_through(
        self: &Arc<Self>,
        blob: &Arc<Blob>,
    ) -> Result<(Arc<Toc>, Duration), Error> {
        let job = self.enqueue(blob, Task::Pass, Asker::Waits)?;
        let toc = self.outcome(&job)?;
        self.wait_for(blob)?;
        Ok((toc, Duration::from_nanos(job.spent.load(Ordering::Relaxed))))
    }

    fn outcome(&self, job: &Job) -> Outcome {
        let digest = || job.blob.digest().clone();
        let toc = self.wait(job)?;
        toc.ok_or_else(|| Error::BrokenOff { digest: digest() })
    }

    fn wait(&self, job: &Job) -> Done {
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = &*job.outcome.lock() {
                return outcome.clone();
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::ShutDown);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Has `task` done with `blob`, and does not wait for it. It is not done if too much
    /// is waiting already: who needs it asks for it again.
    pub(super) fn request(self: &Arc<Self>, blob: &Arc<Blob>, task: Task) {
        if self.state.lock().waiting.len() >= REQUESTED {
            return;
        }
        // After the end of everything there is nothing to do.
        let _ = self.enqueue(blob, task, Asker::GoesOn);
    }

    /// What is under way, running first.
    pub(super) fn status(&self) -> Vec<PassStatus> {
        let state = self.state.lock();
        let later = state.later.iter().map(|(job, _)| job);
        let jobs = state.running.iter().chain(&state.waiting).chain(later);
        jobs.map(|job| job.status()).collect()
    }

    /// Waits until nothing is under way for `blob`, nor left to do after it.
    pub(super) fn wait_for(&self, blob: &Blob) -> Result<(), Error> {
        let mut state = self.state.lock();
        while !self.stop.load(Ordering::Relaxed) {
            let later = state.later.iter().map(|(job, _)| job);
            let mut jobs = state.running.iter().chain(&state.waiting).chain(later);
            if !jobs.any(|job| job.is_for(blob)) {
                return Ok(());
            }
            self.changed.wait(&mut state);
        }
        Err(Error::ShutDown)
    }

    /// Waits until nothing is under way.
    pub(super) fn wait_idle(&self) {
        let mut state = self.state.lock();
        while state.workers > 0 {
            self.changed.wait(&mut state);
        }
    }

    /// Ends all waits and all work, now and from now on.
    pub(super) fn shut_down(&self) {
        let mut state = self.state.lock();
        self.stop.store(true, Ordering::Relaxed);
        state.waiting.clear();
        state.awaited = 0;
        state.later.clear();
        self.changed.notify_all();
    }

    /// The job that does `task` with `blob`: the one there is, or a new one.
    fn enqueue(
        self: &Arc<Self>,
        blob: &Arc<Blob>,
        task: Task,
        asker: Asker,
    ) -> Result<Arc<Job>, Error> {
        let mut state = self.state.lock();
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::ShutDown);
        }
        let known = state.find(blob, task).cloned();
        let is_new = known.is_none();
        let job = known.unwrap_or_else(|| Job::new(blob, task));
        if is_new {
            state.waiting.push_back(Arc::clone(&job));
        }
        if asker == Asker::Waits {
            state.put_forward(&job);
        }
        if is_new && state.workers < AT_ONCE {
            state.workers += 1;
            drop(state);
            self.start_worker();
        }
        Ok(job)
    }

    fn start_worker(self: &Arc<Self>) {
        let queue = Arc::clone(self);
        let thread = thread::Builder::new().name("layer-pass".to_owned());
        if let Err(error) = thread.spawn(move || queue.work()) {
            log::warn!("a pass runs where it was asked for: no thread: {error}");
            self.work();
        }
    }

    /// Does jobs until there are none.
    fn work(&self) {
        loop {
            match self.next() {
                Next::Job(job) => self.job(&job),
                Next::Improve(job, toc) => self.improve(&job, &toc),
                Next::Nothing => return,
            }
        }
    }

    /// A fault of ours in one pass must neither end the others nor leave anybody waiting.
    /// Nothing that a pass touches is left half done: tables are locked only to put whole
    /// values in.
    fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(work)).ok()
    }

    fn control<'a>(&'a self, job: &'a Job) -> Control<'a> {
        Control {
            progress: &job.done,
            stop: &self.stop,
        }
    }

    fn job(&self, job: &Arc<Job>) {
        let (blob, control) = (&job.blob, self.control(job));
        let work = || match job.task {
            Task::Pass => self.work.pass(blob, &control).map(Some),
            Task::Hash => self.work.hash(blob, &control).map(|()| None),
        };
        let outcome = Self::guarded(|| job.timed(work));
        let outcome = outcome.unwrap_or_else(|| {
            Err(Error::BrokenOff {
                digest: job.blob.digest().clone(),
            })
        });
        let mut state = self.state.lock();
        state.running.retain(|running| !Arc::ptr_eq(running, job));
        let outcome = outcome.map(|passed| {
            let passed = passed?;
            if passed.may_improve {
                let toc = Arc::clone(&passed.toc);
                state.later.push_back((Arc::clone(job), toc));
            }
            Some(passed.toc)
        });
        *job.outcome.lock() = Some(outcome);
        self.changed.notify_all();
    }

    fn improve(&self, job: &Arc<Job>, toc: &Arc<Toc>) {
        let improve = || self.work.improve(&job.blob, toc, &self.control(job));
        if Self::guarded(|| job.timed(improve)).is_none() {
            log::error!("work on layer {} broke off", job.blob.digest());
        }
        let mut state = self.state.lock();
        state.running.retain(|running| !Arc::ptr_eq(running, job));
        self.changed.notify_all();
    }

    fn next(&self) -> Next {
        let mut state = self.state.lock();
        if !self.stop.load(Ordering::Relaxed) {
            if let Some(job) = state.take() {
                job.is_running.store(true, Ordering::Relaxed);
                state.running.push(Arc::clone(&job));
                return Next::Job(job);
            }
            if let Some((job, toc)) = state.later.pop_front() {
                state.running.push(Arc::clone(&job));
                return Next::Improve(job, toc);
            }
        }
        state.workers -= 1;
        self.changed.notify_all();
        Next::Nothing
    }
}

/// What a worker does next.
enum Next {
    Job(Arc<Job>),
    Improve(Arc<Job>, Arc<Toc>),
    Nothing,
}

#[cfg(test)]
mod tests;
