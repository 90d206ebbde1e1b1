//! What the process behind a request wants to know, where the protocol does not say.
//!
//! `ls --color` asks for the mode of each file and nothing else, but the kernel's GETATTR
//! always asks for all attributes. The asking thread sleeps in its system call meanwhile,
//! so the mask that it gave to `statx` can be read from `/proc/TID/syscall`. Where that
//! cannot be seen (another process namespace, another user, another processor), the
//! request counts as one for everything, which is always right and may only be slower.

use std::fs::File;
use std::io::Read;

use fuser::Request;

use crate::vfs::Caller;

/// The bits of `statx` that hang on the size: the size itself and the blocks.
///
/// `statx(2)`, `STATX_SIZE` and `STATX_BLOCKS`.
const SIZE_MASK: u64 = 0x200 | 0x400;

/// Which argument of `statx` is the mask, counted from 0.
const MASK_ARGUMENT: usize = 3;

/// Who asks.
pub(super) fn of(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
    }
}

/// Whether the thread `tid`, which waits for the answer, can do without a file's size.
pub(super) fn needs_no_size(tid: u32) -> bool {
    let mut text = String::new();
    let read = File::open(format!("/proc/{tid}/syscall"))
        .and_then(|file| file.take(512).read_to_string(&mut text));
    read.is_ok() && asks_without_size(&text)
}

/// Whether a line of `/proc/TID/syscall` is a `statx` whose mask leaves the size out.
///
/// `proc(5)`: the number in decimal, then six arguments in hexadecimal.
fn asks_without_size(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let number = words.next().and_then(|word| word.parse().ok());
    if number != Some(libc::SYS_statx) {
        return false;
    }
    let mask = words
        .nth(MASK_ARGUMENT)
        .and_then(|word| word.strip_prefix("0x"));
    let mask = mask.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    mask.is_some_and(|mask| mask & SIZE_MASK == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_waiting_thread() {
        let statx = libc::SYS_statx;
        let line =
            |mask: &str| format!("{statx} 0xffffff9c 0x7ffd 0x100 {mask} 0x7ffe 0x0 0x1 0x2\n");
        let rows = [
            ("mode alone", line("0x2"), true),
            ("type and mode", line("0x3"), true),
            ("everything", line("0x7ff"), false),
            ("size", line("0x202"), false),
            ("blocks", line("0x402"), false),
            (
                "another call",
                line("0x2").replace(&statx.to_string(), "0"),
                false,
            ),
            ("running", "running\n".into(), false),
            ("cut", format!("{statx} 0x1 0x2"), false),
            ("nothing", String::new(), false),
        ];
        for (name, line, expected) in rows {
            assert_eq!(asks_without_size(&line), expected, "{name}");
        }
    }

    #[test]
    fn a_thread_that_is_not_there_needs_everything() {
        assert!(!needs_no_size(0));
    }
}
