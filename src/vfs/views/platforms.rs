//! `platforms/` of an image index, and the platform that its top shows.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Views;
use super::directory::Directory;
use super::image::{self, ImageDir};
use super::place::Place;
use crate::oci::limits::MAX_INDEX_DEPTH;
use crate::oci::{Descriptor, Digest, Document, DocumentType, platform};
use crate::vfs::node::{Child, Name};

/// How many hexadecimal digits of a digest make a platform's name unique.
const HASH_LEN: usize = 12;

/// `platforms/` and what is shown of the default platform, for an index at `place`, or for
/// what stands under one name as if it were in an index: that is the `whole`.
#[must_use]
pub(super) fn children(
    views: &Arc<Views>,
    place: &Place,
    whole: &[Descriptor],
    entries: &[Descriptor],
) -> Vec<Child> {
    let mut children = Vec::new();
    if let Some((descriptor, document)) = default(views, &image::claims(whole), entries)
        && let Some(manifest) = document.manifest()
    {
        children.extend(image::manifest_children(
            views,
            place,
            whole,
            &descriptor,
            manifest,
        ));
    }
    children.push(directory(views, place, entries));
    children
}

fn directory(views: &Arc<Views>, place: &Place, entries: &[Descriptor]) -> Child {
    let shows: Vec<&str> = entries.iter().map(|entry| entry.digest.as_str()).collect();
    let shows = shows.join(" ");
    let entries = entries.to_vec();
    let place = place.below(b"platforms");
    Directory::new(views, place, &shows, move |views, place| {
        Ok(list(views, place, &entries))
    })
    .into_child(b"platforms")
}

fn list(views: &Arc<Views>, place: &Place, entries: &[Descriptor]) -> Vec<Child> {
    let mut taken = BTreeSet::new();
    let mut children = Vec::new();
    for entry in entries {
        let name = name(entry, &taken);
        // The very same entry twice is shown once.
        if taken.insert(name.clone()) {
            let below = place.below(&name).nested();
            let node = ImageDir::new(views, below, entry);
            children.push(Child {
                name,
                node: Arc::new(node),
            });
        }
    }
    children
}

/// The directory name of an index entry: its platform, with a piece of its digest where
/// that is none, unknown, or taken.
fn name(entry: &Descriptor, taken: &BTreeSet<Name>) -> Name {
    let platform = entry
        .platform
        .as_ref()
        .filter(|platform| !platform.is_unknown());
    let plain = platform.map(|platform| platform.directory_name().into_bytes());
    match plain {
        Some(name) if !taken.contains(&name) => name,
        other => {
            let encoded = entry.digest.encoded();
            let piece = &encoded[..encoded.len().min(HASH_LEN)];
            let base = match (other, &entry.platform) {
                (Some(name), _) => name,
                (None, Some(platform)) => platform.directory_name().into_bytes(),
                (None, None) => Vec::new(),
            };
            let room = crate::vfs::NAME_MAX - 1 - HASH_LEN;
            let mut name = base[..base.len().min(room)].to_vec();
            name.push(b'@');
            name.extend(piece.as_bytes());
            name
        }
    }
}

/// The manifest that the top of an index shows, searched depth first in order. What was
/// found, or that nothing is there, is remembered for `of`, by which the index is known,
/// unless a nested index could not be read.
#[must_use]
pub(super) fn default(
    views: &Views,
    of: &str,
    entries: &[Descriptor],
) -> Option<(Descriptor, Arc<Document>)> {
    let known = views.defaults.lock().get(of).cloned();
    let descriptor = known.unwrap_or_else(|| {
        let (chosen, complete) = search(views, entries);
        if complete {
            views.defaults.lock().put(of.to_owned(), chosen.clone());
        }
        chosen
    })?;
    let document = views.documents().document(&descriptor).ok()??;
    Some((descriptor, document))
}

/// Whether it is `chosen` by [`default`] whatever comes.
pub(super) fn is_settled(views: &Views, of: &str, chosen: &Descriptor) -> bool {
    let defaults = views.defaults.lock();
    let known = defaults.peek(of).and_then(Option::as_ref);
    known.is_some_and(|known| known.digest == chosen.digest)
}

/// The best manifest, and whether everything could be read on the way.
fn search(views: &Views, entries: &[Descriptor]) -> (Option<Descriptor>, bool) {
    let mut candidates = Candidates::default();
    candidates.collect(views, entries, 1);
    let Candidates {
        mut found,
        unreadable,
        ..
    } = candidates;
    let platforms = found
        .iter()
        .map(|entry| (entry.platform.as_ref(), entry.is_attestation()));
    let chosen = platform::choose(views.platform(), platforms);
    (chosen.map(|at| found.swap_remove(at)), !unreadable)
}

/// How many bytes of nested indexes are searched for the default platform. Real ones have
/// some kilobytes in all; reading more would keep everybody else waiting.
const MAX_SEARCHED: u64 = 16 << 20;

/// The manifests among which the default is chosen.
#[derive(Default)]
struct Candidates {
    found: Vec<Descriptor>,
    /// The least depth at which each nested index was gone through.
    seen: HashMap<Digest, u64>,
    /// How many bytes of nested indexes were read.
    read: u64,
    /// Whether one of them could not be.
    unreadable: bool,
}

impl Candidates {
    /// Adds all manifests of an index and of those nested in it, in order.
    fn collect(&mut self, views: &Views, entries: &[Descriptor], depth: u64) {
        for entry in entries {
            match DocumentType::of(&entry.media_type) {
                Some(document_type) if !document_type.is_index() => self.found.push(entry.clone()),
                Some(_) if depth < MAX_INDEX_DEPTH && self.is_new(entry, depth) => {
                    self.read += entry.size;
                    if self.read > MAX_SEARCHED {
                        continue;
                    }
                    let document = views.documents().document(entry);
                    self.unreadable |= document.is_err();
                    if let Ok(Some(document)) = document
                        && let Some(index) = document.index()
                    {
                        self.collect(views, &index.manifests, depth + 1);
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a nested index can bring what was not found yet. Few indexes that name
    /// each other many times have more ways through them than anybody can go.
    fn is_new(&mut self, index: &Descriptor, depth: u64) -> bool {
        match self.seen.get_mut(&index.digest) {
            Some(least) if *least <= depth => false,
            Some(least) => {
                *least = depth;
                true
            }
            None => {
                self.seen.insert(index.digest.clone(), depth);
                true
            }
        }
    }
}
