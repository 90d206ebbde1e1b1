//! What the mount shows of the index: each new view at once, and the kernel is told.
//!
//! A commit shows what it has done before it is answered, and so on a thread that the
//! kernel may wait for with a directory locked. The kernel is therefore told by a thread of
//! its own, which waits for such locks as long as it has to.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use ocifs::fuse::Notifier;
use ocifs::store::View;
use ocifs::vfs::views::Views;
use ocifs::vfs::{Moved, Notice, Vfs};
use parking_lot::Mutex;

use super::source::Source;

/// How long it is waited until the kernel has been told. Only a request that waits for a
/// layer, with the directory locked, keeps it from being told at once.
const PATIENCE: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug)]
pub(crate) struct Shown {
    views: Arc<Views>,
    vfs: Arc<Vfs>,
    /// Held by whoever shows a view.
    notices: Mutex<Sender<Message>>,
}

/// What the kernel is to be told.
#[derive(Debug)]
pub(crate) struct Notices(Receiver<Message>);

#[derive(Debug)]
enum Message {
    Forget(Vec<Notice>),
    /// Says when everything before it has been told.
    Told(Sender<()>),
}

impl Shown {
    pub(crate) fn new(source: &Source) -> (Arc<Self>, Notices) {
        let (sender, receiver) = mpsc::channel();
        let shown = Self {
            views: source.views.clone(),
            vfs: source.vfs.clone(),
            notices: Mutex::new(sender),
        };
        (Arc::new(shown), Notices(receiver))
    }

    /// Shows the index as it was in `view`, the newest one.
    pub(crate) fn show(&self, view: View) {
        let began = Instant::now();
        let notices = self.notices.lock();
        if view.has_the_bytes_of(self.views.snapshot().view()) {
            return;
        }
        let moved = self.views.refresh(view);
        self.tell(&notices, &moved);
        let images = self.views.snapshot().images();
        log::info!(
            "the index changed: {images} images now, seen in {:?}",
            began.elapsed()
        );
    }

    /// Lets the kernel look these names up anew.
    pub(crate) fn forget(&self, moved: &[Moved]) {
        self.tell(&self.notices.lock(), moved);
    }

    /// Waits until the kernel knows what was shown, so that what is asked of it from now on
    /// is answered by that. Not for a thread for which the kernel holds a directory.
    pub(crate) fn settle(&self) {
        let (sender, told) = mpsc::channel();
        // Without a mount there is nobody to wait for.
        if self.notices.lock().send(Message::Told(sender)).is_ok() {
            let (Ok(()) | Err(_)) = told.recv_timeout(PATIENCE);
        }
    }

    fn tell(&self, notices: &Sender<Message>, moved: &[Moved]) {
        // Without a mount there is nobody to tell.
        let notice = self.vfs.notices(moved, &Views::root_key());
        let (Ok(()) | Err(_)) = notices.send(Message::Forget(notice));
    }
}

impl Notices {
    /// Tells them to the kernel from now on.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn tell(self, notifier: Notifier) -> anyhow::Result<()> {
        let tell = move || {
            for message in self.0 {
                match message {
                    Message::Forget(notices) => notifier.forget_names(&notices),
                    Message::Told(sender) => {
                        // Nobody may wait any more.
                        let (Ok(()) | Err(_)) = sender.send(());
                    }
                }
            }
        };
        std::thread::Builder::new()
            .name("notices".into())
            .spawn(tell)?;
        Ok(())
    }
}
