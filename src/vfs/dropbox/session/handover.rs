//! Files of a session on their way into the layout.
//!
//! ```text
//! noted ──► handed over ──► named in the layout ──► not named here any more, but lent
//!                │                   │
//!                ▼                   ▼  killed
//!          given back: failed,     not named here any more: by the next start
//!          or by the next start
//!
//! LAYOUT/.ocifs/sessions/NAME/handed    what the files were: DIGEST INODE UID GID MODE
//! ```
//!
//! A file belongs to the layout's owner before the layout has it: at no moment is there a
//! blob that somebody else may write to. What it was before is noted beside the session's
//! own directory, so that nobody's file stays another's where the daemon is killed on the
//! way; the note stays until all were given back. A file that has its name in the layout and
//! still one in the session would be written to by who goes on with the session; so the next
//! start takes that name away first of all.

use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::inode::system;
use super::lender;
use super::merge::{self, Own};
use super::tree::{TREE, Tree};
use crate::oci::Digest;
use crate::store::{Layout, layout};
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
#[derive(Debug, Clone, PartialEq, Eq)]
struct Former {
    digest: Digest,
    /// The number of its inode; all are on one device.
    number: u64,
    owner: (u32, u32),
    mode: u32,
}

impl Former {
    fn of(digest: &Digest, metadata: &Metadata) -> Self {
        Self {
            digest: digest.clone(),
            number: metadata.ino(),
            owner: (metadata.uid(), metadata.gid()),
            mode: metadata.mode() & 0o7777,
        }
    }

    /// All that a note tells. A line that was cut says nothing: that was before any file
    /// was handed over.
    fn parse_all(note: &[u8]) -> Vec<Self> {
        let text = String::from_utf8_lossy(note);
        let lines = text.split_inclusive('\n');
        let whole = lines.filter_map(|line| line.strip_suffix('\n'));
        whole.filter_map(Self::parse).collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut next = || words.next();
        let former = Self {
            digest: next()?.parse().ok()?,
            number: next()?.parse().ok()?,
            owner: (next()?.parse().ok()?, next()?.parse().ok()?),
            mode: u32::from_str_radix(next()?, 8).ok()?,
        };
        next().is_none().then_some(former)
    }

    fn line(&self) -> String {
        let Self {
            digest,
            number,
            owner,
            mode,
        } = self;
        format!("{digest} {number} {} {} {mode:o}\n", owner.0, owner.1)
    }

    /// Whether it is what a blob of the layout is.
    fn is_of(&self, owner: (u32, u32)) -> bool {
        self.owner == owner && self.mode == BLOB_MODE.as_raw_mode()
    }

    /// Whether `now` says of the same file that it was handed over to `owner` and is in the
    /// session alone.
    fn is_handed_over(&self, now: &Metadata, owner: (u32, u32)) -> bool {
        let is_it = now.ino() == self.number && now.nlink() == 1;
        let now = Self::of(&self.digest, now);
        let is_owners = match now.owner == self.owner {
            // Where that cannot be chosen, its mode is all that was changed.
            true => now.mode == BLOB_MODE.as_raw_mode(),
            false => now.owner == owner,
        };
        is_it && is_owners
    }

    /// Gives the file back to whom it belonged, if it was handed over to `owner` and the
    /// layout has not taken it.
    fn give_back(&self, root: &OwnedFd, owner: (u32, u32)) -> Result<(), Error> {
        let digest = &self.digest;
        let path = format!("blobs/{}/{}", digest.algorithm_name(), digest.encoded());
        let Some(file) = merge::open_file(root, &path)? else {
            return Ok(());
        };
        if !self.is_handed_over(&file.metadata()?, owner) {
            return Ok(());
        }
        let former = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        let given = rustix::fs::fchown(&file, Some(former.0), Some(former.1));
        // After the owner, which clears bits, and also where that is refused.
        let given = rustix::fs::fchmod(&file, Mode::from_raw_mode(self.mode)).and(given);
        given.map_err(system)
    }
}

impl Handover {
    /// Notes what the files of a session are, durably, before they are handed over to
    /// `owner`.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn begin(tree: &Tree, own: &[Own], owner: (u32, u32)) -> Result<Self, Error> {
        // Of those that could not be given back it is known from before what they were.
        let noted = noted(tree.place())?;
        let former = own.iter().map(|own| {
            let now = own.file.metadata()?;
            let same =
                |noted: &&Former| noted.digest == own.digest && noted.is_handed_over(&now, owner);
            let known = noted.iter().find(same).cloned();
            Ok(known.unwrap_or_else(|| Former::of(&own.digest, &now)))
        });
        let mut handover = Self {
            former: former.collect::<Result<_, Error>>()?,
            owner,
            is_noted: !noted.is_empty(),
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

    /// Gives the files back that the layout has not taken; whether all are where they belong
    /// then.
    pub(super) fn give_back(&self, tree: &Tree) -> bool {
        give_all_back(tree.root_fd(), &self.former, self.owner)
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

/// Gives all files back that were handed over to `owner`; whether that went well.
fn give_all_back(root: &OwnedFd, files: &[Former], owner: (u32, u32)) -> bool {
    let mut is_done = true;
    for former in files {
        if let Err(error) = former.give_back(root, owner) {
            let digest = &former.digest;
            log::warn!("{digest} of a session stays with the layout's owner: {error}");
            is_done = false;
        }
    }
    is_done
}

/// What is noted of the session at `place`.
fn noted(place: &OwnedFd) -> Result<Vec<Former>, Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut bytes = Vec::new();
    match rustix::fs::openat(place, NOTE, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        note => drop(File::from(note.map_err(system)?).read_to_end(&mut bytes)?),
    }
    Ok(Former::parse_all(&bytes))
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
    // The note stays as long as one of them is not what it was.
    match give_all_back(&root, &noted(place)?, layout.owner()?) {
        true => forget(place),
        false => Ok(()),
    }
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
        let is_taken = match layout.stat_blob(&digest) {
            Ok(blob) => (blob.dev(), blob.ino()) == (stat.st_dev, stat.st_ino),
            Err(layout::Error::BlobMissing { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        if is_taken {
            lender::show(place, &digest)?;
            take_name(directory, &name).map_err(system)?;
        }
    }
    Ok(())
}

/// Takes a name away, also where the mode of the directory is against that.
fn take_name(directory: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let take = || rustix::fs::unlinkat(directory, name, AtFlags::empty());
    match take() {
        Err(Errno::ACCESS) => {}
        other => return other,
    }
    let mode = Mode::from_raw_mode(rustix::fs::fstat(directory)?.st_mode & 0o7777);
    rustix::fs::fchmod(directory, mode | Mode::WUSR | Mode::XUSR)?;
    let taken = take();
    rustix::fs::fchmod(directory, mode).and(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_note() {
        let digest = Digest::of(b"x");
        let former = Former {
            digest: digest.clone(),
            number: 12,
            owner: (1000, 4_000_000_000),
            mode: 0o4600,
        };
        let line = former.line();
        assert_eq!(line, format!("{digest} 12 1000 4000000000 4600\n"));
        let bytes = line.as_bytes();
        for cut in 0..bytes.len() {
            assert_eq!(Former::parse_all(&bytes[..cut]), [], "{cut}");
            let two = [bytes, &bytes[..cut]].concat();
            let parsed = Former::parse_all(&two);
            assert_eq!(parsed, std::slice::from_ref(&former), "{cut}");
        }
        let odd = [b"\xff\n", bytes, b" \n", &bytes[..9], b"\n"].concat();
        assert_eq!(Former::parse_all(&odd), [former]);
    }
}
