//! What is about what: `subject`, the other way round.
//!
//! | where it is said | what is about the image |
//! |---|---|
//! | `subject` of anything that index.json leads to | that manifest or index |
//! | the tag `sha256-HEX` of an index | what that index lists |
//! | the tags `sha256-HEX.sig`, `.att`, `.sbom` | what has the tag |
//!
//! A manifest that says itself what it is about is believed, whatever a tag says. So only
//! those without `subject` can be about several others.
//!
//! All edges of a snapshot are found at once, when somebody first asks for any. Each document
//! is read for that once: what it says hangs on its digest, and is kept as long as the index
//! leads there. While one cannot be read, it is tried again every [`RETRY`].
//!
//! Spec: image-spec manifest.md, "subject"; distribution-spec, "Referrers Tag Schema";
//! cosign, "Tag-based discovery".

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::oci::index::Entry;
use crate::oci::{Descriptor, Digest, Document, MediaType};
use crate::vfs::views::Views;
use crate::vfs::views::reachable::ByDigest;
use crate::vfs::views::refs::Snapshot;

/// How long what could not be read is taken for unreadable: as long as a file that appears
/// may take to be seen.
const RETRY: Duration = Duration::from_secs(1);

/// What Sigstore's tags end in: signatures, attestations, bills of material.
const SIGSTORE: [&str; 3] = [".sig", ".att", ".sbom"];

/// How much of a digest a tag of referrers has at most, in characters.
const TAG_LEN: usize = 64;

/// A manifest or an index that is about another one.
#[derive(Debug)]
pub(super) struct Referrer {
    /// Where it is.
    pub(super) descriptor: Descriptor,
    /// The type that it is filed under.
    pub(super) artifact_type: MediaType,
    /// What it says that it is about.
    subject: Option<Digest>,
}

/// Manifests and indexes that are about one thing. Of several descriptors of one digest it has
/// the first that the index leads to.
type Referrers = BTreeMap<Digest, Arc<Referrer>>;

/// All edges of one snapshot.
#[derive(Debug, Default)]
pub(super) struct Edges {
    by_subject: HashMap<Digest, Referrers>,
    by_tag: HashMap<String, Referrers>,
}

impl Edges {
    /// Everything that is about `subject`, what only tags say among it where `by_tag`; the
    /// same thing several times, perhaps.
    pub(super) fn about(
        &self,
        subject: &Digest,
        by_tag: bool,
    ) -> impl Iterator<Item = &Arc<Referrer>> {
        let sets = self.sets(subject, by_tag);
        let all = sets.flat_map(BTreeMap::values);
        all.filter(move |referrer| referrer.may_be_about(subject))
    }

    /// What has this digest and is about `subject`: the first that [`Edges::about`] gives.
    pub(super) fn find(
        &self,
        subject: &Digest,
        by_tag: bool,
        digest: &Digest,
    ) -> Option<&Arc<Referrer>> {
        let found = self.sets(subject, by_tag).filter_map(|set| set.get(digest));
        let mut right = found.filter(|referrer| referrer.may_be_about(subject));
        right.next()
    }

    /// What says itself that it is about `subject`, then what tags say so of.
    fn sets(&self, subject: &Digest, by_tag: bool) -> impl Iterator<Item = &Referrers> + use<'_> {
        let (algorithm, encoded) = (subject.algorithm_name(), subject.encoded());
        let cut = &encoded[..encoded.len().min(TAG_LEN)];
        let mut tags = Vec::new();
        if by_tag {
            tags.push(format!("{algorithm}-{cut}"));
        }
        if by_tag && cut != encoded {
            tags.push(format!("{algorithm}-{encoded}"));
        }
        let tagged = tags.into_iter().filter_map(|tag| self.by_tag.get(&tag));
        self.by_subject.get(subject).into_iter().chain(tagged)
    }
}

impl Referrer {
    /// Whether it says nothing else itself.
    fn may_be_about(&self, subject: &Digest) -> bool {
        let said = self.subject.as_ref();
        said.is_none_or(|said| said == subject)
    }
}

/// What one document says that matters here.
#[derive(Debug, Clone)]
struct Fact {
    subject: Option<Digest>,
    artifact_type: MediaType,
}

impl Fact {
    fn of(document: &Document, descriptor: &Descriptor) -> Self {
        let (subject, artifact_type) = match document {
            Document::Manifest(manifest) => (
                &manifest.subject,
                manifest.effective_artifact_type().clone(),
            ),
            Document::Index(index) => (
                &index.subject,
                said_type(index.artifact_type.as_ref(), descriptor),
            ),
        };
        Self {
            subject: subject.as_ref().map(|subject| subject.digest.clone()),
            artifact_type,
        }
    }
}

/// The artifact type that is given, else what the thing itself is.
fn said_type(artifact_type: Option<&MediaType>, descriptor: &Descriptor) -> MediaType {
    let given = artifact_type.filter(|given| !given.as_str().is_empty());
    given.unwrap_or(&descriptor.media_type).clone()
}

/// What was found for the last snapshot that was asked about.
#[derive(Debug, Default)]
pub(in crate::vfs::views) struct KnownEdges(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    facts: HashMap<Digest, Fact>,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    of: Weak<Snapshot>,
    edges: Arc<Edges>,
    /// When something is to be tried again that could not be read.
    retry: Option<Instant>,
}

impl Last {
    fn is_of(&self, snapshot: &Arc<Snapshot>) -> bool {
        let is_same = |of: Arc<Snapshot>| Arc::ptr_eq(&of, snapshot);
        self.of.upgrade().is_some_and(is_same)
    }

    /// Whether it is all that can be known now.
    fn holds(&self, snapshot: &Arc<Snapshot>) -> bool {
        self.is_of(snapshot) && self.retry.is_none_or(|retry| Instant::now() < retry)
    }
}

impl KnownEdges {
    /// The edges of the present snapshot. Who asks while they are being found waits for that.
    pub(super) fn get(&self, views: &Views) -> Arc<Edges> {
        let snapshot = views.snapshot();
        let mut state = self.0.lock();
        if let Some(last) = state.last.as_ref().filter(|last| last.holds(&snapshot)) {
            return last.edges.clone();
        }
        let begun = Instant::now();
        let reachable = views.reachable.get(views);
        let learned = state.learn(views, &reachable);
        let last = state.last.take().filter(|last| last.is_of(&snapshot));
        let edges = match last {
            Some(last) if !learned.is_news => last.edges,
            _ => Arc::new(state.edges(views, &snapshot, &reachable)),
        };
        log::debug!("what refers to what, found in {:?}", begun.elapsed());
        state.last = Some(Last {
            of: Arc::downgrade(&snapshot),
            edges: edges.clone(),
            retry: (!learned.is_complete).then(|| Instant::now() + RETRY),
        });
        edges
    }

    /// Whether who asks for them now would get them at once.
    pub(super) fn is_known(&self, views: &Views) -> bool {
        let snapshot = views.snapshot();
        // While somebody has it, they are being found.
        self.0.try_lock().is_some_and(|state| {
            let last = state.last.as_ref();
            last.is_some_and(|last| last.holds(&snapshot))
        })
    }
}

/// What came of looking at all documents.
#[derive(Debug, Clone, Copy)]
struct Learned {
    /// Whether everything could be read.
    is_complete: bool,
    /// Whether anything is known that was not before, or the other way round.
    is_news: bool,
}

impl State {
    /// Reads what is new of all that the index leads to, and forgets what it does not lead to
    /// any more.
    fn learn(&mut self, views: &Views, reachable: &ByDigest) -> Learned {
        let mut before = std::mem::take(&mut self.facts);
        let (mut is_complete, mut is_news) = (true, false);
        for (digest, descriptor) in reachable {
            let known = before.remove(digest);
            let was_known = known.is_some();
            let fact = known.or_else(|| {
                let document = views.documents().document(descriptor).ok()??;
                Some(Fact::of(&document, descriptor))
            });
            is_complete &= fact.is_some();
            is_news |= fact.is_some() && !was_known;
            self.facts.extend(fact.map(|fact| (digest.clone(), fact)));
        }
        is_news |= !before.is_empty();
        Learned {
            is_complete,
            is_news,
        }
    }

    fn edges(&self, views: &Views, snapshot: &Snapshot, reachable: &ByDigest) -> Edges {
        let mut edges = Edges::default();
        for (digest, fact) in &self.facts {
            if let (Some(subject), Some(descriptor)) = (&fact.subject, reachable.get(digest)) {
                let about = edges.by_subject.entry(subject.clone()).or_default();
                about.insert(digest.clone(), Arc::new(self.referrer(descriptor)));
            }
        }
        for entry in snapshot.view().entries() {
            let Ok(descriptor) = &entry.descriptor else {
                continue;
            };
            for tag in tags(entry) {
                let referrers = self.tagged(views, descriptor, &tag);
                let about = edges.by_tag.entry(tag.of).or_default();
                for referrer in referrers {
                    let digest = referrer.descriptor.digest.clone();
                    about.entry(digest).or_insert_with(|| Arc::new(referrer));
                }
            }
        }
        edges
    }

    /// What is about the digest of `tag`, which `descriptor` has.
    fn tagged(&self, views: &Views, descriptor: &Descriptor, tag: &Tag) -> Vec<Referrer> {
        if tag.is_sigstore {
            return vec![self.referrer(descriptor)];
        }
        let Ok(Some(document)) = views.documents().document(descriptor) else {
            return Vec::new();
        };
        let listed = document.index().map(|index| index.manifests.iter());
        let listed = listed.into_iter().flatten();
        listed.map(|descriptor| self.referrer(descriptor)).collect()
    }

    /// What `descriptor` names; of what cannot be read no more is known than that says.
    fn referrer(&self, descriptor: &Descriptor) -> Referrer {
        let fact = self.facts.get(&descriptor.digest);
        let said = || said_type(descriptor.artifact_type.as_ref(), descriptor);
        Referrer {
            descriptor: descriptor.clone(),
            artifact_type: fact.map_or_else(said, |fact| fact.artifact_type.clone()),
            subject: fact.and_then(|fact| fact.subject.clone()),
        }
    }
}

/// A tag that stands for a digest.
#[derive(Debug, PartialEq, Eq)]
struct Tag {
    /// The digest as it is in the tag: `sha256-HEX`.
    of: String,
    /// Whether what has the tag is a referrer itself, and no list of them.
    is_sigstore: bool,
}

impl Tag {
    /// The tag at the end of a name, if it is one.
    fn of(name: &str) -> Option<Self> {
        let tag = name.rsplit(['/', ':']).next()?;
        let stem = SIGSTORE.iter().find_map(|end| tag.strip_suffix(end));
        let of = stem.unwrap_or(tag);
        let (algorithm, encoded) = of.split_once('-')?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_len = match algorithm {
            "sha256" => encoded.len() == 64,
            "sha512" => matches!(encoded.len(), TAG_LEN | 128),
            _ => false,
        };
        (is_len && encoded.bytes().all(is_hex)).then(|| Self {
            of: of.to_owned(),
            is_sigstore: stem.is_some(),
        })
    }
}

/// The tags of an entry that stand for digests.
fn tags(entry: &Entry) -> Vec<Tag> {
    let names = [&entry.ref_name, &entry.containerd_name];
    let mut tags: Vec<Tag> = names
        .into_iter()
        .flatten()
        .filter_map(|name| Tag::of(name))
        .collect();
    tags.dedup();
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_stand_for_digests() {
        let hex = "a".repeat(64);
        let sha256 = format!("sha256-{hex}");
        let sha512 = format!("sha512-{}", "b".repeat(128));
        let cut = format!("sha512-{}", "b".repeat(64));
        let rows = [
            ("bare", sha256.clone(), Some((&sha256, false))),
            ("tag", format!("app:{sha256}"), Some((&sha256, false))),
            (
                "full name",
                format!("ghcr.io/org/app:{sha256}"),
                Some((&sha256, false)),
            ),
            ("signature", format!("{sha256}.sig"), Some((&sha256, true))),
            (
                "attestation",
                format!("a:{sha256}.att"),
                Some((&sha256, true)),
            ),
            (
                "bill of material",
                format!("a/{sha256}.sbom"),
                Some((&sha256, true)),
            ),
            ("sha512", sha512.clone(), Some((&sha512, false))),
            ("sha512, cut", cut.clone(), Some((&cut, false))),
            ("another ending", format!("{sha256}.txt"), None),
            ("two endings", format!("{sha256}.sig.sig"), None),
            ("short", sha256[..70].to_owned(), None),
            ("upper case", format!("sha256-{}", "A".repeat(64)), None),
            ("another algorithm", format!("blake3-{hex}"), None),
            ("a digest", format!("sha256:{hex}"), None),
            ("a mere name", "app:1".to_owned(), None),
        ];
        for (name, text, expected) in rows {
            let tag = Tag::of(&text);
            let tag = tag.as_ref().map(|tag| (&tag.of, tag.is_sigstore));
            assert_eq!(tag, expected, "{name}");
        }
    }
}
