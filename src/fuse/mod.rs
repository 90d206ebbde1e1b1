//! Speaks FUSE for a [`Vfs`]: translates requests and replies, and decides nothing else.
//!
//! The one room that imports `fuser`. What is learned from the kernel's behaviour:
//!
//! - A request that may wait for a first pass goes to a thread of its own, so that the
//!   threads that take requests from the kernel are never all asleep.
//! - readdirplus cannot decline an entry and is asked in the first chunk of every `ls`,
//!   so it never waits.
//! - ENOSYS would be remembered by the kernel for the whole mount and is never answered.
//! - A handler that panics must not end the mount: the panic is caught, and the reply
//!   that is dropped by it answers EIO.

mod caller;
mod convert;
mod passthrough;
mod session;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fuser::{
    AccessFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

pub use session::{Mount, MountError, MountOptions, Notifier, Unmount, is_stale, unmount};

use self::convert::{GENERATION, errno, file_attr, file_type};
use self::passthrough::{Mode, Passthrough};
use crate::vfs::{Attr, Caching, Error, Handle, Ino, Patience, Vfs};

/// The largest write that is taken in one request, in bytes. `fuser` keeps a buffer of
/// this size for each thread; the kernel sends no more than this at once anyway.
const MAX_WRITE: u32 = 1 << 20;

/// How many read-ahead requests the kernel may have under way.
const MAX_BACKGROUND: u16 = 64;

/// What the kernel is asked for where it can: the first two lists of names in one
/// request, the others each save requests that would always be answered alike.
const WANTED: [InitFlags; 7] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_MAX_PAGES,
];

thread_local! {
    /// The bytes of the read that a thread is answering.
    static READ_BUF: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A [`Vfs`] as `fuser` wants it.
#[derive(Debug)]
pub(crate) struct FuseAdapter {
    vfs: Arc<Vfs>,
    passthrough: Arc<Passthrough>,
}

impl FuseAdapter {
    fn new(vfs: Arc<Vfs>) -> Self {
        Self {
            vfs,
            passthrough: Arc::default(),
        }
    }

    /// Runs `answer` on a thread of its own if it would wait for long, else here.
    fn answer(&self, ino: Ino, answer: impl FnOnce(&Vfs, &Passthrough) + Send + 'static) {
        if !self.vfs.would_wait(ino) {
            return guard(|| answer(&self.vfs, &self.passthrough));
        }
        let (vfs, passthrough) = (self.vfs.clone(), self.passthrough.clone());
        let waiting = move || guard(|| answer(&vfs, &passthrough));
        let spawned = std::thread::Builder::new()
            .name("wait".into())
            .spawn(waiting);
        if let Err(error) = spawned {
            // The reply went with the closure and has answered EIO.
            log::error!("cannot start a thread: {error}");
        }
    }
}

/// Keeps a panic of one request from ending the mount.
fn guard(answer: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(answer)).is_err() {
        log::error!("a request failed by a mistake in the program; it was answered with EIO");
    }
}

/// Logs a refused request and gives its errno.
fn refuse(request: &str, ino: Ino, error: &Error) -> Errno {
    // What is wrong with content is logged once, where it is found.
    let level = match error.fault() {
        Some(_) => log::Level::Debug,
        None => error.level(),
    };
    log::log!(level, "{request} of inode {}: {error}", ino.0);
    errno(error)
}

fn attr_reply(ino: Ino, attr: Result<Attr, Error>, reply: ReplyAttr) {
    match attr {
        Ok(attr) => reply.attr(&attr.lifetime.duration(), &file_attr(ino, &attr)),
        Err(error) => reply.error(refuse("getattr", ino, &error)),
    }
}

fn open_reply(vfs: &Vfs, passthrough: &Passthrough, ino: Ino, reply: ReplyOpen) {
    let (handle, file) = match vfs.open(ino) {
        Ok(opened) => opened,
        Err(error) => return reply.error(refuse("open", ino, &error)),
    };
    // Nothing is written, so there is nothing to flush when a descriptor is closed.
    let flags = FopenFlags::FOPEN_NOFLUSH;
    match file.caching() {
        Caching::Direct => {
            reply.opened(FileHandle(handle.0), flags | FopenFlags::FOPEN_DIRECT_IO);
        }
        Caching::Keep => match passthrough.open(ino, file.backing(), &reply) {
            Mode::Passthrough(backing) => {
                reply.opened_passthrough(FileHandle(handle.0), flags, &backing);
            }
            Mode::Cached => {
                reply.opened(FileHandle(handle.0), flags | FopenFlags::FOPEN_KEEP_CACHE);
            }
            Mode::Refused => {
                vfs.release(handle);
                reply.error(refuse("open", ino, &Error::held_elsewhere()));
            }
        },
    }
}

impl Filesystem for FuseAdapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            if config.add_capabilities(flag).is_err() {
                log::debug!("the kernel has no {flag:?}");
            }
        }
        let offered = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
        // 1 lets the layout be on a plain file system and overlayfs sit on the mount.
        self.passthrough
            .offer(offered && config.set_max_stack_depth(1).is_ok());
        // Where the kernel offers less, what it offers is taken.
        let (Ok(_) | Err(_)) = config.set_max_write(MAX_WRITE);
        if let Err(most) = config.set_max_readahead(MAX_WRITE) {
            let (Ok(_) | Err(_)) = config.set_max_readahead(most);
        }
        let (Ok(_) | Err(_)) = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = Ino(parent.0);
        guard(|| match self.vfs.lookup(parent, name.as_bytes()) {
            Ok(entry) => reply.entry_with_ttls(
                &entry.attr.lifetime.duration(),
                &entry.name_lifetime.duration(),
                &file_attr(entry.ino, &entry.attr),
                GENERATION,
            ),
            Err(error) => reply.error(refuse("lookup", parent, &error)),
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.vfs.forget(Ino(ino.0), nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let ino = Ino(ino.0);
        // Who wants no size need not wait for it.
        if self.vfs.would_wait(ino) && caller::needs_no_size(req.pid()) {
            return guard(|| attr_reply(ino, self.vfs.attr(ino, Patience::Never), reply));
        }
        self.answer(ino, move |vfs, _| {
            attr_reply(ino, vfs.attr(ino, Patience::Wait), reply);
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let ino = Ino(ino.0);
        guard(|| match self.vfs.read_link(ino) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(refuse("readlink", ino, &error)),
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let ino = Ino(ino.0);
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(refuse("open", ino, &Error::ReadOnly));
        }
        self.answer(ino, move |vfs, passthrough| {
            open_reply(vfs, passthrough, ino, reply);
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
        guard(|| {
            READ_BUF.with_borrow_mut(|buf| {
                buf.resize(usize::try_from(size).unwrap_or(0), 0);
                match self.vfs.read(Handle(fh.0), buf, offset) {
                    Ok(len) => reply.data(&buf[..len]),
                    Err(error) => reply.error(refuse("read", Ino(ino.0), &error)),
                }
            });
        });
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
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
        guard(|| {
            self.vfs.release(Handle(fh.0));
            self.passthrough.release(Ino(ino.0));
            reply.ok();
        });
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let ino = Ino(ino.0);
        guard(|| match self.vfs.open_dir(ino) {
            Ok(handle) => reply.opened(FileHandle(handle.0), FopenFlags::empty()),
            Err(error) => reply.error(refuse("opendir", ino, &error)),
        });
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        guard(|| {
            let children = match self.vfs.children(Handle(fh.0), offset == 0) {
                Ok(children) => children,
                Err(error) => return reply.error(refuse("readdir", Ino(ino.0), &error)),
            };
            let dots = [".", ".."].map(OsStr::new);
            for (next, name) in (1..).zip(dots).skip_while(|(next, _)| *next <= offset) {
                if reply.add(ino, next, fuser::FileType::Directory, name) {
                    return reply.ok();
                }
            }
            for (next, child) in from(offset, &children) {
                let listed = self.vfs.listed(child);
                let (ino, kind) = (INodeNo(listed.ino.0), file_type(listed.kind));
                if reply.add(ino, next, kind, OsStr::from_bytes(&listed.name)) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        guard(|| {
            let ino = Ino(ino.0);
            let listing = self.vfs.children(Handle(fh.0), offset == 0);
            let (children, own) =
                match listing.and_then(|c| Ok((c, self.vfs.attr(ino, Patience::Never)?))) {
                    Ok(listing) => listing,
                    Err(error) => return reply.error(refuse("readdirplus", ino, &error)),
                };
            let (attr, none) = (file_attr(ino, &own), std::time::Duration::ZERO);
            let dots = [".", ".."].map(OsStr::new);
            // The kernel takes no reference for these two.
            for (next, name) in (1..).zip(dots).skip_while(|(next, _)| *next <= offset) {
                if reply.add(INodeNo(ino.0), next, name, &none, &attr, GENERATION) {
                    return reply.ok();
                }
            }
            for (next, child) in from(offset, &children) {
                let Ok(entry) = self.vfs.entry_of(child) else {
                    continue;
                };
                let name = OsStr::from_bytes(&child.name);
                let lifetimes = (
                    entry.attr.lifetime.duration(),
                    entry.name_lifetime.duration(),
                );
                let lifetime = lifetimes.0.min(lifetimes.1);
                let attr = file_attr(entry.ino, &entry.attr);
                if reply.add(
                    INodeNo(entry.ino.0),
                    next,
                    name,
                    &lifetime,
                    &attr,
                    GENERATION,
                ) {
                    // It did not fit, so the kernel does not hold the reference.
                    self.vfs.forget(entry.ino, 1);
                    break;
                }
            }
            reply.ok();
        });
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.vfs.release_dir(Handle(fh.0));
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        guard(|| match self.vfs.space() {
            Ok(space) => convert::statfs(&space, reply),
            Err(error) => reply.error(refuse("statfs", Ino(ino.0), &error)),
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let ino = Ino(ino.0);
        guard(|| match self.vfs.xattr(ino, name.as_bytes()) {
            Ok(value) => convert::xattr(&value, size, reply),
            Err(error) => reply.error(refuse("getxattr", ino, &error)),
        });
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
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
        // Asked only where the kernel does not check by mode itself.
        if mask.contains(AccessFlags::W_OK) {
            return reply.error(refuse("access", Ino(ino.0), &Error::ReadOnly));
        }
        reply.ok();
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

/// The children from a directory offset on, each with the offset that follows it. The
/// first two offsets belong to `.` and `..`.
fn from<T>(offset: u64, children: &[T]) -> impl Iterator<Item = (u64, &T)> {
    let skipped = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
    (3..).zip(children).skip(skipped)
}
