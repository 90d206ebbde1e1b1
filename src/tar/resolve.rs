//! Puts a header and the extension headers before it together: what goes before what.
//!
//! | value | from, the first that is there |
//! |---|---|
//! | path | `GNU.sparse.name` of a pax sparse file, GNU long name, pax `path`, header |
//! | link target | GNU long link, pax `linkpath`, header |
//! | stored size | pax `size`, header; none for links, directories and special files |
//! | size of a sparse file | `GNU.sparse.size`, `GNU.sparse.realsize`, stored size |
//! | owner, group, time | pax `uid`, `gid`, `mtime`, header |
//!
//! That is the order of Go's archive/tar.

use super::entry::{Content, Device, Entry, Kind, Xattr};
use super::error::Error;
use super::header::{Format, Header, flag};
use super::limits::{Limit, Limits};
use super::number::{Time, decimal, pax_time};
use super::path::{self, Normal, Raw};
use super::pax::{Key, Pax};
use super::sparse::{self, Lines, Map};
use super::warning::{Warning, Warnings};
use super::xattr;

/// The longest target of a symlink, in bytes: the kernel takes one page with a NUL.
const MAX_TARGET: usize = 4095;

/// What the extension headers before an entry said.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) pax: Option<Pax>,
    /// Empty if there was none.
    pub(super) long_name: Vec<u8>,
    /// Empty if there was none.
    pub(super) long_link: Vec<u8>,
}

/// An entry and what follows its header.
#[derive(Debug)]
pub(super) struct Resolved {
    /// The entry; `None` for one that is skipped. If a map follows, its content has no
    /// regions yet.
    pub(super) entry: Option<Entry>,
    /// How many bytes follow the header, and the blocks of an old GNU map behind it.
    pub(super) stored_len: u64,
    pub(super) follows: Follows,
}

/// What comes before the stored bytes.
#[derive(Debug)]
pub(super) enum Follows {
    /// Nothing.
    Data,
    /// More blocks of an old GNU map.
    OldGnuMap(Map),
    /// A map in form 1.0, as a part of the stored bytes.
    Lines(Lines),
}

/// How the content of a file is stored.
enum Layout {
    Whole,
    /// Sparse, with the whole map.
    Mapped(Map),
    /// Sparse, old GNU, with the rest of the map to come.
    OldGnu(Map),
    /// Sparse, pax form 1.0, with the map to come.
    Lines(Lines),
}

/// Puts `header` and `pending` together.
pub(super) fn resolve(
    header: &Header<'_>,
    pending: &Pending,
    limits: &Limits,
    warnings: &mut Warnings,
) -> Result<Resolved, Error> {
    check_type(header)?;
    let mut resolver = Resolver {
        header,
        pending,
        pax: pending.pax.as_ref(),
        limits,
        warnings,
    };
    resolver.resolve()
}

fn check_type(header: &Header<'_>) -> Result<(), Error> {
    let header_offset = header.offset;
    match header.flag {
        flag::OLD_FILE
        | flag::FILE
        | flag::HARD_LINK
        | flag::SYMLINK
        | flag::CHAR_DEVICE
        | flag::BLOCK_DEVICE
        | flag::DIRECTORY
        | flag::FIFO
        | flag::CONTIGUOUS
        | flag::GNU_SPARSE
        | flag::GNU_VOLUME => Ok(()),
        flag @ flag::SOLARIS_PAX => Err(Error::UnsupportedType {
            header_offset,
            flag,
        }),
        flag => Err(Error::Type {
            header_offset,
            flag,
        }),
    }
}

/// Whether entries of this type have no stored bytes, whatever size their header has.
const fn is_header_only(flag: u8) -> bool {
    matches!(
        flag,
        flag::HARD_LINK
            | flag::SYMLINK
            | flag::CHAR_DEVICE
            | flag::BLOCK_DEVICE
            | flag::DIRECTORY
            | flag::FIFO
    )
}

struct Resolver<'a> {
    header: &'a Header<'a>,
    pending: &'a Pending,
    pax: Option<&'a Pax>,
    limits: &'a Limits,
    warnings: &'a mut Warnings,
}

impl<'a> Resolver<'a> {
    fn resolve(&mut self) -> Result<Resolved, Error> {
        let named = self.named();
        let flag = self.flag(named);
        let stored_len = self.stored_len(flag)?;
        let layout = self.layout(flag, stored_len)?;
        let time = self.time()?;
        let (uid, gid) = (
            self.id(Key::Uid, self.header.uid, "the owner")?,
            self.id(Key::Gid, self.header.gid, "the group")?,
        );
        let (content, follows) = self.content(layout, stored_len)?;
        if flag == flag::GNU_VOLUME {
            return Ok(Resolved {
                entry: None,
                stored_len,
                follows,
            });
        }
        let path = self.path(flag, named)?;
        let kind = self.kind(flag, content, &path)?;
        let entry = Entry {
            header_offset: self.header.offset,
            path,
            kind,
            mode: u16::try_from(self.header.mode & 0o7777).unwrap_or_default(),
            uid,
            gid,
            mtime: time.seconds,
            mtime_nanoseconds: time.nanoseconds,
            xattrs: self.xattrs(),
        };
        Ok(Resolved {
            entry: Some(entry),
            stored_len,
            follows,
        })
    }

    fn value(&self, key: Key) -> Option<&'a [u8]> {
        self.pax.and_then(|pax| pax.get(key))
    }

    /// The number of a pax record, if it is there.
    fn number(&self, key: Key, field: &'static str) -> Result<Option<i64>, Error> {
        self.value(key)
            .map(|text| decimal(text).ok_or_else(|| self.header.bad_number(field)))
            .transpose()
    }

    /// The path before a sparse file's own name is looked at.
    fn named(&mut self) -> Raw<'a> {
        let pending = self.pending;
        match (pending.long_name.as_slice(), self.value(Key::Path)) {
            ([], None) => self.header.path,
            ([], Some(path)) => Raw::whole(path),
            (long, path) => {
                if path.is_some_and(|path| path != long) {
                    self.warnings.push(Warning::TwoPaths {
                        header_offset: self.header.offset,
                    });
                }
                Raw::whole(long)
            }
        }
    }

    /// The type, where the oldest ones tell files from directories by the name.
    fn flag(&self, named: Raw<'_>) -> u8 {
        match self.header.flag {
            flag::OLD_FILE if named.has_trailing_slash() => flag::DIRECTORY,
            flag::OLD_FILE => flag::FILE,
            flag => flag,
        }
    }

    fn stored_len(&self, flag: u8) -> Result<u64, Error> {
        let field = "the size";
        let size = self.number(Key::Size, field)?.unwrap_or(self.header.size);
        if is_header_only(flag) {
            return Ok(0);
        }
        u64::try_from(size).map_err(|_| self.header.bad_number(field))
    }

    /// An owner's number. Above `u32::MAX - 1` no Linux file system has any.
    fn id(&self, key: Key, in_header: i64, field: &'static str) -> Result<u32, Error> {
        let id = self.number(key, field)?.unwrap_or(in_header);
        let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        id.ok_or_else(|| self.header.bad_number(field))
    }

    /// The time of the last change; the others must be times, and are not used.
    fn time(&mut self) -> Result<Time, Error> {
        for (key, field) in [
            (Key::Atime, "the access time"),
            (Key::Ctime, "the change time"),
        ] {
            if self.value(key).is_some_and(|text| pax_time(text).is_none()) {
                return Err(self.header.bad_number(field));
            }
        }
        let Some(text) = self.value(Key::Mtime) else {
            return Ok(Time {
                seconds: self.header.mtime,
                nanoseconds: 0,
                clamped: false,
            });
        };
        let time = pax_time(text).ok_or_else(|| self.header.bad_number("the time"))?;
        if time.clamped {
            self.warnings.push(Warning::Time {
                header_offset: self.header.offset,
            });
        }
        Ok(time)
    }

    fn layout(&self, flag: u8, stored_len: u64) -> Result<Layout, Error> {
        let layout = if flag == flag::GNU_SPARSE {
            self.old_gnu_layout()?
        } else {
            self.pax_layout(stored_len)?
        };
        match layout {
            Layout::Mapped(_) | Layout::OldGnu(_) | Layout::Lines(_) if is_header_only(flag) => {
                Err(self.bad_sparse(sparse::Fault::Malformed("only files can be sparse")))
            }
            layout => Ok(layout),
        }
    }

    fn old_gnu_layout(&self) -> Result<Layout, Error> {
        // star has the same type flag with another layout.
        if self.header.format != Format::Gnu {
            let fault = sparse::Fault::Malformed("its header is not a GNU header");
            return Err(self.bad_sparse(fault));
        }
        let size = sparse::old_gnu_size(self.header.block)
            .ok_or_else(|| self.header.bad_number("the size of the sparse file"))?;
        let mut map = self.new_map(size)?;
        let more = sparse::read_old_gnu_header(&mut map, self.header.block)
            .map_err(|fault| self.bad_sparse(fault))?;
        Ok(if more {
            Layout::OldGnu(map)
        } else {
            Layout::Mapped(map)
        })
    }

    fn pax_layout(&self, stored_len: u64) -> Result<Layout, Error> {
        let Some((pax, form)) = self.sparse_form() else {
            return Ok(Layout::Whole);
        };
        let field = "the size of the sparse file";
        let size = match self.number(Key::SparseSize, field)? {
            Some(size) => size,
            None => self
                .number(Key::SparseRealSize, field)?
                .unwrap_or(i64::try_from(stored_len).unwrap_or(i64::MAX)),
        };
        let mut map = self.new_map(size)?;
        match form {
            SparseForm::Records => {
                map.read_pax(pax).map_err(|fault| self.bad_sparse(fault))?;
                Ok(Layout::Mapped(map))
            }
            SparseForm::Lines => Ok(Layout::Lines(Lines::new(map))),
        }
    }

    /// Whether the pax header makes the entry a sparse file. An unknown version makes it
    /// none, as it does for Go and for all that read no sparse files.
    fn sparse_form(&self) -> Option<(&'a Pax, SparseForm)> {
        let pax = self.pax?;
        let version = (pax.get(Key::SparseMajor), pax.get(Key::SparseMinor));
        let form = match version {
            (Some(b"0"), Some(b"0" | b"1")) => SparseForm::Records,
            (Some(b"1"), Some(b"0")) => SparseForm::Lines,
            (Some(_), _) | (_, Some(_)) => return None,
            (None, None) => {
                pax.get(Key::SparseMap)?;
                SparseForm::Records
            }
        };
        Some((pax, form))
    }

    fn new_map(&self, size: i64) -> Result<Map, Error> {
        Map::new(size, self.limits.sparse_regions).map_err(|fault| self.bad_sparse(fault))
    }

    fn bad_sparse(&self, fault: sparse::Fault) -> Error {
        bad_sparse(fault, self.header.offset, self.limits)
    }

    fn content(&self, layout: Layout, stored_len: u64) -> Result<(Content, Follows), Error> {
        let mut content = Content {
            size: stored_len,
            data_offset: self.header.offset + self.header.block.len() as u64,
            stored_len,
            regions: None,
        };
        let follows = match layout {
            Layout::Whole => Follows::Data,
            Layout::Mapped(map) => {
                content.size = map.size;
                let regions = map.finish(stored_len);
                content.regions = Some(regions.map_err(|fault| self.bad_sparse(fault))?);
                Follows::Data
            }
            Layout::OldGnu(map) => Follows::OldGnuMap(map),
            Layout::Lines(lines) => Follows::Lines(lines),
        };
        Ok((content, follows))
    }

    fn path(&mut self, flag: u8, named: Raw<'a>) -> Result<Vec<u8>, Error> {
        let sparse_name = match self.sparse_form() {
            Some((pax, _)) if flag != flag::GNU_SPARSE => pax.get(Key::SparseName),
            _ => None,
        };
        let raw = sparse_name.map_or(named, Raw::whole);
        let Normal { path, climbs } = self.normalise(raw)?;
        if climbs {
            self.warnings.push(Warning::Climbs {
                header_offset: self.header.offset,
                path: raw.joined(),
            });
        }
        if path.is_empty() && flag != flag::DIRECTORY {
            return Err(Error::Path {
                header_offset: self.header.offset,
                fault: "the root is a directory, and cannot be anything else",
            });
        }
        Ok(path)
    }

    fn normalise(&self, raw: Raw<'_>) -> Result<Normal, Error> {
        let header_offset = self.header.offset;
        let max = self.limits.depth;
        raw.normalise(max).map_err(|fault| match fault {
            path::Fault::Nul => Error::Path {
                header_offset,
                fault: "the path has a NUL in it",
            },
            path::Fault::ComponentTooLong(len) => Error::NameTooLong {
                header_offset,
                len,
                max: path::MAX_NAME,
            },
            path::Fault::TooDeep => Error::Limit {
                header_offset,
                limit: Limit::Depth,
                max,
            },
        })
    }

    fn kind(&self, flag: u8, content: Content, path: &[u8]) -> Result<Kind, Error> {
        Ok(match flag {
            flag::HARD_LINK => Kind::HardLink {
                target: self.hard_link_target(path)?,
            },
            flag::SYMLINK => Kind::Symlink {
                target: self.symlink_target()?,
            },
            flag::CHAR_DEVICE => Kind::CharDevice(self.device()?),
            flag::BLOCK_DEVICE => Kind::BlockDevice(self.device()?),
            flag::DIRECTORY => Kind::Directory,
            flag::FIFO => Kind::Fifo,
            // `check_type` left only files.
            _ => Kind::File(content),
        })
    }

    fn target(&self) -> &'a [u8] {
        match self.pending.long_link.as_slice() {
            [] => self.value(Key::LinkPath).unwrap_or(self.header.link),
            long => long,
        }
    }

    fn symlink_target(&self) -> Result<Vec<u8>, Error> {
        let target = self.target();
        if target.is_empty() {
            return Err(self.bad_link("a symlink without a target"));
        }
        if target.len() > MAX_TARGET {
            return Err(Error::NameTooLong {
                header_offset: self.header.offset,
                len: target.len(),
                max: MAX_TARGET,
            });
        }
        Ok(target.to_vec())
    }

    fn hard_link_target(&self, path: &[u8]) -> Result<Vec<u8>, Error> {
        let target = self.normalise(Raw::whole(self.target()))?;
        if target.climbs {
            return Err(self.bad_link("a hard link to above the root"));
        }
        if target.path.is_empty() {
            return Err(self.bad_link("a hard link to the root"));
        }
        if target.path == path {
            return Err(self.bad_link("a hard link to itself"));
        }
        Ok(target.path)
    }

    fn bad_link(&self, fault: &'static str) -> Error {
        Error::Link {
            header_offset: self.header.offset,
            fault,
        }
    }

    fn device(&self) -> Result<Device, Error> {
        let part =
            |number: i64, field| u32::try_from(number).map_err(|_| self.header.bad_number(field));
        Ok(Device {
            major: part(self.header.major, "the major device number")?,
            minor: part(self.header.minor, "the minor device number")?,
        })
    }

    fn xattrs(&mut self) -> Vec<Xattr> {
        let header_offset = self.header.offset;
        let Some(pax) = self.pax else {
            return Vec::new();
        };
        xattr::of_pax(pax, |key| {
            self.warnings.push(Warning::Xattr {
                header_offset,
                key: key.to_vec(),
            });
        })
    }
}

/// Where the map of a pax sparse file is.
#[derive(Clone, Copy)]
enum SparseForm {
    /// In the pax header: 0.0 and 0.1.
    Records,
    /// Before the stored bytes: 1.0.
    Lines,
}

/// The error that the sparse file at `header_offset` has this fault.
pub(super) fn bad_sparse(fault: sparse::Fault, header_offset: u64, limits: &Limits) -> Error {
    match fault {
        sparse::Fault::Malformed(fault) => Error::Sparse {
            header_offset,
            fault,
        },
        sparse::Fault::TooManyRegions => Error::Limit {
            header_offset,
            limit: Limit::SparseRegions,
            max: limits.sparse_regions,
        },
    }
}
