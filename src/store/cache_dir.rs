//! The directory in which the daemon keeps what it has learned between runs.
//!
//! ```text
//! CACHE/
//! ├── archives/<hex>                which bytes of an archive are which file
//! ├── verdicts/<algorithm>-<hex>    that a file had its digest (see `verify`)
//! └── toc/<algorithm>-<hex>         tables of contents of layers
//!     └── .new-<process>-<number>   one that is being written, where it needs a name for that
//! ```
//!
//! Everything in it can be deleted at any time and is made again, the directory as well.
//! Because what is read from it is believed, the directory must belong to the user of the
//! process and be writable by nobody else, and so must each file: anything else is passed
//! over. That is looked at before each use, and what is used is what was looked at: a
//! directory that was replaced meanwhile is another one.
//!
//! Files are written without a name, or where that cannot be done under a temporary one, and
//! renamed, without a sync: after a power cut a reader finds a file that its checks refuse,
//! and the work is done again. What a process leaves behind that was killed while it wrote
//! is removed by those that come later, once nobody has written to it for a while ([`ABANDONED`]); a writer that was
//! only slow finds its file gone and keeps nothing.

use std::fs::{File, FileTimes, Metadata};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// How a file that is being written is called.
const TEMPORARY: &str = ".new-";

/// Nobody else may read what is kept.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// How long a file that is being written may rest: writing one takes a second or two.
const ABANDONED: Duration = Duration::from_secs(600);

/// When too much is kept, one part in so many of the allowed amount is made room for, so
/// that not every new file has another one removed.
const ROOM: u64 = 10;

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
    /// It could not be made, opened or written to.
    #[error("cannot {action} cache directory {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether the directory is not there.
    fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A cache directory, or one of its shelves.
#[derive(Debug, Clone)]
pub struct CacheDir {
    base: PathBuf,
    /// The base itself, or a shelf directly in it.
    path: PathBuf,
}

/// A file of a shelf, or what else has a file's place there.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written.
    pub written: SystemTime,
    /// When it was used last, or written.
    pub used: SystemTime,
    /// Whether it is a regular file of ours, which nobody else can write.
    pub is_sound: bool,
}

impl CacheDir {
    /// Opens `path`, and makes it and its parents where they are missing.
    ///
    /// # Errors
    /// [`Error::Unsafe`] if it is a symbolic link, belongs to another user, or is
    /// writable by others; [`Error::Io`] if it cannot be made.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let cache = Self::at(path)?;
        cache.make()?;
        cache.handle()?;
        Ok(cache)
    }

    /// Opens `path` if it is there.
    ///
    /// # Errors
    /// As [`CacheDir::open`].
    pub fn find_dir(path: &Path) -> Result<Option<Self>, Error> {
        let cache = Self::at(path)?;
        match cache.handle() {
            Ok(_) => Ok(Some(cache)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn at(path: &Path) -> Result<Self, Error> {
        // A daemon leaves the directory in which it was started.
        let path = std::path::absolute(path).map_err(|source| Error::Io {
            action: "use",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            base: path.clone(),
            path,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The subdirectory for files of one kind, made where it is missing. What killed
    /// processes left there is removed.
    ///
    /// # Errors
    /// As [`CacheDir::open`].
    pub fn shelf(&self, kind: &str) -> Result<Self, Error> {
        let shelf = Self {
            base: self.base.clone(),
            path: self.base.join(kind),
        };
        match shelf.handle() {
            Err(error) if error.is_missing() => shelf.make()?,
            other => drop(other?),
        }
        shelf.collect()?;
        Ok(shelf)
    }

    /// Makes what is missing of it.
    fn make(&self) -> Result<(), Error> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(&self.base)
            .map_err(|source| self.io("use", source))?;
        if self.path == self.base {
            return Ok(());
        }
        let base = checked(CWD, &self.base)?;
        match rustix::fs::mkdirat(&base, self.name(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(self.io("use", errno)),
        }
    }

    /// The directory itself, as it is now, and found to be safe.
    fn handle(&self) -> Result<OwnedFd, Error> {
        let base = checked(CWD, &self.base)?;
        if self.path == self.base {
            return Ok(base);
        }
        checked_as(&base, self.name(), &self.path)
    }

    /// The shelf's name in the base.
    fn name(&self) -> &Path {
        self.path.file_name().map_or(&self.path, Path::new)
    }

    fn io(&self, action: &'static str, source: impl Into<io::Error>) -> Error {
        Error::Io {
            action,
            path: self.path.clone(),
            source: source.into(),
        }
    }

    /// Opens the file `name` for reading; `None` if it is missing or not to be believed.
    /// Reading it does not count as a use, see [`mark_used`].
    ///
    /// # Errors
    /// What the system answers; [`Error::Unsafe`] if the directory has become so.
    pub fn find(&self, name: &str) -> Result<Option<File>, Error> {
        let dir = match self.handle() {
            Err(error) if error.is_missing() => return Ok(None),
            other => other?,
        };
        let read = |errno| self.io("read", errno);
        // Looked at first: opening a pipe or a device can do more than open it.
        let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(read)?,
        };
        if !is_file(&stat) {
            self.warn(name);
            return Ok(None);
        }
        let flags = OFlags::RDONLY
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOATIME
            | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            // Access times are the owner's: it is a file of somebody else.
            Err(Errno::PERM) => {
                self.warn(name);
                return Ok(None);
            }
            Err(errno) => return Err(read(errno)),
        };
        let metadata = file.metadata().map_err(|source| self.io("read", source))?;
        if !metadata.is_file() || fault(&metadata).is_some() {
            self.warn(name);
            return Ok(None);
        }
        Ok(Some(file))
    }

    fn warn(&self, name: &str) {
        let path = self.path.join(name);
        log::warn!("{} is not used: not a file of ours", path.display());
    }

    /// Writes the file `name` whole, replacing an older one in one step. Returns its size
    /// in bytes.
    ///
    /// # Errors
    /// What the system or `write` answers; nothing is left behind then.
    pub fn store(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<u64, Error> {
        let dir = match self.handle() {
            Err(error) if error.is_missing() => {
                self.make()?;
                self.handle()?
            }
            other => other?,
        };
        self.publish(&dir, name, write)
            .map_err(|source| self.io("write to", source))
    }

    fn publish(
        &self,
        dir: &OwnedFd,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<u64> {
        let (mut file, temporary) = Temporary::create(dir)?;
        let mut buffered = io::BufWriter::new(&mut file);
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        let size = file.metadata()?.len();
        temporary.rename_to(&file, name)?;
        Ok(size)
    }

    /// Makes sure that files can be written there now.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn try_write(&self) -> Result<(), Error> {
        let dir = self.handle()?;
        let write = || {
            let (mut file, _temporary) = Temporary::create(&dir)?;
            file.write_all(b"?")
        };
        write().map_err(|source| self.io("write to", source))
    }

    /// Removes the file `name`, or the empty directory in its place; that it is missing is
    /// fine.
    ///
    /// # Errors
    /// What the system answers.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let dir = match self.handle() {
            Err(error) if error.is_missing() => return Ok(()),
            other => other?,
        };
        let remove = |flags| rustix::fs::unlinkat(&dir, name, flags);
        let removed = match remove(AtFlags::empty()) {
            Err(Errno::ISDIR) => remove(AtFlags::REMOVEDIR),
            other => other,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.io("remove a file from", errno)),
        }
    }

    /// What is there, in no order, without what is being written.
    ///
    /// # Errors
    /// What the system answers; that the directory is missing means that nothing is there.
    pub fn list(&self) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        self.each(|_, name, stat| {
            if !name.starts_with(TEMPORARY) {
                entries.push(Entry::new(name, stat));
            }
        })?;
        Ok(entries)
    }

    /// What has the place of the file `name`, if anything has.
    ///
    /// # Errors
    /// What the system answers.
    pub fn entry(&self, name: &str) -> Result<Option<Entry>, Error> {
        let dir = match self.handle() {
            Err(error) if error.is_missing() => return Ok(None),
            other => other?,
        };
        match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Entry::new(name, &stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.io("read", errno)),
        }
    }

    /// Removes the files of `entries` that were used longest ago until the rest, measured
    /// by `measure` and added up, is below `limit`.
    pub fn evict(&self, mut entries: Vec<Entry>, limit: u64, measure: impl Fn(&Entry) -> u64) {
        entries.retain(|entry| entry.is_sound);
        let mut total: u64 = entries.iter().map(&measure).sum();
        if total <= limit {
            return;
        }
        entries.sort_by_key(|entry| entry.used);
        for entry in entries {
            if total <= limit - limit / ROOM {
                break;
            }
            match self.remove(&entry.name) {
                Ok(()) => total -= measure(&entry),
                Err(error) => log::debug!("{} stays in the cache: {error}", entry.name),
            }
        }
    }

    /// Removes what killed processes left.
    fn collect(&self) -> Result<(), Error> {
        let now = SystemTime::now();
        self.each(|dir, name, stat| {
            if !name.starts_with(TEMPORARY) || !is_file(stat) {
                return;
            }
            let written = time(stat.st_mtime, stat.st_mtime_nsec);
            // One from the future was written before the clock was set back.
            let rested = now
                .duration_since(written)
                .unwrap_or_else(|error| error.duration());
            if rested >= ABANDONED
                && let Err(errno) = rustix::fs::unlinkat(dir, name, AtFlags::empty())
            {
                log::debug!("{name} stays in the cache: {errno}");
            }
        })
    }

    /// Shows each name in the directory and what it stands for.
    fn each(&self, mut show: impl FnMut(&OwnedFd, &str, &Stat)) -> Result<(), Error> {
        let dir = match self.handle() {
            Err(error) if error.is_missing() => return Ok(()),
            other => other?,
        };
        let read = |errno| self.io("read", errno);
        for entry in Dir::read_from(&dir).map_err(read)? {
            let entry = entry.map_err(read)?;
            // None of our names is anything but text.
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if matches!(name, "." | "..") {
                continue;
            }
            // It may have gone meanwhile.
            if let Ok(stat) = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                show(&dir, name, &stat);
            }
        }
        Ok(())
    }
}

impl Entry {
    fn new(name: &str, stat: &Stat) -> Self {
        let written = time(stat.st_mtime, stat.st_mtime_nsec);
        Self {
            name: name.to_owned(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            written,
            // Many mounts set no access time on reading; `mark_used` does.
            used: written.max(time(stat.st_atime, stat.st_atime_nsec)),
            is_sound: is_file(stat) && fault_of(stat.st_uid, stat.st_mode).is_none(),
        }
    }
}

/// A file that is being written, which goes with the value unless it was renamed. Where the
/// file system can do that it has no name until it is whole, so that a process that ends
/// meanwhile leaves nothing behind.
struct Temporary<'a> {
    dir: &'a OwnedFd,
    /// The name that it has, if it has one.
    name: Option<String>,
}

impl<'a> Temporary<'a> {
    fn create(dir: &'a OwnedFd) -> io::Result<(File, Self)> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, ".", flags, MODE) {
            Ok(fd) => Ok((fd.into(), Self { dir, name: None })),
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => Self::create_named(dir),
            Err(errno) => Err(errno.into()),
        }
    }

    fn create_named(dir: &'a OwnedFd) -> io::Result<(File, Self)> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let (fd, name) = under_new_name(|name| rustix::fs::openat(dir, name, flags, MODE))?;
        let name = Some(name);
        Ok((fd.into(), Self { dir, name }))
    }

    /// Gives `file`, which is this one, its name for good.
    fn rename_to(mut self, file: &File, name: &str) -> io::Result<()> {
        let own = match self.name.take() {
            Some(own) => own,
            None => self.link(file)?,
        };
        let rename = || rustix::fs::renameat(self.dir, &*own, self.dir, name);
        let renamed = match rename() {
            // Somebody made a directory there: an empty one is in the way for nothing.
            Err(Errno::ISDIR) => {
                rustix::fs::unlinkat(self.dir, name, AtFlags::REMOVEDIR).and_then(|()| rename())
            }
            other => other,
        };
        self.name = renamed.is_err().then_some(own);
        Ok(renamed?)
    }

    /// A name for a file that has none: one cannot be linked over another file.
    fn link(&self, file: &File) -> io::Result<String> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let follow = AtFlags::SYMLINK_FOLLOW;
        let link = |name: &str| rustix::fs::linkat(CWD, &*path, self.dir, name, follow);
        Ok(under_new_name(link)?.1)
    }
}

/// Does `make` under a name for a temporary file that nobody has.
fn under_new_name<T>(make: impl Fn(&str) -> Result<T, Errno>) -> Result<(T, String), Errno> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{TEMPORARY}{}-{number}", std::process::id());
        match make(&name) {
            // Of a process that had our number before, or has it elsewhere.
            Err(Errno::EXIST) => {}
            other => return Ok((other?, name)),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && let Err(errno) = rustix::fs::unlinkat(self.dir, &**name, AtFlags::empty())
        {
            log::debug!("{name} is left behind: {errno}");
        }
    }
}

/// Marks a file as used now; that it cannot be marked makes it go earlier, no more.
pub fn mark_used(file: &File) {
    let times = FileTimes::new().set_accessed(SystemTime::now());
    let _ = file.set_times(times);
}

/// Opens the directory `path`, if it is safe.
fn checked(dir: impl AsFd, path: &Path) -> Result<OwnedFd, Error> {
    checked_as(dir, path, path)
}

/// Opens the directory `name` in `dir`, which people know as `path`, if it is safe.
fn checked_as(dir: impl AsFd, name: &Path, path: &Path) -> Result<OwnedFd, Error> {
    let unsafe_ = |fault| Error::Unsafe {
        path: path.to_owned(),
        fault,
    };
    let io = |source: io::Error| Error::Io {
        action: "use",
        path: path.to_owned(),
        source,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&dir, name, flags, Mode::empty());
    if matches!(opened, Err(Errno::NOTDIR | Errno::LOOP))
        && let Ok(stat) = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)
        && FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
    {
        return Err(unsafe_("is a symbolic link"));
    }
    let opened = opened.map_err(|errno| io(errno.into()))?;
    let stat = rustix::fs::fstat(&opened).map_err(|errno| io(errno.into()))?;
    match fault_of(stat.st_uid, stat.st_mode) {
        Some(fault) => Err(unsafe_(fault)),
        None => Ok(opened),
    }
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Why an existing file must not be believed.
fn fault(metadata: &Metadata) -> Option<&'static str> {
    fault_of(metadata.uid(), metadata.mode())
}

/// Why what has this owner and mode must not be believed.
fn fault_of(owner: u32, mode: u32) -> Option<&'static str> {
    if owner != rustix::process::geteuid().as_raw() {
        Some("belongs to another user")
    } else if mode & 0o022 != 0 {
        Some("is writable by other users")
    } else {
        None
    }
}

/// A time as `stat` gives it.
fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let beyond = |seconds: u64| Duration::from_secs(seconds);
    let whole = match u64::try_from(seconds) {
        Ok(after) => SystemTime::UNIX_EPOCH.checked_add(beyond(after)),
        Err(_) => SystemTime::UNIX_EPOCH.checked_sub(beyond(seconds.unsigned_abs())),
    };
    whole.unwrap_or(SystemTime::UNIX_EPOCH) + Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests;
