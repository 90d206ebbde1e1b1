//! Tocs kept in the cache directory, up to a total size.
//!
//! Nothing here fails: what cannot be read or is in any doubt is not there, and what
//! cannot be written is only logged.

use std::fs::{File, FileTimes};
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use crate::layer::toc::{Toc, file};
use crate::layer::tree::Tree;
use crate::oci::Digest;
use crate::store::source::FileSource;
use crate::store::verify::file_name;
use crate::store::{CacheDir, ReadAt};

/// The largest file that is read: a layer of the largest size has a Toc far below this.
const MAX_FILE_SIZE: u64 = 1 << 30;

/// When too much is kept, how much of the allowed size is left, in percent: so that not
/// every new Toc looks through the whole directory.
const LEFT: u64 = 90;

/// The files of Tocs, one for each blob.
#[derive(Debug)]
pub struct TocCache {
    shelf: CacheDir,
    size_limit: u64,
}

impl TocCache {
    /// Tocs in `cache`, of `size_limit` bytes together; `None` if it cannot be used.
    #[must_use]
    pub fn new(cache: &CacheDir, size_limit: u64) -> Option<Self> {
        match cache.shelf("toc") {
            Ok(shelf) => Some(Self { shelf, size_limit }),
            Err(error) => {
                log::warn!("tables of contents are not kept: {error}");
                None
            }
        }
    }

    /// The Toc of a blob without its tree, if a sound file of it is there.
    #[must_use]
    pub fn load(&self, digest: &Digest) -> Option<Toc> {
        let file = self.open(digest)?;
        let toc = believed(digest, file::decode(&file, digest))?;
        touch(file.file());
        Some(toc)
    }

    /// The tree of a layer, if a sound file with it is there.
    #[must_use]
    pub fn load_tree(&self, digest: &Digest) -> Option<Tree> {
        let file = self.open(digest)?;
        believed(digest, file::decode_tree(&file, digest))?
    }

    fn open(&self, digest: &Digest) -> Option<FileSource> {
        let opened = self.shelf.find(&file_name(digest)).transpose()?;
        let opened = opened.and_then(FileSource::new);
        opened
            .inspect_err(|error| log::debug!("kept table of {digest} is not read: {error}"))
            .ok()
            .filter(|file| file.size() <= MAX_FILE_SIZE)
    }

    /// Keeps a Toc, and forgets others if there are too many.
    pub fn store(&self, toc: &Toc) {
        let digest = toc.digest();
        let stored = self
            .shelf
            .store(&file_name(digest), |out| file::encode(toc, out));
        match stored {
            Ok(()) => self.evict(),
            Err(error) => log::debug!("table of {digest} is not kept: {error}"),
        }
    }

    /// Removes the files that were used longest ago until the rest is small enough.
    fn evict(&self) {
        let mut files = self.files();
        let mut total: u64 = files.iter().map(|file| file.size).sum();
        if total <= self.size_limit {
            return;
        }
        files.sort_by_key(|file| file.used);
        for file in files {
            if total <= self.size_limit / 100 * LEFT {
                break;
            }
            match self.shelf.remove(&file.name) {
                Ok(()) => total -= file.size,
                Err(error) => log::debug!("{} stays in the cache: {error}", file.name),
            }
        }
    }

    fn files(&self) -> Vec<Kept> {
        let Ok(dir) = std::fs::read_dir(self.shelf.path()) else {
            return Vec::new();
        };
        dir.filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            Some(Kept {
                name: entry.file_name().into_string().ok()?,
                size: metadata.len(),
                // Reading sets no access time on many mounts; `touch` does.
                used: (metadata.atime(), metadata.atime_nsec())
                    .max((metadata.mtime(), metadata.mtime_nsec())),
            })
        })
        .collect()
    }
}

/// What was read, unless there is something wrong with it.
fn believed<T>(digest: &Digest, read: Result<T, file::Fault>) -> Option<T> {
    read.inspect_err(|fault| log::info!("kept table of {digest} is made again: {fault}"))
        .ok()
}

/// A file in the cache directory.
struct Kept {
    name: String,
    size: u64,
    /// Seconds and nanoseconds since the epoch.
    used: (i64, i64),
}

/// Marks a file as used now; that it cannot be marked makes it go earlier, no more.
fn touch(file: &File) {
    let times = FileTimes::new().set_accessed(SystemTime::now());
    let _ = file.set_times(times);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::oci::DiffId;
    use crate::stream::{Checkpoints, Compression, SpanTable};

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn toc(name: &str) -> Result<Toc, Box<dyn std::error::Error>> {
        let checkpoints = Checkpoints {
            list: vec![],
            heap: vec![0; 1000],
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
        let cache = TocCache::new(&cache, 5000).ok_or("no cache")?;
        let tocs = [toc("a")?, toc("b")?, toc("c")?, toc("d")?];
        for (toc, used) in tocs[..3].iter().zip([100, 200, 300]) {
            cache.store(toc);
            set_used(&cache, toc, used)?;
        }
        assert!(cache.load(tocs[0].digest()).is_some(), "counts as used now");
        cache.store(&tocs[3]);
        let there = |toc: &Toc| cache.load(toc.digest()).is_some();
        assert_eq!(tocs.each_ref().map(there), [true, false, true, true]);
        Ok(())
    }

    #[test]
    fn an_unwritable_directory_is_no_error() -> TestResult {
        let dir = tempfile::tempdir()?;
        let cache = CacheDir::open(&dir.path().join("cache"))?;
        let cache = TocCache::new(&cache, 5000).ok_or("no cache")?;
        std::fs::remove_dir_all(cache.shelf.path())?;
        let toc = toc("a")?;
        cache.store(&toc);
        assert!(cache.load(toc.digest()).is_none());
        Ok(())
    }

    #[test]
    fn files_that_others_can_write_are_ignored() -> TestResult {
        let dir = tempfile::tempdir()?;
        let cache = CacheDir::open(&dir.path().join("cache"))?;
        let cache = TocCache::new(&cache, 5000).ok_or("no cache")?;
        let toc = toc("a")?;
        cache.store(&toc);
        let path = cache.shelf.path().join(file_name(toc.digest()));
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o666))?;
        assert!(cache.load(toc.digest()).is_none());
        Ok(())
    }
}
