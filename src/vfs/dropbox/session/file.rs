//! Open files of a session.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom};

use super::inode::{Inode, system};
use super::limits::room;
use crate::vfs::error::Error;
use crate::vfs::node::{Caching, OpenFile, Stretch};
use crate::vfs::writable::Caller;

/// An open file of the session's own.
#[derive(Debug)]
pub(super) struct SessionFile {
    inode: Arc<Inode>,
    file: File,
    writes: bool,
    /// How many bytes were written since it was counted how much room there is.
    ahead: AtomicU64,
    /// Goes last: who hashes the file after the last close must find no writer.
    _counted: Counted,
}

/// One open of an inode, as long as this is kept.
#[derive(Debug)]
struct Counted {
    inode: Arc<Inode>,
    writes: bool,
}

impl Counted {
    fn new(inode: &Arc<Inode>, writes: bool) -> Self {
        inode.count_open(writes);
        Self {
            inode: inode.clone(),
            writes,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.inode.count_close(self.writes);
    }
}

impl SessionFile {
    /// `file` was opened from `inode`, also for writing if `writes`. The gate is held.
    pub(super) fn new(inode: &Arc<Inode>, file: File, writes: bool) -> Arc<Self> {
        Arc::new(Self {
            inode: inode.clone(),
            file,
            writes,
            ahead: AtomicU64::new(0),
            _counted: Counted::new(inode, writes),
        })
    }

    /// Lets that many bytes be written there.
    fn make_room(&self, len: u64, offset: u64) -> Result<(), Error> {
        let tree = self.inode.tree();
        let ahead = self.ahead.fetch_add(len, Ordering::Relaxed);
        if tree.meter().check(ahead.saturating_add(len), 0).is_ok() {
            return Ok(());
        }
        // Some of it may have been written over what was there.
        self.inode.count_room(&self.file);
        let more = self.growth(len, offset)?;
        self.ahead.store(more, Ordering::Relaxed);
        tree.tell(tree.meter().check(more, 0))
    }

    /// How much more room the file takes, at most, if that many bytes are written there.
    fn growth(&self, len: u64, offset: u64) -> Result<u64, Error> {
        let metadata = self.file.metadata()?;
        let holes = metadata.len().saturating_sub(room(&metadata));
        let over = metadata.len().saturating_sub(offset).min(len);
        Ok(len - over + over.min(holes))
    }
}

impl Drop for SessionFile {
    fn drop(&mut self) {
        if self.writes {
            self.inode.count_room(&self.file);
        }
    }
}

impl OpenFile for SessionFile {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        read_full(&self.file, buf, offset)
    }

    fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    fn seek(&self, offset: u64, wanted: Stretch) -> Result<u64, Error> {
        let from = match wanted {
            Stretch::Data => SeekFrom::Data(offset),
            Stretch::Hole => SeekFrom::Hole(offset),
        };
        // Nobody reads or writes by the position of this descriptor.
        rustix::fs::seek(&self.file, from).map_err(system)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.make_room(bytes.len() as u64, offset)?;
        self.file.write_all_at(bytes, offset).map_err(passed_on)
    }

    fn is_written(&self) -> bool {
        self.writes
    }

    fn flush(&self, _caller: &Caller) -> Result<(), Error> {
        if !self.writes {
            return Ok(());
        }
        self.inode.count_room(&self.file);
        self.ahead.store(0, Ordering::Relaxed);
        let tree = self.inode.tree();
        tree.tell(tree.meter().check(0, 0))
    }

    fn drop_privileges(&self) -> Result<(), Error> {
        drop_privileges(&self.file)
    }

    fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(passed_on)
    }

    fn allocate(&self, offset: u64, len: u64, flags: i32) -> Result<(), Error> {
        let unsupported = Error::System(libc::EOPNOTSUPP);
        let flags = u32::try_from(flags).map_err(|_| unsupported.clone())?;
        let flags = FallocateFlags::from_bits(flags).ok_or(unsupported)?;
        if !flags.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::COLLAPSE_RANGE) {
            self.make_room(len, offset)?;
        }
        rustix::fs::fallocate(&self.file, flags, offset, len).map_err(system)
    }

    fn caching(&self) -> Caching {
        Caching::Shared
    }

    fn backing(&self) -> Option<&File> {
        Some(&self.file)
    }
}

/// A blob of the layout that was opened in a session. When it becomes a file of the
/// session's own, its readers see that.
#[derive(Debug)]
pub(super) struct LentFile {
    inode: Arc<Inode>,
    blob: File,
}

impl LentFile {
    pub(super) fn new(inode: &Arc<Inode>, blob: File) -> Arc<Self> {
        inode.count_open(false);
        Arc::new(Self {
            inode: inode.clone(),
            blob,
        })
    }
}

impl Drop for LentFile {
    fn drop(&mut self) {
        self.inode.count_close(false);
    }
}

impl OpenFile for LentFile {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        if self.inode.number() == 0 {
            return read_full(&self.blob, buf, offset);
        }
        let private = File::from(self.inode.reopen(rustix::fs::OFlags::RDONLY)?);
        read_full(&private, buf, offset)
    }

    fn size(&self) -> u64 {
        self.blob.metadata().map_or(0, |metadata| metadata.len())
    }

    fn caching(&self) -> Caching {
        // Without a backing file: the kernel could not be given another one meanwhile.
        Caching::Shared
    }
}

/// Reads until `buf` is full or the file ends.
fn read_full(file: &File, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
    let mut len = 0;
    while len < buf.len() {
        match file.read_at(&mut buf[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(passed_on(error)),
        }
    }
    Ok(len)
}

/// Takes away the bits by which a file runs with the rights of its owner or group, as the
/// kernel does when somebody writes to it who has no right to keep them.
///
/// # Errors
/// What the system says.
pub(super) fn drop_privileges(file: impl AsFd) -> Result<(), Error> {
    let file = file.as_fd();
    let mode = rustix::fs::fstat(file).map_err(system)?.st_mode & 0o7777;
    let mut kept = mode & !libc::S_ISUID;
    if mode & libc::S_IXGRP != 0 {
        kept &= !libc::S_ISGID;
    }
    match kept == mode {
        true => Ok(()),
        false => rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(kept)).map_err(system),
    }
}

/// What the system said to what a program asked for, as it is passed on.
pub(super) fn passed_on(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(errno) => Error::System(errno),
        None => error.into(),
    }
}
