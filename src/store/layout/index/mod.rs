//! Reading `index.json`: one look at it is a [`View`]. Changing it: [`draft`] is the text
//! that is changed, and [`update`] sees that nobody's change is lost.

pub mod draft;
pub mod merge;
pub mod update;

use std::path::Path;
use std::sync::Arc;

use super::{Error, Layout};
use crate::oci::index::Entry;
use crate::oci::limits::Limit;
use crate::oci::{Digest, LayoutIndex};
use crate::store::blob::Identity;

/// How often a file that is being rewritten under our eyes is read again at once.
const READ_ATTEMPTS: usize = 5;

/// The file, relative to the layout.
const INDEX: &str = "index.json";

/// One look at `index.json`: the bytes, and what they say.
#[derive(Debug, Clone)]
pub struct View {
    bytes: Arc<[u8]>,
    digest: Digest,
    entries: Vec<Arc<Entry>>,
    identity: Identity,
}

impl View {
    /// The exact bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// The digest of the bytes.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The entries that the bytes say, in order.
    #[must_use]
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// Which file was read, in which state.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl View {
    /// Takes the bytes that were read from the `index.json` of the layout at `layout`.
    pub(super) fn of(layout: &Path, bytes: Vec<u8>, identity: Identity) -> Result<Self, Error> {
        let path = layout.join(INDEX);
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::Empty { path });
        }
        let index = LayoutIndex::parse(&bytes).map_err(|source| Error::Content { path, source })?;
        let entries = index.into_entries().into_iter().map(Arc::new).collect();
        Ok(Self {
            digest: Digest::of(&bytes),
            bytes: bytes.into(),
            entries,
            identity,
        })
    }

    /// Reads until the file stays the same meanwhile: `read` gives its identity before,
    /// the bytes, and its identity afterwards.
    fn read_settled(
        layout: &Path,
        mut read: impl FnMut() -> Result<(Identity, Vec<u8>, Identity), Error>,
    ) -> Result<Self, Error> {
        for _ in 0..READ_ATTEMPTS {
            let (before, bytes, identity) = read()?;
            // A file of the same size that was rewritten in between may be half one thing
            // and half the other, and right JSON all the same.
            if identity == before && identity.size == bytes.len() as u64 {
                return Self::of(layout, bytes, identity);
            }
        }
        let path = layout.join(INDEX);
        Err(Error::Unsettled { path })
    }
}

impl Layout {
    /// Reads `index.json` once. A file that changes meanwhile is read again.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Content`] and [`Error::Unsettled`] may mean that another
    /// tool is writing the file; whether to wait for it is for the caller to decide.
    pub fn read_index(&self) -> Result<View, Error> {
        View::read_settled(&self.dir.path, || {
            let before = self.index_identity()?;
            let (bytes, file) = self.dir.read(INDEX, Limit::IndexJsonSize)?;
            let metadata = file
                .metadata()
                .map_err(|source| self.dir.io("stat", INDEX, source))?;
            Ok((before, bytes, Identity::from(&metadata)))
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
                let same = |index: &String| index.as_bytes() == &**view.bytes();
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
