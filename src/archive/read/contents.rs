//! What the members of a tar amount to: an index, and where the bytes of each blob are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::found::{hash, read_error};
use super::section::Section;
use super::table::Extent;
use super::{Error, docker};
use crate::archive::{self, DOCKER_MANIFEST, Dialect, Members, OCI_INDEX, OCI_MARKER, oci};
use crate::oci::Digest;
use crate::oci::limits::{Limit, MAX_DOCUMENT_SIZE};
use crate::store::ReadAt;
use crate::stream;

/// Where the bytes of a blob are.
#[derive(Debug, Clone)]
pub(super) enum Stored {
    /// In the tar.
    At(Extent),
    /// Here: they were made.
    Made(Arc<Vec<u8>>),
    /// Something is in its place that cannot be read: what.
    Unusable(&'static str),
}

/// What an archive amounts to.
pub(super) struct Contents {
    pub(super) marker: Vec<u8>,
    pub(super) index: Vec<u8>,
    pub(super) blobs: BTreeMap<Digest, Stored>,
}

/// A tar whose members are known.
pub(super) struct Tar<'a> {
    pub(super) path: &'a Path,
    pub(super) bytes: &'a Arc<dyn ReadAt>,
    pub(super) members: &'a Members<Extent>,
    /// The digests that were worked out, by where the bytes begin.
    pub(super) hashed: RefCell<BTreeMap<u64, Digest>>,
}

impl Tar<'_> {
    /// What the archive amounts to, by its dialect.
    pub(super) fn contents(&self) -> Result<Contents, Error> {
        let has_marker = self.find(OCI_MARKER)?.is_some();
        // A layout needs none, whatever it is.
        let manifest = match self.find(DOCKER_MANIFEST) {
            _ if has_marker => None,
            Ok(Some(extent)) if extent.len > MAX_DOCUMENT_SIZE => None,
            Ok(Some(extent)) => Some(self.read(extent)?),
            Ok(None) => None,
            Err(error) => return Err(error),
        };
        match (Dialect::of(has_marker, manifest.as_deref()), manifest) {
            (Some(Dialect::Oci), _) => self.layout(),
            (Some(Dialect::Docker), Some(manifest)) => docker::contents(self, &manifest),
            _ => Err(Error::NotAnArchive {
                path: self.path.to_owned(),
            }),
        }
    }

    /// What a layout in a tar says.
    fn layout(&self) -> Result<Contents, Error> {
        let marker = self.limited(OCI_MARKER, Limit::LayoutFileSize)?.1;
        oci::check_marker(&marker).map_err(|source| self.wrong(source))?;
        let index = self.limited(OCI_INDEX, Limit::IndexJsonSize)?.1;
        let names = self.members.iter().map(|(path, _)| path);
        let named = names.filter_map(|path| Some((path, oci::blob_at(path)?)));
        let stored = |(path, digest): (&[u8], Digest)| {
            let path = std::str::from_utf8(path).ok()?;
            let stored = match self.members.find(path) {
                Ok(extent) => Stored::At(*extent?),
                Err(error) => Stored::Unusable(error.found()),
            };
            Some((digest, stored))
        };
        Ok(Contents {
            marker,
            index,
            blobs: named.filter_map(stored).collect(),
        })
    }

    fn find(&self, path: &str) -> Result<Option<Extent>, Error> {
        let found = self.members.find(path);
        Ok(found.map_err(|source| self.wrong(source))?.copied())
    }

    /// The file at `path`, which must be there.
    pub(super) fn get(&self, path: &str) -> Result<Extent, Error> {
        let found = self.members.get(path);
        Ok(*found.map_err(|source| self.wrong(source))?)
    }

    /// The document at `path`, and where it is.
    pub(super) fn document(&self, path: &str) -> Result<(Extent, Vec<u8>), Error> {
        self.limited(path, Limit::DocumentSize)
    }

    fn limited(&self, path: &str, limit: Limit) -> Result<(Extent, Vec<u8>), Error> {
        let extent = self.get(path)?;
        limit.check(extent.len).map_err(|source| {
            let path = path.to_owned();
            self.wrong(archive::Error::Document { path, source })
        })?;
        Ok((extent, self.read(extent)?))
    }

    /// All bytes of a small file.
    fn read(&self, extent: Extent) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; usize::try_from(extent.len).unwrap_or(0)];
        let read = self.section(extent).read_at(&mut bytes, 0);
        read.map_err(|source| read_error(self.path, "read", source))?;
        Ok(bytes)
    }

    /// The digest of a file, by reading it unless that was done before.
    pub(super) fn digest(&self, extent: Extent) -> Result<Digest, Error> {
        if let Some(digest) = self.hashed.borrow().get(&extent.offset) {
            return Ok(digest.clone());
        }
        let digest = hash(self.path, &self.section(extent))?;
        let hashed = &mut self.hashed.borrow_mut();
        hashed.insert(extent.offset, digest.clone());
        Ok(digest)
    }

    pub(super) fn section(&self, extent: Extent) -> Section {
        Section::new(self.bytes, extent)
    }

    pub(super) fn undecodable(&self, path: &str, source: stream::Error) -> Error {
        let path = self.path.join(path);
        Error::Stream { path, source }
    }

    pub(super) fn wrong(&self, source: archive::Error) -> Error {
        let path = self.path.to_owned();
        Error::Content { path, source }
    }
}
