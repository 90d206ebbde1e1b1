//! The two kinds of records of a tree, and their bytes.

use crate::tar::Device;

/// The bytes of a [`Name`].
pub(super) const NAME_LEN: usize = 9;

/// The bytes of a [`Record`].
pub(super) const RECORD_LEN: usize = 46;

/// What stands for "no extras".
pub(super) const NO_EXTRAS: u32 = u32::MAX;

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    /// Where it is in the heap.
    pub(super) start: u32,
    /// How many bytes it has.
    pub(super) len: u8,
    /// What it names.
    pub(super) node: u32,
}

impl Name {
    pub(super) fn bytes(self) -> [u8; NAME_LEN] {
        let mut bytes = [0; NAME_LEN];
        bytes[..4].copy_from_slice(&self.start.to_le_bytes());
        bytes[4] = self.len;
        bytes[5..].copy_from_slice(&self.node.to_le_bytes());
        bytes
    }

    pub(super) fn read(bytes: &[u8; NAME_LEN]) -> Self {
        let [a, b, c, d, len, node @ ..] = *bytes;
        Self {
            start: u32::from_le_bytes([a, b, c, d]),
            len,
            node: u32::from_le_bytes(node),
        }
    }
}

/// A part of the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeapPart {
    pub(super) start: u32,
    pub(super) len: u32,
}

/// What a node is, with what only nodes of this kind have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The names in it, by number.
    Directory {
        first: u32,
        count: u32,
    },
    /// A file that is stored whole, or whose regions are among the extras.
    File {
        size: u64,
        data_offset: u64,
    },
    Symlink(HeapPart),
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
    /// A hard link whose target is not in this layer.
    Outer(HeapPart),
}

impl Shape {
    /// The number of the kind, and the two fields that depend on it.
    fn fields(self) -> (u16, u64, u64) {
        let device = |kind, device: Device| (kind, device.major.into(), device.minor.into());
        let part = |kind, part: HeapPart| (kind, part.start.into(), part.len.into());
        match self {
            Self::Directory { first, count } => (0, first.into(), count.into()),
            Self::File { size, data_offset } => (1, size, data_offset),
            Self::Symlink(target) => part(2, target),
            Self::CharDevice(number) => device(3, number),
            Self::BlockDevice(number) => device(4, number),
            Self::Fifo => (5, 0, 0),
            Self::Outer(target) => part(6, target),
        }
    }

    fn from_fields(kind: u16, a: u64, b: u64) -> Option<Self> {
        let pair = || Some((u32::try_from(a).ok()?, u32::try_from(b).ok()?));
        let part = || pair().map(|(start, len)| HeapPart { start, len });
        let device = || pair().map(|(major, minor)| Device { major, minor });
        match kind {
            0 => pair().map(|(first, count)| Self::Directory { first, count }),
            1 => Some(Self::File {
                size: a,
                data_offset: b,
            }),
            2 => part().map(Self::Symlink),
            3 => device().map(Self::CharDevice),
            4 => device().map(Self::BlockDevice),
            5 if (a, b) == (0, 0) => Some(Self::Fifo),
            6 => part().map(Self::Outer),
            _ => None,
        }
    }
}

/// A node: what several names can share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) shape: Shape,
    /// Whether an entry names it; a directory may be there only because of what is in it.
    pub(super) named: bool,
    /// The low 12 bits.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) mtime_nanoseconds: u32,
    /// Names that it has; for a directory as file systems count, with `.` and `..`.
    pub(super) links: u32,
    /// Where in the heap its regions and extended attributes are, or [`NO_EXTRAS`].
    pub(super) extras: u32,
}

const MODE: u16 = 0o7777;
const NAMED: u16 = 1 << 12;
const KIND_SHIFT: u32 = 13;

impl Record {
    /// A directory that no entry names.
    pub(super) const IMPLIED: Self = Self {
        shape: Shape::Directory { first: 0, count: 0 },
        named: false,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nanoseconds: 0,
        links: 0,
        extras: NO_EXTRAS,
    };

    pub(super) const fn is_directory(&self) -> bool {
        matches!(self.shape, Shape::Directory { .. })
    }

    pub(super) fn bytes(&self) -> [u8; RECORD_LEN] {
        let (kind, a, b) = self.shape.fields();
        let named = if self.named { NAMED } else { 0 };
        let mut bytes = [0; RECORD_LEN];
        bytes[..2].copy_from_slice(&(self.mode & MODE | named | kind << KIND_SHIFT).to_le_bytes());
        bytes[2..6].copy_from_slice(&self.uid.to_le_bytes());
        bytes[6..10].copy_from_slice(&self.gid.to_le_bytes());
        bytes[10..18].copy_from_slice(&self.mtime.to_le_bytes());
        bytes[18..22].copy_from_slice(&self.mtime_nanoseconds.to_le_bytes());
        bytes[22..26].copy_from_slice(&self.links.to_le_bytes());
        bytes[26..30].copy_from_slice(&self.extras.to_le_bytes());
        bytes[30..38].copy_from_slice(&a.to_le_bytes());
        bytes[38..].copy_from_slice(&b.to_le_bytes());
        bytes
    }

    /// `None` for bytes that no record has.
    pub(super) fn read(bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        let u32_at = |at| u32::from_le_bytes(part(bytes, at));
        let u64_at = |at| u64::from_le_bytes(part(bytes, at));
        let head = u16::from_le_bytes(part(bytes, 0));
        Some(Self {
            shape: Shape::from_fields(head >> KIND_SHIFT, u64_at(30), u64_at(38))?,
            named: head & NAMED != 0,
            mode: head & MODE,
            uid: u32_at(2),
            gid: u32_at(6),
            mtime: i64::from_le_bytes(part(bytes, 10)),
            mtime_nanoseconds: u32_at(18),
            links: u32_at(22),
            extras: u32_at(26),
        })
    }
}

/// `N` bytes at `at`, which is always a constant within the record.
fn part<const N: usize>(bytes: &[u8; RECORD_LEN], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_their_bytes() {
        let part = HeapPart {
            start: u32::MAX,
            len: 7,
        };
        let device = Device {
            major: u32::MAX,
            minor: 3,
        };
        let shapes = [
            Shape::Directory { first: 9, count: 2 },
            Shape::File {
                size: u64::MAX,
                data_offset: 512,
            },
            Shape::Symlink(part),
            Shape::CharDevice(device),
            Shape::BlockDevice(device),
            Shape::Fifo,
            Shape::Outer(part),
        ];
        for (at, shape) in shapes.into_iter().enumerate() {
            let record = Record {
                shape,
                named: at % 2 == 0,
                mode: 0o7777,
                uid: u32::MAX - 1,
                gid: 5,
                mtime: i64::MIN,
                mtime_nanoseconds: 999_999_999,
                links: 3,
                extras: 77,
            };
            assert_eq!(Record::read(&record.bytes()), Some(record), "{shape:?}");
        }
        let mut bytes = Record::IMPLIED.bytes();
        bytes[1] |= 7 << 5;
        assert_eq!(Record::read(&bytes), None, "no such kind");
        let name = Name {
            start: 1 << 31,
            len: 255,
            node: 12,
        };
        assert_eq!(Name::read(&name.bytes()), name);
    }
}
