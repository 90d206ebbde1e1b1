//! What is found becomes entries of a tar.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Stat, fstat, major, minor, readlinkat};
use rustix::io::Errno;

use super::content;
use super::error::{Error, shown};
use super::walk::{Found, Handle, Stamp, Walk};
use super::xattr::{Owner, Reader};
use super::{LeftOut, Limits, Report, Tree};
use crate::store::progress::Progress;
use crate::stream::{Encoded, Encoder};
use crate::tar::write::{self, NewEntry, NewKind};
use crate::tar::{Device, Limit, Region, Xattr};

/// The file that a hard link is for: its device and inode.
type FileId = (u64, u64);

/// The first name of a file that has several.
struct FirstName {
    path: Vec<u8>,
    /// How many names are still to come; some of them may lie outside of the tree.
    left: u64,
}

/// A tree that is being packed.
struct Packer<'a, W> {
    encoder: Encoder<W>,
    limits: &'a Limits,
    progress: &'a dyn Progress,
    report: Report,
    /// How many bytes paths, targets, attributes and maps took.
    metadata: u64,
    names: HashMap<FileId, FirstName>,
    xattrs: Reader,
    /// The headers of the entry at hand.
    head: Vec<u8>,
}

/// What an entry is, with all that it takes to write it.
enum Item {
    /// Bytes from a file.
    File(OwnedFd, Option<Vec<Region>>),
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
}

/// Packs `tree` into `encoder`.
pub(super) fn run<W: Write + Send + 'static>(
    tree: &Tree,
    encoder: Encoder<W>,
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<(Encoded<W>, Report), Error> {
    let mut packer = Packer {
        encoder,
        limits,
        progress,
        report: Report::default(),
        metadata: 0,
        names: HashMap::new(),
        xattrs: Reader::new(),
        head: Vec::new(),
    };
    let (mut walk, root) = Walk::new(&tree.root, &limits.tar)?;
    packer.add(&walk, root)?;
    while let Some(found) = walk.next()? {
        packer.add(&walk, found)?;
    }
    packer.put(&write::END)?;
    let Packer {
        encoder,
        mut report,
        ..
    } = packer;
    let encoded = encoder.finish().map_err(Error::Sink)?;
    report.tar_size = encoded.decoded_size;
    Ok((encoded, report))
}

impl<W: Write + Send + 'static> Packer<'_, W> {
    /// Adds the entry of what was found.
    fn add(&mut self, walk: &Walk<'_>, found: Found) -> Result<(), Error> {
        let path = walk.path();
        let stat = found.stat;
        let Some(xattrs) = self.xattrs(walk, &found)? else {
            return Ok(());
        };
        let item = self.item(walk, found)?;
        let kind = match &item {
            Item::File(_, None) => NewKind::File {
                size: content::size(&stat),
            },
            Item::File(_, Some(regions)) => NewKind::Sparse {
                size: content::size(&stat),
                regions,
            },
            Item::Directory => NewKind::Directory,
            Item::Symlink(target) => NewKind::Symlink { target },
            Item::HardLink(target) => NewKind::HardLink { target },
            Item::CharDevice(device) => NewKind::CharDevice(*device),
            Item::BlockDevice(device) => NewKind::BlockDevice(*device),
            Item::Fifo => NewKind::Fifo,
        };
        let entry = new_entry(path, kind, &stat, &xattrs);
        self.count(&entry)?;
        self.head.clear();
        write::append(&mut self.head, &entry, &self.limits.tar).map_err(|over| Error::Limit {
            path: shown(path),
            limit: over.limit,
            max: over.max,
        })?;
        let head = std::mem::take(&mut self.head);
        self.put(&head)?;
        self.head = head;
        match &item {
            Item::File(file, regions) => self.content(path, file, &stat, regions.as_deref()),
            _ => Ok(()),
        }
    }

    /// The extended attributes of what was found; `None` if it is left out.
    fn xattrs(&mut self, walk: &Walk<'_>, found: &Found) -> Result<Option<Vec<Xattr>>, Error> {
        let path = walk.path();
        if FileType::from_raw_mode(found.stat.st_mode) == FileType::Socket {
            let path = shown(path);
            self.report.leave_out(LeftOut::Socket { path });
            return Ok(None);
        }
        let directory;
        let owner = match &found.handle {
            Handle::Directory => {
                directory = walk.directory();
                Owner::open(&directory)
            }
            Handle::File(file) => Owner::open(file),
            Handle::Named => Owner::named(walk.place()),
        };
        let report = &mut self.report;
        let xattrs = self.xattrs.read(&owner, |name| {
            report.leave_out(LeftOut::Xattr {
                path: shown(path),
                name: name.to_bytes().to_vec(),
            });
        });
        let xattrs =
            xattrs.map_err(|error| Error::io("read the extended attributes of", path, error))?;
        Ok(Some(xattrs))
    }

    /// What the entry will be.
    fn item(&mut self, walk: &Walk<'_>, found: Found) -> Result<Item, Error> {
        let (path, stat) = (walk.path(), found.stat);
        if !matches!(found.handle, Handle::Directory)
            && let Some(target) = self.first_name(path, &stat)
        {
            return Ok(Item::HardLink(target));
        }
        let file = match found.handle {
            Handle::Directory => return Ok(Item::Directory),
            Handle::File(file) => file,
            Handle::Named => return named_item(walk, &stat),
        };
        let regions = content::regions(&file, &stat, self.limits.tar.sparse_regions);
        let regions = regions.map_err(|error| Error::io("find the holes of", path, error))?;
        Ok(Item::File(file, regions))
    }

    /// The path under which a file with several names was packed already.
    fn first_name(&mut self, path: &[u8], stat: &Stat) -> Option<Vec<u8>> {
        #[expect(
            clippy::useless_conversion,
            reason = "the types of these fields depend on the processor"
        )]
        let (links, id) = (
            u64::from(stat.st_nlink),
            (stat.st_dev.into(), stat.st_ino.into()),
        );
        if links < 2 {
            return None;
        }
        let Some(first) = self.names.get_mut(&id) else {
            let (path, left) = (path.to_vec(), links - 1);
            self.names.insert(id, FirstName { path, left });
            return None;
        };
        first.left -= 1;
        if first.left > 0 {
            return Some(first.path.clone());
        }
        self.names.remove(&id).map(|first| first.path)
    }

    /// Holds what an entry costs its readers against the limits.
    fn count(&mut self, entry: &NewEntry<'_>) -> Result<(), Error> {
        self.report.entries += 1;
        let of_xattrs = entry.xattrs.iter();
        let of_xattrs: usize = of_xattrs
            .map(|xattr| xattr.name.len() + xattr.value.len())
            .sum();
        let of_kind = match entry.kind {
            NewKind::Symlink { target } | NewKind::HardLink { target } => target.len(),
            NewKind::Sparse { regions, .. } => size_of_val(regions),
            _ => 0,
        };
        self.metadata += (entry.path.len() + of_kind + of_xattrs) as u64;
        let limits = &self.limits.tar;
        let bounds = [
            (Limit::Entries, self.report.entries, limits.entries),
            (Limit::Metadata, self.metadata, limits.metadata),
        ];
        for (limit, value, max) in bounds {
            if value > max {
                let path = shown(entry.path);
                return Err(Error::Limit { path, limit, max });
            }
        }
        let max = self.limits.stream.decoded_size;
        let size = match entry.kind {
            NewKind::File { size } => size,
            NewKind::Sparse { regions, .. } => regions.iter().map(|region| region.len).sum(),
            _ => 0,
        };
        // With room for headers and the end.
        let end = self.encoder.decoded_size().saturating_add(size);
        if end.saturating_add(4 << 20) > max {
            let path = shown(entry.path);
            return Err(Error::TooLarge { path, max });
        }
        Ok(())
    }

    /// Copies the bytes of a file, and sees whether it is what it was.
    fn content(
        &mut self,
        path: &[u8],
        file: &OwnedFd,
        stat: &Stat,
        regions: Option<&[Region]>,
    ) -> Result<(), Error> {
        let whole = [Region {
            file_offset: 0,
            len: content::size(stat),
        }];
        let regions = regions.unwrap_or(&whole);
        let mut stored_len = 0;
        for region in regions {
            self.copy(path, file, *region)?;
            stored_len += region.len;
        }
        let now = fstat(file).map_err(|error| Error::io("stat", path, error))?;
        if Stamp::of(&now) != Stamp::of(stat) {
            return Err(Error::changed(path));
        }
        self.put(&write::END[..write::padding(stored_len)])
    }

    fn copy(&mut self, path: &[u8], file: &OwnedFd, region: Region) -> Result<(), Error> {
        let end = region.file_offset + region.len;
        let mut at = region.file_offset;
        while at < end {
            let room = self.encoder.room().map_err(Error::Sink)?;
            let most = usize::try_from(end - at).unwrap_or(usize::MAX);
            let most = room.len().min(most);
            let len = read(file, &mut room[..most], at);
            let len = len.map_err(|error| Error::io("read", path, error))?;
            if len == 0 {
                return Err(Error::changed(path));
            }
            self.encoder.advance(len);
            self.progress.advance(len as u64);
            at += len as u64;
        }
        Ok(())
    }

    /// Writes headers and zeros.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.encoder.write_all(bytes).map_err(Error::Sink)?;
        self.progress.advance(bytes.len() as u64);
        Ok(())
    }
}

fn read(file: impl AsFd, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match rustix::io::pread(&file, &mut *buf, offset) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

fn new_entry<'a>(
    path: &'a [u8],
    kind: NewKind<'a>,
    stat: &Stat,
    xattrs: &'a [Xattr],
) -> NewEntry<'a> {
    NewEntry {
        path,
        kind,
        mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or_default(),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        mtime_nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        xattrs,
    }
}

/// The entry of what is neither a file nor a directory.
fn named_item(walk: &Walk<'_>, stat: &Stat) -> Result<Item, Error> {
    let device = Device {
        major: major(stat.st_rdev),
        minor: minor(stat.st_rdev),
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let (parent, name) = walk.place();
            let target = readlinkat(parent, name, Vec::new());
            let target = target.map_err(|error| match error {
                Errno::NOENT | Errno::INVAL => Error::changed(walk.path()),
                error => Error::io("read the link", walk.path(), error),
            })?;
            Item::Symlink(target.into_bytes())
        }
        FileType::CharacterDevice => Item::CharDevice(device),
        FileType::BlockDevice => Item::BlockDevice(device),
        FileType::Fifo => Item::Fifo,
        // It was listed as something else.
        _ => return Err(Error::changed(walk.path())),
    })
}
