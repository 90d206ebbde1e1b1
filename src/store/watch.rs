//! Notices when somebody changes `index.json`, and lets it be looked at.
//!
//! One thread waits for inotify events on the layout directory and, because those do not
//! arrive on every file system, looks at the file's identity every [`POLL`] as well.
//! After an event it waits until the file has been quiet for [`QUIET`], so that a tool
//! that writes in many small steps is read once; but never longer than [`PATIENCE`].
//! A file that cannot be understood is not believed: the last good view stays, one
//! warning is logged, and the file is looked at again until it can be.

use std::fmt::Display;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify;

use crate::store::blob::Identity;
use crate::store::layout::{Error, Layout, View};

/// How often the file is looked at without an event: within a second is promised.
const POLL: Duration = Duration::from_millis(500);

/// How long the file must have been left alone before it is read.
const QUIET: Duration = Duration::from_millis(5);

/// How long a busy file is waited for before it is read all the same. A tenth of a second
/// is promised from the change to its being seen.
const PATIENCE: Duration = Duration::from_millis(40);

/// How soon a torn file is read again; each further try waits twice as long, up to
/// [`POLL`], because a file that stays broken is not worth a processor.
const RETRY: Duration = Duration::from_millis(10);

/// How long opening a layout waits for a torn index to become whole.
const OPEN_PATIENCE: Duration = Duration::from_millis(500);

/// Reads the index of a layout that is being opened: waits a moment if it is torn.
///
/// # Errors
/// What [`Layout::read_index`] answers when the wait is over.
pub fn first_view(layout: &Layout) -> Result<View, Error> {
    let deadline = Instant::now() + OPEN_PATIENCE;
    loop {
        match layout.read_index() {
            Err(
                Error::Empty { .. }
                | Error::Content { .. }
                | Error::Missing { .. }
                | Error::Unsettled { .. },
            ) if Instant::now() < deadline => {
                std::thread::sleep(RETRY);
            }
            other => return other,
        }
    }
}

/// A running watch; dropping it ends the thread.
#[derive(Debug)]
pub struct Watch {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts watching. `seen` is the view that is known already; `look` is called, on the
    /// watch's thread, when the file is another one than that which it found last. It may
    /// say the same: somebody has written it, and perhaps over what was there for a moment
    /// only.
    ///
    /// # Errors
    /// If the thread or the handle that ends it cannot be made. That inotify does not
    /// work is not an error: the file is then looked at every half second.
    pub fn spawn<E: Display>(
        layout: Arc<Layout>,
        seen: &View,
        look: impl FnMut() -> Result<View, E> + Send + 'static,
    ) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let events = match subscribe(&layout) {
            Ok(events) => Some(events),
            Err(error) => {
                log::warn!("no change notice for {}: {error}", layout.path().display());
                None
            }
        };
        let watcher = Watcher {
            layout,
            stop: stop.try_clone()?,
            events,
            known: *seen.identity(),
            torn: None,
            look,
        };
        let thread = std::thread::Builder::new()
            .name("watch".into())
            .spawn(|| watcher.run())?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let woken = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            // A panic there was reported when it happened.
            drop(thread.join());
        }
    }
}

fn subscribe(layout: &Layout) -> io::Result<OwnedFd> {
    use inotify::WatchFlags as W;
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    // The pinned directory itself, wherever its path leads now.
    let path = format!("/proc/self/fd/{}", layout.dir().as_raw_fd());
    let mask = W::CREATE | W::MODIFY | W::CLOSE_WRITE | W::MOVED_TO | W::MOVED_FROM | W::DELETE;
    inotify::add_watch(&events, path, mask)?;
    Ok(events)
}

/// The state of the watch's thread.
struct Watcher<F> {
    layout: Arc<Layout>,
    stop: OwnedFd,
    events: Option<OwnedFd>,
    /// The file that was read last, whether it could be understood or not.
    known: Identity,
    /// When the file could not be understood the last time: how soon to try again.
    torn: Option<Duration>,
    look: F,
}

/// Why a wait ended.
#[derive(PartialEq, Eq)]
enum Woken {
    Stop,
    Event,
    Timeout,
}

impl<E: Display, F: FnMut() -> Result<View, E>> Watcher<F> {
    fn run(mut self) {
        loop {
            let woken = self.wait(self.torn.unwrap_or(POLL));
            match woken {
                Woken::Stop => return,
                Woken::Event => self.settle(),
                Woken::Timeout => {}
            }
            let present = self.layout.index_identity().ok();
            // Two writes may have one time.
            if woken == Woken::Event || self.torn.is_some() || present != Some(self.known) {
                self.look();
            }
        }
    }

    /// Waits until no event has come for a while.
    fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && self.wait(QUIET) == Woken::Event {}
    }

    fn look(&mut self) {
        match (self.look)() {
            Ok(view) => {
                self.known = *view.identity();
                self.torn = None;
            }
            Err(error) => {
                if self.torn.is_none() {
                    log::warn!("the last good index is kept: {error:#}");
                }
                self.torn = Some(self.torn.map_or(RETRY, |last| (last * 2).min(POLL)));
            }
        }
    }

    /// Waits for an event that concerns `index.json`, the end, or the timeout.
    fn wait(&self, timeout: Duration) -> Woken {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = vec![PollFd::new(&self.stop, PollFlags::IN)];
            if let Some(events) = &self.events {
                fds.push(PollFd::new(events, PollFlags::IN));
            }
            let left = Timespec::try_from(left).ok();
            if poll(&mut fds, left.as_ref()).is_err() {
                continue;
            }
            if !fds[0].revents().is_empty() {
                return Woken::Stop;
            }
            if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) && self.drain() {
                return Woken::Event;
            }
            if Instant::now() >= deadline {
                return Woken::Timeout;
            }
        }
    }

    /// Takes all pending events; whether one may concern `index.json`.
    fn drain(&self) -> bool {
        let Some(events) = &self.events else {
            return false;
        };
        let mut buf = [const { MaybeUninit::uninit() }; 4096];
        let mut reader = inotify::Reader::new(events.as_fd(), &mut buf);
        let mut concerned = false;
        while let Ok(event) = reader.next() {
            let overflow = event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
            concerned |= overflow || event.file_name().is_some_and(|name| name == c"index.json");
        }
        concerned
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn index(name: &str) -> String {
        format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"name":"{name}"}}}}"#)
    }

    fn watched(dir: &Path) -> Result<(Watch, Receiver<View>), Box<dyn std::error::Error>> {
        crate::store::layout::init(dir)?;
        let layout = Arc::new(Layout::open(dir, &[])?);
        let seen = first_view(&layout)?;
        let (sender, views) = channel();
        let look = {
            let layout = layout.clone();
            move || {
                layout
                    .read_index()
                    .inspect(|view| drop(sender.send(view.clone())))
            }
        };
        let watch = Watch::spawn(layout, &seen, look)?;
        Ok((watch, views))
    }

    #[test]
    fn changes_of_every_kind_are_seen() -> TestResult {
        let dir = tempfile::tempdir()?;
        let (_watch, views) = watched(dir.path())?;
        let path = dir.path().join("index.json");
        std::fs::write(&path, index("in place"))?;
        wait_for(&views, "in place")?;
        std::fs::write(dir.path().join("new"), index("renamed"))?;
        std::fs::rename(dir.path().join("new"), &path)?;
        wait_for(&views, "renamed")?;
        Ok(())
    }

    /// Takes views until one says this; one write may be seen twice.
    fn wait_for(views: &Receiver<View>, name: &str) -> TestResult {
        while **views.recv_timeout(Duration::from_secs(5))?.bytes() != index(name).as_bytes() {}
        Ok(())
    }

    /// As a second write is that has the time of the first.
    #[test]
    fn an_event_is_believed_more_than_the_identity() -> TestResult {
        let dir = tempfile::tempdir()?;
        let (_watch, views) = watched(dir.path())?;
        let path = dir.path().join("index.json");
        let seen = std::fs::read(&path)?;
        drop(std::fs::File::options().append(true).open(&path)?);
        let view = views.recv_timeout(Duration::from_millis(400))?;
        assert_eq!(**view.bytes(), seen);
        Ok(())
    }

    #[test]
    fn what_cannot_be_understood_is_not_told() -> TestResult {
        let dir = tempfile::tempdir()?;
        let (_watch, views) = watched(dir.path())?;
        let path = dir.path().join("index.json");
        for torn in ["", "{", r#"{"schemaVersion":2}"#] {
            std::fs::write(&path, torn)?;
            assert!(
                views.recv_timeout(Duration::from_millis(80)).is_err(),
                "{torn:?}"
            );
        }
        std::fs::remove_file(&path)?;
        assert!(
            views.recv_timeout(Duration::from_millis(80)).is_err(),
            "missing"
        );
        std::fs::write(&path, index("whole again"))?;
        let view = views.recv_timeout(Duration::from_secs(5))?;
        assert_eq!(&**view.bytes(), index("whole again").as_bytes());
        Ok(())
    }

    #[test]
    fn dropping_the_watch_ends_its_thread() -> TestResult {
        let dir = tempfile::tempdir()?;
        let (watch, views) = watched(dir.path())?;
        drop(watch);
        assert!(views.recv().is_err(), "the callback is gone");
        Ok(())
    }
}
