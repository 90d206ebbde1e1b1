//! Values of the file system as the kernel wants them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileType, Generation, INodeNo, RenameFlags, ReplyStatfs, ReplyXattr, TimeOrNow,
};

use crate::store::layout::Space;
use crate::vfs::writable::{OpenMode, RenameMode, SetTime, XattrMode};
use crate::vfs::{Attr, Device, Error, FileKind, Ino, NAME_MAX, Stretch, Time};

/// The generation of all inode numbers: none is used twice for different things.
pub(super) const GENERATION: Generation = Generation(0);

/// The block size that `stat` shows, in bytes: what is good to read at once.
const BLOCK_SIZE: u32 = 1 << 17;

pub(super) fn errno(error: &Error) -> Errno {
    Errno::from_i32(error.errno())
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::Regular => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

pub(super) fn file_attr(ino: Ino, attr: &Attr) -> FileAttr {
    let time = system_time(attr.mtime);
    let (access, change) = attr.other_times.map_or((time, time), |times| {
        (system_time(times.access), system_time(times.change))
    });
    FileAttr {
        ino: INodeNo(ino.0),
        size: attr.size,
        blocks: attr.stored.div_ceil(512),
        atime: access,
        mtime: time,
        ctime: change,
        crtime: time,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: device_number(attr.device),
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// A device number as the kernel takes it: 12 bits of major, 20 of minor. What has more
/// becomes the greatest there is: not 0, which has a meaning of its own for overlayfs.
fn device_number(device: Device) -> u32 {
    let (major, minor) = (device.major.min(0xFFF), device.minor.min(0xF_FFFF));
    (minor & 0xFF) | (major << 8) | ((minor & !0xFF) << 12)
}

/// A time as the system's; what that cannot hold becomes the epoch.
fn system_time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let part = Duration::from_nanos(u64::from(time.nanoseconds));
    let start = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    start
        .and_then(|start| start.checked_add(part))
        .unwrap_or(UNIX_EPOCH)
}

pub(super) fn statfs(space: &Space, reply: ReplyStatfs) {
    let name_max = u32::try_from(NAME_MAX).unwrap_or(255);
    let block_size = u32::try_from(space.block_size).unwrap_or(4096);
    reply.statfs(
        space.blocks,
        space.blocks_free,
        space.blocks_available,
        space.files,
        space.files_free,
        block_size,
        name_max,
        block_size,
    );
}

/// The request of a seek for data or holes; the kernel does other seeks itself.
pub(super) fn seek(offset: i64, whence: i32) -> Result<(u64, Stretch), Error> {
    let wanted = match whence {
        libc::SEEK_DATA => Stretch::Data,
        libc::SEEK_HOLE => Stretch::Hole,
        _ => return Err(Error::Invalid),
    };
    let offset = u64::try_from(offset).map_err(|_| Error::NoData)?;
    Ok((offset, wanted))
}

/// Answers a request for an extended attribute, or for the list of them.
pub(super) fn xattr(value: &[u8], room: u32, reply: ReplyXattr) {
    match u32::try_from(value.len()) {
        Ok(len) if room == 0 => reply.size(len),
        Ok(len) if len <= room => reply.data(value),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(_) => reply.error(Errno::E2BIG),
    }
}

/// How a file is opened, by the flags of `open(2)`.
pub(super) fn open_mode(flags: i32) -> OpenMode {
    let access = flags & libc::O_ACCMODE;
    OpenMode {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        append: flags & libc::O_APPEND != 0,
        truncate: flags & libc::O_TRUNC != 0,
        exclusive: flags & libc::O_EXCL != 0,
    }
}

/// The permission bits of a mode.
pub(super) fn mode(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// The kind of file in a mode.
pub(super) fn file_kind(mode: u32) -> Result<FileKind, Error> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Ok(FileKind::Regular),
        libc::S_IFCHR => Ok(FileKind::CharDevice),
        libc::S_IFBLK => Ok(FileKind::BlockDevice),
        libc::S_IFIFO => Ok(FileKind::Fifo),
        libc::S_IFSOCK => Ok(FileKind::Socket),
        _ => Err(Error::Invalid),
    }
}

/// A device from its number: the reverse of what `stat` is told.
pub(super) fn device(number: u32) -> Device {
    Device {
        major: (number >> 8) & 0xFFF,
        minor: (number & 0xFF) | ((number >> 12) & 0xF_FF00),
    }
}

/// How a rename treats what has the new name.
pub(super) fn rename_mode(flags: RenameFlags) -> Result<RenameMode, Error> {
    const WHITEOUT_NOREPLACE: RenameFlags =
        RenameFlags::RENAME_WHITEOUT.union(RenameFlags::RENAME_NOREPLACE);
    match flags {
        flags if flags.is_empty() => Ok(RenameMode::Replace),
        RenameFlags::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        RenameFlags::RENAME_WHITEOUT => Ok(RenameMode::Whiteout),
        WHITEOUT_NOREPLACE => Ok(RenameMode::WhiteoutNoReplace),
        _ => Err(Error::Invalid),
    }
}

/// How an extended attribute is set.
pub(super) fn xattr_mode(flags: i32) -> Result<XattrMode, Error> {
    match flags {
        0 => Ok(XattrMode::Set),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(Error::Invalid),
    }
}

/// A time to set.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    let time = match time {
        TimeOrNow::Now => return SetTime::Now,
        TimeOrNow::SpecificTime(time) => time,
    };
    let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    SetTime::At(match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Time {
            seconds: signed(after.as_secs()),
            nanoseconds: after.subsec_nanos(),
        },
        Err(before) => {
            // The two parts as the kernel sent them: fuser takes both of them from the
            // epoch, although nanoseconds count upwards before it too.
            let before = before.duration();
            Time {
                seconds: -signed(before.as_secs()),
                nanoseconds: before.subsec_nanos(),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_and_far_after() {
        let time = |seconds, nanoseconds| {
            system_time(Time {
                seconds,
                nanoseconds,
            })
        };
        assert_eq!(
            time(-1, 250_000_000),
            UNIX_EPOCH - Duration::from_millis(750)
        );
        assert_eq!(
            time(5_000_000_000, 1),
            UNIX_EPOCH + Duration::new(5_000_000_000, 1)
        );
        assert_eq!(time(i64::MIN, 0).max(UNIX_EPOCH), UNIX_EPOCH);
    }

    #[test]
    fn device_numbers() {
        let rows = [
            ("none", (0, 0), 0),
            ("null", (1, 3), 0x103),
            ("a large minor", (8, 0x12345), 0x1230_0845),
            ("the greatest", (0xFFF, 0xF_FFFF), u32::MAX),
            ("too great", (0x1000, 0x10_0000), u32::MAX),
        ];
        for (name, (major, minor), expected) in rows {
            let number = device_number(Device { major, minor });
            assert_eq!(number, expected, "{name}: {number:#x}");
            if major <= 0xFFF {
                assert_eq!(device(number), Device { major, minor }, "{name}: back");
            }
        }
    }

    #[test]
    fn times_are_set_as_the_kernel_sent_them() {
        for (seconds, nanoseconds) in [(0, 0), (-1, 250_000_000), (-2, 0), (7, 1), (-1, 999)] {
            // As fuser makes it of the two numbers.
            let part = Duration::new(i64::unsigned_abs(seconds), nanoseconds);
            let sent = match seconds < 0 {
                true => UNIX_EPOCH - part,
                false => UNIX_EPOCH + part,
            };
            let time = Time {
                seconds,
                nanoseconds,
            };
            let set = set_time(TimeOrNow::SpecificTime(sent));
            assert_eq!(set, SetTime::At(time));
        }
    }
}
