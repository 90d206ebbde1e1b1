//! The files of a tar while it passes by: what may be an archive of images is kept, small
//! files in memory, large ones in files without names.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use super::error::check_blob_size;
use super::held::{Held, write_error};
use super::{Error, sniff};
use crate::archive::{self, Member, Members};
use crate::oci::Digest;
use crate::oci::limits::MAX_DOCUMENT_SIZE;
use crate::store::LayoutWriter;
use crate::store::layout::writer::BlobWriter;
use crate::store::verify::MAX_BLOB_SIZE;
use crate::tar::{Content, Entry, Kind};

/// The largest file that is kept in memory, in bytes: most documents.
const MAX_IN_MEMORY: u64 = 64 << 10;

/// How many bytes of such files are kept in memory, all together.
const MEMORY: u64 = 32 << 20;

/// How much of a tar is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything.
    All,
    /// Everything, until something shows that it is no archive of images.
    WhileLikely,
    /// No more than what tells an archive of images from other tars.
    Markers,
}

/// What was kept of a tar.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// Which file a path stands for, by its digest.
    pub(super) members: Members<Digest>,
    /// The files.
    pub(super) files: BTreeMap<Digest, Held>,
}

impl Collected {
    /// The content of the file at `path`.
    pub(super) fn find(&self, path: &str) -> Result<Option<&Held>, Error> {
        Ok(self.find_with_digest(path)?.map(|(_, held)| held))
    }

    /// The same, and its digest, which is not worked out for that.
    pub(super) fn find_with_digest(&self, path: &str) -> Result<Option<(&Digest, &Held)>, Error> {
        let digest = self.members.find(path)?;
        Ok(digest.and_then(|digest| self.files.get_key_value(digest)))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Collector<'a> {
    writer: &'a LayoutWriter,
    extent: Extent,
    max_blobs: usize,
    /// How far the tar goes at the most, in bytes.
    reach: u64,
    collected: Collected,
    /// Bytes in memory.
    memory: u64,
    current: Option<Current>,
    /// Whether there is a file `oci-layout`.
    has_marker: bool,
    /// The digest of the last `manifest.json`.
    docker_manifest: Option<Digest>,
}

/// The file whose bytes pass by.
#[derive(Debug)]
struct Current {
    path: Vec<u8>,
    /// Where its next byte lies, and where it ends, in bytes from the start of the tar.
    next: u64,
    end: u64,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Memory(Vec<u8>),
    File(Box<BlobWriter>),
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        writer: &'a LayoutWriter,
        extent: Extent,
        max_blobs: usize,
        reach: u64,
    ) -> Self {
        Self {
            writer,
            extent,
            max_blobs,
            reach,
            collected: Collected::default(),
            memory: 0,
            current: None,
            has_marker: false,
            docker_manifest: None,
        }
    }

    /// Takes the bytes `span`, which lie at `at` in the tar, and the entries whose headers
    /// were complete within it, in order.
    pub(super) fn take(&mut self, span: &[u8], at: u64, entries: Vec<Entry>) -> Result<(), Error> {
        self.write(span, at)?;
        for entry in entries {
            self.begin(entry)?;
            self.write(span, at)?;
        }
        Ok(())
    }

    /// What was kept, whether it has the marker of a layout, and its `manifest.json`.
    pub(super) fn finish(self) -> (Option<Collected>, bool, Option<Held>) {
        let manifest = self
            .docker_manifest
            .and_then(|digest| self.collected.files.get(&digest).cloned());
        let is_kept = self.extent != Extent::Markers;
        (is_kept.then_some(self.collected), self.has_marker, manifest)
    }

    fn begin(&mut self, entry: Entry) -> Result<(), Error> {
        if self.extent == Extent::WhileLikely && !sniff::is_likely(&entry) {
            self.give_up();
        }
        let is_file = matches!(entry.kind, Kind::File(_));
        self.has_marker |= is_file && entry.path == archive::OCI_MARKER.as_bytes();
        let is_kept = self.extent != Extent::Markers;
        let member = match entry.kind {
            Kind::Directory => return Ok(()),
            Kind::File(Content {
                regions: None,
                stored_len,
                data_offset,
                ..
            }) => {
                return self.begin_file(entry.path, data_offset, stored_len);
            }
            Kind::File(_) => Member::Sparse,
            Kind::Symlink { target } => Member::Symlink(target),
            Kind::HardLink { target } => Member::HardLink(target),
            Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo => Member::Special,
        };
        if is_kept {
            self.check_room()?;
            self.collected.members.insert(&entry.path, member);
        }
        Ok(())
    }

    fn begin_file(&mut self, path: Vec<u8>, start: u64, len: u64) -> Result<(), Error> {
        if self.extent != Extent::Markers {
            self.check_room()?;
        }
        let is_manifest = path == archive::DOCKER_MANIFEST.as_bytes() && len <= MAX_DOCUMENT_SIZE;
        if self.extent == Extent::Markers && !is_manifest {
            return Ok(());
        }
        let end = start.saturating_add(len);
        if len > MAX_BLOB_SIZE {
            // A hole as well would be written, for minutes. What the tar cannot have makes it
            // one that is cut short, which shows at its end.
            return match end <= self.reach {
                true => check_blob_size(len, || path.escape_ascii().to_string()),
                false => Ok(()),
            };
        }
        let bytes = if len <= MAX_IN_MEMORY && self.memory + len <= MEMORY {
            self.memory += len;
            Bytes::Memory(Vec::new())
        } else {
            Bytes::File(Box::new(self.writer.blob()?))
        };
        self.current = Some(Current {
            path,
            next: start,
            end,
            bytes,
        });
        Ok(())
    }

    /// Sees that not too much is held. What is no archive of images may have any number of
    /// files, so that many only show that it is none.
    fn check_room(&mut self) -> Result<(), Error> {
        if self.collected.members.len() < self.max_blobs {
            return Ok(());
        }
        if self.extent == Extent::All {
            return Err(Error::TooManyBlobs {
                limit: self.max_blobs,
            });
        }
        self.give_up();
        Ok(())
    }

    /// Keeps nothing from now on, and nothing of what was kept, but the markers.
    fn give_up(&mut self) {
        self.extent = Extent::Markers;
        let files = std::mem::take(&mut self.collected).files;
        let is_manifest = |digest: &Digest| Some(digest) == self.docker_manifest.as_ref();
        self.collected.files = files.into_iter().filter(|(d, _)| is_manifest(d)).collect();
        self.memory = 0;
    }

    /// Takes those bytes of `span` that belong to the current file.
    fn write(&mut self, span: &[u8], at: u64) -> Result<(), Error> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let within = |offset: u64| {
            let offset = offset.saturating_sub(at);
            usize::try_from(offset).map_or(span.len(), |offset| offset.min(span.len()))
        };
        let part = &span[within(current.next)..within(current.end)];
        match &mut current.bytes {
            Bytes::Memory(bytes) => bytes.extend_from_slice(part),
            Bytes::File(blob) => {
                let written = blob.write_all(part);
                written.map_err(|source| write_error(self.writer, source))?;
            }
        }
        current.next += part.len() as u64;
        if current.next == current.end {
            self.end_file()?;
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), Error> {
        let Some(Current { path, bytes, .. }) = self.current.take() else {
            return Ok(());
        };
        let held = match bytes {
            Bytes::Memory(bytes) => Held::Memory(Arc::new(bytes)),
            Bytes::File(blob) => Held::File(blob.seal()?),
        };
        let digest = held.digest();
        if path == archive::DOCKER_MANIFEST.as_bytes() {
            self.docker_manifest = Some(digest.clone());
        }
        if self.extent == Extent::Markers {
            self.collected.files.clear();
        } else {
            let member = Member::File(digest.clone());
            self.collected.members.insert(&path, member);
        }
        self.collected.files.entry(digest).or_insert(held);
        Ok(())
    }
}
