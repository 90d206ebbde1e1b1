//! The directory in which the daemon keeps what it has learned between runs.
//!
//! ```text
//! CACHE/
//! ├── verdicts/<algorithm>-<hex>    that a file had its digest (see `verify`)
//! └── toc/<algorithm>-<hex>         tables of contents of layers
//! ```
//!
//! Everything in it can be deleted at any time and is made again. Because what is read
//! from it is believed, the directory must belong to the user of the process and be
//! writable by nobody else, and so must each file: anything else is passed over.
//! Files are written under a temporary name and renamed, without a sync: after a power
//! cut a reader finds a file that its checks refuse, and the work is done again.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

/// Why a directory is not used as the cache.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others could put files there that would be believed.
    #[error("cache directory {} {fault}; choose another with --cache-dir", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What about it is unsafe.
        fault: &'static str,
    },
    /// It could not be made or opened.
    #[error("cannot use cache directory {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An opened cache directory.
#[derive(Debug, Clone)]
pub struct CacheDir {
    path: PathBuf,
}

impl CacheDir {
    /// Opens `path`, and makes it and its parents where they are missing.
    ///
    /// # Errors
    /// [`Error::Unsafe`] if it is a symbolic link, belongs to another user, or is
    /// writable by others; [`Error::Io`] if it cannot be made.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        // A daemon leaves the directory in which it was started.
        let path = &std::path::absolute(path).map_err(io)?;
        let unsafe_ = |fault| Error::Unsafe {
            path: path.to_owned(),
            fault,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io)?;
        let metadata = std::fs::symlink_metadata(path).map_err(io)?;
        if metadata.is_symlink() {
            return Err(unsafe_("is a symbolic link"));
        }
        if let Some(fault) = fault(&metadata) {
            return Err(unsafe_(fault));
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The subdirectory for files of one kind, made where it is missing.
    ///
    /// # Errors
    /// As [`CacheDir::open`].
    pub fn shelf(&self, kind: &str) -> Result<Self, Error> {
        Self::open(&self.path.join(kind))
    }

    /// Opens the file `name` for reading; `None` if it is missing or not to be believed.
    ///
    /// # Errors
    /// What the system answers.
    pub fn find(&self, name: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(CWD, self.path.join(name), flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || fault(&metadata).is_some() {
            log::warn!(
                "{} is not used: not a file of ours",
                self.path.join(name).display()
            );
            return Ok(None);
        }
        Ok(Some(file))
    }

    /// Writes the file `name` whole, replacing an older one in one step.
    ///
    /// # Errors
    /// What the system or `write` answers; nothing is left behind then.
    pub fn store(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(&self.path)?;
        let mut buffered = io::BufWriter::new(file.as_file_mut());
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        file.persist(self.path.join(name))?;
        Ok(())
    }

    /// Removes the file `name`; that it is missing is fine.
    ///
    /// # Errors
    /// What the system answers.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Why an existing file or directory must not be believed.
fn fault(metadata: &Metadata) -> Option<&'static str> {
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        Some("belongs to another user")
    } else if metadata.mode() & 0o022 != 0 {
        Some("is writable by other users")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn what_is_stored_is_found() -> TestResult {
        let dir = tempfile::tempdir()?;
        let cache = CacheDir::open(&dir.path().join("a/b"))?.shelf("toc")?;
        assert!(cache.find("x")?.is_none());
        cache.store("x", |file| file.write_all(b"one"))?;
        cache.store("x", |file| file.write_all(b"two"))?;
        let mut text = String::new();
        cache
            .find("x")?
            .ok_or("missing")?
            .read_to_string(&mut text)?;
        assert_eq!(text, "two");
        cache.remove("x")?;
        cache.remove("x")?;
        assert_eq!(std::fs::read_dir(cache.path())?.count(), 0);
        Ok(())
    }

    #[test]
    fn unsafe_directories_and_files_are_refused() -> TestResult {
        let dir = tempfile::tempdir()?;
        let open = dir.path().join("open");
        std::fs::create_dir(&open)?;
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777))?;
        assert!(matches!(CacheDir::open(&open), Err(Error::Unsafe { .. })));

        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link)?;
        assert!(matches!(CacheDir::open(&link), Err(Error::Unsafe { .. })));

        let cache = CacheDir::open(dir.path())?;
        cache.store("x", |file| file.write_all(b"x"))?;
        std::fs::set_permissions(dir.path().join("x"), PermissionsExt::from_mode(0o666))?;
        assert!(cache.find("x")?.is_none(), "a file that others can write");
        Ok(())
    }
}
