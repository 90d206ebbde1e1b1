//! The drop box, `incoming/`: what is written here becomes blobs and index entries.
//!
//! ```text
//! incoming/
//! ├── NAME            a drop while it is written, its receipt afterwards
//! ├── NAME.error      why NAME was refused, until NAME is begun anew or this is removed
//! ├── .NAME, NAME~    held back until it is renamed
//! ├── JOB/            a session
//! └── blobs/          the same for blobs without an entry
//! ```
//!
//! The directories of artifact types in `referrers/` of an image take in drops as well
//! ([`DropBox::attachments`]), which become artifacts about the image. There a receipt is found
//! under its name and not listed, and goes after a minute: what is listed is what the layout
//! has.
//!
//! Each drop follows its own [`course`]; which close commits it is decided there, and what
//! it becomes by [`crate::ingest`]. The views know nothing of all this: the box is placed
//! in their root, and what it commits they see in the index.
//!
//! Concurrency: the table of names and the state of a drop are never locked at once. A
//! commit holds neither.

mod closer;
mod commits;
mod course;
mod drop;
mod limits;
mod nodes;
mod place;
mod refusal;
mod running;
pub mod session;
mod shown;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use commits::Commits;
pub use limits::Limits;

use self::drop::Drop;
use self::limits::Accounts;
use self::nodes::{DropNode, ShelfNode};
use self::place::{About, BLOBS, Place, Shelf};
use self::refusal::{ErrorFile, Refusal};
use self::running::Running;
use self::session::Sessions;
use self::table::Table;
use super::error::Error;
use super::node::{Child, Node};
use super::writable::{Caller, Created, OpenMode, RenameMode, Writable};
use crate::oci::{Descriptor, MediaType};

/// How the drop box behaves.
#[derive(Debug, Clone)]
pub struct DropBoxOptions {
    /// Owner and group of the directories.
    pub owner: (u32, u32),
    /// Permission bits of the directories.
    pub mode: u16,
    /// What may be dropped.
    pub limits: Limits,
}

/// See the module.
#[derive(Debug)]
pub struct DropBox {
    commits: Commits,
    sessions: Option<Arc<Sessions>>,
    options: DropBoxOptions,
    table: Table,
    accounts: Accounts,
    running: Running,
    next: AtomicU64,
}

impl DropBox {
    /// An empty drop box.
    #[must_use]
    pub fn new(
        commits: Commits,
        sessions: Option<Arc<Sessions>>,
        options: DropBoxOptions,
    ) -> Arc<Self> {
        let dropbox = Arc::new(Self {
            commits,
            sessions,
            options,
            table: Table::default(),
            accounts: Accounts::default(),
            running: Running::default(),
            next: AtomicU64::new(1),
        });
        if let Some(sessions) = &dropbox.sessions {
            sessions.belong_to(&dropbox);
        }
        dropbox
    }

    /// The directory `incoming/`.
    #[must_use]
    pub fn node(self: &Arc<Self>) -> Arc<dyn Node> {
        Arc::new(ShelfNode::new(self, Shelf::Refs))
    }

    /// What takes in artifacts of this type about `subject`.
    #[must_use]
    pub fn attachments(
        self: &Arc<Self>,
        subject: &Descriptor,
        artifact_type: &MediaType,
    ) -> Arc<dyn Writable> {
        let about = Arc::new(About::new(subject, artifact_type));
        Arc::new(ShelfNode::new(self, Shelf::Referrers(about)))
    }

    /// Takes nothing in any more, and waits for the commits that are under way; how many
    /// still are when the time is up.
    pub fn close(&self, patience: Duration) -> usize {
        self.running.close(patience)
    }

    /// Forgets the drops and the sessions with which nobody went on for too long.
    pub fn expire(&self, now: Instant) {
        for drop in self.table.drops() {
            if drop.expire(now) {
                log::warn!("{}: nobody went on with it", drop.place().shown());
            }
            drop.expire_receipt(now);
        }
        if let Some(sessions) = &self.sessions {
            sessions.expire(now);
        }
    }

    /// What `status.json` says: the drops that are under way, and what was refused.
    #[must_use]
    pub fn status(&self) -> Value {
        let under_way = self.table.drops().into_iter().map(|drop| drop.summary());
        let drops: Vec<Value> = under_way
            .filter(|drop| drop.is_under_way)
            .map(|drop| json!({"path": drop.place.shown(), "stage": drop.stage, "size": drop.size}))
            .collect();
        let refusals: Vec<Value> = self
            .table
            .refusals()
            .into_iter()
            .map(|(place, file)| {
                let fault = file.fault();
                let when = shown::seconds(file.when());
                json!({"path": place.shown(), "code": fault.code, "text": fault.text, "when": when})
            })
            .collect();
        let sessions: Vec<Value> = self
            .sessions
            .iter()
            .flat_map(|sessions| sessions.names())
            .map(|name| json!({"path": Place::new(&Shelf::Refs, &name).shown()}))
            .collect();
        json!({"under_way": drops, "refused": refusals, "sessions": sessions})
    }

    fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Refuses what would be written when the mount is being taken down.
    fn check_open(&self) -> Result<(), Error> {
        match self.running.is_closed() {
            true => Err(Error::ReadOnly),
            false => Ok(()),
        }
    }

    /// Lets a user have one more drop open, under this many new names.
    fn admit(&self, user: u32, names: usize) -> Result<(), Error> {
        self.accounts.open(user, names, &self.options.limits)
    }

    /// Begins a drop, or a new one under a name that has a receipt.
    fn create(
        self: &Arc<Self>,
        caller: &Caller,
        place: Place,
        how: OpenMode,
    ) -> Result<Created, Error> {
        self.check_open()?;
        place.wanted()?;
        if self.find_directory(&place).is_some() {
            return Err(match how.exclusive {
                true => Error::Exists,
                false => Error::IsDirectory,
            });
        }
        if let Some(present) = self.table.find(&place) {
            if present.is_visible() {
                if how.exclusive {
                    return Err(Error::Exists);
                }
                present.open_to_write(how.truncate)?;
                return Ok(self.created(present, how));
            }
            present.give_way()?;
        }
        let owner = (caller.uid, caller.gid);
        let begun = self.admit(owner.0, 1).and_then(|()| {
            Drop::begin(self, place.clone(), owner).inspect_err(|_| {
                self.accounts.close(owner.0);
                self.accounts.forget(owner.0);
            })
        });
        let begun = begun.inspect_err(|error| {
            self.refuse(&place, owner, &Refusal::from(error.clone()));
        })?;
        self.dismiss(&place);
        self.table.insert(place, begun.clone());
        Ok(self.created(begun, how))
    }

    fn created(&self, drop: Arc<Drop>, how: OpenMode) -> Created {
        Created {
            file: nodes::written(&drop, how),
            node: Arc::new(DropNode::new(drop)),
        }
    }

    /// What has a name; `None` also for what was refused.
    fn find(self: &Arc<Self>, place: &Place) -> Option<Arc<dyn Node>> {
        if let Some(directory) = self.find_directory(place) {
            return Some(directory);
        }
        match self.table.find(place) {
            Some(drop) if drop.is_visible() => Some(Arc::new(DropNode::new(drop))),
            _ => {
                let file: Arc<dyn Node> = self.find_refusal(place)?.1;
                Some(file)
            }
        }
    }

    /// The refusal that the file at `place` tells.
    fn find_refusal(&self, place: &Place) -> Option<(Place, Arc<ErrorFile>)> {
        let subject = Place::new(&place.shelf, refusal::subject(&place.name)?);
        self.table.find_refusal(&subject)
    }

    fn find_directory(self: &Arc<Self>, place: &Place) -> Option<Arc<dyn Node>> {
        match place.shelf {
            Shelf::Refs if place.name == BLOBS => {
                Some(Arc::new(ShelfNode::new(self, Shelf::Blobs)))
            }
            Shelf::Refs => self.sessions.as_ref()?.find(&place.name),
            Shelf::Blobs | Shelf::Referrers(_) => None,
        }
    }

    fn list(self: &Arc<Self>, shelf: &Shelf) -> Vec<Child> {
        let mut children = Vec::new();
        if *shelf == Shelf::Refs {
            children.push(Child {
                name: BLOBS.to_vec(),
                node: Arc::new(ShelfNode::new(self, Shelf::Blobs)),
            });
            children.extend(self.sessions.iter().flat_map(|sessions| sessions.list()));
        }
        let drops = self.table.drops().into_iter();
        let is_listed = |drop: &Arc<Drop>| drop.is_visible() && !drop.is_shown_elsewhere();
        children.extend(drops.filter(is_listed).filter_map(|drop| {
            let place = drop.place();
            (place.shelf == *shelf).then(|| Child {
                name: place.name,
                node: Arc::new(DropNode::new(drop)),
            })
        }));
        for (place, file) in self.table.refusals() {
            let name = refusal::file_name(&place.name);
            if place.shelf == *shelf && children.iter().all(|child| child.name != name) {
                children.push(Child { name, node: file });
            }
        }
        children
    }

    /// Removes a receipt, a refusal, or a drop that is not committed.
    fn remove(self: &Arc<Self>, place: &Place) -> Result<(), Error> {
        if self.find_directory(place).is_some() {
            return Err(Error::IsDirectory);
        }
        match self.table.find(place) {
            Some(drop) if drop.is_visible() => {
                drop.remove()?;
                self.take_out(place, &drop);
                Ok(())
            }
            _ => {
                let (subject, _) = self.find_refusal(place).ok_or(Error::NotFound)?;
                self.dismiss(&subject);
                Ok(())
            }
        }
    }

    /// Gives a drop or a receipt another name.
    fn rename(self: &Arc<Self>, from: &Place, to: &Place, how: RenameMode) -> Result<(), Error> {
        let found = self.table.find(from).filter(|drop| drop.is_visible());
        let Some(drop) = found else {
            return Err(match self.find(from) {
                Some(_) => Error::NotPermitted,
                None => Error::NotFound,
            });
        };
        if !matches!(how, RenameMode::Replace | RenameMode::NoReplace) {
            return Err(Error::Invalid);
        }
        if from == to {
            return Ok(());
        }
        let in_the_way = match self.table.find(to) {
            Some(other) if other.is_visible() && how == RenameMode::NoReplace => {
                return Err(Error::Exists);
            }
            Some(other) if other.is_visible() => {
                other.check_closed()?;
                Some(other)
            }
            other => other,
        };
        if self.find_directory(to).is_some() {
            return Err(Error::IsDirectory);
        }
        self.dismiss(to);
        drop.rename(to.clone())?;
        if let Some(other) = in_the_way {
            // It may have lost its name meanwhile.
            let (Ok(()) | Err(_)) = other.remove();
        }
        self.table.rename(from, to.clone(), &drop);
        // It may have come to nothing meanwhile.
        if !drop.is_visible() {
            self.take_out(to, &drop);
        }
        Ok(())
    }

    /// Takes a drop out of the table, if the name is still its own.
    fn take_out(&self, place: &Place, drop: &Arc<Drop>) {
        self.table.take_out(place, drop);
    }

    /// Keeps in mind why a drop was refused.
    fn refuse(&self, place: &Place, owner: (u32, u32), refusal: &Refusal) {
        let fault = refusal.fault();
        log::warn!("{}: {}: {}", place.shown(), fault.code, fault.text);
        let file = ErrorFile::new(self.next_number(), &place.name, owner, refusal);
        self.table.refuse(place.clone(), Arc::new(file));
    }

    /// Forgets why a drop was refused.
    fn dismiss(&self, place: &Place) {
        self.table.dismiss(place);
    }
}
