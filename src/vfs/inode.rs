//! Which inode numbers the kernel knows, and what they mean.
//!
//! A number is computed from the node's [`NodeKey`] and nothing else, so it is the same
//! in a listing, in a later lookup and after the kernel forgot it. Should two live keys
//! come to the same number, the later one gets the next free number instead.
//!
//! Invariants: an entry lives exactly as long as its lookup count is above zero; one
//! number never means two keys at a time; number 1 is the root and always there.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::RwLock;

use super::node::{Node, NodeKey};

/// The kernel's number for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The root of the mount.
    pub const ROOT: Self = Self(1);

    /// The number that a key comes to, were it alone.
    #[must_use]
    pub fn of(key: &NodeKey) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        // 0 and 1 are taken; the top bit is left alone for programs that read numbers
        // as signed.
        Self((hasher.finish() >> 1).max(2))
    }
}

#[derive(Debug)]
struct Known {
    node: Arc<dyn Node>,
    key: NodeKey,
    lookups: u64,
}

/// The nodes that the kernel holds references to.
#[derive(Debug)]
pub struct InodeTable {
    root: Arc<dyn Node>,
    known: RwLock<HashMap<Ino, Known>>,
}

impl InodeTable {
    /// A table that knows only the root.
    #[must_use]
    pub fn new(root: Arc<dyn Node>) -> Self {
        Self {
            root,
            known: RwLock::default(),
        }
    }

    /// The node of a number that the kernel sent.
    #[must_use]
    pub fn get(&self, ino: Ino) -> Option<Arc<dyn Node>> {
        if ino == Ino::ROOT {
            return Some(self.root.clone());
        }
        self.known.read().get(&ino).map(|known| known.node.clone())
    }

    /// Notes one reference of the kernel to `node`, and gives its number.
    pub fn reference(&self, node: &Arc<dyn Node>) -> Ino {
        let key = node.key();
        let mut ino = Ino::of(&key);
        let mut table = self.known.write();
        loop {
            match table.get_mut(&ino) {
                Some(known) if known.key == key => {
                    known.lookups += 1;
                    // The newest value of an equal key is kept: it may know more.
                    known.node = node.clone();
                    return ino;
                }
                Some(_) => ino = Ino((ino.0 + 1).max(2)),
                None => {
                    table.insert(
                        ino,
                        Known {
                            node: node.clone(),
                            key,
                            lookups: 1,
                        },
                    );
                    return ino;
                }
            }
        }
    }

    /// Takes back `count` references of the kernel.
    pub fn forget(&self, ino: Ino, count: u64) {
        let mut table = self.known.write();
        let Some(known) = table.get_mut(&ino) else {
            return;
        };
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups == 0 {
            table.remove(&ino);
        }
    }

    /// The number under which the kernel knows `key`, if it does.
    #[must_use]
    pub fn find(&self, key: &NodeKey) -> Option<Ino> {
        let mut ino = Ino::of(key);
        let table = self.known.read();
        while let Some(known) = table.get(&ino) {
            if known.key == *key {
                return Some(ino);
            }
            ino = Ino((ino.0 + 1).max(2));
        }
        None
    }

    /// How many nodes the kernel knows, the root not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.read().len()
    }

    /// Whether the kernel knows only the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
