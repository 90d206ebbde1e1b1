//! A second process, which goes on when the command has returned.
//!
//! It is a copy of this one, made while there is one thread. To start the program anew, and
//! to have it read its arguments again, would take as long as mounting does.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

/// Which of the two processes this one is.
#[derive(Debug)]
pub(crate) enum Side {
    /// The one that was there before.
    Parent(Child),
    /// The new one. Its standard input is empty, and its standard output leads to the other.
    Child,
}

/// The new process, seen from the one that was there before.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    output: File,
}

/// Makes the second process.
///
/// # Errors
/// What the system answers; on either side.
pub(crate) fn fork() -> io::Result<Side> {
    debug_assert!(threads() <= 1, "threads are not copied, their locks are");
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let nothing = File::open("/dev/null")?;
    #[expect(unsafe_code, reason = "there is no safe way to copy a process")]
    // SAFETY: there is no other thread that could hold a lock or be in the middle of
    // something, so the copy may do all that this process may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            rustix::stdio::dup2_stdin(&nothing)?;
            rustix::stdio::dup2_stdout(&writer)?;
            Ok(Side::Child)
        }
        number => Ok(Side::Parent(Child {
            pid: Pid::from_raw(number).ok_or(io::ErrorKind::Other)?,
            output: File::from(reader),
        })),
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

impl Child {
    /// The first line that it prints; empty if it ended before.
    ///
    /// # Errors
    /// Those of reading.
    pub(crate) fn word(&self) -> io::Result<String> {
        let mut word = String::new();
        BufReader::new(&self.output).read_line(&mut word)?;
        Ok(word.trim_end().to_owned())
    }

    /// Waits until it has ended; its exit status, `None` if a signal ended it.
    ///
    /// # Errors
    /// What the system answers.
    pub(crate) fn wait(&self) -> io::Result<Option<u8>> {
        let ended = waitpid(Some(self.pid), WaitOptions::empty())?;
        let status = ended.and_then(|(_, status)| status.exit_status());
        Ok(status.and_then(|status| u8::try_from(status).ok()))
    }
}
