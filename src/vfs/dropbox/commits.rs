//! How what was dropped gets into the layout.

use std::fmt;
use std::sync::Arc;

use crate::ingest::{self, Ingest, Name, Report};
use crate::oci::Digest;
use crate::oci::index::Entry;
use crate::store::LayoutWriter;
use crate::store::layout::Committer;
use crate::store::layout::index::draft::Draft;
use crate::store::layout::index::merge;
use crate::store::layout::refs::Collision;
use crate::store::layout::writer::{self, BlobWriter, SealedBlob, StoredBlob};

/// An entry of the index that a drop has made: its name, and what it was then.
pub(super) type Made = (Option<String>, Digest);

/// Commits drops.
pub struct Commits {
    committer: Arc<Committer>,
    ingest: Ingest,
    collision: Collision,
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits")
            .field("committer", &self.committer)
            .field("collision", &self.collision)
            .finish_non_exhaustive()
    }
}

impl Commits {
    /// Commits by `committer` what `ingest` has prepared for the same layout; `collision`
    /// says what becomes of refs that are there.
    #[must_use]
    pub fn new(committer: Arc<Committer>, ingest: Ingest, collision: Collision) -> Self {
        Self {
            committer,
            ingest,
            collision,
        }
    }

    fn writer(&self) -> &LayoutWriter {
        self.committer.writer()
    }

    /// Begins the file of a drop.
    pub(super) fn begin(&self) -> Result<BlobWriter, writer::Error> {
        self.writer().blob()
    }

    /// Opens a blob of the layout, verified.
    pub(super) fn hold(&self, digest: &Digest, size: u64) -> Result<StoredBlob, writer::Error> {
        self.writer().hold(digest, size)
    }

    /// Whether the layout has this blob, itself or from a shared directory.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.writer().is_in_reach(digest)
    }

    /// Brings in a drop. Entries that it `made` before make room for what it is now.
    ///
    /// # Errors
    /// Why it is refused; the index is as it was then.
    pub(super) fn bring_in(
        &self,
        received: SealedBlob,
        name: &Name,
        made: &mut Vec<Made>,
    ) -> Result<Report, ingest::Error> {
        let prepared = self.ingest.prepare(received, name)?;
        if prepared.entries().is_empty() {
            return Ok(prepared.publish()?.report().clone());
        }
        if self.collision == Collision::Refuse {
            // What the index would refuse must not leave blobs behind.
            let mut draft = self.committer.present()?;
            forget(&mut draft, made);
            prepared.apply(&mut draft, self.collision)?;
        }
        let published = prepared.publish()?;
        let committed = self.committer.commit(published.blobs(), |draft| {
            forget(draft, made);
            let before = draft.clone();
            published.apply(draft, self.collision)?;
            Ok(made_since(&before, draft))
        })?;
        *made = committed.answer;
        Ok(published.report().clone())
    }
}

/// The names and digests that `after` says and `before` did not.
fn made_since(before: &Draft, after: &Draft) -> Vec<Made> {
    let (old, new) = after.changes_since(before);
    let made = |entry: &Entry| -> Option<Made> {
        let descriptor = entry.descriptor.as_ref().ok()?;
        let name = merge::name(entry).map(str::to_owned);
        Some((name, descriptor.digest.clone()))
    };
    let old: Vec<Made> = old.iter().filter_map(|(_, entry)| made(entry)).collect();
    let new = new.iter().filter_map(|(_, entry)| made(entry));
    new.filter(|made| !old.contains(made)).collect()
}

/// Takes out of an index what a drop has put there, as far as it is still the same.
fn forget(draft: &mut Draft, made: &[Made]) {
    if made.is_empty() {
        return;
    }
    let is_ours = |entry: &Entry| {
        let digest = entry.descriptor.as_ref().ok().map(|d| &d.digest);
        let name = merge::name(entry);
        made.iter().any(|(made_name, made_digest)| {
            made_name.as_deref() == name && Some(made_digest) == digest
        })
    };
    let entries = draft.entries().enumerate();
    let numbers: Vec<usize> = entries
        .filter(|(_, entry)| is_ours(entry))
        .map(|(number, _)| number)
        .collect();
    draft.remove(&numbers);
}

#[cfg(test)]
mod tests;
