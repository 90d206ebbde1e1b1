//! A naive second opinion on a layout, that shares no code with what it judges.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::tool::sha256_of_file;

/// Checks that every blob that `index.json` leads to is there, with the right size and
/// sha256 digest, and that every document on the way is JSON.
///
/// # Panics
/// With all findings, if there are any.
pub fn verify_layout(layout: &Path) {
    let findings = findings(layout);
    assert!(
        findings.is_empty(),
        "{} is damaged:\n{}",
        layout.display(),
        findings.join("\n")
    );
}

/// What is wrong with the layout, one line each.
pub fn findings(layout: &Path) -> Vec<String> {
    let mut walk = Walk {
        layout,
        seen: BTreeSet::new(),
        findings: Vec::new(),
    };
    match document(&layout.join("oci-layout")) {
        Ok(marker) if marker["imageLayoutVersion"] == "1.0.0" => {}
        Ok(marker) => walk.findings.push(format!("oci-layout: {marker}")),
        Err(error) => walk.findings.push(error),
    }
    match document(&layout.join("index.json")) {
        Ok(index) => walk.follow(&index),
        Err(error) => walk.findings.push(error),
    }
    walk.findings
}

struct Walk<'a> {
    layout: &'a Path,
    seen: BTreeSet<String>,
    findings: Vec<String>,
}

impl Walk<'_> {
    /// Visits what a manifest or an index names, except its subject: that one may be
    /// elsewhere (image-spec manifest.md).
    fn follow(&mut self, document: &Value) {
        for entry in document["manifests"].as_array().into_iter().flatten() {
            self.visit(entry);
        }
        for layer in document["layers"].as_array().into_iter().flatten() {
            self.visit(layer);
        }
        if document["config"].is_object() {
            self.visit(&document["config"]);
        }
    }

    fn visit(&mut self, descriptor: &Value) {
        let digest = descriptor["digest"].as_str().unwrap_or_default().to_owned();
        if !self.seen.insert(digest.clone()) {
            return;
        }
        let path = self.layout.join("blobs").join(digest.replacen(':', "/", 1));
        if let Err(fault) = check(&path, &digest, descriptor["size"].as_u64()) {
            self.findings.push(format!("{digest}: {fault}"));
            return;
        }
        let media_type = descriptor["mediaType"].as_str().unwrap_or_default();
        if [
            "manifest.v1+json",
            "index.v1+json",
            "manifest.v2+json",
            "list.v2+json",
        ]
        .iter()
        .any(|end| media_type.ends_with(end))
        {
            match document(&path) {
                Ok(document) => self.follow(&document),
                Err(error) => self.findings.push(error),
            }
        }
    }
}

fn check(path: &Path, digest: &str, size: Option<u64>) -> Result<(), String> {
    let metadata = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    if Some(metadata.len()) != size {
        return Err(format!("{} bytes instead of {size:?}", metadata.len()));
    }
    let actual = sha256_of_file(path).map_err(|error| error.to_string())?;
    if actual.as_str() != digest {
        return Err(format!("holds {actual}"));
    }
    Ok(())
}

fn document(path: &Path) -> Result<Value, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}
