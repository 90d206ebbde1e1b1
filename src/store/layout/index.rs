//! Reading `index.json`: one look at it is a [`View`].

use std::sync::Arc;

use super::{Error, Layout};
use crate::oci::index::Entry;
use crate::oci::limits::Limit;
use crate::oci::{Digest, LayoutIndex};
use crate::store::blob::Identity;

/// How often a file that is being rewritten under our eyes is read again at once.
const READ_ATTEMPTS: usize = 5;

/// One look at `index.json`: the bytes, and what they say.
#[derive(Debug)]
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

impl Layout {
    /// Reads `index.json` once. A file that changes meanwhile is read again.
    ///
    /// # Errors
    /// [`Error::Empty`] and [`Error::Content`] may mean that another tool is writing the
    /// file; whether to wait for it is for the caller to decide.
    pub fn read_index(&self) -> Result<View, Error> {
        let mut attempt = 1;
        loop {
            let (bytes, file) = self.dir.read("index.json", Limit::IndexJsonSize)?;
            let metadata = file
                .metadata()
                .map_err(|source| self.dir.io("stat", "index.json", source))?;
            let identity = Identity::from(&metadata);
            let settled = identity.size == bytes.len() as u64;
            if !settled && attempt < READ_ATTEMPTS {
                attempt += 1;
                continue;
            }
            return self.view(bytes, identity);
        }
    }

    /// The present identity of `index.json`, for noticing changes without reading.
    ///
    /// # Errors
    /// As for any file of the layout.
    pub fn index_identity(&self) -> Result<Identity, Error> {
        let metadata = self.dir.stat("index.json")?;
        Ok(Identity::from(&metadata))
    }

    fn view(&self, bytes: Vec<u8>, identity: Identity) -> Result<View, Error> {
        let path = self.dir.path.join("index.json");
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::Empty { path });
        }
        let index = LayoutIndex::parse(&bytes).map_err(|source| Error::Content { path, source })?;
        let entries = index.into_entries().into_iter().map(Arc::new).collect();
        Ok(View {
            digest: Digest::of(&bytes),
            bytes: bytes.into(),
            entries,
            identity,
        })
    }
}
