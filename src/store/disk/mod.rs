//! The seam: every step that changes the disk below a layout is taken through [`Disk`].
//!
//! The steps are few and small, so that a test can stop after any of them, cut the power,
//! and look at what is left: [`RealDisk`] takes them beneath a pinned directory, and the
//! simulated one of the tests keeps a durable and a volatile state in memory. Paths are
//! relative to the layout; nothing is ever reached through a symbolic link.
//!
//! A finished file gets its final name by [`publish`], by [`place`] and one sync of the
//! directory for several files, or by [`publish_in_place_of`] where what was there may still
//! change. Once [`publish`], that sync or [`publish_in_place_of`] has returned, a power cut
//! leaves the file whole under that name; before, also between [`place`] and the sync, it
//! leaves the file whole there, or what was there before.

mod real;
#[cfg(test)]
pub(crate) mod simulated;

use std::fmt::Debug;
use std::fs::File;
use std::io;

pub use real::RealDisk;

use crate::store::blob::Identity;

/// What is at a path, or behind an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Which file, in which state.
    pub identity: Identity,
    /// Whether it is a regular file.
    pub is_file: bool,
    /// User and group that own it.
    pub owner: (u32, u32),
    /// Permission bits.
    pub mode: u32,
}

impl Status {
    /// Whether both are the same file, in whatever state.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        let of = |status: &Self| (status.identity.device, status.identity.inode);
        of(self) == of(other)
    }
}

/// A directory tree that can be changed, step by step. Errors are those of the system
/// call behind a step.
pub trait Disk: Debug + Send + Sync {
    /// Opens a regular file for reading; never blocks on one that is none.
    ///
    /// # Errors
    /// What the system says; a symbolic link is `ELOOP`.
    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;

    /// What `lstat` says.
    ///
    /// # Errors
    /// What the system says.
    fn status(&self, path: &str) -> io::Result<Status>;

    /// The time by [`file_clock`](crate::store::blob::file_clock), if files here are stamped by that or more exactly; `None`
    /// where their times may be rounded, remembered from earlier, or those of another
    /// machine.
    fn stamp(&self) -> Option<(i64, i64)>;

    /// The names in a directory, without `.` and `..`.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// Makes a file that has no name and goes when it is closed, on the file system of
    /// `directory`, with the mode 0644 less the umask.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the file system has no such files.
    fn create_unnamed(&self, directory: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Makes a file with the mode 0644 less the umask.
    ///
    /// # Errors
    /// What the system says; `EEXIST` if something has the name.
    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Takes a file that somebody has opened elsewhere, to give it a name here.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] on a disk that is not real.
    fn adopt(&self, file: File) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that is there to be locked, made empty where it is missing; or a
    /// directory for the same purpose.
    ///
    /// # Errors
    /// What the system says.
    fn open_lock(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Makes a directory with the mode 0777 less the umask.
    ///
    /// # Errors
    /// What the system says; `EEXIST` if something has the name.
    fn make_directory(&self, path: &str) -> io::Result<()>;

    /// Gives a file another name, in place of what had it.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Swaps two names in one step.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the file system cannot.
    fn exchange(&self, one: &str, other: &str) -> io::Result<()>;

    /// Takes a file's name away.
    ///
    /// # Errors
    /// What the system says.
    fn unlink(&self, path: &str) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_directory(&self, path: &str) -> io::Result<()>;
}

/// An open file of a [`Disk`]. Its lock goes when it is dropped.
pub trait DiskFile: Debug + Send + Sync {
    /// What `fstat` says.
    ///
    /// # Errors
    /// What the system says.
    fn status(&self) -> io::Result<Status>;

    /// Reads up to `buf.len()` bytes at `offset`; 0 means the end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or lengthens it with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_size(&self, size: u64) -> io::Result<()>;

    /// Makes content and size durable. After an error nothing is known of either, and a
    /// later success means nothing: the kernel reports a lost write once.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self) -> io::Result<()>;

    /// Gives the file one more name, which must be free.
    ///
    /// # Errors
    /// What the system says; `EEXIST` if something has the name.
    fn link(&self, path: &str) -> io::Result<()>;

    /// Gives the file the owner, group and permission bits of `model`, as far as that is
    /// allowed to this process.
    ///
    /// # Errors
    /// What the system says, but that it is not permitted.
    fn imitate(&self, model: &Status) -> io::Result<()>;

    /// Takes the exclusive lock if nobody has it; whether it was free.
    ///
    /// # Errors
    /// What the system says.
    fn try_lock(&self) -> io::Result<bool>;

    /// The real file, where it is one.
    fn real(&self) -> Option<&File>;
}

/// How a file gets its final name.
#[derive(Debug, Clone, Copy)]
pub enum Publication<'a> {
    /// By a further name, which must be free.
    Link,
    /// By a rename from this path, in place of what is there.
    Rename(&'a str),
}

/// Publishes `file` under `path` durably: syncs it, names it, syncs the directory.
///
/// # Errors
/// What the step that failed said. A file that could not be synced has no new name.
pub fn publish(
    disk: &dyn Disk,
    file: &dyn DiskFile,
    publication: Publication<'_>,
    path: &str,
) -> io::Result<()> {
    place(disk, file, publication, path)?;
    disk.sync_directory(parent(path))
}

/// The same up to the name, which lasts when the directory is synced: for several files,
/// whose directory is synced once. Until then a power cut leaves each of them whole, or what
/// was there before.
///
/// # Errors
/// What the step that failed said. A file that could not be synced has no new name.
pub fn place(
    disk: &dyn Disk,
    file: &dyn DiskFile,
    publication: Publication<'_>,
    path: &str,
) -> io::Result<()> {
    file.sync()?;
    match publication {
        Publication::Link => file.link(path),
        Publication::Rename(from) => disk.rename(from, path),
    }
}

/// What became of a file that was to take the place of another.
#[derive(Debug)]
pub enum Exchange {
    /// It is there, durably; what was there was as expected, or could not be kept.
    Published,
    /// It is not: what was there was not as expected, and is there again.
    Undone,
    /// It is, and this was there instead, which nobody has read. It could not be put back,
    /// or it had been replaced once more by the time it was.
    Displaced(Box<dyn DiskFile>),
}

/// Publishes `file`, which has the path `from`, under `path` durably, if what is there is
/// what is expected. That is looked at when it can no longer change unnoticed: the two
/// have swapped their names, and swap back if it was not. Where the file system cannot
/// swap, `file` takes the place of whatever is there.
///
/// # Errors
/// What the step that failed said.
pub fn publish_in_place_of(
    disk: &dyn Disk,
    file: &dyn DiskFile,
    from: &str,
    path: &str,
    is_expected: impl Fn(&dyn DiskFile) -> io::Result<bool>,
) -> io::Result<Exchange> {
    file.sync()?;
    match disk.exchange(from, path) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            publish(disk, file, Publication::Rename(from), path)?;
            return Ok(Exchange::Published);
        }
        other => other?,
    }
    let expected = match disk.open(from) {
        // Nobody has locked that file, so it may have been collected.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(displaced) => is_expected(&*displaced).map(|yes| (!yes).then_some(displaced)),
        Err(error) => Err(error),
    };
    if matches!(expected, Ok(None)) {
        disk.sync_directory(parent(path))?;
        return Ok(Exchange::Published);
    }
    // Nobody has read what was there: it must be there again before anything else happens.
    let undone = disk.exchange(from, path);
    match (expected?, undone) {
        (Some(displaced), Err(error)) => {
            log::warn!("{path} cannot be put back, and is gone on from: {error}");
            Ok(Exchange::Displaced(displaced))
        }
        (Some(displaced), Ok(())) if !disk.status(from)?.is_same_file(&file.status()?) => {
            disk.exchange(from, path)?;
            Ok(Exchange::Displaced(displaced))
        }
        (_, undone) => undone.map(|()| Exchange::Undone),
    }
}

/// Makes the directory `path` and those above it, where they are missing, durably.
///
/// # Errors
/// What the step that failed said.
pub fn make_directories(disk: &dyn Disk, path: &str) -> io::Result<()> {
    match disk.status(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let parent = parent(path);
    make_directories(disk, parent)?;
    match disk.make_directory(path) {
        // Somebody else was quicker; it need not be durable for that.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    disk.sync_directory(parent)
}

/// All of a file that has at most `limit` bytes; more are cut off.
///
/// # Errors
/// What reading says.
pub fn read_all(file: &dyn DiskFile, limit: u64) -> io::Result<Vec<u8>> {
    let size = file.status()?.identity.size.min(limit);
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], len as u64)? {
            0 => break,
            read => len += read,
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Whether a file has these bytes and no more.
///
/// # Errors
/// What reading says.
pub fn has_bytes(file: &dyn DiskFile, bytes: &[u8]) -> io::Result<bool> {
    const CHUNK: usize = 64 << 10;
    let mut buf = vec![0; CHUNK];
    let mut left = bytes;
    loop {
        let offset = (bytes.len() - left.len()) as u64;
        let read = file.read_at(&mut buf, offset)?;
        match left.split_at_checked(read) {
            Some((these, others)) if *these == buf[..read] => left = others,
            _ => return Ok(false),
        }
        if read == 0 {
            return Ok(left.is_empty());
        }
    }
}

/// The directory that holds `path`.
#[must_use]
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(parent, _)| parent)
}
