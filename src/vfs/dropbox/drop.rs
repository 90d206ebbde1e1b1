//! One drop: a file that is written, judged, and stays as a receipt.
//!
//! Its bytes are in a file without a name until a close commits them; then they are a blob
//! of the layout, or the receipt keeps them. What was committed is never changed: who
//! writes on gets a copy.
//!
//! Concurrency: the state is locked for one request at a time, and is not while a commit
//! is under way; requests that need its end wait for that.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::DropBox;
use super::closer::Closer;
use super::commits::Made;
use super::course::{Closing, Course, Stage};
use super::place::{Place, Shelf};
use super::refusal::Refusal;
use crate::ingest::{self, Report};
use crate::oci::Digest;
use crate::store::ReadAt;
use crate::store::layout::writer::{BlobWriter, CopyError, SealedBlob, StoredBlob};
use crate::store::progress::Unwatched;
use crate::vfs::error::Error;
use crate::vfs::writable::Holder;

/// How long a receipt is found that nothing lists.
const UNLISTED_RECEIPT: Duration = Duration::from_secs(60);

/// How long who opens, renames, replaces or removes a file waits until nobody has it open
/// any more: the kernel tells of the last close when the program has long gone on.
const LATE_CLOSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Drop {
    pub(super) number: u64,
    pub(super) owner: (u32, u32),
    dropbox: Arc<DropBox>,
    state: Mutex<State>,
    /// Told when a commit has ended and when the last descriptor is closed.
    settled: Condvar,
}

#[derive(Debug)]
struct State {
    place: Place,
    course: Course,
    bytes: Bytes,
    size: u64,
    /// How many bytes the user is charged for.
    charged: u64,
    /// The entries of the index that the present writer has made.
    made: Vec<Made>,
    receipt: Receipt,
    mtime: SystemTime,
    /// When something was last done with it.
    touched: Instant,
    /// It has no name any more.
    is_removed: bool,
}

impl State {
    /// See [`Drop::is_shown_elsewhere`].
    fn is_shown_elsewhere(&self) -> bool {
        let is_about = matches!(self.place.shelf, Shelf::Referrers(_));
        is_about && matches!(self.course.stage(), Stage::Committed) && !self.course.is_pending()
    }
}

/// Where the bytes of a drop are.
#[derive(Debug, Default)]
enum Bytes {
    /// Nowhere: it was refused, or is being looked at.
    #[default]
    None,
    /// In a file that is written.
    Written(Box<BlobWriter>),
    /// In a file that is not written any more.
    Sealed(SealedBlob),
    /// In the layout; and how many there are.
    Stored(Digest, u64),
}

/// What a drop has become.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) digests: Vec<String>,
    pub(super) refs: Vec<String>,
}

impl From<&Report> for Receipt {
    fn from(report: &Report) -> Self {
        let mut receipt = Self {
            digests: report.images.iter().map(|i| i.digest.to_string()).collect(),
            refs: report
                .images
                .iter()
                .filter_map(|i| i.name.clone())
                .collect(),
        };
        if report.images.is_empty() {
            let blobs = report.blobs.iter();
            receipt.digests = blobs.map(|blob| blob.digest.to_string()).collect();
        }
        receipt
    }
}

/// What is told of a drop to those who look at the whole box.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) place: Place,
    pub(super) stage: &'static str,
    pub(super) size: u64,
    /// Whether something is still to become of it.
    pub(super) is_under_way: bool,
}

impl Drop {
    /// A drop that begins, open for its writer.
    pub(super) fn begin(
        dropbox: &Arc<DropBox>,
        place: Place,
        owner: (u32, u32),
    ) -> Result<Arc<Self>, Error> {
        let begun = dropbox.commits.begin().map_err(ingest::Error::from)?;
        Ok(Arc::new(Self {
            number: dropbox.next_number(),
            owner,
            dropbox: dropbox.clone(),
            state: Mutex::new(State {
                place,
                course: Course::new(),
                bytes: Bytes::Written(Box::new(begun)),
                size: 0,
                charged: 0,
                made: Vec::new(),
                receipt: Receipt::default(),
                mtime: SystemTime::now(),
                touched: Instant::now(),
                is_removed: false,
            }),
            settled: Condvar::new(),
        }))
    }

    /// Opens it for a further writer: emptied, it is a new drop; else that goes on from
    /// what is there.
    pub(super) fn open_to_write(&self, empty: bool) -> Result<(), Error> {
        let mut state = self.closed_state()?;
        if state.is_removed {
            return Err(Error::Stale);
        }
        self.dropbox.check_open()?;
        let begun = match empty {
            true => Some(self.dropbox.commits.begin().map_err(ingest::Error::from)?),
            false => None,
        };
        self.dropbox.admit(self.owner.0, 0)?;
        state.made.clear();
        state.touched = Instant::now();
        match begun {
            Some(begun) => {
                self.charge(&mut state, 0)?;
                state.course = Course::new();
                state.receipt = Receipt::default();
                (state.bytes, state.size) = (Bytes::Written(Box::new(begun)), 0);
            }
            None => state.course.reopen(),
        }
        Ok(())
    }

    /// Makes sure that nobody writes it.
    pub(super) fn check_closed(&self) -> Result<(), Error> {
        self.closed_state().map(|_| ())
    }

    /// The state when the last descriptor is gone, if that is only late.
    fn closed_state(&self) -> Result<MutexGuard<'_, State>, Error> {
        let mut state = self.state.lock();
        let until = Instant::now() + LATE_CLOSE;
        while state.course.is_open() {
            let is_busy = state.course.is_written() || state.course.is_committing();
            if is_busy || Instant::now() >= until {
                return Err(Error::Busy);
            }
            self.settled.wait_until(&mut state, until);
        }
        // The close of a file into which nothing was written commits when it is over.
        self.await_verdict(&mut state);
        Ok(state)
    }

    /// Whether [`Self::open_to_write`] would wait.
    pub(super) fn is_unsettled(&self) -> bool {
        let course = &self.state.lock().course;
        course.is_open() || course.is_committing()
    }

    pub(super) fn place(&self) -> Place {
        self.state.lock().place.clone()
    }

    /// Whether the name shows it: what was refused is not there.
    pub(super) fn is_visible(&self) -> bool {
        let state = self.state.lock();
        !state.is_removed && !matches!(state.course.stage(), Stage::Refused(_))
    }

    /// Whether it is a receipt for something that is listed in its place already.
    pub(super) fn is_shown_elsewhere(&self) -> bool {
        self.state.lock().is_shown_elsewhere()
    }

    /// Size and time.
    pub(super) fn stat(&self) -> (u64, SystemTime) {
        let state = self.state.lock();
        (state.size, state.mtime)
    }

    pub(super) fn receipt(&self) -> Receipt {
        self.state.lock().receipt.clone()
    }

    /// Why it was refused, if it was.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self.state.lock().course.stage() {
            Stage::Refused(refusal) => Some(refusal.clone()),
            Stage::Receiving | Stage::Committing | Stage::Committed => None,
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let state = self.state.lock();
        let (stage, is_under_way) = match state.course.stage() {
            Stage::Committing => ("committing", true),
            _ if state.course.is_held() => ("held back", true),
            // What was written after a verdict has none yet.
            _ if state.course.is_pending() => ("receiving", true),
            Stage::Receiving => ("receiving", true),
            Stage::Committed => ("committed", false),
            Stage::Refused(_) => ("refused", false),
        };
        Summary {
            place: state.place.clone(),
            stage,
            size: state.size,
            is_under_way,
        }
    }

    /// Reads what is there.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        let mut state = self.settled_state();
        let read = match &mut state.bytes {
            Bytes::None => return Err(Error::Stale),
            // These are not yet what a digest says.
            Bytes::Written(writer) => return Ok(writer.read_at(buf, offset)?),
            Bytes::Sealed(sealed) => sealed.read_at(buf, offset),
            Bytes::Stored(digest, size) => self.stored(digest, *size)?.read_at(buf, offset),
        };
        read.map_err(|error| Error::of_content(&error))
    }

    /// The bytes as they are, for a reader that keeps them; `None` while they are written.
    pub(super) fn content(&self) -> Result<Option<Arc<dyn ReadAt>>, Error> {
        let state = self.settled_state();
        Ok(match &state.bytes {
            Bytes::None | Bytes::Written(_) => None,
            Bytes::Sealed(sealed) => Some(Arc::new(sealed.clone())),
            Bytes::Stored(digest, size) => Some(Arc::new(self.stored(digest, *size)?)),
        })
    }

    fn stored(&self, digest: &Digest, size: u64) -> Result<StoredBlob, Error> {
        let held = self.dropbox.commits.hold(digest, size);
        Ok(held.map_err(ingest::Error::from)?)
    }

    /// Writes all of `bytes` at `offset`.
    pub(super) fn write(&self, bytes: &[u8], offset: u64, by: Holder) -> Result<(), Error> {
        let end = offset.checked_add(bytes.len() as u64);
        self.change(
            by,
            |size| size.max(end.unwrap_or(u64::MAX)),
            |writer, _| writer.write_at(bytes, offset),
        )
    }

    /// Cuts it, or lengthens it with zeros; `by_name` if who asks has not opened it: then
    /// somebody must be writing, whose close commits that too.
    pub(super) fn set_size(&self, size: u64, by_name: bool) -> Result<(), Error> {
        {
            let state = self.settled_state();
            if !state.course.is_open() || by_name && !state.course.is_pending() {
                return Err(Error::NotPermitted);
            }
            if state.size == size {
                return state.course.check_alive();
            }
        }
        self.change(Holder::default(), |_| size, BlobWriter::set_size)
    }

    fn change(
        &self,
        by: Holder,
        new_size: impl FnOnce(u64) -> u64,
        change: impl FnOnce(&mut BlobWriter, u64) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        let mut state = self.settled_state();
        state.course.check_alive()?;
        let size = new_size(state.size);
        let changed = self.try_change(&mut state, size, change);
        if let Err(error) = changed {
            self.die(state, Refusal::from(error.clone()));
            return Err(error);
        }
        state.size = size;
        state.mtime = SystemTime::now();
        state.touched = Instant::now();
        state.course.written(by);
        // Those who wait for its end need not.
        self.settled.notify_all();
        Ok(())
    }

    fn try_change(
        &self,
        state: &mut State,
        size: u64,
        change: impl FnOnce(&mut BlobWriter, u64) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        self.dropbox.check_open()?;
        self.charge(state, size)?;
        Ok(change(self.writer(state)?, size)?)
    }

    /// The writer; one that begins with what was committed, where there is none.
    fn writer<'a>(&self, state: &'a mut State) -> Result<&'a mut BlobWriter, Error> {
        let again = match &state.bytes {
            Bytes::Written(_) => None,
            Bytes::None => return Err(Error::Stale),
            Bytes::Sealed(sealed) => Some(self.copy(sealed)?),
            Bytes::Stored(digest, size) => Some(self.copy(&self.stored(digest, *size)?)?),
        };
        if let Some(writer) = again {
            state.bytes = Bytes::Written(Box::new(writer));
        }
        match &mut state.bytes {
            Bytes::Written(writer) => Ok(writer),
            Bytes::None | Bytes::Sealed(_) | Bytes::Stored(..) => Err(Error::Stale),
        }
    }

    /// A writer that begins with these bytes.
    fn copy(&self, source: &dyn ReadAt) -> Result<BlobWriter, Error> {
        let mut writer = self.dropbox.commits.begin().map_err(ingest::Error::from)?;
        let copied = writer.copy(source, &Unwatched);
        copied.map_err(|(CopyError::Read(error) | CopyError::Write(error))| {
            Error::of_content(&error)
        })?;
        Ok(writer)
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        let mut state = self.settled_state();
        state.course.check_alive()?;
        let synced = match &mut state.bytes {
            Bytes::Written(writer) => writer.sync(),
            // What is in the layout was synced before; what is sealed will be.
            Bytes::None | Bytes::Sealed(_) | Bytes::Stored(..) => Ok(()),
        };
        if let Err(error) = synced {
            let error = Error::from(error);
            self.die(state, Refusal::from(error.clone()));
            return Err(error);
        }
        Ok(())
    }

    /// Whether the next close may take long.
    pub(super) fn close_is_slow(&self) -> bool {
        let course = &self.state.lock().course;
        course.is_pending() || course.is_committing() || course.will_be_empty()
    }

    /// A descriptor was closed.
    pub(super) fn close(self: &Arc<Self>, by: Holder, closer: Closer) -> Result<(), Error> {
        let mut state = self.settled_state();
        let closing = state.course.close(by, closer);
        self.settled.notify_all();
        match closing {
            Closing::Nothing => Ok(()),
            Closing::Tell(error) => Err(error),
            Closing::Lose(refusal) => Err(refusal.error().clone()),
            Closing::Commit => self.commit(state),
        }
    }

    /// The last descriptor is gone.
    pub(super) fn release(self: &Arc<Self>) {
        let mut state = self.settled_state();
        let lost = match state.course.release() {
            Closing::Commit => {
                // Nobody is there to be told; the name tells.
                let (Ok(()) | Err(_)) = self.commit(state);
                state = self.state.lock();
                None
            }
            Closing::Lose(refusal) if !state.is_removed => Some(refusal),
            Closing::Lose(_) | Closing::Nothing | Closing::Tell(_) => None,
        };
        self.dropbox.accounts.close(self.owner.0);
        let place = state.place.clone();
        let is_refused = matches!(state.course.stage(), Stage::Refused(_));
        if is_refused {
            self.clear_name(&mut state);
        }
        self.settle(&mut state);
        drop(state);
        if is_refused {
            self.dropbox.take_out(&place, self);
        }
        if let Some(refusal) = lost {
            self.dropbox.refuse(&place, self.owner, &refusal);
        }
        self.settled.notify_all();
    }

    /// Takes the name away: nothing will be committed any more.
    pub(super) fn remove(&self) -> Result<(), Error> {
        let mut state = self.named_state()?;
        self.clear_name(&mut state);
        if !state.course.is_open() {
            self.clear(&mut state);
        }
        Ok(())
    }

    /// Whether [`Self::remove`] would wait.
    pub(super) fn remove_is_slow(&self) -> bool {
        let course = &self.state.lock().course;
        course.is_ending() || course.is_committing()
    }

    /// Lets go of a name that a new drop takes, if nobody is writing.
    pub(super) fn give_way(&self) -> Result<(), Error> {
        let mut state = self.settled_state();
        if state.course.is_open() && state.course.is_written() {
            return Err(Error::Busy);
        }
        self.clear_name(&mut state);
        Ok(())
    }

    fn clear_name(&self, state: &mut State) {
        if !state.is_removed {
            state.is_removed = true;
            self.dropbox.accounts.forget(self.owner.0);
        }
    }

    /// Gives it another name. What was held back until now, and was closed, is committed
    /// under that first.
    pub(super) fn rename(self: &Arc<Self>, to: Place) -> Result<(), Error> {
        let wanted = to.wanted()?;
        let mut state = self.named_state()?;
        match wanted {
            Some(name) if state.course.is_held() => self.commit_as(state, &to, &name),
            _ => {
                state.place = to;
                Ok(())
            }
        }
    }

    /// The state of what has a name, when nobody has it open any more if that is only late.
    fn named_state(&self) -> Result<MutexGuard<'_, State>, Error> {
        let mut state = self.state.lock();
        let until = Instant::now() + LATE_CLOSE;
        while state.course.is_ending() && Instant::now() < until {
            self.settled.wait_until(&mut state, until);
        }
        self.await_verdict(&mut state);
        match state.is_removed {
            true => Err(Error::NotFound),
            false => Ok(state),
        }
    }

    /// Forgets a drop with which nobody went on; whether it is one.
    pub(super) fn expire(self: &Arc<Self>, now: Instant) -> bool {
        let mut state = self.state.lock();
        let limits = &self.dropbox.options.limits;
        let is_idle = now.saturating_duration_since(state.touched) > limits.drop_time;
        if !is_idle || !matches!(state.course.stage(), Stage::Receiving) {
            return false;
        }
        let refusal = Refusal::from(super::limits::too_late(limits));
        let (place, is_open) = (state.place.clone(), state.course.is_open());
        state.course.die(refusal.clone());
        self.clear(&mut state);
        if !is_open {
            self.clear_name(&mut state);
        }
        drop(state);
        self.settled.notify_all();
        if !is_open {
            self.dropbox.take_out(&place, self);
        }
        self.dropbox.refuse(&place, self.owner, &refusal);
        true
    }

    /// Forgets a receipt that nothing lists, after a while; never the drop of a writer that
    /// opens it meanwhile.
    pub(super) fn expire_receipt(self: &Arc<Self>, now: Instant) {
        let mut state = self.state.lock();
        let idle = now.saturating_duration_since(state.touched);
        if idle <= UNLISTED_RECEIPT || state.course.is_open() || !state.is_shown_elsewhere() {
            return;
        }
        let place = state.place.clone();
        self.clear_name(&mut state);
        self.clear(&mut state);
        drop(state);
        self.dropbox.take_out(&place, self);
    }

    /// Commits what is there, if the name asks for it.
    fn commit(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> Result<(), Error> {
        match state.place.wanted() {
            Ok(Some(name)) if !state.is_removed => {
                let place = state.place.clone();
                self.commit_as(state, &place, &name)
            }
            _ => {
                state.course.hold();
                state.touched = Instant::now();
                Ok(())
            }
        }
    }

    /// Commits what is there under `name`, the one of `place`. What is refused there and was
    /// held back in another place is so still, unless the disk has failed.
    fn commit_as(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        place: &Place,
        name: &ingest::Name,
    ) -> Result<(), Error> {
        let Some(_running) = self.dropbox.running.begin() else {
            self.die(state, Refusal::from(Error::ReadOnly));
            return Err(Error::ReadOnly);
        };
        state.course.begin();
        let bytes = std::mem::take(&mut state.bytes);
        let mut made = std::mem::take(&mut state.made);
        drop(state);
        let began = Instant::now();
        let (bytes, verdict) = self.judge(bytes, name, &mut made);
        let mut state = self.state.lock();
        (state.bytes, state.made, state.touched) = (bytes, made, Instant::now());
        let result = match verdict {
            Ok(report) => {
                log::info!(
                    "{}: {} in {:?}",
                    place.shown(),
                    report.kind.name(),
                    began.elapsed()
                );
                state.place = place.clone();
                state.receipt = Receipt::from(&report);
                state.course.decide(Ok(()));
                if !state.course.is_open() {
                    self.settle(&mut state);
                }
                drop(state);
                self.dropbox.dismiss(place);
                Ok(())
            }
            Err(error) => {
                // What the disk has not taken once it must not be asked for again.
                let is_fatal = error.class() == ingest::ErrorClass::Io;
                let refusal = Refusal::from(error);
                let is_held = state.place != *place;
                match (is_fatal, is_held) {
                    (true, _) => {
                        state.course.die(refusal.clone());
                        self.clear(&mut state);
                    }
                    (false, true) => state.course.hold(),
                    (false, false) => state.course.decide(Err(refusal.clone())),
                }
                // Nobody may go on with it.
                let is_over = (is_fatal || !is_held) && !state.course.is_open();
                if is_over {
                    self.clear_name(&mut state);
                }
                let named = state.place.clone();
                drop(state);
                self.dropbox.refuse(place, self.owner, &refusal);
                if is_over {
                    self.dropbox.take_out(&named, self);
                }
                Err(refusal.error().clone())
            }
        };
        self.settled.notify_all();
        result
    }

    /// Finds the verdict on `bytes`.
    fn judge(
        &self,
        bytes: Bytes,
        name: &ingest::Name,
        made: &mut Vec<Made>,
    ) -> (Bytes, Result<Report, ingest::Error>) {
        let sealed = match bytes {
            Bytes::Written(writer) => match writer.seal() {
                Ok(sealed) => sealed,
                Err(error) => return (Bytes::None, Err(error.into())),
            },
            Bytes::Sealed(sealed) => sealed,
            Bytes::None | Bytes::Stored(..) => {
                let gone = std::io::Error::from_raw_os_error(libc::ESTALE);
                return (
                    bytes,
                    Err(ingest::Error::Read {
                        source: gone.into(),
                    }),
                );
            }
        };
        let verdict = self.dropbox.commits.bring_in(sealed.clone(), name, made);
        (Bytes::Sealed(sealed), verdict)
    }

    /// Keeps of a drop that nobody writes what its receipt needs.
    fn settle(&self, state: &mut State) {
        if state.is_removed {
            return self.clear(state);
        }
        if let (Bytes::Sealed(sealed), Stage::Committed) = (&state.bytes, state.course.stage())
            && self.dropbox.commits.has(sealed.digest())
        {
            state.bytes = Bytes::Stored(sealed.digest().clone(), sealed.size());
            // To take less is always allowed.
            let (Ok(()) | Err(_)) = self.charge(state, 0);
        }
    }

    /// Gives the room back.
    fn clear(&self, state: &mut State) {
        state.bytes = Bytes::None;
        let (Ok(()) | Err(_)) = self.charge(state, 0);
    }

    fn charge(&self, state: &mut State, size: u64) -> Result<(), Error> {
        let (user, limits) = (self.owner.0, &self.dropbox.options.limits);
        let accounts = &self.dropbox.accounts;
        accounts.resize(user, state.charged, size, limits)?;
        state.charged = size;
        Ok(())
    }

    /// Lets it end: every later request gets the same error.
    fn die(&self, mut state: MutexGuard<'_, State>, refusal: Refusal) {
        let place = state.place.clone();
        state.course.die(refusal.clone());
        self.clear(&mut state);
        drop(state);
        self.settled.notify_all();
        self.dropbox.refuse(&place, self.owner, &refusal);
    }

    /// The state while no commit is under way.
    fn settled_state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        self.await_verdict(&mut state);
        state
    }

    fn await_verdict(&self, state: &mut MutexGuard<'_, State>) {
        while state.course.is_committing() {
            self.settled.wait(state);
        }
    }
}
