//! Sessions: what `mkdir incoming/JOB` makes.
//!
//! ```text
//!           mkdir            mv out of incoming, or `ocifs commit`
//!   (none) ──────► open ───────────► sealed ──► the layout; gone
//!                   ▲  │                │
//!                   └──┼──── refused ◄──┘
//!                      └── rm -r ──► gone
//!
//!   LAYOUT/.ocifs/sessions/NAME/tree     the files
//!   LAYOUT/.ocifs/published/…            what is being removed
//! ```
//!
//! A session is a private directory with the behaviour of the file system below it, to
//! which every request is handed on ([`names`], [`attributes`]); where the kernel can, it
//! reads and writes the files itself. In it the blobs of the layout are found ([`lender`]),
//! so that tools which look before they copy skip the copy.
//!
//! Sessions survive a restart: their directories are found again when the layout is
//! mounted. Each is locked by the process that shows it, so that two mounts of a layout
//! never show the same.
//!
//! Concurrency: the table of sessions is locked for moments. Each session has a gate, see
//! [`tree`].

mod attempt;
mod attributes;
mod file;
mod handover;
mod hashing;
mod inode;
mod lender;
mod limits;
mod merge;
mod names;
mod node;
mod order;
mod publish;
mod tree;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

pub use self::attempt::Postponed;
use self::hashing::Hasher;
use self::inode::system;
use self::lender::Lender;
pub use self::limits::SessionLimits;
use self::limits::{Meter, Users};
use self::node::SessionNode;
pub(super) use self::order::Order;
use self::tree::{Phase, TREE, Tree};
use super::DropBox;
use super::place::{Place, Shelf};
use super::refusal::Refusal;
use crate::oci::RefName;
use crate::oci::media_type::LayerCompression;
use crate::store::layout::Committer;
use crate::store::layout::refs::Collision;
use crate::store::{Layout, LayoutWriter, Verdicts};
use crate::vfs::error::Error;
use crate::vfs::node::{Child, Name, Node};
use crate::vfs::views::names as ref_names;
use crate::vfs::writable::{Caller, NewNode, RefLevel, RenameMode};

/// Where sessions are, in the layout.
const SESSIONS: &str = ".ocifs/sessions";

/// Where their directories go when they are over, until they are removed.
const OVER: &str = ".ocifs/published";

/// How long a mount that begins waits for sessions that another one shows: one that was just
/// taken down may not have ended yet.
const LATE_END: Duration = Duration::from_secs(1);

/// How soon it is looked again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How many sessions there may be at a time. Each keeps some descriptors.
pub const MAX_SESSIONS: usize = 256;

/// How sessions are published.
#[derive(Debug, Clone, Copy)]
pub struct SessionsOptions {
    /// What becomes of refs that are there.
    pub collision: Collision,
    /// How the layer of a tree is stored, unless the order to publish it says otherwise.
    pub compression: LayerCompression,
    /// What they may take.
    pub limits: SessionLimits,
}

/// The sessions of one layout.
#[derive(Debug)]
pub struct Sessions {
    layout: Arc<Layout>,
    committer: Arc<Committer>,
    verdicts: Arc<Verdicts>,
    options: SessionsOptions,
    hasher: Arc<Hasher>,
    users: Arc<Users>,
    trees: Mutex<BTreeMap<Name, Arc<Tree>>>,
    /// The drop box that they are in, which tells why one was refused.
    dropbox: OnceLock<Weak<DropBox>>,
    /// Those who are renaming a session that is not prepared yet.
    postponed: Arc<Postponed>,
    /// Itself, for its nodes.
    this: Weak<Self>,
    /// Numbers the directories that are being removed.
    over: AtomicU64,
}

impl Drop for Sessions {
    fn drop(&mut self) {
        for tree in self.trees.get_mut().values() {
            tree.clear_suspects();
        }
    }
}

impl Sessions {
    /// The sessions that there are in `layout`, as far as nobody else shows them.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(
        layout: Arc<Layout>,
        committer: Arc<Committer>,
        verdicts: Arc<Verdicts>,
        options: SessionsOptions,
    ) -> Result<Arc<Self>, Error> {
        let sessions = Arc::new_cyclic(|this| Self {
            hasher: Hasher::new(verdicts.clone()),
            verdicts,
            options,
            layout,
            committer,
            users: Arc::default(),
            trees: Mutex::default(),
            dropbox: OnceLock::new(),
            postponed: Arc::default(),
            this: this.clone(),
            over: AtomicU64::new(0),
        });
        sessions.find_all()?;
        Ok(sessions)
    }

    /// Puts them into a drop box. Only the first one counts.
    pub(super) fn belong_to(&self, dropbox: &Arc<DropBox>) {
        let (Ok(()) | Err(_)) = self.dropbox.set(Arc::downgrade(dropbox));
    }

    fn dropbox(&self) -> Option<Arc<DropBox>> {
        self.dropbox.get()?.upgrade()
    }

    fn writer(&self) -> &LayoutWriter {
        self.committer.writer()
    }

    /// Who is to wait before a rename is tried again.
    #[must_use]
    pub fn postponed(&self) -> &Arc<Postponed> {
        &self.postponed
    }

    /// The session of this name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Arc<dyn Node>> {
        let tree = self.tree(name)?;
        Some(SessionNode::shared(tree.root()))
    }

    /// All sessions.
    #[must_use]
    pub fn list(&self) -> Vec<Child> {
        let trees = self.trees.lock();
        let children = trees.iter().map(|(name, tree)| Child {
            name: name.clone(),
            node: SessionNode::shared(tree.root()),
        });
        children.collect()
    }

    /// Makes a session for who asks.
    ///
    /// # Errors
    /// [`Error::Exists`], also if another process shows a session of this name;
    /// [`Error::Limit`] if who asks has too many; `EMFILE` if there are [`MAX_SESSIONS`];
    /// what the system says.
    pub fn make(&self, caller: &Caller, name: &[u8], mode: u16) -> Result<Arc<dyn Node>, Error> {
        if let Err(error) = self.users.check(caller.uid, &self.options.limits) {
            self.refuse(name, (caller.uid, caller.gid), &error);
            return Err(error);
        }
        let mut trees = self.trees.lock();
        if trees.contains_key(name) {
            return Err(Error::Exists);
        }
        if trees.len() >= MAX_SESSIONS {
            return Err(Error::System(libc::EMFILE));
        }
        let sessions = self.directory(SESSIONS)?;
        let (place, lock) = make_place(&sessions, name)?;
        let made = self.begin(place, caller, mode);
        let tree = made.inspect_err(|_| {
            // Whatever is in the way of that was in the way of the session too.
            self.clear_away(name);
        })?;
        drop(lock);
        let root = tree.root();
        trees.insert(name.to_vec(), tree);
        drop(trees);
        self.dismiss(name);
        Ok(SessionNode::shared(root))
    }

    fn begin(&self, place: OwnedFd, caller: &Caller, mode: u16) -> Result<Arc<Tree>, Error> {
        let new = NewNode::Directory(mode);
        names::make_in(&place, caller, TREE.as_bytes(), new)?;
        self.open_tree(place)
    }

    fn open_tree(&self, place: OwnedFd) -> Result<Arc<Tree>, Error> {
        let lender = Lender::open(self.layout.clone(), &place)?;
        let (hasher, this) = (self.hasher.clone(), self.this.clone());
        let meter = |user| Meter::new(user, &self.users, self.options.limits);
        Tree::open(place, lender, hasher, this, meter)
    }

    /// Removes an empty session.
    ///
    /// # Errors
    /// [`Error::NotFound`]; `ENOTEMPTY`; [`Error::Busy`] while it is being published.
    pub fn remove(&self, name: &[u8]) -> Result<(), Error> {
        // In this order: the gate may be closed for as long as a large blob is copied.
        let tree = self.tree(name).ok_or(Error::NotFound)?;
        let mut gate = tree.rearrange()?;
        let mut trees = self.trees.lock();
        check_named(&trees, name, &tree)?;
        rustix::fs::unlinkat(tree.place(), TREE, AtFlags::REMOVEDIR).map_err(system)?;
        *gate = Phase::Gone;
        tree.meter().end();
        drop(gate);
        trees.remove(name);
        drop(trees);
        self.dismiss(name);
        self.clear_away(name);
        Ok(())
    }

    /// Gives a session another name.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Exists`] if there is another one of that name, as
    /// nothing is lost by a rename here; [`Error::Invalid`] for an exchange.
    pub fn rename(&self, name: &[u8], new_name: &[u8], how: RenameMode) -> Result<(), Error> {
        if !matches!(how, RenameMode::Replace | RenameMode::NoReplace) {
            return Err(Error::Invalid);
        }
        let tree = self.tree(name).ok_or(Error::NotFound)?;
        // It is not published meanwhile.
        let gate = tree.change()?;
        let mut trees = self.trees.lock();
        check_named(&trees, name, &tree)?;
        let sessions = self.directory(SESSIONS)?;
        let flags = RenameFlags::NOREPLACE;
        let renamed = rustix::fs::renameat_with(&sessions, name, &sessions, new_name, flags);
        renamed.map_err(|errno| match errno {
            Errno::EXIST => Error::Exists,
            errno => system(errno),
        })?;
        trees.remove(name);
        trees.insert(new_name.to_vec(), tree.clone());
        drop(trees);
        drop(gate);
        self.dismiss(name);
        self.dismiss(new_name);
        Ok(())
    }

    /// Publishes a session as `new_name` at a level of ref names.
    ///
    /// # Errors
    /// Why it is refused; `NAME.error` beside the session says it in words.
    pub fn publish(
        &self,
        caller: &Caller,
        name: &[u8],
        to: RefLevel<'_>,
        new_name: &[u8],
        how: RenameMode,
    ) -> Result<(), Error> {
        if !matches!(how, RenameMode::Replace | RenameMode::NoReplace) {
            return Err(Error::Invalid);
        }
        let tree = self.tree(name).ok_or(Error::NotFound)?;
        self.conclude(&tree, || {
            let ref_name = destination(to, new_name)?;
            let this = self.this.upgrade().ok_or(Error::ShutDown)?;
            let ready = this.prepare_for(caller.pid, &tree, &ref_name)?;
            self.bring_in(ready)
        })
    }

    /// Publishes a session under the ref name `text`, or if that is empty its own name.
    /// Called where nobody waits for anything else than what is published.
    ///
    /// # Errors
    /// As [`Sessions::publish`].
    fn commit_tree(&self, tree: &Arc<Tree>, text: &[u8], order: Order) -> Result<(), Error> {
        let name = self.name_of(tree).ok_or(Error::Stale)?;
        self.conclude(tree, || {
            let ref_name = match text {
                b"" => ref_names::raw(&[name]),
                text => String::from_utf8(text.to_vec()).ok(),
            };
            let ref_name = ref_name.and_then(|text| text.parse().ok());
            let compression = order.compression.unwrap_or(self.options.compression);
            let ready = self.prepare(tree, &ref_name.ok_or(Error::Invalid)?, compression)?;
            self.bring_in(ready)
        })
    }

    /// Publishes, and then takes the session out of the way or notes why it was refused.
    fn conclude(
        &self,
        tree: &Arc<Tree>,
        publish: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let dropbox = self.dropbox().ok_or(Error::ShutDown)?;
        let _commit = dropbox.running.begin().ok_or(Error::ReadOnly)?;
        let published = publish();
        // It may have been renamed meanwhile.
        let name = self.name_of(tree).unwrap_or_default();
        let place = Place::new(&Shelf::Refs, &name);
        match published {
            Ok(()) => {
                log::info!("{} is published", place.shown());
                self.trees.lock().remove(&name);
                dropbox.dismiss(&place);
                self.clear_away(&name);
                Ok(())
            }
            // Not refused: it is tried again.
            Err(Error::Stale) => Err(Error::Stale),
            Err(error) => {
                dropbox.refuse(&place, tree.owner()?, &Refusal::from(error.clone()));
                Err(error)
            }
        }
    }

    /// Says beside a session why something in it was refused.
    fn tell(&self, tree: &Arc<Tree>, error: &Error) {
        if let (Some(name), Ok(owner)) = (self.name_of(tree), tree.owner()) {
            self.refuse(&name, owner, error);
        }
    }

    fn refuse(&self, name: &[u8], owner: (u32, u32), error: &Error) {
        if let Some(dropbox) = self.dropbox() {
            let place = Place::new(&Shelf::Refs, name);
            dropbox.refuse(&place, owner, &Refusal::from(error.clone()));
        }
    }

    /// Removes the sessions with which nobody went on.
    pub(super) fn expire(&self, now: Instant) {
        let limits = &self.options.limits;
        let trees: Vec<Arc<Tree>> = self.trees.lock().values().cloned().collect();
        for tree in trees {
            let idle = now.saturating_duration_since(tree.used());
            if idle <= limits.session_time || !tree.give_up() {
                continue;
            }
            self.tell(&tree, &limits::too_late(limits));
            if let Some(name) = self.name_of(&tree) {
                self.trees.lock().remove(&name);
                self.clear_away(&name);
            }
        }
    }

    fn dismiss(&self, name: &[u8]) {
        if let Some(dropbox) = self.dropbox() {
            dropbox.dismiss(&Place::new(&Shelf::Refs, name));
        }
    }

    fn name_of(&self, tree: &Arc<Tree>) -> Option<Name> {
        let trees = self.trees.lock();
        let mut entries = trees.iter();
        entries
            .find(|(_, known)| Arc::ptr_eq(known, tree))
            .map(|(name, _)| name.clone())
    }

    /// Why the session was not published when that was tried last.
    fn refusal_of(&self, tree: &Arc<Tree>) -> Option<Vec<u8>> {
        let place = Place::new(&Shelf::Refs, &self.name_of(tree)?);
        let (_, file) = self.dropbox()?.table.find_refusal(&place)?;
        Some(super::shown::fault(file.fault()))
    }

    /// The names of the sessions.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        self.trees.lock().keys().cloned().collect()
    }

    fn tree(&self, name: &[u8]) -> Option<Arc<Tree>> {
        self.trees.lock().get(name).cloned()
    }

    /// Finds the sessions of an earlier run, and removes what is left of those that are
    /// over.
    fn find_all(&self) -> Result<(), Error> {
        if let Some(over) = self.find_directory(OVER)? {
            remove_in_background(over);
        }
        let Some(sessions) = self.find_directory(SESSIONS)? else {
            return Ok(());
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&sessions).map_err(system)? {
            let entry = entry.map_err(system)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        let until = Instant::now() + LATE_END;
        loop {
            names.retain(|name| match self.find_one(&sessions, name) {
                Ok(Found::Elsewhere) => true,
                Ok(Found::Nothing) => false,
                Ok(Found::Tree(tree)) => {
                    self.trees.lock().insert(name.clone(), tree);
                    false
                }
                Err(error) => {
                    let name = String::from_utf8_lossy(name);
                    log::warn!("session {name:?} is not shown: {error}");
                    false
                }
            });
            if names.is_empty() || Instant::now() >= until {
                break;
            }
            thread::sleep(LOOK_AGAIN);
        }
        for name in names {
            let name = String::from_utf8_lossy(&name);
            log::info!("session {name:?} is shown by another mount");
        }
        Ok(())
    }

    fn find_one(&self, sessions: &OwnedFd, name: &[u8]) -> Result<Found, Error> {
        let place = match lock_place(sessions, name)? {
            Locked::Place(place) => place,
            Locked::Gone => return Ok(Found::Nothing),
            Locked::Elsewhere => return Ok(Found::Elsewhere),
        };
        handover::recover(&place, &self.layout)?;
        // Kept until nobody can find it any more.
        let lock = place.try_clone()?;
        let found = match self.open_tree(place) {
            Ok(tree) => Ok(Found::Tree(tree)),
            // Its maker was killed before there was anything in it.
            Err(Error::System(libc::ENOENT)) => {
                self.clear_away(name);
                Ok(Found::Nothing)
            }
            Err(error) => Err(error),
        };
        drop(lock);
        found
    }

    /// Takes the directory of a session that is over out of the way, and removes it.
    fn clear_away(&self, name: &[u8]) {
        let moved = self.directory(SESSIONS).and_then(|sessions| {
            let over = self.directory(OVER)?;
            loop {
                let number = self.over.fetch_add(1, Ordering::Relaxed);
                let target = format!("{}-{number}", std::process::id());
                let flags = RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(&sessions, name, &over, target, flags) {
                    Ok(()) => break Ok(over),
                    // Another one's that has the same number, in another container.
                    Err(Errno::EXIST) => {}
                    Err(errno) => break Err(system(errno)),
                }
            }
        });
        match moved {
            Ok(over) => remove_in_background(over),
            Err(error) => {
                let name = String::from_utf8_lossy(name);
                log::warn!("what is left of session {name:?} cannot be removed: {error}");
            }
        }
    }

    /// A directory below the layout's, made for this process alone where it is missing.
    fn directory(&self, path: &str) -> Result<OwnedFd, Error> {
        let (above, name) = path.split_once('/').unwrap_or((".", path));
        let layout = self.layout.dir();
        make_directory(layout, above, Mode::from_raw_mode(0o755))?;
        let above = open_directory(layout, above.as_bytes())?;
        make_directory(&above, name, Mode::RWXU)?;
        open_directory(&above, name.as_bytes())
    }

    fn find_directory(&self, path: &str) -> Result<Option<OwnedFd>, Error> {
        let (above, name) = path.split_once('/').unwrap_or((".", path));
        let opened = open_directory(self.layout.dir(), above.as_bytes())
            .and_then(|above| open_directory(&above, name.as_bytes()));
        match opened {
            Ok(fd) => Ok(Some(fd)),
            Err(Error::System(libc::ENOENT)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What is found under the name of a session.
enum Found {
    Tree(Arc<Tree>),
    /// It is over.
    Nothing,
    /// Another mount shows it.
    Elsewhere,
}

/// That `tree` has still this name.
fn check_named(
    trees: &BTreeMap<Name, Arc<Tree>>,
    name: &[u8],
    tree: &Arc<Tree>,
) -> Result<(), Error> {
    match trees.get(name) {
        Some(named) if Arc::ptr_eq(named, tree) => Ok(()),
        _ => Err(Error::NotFound),
    }
}

/// Makes the directory of a session, locked; once more open, so that the lock outlives what
/// is done with the first.
fn make_place(sessions: &OwnedFd, name: &[u8]) -> Result<(OwnedFd, OwnedFd), Error> {
    make_directory_of(sessions, name)?;
    let locked = lock_made(sessions, name).and_then(|place| {
        let lock = place.try_clone()?;
        Ok((place, lock))
    });
    match &locked {
        // Whose the name is now does with it as is right.
        Ok(_) | Err(Error::Exists | Error::Busy) => {}
        Err(_) => {
            let (Ok(()) | Err(_)) = rustix::fs::unlinkat(sessions, name, AtFlags::REMOVEDIR);
        }
    }
    locked
}

fn make_directory_of(sessions: &OwnedFd, name: &[u8]) -> Result<(), Error> {
    rustix::fs::mkdirat(sessions, name, Mode::RWXU).map_err(|errno| match errno {
        Errno::EXIST => Error::Exists,
        errno => system(errno),
    })
}

/// Locks a directory that was just made.
fn lock_made(sessions: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Error> {
    let until = Instant::now() + LATE_END;
    while Instant::now() < until {
        match lock_place(sessions, name)? {
            Locked::Place(place) => return Ok(place),
            // A mount that began before it was locked took it for what a maker left that was
            // killed, and removed it.
            Locked::Gone => make_directory_of(sessions, name)?,
            Locked::Elsewhere => thread::sleep(LOOK_AGAIN),
        }
    }
    Err(Error::Busy)
}

/// What comes of locking the directory of a session.
enum Locked {
    Place(OwnedFd),
    /// It is not there, or not any more.
    Gone,
    /// Another process has locked it.
    Elsewhere,
}

fn lock_place(sessions: &OwnedFd, name: &[u8]) -> Result<Locked, Error> {
    let place = match open_directory(sessions, name) {
        Ok(place) => place,
        Err(Error::System(libc::ENOENT)) => return Ok(Locked::Gone),
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&place, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(Locked::Elsewhere),
        Err(errno) => return Err(system(errno)),
    }
    // Who had the lock may have renamed, published or removed it.
    Ok(match is_named(sessions, name, &place)? {
        true => Locked::Place(place),
        false => Locked::Gone,
    })
}

/// Whether the open directory `place` is the one of that name.
fn is_named(sessions: &OwnedFd, name: &[u8], place: &OwnedFd) -> Result<bool, Error> {
    let opened = rustix::fs::fstat(place).map_err(system)?;
    match rustix::fs::statat(sessions, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => Ok((named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(system(errno)),
    }
}

/// The ref name that stands for a name at a level.
fn destination(level: RefLevel<'_>, name: &[u8]) -> Result<RefName, Error> {
    if level.is_image {
        let path = level.path.join(&b'/');
        let shown = String::from_utf8_lossy(&path);
        log::warn!("{shown:?} is a ref, not a directory of refs: `mv -T` replaces it");
        return Err(Error::Exists);
    }
    let path: Vec<Name> = level.path.iter().cloned().chain([name.to_vec()]).collect();
    let name = ref_names::raw(&path).ok_or(Error::Invalid)?;
    name.parse().map_err(|_| Error::Invalid)
}

fn make_directory(above: impl std::os::fd::AsFd, name: &str, mode: Mode) -> Result<(), Error> {
    match rustix::fs::mkdirat(above, name, mode) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(system(errno)),
    }
}

fn open_directory(above: impl std::os::fd::AsFd, name: &[u8]) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(above, name, flags, Mode::empty()).map_err(system)
}

/// Removes everything in a directory, while others go on.
fn remove_in_background(directory: OwnedFd) {
    let work = move || {
        let path = inode::proc_path(&directory);
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        for entry in entries {
            if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                log::debug!("{} stays: {error}", entry.path().display());
            }
        }
    };
    let spawned = thread::Builder::new().name("remove".into()).spawn(work);
    if let Err(error) = spawned {
        log::debug!("what is left of a session stays: {error}");
    }
}
