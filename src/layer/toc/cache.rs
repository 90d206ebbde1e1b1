//! Tocs kept in the cache directory, up to a total size.
//!
//! Reading never fails: what cannot be read or is in any doubt is not there. A file whose
//! name is not that of a digest is nobody's of ours: it is never looked at, nor removed.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::layer::toc::{Toc, TreeOutcome, file};
use crate::oci::Digest;
use crate::store::cache_dir::{self, Entry, mark_used};
use crate::store::source::FileSource;
use crate::store::verify::{digest_of_file, file_name};
use crate::store::{CacheDir, ReadAt};
use crate::stream::Compression;

/// The name of the shelf.
const SHELF: &str = "toc";

/// Why a Toc is not kept. Cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotKept {
    /// There is no cache directory.
    #[error("nothing is kept")]
    NoCache,
    /// It cannot be written.
    #[error(transparent)]
    Dir(#[from] Arc<cache_dir::Error>),
    /// It alone takes more than all may take together.
    #[error("it takes {size} bytes, over the limit of {limit} (cache size)")]
    TooLarge {
        /// How many bytes its file has.
        size: u64,
        /// How many all may have.
        limit: u64,
    },
    /// What makes random reads fast was not found out, because the blob could not be read.
    #[error("its blob cannot be read again: {reason}")]
    Unfinished {
        /// What went wrong.
        reason: Arc<str>,
    },
}

/// A file of the cache, as a listing shows it.
#[derive(Debug)]
pub struct KeptToc {
    /// The blob it is about.
    pub digest: Digest,
    /// How many bytes the file has.
    pub file_size: u64,
    /// When it was written.
    pub built: SystemTime,
    /// When it was used last.
    pub used: SystemTime,
    /// What it says; or why it cannot be used, and will be made again.
    pub summary: Result<Summary, Unusable>,
}

impl KeptToc {
    /// Whether it is a file of ours whose content is not what it should be.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        matches!(self.summary, Err(Unusable::Fault(_)))
    }
}

/// What a kept Toc says of its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How many bytes the blob has.
    pub blob_size: u64,
    /// How many bytes it decodes to.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
}

impl Summary {
    fn of(toc: &Toc) -> Self {
        Self {
            blob_size: toc.blob_size(),
            size: toc.size(),
            compression: toc.compression(),
        }
    }
}

/// Why a file of the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It is not a regular file, or others can write to it.
    #[error("not a file of ours")]
    Foreign,
    /// It cannot be read.
    #[error("cannot be read")]
    Read(#[from] io::Error),
    /// Its content is not what it should be.
    #[error(transparent)]
    Fault(#[from] file::Fault),
}

/// The files of Tocs, one for each blob.
#[derive(Debug)]
pub struct TocCache {
    shelf: CacheDir,
    size_limit: u64,
    /// How much may be stored before the directory has to be looked through again: an image
    /// of thousands of layers would do so for each of them. A part of what there was room
    /// for the last time, since others may use the directory too.
    room: Mutex<u64>,
}

impl TocCache {
    /// Tocs in `cache`, of `size_limit` bytes together.
    ///
    /// # Errors
    /// Why the directory cannot be used.
    pub fn open(cache: &CacheDir, size_limit: u64) -> Result<Self, cache_dir::Error> {
        let shelf = cache.shelf(SHELF)?;
        Ok(Self {
            shelf,
            size_limit,
            room: Mutex::new(0),
        })
    }

    /// How many bytes the files may have together.
    #[must_use]
    pub fn size_limit(&self) -> u64 {
        self.size_limit
    }

    /// Makes sure that Tocs can be kept now.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn try_write(&self) -> Result<(), cache_dir::Error> {
        self.shelf.try_write()
    }

    /// The Toc of a blob without its tree, if a sound file of it is there; that counts as
    /// a use. Parts of its checkpoints may be looked at only later.
    #[must_use]
    pub fn load(&self, digest: &Digest) -> Option<Toc> {
        let file = Arc::new(self.open_file(digest)?);
        let source = Arc::clone(&file) as Arc<dyn ReadAt>;
        let toc = believed(digest, file::open(source, digest))?;
        mark_used(file.file());
        Some(toc)
    }

    /// The tree of a layer, or why its bytes make none, if a sound file with that is there.
    #[must_use]
    pub fn load_tree(&self, digest: &Digest) -> Option<TreeOutcome> {
        let file = self.open_file(digest)?;
        let outcome = believed(digest, file::decode_tree(&file, digest))??;
        Some(outcome.map(Arc::new))
    }

    fn open_file(&self, digest: &Digest) -> Option<FileSource> {
        let opened = self.shelf.find(&file_name(digest)).transpose()?;
        let opened = opened.map_err(io::Error::other).and_then(FileSource::new);
        opened
            .inspect_err(|error| log::debug!("kept table of {digest} is not read: {error}"))
            .ok()
    }

    /// Keeps a Toc, and forgets others if there are too many.
    ///
    /// # Errors
    /// Why it is not kept.
    pub fn store(&self, toc: &Toc) -> Result<(), NotKept> {
        let name = file_name(toc.digest());
        let stored = self.shelf.store(&name, |out| file::encode(toc, out));
        let size = stored.map_err(Arc::new)?;
        if size > self.size_limit {
            // It would push out all others, and then itself.
            self.shelf.remove(&name).map_err(Arc::new)?;
            let limit = self.size_limit;
            return Err(NotKept::TooLarge { size, limit });
        }
        self.make_room(size);
        Ok(())
    }

    /// Counts `len` bytes that were stored, and forgets others if they may be too many.
    fn make_room(&self, len: u64) {
        let mut room = self.room.lock();
        *room = match room.checked_sub(len) {
            Some(left) => left,
            None => self.size_limit.saturating_sub(self.evict()) / 4,
        };
    }

    /// Forgets what was used longest ago until the rest is small enough; gives the size of
    /// that, or a little more.
    fn evict(&self) -> u64 {
        let entries = match self.entries() {
            Ok(entries) => entries,
            Err(error) => {
                log::debug!("kept tables are not counted: {error}");
                return self.size_limit;
            }
        };
        let entries: Vec<_> = entries.into_iter().map(|(_, entry)| entry).collect();
        let total: u64 = entries.iter().map(|entry| entry.size).sum();
        self.shelf
            .evict(entries, self.size_limit, |entry| entry.size);
        total.min(self.size_limit)
    }

    /// All files, in the order of their digests. None of them counts as used by that.
    ///
    /// # Errors
    /// Why the directory cannot be read.
    pub fn list(&self) -> Result<Vec<KeptToc>, cache_dir::Error> {
        let mut entries = self.entries()?;
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        let kept = entries.into_iter();
        Ok(kept
            .map(|(digest, entry)| self.look(digest, &entry))
            .collect())
    }

    /// How many bytes the files have together.
    ///
    /// # Errors
    /// Why the directory cannot be read.
    pub fn size(&self) -> Result<u64, cache_dir::Error> {
        Ok(self.entries()?.iter().map(|(_, entry)| entry.size).sum())
    }

    /// The file about one blob, sound or not.
    ///
    /// # Errors
    /// Why the directory cannot be read.
    pub fn find(&self, digest: &Digest) -> Result<Option<KeptToc>, cache_dir::Error> {
        let entry = self.shelf.entry(&file_name(digest))?;
        Ok(entry.map(|entry| self.look(digest.clone(), &entry)))
    }

    /// Removes the file about one blob; that it is missing is fine.
    ///
    /// # Errors
    /// Why it stays.
    pub fn remove(&self, digest: &Digest) -> Result<(), cache_dir::Error> {
        self.shelf.remove(&file_name(digest))
    }

    fn look(&self, digest: Digest, entry: &Entry) -> KeptToc {
        let summary = match self.shelf.find(&entry.name) {
            Ok(Some(file)) => summary(file, &digest),
            Ok(None) => Err(Unusable::Foreign),
            Err(error) => Err(Unusable::Read(io::Error::other(error))),
        };
        KeptToc {
            digest,
            file_size: entry.size,
            built: entry.written,
            used: entry.used,
            summary,
        }
    }

    /// What is there about blobs.
    fn entries(&self) -> Result<Vec<(Digest, Entry)>, cache_dir::Error> {
        let entries = self.shelf.list()?.into_iter();
        let about = |entry: Entry| Some((digest_of_file(&entry.name)?, entry));
        Ok(entries.filter_map(about).collect())
    }
}

/// What was read, unless there is something wrong with it.
fn believed<T, E: Display>(digest: &Digest, read: Result<T, E>) -> Option<T> {
    read.inspect_err(|fault| log::info!("kept table of {digest} is made again: {fault}"))
        .ok()
}

fn summary(file: File, digest: &Digest) -> Result<Summary, Unusable> {
    let toc = file::decode(&FileSource::new(file)?, digest)?;
    Ok(Summary::of(&toc))
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::oci::DiffId;
    use crate::stream::{Checkpoints, Compression, SpanTable};

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn toc(name: &str) -> Result<Toc, Box<dyn std::error::Error>> {
        toc_of(name, 1000)
    }

    /// A Toc whose file has a few hundred bytes more than `heap`.
    fn toc_of(name: &str, heap: usize) -> Result<Toc, Box<dyn std::error::Error>> {
        let checkpoints = Checkpoints {
            list: vec![],
            heap: vec![0; heap].into(),
        };
        let table = SpanTable::new(Compression::Gzip, 0, vec![], checkpoints)?;
        let digest = Digest::of(name.as_bytes());
        Ok(Toc::new(digest.clone(), 1, DiffId(digest), table))
    }

    fn set_used(cache: &TocCache, toc: &Toc, seconds: u64) -> TestResult {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = File::open(cache.shelf.path().join(file_name(toc.digest())))?;
        file.set_times(FileTimes::new().set_accessed(time).set_modified(time))?;
        Ok(())
    }

    #[test]
    fn what_was_used_longest_ago_is_forgotten() -> TestResult {
        let dir = tempfile::tempdir()?;
        let cache = CacheDir::open(&dir.path().join("cache"))?;
        let cache = TocCache::open(&cache, 5000)?;
        let tocs = [toc("a")?, toc("b")?, toc("c")?, toc("d")?];
        for (toc, used) in tocs[..3].iter().zip([100, 200, 300]) {
            cache.store(toc)?;
            set_used(&cache, toc, used)?;
        }
        assert!(cache.load(tocs[0].digest()).is_some(), "counts as used now");
        cache.store(&tocs[3])?;
        let there = |toc: &Toc| cache.load(toc.digest()).is_some();
        assert_eq!(tocs.each_ref().map(there), [true, false, true, true]);
        Ok(())
    }

    fn cache(dir: &tempfile::TempDir) -> Result<TocCache, cache_dir::Error> {
        TocCache::open(&CacheDir::open(&dir.path().join("cache"))?, 5000)
    }

    #[test]
    fn a_directory_that_went_is_made_again() -> TestResult {
        let dir = tempfile::tempdir()?;
        let cache = cache(&dir)?;
        std::fs::remove_dir_all(dir.path().join("cache"))?;
        assert!(cache.load(&Digest::of(b"a")).is_none());
        cache.store(&toc("a")?)?;
        assert!(cache.load(&Digest::of(b"a")).is_some());
        Ok(())
    }

    #[test]
    fn one_that_is_too_large_pushes_out_no_other() -> TestResult {
        let dir = tempfile::tempdir()?;
        let cache = cache(&dir)?;
        let small = toc("a")?;
        cache.store(&small)?;
        let large = toc_of("b", 6000)?;
        let refused = cache.store(&large);
        assert!(matches!(
            refused,
            Err(NotKept::TooLarge { limit: 5000, .. })
        ));
        assert!(cache.load(large.digest()).is_none());
        assert!(cache.load(small.digest()).is_some());
        Ok(())
    }

    #[test]
    fn a_listing_uses_nothing_and_hides_nothing_of_ours() -> TestResult {
        let dir = tempfile::tempdir()?;
        let cache = cache(&dir)?;
        let (sound, open, cut) = (toc("a")?, toc("b")?, toc("c")?);
        for toc in [&sound, &open, &cut] {
            cache.store(toc)?;
            set_used(&cache, toc, 100)?;
        }
        let path = |toc: &Toc| cache.shelf.path().join(file_name(toc.digest()));
        std::fs::set_permissions(path(&open), PermissionsExt::from_mode(0o666))?;
        File::options().write(true).open(path(&cut))?.set_len(40)?;
        std::fs::write(cache.shelf.path().join("notes"), "not ours")?;
        let used = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        for _ in 0..2 {
            let list = cache.list()?;
            assert_eq!(list.len(), 3);
            let find = |toc: &Toc| list.iter().find(|kept| kept.digest == *toc.digest());
            let kept = find(&sound).ok_or("missing")?;
            assert_eq!((kept.used, kept.built), (used, used));
            assert_eq!(
                *kept.summary.as_ref().map_err(ToString::to_string)?,
                Summary::of(&sound)
            );
            let kept = find(&open).ok_or("missing")?;
            assert!(matches!(kept.summary, Err(Unusable::Foreign)), "{kept:?}");
            let kept = find(&cut).ok_or("missing")?;
            assert!(matches!(kept.summary, Err(Unusable::Fault(_))), "{kept:?}");
        }
        assert!(cache.load(open.digest()).is_none());
        for kept in cache.list()? {
            cache.remove(&kept.digest)?;
        }
        assert!(cache.list()?.is_empty());
        assert!(cache.find(sound.digest())?.is_none());
        assert!(
            cache.shelf.path().join("notes").exists(),
            "not ours to remove"
        );
        Ok(())
    }
}
