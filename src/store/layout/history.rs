//! What the index was in the last minutes, and which of its changes were our commits: what
//! a foreign index that lacks some of them is, a stale write or a deletion.
//!
//! Tools without locks read the index when they begin and write it when they end. What was
//! committed in between is not in what they write. The rule:
//!
//! - An index that is an older view, plus or minus the writer's own entries, and that lacks
//!   every commit of ours since that view, is a *stale write*: ours are merged back.
//! - One that has some of them was made by somebody who had seen them all: what is missing
//!   was *deleted*, and stays so.
//! - Each commit is brought back once. What drops it again means it.
//!
//! The writer's own entries are those that it adds, those whose names these take, or one
//! name that it removes. Only entries that we added are brought back, not their absence
//! where we removed some: that a name is there again may be what somebody wants.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::index::View;
use super::index::draft::Draft;
use super::index::merge::{Delta, EntrySet};
use super::index::update::Basis;
use super::refs::Refusal;
use super::writer::{Error, LayoutWriter};

/// How long views are remembered: longer than the copy of a large image takes.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Who made a view of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// We did, under the locks.
    Ours,
    /// Somebody else did.
    Foreign,
}

/// The newest view, and the steps that led to it.
#[derive(Debug)]
pub struct History {
    newest: EntrySet,
    steps: VecDeque<Step>,
}

#[derive(Debug)]
struct Step {
    at: Instant,
    delta: Delta,
    author: Author,
    /// Whether it was brought back already, or is what brought others back.
    is_healed: bool,
}

/// What a foreign index is.
#[derive(Debug)]
pub enum Judgement {
    /// What somebody wants.
    Wanted,
    /// A stale write.
    Stale {
        /// What is to be merged back.
        ours: Delta,
        /// The older view that the writer began with.
        base: EntrySet,
    },
}

impl History {
    /// A history that begins with this view.
    #[must_use]
    pub fn new(newest: EntrySet) -> Self {
        Self {
            newest,
            steps: VecDeque::new(),
        }
    }

    /// Adds the next view, and forgets what was long before.
    pub fn record(&mut self, view: EntrySet, author: Author, now: Instant) {
        self.add(view, author, now, false);
    }

    fn add(&mut self, view: EntrySet, author: Author, now: Instant, is_healed: bool) {
        let is_old = |step: &Step| now.saturating_duration_since(step.at) > REMEMBERED;
        while self.steps.front().is_some_and(is_old) {
            self.steps.pop_front();
        }
        self.steps.push_back(Step {
            at: now,
            delta: Delta::between(&self.newest, &view),
            author,
            is_healed,
        });
        self.newest = view;
    }

    /// What `foreign` is, an index that was written by somebody else after the newest view.
    #[must_use]
    pub fn judge(&self, foreign: &EntrySet) -> Judgement {
        let missing = self.newest.without(foreign);
        let (mut base, mut ours) = (self.newest.clone(), Delta::default());
        let mut second_best = Judgement::Wanted;
        for step in self.steps.iter().rev() {
            base = base.without(&step.delta.added);
            base.extend(step.delta.removed.clone());
            if step.author == Author::Ours {
                let standing = step.delta.added.common(&self.newest);
                if !standing.without(&missing).is_empty() {
                    // It has seen this commit, so it has seen all before.
                    break;
                }
                if !step.is_healed {
                    ours.removed.extend(step.delta.removed.clone());
                    ours.added.extend(standing);
                }
            }
            if ours.added.is_empty() {
                continue;
            }
            let (added, removed) = (foreign.without(&base), base.without(foreign));
            if removed.are_all_named(&added.names()) {
                return self.stale(ours, base);
            }
            let is_first = matches!(second_best, Judgement::Wanted);
            if is_first && added.is_empty() && removed.have_one_name() {
                // Unless an older view explains it without: what looks removed may be a
                // commit of ours that was dropped as well.
                second_best = self.stale(ours.clone(), base.clone());
            }
        }
        second_best
    }

    fn stale(&self, mut ours: Delta, base: EntrySet) -> Judgement {
        let replaced = ours.removed.named(&ours.added.names());
        ours.removed = replaced.without(&self.newest);
        Judgement::Stale { ours, base }
    }

    /// Takes note of a foreign view that was judged, and of what healing made of it.
    fn heal(&mut self, foreign: EntrySet, healed: Option<EntrySet>, now: Instant) {
        if healed.is_some() {
            let missing = self.newest.without(&foreign);
            for step in &mut self.steps {
                step.is_healed |= !step.delta.added.common(&missing).is_empty();
            }
        }
        self.add(foreign, Author::Foreign, now, false);
        if let Some(healed) = healed {
            self.add(healed, Author::Ours, now, true);
        }
    }
}

impl LayoutWriter {
    /// Looks at an index that somebody else wrote, merges back what a stale write has
    /// dropped, and takes note of both in `history`. The index that is there then.
    ///
    /// # Errors
    /// As [`LayoutWriter::update`]; the history is as it was then.
    pub fn heal(&self, history: &mut History, now: Instant) -> Result<View, Error> {
        let updated = self.update(&Basis::default(), |draft| {
            let foreign = EntrySet::of(draft);
            let Judgement::Stale { ours, base } = history.judge(&foreign) else {
                return Ok((foreign, None));
            };
            log::warn!(
                "{} entries that a stale write had dropped from index.json are merged back",
                ours.added.len()
            );
            restore(draft, &ours, &base)?;
            let healed = EntrySet::of(draft);
            Ok((foreign, Some(healed)))
        })?;
        let (foreign, healed) = updated.answer;
        history.heal(foreign, healed, now);
        Ok(updated.after)
    }
}

fn restore(draft: &mut Draft, ours: &Delta, base: &EntrySet) -> Result<(), Refusal> {
    ours.apply(base, draft)
        .map_err(|source| Refusal::Malformed {
            name: "an entry to restore".to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests;
