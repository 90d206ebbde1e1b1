//! What some bytes are, by their beginning; never by a name.

use super::{Error, Limits};
use crate::archive;
use crate::oci::limits::Limit;
use crate::oci::{DocumentType, MediaType, json, raw};
use crate::store::ReadAt;
use crate::stream;
use crate::tar::{self, Entry, Kind, Parser};

/// How many decoded bytes decide.
const HEAD: usize = 16 << 10;

/// The longest tar without entries: GNU tar fills its last record with zeros.
const MAX_EMPTY_TAR: usize = 10_240;

/// The size of a tar's blocks, in bytes.
const BLOCK: usize = 512;

/// What some bytes are taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A tar, maybe compressed, which the rest may show to be damaged.
    Tar {
        /// Whether it begins as an archive of images does.
        is_likely_archive: bool,
    },
    /// A manifest or an index of this type.
    Document(MediaType),
    /// Anything else.
    Other,
}

/// Looks at the beginning of `source`.
///
/// # Errors
/// If it cannot be read.
pub(super) fn sniff(source: &dyn ReadAt, limits: &Limits) -> Result<Content, Error> {
    let mut head = vec![0; HEAD];
    let len = match stream::head(source, &mut head, &limits.stream) {
        Ok(len) => len,
        // Compressed in a way that no layer is.
        Err(error) if error.is_of_the_stream() => return Ok(Content::Other),
        Err(error) => return Err(error.into()),
    };
    head.truncate(len);
    if let Some(entries) = tar_entries(&head, limits) {
        let is_likely_archive = entries.iter().all(is_likely);
        return Ok(Content::Tar { is_likely_archive });
    }
    if head.trim_ascii_start().first() != Some(&b'{')
        || Limit::DocumentSize.check(source.size()).is_err()
    {
        return Ok(Content::Other);
    }
    let bytes = read_all(source)?;
    Ok(document_type(&bytes).map_or(Content::Other, Content::Document))
}

/// All of a small source.
pub(super) fn read_all(source: &dyn ReadAt) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(source.size()).unwrap_or(0)];
    let len = source.read_at(&mut bytes, 0).map_err(Error::read)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// The entries whose headers are in the first bytes of a tar; `None` if they are of none.
fn tar_entries(head: &[u8], limits: &Limits) -> Option<Vec<Entry>> {
    let first = head.get(..BLOCK)?;
    if first.iter().all(|byte| *byte == 0) {
        let is_empty_tar = (2 * BLOCK..=MAX_EMPTY_TAR).contains(&head.len())
            && head.len().is_multiple_of(BLOCK)
            && head.iter().all(|byte| *byte == 0);
        return is_empty_tar.then(Vec::new);
    }
    let mut entries = Vec::new();
    let mut parser = Parser::new(limits.tar.clone());
    let parsed = parser.feed(head, |entry| {
        entries.push(entry);
        Ok::<(), tar::Error>(())
    });
    match parsed {
        // What has no checksum at its very beginning is not even a damaged tar.
        Err(tar::Error::Checksum { header_offset: 0 }) => None,
        _ => Some(entries),
    }
}

/// Whether an archive of images may have this entry.
pub(super) fn is_likely(entry: &Entry) -> bool {
    let as_file = || archive::is_likely_member(&entry.path);
    match entry.kind {
        // Directories of archives hold nothing but such files.
        Kind::Directory => {
            let inside = [&entry.path[..], b"/json"].concat();
            let below = [&entry.path[..], b"/x"].concat();
            entry.path.is_empty()
                || entry.path == b"blobs"
                || archive::is_likely_member(&inside)
                || archive::is_likely_member(&below)
        }
        Kind::File(_) | Kind::Symlink { .. } | Kind::HardLink { .. } => as_file(),
        Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo => false,
    }
}

/// The type of document that JSON says it is, or has the members of. Whether it is right
/// is for others to say; what is no JSON, or of another type, is no document.
pub(super) fn document_type(bytes: &[u8]) -> Option<MediaType> {
    let text = std::str::from_utf8(bytes).ok()?;
    let members = raw::members(text)?;
    let find = |key: &str| members.iter().find(|member| member.key == key);
    let has = |key: &str| find(key).is_some();
    if let Some(member) = find("mediaType") {
        let value = json::parse(text[member.value.clone()].as_bytes()).ok()?;
        let media_type = MediaType::new(value.as_str()?);
        return DocumentType::of(&media_type)
            .is_some()
            .then_some(media_type);
    }
    if !has("schemaVersion") {
        return None;
    }
    if has("manifests") {
        Some(MediaType::IMAGE_INDEX)
    } else if has("config") && has("layers") {
        Some(MediaType::IMAGE_MANIFEST)
    } else if has("fsLayers") {
        let schema1 = "application/vnd.docker.distribution.manifest.v1+json";
        Some(MediaType::new(schema1))
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
