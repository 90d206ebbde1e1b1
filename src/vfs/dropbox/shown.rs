//! What `stat` and extended attributes show of the drop box.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::vfs::attr::{Attr, Device, FileKind, Lifetime, Time};
use crate::vfs::error::Fault;

/// The attribute with the digests of what a drop became.
pub(super) const DIGEST: &[u8] = b"user.oci.digest";
/// The attribute with its names.
pub(super) const REF: &[u8] = b"user.oci.ref";
/// The attribute that says what is wrong.
pub(super) const ERROR: &[u8] = b"user.oci.error";

/// Attributes of a regular file; they may be others at the next request.
pub(super) fn file((uid, gid): (u32, u32), size: u64, mtime: SystemTime) -> Attr {
    Attr {
        kind: FileKind::Regular,
        mode: 0o644,
        size,
        stored: size,
        links: 1,
        device: Device::default(),
        uid,
        gid,
        mtime: time(mtime),
        other_times: None,
        lifetime: Lifetime::None,
    }
}

/// Attributes of a directory of the drop box.
pub(super) fn directory(owner: (u32, u32), mode: u16, mtime: SystemTime) -> Attr {
    Attr {
        kind: FileKind::Directory,
        mode,
        ..file(owner, 0, mtime)
    }
}

/// The value of [`ERROR`].
pub(super) fn fault(fault: &Fault) -> Vec<u8> {
    format!("{}: {}", fault.code, fault.text).into_bytes()
}

/// Whole seconds since the epoch.
pub(super) fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn time(time: SystemTime) -> Time {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Time {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: since.subsec_nanos(),
    }
}
