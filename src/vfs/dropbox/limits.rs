//! How much may be dropped: by one drop, and by one user.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::store::verify::MAX_BLOB_SIZE;
use crate::vfs::error::Error;

/// What one drop, and one user, may take. Where a limit is hit, the error is EFBIG and
/// names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest drop, in bytes: the largest blob that could be verified later.
    pub drop_size: u64,
    /// How long a drop may stay as it is, neither written to nor closed, or held back. What
    /// takes longer is forgotten: nobody will finish it.
    pub drop_time: Duration,
    /// How many bytes of one user may be held that are no blobs: of drops that are not
    /// committed, and of receipts for archives. Twice the largest drop.
    pub user_size: u64,
    /// How many drops a user may have open at a time. Each takes an open file, and a
    /// thread while it is written.
    pub user_open: usize,
    /// How many names a user may have in the drop box, receipts included: some 50 MB of
    /// memory.
    pub user_names: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            drop_size: MAX_BLOB_SIZE,
            drop_time: Duration::from_secs(24 * 3600),
            user_size: 2 * MAX_BLOB_SIZE,
            user_open: 256,
            user_names: 100_000,
        }
    }
}

/// What a user has in the drop box at this moment.
#[derive(Debug, Default)]
struct Usage {
    size: u64,
    open: usize,
    names: usize,
}

/// What all users have.
#[derive(Debug, Default)]
pub(super) struct Accounts(Mutex<HashMap<u32, Usage>>);

impl Accounts {
    /// Notes one more open drop, under a name that is new or not.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub(super) fn open(&self, user: u32, names: usize, limits: &Limits) -> Result<(), Error> {
        let mut accounts = self.0.lock();
        let usage = accounts.entry(user).or_default();
        if usage.open >= limits.user_open {
            let text = format!(
                "user {user} has {} drops open, which is the limit (drops of one user)",
                limits.user_open
            );
            return Err(Error::limit("LIMIT_DROPS_OPEN", text));
        }
        if usage.names + names > limits.user_names {
            let text = format!(
                "user {user} has {} names in the drop box, which is the limit (names of one \
                 user); remove receipts",
                limits.user_names
            );
            return Err(Error::limit("LIMIT_DROP_NAMES", text));
        }
        usage.open += 1;
        usage.names += names;
        Ok(())
    }

    /// Notes one open drop fewer.
    pub(super) fn close(&self, user: u32) {
        let mut accounts = self.0.lock();
        let usage = accounts.entry(user).or_default();
        usage.open = usage.open.saturating_sub(1);
    }

    /// Notes one name fewer.
    pub(super) fn forget(&self, user: u32) {
        let mut accounts = self.0.lock();
        let usage = accounts.entry(user).or_default();
        usage.names = usage.names.saturating_sub(1);
    }

    /// Notes that a drop takes `now` bytes that took `before`.
    ///
    /// # Errors
    /// [`Error::Limit`]; then it still takes `before`.
    pub(super) fn resize(
        &self,
        user: u32,
        before: u64,
        now: u64,
        limits: &Limits,
    ) -> Result<(), Error> {
        if now > limits.drop_size && now > before {
            let text = format!(
                "{now} bytes are over the limit of {} (size of a drop)",
                limits.drop_size
            );
            return Err(Error::limit("LIMIT_DROP_SIZE", text));
        }
        if now == before {
            return Ok(());
        }
        let mut accounts = self.0.lock();
        let usage = accounts.entry(user).or_default();
        let size = (usage.size.saturating_sub(before)).saturating_add(now);
        if size > limits.user_size && now > before {
            let text = format!(
                "user {user} has more than the limit of {} bytes in the drop box (size of one \
                 user's drops)",
                limits.user_size
            );
            return Err(Error::limit("LIMIT_USER_SIZE", text));
        }
        usage.size = size;
        Ok(())
    }
}

/// A drop that nobody went on with.
pub(super) fn too_late(limits: &Limits) -> Error {
    let text = format!(
        "nothing was written and it was not closed for {} seconds, which is the limit (time of \
         a drop)",
        limits.drop_time.as_secs()
    );
    Error::limit("LIMIT_DROP_TIME", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<(), Error>) -> Option<&'static str> {
        let error = result.err()?;
        assert_eq!(error.errno(), libc::EFBIG);
        error.fault().map(|fault| fault.code)
    }

    #[test]
    fn each_limit_is_told_by_its_name() {
        let limits = Limits {
            drop_size: 100,
            user_size: 150,
            user_open: 2,
            user_names: 3,
            ..Limits::default()
        };
        let accounts = Accounts::default();
        assert_eq!(
            code(accounts.resize(1, 0, 101, &limits)),
            Some("LIMIT_DROP_SIZE")
        );
        assert_eq!(code(accounts.resize(1, 0, 100, &limits)), None);
        assert_eq!(
            code(accounts.resize(1, 0, 51, &limits)),
            Some("LIMIT_USER_SIZE")
        );
        assert_eq!(
            code(accounts.resize(2, 0, 51, &limits)),
            None,
            "another user"
        );
        assert_eq!(code(accounts.resize(1, 100, 10, &limits)), None);
        assert_eq!(
            code(accounts.resize(1, 0, 51, &limits)),
            None,
            "there is room again"
        );
        assert_eq!(code(accounts.open(1, 1, &limits)), None);
        assert_eq!(code(accounts.open(1, 1, &limits)), None);
        assert_eq!(code(accounts.open(1, 1, &limits)), Some("LIMIT_DROPS_OPEN"));
        accounts.close(1);
        assert_eq!(code(accounts.open(1, 1, &limits)), None);
        accounts.close(1);
        assert_eq!(code(accounts.open(1, 1, &limits)), Some("LIMIT_DROP_NAMES"));
        assert_eq!(
            code(accounts.open(1, 0, &limits)),
            None,
            "the same name again"
        );
        accounts.close(1);
        accounts.forget(1);
        assert_eq!(code(accounts.open(1, 1, &limits)), None);
    }
}
