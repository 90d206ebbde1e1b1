//! Names in a session: made, linked, removed, renamed.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid};
use rustix::io::Errno;

use super::attributes::{bits, of_stat};
use super::file::{SessionFile, drop_privileges, passed_on};
use super::inode::{Inode, NAMED, Place, proc_path, system};
use super::lender::digest_at;
use super::limits::{difference, room_of};
use super::tree::{Tree, file_kind};
use crate::vfs::attr::{Attr, FileKind};
use crate::vfs::error::Error;
use crate::vfs::writable::{Caller, NewNode, OpenMode, Removal, RenameMode};

/// Makes a regular file and opens it.
///
/// # Errors
/// What the system says.
pub(super) fn create(
    parent: &Arc<Inode>,
    caller: &Caller,
    name: &[u8],
    mode: u16,
    how: OpenMode,
) -> Result<(Arc<Inode>, Arc<SessionFile>), Error> {
    let _gate = parent.tree().change()?;
    parent.tree().meter().check(0, 1)?;
    let directory = parent.directory()?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(mode.into())) {
        // The kernel did not know of it.
        Err(Errno::EXIST) if !how.exclusive => {
            let existing = parent.tree().child(parent, name)?.ok_or(Error::Stale)?;
            let file = open_kept(&existing, caller, how)?;
            return Ok((existing, file));
        }
        other => other.map_err(system)?,
    };
    let given = give(&directory, name, fd.as_fd(), caller, mode);
    let stat = given.inspect_err(|_| undo(&directory, name, AtFlags::empty()))?;
    let inode = parent.tree().found(&stat, parent, name);
    parent.tree().meter().change(0, 1);
    if how.write {
        *inode.counted() = Some(0);
    }
    let file = SessionFile::new(&inode, fd.into(), how.write);
    Ok((inode, file))
}

/// Opens a file of the session's own. The gate is held.
///
/// # Errors
/// What the system says.
pub(super) fn open_kept(
    inode: &Arc<Inode>,
    caller: &Caller,
    how: OpenMode,
) -> Result<Arc<SessionFile>, Error> {
    let writes = how.write || how.truncate;
    let truncate = match how.truncate {
        true => OFlags::TRUNC,
        false => OFlags::empty(),
    };
    // Until it is counted as one that is written to.
    let mut counted = inode.counted();
    if writes && !inode.is_written() {
        inode.tree().meter().check(0, 0)?;
        *counted = Some(room_of(&inode.stat()?));
    }
    let fd = match writes {
        false => inode.reopen(OFlags::RDONLY)?,
        // What is written through a mapping is read first.
        true => match inode.reopen(OFlags::RDWR | truncate) {
            Err(Error::System(libc::EACCES)) if !how.read => {
                inode.reopen(OFlags::WRONLY | truncate)?
            }
            other => other?,
        },
    };
    if how.truncate && caller.uid != 0 {
        drop_privileges(&fd)?;
    }
    Ok(SessionFile::new(inode, fd.into(), writes))
}

/// Makes something that is not opened.
///
/// # Errors
/// What the system says.
pub(super) fn make(
    parent: &Arc<Inode>,
    caller: &Caller,
    name: &[u8],
    new: NewNode<'_>,
) -> Result<Arc<Inode>, Error> {
    let _gate = parent.tree().change()?;
    parent.tree().meter().check(0, 1)?;
    let directory = parent.directory()?;
    let stat = make_in(&directory, caller, name, new)?;
    parent.tree().meter().change(0, 1);
    Ok(parent.tree().found(&stat, parent, name))
}

/// Makes something in a directory that belongs to who asks; what the disk says of it.
///
/// # Errors
/// What the system says.
pub(super) fn make_in(
    directory: &OwnedFd,
    caller: &Caller,
    name: &[u8],
    new: NewNode<'_>,
) -> Result<Stat, Error> {
    let raw = |mode: u16| Mode::from_raw_mode(mode.into());
    let (made, undo_flags) = match new {
        NewNode::Directory(mode) => {
            let made = rustix::fs::mkdirat(directory, name, raw(mode));
            (made, AtFlags::REMOVEDIR)
        }
        NewNode::Symlink(target) => {
            let made = rustix::fs::symlinkat(target, directory, name);
            (made, AtFlags::empty())
        }
        NewNode::Special(kind, mode, device) => {
            let device = rustix::fs::makedev(device.major, device.minor);
            let made = rustix::fs::mknodat(directory, name, file_type(kind), raw(mode), device);
            (made, AtFlags::empty())
        }
    };
    made.map_err(system)?;
    let given = rustix::fs::openat(directory, name, NAMED, Mode::empty())
        .map_err(system)
        .and_then(|fd| match new {
            NewNode::Directory(mode) | NewNode::Special(_, mode, _) => {
                give(directory, name, fd.as_fd(), caller, mode)
            }
            NewNode::Symlink(_) => give_owner(directory, fd.as_fd(), caller),
        });
    given.inspect_err(|_| undo(directory, name, undo_flags))
}

fn undo(directory: &OwnedFd, name: &[u8], flags: AtFlags) {
    if let Err(errno) = rustix::fs::unlinkat(directory, name, flags) {
        log::debug!("what could not be given away stays: {errno}");
    }
}

/// Gives something new to who asked for it, with the permission bits that were asked for,
/// whatever this process's own file mask makes of them.
fn give(
    directory: &OwnedFd,
    name: &[u8],
    fd: BorrowedFd<'_>,
    caller: &Caller,
    mode: u16,
) -> Result<Stat, Error> {
    let stat = give_owner(directory, fd, caller)?;
    // A directory takes this bit over from the one that it is in.
    let inherited = match file_kind(&stat) {
        FileKind::Directory => bits(stat.st_mode & libc::S_ISGID),
        _ => 0,
    };
    let mode = mode | inherited;
    if bits(stat.st_mode) == mode {
        return Ok(stat);
    }
    let flags = AtFlags::empty();
    rustix::fs::chmodat(directory, name, Mode::from_raw_mode(mode.into()), flags)
        .map_err(system)?;
    rustix::fs::fstat(fd).map_err(system)
}

fn give_owner(directory: &OwnedFd, fd: BorrowedFd<'_>, caller: &Caller) -> Result<Stat, Error> {
    let stat = rustix::fs::fstat(fd).map_err(system)?;
    let above = rustix::fs::fstat(directory).map_err(system)?;
    // In a directory with this bit, everything belongs to its group.
    let group = match above.st_mode & libc::S_ISGID {
        0 => caller.gid,
        _ => above.st_gid,
    };
    if (stat.st_uid, stat.st_gid) == (caller.uid, group) {
        return Ok(stat);
    }
    let (user, group) = (Uid::from_raw(caller.uid), Gid::from_raw(group));
    rustix::fs::chownat(fd, "", Some(user), Some(group), AtFlags::EMPTY_PATH).map_err(system)?;
    rustix::fs::fstat(fd).map_err(system)
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::Regular => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
        FileKind::CharDevice => FileType::CharacterDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::Fifo,
        FileKind::Socket => FileType::Socket,
    }
}

/// Gives `existing` one more name.
///
/// # Errors
/// [`Error::CrossDevice`] for a file of another session; what the system says.
pub(super) fn link(
    parent: &Arc<Inode>,
    name: &[u8],
    existing: &Arc<Inode>,
) -> Result<Arc<Inode>, Error> {
    if !Arc::ptr_eq(parent.tree(), existing.tree()) {
        return Err(Error::CrossDevice);
    }
    let _gate = parent.tree().rearrange()?;
    make_private(existing, Copied::Whole)?;
    let (from, directory) = (existing.handle()?, parent.directory()?);
    let path = proc_path(&from);
    rustix::fs::linkat(CWD, path, &directory, name, AtFlags::SYMLINK_FOLLOW).map_err(system)?;
    existing.put(Place::Named(parent.clone(), name.to_vec()));
    Ok(existing.clone())
}

/// Removes a name.
///
/// # Errors
/// What the system says.
pub(super) fn remove(parent: &Arc<Inode>, name: &[u8], what: Removal) -> Result<(), Error> {
    let tree = parent.tree();
    let _gate = tree.rearrange()?;
    let directory = parent.directory()?;
    let flags = match what {
        Removal::File => AtFlags::empty(),
        Removal::Directory => AtFlags::REMOVEDIR,
    };
    let place = tree.place();
    match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let leaving = Leaving::prepare(parent, name, &stat)?;
            tree.lender().hide(place, parent, name)?;
            rustix::fs::unlinkat(&directory, name, flags).map_err(system)?;
            leaving.finish();
            Ok(())
        }
        Err(Errno::NOENT) if tree.lender().find(parent, name).is_some() => match what {
            Removal::File => tree.lender().hide(place, parent, name),
            Removal::Directory => Err(Error::NotDirectory),
        },
        Err(errno) => Err(system(errno)),
    }
}

/// Something that is about to lose a name.
struct Leaving {
    tree: Arc<Tree>,
    inode: Option<Arc<Inode>>,
    then: Option<Place>,
    stat: Stat,
}

impl Leaving {
    /// What is called `name` in `parent`, as the disk describes it. Where it could still be
    /// asked for, it is held, or what it looks like is kept in mind.
    fn prepare(parent: &Arc<Inode>, name: &[u8], stat: &Stat) -> Result<Self, Error> {
        let tree = parent.tree().clone();
        let inode = tree.known(stat.st_ino);
        let is_directory = file_kind(stat) == FileKind::Directory;
        let then = match &inode {
            Some(inode) if inode.is_at(parent, name) => {
                let has_other_names = !is_directory && stat.st_nlink > 1;
                Some(match has_other_names || inode.is_open() {
                    true => Place::Held(inode.handle()?),
                    false => Place::Gone(Box::new(without_names(inode.kind(), stat))),
                })
            }
            _ => None,
        };
        Ok(Self {
            tree,
            inode,
            then,
            stat: *stat,
        })
    }

    /// It has lost the name.
    fn finish(self) {
        let is_directory = file_kind(&self.stat) == FileKind::Directory;
        if is_directory || self.stat.st_nlink <= 1 {
            let written = self.inode.as_ref().filter(|inode| inode.is_written());
            let counted = written.and_then(|inode| inode.stop_counting());
            let room = counted.unwrap_or_else(|| room_of(&self.stat));
            self.tree.meter().change(difference(room, 0), -1);
        }
        if let (Some(inode), Some(then)) = (self.inode, self.then) {
            if is_directory {
                inode.tree().drop_directory(self.stat.st_ino);
            }
            inode.put(then);
        }
    }
}

fn without_names(kind: FileKind, stat: &Stat) -> Attr {
    Attr {
        links: 0,
        ..of_stat(kind, stat)
    }
}

/// Renames what is called `name` in `parent`.
///
/// # Errors
/// [`Error::CrossDevice`] into another session; what the system says.
pub(super) fn rename(
    parent: &Arc<Inode>,
    name: &[u8],
    to: &Arc<Inode>,
    new_name: &[u8],
    how: RenameMode,
) -> Result<(), Error> {
    let tree = parent.tree();
    if !Arc::ptr_eq(tree, to.tree()) {
        return Err(Error::CrossDevice);
    }
    let _gate = tree.rearrange()?;
    own(parent, name)?;
    match how {
        RenameMode::Exchange => own(to, new_name)?,
        RenameMode::NoReplace | RenameMode::WhiteoutNoReplace
            if tree.lender().find(to, new_name).is_some() =>
        {
            return Err(Error::Exists);
        }
        RenameMode::NoReplace
        | RenameMode::WhiteoutNoReplace
        | RenameMode::Replace
        | RenameMode::Whiteout => {}
    }
    let (from_fd, to_fd) = (parent.directory()?, to.directory()?);
    let stat = |fd: &OwnedFd, name: &[u8]| {
        rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(system)
    };
    let moving = stat(&from_fd, name)?;
    let replaced = match stat(&to_fd, new_name) {
        Ok(stat) => Some(stat),
        Err(Error::System(libc::ENOENT)) => None,
        Err(error) => return Err(error),
    };
    let leaving = match (&replaced, how) {
        (Some(stat), RenameMode::Replace | RenameMode::Whiteout) => {
            Some(Leaving::prepare(to, new_name, stat)?)
        }
        _ => None,
    };
    let flags = match how {
        RenameMode::Replace => RenameFlags::empty(),
        RenameMode::NoReplace => RenameFlags::NOREPLACE,
        RenameMode::Exchange => RenameFlags::EXCHANGE,
        RenameMode::Whiteout => RenameFlags::WHITEOUT,
        RenameMode::WhiteoutNoReplace => RenameFlags::WHITEOUT | RenameFlags::NOREPLACE,
    };
    rustix::fs::renameat_with(&from_fd, name, &to_fd, new_name, flags).map_err(system)?;
    if replaced
        .as_ref()
        .is_some_and(|it| it.st_ino == moving.st_ino)
    {
        // Two names of one file: nothing happens.
        return Ok(());
    }
    if let Some(leaving) = leaving {
        leaving.finish();
    }
    place(&moving, to, new_name);
    match (how, &replaced) {
        (RenameMode::Exchange, Some(other)) => place(other, parent, name),
        _ => tree.lender().hide(tree.place(), parent, name)?,
    }
    if matches!(how, RenameMode::Whiteout | RenameMode::WhiteoutNoReplace) {
        tree.meter().change(0, 1);
    }
    Ok(())
}

/// Notes the new name of what was renamed, if it is known; a blob is looked at by who
/// hashes.
fn place(stat: &Stat, parent: &Arc<Inode>, name: &[u8]) {
    let tree = parent.tree();
    let is_blob = digest_at(parent, name).is_some() && file_kind(stat) == FileKind::Regular;
    let known = match is_blob {
        true => Some(tree.found(stat, parent, name)),
        false => tree.known(stat.st_ino),
    };
    if let Some(inode) = known {
        inode.put(Place::Named(parent.clone(), name.to_vec()));
        if is_blob {
            tree.hasher().add(&inode);
        }
    }
}

/// Sees that what is called `name` is the session's own. The gate is held.
fn own(parent: &Arc<Inode>, name: &[u8]) -> Result<(), Error> {
    match parent.tree().child(parent, name)? {
        Some(inode) => make_private(&inode, Copied::Whole),
        None => Err(Error::NotFound),
    }
}

/// How much of a lent blob a file of the session's own begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    /// All of it.
    Whole,
    /// Nothing.
    Nothing,
}

/// Makes a lent blob a file of the session's own. The gate is held.
///
/// # Errors
/// What the system says; then it is what it was.
pub(super) fn make_private(inode: &Arc<Inode>, copied: Copied) -> Result<(), Error> {
    let Place::Lent(parent, name, digest) = inode.place() else {
        return Ok(());
    };
    let meter = inode.tree().meter();
    let more = match copied {
        Copied::Whole => super::limits::room(&inode.tree().lender().stat(&digest)?),
        Copied::Nothing => 0,
    };
    meter.check(more, 1)?;
    let directory = parent.directory()?;
    // Beside it, under a name that the session's own directory does not see.
    let beside = format!("copy-{}", digest.encoded());
    let place = inode.tree().place();
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    let mut file = File::from(rustix::fs::openat(place, &*beside, flags, mode).map_err(system)?);
    if copied == Copied::Whole {
        let mut blob = inode.tree().lender().open_blob(&digest)?;
        std::io::copy(&mut blob, &mut file).map_err(passed_on)?;
    }
    let root = rustix::fs::fstat(inode.tree().root_fd()).map_err(system)?;
    let stat = rustix::fs::fstat(&file).map_err(system)?;
    if (stat.st_uid, stat.st_gid) != (root.st_uid, root.st_gid) {
        let owner = (Uid::from_raw(root.st_uid), Gid::from_raw(root.st_gid));
        rustix::fs::fchown(&file, Some(owner.0), Some(owner.1)).map_err(system)?;
    }
    rustix::fs::fchmod(&file, mode).map_err(system)?;
    let flags = RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(place, &*beside, &directory, &*name, flags) {
        Ok(()) => {
            let stat = rustix::fs::fstat(&file).map_err(system)?;
            meter.change(difference(0, room_of(&stat)), 1);
            inode.become_private(stat.st_ino, &parent, &name);
            inode.tree().adopt(inode);
            Ok(())
        }
        // It is there by now; the kernel finds it at its next lookup.
        Err(Errno::EXIST) => Err(Error::Stale),
        Err(errno) => Err(system(errno)),
    }
}
