//! Looks at the files of sessions after they were written, so that publishing finds most
//! of it done.
//!
//! After the last close of a file that was written, one thread sees whether it is still
//! mapped by who wrote it, and if it is a blob, hashes it. The verdict hangs on the state
//! of the file, as every verdict does, and counts when the session is published.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::inode::{Inode, Place};
use super::lender::digest_at;
use super::tree::Phase;
use crate::store::progress::Unwatched;
use crate::store::{Blob, Verdicts};
use crate::vfs::attr::FileKind;
use crate::vfs::error::Error;

/// How long files that are open for writing are waited for: the kernel tells of a close
/// a moment after the program was answered.
pub(super) const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// How soon it is looked again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// `F_SETSIG` of `fcntl(2)`.
const F_SETSIG: libc::c_int = 10;

/// Who hashes.
#[derive(Debug)]
pub(super) struct Hasher {
    queue: Mutex<Option<Sender<Arc<Inode>>>>,
}

impl Hasher {
    /// One that does so on a thread of its own.
    pub(super) fn new(verdicts: Arc<Verdicts>) -> Arc<Self> {
        let (queue, files) = channel();
        let work = move || work(&files, &verdicts);
        let spawned = std::thread::Builder::new()
            .name("sessions".into())
            .spawn(work);
        let queue = match spawned {
            Ok(_) => Some(queue),
            Err(error) => {
                log::warn!("files of sessions are hashed only when published: {error}");
                None
            }
        };
        Arc::new(Self {
            queue: Mutex::new(queue),
        })
    }

    /// Looks at a file when there is time.
    pub(super) fn add(&self, inode: &Arc<Inode>) {
        if let Some(queue) = &*self.queue.lock() {
            // The thread ends with the last who could add something.
            drop(queue.send(inode.clone()));
        }
    }
}

fn work(files: &Receiver<Arc<Inode>>, verdicts: &Verdicts) {
    for inode in files {
        if inode.is_written() || inode.tree().phase() == Phase::Gone {
            continue;
        }
        match look_at(&inode, verdicts) {
            Ok(()) | Err(Error::Stale) => {}
            Err(error) => log::debug!("{} is not hashed yet: {error}", inode.path()),
        }
    }
}

fn look_at(inode: &Arc<Inode>, verdicts: &Verdicts) -> Result<(), Error> {
    let Some(file) = settled(inode)? else {
        return Ok(());
    };
    let Place::Named(parent, name) = inode.place() else {
        return Ok(());
    };
    if let Some(digest) = digest_at(&parent, &name) {
        let verified = verdicts.verify(&Blob::new(digest, file)?, &Unwatched);
        verified.or_else(|error| {
            log::debug!("in a session: {error}");
            Ok(())
        })
    } else {
        Ok(())
    }
}

/// The file, open for reading, if nobody can write to it any more; `None` while somebody
/// can.
///
/// # Errors
/// What the system says.
pub(super) fn settled(inode: &Arc<Inode>) -> Result<Option<File>, Error> {
    let _gate = inode.tree().look()?;
    if inode.kind() != FileKind::Regular || inode.is_gone() {
        inode.tree().clear_suspect(inode.number());
        return Ok(None);
    }
    let file = File::from(inode.reopen(OFlags::RDONLY)?);
    if has_writers(file.as_fd()) {
        return Ok(None);
    }
    if !inode.is_written() {
        inode.tree().clear_suspect(inode.number());
    }
    Ok(Some(file))
}

/// Whether anybody has the file open to be written to, or mapped so. The kernel that
/// writes to a backing file itself says nothing of mappings: the file of the mount is
/// closed while they stay. But no lease for reading is given as long as there is one.
pub(super) fn has_writers(file: BorrowedFd<'_>) -> bool {
    // Should the lease be in somebody's way, the kernel says so by a signal: one that does
    // nothing unless it is asked for, as the usual one would end the process.
    let asked = lease(file, F_SETSIG, libc::SIGURG);
    let taken = asked.and_then(|()| lease(file, libc::F_SETLEASE, libc::F_RDLCK));
    match taken {
        Ok(()) => {
            if let Err(error) = lease(file, libc::F_SETLEASE, libc::F_UNLCK) {
                log::warn!("a lease stays until its file is closed: {error}");
            }
            false
        }
        Err(error) => error.raw_os_error() == Some(libc::EAGAIN),
    }
}

/// Whether anybody still has the file open so when `deadline` has come.
pub(super) fn keeps_writers(file: BorrowedFd<'_>, deadline: Instant) -> bool {
    while has_writers(file) {
        if Instant::now() >= deadline {
            return true;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    false
}

#[expect(unsafe_code, reason = "there is no safe way to ask for a lease")]
fn lease(file: BorrowedFd<'_>, command: libc::c_int, argument: libc::c_int) -> std::io::Result<()> {
    // SAFETY: these commands take a number and touch no memory of this process.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    match result {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}
