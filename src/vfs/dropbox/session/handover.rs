//! Files of a session on their way into the layout.
//!
//! ```text
//! noted ──► handed over ──► named in the layout ──► not named here any more, but lent
//!                │                   │
//!                ▼                   ▼  killed
//!          given back: failed,     not named here any more: by the next start
//!          or by the next start
//!
//! LAYOUT/.ocifs/sessions/NAME/handed    what the files were: DIGEST UID GID MODE
//! ```
//!
//! A file belongs to the layout's owner before the layout has it: at no moment is there a
//! blob that somebody else may write to. What it was before is noted beside the session's
//! own directory, so that nobody's file stays another's where the daemon is killed on the
//! way. A file that has its name in the layout and still one in the session would be written
//! to by who goes on with the session; so the next start takes that name away first of all.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::inode::system;
use super::lender;
use super::merge::{self, Own};
use super::tree::{TREE, Tree};
use crate::oci::Digest;
use crate::store::Layout;
use crate::vfs::error::Error;

/// Where it is noted what the files were.
const NOTE: &str = "handed";

/// Permission bits of a blob in the layout.
const BLOB_MODE: Mode = Mode::from_raw_mode(0o644);

/// What the files of a session were that are handed over to the layout.
#[derive(Debug)]
pub(super) struct Handover {
    former: Vec<Former>,
    /// Whose the layout is.
    owner: (u32, u32),
    is_noted: bool,
}

/// What a file was.
#[derive(Debug, PartialEq, Eq)]
struct Former {
    digest: Digest,
    owner: (u32, u32),
    mode: u32,
}

impl Former {
    fn of(digest: &Digest, metadata: &Metadata) -> Self {
        Self {
            digest: digest.clone(),
            owner: (metadata.uid(), metadata.gid()),
            mode: metadata.mode() & 0o7777,
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut next = || words.next();
        let former = Self {
            digest: next()?.parse().ok()?,
            owner: (next()?.parse().ok()?, next()?.parse().ok()?),
            mode: u32::from_str_radix(next()?, 8).ok()?,
        };
        Some(former)
    }

    fn line(&self) -> String {
        let Self {
            digest,
            owner,
            mode,
        } = self;
        format!("{digest} {} {} {mode:o}\n", owner.0, owner.1)
    }

    /// Whether it is what a blob of the layout is.
    fn is_of(&self, owner: (u32, u32)) -> bool {
        self.owner == owner && self.mode == BLOB_MODE.as_raw_mode()
    }

    /// Gives a file back to whom it belonged, as far as that can be done.
    fn give_back(&self, file: &File) {
        let owner = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        let given = rustix::fs::fchown(file, Some(owner.0), Some(owner.1));
        // After the owner, which clears bits, and also where that is refused.
        let given = rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode)).and(given);
        if let Err(error) = given {
            log::debug!("a file of a session stays with the layout's owner: {error}");
        }
    }
}

impl Handover {
    /// Notes what the files of a session are, durably, before they are handed over to
    /// `owner`.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn begin(tree: &Tree, own: &[Own], owner: (u32, u32)) -> Result<Self, Error> {
        let former = own
            .iter()
            .map(|own| Ok(Former::of(&own.digest, &own.file.metadata()?)));
        let mut handover = Self {
            former: former.collect::<Result<_, Error>>()?,
            owner,
            is_noted: false,
        };
        let changed = handover.former.iter().filter(|former| !former.is_of(owner));
        let text: String = changed.map(Former::line).collect();
        if !text.is_empty() {
            handover.is_noted = true;
            let noted = note(tree.place(), &text);
            noted.inspect_err(|_| handover.end(tree))?;
        }
        Ok(handover)
    }

    /// Hands a file over.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn hand_over(&self, file: &File) -> Result<(), Error> {
        let metadata = file.metadata()?;
        if (metadata.uid(), metadata.gid()) != self.owner {
            let owner = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
            match rustix::fs::fchown(file, Some(owner.0), Some(owner.1)) {
                // Who may not choose has made it themselves.
                Ok(()) | Err(Errno::PERM) => {}
                Err(errno) => return Err(system(errno)),
            }
        }
        if metadata.mode() & 0o7777 != BLOB_MODE.as_raw_mode() {
            rustix::fs::fchmod(file, BLOB_MODE).map_err(system)?;
        }
        Ok(())
    }

    /// Gives the files back of which the layout has not taken any, but for the first `taken`.
    pub(super) fn give_back(&self, own: &[Own], taken: usize) {
        let left = own.iter().zip(&self.former).skip(taken);
        left.for_each(|(own, former)| former.give_back(&own.file));
    }

    /// All files are where they belong.
    pub(super) fn end(&self, tree: &Tree) {
        if self.is_noted
            && let Err(error) = forget(tree.place())
        {
            log::warn!("{NOTE} of a session stays until the next start: {error}");
        }
    }
}

fn note(place: &OwnedFd, text: &str) -> Result<(), Error> {
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(
        place,
        NOTE,
        flags | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    );
    let mut file = File::from(file.map_err(system)?);
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    rustix::fs::fsync(place).map_err(system)
}

fn forget(place: &OwnedFd) -> Result<(), Error> {
    match rustix::fs::unlinkat(place, NOTE, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(system(errno)),
    }
}

/// Puts right what a daemon that was killed has left half done in the session at `place`,
/// which nobody can see yet.
///
/// # Errors
/// What the system says.
pub(super) fn recover(place: &OwnedFd, layout: &Layout) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = match rustix::fs::openat(place, TREE, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(system)?,
    };
    for algorithm in merge::list(&root, "blobs")? {
        let path = format!("blobs/{algorithm}");
        if let Some(directory) = merge::open_beneath(&root, &path, OFlags::DIRECTORY)? {
            lend_what_was_taken(place, &directory, &algorithm, layout)?;
        }
    }
    let text =
        match rustix::fs::openat(place, NOTE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            other => io::read_to_string(File::from(other.map_err(system)?))?,
        };
    // A line that the power was cut over says nothing: its file was not handed over.
    for former in text.lines().filter_map(Former::parse) {
        let digest = &former.digest;
        let path = format!("blobs/{}/{}", digest.algorithm_name(), digest.encoded());
        if let Some(file) = merge::open_file(&root, &path)? {
            former.give_back(&file);
        }
    }
    forget(place)
}

/// Takes the names of the files in a directory for blobs away that the layout has by now.
fn lend_what_was_taken(
    place: &OwnedFd,
    directory: &OwnedFd,
    algorithm: &str,
    layout: &Layout,
) -> Result<(), Error> {
    for name in merge::list(directory, ".")? {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statat(directory, &name, flags).map_err(system)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() else {
            continue;
        };
        // Most have one name, and need not be looked for.
        if !is_file || stat.st_nlink < 2 {
            continue;
        }
        let is_taken = layout
            .stat_blob(&digest)
            .is_ok_and(|blob| (blob.dev(), blob.ino()) == (stat.st_dev, stat.st_ino));
        if is_taken {
            lender::show(place, &digest)?;
            rustix::fs::unlinkat(directory, &name, AtFlags::empty()).map_err(system)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_note() {
        let digest = Digest::of(b"x");
        let former = Former {
            digest: digest.clone(),
            owner: (1000, 4_000_000_000),
            mode: 0o4600,
        };
        let line = former.line();
        assert_eq!(line, format!("{digest} 1000 4000000000 4600\n"));
        assert_eq!(Former::parse(line.trim_end()), Some(former));
        for cut in 0..line.len() - 6 {
            assert_eq!(Former::parse(&line[..cut]), None, "{cut}");
        }
    }
}
