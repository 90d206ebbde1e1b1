//! What a process that commits often does: many changes in one update of the index.
//!
//! ```text
//!   thread ──► line ──┐ the first leads: takes the locks, reads the index
//!   thread ──► line ──┤ hands the draft from one to the next, each makes its own change
//!   thread ──► line ──┘ one rename, one pair of syncs, the observer, then all are answered
//! ```
//!
//! Whoever comes while the index is being written waits in line, and all of them are in
//! the next update. Each change is made by the thread that wants it, whole or not at all:
//! one that is refused hinders no other. Nobody is answered before the index is durable
//! and the observer has seen it, in the order in which the changes were made.
//!
//! The committer also remembers what the index was ([`super::history`]): a foreign write
//! that was made of an index long past is healed in the next update.
//!
//! Concurrency: the locks of the layout, then the story. The line and what was told last are
//! locked for moments, the line under nothing else, and nothing is locked under them. A
//! change and the observer are called with the first two held: they must not call the
//! committer, and who commits must hold no lock that they take.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::history::{Author, History, Judgement, Manner, Stale};
use super::index::View;
use super::index::draft::Draft;
use super::index::merge::{Delta, EntrySet};
use super::refs::Refusal;
use super::writer::{Error, LayoutWriter, StoredBlob};
use crate::store::blob::Identity;

/// How near in time `oci-layout` and `index.json` are written by one copy, on a machine with
/// much to do. A removal in place that comes sooner after a copy than this may be undone once.
const TOGETHER: Duration = Duration::from_secs(1);

/// How often what a stale write has dropped is merged back before answers are given: each
/// time another one may have come in between.
const HEALINGS: usize = 5;

/// How often an index that we are just replacing is waited for, before it is read anyway.
const LOOKS: usize = 3;

/// Is told each new view of the index.
type Observer = Box<dyn Fn(View) + Send + Sync>;

/// Commits changes of any number of threads to one layout, several at a time.
pub struct Committer {
    writer: LayoutWriter,
    observer: Observer,
    line: Mutex<Line>,
    story: Mutex<Story>,
    /// The view that the observer was told last, for those who do not wait for the story.
    told: Mutex<View>,
}

/// What a commit has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed<T> {
    /// What the change answered.
    pub answer: T,
    /// Whether it changed anything.
    pub is_changed: bool,
}

/// What the index was until now.
struct Story {
    history: History,
    /// The view that the observer was told last.
    newest: View,
    /// `oci-layout` as it was then.
    marker: Option<Identity>,
    /// A stale write that was merged with ours before anybody could judge it.
    stale: Option<Stale>,
}

/// What is in `index.json` when it is looked at.
struct Found {
    /// What somebody else has written since the last look.
    foreign: Option<EntrySet>,
    /// What has to be healed.
    stale: Vec<Stale>,
    marker: Option<Identity>,
}

/// Those who wait to be let in.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Member>,
    /// Whether somebody is at work and will call the next one.
    is_led: bool,
}

/// A thread with a change.
struct Member {
    orders: Sender<Order>,
    blobs: Vec<StoredBlob>,
}

/// What a thread in the line is told.
enum Order {
    /// To do the work for all.
    Lead,
    /// To make its change, and to give back the draft if it was not refused.
    Change(Draft, Sender<Option<Draft>>),
    /// That all is over.
    End(Outcome),
}

type Outcome = Result<(), Arc<Error>>;

/// Makes a change to a copy of the index, unless it is refused.
type Change<'a> = dyn FnMut(Draft) -> Option<Draft> + 'a;

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Committer");
        debug.field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl Committer {
    /// A committer that goes on from `first`, the view that is known already. `observer`
    /// is told each later one, in their order, by one thread at a time.
    #[must_use]
    pub fn new(writer: LayoutWriter, first: View, observer: Observer) -> Self {
        let told = Mutex::new(first.clone());
        let story = Story {
            history: History::of(&first),
            newest: first,
            marker: writer.marker(),
            stale: None,
        };
        Self {
            writer,
            observer,
            line: Mutex::default(),
            story: Mutex::new(story),
            told,
        }
    }

    /// What blobs are written with.
    #[must_use]
    pub fn writer(&self) -> &LayoutWriter {
        &self.writer
    }

    /// Changes `index.json`, together with whoever wants the same at this moment. When it
    /// returns, the index and all of `blobs`, which the change names, are durable, and the
    /// observer has seen them.
    ///
    /// `change` is called once, on this thread, with the locks held: it hashes nothing and
    /// waits for nobody. A change that is refused leaves nothing behind.
    ///
    /// # Errors
    /// [`Error::Refused`] with what `change` answers; else what
    /// [`LayoutWriter::update`] does, as [`Error::Shared`].
    pub fn commit<T>(
        &self,
        blobs: &[StoredBlob],
        change: impl FnOnce(&mut Draft) -> Result<T, Refusal>,
    ) -> Result<Committed<T>, Error> {
        self.writer.publish_copies(blobs)?;
        let (orders, inbox) = mpsc::channel();
        let blobs = blobs.to_vec();
        self.join(Member {
            orders,
            blobs: blobs.clone(),
        });
        let mut result = None;
        let mut change = Some(change);
        let outcome = self.follow(&inbox, blobs, &mut |mut draft| {
            let made = change.take()?(&mut draft).map(|answer| (answer, draft.is_changed()));
            let is_made = made.is_ok();
            result = Some(made);
            is_made.then_some(draft)
        });
        outcome.map_err(Error::Shared)?;
        let (answer, is_changed) = result.ok_or(Error::Abandoned)??;
        Ok(Committed { answer, is_changed })
    }

    /// Looks whether somebody else has changed the index. What a stale write has dropped
    /// is merged back; the observer is told what is there then, and so is who asks.
    ///
    /// # Errors
    /// If the index cannot be read, or not be healed.
    pub fn observe(&self) -> Result<View, Error> {
        let known = self.settled();
        // A long index takes its time, for which nobody has to wait.
        let mut view = self.writer.read_index_after(Some(&known))?;
        let mut story = self.story.lock();
        if story.newest.identity() != known.identity() {
            // Ours was written meanwhile, perhaps over what was just read.
            view = self.writer.read_index_after(Some(&story.newest))?;
        }
        let found = story.find(&self.writer, &view);
        if !found.stale.is_empty() {
            // The locks go before the story.
            drop(story);
            self.commit(&[], |_| Ok(()))?;
            return Ok(self.told.lock().clone());
        }
        story.take_note(found, None);
        self.tell(&mut story, view.clone());
        Ok(view)
    }

    /// The newest view that we know, if possible one that we are not just replacing: what we
    /// have written ourselves, and will tell in a moment, is not to be parsed.
    fn settled(&self) -> View {
        let newest = || self.story.lock().newest.clone();
        let mut known = newest();
        for _ in 0..LOOKS {
            if self.writer.is_still(&known) || !self.line.lock().is_led {
                break;
            }
            known = newest();
        }
        known
    }

    /// The index as it is now, for decisions that are checked again under the locks.
    ///
    /// # Errors
    /// As [`LayoutWriter::present`].
    pub fn present(&self) -> Result<Draft, Error> {
        let told = self.told.lock().clone();
        self.writer.present_after(Some(&told))
    }

    /// Tells the observer of a view, unless it knows it.
    fn tell(&self, story: &mut Story, view: View) {
        let is_known = view.has_the_bytes_of(&story.newest);
        story.newest = view.clone();
        *self.told.lock() = view.clone();
        if !is_known {
            (self.observer)(view);
        }
    }

    fn join(&self, member: Member) {
        let mut line = self.line.lock();
        line.waiting.push_back(member);
        if !line.is_led {
            line.call_next();
        }
    }

    /// Does what a thread in the line is told, until all is over.
    fn follow(
        &self,
        inbox: &Receiver<Order>,
        blobs: Vec<StoredBlob>,
        change: &mut Change<'_>,
    ) -> Outcome {
        loop {
            match inbox.recv() {
                Ok(Order::Change(draft, back)) => {
                    let (Ok(()) | Err(_)) = back.send(change(draft));
                }
                Ok(Order::Lead) => return self.lead(blobs, change),
                Ok(Order::End(outcome)) => return outcome,
                Err(_) => return Err(Arc::new(Error::Abandoned)),
            }
        }
    }

    /// Writes this thread's change and those of all who wait, and answers them.
    fn lead(&self, blobs: Vec<StoredBlob>, change: &mut Change<'_>) -> Outcome {
        let _next = CallNext(&self.line);
        let mut members = None;
        let mut outcome = self.write(blobs, change, &mut members);
        for _ in 0..HEALINGS {
            if outcome.is_ok() && self.story.lock().stale.is_some() {
                outcome = self.write(Vec::new(), &mut Some, &mut Some(VecDeque::new()));
            }
        }
        let outcome = outcome.map_err(Arc::new);
        // Who had no turn would only wait for the same failure.
        let members = members.unwrap_or_else(|| std::mem::take(&mut self.line.lock().waiting));
        for member in members {
            let (Ok(()) | Err(_)) = member.orders.send(Order::End(outcome.clone()));
        }
        outcome
    }

    /// One update of the index. Who is in line when the locks are there has part in it, and
    /// is put into `members`, unless somebody is there already.
    fn write(
        &self,
        mut blobs: Vec<StoredBlob>,
        change: &mut Change<'_>,
        members: &mut Option<VecDeque<Member>>,
    ) -> Result<(), Error> {
        let last_good = self.story.lock().newest.clone();
        let mut held = None;
        let updated = self
            .writer
            .update_together(Some(&last_good), |view, draft| {
                let story = held.insert(self.story.lock());
                let found = story.find(&self.writer, view);
                for stale in &found.stale {
                    stale.restore(draft)?;
                }
                let before = draft.fresh_copy();
                make(draft, &mut *change);
                let in_line = || std::mem::take(&mut self.line.lock().waiting);
                for member in members.get_or_insert_with(in_line) {
                    if make(draft, &mut |copy| member.change(copy)) {
                        blobs.append(&mut member.blobs);
                    }
                }
                Ok(((found, before, draft.clone()), blobs))
            })?;
        // Nobody is told of a later view before this one.
        if let Some(mut story) = held {
            let (found, before, wanted) = updated.answer;
            story.take_note(found, Some(&before));
            let manner = story.manner_since(&updated.after, self.writer.marker().as_ref());
            story.record((&before, &wanted), &updated.after, manner);
            self.tell(&mut story, updated.after);
        }
        drop(last_good);
        self.writer.reuse_room_of(updated.before);
        Ok(())
    }
}

impl Story {
    /// What `view` is, which is in `index.json` now.
    fn find(&self, writer: &LayoutWriter, view: &View) -> Found {
        let mut found = Found {
            foreign: None,
            stale: self.stale.clone().into_iter().collect(),
            marker: writer.marker(),
        };
        if !view.has_the_bytes_of(&self.newest) {
            let foreign = EntrySet::of_view(view);
            let manner = self.manner(view, found.marker.as_ref());
            if let Judgement::Stale(stale) = self.history.judge(&foreign, manner) {
                found.stale.push(stale);
            }
            found.foreign = Some(foreign);
        }
        found
    }

    /// How `view` was written, going by the files.
    fn manner(&self, view: &View, marker: Option<&Identity>) -> Manner {
        let (before, after) = (self.newest.identity(), view.identity());
        match (before.device, before.inode) == (after.device, after.inode) {
            true => self.manner_since(view, marker),
            false => Manner::Other,
        }
    }

    /// How `view` was written, if in place: also over what was made of the newest one, by
    /// who has written `oci-layout` before that.
    fn manner_since(&self, view: &View, marker: Option<&Identity>) -> Manner {
        let is_anew = marker.is_some_and(|marker| {
            let is_other = Some(marker) != self.marker.as_ref();
            is_other || are_together(marker.mtime, view.identity().mtime)
        });
        match is_anew {
            true => Manner::Copy,
            false => Manner::Other,
        }
    }

    /// Takes note of what was found, and of what was made of it if it had to be healed.
    fn take_note(&mut self, found: Found, healed: Option<&Draft>) {
        let now = Instant::now();
        self.marker = found.marker;
        if let Some(foreign) = found.foreign {
            self.history.record(&foreign, Author::Foreign, now);
        }
        if let (Some(healed), false) = (healed, found.stale.is_empty()) {
            self.stale = None;
            self.history
                .record(&EntrySet::of(healed), Author::Healing, now);
        }
    }

    /// Takes note of our own change from one draft to the other, which has become `after`; in
    /// which `manner` others have written meanwhile, if they have.
    fn record(&mut self, (before, wanted): (&Draft, &Draft), after: &View, manner: Manner) {
        let now = Instant::now();
        let ours = Delta::of_drafts(before, wanted);
        if after.has_the_entries_of(wanted) {
            return self.history.advance(ours, Author::Ours, now);
        }
        // Somebody has written meanwhile: this, which knew nothing of ours.
        let after = EntrySet::of_view(after);
        let mut theirs = after.clone();
        theirs.retreat(&ours);
        if let Judgement::Stale(stale) = self.history.judge(&theirs, manner) {
            self.stale = Some(stale);
        }
        self.history.record(&theirs, Author::Foreign, now);
        self.history.record(&after, Author::Ours, now);
    }
}

impl Line {
    fn call_next(&mut self) {
        self.is_led = false;
        while let Some(member) = self.waiting.pop_front() {
            // One that has gone cannot lead.
            if member.orders.send(Order::Lead).is_ok() {
                self.is_led = true;
                return;
            }
        }
    }
}

impl Member {
    /// Lets the thread make its change to `copy`.
    fn change(&self, copy: Draft) -> Option<Draft> {
        let (sender, back) = mpsc::channel();
        self.orders.send(Order::Change(copy, sender)).ok()?;
        // A thread that panics over its change gives nothing back.
        back.recv().ok()?
    }
}

/// Lets `change` be made to a copy; whether it was.
fn make(draft: &mut Draft, change: &mut Change<'_>) -> bool {
    let changed = change(draft.fresh_copy());
    changed.map(|copy| draft.adopt(copy)).is_some()
}

fn are_together(one: (i64, i64), other: (i64, i64)) -> bool {
    let time = |(seconds, nanoseconds): (i64, i64)| {
        i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
    };
    let apart = (time(one) - time(other)).unsigned_abs();
    apart <= TOGETHER.as_nanos()
}

/// Lets the next in line lead when its thread is done, however that ends.
struct CallNext<'a>(&'a Mutex<Line>);

impl Drop for CallNext<'_> {
    fn drop(&mut self) {
        self.0.lock().call_next();
    }
}

#[cfg(test)]
mod tests;
