//! Archives read in place: the tree that one shows is that of the layout it stands for.

mod changes;
mod hostile;
mod odd_tars;
mod same;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocifs::archive::read::Error;
use ocifs::archive::{Archive, ArchiveOptions};
use ocifs::layer::{Layers, LayersOptions};
use ocifs::oci::{Digest, Platform};
use ocifs::store::{BlobSource, CacheDir, Layout, Verdicts, View};
use ocifs::vfs::node::Node;
use ocifs::vfs::views::{Views, ViewsOptions};
use ocifs::vfs::{self, FileKind, Patience, Vfs};
use tempfile::TempDir;

type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// What a process reads layouts with.
#[derive(Debug)]
struct Reader {
    cache: Option<CacheDir>,
    verdicts: Arc<Verdicts>,
    layers: Arc<Layers>,
}

impl Reader {
    /// One that keeps nothing.
    fn new() -> Self {
        Self::with(None, LayersOptions::default().memory)
    }

    /// One that keeps nothing in memory either: whatever is read is decoded anew.
    fn forgetful() -> Self {
        Self::with(None, 1 << 13)
    }

    /// One that keeps what it learns in `cache`.
    fn keeping(cache: &Path) -> TestResult<Self> {
        let cache = CacheDir::open(cache)?;
        Ok(Self::with(Some(cache), LayersOptions::default().memory))
    }

    fn with(cache: Option<CacheDir>, memory: u64) -> Self {
        let verdicts = Arc::new(Verdicts::new(cache.as_ref()));
        let options = LayersOptions {
            cache: cache.clone(),
            memory,
            ..LayersOptions::default()
        };
        Self {
            cache,
            layers: Arc::new(Layers::new(options, verdicts.clone())),
            verdicts,
        }
    }

    fn archive(&self, path: &Path) -> Result<Archive, Error> {
        let options = ArchiveOptions {
            layers: &self.layers,
            verdicts: &self.verdicts,
            cache: self.cache.as_ref(),
        };
        Archive::open(path, &options)
    }

    /// The tree of a directory or an archive.
    fn tree(&self, path: &Path) -> TestResult<Arc<Vfs>> {
        let (blobs, view): (Arc<dyn BlobSource>, View) = if path.is_dir() {
            let layout = Layout::open(path, &[])?;
            let view = layout.read_index()?;
            (Arc::new(layout), view)
        } else {
            let archive = self.archive(path)?;
            let view = archive.view().clone();
            (Arc::new(archive), view)
        };
        let options = ViewsOptions {
            platform: Platform::new("linux", "amd64"),
            ..ViewsOptions::default()
        };
        let (layers, verdicts) = (self.layers.clone(), self.verdicts.clone());
        let views = Views::new(blobs.clone(), view, layers, verdicts, options)?;
        Ok(Arc::new(Vfs::new(views.root(), blobs)))
    }
}

/// An archive in a directory of its own.
#[derive(Debug)]
struct Stored {
    dir: TempDir,
}

impl Stored {
    fn new(bytes: &[u8]) -> TestResult<Self> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("archive"), bytes)?;
        Ok(Self { dir })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("archive")
    }
}

/// Everything in a tree, by its path, in words that fit whatever it is read from.
type Dump = BTreeMap<String, String>;

fn dump_of(bytes: &[u8]) -> TestResult<Dump> {
    let stored = Stored::new(bytes)?;
    let reader = Reader::new();
    Ok(dump(&*reader.tree(&stored.path())?))
}

fn dump_of_path(path: &Path) -> TestResult<Dump> {
    let reader = Reader::new();
    Ok(dump(&*reader.tree(path)?))
}

fn dump(vfs: &Vfs) -> Dump {
    let mut found = Dump::new();
    for path in ["", ".ocifs/layout", ".ocifs/digests"] {
        let node = vfs.resolve(path.as_bytes()).expect("it is always there");
        walk(&*node, path, &mut found);
    }
    found
}

fn walk(node: &dyn Node, path: &str, found: &mut Dump) {
    let attr = node.attr(Patience::Wait).expect("it has attributes");
    // What no tar says has the time of the layout, or of the archive.
    let is_of_a_tar = path.contains("/rootfs/") || path.contains("/layers/00/");
    let is_entry = is_of_a_tar && node.kind() != FileKind::Directory;
    let time = is_entry.then_some((attr.mtime, attr.uid, attr.gid));
    let what = match node.kind() {
        FileKind::Regular => content(node),
        FileKind::Symlink => format!("{:?}", node.read_link()),
        kind => format!("{kind:?}"),
    };
    let said = format!("{:o} {} {time:?} {what}", attr.mode, attr.links);
    found.insert(path.to_owned(), said);
    if node.kind() == FileKind::Directory {
        for child in node.list().unwrap_or_default() {
            let name = String::from_utf8_lossy(&child.name);
            walk(&*child.node, &format!("{path}/{name}"), found);
        }
    }
}

/// Size and digest of a file, or why it cannot be read.
fn content(node: &dyn Node) -> String {
    match read(node) {
        Ok(bytes) => format!("{} {}", bytes.len(), Digest::of(&bytes)),
        Err(error) => format!("refused: {}", code(&error)),
    }
}

fn read(node: &dyn Node) -> Result<Vec<u8>, vfs::Error> {
    let file = node.open()?;
    let (mut bytes, mut buf) = (Vec::new(), vec![0; 100_000]);
    loop {
        match file.read(&mut buf, bytes.len() as u64)? {
            0 => return Ok(bytes),
            len => bytes.extend_from_slice(&buf[..len]),
        }
    }
}

fn code(error: &vfs::Error) -> &'static str {
    error.fault().map_or("OTHER", |fault| fault.code)
}

/// What of `one` is not so in `other`, and the other way round: a few lines of it.
fn differences(one: &Dump, other: &Dump) -> Vec<String> {
    let paths = one.keys().chain(other.keys());
    let differ = paths.filter(|path| one.get(*path) != other.get(*path));
    let say = |path: &String| format!("{path}: {:?} / {:?}", one.get(path), other.get(path));
    differ.map(say).take(6).collect()
}
