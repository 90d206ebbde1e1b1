//! Attributes of what the mount shows.

use std::time::Duration;

/// The kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    Regular,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// The number of a device; both parts are 0 for what is no device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Device {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

/// A point in time, in seconds and nanoseconds since the epoch; seconds may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds after those, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// The times of a file that is kept on a disk, beside that of its modification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherTimes {
    /// When it was read last, as far as that is noted.
    pub access: Time,
    /// When its content or attributes changed last.
    pub change: Time,
}

/// What `stat` shows of a node, apart from its inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Kind of node.
    pub kind: FileKind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    /// Size in bytes.
    pub size: u64,
    /// The bytes of it that take up room: fewer than the size in a sparse file.
    pub stored: u64,
    /// How many names there are for it. 1 tells programs that count subdirectories by
    /// the links of a directory not to.
    pub links: u32,
    /// Which device it stands for.
    pub device: Device,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Access and change times, where they are kept; else they are shown equal to the
    /// modification time.
    pub other_times: Option<OtherTimes>,
    /// How long the kernel may believe these attributes.
    pub lifetime: Lifetime,
}

/// How long the kernel may believe what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// For ever: it hangs on a digest.
    Forever,
    /// For a second at most: attributes that may be seen a little late. Of those of the root
    /// the kernel is told when the index has changed. Nothing tells it of names, so that no
    /// name that goes with the index has this.
    Briefly,
    /// Not at all: it may be different at the next request.
    None,
}

impl Lifetime {
    /// As a span of time.
    #[must_use]
    pub const fn duration(self) -> Duration {
        match self {
            // The kernel counts in ticks; this is far enough and cannot overflow there.
            Self::Forever => Duration::from_secs(10 * 365 * 24 * 3600),
            Self::Briefly => Duration::from_secs(1),
            Self::None => Duration::ZERO,
        }
    }
}
