//! Whether a blob's bytes are what its digest says, hashed once and remembered.
//!
//! A verdict hangs on the pair of digest and [`Identity`]: the same file in the same
//! state is not hashed twice, a file that changed in any way is. Verdicts on blobs of
//! `PERSISTED_SIZE` or more are kept in the cache directory as well, one small text
//! file for each digest, because hashing those again would be felt at the next mount.
//! It names the last few files ([`IDENTITIES`]) that were seen to hold the blob: many layouts
//! and archives have the same base layer. The text files are bounded by their number
//! ([`KEPT`]); those used longest ago go.
//!
//! Concurrency: callers that ask for the same verdict at once share one hashing; the
//! table's lock is never held while bytes are read.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use crate::oci::{Digest, Hasher};
use crate::store::blob::{Blob, Identity};
use crate::store::cache_dir::{self, CacheDir};
use crate::store::progress::Progress;
use crate::store::source::ReadAt;

/// Blobs of this many bytes or more have their verdicts kept on disk: below, hashing
/// again takes less than a millisecond, about what reading a file would.
const PERSISTED_SIZE: u64 = 1 << 20;

/// How many verdicts are remembered in memory, at about 250 bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(100_000).expect("it is not zero");

/// How many verdicts are kept on disk, where each takes a block of four kilobytes.
const KEPT: u64 = 10_000;

/// How many files are kept for one digest that were found to hold it: those that were hashed
/// last. Each is a line of some 80 bytes.
const IDENTITIES: usize = 16;

/// The longest kept verdict that is read, in bytes.
const MAX_KEPT: u64 = 4096;

/// After how many new ones it is looked whether they are too many. Looking goes through the
/// whole directory.
const LOOK_AFTER: u64 = 500;

/// The largest blob that is hashed, in bytes. Longer ones are a sparse file or a mistake,
/// and would keep a processor busy for minutes.
pub const MAX_BLOB_SIZE: u64 = 256 << 30;

/// How many bytes are read and hashed at a time.
const CHUNK: usize = 256 << 10;

/// First line of a kept verdict; the number is the format's version.
const MAGIC: &str = "ocifs-verdict 1";

/// Why a blob is not known to be sound.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes have another digest.
    #[error("blob {expected} is damaged: its bytes have the digest {actual}")]
    DigestMismatch {
        /// The digest under which the blob is stored.
        expected: Digest,
        /// The digest of its bytes.
        actual: Digest,
    },
    /// The file changed while it was hashed.
    #[error("blob {digest} changed while it was read")]
    Changed {
        /// The blob.
        digest: Digest,
    },
    /// The algorithm cannot be computed.
    #[error("digest algorithm of {digest} is not supported")]
    Algorithm {
        /// The blob.
        digest: Digest,
    },
    /// The blob is larger than [`MAX_BLOB_SIZE`].
    #[error("blob {digest} has {size} bytes, over the limit of {MAX_BLOB_SIZE} (blob size)")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// Reading failed.
    #[error("cannot read blob {digest}")]
    Read {
        /// The blob.
        digest: Digest,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What reading the blob `digest` answered. A file that is shorter than it was changed.
    #[must_use]
    pub fn of_reading(digest: &Digest, source: io::Error) -> Self {
        let digest = digest.clone();
        match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Changed { digest },
            _ => Self::Read { digest, source },
        }
    }
}

/// What hashing a blob found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The bytes have the digest.
    Sound,
    /// The bytes have this other digest.
    Damaged {
        /// Digest of the bytes.
        actual: Digest,
    },
}

/// One verdict, perhaps still being worked out by the holder of the lock.
type Slot = Arc<Mutex<Option<Verdict>>>;

/// The verdicts reached so far, shared by all threads.
#[derive(Debug)]
pub struct Verdicts {
    slots: Mutex<LruCache<(Digest, Identity), Slot>>,
    shelf: Option<CacheDir>,
    /// How many verdicts this table has put there.
    kept: AtomicU64,
}

impl Verdicts {
    /// An empty table that keeps verdicts on large blobs in `cache`, if given.
    #[must_use]
    pub fn new(cache: Option<&CacheDir>) -> Self {
        let shelf = cache.and_then(|cache| match cache.shelf("verdicts") {
            Ok(shelf) => Some(shelf),
            Err(error) => {
                log::warn!("verdicts are not kept: {error}");
                None
            }
        });
        Self {
            slots: Mutex::new(LruCache::new(REMEMBERED)),
            shelf,
            kept: AtomicU64::new(0),
        }
    }

    /// What is known of `blob`, without reading it.
    #[must_use]
    pub fn find(&self, blob: &Blob) -> Option<Verdict> {
        let slot = self.slot(blob);
        let mut verdict = slot.try_lock()?;
        if verdict.is_none() {
            *verdict = self.load(blob);
        }
        verdict.clone()
    }

    /// Remembers a verdict that somebody reached by reading the whole of `blob`.
    pub fn record(&self, blob: &Blob, verdict: &Verdict) {
        if *verdict == Verdict::Sound {
            self.keep(blob);
        }
        *self.slot(blob).lock() = Some(verdict.clone());
    }

    /// Returns once `blob` is known to be sound; hashes it if nobody has yet.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] for damaged bytes, also when that was found earlier;
    /// the others are not remembered.
    pub fn verify(&self, blob: &Blob, progress: &dyn Progress) -> Result<(), Error> {
        let slot = self.slot(blob);
        let mut known = slot.lock();
        if known.is_none() {
            *known = self.load(blob);
        }
        let verdict = match &*known {
            Some(verdict) => verdict,
            None => {
                let verdict = hash(blob, progress)?;
                if verdict == Verdict::Sound {
                    self.keep(blob);
                }
                known.insert(verdict)
            }
        };
        match verdict {
            Verdict::Sound => Ok(()),
            Verdict::Damaged { actual } => Err(Error::DigestMismatch {
                expected: blob.digest().clone(),
                actual: actual.clone(),
            }),
        }
    }

    fn slot(&self, blob: &Blob) -> Slot {
        let key = (blob.digest().clone(), *blob.identity());
        self.slots.lock().get_or_insert(key, Slot::default).clone()
    }

    fn load(&self, blob: &Blob) -> Option<Verdict> {
        let (file, lines) = self.kept_lines(blob)?;
        let holds = lines.contains(&blob.identity().to_string());
        holds.then(|| {
            cache_dir::mark_used(&file);
            Verdict::Sound
        })
    }

    /// The file of what is kept about the digest of `blob`, and its lines after the first.
    fn kept_lines(&self, blob: &Blob) -> Option<(File, Vec<String>)> {
        let shelf = self
            .shelf
            .as_ref()
            .filter(|_| blob.size() >= PERSISTED_SIZE)?;
        let mut text = String::new();
        let file = shelf.find(&file_name(blob.digest())).ok()??;
        (&file).take(MAX_KEPT).read_to_string(&mut text).ok()?;
        let lines = text.strip_prefix(MAGIC)?.strip_prefix('\n')?;
        // One that is cut off has no end.
        let whole = lines.split_inclusive('\n');
        let whole = whole.filter_map(|line| line.strip_suffix('\n'));
        Some((file, whole.map(str::to_owned).collect()))
    }

    /// Keeps that the file of `blob` holds it, before what is known of other files. What
    /// another process keeps at the same time may be lost, and be found out again.
    fn keep(&self, blob: &Blob) {
        let Some(shelf) = self
            .shelf
            .as_ref()
            .filter(|_| blob.size() >= PERSISTED_SIZE)
        else {
            return;
        };
        let known = self.kept_lines(blob).map(|(_, lines)| lines);
        let text = kept_text(blob.identity(), &known.unwrap_or_default());
        let stored = shelf.store(&file_name(blob.digest()), |file| {
            file.write_all(text.as_bytes())
        });
        if let Err(error) = stored {
            log::debug!("verdict on {} is not kept: {error}", blob.digest());
            return;
        }
        // The first one looks too: most processes keep fewer.
        let before = self.kept.fetch_add(1, Ordering::Relaxed);
        if before.is_multiple_of(LOOK_AFTER) {
            evict(shelf, KEPT);
        }
    }
}

/// Removes verdicts until there are no more than `limit`.
fn evict(shelf: &CacheDir, limit: u64) {
    match shelf.list() {
        Ok(mut entries) => {
            entries.retain(|entry| digest_of_file(&entry.name).is_some());
            shelf.evict(entries, limit, |_| 1);
        }
        Err(error) => log::debug!("verdicts are not counted: {error}"),
    }
}

/// The name under which things learned about a blob are kept in the cache directory.
#[must_use]
pub fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm_name(), digest.encoded())
}

/// The digest of the blob about which the file `name` of the cache directory is, if it is
/// one of those.
#[must_use]
pub fn digest_of_file(name: &str) -> Option<Digest> {
    let (algorithm, encoded) = name.split_once('-')?;
    format!("{algorithm}:{encoded}").parse().ok()
}

fn kept_text(identity: &Identity, known: &[String]) -> String {
    let own = identity.to_string();
    let others = known.iter().filter(|line| **line != own);
    let mut text = format!("{MAGIC}\n{own}\n");
    for line in others.take(IDENTITIES - 1) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Reads all of `blob` and compares digests.
fn hash(blob: &Blob, progress: &dyn Progress) -> Result<Verdict, Error> {
    let digest = || blob.digest().clone();
    let read = |source| Error::of_reading(blob.digest(), source);
    let mut hasher = Hasher::new(blob.digest().algorithm())
        .ok_or_else(|| Error::Algorithm { digest: digest() })?;
    if blob.size() > MAX_BLOB_SIZE {
        return Err(Error::TooLarge {
            digest: digest(),
            size: blob.size(),
        });
    }
    let chunk = usize::try_from(blob.size()).map_or(CHUNK, |size| size.min(CHUNK));
    let mut buf = vec![0; chunk];
    let mut offset = 0;
    while offset < blob.size() {
        let len = blob.read_at(&mut buf, offset).map_err(read)?;
        hasher.update(&buf[..len]);
        offset += len as u64;
        progress.advance(len as u64);
    }
    if !blob.is_unchanged().map_err(read)? {
        return Err(Error::Changed { digest: digest() });
    }
    let actual = hasher.finish();
    Ok(if actual == *blob.digest() {
        Verdict::Sound
    } else {
        Verdict::Damaged { actual }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::store::progress::Unwatched;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn blob(path: &Path, digest: &Digest) -> io::Result<Blob> {
        Blob::new(digest.clone(), File::open(path)?)
    }

    #[test]
    fn hashed_once_until_the_file_changes() -> TestResult {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("blob");
        std::fs::write(&path, b"hello")?;
        let digest = Digest::of(b"hello");
        let verdicts = Verdicts::new(None);
        let read = AtomicU64::new(0);
        verdicts.verify(&blob(&path, &digest)?, &read)?;
        verdicts.verify(&blob(&path, &digest)?, &read)?;
        assert_eq!(read.load(Relaxed), 5, "the second verdict is remembered");
        assert_eq!(verdicts.find(&blob(&path, &digest)?), Some(Verdict::Sound));

        std::fs::write(&path, b"jello")?;
        let damaged = verdicts.verify(&blob(&path, &digest)?, &read);
        assert!(matches!(damaged, Err(Error::DigestMismatch { .. })));
        assert_eq!(read.load(Relaxed), 10);
        Ok(())
    }

    #[test]
    fn verdicts_on_large_blobs_outlive_the_table() -> TestResult {
        let dir = tempfile::tempdir()?;
        let cache = CacheDir::open(&dir.path().join("cache"))?;
        let path = dir.path().join("blob");
        let bytes = vec![7; 1 << 20];
        std::fs::write(&path, &bytes)?;
        let digest = Digest::of(&bytes);
        Verdicts::new(Some(&cache)).verify(&blob(&path, &digest)?, &Unwatched)?;
        let read = AtomicU64::new(0);
        Verdicts::new(Some(&cache)).verify(&blob(&path, &digest)?, &read)?;
        assert_eq!(read.load(Relaxed), 0);

        std::fs::write(&path, &bytes)?;
        Verdicts::new(Some(&cache)).verify(&blob(&path, &digest)?, &read)?;
        assert_eq!(
            read.load(Relaxed),
            1 << 20,
            "another change time is another file"
        );
        Ok(())
    }

    /// Mounted in turn, none of them is hashed again.
    #[test]
    fn several_files_of_one_digest_are_remembered() -> TestResult {
        let dir = tempfile::tempdir()?;
        let cache = CacheDir::open(&dir.path().join("cache"))?;
        let bytes = vec![9; 1 << 20];
        let digest = Digest::of(&bytes);
        let read = AtomicU64::new(0);
        let verify = |number: usize| -> TestResult {
            let blob = blob(&dir.path().join(number.to_string()), &digest)?;
            Verdicts::new(Some(&cache)).verify(&blob, &read)?;
            Ok(())
        };
        let files = 0..IDENTITIES + 1;
        for number in files.clone() {
            std::fs::write(dir.path().join(number.to_string()), &bytes)?;
            verify(number)?;
        }
        let hashed = read.swap(0, Relaxed);
        assert_eq!(hashed, (IDENTITIES as u64 + 1) << 20, "each once");
        files.clone().skip(1).try_for_each(verify)?;
        assert_eq!(read.load(Relaxed), 0, "those that were hashed last");
        verify(0)?;
        assert_eq!(read.swap(0, Relaxed), 1 << 20, "one too many");
        files.skip(2).try_for_each(verify)?;
        assert_eq!(read.load(Relaxed), 0, "and the others are not forgotten");
        Ok(())
    }

    #[test]
    fn verdicts_on_disk_are_bounded() -> TestResult {
        let dir = tempfile::tempdir()?;
        let cache = CacheDir::open(&dir.path().join("cache"))?;
        let shelf = cache.shelf("verdicts")?;
        let names = || -> io::Result<usize> { Ok(std::fs::read_dir(shelf.path())?.count()) };
        for number in 0..KEPT {
            let digest = Digest::of(&number.to_le_bytes());
            std::fs::write(shelf.path().join(file_name(&digest)), "x")?;
        }
        std::fs::write(shelf.path().join("not of ours"), "x")?;
        let path = dir.path().join("blob");
        let bytes = vec![8; 1 << 20];
        std::fs::write(&path, &bytes)?;
        let digest = Digest::of(&bytes);
        Verdicts::new(Some(&cache)).verify(&blob(&path, &digest)?, &Unwatched)?;
        let left = usize::try_from(KEPT - KEPT / 10)?;
        assert_eq!(names()?, left + 1, "and what is not ours");
        assert!(shelf.find("not of ours")?.is_some());
        let read = AtomicU64::new(0);
        Verdicts::new(Some(&cache)).verify(&blob(&path, &digest)?, &read)?;
        assert_eq!(read.load(Relaxed), 0, "the latest one is there");
        Ok(())
    }

    #[test]
    fn names_of_files() -> TestResult {
        let digest = Digest::of(b"x");
        assert_eq!(digest_of_file(&file_name(&digest)), Some(digest));
        for name in [
            "",
            "sha256",
            "sha256-",
            "sha256-abc",
            "-",
            ".new-1-1",
            "README",
        ] {
            assert_eq!(digest_of_file(name), None, "{name}");
        }
        Ok(())
    }

    #[test]
    fn unknown_algorithms_are_refused() -> TestResult {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("blob");
        std::fs::write(&path, b"x")?;
        let digest = "sha256+b64:eA".parse()?;
        let result = Verdicts::new(None).verify(&blob(&path, &digest)?, &Unwatched);
        assert!(matches!(result, Err(Error::Algorithm { .. })));
        Ok(())
    }
}
