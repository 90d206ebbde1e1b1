//! One pass over a tar, which may be a layer or an archive of images.
//!
//! ```text
//!   stored bytes ──> decoded ──┬──> digest (the DiffID of a layer)
//!                              └──> entries ──┬──> tree: is it a layer that can be shown?
//!                                             └──> collector: the files of an archive
//! ```
//!
//! What a tar is shows only at its end, since `oci-layout` and `manifest.json` may come
//! last; whether files are worth keeping until then is guessed by what they are called.

use std::sync::Arc;

use super::collect::{Collected, Collector, Extent};
use super::{Error, Ingest};
use crate::archive::{DOCKER_MANIFEST, Dialect};
use crate::ingest::held;
use crate::layer::tree::{self, Builder};
use crate::oci::{DiffId, Hasher};
use crate::store::{Progress, ReadAt, source};
use crate::stream::{self, BlobOffset, Chunks, Compression, Sink};
use crate::tar::{Entry, Parser};

/// How many stored bytes are read at a time.
const CHUNK: usize = 256 << 10;

/// What a pass over a tar has found.
#[derive(Debug)]
pub(super) struct Scanned {
    /// How the stream is compressed.
    pub(super) compression: Compression,
    /// The digest of the decoded bytes, if that was wanted.
    pub(super) diff_id: Option<DiffId>,
    /// Which kind of archive it is, if it is one.
    pub(super) dialect: Option<Dialect>,
    /// Its files, if they were kept.
    pub(super) collected: Option<Collected>,
    /// Why it is no layer that can be shown, which means nothing for an archive.
    pub(super) layer_fault: Option<tree::Error>,
}

/// Whether the decoded bytes of a tar are hashed. An archive has no use for it, and the
/// digest of a plain one is known when it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hashing {
    Decoded,
    Nothing,
}

/// Reads all of a tar, and keeps its files as `extent` says.
///
/// # Errors
/// What is wrong with the stream or the tar; what hinders the keeping.
pub(super) fn scan(
    ingest: &Ingest,
    source: &dyn ReadAt,
    progress: &dyn Progress,
    extent: Extent,
    hashing: Hashing,
) -> Result<Scanned, Error> {
    let limits = &ingest.options.limits;
    // As it is stored, or decoded.
    let reach = source.size().max(limits.stream.decoded_size);
    let mut feed = Feed {
        source,
        progress,
        parser: Parser::new(limits.tar.clone()),
        tree: Ok(Builder::new(&limits.tar)),
        collector: Collector::new(&ingest.writer, extent, limits.blobs, reach),
        hasher: (hashing == Hashing::Decoded).then(Hasher::sha256),
        at: 0,
        failure: None,
    };
    let decoded = stream::decode(source, &mut feed, &limits.stream);
    if let Some(failure) = feed.failure.take() {
        return Err(failure);
    }
    let compression = decoded?;
    feed.finish(compression)
}

/// The digest of what `source` decodes to.
///
/// # Errors
/// What is wrong with the stream.
pub(super) fn diff_id(source: &dyn ReadAt, limits: &stream::Limits) -> Result<DiffId, Error> {
    let mut sink = HashOnly {
        source,
        hasher: Hasher::sha256(),
    };
    stream::decode(source, &mut sink, limits)?;
    Ok(DiffId(sink.hasher.finish()))
}

struct Feed<'a> {
    source: &'a dyn ReadAt,
    progress: &'a dyn Progress,
    parser: Parser,
    tree: Result<Builder, tree::Error>,
    collector: Collector<'a>,
    hasher: Option<Hasher>,
    /// How many bytes were decoded.
    at: u64,
    /// Why the pass was stopped.
    failure: Option<Error>,
}

impl Feed<'_> {
    fn finish(self, compression: Compression) -> Result<Scanned, Error> {
        self.parser.finish()?;
        let (collected, has_marker, docker_manifest) = self.collector.finish();
        let document = |held| held::document(&held, || DOCKER_MANIFEST.to_owned());
        let docker_manifest = docker_manifest.map(document).transpose()?;
        Ok(Scanned {
            compression,
            diff_id: self.hasher.map(|hasher| DiffId(hasher.finish())),
            dialect: Dialect::of(has_marker, docker_manifest.as_deref()),
            collected,
            layer_fault: self.tree.err(),
        })
    }

    fn take(&mut self, span: &[u8]) -> Result<(), Error> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(span);
        }
        let mut entries = Vec::new();
        self.parser.feed(span, |entry: Entry| {
            entries.push(entry);
            Ok::<(), Error>(())
        })?;
        for entry in &entries {
            if let Ok(tree) = &mut self.tree
                && let Err(fault) = tree.insert(entry)
            {
                self.tree = Err(fault);
            }
        }
        self.collector.take(span, self.at, entries)?;
        self.at += span.len() as u64;
        Ok(())
    }
}

impl Chunks for Feed<'_> {
    fn chunk_at(&mut self, offset: BlobOffset) -> Result<Arc<Vec<u8>>, stream::Error> {
        let bytes = chunk_of(self.source, offset)?;
        self.progress.advance(bytes.len() as u64);
        Ok(bytes)
    }
}

impl Sink for Feed<'_> {
    fn decoded(&mut self, span: Vec<u8>) -> Result<Vec<u8>, stream::Error> {
        match self.take(&span) {
            Ok(()) => Ok(span),
            Err(failure) => {
                self.failure = Some(failure);
                Err(stream::Error::Stopped)
            }
        }
    }
}

struct HashOnly<'a> {
    source: &'a dyn ReadAt,
    hasher: Hasher,
}

impl Chunks for HashOnly<'_> {
    fn chunk_at(&mut self, offset: BlobOffset) -> Result<Arc<Vec<u8>>, stream::Error> {
        chunk_of(self.source, offset)
    }
}

impl Sink for HashOnly<'_> {
    fn decoded(&mut self, span: Vec<u8>) -> Result<Vec<u8>, stream::Error> {
        self.hasher.update(&span);
        Ok(span)
    }
}

fn chunk_of(from: &dyn ReadAt, offset: BlobOffset) -> Result<Arc<Vec<u8>>, stream::Error> {
    let mut bytes = vec![0; source::available(from.size(), offset.0, CHUNK)];
    let read = from.read_at(&mut bytes, offset.0);
    let len = read.map_err(stream::Error::from_read)?;
    bytes.truncate(len);
    Ok(Arc::new(bytes))
}
