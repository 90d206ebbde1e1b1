//! What a tar holds, as values.

/// One entry of a layer, all its headers put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Start of the entry's own header, in bytes from the start of the tar.
    pub header_offset: u64,
    /// The path below the root: components joined by one `/`, none of them empty, `.`,
    /// `..` or longer than 255 bytes. Empty for the root, which is always a directory.
    pub path: Vec<u8>,
    /// What the entry is.
    pub kind: Kind,
    /// The permission bits with setuid, setgid and sticky: the low 12 bits.
    pub mode: u16,
    /// The owner's number, at most `u32::MAX - 1`: the one above means "nobody set".
    pub uid: u32,
    /// The group's number, likewise.
    pub gid: u32,
    /// The time of the last change, in seconds since 1970.
    pub mtime: i64,
    /// What it is after the second, in nanoseconds; always forwards.
    pub mtime_nanoseconds: u32,
    /// Extended attributes, sorted by name, less those that would be acted upon.
    pub xattrs: Vec<Xattr>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File(Content),
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it leads, exactly as stored: at least one byte and no NUL.
        target: Vec<u8>,
    },
    /// Another name of an entry of this or a lower layer.
    HardLink {
        /// The other path, in the form of [`Entry::path`], and never equal to it.
        target: Vec<u8>,
    },
    /// A character device. 0:0 is one like others, not a whiteout.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// Where the bytes of a regular file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// How long the file is, holes included; at most `i64::MAX`.
    pub size: u64,
    /// Where its stored bytes start, in bytes from the start of the tar.
    pub data_offset: u64,
    /// How many bytes are stored, those of all regions together.
    pub stored_len: u64,
    /// The regions of a sparse file that are stored, one after the other: sorted, apart
    /// from each other, none of them empty. All else reads as zeros. `None` for a file
    /// that is stored whole.
    pub regions: Option<Vec<Region>>,
}

impl Content {
    /// The parts of the file that are stored, as (offset in the file, offset in the tar,
    /// length in bytes), in order.
    pub fn extents(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        let whole = Region {
            file_offset: 0,
            len: self.stored_len,
        };
        let (sparse, whole) = match &self.regions {
            Some(regions) => (regions.as_slice(), None),
            None => (&[][..], (whole.len > 0).then_some(whole)),
        };
        let mut tar_offset = self.data_offset;
        sparse.iter().copied().chain(whole).map(move |region| {
            let start = tar_offset;
            tar_offset += region.len;
            (region.file_offset, start, region.len)
        })
    }
}

/// A part of a sparse file that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Where it starts, in bytes from the start of the file.
    pub file_offset: u64,
    /// How long it is, in bytes.
    pub len: u64,
}

/// The number of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The driver's part.
    pub major: u32,
    /// The part within the driver.
    pub minor: u32,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Its name with the namespace, at most 255 bytes and no NUL.
    pub name: Vec<u8>,
    /// Its value, at most 64 KiB; may be empty.
    pub value: Vec<u8>,
}

impl Entry {
    /// How many bytes of memory the parts of variable length take.
    pub(super) fn metadata_len(&self) -> u64 {
        let of_kind = match &self.kind {
            Kind::Symlink { target } | Kind::HardLink { target } => target.len(),
            Kind::File(content) => {
                let regions = content.regions.as_ref().map_or(0, Vec::len);
                regions * size_of::<Region>()
            }
            Kind::Directory | Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo => 0,
        };
        let xattrs = self.xattrs.iter();
        let of_xattrs: usize = xattrs
            .map(|xattr| xattr.name.len() + xattr.value.len())
            .sum();
        (self.path.len() + of_kind + of_xattrs) as u64
    }
}
