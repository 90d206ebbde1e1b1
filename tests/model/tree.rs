//! A file tree against its records: what is looked up, listed in pieces, and forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ocifs::store::Layout;
use ocifs::vfs::{Caching, Error, FileKind, Handle, Ino, NodeKey, Patience, Stretch, Vfs};

use crate::common::{Random, Record, TestLayout, TestTree};

/// How many nodes the tree has, and how many operations are done.
const NODES: u32 = 200;
const OPERATIONS: usize = 20_000;

/// One node as the model has it; the position in the list is its number.
struct Expected {
    kind: FileKind,
    children: BTreeMap<Vec<u8>, u32>,
}

struct Harness {
    vfs: Vfs,
    expected: Vec<Expected>,
    /// What the kernel would know: numbers, their references and what they mean.
    known: HashMap<Ino, (u64, u32)>,
    meanings: HashMap<u32, (Ino, NodeKey)>,
    random: Random,
    _layout: TestLayout,
}

impl Harness {
    fn new(mut random: Random) -> Self {
        let mut tree = TestTree::new();
        let directory = |kind| Expected {
            kind,
            children: BTreeMap::new(),
        };
        let mut expected = vec![directory(FileKind::Directory)];
        let kinds = [
            FileKind::Directory,
            FileKind::Regular,
            FileKind::Symlink,
            FileKind::Fifo,
        ];
        for number in 1..NODES {
            let parents: Vec<u32> = (0..number)
                .filter(|at| expected[*at as usize].kind == FileKind::Directory)
                .collect();
            let parent = parents[pick(&mut random, parents.len())];
            let kind = kinds[pick(&mut random, kinds.len())];
            let name = format!("n{number}").into_bytes();
            let added = tree.add(parent, name.clone(), Record::new(kind, 0o644).bytes(&*name));
            assert_eq!(added, number);
            expected.push(directory(kind));
            let children = &mut expected[parent as usize].children;
            children.insert(name, number);
            if kind == FileKind::Regular {
                let link = format!("l{number}").into_bytes();
                tree.link(parent, link.clone(), number);
                children.insert(link, number);
            }
        }
        let layout = TestLayout::new();
        let opened = Arc::new(Layout::open(layout.path(), &[]).unwrap());
        let root = tree.finish(true).node(TestTree::ROOT);
        Self {
            vfs: Vfs::new(root, opened),
            expected,
            known: HashMap::from([(Ino::ROOT, (1, TestTree::ROOT))]),
            meanings: HashMap::new(),
            random,
            _layout: layout,
        }
    }

    fn step(&mut self) {
        let mut known: Vec<Ino> = self.known.keys().copied().collect();
        known.sort();
        let ino = known[pick(&mut self.random, known.len())];
        match pick(&mut self.random, 10) {
            0..5 => self.look(ino),
            5..7 => self.list(ino),
            7 => self.read(ino),
            _ => self.forget(ino),
        }
        assert_eq!(self.vfs.referenced(), self.known.len() - 1);
    }

    fn number(&self, ino: Ino) -> u32 {
        self.known[&ino].1
    }

    /// The kernel was given a reference to the node `number`.
    fn referenced(&mut self, ino: Ino, number: u32) {
        let key = self.vfs.node(ino).unwrap().key();
        let meaning = (ino, key);
        let before = self.meanings.insert(number, meaning.clone());
        assert!(before.is_none_or(|before| before == meaning), "{meaning:?}");
        let known = self.known.entry(ino).or_insert((0, number));
        assert_eq!(known.1, number, "{} means two nodes", ino.0);
        known.0 += 1;
    }

    fn look(&mut self, parent: Ino) {
        let which = pick(&mut self.random, NODES as usize);
        let name = format!("{}{which}", ["n", "l"][which % 2]).into_bytes();
        let of = &self.expected[self.number(parent) as usize];
        let expected = of.children.get(&name).copied();
        let found = self.vfs.lookup(parent, &name);
        match (found, expected) {
            (Ok(entry), Some(number)) => self.referenced(entry.ino, number),
            (Err(Error::NotFound), None) if of.kind == FileKind::Directory => {}
            (Err(Error::NotDirectory), None) if of.kind != FileKind::Directory => {}
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    /// Lists a directory as readdirplus does: in pieces, the last entry of each given back.
    fn list(&mut self, ino: Ino) {
        let of = &self.expected[self.number(ino) as usize];
        if of.kind != FileKind::Directory {
            assert!(matches!(self.vfs.open_dir(ino), Err(Error::NotDirectory)));
            return;
        }
        let expected: Vec<(Vec<u8>, u32)> = of.children.clone().into_iter().collect();
        let (handle, caching) = self.vfs.open_dir(ino).unwrap();
        assert_eq!(caching, Caching::Keep);
        let mut at = 0;
        while at < expected.len() {
            at = self.piece(handle, at, &expected);
        }
        let listing = self.vfs.listing(handle, false).unwrap();
        assert!(listing.child(at).is_none(), "more than expected");
        self.vfs.release_dir(handle);
        assert!(self.vfs.listing(handle, false).is_err(), "a closed handle");
    }

    fn piece(&mut self, handle: Handle, start: usize, expected: &[(Vec<u8>, u32)]) -> usize {
        let listing = self.vfs.listing(handle, start == 0).unwrap();
        let end = expected.len().min(start + 1 + pick(&mut self.random, 5));
        for (at, (name, number)) in (start..).zip(&expected[start..end]) {
            let child = listing.child(at).unwrap();
            assert_eq!(child.name, *name);
            let entry = self.vfs.entry_of(&child).unwrap();
            assert_eq!(self.vfs.ino_of(&child), entry.ino);
            self.referenced(entry.ino, *number);
        }
        if let Some(child) = listing.child(end) {
            let entry = self.vfs.entry_of(&child).unwrap();
            self.vfs.forget(entry.ino, 1);
        }
        end
    }

    fn read(&mut self, ino: Ino) {
        let number = self.number(ino);
        let attr = self.vfs.attr(ino, Patience::Wait).unwrap();
        assert_eq!(attr.kind, self.expected[number as usize].kind);
        if attr.kind != FileKind::Regular {
            return;
        }
        let (handle, file) = self.vfs.open(ino).unwrap();
        let mut buf = [0; 16];
        let len = self.vfs.read(handle, &mut buf, 0).unwrap();
        assert_eq!(buf[..len], *format!("n{number}").as_bytes());
        assert_eq!((attr.size, file.size()), (len as u64, len as u64));
        let end = self.vfs.seek(handle, 0, Stretch::Hole).unwrap();
        assert_eq!(end, attr.size);
        assert!(matches!(
            self.vfs.seek(handle, end, Stretch::Data),
            Err(Error::NoData)
        ));
        self.vfs.release(handle);
    }

    fn forget(&mut self, ino: Ino) {
        if ino == Ino::ROOT {
            return;
        }
        let (references, _) = self.known.remove(&ino).unwrap();
        self.vfs.forget(ino, references);
        assert!(matches!(self.vfs.node(ino), Err(Error::Stale)));
    }
}

fn pick(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.within(0..count as u64)).unwrap()
}

#[test]
fn a_file_tree_is_what_its_records_say() {
    let mut harness = Harness::new(Random::new());
    for _ in 0..OPERATIONS {
        harness.step();
    }
}
