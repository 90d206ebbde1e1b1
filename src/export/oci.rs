//! The members of an oci-archive.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::graph::{Foreign, Found, Graph};
use super::plan::Member;
use super::{Error, Names, Root};
use crate::oci::{Descriptor, Digest, MediaType, Platform, annotations};
use crate::store::BlobSource;

/// The members of an archive by their paths, and what they were found by.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) members: BTreeMap<String, Member>,
    pub(super) found: Found,
}

/// What an archive of `roots` holds.
///
/// # Errors
/// What is wrong with a document, or with the whole.
pub(super) fn contents(blobs: &dyn BlobSource, roots: &[Root]) -> Result<Contents, Error> {
    let mut graph = Graph::new(blobs, Foreign::MayBeMissing);
    let mut entries = Entries::default();
    for root in roots {
        for descriptor in &root.descriptors {
            graph.enter(descriptor);
            entries.add(descriptor, &root.names);
        }
    }
    Ok(layout_members(graph.finish()?, &entries))
}

/// The members of a layout with these blobs and these entries.
pub(super) fn layout_members(found: Found, entries: &Entries) -> Contents {
    let marker = json!({"imageLayoutVersion": "1.0.0"});
    let mut members = BTreeMap::from([
        ("oci-layout".to_owned(), Member::document(&marker)),
        ("index.json".to_owned(), Member::document(&entries.index())),
        ("blobs/".to_owned(), Member::Directory),
    ]);
    for (digest, descriptor) in &found.blobs {
        let directory = format!("blobs/{}/", digest.algorithm_name());
        members.insert(directory, Member::Directory);
        members.insert(
            blob_path(digest),
            Member::Blob(Box::new(descriptor.clone())),
        );
    }
    Contents { members, found }
}

/// Where an archive has the blob of `digest`.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm_name(), digest.encoded())
}

/// The entries of an `index.json`, each once.
#[derive(Debug, Default)]
pub(super) struct Entries(Vec<Value>);

impl Entries {
    /// Adds an entry, unless the very same is there.
    pub(super) fn add(&mut self, descriptor: &Descriptor, names: &Names) {
        let entry = entry(descriptor, names);
        if !self.0.contains(&entry) {
            self.0.push(entry);
        }
    }

    fn index(&self) -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": MediaType::IMAGE_INDEX.as_str(),
            "manifests": self.0,
        })
    }
}

/// An entry says what the image is, and how it is called. Other annotations of the entry
/// belong to the layout that it was in: the archive hangs on digest and name.
fn entry(descriptor: &Descriptor, names: &Names) -> Value {
    let mut entry = Map::new();
    let mut put = |key: &str, value: Value| entry.insert(key.to_owned(), value);
    put("mediaType", descriptor.media_type.as_str().into());
    put("digest", descriptor.digest.as_str().into());
    put("size", descriptor.size.into());
    let names = [
        (annotations::CONTAINERD_NAME, &names.containerd_name),
        (annotations::REF_NAME, &names.ref_name),
    ];
    let names = names.into_iter();
    let names = names.filter_map(|(key, name)| Some((key.to_owned(), name.as_deref()?.into())));
    let names: Map<String, Value> = names.collect();
    if !names.is_empty() {
        put("annotations", names.into());
    }
    if let Some(platform) = &descriptor.platform {
        put("platform", platform_of(platform));
    }
    if let Some(artifact_type) = &descriptor.artifact_type {
        put("artifactType", artifact_type.as_str().into());
    }
    entry.into()
}

fn platform_of(platform: &Platform) -> Value {
    let mut object = json!({"architecture": platform.architecture, "os": platform.os});
    if let Some(version) = &platform.os_version {
        object["os.version"] = version.as_str().into();
    }
    if !platform.os_features.is_empty() {
        object["os.features"] = platform.os_features.clone().into();
    }
    if let Some(variant) = &platform.variant {
        object["variant"] = variant.as_str().into();
    }
    object
}
