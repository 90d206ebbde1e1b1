//! How much may be in sessions: in one, and in all of one user.
//!
//! What counts is the room that files take on the disk, and how many files, directories and
//! other things there are, whatever names they have. Where the kernel writes to a file itself
//! nobody here sees how it grows, so each close counts anew; who is over a limit then is told
//! by that close, and begins and publishes nothing more until there is room again.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::Stat;

use super::inode::proc_path;
use crate::store::verify::MAX_BLOB_SIZE;
use crate::tar;
use crate::vfs::error::Error;

/// What one session, and one user, may take. Where a limit is hit, the error is EFBIG and
/// names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// How many bytes of the disk a session may take: as many as the largest blob that could
    /// be verified later.
    pub session_size: u64,
    /// How many files, directories and other things may be in a session: as many as a layer
    /// may have to be read again.
    pub session_files: u64,
    /// How long a session may lie about without being used. What nobody comes back to takes
    /// room for ever, since sessions outlive the mount.
    pub session_time: Duration,
    /// How many sessions a user may have: half of all that there may be.
    pub user_sessions: usize,
    /// How many bytes the sessions of one user may take together.
    pub user_size: u64,
    /// How many files, directories and other things one user may have in them.
    pub user_files: u64,
}

impl Default for SessionLimits {
    fn default() -> Self {
        let entries = tar::Limits::default().entries;
        Self {
            session_size: MAX_BLOB_SIZE,
            session_files: entries,
            session_time: Duration::from_secs(30 * 24 * 3600),
            user_sessions: super::MAX_SESSIONS / 2,
            user_size: 2 * MAX_BLOB_SIZE,
            user_files: 2 * entries,
        }
    }
}

/// What is in one session, or in all of one user.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Taken {
    size: u64,
    files: u64,
}

impl Taken {
    fn change(&mut self, size: i64, files: i64) {
        self.size = self.size.saturating_add_signed(size);
        self.files = self.files.saturating_add_signed(files);
    }
}

/// What all users have.
#[derive(Debug, Default)]
pub(super) struct Users(Mutex<HashMap<u32, User>>);

#[derive(Debug, Default)]
struct User {
    sessions: usize,
    taken: Taken,
}

impl Users {
    /// Whether a user may have one more session.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub(super) fn check(&self, user: u32, limits: &SessionLimits) -> Result<(), Error> {
        let users = self.0.lock();
        let sessions = users.get(&user).map_or(0, |user| user.sessions);
        if sessions < limits.user_sessions {
            return Ok(());
        }
        let text = format!(
            "user {user} has {sessions} sessions, which is the limit (sessions of one user); \
             publish or remove some"
        );
        Err(Error::limit("LIMIT_SESSIONS", text))
    }
}

/// Counts what is in a session.
#[derive(Debug)]
pub(super) struct Meter {
    user: u32,
    users: Arc<Users>,
    limits: SessionLimits,
    /// What is in the session; nothing any more when that is over.
    taken: Mutex<Option<Taken>>,
}

impl Meter {
    /// Counts for a new session of a user.
    pub(super) fn new(user: u32, users: &Arc<Users>, limits: SessionLimits) -> Self {
        users.0.lock().entry(user).or_default().sessions += 1;
        Self {
            user,
            users: users.clone(),
            limits,
            taken: Mutex::new(Some(Taken::default())),
        }
    }

    /// Notes that there is more, or less, in the session.
    pub(super) fn change(&self, size: i64, files: i64) {
        let mut taken = self.taken.lock();
        let Some(taken) = taken.as_mut() else {
            return;
        };
        let before = *taken;
        taken.change(size, files);
        let after = *taken;
        let mut users = self.users.0.lock();
        let of_user = &mut users.entry(self.user).or_default().taken;
        of_user.change(difference(before.size, after.size), 0);
        of_user.change(0, difference(before.files, after.files));
    }

    /// Whether that much more may come into the session.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub(super) fn check(&self, size: u64, files: u64) -> Result<(), Error> {
        let limits = &self.limits;
        let taken = self.taken.lock().unwrap_or_default();
        let of_user = {
            let users = self.users.0.lock();
            users.get(&self.user).map(|user| user.taken)
        };
        let of_user = of_user.unwrap_or_default();
        let rows = [
            (
                "LIMIT_SESSION_SIZE",
                "bytes in a session",
                taken.size.saturating_add(size),
                limits.session_size,
            ),
            (
                "LIMIT_SESSION_FILES",
                "files in a session",
                taken.files.saturating_add(files),
                limits.session_files,
            ),
            (
                "LIMIT_USER_SIZE",
                "bytes in the sessions of one user",
                of_user.size.saturating_add(size),
                limits.user_size,
            ),
            (
                "LIMIT_USER_FILES",
                "files in the sessions of one user",
                of_user.files.saturating_add(files),
                limits.user_files,
            ),
        ];
        match rows.into_iter().find(|(_, _, now, limit)| now > limit) {
            None => Ok(()),
            Some((code, what, now, limit)) => {
                let text = format!("{now} are over the limit of {limit} ({what})");
                Err(Error::limit(code, text))
            }
        }
    }

    /// Counts what is in the directory of a session by now.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn count(&self, root: &OwnedFd) -> io::Result<()> {
        let (mut taken, mut linked) = (Taken::default(), HashSet::new());
        let mut directories = vec![PathBuf::from(proc_path(root))];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if metadata.is_dir() {
                    directories.push(entry.path());
                } else if metadata.nlink() > 1 && !linked.insert(metadata.ino()) {
                    continue;
                }
                taken.change(signed(room(&metadata)), 1);
            }
        }
        self.change(signed(taken.size), signed(taken.files));
        Ok(())
    }
}

impl Meter {
    /// Counts no more: the session is over, though some may still know it.
    pub(super) fn end(&self) {
        let Some(taken) = self.taken.lock().take() else {
            return;
        };
        let mut users = self.users.0.lock();
        if let Some(user) = users.get_mut(&self.user) {
            user.taken.change(-signed(taken.size), -signed(taken.files));
            user.sessions = user.sessions.saturating_sub(1);
            if user.sessions == 0 {
                users.remove(&self.user);
            }
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end();
    }
}

/// A session with which nobody went on.
pub(super) fn too_late(limits: &SessionLimits) -> Error {
    let text = format!(
        "nobody used it for {} seconds, which is the limit (time of a session)",
        limits.session_time.as_secs()
    );
    Error::limit("LIMIT_SESSION_TIME", text)
}

/// The room on the disk that counts: that of regular files.
pub(super) fn room(metadata: &Metadata) -> u64 {
    match metadata.is_file() {
        true => metadata.blocks().saturating_mul(512),
        false => 0,
    }
}

/// The same of what `stat` says.
pub(super) fn room_of(stat: &Stat) -> u64 {
    match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::RegularFile => u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
        _ => 0,
    }
}

/// What was added from one number to another.
pub(super) fn difference(before: u64, after: u64) -> i64 {
    signed(after) - signed(before)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<(), Error>) -> Option<&'static str> {
        let error = result.err()?;
        assert_eq!(error.errno(), libc::EFBIG);
        error.fault().map(|fault| fault.code)
    }

    const LIMITS: SessionLimits = SessionLimits {
        session_size: 100,
        session_files: 10,
        session_time: Duration::from_secs(7),
        user_sessions: 2,
        user_size: 150,
        user_files: 15,
    };

    #[test]
    fn each_limit_is_told_by_its_name() {
        let users = Arc::new(Users::default());
        let (one, two) = (Meter::new(1, &users, LIMITS), Meter::new(1, &users, LIMITS));
        let other = Meter::new(2, &users, LIMITS);
        one.change(100, 10);
        assert_eq!(code(one.check(0, 0)), None);
        assert_eq!(code(one.check(1, 0)), Some("LIMIT_SESSION_SIZE"));
        assert_eq!(code(one.check(0, 1)), Some("LIMIT_SESSION_FILES"));
        assert_eq!(code(two.check(50, 5)), None);
        assert_eq!(code(two.check(51, 0)), Some("LIMIT_USER_SIZE"));
        assert_eq!(code(two.check(0, 6)), Some("LIMIT_USER_FILES"));
        assert_eq!(code(other.check(51, 6)), None, "another user");
        one.change(1, 0);
        assert_eq!(code(one.check(0, 0)), Some("LIMIT_SESSION_SIZE"));
        one.change(-60, -5);
        assert_eq!(code(one.check(1, 1)), None, "there is room again");
        assert_eq!(code(users.check(1, &LIMITS)), Some("LIMIT_SESSIONS"));
        assert_eq!(code(users.check(2, &LIMITS)), None);
        one.end();
        one.change(1000, 1000);
        assert_eq!(code(users.check(1, &LIMITS)), None, "one is over");
        assert_eq!(code(two.check(100, 10)), None);
        drop((one, two, other));
        assert!(users.0.lock().is_empty());
        assert_eq!(code(Err(too_late(&LIMITS))), Some("LIMIT_SESSION_TIME"));
    }

    #[test]
    fn what_is_there_is_counted() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir_all(dir.path().join("a/b"))?;
        std::fs::write(dir.path().join("a/f"), vec![1; 5000])?;
        std::fs::hard_link(dir.path().join("a/f"), dir.path().join("a/b/g"))?;
        std::os::unix::fs::symlink("/", dir.path().join("root"))?;
        let meter = Meter::new(1, &Arc::default(), LIMITS);
        meter.count(&std::fs::File::open(dir.path())?.into())?;
        let taken = meter.taken.lock().ok_or("it is not over")?;
        assert_eq!(taken.files, 4);
        assert!((5000..20_000).contains(&taken.size), "{taken:?}");
        Ok(())
    }
}
