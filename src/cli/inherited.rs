//! File descriptors that a process got from whoever started it.
//!
//! A daemon that kept them would keep locks held, pipes without an end and file systems
//! busy, for as long as the mount lasts.

use std::fs;
use std::path::Path;

/// Where a process sees its own.
const DIR: &str = "/proc/self/fd";

/// Descriptors, beyond the standard three, that nothing in this process uses.
#[derive(Debug)]
pub(crate) struct Inherited(Vec<u32>);

impl Inherited {
    /// Those that are open now. To be called before this process opens any that it keeps.
    pub(crate) fn now() -> Self {
        let entries = fs::read_dir(DIR).into_iter().flatten().flatten();
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
        let mut numbers: Vec<u32> = entries.filter_map(number).collect();
        // The listing's own is among them, and closed again.
        numbers.retain(|number| {
            *number > 2 && fs::symlink_metadata(Path::new(DIR).join(number.to_string())).is_ok()
        });
        Self(numbers)
    }

    /// Closes them.
    #[expect(unsafe_code, reason = "there is no safe way to close what nobody owns")]
    pub(crate) fn close(&self) {
        for number in &self.0 {
            // SAFETY: They were open when this process began to run, so no value in it owns
            // them; and because they stayed open since, none was given their numbers.
            let result = unsafe { libc::syscall(libc::SYS_close_range, *number, *number, 0) };
            if result != 0 {
                log::debug!("descriptor {number} stays open");
            }
        }
    }
}
