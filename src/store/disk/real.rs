//! The steps on a real file system, beneath a pinned directory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::{Disk, DiskFile, Status, parent};
use crate::store::blob::{Identity, file_clock};

/// Permission bits of new files, before the umask: those that other tools give.
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// Permission bits of new directories, before the umask.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);

/// File systems that give files the times of this kernel, unrounded: ext2 to ext4, xfs, btrfs
/// and tmpfs, by `f_type` of `statfs`. From Linux 6.13 on a write that follows a look has
/// another time on each of them.
const EXACT: [i128; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];

/// The real disk beneath one directory.
#[derive(Debug, Clone)]
pub struct RealDisk(Arc<Root>);

#[derive(Debug)]
struct Root {
    fd: OwnedFd,
    /// Who new files belong to, if this process may choose: what root writes into the
    /// layout of a user is the user's.
    owner: Option<(Uid, Gid)>,
    has_exact_times: bool,
}

impl RealDisk {
    /// A disk beneath the open directory `fd`.
    ///
    /// # Errors
    /// What `fstat` says.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&fd)?;
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let is_root = rustix::process::geteuid().is_root();
        let kind = rustix::fs::fstatfs(&fd)?.f_type;
        Ok(Self(Arc::new(Root {
            fd,
            owner: (is_root && !owner.0.is_root()).then_some(owner),
            has_exact_times: EXACT.contains(&i128::from(kind)),
        })))
    }

    fn file(&self, file: OwnedFd) -> Box<dyn DiskFile> {
        Box::new(RealFile {
            root: self.0.clone(),
            file: file.into(),
        })
    }
}

impl Root {
    fn open(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.open_exactly(path, flags, mode)
    }

    fn open_exactly(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(rustix::fs::openat2(&self.fd, path, flags, mode, resolve)?)
    }

    /// The directory that holds `path`, and the name in it: the calls that change names
    /// would follow links on the way.
    fn place<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = self.open_exactly(parent(path), flags, Mode::empty())?;
        Ok((directory, path.rsplit('/').next().unwrap_or(path)))
    }

    /// Hands a new file to the owner of the layout.
    fn give(&self, fd: impl AsFd) -> io::Result<()> {
        if let Some((user, group)) = self.owner {
            tolerate_refusal(rustix::fs::fchown(fd, Some(user), Some(group)))?;
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str, flags: RenameFlags) -> io::Result<()> {
        let (from, from_name) = self.place(from)?;
        let (to, to_name) = self.place(to)?;
        Ok(rustix::fs::renameat_with(
            from, from_name, to, to_name, flags,
        )?)
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.0.open(path, OFlags::RDONLY, Mode::empty())?;
        Ok(self.file(file))
    }

    fn status(&self, path: &str) -> io::Result<Status> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(self.0.open_exactly(path, flags, Mode::empty())?);
        status(&file)
    }

    fn stamp(&self) -> Option<(i64, i64)> {
        self.0.has_exact_times.then(file_clock)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = self.0.open(directory, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    fn create_unnamed(&self, directory: &str) -> io::Result<Box<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = match self.0.open_exactly(directory, flags, FILE_MODE) {
            Err(error) if is_unsupported(&error, &[Errno::OPNOTSUPP, Errno::ISDIR]) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            other => other?,
        };
        self.0.give(&file)?;
        Ok(self.file(file))
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = self.0.open(path, flags, FILE_MODE)?;
        self.0.give(&file)?;
        Ok(self.file(file))
    }

    fn adopt(&self, file: File) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(file.into()))
    }

    fn open_lock(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let existing = self.0.open(path, OFlags::RDONLY, Mode::empty());
        match existing {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(|file| self.file(file)),
        }
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = self.0.open(path, flags, FILE_MODE)?;
        self.0.give(&file)?;
        Ok(self.file(file))
    }

    fn make_directory(&self, path: &str) -> io::Result<()> {
        let (parent, name) = self.0.place(path)?;
        rustix::fs::mkdirat(parent, name, DIRECTORY_MODE)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.0.give(self.0.open(path, flags, Mode::empty())?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to, RenameFlags::empty())
    }

    fn exchange(&self, one: &str, other: &str) -> io::Result<()> {
        match self.0.rename(one, other, RenameFlags::EXCHANGE) {
            Err(error)
                if is_unsupported(&error, &[Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP]) =>
            {
                Err(io::ErrorKind::Unsupported.into())
            }
            result => result,
        }
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        let (parent, name) = self.0.place(path)?;
        Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = self.0.open(path, flags, Mode::empty())?;
        match rustix::fs::fsync(directory) {
            // File systems that have nothing to do for a directory say so.
            Err(Errno::INVAL) => Ok(()),
            other => Ok(other?),
        }
    }
}

/// An open real file.
#[derive(Debug)]
struct RealFile {
    root: Arc<Root>,
    file: File,
}

impl DiskFile for RealFile {
    fn status(&self) -> io::Result<Status> {
        status(&self.file)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buf, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn link(&self, path: &str) -> io::Result<()> {
        let (parent, name) = self.root.place(path)?;
        // The file may have no name of its own, but its descriptor has. Naming that one
        // directly needs a capability before Linux 6.10, by its path it needs /proc.
        let (here, empty) = (&self.file, AtFlags::EMPTY_PATH);
        match rustix::fs::linkat(here, "", &parent, name, empty) {
            Err(Errno::NOENT | Errno::PERM) => {}
            other => return Ok(other?),
        }
        let descriptor = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let (any, follow) = (rustix::fs::CWD, AtFlags::SYMLINK_FOLLOW);
        Ok(rustix::fs::linkat(any, descriptor, parent, name, follow)?)
    }

    fn imitate(&self, model: &Status) -> io::Result<()> {
        let own = self.status()?;
        let (user, group) = (Uid::from_raw(model.owner.0), Gid::from_raw(model.owner.1));
        if own.owner.1 != model.owner.1 {
            tolerate_refusal(rustix::fs::fchown(&self.file, None, Some(group)))?;
        }
        if own.owner.0 != model.owner.0 {
            tolerate_refusal(rustix::fs::fchown(&self.file, Some(user), None))?;
        }
        // After the owner: changing that one clears bits.
        if self.status()?.mode != model.mode {
            rustix::fs::fchmod(&self.file, Mode::from_raw_mode(model.mode))?;
        }
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let operation = FlockOperation::NonBlockingLockExclusive;
        match rustix::fs::flock(&self.file, operation) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn real(&self) -> Option<&File> {
        Some(&self.file)
    }
}

fn status(file: &File) -> io::Result<Status> {
    let metadata = file.metadata()?;
    Ok(Status {
        identity: Identity::from(&metadata),
        is_file: metadata.is_file(),
        owner: (metadata.uid(), metadata.gid()),
        mode: metadata.mode() & 0o7777,
    })
}

fn is_unsupported(error: &io::Error, meanings: &[Errno]) -> bool {
    let is = |errno: &Errno| error.raw_os_error() == Some(errno.raw_os_error());
    meanings.iter().any(is)
}

/// That an owner cannot be set must not keep anybody from writing what they may write.
fn tolerate_refusal(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(errno @ (Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP)) => {
            log::debug!("the owner of a new file stays as it is: {errno}");
            Ok(())
        }
        other => Ok(other?),
    }
}
