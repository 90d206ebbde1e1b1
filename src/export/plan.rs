//! An archive as a list of extents: what is in memory, and what is in stored blobs.
//!
//! ```text
//!   ┌────────┬─────────┬──────────────────┬─────────┬───  ───┬─────────────────┐
//!   │ header │  blob   │ padding, header  │  blob   │  ...   │ padding, header,│
//!   │        │         │                  │         │        │ document, end   │
//!   └────────┴─────────┴──────────────────┴─────────┴───  ───┴─────────────────┘
//!     memory    stored         memory        stored               memory
//! ```
//!
//! All that is in memory together fixes the archive: headers name each blob by its digest
//! ([`Plan::fingerprint`]).

use serde_json::Value;

use super::graph::Found;
use super::oci::Contents;
use super::{Error, Format, Root, docker, oci};
use crate::oci::{Descriptor, Digest};
use crate::store::BlobSource;
use crate::store::source::available;
use crate::tar;
use crate::tar::write::{self, NewEntry, NewKind};

/// The largest archive, in bytes: offsets of files go no further.
const MAX_SIZE: u64 = i64::MAX as u64;

/// A member of an archive; its path is its key in a sorted table.
#[derive(Debug)]
pub(super) enum Member {
    Directory,
    /// A small file with these bytes.
    Document(Vec<u8>),
    /// A file with the bytes of a stored blob.
    Blob(Box<Descriptor>),
}

impl Member {
    /// A file with this JSON text.
    pub(super) fn document(value: &Value) -> Self {
        Self::Document(value.to_string().into_bytes())
    }

    fn kind(&self) -> NewKind<'static> {
        match self {
            Self::Directory => NewKind::Directory,
            Self::Document(bytes) => NewKind::File {
                size: bytes.len() as u64,
            },
            Self::Blob(descriptor) => NewKind::File {
                size: descriptor.size,
            },
        }
    }
}

/// A part of an archive whose bytes are in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// All bytes of a stored blob.
    Blob(&'a Descriptor),
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    /// Where it begins in the archive.
    start: u64,
    content: Content,
}

#[derive(Debug, Clone, Copy)]
enum Content {
    /// From this position of the memory.
    Memory(usize),
    /// All of the blob with this number.
    Blob(usize),
}

/// An archive that was not written: its size, and where each byte of it is.
///
/// Takes memory for headers and documents alone: about a kilobyte for each blob.
#[derive(Debug)]
pub struct Plan {
    size: u64,
    memory: Vec<u8>,
    /// Without gaps, none of them empty.
    extents: Vec<Extent>,
    blobs: Vec<Descriptor>,
    disputed: Vec<Descriptor>,
    left_out: Vec<Descriptor>,
}

impl Plan {
    /// Plans an archive of `roots`. Reads their manifests and indexes, and no other blob.
    ///
    /// # Errors
    /// What is wrong with a document or the whole. That a blob is missing or damaged is
    /// found out by who reads it.
    pub fn new(blobs: &dyn BlobSource, format: Format, roots: &[Root]) -> Result<Self, Error> {
        let contents = match format {
            Format::Oci => oci::contents(blobs, roots)?,
            Format::Docker => docker::contents(blobs, roots)?,
        };
        Draft::default().finish(contents)
    }

    /// How many bytes the archive has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of all that is not in blobs: plans with the same are of the same bytes.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.memory)
    }

    /// The blobs of the archive, in its order.
    #[must_use]
    pub fn blobs(&self) -> &[Descriptor] {
        &self.blobs
    }

    /// All that descriptors say of these blobs: each must be right, or the image is not.
    pub fn claims(&self) -> impl Iterator<Item = &Descriptor> {
        self.blobs.iter().chain(&self.disputed)
    }

    /// What is not in the archive, or not whole, because the layout has not all of it:
    /// images of an index, and layers that may not be distributed.
    #[must_use]
    pub fn left_out(&self) -> &[Descriptor] {
        &self.left_out
    }

    /// The archive from its beginning to its end.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        (0..self.extents.len()).map(|number| match self.extents[number].content {
            Content::Blob(blob) => Piece::Blob(&self.blobs[blob]),
            Content::Memory(at) => Piece::Bytes(&self.memory[at..at + self.memory_len(number)]),
        })
    }

    /// Fills `buf` with what the archive has from `offset`; fewer bytes than asked only at
    /// the end. `read_blob` fills a buffer with bytes of the blob of that number
    /// ([`Plan::blobs`]), from an offset in it.
    ///
    /// # Errors
    /// What `read_blob` answers.
    pub fn read_at<E>(
        &self,
        buf: &mut [u8],
        offset: u64,
        mut read_blob: impl FnMut(usize, &mut [u8], u64) -> Result<(), E>,
    ) -> Result<usize, E> {
        let wanted = available(self.size, offset, buf.len());
        let mut number = self.extents.partition_point(|next| next.start <= offset);
        let mut done = 0;
        while done < wanted {
            let extent = self.extents[number - 1];
            let at = offset + done as u64;
            let len = available(self.end_of(number - 1), at, wanted - done);
            let part = &mut buf[done..done + len];
            let inside = at - extent.start;
            match extent.content {
                Content::Blob(blob) => read_blob(blob, part, inside)?,
                Content::Memory(start) => self.copy_memory(start, inside, part),
            }
            done += len;
            number += 1;
        }
        Ok(wanted)
    }

    fn copy_memory(&self, start: usize, inside: u64, part: &mut [u8]) {
        // It is an offset in a vector.
        let start = start + usize::try_from(inside).unwrap_or(0);
        part.copy_from_slice(&self.memory[start..start + part.len()]);
    }

    /// Where the extent ends in the archive.
    fn end_of(&self, number: usize) -> u64 {
        let next = self.extents.get(number + 1);
        next.map_or(self.size, |next| next.start)
    }

    fn memory_len(&self, number: usize) -> usize {
        let len = self.end_of(number) - self.extents[number].start;
        // It is the length of a part of a vector.
        usize::try_from(len).unwrap_or(0)
    }
}

/// A plan that grows.
#[derive(Debug, Default)]
pub(super) struct Draft {
    size: u64,
    memory: Vec<u8>,
    extents: Vec<Extent>,
    blobs: Vec<Descriptor>,
}

impl Draft {
    pub(super) fn finish(mut self, contents: Contents) -> Result<Plan, Error> {
        for (path, member) in contents.members {
            self.header(&path, member.kind());
            match member {
                Member::Directory => {}
                Member::Document(bytes) => {
                    self.bytes(&bytes);
                    self.padding(bytes.len() as u64);
                }
                Member::Blob(descriptor) => {
                    let size = descriptor.size;
                    self.blob(*descriptor);
                    self.padding(size);
                }
            }
        }
        self.bytes(&write::END);
        let Found {
            disputed, left_out, ..
        } = contents.found;
        if self.size > MAX_SIZE {
            return Err(Error::TooLarge);
        }
        Ok(Plan {
            size: self.size,
            memory: self.memory,
            extents: self.extents,
            blobs: self.blobs,
            disputed,
            left_out: left_out.into_values().collect(),
        })
    }

    fn header(&mut self, path: &str, kind: NewKind<'_>) {
        let mode = if kind == NewKind::Directory {
            0o755
        } else {
            0o644
        };
        let entry = NewEntry {
            path: path.trim_end_matches('/').as_bytes(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            mtime_nanoseconds: 0,
            xattrs: &[],
        };
        let mut header = Vec::new();
        write::append(&mut header, &entry, &tar::Limits::default())
            .expect("a path of some hundred bytes and a size are below the limits");
        self.bytes(&header);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let last = self.extents.last().map(|extent| extent.content);
        if !matches!(last, Some(Content::Memory(_))) {
            self.begin(Content::Memory(self.memory.len()));
        }
        self.memory.extend_from_slice(bytes);
        self.grow(bytes.len() as u64);
    }

    fn blob(&mut self, descriptor: Descriptor) {
        let size = descriptor.size;
        if size > 0 {
            self.begin(Content::Blob(self.blobs.len()));
            self.grow(size);
        }
        self.blobs.push(descriptor);
    }

    fn padding(&mut self, len: u64) {
        self.bytes(&write::END[..write::padding(len)]);
    }

    fn begin(&mut self, content: Content) {
        let start = self.size;
        self.extents.push(Extent { start, content });
    }

    /// Sizes are foreign: what is too large stays too large.
    fn grow(&mut self, len: u64) {
        self.size = self.size.saturating_add(len);
    }
}
