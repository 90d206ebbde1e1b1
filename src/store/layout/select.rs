//! Entries that are chosen by what they say, not by a name alone.

use super::index::draft::Draft;
use super::refs::{self, Collision, Refusal};
use crate::oci::index::Entry;

/// Removes the entries that `fits` chooses; their digests.
pub fn remove(draft: &mut Draft, fits: impl Fn(&Entry) -> bool) -> Vec<String> {
    let numbers = refs::find(draft, fits);
    let labels = numbers.iter().map(|number| refs::label(draft, *number));
    let labels = labels.collect();
    draft.remove(&numbers);
    labels
}

/// Puts descriptors with these JSON texts, under the names that they have, in the place of
/// the entries that `fits` chooses, be there any or not; the digests of those.
///
/// # Errors
/// [`Refusal::Exists`] with [`Collision::Refuse`] if another entry has one of the names: the
/// draft is worth nothing then, as always where a change is refused.
pub fn replace(
    draft: &mut Draft,
    fits: impl Fn(&Entry) -> bool,
    descriptors: &[String],
    collision: Collision,
) -> Result<Vec<String>, Refusal> {
    let removed = remove(draft, fits);
    refs::merge(draft, descriptors, collision)?;
    Ok(removed)
}
