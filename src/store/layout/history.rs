//! What the index was in the last minutes, and which of its changes were our commits: what
//! a foreign index that lacks some of them is, a stale write or a deletion.
//!
//! Tools without locks read the index when they begin and write it when they end. What was
//! committed in between is not in what they write. The rule, for an index that lacks
//! commits of ours:
//!
//! | what was written | it is | and then |
//! |---|---|---|
//! | the newest view less one name, and nothing more, by anything but a copy | a deletion | it stays so |
//! | an older view with the writer's own entries, without any commit of ours since | a stale write | ours are merged back |
//! | the same, and that older view lacked ours because somebody had dropped them | the second time | it stays so |
//! | with some of our commits, but not those before | a deletion: who made it had seen them all | it stays so |
//! | anything else | somebody's will | it stays so |
//!
//! The first row is what a tool does that removes a name (`umoci rm`, `skopeo delete`): it
//! reads and writes within milliseconds, so it has the newest view. A stale write has
//! something of its own, as a rule, but not always: who copies an image that is there
//! already writes the older view as it was. That is told from a deletion by its
//! [`Manner`]. A copy removes nothing, so the third row is not for it either.
//!
//! Of several older views that explain what was written, the one counts of which the writer
//! has changed least, and of those the newest.
//!
//! The writer's own entries are those that it adds, those whose names these take, or one
//! name that it removes. Only entries that we added are brought back, not their absence
//! where we removed some: that a name is there again may be what somebody wants.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::index::View;
use super::index::draft::Draft;
use super::index::merge::{Delta, EntrySet};
use super::refs::Refusal;

/// How long views are remembered: longer than the copy of a large image takes.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The most steps that are remembered: 27 a second, all the time. Judging a foreign index
/// goes through all of them.
const MAX_STEPS: usize = 1 << 14;

/// The most bytes of entries that are remembered, but for those of the last step: the views
/// of a large index may have little in common.
const MAX_WEIGHT: u64 = 64 << 20;

/// Who made a view of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// We did, under the locks.
    Ours,
    /// Somebody else did.
    Foreign,
    /// We did, to bring back what somebody else had dropped.
    Healing,
}

/// How a foreign index was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As `skopeo`, `buildah` and `podman` end a copy: `oci-layout` anew, then `index.json`
    /// in place.
    Copy,
    /// In any other way.
    Other,
}

/// The newest view, and the steps that led to it.
#[derive(Debug)]
pub struct History {
    newest: EntrySet,
    steps: VecDeque<Step>,
    /// What the steps weigh together.
    weight: u64,
}

#[derive(Debug)]
struct Step {
    at: Instant,
    delta: Delta,
    author: Author,
    /// How many bytes it takes.
    weight: u64,
}

/// What a foreign index is.
#[derive(Debug)]
pub enum Judgement {
    /// What somebody wants.
    Wanted,
    /// A stale write.
    Stale(Stale),
}

/// A stale write, and what it has dropped.
#[derive(Debug, Clone)]
pub struct Stale {
    /// What is to be merged back.
    ours: Delta,
    /// The older view that the writer began with.
    base: EntrySet,
}

impl Stale {
    /// Merges back what was dropped.
    ///
    /// # Errors
    /// If an entry's text is not JSON, which that of an entry always is.
    pub fn restore(&self, draft: &mut Draft) -> Result<(), Refusal> {
        log::warn!(
            "{} entries that a stale write had dropped from index.json are merged back",
            self.ours.added.len()
        );
        let applied = self.ours.apply(&self.base, draft);
        applied.map_err(|source| Refusal::Malformed {
            name: "an entry to restore".to_owned(),
            source,
        })
    }
}

impl History {
    /// A history that begins with this view.
    #[must_use]
    pub fn new(newest: EntrySet) -> Self {
        Self {
            newest,
            steps: VecDeque::new(),
            weight: 0,
        }
    }

    /// A history that begins with this look at the index.
    #[must_use]
    pub fn of(view: &View) -> Self {
        Self::new(EntrySet::of_view(view))
    }

    /// The newest view.
    #[must_use]
    pub fn newest(&self) -> &EntrySet {
        &self.newest
    }

    /// Adds the next view, as [`Self::advance`] does.
    pub fn record(&mut self, view: &EntrySet, author: Author, now: Instant) {
        self.advance(Delta::between(&self.newest, view), author, now);
    }

    /// Adds a step to the next view, and forgets those that are old or too many.
    pub fn advance(&mut self, delta: Delta, author: Author, now: Instant) {
        if !delta.is_empty() {
            self.newest.advance(&delta);
            let weight = delta.weight();
            self.weight += weight;
            self.steps.push_back(Step {
                at: now,
                delta,
                author,
                weight,
            });
        }
        while let Some(first) = self.steps.front()
            && self.is_forgotten(first, now)
        {
            self.weight -= first.weight;
            self.steps.pop_front();
        }
    }

    fn is_forgotten(&self, first: &Step, now: Instant) -> bool {
        let is_old = now.saturating_duration_since(first.at) > REMEMBERED;
        let is_heavy = self.weight > MAX_WEIGHT && self.steps.len() > 1;
        is_old || is_heavy || self.steps.len() > MAX_STEPS
    }

    /// What `foreign` is, an index that was written by somebody else after the newest view.
    #[must_use]
    pub fn judge(&self, foreign: &EntrySet, manner: Manner) -> Judgement {
        let missing = self.newest.without(foreign);
        let is_deletion = || manner == Manner::Other && self.newest.is_less_one_name(foreign);
        if missing.is_empty() || is_deletion() {
            return Judgement::Wanted;
        }
        let mut since = Since {
            steps: 0,
            own: Delta::between(&self.newest, foreign),
            ours: Delta::default(),
        };
        let mut best: Option<(Fit, Since)> = None;
        for step in self.steps.iter().rev() {
            since.go_back(&step.delta, foreign);
            let standing = match step.author {
                Author::Foreign => EntrySet::default(),
                Author::Ours | Author::Healing => step.delta.added.common(&self.newest),
            };
            if step.author == Author::Ours && !standing.without(&missing).is_empty() {
                // It has seen this commit, so it has seen all before.
                break;
            }
            if step.author == Author::Ours || manner == Manner::Copy {
                since.ours.removed.extend(step.delta.removed.clone());
                since.ours.added.extend(standing.common(&missing));
            }
            // Of those that fit alike, the newest.
            if let Some(fit) = Fit::of(&since)
                && best.as_ref().is_none_or(|(known, _)| fit < *known)
            {
                best = Some((fit, since.clone()));
            }
        }
        best.map_or(Judgement::Wanted, |(_, since)| self.judged(since))
    }

    fn judged(&self, since: Since) -> Judgement {
        let mut ours = since.ours;
        if ours.added.is_empty() {
            return Judgement::Wanted;
        }
        let replaced = ours.removed.named(&ours.added.names());
        ours.removed = replaced.without(&self.newest);
        let mut base = self.newest.clone();
        for step in self.steps.iter().rev().take(since.steps) {
            base.retreat(&step.delta);
        }
        Judgement::Stale(Stale { ours, base })
    }
}

/// What lies between an older view and a foreign index, if that was made of it.
#[derive(Debug, Clone)]
struct Since {
    /// How many steps were taken since.
    steps: usize,
    /// The changes of the writer.
    own: Delta,
    /// Our commits that the foreign index lacks.
    ours: Delta,
}

impl Since {
    /// Goes one view further back.
    fn go_back(&mut self, step: &Delta, foreign: &EntrySet) {
        self.steps += 1;
        let (seen, unseen) = (step.added.common(foreign), step.added.without(foreign));
        self.own.added.extend(seen);
        self.own.removed = self.own.removed.without(&unseen);
        let (kept, dropped) = (step.removed.common(foreign), step.removed.without(foreign));
        self.own.added = self.own.added.without(&kept);
        self.own.removed.extend(dropped);
    }
}

/// How well an older view explains a foreign index; the least is the best.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The writer has added this many entries, and removed those whose names they take.
    Added(usize),
    /// It has removed one name.
    OneRemoved,
}

impl Fit {
    fn of(since: &Since) -> Option<Self> {
        let Delta { added, removed } = &since.own;
        if removed.are_all_named(&added.names()) {
            return Some(Self::Added(added.len() + removed.len()));
        }
        // What looks removed may be a commit of ours that was dropped as well.
        let is_one = added.is_empty() && removed.have_one_name() && !since.ours.added.is_empty();
        is_one.then_some(Self::OneRemoved)
    }
}

#[cfg(test)]
mod tests;
