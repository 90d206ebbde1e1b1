#![doc = include_str!("file.md")]

use std::io::{self, Write};
use std::sync::Arc;

use crate::layer::toc::Toc;
use crate::layer::tree::{self, Tree};
use crate::oci::{DiffId, Digest};
use crate::store::ReadAt;
use crate::stream::checkpoint::{Checkpoint, Restart};
use crate::stream::span::{self, Span};
use crate::stream::{
    BlobOffset, Checkpoints, Compression, Heap, HeapRange, SpanId, SpanTable, TarOffset,
};
use crate::tar::ErrorClass;

const MAGIC: &[u8; 8] = b"ocifstoc";

/// Another number makes all older files unread.
const VERSION: u32 = 6;

/// More sections than this are no file of ours.
const MAX_SECTIONS: u32 = 64;

const HEADER_LEN: usize = 24;
const RECORD_LEN: usize = 32;
const CHECK_LEN: usize = 8;

const SUMMARY: u32 = 1;
const SPANS: u32 = 2;
const CHECKPOINTS: u32 = 3;
const HEAP: u32 = 4;
/// The tables of the tree: names, nodes, heap. All three are there, or none.
const TREE: [u32; 3] = [5, 6, 7];
/// Why there is no tree.
const FAILURE: u32 = 8;

const SPAN_LEN: usize = 24;
const CHECKPOINT_LEN: usize = 40;

/// The longest text of a failure, in bytes; real ones have some hundred.
const MAX_TEXT: usize = 1000;

/// A heap of fewer bytes is read with the rest: it takes no time, and no open file.
const LONG_HEAP: usize = 512 << 10;

/// What makes a file unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not a Toc of this version.
    #[error("not a table of contents of version {VERSION}")]
    Foreign,
    /// It is shorter or longer than it says.
    #[error("wrong length")]
    Length,
    /// A check does not fit.
    #[error("damaged")]
    Check,
    /// A section is missing.
    #[error("no section of kind {kind}")]
    Missing {
        /// Its kind.
        kind: u32,
    },
    /// A field holds what it cannot hold.
    #[error("impossible {field}")]
    Field {
        /// Which one.
        field: &'static str,
    },
    /// The spans and checkpoints make no table.
    #[error(transparent)]
    Table(#[from] span::Fault),
    /// The tables of the tree make no tree.
    #[error(transparent)]
    Tree(#[from] tree::Fault),
    /// It is of another blob.
    #[error("of another blob")]
    OtherBlob,
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::ErrorKind),
}

/// Writes `toc` in the form that [`decode`] reads.
///
/// # Errors
/// Those of `out`; [`io::ErrorKind::InvalidData`] if the checkpoints were left in a file and
/// are damaged there.
pub fn encode(toc: &Toc, out: &mut dyn Write) -> io::Result<()> {
    let table = toc.spans();
    let checkpoints = table.checkpoints();
    let spans: Vec<u8> = table.spans().iter().flat_map(span_record).collect();
    let list: Vec<u8> = checkpoints
        .list
        .iter()
        .flat_map(checkpoint_record)
        .collect();
    let summary = summary(toc);
    let heap = checkpoints.heap.bytes()?;
    let mut sections: Vec<(u32, &[u8])> = vec![
        (SUMMARY, &summary),
        (SPANS, &spans),
        (CHECKPOINTS, &list),
        (HEAP, &heap),
    ];
    let failure = match toc.tree() {
        Some(Err(error)) => failure(error),
        Some(Ok(_)) | None => None,
    };
    if let Some(Ok(tree)) = toc.tree() {
        sections.extend(TREE.into_iter().zip(tree.tables()));
    }
    sections.extend(failure.as_deref().map(|failure| (FAILURE, failure)));
    out.write_all(&head(&sections))?;
    for (_, bytes) in sections {
        out.write_all(bytes)?;
    }
    Ok(())
}

/// The header, the section table, and the check of both.
fn head(sections: &[(u32, &[u8])]) -> Vec<u8> {
    let mut at = (HEADER_LEN + RECORD_LEN * sections.len() + CHECK_LEN) as u64;
    let total = at
        + sections
            .iter()
            .map(|(_, bytes)| bytes.len() as u64)
            .sum::<u64>();
    let count = u32::try_from(sections.len()).expect("there are few");
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&count.to_le_bytes());
    head.extend_from_slice(&total.to_le_bytes());
    for (kind, bytes) in sections {
        head.extend_from_slice(&u64::from(*kind).to_le_bytes());
        head.extend_from_slice(&at.to_le_bytes());
        head.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        head.extend_from_slice(&span::check(bytes).to_le_bytes());
        at += bytes.len() as u64;
    }
    let check = span::check(&head);
    head.extend_from_slice(&check.to_le_bytes());
    head
}

fn summary(toc: &Toc) -> Vec<u8> {
    let mut bytes = Vec::new();
    for digest in [toc.digest(), &toc.diff_id().0] {
        put_text(&mut bytes, digest.as_str());
    }
    bytes.extend_from_slice(&toc.blob_size().to_le_bytes());
    bytes.extend_from_slice(&toc.size().to_le_bytes());
    bytes.push(match toc.compression() {
        Compression::Plain => 0,
        Compression::Gzip => 1,
        Compression::Zstd => 2,
    });
    bytes
}

/// Why there is no tree, unless another reader may accept more.
fn failure(error: &tree::Error) -> Option<Vec<u8>> {
    let class = match error.class() {
        ErrorClass::Malformed => 0,
        ErrorClass::Unsupported => 1,
        ErrorClass::Limit => return None,
    };
    let text = error.to_string();
    let mut ends = (0..=MAX_TEXT).rev();
    let text = &text[..ends.find(|end| text.is_char_boundary(*end))?];
    // What could not be read again is not written.
    tree::Error::known(error.code(), error.class(), text)?;
    let mut bytes = vec![class];
    put_text(&mut bytes, error.code());
    put_text(&mut bytes, text);
    Some(bytes)
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("texts have 1000 bytes at most");
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn span_record(span: &Span) -> [u8; SPAN_LEN] {
    let mut record = [0; SPAN_LEN];
    record[..8].copy_from_slice(&span.tar_offset.0.to_le_bytes());
    record[8..16].copy_from_slice(&span.blob_offset.0.to_le_bytes());
    record[16..].copy_from_slice(&span.check.to_le_bytes());
    record
}

fn checkpoint_record(checkpoint: &Checkpoint) -> [u8; CHECKPOINT_LEN] {
    let (kind, place, heap, heap_plain_len) = match checkpoint.restart {
        Restart::Fresh { blob_offset } => (0_u32, blob_offset.0, HeapRange::default(), 0),
        Restart::Deflate {
            bit_offset,
            window,
            window_len,
        } => (1, bit_offset, window, window_len),
        Restart::Dictionary {
            state,
            state_len,
            end,
        } => (2, u64::from(end.0), state, state_len),
    };
    let mut record = [0; CHECKPOINT_LEN];
    record[..4].copy_from_slice(&checkpoint.span.0.to_le_bytes());
    record[4..8].copy_from_slice(&kind.to_le_bytes());
    record[8..16].copy_from_slice(&place.to_le_bytes());
    record[16..20].copy_from_slice(&heap.start.to_le_bytes());
    record[20..24].copy_from_slice(&heap.len.to_le_bytes());
    record[24..28].copy_from_slice(&heap_plain_len.to_le_bytes());
    record[32..].copy_from_slice(&heap.check.to_le_bytes());
    record
}

/// Reads the Toc of the blob `digest`, without its tree, from its file.
///
/// # Errors
/// A [`Fault`] for anything that is not exactly as [`encode`] wrote it.
pub fn decode(file: &dyn ReadAt, digest: &Digest) -> Result<Toc, Fault> {
    let sections = Sections::read(file)?;
    toc(&sections, digest, sections.get(HEAP)?.into())
}

/// As [`decode`], but leaves a long heap in the file, whose pieces are then checked when
/// they are needed.
///
/// # Errors
/// As [`decode`].
pub fn open(file: Arc<dyn ReadAt>, digest: &Digest) -> Result<Toc, Fault> {
    let sections = Sections::read(&*file)?;
    let Section {
        offset, len, check, ..
    } = *sections.find(HEAP)?;
    let heap = if len < LONG_HEAP {
        sections.get(HEAP)?.into()
    } else {
        Heap::stored(Arc::clone(&file), offset, len, check)
    };
    toc(&sections, digest, heap)
}

fn toc(sections: &Sections<'_>, digest: &Digest, heap: Heap) -> Result<Toc, Fault> {
    let summary = Summary::read(sections, digest)?;
    let spans = records(&sections.get(SPANS)?, read_span)?;
    let list = records(&sections.get(CHECKPOINTS)?, read_checkpoint)?;
    let checkpoints = Checkpoints { list, heap };
    let table = SpanTable::new(summary.compression, summary.size, spans, checkpoints)?;
    let diff_id = summary.diff_id;
    Ok(Toc::new(digest.clone(), summary.blob_size, diff_id, table))
}

/// Reads the tree of the blob `digest` from the file of its Toc, or why its bytes make
/// none; `None` if neither is there.
///
/// # Errors
/// A [`Fault`] for anything that is not exactly as [`encode`] wrote it.
pub fn decode_tree(
    file: &dyn ReadAt,
    digest: &Digest,
) -> Result<Option<Result<Tree, tree::Error>>, Fault> {
    let sections = Sections::read(file)?;
    Summary::read(&sections, digest)?;
    let has_tree = TREE.iter().any(|kind| sections.has(*kind));
    match (has_tree, sections.has(FAILURE)) {
        (false, false) => Ok(None),
        (false, true) => read_failure(&sections.get(FAILURE)?).map(|error| Some(Err(error))),
        (true, true) => Err(Fault::Field { field: "tree" }),
        (true, false) => {
            let [names, nodes, heap] = TREE.map(|kind| sections.get(kind));
            Ok(Some(Ok(Tree::from_tables(names?, nodes?, heap?)?)))
        }
    }
}

fn read_failure(bytes: &[u8]) -> Result<tree::Error, Fault> {
    let fault = || Fault::Field { field: "failure" };
    let mut fields = Fields(bytes);
    let class = match fields.take()? {
        [0] => ErrorClass::Malformed,
        [1] => ErrorClass::Unsupported,
        _ => return Err(fault()),
    };
    let (code, text) = (fields.text("failure")?, fields.text("failure")?);
    fields.end("failure")?;
    if text.len() > MAX_TEXT {
        return Err(fault());
    }
    tree::Error::known(code, class, text).ok_or_else(fault)
}

/// The section of what is known of the blob as a whole.
struct Summary {
    diff_id: DiffId,
    blob_size: u64,
    size: u64,
    compression: Compression,
}

impl Summary {
    fn read(sections: &Sections<'_>, digest: &Digest) -> Result<Self, Fault> {
        let bytes = sections.get(SUMMARY)?;
        let mut fields = Fields(&bytes);
        if fields.digest()? != *digest {
            return Err(Fault::OtherBlob);
        }
        let summary = Self {
            diff_id: DiffId(fields.digest()?),
            blob_size: u64::from_le_bytes(fields.take()?),
            size: u64::from_le_bytes(fields.take()?),
            compression: match fields.take()? {
                [0] => Compression::Plain,
                [1] => Compression::Gzip,
                [2] => Compression::Zstd,
                _ => {
                    return Err(Fault::Field {
                        field: "compression",
                    });
                }
            },
        };
        fields.end("summary")?;
        Ok(summary)
    }
}

fn read_span(fields: &mut Fields<'_>) -> Result<Span, Fault> {
    Ok(Span {
        tar_offset: TarOffset(u64::from_le_bytes(fields.take()?)),
        blob_offset: BlobOffset(u64::from_le_bytes(fields.take()?)),
        check: u64::from_le_bytes(fields.take()?),
    })
}

fn read_checkpoint(fields: &mut Fields<'_>) -> Result<Checkpoint, Fault> {
    let span = SpanId(u32::from_le_bytes(fields.take()?));
    let kind = u32::from_le_bytes(fields.take()?);
    let place = u64::from_le_bytes(fields.take()?);
    let (start, len) = (fields.take()?, fields.take()?);
    let heap_plain_len = u32::from_le_bytes(fields.take()?);
    if fields.take()? != [0; 4] {
        return Err(Fault::Field { field: "padding" });
    }
    let heap = HeapRange {
        start: u32::from_le_bytes(start),
        len: u32::from_le_bytes(len),
        check: u64::from_le_bytes(fields.take()?),
    };
    let restart = match kind {
        0 => Restart::Fresh {
            blob_offset: BlobOffset(place),
        },
        1 => Restart::Deflate {
            bit_offset: place,
            window: heap,
            window_len: heap_plain_len,
        },
        2 => Restart::Dictionary {
            state: heap,
            state_len: heap_plain_len,
            end: SpanId(u32::try_from(place).map_err(|_| Fault::Field { field: "end" })?),
        },
        _ => {
            return Err(Fault::Field {
                field: "checkpoint",
            });
        }
    };
    Ok(Checkpoint { span, restart })
}

/// Reads records until the bytes are used up.
fn records<T>(
    bytes: &[u8],
    read: impl Fn(&mut Fields<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut fields = Fields(bytes);
    let mut records = Vec::new();
    while !fields.0.is_empty() {
        records.push(read(&mut fields)?);
    }
    records.shrink_to_fit();
    Ok(records)
}

/// The sections of a file whose head is sound; each is checked when it is read.
struct Sections<'a> {
    file: &'a dyn ReadAt,
    list: Vec<Section>,
}

struct Section {
    kind: u32,
    offset: u64,
    len: usize,
    check: u64,
}

impl<'a> Sections<'a> {
    fn read(file: &'a dyn ReadAt) -> Result<Self, Fault> {
        let start = read(file, 0, HEADER_LEN)?;
        let mut fields = Fields(&start);
        if fields.take()? != *MAGIC || u32::from_le_bytes(fields.take()?) != VERSION {
            return Err(Fault::Foreign);
        }
        let count = u32::from_le_bytes(fields.take()?);
        if count > MAX_SECTIONS {
            return Err(Fault::Foreign);
        }
        if u64::from_le_bytes(fields.take()?) != file.size() {
            return Err(Fault::Length);
        }
        let head_len = HEADER_LEN + RECORD_LEN * count as usize;
        let head = read(file, 0, head_len + CHECK_LEN)?;
        let (head, check) = head.split_at(head_len);
        if u64::from_le_bytes(Fields(check).take()?) != span::check(head) {
            return Err(Fault::Check);
        }
        let list = records(&head[HEADER_LEN..], read_section)?;
        let mut at = (head_len + CHECK_LEN) as u64;
        for section in &list {
            let follows = section.offset == at;
            let end = at.checked_add(section.len as u64);
            at = end.filter(|_| follows).ok_or(Fault::Length)?;
        }
        if at != file.size() {
            return Err(Fault::Length);
        }
        Ok(Self { file, list })
    }

    fn has(&self, wanted: u32) -> bool {
        self.list.iter().any(|section| section.kind == wanted)
    }

    fn find(&self, wanted: u32) -> Result<&Section, Fault> {
        let mut found = self.list.iter().filter(|section| section.kind == wanted);
        match (found.next(), found.next()) {
            (Some(section), None) => Ok(section),
            _ => Err(Fault::Missing { kind: wanted }),
        }
    }

    fn get(&self, wanted: u32) -> Result<Vec<u8>, Fault> {
        let section = self.find(wanted)?;
        let bytes = read(self.file, section.offset, section.len)?;
        if span::check(&bytes) != section.check {
            return Err(Fault::Check);
        }
        Ok(bytes)
    }
}

fn read_section(fields: &mut Fields<'_>) -> Result<Section, Fault> {
    let kind = u64::from_le_bytes(fields.take()?);
    let offset = u64::from_le_bytes(fields.take()?);
    let len = u64::from_le_bytes(fields.take()?);
    Ok(Section {
        kind: u32::try_from(kind).map_err(|_| Fault::Field { field: "kind" })?,
        offset,
        len: usize::try_from(len).map_err(|_| Fault::Length)?,
        check: u64::from_le_bytes(fields.take()?),
    })
}

/// Reads exactly `len` bytes.
fn read(file: &dyn ReadAt, offset: u64, len: usize) -> Result<Vec<u8>, Fault> {
    if file.size().saturating_sub(offset) < len as u64 {
        return Err(Fault::Length);
    }
    let mut bytes = vec![0; len];
    match file.read_at(&mut bytes, offset) {
        Ok(read) if read == len => Ok(bytes),
        Ok(_) => Err(Fault::Length),
        Err(error) => Err(Fault::Read(error.kind())),
    }
}

/// Fields of fixed width, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Fault::Length)?;
        self.0 = rest;
        Ok(*field)
    }

    fn digest(&mut self) -> Result<Digest, Fault> {
        let text = self.text("digest")?;
        text.parse().map_err(|_| Fault::Field { field: "digest" })
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, Fault> {
        let len = usize::from(u16::from_le_bytes(self.take()?));
        let (text, rest) = self.0.split_at_checked(len).ok_or(Fault::Length)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| Fault::Field { field })
    }

    fn end(&self, field: &'static str) -> Result<(), Fault> {
        self.0
            .is_empty()
            .then_some(())
            .ok_or(Fault::Field { field })
    }
}

#[cfg(test)]
mod tests;
