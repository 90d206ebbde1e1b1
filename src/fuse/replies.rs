//! Answers that take more than a line: each asks the file system and replies.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    BackingId, Errno, FileHandle, FopenFlags, INodeNo, ReplyAttr, ReplyCreate, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen,
};

use super::convert::{GENERATION, errno, file_attr, file_type};
use super::passthrough::{Content, Mode, Passthrough};
use super::unopened::{Position, Unopened};
use crate::vfs::{
    Attr, Caching, Child, CreatedEntry, Entry, Error, Handle, Ino, Listing, OpenFile, Patience, Vfs,
};

/// The names that are in every directory, before its children: they have the offsets 0
/// and 1, so that those which follow them are 1 and 2.
const DOTS: [&str; 2] = [".", ".."];

/// Logs a refused request and gives its errno.
pub(super) fn refuse(request: &str, ino: Ino, error: &Error) -> Errno {
    // What is wrong with content is logged once, where it is found.
    let level = match error.fault() {
        Some(_) => log::Level::Debug,
        None => error.level(),
    };
    log::log!(level, "{request} of inode {}: {error}", ino.0);
    errno(error)
}

pub(super) fn attr(ino: Ino, attr: Result<Attr, Error>, reply: ReplyAttr) {
    match attr {
        Ok(attr) => reply.attr(&attr.lifetime.duration(), &file_attr(ino, &attr)),
        Err(error) => reply.error(refuse("getattr", ino, &error)),
    }
}

pub(super) fn entry(request: &str, ino: Ino, entry: Result<Entry, Error>, reply: ReplyEntry) {
    match entry {
        Ok(entry) => reply.entry_with_ttls(
            &entry.attr.lifetime.duration(),
            &entry.name_lifetime.duration(),
            &file_attr(entry.ino, &entry.attr),
            GENERATION,
        ),
        Err(error) => reply.error(refuse(request, ino, &error)),
    }
}

pub(super) fn empty(request: &str, ino: Ino, done: Result<(), Error>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(refuse(request, ino, &error)),
    }
}

/// How an open file is given to the kernel.
enum Opened {
    Plain(FopenFlags),
    Passthrough(FopenFlags, Arc<BackingId>),
    Refused,
}

/// Counts one more open of `ino`, and says how the kernel may go about `file`.
fn opened(
    passthrough: &Passthrough,
    ino: Ino,
    file: &dyn OpenFile,
    open_backing: impl FnOnce(&File) -> io::Result<BackingId>,
) -> Opened {
    // Where nothing is written, there is nothing to flush when a descriptor is closed.
    let flags = match file.is_written() {
        true => FopenFlags::empty(),
        false => FopenFlags::FOPEN_NOFLUSH,
    };
    match file.caching() {
        Caching::Direct => Opened::Plain(flags | FopenFlags::FOPEN_DIRECT_IO),
        caching @ (Caching::Keep | Caching::Shared) => {
            let content = match caching {
                Caching::Shared => Content::Changing,
                _ => Content::Verified,
            };
            match passthrough.open(ino, content, file.backing(), open_backing) {
                Mode::Passthrough(backing) => Opened::Passthrough(flags, backing),
                // Pages that were read while the kernel had no backing file are stale once
                // it has written to one.
                Mode::Cached if content == Content::Changing && passthrough.is_offered() => {
                    Opened::Plain(flags)
                }
                Mode::Cached => Opened::Plain(flags | FopenFlags::FOPEN_KEEP_CACHE),
                Mode::Refused => Opened::Refused,
            }
        }
    }
}

pub(super) fn open(
    vfs: &Vfs,
    passthrough: &Passthrough,
    ino: Ino,
    result: Result<(Handle, Arc<dyn OpenFile>), Error>,
    reply: ReplyOpen,
) {
    let (handle, file) = match result {
        Ok(opened) => opened,
        Err(error) => return reply.error(refuse("open", ino, &error)),
    };
    let fh = FileHandle(handle.0);
    match opened(passthrough, ino, &*file, |file| reply.open_backing(file)) {
        Opened::Plain(flags) => reply.opened(fh, flags),
        Opened::Passthrough(flags, backing) => reply.opened_passthrough(fh, flags, &backing),
        Opened::Refused => {
            vfs.release(handle);
            reply.error(refuse("open", ino, &Error::held_elsewhere()));
        }
    }
}

pub(super) fn create(
    vfs: &Vfs,
    passthrough: &Passthrough,
    parent: Ino,
    result: Result<CreatedEntry, Error>,
    reply: ReplyCreate,
) {
    let CreatedEntry {
        entry,
        handle,
        file,
    } = match result {
        Ok(created) => created,
        Err(error) => return reply.error(refuse("create", parent, &error)),
    };
    let lifetime = entry.attr.lifetime.duration();
    let lifetime = lifetime.min(entry.name_lifetime.duration());
    let (attr, fh) = (file_attr(entry.ino, &entry.attr), FileHandle(handle.0));
    match opened(passthrough, entry.ino, &*file, |file| {
        reply.open_backing(file)
    }) {
        Opened::Plain(flags) => reply.created(&lifetime, &attr, GENERATION, fh, flags),
        Opened::Passthrough(flags, backing) => {
            reply.created_passthrough(&lifetime, &attr, GENERATION, fh, flags, &backing);
        }
        Opened::Refused => {
            vfs.release(handle);
            vfs.forget(entry.ino, 1);
            reply.error(refuse("create", parent, &Error::held_elsewhere()));
        }
    }
}

/// Opens a directory, also where its names are in the page cache already. These requests,
/// and those when it is closed, are all that a later walk of a tree costs. The second walk
/// asks for the attributes of each directory as well, whatever their lifetime: having listed
/// it, the kernel takes its access time for another one, unless all of the mount is
/// read-only: there directories are not opened at all ([`super::unopened`]). Where names are
/// removed by those who list them, a listing is safe only in a directory that is open.
pub(super) fn open_dir(vfs: &Vfs, ino: Ino, reply: ReplyOpen) {
    match vfs.open_dir(ino) {
        Ok((handle, caching)) => {
            let flags = match caching {
                // Names that were read once are read from the page cache from then on,
                // until the kernel needs the memory.
                Caching::Keep => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
                Caching::Direct | Caching::Shared => FopenFlags::empty(),
            };
            reply.opened(FileHandle(handle.0), flags);
        }
        Err(error) => reply.error(refuse("opendir", ino, &error)),
    }
}

pub(super) fn read_dir(
    vfs: &Vfs,
    unopened: &Unopened,
    (ino, at): (Ino, Position),
    mut reply: ReplyDirectory,
) {
    let part = match at.part(vfs, ino) {
        Ok(part) => part,
        Err(error) => return reply.error(refuse("readdir", ino, &error)),
    };
    let directory = fuser::FileType::Directory;
    let mut is_end = true;
    for (next, name) in dots_from(part.before) {
        is_end = false;
        if reply.add(
            INodeNo(ino.0),
            part.offset(next),
            directory,
            OsStr::new(name),
        ) {
            return reply.ok();
        }
    }
    for (next, child) in children_from(part.before, &*part.listing) {
        is_end = false;
        let (child_ino, kind) = (INodeNo(vfs.ino_of(&child).0), file_type(child.node.kind()));
        if reply.add(
            child_ino,
            part.offset(next),
            kind,
            OsStr::from_bytes(&child.name),
        ) {
            break;
        }
    }
    if is_end {
        unopened.end(vfs, ino, &part);
    }
    reply.ok();
}

pub(super) fn read_dir_plus(
    vfs: &Vfs,
    unopened: &Unopened,
    (ino, at): (Ino, Position),
    mut reply: ReplyDirectoryPlus,
) {
    let part = at.part(vfs, ino);
    let own = part.and_then(|part| Ok((part, vfs.attr(ino, Patience::Never)?)));
    let (part, own) = match own {
        Ok(own) => own,
        Err(error) => return reply.error(refuse("readdirplus", ino, &error)),
    };
    let own = file_attr(ino, &own);
    let mut is_end = true;
    for (next, name) in dots_from(part.before) {
        is_end = false;
        let next = part.offset(next);
        // The kernel takes no reference for these two.
        let (number, name) = (INodeNo(ino.0), OsStr::new(name));
        if reply.add(number, next, name, &Duration::ZERO, &own, GENERATION) {
            return reply.ok();
        }
    }
    for (next, child) in children_from(part.before, &*part.listing) {
        let Ok(entry) = vfs.entry_of(&child) else {
            continue;
        };
        let attr_lifetime = entry.attr.lifetime.duration();
        let lifetime = attr_lifetime.min(entry.name_lifetime.duration());
        let attr = file_attr(entry.ino, &entry.attr);
        let (number, name) = (INodeNo(entry.ino.0), OsStr::from_bytes(&child.name));
        let next = part.offset(next);
        is_end = false;
        if reply.add(number, next, name, &lifetime, &attr, GENERATION) {
            // It did not fit, so the kernel does not hold the reference.
            vfs.forget(entry.ino, 1);
            break;
        }
    }
    if is_end {
        unopened.end(vfs, ino, &part);
    }
    reply.ok();
}

/// Those of [`DOTS`] from a directory offset on, each with the offset that follows it.
fn dots_from(offset: u64) -> impl Iterator<Item = (u64, &'static str)> {
    let all = (1..).zip(DOTS);
    all.skip_while(move |(next, _)| *next <= offset)
}

/// The children from a directory offset on, each with the offset that follows it.
fn children_from(offset: u64, listing: &dyn Listing) -> impl Iterator<Item = (u64, Child)> {
    let dots = DOTS.len() as u64;
    (offset.max(dots)..).map_while(move |offset| {
        let at = usize::try_from(offset - dots).ok()?;
        Some((offset + 1, listing.child(at)?))
    })
}
