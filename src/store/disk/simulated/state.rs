//! What is on a simulated disk, and what of that is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::{Trouble, Unsynced};
use crate::store::blob::Identity;
use crate::store::disk::{Status, parent};

pub(super) type Ino = u64;

#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) files: BTreeMap<Ino, Content>,
    pub(super) directories: BTreeMap<String, Directory>,
    pub(super) locked: BTreeSet<Ino>,
    pub(super) next: Ino,
    /// How many steps were taken.
    pub(super) steps: usize,
    /// How many calls were made, the steps among them.
    pub(super) calls: usize,
    pub(super) trouble: Trouble,
    /// What another program puts at a path when a step is about to be taken.
    pub(super) meddling: Option<(usize, String, Vec<u8>)>,
    pub(super) has_unnamed_files: bool,
    pub(super) has_exchange: bool,
    /// Whether syncing does what it says: a test of the tests.
    pub(super) is_honest: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) synced: Vec<u8>,
    pub(super) is_synced: bool,
    /// Whether a sync has failed: the kernel tells of lost bytes only once.
    pub(super) is_lost: bool,
    pub(super) mode: u32,
    pub(super) version: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    File(Ino),
    Directory,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    pub(super) names: BTreeMap<String, Node>,
    pub(super) synced: BTreeMap<String, Node>,
    /// The changes since the last sync: a name, and what it stands for then.
    pub(super) changes: Vec<(String, Option<Node>)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            directories: BTreeMap::from([(".".to_owned(), Directory::default())]),
            locked: BTreeSet::new(),
            next: 1,
            steps: 0,
            calls: 0,
            trouble: Trouble::None,
            meddling: None,
            has_unnamed_files: true,
            has_exchange: true,
            is_honest: true,
        }
    }
}

/// How large the pieces are of which some are kept: small, as the files of the tests are.
const PIECE: usize = 8;

impl Content {
    pub(super) fn lose(&mut self, unsynced: Unsynced) {
        match unsynced {
            Unsynced::Lost => self.bytes.clone_from(&self.synced),
            Unsynced::Kept => {}
            Unsynced::Half => self.bytes.truncate(self.bytes.len() / 2),
            Unsynced::Zeros => self.bytes.fill(0),
            Unsynced::Torn(kept) => self.tear(kept),
        }
        self.synced.clone_from(&self.bytes);
        (self.is_synced, self.is_lost) = (true, false);
        self.version += 1;
    }

    pub(super) fn tear(&mut self, kept: u64) {
        let old = self.synced.iter().copied().chain(std::iter::repeat(0));
        for (at, (byte, old)) in self.bytes.iter_mut().zip(old).enumerate() {
            if kept & (1 << (at / PIECE % 64)) == 0 {
                *byte = old;
            }
        }
    }

    pub(super) fn sync(&mut self) {
        if !self.is_lost {
            self.synced.clone_from(&self.bytes);
            self.is_synced = true;
        }
    }
}

impl State {
    /// Counts a call, which may be the one that fails.
    pub(super) fn call(&mut self) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        match self.trouble {
            Trouble::FailedCall(at, errno) if call == at => {
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn unsynced(&self) -> Vec<Ino> {
        let unsynced = self.files.iter().filter(|(_, file)| !file.is_synced);
        unsynced.map(|(ino, _)| *ino).collect()
    }

    pub(super) fn new_file(&mut self) -> Ino {
        let ino = self.next;
        self.next += 1;
        let content = Content {
            bytes: Vec::new(),
            synced: Vec::new(),
            is_synced: false,
            is_lost: false,
            mode: 0o644,
            version: 0,
        };
        self.files.insert(ino, content);
        ino
    }

    pub(super) fn file(&mut self, ino: Ino) -> &mut Content {
        self.files.get_mut(&ino).expect("an open file is kept")
    }

    pub(super) fn node(&self, path: &str) -> io::Result<Node> {
        if path == "." {
            return Ok(Node::Directory);
        }
        let directory = self.directories.get(parent(path));
        let node = directory.and_then(|directory| directory.names.get(name(path)));
        node.copied().ok_or_else(|| errno(libc::ENOENT))
    }

    pub(super) fn set(&mut self, path: &str, node: Option<Node>) -> io::Result<()> {
        let directory = self.directories.get_mut(parent(path));
        let directory = directory.ok_or_else(|| errno(libc::ENOENT))?;
        set(&mut directory.names, name(path), node);
        directory.changes.push((name(path).to_owned(), node));
        Ok(())
    }

    pub(super) fn add(&mut self, path: &str, node: Node) -> io::Result<()> {
        match self.node(path) {
            Ok(_) => Err(errno(libc::EEXIST)),
            Err(_) => self.set(path, Some(node)),
        }
    }

    pub(super) fn status(&self, node: Node) -> Status {
        let (inode, content) = match node {
            Node::File(ino) => (ino, self.files.get(&ino)),
            Node::Directory => (0, None),
        };
        Status {
            identity: Identity {
                device: 1,
                inode,
                offset: 0,
                size: content.map_or(0, |content| content.bytes.len() as u64),
                mtime: (content.map_or(0, |content| content.version), 0),
                ctime: (0, 0),
            },
            is_file: content.is_some(),
            owner: (0, 0),
            mode: content.map_or(0o755, |content| content.mode),
        }
    }

    /// Directories whose own name was lost are gone with all that is in them.
    pub(super) fn forget_unreachable(&mut self) {
        let lost: Vec<String> = self
            .directories
            .keys()
            .filter(|path| {
                let mut above = path.as_str();
                loop {
                    if self.node(above).is_err() {
                        return true;
                    }
                    if above == "." {
                        return false;
                    }
                    above = parent(above);
                }
            })
            .cloned()
            .collect();
        for path in lost {
            self.directories.remove(&path);
        }
    }
}

pub(super) fn set(names: &mut BTreeMap<String, Node>, name: &str, node: Option<Node>) {
    match node {
        Some(node) => drop(names.insert(name.to_owned(), node)),
        None => drop(names.remove(name)),
    }
}

pub(super) fn errno(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

pub(super) fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
