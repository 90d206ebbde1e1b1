//! The walk through a tree: sorted by names, directories first, one handle after another.
//!
//! The stack is our own, so depth costs no recursion; of deep ones only the lowest
//! [`MAX_OPEN`] directories stay open. The way back up is `..`, taken only if it leads to
//! the very directory that the walk came from.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::vec;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::error::{Error, shown};
use crate::tar::{self, Limit};

/// How many directories are open at a time, the root not counted. Processes may have
/// 1,024 open files by default.
const MAX_OPEN: usize = 64;

/// How names begin that are no names.
///
/// Spec: image-spec layer.md, "Whiteouts".
const WHITEOUT: &[u8] = b".wh.";

/// Neither follows a link nor waits for a pipe, and does not become a terminal's owner.
const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Something in the tree.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) stat: Stat,
    pub(super) handle: Handle,
}

/// How to get at what was found.
#[derive(Debug)]
pub(super) enum Handle {
    /// A directory: [`Walk::directory`], until the next step.
    Directory,
    /// A regular file, open.
    File(OwnedFd),
    /// Anything else: [`Walk::place`], until the next step.
    Named,
}

/// What tells two states of a file apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: i64,
    mtime: (i64, u64),
    ctime: (i64, u64),
}

impl Stamp {
    #[expect(
        clippy::useless_conversion,
        reason = "the types of these fields depend on the processor"
    )]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev.into(),
            inode: stat.st_ino.into(),
            size: stat.st_size.into(),
            mtime: (stat.st_mtime.into(), stat.st_mtime_nsec.into()),
            ctime: (stat.st_ctime.into(), stat.st_ctime_nsec.into()),
        }
    }

    fn is_same_file(self, other: Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// A directory on the way down.
#[derive(Debug)]
struct Level {
    /// `None` while the walk is far below.
    handle: Option<OwnedFd>,
    stamp: Stamp,
    /// The names to come.
    names: vec::IntoIter<(CString, FileType)>,
    /// How much of the path is this directory's.
    path_len: usize,
}

/// A walk that has begun.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    limits: &'a tar::Limits,
    levels: Vec<Level>,
    path: Vec<u8>,
    /// The last name that came.
    name: CString,
}

impl<'a> Walk<'a> {
    /// Begins with the root, which is the first that was found.
    pub(super) fn new(root: &OwnedFd, limits: &'a tar::Limits) -> Result<(Self, Found), Error> {
        let mut walk = Self {
            limits,
            levels: Vec::new(),
            path: Vec::new(),
            name: CString::default(),
        };
        let root = open_directory(root, c".").map_err(|error| walk.io("open", error))?;
        let found = walk.enter(root)?;
        Ok((walk, found))
    }

    /// The path of what was found last, relative to the root, which is empty.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The directory that was found last, or that it is in.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        let handle = self.levels.last().and_then(|level| level.handle.as_ref());
        handle.expect("the lowest directory is open").as_fd()
    }

    /// The directory and the name in it of what was found last, if it is no directory.
    pub(super) fn place(&self) -> (BorrowedFd<'_>, &CStr) {
        (self.directory(), &self.name)
    }

    /// The next thing, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Found>, Error> {
        loop {
            let Some(level) = self.levels.last_mut() else {
                return Ok(None);
            };
            self.path.truncate(level.path_len);
            let Some((name, hint)) = level.names.next() else {
                self.leave()?;
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            self.name = name;
            return self.find(hint).map(Some);
        }
    }

    /// Looks at the name that came last.
    fn find(&mut self, hint: FileType) -> Result<Found, Error> {
        if self.name.to_bytes().starts_with(WHITEOUT) {
            let path = shown(&self.path);
            return Err(Error::Whiteout { path });
        }
        // As many levels as the path has components: the root is one, the name is not.
        let max = self.limits.depth;
        if self.levels.len() as u64 > max {
            let (path, limit) = (shown(&self.path), Limit::Depth);
            return Err(Error::Limit { path, limit, max });
        }
        match hint {
            FileType::Unknown => {
                let stat = self.stat()?;
                match FileType::from_raw_mode(stat.st_mode) {
                    kind @ (FileType::RegularFile | FileType::Directory) => self.open(kind),
                    _ => Ok(Self::named(stat)),
                }
            }
            kind @ (FileType::RegularFile | FileType::Directory) => self.open(kind),
            _ => self.stat().map(Self::named),
        }
    }

    fn named(stat: Stat) -> Found {
        let handle = Handle::Named;
        Found { stat, handle }
    }

    fn stat(&self) -> Result<Stat, Error> {
        let stat = statat(self.directory(), &*self.name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|error| self.vanished("stat", error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            // It was something else when it was listed, or is a name of another kind now.
            FileType::Unknown => Err(Error::changed(&self.path)),
            _ => Ok(stat),
        }
    }

    /// Opens what should be a file or a directory.
    fn open(&mut self, kind: FileType) -> Result<Found, Error> {
        let opened = match kind {
            FileType::Directory => open_directory(self.directory(), &self.name),
            _ => openat(self.directory(), &*self.name, OPEN, Mode::empty()),
        };
        let handle = opened.map_err(|error| self.vanished("open", error))?;
        if kind == FileType::Directory {
            return self.enter(handle);
        }
        let stat = fstat(&handle).map_err(|error| self.io("stat", error))?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(Error::changed(&self.path));
        }
        let handle = Handle::File(handle);
        Ok(Found { stat, handle })
    }

    /// Goes down into a directory.
    fn enter(&mut self, handle: OwnedFd) -> Result<Found, Error> {
        let stat = fstat(&handle).map_err(|error| self.io("stat", error))?;
        let names = names_in(&handle).map_err(|error| self.io("list", error))?;
        let far = self.levels.len().saturating_sub(MAX_OPEN);
        if far > 0 {
            self.levels[far].handle = None;
        }
        self.levels.push(Level {
            handle: Some(handle),
            stamp: Stamp::of(&stat),
            names: names.into_iter(),
            path_len: self.path.len(),
        });
        let handle = Handle::Directory;
        Ok(Found { stat, handle })
    }

    /// Goes up from a directory that has no more names, if it is as it was.
    fn leave(&mut self) -> Result<(), Error> {
        let stat = fstat(self.directory()).map_err(|error| self.io("stat", error))?;
        let Some(level) = self.levels.pop() else {
            return Ok(());
        };
        if Stamp::of(&stat) != level.stamp {
            return Err(Error::changed(&self.path));
        }
        let Some(parent) = self.levels.last_mut() else {
            return Ok(());
        };
        if parent.handle.is_some() {
            return Ok(());
        }
        let below = level.handle.expect("the lowest directory is open");
        let handle = open_directory(&below, c"..");
        let handle = handle.map_err(|error| Error::io("open the parent of", &self.path, error))?;
        let stat = fstat(&handle).map_err(|error| Error::io("stat", &self.path, error))?;
        if !Stamp::of(&stat).is_same_file(parent.stamp) {
            return Err(Error::changed(&self.path));
        }
        parent.handle = Some(handle);
        Ok(())
    }

    fn io(&self, action: &'static str, error: Errno) -> Error {
        Error::io(action, &self.path, error)
    }

    /// The error for a name that was there when the directory was listed.
    fn vanished(&self, action: &'static str, error: Errno) -> Error {
        match error {
            // Gone, or a link or a file in place of what it was.
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO => Error::changed(&self.path),
            error => self.io(action, error),
        }
    }
}

/// Opens a directory for listing.
pub(super) fn open_directory(parent: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(parent, name, OPEN.union(OFlags::DIRECTORY), Mode::empty())
}

/// The names in a directory, sorted by their bytes, and what they are said to be.
fn names_in(directory: &OwnedFd) -> Result<Vec<(CString, FileType)>, Errno> {
    let mut buf = Vec::with_capacity(32 << 10);
    let mut entries = RawDir::new(directory, buf.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(names)
}
