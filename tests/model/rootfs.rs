//! Root file systems and the trees of layers against the reference, while blobs go, are
//! damaged and come back, and refs move.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use ocifs::layer::{Layers, LayersOptions};
use ocifs::store::{Layout, Verdicts};
use ocifs::vfs::views::{Views, ViewsOptions};
use ocifs::vfs::{Error, FileKind, Handle, Ino, NodeKey, Patience, Vfs};
use serde_json::{Value, json};

use crate::common::{Compression, Layer as Stored, Random, TestLayout};
use crate::reference::{self, Layer, Seen, Tree, attributes, pick};

const OPERATIONS: usize = 20_000;
const LAYERS: usize = 10;
const IMAGES: usize = 8;
const REFS: [&str; 4] = ["w", "x", "y", "z"];

/// How the file of a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blob {
    Right,
    Missing,
    Damaged,
}

struct OneLayer {
    entries: Layer,
    path: PathBuf,
    bytes: Vec<u8>,
    blob: Blob,
}

struct Image {
    descriptor: Value,
    /// Which layers it has, the base layer first.
    layers: Vec<usize>,
    tree: Tree,
    /// Whether its root file system was looked into with success: then it stays known.
    known: bool,
}

struct Held {
    handle: Handle,
    bytes: Vec<u8>,
    /// Whether the file of the blob was written to since it was opened.
    overwritten: bool,
    layer: usize,
}

/// Which tree of an image is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Rootfs,
    /// By its position in the image.
    Layer(usize),
}

struct Harness {
    layout: TestLayout,
    layers: Vec<OneLayer>,
    images: Vec<Image>,
    /// Layers whose own trees were looked into.
    known_layers: BTreeSet<usize>,
    refs: BTreeMap<&'static str, usize>,
    opened: Arc<Layout>,
    views: Arc<Views>,
    vfs: Vfs,
    references: HashMap<Ino, u64>,
    meanings: HashMap<Ino, NodeKey>,
    held: Vec<Held>,
    random: Random,
}

impl Harness {
    fn new(mut random: Random) -> Self {
        let layout = TestLayout::new();
        let (layers, stored): (Vec<_>, Vec<_>) = (0..LAYERS)
            .map(|number| one_layer(&layout, number, &mut random))
            .unzip();
        let images = (0..IMAGES)
            .map(|number| image(&layout, number, &layers, &stored, &mut random))
            .collect();
        let opened = Arc::new(Layout::open(layout.path(), &[]).unwrap());
        let view = opened.read_index().unwrap();
        let verdicts = Arc::new(Verdicts::new(None));
        let options = LayersOptions {
            memory: 1 << 13,
            ..LayersOptions::default()
        };
        let shared = Arc::new(Layers::new(options, verdicts.clone()));
        let options = ViewsOptions::default();
        let views = Views::new(opened.clone(), view, shared, verdicts, options).unwrap();
        Self {
            layout,
            layers,
            images,
            known_layers: BTreeSet::new(),
            refs: BTreeMap::new(),
            vfs: Vfs::new(views.root(), opened.clone()),
            opened,
            views,
            references: HashMap::new(),
            meanings: HashMap::new(),
            held: Vec::new(),
            random,
        }
    }

    fn within(&mut self, count: usize) -> usize {
        usize::try_from(self.random.within(0..count as u64)).unwrap()
    }

    fn step(&mut self) {
        match self.within(60) {
            0..3 => self.move_ref(),
            3..7 => self.change_blob(),
            7..10 => self.let_go(),
            10 => self.forget_all(),
            11..20 => self.tree(Self::whole),
            20..30 => self.tree(Self::hold),
            30..40 => self.tree(Self::list),
            _ => self.tree(Self::look),
        }
        self.check_held();
    }

    // Events from outside.

    fn move_ref(&mut self) {
        let name = *pick(&mut self.random, &REFS);
        let image = self.within(IMAGES);
        if self.within(6) == 0 {
            self.refs.remove(name);
        } else {
            self.refs.insert(name, image);
        }
        let entry = |(name, image): (&&str, &usize)| {
            let mut entry = self.images[*image].descriptor.clone();
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
            entry
        };
        let entries: Vec<Value> = self.refs.iter().map(entry).collect();
        self.layout.write_entries(&entries);
        let view = self.opened.read_index().unwrap();
        self.views.refresh(view);
    }

    fn change_blob(&mut self) {
        let number = self.within(LAYERS);
        let kind = self.within(6);
        let layer = &mut self.layers[number];
        let mut wrong = layer.bytes.clone();
        let middle = wrong.len() / 2;
        wrong[middle] ^= 0x10;
        let replacement = layer.path.with_extension("new");
        match kind {
            0 => {
                let gone = fs::remove_file(&layer.path).is_ok();
                assert_eq!(gone, layer.blob != Blob::Missing);
                layer.blob = Blob::Missing;
            }
            1 => {
                fs::write(&replacement, wrong).unwrap();
                fs::rename(&replacement, &layer.path).unwrap();
                layer.blob = Blob::Damaged;
            }
            2 if layer.blob != Blob::Missing => {
                let file = fs::File::options().write(true).open(&layer.path).unwrap();
                file.write_all_at(&wrong, 0).unwrap();
                layer.blob = Blob::Damaged;
                let held = self.held.iter_mut().filter(|held| held.layer == number);
                held.for_each(|held| held.overwritten = true);
            }
            _ => {
                fs::write(&replacement, &layer.bytes).unwrap();
                fs::rename(&replacement, &layer.path).unwrap();
                layer.blob = Blob::Right;
            }
        }
    }

    // What a kernel asks.

    /// Goes into a tree by chance, which must be what the blobs allow, and does `then`.
    fn tree(&mut self, then: fn(&mut Self, Ino, &Tree)) {
        let all: Vec<_> = self.refs.iter().map(|(n, image)| (*n, *image)).collect();
        if all.is_empty() {
            return;
        }
        let (name, image) = *pick(&mut self.random, &all);
        let count = self.images[image].layers.len();
        let which = match self.within(3) {
            0 => Which::Layer(self.within(count)),
            _ => Which::Rootfs,
        };
        let path = match which {
            Which::Rootfs => format!("{name}/rootfs"),
            Which::Layer(at) => format!("{name}/layers/{at:02}"),
        };
        let top = self.walk(&path).expect("it is always there").ino;
        let opened = self.vfs.open_dir(top);
        match self.fault(image, which) {
            Some(errno) => {
                let error = opened.expect_err("it cannot be opened");
                assert_eq!(error.errno(), errno, "{path}: {error}");
                let looked = self.vfs.lookup(top, b"a").expect_err("nor looked into");
                assert_eq!(looked.errno(), errno, "{path}: {looked}");
            }
            None => {
                let (handle, _) = opened.unwrap_or_else(|error| panic!("{path}: {error}"));
                self.vfs.release_dir(handle);
                let tree = self.expected(image, which);
                then(self, top, &tree);
            }
        }
    }

    /// The errno of going into a tree: none if it is known already.
    fn fault(&mut self, image: usize, which: Which) -> Option<i32> {
        let image_layers = self.images[image].layers.clone();
        let (known, layers) = match which {
            Which::Rootfs => (self.images[image].known, image_layers.clone()),
            Which::Layer(at) => (
                self.is_layer_known(image_layers[at]),
                vec![image_layers[at]],
            ),
        };
        let is = |blob: Blob| layers.iter().any(|layer| self.layers[*layer].blob == blob);
        let fault = match known {
            true => None,
            false if is(Blob::Missing) => Some(libc::ENODATA),
            false if is(Blob::Damaged) => Some(libc::EBADMSG),
            false => None,
        };
        if fault.is_none() {
            match which {
                Which::Rootfs => self.images[image].known = true,
                Which::Layer(at) => drop(self.known_layers.insert(image_layers[at])),
            }
        }
        fault
    }

    /// A layer's own tree hangs on the layer, not on the image.
    fn is_layer_known(&self, layer: usize) -> bool {
        self.known_layers.contains(&layer)
    }

    fn expected(&self, image: usize, which: Which) -> Tree {
        match which {
            Which::Rootfs => self.images[image].tree.clone(),
            Which::Layer(at) => {
                let number = self.images[image].layers[at];
                reference::alone(&self.layers[number].entries, number)
            }
        }
    }

    fn walk(&mut self, path: &str) -> Result<ocifs::vfs::Entry, Error> {
        let mut at = None;
        for name in path.split('/') {
            at = Some(self.step_into(
                at.map_or(Ino::ROOT, |entry: ocifs::vfs::Entry| entry.ino),
                name,
            )?);
        }
        at.ok_or(Error::NotFound)
    }

    fn step_into(&mut self, parent: Ino, name: &str) -> Result<ocifs::vfs::Entry, Error> {
        let entry = self.vfs.lookup(parent, name.as_bytes())?;
        self.referenced(entry.ino);
        Ok(entry)
    }

    fn referenced(&mut self, ino: Ino) {
        *self.references.entry(ino).or_default() += 1;
        let key = self.vfs.node(ino).unwrap().key();
        let before = self.meanings.insert(ino, key.clone());
        assert!(
            before.is_none_or(|before| before == key),
            "{} has two meanings",
            ino.0
        );
    }

    /// Looks for a path by chance.
    fn look(&mut self, top: Ino, tree: &Tree) {
        let mut path = String::new();
        let mut at = top;
        for _ in 0..1 + self.within(4) {
            let name = *pick(&mut self.random, &reference::NAMES);
            path = reference::join(&path, name);
            let found = self.step_into(at, name);
            let Some(seen) = tree.get(&path) else {
                let error = found.expect_err("there is no such path");
                assert!(matches!(error, Error::NotFound), "{path}: {error}");
                return;
            };
            let entry = found.unwrap_or_else(|error| panic!("{path}: {error}"));
            self.check(&entry.attr, seen, tree, &path);
            if seen.kind() != FileKind::Directory {
                return self.open(entry.ino, seen, &path);
            }
            at = entry.ino;
        }
    }

    fn check(&self, attr: &ocifs::vfs::Attr, seen: &Seen, tree: &Tree, path: &str) {
        let (mode, owner, mtime) = attributes(&seen.origin, seen.layer);
        let size = match &seen.entry {
            reference::Entry::Symlink(target) => target.len(),
            _ => seen.bytes().len(),
        };
        let mode = match seen.kind() {
            FileKind::Symlink => 0o777,
            _ => mode,
        };
        assert_eq!(attr.kind, seen.kind(), "{path}");
        assert_eq!(
            (attr.mode, attr.uid, attr.gid),
            (mode, owner, owner),
            "{path}"
        );
        let time = (attr.mtime.seconds, attr.mtime.nanoseconds);
        assert_eq!(time, (mtime, 500_000_000), "{path}");
        assert_eq!(attr.size, size as u64, "{path}");
        assert_eq!(attr.links, reference::links(tree, path), "links of {path}");
    }

    /// Opens what is no directory, and reads a part of it.
    fn open(&mut self, ino: Ino, seen: &Seen, path: &str) {
        if let reference::Entry::Symlink(target) = &seen.entry {
            assert_eq!(
                self.vfs.read_link(ino).unwrap(),
                target.as_bytes(),
                "{path}"
            );
        }
        if seen.kind() != FileKind::Regular {
            assert!(matches!(self.vfs.open(ino), Err(Error::Invalid)), "{path}");
            return;
        }
        let errno = match self.layers[seen.layer].blob {
            Blob::Right => 0,
            Blob::Missing => libc::ENODATA,
            Blob::Damaged => libc::EBADMSG,
        };
        match self.vfs.open(ino) {
            Err(error) => assert_eq!(error.errno(), errno, "{path}: {error}"),
            Ok((handle, file)) => {
                assert_eq!(errno, 0, "{path}");
                assert_eq!(file.size(), seen.bytes().len() as u64, "{path}");
                self.read(handle, seen.bytes()).unwrap();
                self.vfs.release(handle);
            }
        }
    }

    fn read(&mut self, handle: Handle, bytes: &[u8]) -> Result<(), Error> {
        let (offset, len) = (self.within(bytes.len() + 10), self.within(2000));
        let mut buf = vec![0; len];
        let read = self.vfs.read(handle, &mut buf, offset as u64)?;
        let expected = bytes.get(offset..).unwrap_or_default();
        assert!(
            buf[..read] == expected[..expected.len().min(len)],
            "{len} bytes at {offset}"
        );
        Ok(())
    }

    /// Lists a directory by chance, in pieces.
    fn list(&mut self, top: Ino, tree: &Tree) {
        let is_directory = |(_, seen): &(&String, &Seen)| seen.kind() == FileKind::Directory;
        let mut all: Vec<&String> = tree
            .iter()
            .filter(is_directory)
            .map(|(path, _)| path)
            .collect();
        let root = String::new();
        all.push(&root);
        let path = (*pick(&mut self.random, &all)).clone();
        let mut at = top;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.step_into(at, name).unwrap().ino;
        }
        self.assert_lists(at, &path, tree);
    }

    fn assert_lists(&mut self, ino: Ino, path: &str, tree: &Tree) -> Vec<(String, Ino)> {
        let (handle, _) = self.vfs.open_dir(ino).unwrap();
        let mut found = Vec::new();
        loop {
            let listing = self.vfs.listing(handle, found.is_empty()).unwrap();
            for _ in 0..1 + self.within(3) {
                let Some(child) = listing.child(found.len()) else {
                    break;
                };
                let entry = self.vfs.entry_of(&child).unwrap();
                assert_eq!(self.vfs.ino_of(&child), entry.ino);
                self.referenced(entry.ino);
                found.push((String::from_utf8(child.name).unwrap(), entry.ino));
            }
            if listing.child(found.len()).is_none() {
                break;
            }
        }
        self.vfs.release_dir(handle);
        let mut names: Vec<&String> = found.iter().map(|(name, _)| name).collect();
        names.sort();
        assert!(
            names.iter().copied().eq(&reference::names(tree, path)),
            "{path}: {names:?}"
        );
        found
    }

    /// Compares all of a tree, and which of its names are one inode.
    fn whole(&mut self, top: Ino, tree: &Tree) {
        let mut rest = vec![(String::new(), top)];
        let mut inos: HashMap<Ino, (usize, String)> = HashMap::new();
        while let Some((directory, ino)) = rest.pop() {
            for (name, ino) in self.assert_lists(ino, &directory, tree) {
                let path = reference::join(&directory, &name);
                let seen = &tree[&path];
                let attr = self.vfs.attr(ino, Patience::Wait).unwrap();
                self.check(&attr, seen, tree, &path);
                let id = (seen.layer, seen.origin.clone());
                let before = inos.insert(ino, id.clone());
                assert!(before.is_none_or(|before| before == id), "{path}");
                if seen.kind() == FileKind::Directory {
                    rest.push((path, ino));
                }
            }
        }
        let files: BTreeSet<_> = tree
            .values()
            .map(|seen| (seen.layer, &seen.origin))
            .collect();
        assert_eq!(inos.len(), files.len(), "one number for each node");
    }

    /// Opens a file by chance, and keeps it open.
    fn hold(&mut self, top: Ino, tree: &Tree) {
        let is_file =
            |(_, seen): &(&String, &Seen)| matches!(seen.entry, reference::Entry::File(_));
        let files: Vec<_> = tree.iter().filter(is_file).collect();
        if files.is_empty() || self.held.len() >= 8 {
            return;
        }
        let (path, seen) = *pick(&mut self.random, &files);
        let mut at = top;
        for name in path.split('/') {
            at = self.step_into(at, name).unwrap().ino;
        }
        if let Ok((handle, _)) = self.vfs.open(at) {
            assert_eq!(self.layers[seen.layer].blob, Blob::Right, "{path}");
            self.held.push(Held {
                handle,
                bytes: seen.bytes().to_vec(),
                overwritten: false,
                layer: seen.layer,
            });
        }
    }

    fn let_go(&mut self) {
        if !self.held.is_empty() {
            let which = self.within(self.held.len());
            let held = self.held.swap_remove(which);
            self.vfs.release(held.handle);
        }
    }

    /// Open files say what they said, or that they cannot; never anything else.
    fn check_held(&mut self) {
        for at in 0..self.held.len() {
            let (handle, bytes) = (self.held[at].handle, self.held[at].bytes.clone());
            if let Err(error) = self.read(handle, &bytes) {
                assert!(self.held[at].overwritten, "{error}");
                assert_eq!(error.errno(), libc::EBADMSG, "{error}");
            }
        }
    }

    fn forget_all(&mut self) {
        for (ino, count) in self.references.drain() {
            self.vfs.forget(ino, count);
            assert!(matches!(self.vfs.node(ino), Err(Error::Stale)));
        }
        assert_eq!(self.vfs.referenced(), 0);
    }
}

fn one_layer(layout: &TestLayout, number: usize, random: &mut Random) -> (OneLayer, Stored) {
    let entries = reference::random_layer(random);
    let tar = reference::tar_of(&entries, number);
    let kinds = [
        Compression::None,
        Compression::Gzip,
        Compression::GzipMembers(3000),
        Compression::Zstd,
        Compression::ZstdFrames(4000),
    ];
    let stored = layout.layer_of_tar(kinds[number % kinds.len()], &tar);
    let path = layout.blob_path(&stored.descriptor);
    let bytes = fs::read(&path).unwrap();
    let layer = OneLayer {
        entries,
        path,
        bytes,
        blob: Blob::Right,
    };
    (layer, stored)
}

fn image(
    layout: &TestLayout,
    number: usize,
    all: &[OneLayer],
    stored: &[Stored],
    random: &mut Random,
) -> Image {
    let count = random.within(1..5);
    let mut layers = Vec::new();
    // A layer twice would give two nodes the same attributes here.
    while (layers.len() as u64) < count {
        let at = usize::try_from(random.within(0..LAYERS as u64)).unwrap();
        if !layers.contains(&at) {
            layers.push(at);
        }
    }
    let of_image: Vec<Stored> = layers.iter().map(|at| stored[*at].clone()).collect();
    Image {
        // Images of the same layers would be one, and known together.
        descriptor: layout.image_with(&of_image, &json!({"author": number.to_string()})),
        tree: reference::apply(layers.iter().map(|at| (*at, &all[*at].entries))),
        layers,
        known: false,
    }
}

#[test]
fn file_trees_are_what_the_reference_says() {
    let mut harness = Harness::new(Random::new());
    for _ in 0..OPERATIONS {
        harness.step();
    }
}
