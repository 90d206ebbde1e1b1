//! Changing `index.json`: under the locks, from reading to the last check.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::draft::Draft;
use super::merge::{Delta, EntrySet};
use super::{Content, INDEX, View};
use crate::oci;
use crate::oci::limits::Limit;
use crate::store::disk::{self, DiskFile, Exchange};
use crate::store::layout;
use crate::store::layout::refs::Refusal;
use crate::store::layout::writer::{Error, LayoutWriter, StoredBlob, Temporary};
use crate::store::layout::{TORN_PATIENCE, TORN_RETRY};

/// How often our change is made anew because somebody without the lock has written in
/// between. One copy of a foreign tool writes once; this is a storm of them.
const ATTEMPTS: usize = 20;

/// The most memory that is kept for the next index, in bytes.
const MOST_ROOM: usize = 16 << 20;

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

/// What came of writing the file.
enum Written {
    /// It is there, and nobody else wrote.
    Alone,
    /// It is not there any more, and neither is this, which nobody had read.
    Displaced(View),
    /// It is not: somebody else wrote this before.
    Preceded(View),
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
    /// [`Error::Contended`]; [`Error::Io`]. After an I/O error the index is the old one,
    /// unless the disk fails once more when it is put back.
    pub fn update<T>(
        &self,
        basis: &Basis<'_>,
        change: impl FnOnce(&mut Draft) -> Result<T, Refusal>,
    ) -> Result<Updated<T>, Error> {
        self.publish_copies(basis.blobs)?;
        let change = |_: &View, draft: &mut Draft| Ok((change(draft)?, basis.blobs.to_vec()));
        self.update_together(basis.last_good, change)
    }

    /// As [`LayoutWriter::update`], for a change that only learns under the locks which
    /// blobs it names. It is shown the index as it was found, too.
    pub(in crate::store::layout) fn update_together<T>(
        &self,
        last_good: Option<&View>,
        change: impl FnOnce(&View, &mut Draft) -> Result<(T, Vec<StoredBlob>), Refusal>,
    ) -> Result<Updated<T>, Error> {
        let lock = self.lock()?;
        let before = self.base(last_good)?;
        let mut draft = self.draft(&before)?;
        let (answer, blobs) = change(&before, &mut draft)?;
        // Before, too: after a power cut there is nobody to do it.
        self.relink_all(&blobs)?;
        let is_written = draft.is_changed();
        let after = if is_written {
            self.replace(&before, draft, &blobs)?
        } else {
            let after = self.settled(before.clone())?;
            self.relink_all(&blobs)?;
            after
        };
        drop(lock);
        Ok(Updated {
            answer,
            before,
            after,
            is_written,
        })
    }

    /// Lets the next index be written where the bytes of `view` were, if nobody needs them any
    /// more: memory that is new costs more than what is put into it.
    pub(in crate::store::layout) fn reuse_room_of(&self, view: View) {
        if let Some(room) = view.into_room()
            && room.capacity() <= MOST_ROOM
        {
            *self.room.lock() = room;
        }
    }

    /// Reads `index.json` once, as [`layout::Layout::read_index`] does.
    ///
    /// # Errors
    /// [`layout::Error`], wrapped.
    pub fn read_index(&self) -> Result<View, Error> {
        self.read_index_after(None)
    }

    /// The same, where `known` was read before: if it still says the same, it is not parsed
    /// again, and where the identity of the file says so, not even read.
    pub(in crate::store::layout) fn read_index_after(
        &self,
        known: Option<&View>,
    ) -> Result<View, Error> {
        let io = |source| layout::Error::Io {
            action: "read",
            path: self.path.join(INDEX),
            source,
        };
        let view = View::read_settled(
            &self.path,
            || self.disk.stamp(),
            || {
                let file = match self.disk.open(INDEX) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        let path = self.path.join(INDEX);
                        return Err(layout::Error::Missing { path });
                    }
                    other => other.map_err(io)?,
                };
                let before = file.status().map_err(io)?;
                if let Some(known) = known
                    && known.is_in(&before.identity)
                {
                    let content = Content::Known(known.clone());
                    return Ok((before.identity, content, before.identity));
                }
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
                let mut is_known = false;
                if let Some(known) = known {
                    is_known = disk::has_bytes(&*file, known.bytes()).map_err(io)?;
                }
                let content = match known {
                    Some(known) if is_known => Content::Known(known.clone()),
                    _ => Content::Read(disk::read_all(&*file, size).map_err(io)?),
                };
                let after = file.status().map_err(io)?;
                Ok((before.identity, content, after.identity))
            },
        )?;
        Ok(view)
    }

    /// Whether the file is one of which `known` is known to say what is in it.
    pub(in crate::store::layout) fn is_still(&self, known: &View) -> bool {
        let status = self.disk.status(INDEX);
        status.is_ok_and(|status| known.is_in(&status.identity))
    }

    /// The index as it is now, for decisions that are checked again under the locks.
    ///
    /// # Errors
    /// As [`Self::read_index`].
    pub fn present(&self) -> Result<Draft, Error> {
        self.present_after(None)
    }

    /// The same, where `known` was read before; it is what there is if the file stays torn.
    pub(in crate::store::layout) fn present_after(
        &self,
        known: Option<&View>,
    ) -> Result<Draft, Error> {
        self.draft(&self.base(known)?)
    }

    /// The index to start from: as it is now, or after some patience the last good one.
    fn base(&self, last_good: Option<&View>) -> Result<View, Error> {
        let deadline = Instant::now() + TORN_PATIENCE;
        loop {
            match (self.read_index_after(last_good), last_good) {
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

    /// Writes `draft`, which was made of `found` and names `blobs`, in the place of that,
    /// and of whatever gets there meanwhile.
    fn replace(&self, found: &View, mut draft: Draft, blobs: &[StoredBlob]) -> Result<View, Error> {
        let mut base = found.clone();
        for _ in 0..ATTEMPTS {
            let room = std::mem::take(&mut *self.room.lock());
            let bytes = Arc::new(draft.to_bytes_in(room));
            // What nobody could read any more is not written.
            let size = Limit::IndexJsonSize.check(bytes.len() as u64);
            size.map_err(|source| self.content(source))?;
            let written = self.write_checked(&base, &bytes, &draft, blobs);
            let (displaced, there) = written.inspect_err(|_| self.take_back(&base, &bytes))?;
            if let Some(foreign) = &displaced {
                draft = self.merge(found, &draft, foreign)?;
            }
            base = match there {
                Ok(ours) if displaced.is_none() => return Ok(ours),
                Ok(ours) => ours,
                Err(theirs) => {
                    draft = self.merge(found, &draft, &theirs)?;
                    theirs
                }
            };
            log::info!("index.json was written by another program at the same time: merged");
            if draft.to_bytes() == **base.bytes() {
                // Who wrote it had read ours. It need not be on the disk yet.
                return self.settled(base);
            }
        }
        Err(Error::Contended {
            path: self.path.join(INDEX),
        })
    }

    /// Writes the file and sees that it is there, with all of `blobs`. What was there
    /// instead of `base`; and what is there now, ours or somebody else's.
    fn write_checked(
        &self,
        base: &View,
        bytes: &Arc<Vec<u8>>,
        draft: &Draft,
        blobs: &[StoredBlob],
    ) -> Result<(Option<View>, Result<View, View>), Error> {
        let displaced = match self.write(base, bytes)? {
            Written::Preceded(theirs) => return Ok((None, Err(theirs))),
            Written::Alone => None,
            Written::Displaced(foreign) => Some(foreign),
        };
        let there = self.read_back(bytes, draft)?;
        self.relink_all(blobs)?;
        Ok((displaced, there))
    }

    /// After a failure: puts `base` there again, if `bytes` have taken its place, of which
    /// nobody has been told. What somebody else has written meanwhile stays.
    fn take_back(&self, base: &View, bytes: &Arc<Vec<u8>>) {
        let (mut ours, mut wanted) = (bytes.clone(), base.bytes().clone());
        for _ in 0..ATTEMPTS {
            let present = match self.read_index() {
                Ok(present) if *present.bytes() == ours => present,
                _ => return,
            };
            match self.write(&present, &wanted) {
                Ok(Written::Displaced(foreign)) => {
                    ours = std::mem::replace(&mut wanted, foreign.bytes().clone());
                }
                Ok(Written::Alone | Written::Preceded(_)) => return,
                Err(error) => {
                    return log::warn!("index.json stays as it was just written: {error}");
                }
            }
        }
    }

    fn relink_all(&self, blobs: &[StoredBlob]) -> Result<(), Error> {
        blobs.iter().try_for_each(|blob| self.relink(blob))
    }

    /// Makes an index that somebody else wrote durable.
    pub(in crate::store::layout) fn settled(&self, view: View) -> Result<View, Error> {
        let file = self.disk.open(INDEX);
        file.and_then(|file| self.settle(&*file, INDEX))
            .map_err(|source| self.io("sync", INDEX, source))?;
        Ok(view)
    }

    /// Reads the file that was just written, which says what `draft` does; what is there
    /// instead, if somebody else has written since.
    fn read_back(&self, bytes: &Arc<Vec<u8>>, draft: &Draft) -> Result<Result<View, View>, Error> {
        let io = |source| self.io("read back", INDEX, source);
        let began = self.disk.stamp();
        let file = self.disk.open(INDEX).map_err(io)?;
        let before = file.status().map_err(io)?;
        if !disk::has_bytes(&*file, bytes).map_err(io)? {
            return self.base(None).map(Err);
        }
        let after = file.status().map_err(io)?;
        let view = View::of_draft(draft, bytes.clone(), after.identity);
        Ok(Ok(match before == after {
            true => view.read_since(began),
            false => view,
        }))
    }

    /// What was made of `found` up to `draft`, made of `theirs` as well. That includes what
    /// others had written before, and we have taken away: who wrote `theirs` may never
    /// have seen it.
    fn merge(&self, found: &View, draft: &Draft, theirs: &View) -> Result<Draft, Error> {
        let before = EntrySet::of(&self.draft(found)?);
        let delta = Delta::between(&before, &EntrySet::of(draft));
        let mut merged = self.draft(theirs)?;
        let applied = delta.apply(&before, &mut merged);
        applied.map_err(|source| self.content(source))?;
        Ok(merged)
    }

    /// Puts a new file with `bytes` in the place of `index.json`, durably, if that is still
    /// `base`. The last look is taken when all that takes time is done.
    fn write(&self, base: &View, bytes: &[u8]) -> Result<Written, Error> {
        let io = |source| self.io("replace", INDEX, source);
        let mut temporary = Temporary::create(&self.disk, ".").map_err(io)?;
        temporary.file().write_at(bytes, 0).map_err(io)?;
        match self.disk.status(INDEX) {
            Ok(model) => temporary.file().imitate(&model).map_err(io)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match temporary.publish_new(INDEX).map_err(io)? {
                    true => Ok(Written::Alone),
                    false => self.base(None).map(Written::Preceded),
                };
            }
            Err(error) => return Err(io(error)),
        }
        temporary.prepare().map_err(io)?;
        let mut expected = base.bytes().clone();
        if self.disk.status(INDEX).map_err(io)?.identity != *base.identity() {
            match self.base(None) {
                Ok(view) if *view.bytes() != expected => return Ok(Written::Preceded(view)),
                // It will stay so: what is written goes on from the last good view.
                Err(error) if is_torn(&error) => expected = self.raw().map_err(io)?.into(),
                other => drop(other?),
            }
        }
        let is_expected = |file: &dyn DiskFile| disk::has_bytes(file, &expected);
        let exchange = temporary.publish_in_place_of(INDEX, is_expected);
        match exchange.map_err(io)? {
            Exchange::Published => Ok(Written::Alone),
            Exchange::Undone => self.base(None).map(Written::Preceded),
            Exchange::Displaced(file) => {
                let bytes = disk::read_all(&*file, Limit::IndexJsonSize.value()).map_err(io)?;
                let identity = file.status().map_err(io)?.identity;
                let foreign = View::of(&self.path, bytes, identity);
                // A torn one has been overwritten by a later one.
                Ok(foreign.map_or(Written::Alone, Written::Displaced))
            }
        }
    }

    /// The bytes of the file, be it torn.
    fn raw(&self) -> io::Result<Vec<u8>> {
        disk::read_all(&*self.disk.open(INDEX)?, Limit::IndexJsonSize.value())
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
