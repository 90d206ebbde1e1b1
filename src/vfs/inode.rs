//! Which inode numbers the kernel knows, and what they mean.
//!
//! A number is computed from the node's [`NodeKey`] and nothing else, so it is the same
//! in a listing, in a later lookup and after the kernel forgot it. Should two live keys
//! come to the same number, the later one gets the next free number instead.
//!
//! Invariants: an entry lives exactly as long as its lookup count is above zero; one
//! number never means two keys at a time; number 1 is the root and always there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::key::NodeKey;
use super::node::Node;

/// The kernel's number for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The root of the mount.
    pub const ROOT: Self = Self(1);

    /// The number that a key comes to, were it alone.
    #[must_use]
    pub fn of(key: &NodeKey) -> Self {
        // 0 and 1 are taken; the top bit is left alone for programs that read numbers
        // as signed.
        Self((key.fingerprint() >> 1).max(2))
    }
}

#[derive(Debug)]
struct Known {
    node: Arc<dyn Node>,
    key: NodeKey,
    lookups: u64,
    was_opened: AtomicBool,
}

/// Below this number of entries a table is not worth making smaller.
const SMALL: usize = 4096;

/// Makes a table smaller that has become nearly empty: a listing of a large tree must not
/// cost its memory for ever. Few entries
/// are moved for the many that went.
fn give_room_back(table: &mut HashMap<Ino, Known>) {
    if table.capacity() > SMALL && table.len() < table.capacity() / 16 {
        let room = table.len() * 2;
        table.shrink_to(room);
    }
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

    /// Notes that a node is opened; whether that is for the first time since the kernel
    /// knows it.
    pub fn open(&self, ino: Ino) -> bool {
        let table = self.known.read();
        let known = table.get(&ino);
        known.is_some_and(|known| !known.was_opened.swap(true, Ordering::Relaxed))
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
                    let former = std::mem::replace(&mut known.node, node.clone());
                    drop(table);
                    drop(former);
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
                            was_opened: AtomicBool::new(false),
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
        if known.lookups > 0 {
            return;
        }
        let forgotten = table.remove(&ino);
        give_room_back(&mut table);
        // The last node of a tree may take the tree with it; the lock is free by now.
        drop(table);
        drop(forgotten);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::attr::{Attr, FileKind};
    use crate::vfs::error::Error;
    use crate::vfs::key::TreeKey;
    use crate::vfs::node::Patience;

    #[derive(Debug)]
    struct Numbered(Arc<TreeKey>, u32);

    impl Node for Numbered {
        fn key(&self) -> NodeKey {
            NodeKey::inside(&self.0, self.1)
        }

        fn kind(&self) -> FileKind {
            FileKind::Fifo
        }

        fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
            Err(Error::Invalid)
        }
    }

    #[test]
    fn a_million_nodes_take_little_and_are_given_back() {
        const MANY: u32 = 1_000_000;
        let tree = TreeKey::new(NodeKey::content("test", "tree".into()));
        let root: Arc<dyn Node> = Arc::new(Numbered(tree.clone(), 0));
        let table = InodeTable::new(root);
        let nodes = 1..=MANY;
        let reference = |number| {
            let node: Arc<dyn Node> = Arc::new(Numbered(tree.clone(), number));
            table.reference(&node)
        };
        let inos: Vec<Ino> = nodes.clone().map(reference).collect();
        let capacity = table.known.read().capacity();
        // A node with the counts of its pointer; buckets of which an eighth stays free,
        // each with a byte of the table's own.
        let heap = MANY as usize * (2 * size_of::<usize>() + size_of::<Numbered>());
        let bytes = heap + capacity / 7 * 8 * (size_of::<(Ino, Known)>() + 1);
        assert!(bytes < 200 * MANY as usize, "{bytes} bytes");
        assert_eq!(table.len(), MANY as usize);
        // A second reference is the same number, and takes a second forget.
        assert_eq!(reference(MANY), inos[inos.len() - 1]);
        for (ino, number) in inos.iter().zip(nodes) {
            let known = table.get(*ino).map(|node| node.key());
            assert_eq!(known, Some(NodeKey::inside(&tree, number)), "node {number}");
            table.forget(*ino, 1);
        }
        assert_eq!(table.len(), 1);
        table.forget(inos[inos.len() - 1], 1);
        assert!(table.is_empty());
        let capacity = table.known.read().capacity();
        assert!(capacity <= 2 * SMALL, "room for {capacity} is kept");
    }
}
