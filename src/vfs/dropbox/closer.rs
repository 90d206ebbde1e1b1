//! What is seen of a process that closes a file.
//!
//! A process that a signal ends closes its files on the way out, like any other. What it
//! wrote is a torso then, and the only trace of that is in `/proc`: the process is exiting,
//! and the code with which it does so is that of a signal. Where that cannot be seen
//! (another process namespace, another user) it looks as if it had finished.
//!
//! A process that becomes another program closes files in the middle of that, and holds a
//! lock over its own `exec` which whoever reads `/proc/PID/stat` waits for. It waits for us,
//! so the reading is left to a thread of its own that need not come back in time.

use std::fs;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// The flag of a process that is exiting. Linux, `include/linux/sched.h`, `PF_EXITING`.
const EXITING: u64 = 0x4;

/// Where the flags and the exit code are in `/proc/PID/stat`, counted from the state, which
/// is the first field behind the name. `proc(5)`, fields 9 and 52.
const FLAGS: usize = 6;
const EXIT_CODE: usize = 49;

/// How long the state of a process may take to be read. One that is exiting holds no lock,
/// and takes microseconds.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long the thread that reads it may take to begin, on a machine that is busy.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// The part of an exit code that is the number of a signal. `wait(2)`.
const SIGNAL: i32 = 0x7f;

/// Who closes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closer {
    /// A process that goes on, or ends because it wants to.
    Living,
    /// One that this signal ends.
    Killed(i32),
}

/// What the thread tells that looks.
#[derive(Debug)]
enum Look {
    Begun,
    Seen(Closer),
}

impl Closer {
    /// What is seen of the thread `tid`, which waits for an answer; 0 if it cannot be named.
    pub(super) fn see(tid: u32) -> Self {
        if tid == 0 {
            return Self::Living;
        }
        let (sender, told) = sync_channel(2);
        let look = move || {
            // Nobody may wait any more.
            let (Ok(()) | Err(_)) = sender.send(Look::Begun);
            let stat = fs::read(format!("/proc/{tid}/stat")).ok();
            let seen = stat.and_then(|stat| parse(&stat));
            let (Ok(()) | Err(_)) = sender.send(Look::Seen(seen.unwrap_or(Self::Living)));
        };
        let thread = thread::Builder::new().name("closer".to_owned()).spawn(look);
        let seen = thread.ok().and_then(|_| {
            told.recv_timeout(START_PATIENCE).ok()?;
            told.recv_timeout(PATIENCE).ok()
        });
        match seen {
            Some(Look::Seen(closer)) => closer,
            Some(Look::Begun) | None => Self::Living,
        }
    }
}

/// Reads a line of `/proc/PID/stat`.
fn parse(stat: &[u8]) -> Option<Closer> {
    // The name of the program, in brackets, may hold anything.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let flags: u64 = fields.get(FLAGS)?.parse().ok()?;
    let code: i32 = fields.get(EXIT_CODE)?.parse().ok()?;
    let signal = code & SIGNAL;
    let is_killed = flags & EXITING != 0 && signal != 0;
    Some(if is_killed {
        Closer::Killed(signal)
    } else {
        Closer::Living
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line with these flags and this exit code.
    fn line(name: &str, flags: u64, code: i32) -> Vec<u8> {
        let between = "0 ".repeat(EXIT_CODE - FLAGS - 1);
        format!("4711 ({name}) R 1 4711 4711 0 -1 {flags} {between}{code}\n").into_bytes()
    }

    #[test]
    fn lines_of_proc() {
        let living = Some(Closer::Living);
        let rows = [
            ("running", line("cp", 0x0040_0000, 0), living),
            ("exiting by itself", line("cp", 0x0040_0004, 0), living),
            (
                "exiting with a status",
                line("cp", 0x0040_0004, 1 << 8),
                living,
            ),
            (
                "killed",
                line("cp", 0x0040_0004, 9),
                Some(Closer::Killed(9)),
            ),
            (
                "with a core",
                line("cp", 0x0040_0004, 0x80 | 11),
                Some(Closer::Killed(11)),
            ),
            (
                "interrupted",
                line("cp", 0x0040_0404, 2),
                Some(Closer::Killed(2)),
            ),
            (
                "a code, and not exiting",
                line("cp", 0x0040_0000, 9),
                living,
            ),
            (
                "brackets in the name",
                line("a) R 4 (b", 4, 15),
                Some(Closer::Killed(15)),
            ),
            ("cut", b"4711 (cp) R 1 4711".to_vec(), None),
            ("nothing", Vec::new(), None),
        ];
        for (name, line, expected) in rows {
            assert_eq!(parse(&line), expected, "{name}");
        }
    }

    #[test]
    fn who_asks_is_living() {
        assert_eq!(Closer::see(std::process::id()), Closer::Living);
        assert_eq!(Closer::see(0), Closer::Living);
    }
}
