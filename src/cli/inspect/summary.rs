//! A layout as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use ocifs::oci::Descriptor;
use ocifs::oci::index::Entry;
use ocifs::vfs;
use ocifs::vfs::views::names;
use ocifs::vfs::views::refs::{Here, Target};
use serde_json::{Value, json};

use super::super::error::Status;
use super::super::{format, output, tree};
use super::{Problem, Source, row};

/// What can be said of a layout without reading a blob.
#[derive(Debug)]
pub(super) struct Summary {
    path: String,
    refs: usize,
    entries: usize,
    unnamed: usize,
    blobs: u64,
    bytes: u64,
    /// Ref names of several entries that are not one image for several platforms.
    duplicates: Vec<String>,
    pub(super) problems: Vec<Problem>,
}

impl Summary {
    /// Looks at the index and at the names and sizes of the blobs.
    ///
    /// # Errors
    /// If the blobs cannot be listed.
    pub(super) fn of(source: &Source) -> anyhow::Result<Self> {
        let snapshot = source.views.snapshot();
        let entries = snapshot.view().entries();
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for name in entries.iter().filter_map(|entry| entry.ref_name.as_deref()) {
            *names.entry(name).or_default() += 1;
        }
        let (blobs, bytes) = blobs(source)?;
        let unnamed =
            |entry: &&Arc<Entry>| entry.ref_name.is_none() && entry.containerd_name.is_none();
        Ok(Self {
            path: source.blobs.path().to_string_lossy().into_owned(),
            refs: tree::refs(&source.views).len(),
            entries: entries.len(),
            unnamed: entries.iter().filter(unnamed).count(),
            blobs,
            bytes,
            duplicates: names
                .iter()
                .filter(|(name, count)| **count > 1 && !is_multi_platform(source, name))
                .map(|(name, _)| (*name).to_owned())
                .collect(),
            problems: problems(source),
        })
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "layout": self.path,
            "refs": self.refs,
            "entries": self.entries,
            "unnamed_entries": self.unnamed,
            "blobs": self.blobs,
            "blob_bytes": self.bytes,
            "duplicate_names": self.duplicates,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = output::printable(self.path.as_bytes());
        row(&mut text, "refs", &self.refs.to_string());
        let entries = match self.unnamed {
            0 => self.entries.to_string(),
            unnamed => format!("{}, {unnamed} without a name", self.entries),
        };
        row(&mut text, "entries", &entries);
        let size = format::size(self.bytes);
        row(&mut text, "blobs", &format!("{}, {size}", self.blobs));
        for name in &self.duplicates {
            row(&mut text, "duplicate", &super::clean(name));
        }
        text
    }
}

/// Whether the entries of one name are shown together.
fn is_multi_platform(source: &Source, name: &str) -> bool {
    let snapshot = source.views.snapshot();
    let level = snapshot.find(&names::levels(name));
    let here = level.and_then(|level| level.here.as_deref());
    matches!(
        here,
        Some(Here::Image {
            target: Target::Platforms(_),
            ..
        })
    )
}

/// Number and size of the layout's own blobs.
fn blobs(source: &Source) -> Result<(u64, u64), vfs::Error> {
    let (mut count, mut bytes) = (0, 0);
    for algorithm in source.blobs.list_algorithms()? {
        for digest in source.blobs.list_blobs(&algorithm)? {
            // One that has just been removed does not count.
            if let Ok(file) = source.blobs.identify(&digest) {
                count += 1;
                bytes += file.size;
            }
        }
    }
    Ok((count, bytes))
}

/// The entries of the index that are malformed, or whose blob is not there.
fn problems(source: &Source) -> Vec<Problem> {
    let snapshot = source.views.snapshot();
    let mut problems = Vec::new();
    for (number, entry) in snapshot.view().entries().iter().enumerate() {
        let name = entry.containerd_name.as_ref().or(entry.ref_name.as_ref());
        let of = name.map_or_else(|| format!("entry {number}"), Clone::clone);
        match &entry.descriptor {
            Ok(descriptor) => problems.extend(blob_problem(source, descriptor, &of)),
            Err(error) => problems.push(Problem::new(of, &error.clone().into())),
        }
    }
    problems
}

/// What is wrong with a blob, as far as it shows without reading it.
pub(super) fn blob_problem(source: &Source, descriptor: &Descriptor, of: &str) -> Option<Problem> {
    let size = match source.blobs.identify(&descriptor.digest) {
        Ok(file) => file.size,
        Err(error) => return Some(Problem::new(of, &error.into())),
    };
    if size == descriptor.size {
        return None;
    }
    let (digest, said) = (&descriptor.digest, descriptor.size);
    let text = format!("blob {digest} has {size} bytes, its descriptor says {said}");
    Some(Problem {
        of: of.to_owned(),
        code: "BLOB_SIZE",
        text,
        status: Status::Corrupt,
    })
}
