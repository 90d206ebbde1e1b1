//! The first pass over a layer blob: everything in one reading.
//!
//! ```text
//!  this thread:   read ──> decode, checksums, checkpoints ──> entries, tree ──┐ spans
//!                  │ stored bytes                                             │
//!  other thread:   └──> blob digest                   diff ID <───────────────┘
//! ```
//!
//! Between the two is a bounded channel, so memory is bounded by its length. The digest is
//! of the very bytes that were decoded, never of a second reading.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::layer::error::Error;
use crate::layer::layers::Limits;
use crate::layer::toc::Toc;
use crate::layer::toc::entries::Entries;
use crate::oci::{Algorithm, DiffId, Digest, Hasher};
use crate::store::verify::{MAX_BLOB_SIZE, Verdict};
use crate::store::{Blob, Progress, ReadAt, Verdicts, source};
use crate::stream::{self, BlobOffset, Chunks, Compression, Sink, SpanTable};

/// How many stored bytes are read at a time.
const CHUNK: usize = 256 << 10;

/// How many buffers may wait for the hashing thread, of a quarter of a megabyte each.
const WAITING: usize = 16;

/// What a pass reports to and obeys.
#[derive(Debug)]
pub struct Control<'a> {
    /// Told of stored bytes.
    pub progress: &'a dyn Progress,
    /// Ends the pass when it becomes true.
    pub stop: &'a AtomicBool,
}

/// Makes the first pass over `blob` and records the verdict on it.
///
/// # Errors
/// A blob that has another digest is [`Error::DigestMismatch`] whatever its stream is like,
/// so a stream that fails is read to the end all the same; see [`Error`] for the others.
pub fn build(
    blob: &Blob,
    limits: &Limits,
    verdicts: &Verdicts,
    control: &Control<'_>,
) -> Result<Toc, Error> {
    let thread = thread::Builder::new().name("layer-hash".to_owned());
    let (table, entries, hashes) = pass(blob, limits, control, thread)?;
    judge(blob, verdicts, &table, &hashes)?;
    let table = table.map_err(|error| Error::stream(blob.digest(), error))?;
    let diff_id = DiffId(hashes.decoded.unwrap_or(hashes.stored));
    let toc = Toc::new(blob.digest().clone(), blob.size(), diff_id, table);
    toc.set_tree(entries.finish(blob.digest()).map(Arc::new));
    Ok(toc)
}

/// Decodes, and hashes on `thread`; the stream may be bad while the digests are good.
fn pass(
    blob: &Blob,
    limits: &Limits,
    control: &Control<'_>,
    thread: thread::Builder,
) -> Result<(Result<SpanTable, stream::Error>, Entries, Hashes), Error> {
    let hashing = Hashing::new(blob)?;
    let (full, to_hash) = sync_channel(WAITING);
    let (used, empty) = sync_channel(WAITING);
    thread::scope(|scope| {
        let hashing = thread.spawn_scoped(scope, move || hashing.run(&to_hash, &used));
        let hashing = hashing.map_err(|source| Error::Read {
            digest: blob.digest().clone(),
            source: Arc::new(source),
        })?;
        let mut feed = Feed {
            blob,
            control,
            full,
            empty,
            at: 0,
            entries: Entries::new(&limits.tar),
        };
        let table = feed.scan(&limits.stream);
        let entries = feed.end();
        let hashes = hashing.join().map_err(|_| Error::BrokenOff {
            digest: blob.digest().clone(),
        })?;
        Ok((table, entries, hashes))
    })
}

/// Compares the digest, unless the blob was not read to its end.
fn judge(
    blob: &Blob,
    verdicts: &Verdicts,
    table: &Result<SpanTable, stream::Error>,
    hashes: &Hashes,
) -> Result<(), Error> {
    let digest = blob.digest();
    if let Err(error) = table
        && !error.is_of_the_stream()
    {
        return Err(Error::stream(digest, error.clone()));
    }
    let unchanged = blob.is_unchanged().map_err(|source| Error::Read {
        digest: digest.clone(),
        source: Arc::new(source),
    })?;
    if !unchanged {
        return Err(Error::Changed {
            digest: digest.clone(),
        });
    }
    if hashes.stored == *digest {
        verdicts.record(blob, &Verdict::Sound);
        return Ok(());
    }
    let actual = hashes.stored.clone();
    verdicts.record(
        blob,
        &Verdict::Damaged {
            actual: actual.clone(),
        },
    );
    Err(Error::DigestMismatch {
        expected: digest.clone(),
        actual,
    })
}

/// Bytes on their way to be hashed.
enum Bytes {
    Stored(Arc<Vec<u8>>),
    Decoded(Vec<u8>),
}

/// The stored bytes, read once and shared with the hashing thread.
struct Feed<'a> {
    blob: &'a Blob,
    control: &'a Control<'a>,
    full: SyncSender<Bytes>,
    empty: Receiver<Vec<u8>>,
    /// Up to where the blob has been handed out.
    at: u64,
    entries: Entries,
}

impl Feed<'_> {
    /// Decodes the stream; when that fails, goes on reading to the end, because a damaged
    /// blob counts before a malformed stream.
    fn scan(&mut self, limits: &stream::Limits) -> Result<SpanTable, stream::Error> {
        let blob = self.blob;
        let table = stream::scan(blob, self, limits);
        while self.at < blob.size() {
            self.chunk_at(BlobOffset(self.at))?;
        }
        table
    }

    /// Tells the hashing thread that this is all.
    fn end(self) -> Entries {
        self.entries
    }

    fn send(&self, bytes: Bytes) -> Result<(), stream::Error> {
        // The other end is gone only if hashing broke off, which `build` reports.
        self.full.send(bytes).map_err(|_| stream::Error::Stopped)
    }
}

impl Chunks for Feed<'_> {
    fn chunk_at(&mut self, offset: BlobOffset) -> Result<Arc<Vec<u8>>, stream::Error> {
        debug_assert_eq!(offset.0, self.at, "a pass reads in order");
        if self.control.stop.load(Ordering::Relaxed) {
            return Err(stream::Error::Stopped);
        }
        let wanted = source::available(self.blob.size(), offset.0, CHUNK);
        let mut bytes = vec![0; wanted];
        let len = self.blob.read_at(&mut bytes, offset.0);
        let len = len.map_err(stream::Error::from_read)?;
        bytes.truncate(len);
        let bytes = Arc::new(bytes);
        if len > 0 {
            self.at += len as u64;
            self.control.progress.advance(len as u64);
            self.send(Bytes::Stored(Arc::clone(&bytes)))?;
        }
        Ok(bytes)
    }
}

impl Sink for Feed<'_> {
    fn decoded(&mut self, span: Vec<u8>) -> Result<Vec<u8>, stream::Error> {
        if self.control.stop.load(Ordering::Relaxed) {
            return Err(stream::Error::Stopped);
        }
        self.entries.read(&span);
        self.send(Bytes::Decoded(span))?;
        Ok(self.empty.try_recv().unwrap_or_default())
    }
}

/// The digests of a blob and of what it decodes to.
struct Hashes {
    stored: Digest,
    /// `None` if it is the same by construction.
    decoded: Option<Digest>,
}

/// The two digests being computed.
struct Hashing {
    stored: Hasher,
    decoded: Option<Hasher>,
}

impl Hashing {
    fn new(blob: &Blob) -> Result<Self, Error> {
        let digest = || blob.digest().clone();
        if blob.size() > MAX_BLOB_SIZE {
            return Err(Error::TooLarge {
                digest: digest(),
                size: blob.size(),
                limit: MAX_BLOB_SIZE,
            });
        }
        let algorithm = blob.digest().algorithm();
        let stored = Hasher::new(algorithm).ok_or_else(|| Error::Algorithm { digest: digest() })?;
        // What decodes to itself needs no second hash; a failure shows again in the scan.
        let is_plain = matches!(Compression::of(blob), Ok(Compression::Plain));
        let is_same = is_plain && algorithm == Algorithm::Sha256;
        Ok(Self {
            stored,
            decoded: (!is_same).then(Hasher::sha256),
        })
    }

    fn run(mut self, full: &Receiver<Bytes>, used: &SyncSender<Vec<u8>>) -> Hashes {
        while let Ok(bytes) = full.recv() {
            match bytes {
                Bytes::Stored(bytes) => self.stored.update(&bytes),
                Bytes::Decoded(bytes) => {
                    if let Some(hasher) = &mut self.decoded {
                        hasher.update(&bytes);
                    }
                    // Nobody may be there to use it again.
                    let _ = used.try_send(bytes);
                }
            }
        }
        Hashes {
            stored: self.stored.finish(),
            decoded: self.decoded.map(Hasher::finish),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn every_stored_byte_counts_as_progress() -> Result<(), Box<dyn std::error::Error>> {
        let long = vec![7; 2 * CHUNK + 5];
        let broken = [b"\x1f\x8b\x08", &long[..]].concat();
        for (name, bytes, is_right) in [("right", &long, true), ("no gzip", &broken, false)] {
            let mut file: File = tempfile::tempfile()?;
            file.write_all(bytes)?;
            let blob = Blob::new(Digest::of(bytes), file)?;
            let (progress, stop) = (AtomicU64::new(0), AtomicBool::new(false));
            let control = Control {
                progress: &progress,
                stop: &stop,
            };
            let verdicts = Verdicts::new(None);
            let built = build(&blob, &Limits::default(), &verdicts, &control);
            assert_eq!(built.is_ok(), is_right, "{name}");
            assert_eq!(progress.into_inner(), bytes.len() as u64, "{name}");
            assert_eq!(verdicts.find(&blob), Some(Verdict::Sound), "{name}");
        }
        Ok(())
    }

    /// Writes to a file as soon as there is progress.
    #[derive(Debug)]
    struct Meddler(File);

    impl Progress for Meddler {
        fn advance(&self, _: u64) {
            self.0.write_all_at(b"x", 0).expect("it can be written to");
        }
    }

    #[test]
    fn a_blob_that_changes_during_the_pass_gets_no_verdict()
    -> Result<(), Box<dyn std::error::Error>> {
        let bytes = vec![7; CHUNK + 5];
        let mut file: File = tempfile::tempfile()?;
        file.write_all(&bytes)?;
        // Any other time shows.
        file.set_modified(std::time::UNIX_EPOCH)?;
        let progress = Meddler(file.try_clone()?);
        let blob = Blob::new(Digest::of(&bytes), file)?;
        let stop = AtomicBool::new(false);
        let control = Control {
            progress: &progress,
            stop: &stop,
        };
        let verdicts = Verdicts::new(None);
        // What was read before is what the digest says.
        let built = build(&blob, &Limits::default(), &verdicts, &control).err();
        assert!(matches!(built, Some(Error::Changed { .. })), "{built:?}");
        assert_eq!(verdicts.find(&blob), None);
        Ok(())
    }

    #[test]
    fn no_thread_is_an_error_and_no_panic() -> Result<(), Box<dyn std::error::Error>> {
        let file: File = tempfile::tempfile()?;
        let blob = Blob::new(Digest::of(b""), file)?;
        let (progress, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let control = Control {
            progress: &progress,
            stop: &stop,
        };
        // No system has as much memory for a stack.
        let thread = thread::Builder::new().stack_size(1 << 60);
        let outcome = pass(&blob, &Limits::default(), &control, thread).err();
        assert!(matches!(outcome, Some(Error::Read { .. })), "{outcome:?}");
        Ok(())
    }
}
