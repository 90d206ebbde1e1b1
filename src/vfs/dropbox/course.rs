//! The course of one drop: what each write and each close means, and nothing else.
//!
//! ```text
//!             write            close                    verdict
//!  Receiving ──────► Receiving ─────► Committing ──┬──► Committed ──┐
//!      ▲                                           └──► Refused ────┤
//!      └──────────────────────── write ─────────────────────────────┘
//! ```
//!
//! Where the name holds it back, a close leads to no verdict; a rename does later.
//!
//! | event | bytes since the last verdict | then |
//! |---|---|---|
//! | close | some | they are committed, and the verdict is answered |
//! | close | none, never any | nothing: `dd` and shells close a duplicate first |
//! | close | none, after a verdict | a refusal is told again |
//! | close by the last writer of these, whom a signal ends | some | nothing is committed |
//! | the last descriptor goes | none, never any | an empty file is committed |
//! | the last descriptor goes | some | the writer was killed: refused |
//! | a rename of what was held back | none, since a close | they are committed under the new name |
//!
//! Who writes after another writer goes on in its place, also if that one was killed: the
//! kernel may tell of its end later. An error of the disk is the end: every later request
//! gets the same one.

use crate::vfs::error::Error;
use crate::vfs::writable::Holder;

use super::closer::Closer;
use super::refusal::Refusal;

/// Where a drop is.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// There is no verdict yet.
    Receiving,
    /// The verdict is being found.
    Committing,
    /// What was there at the last verdict is in the layout.
    Committed,
    /// It is not, and why.
    Refused(Refusal),
}

/// What a close has to do.
#[derive(Debug)]
pub(super) enum Closing {
    /// Nothing.
    Nothing,
    /// To answer this.
    Tell(Error),
    /// To commit what is there.
    Commit,
    /// To remember that it is lost.
    Lose(Refusal),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Course {
    stage: Stage,
    /// Whether a writer has it open.
    is_open: bool,
    was_written: bool,
    /// Whether there are bytes since the last verdict.
    is_pending: bool,
    /// Who wrote the last of those.
    writer: Option<Holder>,
    /// The signal that ended one of those, if nobody has written since.
    killed: Option<i32>,
    /// What ended it for good.
    dead: Option<Error>,
}

impl Course {
    /// A drop that was just opened.
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Receiving,
            is_open: true,
            was_written: false,
            is_pending: false,
            writer: None,
            killed: None,
            dead: None,
        }
    }

    /// Where it is.
    pub(super) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Whether a writer has it open.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether there are bytes without a verdict.
    pub(super) fn is_pending(&self) -> bool {
        self.is_pending
    }

    /// Whether a writer that lives has written such bytes.
    pub(super) fn is_written(&self) -> bool {
        self.is_pending && self.killed.is_none()
    }

    /// Whether it is open, and only the end of that is missing as far as is known: nothing
    /// was written, or the writer was killed.
    pub(super) fn is_ending(&self) -> bool {
        let is_killed = self.killed.is_some() && self.dead.is_none();
        self.is_open && (self.will_be_empty() || is_killed)
    }

    /// Whether it is being committed.
    pub(super) fn is_committing(&self) -> bool {
        matches!(self.stage, Stage::Committing)
    }

    /// Whether the last close will commit an empty file.
    pub(super) fn will_be_empty(&self) -> bool {
        !self.was_written
            && self.killed.is_none()
            && self.dead.is_none()
            && matches!(self.stage, Stage::Receiving)
    }

    /// Whether what is there was closed, and waits for a name.
    pub(super) fn is_held(&self) -> bool {
        self.was_written && !self.is_pending && matches!(self.stage, Stage::Receiving)
    }

    /// It was opened once more, to be written on from what is there.
    pub(super) fn reopen(&mut self) {
        self.is_open = true;
    }

    /// What ended it, if something has.
    pub(super) fn check_alive(&self) -> Result<(), Error> {
        self.dead.clone().map_or(Ok(()), Err)
    }

    /// Lets it end with this error, the same for all that comes.
    pub(super) fn die(&mut self, refusal: Refusal) {
        self.dead = Some(refusal.error().clone());
        self.stage = Stage::Refused(refusal);
        self.is_pending = false;
    }

    /// Bytes were written, or the size set.
    pub(super) fn written(&mut self, by: Holder) {
        self.was_written = true;
        self.is_pending = true;
        self.killed = None;
        self.writer = Some(by);
    }

    /// A descriptor was closed.
    pub(super) fn close(&mut self, by: Holder, closer: Closer) -> Closing {
        if let Some(error) = &self.dead {
            return Closing::Tell(error.clone());
        }
        match (closer, &self.stage) {
            (Closer::Killed(signal), _) if !self.was_written => {
                self.killed = Some(signal);
                Closing::Nothing
            }
            (Closer::Killed(signal), _) if self.is_pending && self.writer == Some(by) => {
                self.killed = Some(signal);
                Closing::Nothing
            }
            // The bytes are those of others, who are still there.
            (Closer::Killed(_), _) => Closing::Nothing,
            (Closer::Living, _) if self.is_pending => match self.killed {
                Some(signal) => Closing::Tell(Refusal::killed(signal).error().clone()),
                None => Closing::Commit,
            },
            (Closer::Living, Stage::Refused(refusal)) => Closing::Tell(refusal.error().clone()),
            (Closer::Living, _) => {
                if !self.was_written {
                    self.killed = None;
                }
                Closing::Nothing
            }
        }
    }

    /// The last descriptor is gone.
    pub(super) fn release(&mut self) -> Closing {
        self.is_open = false;
        if self.will_be_empty() {
            return Closing::Commit;
        }
        // Every close comes before this, so a living writer has its verdict.
        let is_torso = self.is_pending || (!self.was_written && self.killed.is_some());
        if is_torso && self.dead.is_none() {
            let refusal = Refusal::killed(self.killed.unwrap_or(0));
            self.die(refusal.clone());
            return Closing::Lose(refusal);
        }
        Closing::Nothing
    }

    /// The verdict is being found from now on.
    pub(super) fn begin(&mut self) {
        self.stage = Stage::Committing;
        self.is_pending = false;
        self.writer = None;
    }

    /// The verdict.
    pub(super) fn decide(&mut self, verdict: Result<(), Refusal>) {
        self.stage = match verdict {
            Ok(()) => Stage::Committed,
            Err(refusal) => Stage::Refused(refusal),
        };
        self.was_written = true;
    }

    /// There is no verdict: it waits for a name.
    pub(super) fn hold(&mut self) {
        self.stage = Stage::Receiving;
        self.is_pending = false;
        self.was_written = true;
        self.writer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CP: Holder = Holder(1);
    const SHELL: Holder = Holder(2);
    const CHILD: Holder = Holder(3);

    /// One event, and what must come of it.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Write(Holder),
        Close(Holder, Meaning),
        Kill(Holder, Meaning),
        Release(Meaning),
        Die,
    }
    use Event::{Close, Die, Kill, Release, Write};

    /// What a close means; a commit is at once decided, well or not.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Meaning {
        Nothing,
        Told(i32),
        Committed,
        Refused,
        Lost,
    }
    use Meaning::{Committed, Lost, Nothing, Refused, Told};

    fn of(closing: &Closing) -> Meaning {
        match closing {
            Closing::Nothing => Nothing,
            Closing::Tell(error) => Told(error.errno()),
            Closing::Commit => Committed,
            Closing::Lose(_) => Lost,
        }
    }

    fn refusal() -> Refusal {
        Refusal::from(Error::Exists)
    }

    /// Lets an event happen, and says what came of it and what was to come.
    fn play(course: &mut Course, event: Event) -> Option<(Meaning, Meaning)> {
        let (closing, expected) = match event {
            Write(by) => {
                course.written(by);
                return None;
            }
            Die => {
                course.die(Refusal::from(Error::System(libc::ENOSPC)));
                return None;
            }
            Close(by, expected) => (course.close(by, Closer::Living), expected),
            Kill(by, expected) => (course.close(by, Closer::Killed(9)), expected),
            Release(expected) => (course.release(), expected),
        };
        let mut meaning = of(&closing);
        if meaning == Committed {
            course.begin();
            course.decide(match expected {
                Refused => Err(refusal()),
                _ => Ok(()),
            });
            if expected == Refused {
                meaning = Refused;
            }
        }
        Some((meaning, expected))
    }

    #[test]
    fn which_close_commits() {
        let rows: &[(&str, &[Event], &str)] = &[
            (
                "cp",
                &[Write(CP), Write(CP), Close(CP, Committed), Release(Nothing)],
                "committed",
            ),
            (
                "dd of=",
                &[
                    Close(CP, Nothing),
                    Write(CP),
                    Close(CP, Committed),
                    Release(Nothing),
                ],
                "committed",
            ),
            (
                "(echo a; /bin/echo b) >",
                &[
                    Close(SHELL, Nothing),
                    Write(SHELL),
                    Write(CHILD),
                    Close(CHILD, Committed),
                    Close(SHELL, Nothing),
                    Release(Nothing),
                ],
                "committed",
            ),
            (
                "(/bin/echo a; /bin/echo b) >",
                &[
                    Write(CHILD),
                    Close(CHILD, Committed),
                    Write(CP),
                    Close(CP, Committed),
                    Close(SHELL, Nothing),
                    Release(Nothing),
                ],
                "committed",
            ),
            (
                "a refusal is told at each close",
                &[
                    Write(CP),
                    Close(CHILD, Refused),
                    Close(CP, Told(libc::EEXIST)),
                    Release(Nothing),
                ],
                "refused",
            ),
            (
                "what is written after a refusal is judged anew",
                &[
                    Write(CP),
                    Close(CHILD, Refused),
                    Write(CP),
                    Close(CP, Committed),
                ],
                "committed",
            ),
            (
                "touch",
                &[Close(CP, Nothing), Release(Committed)],
                "committed",
            ),
            ("no close is seen", &[Write(CP), Release(Lost)], "refused"),
            (
                "killed",
                &[Write(CP), Kill(CP, Nothing), Release(Lost)],
                "refused",
            ),
            (
                "killed before the first byte",
                &[Kill(CP, Nothing), Release(Lost)],
                "refused",
            ),
            (
                "another one is killed before the first byte",
                &[
                    Kill(CHILD, Nothing),
                    Close(SHELL, Nothing),
                    Release(Committed),
                ],
                "committed",
            ),
            (
                "(cat big) > and cat is killed",
                &[
                    Write(CP),
                    Kill(CP, Nothing),
                    Close(SHELL, Told(libc::EINTR)),
                    Release(Lost),
                ],
                "refused",
            ),
            (
                "(timeout 1 yes; echo b) >, told late",
                &[
                    Write(CP),
                    Write(SHELL),
                    Kill(CP, Nothing),
                    Close(SHELL, Committed),
                ],
                "committed",
            ),
            (
                "(timeout 1 yes; echo b) >",
                &[
                    Write(CP),
                    Kill(CP, Nothing),
                    Write(SHELL),
                    Close(SHELL, Committed),
                ],
                "committed",
            ),
            (
                "(echo a; timeout 1 sleep 5) >",
                &[Write(SHELL), Kill(CHILD, Nothing), Close(SHELL, Committed)],
                "committed",
            ),
            (
                "the disk fails once",
                &[
                    Write(CP),
                    Die,
                    Close(CP, Told(libc::ENOSPC)),
                    Close(CP, Told(libc::ENOSPC)),
                    Release(Nothing),
                ],
                "refused",
            ),
        ];
        for (name, events, end) in rows {
            let mut course = Course::new();
            for event in *events {
                if let Some((meaning, expected)) = play(&mut course, *event) {
                    assert_eq!(meaning, expected, "{name}: {event:?}");
                }
            }
            let stage = match course.stage() {
                Stage::Receiving => "receiving",
                Stage::Committing => "committing",
                Stage::Committed => "committed",
                Stage::Refused(_) => "refused",
            };
            assert_eq!(stage, *end, "{name}");
        }
    }
}
