//! What a layout on a simulated disk says, everything verified.

use std::collections::BTreeSet;

use serde_json::Value;

use super::SimulatedDisk;
use super::below::SHARED;
use crate::oci::{Algorithm, Digest, json};

/// What a layout says: the entries of its index in any order, and the rest of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sight {
    entries: Vec<String>,
    rest: String,
}

impl Sight {
    /// Looks at the index, and at everything that it leads to.
    pub(crate) fn of(disk: &SimulatedDisk) -> Result<Self, String> {
        let bytes = disk.read("index.json").map_err(|e| format!("index: {e}"))?;
        let mut index = json::parse(&bytes).map_err(|e| format!("index: {e}"))?;
        let entries = index["manifests"].take();
        let entries = entries.as_array().ok_or("index: no list of entries")?;
        let mut seen = BTreeSet::new();
        for entry in entries {
            follow(disk, entry, &mut seen)?;
        }
        let mut entries: Vec<String> = entries.iter().map(Value::to_string).collect();
        entries.sort();
        let rest = index.to_string();
        Ok(Self { entries, rest })
    }

    pub(crate) fn entries(&self) -> &[String] {
        &self.entries
    }
}

/// Sees that a blob is there and right, and all that it names.
fn follow(
    disk: &SimulatedDisk,
    descriptor: &Value,
    seen: &mut BTreeSet<String>,
) -> Result<(), String> {
    let digest = descriptor["digest"].as_str().ok_or("no digest")?;
    if !seen.insert(digest.to_owned()) {
        return Ok(());
    }
    let bytes = check_blob(disk, &digest.replace(':', "/"))?;
    if descriptor["size"].as_u64() != Some(bytes.len() as u64) {
        return Err(format!("blob {digest} has {} bytes", bytes.len()));
    }
    let Ok(document) = json::parse(&bytes) else {
        return Ok(());
    };
    let lists = ["layers", "manifests"].map(|key| document[key].as_array());
    for named in lists.into_iter().flatten().flatten() {
        follow(disk, named, seen)?;
    }
    match document.get("config") {
        Some(config) if config.get("digest").is_some() => follow(disk, config, seen),
        _ => Ok(()),
    }
}

/// The bytes of the blob at `blobs/PATH`, or else in the shared directory, which must be
/// right.
pub(super) fn check_blob(disk: &SimulatedDisk, path: &str) -> Result<Vec<u8>, String> {
    let own = disk.read(&format!("blobs/{path}"));
    let bytes = own
        .or_else(|_| disk.read(&format!("{SHARED}/{path}")))
        .map_err(|error| format!("blob {path}: {error}"))?;
    let expected: Digest = path
        .replace('/', ":")
        .parse()
        .map_err(|error| format!("blob {path}: {error}"))?;
    match expected.algorithm() {
        Algorithm::Sha256 if Digest::of(&bytes) != expected => {
            Err(format!("blob {path} is damaged"))
        }
        _ => Ok(bytes),
    }
}
