//! Advisory locks of those who write to one layout.
//!
//! Order: first `flock` on the layout directory itself, then on the file
//! `index.json.lock`, as BuildKit does. The first has no file that could go stale; the
//! second is for BuildKit, which makes that file, locks it and removes it. So the file
//! that is locked may not be the one that has the name: both are compared after locking,
//! and if they differ it begins anew. A file that nobody holds means nothing, however old
//! it is. Both locks go with the process that holds them, whatever kills it.
//!
//! Nothing is hashed, and nobody is waited for, while they are held.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::store::disk::{Disk, DiskFile};

/// The lock file, by the name that BuildKit gives it.
pub(super) const LOCK_FILE: &str = "index.json.lock";

/// How soon a lock that is taken is tried again at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(10));

/// Why the locks were not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has kept one of them for too long.
    #[error("{path} is locked by another program since more than {} s", waited.as_secs())]
    Busy {
        /// The directory or file that is locked, relative to the layout.
        path: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Something that is no regular file has the lock file's name.
    #[error("{LOCK_FILE} is not a regular file")]
    FileType,
    /// The system refused.
    #[error("cannot lock {path}")]
    Io {
        /// What was to be locked, relative to the layout.
        path: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Both locks of a layout; dropping it gives them back and removes the lock file.
#[derive(Debug)]
pub struct LayoutLock {
    disk: Arc<dyn Disk>,
    /// Let go after its name was taken away.
    file: Box<dyn DiskFile>,
    /// Dropped last. None where the file system locks no directories (NFS): everybody
    /// meets the same there, and the other lock keeps us apart.
    _directory: Option<Box<dyn DiskFile>>,
}

impl LayoutLock {
    /// Takes both locks, and waits for them at most as long as `patience`.
    ///
    /// # Errors
    /// [`Error::Busy`] when that time is over.
    pub fn acquire(disk: &Arc<dyn Disk>, patience: Duration) -> Result<Self, Error> {
        let deadline = Deadline {
            begin: Instant::now(),
            patience,
        };
        let directory = lock_directory(&**disk, &deadline)?;
        let file = lock_file(&**disk, &deadline)?;
        Ok(Self {
            disk: disk.clone(),
            file,
            _directory: directory,
        })
    }
}

impl Drop for LayoutLock {
    fn drop(&mut self) {
        // BuildKit lets go before it removes: the name may be gone, or another's by now.
        let is_ours = |present| Ok(self.file.status()?.is_same_file(&present));
        let removed = match self.disk.status(LOCK_FILE).and_then(is_ours) {
            Ok(true) => self.disk.unlink(LOCK_FILE),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            log::debug!("{LOCK_FILE} stays: {error}");
        }
    }
}

struct Deadline {
    begin: Instant,
    patience: Duration,
}

impl Deadline {
    /// Takes the lock on `file`, which is `path`.
    fn lock(&self, file: &dyn DiskFile, path: &'static str) -> Result<(), Error> {
        let mut pause = RETRY.0;
        loop {
            if file
                .try_lock()
                .map_err(|source| Error::Io { path, source })?
            {
                return Ok(());
            }
            let waited = self.begin.elapsed();
            if waited >= self.patience {
                return Err(Error::Busy { path, waited });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY.1);
        }
    }
}

fn lock_directory(
    disk: &dyn Disk,
    deadline: &Deadline,
) -> Result<Option<Box<dyn DiskFile>>, Error> {
    let io = |source| Error::Io { path: ".", source };
    let directory = disk.open_lock(".").map_err(io)?;
    match deadline.lock(&*directory, ".") {
        Ok(()) => Ok(Some(directory)),
        Err(Error::Io { source, .. }) if locks_no_directories(&source) => {
            log::debug!("the layout directory cannot be locked: {source}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn locks_no_directories(error: &io::Error) -> bool {
    let meanings = [libc::EBADF, libc::EISDIR, libc::EINVAL, libc::EOPNOTSUPP];
    error
        .raw_os_error()
        .is_some_and(|errno| meanings.contains(&errno))
}

fn lock_file(disk: &dyn Disk, deadline: &Deadline) -> Result<Box<dyn DiskFile>, Error> {
    let io = |source| Error::Io {
        path: LOCK_FILE,
        source,
    };
    loop {
        let file = disk.open_lock(LOCK_FILE).map_err(io)?;
        let status = file.status().map_err(io)?;
        if !status.is_file {
            return Err(Error::FileType);
        }
        deadline.lock(&*file, LOCK_FILE)?;
        match disk.status(LOCK_FILE) {
            Ok(present) if present.is_same_file(&status) => return Ok(file),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            // Who held it before has removed it: the lock on it keeps nobody out.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::store::disk::RealDisk;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    const SOON: Duration = Duration::from_millis(20);

    fn disk() -> Result<(tempfile::TempDir, Arc<dyn Disk>), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let disk = RealDisk::new(std::fs::File::open(dir.path())?.into())?;
        Ok((dir, Arc::new(disk)))
    }

    #[test]
    fn one_at_a_time() -> TestResult {
        let (_dir, disk) = disk()?;
        let inside = AtomicU32::new(0);
        let work = || {
            for _ in 0..100 {
                let lock = LayoutLock::acquire(&disk, Duration::from_secs(60));
                assert!(lock.is_ok(), "{lock:?}");
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
                inside.fetch_sub(1, Ordering::SeqCst);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(work);
            }
        });
        Ok(())
    }

    #[test]
    fn the_lock_file_is_there_while_it_is_held_and_a_stale_one_means_nothing() -> TestResult {
        let (dir, disk) = disk()?;
        let path = dir.path().join(LOCK_FILE);
        std::fs::write(&path, "4711\n")?;
        let lock = LayoutLock::acquire(&disk, SOON)?;
        assert!(path.exists());
        drop(lock);
        assert!(!path.exists());
        Ok(())
    }

    #[test]
    fn waiting_for_each_of_the_two_ends() -> TestResult {
        for held in [".", LOCK_FILE] {
            let (_dir, disk) = disk()?;
            let file = disk.open_lock(held)?;
            assert!(file.try_lock()?, "{held}");
            let busy = LayoutLock::acquire(&disk, SOON);
            assert!(
                matches!(&busy, Err(Error::Busy { path, .. }) if *path == held),
                "{held}: {busy:?}"
            );
            drop(file);
            LayoutLock::acquire(&disk, SOON)?;
        }
        Ok(())
    }

    #[test]
    fn a_lock_file_that_was_removed_meanwhile_is_not_believed() -> TestResult {
        let (dir, disk) = disk()?;
        // As BuildKit ends: it removes the file that it has locked, and lets go.
        let foreign = disk.open_lock(LOCK_FILE)?;
        assert!(foreign.try_lock()?);
        let lock = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| LayoutLock::acquire(&disk, Duration::from_secs(10)));
            std::thread::sleep(SOON);
            disk.unlink(LOCK_FILE)?;
            drop(foreign);
            waiting.join().map_err(|_| io::Error::other("it panicked"))
        })??;
        let present = disk.status(LOCK_FILE)?;
        assert!(present.is_same_file(&lock.file.status()?));
        assert!(dir.path().join(LOCK_FILE).exists());
        Ok(())
    }

    #[test]
    fn what_is_no_file_is_refused() -> TestResult {
        let (dir, disk) = disk()?;
        std::fs::create_dir(dir.path().join(LOCK_FILE))?;
        assert!(matches!(
            LayoutLock::acquire(&disk, SOON),
            Err(Error::FileType)
        ));
        std::fs::remove_dir(dir.path().join(LOCK_FILE))?;
        std::os::unix::fs::symlink("elsewhere", dir.path().join(LOCK_FILE))?;
        assert!(matches!(
            LayoutLock::acquire(&disk, SOON),
            Err(Error::Io { .. })
        ));
        assert!(!dir.path().join("elsewhere").exists());
        Ok(())
    }
}
