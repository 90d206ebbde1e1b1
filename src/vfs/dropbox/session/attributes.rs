//! Attributes of files in a session: shown, and set.

use std::fs::Metadata;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};

use super::file::drop_privileges;
use super::inode::{Inode, Place, proc_path, system};
use crate::vfs::attr::{Attr, Device, FileKind, Lifetime, OtherTimes, Time};
use crate::vfs::error::Error;
use crate::vfs::writable::{AttrChange, Caller, SetTime, XattrMode};

/// `UTIME_NOW` and `UTIME_OMIT` of `utimensat(2)`.
const NOW: i64 = rustix::fs::UTIME_NOW;
const OMIT: i64 = rustix::fs::UTIME_OMIT;

/// Permission bits of a lent blob: whoever owns the session may write to it, which makes
/// it a file of its own.
const LENT_MODE: u16 = 0o644;

/// What `stat` shows. The gate is held.
///
/// # Errors
/// [`Error::Stale`], or what the system says.
pub(super) fn attr(inode: &Arc<Inode>) -> Result<Attr, Error> {
    match inode.place() {
        Place::Gone(attr) => Ok(*attr),
        Place::Lent(_, _, digest) => {
            let owner = rustix::fs::fstat(inode.tree().root_fd()).map_err(system)?;
            let blob = inode.tree().lender().stat(&digest)?;
            Ok(lent_attr(&blob, (owner.st_uid, owner.st_gid)))
        }
        Place::Root | Place::Named(..) | Place::Held(_) => {
            let attr = of_stat(inode.kind(), &inode.stat()?);
            // A mapping changes the times of a file behind the kernel's back.
            let lifetime = match inode.is_written() {
                true => Lifetime::None,
                false => Lifetime::Briefly,
            };
            Ok(Attr { lifetime, ..attr })
        }
    }
}

/// Attributes as the disk has them.
pub(super) fn of_stat(kind: FileKind, stat: &Stat) -> Attr {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let time = |seconds, nanoseconds| Time {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
    };
    Attr {
        kind,
        mode: bits(stat.st_mode),
        size: unsigned(stat.st_size),
        stored: unsigned(stat.st_blocks) * 512,
        links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        device: Device {
            major: rustix::fs::major(stat.st_rdev),
            minor: rustix::fs::minor(stat.st_rdev),
        },
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        other_times: Some(OtherTimes {
            access: time(stat.st_atime, stat.st_atime_nsec),
            change: time(stat.st_ctime, stat.st_ctime_nsec),
        }),
        lifetime: Lifetime::Briefly,
    }
}

fn lent_attr(blob: &Metadata, (uid, gid): (u32, u32)) -> Attr {
    use std::os::unix::fs::MetadataExt;
    Attr {
        kind: FileKind::Regular,
        mode: LENT_MODE,
        size: blob.len(),
        stored: blob.blocks() * 512,
        links: 1,
        device: Device::default(),
        uid,
        gid,
        mtime: Time {
            seconds: blob.mtime(),
            nanoseconds: u32::try_from(blob.mtime_nsec()).unwrap_or(0),
        },
        other_times: None,
        lifetime: Lifetime::Briefly,
    }
}

/// The permission bits of a mode.
pub(super) fn bits(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// Sets attributes. The gate is held; `open` is a descriptor by which the file can be
/// written to, if the caller has one.
///
/// # Errors
/// What the system says.
pub(super) fn set(
    inode: &Arc<Inode>,
    caller: &Caller,
    change: &AttrChange,
    open: Option<&std::fs::File>,
) -> Result<(), Error> {
    if let Some(size) = change.size {
        truncate(inode, caller, size, open)?;
    }
    let handle = inode.handle()?;
    if change.uid.is_some() || change.gid.is_some() {
        let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
        rustix::fs::chownat(&handle, "", uid, gid, AtFlags::EMPTY_PATH).map_err(system)?;
    }
    if let Some(mode) = change.mode {
        let mode = Mode::from_raw_mode(mode.into());
        rustix::fs::chmod(proc_path(&handle), mode).map_err(system)?;
    }
    if change.atime.is_some() || change.mtime.is_some() {
        let times = Timestamps {
            last_access: timespec(change.atime),
            last_modification: timespec(change.mtime),
        };
        rustix::fs::utimensat(&handle, "", &times, AtFlags::EMPTY_PATH).map_err(system)?;
    }
    Ok(())
}

fn truncate(
    inode: &Arc<Inode>,
    caller: &Caller,
    size: u64,
    open: Option<&std::fs::File>,
) -> Result<(), Error> {
    let opened: OwnedFd;
    let fd = match open {
        Some(file) => std::os::fd::AsFd::as_fd(file),
        None => {
            opened = inode.reopen(OFlags::WRONLY)?;
            std::os::fd::AsFd::as_fd(&opened)
        }
    };
    rustix::fs::ftruncate(fd, size).map_err(system)?;
    match caller.uid {
        0 => Ok(()),
        _ => drop_privileges(fd),
    }
}

fn timespec(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: OMIT,
        },
        Some(SetTime::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: NOW,
        },
        Some(SetTime::At(time)) => Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds.into(),
        },
    }
}

/// The value of an extended attribute.
pub(super) fn xattr(inode: &Arc<Inode>, name: &[u8]) -> Option<Vec<u8>> {
    let handle = inode.handle().ok()?;
    let path = proc_path(&handle);
    grow(|buf| rustix::fs::getxattr(&*path, name, buf))
}

/// The names of the extended attributes.
pub(super) fn xattr_names(inode: &Arc<Inode>) -> Vec<Vec<u8>> {
    let Ok(handle) = inode.handle() else {
        return Vec::new();
    };
    let path = proc_path(&handle);
    let list = grow(|buf| rustix::fs::listxattr(&*path, buf)).unwrap_or_default();
    let names = list.split(|byte| *byte == 0);
    names
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

/// What a call gives that fills a buffer, of whatever length.
fn grow(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> Option<Vec<u8>> {
    let mut buf = vec![0; 256];
    loop {
        match call(&mut buf) {
            Ok(len) => {
                buf.truncate(len);
                return Some(buf);
            }
            // 64 KiB is the most that there can be.
            Err(rustix::io::Errno::RANGE) if buf.len() < 1 << 17 => {
                let len = buf.len() * 8;
                buf.resize(len, 0);
            }
            Err(_) => return None,
        }
    }
}

/// Sets an extended attribute.
///
/// # Errors
/// What the system says.
pub(super) fn set_xattr(
    inode: &Arc<Inode>,
    name: &[u8],
    value: &[u8],
    how: XattrMode,
) -> Result<(), Error> {
    let flags = match how {
        XattrMode::Set => XattrFlags::empty(),
        XattrMode::Create => XattrFlags::CREATE,
        XattrMode::Replace => XattrFlags::REPLACE,
    };
    let handle = inode.handle()?;
    rustix::fs::setxattr(proc_path(&handle), name, value, flags).map_err(system)
}

/// Removes an extended attribute.
///
/// # Errors
/// What the system says.
pub(super) fn remove_xattr(inode: &Arc<Inode>, name: &[u8]) -> Result<(), Error> {
    let handle = inode.handle()?;
    rustix::fs::removexattr(proc_path(&handle), name).map_err(system)
}
