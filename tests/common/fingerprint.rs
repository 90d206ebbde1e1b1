//! Whether a directory is what it was, to the last byte.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::tool::sha256_of_file;

/// Every path below a directory, with what is there: kind and mode, and for files the
/// digest of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(BTreeMap<PathBuf, String>);

impl Fingerprint {
    /// Looks at all of `dir`.
    pub fn of(dir: &Path) -> Self {
        let mut found = BTreeMap::new();
        add(dir, dir, &mut found);
        Self(found)
    }
}

fn add(root: &Path, path: &Path, found: &mut BTreeMap<PathBuf, String>) {
    let metadata = fs::symlink_metadata(path).expect("it is there");
    let mut text = format!("{:o}", metadata.mode());
    if metadata.is_file() {
        let digest = sha256_of_file(path).expect("a file is readable");
        text = format!("{text} {digest}");
    }
    let below = path.strip_prefix(root).expect("it is below");
    found.insert(below.to_owned(), text);
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("a directory is readable") {
            add(root, &entry.expect("an entry is readable").path(), found);
        }
    }
}
