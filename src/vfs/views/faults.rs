//! What was found wrong, for people: logged once for each blob, listed in `status.json`.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use crate::oci::Descriptor;
use crate::vfs::error::{Error, Fault};

/// How many faults are kept, the latest ones: a layout that is all broken must not fill
/// the memory.
const MAX_FAULTS: NonZeroUsize = NonZeroUsize::new(1000).expect("it is not zero");

/// How much of a media type is in a subject, in characters. The longest known one has 75.
const MEDIA_TYPE_LEN: usize = 100;

/// What faults of the blob that `descriptor` names are noted under. The same bytes can be
/// right for one descriptor and wrong for another, which says something else of them.
#[must_use]
pub(super) fn subject(descriptor: &Descriptor) -> String {
    let media_type = descriptor.media_type.to_string();
    let media_type: String = media_type.chars().take(MEDIA_TYPE_LEN).collect();
    format!("{}, {media_type}", claim(descriptor))
}

/// What `descriptor` claims of the bytes of its blob. Files whose descriptors claim the
/// same get the same verdict, so they can be one inode.
#[must_use]
pub(super) fn claim(descriptor: &Descriptor) -> String {
    let Descriptor { digest, size, .. } = descriptor;
    match descriptor.check_data() {
        Ok(()) => format!("{digest}, {size} bytes"),
        Err(_) => format!("{digest}, {size} bytes, other data"),
    }
}

/// The faults found so far, by what they were found in.
#[derive(Debug)]
pub(super) struct Faults {
    found: Mutex<LruCache<String, Fault>>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            found: Mutex::new(LruCache::new(MAX_FAULTS)),
        }
    }
}

impl Faults {
    /// Notes how opening `subject` (a digest, mostly) went, and passes the result on.
    ///
    /// # Errors
    /// The one that was given.
    pub(super) fn judge<T>(&self, subject: &str, result: Result<T, Error>) -> Result<T, Error> {
        match &result {
            Ok(_) => {
                self.found.lock().pop(subject);
            }
            Err(error) => self.note(subject, error),
        }
        result
    }

    /// Notes what went wrong with `subject` after it was opened, and passes it on.
    pub(super) fn noted(&self, subject: &str, error: Error) -> Error {
        self.note(subject, &error);
        error
    }

    fn note(&self, subject: &str, error: &Error) {
        let Some(fault) = error.fault() else { return };
        let mut found = self.found.lock();
        if found.get(subject) != Some(&fault) {
            log::log!(error.level(), "{}: {}", fault.code, fault.text);
            found.put(subject.to_owned(), fault);
        }
    }

    /// What is wrong with `subject`, as far as somebody has tried it.
    #[must_use]
    pub(super) fn find(&self, subject: &str) -> Option<Fault> {
        self.found.lock().peek(subject).cloned()
    }

    /// All faults, by subject.
    #[must_use]
    pub(super) fn all(&self) -> Vec<(String, Fault)> {
        let found = self.found.lock();
        let mut all: Vec<_> = found
            .iter()
            .map(|(subject, fault)| (subject.clone(), fault.clone()))
            .collect();
        drop(found);
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }
}
