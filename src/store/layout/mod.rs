//! An OCI image layout directory. Reading it is here, writing to it in [`writer`].
//!
//! ```text
//! LAYOUT/
//! ├── oci-layout                    {"imageLayoutVersion": "1.0.0"}
//! ├── index.json                    which manifests there are, and their names
//! └── blobs/<algorithm>/<encoded>   the content
//! ```
//!
//! The directory is pinned by a handle when it is opened; everything is then found
//! beneath that handle and never through a symbolic link, so that renaming the directory
//! or putting a link in its place cannot lead anywhere else. Nothing that is not a
//! regular file is read, and opening one never blocks.
//!
//! Other tools rewrite `index.json` at any time, often in place. What is read is a
//! [`View`]: exact bytes and their meaning; a torn file is an error here, and
//! [`crate::store::Watch`] keeps the last good view in that case.
//!
//! Spec: image-spec image-layout.md.

mod blobs;
mod committer;
mod find;
pub mod history;
pub mod index;
mod init;
pub mod refs;
pub mod remove;
pub mod select;
mod tag;
pub mod writer;

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde_json::Value;

pub use blobs::SharedBlobs;
pub use committer::{Committed, Committer};
pub use find::Resolved;
pub use index::View;
pub use init::init;
pub use tag::Tagged;
pub use writer::LayoutWriter;

use crate::oci::limits::Limit;
use crate::oci::{self, Digest, json};

/// The layout version that is understood.
///
/// Spec: image-spec image-layout.md, "oci-layout file".
const VERSION: &str = "1.0.0";

/// The file that says that a directory is a layout, relative to it.
const MARKER: &str = "oci-layout";

/// How long a small file that is torn is waited for. Who writes one in place takes
/// microseconds; after this time the writer is dead.
const TORN_PATIENCE: Duration = Duration::from_millis(500);

/// How soon a torn file is read again.
const TORN_RETRY: Duration = Duration::from_millis(5);

/// Why a layout, or something in it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory that the specification demands is not there.
    #[error("{} is missing", path.display())]
    Missing {
        /// What is missing.
        path: PathBuf,
    },
    /// Neither the layout nor a shared directory has the blob.
    #[error("blob {digest} is not in this layout")]
    BlobMissing {
        /// The blob.
        digest: Digest,
    },
    /// Something else is where a regular file or a directory must be.
    #[error("{} is {found}, not a {expected}", path.display())]
    FileType {
        /// Where.
        path: PathBuf,
        /// What must be there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The file is empty, most likely because another tool has just truncated it.
    #[error("{} is empty: another tool may be writing it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file did not stay the same while it was read.
    #[error("{} changes again and again: another tool is writing it", path.display())]
    Unsettled {
        /// The file.
        path: PathBuf,
    },
    /// The file's content is not what the specification says.
    #[error("{} is not right", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: oci::Error,
    },
    /// The layout has a version that is not understood.
    #[error("{} says version {version:?}; only {VERSION} is supported", path.display())]
    Version {
        /// The `oci-layout` file.
        path: PathBuf,
        /// The version it says.
        version: String,
    },
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A directory that is held open, with the path it had for messages.
#[derive(Debug)]
struct Pinned {
    fd: OwnedFd,
    path: PathBuf,
}

/// The room on a file system, in blocks and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in one block.
    pub block_size: u64,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks that a plain user may take.
    pub blocks_available: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

impl Space {
    /// The room on the file system that `file` is on.
    ///
    /// # Errors
    /// What `fstatvfs` answers.
    pub fn around(file: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstatvfs(file)?;
        Ok(Self {
            block_size: stat.f_frsize,
            blocks: stat.f_blocks,
            blocks_free: stat.f_bfree,
            blocks_available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
        })
    }
}

/// An opened OCI image layout directory and its shared blob directories.
#[derive(Debug)]
pub struct Layout {
    dir: Pinned,
    shared: SharedBlobs,
}

impl Layout {
    /// Opens the layout in the directory `path`. Blobs that it lacks are looked for in
    /// the directories `shared`, in order, as `<algorithm>/<encoded>`.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Content`], [`Error::Version`] if the directory is
    /// not a layout; [`Error::FileType`] also if `blobs` is a symbolic link.
    pub fn open(path: &Path, shared: &[PathBuf]) -> Result<Self, Error> {
        let dir = Pinned::pin(path)?;
        let shared = SharedBlobs::open(shared)?;
        let layout = Self { dir, shared };
        layout.check_version()?;
        layout.check_blobs()?;
        Ok(layout)
    }

    /// The path by which the layout was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir.path
    }

    /// The pinned directory.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.fd.as_fd()
    }

    /// Owner and group of the layout directory.
    ///
    /// # Errors
    /// What `fstat` answers.
    pub fn owner(&self) -> Result<(u32, u32), Error> {
        let stat = rustix::fs::fstat(&self.dir.fd)
            .map_err(|errno| self.dir.io("stat", "", errno.into()))?;
        Ok((stat.st_uid, stat.st_gid))
    }

    /// The room on the layout's file system.
    ///
    /// # Errors
    /// What `fstatvfs` answers.
    pub fn space(&self) -> Result<Space, Error> {
        Space::around(&self.dir.fd).map_err(|source| self.dir.io("statfs", "", source))
    }

    /// The exact bytes of the `oci-layout` file.
    ///
    /// # Errors
    /// As for any file of the layout.
    pub fn marker(&self) -> Result<Vec<u8>, Error> {
        self.dir
            .read(MARKER, Limit::LayoutFileSize)
            .map(|(bytes, _)| bytes)
    }

    fn check_version(&self) -> Result<(), Error> {
        let path = self.dir.path.join(MARKER);
        let content = |source| Error::Content {
            path: path.clone(),
            source,
        };
        let value = self.whole_marker(content)?;
        let version = value
            .get("imageLayoutVersion")
            .and_then(|version| version.as_str());
        match version {
            Some(VERSION) => Ok(()),
            Some(version) => Err(Error::Version {
                path,
                version: version.to_owned(),
            }),
            None => {
                let (object, field) = ("oci-layout", "imageLayoutVersion");
                Err(content(oci::Error::MissingField { object, field }))
            }
        }
    }

    /// What the `oci-layout` file says. One that is no JSON is read again for a moment:
    /// skopeo writes it anew, in place, with every copy.
    fn whole_marker(&self, error: impl Fn(oci::Error) -> Error) -> Result<Value, Error> {
        let deadline = Instant::now() + TORN_PATIENCE;
        loop {
            match json::parse(&self.marker()?) {
                Err(oci::Error::Syntax { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(TORN_RETRY);
                }
                other => return other.map_err(error),
            }
        }
    }

    /// A link in the place of `blobs` is refused whole: shared directories are named by
    /// the user, not by the layout. That it is missing only means that no blob is here.
    fn check_blobs(&self) -> Result<(), Error> {
        match self.dir.open("blobs", OFlags::DIRECTORY) {
            Ok(_) | Err(Error::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Pinned {
    fn pin(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self {
                fd,
                path: path.to_owned(),
            }),
            Err(errno) => Err(open_error(path.to_owned(), errno, "directory")),
        }
    }

    /// Opens `name` beneath the directory for reading: never through a link, never
    /// blocking.
    fn open(&self, name: &str, flags: OFlags) -> Result<File, Error> {
        let reading = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        self.open_beneath(name, flags | reading)
    }

    /// What `lstat` says of `name` beneath the directory.
    fn stat(&self, name: &str) -> Result<Metadata, Error> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.open_beneath(name, flags)?;
        file.metadata()
            .map_err(|source| self.io("stat", name, source))
    }

    fn open_beneath(&self, name: &str, flags: OFlags) -> Result<File, Error> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let directory = flags.contains(OFlags::DIRECTORY);
        let expected = if directory {
            "directory"
        } else {
            "regular file"
        };
        rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), resolve)
            .map(File::from)
            .map_err(|errno| open_error(self.path.join(name), errno, expected))
    }

    /// Opens the regular file `name` beneath the directory.
    fn open_file(&self, name: &str) -> Result<(File, Metadata), Error> {
        let file = self.open(name, OFlags::empty())?;
        let metadata = file
            .metadata()
            .map_err(|source| self.io("stat", name, source))?;
        if metadata.is_file() {
            return Ok((file, metadata));
        }
        Err(Error::FileType {
            path: self.path.join(name),
            expected: "regular file",
            found: kind_name(metadata.file_type()),
        })
    }

    /// The whole content of the small file `name`, and the file.
    fn read(&self, name: &str, limit: Limit) -> Result<(Vec<u8>, File), Error> {
        let (mut file, metadata) = self.open_file(name)?;
        let size = metadata.len();
        limit.check(size).map_err(|source| Error::Content {
            path: self.path.join(name),
            source,
        })?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        (&mut file)
            .take(limit.value())
            .read_to_end(&mut bytes)
            .map_err(|source| self.io("read", name, source))?;
        Ok((bytes, file))
    }

    fn io(&self, action: &'static str, name: &str, source: io::Error) -> Error {
        Error::Io {
            action,
            path: self.path.join(name),
            source,
        }
    }
}

fn kind_name(kind: std::fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        "a special file"
    }
}

fn open_error(path: PathBuf, errno: rustix::io::Errno, expected: &'static str) -> Error {
    use rustix::io::Errno;
    let wrong = |path, found| Error::FileType {
        path,
        expected,
        found,
    };
    match errno {
        Errno::NOENT => Error::Missing { path },
        Errno::LOOP | Errno::XDEV => wrong(path, "a symbolic link"),
        Errno::NXIO | Errno::NODEV => wrong(path, "a special file"),
        Errno::NOTDIR => {
            let link = path.is_symlink();
            wrong(
                path,
                if link {
                    "a symbolic link"
                } else {
                    "another kind of file"
                },
            )
        }
        errno => Error::Io {
            action: "open",
            path,
            source: errno.into(),
        },
    }
}

#[cfg(test)]
mod tests;
