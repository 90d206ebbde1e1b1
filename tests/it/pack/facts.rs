//! What there is to know of a tree: on a disk, and in a layer.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use ocifs::layer::tree::{Kind, NodeId};
use ocifs::layer::{Layer, Layers, LayersOptions};
use ocifs::oci::Digest;
use ocifs::store::{Blob, Verdicts};
use ocifs::stream::TarOffset;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fstat, lgetxattr, llistxattr, major,
    minor, openat, readlinkat, seek, statat,
};
use rustix::io::Errno;

use crate::sample::TestResult;

/// One name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fact {
    pub(super) letter: char,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: (i64, u32),
    pub(super) device: (u32, u32),
    pub(super) target: Vec<u8>,
    pub(super) bytes: Vec<u8>,
    /// Where a file has data: start and end.
    pub(super) data: Vec<(u64, u64)>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same file.
    pub(super) first: Vec<u8>,
}

/// All names, by path; the root is the empty one.
pub(super) type Facts = BTreeMap<Vec<u8>, Fact>;

impl Fact {
    /// All but the bytes of a file, in one line.
    fn describe(&self) -> String {
        let bytes = Digest::of(&self.bytes);
        let brief = Self {
            bytes: Vec::new(),
            first: Vec::new(),
            ..self.clone()
        };
        let (len, first) = (self.bytes.len(), self.first.escape_ascii());
        format!("{brief:?}, {len} bytes {bytes}, first {first}")
    }
}

/// The first difference between two trees, in words.
pub(super) fn difference(ours: &Facts, theirs: &Facts) -> Option<String> {
    let paths = ours.keys().chain(theirs.keys());
    let mut paths = paths.filter(|path| ours.get(*path) != theirs.get(*path));
    paths.next().map(|path| {
        let [ours, theirs] = [ours, theirs].map(|facts| facts.get(path).map(Fact::describe));
        format!("{}:\n{ours:?}\n{theirs:?}", path.escape_ascii())
    })
}

/// What is in a directory of a disk.
pub(super) fn of_disk(root: &Path) -> TestResult<Facts> {
    let root = openat(CWD, root, OFlags::DIRECTORY, Mode::empty())?;
    let mut facts = Facts::new();
    let mut firsts = HashMap::new();
    visit(&root, Vec::new(), &mut facts)?;
    // In the order of the tree and not of the paths, where "a-" is before "a/".
    let mut paths: Vec<_> = facts.keys().cloned().collect();
    paths.sort_by_cached_key(|path| key(path));
    for path in paths {
        let fact = facts.get_mut(&path).expect("it was just there");
        let id = std::mem::take(&mut fact.first);
        fact.first = firsts.entry(id).or_insert(path).clone();
    }
    Ok(facts)
}

/// By which the paths of a tree are sorted.
fn key(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .map(<[u8]>::to_vec)
        .collect()
}

fn visit(directory: &OwnedFd, path: Vec<u8>, facts: &mut Facts) -> TestResult {
    let stat = fstat(directory)?;
    facts.insert(path.clone(), fact(directory, ".", &stat)?);
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let below = match path.as_slice() {
            [] => name.to_bytes().to_vec(),
            path => [path, name.to_bytes()].join(&b'/'),
        };
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
            visit(
                &openat(directory, name, flags, Mode::empty())?,
                below,
                facts,
            )?;
        } else {
            facts.insert(below, fact(directory, name, &stat)?);
        }
    }
    Ok(())
}

fn fact(directory: &OwnedFd, name: impl rustix::path::Arg, stat: &Stat) -> TestResult<Fact> {
    let name = name.into_c_str()?.into_owned();
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mut fact = Fact {
        letter: letter(kind),
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec)?),
        first: format!("{}:{}", stat.st_dev, stat.st_ino).into_bytes(),
        xattrs: xattrs(directory, &name)?,
        ..Fact::default()
    };
    match kind {
        FileType::Symlink => {
            fact.target = readlinkat(directory, &*name, Vec::new())?.into_bytes();
        }
        FileType::CharacterDevice | FileType::BlockDevice => {
            fact.device = (major(stat.st_rdev), minor(stat.st_rdev));
        }
        FileType::RegularFile => {
            let file = openat(directory, &*name, OFlags::RDONLY, Mode::empty())?;
            let mut file = File::from(file);
            std::io::Read::read_to_end(&mut file, &mut fact.bytes)?;
            fact.data = data(&file, fact.bytes.len() as u64)?;
        }
        _ => {}
    }
    Ok(fact)
}

fn letter(kind: FileType) -> char {
    match kind {
        FileType::Directory => 'd',
        FileType::RegularFile => 'f',
        FileType::Symlink => 'l',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::Unknown => '?',
    }
}

fn xattrs(directory: &OwnedFd, name: &CString) -> TestResult<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let path = CString::new(path)?;
    let mut names = vec![0; 64 << 10];
    let len = llistxattr(&*path, &mut names[..])?;
    let mut xattrs = BTreeMap::new();
    for name in names[..len].split(|byte| *byte == 0) {
        if !name.is_empty() {
            let mut value = vec![0; 64 << 10];
            let len = lgetxattr(&*path, name, &mut value[..])?;
            xattrs.insert(name.to_vec(), value[..len].to_vec());
        }
    }
    Ok(xattrs)
}

fn data(file: &File, size: u64) -> TestResult<Vec<(u64, u64)>> {
    let (mut data, mut at) = (Vec::new(), 0);
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            other => other?,
        };
        at = seek(file, SeekFrom::Hole(start))?;
        data.push((start, at));
    }
    Ok(data)
}

/// A layer that was read as the mount reads it.
pub(super) fn open(blob: &[u8]) -> TestResult<(Layers, Arc<Layer>)> {
    let mut file = tempfile::tempfile()?;
    std::io::Write::write_all(&mut file, blob)?;
    let blob = Arc::new(Blob::new(Digest::of(blob), file)?);
    let layers = Layers::new(LayersOptions::default(), Arc::new(Verdicts::new(None)));
    let layer = layers.open(blob)?;
    Ok((layers, layer))
}

/// What our own reader makes of a layer.
pub(super) fn of_layer(blob: &[u8]) -> TestResult<Facts> {
    let (layers, layer) = open(blob)?;
    let tree = layers.tree(&layer)?;
    let mut facts = Facts::new();
    let mut firsts = HashMap::new();
    let mut todo = vec![(Vec::new(), NodeId::ROOT)];
    while let Some((path, id)) = todo.pop() {
        // Backwards, since the last is taken first.
        let below: Vec<_> = tree.list(id).collect();
        for (name, child) in below.into_iter().rev() {
            let path: Vec<u8> = match path.as_slice() {
                [] => name.to_vec(),
                path => [path, name].join(&b'/'),
            };
            todo.push((path, child));
        }
        let node = tree.node(id);
        let xattrs = tree.xattrs(id);
        let mut fact = Fact {
            mode: node.mode.into(),
            owner: (node.uid, node.gid),
            mtime: (node.mtime, node.mtime_nanoseconds),
            xattrs: xattrs
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect(),
            first: firsts.entry(id.0).or_insert_with(|| path.clone()).clone(),
            ..Fact::default()
        };
        match node.kind {
            Kind::Directory => fact.letter = 'd',
            Kind::File { .. } => {
                fact.letter = 'f';
                let content = tree.content(id).expect("it is a file");
                fact.bytes = vec![0; usize::try_from(content.size)?];
                for (start, tar_offset, len) in content.extents() {
                    let end = start + len;
                    let part = &mut fact.bytes[usize::try_from(start)?..usize::try_from(end)?];
                    layer.read_at(part, TarOffset(tar_offset))?;
                    fact.data.push((start, end));
                }
            }
            Kind::Symlink { target } => (fact.letter, fact.target) = ('l', target.to_vec()),
            Kind::CharDevice(device) => {
                (fact.letter, fact.device) = ('c', (device.major, device.minor));
            }
            Kind::BlockDevice(device) => {
                (fact.letter, fact.device) = ('b', (device.major, device.minor));
            }
            Kind::Fifo => fact.letter = 'p',
            Kind::Outer { .. } => return Err("a hard link without a target".into()),
        }
        facts.insert(path, fact);
    }
    Ok(facts)
}
