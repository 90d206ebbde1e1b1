//! Speaks FUSE for a [`Vfs`]: translates requests and replies, and decides nothing else.
//!
//! The one room that imports `fuser`. What is learned from the kernel's behaviour:
//!
//! - A request that may wait for a first pass goes to another thread ([`waiting`]), so
//!   that those that take requests from the kernel are never all asleep.
//! - readdirplus cannot decline an entry and is asked in the first chunk of every `ls`,
//!   so it never waits.
//! - ENOSYS would be remembered by the kernel for the whole mount and is never answered.
//! - A handler that panics must not end the mount: the panic is caught, and the reply
//!   that is dropped by it answers EIO.

mod caller;
mod convert;
mod passthrough;
mod replies;
mod session;
mod waiting;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fuser::{
    AccessFlags, FileHandle, Filesystem, INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

pub use session::{Mount, MountError, MountOptions, Notifier, Unmount, is_stale, unmount};

use self::passthrough::Passthrough;
use self::replies::refuse;
use self::waiting::Waiting;
use crate::vfs::{Error, Handle, Ino, Patience, Vfs};

/// The largest write that is taken in one request, in bytes. `fuser` keeps a buffer of
/// this size for each thread; the kernel sends no more than this at once anyway.
const MAX_WRITE: u32 = 1 << 20;

/// How many read-ahead requests the kernel may have under way.
const MAX_BACKGROUND: u16 = 64;

/// What the kernel is asked for where it can: names with their attributes in one request,
/// always, as what is asked for them next is cheap here and a request is not; the others
/// each save requests that would always be answered alike.
const WANTED: [InitFlags; 6] = [
    InitFlags::FUSE_DO_READDIRPLUS,
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

/// Who may read what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permissions {
    /// Whoever may use the mount may read everything in it.
    OfTheMount,
    /// What modes and access control lists say; the kernel looks at them.
    OfTheFiles,
}

/// A [`Vfs`] as `fuser` wants it.
#[derive(Debug)]
pub(crate) struct FuseAdapter {
    vfs: Arc<Vfs>,
    passthrough: Arc<Passthrough>,
    waiting: Arc<Waiting>,
    permissions: Permissions,
}

impl FuseAdapter {
    fn new(vfs: Arc<Vfs>, permissions: Permissions) -> Self {
        Self {
            vfs,
            permissions,
            passthrough: Arc::default(),
            waiting: Arc::default(),
        }
    }

    /// Runs `answer`, which asks for attributes or content of `ino`, where it may wait.
    fn answer(&self, ino: Ino, answer: impl FnOnce(&Vfs, &Passthrough) + Send + 'static) {
        if self.holds(|vfs| vfs.would_wait(ino)) {
            return self.wait(ino, answer);
        }
        guard(|| answer(&self.vfs, &self.passthrough));
    }

    /// Whether that is so. If the question panics, the answer is left to find out.
    fn holds(&self, question: impl FnOnce(&Vfs) -> bool) -> bool {
        catch_unwind(AssertUnwindSafe(|| question(&self.vfs))).unwrap_or(false)
    }

    /// Runs `answer`, which waits for `ino`, on another thread.
    fn wait(&self, ino: Ino, answer: impl FnOnce(&Vfs, &Passthrough) + Send + 'static) {
        let (vfs, passthrough) = (self.vfs.clone(), self.passthrough.clone());
        self.waiting.add(ino, move || answer(&vfs, &passthrough));
    }
}

/// Keeps a panic of one request from ending the mount.
fn guard(answer: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(answer)).is_err() {
        log::error!("a request failed by a mistake in the program; it was answered with EIO");
    }
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
        // Where the kernel offers less, what it offers is taken.
        let (Ok(_) | Err(_)) = config.set_max_write(MAX_WRITE);
        if let Err(most) = config.set_max_readahead(MAX_WRITE) {
            let (Ok(_) | Err(_)) = config.set_max_readahead(most);
        }
        let (Ok(_) | Err(_)) = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (parent, name) = (Ino(parent.0), name.as_bytes());
        if self.holds(|vfs| vfs.would_wait_inside(parent)) {
            let name = name.to_vec();
            return self.wait(parent, move |vfs, _| {
                replies::lookup(vfs, parent, &name, reply);
            });
        }
        guard(|| replies::lookup(&self.vfs, parent, name, reply));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.vfs.forget(Ino(ino.0), nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let ino = Ino(ino.0);
        // Who wants no size need not wait for it.
        if self.holds(|vfs| vfs.would_wait(ino)) && caller::needs_no_size(req.pid()) {
            return guard(|| replies::attr(ino, self.vfs.attr(ino, Patience::Never), reply));
        }
        self.answer(ino, move |vfs, _| {
            replies::attr(ino, vfs.attr(ino, Patience::Wait), reply);
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
            replies::open(vfs, passthrough, ino, reply);
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
        let (ino, handle) = (Ino(ino.0), Handle(fh.0));
        guard(|| replies::read_dir(&self.vfs, ino, handle, offset, reply));
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (ino, handle) = (Ino(ino.0), Handle(fh.0));
        guard(|| replies::read_dir_plus(&self.vfs, ino, handle, offset, reply));
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
        let ino = Ino(ino.0);
        guard(|| {
            let allowed = if mask.contains(AccessFlags::W_OK) {
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
