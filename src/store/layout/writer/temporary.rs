//! Files that have no final name yet.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::disk::{self, Disk, DiskFile, Exchange, Publication};

/// Where files are that need a name before they get their final one.
pub(super) const DIRECTORY: &str = ".ocifs/tmp";

/// A new file. Dropping it without publishing it removes it.
#[derive(Debug)]
pub(in crate::store::layout) struct Temporary {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    /// Its path below [`DIRECTORY`], if it has one. Then the file is locked.
    name: Option<String>,
}

impl Temporary {
    /// A file without any name, on the file system of `directory`; with one where the
    /// file system has no such files.
    pub(in crate::store::layout) fn create(
        disk: &Arc<dyn Disk>,
        directory: &str,
    ) -> io::Result<Self> {
        let created = match disk.create_unnamed(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create_unnamed("."),
            other => other,
        };
        match created {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Self::create_named(disk),
            created => Ok(Self {
                disk: disk.clone(),
                file: created?.into(),
                name: None,
            }),
        }
    }

    /// A file that has a name below [`DIRECTORY`] from the beginning.
    fn create_named(disk: &Arc<dyn Disk>) -> io::Result<Self> {
        disk::make_directories(&**disk, DIRECTORY)?;
        loop {
            let name = new_name();
            let file = match disk.create(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            };
            let temporary = Self {
                disk: disk.clone(),
                file: file.into(),
                name: Some(name.clone()),
            };
            // Between the two steps it looked like rubbish, and may have been collected.
            let is_locked = temporary.file.try_lock()?;
            match disk.status(&name) {
                Ok(present) if is_locked && present.is_same_file(&temporary.file.status()?) => {
                    return Ok(temporary);
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }

    /// The file itself.
    pub(in crate::store::layout) fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// The file, to be kept beyond the temporary.
    pub(super) fn share(&self) -> Arc<dyn DiskFile> {
        self.file.clone()
    }

    /// Publishes the file under `path`, in place of what is there.
    pub(in crate::store::layout) fn publish(&mut self, path: &str) -> io::Result<()> {
        self.place(path)?;
        self.disk.sync_directory(disk::parent(path))
    }

    /// The same up to the name, which lasts when the directory is synced.
    pub(super) fn place(&mut self, path: &str) -> io::Result<()> {
        if self.name.is_none() {
            match disk::place(&*self.disk, &*self.file, Publication::Link, path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other,
            }
        }
        let name = self.name()?;
        disk::place(&*self.disk, &*self.file, Publication::Rename(&name), path)?;
        self.name = None;
        Ok(())
    }

    /// Publishes the file under `path` if nothing is there; whether nothing was.
    pub(in crate::store::layout) fn publish_new(&mut self, path: &str) -> io::Result<bool> {
        match disk::publish(&*self.disk, &*self.file, Publication::Link, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Does beforehand what publishing it in place of something needs and what takes time.
    pub(in crate::store::layout) fn prepare(&mut self) -> io::Result<()> {
        self.name()?;
        self.file.sync()
    }

    /// Publishes the file under `path`, in place of what is there if that is expected.
    pub(in crate::store::layout) fn publish_in_place_of(
        &mut self,
        path: &str,
        is_expected: impl Fn(&dyn DiskFile) -> io::Result<bool>,
    ) -> io::Result<Exchange> {
        let name = self.name()?;
        let result = disk::publish_in_place_of(&*self.disk, &*self.file, &name, path, is_expected);
        if result.is_err() && !self.is_at(&name) {
            // It is what was there before, which nobody has read.
            self.name = None;
        }
        result
    }

    fn is_at(&self, name: &str) -> bool {
        let present = self.disk.status(name);
        present
            .and_then(|present| Ok(present.is_same_file(&self.file.status()?)))
            .unwrap_or(false)
    }

    /// Its name below [`DIRECTORY`], given now if it has none. The lock is taken before:
    /// at no moment does it look like rubbish.
    fn name(&mut self) -> io::Result<String> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        disk::make_directories(&*self.disk, DIRECTORY)?;
        if !self.file.try_lock()? {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        loop {
            let name = new_name();
            match self.file.link(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => {
                    other?;
                    return Ok(self.name.insert(name).clone());
                }
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        match self.disk.unlink(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("{name} stays until the next start: {error}");
            }
            _ => {}
        }
    }
}

/// Whether there are any files.
pub(super) fn are_there(disk: &dyn Disk) -> bool {
    disk.list(DIRECTORY).is_ok_and(|names| !names.is_empty())
}

/// Removes the files that nobody has locked; how many those were. Only under the locks of
/// the layout: an index that was put aside for a moment lies there unlocked.
pub(super) fn collect(disk: &dyn Disk) -> io::Result<usize> {
    let names = match disk.list(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut collected = 0;
    for name in names {
        let path = format!("{DIRECTORY}/{name}");
        match collect_one(disk, &path) {
            Ok(removed) => collected += usize::from(removed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(collected)
}

fn collect_one(disk: &dyn Disk, path: &str) -> io::Result<bool> {
    let file = disk.open(path)?;
    let status = file.status()?;
    let abandoned = status.is_file && file.try_lock()? && disk.status(path)?.is_same_file(&status);
    if abandoned {
        disk.unlink(path)?;
    }
    Ok(abandoned)
}

fn new_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Processes of several containers may have one number.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.subsec_nanos());
    format!("{DIRECTORY}/{}-{count}-{nanos:x}", std::process::id())
}
