//! Files of Tocs: `layer::toc::file`.
//!
//! Invariants, for any bytes, also once all checks in them are put right:
//! - no panic, and memory in proportion to the file;
//! - what is accepted is encoded to a file that is no longer, reads as an equal Toc, and
//!   is encoded to the same bytes again. (Not always to those that were read: sections of
//!   unknown kinds are passed over.)
//! - all of its tree can be looked at, and a walk of it ends;
//! - reads through its span table, from a blob that is not the right one, do not panic.

use std::sync::Arc;

use ocifs::layer::Toc;
use ocifs::layer::toc::file::{decode, decode_tree, encode};
use ocifs::layer::tree::{Kind, NodeId};
use ocifs::oci::Digest;
use ocifs::stream::TarOffset;
use ocifs::stream::span;

use super::access::open;

/// Lengths of the header, of a record of the section table, and of a check; file.md.
const HEADER_LEN: usize = 24;
const RECORD_LEN: usize = 32;
const CHECK_LEN: usize = 8;

/// The section that begins with the blob's digest; those of checkpoints, and their heap.
const SUMMARY: u64 = 1;
const CHECKPOINTS: u64 = 3;
const HEAP: u64 = 4;

/// Length of a checkpoint's record, in which its check is last.
const CHECKPOINT_LEN: usize = 40;

/// Decoding from a large dictionary takes long, and may: it is believed.
const MAX_READ: u64 = 4 << 20;

/// Checks the invariants.
pub fn check(bytes: &[u8]) {
    check_one(bytes);
    let mut sound = bytes.to_vec();
    if put_checks_right(&mut sound).is_some() && sound != bytes {
        check_one(&sound);
    }
}

fn check_one(bytes: &[u8]) {
    let digest = digest(bytes).unwrap_or_else(|| Digest::of(b""));
    let Some(toc) = read_all(bytes, &digest) else {
        return;
    };
    let again = encoded(&toc);
    assert!(again.len() <= bytes.len(), "encoded to more bytes");
    let read = read_all(&again, &digest).expect("what we wrote is read");
    assert!(read == toc, "another Toc when read again");
    assert!(encoded(&read) == again, "other bytes when encoded again");
    read_something(&toc, bytes);
}

/// The Toc with its tree, if both are sound; all of the tree is looked at.
fn read_all(bytes: &[u8], digest: &Digest) -> Option<Toc> {
    let file = bytes.to_vec();
    let toc = decode(&file, digest).ok()?;
    let outcome = decode_tree(&file, digest).ok()?;
    if let Some(Ok(tree)) = &outcome {
        let mut todo = vec![NodeId::ROOT];
        while let Some(directory) = todo.pop() {
            for (name, id) in tree.list(directory) {
                assert_eq!(tree.find(directory, name), Some(id));
                let _ = (tree.content(id), tree.xattrs(id).count());
                if tree.node(id).kind == Kind::Directory {
                    todo.push(id);
                }
            }
        }
    }
    if let Some(outcome) = outcome {
        toc.set_tree(outcome.map(Arc::new));
    }
    Some(toc)
}

fn encoded(toc: &Toc) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(toc, &mut bytes).expect("memory is there");
    bytes
}

/// Reads the first and the last bytes, with the file itself as the blob.
fn read_something(toc: &Toc, bytes: &[u8]) {
    if toc.size() > MAX_READ {
        return;
    }
    let stream = open(toc.spans(), bytes.to_vec(), 0);
    for offset in [0, toc.size().saturating_sub(9)] {
        let _ = stream.read_at(&mut [0; 9], TarOffset(offset));
    }
}

/// The digest in the summary.
fn digest(bytes: &[u8]) -> Option<Digest> {
    let (offset, _) =
        sections(bytes).find_map(|(kind, range)| (kind == SUMMARY).then_some(range))?;
    let len = bytes.get(offset..offset + 2)?;
    let len = usize::from(u16::from_le_bytes(len.try_into().ok()?));
    let text = bytes.get(offset + 2..offset + 2 + len)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Kind, offset and length of each section that lies in the file.
fn sections(bytes: &[u8]) -> impl Iterator<Item = (u64, (usize, usize))> {
    let count = bytes.get(12..16).map_or(0, |count| usize::from(count[0]));
    (0..count).map_while(|section| {
        let at = HEADER_LEN + RECORD_LEN * section;
        let (kind, offset, len) = (
            number(bytes, at)?,
            number(bytes, at + 8)?,
            number(bytes, at + 16)?,
        );
        let (offset, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
        bytes.get(offset..offset.checked_add(len)?)?;
        Some((kind, (offset, len)))
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// Makes the check of the checkpoint at `at` fit its piece of the heap, if it has one.
fn put_piece_right(bytes: &mut [u8], at: usize, (offset, len): (usize, usize)) -> Option<()> {
    let field = |from| {
        let field = bytes.get(at + from..at + from + 4)?;
        Some(u32::from_le_bytes(field.try_into().ok()?) as usize)
    };
    let (start, piece_len) = (field(16)?, field(20)?);
    let piece = bytes
        .get(offset..offset + len)?
        .get(start..start + piece_len)?;
    let check = span::check(piece);
    let place = bytes.get_mut(at + CHECKPOINT_LEN - CHECK_LEN..at + CHECKPOINT_LEN)?;
    place.copy_from_slice(&check.to_le_bytes());
    Some(())
}

/// Makes the length and all checks fit the bytes; `None` where there is no section table.
fn put_checks_right(bytes: &mut [u8]) -> Option<()> {
    let len = bytes.len() as u64;
    bytes.get_mut(16..24)?.copy_from_slice(&len.to_le_bytes());
    let found: Vec<_> = sections(bytes).collect();
    let section = |wanted| found.iter().find(|(kind, _)| *kind == wanted);
    if let (Some((_, list)), Some((_, heap))) = (section(CHECKPOINTS), section(HEAP)) {
        for at in
            (list.0..list.0 + list.1 / CHECKPOINT_LEN * CHECKPOINT_LEN).step_by(CHECKPOINT_LEN)
        {
            put_piece_right(bytes, at, *heap);
        }
    }
    for (section, (_, (offset, len))) in found.iter().enumerate() {
        let check = span::check(&bytes[*offset..offset + len]);
        let at = HEADER_LEN + RECORD_LEN * section + 24;
        let place = bytes.get_mut(at..at + CHECK_LEN)?;
        place.copy_from_slice(&check.to_le_bytes());
    }
    let head_len = HEADER_LEN + RECORD_LEN * usize::from(*bytes.get(12)?);
    let check = span::check(bytes.get(..head_len)?);
    let place = bytes.get_mut(head_len..head_len + CHECK_LEN)?;
    place.copy_from_slice(&check.to_le_bytes());
    Some(())
}
