//! Reading `index.json`: one look at it is a [`View`]. Changing it: [`draft`] is the text
//! that is changed, and [`update`] sees that nobody's change is lost.

pub mod draft;
pub mod merge;
pub mod update;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use draft::Draft;

use super::{Error, Layout};
use crate::oci::index::Entry;
use crate::oci::limits::Limit;
use crate::oci::{Digest, LayoutIndex};
use crate::store::blob::{Identity, file_clock};

/// How often a file that is being rewritten under our eyes is read again at once.
const READ_ATTEMPTS: usize = 5;

/// The file, relative to the layout.
const INDEX: &str = "index.json";

/// One look at `index.json`: the bytes, and what they say. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    said: Arc<Said>,
    identity: Identity,
    /// Whether the identity tells of everything that was written to the file since.
    is_telling: bool,
}

/// What is the same in every file with these bytes. What not everybody asks for is made
/// when somebody does.
#[derive(Debug)]
struct Said {
    bytes: Arc<Vec<u8>>,
    /// Either these or the draft are there from the start.
    entries: OnceLock<Vec<Arc<Entry>>>,
    digest: OnceLock<Digest>,
    draft: OnceLock<Option<Draft>>,
}

impl View {
    /// The exact bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &Arc<Vec<u8>> {
        &self.said.bytes
    }

    /// The digest of the bytes.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        let digest = || Digest::of(&self.said.bytes);
        self.said.digest.get_or_init(digest)
    }

    /// The entries that the bytes say, in order.
    #[must_use]
    pub fn entries(&self) -> &[Arc<Entry>] {
        let of_draft = || {
            let draft = self.said.draft.get().and_then(Option::as_ref);
            draft.map_or_else(Vec::new, |draft| draft.entries().cloned().collect())
        };
        self.said.entries.get_or_init(of_draft)
    }

    /// The same one by one, for who looks at all of them once: where this was made of a
    /// draft, no list is made.
    pub fn each_entry(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let list = self.said.entries.get();
        let draft = self.said.draft.get().and_then(Option::as_ref);
        let draft = draft.filter(|_| list.is_none()).map(Draft::entries);
        let list = list.map(|list| list.iter());
        list.into_iter()
            .flatten()
            .chain(draft.into_iter().flatten())
    }

    /// Which file was read, in which state.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether a file with this identity says the same, without being read again.
    #[must_use]
    pub fn is_in(&self, file: &Identity) -> bool {
        self.is_telling && self.identity == *file
    }

    /// The memory that the bytes took, if nobody else needs it.
    pub(crate) fn into_room(self) -> Option<Vec<u8>> {
        Arc::into_inner(Arc::into_inner(self.said)?.bytes)
    }

    /// Whether `other` has the same bytes.
    #[must_use]
    pub fn has_the_bytes_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.said, &other.said) || self.bytes() == other.bytes()
    }

    /// The entries of which `before` and this, one made of the other, have only one: those
    /// of `before`, and those of this. Where this was parsed anew, that is all of them.
    #[must_use]
    pub fn changes_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> (Vec<&'a Arc<Entry>>, Vec<&'a Arc<Entry>>) {
        let draft = |view: &'a Self| view.said.draft.get().and_then(Option::as_ref);
        let (Some(old), Some(new)) = (draft(before), draft(self)) else {
            return draft::differing(before.entries(), self.entries(), Arc::as_ptr);
        };
        let (old, new) = new.changes_since(old);
        let entries = |written: Vec<draft::Written<'a>>| written.into_iter().map(|(_, e)| e);
        (entries(old).collect(), entries(new).collect())
    }

    /// Whether the entries are those very ones that a draft has.
    #[must_use]
    pub fn has_the_entries_of(&self, draft: &Draft) -> bool {
        let own = self.draft();
        own.is_some_and(|own| own.has_the_entries_of(draft))
    }

    /// The bytes, cut at the entries; `None` if there is no list of them.
    fn draft(&self) -> Option<&Draft> {
        let cut = || Draft::new(&self.said.bytes, self.entries().to_vec());
        self.said.draft.get_or_init(cut).as_ref()
    }
}

impl View {
    /// Takes the bytes that were read from the `index.json` of the layout at `layout`.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Content`].
    pub(crate) fn of(layout: &Path, bytes: Vec<u8>, identity: Identity) -> Result<Self, Error> {
        let path = layout.join(INDEX);
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::Empty { path });
        }
        let index = LayoutIndex::parse(&bytes).map_err(|source| Error::Content { path, source })?;
        let entries = index.into_entries().into_iter();
        let said = Said {
            bytes: bytes.into(),
            entries: OnceLock::from(entries.map(Arc::new).collect::<Vec<_>>()),
            digest: OnceLock::new(),
            draft: OnceLock::new(),
        };
        Ok(Self {
            said: Arc::new(said),
            identity,
            is_telling: false,
        })
    }

    /// What was written as `bytes`, which `draft` gave.
    pub(crate) fn of_draft(draft: &Draft, bytes: Arc<Vec<u8>>, identity: Identity) -> Self {
        let said = Said {
            bytes,
            entries: OnceLock::new(),
            digest: OnceLock::new(),
            draft: OnceLock::from(Some(draft.fresh_copy())),
        };
        Self {
            said: Arc::new(said),
            identity,
            is_telling: false,
        }
    }

    /// The same, read from `began` until now from a file whose identity was the same before
    /// and after; no time began it where times of files cannot be trusted.
    pub(crate) fn read_since(self, began: Option<(i64, i64)>) -> Self {
        let tells = |began| self.identity.tells_of_writes(began, file_clock());
        let is_telling = began.is_some_and(tells);
        Self { is_telling, ..self }
    }

    /// The same bytes in another file, or in another state of it.
    fn with_identity(&self, identity: Identity) -> Self {
        Self {
            said: self.said.clone(),
            identity,
            is_telling: false,
        }
    }

    /// Reads until the file stays the same meanwhile: `read` gives its identity before,
    /// what it says, and its identity afterwards. `stamp` is that of the disk.
    fn read_settled(
        layout: &Path,
        stamp: impl Fn() -> Option<(i64, i64)>,
        mut read: impl FnMut() -> Result<(Identity, Content, Identity), Error>,
    ) -> Result<Self, Error> {
        for _ in 0..READ_ATTEMPTS {
            let began = stamp();
            let (before, content, identity) = read()?;
            // A file of the same size that was rewritten in between may be half one thing
            // and half the other, and right JSON all the same.
            if identity != before || identity.size != content.len() {
                continue;
            }
            let view = match content {
                Content::Known(view) if view.is_in(&identity) => return Ok(view),
                Content::Known(view) => view.with_identity(identity),
                Content::Read(bytes) => Self::of(layout, bytes, identity)?,
            };
            return Ok(view.read_since(began));
        }
        let path = layout.join(INDEX);
        Err(Error::Unsettled { path })
    }
}

/// What a file says.
enum Content {
    /// The same as this view.
    Known(View),
    /// These bytes.
    Read(Vec<u8>),
}

impl Content {
    /// Takes what was read, after `known` was.
    fn new(bytes: Vec<u8>, known: Option<&View>) -> Self {
        match known.filter(|known| **known.bytes() == bytes) {
            Some(known) => Self::Known(known.clone()),
            None => Self::Read(bytes),
        }
    }

    fn len(&self) -> u64 {
        let len = match self {
            Self::Known(view) => view.bytes().len(),
            Self::Read(bytes) => bytes.len(),
        };
        len as u64
    }
}

impl Layout {
    /// Reads `index.json` once. A file that changes meanwhile is read again.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Content`] and [`Error::Unsettled`] may mean that another
    /// tool is writing the file; whether to wait for it is for the caller to decide.
    pub fn read_index(&self) -> Result<View, Error> {
        self.read_index_after(None)
    }

    /// The same, where `known` was read before: if the file still says the same, it is not
    /// parsed again.
    ///
    /// # Errors
    /// As [`Self::read_index`].
    pub fn read_index_after(&self, known: Option<&View>) -> Result<View, Error> {
        // It is read each time: nothing has to be known of its times.
        let stamp = || None;
        View::read_settled(&self.dir.path, stamp, || {
            let before = self.index_identity()?;
            let (bytes, file) = self.dir.read(INDEX, Limit::IndexJsonSize)?;
            let metadata = file
                .metadata()
                .map_err(|source| self.dir.io("stat", INDEX, source))?;
            let content = Content::new(bytes, known);
            Ok((before, content, Identity::from(&metadata)))
        })
    }

    /// The present identity of `index.json`, for noticing changes without reading.
    ///
    /// # Errors
    /// As for any file of the layout.
    pub fn index_identity(&self) -> Result<Identity, Error> {
        let metadata = self.dir.stat(INDEX)?;
        Ok(Identity::from(&metadata))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;
    #[test]
    fn an_index_that_is_rewritten_meanwhile_is_never_mixed() -> TestResult {
        let dir = tempfile::tempdir()?;
        crate::store::layout::init(dir.path())?;
        let path = dir.path().join("index.json");
        // They differ in what they say, not in how long they are: halves fit together.
        let index = |letter: &str| {
            let text = letter.repeat(1 << 20);
            format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"x":"{text}"}}}}"#)
        };
        let indexes = ["a", "b"].map(index);
        std::fs::write(&path, &indexes[0])?;
        let layout = Layout::open(dir.path(), &[])?;
        let stop = AtomicBool::new(false);
        let write = || {
            for index in indexes.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                std::fs::write(&path, index)?;
            }
            Ok::<(), std::io::Error>(())
        };
        std::thread::scope(|scope| {
            let writer = scope.spawn(write);
            let end = Instant::now() + Duration::from_secs(1);
            let is_whole = |view: &View| {
                let same = |index: &String| index.as_bytes() == **view.bytes();
                indexes.iter().any(same)
            };
            let mut mixed = 0;
            while Instant::now() < end {
                // Refused is fine while it is written.
                mixed += usize::from(layout.read_index().is_ok_and(|view| !is_whole(&view)));
            }
            stop.store(true, Ordering::Relaxed);
            writer.join().map_err(|_| "the writer panicked")??;
            assert_eq!(mixed, 0, "mixtures were believed");
            assert!(is_whole(&layout.read_index()?), "what is there in the end");
            Ok(())
        })
    }
}
