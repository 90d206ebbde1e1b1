//! The tree against a model of it: a table of ref names and bytes.
//!
//! Random operations of a kernel (lookup, list, open, read, forget) and of the outside
//! world (refs that come, move and go; blobs that vanish and come back) are done to a
//! [`Vfs`] without FUSE and to the model. After each one, what the tree shows must be what
//! the model says, and the numbers of inodes must keep their promises.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod reference;
mod rootfs;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use common::{Compression, Random, TestLayout, digest_of};
use ocifs::layer::{Layers, LayersOptions};
use ocifs::store::{Layout, Verdicts};
use ocifs::vfs::views::{Views, ViewsOptions};
use ocifs::vfs::{Handle, Ino, NodeKey, OpenFile, Patience, Vfs};
use serde_json::{Value, json};

/// How many operations are done.
const OPERATIONS: usize = 20_000;

/// Few names, so that they meet: each is a prefix of another, or reserved.
const NAMES: [&str; 8] = [
    "a", "a/b", "a/b/c", "b", "layers", "a/layers", "incoming", ".x",
];

/// How many different images there are.
const IMAGES: usize = 5;

/// What one image is, worked out without the program.
struct Image {
    descriptor: Value,
    manifest: Vec<u8>,
    tar: Vec<u8>,
    layer_blob: PathBuf,
}

/// A file that is held open, and what it must go on saying.
struct Held {
    handle: Handle,
    bytes: Vec<u8>,
}

/// An artifact about an image.
struct Attached {
    descriptor: Value,
    digest: String,
    image: usize,
    is_there: bool,
}

struct Harness {
    layout: TestLayout,
    images: Vec<Image>,
    attached: Vec<Attached>,
    /// The model: which image each name shows.
    refs: BTreeMap<&'static str, usize>,
    opened: Arc<Layout>,
    views: Arc<Views>,
    vfs: Vfs,
    /// How many references the kernel would hold.
    references: HashMap<Ino, u64>,
    /// What each number has meant, ever.
    meanings: HashMap<Ino, NodeKey>,
    /// The directory number of each name when it last showed an image.
    shown: HashMap<&'static str, (usize, Ino)>,
    used: HashMap<&'static str, Vec<Ino>>,
    held: Vec<Held>,
    random: Random,
}

impl Harness {
    fn new(mut random: Random) -> Self {
        let layout = TestLayout::new();
        let images: Vec<Image> = (0..IMAGES)
            .map(|number| image(&layout, number, &mut random))
            .collect();
        let attached = attached(&layout, &images);
        layout.write_entries(&[]);
        let opened = Arc::new(Layout::open(layout.path(), &[]).unwrap());
        let view = opened.read_index().unwrap();
        let verdicts = Arc::new(Verdicts::new(None));
        let options = LayersOptions {
            memory: 1 << 13,
            ..LayersOptions::default()
        };
        let layers = Arc::new(Layers::new(options, verdicts.clone()));
        let options = ViewsOptions::default();
        let views = Views::new(opened.clone(), view, layers, verdicts, options).unwrap();
        let vfs = Vfs::new(views.root(), opened.clone());
        Self {
            layout,
            images,
            attached,
            refs: BTreeMap::new(),
            opened,
            views,
            vfs,
            references: HashMap::new(),
            meanings: HashMap::new(),
            shown: HashMap::new(),
            used: HashMap::new(),
            held: Vec::new(),
            random,
        }
    }

    fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.random.within(0..count as u64)).unwrap()
    }

    /// One operation, by chance.
    fn step(&mut self) {
        let name = NAMES[self.pick(NAMES.len())];
        match self.pick(14) {
            12 => self.attach_or_detach(),
            13 => self.look_at_referrers(name),
            0 => self.set(name),
            1 => self.remove(name),
            2 => self.list(),
            3 => self.hold(name),
            4 => self.let_go(),
            5 => self.forget_all(),
            6 => self.lose_and_find_a_layer(name),
            7 | 8 => self.read_layer(name),
            _ => self.look(name),
        }
        self.check_held();
    }

    /// Writes index.json as the model has it, and lets the tree see it.
    fn publish(&mut self) {
        let named = self.refs.iter().map(|(name, image)| {
            let mut entry = self.images[*image].descriptor.clone();
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
            entry
        });
        let attached = self.attached.iter().filter(|attached| attached.is_there);
        let attached = attached.map(|attached| attached.descriptor.clone());
        let entries: Vec<Value> = named.chain(attached).collect();
        self.layout.write_entries(&entries);
        let view = self.opened.read_index().unwrap();
        self.views.refresh(view);
    }

    fn set(&mut self, name: &'static str) {
        let image = self.pick(IMAGES);
        self.refs.insert(name, image);
        self.publish();
    }

    fn remove(&mut self, name: &'static str) {
        self.refs.remove(name);
        self.publish();
    }

    /// Adds an entry for an artifact, or takes it away.
    fn attach_or_detach(&mut self) {
        let which = self.pick(self.attached.len());
        self.attached[which].is_there ^= true;
        self.publish();
    }

    /// What is about the image of a name are those artifacts that the index has, in the
    /// directories of their types, whichever name it is.
    fn look_at_referrers(&mut self, name: &'static str) {
        let Some(image) = self.refs.get(name).copied() else {
            return;
        };
        let path = format!("{}/referrers", written(name));
        for artifact_type in ["a%2Feven", "a%2Fodd"] {
            let expected = self.expected_referrers(image, artifact_type);
            let path = format!("{path}/{artifact_type}");
            let Some(directory) = self.walk(&path) else {
                assert!(expected.is_empty(), "{path} is not there");
                continue;
            };
            let (handle, _) = self.vfs.open_dir(directory).unwrap();
            let listing = self.vfs.listing(handle, true).unwrap();
            let found = (0..).map_while(|at| listing.child(at));
            let found: Vec<String> = found
                .map(|child| String::from_utf8_lossy(&child.name).into_owned())
                .collect();
            self.vfs.release_dir(handle);
            assert_eq!(found, expected, "{path}");
            let file = self.walk(&format!("{path}/{}/files/about", expected[0]));
            let about = self.bytes(file.unwrap());
            assert_eq!(about[0], u8::try_from(image).unwrap(), "{path}");
        }
    }

    fn expected_referrers(&self, image: usize, artifact_type: &str) -> Vec<String> {
        let all = self.attached.iter().enumerate();
        let is_shown = |(number, attached): &(usize, &Attached)| {
            attached.is_there && attached.image == image && written_type(*number) == artifact_type
        };
        let mut digests: Vec<String> = all
            .filter(is_shown)
            .map(|(_, attached)| attached.digest.clone())
            .collect();
        digests.sort();
        digests
    }

    /// Looks a path up component by component, as a kernel does.
    fn walk(&mut self, path: &str) -> Option<Ino> {
        let mut at = Ino::ROOT;
        for name in path.split('/') {
            let entry = self.vfs.lookup(at, name.as_bytes()).ok()?;
            *self.references.entry(entry.ino).or_default() += 1;
            let key = self.vfs.node(entry.ino).unwrap().key();
            let before = self.meanings.insert(entry.ino, key.clone());
            assert!(
                before.is_none_or(|before| before == key),
                "{} has two meanings",
                entry.ino.0
            );
            at = entry.ino;
        }
        Some(at)
    }

    /// What a name shows must be the bytes of the model's image, or nothing.
    fn look(&mut self, name: &'static str) {
        let path = written(name);
        let manifest = self.walk(&format!("{path}/manifest.json"));
        let Some(image) = self.refs.get(name).copied() else {
            assert!(manifest.is_none(), "{name} shows something and should not");
            self.shown.remove(name);
            return;
        };
        let manifest = manifest.unwrap_or_else(|| panic!("{name} is not there"));
        assert_eq!(self.bytes(manifest), self.images[image].manifest, "{name}");
        self.check_directory(name, image, &path);
    }

    /// The directory of a name keeps its number while it shows the same image, and gets
    /// one that was never used when it shows another.
    fn check_directory(&mut self, name: &'static str, image: usize, path: &str) {
        let directory = self.walk(path).unwrap();
        match self.shown.insert(name, (image, directory)) {
            Some((before, ino)) if before == image && ino != directory => {
                // It may have shown another image in between that nobody looked at.
                assert!(
                    !self
                        .used
                        .get(name)
                        .is_some_and(|used| used.contains(&directory))
                );
            }
            Some((before, ino)) if before != image => {
                assert_ne!(ino, directory, "{name} shows another image");
                assert!(
                    !self
                        .used
                        .get(name)
                        .is_some_and(|used| used.contains(&directory))
                );
            }
            _ => {}
        }
        let used = self.used.entry(name).or_default();
        if used.last() != Some(&directory) {
            used.push(directory);
        }
    }

    fn bytes(&mut self, ino: Ino) -> Vec<u8> {
        let (handle, file) = self.vfs.open(ino).unwrap();
        let mut bytes = vec![0; 1 << 16];
        let len = file.read(&mut bytes, 0).unwrap();
        self.vfs.release(handle);
        bytes.truncate(len);
        bytes
    }

    /// The top of the tree lists the first levels of all names, and nothing else.
    fn list(&mut self) {
        let (handle, _) = self.vfs.open_dir(Ino::ROOT).unwrap();
        let listing = self.vfs.listing(handle, true).unwrap();
        let children: Vec<_> = (0..).map_while(|at| listing.child(at)).collect();
        let mut found: Vec<String> = children
            .iter()
            .map(|child| String::from_utf8_lossy(&child.name).into_owned())
            .collect();
        for child in &children {
            let listed = self.vfs.ino_of(child);
            let entry = self.vfs.entry_of(child).unwrap();
            assert_eq!(listed, entry.ino, "a listing and a lookup agree");
            self.vfs.forget(entry.ino, 1);
        }
        self.vfs.release_dir(handle);
        let first = |name: &&str| written(name).split('/').next().unwrap().to_owned();
        let mut expected: Vec<String> = self.refs.keys().map(first).collect();
        expected.push("incoming".into());
        let attached = self.attached.iter().filter(|attached| attached.is_there);
        expected.extend(attached.map(|attached| attached.digest.clone()));
        expected.sort();
        expected.dedup();
        found.sort();
        assert_eq!(found, expected);
    }

    /// Opens a layer and keeps it open.
    fn hold(&mut self, name: &'static str) {
        let Some(image) = self.refs.get(name).copied() else {
            return;
        };
        if self.held.len() >= 8 {
            return;
        }
        let layer = self
            .walk(&format!("{}/layers/00.tar", written(name)))
            .unwrap();
        let (handle, _) = self.vfs.open(layer).unwrap();
        self.held.push(Held {
            handle,
            bytes: self.images[image].tar.clone(),
        });
    }

    fn let_go(&mut self) {
        if !self.held.is_empty() {
            let which = self.pick(self.held.len());
            let held = self.held.swap_remove(which);
            self.vfs.release(held.handle);
            assert!(
                self.vfs.read(held.handle, &mut [0], 0).is_err(),
                "a closed handle"
            );
        }
    }

    /// Whatever happened to their names, open files say what they said.
    fn check_held(&mut self) {
        for at in 0..self.held.len() {
            let size = self.held[at].bytes.len();
            let (offset, len) = (self.pick(size + 10), self.pick(2000));
            let held = &self.held[at];
            let mut buf = vec![0; len];
            let read = self.vfs.read(held.handle, &mut buf, offset as u64).unwrap();
            let expected = held.bytes.get(offset..).unwrap_or_default();
            let expected = &expected[..expected.len().min(len)];
            assert_eq!(&buf[..read], expected, "{len} bytes at {offset}");
        }
    }

    fn read_layer(&mut self, name: &'static str) {
        let Some(image) = self.refs.get(name).copied() else {
            return;
        };
        let layer = self
            .walk(&format!("{}/layers/00.tar", written(name)))
            .unwrap();
        let (handle, file) = self.vfs.open(layer).unwrap();
        let tar = &self.images[image].tar;
        assert_eq!(
            self.vfs.attr(layer, Patience::Wait).unwrap().size,
            tar.len() as u64,
            "{name}"
        );
        let mut bytes = vec![0; tar.len() + 1];
        let len = read_full(&*file, &mut bytes);
        assert_eq!(&bytes[..len], &tar[..], "{name}");
        self.vfs.release(handle);
    }

    /// A layer whose blob is gone is listed and says so; it opens when the blob is back.
    fn lose_and_find_a_layer(&mut self, name: &'static str) {
        let Some(image) = self.refs.get(name).copied() else {
            return;
        };
        let path = self.images[image].layer_blob.clone();
        let aside = path.with_extension("aside");
        std::fs::rename(&path, &aside).unwrap();
        let layer = self
            .walk(&format!("{}/layers/00.tar", written(name)))
            .unwrap();
        let error = self.vfs.open(layer).unwrap_err();
        assert_eq!(error.errno(), libc::ENODATA);
        assert!(self.vfs.attr(layer, Patience::Wait).is_ok());
        std::fs::rename(&aside, &path).unwrap();
        let (handle, _) = self.vfs.open(layer).unwrap();
        self.vfs.release(handle);
    }

    /// The kernel gives everything back, and nothing is left.
    fn forget_all(&mut self) {
        for (ino, count) in self.references.drain() {
            let (some, rest) = (count / 2, count - count / 2);
            self.vfs.forget(ino, some);
            assert!(
                self.vfs.node(ino).is_ok(),
                "{count} references, {some} given back"
            );
            self.vfs.forget(ino, rest);
            assert!(
                self.vfs.node(ino).is_err(),
                "all {count} references given back"
            );
        }
        assert_eq!(self.vfs.referenced(), 0);
    }
}

fn read_full(file: &dyn OpenFile, buf: &mut [u8]) -> usize {
    let mut len = 0;
    while len < buf.len() {
        match file.read(&mut buf[len..], len as u64).unwrap() {
            0 => break,
            step => len += step,
        }
    }
    len
}

/// How the few names of this test are written as paths.
fn written(name: &str) -> String {
    match name {
        "a/layers" => "a/%6Cayers".into(),
        "incoming" => "%69ncoming".into(),
        ".x" => "%2Ex".into(),
        other => other.into(),
    }
}

/// The directory of the type of an artifact.
fn written_type(number: usize) -> &'static str {
    ["a%2Feven", "a%2Fodd"][number % 2]
}

/// An artifact of each of two types about each image.
fn attached(layout: &TestLayout, images: &[Image]) -> Vec<Attached> {
    let all = (0..images.len() * 2).map(|number| {
        let image = number / 2;
        let bytes = [image, number].map(|byte| u8::try_from(byte).unwrap());
        let artifact_type = ["a/even", "a/odd"][number % 2];
        let subject = &images[image].descriptor;
        let descriptor = layout.artifact(artifact_type, "about", &bytes, Some(subject));
        Attached {
            digest: digest_of(&descriptor).to_string(),
            descriptor,
            image,
            is_there: false,
        }
    });
    all.collect()
}

/// An image with one layer of noise and text, in one of the compressions.
fn image(layout: &TestLayout, number: usize, random: &mut Random) -> Image {
    let mut noise = vec![0; 3_000];
    random.fill(&mut noise);
    let text = format!("image {number}\n").repeat(300);
    let files = [("noise", &noise[..]), ("text", text.as_bytes())];
    let compression = [
        Compression::None,
        Compression::Gzip,
        Compression::GzipMembers(3),
        Compression::Zstd,
        Compression::ZstdFrames(4),
    ][number % 5];
    let layer = layout.layer(compression, &files);
    let layer_blob = layout.blob_path(&layer.descriptor);
    let descriptor = layout.image(&[layer]);
    let manifest = std::fs::read(layout.blob_path(&descriptor)).unwrap();
    assert_eq!(ocifs::Digest::of(&manifest), digest_of(&descriptor));
    Image {
        descriptor,
        manifest,
        tar: common::tar_of(&files),
        layer_blob,
    }
}

#[test]
fn the_tree_is_what_the_model_says() {
    let mut harness = Harness::new(Random::new());
    for _ in 0..OPERATIONS {
        harness.step();
    }
}
