//! The requests of the kernel, one method each: translated, asked of the [`Vfs`], answered.
//!
//! Requests that may take long are answered from other threads: what waits for a first
//! pass, and what commits. Those that change names hold the kernel's locks of directories
//! meanwhile, which nothing here can help.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, Filesystem, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::passthrough::Passthrough;
use super::replies::refuse;
use super::{Access, FuseAdapter, Permissions, caller, convert, guard, replies};
use crate::vfs::writable::{AttrChange, Holder, NewNode, Removal};
use crate::vfs::{Caller, Error, Handle, Ino, Patience, Vfs};

/// The largest write that is taken in one request, in bytes. `fuser` keeps a buffer of
/// this size for each thread; the kernel sends no more than this at once anyway.
const MAX_WRITE: u32 = 1 << 20;

/// How many read-ahead requests the kernel may have under way.
const MAX_BACKGROUND: u16 = 64;

/// What the kernel is asked for where it can: names with their attributes in one request,
/// always, as what is asked for them next is cheap here and a request is not; that a file is
/// opened to be emptied, since that begins a new drop; the others each save requests that
/// would always be answered alike.
const WANTED: [InitFlags; 7] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_MAX_PAGES,
];

/// The line of somebody who waits for what nobody else waits for.
fn own_line(caller: &Caller) -> Ino {
    Ino(u64::MAX - u64::from(caller.pid))
}

impl Filesystem for FuseAdapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            if config.add_capabilities(flag).is_err() {
                log::debug!("the kernel has no {flag:?}");
            }
        }
        // With this flag the kernel obeys access control lists, and therefore modes. That
        // lists can be read as attributes does not hang on it.
        if self.permissions == Permissions::OfTheFiles
            && config.add_capabilities(InitFlags::FUSE_POSIX_ACL).is_err()
        {
            log::warn!("the kernel has no access control lists for FUSE: modes alone count");
        }
        let offered = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
        // 1 lets the layout be on a plain file system and overlayfs sit on the mount.
        self.passthrough
            .offer(offered && config.set_max_stack_depth(1).is_ok());
        let can_do_without = InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        self.lists_unopened =
            self.access == Access::ReadOnly && config.add_capabilities(can_do_without).is_ok();
        // Where the kernel offers less, what it offers is taken.
        let (Ok(_) | Err(_)) = config.set_max_write(MAX_WRITE);
        if let Err(most) = config.set_max_readahead(MAX_WRITE) {
            let (Ok(_) | Err(_)) = config.set_max_readahead(most);
        }
        let (Ok(_) | Err(_)) = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.crew.take();
        let (parent, name, caller) = (Ino(parent.0), name.as_bytes(), caller::of(req));
        if self.holds(|vfs| vfs.is_postponed(&caller, Some((parent, name)))) {
            let name = name.to_vec();
            return self.wait(own_line(&caller), move |vfs, _| {
                vfs.wait_postponed(&caller);
                replies::entry("lookup", parent, vfs.lookup(parent, &name), reply);
            });
        }
        if self.holds(|vfs| vfs.would_wait_inside(parent)) {
            let name = name.to_vec();
            return self.wait(parent, move |vfs, _| {
                replies::entry("lookup", parent, vfs.lookup(parent, &name), reply);
            });
        }
        guard(|| replies::entry("lookup", parent, self.vfs.lookup(parent, name), reply));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        let _turn = self.crew.take();
        self.vfs.forget(Ino(ino.0), nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _turn = self.crew.take();
        let (ino, caller) = (Ino(ino.0), caller::of(req));
        if self.holds(|vfs| vfs.is_postponed(&caller, None)) {
            return self.wait(own_line(&caller), move |vfs, _| {
                vfs.wait_postponed(&caller);
                replies::attr(ino, vfs.attr(ino, Patience::Wait), reply);
            });
        }
        // Who wants no size need not wait for it.
        if self.holds(|vfs| vfs.would_wait(ino)) && caller::needs_no_size(req.pid()) {
            return guard(|| replies::attr(ino, self.vfs.attr(ino, Patience::Never), reply));
        }
        self.answer(ino, move |vfs, _| {
            replies::attr(ino, vfs.attr(ino, Patience::Wait), reply);
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let _turn = self.crew.take();
        let ino = Ino(ino.0);
        guard(|| match self.vfs.read_link(ino) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(refuse("readlink", ino, &error)),
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.crew.take();
        let (ino, caller, how) = (Ino(ino.0), caller::of(req), convert::open_mode(flags.0));
        let early = self.early.clone();
        let answer = move |vfs: &Vfs, passthrough: &Passthrough| {
            let opened = vfs.open_as(&caller, ino, how);
            if let Ok((_, file)) = &opened {
                early.give(vfs, ino, &**file);
            }
            replies::open(vfs, passthrough, ino, opened, reply);
        };
        if self.holds(|vfs| vfs.open_is_slow(ino, how)) {
            return self.wait_for_close(ino, answer);
        }
        self.answer(ino, answer);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _turn = self.crew.take();
        guard(|| {
            let (at, how) = ((Ino(parent.0), name.as_bytes()), convert::open_mode(flags));
            let created = self
                .vfs
                .create(&caller::of(req), at, convert::mode(mode), how);
            replies::create(&self.vfs, &self.passthrough, at.0, created, reply);
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _turn = self.crew.take();
        guard(|| {
            let new = convert::file_kind(mode)
                .map(|kind| NewNode::Special(kind, convert::mode(mode), convert::device(rdev)));
            let at = (Ino(parent.0), name.as_bytes());
            let made = new.and_then(|new| self.vfs.make(&caller::of(req), at, new));
            replies::entry("mknod", at.0, made, reply);
        });
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let _turn = self.crew.take();
        guard(|| {
            let at = (Ino(parent.0), name.as_bytes());
            let new = NewNode::Directory(convert::mode(mode));
            let made = self.vfs.make(&caller::of(req), at, new);
            replies::entry("mkdir", at.0, made, reply);
        });
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let _turn = self.crew.take();
        let (caller, parent, name) = (caller::of(req), Ino(parent.0), name.as_bytes().to_vec());
        let target = target.as_os_str().as_bytes().to_vec();
        // At a level of ref names this commits.
        self.wait(parent, move |vfs, _| {
            let made = vfs.make(&caller, (parent, &name), NewNode::Symlink(&target));
            replies::entry("symlink", parent, made, reply);
        });
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let _turn = self.crew.take();
        guard(|| {
            let at = (Ino(newparent.0), newname.as_bytes());
            let linked = self.vfs.link(&caller::of(req), Ino(ino.0), at);
            replies::entry("link", at.0, linked, reply);
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.crew.take();
        let (caller, parent, name) = (caller::of(req), Ino(parent.0), name.as_bytes());
        let answer = move |vfs: &Vfs, name: &[u8]| {
            let removed = vfs.remove(&caller, (parent, name), Removal::File);
            replies::empty("unlink", parent, removed, reply);
        };
        if self.holds(|vfs| vfs.remove_is_slow((parent, name))) {
            let name = name.to_vec();
            return self.wait(own_line(&caller), move |vfs, _| answer(vfs, &name));
        }
        guard(|| answer(&self.vfs, name));
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.crew.take();
        let (caller, parent, name) = (caller::of(req), Ino(parent.0), name.as_bytes().to_vec());
        // At a level of ref names this commits.
        self.wait(parent, move |vfs, _| {
            let removed = vfs.remove(&caller, (parent, &name), Removal::Directory);
            replies::empty("rmdir", parent, removed, reply);
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _turn = self.crew.take();
        let (caller, how) = (caller::of(req), convert::rename_mode(flags));
        let (parent, new_parent) = (Ino(parent.0), Ino(newparent.0));
        let (name, new_name) = (name.as_bytes().to_vec(), newname.as_bytes().to_vec());
        // At a level of ref names this commits.
        self.wait(new_parent, move |vfs, _| {
            let (from, to) = ((parent, &name[..]), (new_parent, &new_name[..]));
            let renamed = how.and_then(|how| vfs.rename(&caller, from, to, how));
            replies::empty("rename", parent, renamed, reply);
        });
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _turn = self.crew.take();
        guard(|| {
            let change = AttrChange {
                mode: mode.map(convert::mode),
                uid,
                gid,
                size,
                atime: atime.map(convert::set_time),
                mtime: mtime.map(convert::set_time),
            };
            let (ino, handle) = (Ino(ino.0), fh.map(|fh| Handle(fh.0)));
            let attr = self.vfs.set_attr(&caller::of(req), ino, &change, handle);
            replies::attr(ino, attr, reply);
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // No other thread is called for it: who copies a file sends one write at a time, and
        // the buffer of the thread that had the last one is still at hand. If the disk makes
        // it wait, the deputy sees that.
        let _turn = self.crew.take();
        guard(|| {
            let (holder, handle) = (Holder(lock_owner.map_or(0, |owner| owner.0)), Handle(fh.0));
            let dropped = match write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
                true => self.vfs.drop_privileges(handle),
                false => Ok(()),
            };
            let written = dropped.and_then(|()| self.vfs.write(holder, handle, data, offset));
            let len = u32::try_from(data.len()).map_err(|_| Error::Invalid);
            match written.and(len) {
                Ok(len) => reply.written(len),
                Err(error) => reply.error(refuse("write", Ino(ino.0), &error)),
            }
        });
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.crew.take();
        guard(|| {
            let allocated = self.vfs.allocate(Handle(fh.0), offset, length, mode);
            replies::empty("fallocate", Ino(ino.0), allocated, reply);
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.crew.take();
        let (caller, how, ino) = (caller::of(req), convert::xattr_mode(flags), Ino(ino.0));
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        // On a ref this commits.
        self.wait(ino, move |vfs, _| {
            let set = how.and_then(|how| vfs.set_xattr(&caller, ino, &name, &value, how));
            replies::empty("setxattr", ino, set, reply);
        });
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.crew.take();
        let (caller, ino, name) = (caller::of(req), Ino(ino.0), name.as_bytes().to_vec());
        // On a ref this commits.
        self.wait(ino, move |vfs, _| {
            let removed = vfs.remove_xattr(&caller, ino, &name);
            replies::empty("removexattr", ino, removed, reply);
        });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let turn = self.crew.take();
        turn.takes_long();
        guard(|| {
            let size = usize::try_from(size).unwrap_or(0);
            self.pages
                .lend(size, |buf| match self.vfs.read(Handle(fh.0), buf, offset) {
                    Ok(len) => reply.data(&buf[..len]),
                    Err(error) => reply.error(refuse("read", Ino(ino.0), &error)),
                });
        });
    }

    fn flush(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let _turn = self.crew.take();
        let (caller, ino, handle) = (caller::of(req), Ino(ino.0), Handle(fh.0));
        let holder = Holder(lock_owner.0);
        if self.holds(|vfs| vfs.flush_is_slow(handle)) {
            return self.wait(ino, move |vfs, _| {
                replies::empty("flush", ino, vfs.flush(holder, &caller, handle), reply);
            });
        }
        guard(|| {
            let flushed = self.vfs.flush(holder, &caller, handle);
            replies::empty("flush", ino, flushed, reply);
        });
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = self.crew.take();
        let (ino, handle) = (Ino(ino.0), Handle(fh.0));
        if self.holds(|vfs| vfs.flush_is_slow(handle)) {
            return self.wait(ino, move |vfs, passthrough| {
                // In this order: what comes after the last close must find no writer.
                passthrough.release(ino);
                vfs.release(handle);
                reply.ok();
            });
        }
        guard(|| {
            self.passthrough.release(ino);
            self.vfs.release(handle);
            reply.ok();
        });
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = self.crew.take();
        let (ino, handle) = (Ino(ino.0), Handle(fh.0));
        self.wait(ino, move |vfs, _| {
            replies::empty("fsync", ino, vfs.sync(handle), reply);
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.crew.take();
        if self.lists_unopened {
            return reply.error(Errno::ENOSYS);
        }
        let ino = Ino(ino.0);
        if self.holds(|vfs| vfs.would_wait_inside(ino)) {
            return self.wait(ino, move |vfs, _| replies::open_dir(vfs, ino, reply));
        }
        guard(|| replies::open_dir(&self.vfs, ino, reply));
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let _turn = self.crew.take();
        let (ino, at) = (Ino(ino.0), self.position(fh, offset));
        if self.holds(|vfs| vfs.would_wait_inside(ino)) {
            let unopened = self.unopened.clone();
            return self.wait(ino, move |vfs, _| {
                replies::read_dir(vfs, &unopened, (ino, at), reply);
            });
        }
        guard(|| replies::read_dir(&self.vfs, &self.unopened, (ino, at), reply));
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let _turn = self.crew.take();
        let (ino, at) = (Ino(ino.0), self.position(fh, offset));
        if self.holds(|vfs| vfs.would_wait_inside(ino)) {
            let unopened = self.unopened.clone();
            return self.wait(ino, move |vfs, _| {
                replies::read_dir_plus(vfs, &unopened, (ino, at), reply);
            });
        }
        guard(|| replies::read_dir_plus(&self.vfs, &self.unopened, (ino, at), reply));
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let _turn = self.crew.take();
        self.vfs.release_dir(Handle(fh.0));
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = self.crew.take();
        let ino = Ino(ino.0);
        self.wait(ino, move |vfs, _| {
            replies::empty("fsyncdir", ino, vfs.sync_dir(ino), reply);
        });
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let _turn = self.crew.take();
        guard(|| match self.vfs.space() {
            Ok(space) => convert::statfs(&space, reply),
            Err(error) => reply.error(refuse("statfs", Ino(ino.0), &error)),
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _turn = self.crew.take();
        let ino = Ino(ino.0);
        guard(|| match self.vfs.xattr(ino, name.as_bytes()) {
            Ok(value) => convert::xattr(&value, size, reply),
            Err(error) => reply.error(refuse("getxattr", ino, &error)),
        });
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _turn = self.crew.take();
        let ino = Ino(ino.0);
        guard(|| match self.vfs.xattr_names(ino) {
            Ok(names) => {
                let list: Vec<u8> = names
                    .iter()
                    .flat_map(|name| name.iter().copied().chain([0]))
                    .collect();
                convert::xattr(&list, size, reply);
            }
            Err(error) => reply.error(refuse("listxattr", ino, &error)),
        });
    }

    fn access(&self, _req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let _turn = self.crew.take();
        // Asked only where the kernel does not check by mode itself.
        let ino = Ino(ino.0);
        guard(|| {
            let is_writable = |vfs: &Vfs| vfs.is_writable(ino).unwrap_or(false);
            let allowed = if mask.contains(AccessFlags::W_OK) && !is_writable(&self.vfs) {
                Err(Error::ReadOnly)
            } else if mask.contains(AccessFlags::X_OK) {
                self.vfs.check_run(ino)
            } else {
                Ok(())
            };
            match allowed {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(refuse("access", ino, &error)),
            }
        });
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _turn = self.crew.take();
        guard(|| {
            let found = convert::seek(offset, whence)
                .and_then(|(offset, wanted)| self.vfs.seek(Handle(fh.0), offset, wanted))
                .and_then(|offset| i64::try_from(offset).map_err(|_| Error::Invalid));
            match found {
                Ok(offset) => reply.offset(offset),
                Err(error) => reply.error(refuse("lseek", Ino(ino.0), &error)),
            }
        });
    }
}
