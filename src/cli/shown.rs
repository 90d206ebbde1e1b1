//! What the mount shows of the index: each new view at once.
//!
//! A commit shows what it has done before it is answered, and so on a thread that the
//! kernel may wait for with directories locked. The kernel believes no name of a ref, so
//! that nothing has to be told of those; what it is told waits for no lock of a directory.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ocifs::fuse::Notifier;
use ocifs::store::View;
use ocifs::vfs::views::Views;
use parking_lot::Mutex;

use super::source::Source;

/// See the module.
#[derive(Debug)]
pub(crate) struct Shown {
    views: Arc<Views>,
    notifier: OnceLock<Notifier>,
    /// Held by whoever shows a view.
    turn: Mutex<()>,
}

impl Shown {
    pub(crate) fn new(source: &Source) -> Arc<Self> {
        Arc::new(Self {
            views: source.views.clone(),
            notifier: OnceLock::new(),
            turn: Mutex::default(),
        })
    }

    /// Tells a kernel, too, from now on. Only the first one counts.
    pub(crate) fn tell(&self, notifier: Notifier) {
        let (Ok(()) | Err(_)) = self.notifier.set(notifier);
    }

    /// Shows the index as it was in `view`, the newest one.
    pub(crate) fn show(&self, view: View) {
        let began = Instant::now();
        let _turn = self.turn.lock();
        if view.has_the_bytes_of(self.views.snapshot().view()) {
            return;
        }
        self.views.refresh(view);
        // Without a mount there is nobody to tell.
        if let Some(notifier) = self.notifier.get() {
            notifier.forget_root();
        }
        // Counting them is for those who read it.
        log::info!(
            "the index changed: {} images now, seen in {:?}",
            self.views.snapshot().images(),
            began.elapsed()
        );
    }
}
