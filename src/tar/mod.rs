//! The tar format: bytes in, entries out; and back, in [`mod@write`].
//!
//! ```text
//!   bytes of a layer's tar, in pieces        Parser           entries, as they come
//!   ┌──┬────────┬──┬──┬─────────┬──┬─        ┌──────┐
//!   │x │records │0 │00│data     │1 │00   ──> │ feed │ ──> Entry { path, kind, mode, .. }
//!   └──┴────────┴──┴──┴─────────┴──┴─        └──────┘
//! ```
//!
//! A layer gets one pass, so nothing is read twice: each block is looked at once, file
//! data is stepped over and only remembered by its place ([`Content`]). A header and the
//! extension headers before it become one [`Entry`]; what the entries of a layer mean
//! together (hard links, duplicates, whiteouts) is for others to say.
//!
//! V7, ustar, pax, GNU and star headers are read; pax records, GNU long names, and sparse
//! files in all four forms of GNU tar.
//!
//! Invariants:
//! - How the bytes are cut into calls of [`Parser::feed`] makes no difference.
//! - Memory and time are bounded by [`Limits`] and the bytes that came, never by numbers
//!   that they contain.
//! - An entry's path and hard link target stay below the root and fit a file system.
//! - No input panics; an error is final.
//!
//! # Which reading counts
//!
//! Tars have been ambiguous for forty years. Nearly all layers were only ever read by Go's
//! archive/tar (docker, containerd, podman), so its reading counts: what it accepts means
//! here what it means there, and what it refuses is malformed. The decisions where good
//! tools differ:
//!
//! | case | reading |
//! |---|---|
//! | a pax header replaced by another, parted from its entry by a global one, or at the end | without effect, with a warning |
//! | global pax headers | ignored, with a warning if one sets what has a meaning |
//! | pax `path` and GNU long name together | the long name, with a warning |
//! | a record's length with a plus sign | accepted |
//! | a known pax key with an empty value | the header's value stands |
//! | the size of links, directories and special files | ignored: no data follows |
//! | type `0`, name with a trailing slash | a file; a directory only with the oldest type, NUL |
//! | unknown sparse version in a pax header | an ordinary file |
//! | a lone block of zeros | the end if nothing follows, else malformed |
//! | no zeros at the end; the last padding cut off | accepted |
//! | anything after two blocks of zeros | ignored, with a warning |
//! | GNU header with a prefix instead of times (Go before 1.8) | the prefix is used |
//!
//! Stricter than Go, where a file system could not show what it accepts:
//! - owners above `u32::MAX - 1` and device numbers above `u32::MAX`;
//! - components over 255 bytes, a NUL in `GNU.sparse.name`, symlink targets that are empty
//!   or over 4,095 bytes; the root as anything but a directory; a hard link to the root,
//!   to above it, or to itself;
//! - types that its callers refuse: unknown ones, incremental and multi-volume archives;
//!   Solaris' `X` is the one that is unsupported and not malformed;
//! - a sparse file whose regions and stored bytes differ in length, which Go notices only
//!   when it reads it.
//!
//! More lenient than Go: extended attributes in libarchive's form (`LIBARCHIVE.xattr.`)
//! are read where star's form is missing, and empty ones are kept, as containerd does.
//! Access control lists as text (`SCHILY.acl.access`, `SCHILY.acl.default`), which Go
//! leaves alone, are the extended attributes that extracting them would make.
//! A volume label (`V`) is skipped.

mod acl;
mod entry;
mod error;
mod header;
mod limits;
mod number;
mod parser;
mod path;
mod pax;
mod resolve;
mod sparse;
#[cfg(test)]
mod tests;
mod warning;
pub mod write;
mod xattr;

pub use entry::{Content, Device, Entry, Kind, Region, Xattr};
pub use error::{Error, ErrorClass};
pub use limits::{Limit, Limits};
pub use parser::{Parser, Summary};
pub use warning::{Warning, Warnings};
pub use xattr::is_hidden as is_hidden_xattr;
