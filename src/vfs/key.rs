//! What inode numbers hang on.
//!
//! The kernel may know millions of nodes, so a key is two words: nodes of an image have
//! keys of text, behind a pointer; nodes of a tree share one such key and are told apart
//! by their number in it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// What a node's inode number is computed from. Equal keys are the same inode.
///
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NodeKey {
    /// A regular file: see [`NodeKey::content`].
    Content(Arc<ContentKey>),
    /// A directory or symbolic link: see [`NodeKey::place`].
    Place(Arc<PlaceKey>),
    /// A node of a tree, such as that of a layer.
    Inside {
        /// Which tree, and what its nodes hang on. A regular file hangs on what the tree
        /// shows, so that it is the same inode wherever it is seen; any other node hangs
        /// on the place of the tree too.
        tree: Arc<TreeKey>,
        /// Which of the tree's nodes: names that are hard links of one file have one
        /// number.
        number: u32,
    },
    /// A file that is kept on a disk and can change: see [`NodeKey::kept`].
    Kept(Arc<KeptKey>),
}

/// A file, directory or anything else in a directory of a real file system.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct KeptKey {
    /// Which of the directories that this process shows.
    pub directory: u64,
    /// The inode number on the disk.
    pub number: u64,
    /// How many files had that number before, of which the kernel may still know one.
    pub generation: u64,
}

/// The content of a regular file: it hangs on a digest, never on a path.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ContentKey {
    /// Tells apart the views that show the same bytes with other attributes.
    pub view: &'static str,
    /// What is shown: digests as text.
    pub shows: String,
}

/// A place in the mount and what is shown there.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PlaceKey {
    /// Path from the mount root, without a leading `/`.
    pub path: Vec<u8>,
    /// What is shown: digests as text, or empty for a mere level.
    pub shows: String,
    /// The change of the index that brought it here, so that a number that was used for
    /// something else at this path never returns.
    pub epoch: u64,
}

impl NodeKey {
    /// The key of a regular file that shows `shows`, the digests of its content, in one
    /// of the views of it.
    #[must_use]
    pub fn content(view: &'static str, shows: String) -> Self {
        Self::Content(Arc::new(ContentKey { view, shows }))
    }

    /// The key of a directory or symbolic link at `path` that shows `shows` since `epoch`.
    #[must_use]
    pub fn place(path: Vec<u8>, shows: String, epoch: u64) -> Self {
        Self::Place(Arc::new(PlaceKey { path, shows, epoch }))
    }

    /// The key of the node `number` of `tree`.
    #[must_use]
    pub fn inside(tree: &Arc<TreeKey>, number: u32) -> Self {
        let tree = tree.clone();
        Self::Inside { tree, number }
    }

    /// The key of the file with the inode number `number` in one of the real directories
    /// that are shown; all names of a file have one key.
    #[must_use]
    pub fn kept(directory: u64, number: u64, generation: u64) -> Self {
        Self::Kept(Arc::new(KeptKey {
            directory,
            number,
            generation,
        }))
    }

    /// A number that is the same for equal keys, also in another run of the program.
    #[must_use]
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// What all nodes of one tree share of their keys; hashed once, when it is made.
#[derive(Debug, PartialEq, Eq)]
pub struct TreeKey {
    // Compared first: it differs where anything does.
    fingerprint: u64,
    key: NodeKey,
}

impl TreeKey {
    /// The part of the keys that says which tree it is: the key of a content for its
    /// regular files, that of its top directory for other nodes.
    #[must_use]
    pub fn new(key: NodeKey) -> Arc<Self> {
        let fingerprint = key.fingerprint();
        Arc::new(Self { fingerprint, key })
    }
}

impl Hash for TreeKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.fingerprint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_small() {
        // A million of them are known to the kernel at a time.
        assert_eq!(size_of::<NodeKey>(), 16);
    }

    #[test]
    fn equal_keys_and_others() {
        let content = |shows: &str| NodeKey::content("layer", shows.into());
        let place = |path: &str, epoch| NodeKey::place(path.into(), "a".into(), epoch);
        let inside = |key, number| NodeKey::inside(&TreeKey::new(key), number);
        let make = || {
            [
                content("a"),
                content("b"),
                NodeKey::content("image", "a".into()),
                place("x", 1),
                place("x", 2),
                place("y", 1),
                inside(content("a"), 0),
                inside(content("a"), 1),
                inside(content("b"), 0),
                inside(place("x", 1), 0),
                inside(place("x", 2), 0),
                inside(inside(content("a"), 0), 0),
                NodeKey::kept(1, 2, 0),
                NodeKey::kept(2, 2, 0),
                NodeKey::kept(1, 2, 1),
                NodeKey::kept(1, 3, 0),
            ]
        };
        for (at, one) in make().iter().enumerate() {
            for (other_at, other) in make().iter().enumerate() {
                let same = at == other_at;
                assert_eq!(one == other, same, "{one:?} and {other:?}");
                let fingerprints = one.fingerprint() == other.fingerprint();
                assert_eq!(fingerprints, same, "{one:?} and {other:?}");
            }
        }
    }
}
