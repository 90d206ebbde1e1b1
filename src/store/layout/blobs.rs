//! Finding, opening and listing blobs; the only builder of blob paths.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, OFlags};

use super::{Error, Layout, Pinned, Space};
use crate::oci::Digest;
use crate::store::blob::{Blob, Identity};
use crate::store::source::BlobSource;

/// Where a layout keeps the blob of `digest`, relative to the layout.
pub(super) fn path(digest: &Digest) -> String {
    format!("blobs/{}", below(digest))
}

/// Where a shared directory keeps it, relative to that.
pub(super) fn below(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm_name(), digest.encoded())
}

/// Directories of blobs that several layouts share, in the order in which they are searched.
#[derive(Debug, Default)]
pub struct SharedBlobs(pub(super) Vec<Pinned>);

impl SharedBlobs {
    /// Opens the directories `paths`, which have blobs as `<algorithm>/<encoded>`.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::FileType`], [`Error::Io`].
    pub fn open(paths: &[PathBuf]) -> Result<Self, Error> {
        let dirs = paths.iter().map(|path| Pinned::pin(path));
        dirs.collect::<Result<_, _>>().map(Self)
    }

    /// Opens the blob of `digest`. Its bytes are not verified by that.
    ///
    /// # Errors
    /// As [`Layout::open_blob`].
    pub fn open_blob(&self, digest: &Digest) -> Result<Blob, Error> {
        open(self.places(digest), digest)
    }

    /// Where the blob of `digest` is and in which state, without opening it.
    ///
    /// # Errors
    /// [`Error::BlobMissing`] if no directory has it.
    pub fn identify(&self, digest: &Digest) -> Result<Identity, Error> {
        Ok(Identity::from(&stat(self.places(digest), digest)?))
    }

    fn places<'a>(
        &'a self,
        digest: &Digest,
    ) -> impl Iterator<Item = (&'a Pinned, String)> + use<'a> {
        let below = below(digest);
        self.0.iter().map(move |dir| (dir, below.clone()))
    }
}

/// Opens the blob of `digest` at the first of these places that has it.
fn open<'a>(
    mut places: impl Iterator<Item = (&'a Pinned, String)>,
    digest: &Digest,
) -> Result<Blob, Error> {
    let opened = places.find_map(|(dir, path)| present(dir.open_file(&path)));
    let (file, metadata) = opened.ok_or_else(|| missing(digest))??;
    Ok(Blob::of(digest.clone(), file, &metadata))
}

/// What `lstat` says of the blob of `digest` at the first of these places that has it.
fn stat<'a>(
    mut places: impl Iterator<Item = (&'a Pinned, String)>,
    digest: &Digest,
) -> Result<Metadata, Error> {
    let found = places.find_map(|(dir, path)| present(dir.stat(&path)));
    found.ok_or_else(|| missing(digest))?
}

/// Nothing if it is not there.
fn present<T>(result: Result<T, Error>) -> Option<Result<T, Error>> {
    (!matches!(result, Err(Error::Missing { .. }))).then_some(result)
}

fn missing(digest: &Digest) -> Error {
    Error::BlobMissing {
        digest: digest.clone(),
    }
}

impl Layout {
    /// Opens the blob of `digest`, from the layout or else from a shared directory.
    /// Its bytes are not verified by that.
    ///
    /// # Errors
    /// [`Error::BlobMissing`] if no directory has it; [`Error::FileType`] if what is
    /// there is not a regular file.
    pub fn open_blob(&self, digest: &Digest) -> Result<Blob, Error> {
        open(self.places(digest), digest)
    }

    /// What `lstat` says of the file that holds `digest`, without opening it.
    ///
    /// # Errors
    /// [`Error::BlobMissing`] if no directory has it.
    pub fn stat_blob(&self, digest: &Digest) -> Result<Metadata, Error> {
        stat(self.places(digest), digest)
    }

    /// The digests of all blobs of one algorithm that the layout itself holds, in the
    /// order of the directory. Files whose names are no digests are passed over.
    ///
    /// # Errors
    /// [`Error::Io`]; that the directory is missing means that there are none.
    pub fn list_blobs(&self, algorithm: &str) -> Result<Vec<Digest>, Error> {
        let names = self.list(&format!("blobs/{algorithm}"))?;
        Ok(names
            .iter()
            .filter_map(|name| format!("{algorithm}:{name}").parse().ok())
            .collect())
    }

    /// The names of the algorithms for which there is a directory below `blobs`.
    ///
    /// # Errors
    /// [`Error::Io`]; that the directory is missing means that there are none.
    pub fn list_algorithms(&self) -> Result<Vec<String>, Error> {
        let names = self.list("blobs")?;
        // A name is an algorithm's where a digest could be made of it.
        let fits = |name: &String| match format!("{name}:0").parse::<Digest>() {
            Ok(_) => true,
            Err(error) => matches!(error, crate::oci::digest::Error::Encoded { .. }),
        };
        Ok(names.into_iter().filter(fits).collect())
    }

    /// Where the blob may be, the layout first.
    fn places<'a>(
        &'a self,
        digest: &Digest,
    ) -> impl Iterator<Item = (&'a Pinned, String)> + use<'a> {
        let own = (&self.dir, path(digest));
        std::iter::once(own).chain(self.shared.places(digest))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        let file = match self.dir.open(path, OFlags::DIRECTORY) {
            Ok(file) => file,
            Err(Error::Missing { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let io = |errno: rustix::io::Errno| self.dir.io("list", path, errno.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(&file).map_err(io)? {
            let entry = entry.map_err(io)?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

impl BlobSource for Layout {
    fn path(&self) -> &Path {
        Self::path(self)
    }

    fn owner(&self) -> Result<(u32, u32), Error> {
        Self::owner(self)
    }

    fn space(&self) -> Result<Space, Error> {
        Self::space(self)
    }

    fn marker(&self) -> Result<Vec<u8>, Error> {
        Self::marker(self)
    }

    fn open_blob(&self, digest: &Digest) -> Result<Blob, Error> {
        Self::open_blob(self, digest)
    }

    fn identify(&self, digest: &Digest) -> Result<Identity, Error> {
        let metadata = self.stat_blob(digest)?;
        Ok(Identity::from(&metadata))
    }

    fn list_blobs(&self, algorithm: &str) -> Result<Vec<Digest>, Error> {
        Self::list_blobs(self, algorithm)
    }

    fn list_algorithms(&self) -> Result<Vec<String>, Error> {
        Self::list_algorithms(self)
    }
}
