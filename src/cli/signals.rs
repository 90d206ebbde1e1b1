//! Signals that tell a mount to end.
//!
//! Until there is a mount, nothing has to be put away: whoever waits for a first pass over an
//! archive can end the process at once. From then on a signal is an event, so that no mount is
//! left behind.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::Status;
use super::{output, progress};

/// What a signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    EndsTheProcess,
    IsTold,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct EndSignals {
    effect: Arc<Mutex<Effect>>,
    events: Receiver<()>,
}

impl EndSignals {
    /// Takes signals from now on; each ends the process.
    ///
    /// # Errors
    /// If there is no thread for that, or no room for a handler.
    pub(crate) fn take() -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let effect = Arc::new(Mutex::new(Effect::EndsTheProcess));
        let (sender, events) = mpsc::channel();
        let of_thread = Arc::clone(&effect);
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for _ in signals.forever() {
                    // Held until the process has ended: nothing is mounted meanwhile.
                    let effect = of_thread.lock();
                    if *effect == Effect::EndsTheProcess {
                        progress::leave_line();
                        output::complain("interrupted; nothing is mounted");
                        process::exit(Status::Failure as i32);
                    }
                    if sender.send(()).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { effect, events })
    }

    /// From here on signals are told by [`Self::wait`], and end nothing.
    pub(crate) fn hold(&self) {
        *self.effect.lock() = Effect::IsTold;
    }

    /// Waits for a signal; whether one came.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        match self.events.recv_timeout(patience) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(patience);
                false
            }
        }
    }
}
