//! Listings of directories that the kernel does not open.
//!
//! Once `opendir` was answered with ENOSYS, the kernel asks for it no more, in all of the
//! mount, and keeps the names of every directory that it has read to the end. So a tree that
//! was walked once is walked again without a request. Names that can change must not be
//! kept: before a reader is told that it has seen all of them, and the kernel takes them for
//! whole, it is made to drop those that it has. It never gives out a part of them, and asks
//! for all of them the next time.

use std::sync::{Arc, OnceLock};

use fuser::INodeNo;

use crate::vfs::{Error, Handle, Ino, Listing, Series, Vfs};

/// How many numbers listings have: an offset counts names by steps of as many, which leaves
/// room for 16 million of them to programs that know no offsets of more than 31 bits.
const STEP: u64 = Series::COUNT as u64;

/// Where a listing goes on: the kernel's offset, and the open directory if there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    /// None for a directory that nobody opened.
    pub(super) handle: Option<Handle>,
    pub(super) offset: u64,
}

/// A listing from some name on.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) listing: Arc<dyn Listing>,
    /// How many names come before, with `.` and `..`.
    pub(super) before: u64,
    /// Of a directory that nobody opened.
    series: Option<Series>,
}

impl Position {
    /// The listing that goes on here.
    ///
    /// # Errors
    /// What the file system answers.
    pub(super) fn part(self, vfs: &Vfs, ino: Ino) -> Result<Part, Error> {
        if let Some(handle) = self.handle {
            return Ok(Part {
                listing: vfs.listing(handle, self.offset == 0)?,
                before: self.offset,
                series: None,
            });
        }
        let number = u8::try_from(self.offset % STEP).unwrap_or(0);
        let begun = (self.offset != 0).then_some(Series(number));
        let (series, listing) = vfs.listing_unopened(ino, begun)?;
        Ok(Part {
            listing,
            before: self.offset / STEP,
            series: Some(series),
        })
    }
}

impl Part {
    /// The kernel's offset before which there are `count` names.
    pub(super) fn offset(&self, count: u64) -> u64 {
        match self.series {
            None => count,
            Some(series) => count * STEP + u64::from(series.0),
        }
    }
}

/// Tells the kernel which names not to keep.
#[derive(Debug, Default)]
pub(super) struct Unopened(OnceLock<fuser::Notifier>);

impl Unopened {
    /// To be called before the first request is answered.
    pub(super) fn begin(&self, notifier: fuser::Notifier) {
        drop(self.0.set(notifier));
    }

    /// To be called before a reader of `part` is told that this was all.
    pub(super) fn end(&self, vfs: &Vfs, ino: Ino, part: &Part) {
        let Some(series) = part.series.filter(|series| *series != Series::STEADY) else {
            return;
        };
        vfs.end_unopened(ino, series);
        let Some(notifier) = self.0.get() else {
            return;
        };
        // Nobody waits for a page of a directory while it waits for an answer.
        if let Err(error) = notifier.inval_inode(INodeNo(ino.0), 0, 0) {
            log::warn!("the kernel may keep names of inode {}: {error}", ino.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_names_within_their_series() {
        let part = |series| Part {
            listing: Arc::new(Vec::new()),
            before: 0,
            series,
        };
        assert_eq!(part(None).offset(5), 5);
        assert_eq!(part(Some(Series::STEADY)).offset(5), 5 * STEP);
        let most = Series(Series::COUNT - 1);
        for series in [Series::STEADY, Series(1), most] {
            let offsets: Vec<u64> = (0..4).map(|at| part(Some(series)).offset(at)).collect();
            assert!(offsets.is_sorted_by(|a, b| a < b));
            for (count, offset) in (0..).zip(offsets) {
                assert_eq!((offset / STEP, offset % STEP), (count, series.0.into()));
            }
        }
        assert!(part(Some(most)).offset(16_000_000) < 1 << 31);
    }
}
