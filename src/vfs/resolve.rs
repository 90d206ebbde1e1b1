//! Following a path without a kernel, for the command line.

use std::sync::Arc;

use super::node::{Caching, Name, Node, Patience};
use super::{Error, FileKind, Ino, Vfs};

/// How many symbolic links may follow each other, as in Linux.
const MAX_LINKS: u32 = 40;

impl Vfs {
    /// Follows a path from the root as the kernel would, without its help. Symbolic links
    /// on the way and at the end are followed; those of a file tree lead nowhere outside
    /// it, as in a container.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`]; [`Error::Invalid`] for too many
    /// links in a row.
    pub fn resolve(&self, path: &[u8]) -> Result<Arc<dyn Node>, Error> {
        self.follow(path, Patience::Wait)
    }

    /// The same, for an image directory: what lies beyond a first pass is not looked at.
    ///
    /// # Errors
    /// The same; [`Error::Invalid`] where it would have to wait.
    pub(super) fn resolve_at_once(&self, path: &[u8]) -> Result<Arc<dyn Node>, Error> {
        self.follow(path, Patience::Never)
    }

    fn follow(&self, path: &[u8], patience: Patience) -> Result<Arc<dyn Node>, Error> {
        let mut walk = Walk {
            trail: vec![self.node(Ino::ROOT)?],
            rest: Vec::new(),
            links: 0,
            patience,
        };
        walk.add(path, Origin::User);
        while let Some(step) = walk.rest.pop() {
            walk.step(step)?;
        }
        walk.trail.pop().ok_or(Error::NotFound)
    }
}

/// Who wrote a component of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    User,
    Link,
}

struct Walk {
    /// The directories from the root to where the walk is.
    trail: Vec<Arc<dyn Node>>,
    /// What is still to be followed, the next one last.
    rest: Vec<(Name, Origin)>,
    links: u32,
    patience: Patience,
}

impl Walk {
    fn add(&mut self, path: &[u8], origin: Origin) {
        let names = path.split(|byte| *byte == b'/');
        let real = names.filter(|name| !name.is_empty() && *name != b".");
        self.rest
            .extend(real.rev().map(|name| (name.to_vec(), origin)));
    }

    fn step(&mut self, (name, origin): (Name, Origin)) -> Result<(), Error> {
        let here = &self.trail[self.trail.len() - 1];
        if name == b".." {
            let stays = self.trail.len() == 1 || (origin == Origin::Link && here.is_tree_root());
            if !stays {
                self.trail.pop();
            }
            return Ok(());
        }
        // Where the listing is not kept, it waits for documents alone, and not for long.
        let is_tree = here.list_caching() == Caching::Keep;
        if self.patience == Patience::Never && is_tree && here.would_wait_inside() {
            return Err(Error::Invalid);
        }
        let node = here.find(&name)?.ok_or(Error::NotFound)?;
        if node.kind() != FileKind::Symlink {
            self.trail.push(node);
            return Ok(());
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Error::Invalid);
        }
        self.follow(&node.read_link()?);
        Ok(())
    }

    fn follow(&mut self, target: &[u8]) {
        if target.starts_with(b"/") {
            let root = self.trail.iter().rposition(|node| node.is_tree_root());
            self.trail.truncate(root.unwrap_or(0) + 1);
        }
        self.add(target, Origin::Link);
    }
}
