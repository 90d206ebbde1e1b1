//! A file tree in words, to be compared with another one.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::common::sha256_of_file;

/// How many differences a failed comparison shows.
const SHOWN: usize = 20;

/// What is at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Type and permissions.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Of regular files and symbolic links.
    pub(crate) size: u64,
    pub(crate) device: u64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, i64),
    /// Link count, and the first of all paths that are this file. Nothing of directories.
    pub(crate) links: Option<(u64, String)>,
    pub(crate) target: Option<Vec<u8>>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    /// The digest of the content of a regular file.
    pub(crate) content: String,
}

/// All that is below a directory, by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Walk(pub(crate) BTreeMap<Vec<u8>, Seen>);

impl Walk {
    /// Looks at everything below `root`, and reads all of it.
    pub(crate) fn of(root: &Path) -> Self {
        let mut walk = Self(BTreeMap::new());
        let mut first = HashMap::new();
        walk.directory(root, root, &mut first);
        walk
    }

    fn directory(&mut self, root: &Path, dir: &Path, first: &mut HashMap<(u64, u64), String>) {
        let entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut paths: Vec<_> = entries
            .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
            .iter()
            .map(fs::DirEntry::path)
            .collect();
        paths.sort();
        for path in paths {
            let seen = look(root, &path, first);
            let below = path.strip_prefix(root).expect("it is below");
            self.0.insert(below.as_os_str().as_bytes().to_vec(), seen);
            if path.symlink_metadata().is_ok_and(|stat| stat.is_dir()) {
                self.directory(root, &path, first);
            }
        }
    }

    /// What is at a path.
    pub(crate) fn at(&self, path: &str) -> &Seen {
        let seen = self.0.get(path.as_bytes());
        seen.unwrap_or_else(|| panic!("there is no {path}"))
    }

    /// Compares with what is right.
    ///
    /// # Panics
    /// With the first differences.
    pub(crate) fn assert_is(&self, expected: &Self, what: &str) {
        let mut paths: Vec<&Vec<u8>> = self.0.keys().chain(expected.0.keys()).collect();
        paths.sort();
        paths.dedup();
        let differs = |path: &&&Vec<u8>| self.0.get(**path) != expected.0.get(**path);
        let shown = |path: &&Vec<u8>| {
            let (found, right) = (self.0.get(*path), expected.0.get(*path));
            format!("{}:\n  {found:?}\n  {right:?}", path.escape_ascii())
        };
        let all: Vec<_> = paths.iter().filter(differs).map(shown).collect();
        assert!(
            all.is_empty(),
            "{what}: {} paths differ (found, expected):\n{}",
            all.len(),
            all[..all.len().min(SHOWN)].join("\n")
        );
    }
}

fn look(root: &Path, path: &Path, first: &mut HashMap<(u64, u64), String>) -> Seen {
    let fail = |error: std::io::Error| panic!("{}: {error}", path.display());
    let stat = fs::symlink_metadata(path).unwrap_or_else(fail);
    let is = |kind: u32| stat.mode() & libc::S_IFMT == kind;
    let id = (stat.dev(), stat.ino());
    let below = path.strip_prefix(root).expect("it is below");
    let name = below.as_os_str().as_bytes().escape_ascii().to_string();
    let name = first.entry(id).or_insert(name).clone();
    Seen {
        mode: stat.mode(),
        owner: (stat.uid(), stat.gid()),
        size: if is(libc::S_IFREG) || is(libc::S_IFLNK) {
            stat.size()
        } else {
            0
        },
        device: stat.rdev(),
        mtime: (stat.mtime(), stat.mtime_nsec()),
        links: (!stat.is_dir()).then(|| (stat.nlink(), name)),
        target: is(libc::S_IFLNK).then(|| {
            let target = fs::read_link(path).unwrap_or_else(|error| panic!("{error}"));
            target.as_os_str().as_bytes().to_vec()
        }),
        xattrs: xattrs(path),
        content: if is(libc::S_IFREG) {
            sha256_of_file(path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
                .to_string()
        } else {
            String::new()
        },
    }
}

/// All extended attributes that are listed, with their values.
pub(crate) fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, buffer.as_mut_slice())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let names = buffer[..len].split(|byte| *byte == 0);
    let names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), value.as_mut_slice())
            .unwrap_or_else(|error| panic!("{}: {}: {error}", path.display(), name.escape_ascii()));
        value.truncate(len);
        (name.escape_ascii().to_string(), value)
    };
    names.into_iter().map(value).collect()
}
