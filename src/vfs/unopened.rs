//! Directories that the kernel lists without opening them.
//!
//! It can be told never to ask for `opendir`. Then nothing says which listing a request
//! goes on with, but its offset. So each listing that was begun of a directory whose names
//! can change has a number, which is a part of every offset in it, and is held until its
//! reader is through. Names that hang on a digest need none of this: they are the same
//! whenever they are listed.
//!
//! Who leaves a listing in the middle says so to nobody. Such ones are bounded by their
//! number and their age; who goes on all the same after that has the names as they are by
//! then, from the same position on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::Error;
use super::inode::Ino;
use super::listing::Listing;
use super::node::{Caching, Node};

/// How many listings are held.
const HELD: usize = 256;

/// How many of them are of one directory.
const HELD_OF_ONE: usize = 8;

/// How long a listing is held after its reader was here last.
const PATIENCE: Duration = Duration::from_secs(300);

/// The number of a listing that was begun; [`Series::STEADY`] where the names are always the
/// same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Series(pub u8);

impl Series {
    /// Names that hang on a digest.
    pub const STEADY: Self = Self(0);
    /// How many numbers there are, with that of the steady ones.
    pub const COUNT: u8 = 128;

    fn next(self) -> Self {
        Self(self.0 % (Self::COUNT - 1) + 1)
    }
}

/// A listing, and its number.
pub type Part = (Series, Arc<dyn Listing>);

/// A listing that somebody is in the midst of.
#[derive(Debug)]
struct Held {
    ino: Ino,
    series: Series,
    listing: Arc<dyn Listing>,
    /// When its reader was here last.
    used: Instant,
}

impl Held {
    fn is(&self, ino: Ino, series: Series) -> bool {
        self.ino == ino && self.series == series
    }
}

/// The listings that somebody is in the midst of; those that were used last come last.
#[derive(Debug, Default)]
pub(super) struct Unopened(Mutex<State>);

#[derive(Debug)]
struct State {
    held: VecDeque<Held>,
    last: Series,
}

impl Default for State {
    fn default() -> Self {
        Self {
            held: VecDeque::new(),
            last: Series::STEADY,
        }
    }
}

impl State {
    fn take(&mut self, ino: Ino, series: Series) -> Option<Held> {
        let at = self.held.iter().position(|held| held.is(ino, series))?;
        self.held.remove(at)
    }

    /// Takes out what is held too long, and the oldest where there are too many. Dropping
    /// them takes time, and is left to the caller.
    fn take_surplus(&mut self, ino: Ino, now: Instant) -> Vec<Held> {
        let mut surplus = Vec::new();
        let (mut all, mut of_one) = (self.held.len(), self.count(ino));
        let mut at = 0;
        while let Some(held) = self.held.get(at) {
            let is_old = now.duration_since(held.used) > PATIENCE;
            let is_too_many = held.ino == ino && of_one > HELD_OF_ONE;
            if !is_old && !is_too_many && all <= HELD {
                at += 1;
                continue;
            }
            of_one -= usize::from(held.ino == ino);
            all -= 1;
            surplus.extend(self.held.remove(at));
        }
        surplus
    }

    fn count(&self, ino: Ino) -> usize {
        self.held.iter().filter(|held| held.ino == ino).count()
    }
}

impl Unopened {
    /// The names of a directory, from the first on.
    ///
    /// # Errors
    /// [`Error::NotDirectory`] for other kinds, or what the node answers.
    pub(super) fn start(&self, ino: Ino, node: &dyn Node, now: Instant) -> Result<Part, Error> {
        let listing = node.listing()?;
        if node.list_caching() == Caching::Keep {
            return Ok((Series::STEADY, listing));
        }
        let mut state = self.0.lock();
        let series = state.last.next();
        state.last = series;
        let held = Held {
            ino,
            series,
            listing: listing.clone(),
            used: now,
        };
        // The number may have gone round.
        let former = state.take(ino, series);
        state.held.push_back(held);
        let surplus = state.take_surplus(ino, now);
        drop(state);
        drop((former, surplus));
        Ok((series, listing))
    }

    /// The names of a directory, for who is in the midst of them.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(super) fn go_on(
        &self,
        (ino, series): (Ino, Series),
        node: &dyn Node,
        now: Instant,
    ) -> Result<Part, Error> {
        let mut state = self.0.lock();
        if let Some(held) = state.take(ino, series) {
            let listing = held.listing.clone();
            state.held.push_back(Held { used: now, ..held });
            return Ok((series, listing));
        }
        drop(state);
        Ok((series, node.listing()?))
    }

    /// Its reader has seen all names.
    pub(super) fn end(&self, ino: Ino, series: Series) {
        let ended = self.0.lock().take(ino, series);
        drop(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::attr::{Attr, FileKind};
    use crate::vfs::key::NodeKey;
    use crate::vfs::node::{Child, Patience};

    const INO: Ino = Ino(7);

    /// A directory, or one of the files in it.
    #[derive(Debug)]
    struct Fake {
        name: &'static str,
        names: Mutex<Vec<&'static str>>,
        caching: Caching,
    }

    fn directory(names: &[&'static str]) -> Fake {
        Fake {
            name: "directory",
            names: Mutex::new(names.to_vec()),
            caching: Caching::Direct,
        }
    }

    impl Node for Fake {
        fn key(&self) -> NodeKey {
            NodeKey::content("fake", self.name.to_owned())
        }

        fn kind(&self) -> FileKind {
            FileKind::Directory
        }

        fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
            Err(Error::Invalid)
        }

        fn list(&self) -> Result<Vec<Child>, Error> {
            let child = |name: &&'static str| Child {
                name: name.as_bytes().to_vec(),
                node: Arc::new(Self {
                    name,
                    ..directory(&[])
                }),
            };
            Ok(self.names.lock().iter().map(child).collect())
        }

        fn list_caching(&self) -> Caching {
            self.caching
        }
    }

    fn names((_, listing): &Part) -> Vec<String> {
        let children = (0..).map_while(|at| listing.child(at));
        let name = |child: Child| String::from_utf8_lossy(&child.name).into_owned();
        children.map(name).collect()
    }

    #[test]
    fn who_reads_on_has_the_names_that_were_when_it_began() -> Result<(), Error> {
        let (unopened, node, now) = (Unopened::default(), directory(&["a", "b"]), Instant::now());
        let old = unopened.start(INO, &node, now)?;
        *node.names.lock() = vec!["b"];
        let fresh = unopened.start(INO, &node, now)?;
        assert_ne!(old.0, fresh.0);
        for _ in 0..2 {
            assert_eq!(
                names(&unopened.go_on((INO, old.0), &node, now)?),
                ["a", "b"]
            );
            assert_eq!(names(&unopened.go_on((INO, fresh.0), &node, now)?), ["b"]);
        }
        let other = unopened.go_on((Ino(8), old.0), &directory(&["c"]), now)?;
        assert_eq!(names(&other), ["c"], "another directory");
        unopened.end(INO, old.0);
        assert_eq!(names(&unopened.go_on((INO, old.0), &node, now)?), ["b"]);
        assert_eq!(unopened.0.lock().held.len(), 1);
        unopened.end(INO, fresh.0);
        assert!(unopened.0.lock().held.is_empty());
        Ok(())
    }

    #[test]
    fn names_that_hang_on_a_digest_are_not_held() -> Result<(), Error> {
        let unopened = Unopened::default();
        let node = Fake {
            caching: Caching::Keep,
            ..directory(&["a"])
        };
        let now = Instant::now();
        let started = unopened.start(INO, &node, now)?;
        assert_eq!(started.0, Series::STEADY);
        assert_eq!(names(&unopened.go_on((INO, started.0), &node, now)?), ["a"]);
        assert!(unopened.0.lock().held.is_empty());
        Ok(())
    }

    #[test]
    fn who_leaves_in_the_middle_is_forgotten_in_the_end() -> Result<(), Error> {
        let (unopened, node, now) = (Unopened::default(), directory(&["a"]), Instant::now());
        let held = || unopened.0.lock().held.len();
        let (first, _) = unopened.start(INO, &node, now)?;
        // Whoever is still there is not the oldest.
        for _ in 0..2 * HELD_OF_ONE {
            unopened.start(INO, &node, now)?;
            unopened.go_on((INO, first), &node, now)?;
        }
        assert_eq!(held(), HELD_OF_ONE);
        assert!(
            unopened
                .0
                .lock()
                .held
                .iter()
                .any(|held| held.is(INO, first))
        );
        for at in 0..2 * HELD as u64 {
            unopened.start(Ino(100 + at), &node, now)?;
        }
        assert_eq!(held(), HELD);
        unopened.start(INO, &node, now + 2 * PATIENCE)?;
        assert_eq!(held(), 1);
        Ok(())
    }

    #[test]
    fn numbers_go_round_and_never_mean_the_steady_ones() -> Result<(), Error> {
        let (unopened, node, now) = (Unopened::default(), directory(&["a"]), Instant::now());
        let count = usize::from(Series::COUNT);
        let mut all = Vec::new();
        for _ in 0..2 * count {
            let (series, _) = unopened.start(INO, &node, now)?;
            assert!(series != Series::STEADY && series.0 < Series::COUNT);
            all.push(series);
        }
        assert_eq!(all[0], all[count - 1]);
        assert!(all[1..count - 1].iter().all(|series| *series != all[0]));
        Ok(())
    }
}
