//! A directory of Docker's, pinned by its handle. What is in it is not trusted.
//!
//! Files of the store are opened beneath it and never through a link. In a layer, links
//! on the way are followed, as they were when the layer was unpacked, but within the layer
//! ([`ResolveFlags::IN_ROOT`]); the file itself must not be one. What has a name is looked at
//! before it is opened, and only a regular file is: opening a device can do something, and
//! opening a pipe wakes those who wait for it. Opening waits for nobody.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Error;

/// The longest file of one line, in bytes: an id or a digest.
const MAX_SMALL: u64 = 4096;

/// How often an opening is tried again that met a rename on its way.
const TRIES: u32 = 16;

/// What is opened for reading.
const READING: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// What is looked at without being opened.
const LOOKING: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// See the module.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// What is at a place in a layer.
#[derive(Debug)]
pub(super) enum Found {
    File(File, u64),
    Nothing,
    SomethingElse,
}

impl Directory {
    /// The directory that the user has named.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty());
        let fd = fd.map_err(|errno| io_error("open", path.to_owned(), errno))?;
        let path = path.to_owned();
        Ok(Self { fd, path })
    }

    /// Where something in it is, for messages.
    pub(super) fn path_of(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    /// The directory at `path`; `None` if there is nothing.
    pub(super) fn find_directory(&self, path: &str) -> Result<Option<Self>, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = self.find(path, flags, "directory")?;
        let path = self.path.join(path);
        Ok(fd.map(|fd| Self { fd, path }))
    }

    /// The names in the directory at `path`, sorted; none if it is not there. What is no
    /// UTF-8 is nothing of Docker's.
    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        let Some(fd) = self.find(path, READING | OFlags::DIRECTORY, "directory")? else {
            return Ok(Vec::new());
        };
        let unreadable = |errno| io_error("list", self.path.join(path), errno);
        let mut names = Vec::new();
        for entry in Dir::new(fd).map_err(unreadable)? {
            match entry.map_err(unreadable)?.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        names.sort();
        Ok(names)
    }

    /// The regular file at `path`; `None` if there is nothing.
    pub(super) fn find_file(&self, path: &str) -> Result<Option<(File, u64)>, Error> {
        const EXPECTED: &str = "regular file";
        let Some(fd) = self.find(path, LOOKING, EXPECTED)? else {
            return Ok(None);
        };
        let path = self.path.join(path);
        match open_file(&fd, &path)? {
            Some(file) => Ok(Some(file)),
            None => Err(Error::FileType {
                path,
                expected: EXPECTED,
            }),
        }
    }

    /// All bytes of the file at `path`, if they are no more than `limit`.
    pub(super) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some((file, size)) = self.find_file(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        // It may have grown since.
        let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        let len = read.map_err(|source| Error::Io {
            action: "read",
            path: self.path.join(path),
            source,
        })?;
        if len as u64 > limit {
            return Err(Error::FileSize {
                path: self.path.join(path),
                actual: size.max(len as u64),
                limit,
            });
        }
        Ok(Some(bytes))
    }

    /// The one line of a small file, which must be there.
    pub(super) fn line(&self, path: &str) -> Result<String, Error> {
        let wrong = |fault| Error::Malformed {
            path: self.path.join(path),
            fault,
        };
        let bytes = self.read(path, MAX_SMALL)?;
        let bytes = bytes.ok_or_else(|| Error::Io {
            action: "open",
            path: self.path.join(path),
            source: Errno::NOENT.into(),
        })?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("no text"))?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// The file at `path` of a layer, of which this is the root.
    pub(super) fn find_in_layer(&self, path: &[u8]) -> Result<Found, Error> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = OsStr::from_bytes(path);
        let fd = match self.openat(path, LOOKING, resolve) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => return Ok(Found::Nothing),
            // Links on the way lead in circles.
            Err(Errno::LOOP) => return Ok(Found::SomethingElse),
            Err(errno) => return Err(io_error("open", self.path.join(path), errno)),
        };
        let opened = open_file(&fd, &self.path.join(path))?;
        Ok(opened.map_or(Found::SomethingElse, |(file, size)| Found::File(file, size)))
    }

    fn find(
        &self,
        path: &str,
        flags: OFlags,
        expected: &'static str,
    ) -> Result<Option<OwnedFd>, Error> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let path = OsStr::new(path);
        match self.openat(path, flags, resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(Error::FileType {
                path: self.path.join(path),
                expected,
            }),
            Err(errno) => Err(io_error("open", self.path.join(path), errno)),
        }
    }

    fn openat(&self, path: &OsStr, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let mut tries = TRIES;
        loop {
            let opened = rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve);
            tries -= 1;
            match opened {
                // Something was renamed on the way.
                Err(Errno::AGAIN | Errno::INTR) if tries > 0 => {}
                other => return other,
            }
        }
    }
}

/// What was looked at at `path`, opened for reading, and its size; `None` if it is no regular
/// file.
fn open_file(fd: &OwnedFd, path: &Path) -> Result<Option<(File, u64)>, Error> {
    let failed = |action| move |errno| io_error(action, path.to_owned(), errno);
    let stat = rustix::fs::fstat(fd).map_err(failed("stat"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    // The very file, whatever has its name by now.
    let this = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let file = rustix::fs::openat(CWD, this, READING, Mode::empty()).map_err(failed("open"))?;
    Ok(Some((File::from(file), stat.st_size.unsigned_abs())))
}

fn io_error(action: &'static str, path: PathBuf, errno: Errno) -> Error {
    Error::Io {
        action,
        path,
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::inotify;

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    /// What is no regular file is not opened, which those who wait for it would notice.
    #[test]
    fn only_regular_files_are_opened() -> TestResult {
        let dir = tempfile::tempdir()?;
        let place = |name: &str| dir.path().join(name);
        std::fs::write(place("file"), b"hello")?;
        std::fs::create_dir(place("directory"))?;
        symlink("file", place("link"))?;
        rustix::fs::mkfifoat(CWD, place("pipe"), Mode::RUSR | Mode::WUSR)?;
        let _socket = std::os::unix::net::UnixListener::bind(place("socket"))?;
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK)?;
        for name in ["pipe", "socket", "directory"] {
            inotify::add_watch(&watch, place(name), inotify::WatchFlags::OPEN)?;
        }
        let directory = Directory::open(dir.path())?;
        let rows = [
            ("file", Some(5), Some(5)),
            ("nothing", None, None),
            ("file/below", None, None),
            ("directory", None, None),
            ("link", None, None),
            ("pipe", None, None),
            ("socket", None, None),
        ];
        for (name, size, of_store) in rows {
            let found = match directory.find_in_layer(name.as_bytes())? {
                Found::File(file, size) => {
                    assert_eq!(file.metadata()?.len(), size, "{name}");
                    Some(size)
                }
                Found::Nothing | Found::SomethingElse => None,
            };
            assert_eq!(found, size, "{name} of a layer");
            let found = directory.find_file(name).ok().flatten();
            assert_eq!(found.map(|(_, size)| size), of_store, "{name} of the store");
        }
        let opened = rustix::io::read(&watch, &mut [0_u8; 512]);
        assert_eq!(opened, Err(Errno::AGAIN), "something was opened");
        Ok(())
    }
}
