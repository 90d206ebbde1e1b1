//! Values of the file system as the kernel wants them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, Generation, INodeNo, ReplyStatfs, ReplyXattr};

use crate::store::layout::Space;
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
    FileAttr {
        ino: INodeNo(ino.0),
        size: attr.size,
        blocks: attr.stored.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
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
        }
    }
}
