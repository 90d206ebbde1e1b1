//! Changing `index.json`: under the locks, from reading to the last check.

use std::io;
use std::time::Instant;

use super::draft::Draft;
use super::merge::{Delta, EntrySet};
use super::{INDEX, View};
use crate::oci::limits::Limit;
use crate::oci::{self, Digest};
use crate::store::disk::{self, DiskFile};
use crate::store::layout;
use crate::store::layout::refs::Refusal;
use crate::store::layout::writer::{Error, LayoutWriter, StoredBlob, Temporary};
use crate::store::layout::{TORN_PATIENCE, TORN_RETRY};

/// How often our change is made anew because somebody without the lock has written in
/// between. One copy of a foreign tool writes once; this is a storm of them.
const ATTEMPTS: usize = 20;

/// What an update starts from, beside the file.
#[derive(Debug, Default)]
pub struct Basis<'a> {
    /// The blobs that the change names: they are seen to be there when the new index is.
    pub blobs: &'a [StoredBlob],
    /// The view to go on from if the file stays torn or is missing: another tool died
    /// over it.
    pub last_good: Option<&'a View>,
}

/// What an update has done.
#[derive(Debug)]
pub struct Updated<T> {
    /// What the change answered.
    pub answer: T,
    /// The index as it was found.
    pub before: View,
    /// The index as it is now.
    pub after: View,
    /// Whether anything was written.
    pub is_written: bool,
}

/// A change that was made once, to be made again to what somebody else wrote.
struct Change {
    before: EntrySet,
    delta: Delta,
}

impl LayoutWriter {
    /// Changes `index.json`. The locks are held from reading to the last check; when this
    /// returns, the index and all of `basis.blobs` are durable.
    ///
    /// `change` sees the index as it is under the locks. It is called once; writers that
    /// know no locks and get in between are merged with it, by descriptor. A change that
    /// changes nothing writes nothing.
    ///
    /// # Errors
    /// What `change` answers, and then nothing was written; [`Error::Lock`];
    /// [`Error::Layout`] if the index is torn and no last good view is given;
    /// [`Error::Contended`]; [`Error::Io`]. After an I/O error the index is the old one or
    /// the new one.
    pub fn update<T>(
        &self,
        basis: &Basis<'_>,
        change: impl FnOnce(&mut Draft) -> Result<T, Refusal>,
    ) -> Result<Updated<T>, Error> {
        let lock = self.lock()?;
        let before = self.base(basis.last_good)?;
        let mut draft = self.draft(&before)?;
        let answer = change(&mut draft)?;
        let is_written = draft.is_changed();
        let after = if is_written {
            self.replace(&before, draft)?
        } else {
            before.clone()
        };
        for blob in basis.blobs {
            self.relink(blob)?;
        }
        drop(lock);
        Ok(Updated {
            answer,
            before,
            after,
            is_written,
        })
    }

    /// Reads `index.json` once, as [`layout::Layout::read_index`] does.
    ///
    /// # Errors
    /// [`layout::Error`], wrapped.
    pub fn read_index(&self) -> Result<View, Error> {
        let io = |source| layout::Error::Io {
            action: "read",
            path: self.path.join(INDEX),
            source,
        };
        let view = View::read_settled(&self.path, || {
            let file = match self.disk.open(INDEX) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let path = self.path.join(INDEX);
                    return Err(layout::Error::Missing { path });
                }
                other => other.map_err(io)?,
            };
            let before = file.status().map_err(io)?;
            if !before.is_file {
                return Err(layout::Error::FileType {
                    path: self.path.join(INDEX),
                    expected: "regular file",
                    found: "a special file",
                });
            }
            let size = before.identity.size;
            let too_large = Limit::IndexJsonSize.check(size);
            too_large.map_err(|source| layout::Error::Content {
                path: self.path.join(INDEX),
                source,
            })?;
            let bytes = disk::read_all(&*file, size).map_err(io)?;
            let after = file.status().map_err(io)?;
            Ok((before.identity, bytes, after.identity))
        })?;
        Ok(view)
    }

    /// The index as it is now, for decisions that are checked again under the locks.
    pub(in crate::store::layout) fn present(&self) -> Result<Draft, Error> {
        self.draft(&self.base(None)?)
    }

    /// The index to start from: as it is now, or after some patience the last good one.
    fn base(&self, last_good: Option<&View>) -> Result<View, Error> {
        let deadline = Instant::now() + TORN_PATIENCE;
        loop {
            match (self.read_index(), last_good) {
                (Err(error), _) if is_torn(&error) && Instant::now() < deadline => {
                    std::thread::sleep(TORN_RETRY);
                }
                (Err(error), Some(view)) if is_torn(&error) => {
                    log::warn!("the last good index is restored: {error}");
                    return Ok(view.clone());
                }
                (other, _) => return other,
            }
        }
    }

    /// Writes `draft`, which was made of `found`, in the place of that, and of whatever
    /// gets there meanwhile.
    fn replace(&self, found: &View, mut draft: Draft) -> Result<View, Error> {
        let (mut base, mut change) = (found.clone(), None);
        for _ in 0..ATTEMPTS {
            let bytes = draft.to_bytes();
            let theirs = match self.write(&base, &bytes)? {
                // Somebody wrote after we had read, and we have just taken it away.
                Some(foreign) => foreign,
                None => match self.read_back(&bytes, &draft)? {
                    Ok(view) => return Ok(view),
                    Err(foreign) => foreign,
                },
            };
            log::info!("index.json was written by another program at the same time: merging");
            let change = match &mut change {
                Some(change) => change,
                none => none.insert(self.change(found, &draft)?),
            };
            draft = self.draft(&theirs)?;
            let merged = change.delta.apply(&change.before, &mut draft);
            merged.map_err(|source| self.content(source))?;
            base = self.base(None)?;
            if draft.to_bytes() == **base.bytes() {
                return Ok(base);
            }
        }
        Err(Error::Contended {
            path: self.path.join(INDEX),
        })
    }

    /// Reads the file that was just written, which says what `draft` does; what is there
    /// instead, if somebody else has written since.
    fn read_back(&self, bytes: &[u8], draft: &Draft) -> Result<Result<View, View>, Error> {
        let io = |source| self.io("read back", INDEX, source);
        let file = self.disk.open(INDEX).map_err(io)?;
        let present = disk::read_all(&*file, Limit::IndexJsonSize.value()).map_err(io)?;
        if present != bytes {
            return self.base(None).map(Err);
        }
        Ok(Ok(View {
            digest: Digest::of(bytes),
            bytes: present.into(),
            entries: draft.entries().cloned().collect(),
            identity: file.status().map_err(io)?.identity,
        }))
    }

    fn change(&self, found: &View, draft: &Draft) -> Result<Change, Error> {
        let before = EntrySet::of(&self.draft(found)?);
        let delta = Delta::between(&before, &EntrySet::of(draft));
        Ok(Change { before, delta })
    }

    /// Puts a new file with `bytes` in the place of `index.json`, durably. A sound view
    /// that was there instead of `base`, if somebody has written since that was read.
    fn write(&self, base: &View, bytes: &[u8]) -> Result<Option<View>, Error> {
        let io = |source| self.io("replace", INDEX, source);
        let mut temporary = Temporary::create(&self.disk, ".").map_err(io)?;
        temporary.file().write_at(bytes, 0).map_err(io)?;
        match self.disk.status(INDEX) {
            Ok(model) => temporary.file().imitate(&model).map_err(io)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return temporary.publish(INDEX).map(|()| None).map_err(io);
            }
            Err(error) => return Err(io(error)),
        }
        let displaced = temporary.exchange(INDEX).map_err(io)?;
        let Some(file) = displaced else {
            return Ok(None);
        };
        self.find_foreign(&*file, base).map_err(io)
    }

    /// What somebody has written to the file that was displaced, after it was read as
    /// `base`. A torn one is waited for: its writer does not know that it was displaced.
    fn find_foreign(&self, file: &dyn DiskFile, base: &View) -> io::Result<Option<View>> {
        let deadline = Instant::now() + TORN_PATIENCE;
        loop {
            let bytes = disk::read_all(file, Limit::IndexJsonSize.value())?;
            if bytes == **base.bytes() {
                return Ok(None);
            }
            let view = View::of(&self.path, bytes, file.status()?.identity);
            if view.is_ok() || Instant::now() >= deadline {
                return Ok(view.ok());
            }
            std::thread::sleep(TORN_RETRY);
        }
    }

    fn draft(&self, view: &View) -> Result<Draft, Error> {
        Draft::of(view).map_err(|source| self.content(source))
    }

    fn content(&self, source: oci::Error) -> Error {
        let path = self.path.join(INDEX);
        layout::Error::Content { path, source }.into()
    }
}

/// Whether the index may be one that another tool is just writing.
fn is_torn(error: &Error) -> bool {
    matches!(
        error,
        Error::Layout(
            layout::Error::Empty { .. }
                | layout::Error::Content { .. }
                | layout::Error::Missing { .. }
                | layout::Error::Unsettled { .. }
        )
    )
}
