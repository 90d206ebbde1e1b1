//! Changing ref names through the tree.
//!
//! | request at a level of ref names | commit |
//! |---|---|
//! | symlink to an image directory | one more name for that image |
//! | rename | the ref, or the entries that share it, get another name |
//! | rmdir | they are removed |
//! | setxattr, removexattr of `user.oci.annotation.KEY` | an annotation of theirs |
//! | mkdir | none: the level is remembered until a ref name goes through it |
//!
//! What replaces or removes a ref needs leave ([`Collision::Replace`]). Nothing is made in a
//! directory that is itself a ref: a program that asks for that has usually meant to
//! replace it.
//!
//! Concurrency: each request is a commit of its own ([`Committer`]), checked again under
//! the locks; no lock is held meanwhile. Whoever calls these holds directories locked in the
//! kernel, so nothing here waits for anybody who may want these.

mod place;

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use self::place::{Ref, Standing};
use super::Vfs;
use super::error::Error;
use super::node::{Name, Node};
use super::views::{Views, names};
use super::writable::{RefLevel, RenameMode, XattrMode};
use crate::oci::{RefName, annotations};
use crate::store::layout::Committer;
use crate::store::layout::index::draft::Draft;
use crate::store::layout::refs::{self, Collision};

/// What annotations are called as extended attributes.
const ANNOTATION: &[u8] = b"user.oci.annotation.";

/// Annotations that are names: another request changes them.
const NAMES: [&str; 2] = [annotations::REF_NAME, annotations::CONTAINERD_NAME];

/// For how many directories it is remembered that the hint was given.
const MAX_HINTS: usize = 1_000;

/// Makes, moves and removes ref names.
pub struct Naming {
    views: Arc<Views>,
    committer: Arc<Committer>,
    collision: Collision,
    /// What absolute targets of links begin with.
    mountpoint: PathBuf,
    hinted: Mutex<HashSet<Vec<Name>>>,
}

impl fmt::Debug for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Naming");
        debug.field("collision", &self.collision);
        debug.field("mountpoint", &self.mountpoint);
        debug.finish_non_exhaustive()
    }
}

impl Naming {
    /// Changes the refs that `views` show by commits of `committer`, whose observer shows
    /// them there. Without [`Collision::Replace`] none is replaced or removed.
    #[must_use]
    pub fn new(
        views: Arc<Views>,
        committer: Arc<Committer>,
        collision: Collision,
        mountpoint: PathBuf,
    ) -> Self {
        Self {
            views,
            committer,
            collision,
            mountpoint,
            hinted: Mutex::default(),
        }
    }

    /// Gives the image directory to which `target` leads the name `name` in `level`. The
    /// link that was asked for.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it leads to anything else, or the name is none for a ref;
    /// [`Error::Exists`].
    pub(super) fn link(
        &self,
        vfs: &Vfs,
        level: RefLevel<'_>,
        name: &[u8],
        target: &[u8],
    ) -> Result<Arc<dyn Node>, Error> {
        let path = self.free_place(level, name)?;
        let new = ref_name(&path)?;
        let existing = self.image_at(vfs, level, target)?;
        let tagged = self.committer.tag(&existing, &new, Collision::Refuse);
        tagged.inspect(|_| log::debug!("{existing} is called {new} too"))?;
        Ok(self.views.new_link(path, target))
    }

    /// Makes a level of ref names.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Invalid`] for what cannot be part of a ref name.
    pub(super) fn make_level(
        &self,
        level: RefLevel<'_>,
        name: &[u8],
    ) -> Result<Arc<dyn Node>, Error> {
        let path = self.free_place(level, name)?;
        let name = ref_name(&path)?;
        // It has to be found under the name that was given.
        if path != names::levels(name.as_str()) {
            return Err(Error::Invalid);
        }
        self.views.make_level(path.clone());
        let mut node = self.views.root();
        for name in &path {
            node = node.find(name)?.ok_or(Error::Stale)?;
        }
        Ok(node)
    }

    /// Removes the ref `name` of `level`, or a level that was made.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] without leave, and for what is no ref; [`Error::NotEmpty`].
    pub(super) fn remove(&self, level: RefLevel<'_>, name: &[u8]) -> Result<(), Error> {
        let path = below(level, name);
        match self.standing(level, &path)? {
            Standing::Ref(existing) => {
                self.check_leave()?;
                self.commit(|draft| refs::remove(draft, &existing.key).map(drop))
            }
            Standing::Level if self.views.remove_level(&path) => Ok(()),
            Standing::Level => Err(Error::NotEmpty),
            Standing::Fixed => Err(Error::NotPermitted),
            Standing::Nothing => Err(Error::NotFound),
        }
    }

    /// Gives a ref another name.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] without leave where another ref has the name, and for what
    /// is no ref; [`Error::Exists`]; [`Error::NotEmpty`]; [`Error::Invalid`].
    pub(super) fn rename(
        &self,
        (level, name): (RefLevel<'_>, &[u8]),
        (new_level, new_name): (RefLevel<'_>, &[u8]),
        how: RenameMode,
    ) -> Result<(), Error> {
        let (path, new_path) = (below(level, name), below(new_level, new_name));
        let existing = match self.standing(level, &path)? {
            Standing::Ref(existing) => existing,
            Standing::Level | Standing::Fixed => return Err(Error::NotPermitted),
            Standing::Nothing => return Err(Error::NotFound),
        };
        self.check_no_image(new_level)?;
        let new = ref_name(&new_path)?;
        let present = self.standing(new_level, &new_path)?;
        match how {
            RenameMode::Exchange => self.exchange(&existing, &present)?,
            RenameMode::Whiteout | RenameMode::WhiteoutNoReplace => return Err(Error::Invalid),
            RenameMode::Replace | RenameMode::NoReplace => {
                let collision = self.collision_with(&present, &new_path, how)?;
                self.commit(|draft| refs::rename(draft, &existing.key, &new, collision))?;
            }
        }
        Ok(())
    }

    /// Sets an annotation of a ref, or removes it.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] for another attribute; [`Error::Exists`] and
    /// [`Error::NoAttribute`] as `how` demands; [`Error::Invalid`] for what is no text.
    pub(super) fn annotate(
        &self,
        level: RefLevel<'_>,
        name: &[u8],
        value: Option<&[u8]>,
        how: XattrMode,
    ) -> Result<(), Error> {
        let Standing::Ref(existing) = self.standing_at(level.path) else {
            return Err(Error::NotPermitted);
        };
        let key = name.strip_prefix(ANNOTATION).ok_or(Error::NotPermitted)?;
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Error::Invalid);
        let (key, value) = (text(key)?, value.map(text).transpose()?);
        if key.is_empty() {
            return Err(Error::Invalid);
        }
        if NAMES.contains(&key) {
            return Err(Error::NotPermitted);
        }
        self.committer
            .commit(&[], |draft| {
                let is_set = refs::has_annotation(draft, &existing.key, key)?;
                match (how, value) {
                    (XattrMode::Create, _) if is_set => return Ok(Err(Error::Exists)),
                    (XattrMode::Replace, _) | (_, None) if !is_set => {
                        return Ok(Err(Error::NoAttribute));
                    }
                    _ => {}
                }
                refs::annotate(draft, &existing.key, key, value).map(Ok)
            })
            .map_err(Error::from)?
            .answer
    }

    fn exchange(&self, existing: &Ref, present: &Standing) -> Result<(), Error> {
        let Standing::Ref(other) = present else {
            return Err(match present {
                Standing::Nothing => Error::NotFound,
                _ => Error::NotPermitted,
            });
        };
        self.check_leave()?;
        let (one, other) = (existing.whole_name()?, other.whole_name()?);
        self.commit(|draft| refs::exchange(draft, &one, &other))
    }

    /// Whether what is at a new place may be replaced; takes an empty level away.
    fn collision_with(
        &self,
        present: &Standing,
        path: &[Name],
        how: RenameMode,
    ) -> Result<Collision, Error> {
        match present {
            Standing::Nothing => Ok(Collision::Refuse),
            _ if how == RenameMode::NoReplace => Err(Error::Exists),
            Standing::Ref(_) => self.check_leave().map(|()| Collision::Replace),
            Standing::Fixed => Err(Error::NotPermitted),
            Standing::Level if self.views.remove_level(path) => Ok(Collision::Refuse),
            Standing::Level => Err(Error::NotEmpty),
        }
    }

    fn commit(
        &self,
        change: impl FnOnce(&mut Draft) -> Result<(), refs::Refusal>,
    ) -> Result<(), Error> {
        let committed = self.committer.commit(&[], change);
        committed.map(drop).map_err(Error::from)
    }

    fn check_leave(&self) -> Result<(), Error> {
        match self.collision {
            Collision::Replace => Ok(()),
            Collision::Refuse => {
                log::debug!("refused: it needs --allow-delete");
                Err(Error::NotPermitted)
            }
        }
    }

    /// Refuses what is to be made in a directory that is itself a ref.
    fn check_no_image(&self, level: RefLevel<'_>) -> Result<(), Error> {
        let is_image = level.is_image || matches!(self.standing_at(level.path), Standing::Ref(_));
        if !is_image {
            return Ok(());
        }
        let mut hinted = self.hinted.lock();
        if hinted.len() < MAX_HINTS && hinted.insert(level.path.to_vec()) {
            let path = level.path.join(&b'/');
            let shown = String::from_utf8_lossy(&path);
            log::warn!("{shown:?} is a ref, not a directory of refs: `mv -T` replaces it");
        }
        Err(Error::Exists)
    }

    /// The path of `name` in `level`, where nothing is.
    fn free_place(&self, level: RefLevel<'_>, name: &[u8]) -> Result<Vec<Name>, Error> {
        self.check_no_image(level)?;
        let path = below(level, name);
        match self.standing(level, &path)? {
            Standing::Nothing => Ok(path),
            _ => Err(Error::Exists),
        }
    }
}

fn below(level: RefLevel<'_>, name: &[u8]) -> Vec<Name> {
    let above = level.path.iter().cloned();
    above.chain([name.to_vec()]).collect()
}

/// The ref name that is to be shown at `path`.
fn ref_name(path: &[Name]) -> Result<RefName, Error> {
    let name = names::raw(path).ok_or(Error::Invalid)?;
    name.parse().map_err(|_| Error::Invalid)
}
